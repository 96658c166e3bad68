"""Measure the peers of MutBERT at full size with random weights.

    python benchmarks/peers.py
    python benchmarks/peers.py --loading

A forward pass of the encoder and a training step of the classifier (AdamW, its batch included), in float32 and in
bfloat16 by autocast, on the same sequences; models take turns, and the best of the rounds counts. A second has a number
of tokens, which models have of different lengths, and a number of bases, which is what a user pays for.

With ``--loading`` the time that it takes to open each published layout at full size, from files in the system's cache
to the masked model, every weight read once; nt-2.5b, of 10 GB, is left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch.nn import functional

import peer_files
from measure import describe_machine, machine_text, run_script
from model import now
from mutbert.cli.command import print_table
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.inputs import PaddedWindows
from mutbert.files import write_json
from mutbert.model import MutBertConfig

if TYPE_CHECKING:
    from mutbert.encoders.adapter import Encoder
    from mutbert.encoders.inputs import Inputs

MEASURED: Final = ("mutbert", "dnabert2", "ntv2-50m", "caduceus-ph")
LOADED: Final = tuple(name for name in peer_files.PUBLISHED if "2.5b" not in name)


class Contender(NamedTuple):
    """A model with its input."""

    name: str
    encoder: Encoder
    inputs: Inputs
    body: Any
    classifier: Any
    optimizer: torch.optim.Optimizer


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--length", type=int, default=510, help="bases of a sequence (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="sequences per step (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (%(default)s)")
    parser.add_argument("--size", choices=peer_files.SIZES, default="published", help="of the models (%(default)s)")
    parser.add_argument("--loading", action="store_true", help="measure loading instead")
    parser.add_argument("--output", "-o", type=Path, metavar="FOLDER", help="where to put peers.json")
    arguments = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = describe_machine(("torch", "transformers", "numpy"))
    if device.type == "cuda":
        machine["processor"] += f", {torch.cuda.get_device_name()}"
    print(machine_text(machine))
    measure = measure_loading if arguments.loading else measure_speed
    rows = measure(arguments, device)
    print_table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        name = "loading" if arguments.loading else "peers"
        write_json(arguments.output / f"{name}.json", {"machine": machine, "rows": rows}, force=True)


def measure_loading(arguments: argparse.Namespace, _device: torch.device) -> list[dict[str, str]]:
    """Time opening each model."""
    rows = []
    for name in LOADED:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / name
            peer_files.write(name, place, arguments.size)
            start = time.perf_counter()
            model = open_encoder(place).masked(20)  # type: ignore[attr-defined]
            # Files may be mapped into memory, and are read only when a weight is.
            for parameter in model.parameters():
                parameter.detach().sum()
            seconds = time.perf_counter() - start
            parameters = sum(parameter.numel() for parameter in model.parameters())
            rows.append({"model": name, "parameters": f"{parameters:,}", "s to load": f"{seconds:.2f}"})
            del model
    return rows


def measure_speed(arguments: argparse.Namespace, device: torch.device) -> list[dict[str, str]]:
    """Time forward passes and training steps of all models, in turns."""
    code = np.random.default_rng(0).integers(0, 4, (arguments.batch, arguments.length)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        contenders = [
            contender(name, Path(folder) / name, PaddedWindows.of(list(code)), arguments, device) for name in MEASURED
        ]
    best: dict[tuple[str, str, str], float] = {}
    for number in range(arguments.repeats + 1):
        for one in contenders:
            for precision in ("fp32", "bf16"):
                for what, step in (("forward", forward), ("training step", train)):
                    start = now(device)
                    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                        step(one, arguments.batch, device)
                    key = (what, precision, one.name)
                    # The first round warms up.
                    best[key] = min(best.get(key, np.inf), now(device) - start) if number else np.inf
    tokens = {one.name: int(one.inputs.length_N.sum()) for one in contenders}
    bases = arguments.batch * arguments.length
    return [
        {
            "what": what,
            "precision": precision,
            "model": name,
            "s": f"{seconds:.3f}",
            "tokens/s": f"{tokens[name] / seconds:,.0f}",
            "bases/s": f"{bases / seconds:,.0f}",
            "× mutbert, bases": f"{best[what, precision, 'mutbert'] / seconds:.2f}",
        }
        for (what, precision, name), seconds in sorted(best.items())
    ]


def contender(
    name: str, folder: Path, sequences: PaddedWindows, arguments: argparse.Namespace, device: torch.device
) -> Contender:
    """Write a model's files and open it."""
    if name == "mutbert":
        tiny = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        MutBertConfig(**(tiny if arguments.size == "tiny" else {})).save_pretrained(folder)
        encoder = open_encoder(f"random:{folder}")
    else:
        peer_files.write(name, folder, arguments.size)
        encoder = open_encoder(folder)
    inputs = encoder.inputs(sequences)  # type: ignore[arg-type]
    longest = int(inputs.length_N.max())
    classifier = encoder.classifier(2, longest).to(device).train()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-6, fused=True)
    return Contender(name, encoder, inputs, encoder.body(longest).to(device), classifier, optimizer)


def forward(one: Contender, count: int, device: torch.device) -> None:
    """Run the encoder over all sequences."""
    batch = {key: value.to(device) for key, value in one.inputs.batch(np.arange(count)).items()}
    with torch.inference_mode():
        one.encoder.hidden_states(one.body, batch)


def train(one: Contender, count: int, device: torch.device) -> None:
    """Take a step of the optimiser."""
    batch = {key: value.to(device) for key, value in one.inputs.batch(np.arange(count)).items()}
    logits = one.classifier(**batch).logits
    functional.cross_entropy(logits.float(), torch.arange(count, device=device) % 2).backward()
    one.optimizer.step()
    one.optimizer.zero_grad()


if __name__ == "__main__":
    run_script(main)
