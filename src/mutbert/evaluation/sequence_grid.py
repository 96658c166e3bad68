"""The cells of a suite of labelled sequences: k-mers, trained models and probes on a task's data.

What is prepared for one cell serves the next, as those of a task and model follow each other.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mutbert.encoders.adapter import CNN
from mutbert.errors import InputError
from mutbert.evaluation.kmer import kmer_baseline
from mutbert.evaluation.results import Cell, Predictions, fingerprint
from mutbert.evaluation.task_files import load_task
from mutbert.scoring.metrics import evaluate
from mutbert.training.classifier import (
    classifier_logits,
    finetune_classifier,
    scores_and_labels,
    unplaced,
)
from mutbert.training.classifier_data import LabelledInputs
from mutbert.training.linear import embed_sequences, fit_linear

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mutbert.encoders.adapter import Encoder
    from mutbert.evaluation.suites import Suite, Task
    from mutbert.evaluation.task_files import LoadedTask
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.training.finetune_settings import FinetuneSettings

KMER: Final = "kmer"
BASELINES: Final = (KMER, CNN)
"""What every grid holds, so that nobody is fooled."""


def sequence_cells(
    suite: Suite,
    tasks: Sequence[Task],
    models: Sequence[str],
    protocols: Sequence[str],
    seeds: int | None,
    *,
    methods: Sequence[str],
    baselines: bool,
) -> list[Cell]:
    """List the cells of a suite of sequences, a task's together, and of these a model's."""
    found = []
    for task in tasks:
        for name in protocols:
            protocol = suite.protocols.get(name)
            if protocol is None:
                continue
            every = range(protocol.first_seed, protocol.first_seed + (seeds or protocol.seeds))
            if baselines:
                # The first knows no chance, but for what a split by seed brings.
                kmer_seeds = every if protocol.validation != "file" else every[:1]
                found += [Cell(suite.name, task.name, KMER, "", name, seed) for seed in kmer_seeds]
                found += [Cell(suite.name, task.name, CNN, "full", name, seed) for seed in every]
            found += [
                Cell(suite.name, task.name, model, method, name, seed)
                for model in models
                for method in methods
                for seed in every
            ]
    return found


class SequenceWork:
    """Does the cells of a suite of sequences.

    Parameters
    ----------
    suite : Suite
        The suite.
    root : str
        Where its files are; see `mutbert.evaluation.task_files.load_task`.
    genome : ProbabilisticGenome or None
        Its allele frequencies are used by models that read them.
    encoder : callable
        Opens a model by its name.
    drop_leaks : bool
        Drop training sequences that validation or test data hold.
    """

    def __init__(
        self,
        suite: Suite,
        root: str,
        genome: ProbabilisticGenome | None,
        encoder: Callable[[str], Encoder],
        *,
        drop_leaks: bool,
    ) -> None:
        self._suite = suite
        self._tasks = {task.name: task for task in suite.tasks}
        self._root = root
        self._genome = genome
        self._encoder = encoder
        self._drop_leaks = drop_leaks
        self._loaded: tuple[Any, LoadedTask] | None = None
        self._unreadable: dict[Any, InputError] = {}
        self._inputs: tuple[Any, dict[str, LabelledInputs]] | None = None
        self._embeddings: tuple[Any, dict[str, Any]] | None = None

    def made_of(self, cell: Cell) -> dict[str, str]:
        """Say what a cell depends on."""
        suite, task = self._suite, self._tasks[cell.task]
        loaded = self._load(task, cell)
        read_as = [task.problem, task.classes, suite.columns.model_dump(), suite.task_column]
        data = {"data": loaded.identity, "task": fingerprint(read_as)}
        if cell.model == KMER:
            return {**data, "model": f"{KMER} 1", "settings": fingerprint([suite.metric_of(task)])}
        encoder = self._encoder(cell.model)
        settings = self.settings_of(task, cell, encoder)
        genome = self._genome_for(encoder)
        used = [settings.model_dump(), suite.metric_of(task), genome and genome.manifest]
        return {**data, "model": encoder.identity(), "settings": fingerprint(used)}

    def work(self, cell: Cell) -> tuple[dict[str, Any], Predictions]:
        """Do a cell."""
        suite, task = self._suite, self._tasks[cell.task]
        metric = suite.metric_of(task)
        loaded = self._load(task, cell)
        about: dict[str, Any] = {
            "metric": metric,
            "smoke": loaded.smoke,
            "splits": [count._asdict() for count in loaded.data.counts],
            "sources": list(loaded.sources),
        }
        if cell.model == KMER:
            values, predictions = _kmer_cell(loaded, metric)
        else:
            encoder = self._encoder(cell.model)
            settings = self.settings_of(task, cell, encoder)
            parts = self._prepared(cell, encoder, settings)
            if self._genome_for(encoder) is not None:
                about["unplaced"] = unplaced(parts)
            do = self._probe_cell if settings.method == "probe" else _trained_cell
            values, predictions = do(cell, encoder, parts, settings, metric)
        return about | values, predictions

    def _load(self, task: Task, cell: Cell) -> LoadedTask:
        protocol = self._suite.protocols[cell.protocol]
        # Only a split by seed is another for another seed.
        seed = cell.seed if protocol.validation != "file" else 0
        key = (task.name, cell.protocol, seed)
        if self._loaded is None or self._loaded[0] != key:
            if key in self._unreadable:
                raise self._unreadable[key]
            try:
                loaded = load_task(self._suite, task, self._root, protocol, seed=seed, drop_leaks=self._drop_leaks)
            except InputError as error:
                # As asking the Hub in vain takes its time.
                self._unreadable[key] = error
                raise
            self._loaded = key, loaded
            self._inputs = self._embeddings = None
        return self._loaded[1]

    def settings_of(self, task: Task, cell: Cell, encoder: Encoder) -> FinetuneSettings:
        """Say how a cell's model is fine-tuned: as the protocol has it for the family and the task."""
        settings = self._suite.protocols[cell.protocol].settings_for(encoder.family)
        most = self._suite.max_tokens(task, cell.protocol, encoder.family)
        scaling = self._suite.rope_scaling(task, cell.protocol, encoder.family)
        return settings.replace(
            method=cell.method,
            max_tokens=settings.max_tokens if most is None else most,
            rope_scaling=settings.rope_scaling if scaling is None else scaling,
        )

    def _genome_for(self, encoder: Encoder) -> ProbabilisticGenome | None:
        """Give the genome to models that read allele frequencies."""
        return self._genome if encoder.family == "mutbert" else None

    def _prepared(self, cell: Cell, encoder: Encoder, settings: FinetuneSettings) -> dict[str, LabelledInputs]:
        assert self._loaded is not None
        key = (self._loaded[0], cell.model, settings.max_tokens)
        if self._inputs is None or self._inputs[0] != key:
            genome = self._genome_for(encoder)
            parts = {
                name: LabelledInputs(encoder.inputs(part, max_tokens=settings.max_tokens, genome=genome), part)
                for name, part in self._loaded[1].data.parts.items()
            }
            self._inputs = key, parts
        return self._inputs[1]

    def _probe_cell(
        self,
        cell: Cell,
        encoder: Encoder,
        parts: Mapping[str, LabelledInputs],
        settings: FinetuneSettings,
        metric: str,
    ) -> tuple[dict[str, Any], Predictions]:
        assert self._inputs is not None
        # Weights of a trained model are the same for every seed.
        key = (self._inputs[0], settings, cell.seed if encoder.identity().startswith("random:") else None)
        tokens = 0
        if self._embeddings is None or self._embeddings[0] != _frozen(key):
            longest = max(int(part.inputs.length_N.max()) for part in parts.values())
            torch.manual_seed(cell.seed)
            body = encoder.body(longest, rope_scaling=settings.rope_scaling)
            body.to("cuda" if torch.cuda.is_available() else "cpu")
            found = {name: embed_sequences(encoder, body, part.inputs, settings) for name, part in parts.items()}
            parameters = sum(parameter.numel() for parameter in body.parameters())
            self._embeddings = _frozen(key), {"parameters": parameters, **found}
            tokens = int(sum(part.inputs.length_N.sum() for part in parts.values()))
        embedded = self._embeddings[1]
        probe = fit_linear(
            parts["train"].problem,
            (embedded["train"], parts["train"].examples.known_labels),
            (embedded["validation"], parts["validation"].examples.known_labels),
            classes=len(parts["train"].examples.classes),
            metric=metric,
            class_weights=settings.class_weights,
        )
        examples = parts["test"].examples
        scores = probe.scores(embedded["test"])
        validation = parts["validation"].examples
        values = {
            "problem": examples.problem,
            "metrics": evaluate(examples.problem, examples.known_labels, scores),
            "validation": _number(
                evaluate(validation.problem, validation.known_labels, probe.scores(embedded["validation"]), [metric])[
                    metric
                ]
            ),
            "chosen": {"c": probe.c},
            "parameters": embedded["parameters"],
            "tokens": tokens,
        }
        return values, Predictions(examples.known_labels, scores)


def _kmer_cell(loaded: LoadedTask, metric: str) -> tuple[dict[str, Any], Predictions]:
    data = loaded.data
    assert data.test is not None
    found = kmer_baseline(data.train, data.validation, data.test, metric=metric)
    problem = data.test.problem
    value = evaluate(problem, data.validation.known_labels, found.validation, [metric])[metric]
    values = {
        "problem": problem,
        "metrics": evaluate(problem, data.test.known_labels, found.test),
        "validation": _number(value),
        "chosen": {"c": found.c},
        "parameters": None,
    }
    return values, Predictions(data.test.known_labels, found.test)


def _trained_cell(
    cell: Cell, encoder: Encoder, parts: Mapping[str, LabelledInputs], settings: FinetuneSettings, metric: str
) -> tuple[dict[str, Any], Predictions]:
    with tempfile.TemporaryDirectory() as folder:
        trained = finetune_classifier(
            encoder, parts["train"], parts["validation"], settings, Path(folder), metric=metric, seed=cell.seed
        )
        test = parts["test"]
        each_token = test.examples.problem == "token"
        logits = classifier_logits(trained.model, test.inputs, settings, each_token=each_token)
    problem, labels, scores = scores_and_labels(test.examples, logits)
    values = {
        "problem": problem,
        "metrics": evaluate(problem, labels, scores),
        "validation": next(
            entry[f"eval_{metric}"]
            for entry in trained.history
            if entry["step"] == trained.best_step and f"eval_{metric}" in entry
        ),
        "chosen": {"step": trained.best_step, "of": trained.steps},
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "tokens": trained.tokens,
    }
    return values, Predictions(labels, np.asarray(scores, dtype=np.float32))


def _frozen(key: Any) -> str:
    return fingerprint([str(key)])


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
