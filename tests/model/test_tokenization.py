"""The tokenizer against strings and the alphabet; the other strand against strings turned by hand."""

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from packaging import version
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mutbert import alphabet
from mutbert.model import MutBertConfig, MutBertTokenizer, reverse_complement

IDS = {token: number for number, token in enumerate(alphabet.TOKENS)}
TOKENIZER = MutBertTokenizer()

dna = st.text(alphabet="ACGTacgtNnRYKMBDHVSWryk")


def reference_ids(text):
    return [1, *(IDS.get(letter, 0) for letter in text if not letter.isspace()), 2]


@given(dna, dna.filter(bool))
def test_one_token_a_base_alone_and_in_pairs(first, second):
    a, b = (reference_ids(text.upper()) for text in (first, second))
    assert TOKENIZER(first)["input_ids"] == a
    encoded = TOKENIZER(first, second)
    assert encoded["input_ids"] == a + b[1:]
    assert encoded["token_type_ids"] == [0] * len(a) + [1] * (len(b) - 1)


def test_other_characters_padding_and_truncation():
    assert TOKENIZER("ACGU-é.1")["input_ids"] == [1, 5, 6, 7, 0, 0, 0, 0, 0, 2]
    assert TOKENIZER("AC GT\n\tA[MASK]")["input_ids"] == [1, 5, 6, 7, 8, 5, 4, 2]
    assert TOKENIZER.decode(TOKENIZER("acGT", add_special_tokens=False)["input_ids"]) == "ACGT"
    encoded = TOKENIZER(["ACGT", "A"], padding=True, return_tensors="pt")
    assert encoded["input_ids"].tolist() == [[1, 5, 6, 7, 8, 2], [1, 5, 2, 3, 3, 3]]
    assert encoded["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert len(TOKENIZER("A" * 1000, truncation=True)["input_ids"]) == TOKENIZER.model_max_length == 512
    with pytest.raises(ValueError, match="sequence 1: 'X' at position 2 is not an IUPAC"):
        TOKENIZER.encode_probabilities(["ACGT", "ACX"])
    for tokens in (torch.ones(3, dtype=torch.long), torch.ones(2, 4), torch.ones(2, 4, 5)):
        with pytest.raises(ValueError, match="give integer ids"):
            reverse_complement(tokens)


@pytest.mark.parametrize("do_upper_case", [True, False])
def test_saved_and_loaded(tmp_path, do_upper_case):
    tokenizer = MutBertTokenizer(do_upper_case=do_upper_case, model_max_length=100)
    tokenizer.save_pretrained(tmp_path)
    MutBertConfig().save_pretrained(tmp_path)
    again = MutBertTokenizer.from_pretrained(tmp_path)
    assert (again.do_upper_case, again.model_max_length) == (do_upper_case, 100)
    # The last from the saved files alone, without this package.
    for each in (again, AutoTokenizer.from_pretrained(tmp_path), PreTrainedTokenizerFast.from_pretrained(tmp_path)):
        assert each("acgTN", "G") == tokenizer("acgTN", "G")
    # Before 5.3, AutoTokenizer returns a plain tokenizer wherever the model is not the library's own.
    if version.parse(transformers.__version__) >= version.parse("5.3"):
        assert type(AutoTokenizer.from_pretrained(tmp_path)) is MutBertTokenizer


@given(st.lists(st.text(alphabet=alphabet.IUPAC, min_size=1, max_size=20), min_size=1, max_size=4), st.booleans())
def test_probabilities_are_those_of_the_alphabet(texts, special):
    encoded = TOKENIZER.encode_probabilities(texts, add_special_tokens=special)
    probs, mask = encoded["input_probs"], encoded["attention_mask"]
    assert (probs.dtype, mask.dtype) == (torch.float32, torch.int64)
    assert mask.sum(dim=1).tolist() == [len(text) + 2 * special for text in texts]
    one_hot = np.eye(9, dtype=np.float32)
    for text, row in zip(texts, probs.numpy(), strict=True):
        bases = alphabet.TOKEN_PROBABILITIES[alphabet.encode(text)]
        wanted = [one_hot[1], *bases, one_hot[2]] if special else [*bases]
        np.testing.assert_array_equal(row, [*wanted, *[one_hot[3]] * (len(row) - len(wanted))])


# The other strand

bases = st.text(alphabet="ACGTN", max_size=12)


def turned(text):
    return text[::-1].translate(str.maketrans("ACGT", "TGCA"))


@given(st.lists(bases, min_size=1, max_size=4), bases)
def test_ids_are_those_of_the_turned_sequences_and_pairs(texts, second):
    pairs = [(texts, [turned(t) for t in texts]), ([[texts[0], second]], [[turned(texts[0]), turned(second)]])]
    for pair in pairs:
        here, there = (TOKENIZER(each, padding=True, return_tensors="pt") for each in pair)
        found = reverse_complement(here["input_ids"])
        assert torch.equal(found, there["input_ids"])
        assert torch.equal(reverse_complement(here["input_ids"], here["attention_mask"]), found)
        assert torch.equal(reverse_complement(found), here["input_ids"])


def test_masked_bases_turn_types_stay_and_four_columns_need_a_mask():
    ids = torch.tensor([[1, 5, 4, 6, 0, 2, 3]])
    assert reverse_complement(ids.int()).tolist() == [[1, 0, 7, 4, 8, 2, 3]]
    assert reverse_complement(ids.int()).dtype == torch.int32
    probs = torch.rand(2, 5, 4)
    assert torch.equal(reverse_complement(probs), probs.flip(1).flip(2))
    found = reverse_complement(probs, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]))
    assert torch.equal(found[1, :3], probs[1, :3].flip(0).flip(1))
    assert torch.equal(found[1, 3:], probs[1, 3:])
