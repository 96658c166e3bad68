"""Scores against labels: planted labels, baselines by hand, and every way to spoil a table."""

import csv
import gzip
import json
import random

import numpy as np
import polars as pl
import pytest

from mutbert import ProbabilisticGenome, VepColumns, evaluate_variant_effects, score_alleles
from mutbert.effects.alleles import find_alleles
from mutbert.effects.scores import ScoreSettings, open_scorer
from mutbert.errors import InputError
from mutbert.evaluation.vep_predictors import CHANGES, changes, gc, make_folds, store_frequencies
from mutbert.evaluation.vep_table import columns_of, read_labelled
from mutbert.model import MutBertForMaskedLM

CONTEXT = 30
SETTINGS = ScoreSettings(context=CONTEXT, strands="forward")
TURN = str.maketrans("ACGT", "TGCA")
FILES = [".mutbert.json", "report.html", "scores.parquet", "table.csv", "vep.json"]
VCF = "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n##contig=<ID=chr2>\n"
LABELS = VepColumns(label="label")
HEADER = ("chrom", "pos", "ref", "alt", "label")
LINES = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


def info(name, number, kind):
    return f'##INFO=<ID={name},Number={number},Type={kind},Description="x">\n'


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
def genome(tmp_path_factory, write_genome, sequences):
    """A store in which half of a population have an A or a C at the 17th base of chr2."""
    places = {"chr1": {}, "chr2": {16: [0.5, 0.5, 0, 0]}}
    return ProbabilisticGenome.open(write_genome(tmp_path_factory.mktemp("a") / "a.genome", sequences, places))


@pytest.fixture(scope="module")
def model(model_folders):
    return MutBertForMaskedLM.from_pretrained(model_folders["mutbert"])


@pytest.fixture(scope="module")
def snvs(sequences):
    """160 different SNVs of two contigs: contig, 1-based position, REF, ALT."""
    every = [
        (contig, index + 1, ref, alt)
        for contig in ("chr1", "chr2")
        for index, ref in enumerate(sequences[contig])
        for alt in "ACGT"
        if ref not in {alt, "N"}
    ]
    return sorted(random.Random(7).sample(every, 160))


@pytest.fixture(scope="module")
def ratios(model, genome, snvs):
    """The masked ratio of each, as it is without a table of labels."""
    return score_alleles(model, genome, snvs, settings=SETTINGS)["LLR"].to_numpy()


@pytest.fixture
def evaluate(model, genome, tmp_path):
    """Compare rows of a table with the model's scores."""

    def run(rows, header=HEADER, output="out", columns=LABELS, models=model, **options):
        table = write(tmp_path / f"{output}.csv", rows, header)
        options = {"resamples": 20, "settings": SETTINGS, **options}
        return evaluate_variant_effects(models, genome, table, tmp_path / output, columns=columns, **options)

    return run


def write(path, rows, header=HEADER):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def labelled(snvs, labels):
    return [(*snv, label) for snv, label in zip(snvs, labels, strict=True)]


def row_of(part, predictor):
    return next(row for row in part["rows"] if row["predictor"].endswith(predictor))


@pytest.fixture(scope="module")
def planted(tmp_path_factory, model, genome, snvs, ratios):
    """Labels are 1 where the ratio computed by hand is low; with frequency, distance and group."""
    folder, chance = tmp_path_factory.mktemp("planted"), random.Random(1)
    label = (ratios < np.median(ratios)).astype(int)
    rows = [
        (*snv, one, chance.random(), "" if row % 8 == 0 else chance.randint(-99, 99), "odd" if row % 2 else "even")
        for row, (snv, one) in enumerate(zip(snvs, label, strict=True))
    ]
    table = write(folder / "t.csv", rows, (*HEADER, "af", "splice", "group"))
    columns = VepColumns(label="label", frequency="af", splice_distance="splice", group="group")

    def run(output):
        options = {"columns": columns, "settings": SETTINGS, "resamples": 200}
        return evaluate_variant_effects(model, genome, table, output, **options)

    return {"result": run(folder / "out"), "folder": folder / "out", "rows": rows, "label": label, "run": run}


def test_planted_labels_are_found_exactly(planted, ratios, snvs):
    first = planted["result"]["parts"][0]
    found = row_of(first, " LLR")
    assert [found[f"{metric}{end}"] for metric in ("auroc", "auprc") for end in ("", "_low", "_high")] == [1.0] * 6
    best = max((row for row in first["rows"] if not row["model"]), key=lambda row: row["auroc"])
    assert (found["end"], found["baseline"]) == ("low", best["predictor"])
    assert found["difference"] == pytest.approx(1 - best["auroc"])
    assert found["p_holm"] < 0.05
    assert found["difference_low"] > 0
    table = pl.read_parquet(planted["folder"] / "scores.parquet")
    assert table.select("chrom", "pos", "ref", "alt").rows() == snvs
    np.testing.assert_allclose(table["mutbert LLR"], ratios, atol=2e-5)
    np.testing.assert_allclose(table["mutbert |LLR|"], np.abs(ratios), atol=2e-5)
    assert table["target"].to_list() == planted["label"].tolist()


def test_all_are_compared_on_the_same_variants_also_in_groups(planted):
    result, rows = planted["result"], planted["rows"]
    first, whole = result["parts"][0], [row for row in rows if row[6] != ""]
    counts = [first[name] for name in ("variants", "compared", "positives", "compared_positives")]
    assert counts == [160, len(whole), 80, sum(row[4] for row in whole)]
    assert {row["predictor"]: row["missing"] for row in first["rows"] if row["missing"]} == {"splice distance": 20}
    assert any("140 of 160" in note and "splice distance (20)" in note for note in result["notes"])
    assert [part["name"] for part in result["parts"]] == ["all variants", "even", "odd"]
    # AUROC by its definition, of columns as the table has them.
    columns = {"allele frequency": [-row[5] for row in whole], "splice distance": [-abs(row[6]) for row in whole]}
    for name, column in columns.items():
        high, low = ([value for value, row in zip(column, whole, strict=True) if row[4] == label] for label in (1, 0))
        expected = np.mean([(one > other) + 0.5 * (one == other) for one in high for other in low])
        assert row_of(first, name)["auroc"] == pytest.approx(expected, abs=1e-12)


def test_files_agree_and_are_the_same_again(planted, tmp_path):
    folder = planted["folder"]
    whole = json.loads((folder / "vep.json").read_text(), parse_constant=pytest.fail)
    flat = [(part["name"], row["predictor"]) for part in whole["parts"] for row in part["rows"]]
    assert pl.read_csv(folder / "table.csv").select("part", "predictor").rows() == flat
    planted["run"](tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == FILES
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    with pytest.raises(InputError, match="exists already"):
        planted["run"](tmp_path / "again")


@pytest.mark.parametrize("windows", ["centred", "shared"])
def test_scores_do_not_depend_on_how_the_work_is_cut(model, genome, sequences, snvs, windows):
    """Nor at a contig's end, where two cells of the grid, from 480 and from 495 on, are one window."""
    ends = [("chr2", index + 1, ref, ref.translate(TURN)) for index, ref in enumerate(sequences["chr2"])][485:]
    alleles = alleles_of(genome, random.Random(0).sample(sorted({*snvs, *ends}), len({*snvs, *ends})))
    settings = ScoreSettings(context=CONTEXT, strands="forward", windows=windows, batch_size=1)
    scorer = open_scorer(model, genome, settings=settings)
    cut = [scorer.score(alleles, at_once=at_once) for at_once in (1, 3, 10**6)]
    np.testing.assert_allclose(cut[:2], [cut[2]] * 2, atol=1e-5)
    assert np.isfinite(cut[0][:, 0]).all()


def test_alternates_of_a_record_are_rows_of_their_own(tmp_path, sequences):
    ref = sequences["chr2"][9]
    first, second = [base for base in "ACGT" if base != ref][:2]
    head = VCF + info("E", "A", "Float") + info("R", "R", "Float") + info("S", 1, "Integer") + info("G", 0, "Flag")
    records = (
        f"chr2\t10\t.\t{ref}\t{first},{second}\t.\t.\tE=0.5,.;R=0.7,0.1,0.2;S=-9;G\n"
        f"chr2\t11\t.\t{sequences['chr2'][10]}\t.\t.\t.\tE=1;E=2\n"
    )
    (tmp_path / "t.vcf.gz").write_bytes(gzip.compress((head + LINES + records).encode()))
    columns = VepColumns(effect="E", frequency="R", group="G", splice_distance="S")
    found, _, problem, _ = read_labelled(tmp_path / "t.vcf.gz", columns)
    assert problem == "regression"
    assert found.select("pos", "alt", "target", "frequency", "reason", "splice", "group").rows() == [
        (10, first, 0.5, 0.1, None, 9, "1"), (10, second, None, 0.2, "no_label", 9, "1"),
        (11, ".", 1, None, None, None, "0"),
    ]  # fmt: skip


def test_everything_that_is_not_used_is_counted(tmp_path, evaluate, snvs):
    rows = labelled(snvs, ["P", "B"] * 80)
    contig, position, ref, alt, label = rows[0]
    here, other = (contig, position, ref), next(base for base in "ACGT" if base not in {ref, alt})
    rows += [(*here, alt, label), (contig[3:], position, ref.lower(), alt.lower(), label)]  # duplicates
    rows += [(*rows[1][:4], "P")]  # contradicts
    rows += [(*here, other, ""), (*here, other, "VUS")]
    rows += [("chr9", 5, "A", "C", "P"), (contig, position, alt, ref, "P"), (*here, "<DEL>", "P")]
    result = evaluate(rows, columns=VepColumns(label="label", positive=("P", "LP"), negative=("B",)))
    assert result["not_used"] == {
        "contig_not_in_genome": 1, "contradictory": 2, "duplicate": 2, "left_out": 1, "no_label": 1,
        "reference_mismatch": 1, "symbolic": 1,
    }  # fmt: skip
    assert result["left_out"] == {"VUS": 1}
    assert sum(result["used"].values()) + sum(result["not_used"].values()) == result["rows"] == len(rows)
    assert any("LP" in note for note in result["notes"])
    table = pl.read_parquet(tmp_path / "out" / "scores.parquet")
    assert table["alt"].to_list() == [row[3] for row in rows]
    counts = table.filter(pl.col("reason") != "")["reason"].value_counts()
    assert dict(counts.iter_rows()) == result["not_used"]


@pytest.mark.parametrize("sign", [1, -1])
def test_effects_are_correlated(evaluate, snvs, ratios, sign):
    """An effect that is a function of the ratio has the correlation 1 or −1 with it, its sign kept."""
    rows, columns = labelled(snvs, sign * ratios**3), columns_of("pos = POS37", VepColumns(effect="label"))
    found = row_of(evaluate(rows, ("chr", "POS37", *HEADER[2:]), columns=columns)["parts"][0], " LLR")
    assert found["spearman"] == pytest.approx(sign, abs=1e-3)
    assert found["spearman_low"] <= found["spearman"] <= found["spearman_high"]
    assert found["end"] == ("high" if sign > 0 else "low")


def test_a_baseline_that_labels_follow_is_named_once(evaluate, snvs):
    share = np.random.default_rng(4).random(160).round(6)
    columns = VepColumns(label="label", frequency="af", group="group")
    rows = [(*snv, int(one < 0.5), one, "ab"[row % 2]) for row, (snv, one) in enumerate(zip(snvs, share, strict=True))]
    notes = evaluate(rows, (*HEADER, "af", "group"), columns=columns)["notes"]
    followed = "Labels follow the trivial baseline allele frequency (all variants, 1: AUROC 1.000)"
    assert [note.startswith(followed) for note in notes if "follow" in note] == [True]


def test_direction_turns_what_is_positive(evaluate, snvs, ratios):
    rows = labelled(snvs, (ratios >= np.median(ratios)).astype(int))
    for direction, expected in ((None, 0.0), ("tolerated", 1.0), ("either", 1.0)):
        result = evaluate(rows, output=str(direction), direction=direction)
        assert row_of(result["parts"][0], " LLR")["auroc"] == expected


def test_what_is_too_long_for_one_model_is_scored_by_none_in_any_order(tmp_path, model_folders, evaluate, snvs):
    """Of 32 positions, 30 are bases, of which flanks of 8 leave 14; of 64 positions, 46."""
    short = MutBertForMaskedLM.from_pretrained(model_folders["mutbert"])
    short.config.max_position_embeddings = 32
    short.save_pretrained(tmp_path / "short")
    rows = [[*snv, number % 2] for number, snv in enumerate(snvs[:40])]
    for row, length in zip(rows, (1, 2, 3, 14, 15, 45, 46, 47), strict=False):
        row[3] = row[2] + row[3] * length
    models, found = [f"long={model_folders['mutbert']}", f"short={tmp_path / 'short'}"], []
    for order in (models, models[::-1]):
        result = evaluate(rows, output=f"out{len(found)}", models=order, settings=ScoreSettings(strands="forward"))
        assert result["not_used"] == {"too_long": 4}
        assert result["reasons"] == {"too_long": "more than 14 bases change"}
        assert [part["name"] for part in result["parts"]] == ["all variants", "SNV", "indel"]
        found.append([sorted(part["rows"], key=lambda row: row["predictor"]) for part in result["parts"]])
    assert found[0] == found[1]
    with pytest.raises(InputError, match="the name 'mutbert' is empty or another model's; write NAME=PATH"):
        evaluate(rows, output="other", models=[model_folders["mutbert"]] * 2)


def alleles_of(genome, rows):
    return find_alleles(genome, *(list(column) for column in zip(*rows, strict=True)))


def change_by_hand(text, index, alt):
    """The class of an SNV, on the strand that has a pyrimidine there."""
    if text[index] in "AG":
        text, index, alt = text[::-1].translate(TURN), len(text) - 1 - index, alt.translate(TURN)
    return f"{text[index]}>{alt}" + (" at CpG" if text[index : index + 2] == "CG" else "")


def test_changes_of_every_base_of_a_contig(genome, sequences):
    text = sequences["chr2"]
    rows = [("chr2", at + 1, ref, alt) for at, ref in enumerate(text) for alt in "ACGT" if alt != ref]
    expected = [change_by_hand(text, position - 1, alt) for _, position, _, alt in rows]
    assert [CHANGES[number] for number in changes(genome, alleles_of(genome, rows)).tolist()] == expected
    assert len(set(expected)) == 9


def test_frequencies_of_the_store_and_gc_by_hand(genome, sequences):
    ref, near = sequences["chr2"][16], sequences["chr1"][298]
    rows = [("chr2", 17, ref, alt) for alt in "ACGT" if alt != ref] + [("chr1", 299, near, near.translate(TURN))]
    alleles = alleles_of(genome, rows)
    shares = [*((row[3] in "AC") / 2 for row in rows[:3]), 0]
    np.testing.assert_allclose(store_frequencies(genome, alleles), shares, atol=1e-4)
    # Unknown bases do not count.
    windows = [sequences["chr2"][6:26]] * 3 + [sequences["chr1"][288:308].replace("N", "")]
    shares = [sum(base in "GC" for base in window) / len(window) for window in windows]
    np.testing.assert_allclose(gc(genome, alleles, 20), shares)


def test_folds_are_contigs_or_stretches(genome, snvs):
    mostly = alleles_of(genome, snvs)
    fold, by = make_folds(mostly)  # more than half of them are on the first contig
    assert (by, set(fold.tolist())) == ("stretches", set(range(5)))
    assert np.bincount(fold).min() > 20
    assert (np.diff(fold[np.lexsort((mostly.start_A, mostly.contig_A))]) >= 0).all()
    even = alleles_of(genome, [*snvs[:40], *snvs[-40:]])
    fold, by = make_folds(even)
    assert by == "contigs"
    np.testing.assert_array_equal(fold, even.contig_A)


# What a user can get wrong.


def spoiled(number, column, value):
    return lambda rows: rows[number].__setitem__(column, value)


def relabelled(label):
    return lambda rows: [row.__setitem__(4, label.format(*row)) for row in rows]


def elsewhere(before, further):
    return lambda rows: [row.__setitem__(slice(2), [before + row[0], int(row[1]) + further]) for row in rows]


LABEL = {"label": "label"}


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (None, {"label": "class"}, "no column 'class'; there are chrom, pos, ref, alt, label"),
        (spoiled(3, 1, "x"), LABEL, "line 5: pos is 'x'; positions are whole numbers from 1 on"),
        (spoiled(2, 3, "A,C"), LABEL, "line 4: alt is 'A,C'; write a row for each"),
        (spoiled(1, 4, "high"), {"effect": "label"}, "line 3: label is 'high'; expected a number"),
        (relabelled("1"), LABEL, "all 160 variants that can be used are one, 1"),
        (relabelled("is {4}"), LABEL, "name one, such as --positive is 1"),
        (relabelled("Pathogenic"), LABEL | {"positive": ("pathogenc",)}, "nowhere pathogenc; there are Pathogenic"),
        (relabelled("{0}{1}{3}"), LABEL, "use --effect label"),
        (relabelled(""), LABEL, "no variant can be used: no_label (160)"),
        (elsewhere("Q", 0), LABEL, "none of its contigs (Qchr1, Qchr2)"),
        (elsewhere("", 1), LABEL, "more than 10 %; use the"),
        (None, {}, "use either --label"),
        (None, LABEL | {"names": "ref="}, "--columns ref=: use chrom=NAME,pos=NAME"),
        (None, {"effect": "label", "positive": ("1",)}, "name values of --label"),
        (None, LABEL | {"negative": ("1",)}, "--negative needs --positive"),
        (None, LABEL | {"positive": ("1",), "exclude": ("1",)}, "--positive and --exclude both name 1"),
        (None, LABEL | {"direction": "up"}, "direction is 'up'"),
        (None, {"effect": "label", "direction": "damaging"}, "which is for two classes"),
        (None, LABEL | {"surroundings": "person"}, "it must be reference or population"),
        (None, LABEL | {"settings": ScoreSettings(context=1000)}, "1000 bases are 1002 tokens"),
        (None, LABEL | {"resamples": 0}, "resamples is 0"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, evaluate, snvs, change, options, words):
    rows = [list(map(str, row)) for row in labelled(snvs, [0, 1] * 80)]
    if change is not None:
        change(rows)
    columns = {name: value for name, value in options.items() if name in VepColumns.__dataclass_fields__}
    others = {name: options[name] for name in options.keys() - columns.keys()}
    with pytest.raises(InputError) as caught:
        evaluate(rows, columns=columns_of(others.pop("names", None), VepColumns(**columns)), **others)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("number", "columns", "message"),
    [
        ("A", {"label": "CLNSIG"}, "no INFO field 'CLNSIG' is declared; there are AF"),
        ("R", {"effect": "AF"}, r"t.vcf, chr1:3: INFO field AF has 1 values for REF and 2 alternate alleles"),
        ("A", {"effect": "AF", "ref": "REF"}, "leave out --columns ref="),
    ],
)
def test_mistakes_in_a_vcf(tmp_path, number, columns, message):
    path = tmp_path / "t.vcf"
    path.write_text(VCF + info("AF", number, "Float") + LINES + "chr1\t3\t.\tA\tC,G\t.\t.\tAF=0.5\n")
    with pytest.raises(InputError, match=message):
        read_labelled(path, VepColumns(**columns))
