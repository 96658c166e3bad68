"""The workflow on one machine: its results are those of single commands, and what was stopped alone is made again."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pysam
import pysam.bcftools
import pytest
import yaml
from typer.testing import CliRunner

from mutbert import build_genome, score_variants, simulate_population
from mutbert.cli.main import app
from mutbert.genome.vcf import read_lines

pytest.importorskip("snakemake")
WORKFLOW = Path(__file__).parents[2] / "src" / "mutbert" / "workflow"
# Programs of the environment that runs the tests.
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
RECIPE = """
base: demo
train: [chr1, chr2]
held_out: [chr3]
window_length: 62
evaluation: {windows: 16}
model: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}
training: {max_steps: 4, per_device_train_batch_size: 16, per_device_eval_batch_size: 16, learning_rate: 1e-3,
           warmup_steps: 1, eval_steps: 4, save_steps: 4}
"""
SUITE = """
version: 1
name: own
title: A word to find
metric: mcc
files: ["{task}/{split}.csv"]
splits: {train: train, validation: dev, test: test}
tasks: [{name: first, length: 36}, {name: second, length: 36}]
protocols:
  corrected:
    validation: file
    finetune: {learning_rate: 1e-3, max_steps: 2, warmup_steps: 0, batch_size: 16}
    seeds: 2
"""


def snakemake(folder, *words, **environment):
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/local", "--cores", "2", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ENVIRONMENT | environment)


def rules_of(done):
    """How often each rule ran."""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.M)}


def write_population(folder, length):
    """Write a FASTA of three chromosomes and a VCF without an index."""
    letters, lines, head = "", [], []
    for number in (1, 2, 3):
        found = simulate_population(folder / f"population-{number}", length=length, samples=100, seed=number)
        letters += Path(found["fasta"]).read_text().replace(">chr1", f">chr{number}")
        text = pysam.bcftools.view(str(found["vcf"])).replace("chr1\t", f"chr{number}\t").splitlines()
        contig = f"##contig=<ID=chr{number},length={length}>"
        head += [contig] if number > 1 else [line for line in text if line.startswith("##")]
        lines += [line for line in text if line.startswith("#C") <= (number == 1) and not line.startswith("##")]
    (folder / "ref.fa").write_text(letters)
    with pysam.BGZFile(str(folder / "population.vcf.gz"), "wb") as file:
        file.write("\n".join([*head, *lines, ""]).encode())
    return len(lines) - 1


def write_tasks(folder):
    for task in ("first", "second"):
        (folder / "data" / task).mkdir(parents=True)
        for split, rows in {"train": 24, "dev": 8, "test": 8}.items():
            text = "".join(f"{('CCCCCCC', 'GATTACA')[row % 2]}{'ACGT' * 7}{'ACGT'[row % 4]},{row % 2}\n" for row in range(rows))
            (folder / "data" / task / f"{split}.csv").write_text(f"sequence,label\n{text}")
    (folder / "own.yaml").write_text(SUITE)


@pytest.fixture
def study(tmp_path):
    """A copy of the workflow, made by the command."""
    done = CliRunner().invoke(app, ["workflow", "copy", str(tmp_path / "study")])
    assert done.exit_code == 0, done.output
    return tmp_path / "study"


def configure(folder, **parts):
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(parts))


def numbers_of(path):
    """The records without LLR and so on, and these."""
    text = pysam.bcftools.view("-H", str(path))
    found = re.findall(r"_(?:LLR|ENT)=([-\d.e,]+)", text)
    return re.sub(r"_(LLR|ENT)=[-\d.e,]+", "", text), [float(one) for words in found for one in words.split(",")]


@pytest.mark.parametrize(
    ("length", "parts", "grid"),
    [
        (40_000, 4, {"models": {"mine": "results/pretrain/model"}, "tasks": ["first"], "seeds": 1}),
        pytest.param(420_000, 8, {"models": {"mine": "results/pretrain/model"}}, marks=pytest.mark.nightly),
    ],
)
def test_from_a_population_to_scores_and_a_benchmark(study, length, parts, grid):
    records = write_population(study, length)
    write_tasks(study)
    (study / "small.yaml").write_text(RECIPE)
    fasta, vcf, contigs = "ref.fa", "population.vcf.gz", ["chr1", "chr2", "chr3"]
    configure(
        study, genome={"fasta": [fasta], "vcf": [vcf], "contigs": contigs}, pretrain={"recipe": "small.yaml"},
        score={"vcf": {"all": vcf}, "parts": parts, "windows": "shared"},
        bench={"suites": {"own.yaml": "data"}, "protocols": ["corrected"], "baselines": False} | grid,
    )  # fmt: skip
    victim, out = f"0002-of-{parts:04}", study / "results"
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/local", "--cores", "2"]
    with subprocess.Popen(command, cwd=study, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT) as first:
        # One of the jobs is killed as soon as it runs.
        killed = None
        while first.poll() is None and killed is None:
            time.sleep(0.05)
            for child in psutil.Process(first.pid).children(recursive=True):
                try:
                    words = child.cmdline()
                except psutil.Error:
                    continue
                if "--bed" in words and victim in " ".join(words) and "-c" not in words:
                    killed = words
                    child.kill()
        text = first.communicate()[0].decode()
    assert killed, text
    assert first.returncode == 1
    assert "Killed" in (out / "logs/score/all" / f"{victim}.log").read_text() + text
    assert len(list((out / "score/all").glob("*.json"))) == parts - 1
    # The benchmark went on; only what was killed is made again.
    assert (out / "bench/report.html").is_file(), text
    again = snakemake(study)
    assert again.returncode == 0, again.stderr
    assert rules_of(again) == {"all": 1, "score_part": 1, "join": 2, "total": 4}
    assert "Nothing to be done" in snakemake(study).stderr
    # The same as by single commands.
    build_genome(study / fasta, study / "one.genome", study / vcf)
    for array in (study / "one.genome").glob("*.npy"):
        assert array.read_bytes() == (out / "population.genome" / array.name).read_bytes(), array.name
    assert json.loads((out / "genome/verified.json").read_text())["agrees"]
    report = score_variants(
        out / "pretrain/model", study / "one.genome", study / vcf, study / "one.vcf.gz", windows="shared"
    )
    (text, numbers), (own_text, own_numbers) = map(numbers_of, (out / "score/all.vcf.gz", study / "one.vcf.gz"))
    assert text == own_text
    assert numbers == pytest.approx(own_numbers, abs=1e-5)
    joined = json.loads((out / "score/all.json").read_text())
    assert (joined["records"], joined["scored"], joined["missing"]) == (records, report.scored, report.missing)
    assert Path(study, joined["index"]).is_file()
    assert sum(path.stat().st_size > 0 for path in (out / "bench/own").glob("*/*/corrected-*.json")) == (
        1 if "seeds" in grid else 4
    )
