"""FASTA in every shape it comes in, and every way it can be wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.genome.sources import read_fasta

LETTERS = alphabet.IUPAC + alphabet.IUPAC.lower() + "Uu"


@given(
    st.lists(st.text(LETTERS, min_size=1, max_size=60), min_size=1, max_size=4),
    st.integers(1, 70),
    st.sampled_from(["plain", "gzip", "bgzip"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_every_shape_is_read(tmp_path_factory, write_fasta, compress, sequences, width, kind, end, unended):
    path = tmp_path_factory.mktemp("fasta") / "x.fa"
    write_fasta(path, {f"chr{i}": sequence for i, sequence in enumerate(sequences)}, width=width, end=end)
    if unended:
        path.write_bytes(path.read_bytes().rstrip(b"\r\n"))
    contigs = list(read_fasta(compress(path, kind)))
    assert [name for name, *_ in contigs] == [f"chr{i}" for i in range(len(sequences))]
    for (_, code_L, soft_mask), sequence in zip(contigs, sequences, strict=True):
        assert alphabet.decode(code_L) == sequence.upper().replace("U", "T")
        masked = [i for run in soft_mask for i in range(run["start"], run["start"] + run["length"])]
        assert masked == [i for i, letter in enumerate(sequence) if letter.islower()]
        # The longest runs do not touch.
        assert (soft_mask["start"][1:] > soft_mask["start"][:-1] + soft_mask["length"][:-1]).all()


@pytest.mark.parametrize("kind", ["plain", "gzip"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n\n", "holds no sequence"),
        (b"ACGT\n", "is not FASTA, it starts with 'A"),
        (b"@read\nACGT\n+\nIIII\n", "is not FASTA"),
        (b">read\nACGT\n+\nIIII\n", "contig read has a line that starts with"),
        (b">chr1\nACGTXA\n", "contig chr1, position 5: 'X' is not an IUPAC"),
        (b">chr1\nACGT\nA\xc3\xa9C\n", "contig chr1, position 6: 'é' is not"),
        (b">chr1\nACGT\n>chr2\nA-\n", "contig chr2, position 2: '-' is not"),
        (b">chr1\nACGT\n>chr1 again\nA\n", "contig chr1 comes twice; rename"),
        (b">chr1\nACGT\n>chr2", "contig chr2 has no sequence"),
        (b">\nACGT\n", "header 1 has no name"),
        (b">chr1\nA\n> \nACGT\n", "header 2 has no name"),
        (b">chr1\nA\xe9C\n", "cannot be read as FASTA"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, compress, content, message, kind):
    path = tmp_path / "x.fa"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as refusal:
        list(read_fasta(compress(path, kind)))
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_nul_bytes_are_found(tmp_path):
    (tmp_path / "holed.fa").write_bytes(b">chr1\nACGT\0\0\0\0ACGT\n")
    with pytest.raises(InputError, match="holds NUL bytes, so it is damaged"):
        list(read_fasta(tmp_path / "holed.fa"))


def test_blanks_are_as_for_samtools(tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(b">chr1 caf\xe9\nACGT  \nAC\t\n\n> chr2 x\nAC GT\n  \n")
    contigs = [(name, alphabet.decode(code_L)) for name, code_L, _ in read_fasta(path)]
    assert contigs == [("chr1", "ACGTAC"), ("chr2", "ACGT")]


@pytest.mark.parametrize("kind", ["gzip", "bgzip"])
def test_a_file_cut_anywhere_is_refused(tmp_path, write_fasta, kind, capfd):
    bases = np.random.default_rng(0).integers(0, 4, 1000).astype(np.uint8)
    whole = write_fasta(tmp_path / "x.fa", {"chr1": alphabet.decode(bases)}, width=60, kind=kind).read_bytes()
    path = tmp_path / "cut.fa"
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            list(read_fasta(path))
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(InputError):
        list(read_fasta(path))
    assert capfd.readouterr().err == ""
