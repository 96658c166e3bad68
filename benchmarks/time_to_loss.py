"""Measure in how many steps and seconds changes to `mutbert-corrected` reach the loss that it ends with.

    python benchmarks/time_to_loss.py human.genome --train 22:16050075-19759394 --held-out z

A small model is trained with each change alone, and with several together, from the same seeds. Steps are those to the
first evaluation at or below the final loss of `mutbert-corrected` with the same seed. Cores may be shared, so a step's
time is processor time, evaluations aside: the median over the stretches between them. A run whose file is there is not
repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from measure import describe_machine, machine_text, run_script
from mutbert.cli.command import print_table
from mutbert.files import write_json
from mutbert.reports.plots import COLOURS, DASHES, style, write_figures
from mutbert.training import pretrain

CORRECTED: Final = "mutbert-corrected"
MODEL: Final = (
    "model.hidden_size=128", "model.num_hidden_layers=4", "model.num_attention_heads=2", "model.intermediate_size=512",
    "window_length=126", "windows_a_step=64", "evaluation.windows=512", "training.per_device_train_batch_size=64",
    "training.per_device_eval_batch_size=64", "training.learning_rate=2e-3", "training.adam_beta2=0.98",
    "training.lr_scheduler_type=cosine", "training.lr_scheduler_kwargs=null", "training.dataloader_num_workers=0",
)  # fmt: skip
MUON = ("optimizer=muon", "muon_scale=5")
NORMS = ("model.pre_norm=true",)
GATED = ("model.gated_feed_forward=true", "model.intermediate_size=344")  # as many parameters
STABLE = ("training.lr_scheduler_type=warmup_stable_decay",)
REPEATS, STRANDS = ("weighting.soft_masked=0.1",), ("reverse_complement=0.5",)
SHARE, FALLING = ("masking.share=0.3",), ("masking.share=0.3", "masking.final_share=0.15")
FEATURES = ("model.hidden_dropout_prob=0.0",)
FASTER = ("training.learning_rate=3e-3",)
TOGETHER: Final = {
    "mutbert-modern": (*MUON, *NORMS, *STABLE, *SHARE, *FEATURES, *FASTER),
    "all of the first seven": (*MUON, *NORMS, *GATED, *STABLE, *REPEATS, *STRANDS, *FALLING, *FASTER),
}
CHANGES: Final = {
    CORRECTED: (), **TOGETHER,
    "Muon": MUON, "pre-norm, RMSNorm, QK-norm": NORMS, "gated feed-forward": GATED, "warm-up, stable, decay": STABLE,
    "repeats at 0.1": REPEATS, "reverse complement at 0.5": STRANDS, "masked share from 0.30 to 0.15": FALLING,
    "masked share of 0.30": SHARE, "no dropout of features": FEATURES,
}  # fmt: skip


def main() -> None:
    """Read the command line, train what is not there yet, and print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("genome", type=Path)
    parser.add_argument("--train", required=True, help="region to train on")
    parser.add_argument("--held-out", required=True, help="region to evaluate on")
    parser.add_argument("--steps", type=int, default=240, help="of each run (%(default)s)")
    parser.add_argument("--share", type=float, default=0.55, help="of the steps, for changes together (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of every run")
    parser.add_argument("--output", "-o", type=Path, default=Path("runs/time_to_loss"), metavar="FOLDER")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    curves = []
    for seed in arguments.seeds:
        for name, words in CHANGES.items():
            file = arguments.output / f"{name.replace(' ', '-')}.{seed}.json"
            if not file.is_file():
                write_json(file, train(name, words, seed, arguments))
            curves += [{"name": name, "seed": seed, **one} for one in json.loads(file.read_text())]
    report(pl.DataFrame(curves), arguments)


def train(name: str, words: tuple[str, ...], seed: int, arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Return the evaluations of a run: step, loss, and seconds of training until then."""
    steps = round(arguments.steps * (arguments.share if name in TOGETHER else 1))
    every, warmup = max(arguments.steps // 20, 1), steps // 8
    length = [f"training.{key}={n}" for key, n in {"max_steps": steps, "warmup_steps": warmup}.items()]
    length += [f"training.eval_steps={every}", f"training.logging_steps={every}", f"training.save_steps={steps}"]
    if STABLE[0] in words:
        length.append(f"training.lr_scheduler_kwargs={{num_decay_steps: {steps * 2 // 3}, decay_type: linear}}")
    data = [f"genome={arguments.genome}", f"train=['{arguments.train}']", f"held_out=['{arguments.held_out}']"]
    given = [*MODEL, *data, *length, *words, *arguments.set, f"seed={seed}", f"output={arguments.output}/run.{seed}"]
    curve: list[dict[str, float]] = []

    class TimedTrainer(pretrain.PretrainTrainer):
        def train(self, *args: Any, **kwargs: Any) -> Any:
            self.began = clocks()
            return super().train(*args, **kwargs)

        def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            processor, wall = (now := clocks()) - self.began
            loss = super().evaluate(*args, **kwargs)["eval_loss"]
            curve.append({"step": self.state.global_step, "loss": loss, "processor": processor, "wall": wall})
            self.began += clocks() - now
            return {"eval_loss": loss}

    original, pretrain.PretrainTrainer = pretrain.PretrainTrainer, TimedTrainer
    pretrain.pretrain(CORRECTED, given, force=True)
    pretrain.PretrainTrainer = original
    print(f"{name}, seed {seed}: {curve[-1]}", flush=True)
    return curve


def clocks() -> np.ndarray:
    """Return the seconds of the processor, and those of the wall."""
    return np.array([time.process_time(), time.perf_counter()])


def report(curves: pl.DataFrame, arguments: argparse.Namespace) -> None:
    """Print a table, and write and draw what it is made of."""
    second = (pl.col("processor").diff() / pl.col("step").diff()).median()
    aims = curves.filter(name=CORRECTED).group_by("seed").agg(aim=pl.col("loss").last(), aim_second=second)
    # Of the corrected recipe itself, an evaluation before its last may be as low by chance.
    below = (pl.col("loss") <= pl.col("aim")) & ((pl.col("name") != CORRECTED) | (pl.col("step") == arguments.steps))
    runs = curves.join(aims, on="seed").group_by("name", "seed", maintain_order=True).agg(
        steps=pl.col("step").filter(below).first() / arguments.steps, second=second / pl.col("aim_second").first(),
        loss=pl.col("loss").last(), gap=(pl.col("loss") - pl.col("aim")).last(),
    ).with_columns(time=pl.col("steps") * pl.col("second"))  # fmt: skip
    runs.write_csv(arguments.output / "runs.tsv", separator="\t")
    print(machine := machine_text(describe_machine(("torch", "transformers", "numpy"))))
    rows = []
    for (name,), group in runs.group_by("name", maintain_order=True):
        texts = [f"{group['steps'].count()} of {len(group)} seeds"] * 2
        if not group["steps"].has_nulls():
            ratios = group["steps"], group["time"]
            texts = [f"{one.mean():.2f} ({one.min():.2f} to {one.max():.2f})" for one in ratios]
        gap = f"{group['gap'].mean():+.4f} ± {group['gap'].std() or 0:.4f}"
        rows.append((name, texts[0], f"{group['second'].mean():.2f}", texts[1], f"{group['loss'].mean():.4f}", gap))
    print_table(("setting", "steps to the loss", "time of a step", "time to the loss", "final", "difference"), rows)
    with style():
        axes = (figure := Figure(figsize=(7.5, 7.0), layout="constrained")).subplots(2)
        mean = curves.group_by("name", "step", maintain_order=True).agg(pl.col("loss", "processor").mean())
        for axis, key, label in zip(axes, ("step", "processor"), ("steps", "seconds of one core"), strict=True):
            for number, ((name,), group) in enumerate(mean.group_by("name", maintain_order=True)):
                look: Any = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS)]}
                axis.plot(group[key], group["loss"], label=name, **look)
            axis.axhline(aims["aim"].mean(), color="grey", linewidth=0.8)
            axis.set(xlabel=label, ylabel="held-out loss (nats per target)", ylim=(None, 1.39))
        axes[0].legend(fontsize=8, ncols=2)
        write_figures(figure, f"Held-out loss: {machine}", [arguments.output / "time_to_loss.svg"], force=True)


if __name__ == "__main__":
    run_script(main)
