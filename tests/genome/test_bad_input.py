"""What a user can get wrong is one line, and an output that is there stays; what is only unusual is read."""

import os
from itertools import cycle

import pytest

from mutbert import build_genome
from mutbert.errors import InputError

SEQUENCE = "ACGT" * 250


@pytest.fixture
def write(tmp_path, write_vcf):
    """Write a VCF of two people, s and t, whose REF agrees with the sequence at 1, 5, 9...; gives its path."""

    def run(positions, value=0.5, name="x.vcf.gz", **how):
        calls = zip(positions, cycle(["0|0", "1", "./1", "1|1"]), strict=False)
        rows = [("chr1", pos, "A", "C", value, "0|1", call) for pos, call in calls]
        return write_vcf(tmp_path / name, rows, "st", **how)

    return run


@pytest.fixture
def fasta(tmp_path, write_fasta):
    return write_fasta(tmp_path / "x.fa", {"chr1": SEQUENCE, "chr2": SEQUENCE}, width=60)


@pytest.fixture
def refused(tmp_path, fasta):
    """Run a build that has to fail over a genome that is there; gives its only line."""
    output = tmp_path / "x.genome"
    build_genome(fasta, output)

    def snapshot():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def check(vcf=(), fasta=fasta, **options):
        before = snapshot()
        with pytest.raises(InputError) as refusal:
            build_genome(fasta, output, vcf, force=True, **options)
        assert snapshot() == before
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    return check


@pytest.mark.parametrize("kind", ["plain", "index"])
def test_an_impossible_frequency_is_the_same_line_from_every_worker(refused, write, kind):
    path = write(range(1, 1000, 4), 1.5, kind=kind)
    line = refused(path, workers=2)
    assert f"{path}: 250 of 250 records have no frequency from 0 to 1" in line
    assert "first chr1:1: AF=1.5" in line
    assert refused(path) == line


@pytest.mark.parametrize("kind", ["plain", "index"])
@pytest.mark.parametrize("options", [{}, {"sample": "t"}])
def test_windows_line_ends_change_nothing(tmp_path, write, write_fasta, kind, options):
    reports = []
    for name, end in (("a", "\n"), ("b", "\r\n")):
        sequences = write_fasta(tmp_path / f"{name}.fa", {"chr1": SEQUENCE, "chr2": "AN"}, end=end)
        path = write((1, 5, 9, 13), name=f"{name}.vcf.gz", kind=kind, end=end)
        reports.append(build_genome(sequences, tmp_path / f"{name}.genome", path, **options))
    for array in reports[0]["path"].glob("*.npy"):
        assert array.read_bytes() == (reports[1]["path"] / array.name).read_bytes()
    assert reports[0]["records"][0]["used"] == reports[1]["records"][0]["used"] >= 3


def test_a_broken_index_alone_is_as_none(tmp_path, write, fasta):
    path = write((1, 5), kind="index")
    index = path.with_name(path.name + ".tbi")
    whole = index.read_bytes()
    for content in (b"", b"no index", whole[: len(whole) // 2]):
        index.write_bytes(content)
        report = build_genome(fasta, tmp_path / "y.genome", path, force=True, workers=2)
        assert report["records"][0]["used"] == 2


def test_a_stale_index_is_found(refused, write):
    stale = write(range(1, 120, 4), kind="index")
    assert write(range(1, 400, 4), kind="bgzip") == stale
    os.utime(f"{stale}.tbi")
    for number in (1, 2):
        assert "x.vcf.gz: its index counts 30 records of contig chr1, but" in refused(stale, workers=number)


def test_options_that_do_not_fit_are_refused(tmp_path, refused, write, write_vcf, fasta):
    path, sites = write([1]), write_vcf(tmp_path / "sites.vcf", [("chr1", 1, "A", "C", 0.5)])
    for vcf, options, message in (
        (sites, {"sample": "s"}, f"{sites}: no sample s; there are none"),
        (path, {"workers": 0}, "0 workers: use at least one"),
        (f"human={path}", {}, f"{path}: its prefix 'human' is that of no FASTA; prefixes are none"),
        ([path, path], {}, f"{path}: comes twice"),
        (path, {"filters": ["lwo"]}, "no declared FILTER lwo; there are ., PASS, any"),
        (fasta, {}, f"{fasta}: cannot be read as VCF"),
        (path, {"frequency_field": "AC/AN"}, "declares no INFO field AC/AN"),
        (path, {"fasta": path}, f"{path}: is not FASTA"),
        (path, {"fasta": f"mouse={fasta}"}, "is that of no FASTA; prefixes are mouse="),
        (path, {"fasta": []}, "no FASTA was given"),
        (path, {"min_frequency": 1}, "minimum frequency 1: is not at least 0 and below 1"),
    ):
        assert message in refused(vcf, **options), message
