"""Every golden case by its name, and how far from the stored answer each number of it may be.

Commands are in ``cases.yaml``; here is what takes Python. Fresh classifiers come from torch's generator, and peers'
weights from ``benchmarks/peer_files.py``.
"""

import _thread
import itertools
import json
import random
import re
import shlex
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import golden_model
import golden_readers as read
import golden_runs as runs
import numpy as np
import polars as pl
import pysam
import yaml
from golden_answers import Answer, Tolerance
from golden_inputs import HERE, PEERS, ROOT, write_table
from golden_readers import cli, digest, units

import mutbert
from mutbert.examples.splits import part_task, region_split
from mutbert.examples.table import Columns, read_examples
from mutbert.scoring.metrics import evaluate
from mutbert.settings import read_settings
from mutbert.training.classifier import sample_order
from mutbert.training.recipe import PretrainRecipe

ROOMS = ("genome", "model", "scores", "inference", "training", "runs", "benchmark", "effects", "settings")
# By name and place in the answer; the first that is found there holds. What is drawn by a seed, counted, or computed of
# stored numbers is equal but for how a processor sums up; text has six digits; a percentage lies between quantiles, so
# that what is rounding in a score is more there.
TOLERANCES = {
    "^(genome|settings|benchmark/(resampling|binding))/": (1e-12, 1e-12),
    "^training/pretrain": (1e-7, 1e-5),
    "^(runs/finetune/probe|benchmark/eqtl)": (1e-6, 1e-6),
    "^(runs|benchmark|effects)/": (1e-6, 1e-5),
    "_PCT$": (0.01, 1e-5),
    "^scores/(info|everything/tsv)": (2e-5, 2e-5),
    "": (1e-5, 1e-5),
}
READERS: dict[str, Callable[[Path, Mapping[str, Any]], Answer]] = {
    "genome build": read.built, "genome merge": read.merged, "genome inspect": read.inspected,
    "genome export": read.exported, "score": read.scored, "embed": read.embedded, "tracks": read.tracked,
    "mutagenesis": read.mutated, "predict": read.predicted, "pretrain": runs.pretrained, "finetune": runs.finetuned,
    "bench run": runs.benchmarked, "bench vep": runs.compared, "bench list": runs.listed,
}  # fmt: skip
# Names that are not taken in the folder of inputs.
new_name = map("output{}".format, itertools.count()).__next__


def tolerance_at(place: str) -> Tolerance:
    return next(one for where, one in TOLERANCES.items() if re.search(where, place))


def words_of(command: str) -> list[str]:
    """Return the words of a command of ``cases.yaml``; `*` stays."""
    return shlex.split(Template(command).substitute(TABLE["variables"]))


def of_commands(commands: str | list[str], run: Callable[..., Any] = cli) -> Answer:
    """Run commands, and read what the last one makes."""
    name, said = new_name(), {}
    for command in [commands] if isinstance(commands, str) else commands:
        words = [word.replace("*", name) for word in words_of(command)]
        said = run(*words)
    if words[:2] == ["bench", "run"]:
        # All is done.
        said["done_again"] = cli(*words)["done"]
    outputs = re.findall(r" (?:-o |output=)(\S+)", " ".join(words))
    reader = READERS.get(" ".join(words[:2])) or READERS[words[0]]
    return reader(Path(*outputs[-1:]), said)


def resumed(name: str, step: int, *words: str) -> Answer:
    """Interrupt the command of a case, as Ctrl-C does, once the checkpoint of a step is there, and resume it."""

    def run(*command: str) -> Any:
        ended = threading.Event()
        checkpoint = Path(command[2].removeprefix("output="), "checkpoints", f"checkpoint-{step}")

        def interrupt() -> None:
            while not checkpoint.exists():
                if ended.wait(0.0005):
                    return
            _thread.interrupt_main()

        (watcher := threading.Thread(target=interrupt)).start()
        try:
            cli(*command)
            # Should it have ended just now.
            time.sleep(0.1)
        except (KeyboardInterrupt, RuntimeError):
            # The command line makes an error of it.
            if not checkpoint.exists():
                raise
        else:
            raise AssertionError("the run ended before it was interrupted")
        finally:
            ended.set()
            watcher.join()
        return cli(*command, "--resume")

    return of_commands(" ".join([TABLE[name], *words]), run)


def from_python(verb: str, suffix: str, function: Callable[..., Any], *arguments: Any, **settings: Any) -> Answer:
    """Call what a command calls, and read the same."""
    path = Path(f"{new_name()}{suffix}")
    report = function(*arguments, output=path, **settings)
    text = json.dumps(report, default=lambda one: str(one) if isinstance(one, Path | mutbert.Region) else vars(one))
    return READERS[verb](path, json.loads(text))


def mutated() -> Answer:
    """Mutate a region, the model and the genome loaded before."""
    model = mutbert.MutBertForMaskedLM.from_pretrained("model")
    settings = {"genome": mutbert.ProbabilisticGenome.open("small.genome"), "region": mutbert.Region("chr1", 239, 345)}
    return from_python("mutagenesis", ".parquet", mutbert.mutate_region, model, **settings)


def windows() -> Answer:
    """Many windows at once, and stretches without N."""
    genome = mutbert.ProbabilisticGenome.open("human.genome")
    rng = random.Random(32)
    names = list(genome.lengths)
    contigs = np.array([rng.randrange(len(names)) for _ in range(40)], dtype=np.int64)
    starts = np.array([rng.randint(0, genome.lengths[names[one]] - 45) for one in contigs.tolist()], dtype=np.int64)
    found = genome.windows(contigs, starts, 45).distributions()
    return {
        "distributions": digest(units(found, 4).astype("<i4").tobytes()),
        "total": units(found, 4).sum(axis=(0, 1)),
        "varies": ((found > 0).sum(axis=2) > 1).sum(axis=1),
        "soft_masked": genome.soft_masked_windows(contigs, starts, 45).sum(axis=1),
        "known_runs": {name: genome.known_runs(name, 0, length) for name, length in genome.lengths.items()},
    }


def letters() -> Answer:
    """Some letters with their case, and some frequencies as they are read, under other names of the contigs."""
    genome = mutbert.ProbabilisticGenome.open("human.genome")
    return {
        "letters": {name: read.letters_of(genome, name)[:80] for name in genome.lengths},
        "frequencies": genome.frequencies("1", 495, 560),
        "frequencies_by_other_name": genome.variants("MT").frequency,
        "bases": genome.bases("1", 495, 560),
        "variants": genome.variants("22", 20, 90).position,
    }


def by_regions() -> Answer:
    """Score region by region, and join the tables."""
    pysam.tabix_compress("asked.vcf", "asked.vcf.gz", force=True)
    pysam.tabix_index("asked.vcf.gz", preset="vcf", force=True)
    command = [*words_of("$score $everything"), "--vcf", "asked.vcf.gz"]
    pieces, reports = [], []
    for region in ("chr1:1-200", "chr1:201-250", "chr1:251-9999", "2", "chrX"):
        pieces.append(f"{new_name()}.parquet")
        reports.append(cli(*command, "--region", region, "-o", pieces[-1]))
    whole = dict(reports[0])
    for name in ("scored", "missing"):
        whole[name] = dict(sum((Counter(report[name]) for report in reports), Counter()))
    for name in ("records", "alleles", "without_frequency", "without_background"):
        whole[name] = sum(report[name] for report in reports)
    path = Path(f"{new_name()}.parquet")
    pl.concat(map(pl.read_parquet, pieces)).write_parquet(path)
    return READERS["score"](path, whole)


def vectors(command: str) -> Answer:
    """Embed; what is printed is not stored."""
    return {name: one for name, one in of_commands(command).items() if name != "report"}


def finetuned() -> Answer:
    """Fine-tune the stored classifier, so that fresh weights have no part in it; then predict."""
    name = new_name()
    said = cli("finetune", "finetune.yaml", "model=classifier", "train=table.csv", "test=table.csv", f"output={name}")
    words = ("--model", f"{name}/model", "-o", f"{name}.tsv", "--name-column", "name", "--strands", "both")
    return {
        **read.part_of(said, "problem metric best_step steps metrics interval splits"),
        "history": runs.numbers_by_step(said["history"]),
        "predictions": read.predictions_of(runs.predictions_in(Path(name))),
        "predicted": READERS["predict"](Path(cli("predict", "table.csv", *words)["output"]), {}),
    }


def resampled() -> Answer:
    """Report of cells made by hand: each metric of each problem, with intervals, averages and comparisons."""
    rng = np.random.default_rng(51)
    classes = {"binary": "['0', '1']", "multiclass": "[a, b, c]", "multilabel": "[x, y]", "regression": "[z]"}
    metrics = dict.fromkeys(("mcc", "accuracy", "f1", "precision", "recall", "auroc", "auprc"), list(classes)[:3])
    metrics |= {name: ["regression"] for name in ("pearson", "spearman")}
    results, every = Path(new_name()), {}
    (results / "suites").mkdir(parents=True)
    for metric, problems in metrics.items():
        rows = "".join(f"  - {{name: {one}, length: 9, problem: {one}, classes: {classes[one]}}}\n" for one in problems)
        suite = f"version: 1\nname: {metric}\ntitle: {metric}\nmetric: {metric}\ntasks:\n{rows}"
        suite += "files: ['{task}/{split}.csv']\nprotocols: {corrected: {validation: file}}\n"
        (results / "suites" / f"{metric}.yaml").write_text(suite)
        for problem in problems:
            most, width = {"binary": (2, ()), "multiclass": (3, ()), "multilabel": (2, (2,))}.get(problem, (0, ()))
            labels = rng.integers(0, most, (25, *width)) if most else rng.normal(size=25).round(3)
            signal = 2 * np.eye(3)[labels] if problem == "multiclass" else 2 * labels - 1
            for model, method, seeds, noise in (("kmer", "", 1, 4), ("one", "full", 2, 3), ("two", "probe", 2, 2)):
                for seed in range(1, seeds + 1):
                    # Of one digit, so that some are equal.
                    scores = (signal + noise * rng.normal(size=signal.shape)).round(1).astype(np.float32)
                    cell = runs.Cell(metric, problem, model, method, "corrected", seed)
                    found = runs.write_cell(results, cell, problem, metric, labels, scores)
                    if metric in {"mcc", "pearson"}:
                        every["/".join(map(str, cell))] = found
    return {"metrics": every, "report": runs.reported(results)}


def binding() -> Answer:
    """The 126 cells of the binding experiment: their metrics, which are computed anew, and their report."""
    results = ROOT / "experiments" / "gue_tf" / "results"
    cells, metrics = {}, []
    for cell, values in runs.read_cells(results).items():
        again = evaluate(values["problem"], values["labels"], values["scores"])
        assert np.allclose([*again.values()], [values["metrics"][name] for name in again], rtol=1e-12), cell
        cells[cell] = digest(values["labels"].astype("<i8").tobytes() + values["scores"].tobytes())
        metrics.append([*again.values()])
    return {"cells": cells, "metrics": np.array(metrics), "report": runs.reported(results)}


OVERRIDES = (
    "genome=other.genome", "train=[22, no, 'chr1:1-900']", "held_out=[chr2]", "seed=7", "masking.share=0.2",
    "masking.policy=spans", "training.learning_rate=4e-4", "training.max_steps=10", "model.hidden_size=64",
    "training.lr_scheduler_kwargs={a: 1e-8}", "evaluation.windows=8", "dropout.schedule=epoch_start",
    "windows_a_step=null", "initial_model=some/model", "reverse_complement=1", "weighting.variant=2",
)  # fmt: skip


def recipes() -> Answer:
    """Every setting of each shipped recipe, the defaults included, as it is and with other settings."""
    names = sorted(Path(entry.name).stem for entry in files("mutbert").joinpath("recipes").iterdir())
    return {
        f"{name}{changed}": read_settings(PretrainRecipe, name, settings, shipped="recipes").model_dump()
        for name in names
        for changed, settings in (("", ()), (" changed", OVERRIDES))
    }


def draws() -> Answer:
    """Sequences of each part by seed, contigs that are held out, and the order of samples."""

    def part(train: Path, validation: Path | None, test: Path, **settings: Any) -> Answer:
        places = {"train": train, "validation": validation, "test": test}
        found = {name: read_examples(str(path), Columns(name="name")) for name, path in places.items() if path}
        given, sources = ({name: one[which] for name, one in found.items()} for which in (0, 1))
        parts, counts = part_task(given, sources, **{"share": 0.2, "drop_leaks": False, **settings})
        return {"names": {name: " ".join(one.names) for name, one in parts.items()},
                "counts": runs.counts_by_split(counts)}  # fmt: skip

    table = partial(write_table, Path())
    train, test, many = table("number", 4, 60), table("number", 5, 40), table("multiclass", 6, 90)
    validation, shared = table("number", 7, 30), table("number", 4, 20)
    parts = {f"{how} {seed}": part(train, None, test, how=how, seed=seed)
             for how in ("random", "grouped") for seed in (1, 42)}  # fmt: skip
    parts["classes"] = part(many, None, table("multiclass", 7, 20), how="grouped", seed=3)
    parts["file"] = part(train, validation, shared, how="file", seed=1)
    parts["dropped"] = part(train, None, shared, how="grouped", seed=1, drop_leaks=True)
    rng = random.Random(71)
    rows = rng.choices([f"chr{number}" for number in range(1, 9)], weights=range(1, 9), k=120)
    regions = [mutbert.Region(name, 0, 1) for name in rows]
    contigs = {f"{held} {seed}": sorted({rows[row] for row in np.flatnonzero(region_split(regions, held, seed))})
               for held in (0.1, 0.3) for seed in range(4)}  # fmt: skip
    lengths = {"equal": [9] * 23, "several": [rng.randint(3, 60) for _ in range(23)]}
    order = {f"{name} {seed}": sample_order(np.array(one), 40, 4, seed).astype(np.int16)
             for name, one in lengths.items() for seed in (0, 42)}  # fmt: skip
    return {"parts": parts, "contigs": contigs, "order": order}


TABLE = yaml.safe_load((HERE / "cases.yaml").read_text(encoding="utf-8"))
CASES: dict[str, Callable[[], Answer]] = {
    **{name: partial(of_commands, command) for name, command in TABLE.items() if "/" in name},
    **golden_model.CASES,
    "genome/letters": letters,
    "genome/windows": windows,
    "genome/samples/from_python": partial(
        from_python, "genome build", ".genome", mutbert.build_genome, "human.fa", vcf="population.vcf",
        samples=["S1", "S4", "S5", "S9"],
    ),
    "scores/everything/regions": by_regions,
    "scores/longest/from_python": partial(
        from_python, "score", ".parquet", mutbert.score_variants, "model", "small.genome", "asked.vcf", longest=3,
        context=20,
    ),
    "inference/embed/layers/from_python": partial(
        from_python, "embed", ".parquet", mutbert.embed, "model", fasta="sequences.fa", layers="all"
    ),
    "inference/embed/table": partial(
        vectors, "embed --model model --input table.csv --sequence-column sequence -o *.parquet"
    ),
    "inference/mutagenesis/reference/from_python": mutated,
    "training/finetune": finetuned,
    "training/pretrain/published/resumed": partial(
        resumed, "training/pretrain/published", 10, "training.save_steps=10"
    ),
    "runs/finetune/lora/resumed": partial(resumed, "runs/finetune/lora", 2),
    **{f"benchmark/embed/{name}": partial(vectors, f"$embed --strands both --model peers/{name}") for name in PEERS},
    "benchmark/resampling": resampled,
    "benchmark/binding": binding,
    "settings/recipes": recipes,
    "settings/draws": draws,
}  # fmt: skip


def stored_name(name: str) -> str:
    """Return the case whose answer is stored for a case: the one whose name its own extends, or itself."""
    return next(one for one in CASES if f"{name}/".startswith(f"{one}/"))
