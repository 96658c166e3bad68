"""What the command line takes beside files: standard input and output, alleles, a device; one name for one thing."""

import gzip
import io
import json
import os
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from mutbert import MutBertForSequenceClassification, build_genome
from mutbert.cli.main import app
from mutbert.encoders.known import MODELS

INPUTS = Path(__file__).resolve().parents[1] / "golden" / "inputs"
SCORE = "score --model model --genome small.genome --context 20"
STREAMED = [
    ("table.csv", "predict {} --model classifier -o {}", "out.tsv"),
    ("sequences.fa", "predict {} --model classifier -o {}", "out.tsv"),
    ("sequences.fa", "embed --input {} --model model -o {}", None),
    ("table.csv", "embed --input {} --model model -o {}", None),
    ("regions.bed", "embed --bed {} --genome small.genome --model model -o {}", None),
    ("asked.vcf.gz", SCORE + " --vcf {} -o {}", "out.vcf"),
    (None, "genome export small.genome -o {1} --as consensus --region chr1:1-100", "out.fa"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of the golden cases' inputs, a genome and a classifier."""
    folder = tmp_path_factory.mktemp("streams")
    shutil.copytree(INPUTS, folder, dirs_exist_ok=True)
    build_genome(folder / "small.fa", folder / "small.genome", folder / "small.vcf")
    MutBertForSequenceClassification.from_pretrained(folder / "model", num_labels=2).save_pretrained(
        folder / "classifier"
    )
    (folder / "asked.vcf.gz").write_bytes(gzip.compress((folder / "asked.vcf").read_bytes()))
    return folder


@pytest.fixture
def here(made, mutbert_here, monkeypatch):
    """Run the program in that folder, with a file as standard input; what it changes of the process is undone."""
    monkeypatch.chdir(made)
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "POLARS_MAX_THREADS"):
        monkeypatch.setenv(name, "1")

    def run(command, stdin=b"", status=0):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        return mutbert_here(*command.split(), status=status)

    return run


def test_every_verb_has_a_short_option_for_help(verbs):
    for words in verbs:
        done = CliRunner().invoke(app, [*words, "-h"])
        assert (done.exit_code, "Usage" in done.output) == (0, True), words


@pytest.mark.parametrize(("source", "command", "output"), STREAMED)
def test_standard_input_and_output_are_those_of_files(here, made, source, command, output, tmp_path):
    whole = tmp_path / (output or "out.parquet")
    here(command.format(source, whole))
    data = (made / source).read_bytes() if source else b""
    if output is None:
        here(command.format("-", tmp_path / "again.parquet"), data)
        assert pl.read_parquet(tmp_path / "again.parquet").equals(pl.read_parquet(whole))
        return
    printed = here(command.format("-", "-"), data)

    def body(text):
        return [line for line in text.splitlines() if not line.startswith("##mutbert_score")]

    assert body(printed.stdout) == body(whole.read_text())
    assert "mutbert-" not in printed.stderr


def test_a_genome_is_built_of_standard_input(here, made, tmp_path):
    here(f"genome build --fasta small.fa --vcf - -o {tmp_path / 'x.genome'}", (made / "small.vcf").read_bytes())
    here(f"genome verify {tmp_path / 'x.genome'} --fasta - --vcf small.vcf", (made / "small.fa").read_bytes())


@pytest.mark.parametrize(
    ("command", "stdin", "said"),
    [
        ("predict - --model classifier -o x.tsv", "", "standard input.csv: is empty"),
        ("predict - --model classifier -o -", "sequence\nACGT\nACXT\n", "standard input.csv, line 3"),
        ("predict - --model classifier -o x.tsv", ">a\nAC!T\n", "standard input.fa, record 1"),
        ("embed --fasta - --bed - --model model -o x.parquet", "", "one file each"),
        ("genome export small.genome -o -", "", "give --as with one of"),
        (f"{SCORE} --vcf - -o -", "##fileformat=VCFv4.2\nchr1\n", "standard input.vcf: "),
        (f"{SCORE} -o x.vcf", "", "--variant"),
        (f"{SCORE} --vcf asked.vcf", "", "--output"),
        (f"{SCORE} --variant chr1:5:A", "", "chr1:5:A: must be"),
        (f"{SCORE} --variant chr77:5:A:C", "", "--variant: its contigs (chr77)"),
        (f"{SCORE} --vcf asked.vcf --region chr1 --bed regions.bed -o x.vcf", "", "regions.bed: regions are named"),
        ("predict table.csv --model classifier -o x.tsv --device gpu", "", "--device gpu: must be cpu"),
        ("predict table.csv --model classifier -o x.tsv --threads 0", "", "--threads 0"),
    ],
)
def test_a_mistake_names_what_the_user_wrote(here, made, command, stdin, said):
    before = sorted(made.rglob("*"))
    done = here(command, stdin.encode(), status=2)
    *_, line = done.stderr.splitlines()
    assert said in line
    assert (done.stdout, sorted(made.rglob("*"))) == ("", before)


def test_alleles_of_the_command_have_the_scores_of_a_file(here, made, tmp_path):
    here(f"{SCORE} --vcf asked.vcf -o {tmp_path / 'all.parquet'}")
    rows = pl.read_parquet(tmp_path / "all.parquet").drop("id").filter(pl.col("alt").str.contains("^[ACGT]+$"))
    rows = rows.unique(["chrom", "pos", "ref", "alt"], maintain_order=True)[:12]
    words = [f"--variant {chrom}:{pos}:{ref}:{alt}" for chrom, pos, ref, alt in rows[:, :4].iter_rows()]
    done = here(" ".join([SCORE, *words, "--json"]))
    found = pl.DataFrame(json.loads(done.stdout)["variants"], schema=rows.schema)
    assert found.equals(rows)
    shown = here(" ".join([SCORE, words[0]])).stdout.splitlines()
    assert shown[0].split()[:6] == ["chrom", "pos", "ref", "alt", "kind", "LLR"]
    assert shown[1].split()[:4] == words[0].split()[1].split(":")


def test_the_device_is_named_once_and_can_be_chosen(here, tmp_path):
    command = f"embed --fasta sequences.fa --model model --force -o {tmp_path / 'x.parquet'}"
    said = here(f"{command} --device cpu --threads 1").stderr.splitlines()
    assert [line for line in said if "runs on" in line] == ["mutbert: runs on cpu (threads: 1)"]
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]) == ("", "1")


def test_a_gpu_is_one_of_those_that_are_visible(here, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    done = here("embed --fasta sequences.fa --model model -o x.parquet --device cuda:1", status=2)
    assert (os.environ["CUDA_VISIBLE_DEVICES"], "--device cuda:1: " in done.stderr) == ("6", True)


def test_one_thing_has_one_name_and_one_default(verbs):
    shared = defaultdict(set)
    for command in verbs.values():
        for option in getattr(command, "params", []):
            shared[option.opts[0]].add(str(option.default))
    assert "--sequence" not in shared
    for name in ("batch-size", "bed", "context", "contigs", "device", "fasta", "model", "precision", "sequence-column"):
        assert len(shared[f"--{name}"] - {"None", "[]", "Sentinel.UNSET"}) <= 1, (name, shared[f"--{name}"])


def test_the_readme_has_every_published_model(read_page):
    table = read_page("README.md", "## Published models")
    for model in MODELS:
        assert f"--model {model.name}`" in table
        assert model.family != "mutbert" or f'from_pretrained("{model.place}")' in table
