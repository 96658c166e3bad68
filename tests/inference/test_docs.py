"""The samples of the pages run, from the first to the last."""

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
def folder(build, model_folders, tmp_path, monkeypatch, peer_folders, write_genome):
    """What the samples of a page find there; a folder of a model's name comes before the Hub's repository."""

    def folder(page):
        contig = "chr1"
        if page in ("model.md", "embeddings.md"):
            build(MutBertModel, max_position_embeddings=512).save_pretrained(tmp_path / "model")
        else:
            contig = "chr22"
            (tmp_path / "model").symlink_to(model_folders["mutbert"])
        for name in ("dnabert2", "ntv2-50m"):
            shutil.copytree(peer_folders[name], tmp_path / name)
        (tmp_path / "sequences.fa").write_text(">one\nACGTN\n>two\nacgtr\n")
        (tmp_path / "designed.fa").write_text(">mine\nGATTACAGATTACA\n")
        (tmp_path / "long.fa").write_text(">long\n" + "ACGT" * 200 + "\n")
        (tmp_path / "regions.bed").write_text(f"{contig}\t0\t20\tgene\n{contig}\t30\t40\n")
        write_genome(tmp_path / "population.genome", {contig: "ACGTTGCAAT" * 40})
        monkeypatch.chdir(tmp_path)

    return folder


@pytest.mark.slow
# peft and torch's exporter use what transformers and torch have deprecated.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("page", ["model.md", "embeddings.md", "mutagenesis.md", "tracks.md"])
def test_samples_run(folder, page):
    folder(page)
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
