"""Every command that writes, on inputs so small that it is done in a moment."""

import multiprocessing
import multiprocessing.forkserver
import re
import shlex
import shutil
from pathlib import Path

import pytest

from mutbert import MutBertForSequenceClassification, build_genome

INPUTS = Path(__file__).resolve().parents[1] / "golden" / "inputs"
OURS = "cli.main", "demo", "effects.score", "evaluation", "export", "genome.export", "inference", "training.finetune"
LIBRARIES = "matplotlib.pyplot", "peft", "pyBigWig", "pyarrow.parquet", "sklearn.linear_model", "transformers"
COMMAND = """
import os, sys
os.setsid()
os.chdir(folder)
os.environ.update(environment)
for stream in ("out", "err"):
    os.dup2(os.open(log + stream, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), 1 + (stream == "err"))
exec(before)
sys.argv = ["mutbert", *words]
from mutbert.cli.main import run
run()
"""
WINDOWS = "--model model --genome small.genome --context 20"
TRAIN = "model=model train=table.csv test=table.csv finetune.max_steps=2"
GRID = "--suite own.yaml --data tasks --model tiny=model --task first --protocol published --no-baselines --seeds 1"
LABELS = "--variants vep_binary.csv --label label --positive bad,worse --exclude unclear --resamples 9"
# By name: a command, {} for its output, and the output's suffix. Each is run in the folder of inputs.
WRITES = {
    "simulate": ("simulate --length 1000 --samples 2 -o {}", ""),
    "build": ("genome build --fasta small.fa --vcf small.vcf -o {}", ".genome"),
    "merge": ("genome merge first.genome second.genome -o {}", ".genome"),
    "fasta": ("genome export small.genome --as reference -o {}", ".fa"),
    "packed fasta": ("genome export small.genome --as consensus -o {}", ".fa.gz"),
    "variants": ("genome export small.genome -o {}", ".parquet"),
    "spectra": ("genome inspect small.genome --plot {}", ".svg"),
    "scores": (f"score {WINDOWS} --vcf asked.vcf -o {{}}", ".vcf.gz"),
    "table of scores": (f"score {WINDOWS} --vcf asked.vcf -o {{}}", ".parquet"),
    "every SNV": (f"score {WINDOWS} --all-snvs --region chr1:1-60 --part-records 25 -o {{}}", ""),
    "background": (f"score {WINDOWS} --vcf background.vcf --calibrate -o {{}}", ".json"),
    "embeddings": ("embed --model model --fasta sequences.fa -o {}", ".parquet"),
    "tensors": ("embed --model model --fasta sequences.fa -o {}", ".safetensors"),
    "bedgraph": (f"tracks {WINDOWS} --region chr1:1-60 -o {{}}", ".bedgraph.gz"),
    "bigwig": (f"tracks {WINDOWS} --region chr1:1-60 -o {{}}", ".bw"),
    "explorer": (f"explore {WINDOWS} --region chr1:1-60 -o {{}}", ".html"),
    "mutagenesis": (f"mutagenesis {WINDOWS} --region chr1:21-50 -o {{}}", ".parquet"),
    "predictions": ("predict table.csv --model classifier -o {}", ".tsv"),
    "convert": ("convert model {}", ""),
    "model": ("export model -o {}", ""),
    "pretrain": ("pretrain recipe.yaml output={} training.max_steps=2 training.save_steps=1", ""),
    "finetune": (f"finetune finetune.yaml {TRAIN} output={{}}", ""),
    "grid": (f"bench run {GRID} -o {{}}", ""),
    "effects": (f"bench vep {LABELS} --model model --genome human.genome --context 20 -o {{}}", ""),
    "workflow": ("workflow copy {}", ""),
}  # fmt: skip


@pytest.fixture(scope="session")
def fork(tmp_path_factory):
    """Run a command in a process of its own, which is forked from one that has imported all and run nothing.

    It runs in this folder, with `names` for some Python `before`; its status, output and errors are returned.
    """
    context, log = multiprocessing.get_context("forkserver"), str(tmp_path_factory.mktemp("logs") / "std")
    context.set_forkserver_preload([*(f"mutbert.{name}" for name in OURS), *LIBRARIES])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        multiprocessing.forkserver.ensure_running()

    def run(command, folder, before="", environment={}, **names):  # noqa: B006
        names |= {"words": shlex.split(command), "folder": folder, "log": log}
        process = context.Process(target=exec, args=(COMMAND, names | {"before": before, "environment": environment}))
        process.start()
        process.join(150)
        assert process.exitcode is not None, f"{command}: hangs"
        said = (Path(log + name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
        return process.exitcode, *(re.sub(r".*\r", "", text) for text in said)

    return run


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A folder of what those commands read; tests copy it before they write into it."""
    folder = tmp_path_factory.mktemp("inputs") / "inputs"
    shutil.copytree(INPUTS, folder)
    build_genome(folder / "human.fa", folder / "human.genome", folder / "population.vcf")
    build_genome(folder / "small.fa", folder / "small.genome", folder / "small.vcf", min_frequency=0)
    for name, contigs in (("first", ["chr1"]), ("second", ["2", "22"])):
        build_genome(folder / "human.fa", folder / f"{name}.genome", folder / "population.vcf", contigs=contigs)
    MutBertForSequenceClassification.from_pretrained(folder / "model", num_labels=2).save_pretrained(
        folder / "classifier"
    )
    for split in ("train", "test"):
        (folder / "tasks" / "first").mkdir(parents=True, exist_ok=True)
        text = (folder / "table.csv").read_text().replace("poor", "0").replace("rich", "1")
        (folder / "tasks" / "first" / f"{split}.csv").write_text(text)
    return folder


@pytest.fixture(scope="session")
def writes():
    return WRITES


def pytest_generate_tests(metafunc):
    if "verb" in metafunc.fixturenames:
        metafunc.parametrize("verb", WRITES.values(), ids=WRITES)
    if "write" in metafunc.fixturenames:
        metafunc.parametrize("write", [(name, WRITES) for name in WRITES], ids=list(WRITES))
