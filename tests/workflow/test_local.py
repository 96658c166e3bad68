"""The workflow on one machine: the results of single commands, and of what was stopped that alone is made again."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pysam
import pysam.bcftools
import pytest
import yaml
from typer.testing import CliRunner

from mutbert import build_genome, score_variants, simulate_population, write_tracks
from mutbert.cli.main import app
from mutbert.genome.vcf import read_lines

pytest.importorskip("snakemake")
SCRIPTS = Path(__file__).parents[2] / "src" / "mutbert" / "workflow" / "scripts"
# Programs of the environment that runs the tests.
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--profile", "profiles/local", "--cores", "2"]
MODEL = "results/pretrain/model"
CONTIGS = ["chr1", "chr2", "chr3"]
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
files: ["{split}.csv"]
splits: {train: train, validation: dev, test: test}
tasks: [{name: first, length: 36}, {name: second, length: 36}]
protocols:
  corrected:
    validation: file
    finetune: {learning_rate: 1e-3, max_steps: 2, warmup_steps: 0, batch_size: 16}
    seeds: 2
"""
MORE = {
    "tracks": {"tracks": ["entropy", "best_alternate_llr"], "bed": "regions.bed", "parts": 3},
    "embed": {"bed": "regions.bed", "parts": 2},
    "vep": {"sites": {"variants": "labels.tsv", "models": {"mine": MODEL}, "options": "--label label"}},
}  # fmt: skip


@pytest.fixture
def study(tmp_path):
    """A copy of the workflow, with a FASTA of three contigs, a VCF without an index, and sequences with labels."""
    folder = tmp_path / "study"
    done = CliRunner().invoke(app, ["workflow", "copy", str(folder)])
    assert done.exit_code == 0, done.output
    rows = [f"{('CCCCCCC', 'GATTACA')[row % 2]}{'ACGT' * 7}{'ACGT'[row % 4]},{row % 2}\n" for row in range(24)]
    for split in ("train", "dev", "test"):
        (folder / f"{split}.csv").write_text("sequence,label\n" + "".join(rows))
    for name, text in {"own": SUITE, "small": RECIPE}.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def simulate(folder, length):
    """Write a population of three contigs; return the lines of its records."""
    letters, lines, head = "", [], []
    for number, contig in enumerate(CONTIGS, start=1):
        found = simulate_population(folder / contig, length=length, samples=100, seed=number)
        letters += Path(found["fasta"]).read_text().replace(">chr1", f">{contig}")
        head, _, text = pysam.bcftools.view(str(found["vcf"])).partition("#CHROM")
        names, *own = text.replace("chr1\t", f"{contig}\t").splitlines()
        lines += own
    declared = "".join(f"##contig=<ID={contig},length={length}>\n" for contig in CONTIGS)
    (folder / "ref.fa").write_text(letters)
    with pysam.BGZFile(str(folder / "sites.vcf.gz"), "wb") as file:
        text = re.sub("##contig.*\n", declared, head)
        file.write("\n".join([f"{text}#CHROM{names}", *lines, ""]).encode())
    return lines


def configure(folder, **parts):
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(parts))


def run(folder, *words):
    return subprocess.run(
        [*SNAKEMAKE, *words], cwd=folder, capture_output=True, text=True, env=ENVIRONMENT, check=False
    )


def kill(parent, word):
    """Kill the program that has a word on its command line, as soon as it runs; return whether there was one."""
    while parent.poll() is None:
        for child in psutil.Process(parent.pid).children(recursive=True):
            with suppress(psutil.Error):
                if "--bed" in (words := child.cmdline()) and any(word in one for one in words):
                    child.kill()
                    return True
        time.sleep(0.05)
    return False


def scores_of(path):
    """Return records without their scores, and the scores."""
    text, pattern = pysam.bcftools.view("-H", str(path)), r"(?<=_LLR=|_ENT=)[^;\s]+"
    return re.sub(pattern, "", text), [float(one) for words in re.findall(pattern, text) for one in words.split(",")]


@pytest.mark.parametrize("more", [{}, pytest.param(MORE, marks=pytest.mark.nightly)], ids=["few", "everything"])
def test_results_are_those_of_single_commands_although_a_job_was_killed(study, more):
    lines = simulate(study, 420_000)
    out, vcf = study / "results", study / "sites.vcf.gz"
    # Of few jobs, and at night of many.
    models, seeds, parts = ({"mine": MODEL, "again": MODEL}, 2, 8) if more else ({"mine": MODEL}, 1, 4)
    (study / "own.yaml").write_text(SUITE.replace("seeds: 2", f"seeds: {seeds}"))
    (study / "regions.bed").write_text("chr1\t1000\t1060\nchr3\t500\t562\nchr2\t0\t50\n")
    labels = [(*line.split("\t")[:2], *line.split("\t")[3:5], str(row % 2)) for row, line in enumerate(lines[:200])]
    (study / "labels.tsv").write_text("\n".join(map("\t".join, [("chrom", "pos", "ref", "alt", "label"), *labels])))
    grid = {"suites": {"own.yaml": "."}, "protocols": ["corrected"], "models": models}
    configure(study, **more | {
        "genome": {"fasta": ["ref.fa"], "vcf": ["sites.vcf.gz"], "contigs": CONTIGS},
        "pretrain": {"recipe": "small.yaml"},
        "score": {"vcf": {"sites": "sites.vcf.gz"}, "parts": parts, "windows": "shared"},
        "bench": {**grid, "baselines": False},
    })  # fmt: skip
    with subprocess.Popen(SNAKEMAKE, cwd=study, stdout=-1, stderr=-2, text=True, env=ENVIRONMENT) as first:
        killed = kill(first, f"0002-of-{parts:04}")
        printed = first.communicate()[0]
    assert killed, printed
    assert first.returncode == 1
    assert "Killed" in (out / "logs/score/sites" / f"0002-of-{parts:04}.log").read_text()
    # The others went on.
    assert len(list((out / "score/sites").glob("*.json"))) == parts - 1
    assert (out / "bench/report.html").is_file(), printed
    assert len(list((out / "bench/own").glob("*/*/corrected-*.json"))) == len(models) * 2 * seeds
    again = run(study)
    assert again.returncode == 0, again.stderr
    counts = dict(re.findall(r"^(\w+) +(\d+)$", again.stdout + again.stderr, re.MULTILINE))
    assert counts == {"all": "1", "score_part": "1", "join": "2", "total": "4"}
    # What single commands make.
    build_genome(study / "ref.fa", study / "one.genome", vcf)
    for array in (study / "one.genome").glob("*.npy"):
        assert array.read_bytes() == (out / "population.genome" / array.name).read_bytes(), array.name
    assert json.loads((out / "genome/verified.json").read_text())["agrees"]
    model = out / "pretrain/model"
    report = score_variants(model, study / "one.genome", vcf, study / "one.vcf.gz", windows="shared")
    (text, scores), (own, expected) = map(scores_of, (out / "score/sites.vcf.gz", study / "one.vcf.gz"))
    assert text == own
    assert scores == pytest.approx(expected, abs=1e-5)
    joined = json.loads((out / "score/sites.json").read_text())
    assert (joined["records"], joined["scored"], joined["missing"]) == (len(lines), report.scored, report.missing)
    assert Path(study, joined["index"]).is_file()
    if more:
        write_tracks(model, study / "one.genome", study / "one.bedgraph.gz", bed=study / "regions.bed")
        whole, joined = study / "one.bedgraph.gz", out / "tracks.entropy.bedgraph.gz"
        assert pysam.BGZFile(str(joined)).read() == pysam.BGZFile(str(whole)).read()
        assert all((out / name).is_file() for name in ("embed.parquet", "vep/sites/report.html"))


def test_a_wrong_chromosome_ends_its_job_alone_and_a_wrong_value_all(study):
    simulate(study, 2000)
    configure(study, genome={"fasta": ["ref.fa"], "vcf": ["sites.vcf.gz"], "contigs": ["chr1", "chr9"]})
    assert run(study, "genome").returncode == 1
    assert "no contig chr9" in (study / "results/logs/build-chr9.log").read_text().splitlines()[-1]
    assert (study / "results/genome/chr1.genome").is_dir()
    linted = run(study, "--lint")
    assert linted.returncode == 0, linted.stderr
    configure(study, score={"vcf": {"sites": "sites.vcf.gz"}, "parts": 0})
    wrong = run(study)
    assert wrong.returncode == 1
    assert "config/config.yaml, config['score']['parts']: 0 is less than the minimum of 1" in wrong.stderr


@pytest.mark.parametrize("declared", ["##contig=<ID=b>\n##contig=<ID=a,length=900>\n", ""])
def test_regions_have_every_record_once_and_in_order(tmp_path, write_genome, declared):
    genome = write_genome(tmp_path / "x.genome", {"a": "ACGT" * 250, "b": "ACGT" * 50})
    # Records at one position, a long deletion, some past the end that is declared, and a contig that is in no genome.
    places = [("a", row // 2 * 6 + 1) for row in range(310)] + [("b", 5), ("b", 5), ("b", 150), ("c", 7), ("c", 9)]
    lengths = [(*place, 1 + 9 * (row == 50)) for row, place in enumerate(places)]
    rows = [f"{contig}\t{place}\t.\t{'ACGT' * length}\tA\t.\t.\t." for contig, place, length in lengths]
    with pysam.BGZFile(str(vcf := tmp_path / "x.vcf.gz"), "wb") as file:
        head = f"##fileformat=VCFv4.2\n{declared}#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
        file.write("\n".join([head, *rows, ""]).encode())
    command = [sys.executable, SCRIPTS / "cut.py", "records", "7", "40", vcf, genome, tmp_path / "regions"]
    subprocess.run(command, check=True)
    beds, found = sorted((tmp_path / "regions").glob("*.bed")), []
    for bed in beds:
        head, *lines = bed.read_text().splitlines()
        # As for `mutbert score`, the end that is declared is that of the last record.
        ends = [
            (*line.split()[:2], None if declared and line.endswith("\t900") else int(line.split()[2])) for line in lines
        ]
        regions = [(contig, int(start), end) for contig, start, end in ends]
        own = b"".join(read_lines(vcf, region=regions)).decode().splitlines()
        assert head == f"# {len(own)} records"
        found += own
    assert found == rows
    assert len(beds) == 7


def test_gpus_are_handed_out(tmp_path):
    settings = os.environ | {"CUDA_VISIBLE_DEVICES": "3,5", "TMPDIR": str(tmp_path), "SLURM_JOB_ID": ""}

    def start(count):
        command = ["bash", SCRIPTS / "on_gpu.sh", str(count), "bash", "-c", "echo $CUDA_VISIBLE_DEVICES; read"]
        return subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=settings)

    def wait_for(job):
        return job.stdout.readline().strip()

    first, second = start(1), start(1)
    own = [wait_for(first), wait_for(second)]
    assert sorted(own) == ["3", "5"]
    # The third waits for the first.
    third = start(1)
    first.communicate("\n")
    assert wait_for(third) == own[0]
    both = start(2)
    for job in (second, third):
        job.communicate("\n")
    assert sorted(wait_for(both).split(",")) == ["3", "5"]
    both.communicate("\n")
