"""``mutbert genome`` and ``mutbert simulate`` as a user meets them."""

import pytest
from typer.testing import CliRunner

from mutbert.cli.main import genome as app

RECORDS = [
    ("1", 1, "A", "C", 0.5),
    ("1", 2, "C", "G,CT", "0.25,0.1"),
    ("1", 3, "G", "GA", 0.5),
    ("7", 3, "G", "A", 0.5),
]


@pytest.fixture
def inputs(tmp_path, write_fasta, write_vcf):
    fasta = write_fasta(tmp_path / "x.fa", {"chr1": "ACGT" * 10, "chr2": "ACGT" * 10})
    return fasta, write_vcf(tmp_path / "x.vcf", RECORDS)


@pytest.fixture
def command(inputs, tmp_path):
    fasta, vcf = inputs
    return ["build", "--fasta", str(fasta), "--vcf", str(vcf), "-o", str(tmp_path / "x.genome")]


def invoke(*arguments):
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result


def test_build_prints_what_was_made(tmp_path, command):
    result = invoke(*command)
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for line in (
        "lengths: 80",
        "variants: 2",
        "x.vcf, frequencies from AF",
        "read 4 100.00%",
        "used 2 50.00%",
        "contig not in the FASTA 1 25.00%",
        "insertion or deletion 1 25.00%",
        "only in fasta: chr2",
        "only in vcf: 7",
    ):
        assert line in lines
    assert "Reading the variants" in result.stderr
    assert "Reading" not in result.stdout


def test_inspect_shows_what_a_genome_holds(tmp_path, command):
    invoke(*command)
    result = invoke("inspect", str(tmp_path / "x.genome"))
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    # 2 of a half and of a quarter: 0.5 + 0.375 differences in 40 bases.
    assert "chr1 40 40 2 50.00 0.00 21.875" in lines
    assert "chr2 40 40 0 0.00 none 0.000" in lines
    assert "all 80 80 2 25.00 0.00 10.938" in lines
    for line in (
        "share not N 100.00%", "soft-masked 0.00%", "mean frequency 0.3750", "het per kb 10.938", "alternate alleles 2",
        "multi-allelic 0", "0.25 1 " + "█" * 50, "0.5 1 " + "█" * 50, "contig not in the FASTA 1 25.00%",
        "min frequency: 0.02", "only in fasta: chr2", "created by: mutbert 0.1.0",
    ):  # fmt: skip
        assert line in lines, line
    assert any(line.startswith("vcf x.vcf ") for line in lines)


@pytest.fixture
def three(tmp_path, inputs, command):
    """The same genome with three minima: 2, 1 and no variants; paths of their own names."""
    paths = []
    for name, minimum in (("all", "0"), ("common", "0.3"), ("none", "0.9")):
        paths.append(str(tmp_path / f"{name}.genome"))
        invoke(*command[:-1], paths[-1], "--min-frequency", minimum)
    return paths


def test_inspect_compares_genomes(three):
    result = invoke("inspect", *three)
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for line in (
        "3 genomes: checksums are right",
        "all common none",
        "contigs 2 2 2",
        "bases 80 80 80",
        "share not N 100.00% 100.00% 100.00%",
        "soft-masked 0.00% 0.00% 0.00%",
        "variants 2 1 0",
        "per kb 25.00 12.50 0.00",
        "ti/tv 0.00 0.00 none",
        "mean frequency 0.3750 0.5000 none",
        "frequencies AF AF AF",
        "minimum 0 0.3 0.9",
        "up to all common none",
        "0.25 1 " + "█" * 21 + " 0 0",
        "0.5 1 " + "█" * 21 + " 1 " + "█" * 21 + " 0",
    ):
        assert line in lines, line
    # Rarer than in any of them is not shown, and nothing is wider than a usual terminal.
    assert not any(line.startswith("0.125") for line in lines)
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_inspect_draws_the_spectra(tmp_path, three):
    pytest.importorskip("matplotlib")
    files = [tmp_path / "spectra.svg", tmp_path / "spectra.png"]
    plots = [word for file in files for word in ("--plot", str(file))]
    invoke("inspect", *three, *plots)
    svg = files[0].read_text()
    assert svg.startswith("<svg")
    assert all(f">{name}</text>" in svg for name in ("all", "common", "none"))
    assert files[1].read_bytes().startswith(b"\x89PNG")
    invoke("inspect", three[0], *plots, "--force")
    assert files[0].read_text() != svg
