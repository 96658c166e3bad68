"""What alternate alleles change, against the haplotype written out as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import ProbabilisticGenome, alphabet
from mutbert.effects.alleles import Kind, Reason, find_alleles
from mutbert.genome.build import build_genome

SEQUENCES = {"chr1": "ACGTTTTGCANNNACRTACGGATTACACCAGATTTAC", "2": "GATTACA"}


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("genome")
    (folder / "ref.fa").write_text("".join(f">{name}\n{bases}\n" for name, bases in SEQUENCES.items()))
    build_genome(folder / "ref.fa", folder / "a.genome")
    return ProbabilisticGenome.open(folder / "a.genome")


def find(genome, *records, **settings):
    return find_alleles(genome, *zip(*records, strict=True), **settings)


@pytest.mark.parametrize(
    ("position", "reference", "alternate", "kind", "start", "end", "inserted"),
    [
        (1, "acg", "ACt", Kind.SNV, 2, 3, "T"),
        (1, "ACGT", "TCGA", Kind.MNV, 0, 4, "TCGA"),
        (1, "A", "AGG", Kind.INDEL, 1, 1, "GG"),
        (1, "ACG", "A", Kind.INDEL, 1, 3, ""),
        # As programs that normalise do, from behind first.
        (4, "TT", "T", Kind.INDEL, 3, 4, ""),
        (3, "GTTTT", "GT", Kind.INDEL, 3, 6, ""),
        (3, "GTTTTG", "GTTTG", Kind.INDEL, 3, 4, ""),
        (1, "ACG", "AT", Kind.INDEL, 1, 3, "T"),
    ],
)
def test_what_changes(genome, position, reference, alternate, kind, start, end, inserted):
    alleles = find(genome, ("chr1", position, reference, alternate))
    found = (alleles.kind_A[0], alleles.start_A[0], alleles.end_A[0], alleles.inserted[0])
    assert found == (kind, start, end, inserted)
    assert alleles.reason_A[0] == Reason.SCORED


def test_an_allele_of_several_is_what_it_is_alone(genome):
    together = find(genome, ("chr1", 3, "GTTTT", "GTTT,GTT,G,GTTTTT,GTTTA"))
    alone = [("GT", "G"), ("GTT", "G"), ("GTTTT", "G"), ("G", "GT")]
    alone = find(genome, *(("chr1", 3, *pair) for pair in alone), ("chr1", 7, "T", "A"))
    for name in ("kind_A", "start_A", "end_A", "reference_A", "alternate_A", "removed", "inserted"):
        assert getattr(together, name).tolist() == getattr(alone, name).tolist(), name
    assert together.removed.tolist() == ["T", "TT", "TTTT", "", "T"]


@given(st.integers(1, 7), st.integers(1, 7), st.text("ACGT", min_size=1, max_size=9))
def test_put_in_its_place_an_allele_gives_the_haplotype(genome, position, length, alternate):
    contig = SEQUENCES["2"]
    reference = contig[position - 1 : position - 1 + length]
    alleles = find(genome, ("2", position, reference, alternate))
    if alternate == reference:
        assert alleles.reason_A[0] == Reason.NOT_A_CHANGE
        return
    start, end = int(alleles.start_A[0]), int(alleles.end_A[0])
    removed, inserted = alleles.removed[0], alleles.inserted[0]
    haplotype = contig[: position - 1] + alternate + contig[position - 1 + len(reference) :]
    assert (contig[:start] + inserted + contig[end:], contig[start:end]) == (haplotype, removed)
    if alleles.kind_A[0] == Kind.SNV:
        assert alphabet.BASES[alleles.reference_A[0]] + alphabet.BASES[alleles.alternate_A[0]] == removed + inserted
    # Nothing is left that both have at an end.
    assert not (removed and inserted and (removed[0] == inserted[0] or removed[-1] == inserted[-1]))
