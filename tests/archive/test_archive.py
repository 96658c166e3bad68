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
# 0-based half-open stretches in lower case. Version 1 did not keep them, though its FASTA had one.
SOFT_MASKED = {
    1: {"chr1": [], "chr2": [], "three": []},
    2: {"chr1": [(0, 2), (14, 16), (17, 22), (28, 31), (37, 38)], "chr2": [], "three": [(0, 23)]},
}
MEMBERS = {
    "A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip

# Both versions have the same bases and variants, in the same files.
COMMON = {
    "ambiguity.npy": "68c452006bd7df0b25e597ebe57c8e40f55d166e4893571baa0a4dc66c8cb531",
    "sequence.npy": "af4812f4c0e54f85368d1f0ddb75eff5fa7d75583e387831ae0444da8d180923",
    "variant_frequency.npy": "7faf7b2a01d552d0ace66f856b09e9ec912c4f26b36852388293348e0205816d",
    "variant_position.npy": "6dfb58243f45d363c796dc69d6340340f1930d94b72a0d146ee218d7635ea76d",
}
DIGESTS = {
    1: {
        **COMMON,
        "manifest.json": "7fb2fa6148452ef6ecf8a04fb52b77f885797909152ccb76ea7ff5f9d6a441e6",
    },
    2: {
        **COMMON,
        "manifest.json": "e23d7ce9a1a8246a48a670a0d551d2da316a8856acaa3b8225afc0a583862e90",
        "soft_mask.npy": "5b37fdfbc0756011e490fa55e366270821b8330727e279eaf594904d6b969105",
    },
}


@pytest.fixture(scope="module", params=DIGESTS)
def version(request):
    return request.param


@pytest.fixture(scope="module")
def genome(version):
    return ProbabilisticGenome.open(ARCHIVE / f"v{version}.genome", check=True)


def test_the_archive_has_not_changed(version):
    folder = ARCHIVE / f"v{version}.genome"
    assert {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()} == DIGESTS[version]


def test_a_store_keeps_its_bases(genome, version):
    assert genome.manifest["version"] == version
    assert list(genome.contigs) == list(SEQUENCES)
    assert {name: alphabet.decode(genome.bases(name, 0, n)) for name, n in genome.lengths.items()} == SEQUENCES


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_store_keeps_its_frequencies(genome, name):
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


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_store_keeps_its_soft_mask(genome, version, name):
    length = len(SEQUENCES[name])
    expected = [any(start <= i < end for start, end in SOFT_MASKED[version][name]) for i in range(length)]
    assert genome.soft_masked(name, 0, length).tolist() == expected
    index = np.array([list(SEQUENCES).index(name)])
    assert genome.soft_masked_windows(index, np.ones(1, dtype=np.int64), length - 1).tolist() == [expected[1:]]
    assert genome.has_soft_mask == (version > 1)


def test_a_store_still_says_where_it_is_from(genome, version):
    assert [(source["kind"], source["file"]) for source in genome.manifest["sources"]] == [
        ("fasta", f"v{version}.fa"), ("vcf", f"v{version}.vcf"),
    ]  # fmt: skip
    expected = {"min_frequency": 0.02, "frequency_field": "AF", "contigs": None}
    assert {key: genome.manifest["settings"][key] for key in expected} == expected
    (counts,) = genome.manifest["records"]
    assert (counts["read"], counts["used"], counts["not_used"]) == (7, 6, {"frequency not above the minimum": 1})
