"""Variants told apart by embeddings: against slow loops, closed forms, and changes that were planted."""

import re

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mutbert import alphabet
from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError
from mutbert.evaluation.eqtl import (
    FEATURES,
    HEADS,
    choose_rows,
    embed_variants,
    encode_tissues,
    find_windows,
    hold_out,
    open_genome,
    read_variants,
    score_variants,
)
from mutbert.evaluation.suites import EQTL_COLUMNS, EqtlTask, load_suite

PROTOCOLS = load_suite("eqtl").eqtl.protocols
CORRECTED, PUBLISHED = PROTOCOLS["corrected"], PROTOCOLS["published"]
EVERYWHERE = EqtlTask(name="all", from_distance=0)
HEADER = ("CHROM", "POS", "REF", "ALT", "tissue", "label", "distance_to_nearest_tss", "split")
SIDES = ("reference_window", "alternate_window")
GOOD = ("1", "50", "A", "C", "blood", "1", "-10", "train")


def read_rows(folder, rows, header=HEADER, **columns):
    (folder / "t.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in (header, *rows)))
    return read_variants(folder / "t.csv", EQTL_COLUMNS | columns)


def changed(row=GOOD, **values):
    return tuple(values.get(name, value) for name, value in zip(HEADER, row, strict=True))


def variant(sequence, position, **values):
    """A row of a variant at a 0-based position, of another base than the reference."""
    reference = sequence[position]
    return changed(**{"POS": position + 1, "REF": reference, "ALT": "CGTA"["ACGT".index(reference)], **values})


@pytest.fixture(scope="module")
def encoder(model_folders):
    return open_encoder(model_folders["mutbert"])


@pytest.fixture(scope="module")
def contigs():
    """Random bases, some in lower case, some ambiguous."""
    rng = np.random.default_rng(0)
    found = {name: "".join(rng.choice(list("ACGT"), size)) for name, size in (("chr1", 700), ("chr2", 400))}
    found["chr1"] = found["chr1"][:300] + "nnnRY" + found["chr1"][305:400].lower() + found["chr1"][400:]
    return found


@pytest.fixture(scope="module")
def some_rows(contigs):
    """Variants in several tissues, and of several alternate alleles."""
    rows = []
    for name, position in (("1", 60), ("chr1", 280), ("chr1", 310), ("2", 100), ("2", 103), ("1", 61)):
        sequence = contigs["chr" + name.removeprefix("chr")].upper()
        rows += [variant(sequence, position, CHROM=name, tissue=tissue) for tissue in ("liver", "blood")]
        rows.append(changed(rows[-1], ALT=next(base for base in "ACGT" if base not in rows[-1][2:4])))
    return [changed(row, split="test" if number % 3 else "train") for number, row in enumerate(rows)]


@pytest.fixture(scope="module")
def variants(some_rows, tmp_path_factory):
    return read_rows(tmp_path_factory.mktemp("table"), some_rows)[0]


@pytest.fixture(scope="module")
def genomes(contigs, write_genome, variants, tmp_path_factory):
    """A FASTA, and a store of the same bases with a population, which varies at variants too."""
    rng, found, folder = np.random.default_rng(1), {}, tmp_path_factory.mktemp("genomes")
    (folder / "some.fa").write_text("".join(f">{name} of some\n{sequence}\n" for name, sequence in contigs.items()))
    for name, sequence in contigs.items():
        known = np.flatnonzero(alphabet.encode(sequence) < 4)
        position = np.union1d(rng.choice(known, 80, replace=False), [60, 61, 100, 103, 280]).tolist()
        found[name] = dict(zip(position, rng.dirichlet(np.ones(4), len(position)), strict=True))
    store = write_genome(folder / "some.genome", contigs, found)
    return [open_genome(path, variants["contig"]) for path in (folder / "some.fa", store)]


def slow_states(encoder, body, genome, row, length, special):
    """Last hidden states of both windows of a row, one base at a time, from the genome's distributions."""
    contig, start = "chr" + row[0].removeprefix("chr"), row[1] - 1 - length // 2
    for allele in row[2:4]:
        probs = np.zeros((length + 2, 9), np.float32)
        probs[0, 1] = probs[-1, 2] = 1
        probs[1:-1, 5:] = genome.frequencies(contig, start, start + length)
        probs[1:-1][genome.bases(contig, start, start + length) == alphabet.UNKNOWN] = np.eye(9)[0]
        probs[1 + length // 2] = np.eye(9)[5 + "ACGT".index(allele)]
        probs = probs if special else probs[1:-1]
        with torch.no_grad():
            states = body.eval()(input_probs=torch.from_numpy(probs)[None]).last_hidden_state[0].numpy()
        yield states[1:-1] if special else states


@pytest.mark.parametrize("population", [False, True])
@pytest.mark.parametrize(("special", "pooled", "length"), [(1, 1, 64), (0, 7, 33), (1, 16, 33), (0, 99, 64)])
def test_features_are_those_of_a_slow_loop(encoder, genomes, variants, some_rows, population, special, pooled, length):
    source, protocol = genomes[population], CORRECTED.replace(special_tokens=bool(special), pooled_tokens=pooled)
    body, told = encoder.body(length + 2), []
    found = find_windows(variants, "t.csv", source, length)
    table, features = embed_variants(encoder, body, *found, source, protocol, length, batch_size=5, advance=told.append)
    assert table["reason"].null_count() == len(some_rows)
    near = slice(max(length // 2 - pooled // 2, 0), length // 2 - pooled // 2 + pooled)
    for row, values in enumerate(some_rows):
        states = list(slow_states(encoder, body, source, values, length, special))
        wanted = {"window": [one[near].mean(axis=0) for one in states], "variant": [one[length // 2] for one in states]}
        for feature in FEATURES:
            for side, value in zip(SIDES, wanted[feature], strict=True):
                np.testing.assert_allclose(features[feature][table[side][row]], value, atol=2e-5, rtol=1e-4)
    # Each distinct window is embedded once.
    places = {(contig.removeprefix("chr"), position) for contig, position, *_ in some_rows}
    different = {(row[0].removeprefix("chr"), row[1], row[3]) for row in some_rows}
    assert len(features["window"]) == len(places) + len(different) == sum(told)


# What follows has embeddings of its own, without a model.


def make_embeddings(count, *, seed=0, contigs=("1",), spread=10**6, signal=0.0, **values):
    """Every row has two windows of its own; the label shifts the first feature of the alternate's."""
    rng, rows = np.random.default_rng(seed), np.arange(count)
    columns = {
        "contig": np.array(contigs)[rng.integers(0, len(contigs), count)],
        "position": rng.integers(10**4, spread, count),
        "tissue": np.array(list("abc"))[rng.integers(0, 3, count)],
        "label": rng.integers(0, 2, count),
        "distance": rng.uniform(0, 100, count),
        "is_test": rows % 3 == 0,
        "reason": pl.Series([None] * count, dtype=pl.String),
        "reference_window": rows,
        "alternate_window": rows + count,
    }
    table = pl.DataFrame(columns | values)
    value = np.random.default_rng(seed).normal(size=(2 * count, 4)).astype(np.float32)
    value[count:, 0] += signal * table["label"].to_numpy()
    return table, value


def scored(made, protocol=CORRECTED, *, head="logistic", length=20, **values):
    """Scores of the test rows, C, and their labels."""
    table = made[0].with_columns(**values)
    train, test, _ = choose_rows(table, EVERYWHERE, protocol, 1)
    options = {"head": head, "seed": 1, "length": length, "name": "some.csv"}
    return *score_variants(table, made[1], train, test, protocol, **options), table["label"].to_numpy()[test]


def area_of(scores, label):
    above = scores[label == 1][:, None] - scores[label == 0]
    return ((above > 0) + (above == 0) / 2).mean()


@pytest.mark.parametrize("edges", ["lower", "both"])
def test_tasks_by_distance(edges):
    distance = [0, 1, 29_999, 30_000, 30_001, 99_999.5, 100_000, 1e7, None]
    table, _ = make_embeddings(9, distance=pl.Series(distance, dtype=pl.Float64))
    times = np.zeros(9, int)
    for task in load_suite("eqtl").eqtl.tasks:
        for rows in choose_rows(table, task, CORRECTED.replace(edges=edges), 1)[:2]:
            times[rows] += 1
    assert times.tolist() == ([1, 1, 1, 2, 1, 1, 2, 1, 0] if edges == "both" else [1] * 8 + [0])


def scores_by_hand(made, head, c, train, test):
    """Scores of the plain way, with the tissue as a number."""
    table, value_UD = made
    tissue = np.unique(table["tissue"], return_inverse=True)[1][:, None]
    value = np.concatenate([value_UD[: len(table)], value_UD[len(table) :], tissue], axis=1).astype(np.float64)
    label, scaler = table["label"].to_numpy(), StandardScaler().fit(value[train])
    model = SVC(C=c) if head == "svm" else LogisticRegression(C=c, max_iter=500)
    return model.fit(scaler.transform(value[train]), label[train]).decision_function(scaler.transform(value[test]))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("on", ["test", "validation"])
def test_the_choice_of_c(head, on):
    made = make_embeddings(300, contigs=tuple("12345"), seed=4, signal=0.5)
    protocol = CORRECTED.replace(tissue="number", choose_c_on=on, c=(10, 0.01, 0.1, 1))
    scores, best, _ = scored(made, protocol, head=head)
    is_test, label = (made[0][name].to_numpy() for name in ("is_test", "label"))
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    learnt, chosen = train, test
    if on == "validation":
        held = hold_out(made[0], train, 1, 20, "some.csv")
        learnt, chosen = train[~held], train[held]
    areas = {c: area_of(scores_by_hand(made, head, c, learnt, chosen), label[chosen]) for c in protocol.c}
    # The strongest penalty of the best, fitted again on all training rows.
    assert best == min(c for c in protocol.c if areas[c] == max(areas.values()))
    np.testing.assert_allclose(scores, scores_by_hand(made, head, best, train, test), atol=1e-9)
    if on == "validation":
        flipped = scored(made, protocol, head=head, label=pl.Series(np.where(is_test, 1 - label, label)))
        np.testing.assert_array_equal(flipped[0], scores)


@pytest.mark.parametrize("seed", range(3))
def test_rows_held_out(seed):
    table, _ = make_embeddings(500, contigs=tuple("12345678"))
    held = hold_out(table, np.arange(500), seed, 20, "some.csv")
    assert not set.intersection(*(set(table["contig"].filter(side)) for side in (held, ~held)))
    assert 50 < held.sum() < 150
    # Of one contig alone none has a neighbour on the other side.
    table, _ = make_embeddings(400, spread=20_000, seed=seed)
    held, again, other = (hold_out(table, np.arange(400), one, 20, "some.csv") for one in (seed, seed, seed + 10))
    assert 60 < held.sum() < 84
    here, there = (table["position"].to_numpy()[side] for side in (~held, held))
    assert np.abs(here[:, None] - there).min() >= 20
    assert again.tolist() == held.tolist() != other.tolist()


def test_a_tissue_that_was_not_learnt_from_has_no_feature_of_its_own():
    tissue = pl.Series(list("cadbbacd"))
    hot = encode_tissues(tissue, np.flatnonzero(tissue != "b"), "one-hot")
    assert hot.tolist() == [[float(one == other) for other in "acd"] for one in tissue]


def test_rows_of_a_task_are_used_or_counted_and_drawn_by_seed():
    table, _ = make_embeddings(600, reason=[["one", "two", None, None, None][number % 5] for number in range(600)])
    protocol, task = CORRECTED.replace(max_train_rows=50), EqtlTask(name="near", from_distance=10, to_distance=90)
    (train, test, unused), (again, *_), (other, *_) = (choose_rows(table, task, protocol, seed) for seed in (1, 1, 2))
    assert train.tolist() == again.tolist() != other.tolist()
    inside = table["distance"].is_between(10, 90).to_numpy()
    assert 50 + len(test) + sum(unused.values()) == inside.sum()
    assert list(unused) == ["one", "two", "more training rows than max_train_rows"]
    for rows, side in ((train, False), (test, True)):
        assert inside[rows].all()
        assert table[rows].select("is_test", "reason").unique().rows() == [(side, None)]


def test_rows_that_nothing_can_be_learnt_from():
    made = make_embeddings(60)
    is_test, label = made[0]["is_test"].to_numpy(), made[0]["label"].to_numpy()
    for side, words in ((True, "20 test"), (False, "40 training")):
        with pytest.raises(InputError, match=f"some.csv: the {words} rows are not of both classes; add rows"):
            scored(made, label=pl.Series(np.where(is_test == side, 1, label)))
    near = make_embeddings(60, spread=10_100)
    with pytest.raises(InputError, match=r"some.csv: of the 40 training rows none of both classes can be held out"):
        scored(near, length=200)
    assert scored(near, CORRECTED.replace(c=(0.1,)), length=200)[1] == 0.1


def test_a_table_as_it_is_read(tmp_path):
    rows = [
        ("chr2", "7", "a", "T", "liver", "1", "-12", "Train"),
        ("chr10", "1", "", "C", " blood ", "0.0", "3.5e3", "test"),
        ("chr2", "7.0", "N", "AT", "liver", "true", "", "valid"),
    ]
    table, source = read_rows(tmp_path, rows, (HEADER[0], "where", *HEADER[2:]), position="where")
    assert source.place == str(tmp_path / "t.csv")
    columns = ("contig", "position", "reference", "alternate", "tissue", "label", "distance", "is_test")
    assert table.select(columns).rows() == [
        ("chr2", 7, "a", "T", "liver", 1, 12, False), ("chr10", 1, "", "C", "blood", 0, 3500, True),
        ("chr2", 7, "N", "AT", "liver", 1, None, None),
    ]  # fmt: skip


def test_rows_that_the_genome_does_not_fit(contigs, genomes, tmp_path):
    sequence = contigs["chr1"].upper()
    good = [variant(sequence, 100 + number, split="test" if number % 2 else "train") for number in range(40)]
    good += [variant(sequence, 32), variant(sequence, 700 - 32)]
    bad = {
        changed(CHROM="7"): "no such contig", changed(CHROM="7", ALT="-"): "change of one base",
        changed(good[0], REF=f"{good[0][2]}A", ALT=f"{good[0][3]}A"): "change of one base",
        variant(sequence, 31): "window goes beyond", variant(sequence, 700 - 31): "window goes beyond",
        changed(POS=10**9): "outside the contig", changed(good[0], REF=good[0][3], ALT=good[0][2]): "REF is not",
        changed(distance_to_nearest_tss=""): "no distance", changed(split="valid"): "neither train nor test",
    }  # fmt: skip

    def found_in(rows):
        table, source = read_rows(tmp_path, rows)
        return find_windows(table, source.place, genomes[0], 64)[0]

    found = found_in([*good, *bad])
    assert found["reason"].null_count() == len(good)
    for reason, words in zip(found["reason"][len(good) :], bad.values(), strict=True):
        assert words in reason
    assert (found["reference_window"][len(good) :] == -1).all()
    rows = [variant(contigs["chr2"], 100 + number, CHROM="chr1") for number in range(90)]
    with pytest.raises(InputError, match=r"t.csv: the reference allele is not what .* of 91 variants, more than 10 %"):
        found_in([*rows, changed(rows[0], split="test")])
    with pytest.raises(InputError, match=r"t.csv: no row can be used: .*no such contig \(1\), the window"):
        found_in([variant(sequence, 5), changed(CHROM="x", split="test")])


def test_bad_tables(tmp_path):
    for values, message in (
        ({"tissue": " "}, ", line 3: tissue is missing; fill it in, or remove the row"),
        ({"label": "2"}, ", line 3: label is '2'; expected 0 or 1"),
        ({"split": "train"}, ": no row has 'test' in column split; rows are train or test"),
    ):
        with pytest.raises(InputError, match=re.escape(f"{tmp_path / 't.csv'}{message}")):
            read_rows(tmp_path, [changed(), changed(**{"split": "test", **values})])


def test_a_fasta_keeps_the_contigs_of_the_table(tmp_path):
    (tmp_path / "some.fa").write_text(">chr1\nACGTN\n>chr2\nGGG\n>chrM\nTTtA\n")
    found = open_genome(tmp_path / "some.fa", pl.Series(["1", "MT", "1"]))
    assert found.lengths == {"chr1": 5, "chrM": 4}
    assert alphabet.decode(found.bases("chr1", 2, 5)) == "GTN"
