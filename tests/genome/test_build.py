"""Builds as a whole: real data, several files, options; parts that are merged are the build of all."""

import gzip
import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pysam
import pytest

from mutbert import ProbabilisticGenome, build_genome, merge_genomes, verify_genome
from mutbert.errors import InputError
from mutbert.genome.format import ARRAYS, FREQUENCY_ONE, MANIFEST

REGIONS = [
    ("chr22_1-22000000.fa.gz", "chr22_16050075-19759394.1000g_phase3.sites.vcf.gz", "22", 99_832),
    ("chr20_1000001-2000000.fa.gz", "chr20_1000001-2000000.1000g_phase3.sites.vcf.gz", "z", 28_998),
]


@pytest.mark.shared
@pytest.mark.parametrize(("fasta", "vcf", "contig", "records"), REGIONS)
def test_real_data_equal_their_text(shared, tmp_path, fasta, vcf, contig, records):
    fasta, vcf = (shared / "data/human_grch37" / name for name in (fasta, vcf))
    (counts,) = build_genome(fasta, tmp_path / "x.genome", vcf)["records"]
    genome = ProbabilisticGenome.open(tmp_path / "x.genome", check=True)
    verified = verify_genome(tmp_path / "x.genome", fasta, vcf)
    assert verified["differences"] == []
    assert [*verified["sources"].values()] == [True, True]
    assert counts["read"] == records == verified["records"] == counts["used"] + sum(counts["not_used"].values())
    assert sum(file.stat().st_size for file in genome.path.iterdir()) <= 0.30 * genome.lengths[contig]

    above = []
    for line in gzip.decompress(vcf.read_bytes()).decode().splitlines():
        if one := re.match(r"\w+\t(\d+)\t\S+\t([ACGT])\t([ACGT](?:,[ACGT])*)\t.*[;\t]AF=([^;\s]*)", line):
            values = [float(value) for value in one[4].split(",")]
            above += [(int(one[1]), one[2], dict(zip(one[3].split(","), values, strict=True)))] * (sum(values) > 0.02)
    for pos, ref, frequency in random.Random(0).sample(above, 1000):
        assert genome.sequence(contig, pos - 1, pos) == ref
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


# ---- parts, which are merged

CONTIGS = {f"chr{number}": "ACGTacgtRynnNACGTACGTac"[number:] for number in range(1, 6)}


@pytest.fixture
def inputs(tmp_path, write_fasta, write_vcf):
    draw = random.Random(1)
    records = []
    for name, sequence in [*CONTIGS.items(), ("chr9", "ACGT" * 4)]:
        for place in sorted(draw.sample(range(len(sequence)), 8)):
            letter = sequence[place].upper()
            reference = letter if letter in "ACGT" else "A"
            alternate = draw.choice([base for base in "ACGT" if base != reference] + [reference + "G"])
            records.append((name.removeprefix("chr"), place + 1, reference, alternate, draw.choice([0.01, 0.25])))
    vcf = write_vcf(tmp_path / "x.vcf.gz", records, kind="bgzip")
    return write_fasta(tmp_path / "x.fa", CONTIGS), vcf


def test_parts_make_the_same_store_as_one_build(tmp_path, inputs):
    fasta, vcf = inputs
    pysam.tabix_index(str(vcf), preset="vcf")
    whole = build_genome(fasta, tmp_path / "whole.genome", vcf)
    parts = [["1", "chr2"], ["3"], ["4", "5"]]
    for number, contigs in enumerate(parts):
        build_genome(fasta, tmp_path / f"{number}.genome", vcf, contigs=contigs)
    merged = merge_genomes([tmp_path / f"{number}.genome" for number in range(3)], tmp_path / "merged.genome")
    for name in ARRAYS:
        assert (merged["path"] / name).read_bytes() == (whole["path"] / name).read_bytes()
    expected, found = (json.loads((path / MANIFEST).read_text()) for path in (whole["path"], merged["path"]))
    expected["settings"]["contigs"] = [name for names in parts for name in names]
    assert found == expected
    assert found["records"][0]["not_used"]["contig not in the FASTA"] == 8
    # Contigs that no part selected stay counted.
    (counts,) = merge_genomes([tmp_path / "0.genome", tmp_path / "2.genome"], tmp_path / "x.genome")["records"]
    assert counts["not_used"]["contig not selected"] == counts["not_used"]["contig not in the FASTA"] == 8
    assert counts["read"] == 48 == counts["used"] + sum(counts["not_used"].values())


def test_what_does_not_fit_is_refused(tmp_path, inputs):
    fasta, vcf = inputs
    build_genome(fasta, tmp_path / "a.genome", vcf, contigs=["1", "2"])
    build_genome(fasta, tmp_path / "b.genome", vcf, contigs=["2"])
    build_genome(fasta, tmp_path / "c.genome", vcf, contigs=["3"], min_frequency=0.1)
    for parts, message in (
        ("ab", r"b\.genome: contig chr2 is in .*a\.genome too; leave out one"),
        ("ac", r"c\.genome: was built with min_frequency 0\.1, and .*a\.genome with 0\.02; build"),
        ("az", r"z\.genome: no such genome store"),
        ("", "no genome was given"),
    ):
        with pytest.raises(InputError, match=message) as refusal:
            merge_genomes([tmp_path / f"{name}.genome" for name in parts], tmp_path / "x.genome")
        assert "\n" not in str(refusal.value)
        assert not list(tmp_path.glob("x.genome*"))
