"""Batches against the tokenizers' own answers for one sequence at a time, and frequencies against a plain loop."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mutbert import alphabet
from mutbert.encoders.inputs import BaseInputs, PaddedWindows, TokenInputs, place_windows
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model import MutBertTokenizer
from mutbert.regions import Region

OWN = MutBertTokenizer()
BATCHES = st.lists(st.tuples(st.text(alphabet.IUPAC, min_size=1, max_size=25), st.booleans()), min_size=1, max_size=6)
PLAIN = st.lists(st.tuples(st.text("ACGTN", min_size=1, max_size=40), st.booleans()), min_size=1, max_size=6)
TABLE = np.concatenate([alphabet.TOKEN_PROBABILITIES, np.eye(9, dtype=np.float32)[[alphabet.MASK_ID]]])


def turned(sequence):
    return alphabet.decode(alphabet.reverse_complement(alphabet.encode(sequence)))


def asked(pairs):
    """Rows from the last to the first, and whether each is read backwards."""
    rows = np.arange(len(pairs))[::-1]
    return rows, np.array([pairs[row][1] for row in rows])


def check_mask(batch, lengths):
    """A mask says what is padding, and is left out where nothing is."""
    width = next(iter(batch.values())).shape[1]
    assert width == max(lengths)
    if min(lengths) == width:
        assert "attention_mask" not in batch
    else:
        assert batch["attention_mask"].tolist() == [[1] * n + [0] * (width - n) for n in lengths]


@given(BATCHES, st.none() | st.integers(3, 30), st.booleans())
def test_bases_are_read_as_by_the_tokenizer(examples_of, pairs, max_tokens, special):
    inputs = BaseInputs(examples_of([pair[0] for pair in pairs]), max_tokens=max_tokens, special_tokens=special)
    rows, reverse = asked(pairs)
    batch = inputs.batch(rows, reverse)

    kept = max_tokens and max_tokens - 2 * special
    texts = [(turned(pairs[row][0]) if pairs[row][1] else pairs[row][0])[:kept] for row in rows]
    lengths = [len(text) + 2 * special for text in texts]
    assert inputs.length_N[rows].tolist() == lengths
    check_mask(batch, lengths)
    if set("".join(texts)) <= set("ACGTN"):
        assert "input_probs" not in batch
        for row, text in zip(batch["input_ids"].tolist(), texts, strict=True):
            ids = OWN(text, add_special_tokens=special)["input_ids"]
            assert row == ids + [alphabet.PAD_ID] * (len(row) - len(ids))
    else:
        assert "input_ids" not in batch
        wanted = OWN.encode_probabilities(texts, add_special_tokens=special)["input_probs"]
        assert torch.equal(batch["input_probs"], wanted)


@pytest.fixture(scope="module")
def population_genome(tmp_path_factory, write_genome):
    """A contig of 300 bases, in which every fifth position varies among all four bases."""
    path = tmp_path_factory.mktemp("store") / "small.genome"
    rng = np.random.default_rng(0)
    base = rng.integers(0, 4, 300).astype(np.uint8)
    base[30:33] = alphabet.UNKNOWN
    position = np.setdiff1d(np.arange(2, 300, 5), np.arange(30, 33)).tolist()
    variants = dict(zip(position, rng.dirichlet(np.ones(4), len(position)), strict=True))
    write_genome(path, {"chr1": alphabet.decode(base)}, {"chr1": variants})
    return ProbabilisticGenome.open(path)


PLACES = [(0, 12), (7, 8), (100, 140), (25, 40), (60, 72), (288, 300)]


@pytest.mark.parametrize("max_tokens", [None, 14])
def test_frequencies_are_read_where_a_sequence_lies(examples_of, population_genome, max_tokens):
    sequences = [alphabet.decode(population_genome.bases("chr1", *place)) for place in PLACES]
    examples = examples_of(sequences, [Region("1", *place) for place in PLACES])
    inputs = BaseInputs(examples, max_tokens=max_tokens, genome=population_genome)
    assert set(inputs.unplaced.values()) == {0}

    rows = np.array([5, 2, 0, 1, 3, 4, 2])
    reverse = np.array([True, True, False, False, True, False, False])
    batch = inputs.batch(rows, reverse)
    lengths = []
    for row, (number, backwards) in enumerate(zip(rows, reverse, strict=True)):
        frequency = population_genome.frequencies("chr1", *PLACES[number])
        known = alphabet.encode(sequences[number]) != alphabet.UNKNOWN
        wanted = np.eye(9, dtype=np.float32)[[alphabet.UNK_ID] * len(frequency)]
        wanted[known] = np.pad(frequency[known], ((0, 0), (5, 0)))
        if backwards:
            wanted = wanted[::-1][:, alphabet.COMPLEMENT_OF_ID]
        wanted = wanted[: max_tokens and max_tokens - 2]
        lengths.append(len(wanted) + 2)
        found = batch["input_probs"][row].numpy()
        np.testing.assert_array_equal(found[1 : len(wanted) + 1], wanted)
        rest = [alphabet.CLS_ID, alphabet.SEP_ID, *[alphabet.PAD_ID] * (len(found) - lengths[-1])]
        np.testing.assert_array_equal(found[[0, *range(lengths[-1] - 1, len(found))]], np.eye(9)[rest])
    check_mask(batch, lengths)


def test_frequencies_of_other_places_are_not_used_and_counted(examples_of, population_genome):
    own = alphabet.decode(population_genome.bases("chr1", 100, 110))
    other = turned(own)
    assert other != own
    place = Region("chr1", 100, 110)
    regions = [place, place, None, Region("chr9", 100, 110), Region("chr1", 295, 305)]
    examples = examples_of([own, other, own, own, own], regions)
    inputs = BaseInputs(examples, genome=population_genome)
    assert list(inputs.unplaced.values()) == [3, 1]
    assert "input_probs" in inputs.batch(np.array([0]))
    for row, sequence in enumerate([other, own, own, own], start=1):
        assert inputs.batch(np.array([row]))["input_ids"].tolist() == [OWN(sequence)["input_ids"]]


@pytest.fixture(scope="module", params=["esm", "bert"])
def tokenizer(request, model_folders):
    return AutoTokenizer.from_pretrained(model_folders[request.param])


@given(BATCHES, st.none() | st.integers(3, 12), st.booleans())
def test_tokens_are_those_that_the_tokenizer_gives_alone(examples_of, tokenizer, pairs, max_tokens, special):
    examples, how = examples_of([pair[0] for pair in pairs]), {"add_special_tokens": special, "max_length": max_tokens}
    rows, reverse = asked(pairs)
    batch = TokenInputs(tokenizer, examples, max_tokens=max_tokens, special_tokens=special).batch(rows, reverse)
    texts = [turned(pairs[row][0]) if pairs[row][1] else pairs[row][0] for row in rows]
    texts = [re.sub("[^ACGT]", "N", text) for text in texts]
    wanted = tokenizer(texts, truncation=max_tokens is not None, **how)["input_ids"]
    check_mask(batch, [len(ids) for ids in wanted])
    for row, ids in zip(batch["input_ids"].tolist(), wanted, strict=True):
        assert row == ids + [tokenizer.pad_token_id] * (len(row) - len(ids))


@given(PLAIN, st.none() | st.integers(3, 12), st.booleans())
def test_the_token_of_a_base_is_found_by_counting(examples_of, tokenizer, pairs, max_tokens, special):
    sequences = [pair[0] for pair in pairs]
    inputs = TokenInputs(tokenizer, examples_of(sequences), max_tokens=max_tokens, special_tokens=special)
    for row, sequence in enumerate(sequences):
        ids = inputs.batch(np.array([row]))["input_ids"][0].tolist()
        owner = []
        for number, token in enumerate(tokenizer.convert_ids_to_tokens(ids)):
            if token == tokenizer.unk_token:
                owner.append(number)
            elif token not in tokenizer.all_special_tokens:
                assert sequence[len(owner) :].startswith(token)
                owner.extend([number] * len(token))
        owner += [-1] * (len(sequence) - len(owner))
        places = np.arange(len(sequence))
        assert inputs.tokens_at(np.full(len(places), row), places).tolist() == owner


def windows_of(lengths, seed=0, mixed=2):
    """Random windows, of which some positions are distributions."""
    generator = np.random.default_rng(seed)
    code_NL = generator.integers(0, len(alphabet.IUPAC), (len(lengths), max(lengths))).astype(np.uint8)
    places = {(row, int(generator.integers(length))) for row, length in enumerate(lengths) for _ in range(mixed)}
    row_M, column_M = np.array(sorted(places), dtype=np.int64).reshape(-1, 2).T
    frequency_M4 = np.zeros((len(places), 4), dtype=np.uint16)
    frequency_M4[:, 1] = generator.integers(0, 65536, len(places))
    frequency_M4[:, 3] = 65535 - frequency_M4[:, 1]
    return PaddedWindows(code_NL, np.array(lengths, dtype=np.int64), row_M, column_M, frequency_M4)


def rows_of(windows):
    """The distributions over tokens that the windows stand for, written out one position after the other."""
    rows = [TABLE[code_L[:length]].copy() for code_L, length in zip(windows.code_NL, windows.length_N, strict=True)]
    for row, column, frequency in zip(windows.row_M, windows.column_M, windows.frequency_M4, strict=True):
        rows[row][column] = [0, 0, 0, 0, 0, *(frequency / np.float32(65535))]
    return rows


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@given(LENGTHS, st.integers(0, 5), st.data())
def test_windows_are_taken_turned_and_edited(lengths, seed, data):
    windows = windows_of(lengths, seed)
    rows = rows_of(windows)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    assert_equal(rows_of(windows.take(np.array(chosen, dtype=np.int64))), [rows[row] for row in chosen])
    assert_equal(rows_of(windows.reverse_complement()), [row[::-1, alphabet.COMPLEMENT_OF_ID] for row in rows])
    # A code replaces a distribution.
    edited = windows.with_codes(windows.row_M[:1], windows.column_M[:1], 2)
    rows_of_edited = [row.copy() for row in rows]
    rows_of_edited[windows.row_M[0]][windows.column_M[0]] = TABLE[2]
    assert_equal(rows_of(edited), rows_of_edited)
    batch = windows.batch(np.array(chosen, dtype=np.int64), np.ones(len(chosen), dtype=bool))
    for row, probs_LV in zip(chosen, batch["input_probs"].numpy(), strict=True):
        np.testing.assert_array_equal(probs_LV[1 : lengths[row] + 1], rows[row][::-1, alphabet.COMPLEMENT_OF_ID])
    assert_equal(rows_of(PaddedWindows.of([code_L[:3] for code_L in windows.code_NL])), TABLE[windows.code_NL[:, :3]])


@given(length=st.integers(1, 300), context=st.integers(1, 80), placement=st.sampled_from(["centred", "shared"]))
def test_windows_hold_their_position_and_lie_in_the_contig(length, context, placement):
    position = np.arange(length)
    start, bases = place_windows(position, np.full(length, length), context, placement)
    assert ((bases == min(context, length)) & (start >= 0) & (start + bases <= length)).all()
    assert ((start <= position) & (position < start + bases)).all()
    inner = (start > 0) & (start + bases < length)
    if placement == "centred":
        assert set((position - start)[inner]) <= {context // 2}
    elif context >= 4:
        assert (np.minimum(position - start, start + bases - 1 - position)[inner] >= context // 4).all()
        # Neighbours share: half as many windows as half contexts, and those at the ends.
        assert len(np.unique(start)) <= -(-length // (context // 2))
