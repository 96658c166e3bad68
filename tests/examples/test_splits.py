"""Keys against sets of strings; splits against what they promise."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.examples.files import read_examples
from mutbert.examples.splits import Overlap, grouped_split, leaks, overlap, random_split, region_split, sequence_keys
from mutbert.regions import Region

modest = settings(max_examples=40)
COMPLEMENT = str.maketrans("ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN")
# Short ones of few letters, so that equal and reversed ones come often.
SEQUENCES = st.lists(st.text("ACGTN", min_size=1, max_size=4), max_size=30)


def reverse(sequence):
    return sequence.translate(COMPLEMENT)[::-1]


def draw_sequences(count, length, seed=0):
    codes = np.random.default_rng(seed).integers(0, 4, (count, length)).astype(np.uint8)
    return [alphabet.decode(row) for row in codes]


@modest
@given(SEQUENCES)
def test_keys_are_equal_where_sequences_are(make, sequences):
    keys = sequence_keys(make(sequences), strands=False)
    assert (keys[:, None] == keys).tolist() == [[one == other for other in sequences] for one in sequences]


@modest
@given(SEQUENCES)
def test_keys_of_both_strands_are_equal_where_a_strand_is(make, sequences):
    keys = sequence_keys(make(sequences))
    expected = [[one in (other, reverse(other)) for other in sequences] for one in sequences]
    assert (keys[:, None] == keys).tolist() == expected
    assert (keys == sequence_keys(make([reverse(text) for text in sequences]))).all()


def test_all_short_sequences_have_keys_of_their_own(make):
    codes = np.stack(np.meshgrid(*[np.arange(4)] * 8, indexing="ij"), axis=-1).reshape(-1, 8)
    every = [alphabet.decode(row) for row in codes.astype(np.uint8)]
    lanes = sequence_keys(make(every), strands=False).view(np.uint64).reshape(-1, 2)
    # Each lane by itself, as both together hardly can.
    assert [len(np.unique(lane)) for lane in lanes.T] == [4**8] * 2
    # (4**8 - 4**4) / 2 pairs of strands, and the 4**4 that are their own reverse complement.
    assert len(np.unique(sequence_keys(make(every)))) == (4**8 + 4**4) // 2


def test_keys_are_the_same_in_pieces_and_when_rows_are_chosen(make):
    # More bases than are computed at once.
    texts = [text * 300 for text in draw_sequences(40, 30)]
    examples = make(texts)
    keys = examples.strand_keys
    assert keys.T.tolist() == [make([text]).strand_keys[:, 0].tolist() for text in texts]
    rows = np.array([7, 3, 3])
    assert (examples.select(rows).strand_keys == keys[:, rows]).all()


@modest
@given(SEQUENCES, SEQUENCES)
def test_overlap_and_leaks_are_those_of_sets(make, train, other):
    in_train = [text in train for text in other]
    reversed_alone = [reverse(text) in train and text not in train for text in other]
    expected = Overlap(len(other) - len(set(other)), sum(in_train), sum(reversed_alone))
    assert overlap(make(train), make(other)) == expected
    assert leaks(make(train), make(other), strands=False).tolist() == [text in other for text in train]
    assert leaks(make(train), make(other)).tolist() == [text in other or reverse(text) in other for text in train]


@pytest.mark.parametrize(("task", "shared_rows"), [(0, 1), (1, 0), (2, 19)])
def test_published_sets_overlap_as_counted_before(shared, task, shared_rows):
    parts = [read_examples(shared / f"data/gue/tf/{task}/{part}.csv.gz").examples for part in ("train", "dev")]
    train, dev = parts
    found = overlap(train, dev)
    assert found.in_train == shared_rows
    texts = [[part.sequence(row) for row in range(len(part))] for part in parts]
    assert found == Overlap(
        len(dev) - len(set(texts[1])),
        shared_rows,
        len({reverse(text) for text in texts[1]} & set(texts[0]) - set(texts[1])),
    )
    clean = train.select(~leaks(train, dev))
    assert overlap(clean, dev)[1:] == (0, 0)


def check_partition(split, count):
    assert split.train.dtype == split.validation.dtype == np.int64
    assert (np.diff(split.train) > 0).all()
    assert (np.diff(split.validation) > 0).all()
    assert sorted([*split.train.tolist(), *split.validation.tolist()]) == list(range(count))


@modest
@given(st.integers(2, 300), st.floats(0.001, 0.999), st.integers(0, 2**62))
def test_a_random_split_holds_out_the_share(count, share, seed):
    split = random_split(count, share, seed)
    check_partition(split, count)
    assert len(split.train) > 0
    assert share * count - 1 <= len(split.validation) <= share * count + 1
    again = random_split(count, share, seed)
    assert again.validation.tolist() == split.validation.tolist()


@modest
@given(st.data(), st.integers(1, 60), st.sampled_from([0.1, 0.25, 0.5, 0.8]), st.integers(0, 1000))
def test_groups_stay_together(make, data, count, share, seed):
    pool = draw_sequences(20, 10)
    sequences = data.draw(st.lists(st.sampled_from(pool), min_size=count, max_size=count))
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    split = grouped_split(labels, sequence_keys(make(sequences)), share, seed)
    check_partition(split, count)
    assert not {sequences[row] for row in split.train} & {sequences[row] for row in split.validation}


def test_a_class_is_held_out_as_near_to_the_share_as_groups_allow(make):
    # Sequence i comes i % 3 + 1 times, once as its reverse complement, and all of a group have one label.
    distinct = draw_sequences(900, 30)
    sequences = [text for number, text in enumerate(distinct) for text in [text, reverse(text), text][: number % 3 + 1]]
    by_text = {min(text, reverse(text)): number * number % 4 for number, text in enumerate(distinct)}
    labels = np.array([by_text[min(text, reverse(text))] for text in sequences])
    for share in (0.1, 0.33):
        split = grouped_split(labels, sequence_keys(make(sequences)), share, 5)
        check_partition(split, len(sequences))
        for label, size in Counter(labels.tolist()).items():
            assert abs((labels[split.validation] == label).sum() - share * size) <= 1
        assert abs(len(split.validation) - share * len(sequences)) <= 0.5


def test_a_grouped_split_does_not_depend_on_the_order_of_rows(make):
    sequences = draw_sequences(300, 20)
    sequences += sequences[:50]
    labels = np.array([text.count("G") % 2 for text in sequences])
    order = np.random.default_rng(3).permutation(len(sequences))
    shuffled = [sequences[row] for row in order]
    keys, keys_shuffled = sequence_keys(make(sequences)), sequence_keys(make(shuffled))
    held = {sequences[row] for row in grouped_split(labels, keys, 0.2, 9).validation}
    assert held == {shuffled[row] for row in grouped_split(labels[order], keys_shuffled, 0.2, 9).validation}
    assert held != {sequences[row] for row in grouped_split(labels, keys, 0.2, 10).validation}
    # Without a few rows, it is nearly the same.
    fewer = {sequences[:-60][row] for row in grouped_split(labels[:-60], keys[:-60], 0.2, 9).validation}
    assert len(held & fewer) > 0.7 * len(held)


@modest
@given(st.lists(st.integers(0, 7), min_size=2, max_size=200), st.sampled_from([0.1, 0.3, 0.6]), st.integers(0, 50))
def test_contigs_are_held_out_whole(numbers, share, seed):
    names = [f"chr{number}" for number in numbers]
    split = region_split([Region(name, 0, 10) for name in names], share, seed)
    if len(set(names)) == 1:
        assert split is None
        return
    check_partition(split, len(names))
    train, held = ({names[row] for row in rows} for rows in split)
    assert train
    assert held
    assert not train & held
    # No contig that is trained on would bring it nearer, where another one stays.
    sizes, off = Counter(names), len(split.validation) - share * len(names)
    assert len(train) == 1 or all(abs(off + sizes[name]) >= abs(off) for name in train)


def test_what_does_not_fit_is_refused(make):
    keys = sequence_keys(make(["A", "C"]))
    for share in (0.0, 1.0, float("nan")):
        for call in (
            lambda share=share: random_split(10, share, 0),
            lambda share=share: grouped_split(None, keys, share, 0),
            lambda share=share: region_split([Region("a", 0, 1)], share, 0),
        ):
            with pytest.raises(ValueError, match="not between 0 and 1"):
                call()
    with pytest.raises(ValueError, match="1 rows cannot be split"):
        random_split(1, 0.5, 0)
    for labels in (np.zeros(3, dtype=np.int64), np.zeros(2), np.zeros((2, 1), dtype=np.int64)):
        with pytest.raises(ValueError, match="one class number a key"):
            grouped_split(labels, keys, 0.5, 0)


def test_what_cannot_be_held_out_is_trained_on(make):
    one_group = grouped_split(None, sequence_keys(make(["ACGT"] * 10)), 0.3, 0)
    assert (len(one_group.train), len(one_group.validation)) == (10, 0)
    # The only row of a class is never held out.
    sequences = [*draw_sequences(20, 15), "A" * 15]
    split = grouped_split(np.array([0] * 20 + [1]), sequence_keys(make(sequences)), 0.5, 0)
    assert 20 in split.train.tolist()
    assert region_split([Region("a", 0, 1), None], 0.1, 0) is None
