"""Every SNV of a genome against `score` on a VCF of all of them, which a plain loop writes."""

import re

import polars as pl
import pyBigWig
import pysam
import pytest
from polars import selectors as cs
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from mutbert import MutBertForMaskedLM, build_genome, score_all_snvs, score_variants
from mutbert.cli.main import app
from mutbert.errors import InputError

USUAL = {"context": 30, "batch_size": 64}
# They cut cells of the grid, at contigs' ends too, and one is inside another.
REGIONS = ["chr1:391-412", "chr1:497-508", "chr1:440-450", "chr1:445", "chr2:1-40", "chr2:251-300"]


@pytest.fixture(scope="module")
def population(genome, contigs, write, tmp_path_factory):
    """A store of the sequences with variants, in and around the regions."""
    folder = tmp_path_factory.mktemp("population")
    known = [(name, at, text[at - 1]) for name, text in contigs.items() for at in range(2, len(text), 5)]
    rows = [f"{name}\t{at}\t.\t{ref}\t{'CA'[ref == 'C']}\t.\tPASS\tAF=0.3" for name, at, ref in known if ref in "ACGT"]
    build_genome(genome.parent / "ref.fa", folder / "x.genome", write(folder / "x.vcf", rows), min_frequency=0)
    return folder / "x.genome"


@pytest.fixture(scope="module")
def every(contigs, write, tmp_path_factory):
    """The bases of the regions, and a VCF of all their SNVs."""
    spans = [
        (name, int(first), int([*last, first][0])) for name, first, *last in (re.split("[:-]", r) for r in REGIONS)
    ]
    asked = sorted({(name, at, contigs[name][at - 1]) for name, first, last in spans for at in range(first, last + 1)})
    known = [(*one, alt) for one in asked if one[2] in "ACGT" for alt in "ACGT" if alt != one[2]]
    rows = [f"{name}\t{at}\t.\t{ref}\t{alt}\t.\t.\t." for name, at, ref, alt in known]
    return [base for _, _, base in asked], write(tmp_path_factory.mktemp("every") / "every.vcf", rows)


@pytest.mark.parametrize(
    "settings",
    [
        {"scores": ("llr", "unmasked")},
        {"strands": "forward", "windows": "shared", "context": 48},
        {"surroundings": "population", "windows": "shared"},
        {"surroundings": "population", "scores": ("unmasked",), "strands": "forward"},
    ],
)
def test_scores_are_those_of_a_vcf_of_all_snvs(loaded, population, every, tmp_path, settings):
    (bases, vcf), settings = every, USUAL | settings
    if "windows" not in settings:
        background = score_variants(loaded, population, vcf, tmp_path / "b.json", calibrate=True, **settings).output
        settings |= {"calibration": background}
    expected = pl.read_parquet(score_variants(loaded, population, vcf, tmp_path / "e.parquet", **settings).output)
    for size in (7, 1 << 14):
        output = tmp_path / f"{size}.parquet"
        report = score_all_snvs(loaded, population, output, region=REGIONS, part_records=size, **settings)
        found = pl.read_parquet(output)
        # A rounding moves a score by one rank in its own background.
        for columns, most in ((cs.ends_with("_PCT"), 0.5), (~cs.ends_with("_PCT"), 1e-5)):
            pair = (one.select(columns) for one in (found, expected))
            assert_frame_equal(*pair, check_exact=False, rel_tol=0, abs_tol=most)
    assert report.without_snvs == {"unknown_reference": bases.count("N"), "ambiguous_reference": bases.count("R")}
    assert report.records + sum(report.without_snvs.values()) == len(bases)
    assert (report.alleles, report.scored, report.missing) == (len(expected), {"snv": len(expected)}, {})


def test_a_vcf_a_directory_and_tracks_have_the_numbers_of_the_table(loaded, genome, tmp_path):
    (tmp_path / "some.bed").write_text("chr1\t380\t440\nchr2\t0\t60\n")
    how = {**USUAL, "bed": tmp_path / "some.bed", "part_records": 50}
    report = score_all_snvs(loaded, genome, tmp_path / "x.vcf.gz", table=tmp_path / "x.parquet", **how)
    table = pl.read_parquet(tmp_path / "x.parquet")
    with pysam.VariantFile(str(report.output), index_filename=str(report.index)) as file:
        records = [record for name in ("chr1", "chr2") for record in file.fetch(name)]
    scores = [(one, n, (one.info["MUTBERT_LLR"][n], one.info["MUTBERT_ENT"][n])) for one in records for n in range(3)]
    found = [(one.chrom, one.pos, one.ref, one.alts[n], *values) for one, n, values in scores]
    columns = ["chrom", "pos", "ref", "alt", "LLR", "ENT"]
    found = pl.DataFrame(found, schema={name: table.schema[name] for name in columns}, orient="row")
    assert_frame_equal(found, table.select(columns), check_exact=False, rel_tol=1e-5, abs_tol=1e-6)
    folder = score_all_snvs(loaded, genome, f"{tmp_path}/scores/", **how).output
    assert pl.concat([pl.read_parquet(folder / f"{name}.parquet") for name in ("chr1", "chr2")]).equals(table)
    lowest = {key: min(rows["LLR"]) for key, rows in table.group_by("chrom", "pos")}
    with pyBigWig.open(str(score_all_snvs(loaded, genome, tmp_path / "x.bw", **how).output)) as file:
        values = {(name, end): value for name in file.chroms() for _, end, value in file.intervals(name)}
    assert values == lowest
    lines = score_all_snvs(loaded, genome, tmp_path / "x.bedgraph", **how).output.read_text().splitlines()[1:]
    words = [line.split("\t") for line in lines]
    assert {(name, int(end)): pytest.approx(float(value)) for name, _, end, value in words} == lowest


def test_a_position_is_one_window_and_finished_parts_are_not_repeated(genome, model_folders, tmp_path):
    model, output, windows = MutBertForMaskedLM.from_pretrained(model_folders["mutbert"]), tmp_path / "x.tsv", []

    def count(_, __, given):
        windows.append(len(given["input_ids"]))
        if len(windows) == 5:
            raise KeyboardInterrupt

    model.bert.register_forward_pre_hook(count, with_kwargs=True)
    how = {**USUAL, "strands": "forward", "region": "chr1:1-200", "part_records": 20}
    with pytest.raises(KeyboardInterrupt):
        score_all_snvs(model, genome, output, **how)
    score_all_snvs(model, genome, output, resume=True, **how)
    # The fifth part was begun twice.
    assert (len(windows), sum(windows)) == (11, 220)
    score_all_snvs(model, genome, tmp_path / "whole.tsv", **{**how, "part_records": 200})
    assert output.read_text() == (tmp_path / "whole.tsv").read_text()


@pytest.mark.parametrize(
    ("output", "settings", "message"),
    [
        ("x.txt", {}, r"x\.txt: the suffix chooses the format"),
        ("x.bw", {"scores": ("llr", "distance")}, "a distance takes a forward pass an alternate"),
        ("x.bw", {"region": "chr1:402-405"}, "all bases that are asked for are N"),
        ("x.bw", {"region": "chr1", "bed": "some.bed"}, "regions are named as well as a BED file"),
        ("x.bw", {"surroundings": "person", "sample": "eve"}, "give --person-vcf FILE"),
        ("x.vcf", {"prefix": "a b"}, "prefix is 'a b'"),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(genome, tmp_path, output, settings, message):
    with pytest.raises(InputError, match=message):
        score_all_snvs("no/model", genome, tmp_path / output, **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--flank 3 --frequency-field AF", "--all-snvs: --flank is for the records of a VCF; leave it out"),
        ("--vcf x.vcf", "needs a --vcf, --all-snvs, or alleles"),
        ("", "an --output is needed"),
    ],
)
def test_options_of_records_are_none_of_all_snvs(words, message):
    done = CliRunner().invoke(app, f"score --all-snvs --model m --genome g {'-o x.bw' * bool(words)} {words}".split())
    assert message in str(done.exception)
