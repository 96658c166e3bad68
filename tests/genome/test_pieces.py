"""FASTA in every shape it comes in, and every way it can be wrong."""

import gzip
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet, files
from mutbert.errors import InputError
from mutbert.genome import pieces as fasta
from mutbert.genome.pieces import read_fasta, read_pieces

LETTERS = alphabet.IUPAC + alphabet.IUPAC.lower() + "Uu"


@given(
    st.lists(st.text(LETTERS, min_size=1, max_size=60), min_size=1, max_size=4),
    st.integers(1, 70),
    st.sampled_from(["plain", "gzip", "bgzip"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.integers(1, 40),
    st.integers(1, 40),
)
def test_every_shape_is_read(
    tmp_path_factory, write_fasta, compress, sequences, width, kind, end, unended, block, piece_bases
):
    path = tmp_path_factory.mktemp("fasta") / "x.fa"
    write_fasta(path, {f"chr{i}": sequence for i, sequence in enumerate(sequences)}, width=width, end=end)
    if unended:
        path.write_bytes(path.read_bytes().rstrip(b"\r\n"))
    compress(path, kind)
    told = []
    with pytest.MonkeyPatch.context() as patch:
        # Small blocks, so that every cut through headers, line ends and sequence is met.
        patch.setattr(files, "_BLOCK_BYTES", block)
        patch.setattr(fasta, "_PIECE_BASES", piece_bases)
        pieces = list(read_pieces(path, told.append))
        contigs = list(read_fasta([path]))
    lower = {f"chr{i}": [letter.islower() for letter in sequence] for i, sequence in enumerate(sequences)}
    expected = [sequence.upper().replace("U", "T") for sequence in sequences]
    assert [contig.name for contig in contigs] == [f"chr{i}" for i in range(len(sequences))]
    assert [alphabet.decode(contig.base_L) for contig in contigs] == expected
    assert sum(told) == path.stat().st_size
    place = dict.fromkeys((piece.contig for piece in pieces), 0)
    for piece in pieces:
        assert piece.start == place[piece.contig]
        assert 1 <= len(piece.base_L) <= piece_bases
        masked = {place for run in piece.soft_mask for place in range(run["start"], run["start"] + run["length"])}
        places = range(piece.start, piece.start + len(piece.base_L))
        assert masked == {place for place in places if lower[piece.contig][place]}
        place[piece.contig] += len(piece.base_L)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "holds no sequence"),
        (b"ACGT\n", "is not FASTA, it starts with 'A"),
        (b"@read\nACGT\n+\nIIII\n", "is not FASTA"),
        (b">chr1\nACGTXA\n", "contig chr1, position 5: 'X' is not an IUPAC"),
        (b">chr1\nACGT\nAC GT\n", "contig chr1, position 7: ' ' is not"),
        (b">chr1\nACGT\nA>C\n", "contig chr1, position 6: '>' is not"),
        (b">chr1\nACGT\n>chr2\nA-\n", "contig chr2, position 2: '-' is not"),
        (b">chr1\nACGT\n>chr1 again\nA\n", "contig chr1 comes twice; rename"),
        (b">chr1\n>chr2\nACGT\n", "contig chr1 has no sequence"),
        (b">chr1\nACGT\n>chr2", "contig chr2 has no sequence"),
        (b">chr1\nACGT\n>chr2\n\n\n", "contig chr2 has no sequence"),
        (b">\nACGT\n", "the first header has no name"),
        (b">chr1\nA\n> chr2\nACGT\n", "the header after contig chr1 has no name"),
        (b">chr1\nA\n>\r\nACGT\n", "the header after contig chr1 has no name"),
    ],
)
@pytest.mark.parametrize("block", [1, 3, 1000])
def test_what_is_wrong_is_said_in_one_line(tmp_path, monkeypatch, content, message, block):
    monkeypatch.setattr(files, "_BLOCK_BYTES", block)
    path = tmp_path / "x.fa"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as refusal:
        list(read_pieces(path))
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_name_may_come_once_in_all_files(tmp_path, write_fasta):
    first = write_fasta(tmp_path / "a.fa", {"chr1": "ACGT"})
    second = write_fasta(tmp_path / "b.fa", {"chr1": "ACGT"})
    with pytest.raises(InputError, match=r"b\.fa: contig chr1 comes twice \(also in .*a\.fa\)"):
        list(read_pieces([first, second]))


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such FASTA file"):
        list(read_pieces(tmp_path / "absent.fa"))
    with pytest.raises(InputError, match="is a folder"):
        list(read_pieces(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        list(read_pieces(tmp_path / "pipe"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path, write_fasta):
    path = write_fasta(tmp_path / "x.fa", {"chr1": "ACGT"})
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        list(read_pieces(path))


def test_a_read_error_is_said_in_one_line(tmp_path, write_fasta, monkeypatch):
    path = write_fasta(tmp_path / "x.fa", {"chr1": "ACGT"})

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        list(read_pieces(path))


@pytest.mark.parametrize("kind", ["gzip", "bgzip"])
def test_a_file_cut_anywhere_is_refused(tmp_path, write_fasta, kind):
    bases = np.random.default_rng(0).integers(0, 4, 1000).astype(np.uint8)
    whole = write_fasta(tmp_path / "x.fa", {"chr1": alphabet.decode(bases)}, width=60, kind=kind).read_bytes()
    path = tmp_path / "cut.fa"
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            list(read_pieces(path))


def test_damaged_gzip_is_refused(tmp_path, write_fasta):
    path = write_fasta(tmp_path / "x.fa", {"chr1": "ACGT" * 1000}, kind="gzip")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="it is damaged"):
        list(read_pieces(path))


@pytest.mark.shared
def test_real_chromosome(shared):
    """Plain gzip as UCSC ships it, against a plain-text reader."""
    path = shared / "data/human_grch37/chr22_1-22000000.fa.gz"
    with gzip.open(path, "rt") as file:
        assert file.readline() == ">22\n"
        text = file.read().replace("\n", "").upper()
    (contig,) = read_fasta(path)
    assert contig.name == "22"
    assert alphabet.decode(contig.base_L) == text
    assert int((contig.base_L != alphabet.UNKNOWN).sum()) == 5_699_979
