"""The pages about scoring variants are correct: their samples run, and their names are those of files."""

import json
import random
import re
import shutil

import polars as pl
import pysam
import pytest

from mutbert.effects.alleles import Reason
from mutbert.effects.scores import FIELDS

CLASSES = [
    *("Pathogenic", "Likely_pathogenic", "Pathogenic/Likely_pathogenic", "Benign", "Likely_benign"),
    *("Benign/Likely_benign", "Uncertain_significance", "Conflicting_classifications_of_pathogenicity"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch, model_folders, genome, contigs, lines, write, header):
    """The files that the samples use."""
    for name in ("model", "runs/a/model", "runs/b/model"):
        shutil.copytree(model_folders["mutbert"], tmp_path / name)
    shutil.copytree(genome, tmp_path / "population.genome")
    chance, every = random.Random(5), [(name, at) for name, text in contigs.items() for at in range(1, len(text))]
    known = [(name, at, contigs[name][at - 1]) for name, at in every if contigs[name][at - 1] in "ACGT"]
    # A background needs a hundred of a kind.
    snvs = [(*one, chance.choice("ACGT".replace(one[2], ""))) for one in sorted(chance.sample(known, 120))]
    records = [*lines(40), *(f"{c}\t{at}\t.\t{ref}\t{alt}\t.\tPASS\tAF=0.1" for c, at, ref, alt in snvs)]
    write(tmp_path / "variants.vcf.gz", sorted(records, key=lambda one: (one.split()[0], int(one.split()[1]))))
    classes = [f"{c}\t{at}\t.\t{r}\t{a}\t.\t.\tCLNSIG={CLASSES[n % 8]};MC=x" for n, (c, at, r, a) in enumerate(snvs)]
    declared = header + '##INFO=<ID=CLNSIG,Number=.,Type=String,Description="Clinical significance">\n'
    declared += '##INFO=<ID=MC,Number=.,Type=String,Description="Consequence">\n'
    write(tmp_path / "clinvar.vcf.gz", classes, header=declared)
    table = pl.DataFrame(snvs, schema=["chrom", "pos", "ref", "alt"], orient="row")
    numbers = range(len(snvs))
    table.with_columns(pl.Series("log2fc", [chance.gauss(0, 1) for _ in numbers])).write_csv(tmp_path / "mpra.csv")
    table.with_columns(
        pl.Series("class", [number % 2 for number in numbers]),
        pl.Series("af", [chance.random() for _ in numbers]),
        pl.Series("consequence", [["missense", "intron"][number // 2 % 2] for number in numbers]),
        pl.Series("to_splice", [chance.randint(-50, 50) for _ in numbers]),
    ).write_csv(tmp_path / "variants.tsv", separator="\t")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.nightly
def test_samples_of_scoring_run(folder, read_page, run_samples):
    names, _ = run_samples(read_page("docs/scoring.md"))
    assert set(names["report"].missing) == {"symbolic"}
    # The file is its own background, so that percentages go from 0 to 100.
    with pysam.VariantFile(str(folder / "percent.vcf.gz")) as file:
        percent = [one for record in file for one in record.info.get("MUTBERT_LLR_PCT", ()) if one is not None]
    assert (min(percent), max(percent), len(percent)) == (0, 100, names["report"].scored["snv"])


@pytest.mark.nightly
def test_samples_of_benchmarks_with_labels_run(folder, read_page, run_samples):
    section = read_page("docs/benchmarks.md", "## Variant effects")
    (folder / "mine.yaml").write_text(re.search("```yaml\n(.*?)```", section, re.DOTALL)[1])
    _, commands = run_samples(section)
    assert len(commands) == 4
    reports = [json.loads((folder / name / "vep.json").read_text()) for name in ("vep", "two", "mpra", "mine")]
    assert [report["problem"] for report in reports] == ["binary", "binary", "regression", "binary"]
    assert [reports[0]["parts"][0][count] for count in ("variants", "positives")] == [90, 45]
    assert {row["model"] for row in reports[1]["parts"][0]["rows"]} == {"a", "b", ""}


def test_reasons_of_the_page_are_those_of_files(read_page):
    rows = re.findall(r"^\| (`.*?) \|", read_page("docs/scoring.md", "## Alleles without a score"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(reason.text for reason in Reason if reason != Reason.SCORED)


def test_fields_of_the_page_are_those_of_files(read_page):
    fields = {*(name for own in FIELDS.values() for name in own), "AFLLR", "WHY"}
    assert set(re.findall(r"`MUTBERT_(\w+)`", read_page("docs/scoring.md", "## The scores"))) == fields
