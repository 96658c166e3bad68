"""The pages about scoring variants are correct: their samples run, and their names are those of files."""

import json
import re
import shutil

import polars as pl
import pysam
import pytest
from typer.testing import CliRunner

from mutbert.cli.main import app
from mutbert.effects.alleles import Reason


@pytest.fixture
def folder(tmp_path, monkeypatch, model, genome, contigs, lines, write, header):
    """The files that the samples use."""
    for name in ("model", "runs/a/model", "runs/b/model"):
        shutil.copytree(model, tmp_path / name)
    shutil.copytree(genome, tmp_path / "population.genome")
    places = [(name, at + 1, text[at]) for name, text in contigs.items() for at in range(0, len(text), 7)]
    snvs = [(*place, "ACGT"["ACGT".index(place[2]) - 1]) for place in places if place[2] in "ACGT"][:120]
    # Of a background, a hundred of a kind are needed.
    records = [*lines(40), *(f"{c}\t{p}\t.\t{r}\t{a}\t.\tPASS\tAF=0.1" for c, p, r, a in snvs)]
    write(tmp_path / "variants.vcf.gz", sorted(records, key=lambda one: (one.split()[0], int(one.split()[1]))))
    sides = [[word, f"Likely_{word.lower()}", f"{word}/Likely_{word.lower()}"] for word in ("Pathogenic", "Benign")]
    words = [*sides[0], *sides[1], "Uncertain_significance", "Conflicting_classifications_of_pathogenicity"]
    clinvar = [f"{c}\t{p}\t.\t{r}\t{a}\t.\t.\tCLNSIG={words[n % 8]}" for n, (c, p, r, a) in enumerate(snvs)]
    declared = header + '##INFO=<ID=CLNSIG,Number=.,Type=String,Description="Clinical significance">\n'
    write(tmp_path / "clinvar.vcf.gz", clinvar, header=declared)
    number = pl.int_range(pl.len())
    table = pl.DataFrame(snvs, schema=["chrom", "pos", "ref", "alt"], orient="row").with_columns(
        number.mod(2).alias("class"), (number * 7 % 101 / 101).alias("af"), (number * 3 % 11 - 5).alias("to_splice"),
        pl.when(number // 2 % 2 == 0).then(pl.lit("missense")).otherwise(pl.lit("intron")).alias("consequence"),
        number.sin().alias("log2fc"),
    )  # fmt: skip
    table.drop("log2fc").write_csv(tmp_path / "variants.tsv", separator="\t")
    table.select("chrom", "pos", "ref", "alt", "log2fc").write_csv(tmp_path / "mpra.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.nightly
def test_samples_of_scoring_run(folder, read_page, run_samples):
    names, _ = run_samples(read_page("docs/scoring.md"))
    found = {}
    for name in ("scored", "again", "percent"):
        with pysam.VariantFile(str(folder / f"{name}.vcf.gz")) as file:
            found[name] = [dict(record.info) for record in file]
    ratios = [[info.get("MUTBERT_LLR") for info in found[name]] for name in ("scored", "again")]
    assert ratios[0] == ratios[1]
    # The file is its own background, so that percentages go from 0 to 100 as ratios fall.
    infos = [info for info in found["percent"] if "MUTBERT_LLR" in info]
    pairs = [pair for info in infos for pair in zip(info["MUTBERT_LLR"], info["MUTBERT_LLR_PCT"], strict=True)]
    assert len(pairs) == names["report"].scored["snv"]
    percentages = [percentage for _, percentage in sorted(pairs, reverse=True)]
    assert (percentages, percentages[0], percentages[-1]) == (sorted(percentages), 0, 100)


@pytest.mark.nightly
def test_samples_of_benchmarks_with_labels_run(folder, read_page, run_samples):
    run_samples(read_page("docs/benchmarks.md", "## Variant effects"))
    reports = [json.loads((folder / name / "vep.json").read_text()) for name in ("vep", "two", "mpra")]
    assert [report["problem"] for report in reports] == ["binary", "binary", "regression"]
    assert [reports[0]["parts"][0][count] for count in ("variants", "positives")] == [90, 45]
    assert {row["model"] for row in reports[1]["parts"][0]["rows"]} == {"a", "b", ""}


def test_reasons_of_the_page_are_those_of_files(read_page):
    rows = re.findall(r"^\| (`.*?) \|", read_page("docs/scoring.md", "## Alleles without a score"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(reason.text for reason in Reason if reason != Reason.SCORED)


def test_fields_of_the_page_are_those_of_files(folder, read_page):
    section = read_page("docs/scoring.md", "## The scores")
    words = "score --model model --genome population.genome --vcf variants.vcf.gz --scores llr,unmasked,distance"
    done = CliRunner().invoke(app, [*words.split(), "--frequency-field", "AF", "-o", "all.vcf"])
    assert done.exit_code == 0, done.output
    with pysam.VariantFile("all.vcf") as file:
        written = {name for name in file.header.info if name.startswith("MUTBERT")}
    assert set(re.findall(r"`(MUTBERT_\w+)`", section)) == written
