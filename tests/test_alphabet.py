"""Token ids, codes and complements: what the published checkpoints fix, and what holds for every sequence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet

SEQUENCES = st.text(alphabet.IUPAC, max_size=100)
COMPLEMENTS = dict(zip("ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN", strict=True))


def test_tables_are_the_published_ones_and_cannot_be_changed():
    assert alphabet.TOKENS == ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "A", "C", "G", "T")
    named = (alphabet.UNK_ID, alphabet.CLS_ID, alphabet.SEP_ID, alphabet.PAD_ID, alphabet.MASK_ID)
    assert named == (0, 1, 2, 3, 4)
    assert "".join(alphabet.TOKENS[alphabet.BASE_IDS]) == alphabet.BASES
    np.testing.assert_allclose(alphabet.DISTRIBUTIONS.sum(axis=1), 1, rtol=1e-6)
    assert alphabet.DISTRIBUTIONS[alphabet.IUPAC.index("R")].tolist() == [0.5, 0, 0.5, 0]
    assert alphabet.TOKEN_PROBABILITIES[alphabet.UNKNOWN].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        alphabet.DISTRIBUTIONS[0, 0] = 0


@given(SEQUENCES)
def test_what_is_encoded_is_decoded_and_turned_twice_the_same(sequence):
    codes = alphabet.encode(sequence)
    assert alphabet.decode(codes) == sequence
    np.testing.assert_array_equal(alphabet.encode(sequence.lower()), codes)
    np.testing.assert_array_equal(alphabet.encode(sequence.replace("T", "U").encode()), codes)
    turned = alphabet.reverse_complement(codes)
    assert alphabet.decode(turned) == "".join(COMPLEMENTS[base] for base in reversed(sequence))
    np.testing.assert_array_equal(alphabet.reverse_complement(turned), codes)


def test_what_is_no_code_is_named_with_its_place():
    for sequence in ("ACGTX", b"ACGTX", "ACGT\u00e9"):
        with pytest.raises(ValueError, match="at position 4 is not an IUPAC nucleotide code"):
            alphabet.encode(sequence)
