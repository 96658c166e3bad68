"""Builds as a whole: real data, several files, options, and nothing half-written whatever happens."""

import gzip
import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pysam
import pytest

from mutbert import ProbabilisticGenome, build_genome
from mutbert.errors import InputError
from mutbert.genome.format import FREQUENCY_ONE, MANIFEST

REGIONS = [
    ("chr22_1-22000000.fa.gz", "chr22_16050075-19759394.1000g_phase3.sites.vcf.gz", "22", 99_832),
    ("chr20_1000001-2000000.fa.gz", "chr20_1000001-2000000.1000g_phase3.sites.vcf.gz", "z", 28_998),
]


@pytest.mark.shared
@pytest.mark.parametrize(("fasta", "vcf", "contig", "records"), REGIONS)
def test_real_data_equal_their_text(shared, tmp_path, fasta, vcf, contig, records):
    folder = shared / "data/human_grch37"
    report = build_genome(folder / fasta, tmp_path / "x.genome", folder / vcf)
    genome = ProbabilisticGenome.open(tmp_path / "x.genome", check=True)

    with gzip.open(folder / vcf, "rt") as file:
        rows = [line.split("\t") for line in file if not line.startswith("#")]
    (counts,) = report["records"]
    assert counts["read"] == len(rows) == records == counts["used"] + sum(counts["not_used"].values())
    assert sum(file.stat().st_size for file in genome.path.iterdir()) <= 0.30 * genome.lengths[contig]

    with gzip.open(folder / fasta, "rt") as file:
        file.readline()
        sequence = file.read().replace("\n", "").upper()
    above = []
    for _, pos, _, ref, alts, _, _, info in rows:
        values = [float(value) for value in re.search(r"(?:^|;)AF=([^;]*)", info)[1].split(",")]
        if re.fullmatch("[ACGT]", ref) and re.fullmatch("[ACGT](,[ACGT])*", alts) and sum(values) > 0.02:
            above.append((int(pos), ref, dict(zip(alts.split(","), values, strict=True))))
    for pos, ref, frequency in random.Random(0).sample(above, 1000):
        assert sequence[pos - 1] == ref
        frequency[ref] = 1 - sum(frequency.values())
        expected = [frequency.get(base, 0) for base in "ACGT"]
        found = genome.frequencies(contig, pos - 1, pos)[0]
        np.testing.assert_allclose(found, expected, atol=1 / FREQUENCY_ONE, rtol=0)


@pytest.fixture
def small(tmp_path, write_fasta, write_vcf):
    """Two contigs in two FASTA files, and one VCF for each under the other naming."""
    fastas = [write_fasta(tmp_path / f"{name}.fa", {name: "ACGT" * 10}) for name in ("chr1", "chr2")]
    vcfs = [write_vcf(tmp_path / f"{name}.vcf", [(name, 1, "A", "C", 0.5), (name, 6, "C", "G", 0.25)]) for name in "21"]
    return fastas, vcfs


def test_contigs_are_selected_under_either_naming(tmp_path, small):
    fastas, vcfs = small
    report = build_genome(fastas, tmp_path / "x.genome", vcfs, contigs=["2"])
    assert report["lengths"] == {"chr2": 40}
    assert [counts["not_used"] for counts in report["records"]] == [{}, {"contig not selected": 2}]
    with pytest.raises(InputError, match="no contig chr3, 4; there are chr2, chr1"):
        build_genome(fastas, tmp_path / "y.genome", vcfs, contigs=["2", "chr3", "4"])
    assert not list(tmp_path.glob("y.genome*"))


def test_the_manifest_says_where_a_genome_comes_from(tmp_path, small):
    fastas, vcfs = small
    build_genome(fastas, tmp_path / "x.genome", vcfs, min_frequency=0.3, contigs=["1"])
    manifest = json.loads((tmp_path / "x.genome" / MANIFEST).read_text())
    assert manifest["settings"] == {
        "min_frequency": 0.3,
        "frequency_field": "AF",
        "contigs": ["1"],
        "filter": ["PASS", "."],
        "samples": None,
    }
    assert [source["file"] for source in manifest["sources"]] == ["chr1.fa", "chr2.fa", "2.vcf", "1.vcf"]
    assert {source["kind"] for source in manifest["sources"]} == {"fasta", "vcf"}
    assert manifest["records"][1] == {
        "file": "1.vcf",
        "frequency_from": "AF",
        "read": 2,
        "used": 1,
        "decomposed": 0,
        "not_used": {"frequency not above the minimum": 1},
    }
    assert manifest["contig_names"] == {"vcf_name": {"chr1": "1"}, "only_in_fasta": [], "only_in_vcf": []}


def test_an_index_that_is_older_than_its_file_is_not_used_and_named(tmp_path, small):
    fastas, (vcf, _) = small
    index = Path(pysam.tabix_index(str(vcf), preset="vcf", force=True, keep_original=True) + ".tbi")
    packed = vcf.with_suffix(".vcf.gz")
    report = build_genome(fastas, tmp_path / "x.genome", packed)
    assert not report["notes"]
    os.utime(packed, (index.stat().st_mtime + 10,) * 2)
    # One that would be wrong to use.
    index.write_bytes(b"no index")
    os.utime(index, (packed.stat().st_mtime - 10,) * 2)
    again = build_genome(fastas, tmp_path / "x.genome", packed, force=True)
    assert again["records"] == report["records"]
    assert again["notes"] == [
        f"{index}: is older than its file, so it was not used; index the file anew to read it by regions"
    ]
