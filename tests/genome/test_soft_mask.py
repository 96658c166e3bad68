"""The soft mask from the FASTA to the store, against its letters one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import ProbabilisticGenome, alphabet, build_genome

LETTERS = alphabet.IUPAC + alphabet.IUPAC.lower() + "Uu"
# Letters one by one, and stretches that cross lines and windows.
STRETCHES = st.one_of(
    st.text(LETTERS, min_size=1, max_size=9), st.text("ACGTN", min_size=1, max_size=40).map(str.lower)
)
SEQUENCES = st.lists(STRETCHES | st.text("ACGTN", min_size=1, max_size=40), min_size=1, max_size=5).map("".join)


@given(
    st.lists(SEQUENCES, min_size=1, max_size=4),
    st.integers(1, 70),
    st.sampled_from(["plain", "gzip", "bgzip"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_the_case_of_every_letter_is_kept(tmp_path_factory, write_fasta, sequences, width, kind, end):
    folder = tmp_path_factory.mktemp("mask")
    contigs = {f"chr{number}": sequence for number, sequence in enumerate(sequences)}
    path = write_fasta(folder / "x.fa", contigs, width=width, kind=kind, end=end)
    genome = ProbabilisticGenome.open(build_genome(path, folder / "x.genome").path, check=True)
    for name, sequence in contigs.items():
        assert genome.soft_masked(name, 0, len(sequence)).tolist() == [letter.islower() for letter in sequence]
        assert alphabet.decode(genome.bases(name, 0, len(sequence))) == sequence.upper().replace("U", "T")


@pytest.mark.parametrize("number", [1, 2])
def test_workers_change_nothing(tmp_path, write_fasta, write_vcf, number):
    sequences = {"chr1": "acgtACGTacgtNNnnACGT" * 9, "chr2": "ACGTacgtA" * 20}
    records = [("chr1", 1, "A", "C", 0.25), ("chr1", 5, "A", "C", 0.25), ("chr2", 5, "A", "C", 0.25)]
    path, vcf = write_fasta(tmp_path / "x.fa", sequences), write_vcf(tmp_path / "x.vcf", records)
    genome = ProbabilisticGenome.open(build_genome(path, tmp_path / "x.genome", vcf, workers=number).path)
    for name, sequence in sequences.items():
        assert genome.soft_masked(name, 0, len(sequence)).tolist() == [letter.islower() for letter in sequence]
    assert genome.variants("chr1").position.tolist() == [0, 4]


@pytest.mark.parametrize("text", ["ACGTNRY", "acgtnryu"])
def test_a_fasta_of_one_case(tmp_path, write_fasta, text):
    path = write_fasta(tmp_path / "x.fa", {"chr1": text * 20, "chr2": text})
    genome = ProbabilisticGenome.open(build_genome(path, tmp_path / "x.genome").path)
    expected = [] if text.isupper() else [(0, 20 * len(text)), (0, len(text))]
    assert genome.arrays["soft_mask.npy"].tolist() == expected
    assert genome.has_soft_mask == bool(expected)
