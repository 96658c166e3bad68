"""Measure fine-tuning steps of the full-size model against the published trainer.

    python benchmarks/finetune.py

The published way takes each sequence by itself, pads it to a maximum length, turns ids into one-hot rows on the host,
and computes in float32 with torch's dropout. Ours takes a batch at once, of sequences of similar
length padded to the longest of them, sends token ids, and computes in bfloat16 by autocast. Both run whole optimiser
steps on the same model and the same sequences, in turns; the best of the rounds counts. *Equal* sequences are as long
as the maximum, so that padding costs nothing; *mixed* ones are from 100 bases to the maximum.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from bars import PUBLISHED, Bar, draw_bars
from measure import describe_machine, machine_text, run_script
from model import LADDER, now
from mutbert import alphabet
from mutbert.cli.command import print_table
from mutbert.encoders.inputs import BaseInputs
from mutbert.errors import InputError
from mutbert.examples.table import Examples
from mutbert.files import write_json
from mutbert.model import MutBertConfig, MutBertForSequenceClassification, MutBertTokenizer
from mutbert.training.classifier import sample_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

OURS = "ours"
SHORTEST = 100
FRAME = 2


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--length", type=int, default=510, help="bases of the longest sequence (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="sequences per step (%(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="steps of a round (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (%(default)s)")
    parser.add_argument("--layers", type=int, default=12, help="layers of the model (%(default)s)")
    parser.add_argument("--hidden", type=int, default=768, help="its features, in heads of 64 (%(default)s)")
    parser.add_argument("--output", "-o", type=Path, metavar="FOLDER", help="where to put finetune.json, .svg and .png")
    arguments = parser.parse_args()

    for name, least in {"length": SHORTEST, "batch": 1, "steps": 1, "repeats": 1, "layers": 1, "hidden": 64}.items():
        if getattr(arguments, name) < least:
            raise InputError(f"--{name} is {getattr(arguments, name)}; it must be at least {least}")
    if arguments.hidden % 64:
        raise InputError(f"--hidden is {arguments.hidden}; heads have 64 features, so it must be a multiple of 64")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = describe_machine(("torch", "transformers", "numpy"))
    if device.type == "cuda":
        machine["processor"] += f", {torch.cuda.get_device_name()}"
    print(machine_text(machine))
    torch.manual_seed(0)
    config = MutBertConfig(
        hidden_size=arguments.hidden,
        num_attention_heads=arguments.hidden // 64,
        intermediate_size=4 * arguments.hidden,
        num_hidden_layers=arguments.layers,
        max_position_embeddings=arguments.length + FRAME,
        num_labels=2,
    )
    model = MutBertForSequenceClassification(config).to(device).train()
    figures: dict[str, Any] = {"machine": machine, "cases": []}
    for case, shortest in (("equal", arguments.length), ("mixed", SHORTEST)):
        examples = random_examples(arguments.batch * arguments.steps, shortest, arguments.length)
        rows = measure(model, examples, arguments, device)
        figures["cases"].append({"case": case, "ways": rows})
        print(f"\n{case}: {arguments.batch} sequences of {shortest} to {arguments.length} bases per step")
        print_table(
            ("way", "s per step", "× published way", "sequences/s", "bases/s"),
            [
                (
                    row["way"],
                    f"{row['seconds']:.3f}",
                    f"{row['speedup']:.2f}",
                    f"{row['sequences_per_second']:.2f}",
                    f"{row['bases_per_second']:,.0f}",
                )
                for row in rows
            ],
        )
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output / "finetune.json", figures, force=True)
        draw(figures, arguments.output, machine_text(machine))


def random_examples(count: int, shortest: int, longest: int) -> Examples:
    """Return random sequences of two classes with lengths in a range; one has the maximum length."""
    generator = np.random.default_rng(0)
    length = generator.integers(shortest, longest + 1, count)
    length[0] = longest
    offsets = np.append(0, np.cumsum(length))
    return Examples(
        generator.integers(0, len(alphabet.BASES), offsets[-1]).astype(np.uint8),
        offsets,
        generator.integers(0, 2, count),
        ("",) * count,
        (None,) * count,
        "binary",
        ("0", "1"),
    )


def measure(
    model: MutBertForSequenceClassification, examples: Examples, arguments: argparse.Namespace, device: torch.device
) -> list[dict[str, Any]]:
    """Time a round of steps of each way."""
    # So slow that both ways have the same weights.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-12, fused=True)
    labels = torch.from_numpy(examples.known_labels)
    tokenizer = MutBertTokenizer(model_max_length=arguments.length + FRAME)
    texts = [examples.sequence(row) for row in range(len(examples))]
    inputs = BaseInputs(examples)
    order = sample_order(inputs.length_N, arguments.steps, arguments.batch, seed=0)
    ways = {PUBLISHED: LADDER[0], OURS: LADDER[-2]}

    def published_batch(rows: np.ndarray) -> dict[str, Tensor]:
        tokens = [tokenizer(texts[row], padding="max_length", truncation=True, return_tensors="pt") for row in rows]
        ids = torch.cat([entry["input_ids"] for entry in tokens])
        keep = torch.cat([entry["attention_mask"] for entry in tokens])
        probs = functional.one_hot(ids, alphabet.VOCABULARY_SIZE).float()
        return {"input_probs": probs, "attention_mask": keep}

    def round_of(name: str, *, train: bool = True) -> list[Tensor]:
        way = ways[name]
        losses = []
        for first in range(0, len(order), arguments.batch):
            rows = order[first : first + arguments.batch]
            batch = published_batch(rows) if name == PUBLISHED else inputs.batch(rows)
            batch = {key: value.to(device) for key, value in batch.items()}
            precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=way.precision == "bf16")
            with precision:
                logits = model(**batch).logits
            loss = functional.cross_entropy(logits.float(), labels[rows].to(device))
            if train:
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.detach())
        return losses

    check(model, round_of)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.repeats + 1):
        for name in ways:
            start = now(device)
            round_of(name)
            if number:
                times[name].append((now(device) - start) / arguments.steps)
    bases = float(examples.lengths.sum()) / arguments.steps
    return [
        {
            "way": name,
            "seconds": min(found),
            "speedup": min(times[PUBLISHED]) / min(found),
            "sequences_per_second": arguments.batch / min(found),
            "bases_per_second": bases / min(found),
        }
        for name, found in times.items()
    ]


def check(model: MutBertForSequenceClassification, round_of: Callable[..., list[Tensor]]) -> None:
    """Stop if the losses of both ways differ by more than precision explains; without dropout."""
    model.eval()
    with torch.no_grad():
        pairs = list(zip(round_of(PUBLISHED, train=False), round_of(OURS, train=False), strict=True))
    model.train()
    for reference, other in pairs:
        if not abs(float(reference) - float(other)) <= 0.02:
            raise SystemExit(f"the ways differ: their losses are {float(reference):.4f} and {float(other):.4f}")


def draw(figures: dict[str, Any], folder: Path, title: str) -> None:
    """Draw what was measured as bars, to ``finetune.svg`` and ``.png``."""
    bars = [
        Bar(
            f"{case['case']} lengths, {row['way']}",
            row["bases_per_second"],
            f"{row['bases_per_second']:,.0f}, {row['speedup']:.2f}×",
        )
        for case in figures["cases"]
        for row in case["ways"]
    ]
    draw_bars(folder / "finetune", title, "bases per second", bars)


if __name__ == "__main__":
    run_script(main)
