"""Variants told apart by embeddings: against slow loops, closed forms, and changes that were planted."""

import dataclasses
import gzip
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from mutbert import alphabet
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.inputs import TokenInputs
from mutbert.errors import InputError
from mutbert.evaluation import eqtl
from mutbert.evaluation.eqtl import FEATURES, HEADS, NOT_DRAWN, VariantEmbeddings, embed_variants, evaluate_variants
from mutbert.evaluation.eqtl_table import REASONS, USED, FastaGenome, VariantTable, open_genome, read_variants
from mutbert.evaluation.suites import EqtlColumns, EqtlTask, load_suite
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model import MutBertConfig, MutBertForMaskedLM

PROTOCOLS = load_suite("eqtl").eqtl.protocols
CORRECTED, PUBLISHED = PROTOCOLS["corrected"], PROTOCOLS["published"]
EVERYWHERE = EqtlTask("all", 0)
HEADER = ("CHROM", "POS", "REF", "ALT", "tissue", "label", "distance_to_nearest_tss", "split")
GOOD = ("1", "50", "A", "C", "blood", "1", "-10", "train")
# An alternate allele that makes one run of T out of two: a random model sees what bases are about.
MOTIF, CHANGED, ALTERNATE = "TTTTCTTTT", 4, "T"


def write_rows(path, rows, header=HEADER):
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in (header, *rows)))
    return path


def changed(row=GOOD, **values):
    return tuple(values.get(name, value) for name, value in zip(HEADER, row, strict=True))


def variant(sequence, position, **values):
    """Write a row of a variant at a 0-based position, of another base than the reference."""
    reference = sequence[position]
    other = alphabet.BASES[(alphabet.BASES.index(reference) + 1) % 4]
    return changed(**{"POS": position + 1, "REF": reference, "ALT": other, **values})


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A small model with random weights."""
    folder = tmp_path_factory.mktemp("model")
    config = MutBertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MutBertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def encoder(model_folder):
    return open_encoder(model_folder)


@pytest.fixture(scope="session")
def contigs():
    """Random bases, some in lower case, some ambiguous."""
    rng = np.random.default_rng(0)
    found = {name: "".join(rng.choice(list("ACGT"), size)) for name, size in (("chr1", 700), ("chr2", 400))}
    found["chr1"] = found["chr1"][:300] + "nnnRY" + found["chr1"][305:400].lower() + found["chr1"][400:]
    return found


@pytest.fixture(scope="session")
def genome(contigs, tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "some.fa"
    path.write_text("".join(f">{name} of some\n{sequence}\n" for name, sequence in contigs.items()))
    return FastaGenome(path)


@pytest.fixture(scope="session")
def some_rows(contigs):
    """Variants in several tissues, and of several alternate alleles."""
    rows = []
    for name, position in (("1", 60), ("chr1", 280), ("chr1", 310), ("2", 100), ("2", 103), ("1", 61)):
        sequence = contigs["chr" + name.removeprefix("chr")].upper()
        rows += [variant(sequence, position, CHROM=name, tissue=tissue) for tissue in ("liver", "blood")]
        rows.append((*rows[-1][:3], next(base for base in "ACGT" if base not in rows[-1][2:4]), *rows[-1][4:]))
    return [changed(row, split="test" if number % 3 else "train") for number, row in enumerate(rows)]


@pytest.fixture
def table(some_rows, tmp_path):
    return read_variants(write_rows(tmp_path / "t.csv", some_rows)).table


def slow_features(body, sequence, centre, pooled, special):
    """Embed one window, base by base."""
    ids = [dict(zip("ACGT", (5, 6, 7, 8), strict=True)).get(letter, 0) for letter in sequence]
    first = 1 if special else 0
    probs = np.zeros((len(ids), 9), np.float32)
    for place, letter in enumerate(sequence):
        probs[place] = alphabet.TOKEN_PROBABILITIES[alphabet.IUPAC.index(letter)]
    if special:
        probs = np.concatenate([np.eye(9, dtype=np.float32)[[1]], probs, np.eye(9, dtype=np.float32)[[2]]])
    with torch.no_grad():
        states = body.eval()(input_probs=torch.from_numpy(probs)[None]).last_hidden_state[0].numpy()
    near = [place for place in range(len(sequence)) if centre - pooled // 2 <= place < centre - pooled // 2 + pooled]
    return np.mean([states[first + place] for place in near], axis=0), states[first + centre]


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("pooled", [1, 7, 16, 1536])
@pytest.mark.parametrize("length", [64, 33])
def test_features_are_those_of_a_slow_loop(encoder, contigs, genome, table, some_rows, special, pooled, length):
    protocol = dataclasses.replace(CORRECTED, special_tokens=special, pooled_tokens=pooled)
    body = encoder.body(length + 2)
    found = embed_variants(encoder, body, table, genome, protocol, length, batch_size=5)
    assert (found.reason_N == USED).all()
    every = np.arange(len(table))
    pairs = {feature: found.pair(every, feature) for feature in FEATURES}
    for row, (contig, position, _, alternate, *_) in enumerate(some_rows):
        sequence = contigs["chr" + contig.removeprefix("chr")].upper()
        start = position - 1 - length // 2
        reference = sequence[start : start + length]
        other = reference[: length // 2] + alternate + reference[length // 2 + 1 :]
        wanted = [slow_features(body, text, length // 2, pooled, special) for text in (reference, other)]
        for place, feature in enumerate(FEATURES):
            both = np.concatenate([one[place] for one in wanted])
            np.testing.assert_allclose(pairs[feature][row], both, atol=2e-5, rtol=1e-4)


def test_a_window_is_embedded_once(encoder, genome, table, some_rows, tmp_path):
    told = []
    found = embed_variants(encoder, None, table, genome, CORRECTED, 64, advance=told.append)
    places = {(contig.removeprefix("chr"), position) for contig, position, *_ in some_rows}
    different = {(row[0].removeprefix("chr"), row[1], row[3]) for row in some_rows}
    assert len(found.window_UD) == len(places) + len(different) == sum(told)
    assert found.saved == 2 * len(some_rows) - len(found.window_UD)
    for row in range(len(table)):
        same = [changed(some_rows[row], split=split) for split in ("train", "test")]
        alone = read_variants(write_rows(tmp_path / "one.csv", same)).table
        one = embed_variants(encoder, None, alone, genome, CORRECTED, 64)
        assert len(one.window_UD) == 2
        for feature in FEATURES:
            np.testing.assert_allclose(
                one.pair(np.array([0]), feature)[0], found.pair(np.array([row]), feature)[0], atol=1e-5
            )


def test_low_precision_pools_in_full_precision(encoder, genome, table):
    exact, low = (embed_variants(encoder, None, table, genome, CORRECTED, 64, precision=p) for p in ("fp32", "bf16"))
    np.testing.assert_allclose(low.window_UD, exact.window_UD, atol=0.05)
    assert low.window_UD.dtype == np.float32
    # A mean over 64 tokens in bfloat16 would have no more digits than that.
    assert (low.window_UD != low.window_UD.view(np.uint32).__and__(0xFFFF0000).view(np.float32)).mean() > 0.5


@pytest.fixture(scope="session")
def store(contigs, write_genome, tmp_path_factory):
    rng = np.random.default_rng(1)
    variants = {}
    for name, sequence in contigs.items():
        code = alphabet.encode(sequence)
        position = np.sort(rng.choice(np.flatnonzero(code < 4), 80, replace=False))
        position = np.union1d(position, [60, 61, 100, 103, 280]).tolist()
        variants[name] = dict(zip(position, rng.dirichlet(np.ones(4), len(position)), strict=True))
    return write_genome(tmp_path_factory.mktemp("store") / "some.genome", contigs, variants)


def test_a_store_is_read_as_a_fasta(encoder, store, genome, table):
    opened = open_genome(store, table)
    assert isinstance(opened, ProbabilisticGenome)
    one, other = (embed_variants(encoder, None, table, source, CORRECTED, 50) for source in (opened, genome))
    np.testing.assert_array_equal(one.window_UD, other.window_UD)


def test_frequencies_stand_everywhere_but_at_the_variant(encoder, store, table):
    opened, length = ProbabilisticGenome.open(store), 40
    body = encoder.body(length + 2)
    found = embed_variants(encoder, body, table, opened, CORRECTED, length, frequencies=True, batch_size=3)
    assert not np.allclose(found.window_UD, embed_variants(encoder, body, table, opened, CORRECTED, length).window_UD)
    pair = found.pair(np.arange(len(table)), "window")
    for row in range(len(table)):
        contig = table.contigs[table.contig_N[row]]
        start = int(table.position_N[row]) - length // 2
        base = opened.bases(contig, start, start + length)
        probs = np.zeros((length + 2, 9), np.float32)
        probs[0, 1] = probs[-1, 2] = 1
        probs[1:-1, 5:] = opened.frequencies(contig, start, start + length)
        probs[1:-1][base == alphabet.UNKNOWN] = np.eye(9)[0]
        for side, allele in enumerate((table.reference_N[row], table.alternate_N[row])):
            probs[1 + length // 2] = np.eye(9)[5 + allele]
            with torch.no_grad():
                states = body.eval()(input_probs=torch.from_numpy(probs)[None]).last_hidden_state[0, 1:-1]
            half = slice(32 * side, 32 * side + 32)
            np.testing.assert_allclose(pair[row, half], states.mean(0).numpy(), atol=2e-5, rtol=1e-4)


def test_a_fasta_has_no_frequencies(encoder, genome, table):
    with pytest.raises(ValueError, match="a FASTA has no frequencies"):
        embed_variants(encoder, None, table, genome, CORRECTED, 40, frequencies=True)


class PairReader:
    """A model of tokens of one or two bases, whose state is a vector for each token."""

    name, family = "pairs", "other"

    def __init__(self):
        tokens = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", *"ACGT", "AC", "GT", "TT", "ACGT"]
        vocabulary = {token: number for number, token in enumerate(tokens)}
        merges = [("A", "C"), ("G", "T"), ("T", "T"), ("AC", "GT")]
        inner = Tokenizer(models.BPE(vocabulary, merges, unk_token="[UNK]", fuse_unk=True))
        inner.post_processor = processors.TemplateProcessing(
            "[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
        )
        self.tokens = tokens
        self.vectors = torch.nn.Embedding(len(tokens), 6)

    def inputs(self, examples, *, max_tokens=None, genome=None, special_tokens=True):
        assert genome is None
        return TokenInputs(self.tokenizer, examples, max_tokens=max_tokens, special_tokens=special_tokens)

    def body(self, longest, *, rope_scaling=None):
        assert longest > 0
        assert rope_scaling is None
        return self.vectors

    def hidden_states(self, body, batch):
        return body(batch["input_ids"])


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("pooled", [1, 4, 1000])
def test_tokens_of_several_bases(contigs, genome, table, some_rows, special, pooled):
    """Tokens are found by the bases that they stand for; where a tokenizer loses bases, none is."""
    torch.manual_seed(0)
    reader, length = PairReader(), 60
    protocol = dataclasses.replace(PUBLISHED, special_tokens=special, pooled_tokens=pooled)
    found = embed_variants(reader, None, table, genome, protocol, length, batch_size=4)
    weights = reader.vectors.weight.detach().numpy()
    lost = 0
    for row, (contig, position, reference, alternate, *_) in enumerate(some_rows):
        sequence = contigs["chr" + contig.removeprefix("chr")].upper()
        start = position - 1 - length // 2
        window = sequence[start : start + length]
        if set(window) - set("ACGT"):
            lost += 1
            assert REASONS[found.reason_N[row]] == "the variant's token was not found"
            continue
        assert found.reason_N[row] == USED
        for side, allele in enumerate((reference, alternate)):
            text = window[: length // 2] + allele + window[length // 2 + 1 :]
            tokens = reader.tokenizer.tokenize(text)
            assert "".join(tokens) == text
            behind = np.cumsum([len(token) for token in tokens])
            own = int(np.flatnonzero(behind > length // 2)[0])
            near = range(max(own - pooled // 2, 0), min(own - pooled // 2 + pooled, len(tokens)))
            mean = np.mean([weights[reader.tokens.index(tokens[place])] for place in near], axis=0)
            half = slice(6 * side, 6 * side + 6)
            np.testing.assert_allclose(found.pair(np.array([row]), "window")[0, half], mean, atol=1e-5)
            own_state = weights[reader.tokens.index(tokens[own])]
            np.testing.assert_allclose(found.pair(np.array([row]), "variant")[0, half], own_state, atol=1e-6)
    assert found.unused == {"the variant's token was not found": lost}
    assert lost == 6


@pytest.mark.parametrize("name", ["dnabert2", "nt-500m-1000g", "ntv2-50m", "caduceus-ph", "caduceus-ps"])
def test_a_peer_says_what_its_token_at_the_variant_does(peer_folders, contigs, genome, table, some_rows, name):
    encoder, length = open_encoder(peer_folders[name]), 60
    found = embed_variants(encoder, None, table, genome, CORRECTED, length, batch_size=3)
    body, tokenizer = encoder.body(length), encoder.tokenizer
    compared = 0
    for row, (contig, position, reference, alternate, *_) in enumerate(some_rows):
        sequence = contigs["chr" + contig.removeprefix("chr")].upper()
        start = position - 1 - length // 2
        window = sequence[start : start + length]
        if set(window) - set("ACGT"):
            continue
        compared += 1
        own_states = []
        for allele in (reference, alternate):
            text = window[: length // 2] + allele + window[length // 2 + 1 :]
            ids = tokenizer(text, add_special_tokens=encoder.special_tokens)["input_ids"]
            words = ["" if token[0] in "<[" else token for token in tokenizer.convert_ids_to_tokens(ids)]
            assert "".join(words) == text
            own = int(np.flatnonzero(np.cumsum([len(word) for word in words]) > length // 2)[0])
            with torch.inference_mode():
                own_states.append(encoder.hidden_states(body, {"input_ids": torch.tensor([ids])})[0, own].numpy())
        pair = found.pair(np.array([row]), "variant")[0]
        np.testing.assert_allclose(pair, np.concatenate(own_states), atol=2e-5, rtol=1e-4)
    assert compared > 3


def test_no_token_found_at_all(table, genome, monkeypatch):
    reader = PairReader()
    monkeypatch.setattr(TokenInputs, "tokens_at", lambda _self, rows, _place_B: np.full(len(rows), -1))
    with pytest.raises(InputError, match="pairs: the token of no variant was found"):
        embed_variants(reader, None, table, genome, CORRECTED, 60)


# What follows has embeddings of its own, without a model.


def make_table(count, *, seed=0, contigs=("1",), tissues=("a", "b", "c"), spread=10**6, **values):
    rng = np.random.default_rng(seed)
    settings = {
        "place": "some.csv",
        "contigs": contigs,
        "contig_N": rng.integers(0, len(contigs), count),
        "position_N": rng.integers(10**4, spread, count),
        "reference_N": np.zeros(count, np.uint8),
        "alternate_N": np.ones(count, np.uint8),
        "tissues": tissues,
        "tissue_N": rng.integers(0, len(tissues), count),
        "label_N": rng.integers(0, 2, count),
        "distance_N": rng.uniform(0, 100, count),
        "test_N": np.arange(count) % 3 == 0,
        "reason_N": np.full(count, USED, np.int8),
        "split_by": "column",
    }
    return VariantTable(**{**settings, **values})


def make_embeddings(table, *, seed=0, signal=0.0, features=4, length=20):
    """Every row has two windows of its own; the label shifts the first feature of the alternate's."""
    rng, count = np.random.default_rng(seed), len(table)
    value = rng.normal(size=(2 * count, features)).astype(np.float32)
    value[count:, 0] += signal * table.label_N
    key = rng.integers(0, 2**62, (2 * count, 2)).astype(np.uint64).view("V16")[:, 0]
    every = np.arange(count)
    return VariantEmbeddings(value, -value, key, every, every + count, table.reason_N, length, 0)


@pytest.mark.parametrize("edges", ["lower", "both"])
def test_tasks_by_distance(edges):
    distance = np.array([0, 1, 29_999, 30_000, 30_001, 99_999.5, 100_000, 1e7, np.nan])
    table = make_table(len(distance), distance_N=distance)
    tasks = load_suite("eqtl").eqtl.tasks
    marked = {task.name: eqtl.task_rows(table, task, edges).tolist() for task in tasks}
    for task in tasks:
        end = task.to_distance or float("inf")
        wanted = [task.from_distance <= d < end or (edges == "both" and d == end) for d in distance]
        assert marked[task.name] == wanted
    times = np.sum(list(marked.values()), axis=0)
    assert times.tolist() == ([1, 1, 1, 2, 1, 1, 2, 1, 0] if edges == "both" else [1] * 8 + [0])


def test_hard_labels_against_decision_values():
    """The AUROC of hard labels is the mean of sensitivity and specificity, below what the decisions would have."""
    table = make_table(600)
    embeddings = make_embeddings(table, signal=1.5)
    results = {}
    for scores in ("labels", "decision"):
        protocol = dataclasses.replace(CORRECTED, scores=scores, c=("1",))
        results[scores] = evaluate_variants(
            embeddings, table, EVERYWHERE, protocol, head="svm", feature="window", seed=1
        )
    hard, decision = results["labels"], results["decision"]
    assert set(hard.scores) == {0, 1}
    np.testing.assert_array_equal(decision.scores > 0, hard.scores == 1)
    causal = hard.labels == 1
    balanced = (hard.scores[causal].mean() + 1 - hard.scores[~causal].mean()) / 2
    assert hard.metrics["auroc"] == pytest.approx(balanced, abs=1e-12)
    assert hard.metrics["mcc"] == decision.metrics["mcc"]
    assert decision.metrics["auroc"] > hard.metrics["auroc"] + 0.02


def by_hand(embeddings, table, head, c, train, test):
    """Fit the plain way: the tissue is a number."""

    def features(rows):
        parts = [embeddings.window_UD[rows], embeddings.window_UD[rows + len(table)], table.tissue_N[rows, None]]
        return np.concatenate(parts, axis=1).astype(np.float64)

    scaler = StandardScaler().fit(features(train))
    model = SVC(C=c) if head == "svm" else LogisticRegression(C=c, max_iter=500)
    model.fit(scaler.transform(features(train)), table.label_N[train])
    return model.decision_function(scaler.transform(features(test)))


def area(labels, scores):
    above = scores[labels == 1][:, None] - scores[labels == 0]
    return ((above > 0) + (above == 0) / 2).mean()


@pytest.mark.parametrize("head", HEADS)
def test_c_on_test_is_the_best_on_test(head):
    table = make_table(240, seed=3)
    embeddings = make_embeddings(table, signal=0.5, seed=3)
    protocol = dataclasses.replace(PUBLISHED, scores="decision", c=("10", "0.01", "0.1", "1"))
    result = evaluate_variants(embeddings, table, EVERYWHERE, protocol, head=head, feature="window", seed=0)
    train, test = np.flatnonzero(~table.test_N), np.flatnonzero(table.test_N)
    np.testing.assert_array_equal(result.train_rows, train)
    np.testing.assert_array_equal(result.test_rows, test)
    scores = {c: by_hand(embeddings, table, head, c, train, test) for c in protocol.penalties}
    areas = {c: area(table.label_N[test], score) for c, score in scores.items()}
    assert len(set(areas.values())) > 1
    assert result.metrics["auroc"] == pytest.approx(max(areas.values()))
    assert areas[result.c] == max(areas.values())
    np.testing.assert_allclose(result.scores, scores[result.c], atol=1e-9)


@pytest.mark.parametrize("head", HEADS)
def test_c_on_validation_does_not_look_at_test(head):
    table = make_table(300, contigs=("1", "2", "3", "4", "5"), seed=4)
    embeddings = make_embeddings(table, signal=0.5, seed=4)
    protocol = dataclasses.replace(CORRECTED, tissue="number")

    def result(labels, protocol):
        other = dataclasses.replace(table, label_N=labels)
        return evaluate_variants(embeddings, other, EVERYWHERE, protocol, head=head, feature="window", seed=1)

    flipped = np.where(table.test_N, 1 - table.label_N, table.label_N)
    one, other = result(table.label_N, protocol), result(flipped, protocol)
    assert one.c == other.c
    np.testing.assert_array_equal(one.scores, other.scores)
    assert one.metrics["auroc"] == pytest.approx(1 - other.metrics["auroc"])
    # It is refitted on all training rows.
    train, test = np.flatnonzero(~table.test_N), np.flatnonzero(table.test_N)
    np.testing.assert_allclose(one.scores, by_hand(embeddings, table, head, one.c, train, test), atol=1e-9)
    # It is the best one on the rows held out.
    split = eqtl._hold_out(embeddings, table, train, EVERYWHERE, 1)
    held = train[split.validation]
    areas = {
        c: area(table.label_N[held], by_hand(embeddings, table, head, c, train[split.train], held))
        for c in protocol.penalties
    }
    assert areas[one.c] == max(areas.values())
    on_test = dataclasses.replace(protocol, choose_c_on="test")
    looked = [result(labels, on_test).metrics["auroc"] for labels in (table.label_N, flipped)]
    assert looked[0] >= one.metrics["auroc"]
    assert looked[1] >= other.metrics["auroc"]
    assert sum(looked) > 1


@pytest.mark.parametrize("seed", range(4))
def test_rows_held_out_are_on_contigs_of_their_own(seed):
    table = make_table(500, contigs=tuple("12345678"))
    train = np.flatnonzero(~table.test_N)
    split = eqtl._hold_out(make_embeddings(table), table, train, EVERYWHERE, seed)
    sides = [set(table.contig_N[train[side]].tolist()) for side in split]
    assert not sides[0] & sides[1]
    assert sorted(np.concatenate(split).tolist()) == list(range(len(train)))
    assert 0.1 < len(split.validation) / len(train) < 0.3


@pytest.mark.parametrize("seed", range(4))
def test_rows_held_out_of_one_contig_have_no_neighbours_outside(seed):
    table = make_table(400, spread=20_000, seed=seed)
    embeddings = make_embeddings(table, length=20)
    # Windows far away from each other may be equal.
    embeddings.key_U[:40] = np.repeat(embeddings.key_U[:20], 2)
    train = np.flatnonzero(~table.test_N)
    split = eqtl._hold_out(embeddings, table, train, EVERYWHERE, seed)
    assert 0.15 < len(split.validation) / len(train) < 0.21
    learnt, held = (table.position_N[train[side]] for side in split)
    assert np.abs(learnt[:, None] - held).min() >= 20
    learnt, held = (embeddings.key_U[embeddings.reference_N[train[side]]] for side in split)
    assert not np.isin(learnt, held).any()
    again = eqtl._hold_out(embeddings, table, train, EVERYWHERE, seed)
    other = eqtl._hold_out(embeddings, table, train, EVERYWHERE, seed + 10)
    assert again.validation.tolist() == split.validation.tolist() != other.validation.tolist()


def test_blocks_do_not_depend_on_the_order_of_rows():
    table = make_table(200, spread=12_000, contigs=("1", "2"))
    embeddings = make_embeddings(table)
    embeddings.key_U[:20] = np.repeat(embeddings.key_U[:10], 2)
    rows = np.arange(200)
    shuffled = np.random.default_rng(0).permutation(rows)
    keys = eqtl._blocks(embeddings, table, rows)
    np.testing.assert_array_equal(eqtl._blocks(embeddings, table, shuffled), keys[shuffled])
    # By hand: rows are linked until nothing changes.
    number = rows.copy()
    near = (np.abs(table.position_N[:, None] - table.position_N) < 20) & (table.contig_N[:, None] == table.contig_N)
    near |= embeddings.key_U[:200][:, None] == embeddings.key_U[:200]
    for _ in rows:
        number = np.where(near, number, 200).min(axis=1)
    np.testing.assert_array_equal(keys[:, None] == keys, number[:, None] == number)


def test_no_rows_to_hold_out():
    table = make_table(60, spread=10_100)
    embeddings = make_embeddings(table, length=200)
    settings = {"head": "logistic", "feature": "window", "seed": 1}
    with pytest.raises(InputError, match=r"some.csv: of the 40 training rows of task all none of both classes can be"):
        evaluate_variants(embeddings, table, EVERYWHERE, CORRECTED, **settings)
    one = evaluate_variants(embeddings, table, EVERYWHERE, dataclasses.replace(CORRECTED, c=("0.1",)), **settings)
    assert one.c == 0.1


def test_tissues_have_no_order():
    """Where the tissue in the middle alone is causal, a number says nothing to a straight line."""
    table = make_table(900)
    table = dataclasses.replace(table, label_N=(table.tissue_N == 1).astype(np.int64))
    areas = {}
    for tissue in ("one-hot", "number"):
        protocol = dataclasses.replace(CORRECTED, tissue=tissue)
        result = evaluate_variants(
            make_embeddings(table), table, EVERYWHERE, protocol, head="logistic", feature="window", seed=1
        )
        areas[tissue] = result.metrics["auroc"]
    assert areas["one-hot"] == 1
    assert abs(areas["number"] - 0.5) < 0.1


def test_a_tissue_that_was_not_learnt_from():
    table = make_table(30, tissues=("a", "b", "c", "d"))
    train = np.flatnonzero(table.tissue_N != 1)
    hot = eqtl._tissues(table, np.arange(30), train, "one-hot")
    assert hot.tolist() == [[float(tissue == other) for other in (0, 2, 3)] for tissue in table.tissue_N]
    assert eqtl._tissues(table, np.arange(30), train, "number")[:, 0].tolist() == table.tissue_N.tolist()


def test_training_rows_are_drawn_by_seed():
    table = make_table(300, reason_N=np.where(np.arange(300) < 30, 4, USED).astype(np.int8))
    embeddings = make_embeddings(table, signal=2)
    protocol = dataclasses.replace(CORRECTED, max_train_rows=50)

    def result(seed):
        return evaluate_variants(embeddings, table, EVERYWHERE, protocol, head="logistic", feature="variant", seed=seed)

    one, again, other = result(1), result(1), result(2)
    assert one.train_rows.tolist() == again.train_rows.tolist() != other.train_rows.tolist()
    assert one.scores.tolist() == again.scores.tolist()
    assert len(one.train_rows) == len(set(one.train_rows)) == 50
    assert not (table.test_N[one.train_rows] | (one.train_rows < 30)).any()
    np.testing.assert_array_equal(one.test_rows, np.flatnonzero(table.test_N & (np.arange(300) >= 30)))
    assert one.unused == {REASONS[4]: 30, NOT_DRAWN: 180 - 50}
    assert one.metrics["auroc"] > 0.8


def test_rows_of_a_task_are_used_or_counted():
    table = make_table(400, reason_N=np.random.default_rng(0).integers(-1, len(REASONS), 400).astype(np.int8))
    protocol = dataclasses.replace(CORRECTED, max_train_rows=10, c=("1",))
    task = EqtlTask("near", 10, 60)
    result = evaluate_variants(make_embeddings(table), table, task, protocol, head="svm", feature="window", seed=0)
    inside = (table.distance_N >= 10) & (table.distance_N < 60)
    assert len(result.train_rows) + len(result.test_rows) + sum(result.unused.values()) == inside.sum()
    assert list(result.unused) == [*REASONS, NOT_DRAWN]
    assert inside[result.train_rows].all()
    assert inside[result.test_rows].all()


@pytest.mark.parametrize("test", [True, False])
def test_one_class_alone(test):
    table = make_table(60)
    table = dataclasses.replace(table, label_N=np.where(table.test_N == test, 1, table.label_N))
    name, count = ("test", 20) if test else ("training", 40)
    with pytest.raises(InputError, match=f"some.csv: the {count} {name} rows of task all are not of both classes"):
        evaluate_variants(make_embeddings(table), table, EVERYWHERE, CORRECTED, head="svm", feature="window", seed=0)


@pytest.mark.parametrize("settings", [{"head": "tree"}, {"feature": "mean"}])
def test_wrong_arguments(settings):
    table = make_table(60)
    with pytest.raises(ValueError, match="choose of"):
        evaluate_variants(
            make_embeddings(table), table, EVERYWHERE, CORRECTED,
            **{"head": "svm", "feature": "window", "seed": 0, **settings},
        )  # fmt: skip


# Tables.


def test_a_table_as_it_is_read(tmp_path):
    rows = [
        ("chr2", "7", "a", "T", "liver", "1", "-12", "Train"),
        ("chr10", "1", "G", "C", " blood ", "0.0", "3.5e3", "test"),
        ("chr2", "7.0", "A", "AT", "liver", "true", "+0", "TEST"),
        ("chr2", "9", "A", "A", "liver", "False", "", "test"),
        ("chr2", "9", "N", "A", "liver", "0", "5", "valid"),
    ]
    table, source = read_variants(write_rows(tmp_path / "t.csv", rows))
    assert (table.contigs, table.contig_N.tolist()) == (("chr10", "chr2"), [1, 0, 1, 1, 1])
    assert table.position_N.tolist() == [6, 0, 6, 8, 8]
    assert (table.reference_N[:2].tolist(), table.alternate_N[:2].tolist()) == ([0, 2], [3, 1])
    assert (table.tissues, table.tissue_N.tolist()) == (("blood", "liver"), [1, 0, 1, 1, 1])
    assert table.label_N.tolist() == [1, 0, 1, 0, 0]
    np.testing.assert_array_equal(table.distance_N, [12, 3500, 0, np.nan, 5])
    assert table.test_N.tolist() == [False, True, True, True, False]
    assert table.unused == {
        "no distance is given": 1,
        "the split is neither train nor test": 1,
        "other than a change of one base": 1,
    }
    assert table.split_by == "column"
    assert (source.place, source.bytes) == (str(tmp_path / "t.csv"), (tmp_path / "t.csv").stat().st_size)

    def same(path, columns=None):
        other = read_variants(path, columns).table
        for field in dataclasses.fields(table):
            if field.name != "place":
                np.testing.assert_array_equal(getattr(other, field.name), getattr(table, field.name))

    text = (tmp_path / "t.csv").read_text()
    (tmp_path / "t.tsv").write_text(text.replace(",", "\t"))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.replace("POS", "where").encode()))
    columns = {name: [row[place] for row in rows] for place, name in enumerate(HEADER)}
    columns["POS"] = [7, 1, 7, 9, 9]
    columns["label"] = [True, False, True, False, False]
    columns["distance_to_nearest_tss"] = [-12.0, 3500.0, 0.0, None, 5.0]
    pa.parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    same(tmp_path / "t.tsv")
    same(tmp_path / "t.csv.gz", EqtlColumns(position="where"))
    same(tmp_path / "t.parquet")


def test_rows_that_the_genome_does_not_fit(contigs, genome, encoder, tmp_path):
    sequence = contigs["chr1"].upper()
    good = [variant(sequence, 100 + number, split="test" if number % 2 else "train") for number in range(9)]
    bad = [
        changed(CHROM="7"),
        changed(CHROM="7", ALT="-"),
        variant(sequence, 31),
        variant(sequence, 700 - 31),
        changed(POS=10**9),
        changed(good[0], REF=good[0][3], ALT=good[0][2]),
        # R is an A or a G, and none of them.
        changed(POS=304, REF="A", ALT="C"),
        changed(distance_to_nearest_tss=""),
    ]
    edge = [variant(sequence, 32), variant(sequence, 700 - 32)]
    assert sequence[303] == "R"
    table = read_variants(write_rows(tmp_path / "t.csv", good + bad + edge)).table
    found = embed_variants(encoder, None, table, genome, CORRECTED, 64)
    assert found.unused == {
        "no distance is given": 1,
        "other than a change of one base": 1,
        "the contig is not in the genome": 1,
        "the window goes beyond the contig's end": 3,
        "the reference base is not the genome's": 2,
    }
    np.testing.assert_array_equal(
        np.flatnonzero(found.reason_N == USED), [*range(9), *range(9 + len(bad), 11 + len(bad))]
    )
    assert (found.reference_N[9 : 9 + len(bad)] == -1).all()


def test_another_assembly(contigs, genome, encoder, tmp_path):
    rows = [variant(contigs["chr2"], 100 + number, CHROM="chr1") for number in range(90)]
    table = read_variants(write_rows(tmp_path / "t.csv", [*rows, changed(rows[0], split="test")])).table
    with pytest.raises(InputError, match=r"t.csv: the reference base is not the genome's in \d+ of 91 variants; give"):
        embed_variants(encoder, None, table, genome, CORRECTED, 64)


def test_no_row_is_left(genome, encoder, tmp_path):
    rows = [changed(POS=5), changed(CHROM="x", split="test")]
    table = read_variants(write_rows(tmp_path / "t.csv", rows)).table
    with pytest.raises(InputError, match=r"t.csv: no row can be used: the contig is not in the genome \(1\), the wind"):
        embed_variants(encoder, None, table, genome, CORRECTED, 64)
    with pytest.raises(ValueError, match="length is 0"):
        embed_variants(encoder, None, table, genome, CORRECTED, 0)


def test_a_table_without_a_split(tmp_path):
    rows = [changed(CHROM=str(number % 7), POS=50 + number)[:-1] for number in range(70)]
    table = read_variants(write_rows(tmp_path / "t.csv", rows, HEADER[:-1])).table
    assert table.split_by == "contigs"
    assert 0.1 < table.test_N.mean() < 0.3
    assert not set(table.contig_N[table.test_N]) & set(table.contig_N[~table.test_N])
    assert not table.unused
    write_rows(tmp_path / "t.csv", [changed()[:-1]] * 3, HEADER[:-1])
    with pytest.raises(InputError, match=r"t.csv: no column 'split', and all variants are on contig 1; add a column"):
        read_variants(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"CHROM": ""}, "line 3: CHROM is ''; the contig is missing: fill it in, or remove the row"),
        ({"tissue": " "}, "line 3: tissue is ''; the tissue is missing: fill it in, or remove the row"),
        ({"POS": "0"}, "line 3: POS is '0'; positions are whole numbers from 1 on: correct it"),
        ({"POS": "1e3"}, "line 3: POS is '1e3'; positions are whole numbers from 1 on: correct it"),
        ({"label": "2"}, "line 3: label is '2'; labels are 0 or 1: correct it, or remove the row"),
        ({"label": ""}, "line 3: label is ''; labels are 0 or 1: correct it, or remove the row"),
        (
            {"distance_to_nearest_tss": "far"},
            "line 3: distance_to_nearest_tss is 'far'; distances are numbers of bases: correct it, or leave it empty",
        ),
        ({"split": "train"}, "no row has 'test' in column split; rows are train or test"),
    ],
)
def test_bad_rows(tmp_path, values, message):
    path = write_rows(tmp_path / "t.csv", [changed(), changed(**{"split": "test", **values})])
    with pytest.raises(InputError) as error:
        read_variants(path)
    assert str(error.value) in {f"{path}, {message}", f"{path}: {message}"}


def test_bad_files(tmp_path):
    path = write_rows(tmp_path / "t.csv", [changed(split="test"), changed(split="test")])
    with pytest.raises(InputError, match=r"t.csv: no row has 'train' in column split"):
        read_variants(path)
    with pytest.raises(InputError, match=r"t.csv: no column 'Label'; there are .*; did you mean 'label'\?"):
        read_variants(path, EqtlColumns(label="Label"))
    write_rows(tmp_path / "twice.csv", [(*changed(), "train")], (*HEADER, "split"))
    with pytest.raises(InputError, match=r"twice.csv: column 'split' comes 2 times"):
        read_variants(tmp_path / "twice.csv")
    write_rows(tmp_path / "empty.csv", [])
    with pytest.raises(InputError, match=r"empty.csv: holds no rows; give a table with variants in it"):
        read_variants(tmp_path / "empty.csv")
    with pytest.raises(InputError, match=r"none.csv: no such file"):
        read_variants(tmp_path / "none.csv")
    lists = {name: [[1]] if name == "tissue" else [value] for name, value in zip(HEADER, changed(), strict=True)}
    pa.parquet.write_table(pa.table(lists), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t.parquet: column tissue holds lists"):
        read_variants(tmp_path / "t.parquet")
    table = make_table(3)
    with pytest.raises(InputError, match=r"no such FASTA file"):
        open_genome(tmp_path / "none.fa", table)
    with pytest.raises(InputError, match=r"not a genome store"):
        open_genome(tmp_path, table)


@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_a_fasta_keeps_the_contigs_of_the_table(tmp_path, kind):
    text = b">chr1\nACGTN\n>chr2\nGGG\n>chrM\nTTtA\n"
    path = tmp_path / "some.fa"
    path.write_bytes(gzip.compress(text) if kind == "gzip" else text)
    found = open_genome(path, make_table(3, contigs=("1", "MT")))
    assert found.lengths == {"chr1": 5, "chrM": 4}
    windows = found.windows(np.array([1, 0, 1]), np.array([1, 2, 0]), 3)
    assert [alphabet.decode(base_L) for base_L in windows.base_BL] == ["TTA", "GTN", "TTT"]


# The whole way: changes that were planted are found, and none where labels say nothing.


def planted(sequence, contig, causal, others, *, test_from, seed=0):
    """Write rows of changes that complete a run of T, and of the same change elsewhere."""
    rng = np.random.default_rng(seed)
    inside = range(200, len(sequence) - 200)
    hits = [found.start() + CHANGED for found in re.finditer(f"(?={MOTIF})", sequence)]
    hits = np.array([place for place in hits if place in inside])
    same = np.flatnonzero(np.frombuffer(sequence.encode(), np.uint8) == ord(MOTIF[CHANGED]))
    same = np.setdiff1d(same[(same >= inside.start) & (same < inside.stop)], hits)
    rows = []
    for label, places, count in ((1, hits, causal), (0, same, others)):
        for place in rng.choice(places, min(count, len(places)), replace=False).tolist():
            for tissue in rng.choice(["liver", "blood", "skin"], rng.integers(1, 3), replace=False):
                distance = int(rng.integers(-40_000, 40_000))
                split = "test" if place >= test_from else "train"
                rows.append((contig, place + 1, MOTIF[CHANGED], ALTERNATE, tissue, label, distance, split))
    return rows


def check_planted(encoder, table, genome):
    protocol = dataclasses.replace(CORRECTED, pooled_tokens=len(MOTIF))
    embeddings = embed_variants(encoder, None, table, genome, protocol, 128)
    assert embeddings.saved > 0
    assert not embeddings.unused
    near, far = EqtlTask("near", 0, 30_000), EqtlTask("far", 30_000)

    def result(labels, task, head, feature="window", protocol=protocol):
        other = dataclasses.replace(table, label_N=labels)
        return evaluate_variants(embeddings, other, task, protocol, head=head, feature=feature, seed=1)

    for head in HEADS:
        assert result(table.label_N, near, head).metrics["auroc"] > 0.9
    assert result(table.label_N, far, "logistic").metrics["auroc"] > 0.9
    assert result(table.label_N, near, "logistic", "variant").metrics["auroc"] > 0.8
    published = dataclasses.replace(PUBLISHED, pooled_tokens=len(MOTIF))
    assert result(table.label_N, near, "svm", protocol=published).metrics["auroc"] > 0.8
    # A variant keeps its label in every tissue, or its other rows would tell.
    _, variant_N = np.unique(table.position_N, return_inverse=True)
    rng = np.random.default_rng(0)
    for head in HEADS:
        shuffled = [
            result(rng.integers(0, 2, variant_N.max() + 1)[variant_N], near, head).metrics["auroc"] for _ in range(6)
        ]
        assert abs(np.mean(shuffled) - 0.5) < 0.05


def test_planted_changes_in_a_simulated_genome(encoder, tmp_path):
    rng = np.random.default_rng(0)
    letters = rng.choice(list("ACGT"), 200_000)
    for place in range(300, 199_000, 400):
        letters[place : place + len(MOTIF)] = list(MOTIF)
    sequence = "".join(letters)
    (tmp_path / "some.fa").write_text(">chr5\n" + "\n".join(re.findall(".{1,80}", sequence)) + "\n")
    rows = planted(sequence, "5", 300, 600, test_from=130_000)
    table = read_variants(write_rows(tmp_path / "t.csv", rows)).table
    check_planted(encoder, table, open_genome(tmp_path / "some.fa", table))


@pytest.mark.shared
def test_planted_changes_in_a_human_chromosome(encoder, shared, tmp_path):
    path = shared / "data/human_grch37/chr22_1-22000000.fa.gz"
    whole = FastaGenome(path)
    first = 16_100_000
    sequence = "N" * first + alphabet.decode(
        whole.windows(np.array([0]), np.array([first]), 22_000_000 - first).base_BL[0]
    )
    rows = planted(sequence, "chr22", 300, 600, test_from=20_000_000)
    table = read_variants(write_rows(tmp_path / "t.csv", rows)).table
    check_planted(encoder, table, whole)
