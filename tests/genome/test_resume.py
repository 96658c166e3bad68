"""A build that was stopped continues where it was, and ends with the bytes of one that was not."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pysam
import pytest

from mutbert import build_genome
from mutbert.errors import InputError

CONTIGS = {f"chr{number}": 300_000 for number in range(1, 5)}
HEADER = """##fileformat=VCFv4.2
##INFO=<ID=AF,Number=A,Type=Float,Description="">
##FORMAT=<ID=GT,Number=1,Type=String,Description="">
##FILTER=<ID=low,Description="">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts\tt
"""
PROGRAM = """
import sys
from mutbert import build_genome
build_genome(sys.argv[1], sys.argv[2], sys.argv[4:], workers=int(sys.argv[3]), resume=True)
"""


def write_vcf(path, contigs, value=0.25, step=1, *, indexed=True):
    """Write records at every so many bases of ACGTACGT..."""
    with path.open("w") as file:
        file.write(HEADER)
        for contig in contigs:
            for place in range(0, CONTIGS[contig], step):
                base, other = "ACGT"[place % 4], "CGTA"[place % 4]
                file.write(f"{contig}\t{place + 1}\t.\t{base}\t{other}\t.\tPASS\tAF={value}\tGT\t0|1\t0|0\n")
    return Path(pysam.tabix_index(str(path), preset="vcf", force=True)) if indexed else path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A reference of four contigs, a file by index with a million records, and one without an index."""
    folder = tmp_path_factory.mktemp("world")
    fasta = folder / "x.fa"
    fasta.write_text("".join(f">{name}\n{'ACgt' * (length // 4)}\n" for name, length in CONTIGS.items()))
    indexed = write_vcf(folder / "a.vcf", CONTIGS)
    return folder, fasta, indexed, write_vcf(folder / "b.vcf", CONTIGS, 0.1, 7, indexed=False)


def bytes_of(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def stop(fasta, output, vcfs, workers, is_reached):
    """Build in a process that is killed once something is there."""
    command = [sys.executable, "-P", "-c", PROGRAM, *map(str, (fasta, output, workers, *vcfs))]
    with subprocess.Popen(command) as process:
        while process.poll() is None and not is_reached():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


def test_a_killed_build_continues(world, tmp_path):
    """Killed again and again, after each thing that it finishes; none of these is made again."""
    _, fasta, indexed, plain = world
    output = tmp_path / "x.genome"
    work, vcfs = tmp_path / "x.genome.partial" / "work", [indexed, plain]
    expected = build_genome(fasta, tmp_path / "whole.genome", vcfs, workers=2)
    kept = {}
    for number, pattern in enumerate(("plan.json", "alleles/*.npy", "parts/[0-9]*.npz", "parts/[0-9]*.npz")):
        count = len(list(work.glob(pattern)))
        if not stop(fasta, output, vcfs, 2, lambda: len(list(work.glob(pattern))) > count):  # noqa: B023
            break
        for path, state in kept.items():
            assert path.stat().st_mtime_ns == state, (number, path)
        kept = {path: path.stat().st_mtime_ns for path in work.glob("parts/[0-9]*.npz")}
    report = build_genome(fasta, output, vcfs, workers=1, resume=True)
    assert report == expected | {"path": output}
    assert bytes_of(output) == bytes_of(tmp_path / "whole.genome")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole.genome", "x.genome"]


@pytest.fixture
def stopped(world, tmp_path):
    """A build that was stopped once the reference was written."""
    _, fasta, indexed, plain = world
    output = tmp_path / "x.genome"
    plan = tmp_path / "x.genome.partial" / "work" / "plan.json"
    assert stop(fasta, output, [indexed, plain], 1, plan.exists)
    return fasta, output, [indexed, plain]


def test_other_settings_and_files_are_refused_and_lose_nothing(stopped, tmp_path):
    fasta, output, vcfs = stopped
    changes = {"min_frequency": 0.1, "filters": ["low"], "frequency_field": "GT", "samples": ["s"], "contigs": ["chr1"]}
    for name, value in changes.items():
        with pytest.raises(InputError, match=r"x\.genome: cannot be resumed, as its files, its settings") as refusal:
            build_genome(fasta, output, vcfs, resume=True, **{name: value})
        assert "\n" not in str(refusal.value)
    other = tmp_path / "x.fa"
    other.write_bytes(fasta.read_bytes().replace(b"gtAC", b"gtNC", 1))
    for files in ((fasta, output, vcfs[::-1]), (other, output, vcfs)):
        with pytest.raises(InputError, match="have changed; use the same as before"):
            build_genome(*files, resume=True)
    parts = tmp_path / "x.genome.partial" / "work" / "parts"
    parts.mkdir()
    (parts / "0.npz").touch()
    with pytest.raises(InputError, match=r"x\.genome\.partial: has a stopped build; use --resume"):
        build_genome(fasta, output, vcfs)
    assert (tmp_path / "x.genome.partial" / "work" / "plan.json").exists()


def test_a_finished_genome_is_left_as_it_is(world, tmp_path, as_version_1):
    folder, fasta, *_ = world
    vcf = write_vcf(folder / "small.vcf", ["chr1"], step=1000)
    output = tmp_path / "x.genome"
    first = build_genome(fasta, output, vcf)
    before = {path: path.stat().st_mtime_ns for path in [output, *output.iterdir()]}
    assert build_genome(fasta, output, vcf, resume=True) == first
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(InputError, match="exists already"):
        build_genome(fasta, output, vcf, resume=True, min_frequency=0.3)
    as_version_1(output)
    with pytest.raises(InputError, match="exists already"):
        build_genome(fasta, output, vcf, resume=True)
