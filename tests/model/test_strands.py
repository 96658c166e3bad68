"""The other strand, held against strings turned by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.model import MutBertTokenizer, reverse_complement

TOKENIZER = MutBertTokenizer()
dna = st.text(alphabet="ACGTN", max_size=12)
iupac = st.text(alphabet=alphabet.IUPAC, min_size=1, max_size=12)


def turned(text):
    return text[::-1].translate(str.maketrans("ACGT", "TGCA"))


@given(st.lists(dna, min_size=1, max_size=4), dna)
def test_ids_are_those_of_the_turned_sequences_and_pairs(texts, second):
    pairs = [(texts, [turned(t) for t in texts]), ([[texts[0], second]], [[turned(texts[0]), turned(second)]])]
    for pair in pairs:
        here, there = (TOKENIZER(each, padding=True, return_tensors="pt") for each in pair)
        found = reverse_complement(here["input_ids"])
        assert torch.equal(found, there["input_ids"])
        assert torch.equal(reverse_complement(here["input_ids"], here["attention_mask"]), found)
        assert torch.equal(reverse_complement(found), here["input_ids"])


@given(st.lists(iupac, min_size=1, max_size=4))
def test_distributions_are_those_of_the_turned_sequences(texts):
    others = [alphabet.decode(alphabet.reverse_complement(alphabet.encode(text))) for text in texts]
    here, there = (TOKENIZER.encode_probabilities(each)["input_probs"] for each in (texts, others))
    assert torch.equal(reverse_complement(here), there)
    assert torch.equal(reverse_complement(there), here)


def test_masked_bases_turn_types_stay_and_four_columns_need_a_mask():
    ids = torch.tensor([[1, 5, 4, 6, 0, 2, 3]])
    assert reverse_complement(ids.int()).tolist() == [[1, 0, 7, 4, 8, 2, 3]]
    assert reverse_complement(ids.int()).dtype == torch.int32
    probs = torch.rand(2, 5, 4)
    assert torch.equal(reverse_complement(probs), probs.flip(1).flip(2))
    found = reverse_complement(probs, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]))
    assert torch.equal(found[1, :3], probs[1, :3].flip(0).flip(1))
    assert torch.equal(found[1, 3:], probs[1, 3:])


@pytest.mark.parametrize("tokens", [torch.ones(3, dtype=torch.long), torch.ones(2, 4), torch.ones(2, 4, 5)])
def test_other_shapes_are_refused(tokens):
    with pytest.raises(ValueError, match="give integer ids"):
        reverse_complement(tokens)
