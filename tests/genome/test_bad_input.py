"""What a user can get wrong is one line and status 2; nothing is left behind, and an output that is there stays.

Where a file is only unusual (line ends, no contig lines, records past the end), it is read as it should be.
"""

import gzip
import os
import re
import sys

import pysam
import pytest

from mutbert import build_genome
from mutbert.errors import InputError

SEQUENCE = "ACGT" * 250
HEADER = """##fileformat=VCFv4.2
##INFO=<ID=AF,Number=A,Type=Float,Description="">
##FORMAT=<ID=GT,Number=1,Type=String,Description="">
##FORMAT=<ID=DP,Number=1,Type=Integer,Description="">
"""
COLUMNS = "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"])


def line(pos, value="0.5", calls=("0|1", "0|0"), chrom="chr1", keys="GT", alt="C"):
    """Write a record whose REF agrees with the sequence where POS is 1, 5, 9..."""
    return "\t".join([chrom, str(pos), ".", "A", alt, ".", "PASS", f"AF={value}", keys, *calls])


@pytest.fixture
def write(tmp_path):
    """Write a VCF of two people, s and t; gives its path."""

    def run(lines, name="x.vcf", *, kind="plain", end="\n", samples=("s", "t")):
        path = tmp_path / name
        columns = "\t".join([COLUMNS, "FORMAT", *samples]) if samples else COLUMNS
        text = end.join([*HEADER.splitlines(), columns, *lines, ""]).encode()
        path.write_bytes(gzip.compress(text) if kind == "gzip" else text)
        if kind in ("bgzip", "index"):
            packed = tmp_path / f"{name}.gz"
            pysam.tabix_compress(str(path), str(packed), force=True)
            path = packed
        if kind == "index":
            pysam.tabix_index(str(path), preset="vcf", force=True)
        return path

    return run


@pytest.fixture
def fasta(tmp_path, write_fasta):
    return write_fasta(tmp_path / "x.fa", {"chr1": SEQUENCE, "chr2": SEQUENCE}, width=60)


@pytest.fixture
def run(monkeypatch, capfd):
    """Run the program; gives its exit status, and what it said apart from progress, line by line."""

    def run(*words):
        from mutbert.cli.main import run as program

        monkeypatch.setattr(sys, "argv", ["mutbert", "genome", "build", *map(str, words)])
        capfd.readouterr()
        status = 0
        try:
            program()
        except SystemExit as stopped:
            status = stopped.code or 0
        said = capfd.readouterr().err.splitlines()
        return status, [text for text in said if not re.match("(Checksums|Reading the (reference|variants))\\b", text)]

    return run


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def refused(tmp_path, fasta, run):
    """Run a build that has to fail over a genome that is there; gives its only line."""
    output = tmp_path / "x.genome"
    build_genome(fasta, output)

    def check(*words, fasta=fasta):
        before = snapshot(tmp_path)
        status, said = run("--fasta", fasta, "-o", output, "--force", *words)
        assert (status, len(said)) == (2, 1), said
        assert snapshot(tmp_path) == before
        assert said[0].startswith("mutbert: ")
        return said[0]

    return check


# ---- records


@pytest.mark.parametrize("kind", ["plain", "index"])
@pytest.mark.parametrize("number", [1, 2])
def test_an_impossible_frequency_is_the_same_line_from_every_worker(refused, write, kind, number):
    path = write([line(pos, 1.5) for pos in range(1, 1000, 4)], kind=kind)
    assert f"{path}: chr1:1: AF=1.5 is not a frequency" in refused("--vcf", path, "--workers", number)


# ---- line ends, headers


@pytest.mark.parametrize("kind", ["plain", "gzip", "bgzip", "index"])
@pytest.mark.parametrize("options", [{}, {"frequency_field": "GT"}, {"sample": "t"}])
def test_windows_line_ends_change_nothing(tmp_path, write, fasta, write_fasta, kind, options):
    lines = [line(pos, calls=("0|1", call)) for pos, call in ((1, "0|0"), (5, "1"), (9, "./1"), (13, "1|1"))]
    reports = []
    for name, end in (("a", "\n"), ("b", "\r\n")):
        sequences = write_fasta(tmp_path / f"{name}.fa", {"chr1": SEQUENCE, "chr2": "AN"}, end=end)
        path = write(lines, f"{name}.vcf", kind=kind, end=end)
        reports.append(build_genome(sequences, tmp_path / f"{name}.genome", path, **options))
    for array in reports[0]["path"].glob("*.npy"):
        assert array.read_bytes() == (reports[1]["path"] / array.name).read_bytes()
    assert reports[0]["records"][0]["used"] == reports[1]["records"][0]["used"] >= 3


# ---- indexes


def test_a_broken_index_alone_is_as_none(tmp_path, write, fasta):
    path = write([line(1), line(5)], kind="index")
    index = path.with_name(path.name + ".tbi")
    whole = index.read_bytes()
    for content in (b"", b"no index", whole[: len(whole) // 2]):
        index.write_bytes(content)
        report = build_genome(fasta, tmp_path / "y.genome", path, force=True, workers=2)
        assert report["records"][0]["used"] == 2


@pytest.mark.parametrize("number", [1, 2])
def test_a_stale_index_is_found(tmp_path, write, fasta, number):
    stale = write([line(4 * i + 1) for i in range(30)], kind="index")
    assert write([line(4 * i + 1) for i in range(100)], kind="bgzip") == stale
    os.utime(f"{stale}.tbi")
    with pytest.raises(InputError, match=r"x\.vcf\.gz: its index counts 30 records of contig chr1, but \d+ were found"):
        build_genome(fasta, tmp_path / "y.genome", stale, workers=number)
    assert not list(tmp_path.glob("y.genome*"))


# ---- options, files, folders


def test_options_that_do_not_fit_are_refused(tmp_path, refused, write, write_vcf, fasta):
    path = write([line(1)])
    plain = write_vcf(tmp_path / "sites.vcf", [("chr1", 1, "A", "C", 0.5)])
    for words, message in (
        (["--vcf", plain, "--sample", "s"], f"{plain}: no sample s; there are none"),
        (["--vcf", path, "--workers", "0"], "0 workers: use at least one"),
        (["--vcf", path, "--workers", "-3"], "-3 workers: use at least one"),
        (["--vcf", f"human={path}"], f"{path}: its prefix 'human' is that of no FASTA; prefixes are none"),
        (["--vcf", path, "--vcf", path], f"{path}: comes twice"),
        (["--vcf", path, "--filter", "lwo"], "no header declares the FILTER lwo; there are ., PASS, any"),
        (["--vcf", fasta], f"{fasta}: cannot be read as VCF"),
        (["--vcf", path, "--frequency-field", "AC/AN"], "declares no INFO field AC/AN"),
    ):
        assert message in refused(*words), words
    assert f"{path}: is not FASTA" in refused(fasta=path)
    assert "is that of no FASTA; prefixes are mouse=" in refused("--vcf", path, fasta=f"mouse={fasta}")
