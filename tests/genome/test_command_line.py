"""``mutbert genome build`` and ``inspect`` as a user meets them."""

import pytest
from typer.testing import CliRunner

from mutbert.cli.main import genome as app


@pytest.fixture
def run(tmp_path, write_fasta, write_vcf):
    """Run a command, with files to build from; gives its lines without padding, of which none is wider than allowed."""
    records = [("1", 1, "A", "C", 0.5), ("1", 2, "C", "G,CT", "0.25,0.1"), ("1", 3, "G", "GA", 0.5)]
    fasta = write_fasta(tmp_path / "x.fa", {"chr1": "ACGT" * 10, "chr2": "ACGT" * 10})
    vcf = write_vcf(tmp_path / "x.vcf", [*records, ("7", 3, "G", "A", 0.5)])

    def invoke(*words, widest=1000):
        if words[0] == "build":
            words = (*words, "--fasta", str(fasta), "--vcf", str(vcf))
        result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code == 0
        assert max(map(len, result.stdout.splitlines())) <= widest
        return [" ".join(line.split()) for line in result.stdout.splitlines()]

    return invoke


def test_a_genome_is_built_and_shown(tmp_path, run):
    lines = run("build", "-o", tmp_path / "x.genome")
    fate = ["contig not in the FASTA 1 25.00%", "insertion or deletion 1 25.00%", "only in fasta: chr2"]
    for line in ("lengths: 80", "variants: 2", "x.vcf, frequencies from AF", "read 4 100.00%", "used 2 50.00%", *fate):
        assert line in lines, line
    lines = run("inspect", tmp_path / "x.genome")
    for line in (
        # 2 of a half and of a quarter: 0.5 + 0.375 differences in 40 bases.
        "chr1 40 40 2 50.00 0.00 21.875", "chr2 40 40 0 0.00 none 0.000", "all 80 80 2 25.00 0.00 10.938",
        "share not N 100.00%", "soft-masked 0.00%", "mean frequency 0.3750", "het per kb 10.938", "alternate alleles 2",
        "0.25 1 " + "█" * 50, "0.5 1 " + "█" * 50, "min frequency: 0.02", *fate,
    ):  # fmt: skip
        assert line in lines, line


def test_genomes_are_compared_and_drawn(tmp_path, run):
    """The same genome with three minima: 2, 1 and no variants; rarer than in any of them is not shown."""
    pytest.importorskip("matplotlib")
    paths = [tmp_path / f"{name}.genome" for name in ("all", "common", "none")]
    for path, minimum in zip(paths, ("0", "0.3", "0.9"), strict=True):
        run("build", "-o", path, "--min-frequency", minimum)
    lines = run("inspect", *paths, "--plot", tmp_path / "x.svg", "--plot", tmp_path / "x.png", widest=80)
    for line in (
        "3 genomes: checksums are right", "all common none", "variants 2 1 0", "per kb 25.00 12.50 0.00",
        "mean frequency 0.3750 0.5000 none", "frequencies AF AF AF", "minimum 0 0.3 0.9",
        "0.25 1 " + "█" * 21 + " 0 0", "0.5 1 " + "█" * 21 + " 1 " + "█" * 21 + " 0",
    ):  # fmt: skip
        assert line in lines, line
    assert not any(line.startswith("0.125") for line in lines)
    assert all(f">{path.stem}</text>" in (tmp_path / "x.svg").read_text() for path in paths)
