import itertools
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mutbert import alphabet
from mutbert.genome.format import FREQUENCY_ONE

RECIPE = """\
genome: {genome}
output: {output}
held_out: [chr2]
seed: 3
window_length: 30
evaluation: {{windows: 24}}
model: {{hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32}}
training: {{max_steps: 6, per_device_train_batch_size: 4, learning_rate: 1e-3, eval_steps: 3, save_steps: 2,
           logging_steps: 1}}
"""


@pytest.fixture(scope="session")
def genome_path(tmp_path_factory, write_genome):
    """A small genome of two contigs, in which every 20th position varies."""
    rng = np.random.default_rng(0)
    contigs, variants = {}, {}
    for name, length in (("chr1", 4000), ("chr2", 1500)):
        base = rng.integers(0, 4, length).astype(np.uint8)
        position = np.arange(5, length, 20)
        frequency = np.zeros((len(position), 4))
        rows = np.arange(len(position))
        alternate = rng.integers(FREQUENCY_ONE // 50, FREQUENCY_ONE, len(position))
        frequency[rows, (base[position] + 1) % 4] = alternate / FREQUENCY_ONE
        frequency[rows, base[position]] = 1 - alternate / FREQUENCY_ONE
        contigs[name] = alphabet.decode(base)
        variants[name] = dict(zip(position.tolist(), frequency, strict=True))
    return write_genome(tmp_path_factory.mktemp("store") / "small.genome", contigs, variants)


@pytest.fixture(scope="session")
def write_recipe(genome_path):
    """Write the recipe of a run of six steps into a folder."""

    def write(folder):
        path = folder / "recipe.yaml"
        path.write_text(RECIPE.format(genome=genome_path, output=folder / "run"))
        return path

    return write


@pytest.fixture
def recipe_path(write_recipe, tmp_path):
    return write_recipe(tmp_path)


@pytest.fixture(autouse=True)
def _without_page(monkeypatch):
    """Leave the page out, but for runs of fixtures: drawing takes longer than such a run."""
    for name in ("pretraining", "finetuning"):
        monkeypatch.setattr(f"mutbert.reports.{name}.write_page_of", lambda folder, **_: None)  # noqa: ARG005


@pytest.fixture
def fail(monkeypatch):
    """Have the model fail in training steps: raise an error in one, or return a loss that is no number."""

    def inject(model, *, at, error=None):
        forward, calls = model.forward, itertools.count(1)

        def failing(self, *args, **inputs):
            output = forward(self, *args, **inputs)
            if not self.training or next(calls) != at:
                return output
            if error is not None:
                raise error
            output.loss = output.loss * float("nan")
            output.logits = output.logits * float("nan")
            return output

        monkeypatch.setattr(model, "forward", failing)

    yield inject
    monkeypatch.undo()


@pytest.fixture(scope="session")
def same_weights():
    """Whether two model folders have equal weights."""

    def equal(first, second):
        one, other = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
        return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

    return equal


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """The same sequences of differing lengths, half of them rich in G and C, with labels of each kind."""
    folder, rng = tmp_path_factory.mktemp("tables"), random.Random(1)
    texts = [
        "".join(rng.choices("ACGT", weights=[1, 4, 4, 1] if number % 2 else [4, 1, 1, 4], k=rng.randint(20, 40)))
        for number in range(120)
    ]
    share = [sum(base in "GC" for base in text) / len(text) for text in texts]
    for name, values in {
        "binary": ["rich" if value > 0.5 else "poor" for value in share],
        "multiclass": [str(min(2, int(3 * value))) for value in share],
        "multilabel": [f"{int(value > 0.5)},{int('ACG' in text)}" for text, value in zip(texts, share, strict=True)],
        "regression": [f"{value:.4f}" for value in share],
        "token": ["".join(str(int(base in "GC")) for base in text) for text in texts],
    }.items():
        title = "rich,acg" if name == "multilabel" else "label"
        lines = [f"sequence,{title}", *(f"{text},{value}" for text, value in zip(texts, values, strict=True))]
        (folder / f"{name}.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def launch():
    """Run the command line in two processes, as torchrun does it."""

    def run(*words, program=("-m", "mutbert")):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        return subprocess.run(
            [*map(str, [*torchrun, *program, *words])], check=False, capture_output=True, text=True, timeout=240,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run
