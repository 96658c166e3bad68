"""Scores against labels: planted labels, baselines by hand, and every way to spoil a table."""

import contextlib
import csv
import gzip
import json
import random
import subprocess
import sys
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutbert import ProbabilisticGenome, VepColumns, evaluate_variant_effects
from mutbert.cli.main import run as program
from mutbert.effects.alleles import Kind, find_alleles
from mutbert.effects.scores import ScoreSettings
from mutbert.errors import InputError
from mutbert.evaluation.vep import _ALLELES_AT_ONCE
from mutbert.evaluation.vep_baselines import (
    CHANGES,
    Folds,
    Predictor,
    changes,
    cross_validated,
    gc,
    indel_lengths,
    make_folds,
    store_frequencies,
    trivial_baselines,
)
from mutbert.evaluation.vep_parts import Measured, Measuring, measure_parts
from mutbert.evaluation.vep_table import columns_of, read_labelled
from mutbert.genome.build import build_genome
from mutbert.model import MutBertForMaskedLM, MutBertTokenizer

CONTEXT = 30
QUICK = {"settings": ScoreSettings(context=CONTEXT, strands="forward"), "resamples": 200}
TURN = str.maketrans("ACGT", "TGCA")
FILES = (".mutbert.json", "report.html", "scores.parquet", "table.csv", "vep.json")


@pytest.fixture(scope="module")
def sequences():
    chance = random.Random(3)
    one = "".join(chance.choices("ACGT", weights=(3, 3, 3, 2), k=900))
    return {
        "chr1": one[:300] + "N" * 10 + one[310:],
        "chr2": "".join(chance.choices("ACGT", k=500)),
        "chr3": "ACGTACGTA",
    }


@pytest.fixture(scope="module")
def population(sequences):
    """Alleles with a frequency: contig, 1-based position, REF, ALT and AF."""
    found = []
    for place, (contig, position) in enumerate([("chr1", 5), ("chr1", 100), ("chr2", 17), ("chr2", 400)]):
        ref = sequences[contig][position - 1]
        found.append((contig, position, ref, "ACGT"[("ACGT".index(ref) + 1) % 4], (place + 1) / 8))
    return found


@pytest.fixture(scope="module")
def genome(tmp_path_factory, sequences, population):
    folder = tmp_path_factory.mktemp("genome")
    fasta, vcf = folder / "ref.fa", folder / "calls.vcf"
    fasta.write_text("".join(f">{name}\n{text}\n" for name, text in sequences.items()))
    lines = [f"{c}\t{p}\t.\t{r}\t{a}\t.\tPASS\tAF={f}\n" for c, p, r, a, f in population]
    vcf.write_text(
        "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n##contig=<ID=chr2>\n"
        '##INFO=<ID=AF,Number=A,Type=Float,Description="f">\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n'
        + "".join(lines)
    )
    build_genome(fasta=[fasta], vcf=[vcf], output=folder / "small.genome")
    return ProbabilisticGenome.open(folder / "small.genome")


@pytest.fixture(scope="module")
def plain_genome(tmp_path_factory, sequences):
    """The same without a population."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "ref.fa").write_text("".join(f">{name}\n{text}\n" for name, text in sequences.items()))
    build_genome(fasta=[folder / "ref.fa"], output=folder / "plain.genome")
    return ProbabilisticGenome.open(folder / "plain.genome")


@pytest.fixture(scope="module")
def model(model_folders):
    return MutBertForMaskedLM.from_pretrained(model_folders["mutbert"])


@pytest.fixture(scope="module")
def snvs(sequences):
    """160 different SNVs of two contigs: contig, 1-based position, REF, ALT."""
    chance = random.Random(7)
    every = [
        (contig, place + 1, ref, alt)
        for contig in ("chr1", "chr2")
        for place, ref in enumerate(sequences[contig])
        for alt in "ACGT"
        if ref not in {alt, "N"}
    ]
    return sorted(chance.sample(every, 160))


@pytest.fixture(scope="module")
def ratios(model, sequences, snvs):
    """The masked ratio of each, by the model run on one text at a time."""
    tokenizer = MutBertTokenizer(model_max_length=64)
    model.eval()
    found = []
    for contig, position, ref, alt in snvs:
        text = sequences[contig]
        start = min(max(position - 1 - CONTEXT // 2, 0), len(text) - CONTEXT)
        at = position - 1 - start
        ids = tokenizer(text[start : start + CONTEXT], return_tensors="pt")["input_ids"]
        ids[0, at + 1] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, at + 1]
        of = dict(zip("ACGT", logits[5:9].log_softmax(0).tolist(), strict=True))
        found.append(of[alt] - of[ref])
    return np.array(found)


def write(path, rows, header=("chrom", "pos", "ref", "alt", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t").writerows([header, *rows])
    return path


def labelled(snvs, labels):
    return [(*snv, label) for snv, label in zip(snvs, labels, strict=True)]


def evaluate(model, genome, table, output, *, columns=None, page=False, **others):
    """Run it; drawing takes most of the time, so that the page is only made where it is looked at."""
    with contextlib.nullcontext() if page else mock.patch("mutbert.evaluation.vep.write_vep_page"):
        return evaluate_variant_effects(
            model, genome, table, output, columns=columns or VepColumns(label="label"), **{**QUICK, **others}
        ).report


def row_of(part, predictor):
    return next(row for row in part.rows if row.predictor.endswith(predictor))


def part_of(report, name, target=None):
    return next(part for part in report.parts if part.name == name and target in {None, part.target})


@pytest.fixture(scope="module")
def planted(tmp_path_factory, model, genome, snvs, ratios):
    """Labels are 1 where the ratio computed by hand is low; frequency, distance and group stand beside."""
    folder = tmp_path_factory.mktemp("planted")
    label = (ratios < np.median(ratios)).astype(int)
    chance = random.Random(1)
    rows = [
        (*snv, one, chance.random(), "" if place % 8 == 0 else chance.randint(-99, 99), "odd" if place % 2 else "even")
        for place, (snv, one) in enumerate(zip(snvs, label, strict=True))
    ]
    header = ("chrom", "pos", "ref", "alt", "label", "af", "splice", "group")
    table = write(folder / "t.csv", rows, header)
    columns = VepColumns(label="label", frequency="af", splice_distance="splice", group="group")
    report = evaluate(model, genome, table, folder / "out", columns=columns, page=True)
    return {
        "report": report,
        "folder": folder / "out",
        "rows": rows,
        "label": label,
        "table": table,
        "columns": columns,
    }


def test_planted_labels_are_found_exactly(planted):
    first = planted["report"].parts[0]
    found = row_of(first, " LLR")
    assert found.measures["auroc"] == (1.0, 1.0, 1.0)
    assert found.measures["auprc"] == (1.0, 1.0, 1.0)
    assert found.end == "low"
    best = max((row for row in first.rows if not row.model), key=lambda row: row.measures["auroc"].value)
    assert found.difference.baseline == best.predictor
    assert found.difference.difference == pytest.approx(1 - best.measures["auroc"].value)
    assert found.difference.adjusted < 0.05
    assert found.difference.low > 0


def test_scores_are_those_computed_by_hand(planted, ratios, snvs):
    table = pa.parquet.read_table(planted["folder"] / "scores.parquet").to_pylist()
    assert [(row["chromosome"], row["position"], row["ref"], row["alt"]) for row in table] == snvs
    name = next(name for name in table[0] if name.endswith(" LLR"))
    np.testing.assert_allclose([row[name] for row in table], ratios, atol=2e-5)
    magnitude = next(name for name in table[0] if name.endswith("|LLR|"))
    np.testing.assert_allclose([row[magnitude] for row in table], np.abs(ratios), atol=2e-5)
    assert [row["target"] for row in table] == planted["label"].tolist()
    assert {row["reason"] for row in table} == {""}
    assert {row["kind"] for row in table} == {"SNV"}


def test_areas_are_the_shares_of_pairs_in_the_right_order(planted):
    """AUROC by its definition, of the variants that have everything, for columns as the table has them."""
    rows = [row for row in planted["rows"] if row[6] != ""]
    for name, column in (
        ("allele frequency", [-row[5] for row in rows]),
        ("splice distance", [-abs(row[6]) for row in rows]),
    ):
        high, low = ([value for value, row in zip(column, rows, strict=True) if row[4] == label] for label in (1, 0))
        expected = np.mean([(one > other) + 0.5 * (one == other) for one in high for other in low])
        assert row_of(planted["report"].parts[0], name).measures["auroc"].value == pytest.approx(expected, abs=1e-12)


def test_all_are_compared_on_the_same_variants_and_what_is_missing_is_said(planted):
    report, rows = planted["report"], planted["rows"]
    first = report.parts[0]
    whole = [row for row in rows if row[6] != ""]
    assert (first.variants, first.compared) == (160, len(whole)) == (160, 140)
    assert (first.positives, first.compared_positives) == (80, sum(row[4] for row in whole))
    assert {row.predictor: row.missing for row in first.rows if row.missing} == {"splice distance": 20}
    # On all variants, the ratio tells the planted labels as well.
    assert row_of(first, " LLR").alone == 1.0
    assert any("140 of 160" in note and "splice distance (20)" in note for note in report.notes)
    assert report.not_used == {}


def test_groups_are_parts_of_their_own(planted):
    report = planted["report"]
    assert [part.name for part in report.parts] == ["all variants", "even", "odd"]
    assert sum(part.variants for part in report.parts[1:]) == 160
    assert part_of(report, "odd").compared == sum(row[7] == "odd" and row[6] != "" for row in planted["rows"])
    assert row_of(part_of(report, "odd"), " LLR").measures["auroc"].value == 1.0


def test_table_and_json_say_the_same(planted):
    with (planted["folder"] / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    whole = json.loads((planted["folder"] / "vep.json").read_text(), parse_constant=pytest.fail)
    assert whole["version"] == 1
    assert set(whole["made_of"]) >= {"variants", "columns", "models", "genomes", "versions", "seed"}
    flat = [(part, row) for part in whole["parts"] for row in part["rows"]]
    assert len(rows) == len(flat)
    for cells, (part, row) in zip(rows, flat, strict=True):
        assert (cells["part"], cells["predictor"], cells["end"]) == (part["name"], row["predictor"], row["end"])
        assert float(cells["auroc"]) == pytest.approx(row["measures"]["auroc"]["value"])
        assert float(cells["auprc_high"]) == pytest.approx(row["measures"]["auprc"]["high"])
        assert float(cells["chance_auprc"]) == pytest.approx(part["compared_positives"] / part["compared"])
        assert (cells["p_holm"] == "") == (row["difference"] is None) == (row["model"] == "")


def test_the_same_seed_gives_the_same_bytes_however_the_work_is_cut(planted, tmp_path, model, genome, monkeypatch):
    monkeypatch.setattr("mutbert.evaluation.vep._ALLELES_AT_ONCE", 7)
    evaluate(model, genome, planted["table"], tmp_path / "again", columns=planted["columns"])
    assert (tmp_path / "again" / "table.csv").read_bytes() == (planted["folder"] / "table.csv").read_bytes()
    monkeypatch.undo()
    evaluate(model, genome, planted["table"], tmp_path / "third", columns=planted["columns"], page=True)
    assert sorted(path.name for path in (tmp_path / "third").iterdir()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / "third" / name).read_bytes() == (planted["folder"] / name).read_bytes(), name


def test_shuffled_labels_are_not_told(ratios):
    """Of forty shuffles, about 38 intervals hold 0.5, and hardly any score is told from the best baseline."""
    rng = np.random.default_rng(0)
    predictors = (Predictor("LLR", "m", "", -1), Predictor("GC content", "", "", 1))
    values = np.stack([ratios, rng.random(160)], axis=1)
    kinds = np.full(160, Kind.SNV, dtype=np.uint8)
    held = told = 0
    for _ in range(40):
        measured = Measured(predictors, values, kinds, rng.permutation([0.0, 1.0] * 80), "binary", ("0", "1"), None)
        (part,), note = measure_parts(measured, Measuring("damaging", 200, 0), lambda *_, **__: None)
        low, high = part.rows[0].measures["auroc"][1:]
        assert 0.1 < high - low < 0.25
        held += low < 0.5 < high
        told += part.rows[0].difference.p_value < 0.05
        assert note == ""
    assert held >= 35
    assert told <= 6


def test_a_vcf_says_what_the_table_says(planted, tmp_path, model, genome):
    """AF is of each alternate; the group and the label are of the record."""
    head = (
        "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n##contig=<ID=chr2>\n"
        '##INFO=<ID=AF,Number=A,Type=Float,Description="f">\n##INFO=<ID=CLNSIG,Number=.,Type=String,Description="l">\n'
        '##INFO=<ID=SPL,Number=1,Type=Integer,Description="s">\n##INFO=<ID=ODD,Number=0,Type=Flag,Description="g">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    )
    lines = []
    for contig, position, ref, alt, label, af, splice, group in planted["rows"]:
        info = [f"AF={af}", f"CLNSIG={'Pathogenic' if label else 'Benign'}"]
        info += [f"SPL={splice}"] * (splice != "") + ["ODD"] * (group == "odd")
        lines.append(f"{contig}\t{position}\t.\t{ref}\t{alt}\t.\t.\t{';'.join(info)}\n")
    for name in ("t.vcf", "t.vcf.gz"):
        path = tmp_path / name
        data = (head + "".join(lines)).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        columns = VepColumns(
            label="CLNSIG", positive=("Pathogenic",), frequency="AF", splice_distance="SPL", group="ODD"
        )
        report = evaluate(model, genome, path, tmp_path / f"{name}.out", columns=columns)
        assert report.classes == ("Benign", "Pathogenic")
        for mine, other in zip(report.parts, planted["report"].parts, strict=True):
            assert mine.rows == other.rows
            assert (mine.variants, mine.compared, mine.positives) == (other.variants, other.compared, other.positives)


def test_alternates_of_a_record_are_rows_of_their_own(tmp_path, sequences):
    ref = sequences["chr2"][9]
    first, second = [base for base in "ACGT" if base != ref][:2]
    path = tmp_path / "t.vcf"
    path.write_text(
        "##fileformat=VCFv4.2\n##contig=<ID=chr2>\n"
        '##INFO=<ID=E,Number=A,Type=Float,Description="e">\n##INFO=<ID=R,Number=R,Type=Float,Description="r">\n'
        '##INFO=<ID=G,Number=1,Type=String,Description="g">\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n'
        f"chr2\t10\t.\t{ref}\t{first},{second}\t.\t.\tE=0.5,.;R=0.7,0.1,0.2;G=a\n"
        f"chr2\t11\t.\t{sequences['chr2'][10]}\t.\t.\t.\tE=1;E=2\n"
    )
    found = read_labelled(path, VepColumns(effect="E", frequency="R", group="G"))
    assert found.alternates == [first, second, "."]
    np.testing.assert_array_equal(found.labels.label_N, [0.5, np.nan, 1])
    np.testing.assert_array_equal(found.frequency_N, [0.1, 0.2, np.nan])
    assert found.labels.reason_N.tolist() == ["", "no_label", ""]
    assert found.groups == ["a", "a", ""]


def test_everything_that_is_not_used_is_counted(tmp_path, model, genome, snvs, sequences):
    rows = labelled(snvs, ["P", "B"] * 80)
    contig, position, ref, alt, label = rows[0]
    other = next(base for base in "ACGT" if base not in {ref, alt})
    wrong = next(base for base in "ACGT" if base != ref)
    rows += [
        (contig, position, ref, alt, label),  # a duplicate
        (contig[3:], position, ref.lower(), alt.lower(), label),  # the same under other names
        (*rows[1][:4], "P"),  # contradicts
        (contig, position, ref, other, ""),  # no label
        (contig, position, ref, other, "VUS"),  # left out
        ("chr9", 5, "A", "C", "P"),
        (contig, position, wrong, ref, "P"),
        ("chr1", 305, "A", "C", "P"),
        (contig, 10**6, "A", "C", "P"),
        (contig, position, ref, "<DEL>", "P"),
        (contig, position, ref, "*", "P"),
        (contig, position, ref, ref, "P"),
        (contig, position, ref, ref + "A" * 60, "P"),
        (contig, position, ref, "", "P"),
    ]
    report = evaluate(
        model, genome, write(tmp_path / "t.csv", rows), tmp_path / "out",
        columns=VepColumns(label="label", positive=("P", "LP"), negative=("B",)), page=True,
    )  # fmt: skip
    assert report.not_used == {
        "contig_not_in_genome": 1, "contradictory": 2, "duplicate": 2, "left_out": 1, "no_alternate": 1, "no_label": 1,
        "not_a_change": 1, "outside_contig": 1, "overlapping_deletion": 1, "reference_mismatch": 1, "symbolic": 1,
        "too_long": 1, "unknown_reference": 1,
    }  # fmt: skip
    assert report.left_out == {"VUS": 1}
    assert sum(report.used.values()) + sum(report.not_used.values()) == report.rows == len(rows)
    assert any("LP" in note for note in report.notes)
    table = pa.parquet.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert [row["alt"] for row in table] == [row[3] for row in rows]
    reasons = [row["reason"] for row in table]
    assert {name: reasons.count(name) for name in set(reasons) - {""}} == report.not_used
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(name in page for name in report.not_used)
    assert "VUS (1)" in page


@pytest.fixture(scope="module")
def mixed(sequences, snvs, population):
    """SNVs, MNVs and indels with labels 0 and 1 in turn."""
    chance = random.Random(2)
    # Without those of the population, all frequencies would be 0.
    rows = [*snvs[:60], *(row[:4] for row in population)]
    text = sequences["chr2"]
    for place in range(20, 480, 12):
        before = text[place : place + 3]
        rows += [
            ("chr2", place + 1, before[:2], before[:2].translate(TURN)),
            ("chr2", place + 1, before[0], before[0] + "".join(chance.choices("ACGT", k=chance.randint(1, 4)))),
            ("chr2", place + 1, before, before[0]),
        ]
    return [(*row, place % 2) for place, row in enumerate(rows)]


def test_kinds_are_compared_apart_and_together(tmp_path, model, genome, mixed):
    settings = ScoreSettings(context=CONTEXT, strands="forward", flank=2, scores=("llr", "unmasked", "distance"))
    report = evaluate(
        model, genome, write(tmp_path / "t.csv", mixed), tmp_path / "out", settings=settings, resamples=20
    )
    assert [part.name for part in report.parts] == ["all variants", "SNV", "MNV", "indel"]
    names = {
        part.name: [row.predictor.split(" ", 1)[1] if row.model else row.predictor for row in part.rows]
        for part in report.parts
    }
    of_all = ["L2", "COS", "L2_WINDOW", "COS_WINDOW"]
    assert names["SNV"][:9] == ["LLR", "|LLR|", "ENT", "ULLR", "|ULLR|", *of_all]
    assert names["MNV"][:6] == ["PLLR", "|PLLR|", *of_all] == names["indel"][:6]
    assert names["all variants"][:6] == ["LLR or PLLR", "|LLR or PLLR|", *of_all]
    # The store knows frequencies of SNVs alone, and among indels all substitutions are one.
    assert "allele frequency" in names["SNV"]
    assert "allele frequency" not in names["all variants"]
    assert "indel length" in names["indel"]
    assert "indel length" not in names["SNV"] + names["MNV"]
    assert "substitution order" not in names["indel"] + names["MNV"]
    assert "substitution order" in part_of(report, "indel").empty
    assert part_of(report, "all variants").compared == sum(report.used.values())
    assert all(row.missing == 0 for part in report.parts for row in part.rows)


def test_classes_are_each_against_all_else(tmp_path, model, genome, snvs, ratios):
    names = np.array(["low", "middle", "upper"])[np.searchsorted(np.quantile(ratios, [1 / 3, 2 / 3]), ratios)]
    report = evaluate(model, genome, write(tmp_path / "t.csv", labelled(snvs, names)), tmp_path / "out")
    assert (report.problem, report.classes, report.direction) == ("multiclass", ("low", "middle", "upper"), "either")
    low, upper = (row_of(part_of(report, "all variants", name), " LLR") for name in ("low", "upper"))
    assert (low.end, upper.end) == ("low", "high")
    assert low.measures["auroc"].value == upper.measures["auroc"].value == 1.0
    # Each predictor is turned to its better side.
    assert all(row.measures["auroc"].value >= 0.5 for part in report.parts for row in part.rows)
    assert {row.predictor for row in report.parts[0].rows if not row.model}.isdisjoint({"substitution class"})


@pytest.mark.parametrize("sign", [1, -1])
def test_effects_are_correlated(tmp_path, model, genome, snvs, ratios, sign):
    """An effect that is a function of the ratio has the correlation 1 or −1 with it, its sign kept."""
    effects = [repr(float(value)) for value in sign * ratios**3]
    report = evaluate(
        model, genome, write(tmp_path / "t.csv", labelled(snvs, effects)), tmp_path / "out",
        columns=VepColumns(effect="label"),
    )  # fmt: skip
    found = row_of(report.parts[0], " LLR")
    assert found.measures["spearman"].value == pytest.approx(sign, abs=1e-3)
    assert found.measures["spearman"].low <= found.measures["spearman"].value <= found.measures["spearman"].high
    pearson = np.corrcoef(ratios, sign * ratios**3)[0, 1]
    assert found.measures["pearson"].value == pytest.approx(pearson, abs=1e-3)
    assert found.end == ("high" if sign > 0 else "low")
    assert found.difference.difference > 0


@pytest.mark.parametrize("problem", ["binary", "regression"])
def test_a_baseline_that_labels_follow_is_named_once(tmp_path, model, genome, snvs, problem):
    """Unless there are too few of either side to tell."""
    rng = np.random.default_rng(4)
    share = rng.random(160).round(6)
    label = (share < 0.5).astype(int) if problem == "binary" else -share
    header = ("chrom", "pos", "ref", "alt", "label", "af", "group")
    columns = VepColumns(**{"label" if problem == "binary" else "effect": "label"}, frequency="af", group="group")
    how = {"columns": columns, "resamples": 10}
    rows = [(*snv, label[place], share[place], "ab"[place % 2]) for place, snv in enumerate(snvs)]
    report = evaluate(model, genome, write(tmp_path / "t.csv", rows, header), tmp_path / "out", **how)
    (note,) = (note for note in report.notes if "follow" in note)
    said = "1: AUROC 1.000" if problem == "binary" else "label: Spearman correlation -1.000"
    assert f"allele frequency (all variants, {said})" in note
    few = (
        rows[:4]
        if problem == "regression"
        else [row for row in rows if not row[4]] + [row for row in rows if row[4]][:4]
    )
    report = evaluate(model, genome, write(tmp_path / "few.csv", few, header), tmp_path / "few", **how)
    assert not any("follow" in note for note in report.notes)


def test_direction_turns_what_is_positive(tmp_path, model, genome, snvs, ratios):
    label = (ratios >= np.median(ratios)).astype(int)
    table = write(tmp_path / "t.csv", labelled(snvs, label))
    how = {"resamples": 20}
    values = {
        direction: row_of(
            evaluate(model, genome, table, tmp_path / str(direction), direction=direction, **how).parts[0], " LLR"
        ).measures["auroc"].value
        for direction in (None, "damaging", "tolerated", "either")
    }  # fmt: skip
    assert values == {None: 0.0, "damaging": 0.0, "tolerated": 1.0, "either": 1.0}


def test_two_models_stand_beside_each_other(tmp_path, model_folders, model, genome, snvs):
    table = write(tmp_path / "t.csv", labelled(snvs, [0, 1] * 80))
    report = evaluate([f"one={model_folders['mutbert']}", model], genome, table, tmp_path / "out", resamples=20)
    first, second = (row for row in report.parts[0].rows if row.predictor.endswith(" LLR"))
    assert first.model == "one"
    assert first.measures["auroc"].value == pytest.approx(second.measures["auroc"].value)
    with pytest.raises(InputError, match="two models are called mutbert"):
        evaluate([model_folders["mutbert"]] * 2, genome, table, tmp_path / "other")


def with_positions(model_folders, folder, positions):
    """The model, which is trained for so many positions alone."""
    model = MutBertForMaskedLM.from_pretrained(model_folders["mutbert"])
    model.config.max_position_embeddings = positions
    model.save_pretrained(folder)
    return folder


def test_what_is_too_long_for_one_model_is_scored_by_none_in_any_order(tmp_path, model_folders, genome, mixed):
    """Of 32 positions, 30 are bases, of which flanks of 8 leave 14; of 64 positions, 46."""
    short = with_positions(model_folders, tmp_path / "short", 32)
    rows = [list(row) for row in mixed[:100]]
    insertions = [row for row in rows if len(row[3]) > len(row[2])]
    for place, length in enumerate((14, 15, 45, 46, 47)):
        insertions[place][3] = insertions[place][2] + "ACG"[place % 3] * length
    table = write(tmp_path / "t.csv", rows)
    places = [f"long={model_folders['mutbert']}", f"short={short}"]
    settings = ScoreSettings(strands="forward")
    found = {}
    for order in (places, places[::-1]):
        name = "-".join(place.partition("=")[0] for place in order)
        report = evaluate(order, genome, table, tmp_path / name, settings=settings, resamples=20)
        assert report.not_used == {"too_long": 4}
        assert report.reasons == {"too_long": "more than 14 bases change"}
        assert "longest 14" in report.facts["scoring"]
        assert [report.facts[f"model {name}"].rpartition(" ")[2] for name in ("long", "short")] == ["62", "30"]
        found[name] = [sorted(part.rows, key=lambda row: row.predictor) for part in report.parts]
    assert found["long-short"] == found["short-long"]
    alone = evaluate(places[0], genome, table, tmp_path / "alone", settings=settings, resamples=20)
    assert alone.not_used == {"too_long": 1}


# Baselines.


def alleles_of(genome, rows):
    return find_alleles(genome, *(list(column) for column in zip(*rows, strict=True)))


def change_by_hand(text, place, alt):
    """The class of an SNV, on the strand that has a pyrimidine there."""
    if text[place] in "AG":
        text, place, alt = text[::-1].translate(TURN), len(text) - 1 - place, alt.translate(TURN)
    return f"{text[place]}>{alt}" + (" at CpG" if text[place : place + 2] == "CG" else "")


def test_changes_of_every_base_of_a_contig(genome, sequences):
    rows = [
        (contig, place + 1, ref, alt)
        for contig in ("chr2", "chr3")
        for place, ref in enumerate(sequences[contig])
        for alt in "ACGT"
        if alt != ref
    ]
    found = changes(genome, alleles_of(genome, rows))
    expected = [change_by_hand(sequences[contig], position - 1, alt) for contig, position, _, alt in rows]
    assert [CHANGES[number] for number in found.tolist()] == expected
    # All nine are there.
    assert len(set(expected)) == 9


def test_baselines_by_hand(genome, sequences, population):
    text = sequences["chr2"]
    contig, position, ref, alt, share = population[2]
    other = next(base for base in "ACGT" if base not in {ref, alt})
    rows = [
        (contig, position, ref, alt),
        (contig, position, ref, other),
        ("2", 200, text[199:201], text[199:201].translate(TURN)),
        ("chr2", 200, text[199], text[199] + "ACG"),
        ("chr2", 200, text[199:204], text[199]),
        ("chr3", 4, "T", "A"),
    ]
    alleles = alleles_of(genome, rows)
    np.testing.assert_allclose(store_frequencies(genome, alleles)[:2], [share, 0], atol=1e-4)
    assert np.isnan(store_frequencies(genome, alleles)[2:5]).all()
    assert [CHANGES[number] for number in changes(genome, alleles)[2:5]] == ["MNV", "insertion", "deletion"]
    assert indel_lengths(alleles).tolist() == [0, 0, 0, 3, 4, 0]
    starts = [position - 1 - 10, position - 1 - 10, 199 - 10, 200 - 10, 200 - 10]
    expected = [sum(base in "GC" for base in text[start : start + 20]) / 20 for start in starts]
    # A contig shorter than the window is seen as a whole.
    expected.append(sum(base in "GC" for base in sequences["chr3"]) / len(sequences["chr3"]))
    np.testing.assert_allclose(gc(genome, alleles, 20), expected)


def test_unknown_bases_do_not_count_in_gc(genome, sequences):
    text = sequences["chr1"]
    alleles = alleles_of(genome, [("chr1", 299, text[298], "ACGT"[("ACGT".index(text[298]) + 1) % 4])])
    around = text[288:308].replace("N", "")
    assert len(around) < 20
    assert gc(genome, alleles, 20)[0] == pytest.approx(sum(base in "GC" for base in around) / len(around))


def test_without_a_population_there_is_no_frequency(plain_genome, snvs):
    alleles = alleles_of(plain_genome, snvs)
    found = trivial_baselines(plain_genome, alleles, CONTEXT, np.array([0.0, 1.0] * 80), "binary")
    assert [predictor.name for predictor in found.predictors] == [
        "substitution order",
        "substitution class",
        "GC content",
    ]
    assert "no variants" in found.notes[0]
    given = trivial_baselines(
        plain_genome, alleles, CONTEXT, np.array([0.0, 1.0] * 80), "binary", frequency_A=np.linspace(0, 1, 160)
    )
    assert given.predictors[0].name == "allele frequency"
    np.testing.assert_array_equal(given.value_AP[:, 0], np.linspace(0, 1, 160))


@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_no_part_is_predicted_from_its_own_labels(seed, parts):
    rng = np.random.default_rng(seed)
    change = rng.integers(0, len(CHANGES), 60)
    fold = np.arange(60) % parts
    target = np.concatenate([[0.0, 1.0] * parts, rng.integers(0, 2, 60 - 2 * parts)])
    target[fold == 1] = np.arange((fold == 1).sum()) % 2
    folds = Folds(fold, parts, "contigs")
    once = cross_validated(change, target, folds, "binary")
    other = np.where(fold == 0, 1 - target, target)
    again = cross_validated(change, other, folds, "binary")
    if once is not None and again is not None:
        np.testing.assert_array_equal(once[fold == 0], again[fold == 0])


def test_what_is_learnt_is_the_share_by_class():
    """With many variants, log-odds differ between classes by as much as those of their shares of positives do."""
    rng = np.random.default_rng(0)
    change = rng.integers(0, 2, 40_000)
    target = (rng.random(40_000) < np.where(change == 1, 0.8, 0.3)).astype(float)
    score = cross_validated(change, target, Folds(np.arange(40_000) % 5, 5, "stretches"), "binary")
    difference = score[change == 1].mean() - score[change == 0].mean()
    assert difference == pytest.approx(np.log(0.8 / 0.2) - np.log(0.3 / 0.7), abs=0.1)


def test_folds_are_contigs_or_stretches(genome, snvs):
    mostly = alleles_of(genome, snvs)
    # More than half of them are on the first contig.
    folds = make_folds(mostly)
    assert (folds.by, folds.parts) == ("stretches", 5)
    key = mostly.contig_A * 10**6 + mostly.start_A
    for place in np.unique(key):
        assert len(set(folds.fold_A[key == place].tolist())) == 1
    assert np.bincount(folds.fold_A).min() > 20
    assert (np.diff(folds.fold_A[np.argsort(key, kind="stable")]) >= 0).all()
    few = [row for row in snvs if row[0] == "chr1"][:40] + [row for row in snvs if row[0] == "chr2"][:40]
    even = alleles_of(genome, few)
    folds = make_folds(even)
    assert (folds.by, folds.parts) == ("contigs", 2)
    assert len(set(zip(even.contig_A.tolist(), folds.fold_A.tolist(), strict=True))) == 2
    assert make_folds(even.take(np.array([0]))) is None
    assert (even.kind_A == Kind.SNV).all()


# What a user can get wrong.


def spoiled(number, column, value):
    def change(rows):
        rows[number][column] = value

    return change


def relabelled(label):
    def change(rows):
        for row in rows:
            row[4] = label.format(*row)

    return change


def elsewhere(before, further):
    def change(rows):
        for row in rows:
            row[:2] = before + row[0], int(row[1]) + further

    return change


@pytest.mark.parametrize(
    ("change", "columns", "words"),
    [
        (None, {"label": "class"}, "no column 'class'; there are chrom, pos, ref, alt, label"),
        (None, {"label": "label", "group": "gene"}, "no column 'gene'; there are chrom"),
        (None, {"label": "label", "position": "POS37"}, "no column of the position ('POS37'); there are chrom, pos"),
        (spoiled(3, 1, "x"), {"label": "label"}, "line 5: pos is 'x'; positions are whole numbers from 1 on"),
        (spoiled(3, 1, "0"), {"label": "label"}, "line 5: pos is '0'; positions are whole numbers from 1 on"),
        (spoiled(2, 3, "A,C"), {"label": "label"}, "line 4: alt is 'A,C'; write a row for each"),
        (spoiled(2, 2, ""), {"label": "label"}, "line 4: ref is ''; the reference allele is missing"),
        (spoiled(1, 4, "high"), {"effect": "label"}, "line 3: label is 'high'; effects are numbers"),
        (spoiled(1, 4, "1.5"), {"label": "label", "frequency": "label"}, "allele frequencies are numbers from 0 to 1"),
        (relabelled("1"), {"label": "label"}, "all 160 variants that can be used are one, 1"),
        (relabelled("2.5"), {"effect": "label"}, "are one, 2.5"),
        (relabelled("is {4}"), {"label": "label"}, "say which is positive, such as --positive is 1"),
        (None, {"label": "label", "positive": ("yes",)}, "label is nowhere yes; there are 0, 1"),
        (relabelled("Pathogenic"), {"label": "label", "positive": ("pathogenc",)}, "(did you mean Pathogenic?); there"),
        (relabelled("{0}{1}{3}"), {"label": "label"}, "give --effect label"),
        (relabelled(""), {"label": "label"}, "no variant can be used: no_label (160)"),
        (elsewhere("Q", 0), {"label": "label"}, "none of its contigs (Qchr1, Qchr2)"),
        (elsewhere("", 1), {"label": "label"}, "more than 10 %; give the"),
        (list.clear, {"label": "label"}, "holds no rows"),
        (None, {}, "give either --label"),
        (None, {"label": "label", "effect": "label"}, "give either --label"),
        (None, {"effect": "label", "positive": ("1",)}, "name values of --label"),
        (None, {"label": "label", "negative": ("1",)}, "--negative is given without --positive"),
        (None, {"label": "label", "positive": ("1",), "exclude": ("1",)}, "--positive and --exclude both name 1"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line(tmp_path, model, genome, snvs, change, columns, words):
    rows = [list(map(str, row)) for row in labelled(snvs, [0, 1] * 80)]
    if change is not None:
        change(rows)
    path = write(tmp_path / "t.csv", rows)
    with pytest.raises(InputError) as caught:
        evaluate(model, genome, path, tmp_path / "out", columns=VepColumns(**columns))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"direction": "up"}, "direction is 'up'"),
        ({"columns": VepColumns(effect="label"), "direction": "damaging"}, "which is for two classes"),
        ({"surroundings": "person"}, "it must be reference or population"),
        ({"settings": ScoreSettings(context=1000)}, "1000 bases are 1002 tokens"),
        ({"resamples": 0}, "resamples is 0"),
    ],
)
def test_settings_that_cannot_be(tmp_path, model, genome, snvs, others, words):
    table = write(tmp_path / "t.csv", labelled(snvs, [0, 1] * 80))
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        evaluate(model, genome, table, tmp_path / "out", **others)


def test_undeclared_info_and_columns_of_a_vcf_are_refused(tmp_path, model, genome):
    path = tmp_path / "t.vcf"
    path.write_text(
        '##fileformat=VCFv4.2\n##contig=<ID=chr1>\n##INFO=<ID=AF,Number=A,Type=Float,Description="f">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nchr1\t3\t.\tA\tC,G\t.\t.\tAF=0.5\n"
    )
    with pytest.raises(InputError, match="no INFO field 'CLNSIG' is declared; there are AF"):
        read_labelled(path, VepColumns(label="CLNSIG"))
    with pytest.raises(InputError, match=r"t.vcf, chr1:3: INFO field AF has 1 values for 2 alternate alleles"):
        read_labelled(path, VepColumns(effect="AF"))
    path.write_text(path.read_text().replace("=A,", "=R,").replace("AF=0.5", "AF=0.5,0.5"))
    with pytest.raises(InputError, match="AF has 2 values for REF and 2 alternate alleles"):
        read_labelled(path, VepColumns(effect="AF"))
    with pytest.raises(InputError, match="leave out --columns ref="):
        read_labelled(path, VepColumns(effect="AF", ref="REF"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".tsv.gz", ".parquet"])
def test_formats_hold_the_same(tmp_path, suffix):
    rows = [("chr1", 5, "A", "C", "x"), ("chr1", 6, "AC", "A", "y"), ("2", 7, "G", "T", "z")]
    header = ["Chromosome", "POS37", "REF", "ALT", "kind"]
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        pa.parquet.write_table(pa.table(dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))), path)
    else:
        text = "\n".join(("," if suffix == ".csv" else "\t").join(map(str, row)) for row in [header, *rows])
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    found = read_labelled(path, columns_of("position=POS37", VepColumns(label="kind")))
    assert (
        list(zip(found.contigs, found.positions, found.references, found.alternates, found.texts, strict=True)) == rows
    )
    assert found.labels.classes == ("x", "y", "z")
    assert found.labels.label_N.tolist() == [0, 1, 2]


def test_columns_are_taken_apart():
    found = columns_of("chromosome=CHR, alt=A2", VepColumns(label="y"))
    assert (found.label, found.chromosome, found.position, found.alt) == ("y", "CHR", None, "A2")
    for text in ("label=x", "chromosome", "ref="):
        with pytest.raises(InputError, match="--columns"):
            columns_of(text, VepColumns(label="y"))


def test_an_output_is_replaced_only_when_asked(tmp_path, model, genome, snvs):
    table = write(tmp_path / "t.csv", labelled(snvs, [0, 1] * 80))
    evaluate(model, genome, table, tmp_path / "out", resamples=5)
    with pytest.raises(InputError, match="exists already"):
        evaluate(model, genome, table, tmp_path / "out", resamples=5)
    evaluate(model, genome, table, tmp_path / "out", resamples=5, force=True)
    with pytest.raises(InputError, match="holds the input"):
        evaluate(model, genome, table, tmp_path, resamples=5, force=True)


def test_shared_windows_are_not_cut(tmp_path, model, genome, sequences, snvs, monkeypatch):
    """Nor at a contig's end, where two cells of the grid, from 480 and from 495 on, are one window."""
    assert _ALLELES_AT_ONCE > 100
    ends = [("chr2", place + 1, ref, ref.translate(TURN)) for place, ref in enumerate(sequences["chr2"][:500])][485:]
    rows = sorted({*snvs, *ends})
    table = write(tmp_path / "t.csv", labelled(rows, [number % 2 for number in range(len(rows))]))
    settings = ScoreSettings(context=CONTEXT, strands="forward", windows="shared", batch_size=1)
    found = []
    for at_once in (1, 3, 10**6):
        monkeypatch.setattr("mutbert.evaluation.vep._ALLELES_AT_ONCE", at_once)
        evaluate(model, genome, table, tmp_path / str(at_once), settings=settings, resamples=5)
        scores = pa.parquet.read_table(tmp_path / str(at_once) / "scores.parquet")
        found.append(scores.column(next(name for name in scores.column_names if name.endswith(" LLR"))).to_numpy())
    for cut in found[:2]:
        np.testing.assert_allclose(cut, found[2], atol=1e-5)


def test_the_command_prints_and_writes(tmp_path, model_folders, genome, snvs, capsys, monkeypatch):
    table = write(tmp_path / "t.csv", labelled(snvs, ["Pathogenic", "Benign"] * 80))
    words = [
        "mutbert", "bench", "vep", "--variants", str(table), "--model", f"tiny={model_folders['mutbert']}",
        "--genome", str(genome.path), "--label", "label", "--positive", "Pathogenic,Likely_pathogenic",
        "--context", "30", "--strands", "forward", "--resamples", "100", "-o", str(tmp_path / "out"),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        program()
    assert stopped.value.code in {0, None}
    said = capsys.readouterr()
    assert "160 of 160 variants are compared, 80 are Pathogenic / Likely_pathogenic" in said.out
    assert "tiny LLR" in said.out
    assert "note: No variant has the value Likely_pathogenic that --positive names.\n" in said.out
    assert "end: whether low or high values of a predictor speak for the class\n" in said.out
    assert str(tmp_path / "out" / "report.html") in said.out
    monkeypatch.setattr(sys, "argv", [*words[:-1], str(tmp_path / "other"), "--json"])
    with pytest.raises(SystemExit):
        program()
    whole = json.loads(capsys.readouterr().out)
    assert whole["version"] == 1
    assert whole["parts"][0]["rows"][0]["predictor"] == "tiny LLR"
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        program()
    assert stopped.value.code == 2
    assert "exists already" in capsys.readouterr().err


def test_importing_the_command_is_quick():
    code = "import sys, mutbert.cli.bench; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
        == "False False\n"
    )
