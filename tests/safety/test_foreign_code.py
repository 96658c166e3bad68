"""Every command runs where traps lie: no code of the folder runs, nothing connects, bytes are those of another run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mutbert import ProbabilisticGenome, convert_checkpoint, embed_sequences, pretrain
from mutbert.errors import InputError

# What the standard library, others and this package would be imported as, and what libraries read as settings.
TRAPS = (
    "json", "random", "secrets", "tempfile", "logging", "socket", "numpy", "torch", "transformers", "polars", "pysam",
    "matplotlib", "sitecustomize", "usercustomize", "conftest", "tokenizer", "modeling_mutbert",
)  # fmt: skip
DATA = {
    "matplotlibrc": "text.usetex: True\nbackend: module://json\nfont.size: 40\n", "setup.cfg": "[x]\n", ".env": "A=1\n",
    "pyproject.toml": "[tool.x]\n", "default_config.yaml": "debug: true\n", ".mutbert": "x\n",
}  # fmt: skip
DRIVER = """
import shlex, sys
from pathlib import Path
from mutbert.cli.main import run
statuses = []
for line in Path("commands").read_text().splitlines():
    sys.argv = ["mutbert", *shlex.split(line)]
    try:
        statuses.append(run() or 0)
    except SystemExit as stopped:
        statuses.append(stopped.code or 0)
    Path("statuses").write_text(" ".join(map(str, statuses)))
"""
READS = (
    "genome inspect small.genome", "genome verify small.genome --fasta small.fa --vcf small.vcf", "bench list",
    "likelihood sequences.fa --model model", "report out-pretrain", "report out-effects",
    "bench report out-grid",
)  # fmt: skip


class Payload:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def run_in(folder, commands, *before, **environment):
    """Run commands in one process, as the installed program does; return their statuses."""
    (folder / "commands").write_text("\n".join(commands))
    words = [*before, sys.executable, "-P", "-c", DRIVER]
    done = subprocess.run(words, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return list(map(int, (folder / "statuses").read_text().split())), done.stderr


def contents(folder):
    """Return the bytes of each output, without times that were measured."""
    found = {}
    for file in sorted(one for path in folder.glob("out-*") for one in (path, *path.rglob("*")) if one.is_file()):
        name = str(file.relative_to(folder))
        if "tensorboard" not in name:  # which is made of times
            found[name] = re.sub(rb'"cost": \{.*?\}|What it cost.*', b"", file.read_bytes(), flags=re.DOTALL)
    return found


@pytest.fixture(scope="module")
def folders(inputs, tmp_path_factory, writes):
    """Two folders in which every command was run, one of them with traps; the trace of its system calls, if any."""
    root = tmp_path_factory.mktemp("twice")
    plain, trapped = (shutil.copytree(inputs, root / name / "work") for name in ("plain", "trapped"))
    for place in (trapped, trapped / "model", trapped / "classifier"):
        for name in TRAPS:
            (place / f"{name}.py").write_text(f"open({str(root / 'TRACE')!r}, 'a').write(__file__ + '\\n')\n")
    for name, text in DATA.items():
        (trapped / name).write_text(text)
    named = [command.format(f"out-{name.replace(' ', '-')}{suffix}") for name, (command, suffix) in writes.items()]
    strace = shutil.which("strace")
    watch = [strace, "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,openat", "-o", root / "calls"] if strace else []
    for folder, before, seed, workers in ((plain, [], "1", "1"), (trapped, watch, "2", "2")):
        commands = [f"{one} --workers {workers}" if one.startswith("genome build") else one for one in named]
        commands += [*READS, *["demo --steps 1 -o demo"] * (folder == trapped)]
        statuses, said = run_in(folder, commands, *before, PYTHONHASHSEED=seed)
        assert not [one for one, status in zip(commands, statuses, strict=True) if status], said[-2000:]
    return plain, trapped, root


def test_no_code_of_the_working_directory_runs_and_nothing_connects(folders):
    _, trapped, root = folders
    assert not (root / "TRACE").exists()
    # Python itself has the folder on its path at first; nothing is imported from it once the program has begun.
    words = [sys.executable, "-m", "mutbert", "simulate", "--length", "1000", "--samples", "2", "-o", "simulated"]
    subprocess.run(words, cwd=trapped, check=True, capture_output=True)
    assert not (root / "TRACE").exists()
    if not (root / "calls").exists():
        pytest.skip("there is no strace")
    calls = (root / "calls").read_text()
    assert not re.search(r"connect\(.*AF_INET", calls)
    opened = re.findall(r'openat\(AT_FDCWD, "([^"]*\.py)"', calls)
    assert len(opened) > 100
    assert not [one for one in opened if (trapped / one).parent == trapped]


def test_the_same_command_writes_the_same_bytes(folders):
    plain, trapped, _ = map(contents, folders)
    assert len(plain) > 90
    assert plain.keys() == trapped.keys()
    assert [name for name, content in plain.items() if content != trapped[name]] == []


def test_a_finished_output_is_left_as_it_is_by_resume(folders):
    """As a job that is queued again asks for."""
    plain, _, _ = folders
    words = "--model model --genome small.genome --context 20"
    commands = [
        f"score {words} --vcf asked.vcf -o out-scores.vcf.gz",
        f"score {words} --vcf asked.vcf -o out-table-of-scores.parquet",
        "embed --model model --fasta sequences.fa -o out-embeddings.parquet",
        f"tracks {words} --region chr1:1-60 -o out-bedgraph.bedgraph.gz",
        "genome build --fasta small.fa --vcf small.vcf -o out-build.genome",
        "pretrain recipe.yaml output=out-pretrain training.max_steps=2 training.save_steps=1",
    ]  # fmt: skip
    others = [commands[0].replace("20", "24"), f"{commands[2]} --pooling max", commands[3].replace("60", "50")]
    before = contents(plain)
    try:
        os.setxattr(plain / "commands", "user.x", b"")
    except (OSError, AttributeError):
        pytest.skip("the file system has no attributes")
    statuses, said = run_in(plain, [f"{one} --resume" for one in (*commands, *others)] + commands)
    assert statuses == [0] * 6 + [2] * 9, said
    assert said.count("the run is finished; nothing is left to resume") == 5
    assert contents(plain) == before


def test_no_pickle_of_a_checkpoint_or_a_genome_is_loaded(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(inputs, tmp_path / "work"))
    evil, words = Payload(tmp_path / "TRACE"), ["output=run", "training.max_steps=2", "training.save_steps=1"]
    pretrain("recipe.yaml", words)
    shutil.rmtree("run/checkpoints/checkpoint-2")
    Path("run/metrics.json").unlink()  # that a finished run has
    whole, sizes = Path("run/checkpoints/checkpoint-1"), Path("run/checkpoints/checkpoint-1/files.json")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        kept = (whole / name).read_bytes(), sizes.read_text()
        torch.save({"state": evil}, whole / name)
        sizes.write_text(json.dumps(json.loads(kept[1]) | {name: (whole / name).stat().st_size}))
        with pytest.raises(InputError, match=r"\A[^\n]*checkpoint-1: cannot be read \(UnpicklingError[^\n]*\Z"):
            pretrain("recipe.yaml", words, resume=True)
        (whole / name).write_bytes(kept[0])
        sizes.write_text(kept[1])
    np.save("small.genome/sequence.npy", np.array([evil]), allow_pickle=True)
    with pytest.raises(InputError, match=r"small\.genome"):
        ProbabilisticGenome.open("small.genome")
    assert not evil.trace.exists()


@pytest.mark.parametrize("value", ["evil/kernel", {"": "sdpa", "text": "evil/kernel"}])
def test_no_configuration_makes_the_library_fetch_code(inputs, tmp_path, value):
    model = shutil.copytree(inputs / "model", tmp_path / "model")
    values = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(values | {"attn_implementation": value}))
    with pytest.raises(InputError, match=r"config\.json asks for code of the Hub, evil/kernel; remove attn_impl"):
        convert_checkpoint(model, tmp_path / "converted")
    with pytest.raises(InputError, match=r"config\.json asks for code of the Hub"):
        embed_sequences(model, ["ACGT"])
