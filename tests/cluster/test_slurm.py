"""On a real SLURM of one node: the workflow, training under `srun torchrun`, and jobs that are stopped or killed."""

import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

pytestmark = pytest.mark.nightly
RECIPE = """\
genome: results/population.genome
train: ["chr1:1-40000"]
held_out: ["chr1:40001-60000"]
window_length: 30
windows_a_step: 8
evaluation: {windows: 24}
model: {hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32,
        hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}
training: {max_steps: 600, learning_rate: 1e-3, eval_steps: 300, save_steps: 300, per_device_train_batch_size: 8}
"""
TORCHRUN = (
    f"srun --overlap --ntasks 2 --cpus-per-task 1 {sys.executable} -m torch.distributed.run --nnodes 2"
    " --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint localhost:29517 --rdzv-id $SLURM_JOB_ID -m mutbert"
)
CONFIG = {
    "results": "results",
    "genome": {"fasta": ["population/ref.fa"], "vcf": ["population/population.vcf.gz"]},
    "pretrain": {"recipe": "recipe.yaml", "processes": 2, "launcher": TORCHRUN, "settings": ["training.max_steps=20"]},
    "score": {"vcf": {"population": "population/population.vcf.gz"}, "parts": 2, "format": "parquet"},
    "embed": {"bed": "regions.bed", "parts": 1},
}
QUICK = """
--profile profiles/slurm --slurm-status-command squeue --slurm-no-account --latency-wait 5 --retries 0
--slurm-init-seconds-before-status-checks 1 --seconds-between-status-checks 2 --quiet progress
--default-resources slurm_partition=debug mem_mb=1000 runtime=10 --set-resources pretrain_model:mem_mb=2000
score_part:mem_mb=2000
"""
# A job that is killed, and one that takes longer than it may.
STUCK = "case $* in score*/0001*) kill -9 $$;; embed*) sleep 600;; esac\n"


def run(*words, **settings):
    done = subprocess.run([*map(str, words)], check=False, capture_output=True, text=True, **settings)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A SLURM, for as long as its standard input is open."""
    words = [Path(__file__).with_name("slurm.sh"), tmp_path_factory.mktemp("slurm"), "sh", "-c", "echo up; cat"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        if process.stdout.readline() != "up\n":
            _, reason = process.communicate()
            assert process.returncode == 77, reason
            pytest.skip(reason.strip().rpartition("\n")[2])
        yield
        process.communicate()


@pytest.fixture
def work(read_page, run_samples, tmp_path, monkeypatch):
    """A copy of the workflow with a population, a recipe, and `mutbert` on the path."""
    monkeypatch.chdir(tmp_path)
    few = {"simulate": ["--length", "60000", "--samples", "20"]}
    run_samples(read_page("docs/cluster.md"), ["bash"], lambda words: words + few.get(words[0], []))
    monkeypatch.chdir(tmp_path / "human")
    Path("recipe.yaml").write_text(RECIPE)
    Path("regions.bed").write_text("chr1\t10\t40\nchr1\t100\t125\n")
    Path("config/config.yaml").write_text(json.dumps(CONFIG))
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(sys.executable).parent}", prepend=":")
    write_program("")
    return Path.cwd()


def write_program(first):
    path = Path("../mutbert")
    path.write_text(f'#!/bin/bash\n{first}exec {sys.executable} -m mutbert "$@"\n')
    path.chmod(0o755)


def jobs():
    """Return the state and the rule, with its wildcards, of each of SLURM's jobs."""
    found = run("scontrol", "show", "job", "--oneliner")
    return re.findall(r" JobState=(\w+).* Comment=(\S+)", found)


def losses(folder):
    return [entry["loss"] for entry in json.loads(Path(folder, "history.json").read_text()) if "loss" in entry]


def test_what_was_killed_and_what_ran_out_of_time_is_redone_alone(slurm, work):
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed")
    snakemake = [sys.executable, "-m", "snakemake", *QUICK.split()]
    write_program(STUCK)
    done = subprocess.run([*snakemake, "embed_part:runtime=1"], check=False, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    stopped = {
        "rule_score_part_wildcards_score_population_0001-of-0002": "FAILED",
        "rule_embed_part_wildcards_embed_0001-of-0001": "TIMEOUT",
    }
    first = jobs()
    assert {rule: state for state, rule in first if state != "COMPLETED"} == stopped
    write_program("")
    run(*snakemake)
    second = jobs()[len(first) :]
    assert {state for state, _ in second} == {"COMPLETED"}
    assert {rule for _, rule in second if not rule.startswith("rule_join")} == stopped.keys()
    # The same as by single commands: training by one process, and a file in one go.
    words = ["--model", "results/pretrain/model", "--genome", "results/population.genome"]
    run("mutbert", "pretrain", "recipe.yaml", "output=alone", "training.max_steps=20")
    assert losses("results/pretrain") == pytest.approx(losses("alone"), abs=1e-5)
    run("mutbert", "score", *words, "--vcf", "population/population.vcf.gz", "-o", "scores.parquet")
    run("mutbert", "embed", *words, "--bed", "regions.bed", "-o", "embed.parquet")
    for one, other in (("scores", "score/population"), ("embed", "embed")):
        pair = (pl.read_parquet(path) for path in (f"{one}.parquet", f"results/{other}.parquet"))
        assert_frame_equal(*pair, abs_tol=1e-5)


def test_a_training_that_is_requeued_goes_on(slurm, work):
    sources = "--fasta population/ref.fa --vcf population/population.vcf.gz -o results/population.genome"
    Path("results").mkdir()
    run("mutbert", "genome", "build", *sources.split())
    command = f"{TORCHRUN} pretrain recipe.yaml output=parts --resume"
    words = ["--parsable", "--requeue", "--ntasks=2", "--output=job.log", "--open-mode=append"]
    job = run("sbatch", *words, f"--wrap={command}").strip()
    while not Path("parts/history.json").exists():
        time.sleep(0.1)
        assert "JobState=FAILED" not in run("scontrol", "show", "job", job), Path("job.log").read_text()
    run("scontrol", "requeue", job)
    while "JobState=COMPLETED" not in (state := run("scontrol", "show", "job", job)):
        time.sleep(1)
        assert "JobState=FAILED" not in state, Path("job.log").read_text()
    step = re.search("mutbert: stopped; --resume goes on from step ([0-9]+)", Path("job.log").read_text())
    assert 0 < int(step[1]) < 600
    # Once more, of a run that is finished.
    run("srun", "--ntasks=1", "mutbert", "pretrain", "recipe.yaml", "output=parts", "--resume")
    run("mutbert", "pretrain", "recipe.yaml", "output=alone")
    assert losses("parts") == pytest.approx(losses("alone"), abs=1e-5)
