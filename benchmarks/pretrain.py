"""Measure the loader and a training step of the full-size model against the published way of computing them.

    python benchmarks/pretrain.py human.genome

*Loader*: windows per second on one core, with variants first, 80/0/20 and log tempering. The published way takes one
window at a time: dense frequencies, tempered over the whole matrix, targets by a permutation of the positions that
vary and of the others, one-hot matrices of inputs and labels, stacked into a batch. Ours takes a batch at once and
keeps it compact; *dense* expands it too, as is done on the device in training; *workers* are torch's, counted where
they are consumed.

*Step*: from the genome to changed weights, with batches of the store. The published way computes in float32 with a
mask of numbers though nothing is padded, the head at every position, and torch's dropout; ours in bfloat16 by
autocast, with the head at the targets. `benchmarks/model.py` takes the same apart step by step. Ways take turns, the
best of the rounds counts. *Ceiling* is the rate of a plain matrix product in the way's precision, measured in the
same run; a step's operations are those of its matrix products alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from measure import describe_machine, machine_text, run_script
from model import LADDER, Way, now
from mutbert import alphabet
from mutbert.cli.command import print_table
from mutbert.errors import InputError
from mutbert.files import atomic_file, write_json
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model import MutBertConfig, MutBertForMaskedLM
from mutbert.model.modeling_mutbert import target_loss
from mutbert.windows.dataset import WindowDataset, expand_batch
from mutbert.windows.masking import LONGEST_WINDOW, Masking, Tempering
from mutbert.windows.sampler import WindowSampler, split_genomes
from throughput import BACKWARD_AND_FORWARD, matrix_operations, matrix_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Dense = dict[str, Tensor]

TEMPERATURE = 0.7
PUBLISHED = "published way"
OURS = LADDER[-2]._replace(name="ours")


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("genome", type=Path, help="a store of mutbert genome build")
    parser.add_argument(
        "--windows", type=int, default=20_000, help="windows that the loader makes a turn (%(default)s)"
    )
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="worker processes to try")
    parser.add_argument("--length", type=int, default=510, help="bases per window (%(default)s)")
    parser.add_argument("--batch", type=int, help="windows per step (4; on a GPU 128)")
    parser.add_argument("--layers", type=int, default=12, help="layers of the model (%(default)s)")
    parser.add_argument("--hidden", type=int, default=768, help="its features, in heads of 64 (%(default)s)")
    parser.add_argument("--what", choices=("loader", "step", "both"), default="both")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (%(default)s)")
    parser.add_argument("--output", "-o", type=Path, metavar="FOLDER", help="where to put pretrain.json, .svg and .png")
    arguments = parser.parse_args()

    check_sizes(arguments)
    genome = ProbabilisticGenome.open(arguments.genome)
    train, _ = split_genomes([genome], [], [])
    sampler = WindowSampler(train, arguments.length, seed=66)
    dataset = WindowDataset(sampler, Masking(), Tempering("log", TEMPERATURE), size=arguments.windows)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = describe_machine(("torch", "transformers", "numpy"))
    if device.type == "cuda":
        machine["processor"] += f", {torch.cuda.get_device_name()}"
    print(machine_text(machine))
    check_windows(dataset)
    figures: dict[str, Any] = {"machine": machine}
    if arguments.what != "step":
        figures["loader"] = measure_loader(dataset, arguments.workers, arguments.repeats)
        print(f"\nloader, windows of {arguments.length} bases, one core but for workers")
        print_table(
            ("way", "windows/s", "× published way", "bytes per window"),
            (
                (row["way"], f"{row['rate']:,.0f}", f"{row['speedup']:.1f}", f"{row['bytes']:,.0f}")
                for row in figures["loader"]
            ),
        )
    if arguments.what != "loader":
        config = MutBertConfig(
            hidden_size=arguments.hidden,
            num_attention_heads=arguments.hidden // 64,
            intermediate_size=4 * arguments.hidden,
            num_hidden_layers=arguments.layers,
            max_position_embeddings=arguments.length + 2,
        )
        batch = arguments.batch or (128 if device.type == "cuda" else 4)
        figures["step"] = measure_step(config, dataset, batch, device, arguments.repeats)
        print(f"\nstep, {batch} × {arguments.length + 2} tokens on {device.type}, {torch.get_num_threads()} threads")
        print_table(
            ("way", "s", "× published way", "tokens/s", "windows/s", "GFLOP/s", "of ceiling"),
            (
                (
                    row["way"],
                    f"{row['seconds']:.4f}",
                    f"{row['speedup']:.2f}",
                    f"{row['tokens_per_second']:,.0f}",
                    f"{row['windows_per_second']:,.2f}",
                    f"{row['flops'] / 1e9:,.0f}",
                    f"{row['share_of_ceiling']:.0%}",
                )
                for row in figures["step"]
            ),
        )
    if arguments.output:
        write_json(arguments.output / "pretrain.json", figures, force=True)
        draw(figures, arguments.output, machine_text(machine))


def check_sizes(arguments: argparse.Namespace) -> None:
    """Stop at sizes that cannot be measured."""
    for name, least in {"windows": 1, "length": 1, "batch": 1, "layers": 1, "hidden": 64, "repeats": 1}.items():
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise InputError(f"--{name} is {value}; it must be at least {least}")
    if any(count < 0 for count in arguments.workers):
        raise InputError(f"--workers is {min(arguments.workers)}; it must be at least 0")
    if arguments.hidden % 64:
        raise InputError(f"--hidden is {arguments.hidden}; heads have 64 features, so it must be a multiple of 64")
    if not Masking().targets(arguments.length) or arguments.length > LONGEST_WINDOW:
        raise InputError(f"--length is {arguments.length}; it must be from 7, for one target, to {LONGEST_WINDOW}")


def published_batch(dataset: WindowDataset, indices: range, generator: np.random.Generator) -> Dense:
    """Return a dense batch made one window after another, as the published code does."""
    places = dataset.sampler.places(np.asarray(indices))
    windows = []
    for genome, name, start in zip(places.genome_B, dataset.sampler.contig_names(places), places.start_B, strict=True):
        windows.append(published_window(dataset, genome, name, int(start), generator))
    return {name: torch.stack([window[name] for window in windows]) for name in windows[0]}


def published_window(
    dataset: WindowDataset, genome: int, contig: str, start: int, generator: np.random.Generator
) -> Dense:
    """Return the matrices of one window."""
    length = dataset.sampler.length
    store = dataset.sampler.parts[genome].genome
    frequency_L4 = store.frequencies(contig, start, start + length)
    variant_L = (frequency_L4 > 0).sum(axis=1) > 1
    with np.errstate(divide="ignore"):
        score_L4 = np.log(frequency_L4) / TEMPERATURE
    weight_L4 = np.exp(score_L4 - score_L4.max(axis=1, keepdims=True))
    tempered_L4 = weight_L4 / weight_L4.sum(axis=1, keepdims=True)

    labels = np.zeros((length + 2, alphabet.VOCABULARY_SIZE), dtype=np.float32)
    labels[0, alphabet.CLS_ID] = labels[-1, alphabet.SEP_ID] = 1
    labels[1:-1, alphabet.BASE_IDS] = tempered_L4
    order = np.concatenate([
        generator.permutation(np.flatnonzero(variant_L)),
        generator.permutation(np.flatnonzero(~variant_L)),
    ])  # fmt: skip
    chosen = order[: dataset.masking.targets(length)] + 1
    hidden = chosen[generator.random(len(chosen)) < dataset.masking.replace]
    inputs = labels.copy()
    inputs[hidden] = 0
    inputs[hidden, alphabet.MASK_ID] = 1
    arrays = {"input_probs": inputs, "labels": labels[chosen], "target_places": chosen}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def check_windows(dataset: WindowDataset, count: int = 128) -> None:
    """Stop if the ways' windows differ anywhere but at targets, in enough windows that some positions vary."""
    batches = (
        published_batch(dataset, range(count), np.random.default_rng(1)),
        expand_batch(dataset.batch(range(count))),
    )
    difference = (batches[0]["input_probs"] - batches[1]["input_probs"]).abs().amax(dim=-1)
    for batch in batches:
        difference.scatter_(1, batch["target_places"], 0)
    if not difference.max() <= 1e-4:
        raise SystemExit(f"the ways differ: their windows by {difference.max():.3g}")


def measure_loader(dataset: WindowDataset, workers: list[int], repeats: int) -> list[dict[str, Any]]:
    """Return the windows per second of each way; of those in this process, on one core."""
    generator = np.random.default_rng(1)
    windows = dataset.size
    one_by_one = min(windows, 2048)

    def published() -> int:
        for first in range(0, one_by_one, 128):
            published_batch(dataset, range(first, min(first + 128, one_by_one)), generator)
        return one_by_one

    def batched(size: int, *, dense: bool) -> Callable[[], int]:
        def run() -> int:
            for first in range(0, windows, size):
                batch = dataset.batch(range(first, min(first + size, windows)))
                if dense:
                    expand_batch(batch)
            return windows

        return run

    def loaded(count: int) -> Callable[[], int]:
        def run() -> int:
            loader = DataLoader(dataset, batch_size=128, collate_fn=dict, num_workers=count)
            return sum(len(batch["base_codes"]) for batch in loader)

        return run

    ways = {
        PUBLISHED: published,
        "batches of 128": batched(128, dense=False),
        "batches of 1,024": batched(1024, dense=False),
        "batches of 128, dense": batched(128, dense=True),
    } | {f"{count} worker{'s' * (count > 1)}, batches of 128": loaded(count) for count in workers}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rates = dict.fromkeys(ways, 0.0)
    try:
        for number in range(repeats + 1):
            for name, run in ways.items():
                start = time.perf_counter()
                done = run()
                if number:
                    rates[name] = max(rates[name], done / (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    compact = dataset.batch(range(min(128, windows)))
    sizes = [sum(tensor.nbytes for tensor in batch.values()) / len(compact["base_codes"])
             for batch in (expand_batch(compact), compact)]  # fmt: skip
    return [
        {
            "way": name,
            "rate": rate,
            "speedup": rate / rates[PUBLISHED],
            "bytes": sizes[0 if name == PUBLISHED or "dense" in name else 1],
        }
        for name, rate in rates.items()
    ]


def measure_step(
    config: MutBertConfig, dataset: WindowDataset, count: int, device: torch.device, repeats: int
) -> list[dict[str, Any]]:
    """Return the time of a step of each way, its batch included."""
    torch.manual_seed(0)
    model = MutBertForMaskedLM(config).to(device).train()
    # So slow that both ways have the same weights.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-12, fused=True)
    generator = np.random.default_rng(1)
    indices = range(count)

    def step(way: Way, dense: Dense | None = None) -> Tensor:
        precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=way.precision == "bf16")
        if way.head == "all":
            dense = dense or published_batch(dataset, indices, generator)
            batch = {name: tensor.to(device) for name, tensor in dense.items()}
            mask = torch.ones(batch["input_probs"].shape[:2], device=device)
            row_B1 = torch.arange(count, device=device)[:, None]
            with precision:
                logits = model(input_probs=batch["input_probs"], attention_mask=mask).logits
                loss = target_loss(logits[row_B1, batch["target_places"]], batch["labels"])
        else:
            compact = {name: tensor.to(device) for name, tensor in dataset.batch(indices).items()}
            with precision:
                loss = model(**expand_batch(compact)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    ways = (LADDER[0], OURS)
    # With the same targets, as those that each way draws for itself are not equally hard.
    losses = float(step(ways[0], expand_batch(dataset.batch(indices)))), float(step(ways[1]))
    if not abs(losses[0] - losses[1]) <= 0.1:
        raise SystemExit(f"the ways differ: their losses are {losses[0]:.4f} and {losses[1]:.4f}")
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(repeats + 1):
        for way in ways:
            start = now(device)
            step(way)
            if number:
                times[way.name].append(now(device) - start)
    length = dataset.sampler.length + 2
    rows = []
    for way in ways:
        seconds = min(times[way.name])
        targets = count * (dataset.masking.targets(length - 2) if way.head == "targets" else length)
        flops = BACKWARD_AND_FORWARD * matrix_operations(config, count, length, targets) / seconds
        dtype = torch.bfloat16 if way.precision == "bf16" else torch.float32
        rows.append({
            "way": way.name,
            "seconds": seconds,
            "speedup": min(times[PUBLISHED]) / seconds,
            "tokens_per_second": count * length / seconds,
            "windows_per_second": count / seconds,
            "flops": flops,
            "share_of_ceiling": flops / matrix_rate(device, dtype),
        })  # fmt: skip
    return rows


def draw(figures: dict[str, Any], folder: Path, title: str) -> None:
    """Draw what was measured as bars, to ``pretrain.svg`` and ``.png``."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = []
    if "loader" in figures:
        rows = figures["loader"]
        panels.append((
            "loader", "windows per second", [row["way"] for row in rows], [row["rate"] for row in rows],
            [f"{row['rate']:,.0f}, {row['speedup']:.1f}×" for row in rows],
        ))  # fmt: skip
    if "step" in figures:
        rows = figures["step"]
        panels.append((
            "training step",
            "tokens per second",
            [row["way"] for row in rows],
            [row["tokens_per_second"] for row in rows],
            [
                f"{row['tokens_per_second']:,.0f}, {row['speedup']:.2f}×, {row['share_of_ceiling']:.0%} of ceiling"
                for row in rows
            ],
        ))  # fmt: skip
    heights = [len(panel[2]) + 1.2 for panel in panels]
    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "mutbert"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(9, 0.8 + 0.34 * sum(heights)), layout="constrained")
        figure.suptitle(title, fontsize=7)
        grid = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)
        for axes, (name, unit, names, values, texts) in zip(grid[:, 0], panels, strict=True):
            # Okabe and Ito's palette: ours, and the published way.
            colours = ["#BBBBBB", *["#0072B2"] * (len(names) - 1)]
            axes.bar_label(axes.barh(names, values, color=colours, height=0.7), texts, padding=3)
            axes.set_title(name, loc="left")
            axes.set_xlabel(unit)
            # Room for the text behind the longest bar.
            axes.set_xlim(0, 1.4 * max(values))
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.invert_yaxis()
        for suffix in ("svg", "png"):
            with atomic_file(folder / f"pretrain.{suffix}", force=True) as path:
                figure.savefig(path, dpi=150, metadata={"Date": None} if suffix == "svg" else None)


if __name__ == "__main__":
    run_script(main)
