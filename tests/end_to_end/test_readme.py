"""The README and the tour, which has every command once, work as written: their Python and their commands."""

import gzip
import itertools
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

# Of the recipe and the suite as little as shows that they run: one contig, one task, two steps.
FEW = {
    "pretrain": [
        "train=chr1:1-100000", "held_out=chr1:100001-200000", "training.max_steps=2", "evaluation.windows=4",
        "training.per_device_train_batch_size=8",
    ],
    "finetune": ["finetune.max_steps=2"],
    "bench run": ["--task", "0", "--seeds", "1", "--protocol", "corrected", "--set", "finetune.max_steps=2"],
}  # fmt: skip
MADE = """
human.genome/manifest.json consensus.fa.gz population/ref.fa runs/small/model runs/small/report.html
converted/config.json to-share/README.md scored.vcf.gz.tbi region.png entropy.bw regions.parquet sequences.safetensors
page.html runs/mine/metrics.json predictions.tsv results/tfbs/0/mine-full/corrected-1.json results/report.html
"""


def test_the_python_of_the_readme_runs(demo, read_page, run_samples, monkeypatch):
    monkeypatch.chdir(demo.parent)
    found, _ = run_samples(read_page("README.md"), ["python"])
    assert (found["frequencies"].shape, found["vectors"].shape) == ((510, 4), (2, found["model"].config.hidden_size))
    assert found["logits"].shape == (1, 10, 9)
    assert np.isfinite(found["scores"]["LLR"].to_list()).all()


def test_the_python_of_the_tour_runs(demo, read_page, run_samples, monkeypatch):
    monkeypatch.chdir(demo.parent)
    found, _ = run_samples(read_page("docs/tour.md"), ["python"])
    assert found["ids"].tolist() == [[1, 5, 6, 7, 8, 8, 7, 6, 5, 5, 6, 7, 8, 0, 2]]
    assert found["embedding_mean"].shape == found["embedding_max"].shape == (1, found["model"].config.hidden_size)
    assert found["longer"].config.rope_scaling == {"type": "dynamic", "factor": 4.0}


@pytest.fixture
def folder(demo, tmp_path, monkeypatch):
    """A folder of the files that the commands read."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo / "population" / "ref.fa", "hg38.fa.gz")
    shutil.copy(demo / "population" / "population.vcf.gz", "panel.vcf.gz")
    with gzip.open("panel.vcf.gz", "rt") as panel, gzip.open("variants.vcf.gz", "wt") as some:
        some.writelines(itertools.islice(panel, 100))
    (tmp_path / "regions.bed").write_text("chr1\t10\t60\tone\n1\t100\t160\n")
    (tmp_path / "sequences.fa").write_text(">a\nACGTN\n>b\nacgt\n")
    (tmp_path / "GUE" / "0").mkdir(parents=True)
    rng = random.Random(0)
    for name in ("train.csv", "test.csv", "GUE/0/train.csv", "GUE/0/dev.csv", "GUE/0/test.csv"):
        rows = ["".join(rng.choices("ACGT", k=30)) + f",{number % 2}" for number in range(40)]
        (tmp_path / name).write_text("\n".join(["sequence,label", *rows]) + "\n")
    return tmp_path


def change(words):
    return words + FEW.get(words[0], FEW.get(" ".join(words[:2]), []))


def test_the_commands_run(folder, read_page, run_samples):
    _, commands = run_samples(read_page("docs/tour.md"), ["bash"], change)
    assert len({words[0] for words in commands}) == 14
    for name in MADE.split():
        assert (folder / name).exists(), name


@pytest.mark.nightly
def test_the_commands_of_the_readme_run(folder, model_folders, peer_folders, read_page, run_samples):
    # A folder with a model's name takes precedence over the Hub's repository.
    shutil.copytree(model_folders["mutbert"], "mutbert")
    shutil.copytree(peer_folders["dnabert2"], "dnabert2")
    with gzip.open("variants.vcf.gz", "rt") as some:
        rows = [line.split("\t") for line in some if not line.startswith("#")]
    table = [[row[0], row[1], row[3], row[4], str(at % 2)] for at, row in enumerate(rows)]
    text = "\n".join("\t".join(row) for row in [["chrom", "pos", "ref", "alt", "label"], *table])
    Path("labelled.tsv").write_text(text)
    _, commands = run_samples(read_page("README.md"), ["bash"], change)
    assert [words[0] for words in commands] == ["genome", "score", "genome", "pretrain", "score", "bench", "bench"]
    for name in ("scored.vcf.gz", "own.vcf.gz", "vep/report.html", "results/tfbs/0/dnabert2-full/corrected-1.json"):
        assert (folder / name).exists(), name


def test_the_readme_is_short_and_its_links_lead_to_files(read_page):
    text = read_page("README.md")
    assert len(text.splitlines()) <= 110
    for link in re.findall(r"\]\((?!https:)([^)#]+)", text):
        assert (Path(__file__).parents[2] / link).is_file(), link
