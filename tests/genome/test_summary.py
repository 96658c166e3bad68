"""Counts of a genome against counts of its own dense rows."""

import numpy as np
import pytest

from mutbert.genome.build import build_genome
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.summary import SPECTRUM_BINS, summarise_genome

RECORDS = [
    ("chr1", 1, "A", "G", 0.05),
    ("chr1", 2, "C", "T,A", "0.25,0.051"),
    ("chr1", 4, "T", "A", 1),
    ("chr2", 3, "A", "G", 0.5),
]


@pytest.fixture
def genome(tmp_path, write_fasta, write_vcf):
    fasta = write_fasta(tmp_path / "x.fa", {"chr1": "ACGTNNNN", "chr2": "ACR", "chr3": "NN"})
    vcf = write_vcf(tmp_path / "x.vcf", RECORDS)
    return ProbabilisticGenome.open(build_genome(fasta, tmp_path / "x.genome", vcf).path)


def test_everything_is_counted(genome):
    summary = summarise_genome(genome)
    assert [(one.name, one.length, one.known, one.variants) for one in summary.contigs] == [
        ("chr1", 8, 4, 3),
        ("chr2", 3, 3, 1),
        ("chr3", 2, 0, 0),
    ]
    assert [one.per_kilobase for one in summary.contigs] == [750, pytest.approx(1000 / 3), 0]
    assert (summary.length, summary.known, summary.variants) == (13, 7, 4)
    assert (summary.alternates, summary.multi_allelic) == (5, 1)
    # A>G and C>T against C>A and T>A; where the reference is R, there is no telling.
    assert (summary.transitions, summary.transversions) == (2, 2)
    assert summary.transitions_per_transversion == 1
    assert summary.bytes_on_disk == sum(file.stat().st_size for file in genome.path.iterdir())
    assert summary.bytes_per_base == summary.bytes_on_disk / 13


def test_the_spectrum_has_its_upper_edges(genome):
    spectrum = summarise_genome(genome).spectrum
    expected = np.zeros(SPECTRUM_BINS, dtype=int)
    expected[0] += 1  # 0.05
    expected[1] += 1  # 0.051
    expected[4] += 1  # 0.25
    expected[9] += 1  # 0.5
    expected[19] += 1  # 1
    assert spectrum == expected.tolist()


def test_a_reference_alone_has_no_ratio(tmp_path, write_fasta):
    fasta = write_fasta(tmp_path / "x.fa", {"chr1": "ACGT"})
    genome = ProbabilisticGenome.open(build_genome(fasta, tmp_path / "y.genome").path)
    summary = summarise_genome(genome)
    assert summary.transitions_per_transversion is None
    assert sum(summary.spectrum) == summary.alternates == summary.variants == 0
