"""``mutbert genome`` and ``mutbert simulate`` as a user meets them."""

import json
import sys

import pytest
from typer.testing import CliRunner

from mutbert.cli.genome import app
from mutbert.genome.store import ProbabilisticGenome

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
    assert "2 contigs, 80 bases, 2 variants" in result.stdout
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for line in (
        "x.vcf, frequencies from AF",
        "read 4 100.00%",
        "used 2 50.00%",
        "contig not in the FASTA 1 25.00%",
        "insertion or deletion 1 25.00%",
        "contigs of the FASTA without records: chr2",
        "contigs of the VCF that the FASTA does not have: 7",
    ):
        assert line in lines
    assert "Reading the variants" in result.stderr
    assert "Reading" not in result.stdout


def test_build_in_json(tmp_path, command):
    result = json.loads(invoke(*command, "--json", "--contigs", "1,chr2").stdout)
    assert result["path"] == str(tmp_path / "x.genome")
    assert result["variants"] == 2
    assert result["records"][0]["not_used"] == {"contig not in the FASTA": 1, "insertion or deletion": 1}
    assert result["contig_names"] == {"chr1": "1"}
    assert list(ProbabilisticGenome.open(tmp_path / "x.genome").contigs) == ["chr1", "chr2"]


def test_options_reach_the_build(tmp_path, command):
    invoke(*command, "--contigs", "1", "--min-frequency", "0.3")
    genome = ProbabilisticGenome.open(tmp_path / "x.genome")
    assert list(genome.contigs) == ["chr1"]
    assert genome.variants("chr1").position.tolist() == [0]
    invoke(*command, "--force")
    assert list(ProbabilisticGenome.open(tmp_path / "x.genome").contigs) == ["chr1", "chr2"]


def test_inspect_shows_what_a_genome_holds(tmp_path, command):
    invoke(*command)
    result = invoke("inspect", str(tmp_path / "x.genome"))
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "chr1 40 40 2 50.00" in lines
    assert "all 80 80 2 25.00" in lines
    assert any(
        line.startswith("2 alternate alleles; 0 positions with more than one; 0 transitions, 2 trans") for line in lines
    )
    assert "0.20 to 0.25 1 " + "█" * 50 in lines
    assert "0.25 to 0.30 0" in lines
    assert "contig not in the FASTA 1 25.00%" in lines
    assert "made by mutbert 0.1.0 with min_frequency 0.02, frequency_field AF" in lines
    assert any(line.startswith("vcf x.vcf, ") for line in lines)


def test_inspect_in_json(tmp_path, command):
    invoke(*command)
    result = json.loads(invoke("inspect", str(tmp_path / "x.genome"), "--json").stdout)
    assert (result["variants"], result["alternates"], result["transversions"], result["ti_tv"]) == (2, 2, 2, 0)
    assert result["contigs"][0] == {"name": "chr1", "length": 40, "known": 40, "variants": 2, "per_kilobase": 50}
    assert result["records"][0]["read"] == 4
    assert result["settings"]["min_frequency"] == 0.02
    assert len(result["spectrum"]) == 20


def run(monkeypatch, capsys, *arguments):
    """Run the whole program; gives its exit status and what it printed on standard error."""
    from mutbert.cli.main import run

    monkeypatch.setattr(sys, "argv", ["mutbert", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run()
    printed = capsys.readouterr()
    assert printed.out == ""
    return stopped.value.code, printed.err


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("fasta", ">chr1", "chr1", "is not FASTA"),
        ("fasta", "ACGTACG", "AC!TACG", "position 3: '!' is not"),
        ("vcf", "##fileformat", "##format", "is not VCF"),
        ("vcf", "AF=0.5", "AF=1.5", "1:1: AF=1.5 is not between 0 and 1"),
        ("vcf", "\n1\t", "\n5\t", "no contig is in the FASTA"),
        ("vcf", "ID=AF", "ID=XX", "declares no INFO field AF"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(
    tmp_path, monkeypatch, capsys, inputs, command, file, old, new, message
):
    path = dict(zip(("fasta", "vcf"), inputs, strict=True))[file]
    path.write_text(path.read_text().replace(old, new))
    before = sorted(tmp_path.iterdir())
    status, printed = run(monkeypatch, capsys, "genome", *command)
    assert status == 2
    last = printed.splitlines()[-1]
    assert last.startswith(f"mutbert: {path}: ")
    assert message in last
    assert printed.count("mutbert: ") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_inspect_refuses_a_damaged_genome(tmp_path, monkeypatch, capsys, command):
    invoke(*command)
    file = tmp_path / "x.genome" / "sequence.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    status, printed = run(monkeypatch, capsys, "genome", "inspect", tmp_path / "x.genome")
    assert (status, printed.count("\n")) == (2, 1)
    assert "sequence.npy: its SHA-256 is not the manifest's" in printed


def test_simulate(tmp_path):
    pytest.importorskip("msprime")
    import typer

    from mutbert.cli.simulate import simulate

    program = typer.Typer()
    program.command()(simulate)
    options = ["-o", str(tmp_path / "p"), "--length", "20000", "--samples", "5"]
    result = CliRunner().invoke(program, options, catch_exceptions=False)
    assert "ref.fa: chr1, 20,000 bases" in result.stdout
    assert "5 people" in result.stdout
    result = json.loads(CliRunner().invoke(program, [*options, "--force", "--json"], catch_exceptions=False).stdout)
    assert result["fasta"] == str(tmp_path / "p" / "ref.fa")
    assert (result["length"], result["samples"]) == (20_000, 5)
