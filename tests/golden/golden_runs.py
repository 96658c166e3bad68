"""Cases of training, benchmarks, variant effects and settings: what runs leave behind, read by `golden_adapters`.

Of the tolerances, `EXACT` is equality but for how a processor sums up: what is drawn by a seed, counted, or computed
of stored numbers. What is trained is within `TRAINED`, and what a solver of scikit-learn comes to within `SOLVED`.
Where the stored answers were made all are bit-equal, which ``GOLDEN_EXACT=1 pytest`` asks for. Fresh classifiers come
from torch's generator, and peers' weights from ``benchmarks/peer_files.py``.
"""

import _thread
import csv
import json
import random
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import cases
import golden_adapters as read
import numpy as np
import yaml
from cases import add, cli, digest, numbers_by_step, rows_by_value
from golden_answers import Answer, Tolerance
from golden_inputs import MODEL, Inputs

import mutbert

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EXACT = Tolerance(atol=1e-12, rtol=1e-12)
TRAINED = Tolerance(atol=1e-6, rtol=1e-5)
SOLVED = Tolerance(atol=1e-6, rtol=1e-6)
RESAMPLES = 200
PEERS = ("dnabert2", "nt-500m-1000g", "ntv2-50m", "caduceus-ph", "caduceus-ps")
METHODS = ("--method", "full", "--method", "lora", "--method", "probe")


# Of a sequence and its share of G and C.
LABELS: dict[str, Callable[[str, float], Sequence[Any]]] = {
    "binary": lambda _, share: ["rich" if share > 0.5 else "poor"],
    "number": lambda _, share: [int(share > 0.5)],
    "multiclass": lambda _, share: [min(2, int(3 * share))],
    "multilabel": lambda text, share: [int(share > 0.5), int("ACG" in text)],
    "regression": lambda _, share: [f"{share:.4f}"],
    "token": lambda text, _: [re.sub("[AT]", "0", re.sub("[CG]", "1", text))],
}


def table(inputs: Inputs, kind: str, seed: int = 1, count: int = 44, *, where: str = "") -> Path:
    """Path of sequences rich in A and T or in G and C, some twice or on the other strand, with labels of a kind."""
    rng = random.Random(seed)
    texts: list[str] = []
    for number in range(count):
        weights = [1, 3, 3, 1] if rng.random() < 0.5 else [3, 1, 1, 3]
        texts.append("".join(rng.choices("ACGT", weights=weights, k=rng.randint(20, 50))))
        if number % 9 == 8:
            texts[-1] = texts[number - 5]
        elif number % 11 == 10:
            texts[-1] = texts[number - 7].translate(str.maketrans("ACGT", "TGCA"))[::-1]
    header = ["name", "sequence", *(["rich", "acg"] if kind == "multilabel" else ["label"])]
    shares = [len(re.findall("[CG]", text)) / len(text) for text in texts]
    rows = [[f"s{n}", text, *LABELS[kind](text, shares[n])] for n, text in enumerate(texts)]
    return write_csv(inputs.folder / (where or f"{kind}_{seed}_{count}.csv"), header, rows)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def tasks_of(inputs: Inputs) -> Path:
    """Folder of the tables of the suite ``own``."""
    for task, kind, seed in (("first", "number", 4), ("second", "multiclass", 6)):
        table(inputs, kind, seed, 60, where=f"tasks/{task}/train.csv")
        table(inputs, kind, seed + 1, 40, where=f"tasks/{task}/test.csv")
    return inputs.folder / "tasks"


def peer(inputs: Inputs, name: str) -> Path:
    """Folder of a tiny checkpoint in the layout of a peer's."""
    folder = inputs.folder / "peers" / name
    if not folder.exists():
        with mock.patch.object(sys, "path", [str(ROOT / "benchmarks"), *sys.path]):
            import peer_files
        peer_files.write(name, folder)
    return folder


def snvs_of(inputs: Inputs, seed: int, count: int) -> list[tuple[str, int, str, str]]:
    """Places and alternates on the contigs of the genome that `genome/af` freezes."""
    rng = random.Random(seed)
    genome = mutbert.ProbabilisticGenome.open(inputs.whole)
    letters = {name: cases.letters_of(genome, name).upper() for name in ("chr1", "chr2", "chr22", "chrM")}
    found = []
    while len(found) < count:
        name = rng.choices(list(letters), weights=[6, 2, 2, 1])[0]
        pos = rng.randint(1, len(letters[name]))
        ref = letters[name][pos - 1]
        if ref in "ACGT":
            found.append((name, pos, ref, rng.choice([base for base in "ACGT" if base != ref])))
    return found


def stopped_and_resumed(run: Callable[..., Any], output: Path, step: int | None) -> None:
    """Run; or interrupt it, as Ctrl-C does, once the checkpoint of a step is there, and resume it."""
    if step is None:
        run()
        return
    ended, interrupted = threading.Event(), threading.Event()

    def interrupt() -> None:
        while not ended.wait(0.0005):
            if read.checkpoint_of(output, step).exists():
                interrupted.set()
                _thread.interrupt_main()
                return

    (watcher := threading.Thread(target=interrupt)).start()
    try:
        run()
        # Should it have ended just now.
        time.sleep(0.1)
    except (KeyboardInterrupt, RuntimeError):
        # The command line makes an error of it.
        if not interrupted.is_set():
            raise
    else:
        raise AssertionError("the run ended before it was interrupted")
    finally:
        ended.set()
        watcher.join()
    run(resume=True)


def pretrained(inputs: Inputs, *settings: str, stop_at: int | None = None) -> Answer:
    """History, held-out table and calibration of a pre-training run."""
    output = inputs.output("")
    recipe = inputs.write(f"{output.name}.yaml", cases.RECIPE.format(genome=inputs.whole, output=output, model=MODEL))
    stopped_and_resumed(partial(mutbert.pretrain, recipe, settings), output, stop_at)
    return {"history": numbers_by_step(read.read_history(output)), **read.read_held_out(output)}


def finetuned(inputs: Inputs, kind: str, *settings: str, model: str = "", stop_at: int | None = None) -> Answer:
    """What the folder of a fine-tuning run holds."""
    output = inputs.output("")
    words = [
        f"model={peer(inputs, model) if model else MODEL}", f"train={table(inputs, kind)}",
        f"test={table(inputs, kind, 2, 30)}", f"output={output}", "columns.name=name", "validation_share=0.25",
        "finetune.learning_rate=3e-3", "finetune.warmup_steps=2", "finetune.batch_size=8",
        "finetune.training.logging_steps=1", *settings,
    ]  # fmt: skip
    if kind == "multilabel":
        words.append(f"validation={table(inputs, kind, 3, 20)}")
    stopped_and_resumed(lambda resume=False: cli("finetune", *words, *["--resume"] * resume), output, stop_at)
    predictions: Answer = {}
    for name, column in read.read_predictions(output).items():
        if name.startswith(("p_", "predicted_", "observed_")):
            predictions[name] = np.array(column, dtype=np.float32)
        else:
            predictions[name] = digest(" ".join(column).encode()) if len({*column}) > 8 else rows_by_value(column)
    history = numbers_by_step(read.read_history(output))
    return {**read.read_finetuned(output), "history": history, "predictions": predictions}


def grid(inputs: Inputs, suite: str, data: Path, *words: Any) -> Answer:
    """Cells of a grid, and its report; whether a second run finds something to do."""
    results, report = inputs.output(""), inputs.output("")
    command = ["bench", "run", "--suite", HERE / "inputs" / f"{suite}.yaml", "--data", data, "-o", results, *words]
    done, again = (json.loads(cli(*command, "--json")) for _ in range(2))
    assert not done["failed"], done
    cli("bench", "report", results, "-o", report, "--resamples", RESAMPLES)
    cells: Answer = {}
    for cell, values in read.read_cells(results).items():
        labels, scores = values.pop("labels"), values.pop("scores").astype(np.float32)
        cells["/".join(map(str, cell))] = {**values, "labels": digest(labels.astype("<i8").tobytes()), "scores": scores}
    said = {"done": done["done"], "done_again": again["done"], "suite": read.read_suite(results, suite)}
    return {**said, "cells": cells, "report": read.read_report(report)}


def own_grid(inputs: Inputs) -> Answer:
    words = ("--model", f"tiny={MODEL}", *METHODS, "--set", "corrected.finetune.reverse_complement=true")
    return grid(inputs, "own", tasks_of(inputs), *words)


def peers_grid(inputs: Inputs) -> Answer:
    models = [word for name in PEERS for word in ("--model", f"{name}={peer(inputs, name)}")]
    return grid(
        inputs, "own", tasks_of(inputs), *models, *METHODS, "--task", "first", "--protocol", "corrected", "--seeds", 1,
        "--drop-leaks", "--no-baselines", "--set", "finetune.max_steps=2", "--set", "finetune.strands=both",
    )  # fmt: skip


def peer_embeddings(inputs: Inputs, name: str) -> Answer:
    path = inputs.output(".parquet")
    cli("embed", "--model", peer(inputs, name), "--fasta", inputs.sequences, "-o", path, "--strands", "both")
    return cases.embeddings_of(path)


def eqtl(inputs: Inputs) -> Answer:
    """Causal variants differ from others by whether the alternate is G or C, mostly."""
    rng = random.Random(41)
    rows = []
    for number, (name, pos, ref, alt) in enumerate(snvs_of(inputs, 42, 220)):
        label = int((alt in "GC") if rng.random() < 0.8 else rng.random() < 0.5)
        distance = rng.choice([-1, 1]) * rng.choice([rng.randint(0, 499), 500, rng.randint(501, 9000)])
        tissue = rng.choice(["blood", "liver", "skin"])
        rows.append([name, pos, ref, alt, tissue, label, distance, "train" if number % 3 else "test"])
    header = ["CHROM", "POS", "REF", "ALT", "tissue", "label", "distance_to_nearest_tss", "split"]
    data = write_csv(inputs.folder / "eqtl" / "eqtl.csv", header, rows).parent
    return grid(inputs, "eqtl", data, "--model", f"tiny={MODEL}", "--genome", inputs.whole)


def resampled(inputs: Inputs) -> Answer:
    """Report of cells made by hand: each metric of each problem, with intervals, averages and comparisons."""
    rng = np.random.default_rng(51)
    classes = {"binary": "['0', '1']", "multiclass": "[a, b, c]", "multilabel": "[x, y]", "regression": "[z]"}
    metrics = dict.fromkeys(("mcc", "accuracy", "f1", "precision", "recall", "auroc", "auprc"), list(classes)[:3])
    metrics |= {name: ["regression"] for name in ("pearson", "spearman")}
    suites, made, every = {}, {}, {}
    for metric, problems in metrics.items():
        rows = "".join(f"  - {{name: {one}, length: 9, problem: {one}, classes: {classes[one]}}}\n" for one in problems)
        suites[metric] = f"version: 1\nname: {metric}\ntitle: {metric}\nmetric: {metric}\ntasks:\n{rows}"
        suites[metric] += "files: ['{task}/{split}.csv']\nprotocols: {corrected: {validation: file}}\n"
        for problem in problems:
            most, width = {"binary": (2, ()), "multiclass": (3, ()), "multilabel": (2, (2,))}.get(problem, (0, ()))
            labels = rng.integers(0, most, (25, *width)) if most else rng.normal(size=25).round(3)
            signal = 2 * np.eye(3)[labels] if problem == "multiclass" else 2 * labels - 1
            for model, method, seeds, noise in (("kmer", "", 1, 4), ("one", "full", 2, 3), ("two", "probe", 2, 2)):
                for seed in range(1, seeds + 1):
                    # Of one digit, so that some are equal.
                    scores = (signal + noise * rng.normal(size=signal.shape)).round(1).astype(np.float32)
                    cell = read.Cell(metric, problem, model, method, "corrected", seed)
                    made[cell] = {"problem": problem, "metric": metric, "labels": labels, "scores": scores}
                    if metric in {"mcc", "pearson"}:
                        every["/".join(map(str, cell))] = read.metrics_of(problem, labels, scores)
    results, report = inputs.output(""), inputs.output("")
    read.write_cells(results, suites, made)
    cli("bench", "report", results, "-o", report, "--resamples", RESAMPLES)
    return {"metrics": every, "report": read.read_report(report)}


def binding(inputs: Inputs) -> Answer:
    """The 126 cells of the binding experiment: their metrics, which are computed anew, and their report."""
    results, report = ROOT / "experiments" / "gue_tf" / "results", inputs.output("")
    cells, metrics = {}, []
    for cell, values in read.read_cells(results).items():
        again = read.metrics_of(values["problem"], values["labels"], values["scores"])
        assert np.allclose([*again.values()], [values["metrics"][name] for name in again], rtol=1e-12), cell
        cells["/".join(map(str, cell))] = digest(values["labels"].astype("<i8").tobytes() + values["scores"].tobytes())
        metrics.append([*again.values()])
    cli("bench", "report", results, "-o", report, "--resamples", RESAMPLES)
    return {"cells": cells, "metrics": np.array(metrics), "report": read.read_report(report)}


def vep(inputs: Inputs, kind: str, *words: Any, models: Sequence[str] = ()) -> Answer:
    """A comparison with labels of a kind; variants are SNVs, and a few others that are and are not used."""
    rng = random.Random(61)
    rows = []
    for number, (name, pos, ref, alt) in enumerate(snvs_of(inputs, 62, 150)):
        low = alt in "GC" if rng.random() < 0.7 else rng.random() < 0.5
        label = {"effect": round(low + rng.gauss(0, 1), 2), "multiclass": "abc"[number % 2 + low]}.get(kind)
        if kind == "binary":
            label = rng.choice(["bad", "worse"]) if low else rng.choice(["good"] * 5 + ["unclear", "", "other"])
        splice, group = rng.choice(["", rng.randint(-80, 80)]), rng.choice(["even", "odd", ""])
        rows.append([name, pos, ref, alt, label, round(rng.random(), 3), splice, group])
    for row in rows[3:40:4]:
        row[3] = row[2] + rng.choice(["A", "GT"])
    rows += [rows[0], [*rows[1][:4], rows[2][4], *rows[1][5:]], ["chr1", 3, "A", "C", *rows[0][4:]]]
    header = ["chrom", "pos", "ref", "alt", "effect" if kind == "effect" else "label", "af", "splice", "group"]
    path, output = write_csv(inputs.folder / f"vep_{kind}.csv", header, rows), inputs.output("")
    named = [f"tiny={MODEL}", *(f"{name}={peer(inputs, name)}" for name in models)]
    cli(
        "bench", "vep", "--variants", path, *(word for name in named for word in ("--model", name)), "--genome",
        inputs.whole, "-o", output, "--context", 40, "--resamples", 100, "--frequency", "af", *words,
    )  # fmt: skip
    return {**read.read_vep(output), "scores": cases.columns_of(output / "scores.parquet")}


OVERRIDES = (
    "genome=other.genome", "train=[22, no, 'chr1:1-900']", "held_out=[chr2]", "seed=7", "masking.share=0.2",
    "masking.policy=spans", "training.learning_rate=4e-4", "training.max_steps=10", "model.hidden_size=64",
    "training.lr_scheduler_kwargs={a: 1e-8}", "evaluation.windows=8", "dropout.schedule=epoch_start",
    "windows_a_step=null", "initial_model=some/model", "reverse_complement=1", "weighting.variant=2",
)  # fmt: skip


def recipes(_: Inputs) -> Answer:
    changed = read.resolved_recipes(OVERRIDES).items()
    return read.resolved_recipes() | {f"{name} changed": recipe for name, recipe in changed}


def suites(_: Inputs) -> Answer:
    names = ("tfbs", "nt", "eqtl", HERE / "inputs" / "own.yaml")
    said = json.loads(cli("bench", "list", *(word for name in names for word in ("--suite", name)), "--json"))
    for protocol in (one for suite in said["suites"] if suite["eqtl"] for one in suite["eqtl"]["protocols"].values()):
        protocol["c"] = [f"{float(c):g}" for c in protocol["c"]]
    return {suite.pop("name"): suite for suite in said["suites"]}


def mistakes(inputs: Inputs) -> Answer:
    """Status of users' mistakes, lines that are said, and whether these name the file or the setting."""
    said = yaml.safe_load((HERE / "inputs" / "mistakes.yaml").read_text(encoding="utf-8"))
    folder = inputs.output("")
    folder.mkdir()
    for name, text in said["files"].items():
        (folder / name).write_text(text, encoding="utf-8")
    places = {
        "folder": folder, "out": folder / "out", "model": MODEL, "classifier": inputs.classifier,
        "genome": inputs.whole, "good": table(inputs, "binary"), "suite": HERE / "inputs" / "own.yaml",
        "tasks": tasks_of(inputs),
    }  # fmt: skip
    before, found = sorted(folder.iterdir()), {}
    for name, command in said["commands"]:
        status, error = read.run_program(*shlex.split(command.format(**places)))
        assert sorted(folder.iterdir()) == before, f"{command}: something was left"
        found[command] = {"status": status, "lines": len(error.splitlines()), "named": name in error}
    return found


def draws(inputs: Inputs) -> Answer:
    """Sequences of each part by seed, contigs that are held out, and the order of samples."""
    train, test, many = (
        table(inputs, "number", 4, 60),
        table(inputs, "number", 5, 40),
        table(inputs, "multiclass", 6, 90),
    )
    validation, shared = table(inputs, "number", 7, 30), table(inputs, "number", 4, 20)
    part = partial(read.task_parts, share=0.2)
    parts = {f"{how} {seed}": part(train, None, test, how=how, seed=seed)
             for how in ("random", "grouped") for seed in (1, 42)}  # fmt: skip
    parts["classes"] = part(many, None, table(inputs, "multiclass", 7, 20), how="grouped", seed=3)
    parts["file"] = part(train, validation, shared, how="file", seed=1)
    parts["dropped"] = part(train, None, shared, how="grouped", seed=1, drop_leaks=True)
    rng = random.Random(71)
    rows = rng.choices([f"chr{number}" for number in range(1, 9)], weights=range(1, 9), k=120)
    contigs = {f"{held} {seed}": read.contig_split(rows, held, seed) for held in (0.1, 0.3) for seed in range(4)}
    lengths = {"equal": [9] * 23, "several": [rng.randint(3, 60) for _ in range(23)]}
    order = {f"{name} {seed}": read.sample_order(one, 40, 4, seed).astype(np.int16)
             for name, one in lengths.items() for seed in (0, 42)}  # fmt: skip
    return {"parts": parts, "contigs": contigs, "order": order}


FINETUNED = {
    "binary": ("binary", "finetune.eval_steps=3", "finetune.patience=2", "finetune.epochs=6", "finetune.max_tokens=40"),
    "multiclass": ("multiclass", "finetune.class_weights=balanced", "finetune.strands=both", "finetune.metric=auroc",
                   "finetune.reverse_complement=true"),
    "multilabel": ("multilabel", "columns.label=[rich, acg]", "drop_leaks=true"),
    "regression": ("regression", "finetune.weight_decay=0.1", "finetune.micro_batch_size=3"),
    "token": ("token", "problem=token", "finetune.training.lr_scheduler_type=cosine"),
    "lora": ("binary", "finetune.method=lora", "finetune.epochs=4", "finetune.eval_steps=2"),
}  # fmt: skip


trained, solved, exact = (partial(add, tolerance=one) for one in (TRAINED, SOLVED, EXACT))
few = ("training.max_steps=24", "training.save_steps=6", "training.eval_steps=8", "model.hidden_dropout_prob=0.1")
trained("runs/pretrain", pretrained, *few)
trained("runs/pretrain/resumed", pretrained, *few, stop_at=6, same_as="runs/pretrain")
for name, words in FINETUNED.items():
    trained(f"runs/finetune/{name}", finetuned, *words)
trained("runs/finetune/lora/resumed", finetuned, *FINETUNED["lora"], stop_at=2, same_as="runs/finetune/lora")
solved("runs/finetune/probe", finetuned, "multiclass", "finetune.method=probe")
trained("runs/finetune/peer", finetuned, "binary", "finetune.max_steps=4", model="ntv2-50m")
trained("benchmark/grid", own_grid)
trained("benchmark/peers", peers_grid)
for name in PEERS:
    trained(f"benchmark/embed/{name}", peer_embeddings, name)
solved("benchmark/eqtl", eqtl)
exact("benchmark/resampling", resampled)
exact("benchmark/binding", binding)
label = ("--label", "label", "--positive", "bad,worse", "--exclude", "unclear")
columns = (*label, "--splice-distance", "splice", "--group", "group", "--scores", "llr,unmasked,distance")
trained("effects/binary", vep, "binary", *columns)
trained("effects/numbers", vep, "effect", "--effect", "effect", "--surroundings", "population")
trained("effects/multiclass", vep, "multiclass", "--label", "label", "--windows", "shared")
peers = ("dnabert2", "ntv2-50m", "caduceus-ph")
trained("effects/peers", vep, "binary", *label, "--scores", "llr,distance", models=peers)
for name, run in (("recipes", recipes), ("suites", suites), ("mistakes", mistakes), ("draws", draws)):
    exact(f"settings/{name}", run)
