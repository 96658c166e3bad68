"""Measure a forward pass and a training step of the full-size model against the published way of computing them.

    python benchmarks/model.py

The published way passes a mask though nothing is padded, runs the head at every position, compiles nothing, and
computes in float32. Ours differs in each of these; the ladder takes one step after another, so that what each is worth
can be seen. All share one model, one batch and one optimiser (AdamW, fused), take turns, and the best of the rounds
counts. A training step is forward, backward, clipping and optimiser, of one batch.

*Ceiling* is the rate of a plain matrix product in the same precision, measured in the same run. A model's operations
are those of its matrix products alone: dense layers and attention, twice as many backward as forward, the head at the
positions that it runs at.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from measure import describe_machine, machine_text, run_script
from mutbert.cli.command import print_table
from mutbert.files import atomic_file, write_json
from mutbert.model import MutBertConfig, MutBertForMaskedLM
from mutbert.model.modeling_mutbert import rotary_tables, target_loss
from throughput import BACKWARD_AND_FORWARD, matrix_operations, matrix_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

MASKED_SHARE = 0.15
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Way(NamedTuple):
    """A way of computing: a mask of ones or "none", the head at "all" positions or at "targets", "fp32" or "bf16"."""

    name: str
    mask: str
    head: str
    precision: str
    compiled: bool


LADDER = (
    Way("published way", "ones", "all", "fp32", False),
    Way("+ no mask", "none", "all", "fp32", False),
    Way("+ head at targets", "none", "targets", "fp32", False),
    Way("+ bf16", "none", "targets", "bf16", False),
    Way("+ compiled", "none", "targets", "bf16", True),
)

HEADER = ("way", "s", "median", "× published way", "tokens/s", "GFLOP/s", "of ceiling")


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", help="tokens a sequence (512 2048; on a GPU 512 4096)")
    parser.add_argument("--tokens", type=int, help="tokens a batch (2048; on a GPU 65536)")
    parser.add_argument("--layers", type=int, default=12, help="layers of the model (%(default)s)")
    parser.add_argument("--hidden", type=int, default=768, help="its features, in heads of 64 (%(default)s)")
    parser.add_argument("--mask", choices=("ones", "none"), help="measure this way alone against the published")
    parser.add_argument("--head", choices=("all", "targets"), help="likewise")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="likewise")
    parser.add_argument("--compile", action="store_true", help="likewise")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled step of the ladder out")
    parser.add_argument("--what", choices=("forward", "step", "both"), default="both")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (%(default)s)")
    parser.add_argument("--output", "-o", type=Path, metavar="FOLDER", help="for model.json, .svg and .png")
    arguments = parser.parse_args()

    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lengths = arguments.lengths or ([512, 4096] if device.type == "cuda" else [512, 2048])
    tokens = arguments.tokens or (65536 if device.type == "cuda" else 2048)
    machine = describe_machine(("torch", "transformers"))
    if device.type == "cuda":
        machine["processor"] = torch.cuda.get_device_name()
    config = MutBertConfig(
        hidden_size=arguments.hidden,
        num_attention_heads=arguments.hidden // 64,
        intermediate_size=4 * arguments.hidden,
        num_hidden_layers=arguments.layers,
        max_position_embeddings=max(lengths),
    )
    torch.manual_seed(0)
    model = MutBertForMaskedLM(config).to(device)
    ceiling = {name: matrix_rate(device, dtype) for name, dtype in DTYPES.items()}
    print(machine_text(machine))
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters on {device.type}, {torch.get_num_threads()} threads"
    )
    print("ceiling: " + ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in ceiling.items()))

    results = []
    for length in lengths:
        batch = Batch.draw(max(1, tokens // length), length, device)
        for what in ("forward", "step") if arguments.what == "both" else (arguments.what,):
            ways = chosen_ways(arguments, what)
            times = take_turns(model, batch, ways, what, arguments.repeats)
            rows = [row(config, batch, what, way, times, ways[0], ceiling) for way in ways]
            results += [{"what": what, "rows": batch.rows, "length": length, **values} for values in rows]
            print(f"\n{what}, {batch.rows} × {length} tokens")
            print_table(HEADER, map(cells, rows))
        print(f"rotary tables, once a pass: {rotary_share(model, batch):.2%} of a float32 forward pass")
    if arguments.output:
        figures = {"machine": machine, "ceiling": ceiling, "results": results}
        write_json(arguments.output / "model.json", figures, force=True)
        draw(results, arguments.output, machine_text(machine))


def cells(values: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the table."""
    return (
        values["way"],
        f"{values['seconds']:.4f}",
        f"{values['median']:.4f}",
        f"{values['speedup']:.2f}",
        f"{values['tokens_per_second']:,.0f}",
        f"{values['flops'] / 1e9:,.0f}",
        f"{values['share_of_ceiling']:.0%}",
    )


class Batch(NamedTuple):
    """Inputs, labels, where the targets are, and a mask."""

    probs: Tensor
    labels: Tensor
    target: Tensor
    places: Tensor
    ones: Tensor

    @classmethod
    def draw(cls, rows: int, length: int, device: torch.device) -> Batch:
        """Return a random batch on the device, with as many targets in every row."""
        generator = torch.Generator().manual_seed(1)
        labels = torch.softmax(4 * torch.randn(rows, length, 9, generator=generator), dim=-1)
        target = torch.zeros(rows, length, dtype=torch.bool)
        place = (
            torch.rand(rows, length, generator=generator).argsort(dim=1)[:, : int(length * MASKED_SHARE)].sort().values
        )
        target.scatter_(1, place, value=True)
        probs = labels.clone()
        probs[target] = torch.nn.functional.one_hot(torch.tensor(4), 9).float()
        ones = torch.ones(rows, length)
        return cls(*(tensor.to(device) for tensor in (probs, labels, target, place, ones)))

    @property
    def rows(self) -> int:
        """Number of sequences."""
        return self.target.shape[0]

    @property
    def targets(self) -> int:
        """Number of targets."""
        return self.rows * int(self.target.shape[1] * MASKED_SHARE)


def chosen_ways(arguments: argparse.Namespace, what: str) -> list[Way]:
    """Return the rungs of the ladder that `what` has, or the one way that was asked for."""
    options = ("mask", "head", "precision")
    asked = {name: getattr(arguments, name) for name in options if getattr(arguments, name)}
    if asked or arguments.compile:
        name = ", ".join([*(f"{key} {value}" for key, value in asked.items()), *["compiled"] * arguments.compile])
        return [LADDER[0], LADDER[0]._replace(name=name, compiled=arguments.compile, **asked)]
    ways = [way for way in LADDER if not (way.compiled and arguments.no_compile)]
    return [way for way in ways if what == "step" or way.name != "+ head at targets"]


def take_turns(
    model: MutBertForMaskedLM, batch: Batch, ways: list[Way], what: str, repeats: int
) -> dict[Way, list[float]]:
    """Return seconds of each way in each round, after a round that does not count."""
    # So slow that all ways have the same weights.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-12, fused=True)
    runs = {way: prepared(model, optimizer, batch, way, what) for way in ways}
    check(runs, what)
    times: dict[Way, list[float]] = {way: [] for way in ways}
    for number in range(repeats + 1):
        for way, run in runs.items():
            start = now(batch.probs.device)
            run()
            if number:
                times[way].append(now(batch.probs.device) - start)
    return times


def prepared(
    model: MutBertForMaskedLM, optimizer: torch.optim.Optimizer, batch: Batch, way: Way, what: str
) -> Callable[[], Tensor]:
    """Return a call that is timed, for the loss of a step or the probabilities of a forward pass."""
    call: Any = torch.compile(model, fullgraph=True, dynamic=False) if way.compiled else model
    mask = batch.ones if way.mask == "ones" else None
    device = batch.probs.device.type
    precision = torch.autocast(device, dtype=torch.bfloat16) if way.precision == "bf16" else nullcontext()

    def forward() -> Tensor:
        model.eval()
        with torch.inference_mode(), precision:
            logits: Tensor = call(input_probs=batch.probs, attention_mask=mask).logits
        return logits.float().softmax(dim=-1)

    def step() -> Tensor:
        model.train()
        with precision:
            if way.head == "targets":
                labels = batch.labels.gather(1, batch.places[..., None].expand(-1, -1, batch.labels.shape[-1]))
                targets = {"labels": labels, "target_places": batch.places}
                loss: Tensor = call(input_probs=batch.probs, attention_mask=mask, **targets).loss
            else:
                logits = call(input_probs=batch.probs, attention_mask=mask).logits
                loss = target_loss(logits[batch.target][None], batch.labels[batch.target][None])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return forward if what == "forward" else step


def check(runs: dict[Way, Callable[[], Tensor]], what: str) -> None:
    """Exit if ways differ by more than precision and, in training, random dropout explain."""
    reference, *others = (run() for run in runs.values())
    for way, other in zip(list(runs)[1:], others, strict=True):
        tolerance = 0.1 if what == "step" else 0.02 if way.precision == "bf16" else 1e-4
        if (other - reference).abs().max() > tolerance:
            raise SystemExit(f"{way.name}: differs from the published way by {(other - reference).abs().max():.3g}")


def row(
    config: MutBertConfig, batch: Batch, what: str, way: Way, times: dict[Way, list[float]], first: Way,
    ceiling: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Return the figures of a way's times."""
    seconds = min(times[way])
    length = batch.target.shape[1]
    targets = batch.targets if what == "step" and way.head == "targets" else batch.target.numel()
    operations = matrix_operations(config, batch.rows, length, targets)
    rate = operations * (BACKWARD_AND_FORWARD if what == "step" else 1) / seconds
    return {
        "way": way.name,
        "seconds": seconds,
        "median": statistics.median(times[way]),
        "speedup": min(times[first]) / seconds,
        "tokens_per_second": batch.target.numel() / seconds,
        "flops": rate,
        "share_of_ceiling": rate / ceiling[way.precision],
    }


def rotary_share(model: MutBertForMaskedLM, batch: Batch, rounds: int = 20) -> float:
    """Return the share of a forward pass spent on rotary tables."""
    length = batch.target.shape[1]
    device = batch.probs.device

    def tables() -> None:
        rotary_tables(model.config, length, torch.full((1, 1), length, device=device))

    def forward() -> None:
        with torch.inference_mode():
            model.eval()(input_probs=batch.probs)

    best = []
    for run, count in ((tables, rounds), (forward, 2)):
        times = []
        for _ in range(count):
            start = now(device)
            run()
            times.append(now(device) - start)
        best.append(min(times))
    return best[0] / best[1]


def draw(results: list[dict[str, Any]], folder: Path, title: str) -> None:
    """Draw the times as labelled bars, to ``model.svg`` and ``.png``."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = {(each["what"], each["rows"], each["length"]): [] for each in results}
    for each in results:
        panels[each["what"], each["rows"], each["length"]].append(each)
    heights = [len(rows) + 1.2 for rows in panels.values()]
    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "mutbert"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(9, 0.8 + 0.34 * sum(heights)), layout="constrained")
        figure.suptitle(title, fontsize=8)
        grid = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)
        for axes, ((what, count, length), rows) in zip(grid[:, 0], panels.items(), strict=True):
            texts = [
                f"{row['seconds']:.2f} s, {row['speedup']:.2f}×, {row['share_of_ceiling']:.0%} of ceiling"
                for row in rows
            ]
            # Okabe and Ito's palette: ours, and the published way.
            colours = ["#BBBBBB", *["#0072B2"] * (len(rows) - 1)]
            bars = axes.barh([row["way"] for row in rows], [row["seconds"] for row in rows], color=colours, height=0.7)
            axes.bar_label(bars, texts, padding=3)
            axes.set_title(f"{what}, {count} × {length} tokens", loc="left")
            axes.set_xlabel("seconds")
            # Room for the text behind the longest bar.
            axes.set_xlim(0, 1.4 * max(row["seconds"] for row in rows))
            axes.invert_yaxis()
        for suffix in ("svg", "png"):
            with atomic_file(folder / f"model.{suffix}", force=True) as path:
                figure.savefig(path, dpi=150, metadata={"Date": None} if suffix == "svg" else None)


def now(device: torch.device) -> float:
    """Return the time once the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    run_script(main)
