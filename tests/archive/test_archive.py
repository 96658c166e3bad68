"""Stores of earlier versions open and say what they always said; what they should say is written here by hand."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mutbert import ProbabilisticGenome, alphabet

ARCHIVE = Path(__file__).resolve().parent

SEQUENCES = {"chr1": "NNNNNACGTACGTRRRYACGTTSWKMBDHVNNACGTNN", "chr2": "GATTACAGA", "three": "ACGTACGTACGTACGTACGTACG"}
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
}  # fmt: skip
# 0-based half-open stretches in lower case. Version 1 did not keep them, though its FASTA had one.
SOFT_MASKED = {
    1: {"chr1": [], "chr2": [], "three": []},
    2: {"chr1": [(0, 2), (14, 16), (17, 22), (28, 31), (37, 38)], "chr2": [], "three": [(0, 23)]},
}
MEMBERS = {
    "A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip

# The first 64 bits of a SHA-256 of each version's files, in the order of their names.
DIGESTS = {1: "13113475f1b1ee60", 2: "195e23ee5e280c46"}


@pytest.fixture(scope="module", params=DIGESTS)
def version(request):
    return request.param


@pytest.fixture(scope="module")
def genome(version):
    return ProbabilisticGenome.open(ARCHIVE / f"v{version}.genome", check=True)


def test_a_store_keeps_its_bases(genome, version):
    files = sorted(genome.path.iterdir())
    content = b"".join(file.name.encode() + file.read_bytes() for file in files)
    assert hashlib.sha256(content).hexdigest()[:16] == DIGESTS[version], "the archive has changed"
    assert genome.manifest["version"] == version
    assert list(genome.contigs) == list(SEQUENCES)
    assert {name: alphabet.decode(genome.bases(name, 0, n)) for name, n in genome.lengths.items()} == SEQUENCES


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_store_keeps_its_frequencies(genome, version, name):
    expected = [[(base in MEMBERS[letter]) / len(MEMBERS[letter]) for base in "ACGT"] for letter in SEQUENCES[name]]
    for place, units in VARIANTS[name].items():
        expected[place] = [unit / 65535 for unit in units]
    length = len(SEQUENCES[name])
    np.testing.assert_allclose(genome.frequencies(name, 0, length), expected, rtol=0, atol=1e-7)
    variants = genome.variants(name)
    assert variants.position.tolist() == list(VARIANTS[name])
    assert alphabet.decode(variants.reference) == "".join(SEQUENCES[name][place] for place in VARIANTS[name])
    # Likewise its soft mask.
    expected = [any(start <= i < end for start, end in SOFT_MASKED[version][name]) for i in range(length)]
    assert genome.soft_masked(name, 0, length).tolist() == expected
    assert genome.has_soft_mask == (version > 1)


def test_a_store_still_says_where_it_is_from(genome, version):
    assert [(source["kind"], source["file"]) for source in genome.manifest["sources"]] == [
        ("fasta", f"v{version}.fa"), ("vcf", f"v{version}.vcf"),
    ]  # fmt: skip
    expected = {"min_frequency": 0.02, "frequency_field": "AF", "contigs": None}
    assert {key: genome.manifest["settings"][key] for key in expected} == expected
    (counts,) = genome.manifest["records"]
    assert (counts["read"], counts["used"], counts["not_used"]) == (7, 6, {"frequency not above the minimum": 1})
