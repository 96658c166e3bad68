"""Whose genotypes are counted: lists of names, panels with populations, one person; files that have some of them."""

import hashlib
import json

import pytest

from mutbert.errors import InputError
from mutbert.genome.build import build_genome
from mutbert.genome.sources import read_samples
from mutbert.genome.store import FREQUENCY_ONE, ProbabilisticGenome

PANEL = "sample\tpop\tsuper_pop\tgender\t\t\nHG1\tGBR\tEUR\tmale\nHG2\tFIN\tEUR\tfemale\nNA3\tYRI\tAFR\tmale\t\t\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "samples.txt"

    def write(text):
        path.write_text(text, newline="")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "population", "names"),
    [
        ("b\na\n", None, ["b", "a"]),
        ("# people\n\nb\r\na", None, ["b", "a"]),
        (PANEL, None, ["HG1", "HG2", "NA3"]),
        (PANEL, "EUR", ["HG1", "HG2"]),
        (PANEL, "YRI", ["NA3"]),
        (PANEL, "male", ["HG1", "NA3"]),
        (PANEL.replace("\t", " "), "FIN", ["HG2"]),
        # The name itself is no population.
        ("GBR x\nHG1 GBR\n", "GBR", ["HG1"]),
    ],
)
def test_lists_and_panels_are_read(file, text, population, names):
    assert read_samples(file(text), population) == names


@pytest.mark.parametrize(
    ("text", "population", "message"),
    [
        (PANEL, "AMR", "no sample of population AMR; there are GBR, EUR, male, FIN, female, YRI, AFR"),
        (PANEL, "eur", "no sample of population eur"),
        ("a\nb\n", "EUR", "no sample of population EUR; there are none"),
        ("", None, "names no sample"),
        ("# nobody\n\n", None, "names no sample"),
        ("a\nb\na\n", None, "sample a comes twice"),
    ],
)
def test_lists_that_cannot_be_used_are_refused(file, text, population, message):
    with pytest.raises(InputError, match=f"samples.txt: {message}"):
        read_samples(file(text), population)


def vcf_of(path, samples, rows):
    """Write records given as (chrom, pos, ref, alt, genotype of each sample)."""
    header = '##fileformat=VCFv4.2\n##INFO=<ID=AF,Number=A,Type=Float,Description="">\n'
    header += '##FORMAT=<ID=GT,Number=1,Type=String,Description="">\n'
    header += "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *samples]) + "\n"
    lines = [f"{c}\t{p}\t.\t{r}\t{a}\t.\tPASS\tAF=0.9\tGT\t" + "\t".join(calls) + "\n" for c, p, r, a, *calls in rows]
    path.write_text(header + "".join(lines))
    return path


@pytest.fixture
def files(tmp_path, write_fasta):
    """A contig that all three people have, and one that only the two men have, in a file of its own."""
    fasta = write_fasta(tmp_path / "x.fa", {"chr1": "ACGT" * 5, "chrY": "ACGT" * 5})
    rows = [("1", 1, "A", "C", "0|1", "1|1", "0|0"), ("1", 2, "C", "G,T", "1|2", "0|0", "./2")]
    every = vcf_of(tmp_path / "1.vcf", ["HG1", "HG2", "NA3"], rows)
    men = vcf_of(tmp_path / "Y.vcf", ["NA3", "HG1"], [("Y", 5, "A", "T", "1", "0"), ("Y", 6, "C", "T", "0", "1")])
    return fasta, [every, men]


def rows_of(path):
    genome = ProbabilisticGenome.open(path)
    return {
        (name, int(place)): pytest.approx(row, abs=1 / FREQUENCY_ONE)
        for name in genome.contigs
        for place, row in zip(genome.variants(name).position, genome.variants(name).frequency.tolist(), strict=True)
    }


def test_a_file_may_have_some_of_the_samples(tmp_path, files):
    fasta, vcfs = files
    report = build_genome(fasta, tmp_path / "x.genome", vcfs, samples=["HG2", "HG1", "NA3"])
    assert rows_of(report["path"]) == {
        ("chr1", 0): [1 / 2, 1 / 2, 0, 0],
        ("chr1", 1): [0, 2 / 5, 1 / 5, 2 / 5],
        ("chrY", 4): [1 / 2, 0, 0, 1 / 2],
        ("chrY", 5): [0, 1 / 2, 0, 1 / 2],
    }
    assert {counts["frequency_from"] for counts in report["records"]} == {"genotypes"}
    settings = json.loads((report["path"] / "manifest.json").read_text())["settings"]
    assert settings["samples"] == {"number": 3, "sha256": hashlib.sha256(b"HG1\nHG2\nNA3").hexdigest()}
    assert settings["frequency_field"] == "GT"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": "HG9"}, r"1\.vcf, .*Y\.vcf: no sample HG9; there are HG1, HG2, NA3"),
        ({"samples": ["HG1", "HG8", "HG9"]}, "no sample HG8, HG9; there are"),
        ({"sample": "HG2"}, r"Y\.vcf: has none of the chosen samples"),
        ({"sample": "HG1", "samples": ["HG1"]}, "one sample and a list"),
        ({"population": "EUR"}, "population EUR: needs a panel file"),
        ({"population": "EUR", "samples": ["HG1"]}, "population EUR: needs a panel file"),
        ({"sample": "HG1", "frequency_field": "EUR_AF"}, "samples are chosen, so genotypes are counted"),
    ],
)
def test_samples_that_cannot_be_counted_are_refused(tmp_path, files, options, message):
    fasta, vcfs = files
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message) as refusal:
        build_genome(fasta, tmp_path / "x.genome", vcfs, **options)
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.iterdir()) == before
