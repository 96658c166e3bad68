"""Variants told apart by embeddings: against slow loops, closed forms, and changes that were planted."""

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
    NOT_DRAWN,
    VariantEmbeddings,
    embed_variants,
    encode_tissues,
    evaluate_variants,
    hold_out,
    task_rows,
)
from mutbert.evaluation.eqtl_table import REASONS, open_genome, read_variants
from mutbert.evaluation.suites import EqtlColumns, EqtlTask, load_suite

PROTOCOLS = load_suite("eqtl").eqtl.protocols
CORRECTED, PUBLISHED = PROTOCOLS["corrected"], PROTOCOLS["published"]
EVERYWHERE = EqtlTask(name="all", from_distance=0)
HEADER = ("CHROM", "POS", "REF", "ALT", "tissue", "label", "distance_to_nearest_tss", "split")
GOOD = ("1", "50", "A", "C", "blood", "1", "-10", "train")


def read_rows(folder, rows, header=HEADER, columns=None):
    (folder / "t.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in (header, *rows)))
    return read_variants(folder / "t.csv", columns)


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
    return read_rows(tmp_path_factory.mktemp("table"), some_rows)


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
    return [open_genome(path, variants.table) for path in (folder / "some.fa", store)]


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
    found = embed_variants(encoder, body, variants, source, protocol, length, batch_size=5, advance=told.append)
    assert found.table["reason"].null_count() == len(some_rows)
    near = slice(max(length // 2 - pooled // 2, 0), length // 2 - pooled // 2 + pooled)
    for row, values in enumerate(some_rows):
        states = list(slow_states(encoder, body, source, values, length, special))
        wanted = {"window": [one[near].mean(axis=0) for one in states], "variant": [one[length // 2] for one in states]}
        for feature in FEATURES:
            given = found.pair(np.array([row]), feature)[0]
            np.testing.assert_allclose(given, np.concatenate(wanted[feature]), atol=2e-5, rtol=1e-4)
    # Each distinct window is embedded once.
    places = {(contig.removeprefix("chr"), position) for contig, position, *_ in some_rows}
    different = {(row[0].removeprefix("chr"), row[1], row[3]) for row in some_rows}
    assert len(found.key_U) == len(places) + len(different) == sum(told) == 2 * len(some_rows) - found.saved


@pytest.mark.parametrize("kind", ["esm", "bert"])
def test_tokens_of_several_bases(model_folders, contigs, genomes, variants, some_rows, kind):
    """Tokens are found by the bases that they stand for."""
    encoder, length, pooled = open_encoder(model_folders[kind]), 60, 3
    body, protocol = encoder.body(62), CORRECTED.replace(pooled_tokens=pooled)
    found, compared = embed_variants(encoder, body, variants, genomes[0], protocol, length, batch_size=4), 0
    for row, (contig, position, *alleles, _, _, _, _) in enumerate(some_rows):
        start = position - 1 - length // 2
        window = contigs["chr" + contig.removeprefix("chr")].upper()[start : start + length]
        if set(window) - set("ACGT"):
            continue
        wanted = []
        for allele in alleles:
            ids = encoder.tokenizer(window[: length // 2] + allele + window[length // 2 + 1 :])["input_ids"]
            words = ["" if word[0] in "<[" else word for word in encoder.tokenizer.convert_ids_to_tokens(ids)]
            own = int(np.flatnonzero(np.cumsum([len(word) for word in words]) > length // 2)[0])
            with torch.inference_mode():
                states = encoder.hidden_states(body, {"input_ids": torch.tensor([ids])})[0].numpy()
            wanted.append((states[own - 1 : own + 2].mean(axis=0), states[own]))
        for feature, sides in zip(FEATURES, zip(*wanted, strict=True), strict=True):
            given = found.pair(np.array([row]), feature)[0]
            np.testing.assert_allclose(given, np.concatenate(sides), atol=2e-5, rtol=1e-4)
        compared += 1
    assert compared == 12


# What follows has embeddings of its own, without a model.


def make_embeddings(count, *, seed=0, contigs=("1",), tissues=("a", "b", "c"), spread=10**6, signal=0.0, length=20,
                    **values):  # fmt: skip
    """Every row has two windows of its own; the label shifts the first feature of the alternate's."""
    rng, rows = np.random.default_rng(seed), np.arange(count)
    columns = {
        "contig": np.array(contigs)[rng.integers(0, len(contigs), count)],
        "position": rng.integers(10**4, spread, count),
        "tissue": np.array(tissues)[rng.integers(0, len(tissues), count)],
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
    key = rng.integers(0, 2**62, (2 * count, 2)).astype(np.uint64).view("V16")[:, 0]
    return VariantEmbeddings(table, "some.csv", length, key, {"window": value, "variant": -value})


def evaluated(embeddings, protocol=CORRECTED, task=EVERYWHERE, head="logistic", feature="window", seed=1, label=None):
    if label is not None:
        embeddings = embeddings._replace(table=embeddings.table.with_columns(label=pl.Series(label)))
    return evaluate_variants(embeddings, task, protocol, head=head, feature=feature, seed=seed)


@pytest.mark.parametrize("edges", ["lower", "both"])
def test_tasks_by_distance(edges):
    distance = [0, 1, 29_999, 30_000, 30_001, 99_999.5, 100_000, 1e7, None]
    table, times = pl.DataFrame({"distance": pl.Series(distance, dtype=pl.Float64)}), np.zeros(len(distance), int)
    for task in load_suite("eqtl").eqtl.tasks:
        times += task_rows(table, task, edges).to_numpy()
    assert times.tolist() == ([1, 1, 1, 2, 1, 1, 2, 1, 0] if edges == "both" else [1] * 8 + [0])


def test_scores_are_labels_or_decisions():
    signal, none = make_embeddings(600, signal=1.5), make_embeddings(3000)
    hard = CORRECTED.replace(scores="labels", c=(1,))
    labels, decisions = (evaluated(signal, protocol) for protocol in (hard, hard.replace(scores="decision")))
    np.testing.assert_array_equal(labels.scores, decisions.scores > 0)
    assert decisions.metrics["auroc"] > labels.metrics["auroc"] + 0.02 > 0.7
    # Labels that are drawn tell nothing, whatever C is chosen.
    assert abs(evaluated(none).metrics["auroc"] - 0.5) < 0.05


def area_by_hand(embeddings, head, c, train, test):
    """Scores of the plain way, with the tissue as a number, and their AUROC."""
    window_UD, count = embeddings.features["window"], len(embeddings.table)
    tissue = np.unique(embeddings.table["tissue"], return_inverse=True)[1][:, None]
    value = np.concatenate([window_UD[:count], window_UD[count:], tissue], axis=1).astype(np.float64)
    label, scaler = embeddings.table["label"].to_numpy(), StandardScaler().fit(value[train])
    model = SVC(C=c) if head == "svm" else LogisticRegression(C=c, max_iter=500)
    scores = model.fit(scaler.transform(value[train]), label[train]).decision_function(scaler.transform(value[test]))
    above = scores[label[test] == 1][:, None] - scores[label[test] == 0]
    return scores, ((above > 0) + (above == 0) / 2).mean()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("on", ["test", "validation"])
def test_the_choice_of_c(head, on):
    embeddings = make_embeddings(300, contigs=tuple("12345"), seed=4, signal=0.5)
    protocol = CORRECTED.replace(tissue="number", choose_c_on=on, c=(10, 0.01, 0.1, 1))
    result = evaluated(embeddings, protocol, head=head)
    is_test, label = (embeddings.table[name].to_numpy() for name in ("is_test", "label"))
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    np.testing.assert_array_equal(result.train_rows, train)
    np.testing.assert_array_equal(result.test_rows, test)
    learnt, chosen = train, test
    if on == "validation":
        held = hold_out(embeddings, train, EVERYWHERE, 1)
        learnt, chosen = train[~held], train[held]
    areas = {c: area_by_hand(embeddings, head, c, learnt, chosen)[1] for c in protocol.c}
    # The strongest penalty of the best, fitted again on all training rows.
    assert result.c == min(c for c in protocol.c if areas[c] == max(areas.values()))
    scores, area = area_by_hand(embeddings, head, result.c, train, test)
    np.testing.assert_allclose(result.scores, scores, atol=1e-9)
    assert result.metrics["auroc"] == pytest.approx(area)
    if on == "validation":
        flipped = evaluated(embeddings, protocol, head=head, label=np.where(is_test, 1 - label, label))
        np.testing.assert_array_equal(flipped.scores, result.scores)


@pytest.mark.parametrize("seed", range(3))
def test_rows_held_out(seed):
    embeddings = make_embeddings(500, contigs=tuple("12345678"))
    held = hold_out(embeddings, np.arange(500), EVERYWHERE, seed)
    assert not set.intersection(*(set(embeddings.table["contig"].filter(side)) for side in (held, ~held)))
    assert 50 < held.sum() < 150
    # Of one contig alone none has a neighbour on the other side; windows far away from each other may be equal.
    embeddings = make_embeddings(400, spread=20_000, seed=seed)
    embeddings.key_U[:40] = np.repeat(embeddings.key_U[:20], 2)
    held, again, other = (hold_out(embeddings, np.arange(400), EVERYWHERE, one) for one in (seed, seed, seed + 10))
    assert 60 < held.sum() < 84
    here, there = (embeddings.table["position"].to_numpy()[side] for side in (~held, held))
    assert np.abs(here[:, None] - there).min() >= 20
    assert not np.isin(*(embeddings.key_U[:400][side] for side in (~held, held))).any()
    assert again.tolist() == held.tolist() != other.tolist()


def test_tissues():
    tissue = pl.Series(list("cadbbacd"))
    # One that was not learnt from has no feature of its own.
    hot = encode_tissues(tissue, np.flatnonzero(tissue != "b"), "one-hot")
    assert hot.tolist() == [[float(one == other) for other in "acd"] for one in tissue]
    assert encode_tissues(tissue, np.arange(8), "number")[:, 0].tolist() == ["abcd".index(one) for one in tissue]


def test_rows_of_a_task_are_used_or_counted_and_drawn_by_seed():
    reason = [[*REASONS, None, None, None][number % 10] for number in range(600)]
    embeddings = make_embeddings(600, reason=reason, signal=2)
    protocol, task = CORRECTED.replace(max_train_rows=50), EqtlTask(name="near", from_distance=10, to_distance=90)
    one, again, other = (evaluated(embeddings, protocol, task, seed=seed) for seed in (1, 1, 2))
    assert one.train_rows.tolist() == again.train_rows.tolist() != other.train_rows.tolist()
    assert one.scores.tolist() == again.scores.tolist()
    assert len(set(one.train_rows.tolist())) == 50
    inside = embeddings.table["distance"].is_between(10, 90).to_numpy()
    assert len(one.train_rows) + len(one.test_rows) + sum(one.unused.values()) == inside.sum()
    assert list(one.unused) == [*REASONS, NOT_DRAWN]
    for rows, side in ((one.train_rows, False), (one.test_rows, True)):
        assert inside[rows].all()
        assert embeddings.table[rows].select("is_test", "reason").unique().rows() == [(side, None)]
    assert one.metrics["auroc"] > 0.8


def test_rows_that_nothing_can_be_learnt_from():
    embeddings = make_embeddings(60)
    is_test, label = embeddings.table["is_test"].to_numpy(), embeddings.table["label"].to_numpy()
    for side, words in ((True, "20 test"), (False, "40 training")):
        with pytest.raises(InputError, match=f"some.csv: the {words} rows of task all are not of both classes"):
            evaluated(embeddings, label=np.where(is_test == side, 1, label))
    near = make_embeddings(60, spread=10_100, length=200)
    with pytest.raises(InputError, match=r"some.csv: of the 40 training rows of task all none of both classes can be"):
        evaluated(near)
    assert evaluated(near, CORRECTED.replace(c=(0.1,))).c == 0.1


def test_a_table_as_it_is_read(tmp_path):
    rows = [
        ("chr2", "7", "a", "T", "liver", "1", "-12", "Train"),
        ("chr10", "1", "G", "C", " blood ", "0.0", "3.5e3", "test"),
        ("chr2", "7.0", "A", "AT", "liver", "true", "+0", "TEST"),
        ("chr2", "9", "A", "A", "liver", "False", "", "test"),
        ("chr2", "9", "N", "A", "liver", "0", "5", "valid"),
    ]
    read = read_rows(tmp_path, rows, (HEADER[0], "where", *HEADER[2:]), EqtlColumns(position="where"))
    assert read.table.to_dict(as_series=False) == {
        "contig": ["chr2", "chr10", "chr2", "chr2", "chr2"],
        "tissue": ["liver", "blood", "liver", "liver", "liver"],
        "position": [6, 0, 6, 8, 8],
        "reference": [0, 2, 0, 0, None],
        "alternate": [3, 1, None, 0, 0],
        "label": [1, 0, 1, 0, 0],
        "distance": [12, 3500, 0, None, 5],
        "is_test": [False, True, True, True, False],
        "reason": [None, None, REASONS[2], REASONS[0], REASONS[1]],
    }
    assert (read.split_by, read.source.place) == ("column", str(tmp_path / "t.csv"))
    rows = [changed(CHROM=str(number % 7), POS=50 + number)[:-1] for number in range(70)]
    read = read_rows(tmp_path, rows, HEADER[:-1])
    assert read.split_by == "contigs"
    assert read.table.group_by("contig").agg(pl.col("is_test").n_unique())["is_test"].to_list() == [1] * 7
    assert 0.1 < read.table["is_test"].mean() < 0.3


def test_rows_that_the_genome_does_not_fit(contigs, genomes, encoder, tmp_path):
    sequence = contigs["chr1"].upper()
    good = [variant(sequence, 100 + number, split="test" if number % 2 else "train") for number in range(9)]
    good += [variant(sequence, 32), variant(sequence, 700 - 32)]
    bad = [
        changed(CHROM="7"), changed(CHROM="7", ALT="-"), variant(sequence, 31), variant(sequence, 700 - 31),
        changed(POS=10**9), changed(good[0], REF=good[0][3], ALT=good[0][2]),
        # R is an A or a G, and none of them.
        changed(POS=304, REF="A", ALT="C"), changed(distance_to_nearest_tss=""),
    ]  # fmt: skip

    def embedded(rows):
        return embed_variants(encoder, encoder.body(66), read_rows(tmp_path, rows), genomes[0], CORRECTED, 64)

    found = embedded(good + bad).table
    numbers = [3, 2, 4, 4, 4, 5, 5, 0]
    assert found["reason"].to_list() == [None] * len(good) + [REASONS[number] for number in numbers]
    assert (found["reference_window"][len(good) :] == -1).all()
    rows = [variant(contigs["chr2"], 100 + number, CHROM="chr1") for number in range(90)]
    with pytest.raises(InputError, match=r"t.csv: the reference base is not the genome's in \d+ of 91 variants; use"):
        embedded([*rows, changed(rows[0], split="test")])
    with pytest.raises(InputError, match=r"t.csv: no row can be used: the contig is not in the genome \(1\), the wind"):
        embedded([changed(POS=5), changed(CHROM="x", split="test")])


@pytest.mark.parametrize(
    ("header", "values", "message"),
    [
        (HEADER, {"CHROM": ""}, ", line 3: CHROM is missing; fill it in, or remove the row"),
        (HEADER, {"tissue": " "}, ", line 3: tissue is missing; fill it in, or remove the row"),
        (HEADER, {"POS": "0"}, ", line 3: POS is '0'; positions are whole numbers from 1 on"),
        (HEADER, {"label": "2"}, ", line 3: label is '2'; expected 0 or 1"),
        (HEADER, {"distance_to_nearest_tss": "far"}, ", line 3: distance_to_nearest_tss is 'far'; expected a number"),
        (HEADER, {"split": "train"}, ": no row has 'test' in column split; rows are train or test"),
        (HEADER[:-1], {}, ": no column 'split', and all variants are on contig 1; add a column with train or test"),
    ],
)
def test_bad_tables(tmp_path, header, values, message):
    with pytest.raises(InputError) as error:
        read_rows(tmp_path, [row[: len(header)] for row in (changed(), changed(**{"split": "test", **values}))], header)
    assert str(error.value) == f"{tmp_path / 't.csv'}{message}"


def test_a_fasta_keeps_the_contigs_of_the_table(tmp_path):
    (tmp_path / "some.fa").write_text(">chr1\nACGTN\n>chr2\nGGG\n>chrM\nTTtA\n")
    found = open_genome(tmp_path / "some.fa", pl.DataFrame({"contig": ["1", "MT", "1"]}))
    assert found.lengths == {"chr1": 5, "chrM": 4}
    assert alphabet.decode(found.bases("chr1", 2, 5)) == "GTN"
