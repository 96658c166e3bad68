"""The tutorial runs as it stands, and finds what was planted."""

import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pysam
import pytest
from typer.testing import CliRunner

from mutbert.cli.main import app
from mutbert.scoring.metrics import evaluate

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
SAMPLE = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder in which every sample has run, and what the Python ones have made."""
    folder = tmp_path_factory.mktemp("tutorial")
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for language, sample in SAMPLE.findall(PAGE.read_text(encoding="utf-8")):
            if language == "python":
                exec(compile(sample, PAGE.name, "exec"), names)
                continue
            for line in sample.splitlines():
                program, *words = shlex.split(line)
                assert program == "mutbert"
                result = CliRunner().invoke(app, words)
                assert result.exit_code == 0, f"{line}\n{result.output}"
    return folder, names


@pytest.mark.slow
def test_the_ratio_of_variants_finds_the_motif(done):
    _, names = done
    assert names["auroc"] > 0.95
    assert 0.2 < names["inside"].mean() < 0.5


@pytest.mark.slow
def test_the_scored_file_has_all_records_with_scores(done):
    folder, _ = done
    with pysam.VariantFile(str(folder / "scored.vcf.gz")) as file:
        scores = [record.info["MUTBERT_LLR"][0] for record in file.fetch("chr1", 190_000, 200_000)]
    lines = (folder / "variants.vcf").read_text().count("\nchr1\t")
    assert len(scores) == lines
    assert np.isfinite(scores).all()


@pytest.mark.slow
def test_mutagenesis_finds_the_motif(done):
    folder, names = done
    table = pq.read_table(folder / "region.parquet")
    ratios = np.stack([table[f"llr_{base}"].to_numpy() for base in "ACGT"])
    worst = ratios.min(axis=0)
    inside = names["in_site"][195_000:195_120]
    assert evaluate("binary", inside.astype(int), -worst, ["auroc"])["auroc"] > 0.95
    assert (folder / "region.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "region.svg").read_text()


@pytest.mark.slow
def test_the_track_finds_the_motif(done):
    _, names = done
    inside = names["in_site"][190_000:]
    # Of tracks every eighth base is masked at once, and windows are not centred.
    assert evaluate("binary", inside.astype(int), -names["entropy"], ["auroc"])["auroc"] > 0.9
