"""The only place that knows token ids, IUPAC codes and complements.

Two numberings are used. A *base code* is an index into `IUPAC`, so that A, C, G, T are 0, 1, 2, 3 and N is 14;
genomes are stored and read in it. A *token id* is the model's numbering, published with MutBERT
(Long et al. 2025, bioRxiv 2025.01.23.634452); it has special tokens and the four bases, and nothing for ambiguous
codes, which are distributions over the bases instead.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

TOKENS: Final = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "A", "C", "G", "T")
UNK_ID: Final = 0
CLS_ID: Final = 1
SEP_ID: Final = 2
PAD_ID: Final = 3
MASK_ID: Final = 4
BASE_IDS: Final = slice(5, 9)
VOCABULARY_SIZE: Final = len(TOKENS)

BASES: Final = "ACGT"
IUPAC: Final = "ACGTRYSWKMBDHVN"
UNKNOWN: Final = IUPAC.index("N")

_BASES_OF_CODES: Final = ("A", "C", "G", "T", "AG", "CT", "CG", "AT", "GT", "AC", "CGT", "AGT", "ACT", "ACG", "ACGT")

NOT_A_BASE: Final = 255

CODE_OF_BYTE: Final = np.full(256, NOT_A_BASE, dtype=np.uint8)
"""(256,) ASCII byte to base code; upper and lower case, U as T; `NOT_A_BASE` for any other byte."""
for _code, _letter in enumerate(IUPAC):
    CODE_OF_BYTE[ord(_letter)] = CODE_OF_BYTE[ord(_letter.lower())] = _code
CODE_OF_BYTE[ord("U")] = CODE_OF_BYTE[ord("u")] = IUPAC.index("T")

BYTE_OF_CODE: Final = np.frombuffer(IUPAC.encode("ascii"), dtype=np.uint8)
"""(15,) base code to upper-case ASCII byte."""

DISTRIBUTIONS: Final = np.array(
    [[(base in bases) / len(bases) for base in BASES] for bases in _BASES_OF_CODES], dtype=np.float32
)
"""(15, 4) base code to its distribution over A, C, G, T: R is half A and half G, N is a quarter each."""

COMPLEMENT_OF_CODE: Final = np.array([IUPAC.index(letter) for letter in "TGCAYRSWMKVHDBN"], np.uint8)
"""(15,) base code to its complement's base code."""

COMPLEMENT_OF_ID: Final = np.array([0, 1, 2, 3, 4, 8, 7, 6, 5], dtype=np.int64)
"""(9,) token id to its complement's token id; special tokens are their own."""

TOKEN_PROBABILITIES: Final = np.zeros((len(IUPAC), VOCABULARY_SIZE), dtype=np.float32)
"""(15, 9) base code to its distribution over tokens; N is the token ``[UNK]``, any other code is over the bases."""
TOKEN_PROBABILITIES[:, BASE_IDS] = DISTRIBUTIONS
TOKEN_PROBABILITIES[UNKNOWN] = 0
TOKEN_PROBABILITIES[UNKNOWN, UNK_ID] = 1

TOKEN_ID_OF_CODE: Final = np.full(len(IUPAC), UNK_ID, dtype=np.int64)
"""(15,) base code to token id; every ambiguous code is ``[UNK]``, as a single id cannot say more."""
TOKEN_ID_OF_CODE[:4] = np.arange(BASE_IDS.start, BASE_IDS.stop)

for _table in (
    CODE_OF_BYTE, DISTRIBUTIONS, COMPLEMENT_OF_CODE, COMPLEMENT_OF_ID, TOKEN_PROBABILITIES, TOKEN_ID_OF_CODE,
):  # fmt: skip
    _table.setflags(write=False)


def encode(sequence: str | bytes) -> npt.NDArray[np.uint8]:
    """Return the base codes (L,) of a DNA or RNA sequence in upper or lower case, U read as T; raise ValueError."""
    data = sequence.encode("ascii", "replace") if isinstance(sequence, str) else sequence
    codes = CODE_OF_BYTE[np.frombuffer(data, dtype=np.uint8)]
    wrong = np.flatnonzero(codes == NOT_A_BASE)
    if wrong.size:
        first = int(wrong[0])
        raise ValueError(f"{sequence[first : first + 1]!r} at position {first} is not an IUPAC nucleotide code")
    return codes


def decode(codes: npt.NDArray[np.uint8]) -> str:
    """Return base codes, shape (L,), as an upper-case string of IUPAC codes."""
    return BYTE_OF_CODE[codes].tobytes().decode("ascii")


def reverse_complement(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the reverse complement of base codes along the last axis."""
    return COMPLEMENT_OF_CODE.take(codes)[..., ::-1]
