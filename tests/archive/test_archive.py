"""Stores of earlier versions open and say what they always said; what they should say is written here by hand."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mutbert import ProbabilisticGenome, alphabet

ARCHIVE = Path(__file__).resolve().parent

SEQUENCES = {
    "chr1": "NNNNNACGTACGTRRRYACGTTSWKMBDHVNNACGTNN",
    "chr2": "GATTACAGA",
    "three": "ACGTACGTACGTACGTACGTACG",
}
# Units of 1/65535 of A, C, G, T, by 0-based position.
VARIANTS = {
    "chr1": {
        5: (49151, 0, 16384, 0),
        6: (8192, 24576, 0, 32767),
        13: (16384, 0, 49151, 0),
        17: (36863, 8192, 4096, 16384),
    },
    "chr2": {},
    "three": {0: (0, 65535, 0, 0), 22: (0, 0, 63487, 2048)},
}
MEMBERS = {
    "A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip

DIGESTS = {
    "ambiguity.npy": "68c452006bd7df0b25e597ebe57c8e40f55d166e4893571baa0a4dc66c8cb531",
    "manifest.json": "7fb2fa6148452ef6ecf8a04fb52b77f885797909152ccb76ea7ff5f9d6a441e6",
    "sequence.npy": "af4812f4c0e54f85368d1f0ddb75eff5fa7d75583e387831ae0444da8d180923",
    "variant_frequency.npy": "7faf7b2a01d552d0ace66f856b09e9ec912c4f26b36852388293348e0205816d",
    "variant_position.npy": "6dfb58243f45d363c796dc69d6340340f1930d94b72a0d146ee218d7635ea76d",
}


@pytest.fixture(scope="module")
def genome():
    return ProbabilisticGenome.open(ARCHIVE / "v1.genome", check=True)


def test_the_archive_has_not_changed():
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (ARCHIVE / "v1.genome").iterdir()}
    assert found == DIGESTS


def test_version_1_keeps_its_bases(genome):
    assert genome.manifest["version"] == 1
    assert list(genome.contigs) == list(SEQUENCES)
    assert {name: alphabet.decode(genome.bases(name, 0, n)) for name, n in genome.lengths.items()} == SEQUENCES


@pytest.mark.parametrize("name", SEQUENCES)
def test_version_1_keeps_its_frequencies(genome, name):
    expected = [[(base in MEMBERS[letter]) / len(MEMBERS[letter]) for base in "ACGT"] for letter in SEQUENCES[name]]
    for place, units in VARIANTS[name].items():
        expected[place] = [unit / 65535 for unit in units]
    length = len(SEQUENCES[name])
    np.testing.assert_allclose(genome.frequencies(name, 0, length), expected, rtol=0, atol=1e-7)
    index = np.array([list(SEQUENCES).index(name)])
    windows = genome.windows(index, np.zeros(1, dtype=np.int64), length)
    np.testing.assert_allclose(windows.distributions()[0], expected, rtol=0, atol=1e-7)
    variants = genome.variants(name)
    assert variants.position.tolist() == list(VARIANTS[name])
    assert alphabet.decode(variants.reference) == "".join(SEQUENCES[name][place] for place in VARIANTS[name])


def test_version_1_still_says_where_it_is_from(genome):
    assert [(source["kind"], source["file"]) for source in genome.manifest["sources"]] == [
        ("fasta", "v1.fa"), ("vcf", "v1.vcf"),
    ]  # fmt: skip
    assert genome.manifest["settings"] == {"min_frequency": 0.02, "frequency_field": "AF", "contigs": None}
    (counts,) = genome.manifest["records"]
    assert (counts["read"], counts["used"], counts["not_used"]) == (7, 6, {"frequency not above the minimum": 1})
