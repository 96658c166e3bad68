"""``mutbert genome`` and ``mutbert simulate`` as a user meets them."""

import json
import sys

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


def test_inspect_in_json(tmp_path, command):
    invoke(*command)
    result = json.loads(invoke("inspect", str(tmp_path / "x.genome"), "--json").stdout)
    assert (result["variants"], result["alternates"], result["transversions"], result["ti_tv"]) == (2, 2, 2, 0)
    assert result["contigs"][0] == {
        "name": "chr1", "length": 40, "known": 40, "soft_masked": 0, "variants": 2, "per_kilobase": 50,
        "alternates": 2, "transitions": 0, "transversions": 2,
        "diversity_per_kilobase": pytest.approx(21.875, abs=1e-3),
    }  # fmt: skip
    assert result["known_share"] == 1
    assert result["mean_alternate_frequency"] == pytest.approx(0.375, abs=1e-4)
    assert dict(zip(result["doubling_edges"][1:], result["doubling_spectrum"], strict=True))[0.5] == 1
    assert result["records"][0]["read"] == 4
    assert result["settings"]["min_frequency"] == 0.02
    assert len(result["spectrum"]) == 20


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


def test_of_many_contigs_the_longest_are_shown(tmp_path, write_fasta):
    lengths = {f"c{index}": 100 - index for index in range(40)} | {"last": 500}
    fasta = write_fasta(tmp_path / "x.fa", {name: "A" * length for name, length in lengths.items()})
    invoke("build", "--fasta", str(fasta), "-o", str(tmp_path / "x.genome"))
    lines = invoke("inspect", str(tmp_path / "x.genome")).stdout.splitlines()
    names = [
        line.split()[0] for line in lines[lines.index(next(x for x in lines if x.startswith("contig "))) + 1 :][:31]
    ]
    # In the FASTA's order, and the sum of all beneath.
    assert names == [*(f"c{index}" for index in range(29)), "last", "all"]
    assert "and 11 more, all of them shorter; --json lists every contig" in lines
    assert len(json.loads(invoke("inspect", str(tmp_path / "x.genome"), "--json").stdout)["contigs"]) == 41


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


def test_a_plot_that_cannot_be_drawn_is_refused_at_once(tmp_path, monkeypatch, capsys, three):
    status, printed = run(monkeypatch, capsys, "genome", "inspect", "absent.genome", "--plot", tmp_path / "x.jpg")
    assert (status, printed.count("\n")) == (2, 1)
    assert "x.jpg: the suffix chooses the format; it must be .svg or .png" in printed
    (tmp_path / "x.svg").write_text("mine")
    status, printed = run(monkeypatch, capsys, "genome", "inspect", three[0], "--plot", tmp_path / "x.svg")
    assert status == 2
    assert "exists already" in printed
    assert (tmp_path / "x.svg").read_text() == "mine"


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
        ("vcf", "##fileformat", "##format", "cannot be read as VCF"),
        ("vcf", "AF=0.5", "AF=1.5", "1:1: AF=1.5 is not a frequency"),
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
