import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from packaging import version
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mutbert import alphabet
from mutbert.model import MutBertConfig, MutBertTokenizer

IDS = {token: number for number, token in enumerate(alphabet.TOKENS)}
TOKENIZER = MutBertTokenizer()
PUBLISHED = MutBertTokenizer(do_upper_case=False)

dna = st.text(alphabet="ACGTacgtNnRYKMBDHVSWryk")


def reference_ids(text):
    return [1, *(IDS.get(letter, 0) for letter in text if not letter.isspace()), 2]


@given(dna)
def test_either_case_is_one_token_a_base(text):
    encoded = TOKENIZER(text)
    assert encoded["input_ids"] == reference_ids(text.upper())
    assert encoded["token_type_ids"] == [0] * (len(text) + 2)
    assert encoded["attention_mask"] == [1] * (len(text) + 2)


@given(dna)
def test_published_variant_knows_upper_case_alone(text):
    assert PUBLISHED(text)["input_ids"] == reference_ids(text)


@given(dna, dna.filter(bool))
def test_pairs(first, second):
    encoded = TOKENIZER(first, second)
    a, b = (reference_ids(text.upper()) for text in (first, second))
    assert encoded["input_ids"] == a + b[1:]
    assert encoded["token_type_ids"] == [0] * len(a) + [1] * (len(b) - 1)


@given(st.text(alphabet="ACGTacgt"))
def test_decoding_gives_the_bases_back(text):
    assert TOKENIZER.decode(TOKENIZER(text)["input_ids"], skip_special_tokens=True) == text.upper()


@given(st.text(alphabet="ACGTacgtN"))
def test_ids_agree_with_the_alphabet(text):
    codes = alphabet.encode(text)
    assert TOKENIZER(text, add_special_tokens=False)["input_ids"] == alphabet.TOKEN_ID_OF_CODE[codes].tolist()


def test_what_is_no_base():
    assert TOKENIZER("ACGU-é.1")["input_ids"] == [1, 5, 6, 7, 0, 0, 0, 0, 0, 2]
    assert TOKENIZER("AC GT\n\tA")["input_ids"] == [1, 5, 6, 7, 8, 5, 2]
    assert TOKENIZER("AC[MASK]T")["input_ids"] == [1, 5, 6, 4, 8, 2]


def test_special_tokens_are_the_alphabet_s():
    assert TOKENIZER.get_vocab() == IDS
    assert len(TOKENIZER) == 9
    assert (TOKENIZER.unk_token_id, TOKENIZER.cls_token_id, TOKENIZER.sep_token_id) == (0, 1, 2)
    assert (TOKENIZER.pad_token_id, TOKENIZER.mask_token_id) == (3, 4)


def test_padding_and_truncation():
    encoded = TOKENIZER(["ACGT", "A"], padding=True, return_tensors="pt")
    assert encoded["input_ids"].tolist() == [[1, 5, 6, 7, 8, 2], [1, 5, 2, 3, 3, 3]]
    assert encoded["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert len(TOKENIZER("A" * 1000, truncation=True)["input_ids"]) == TOKENIZER.model_max_length == 512


@pytest.mark.parametrize("do_upper_case", [True, False])
def test_saved_and_loaded(tmp_path, do_upper_case):
    tokenizer = MutBertTokenizer(do_upper_case=do_upper_case, model_max_length=100)
    tokenizer.save_pretrained(tmp_path)
    MutBertConfig().save_pretrained(tmp_path)
    wanted = tokenizer("acgTN", "G")
    again = MutBertTokenizer.from_pretrained(tmp_path)
    assert (again.do_upper_case, again.model_max_length) == (do_upper_case, 100)
    assert again("acgTN", "G") == wanted
    assert AutoTokenizer.from_pretrained(tmp_path)("acgTN", "G") == wanted
    # Without this package, from the saved files alone.
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path)("acgTN", "G") == wanted


@pytest.mark.xfail(
    version.parse(transformers.__version__) < version.parse("5.3"),
    reason="before 5.3, AutoTokenizer gives a plain tokenizer wherever the model is not the library's own",
)
def test_the_auto_class_gives_this_class(tmp_path):
    MutBertTokenizer().save_pretrained(tmp_path)
    MutBertConfig().save_pretrained(tmp_path)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is MutBertTokenizer


def test_probabilities():
    encoded = TOKENIZER.encode_probabilities(["acgu", "RN"])
    probs, mask = encoded["input_probs"], encoded["attention_mask"]
    assert (probs.dtype, mask.dtype, tuple(probs.shape)) == (torch.float32, torch.int64, (2, 6, 9))
    one_hot = np.eye(9, dtype=np.float32)
    np.testing.assert_array_equal(probs[0], one_hot[[1, 5, 6, 7, 8, 2]])
    half = (one_hot[5] + one_hot[7]) / 2
    np.testing.assert_array_equal(probs[1], [one_hot[1], half, one_hot[0], one_hot[2], one_hot[3], one_hot[3]])
    assert mask.tolist() == [[1] * 6, [1, 1, 1, 1, 0, 0]]


@given(st.lists(st.text(alphabet=alphabet.IUPAC, max_size=20), min_size=1, max_size=4), st.booleans())
def test_probabilities_are_distributions(texts, special):
    encoded = TOKENIZER.encode_probabilities(texts, add_special_tokens=special)
    probs, mask = encoded["input_probs"], encoded["attention_mask"]
    assert mask.sum(dim=1).tolist() == [len(text) + 2 * special for text in texts]
    torch.testing.assert_close(probs.sum(dim=-1), torch.ones(mask.shape))
    torch.testing.assert_close(probs[..., alphabet.PAD_ID], 1.0 - mask)


def test_probabilities_refuse_what_is_no_code():
    with pytest.raises(ValueError, match="sequence 1: 'X' at position 2 is not an IUPAC"):
        TOKENIZER.encode_probabilities(["ACGT", "ACX"])
