"""The README works as written: its Python runs, its commands run."""

import gzip
import itertools
import random
import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_quick_start_runs(demo, monkeypatch):
    monkeypatch.chdir(demo.parent)
    namespace = {}
    samples = blocks("python")
    assert len(samples) == 2
    for sample in samples:
        exec(compile(sample, "README.md", "exec"), namespace)
    size = namespace["model"].config.hidden_size
    assert namespace["ids"].tolist() == [[1, 5, 6, 7, 8, 8, 7, 6, 5, 5, 6, 7, 8, 0, 2]]
    assert namespace["probabilities"].shape == (1, 16, 9)
    assert namespace["embedding_mean"].shape == namespace["embedding_max"].shape == (1, size)
    assert namespace["longer"].config.rope_scaling == {"type": "dynamic", "factor": 4.0}
    assert namespace["genome"].frequencies("1", 1000, 1510).shape == (510, 4)


@pytest.mark.slow
def test_the_commands_run(demo, mutbert, tmp_path):
    shutil.copy(demo / "population" / "ref.fa", tmp_path / "hg38.fa.gz")
    shutil.copy(demo / "population" / "population.vcf.gz", tmp_path / "panel.vcf.gz")
    with gzip.open(tmp_path / "panel.vcf.gz", "rt") as panel, gzip.open(tmp_path / "variants.vcf.gz", "wt") as some:
        some.writelines(itertools.islice(panel, 100))
    (tmp_path / "regions.bed").write_text("chr1\t10\t60\tone\n1\t100\t160\n")
    (tmp_path / "sequences.fa").write_text(">a\nACGTN\n>b\nacgt\n")
    (tmp_path / "GUE" / "0").mkdir(parents=True)
    rng = random.Random(0)
    for name in ("train.csv", "test.csv", "GUE/0/train.csv", "GUE/0/dev.csv", "GUE/0/test.csv"):
        rows = ["".join(rng.choices("ACGT", k=30)) + f",{number % 2}" for number in range(40)]
        (tmp_path / name).write_text("\n".join(["sequence,label", *rows]) + "\n")
    (commands,) = blocks("bash")
    verbs = []
    for line in commands.splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "mutbert"
        verbs.append(words[0])
        if words[0] == "pretrain":
            # One contig is all that there is here, and two steps are enough to see that it runs.
            words = [word for word in words if not word.startswith(("train=", "held_out="))]
            words += [
                "train=chr1:1-100000",
                "held_out=chr1:100001-200000",
                "training.max_steps=2",
                "evaluation.windows=4",
            ]
        elif words[0] == "finetune":
            words.append("finetune.max_steps=2")
        elif words[:2] == ["bench", "run"]:
            # One task of five, of one seed.
            words += ["--task", "0", "--seeds", "1", "--protocol", "corrected", "--set", "finetune.max_steps=2"]
        mutbert(*words, cwd=tmp_path)
    assert set(verbs) == {
        "genome", "pretrain", "finetune", "predict", "bench", "embed", "simulate", "convert", "export", "score",
        "mutagenesis", "tracks",
    }  # fmt: skip
    for name in (
        "human.genome",
        "runs/small/model",
        "converted/config.json",
        "to-share/README.md",
        "regions.parquet",
        "sequences.safetensors",
        "population/ref.fa",
        "predictions.tsv",
        "scored.vcf.gz.tbi",
        "region.png",
        "entropy.bw",
        "results/shards/1-of-1/cells.jsonl",
    ):
        assert (tmp_path / name).exists(), name


def test_make_knows_the_commands_of_the_readme():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
