"""Parts of a build, put together, are the build of all."""

import json
import random

import pysam
import pytest

from mutbert.errors import InputError
from mutbert.genome.build import build_genome, merge_genomes
from mutbert.genome.format import ARRAYS, MANIFEST
from mutbert.genome.store import ProbabilisticGenome

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


@pytest.mark.parametrize("indexed", [False, True])
def test_parts_make_the_same_store_as_one_build(tmp_path, inputs, indexed):
    fasta, vcf = inputs
    if indexed:
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
    genome = ProbabilisticGenome.open(merged["path"], check=True)
    assert genome.lengths == dict(whole["lengths"]) == dict(merged["lengths"])
    for name, sequence in CONTIGS.items():
        assert genome.soft_masked(name, 0, len(sequence)).tolist() == [letter.islower() for letter in sequence]


def test_contigs_that_no_part_selected_stay_counted(tmp_path, inputs):
    fasta, vcf = inputs
    for name in ("1", "4"):
        build_genome(fasta, tmp_path / f"{name}.genome", vcf, contigs=[name])
    (counts,) = merge_genomes([tmp_path / "1.genome", tmp_path / "4.genome"], tmp_path / "x.genome")["records"]
    assert counts["not_used"]["contig not selected"] == 24
    assert counts["not_used"]["contig not in the FASTA"] == 8
    assert counts["read"] == 48 == counts["used"] + sum(counts["not_used"].values())


def test_species_with_files_of_their_own_are_put_together(tmp_path, write_fasta, write_vcf):
    for name, base in (("human", "A"), ("mouse", "C")):
        fasta = write_fasta(tmp_path / f"{name}.fa", {"chr1": base * 9})
        vcf = write_vcf(tmp_path / f"{name}.vcf", [("1", 3, base, "T", 0.25)])
        build_genome(f"{name}={fasta}", tmp_path / f"{name}.genome", f"{name}={vcf}")
    report = merge_genomes([tmp_path / "human.genome", tmp_path / "mouse.genome"], tmp_path / "both.genome")
    genome = ProbabilisticGenome.open(report["path"], check=True)
    assert list(genome.lengths) == ["human.chr1", "mouse.chr1"]
    assert genome.frequencies("mouse.1", 2, 3)[0].tolist() == pytest.approx([0, 0.75, 0, 0.25], abs=1e-4)
    assert [counts["file"] for counts in report["records"]] == ["human.vcf", "mouse.vcf"]
    assert [source["prefix"] for source in genome.manifest["sources"]] == ["human", "human", "mouse", "mouse"]


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
