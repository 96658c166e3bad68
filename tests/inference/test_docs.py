"""The samples of the pages about models and embeddings run, from the first to the last."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mutbert.cli.main import app
from mutbert.model import MutBertModel

DOCS = Path(__file__).resolve().parents[2] / "docs"
SAMPLE = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(build, tmp_path, monkeypatch, peer_folders, write_genome):
    build(MutBertModel, max_position_embeddings=512).save_pretrained(tmp_path / "model")
    for name in ("dnabert2", "ntv2-50m"):
        # A folder of that name comes before the Hub's repository.
        shutil.copytree(peer_folders[name], tmp_path / name)
    (tmp_path / "sequences.fa").write_text(">one\nACGTN\n>two\nacgtr\n")
    (tmp_path / "long.fa").write_text(">long\n" + "ACGT" * 200 + "\n")
    (tmp_path / "regions.bed").write_text("chr1\t0\t20\tgene\nchr1\t30\t40\n")
    write_genome(tmp_path / "population.genome", {"chr1": "ACGT" * 20})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
# peft and torch's exporter use what transformers and torch have deprecated.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("page", ["model.md", "embeddings.md"])
def test_samples_run(folder, page):
    samples = SAMPLE.findall((DOCS / page).read_text(encoding="utf-8"))
    assert samples
    namespace = {}
    for language, sample in samples:
        if language == "python":
            exec(compile(sample, page, "exec"), namespace)
        else:
            program, *words = shlex.split(sample)
            assert program == "mutbert"
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output
