"""What the pages about scoring variants say is so: their samples run, and their names are the program's."""

import csv
import json
import random
import re
import shlex
import shutil
from pathlib import Path

import pysam
import pytest
from typer.testing import CliRunner

from mutbert.cli.main import app
from mutbert.effects.alleles import Reason

DOCS = Path(__file__).resolve().parents[2] / "docs"
SAMPLE = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def snvs(contigs):
    """Different SNVs of known bases: contig, 1-based position, REF, ALT."""
    chance = random.Random(5)
    every = [
        (name, place + 1, ref, alt)
        for name, text in contigs.items()
        for place, ref in enumerate(text)
        for alt in "ACGT"
        if ref in "ACGT" and alt != ref
    ]
    return sorted(chance.sample(every, 120))


@pytest.fixture
def folder(tmp_path, monkeypatch, model, genome, lines, write, header, snvs):
    """What the samples take as given."""
    for name in ("model", "runs/a/model", "runs/b/model"):
        shutil.copytree(model, tmp_path / name)
    shutil.copytree(genome, tmp_path / "population.genome")
    # Of a background, a hundred of a kind are needed.
    records = [*lines(40), *("\t".join([c, str(p), ".", r, a, ".", "PASS", "AF=0.1"]) for c, p, r, a in snvs)]
    by_place = sorted((record.split("\t") for record in records), key=lambda words: (words[0], int(words[1])))
    write(tmp_path / "variants.vcf.gz", ["\t".join(words) for words in by_place])
    chance = random.Random(6)
    sides = [[word, f"Likely_{word.lower()}", f"{word}/Likely_{word.lower()}"] for word in ("Pathogenic", "Benign")]
    words = [*sides[0], *sides[1], "Uncertain_significance", "Conflicting_classifications_of_pathogenicity"]
    clinvar = [
        f"{contig}\t{position}\t.\t{ref}\t{alt}\t.\t.\tCLNSIG={words[number % 8]}"
        for number, (contig, position, ref, alt) in enumerate(snvs)
    ]
    declared = header + '##INFO=<ID=CLNSIG,Number=.,Type=String,Description="Clinical significance">\n'
    write(tmp_path / "clinvar.vcf.gz", clinvar, header=declared)
    for name, columns in (("variants.tsv", ["class", "af", "consequence", "to_splice"]), ("mpra.csv", ["log2fc"])):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if name.endswith(".tsv") else ",")
            writer.writerow(["chrom", "pos", "ref", "alt", *columns])
            for number, snv in enumerate(snvs):
                own = {
                    "class": number % 2,
                    "af": round(chance.random(), 3),
                    "consequence": ["missense", "intron"][number // 2 % 2],
                    "to_splice": chance.randint(-50, 50),
                    "log2fc": round(chance.gauss(0, 1), 3),
                }
                writer.writerow([*snv, *(own[column] for column in columns)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_samples(page, text):
    """Run every sample of a page, or of a part of it, in this folder; gives what was printed."""
    names, printed = {}, []
    samples = SAMPLE.findall(text)
    assert samples
    for language, sample in samples:
        if language == "python":
            exec(compile(sample, page, "exec"), names)
            continue
        for line in sample.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line, comments=True)
            assert program == "mutbert"
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, f"{line}\n{done.output}"
            printed.append(done.output)
    return names, printed


def test_samples_of_scoring_run(folder):
    names, _ = run_samples("scoring.md", (DOCS / "scoring.md").read_text(encoding="utf-8"))
    found = {}
    for name in ("scored", "again", "percent"):
        with pysam.VariantFile(str(folder / f"{name}.vcf.gz")) as file:
            found[name] = [
                {field: values for field, values in record.info.items() if field.startswith("MUTBERT_")}
                for record in file
            ]
    assert found["scored"] == found["again"]
    report = names["report"]
    for field, count in (("LLR", report.scored["snv"]), ("PLLR", report.scored["mnv"] + report.scored["indel"])):
        values = [
            value for record in found["again"] for value in record.get(f"MUTBERT_{field}", ()) if value is not None
        ]
        assert len(values) == count > 10
    assert set(report.missing) == {"symbolic"}
    # The file is its own background, so that percentages go from 0 to 100 as ratios fall.
    pairs = [
        pair
        for record in found["percent"]
        if "MUTBERT_LLR" in record
        for pair in zip(record["MUTBERT_LLR"], record["MUTBERT_LLR_PCT"], strict=True)
    ]
    assert len(pairs) == report.scored["snv"]
    percentages = [percentage for _, percentage in sorted(pairs, reverse=True)]
    assert percentages == sorted(percentages)
    assert (percentages[0], percentages[-1]) == (0, 100)
    assert 45 < sum(percentages) / len(percentages) < 55
    assert not any("MUTBERT_LLR_PCT" in record for record in found["scored"])


def test_samples_of_benchmarks_with_labels_run(folder):
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    section = re.search(r"^## Variant effects\n(.*?)^## ", page, re.DOTALL | re.MULTILINE)[1]
    _, printed = run_samples("benchmarks.md", section)
    assert len(printed) == 3
    reports = [json.loads((folder / name / "vep.json").read_text()) for name in ("vep", "two", "mpra")]
    assert [report["problem"] for report in reports] == ["binary", "binary", "regression"]
    assert reports[0]["left_out"] == {"Conflicting_classifications_of_pathogenicity": 15, "Uncertain_significance": 15}
    assert [reports[0]["parts"][0][count] for count in ("variants", "positives")] == [90, 45]
    assert not any("No variant has the value" in note for note in reports[0]["notes"])
    assert {"allele frequency", "splice distance"} < {row["predictor"] for row in reports[1]["parts"][0]["rows"]}
    assert {row["model"] for row in reports[1]["parts"][0]["rows"]} == {"a", "b", ""}
    assert [part["name"] for part in reports[1]["parts"]] == ["all variants", "intron", "missense"]


def test_reasons_of_the_page_are_those_of_files():
    page = (DOCS / "scoring.md").read_text(encoding="utf-8")
    section = re.search(r"^## Alleles without a score\n(.*?)^## ", page, re.DOTALL | re.MULTILINE)[1]
    named = [
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(named) == sorted(reason.text for reason in Reason if reason != Reason.SCORED)


def test_fields_of_the_page_are_those_of_files(folder):
    page = (DOCS / "scoring.md").read_text(encoding="utf-8")
    section = re.search(r"^## The scores\n(.*?)^## ", page, re.DOTALL | re.MULTILINE)[1]
    words = "score --model model --genome population.genome --vcf variants.vcf.gz --scores llr,unmasked,distance"
    done = CliRunner().invoke(app, [*words.split(), "--frequency-field", "AF", "-o", "all.vcf"])
    assert done.exit_code == 0, done.output
    with pysam.VariantFile("all.vcf") as file:
        written = {name for name in file.header.info if name.startswith("MUTBERT")}
    assert set(re.findall(r"`(MUTBERT_\w+)`", section)) == written
