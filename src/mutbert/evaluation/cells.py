"""Cells of the grid: which there are, and how one is made; those of one task and model share what is prepared.

To make a cell is to return its record for the JSON, and labels and scores of its test rows.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from mutbert.encoders.adapter import CNN
from mutbert.encoders.known import RANDOM
from mutbert.errors import InputError
from mutbert.evaluation.eqtl import FEATURES, HEADS, embed_variants, evaluate_variants
from mutbert.evaluation.eqtl_table import open_genome, read_variants
from mutbert.evaluation.kmer import kmer_baseline
from mutbert.evaluation.results import Cell, fingerprint
from mutbert.evaluation.task_files import load_task, task_file
from mutbert.files import sha256_of
from mutbert.scoring.metrics import evaluate
from mutbert.training.classifier import (
    classifier_logits,
    classifier_trainer,
    scores_and_labels,
    unplaced,
)
from mutbert.training.classifier_data import LabelledInputs
from mutbert.training.linear import embed_sequences, fit_linear

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from mutbert.encoders.adapter import Encoder
    from mutbert.evaluation.eqtl import VariantEmbeddings
    from mutbert.evaluation.eqtl_table import Variants
    from mutbert.evaluation.run import GridRequest
    from mutbert.evaluation.suites import Suite
    from mutbert.evaluation.task_files import LoadedTask
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.training.finetune_settings import FinetuneSettings

    Made = tuple[dict[str, Any], npt.NDArray[Any], npt.NDArray[Any]]

KMER: Final = "kmer"
BASELINES: Final = (KMER, CNN)
"""In every grid, so that nobody is fooled."""
EQTL_METHODS: Final = tuple(f"{head}, {feature}" for head in HEADS for feature in FEATURES)
"""A head and its features: the mean of a window, or the variant's own token."""


def cells_of(suite: Suite, tasks: list[str], models: list[str], request: GridRequest) -> list[Cell]:
    """Return the cells of a suite, those that share work next to each other."""
    found = []
    for name in request.protocols:
        protocol = suite.grid.protocols.get(name)
        if protocol is None:
            continue
        first = protocol.first_seed if request.first_seed is None else request.first_seed
        seeds = range(first, first + (request.seeds or protocol.seeds))
        if suite.eqtl is not None:
            kinds = [(model, task, method) for model in models for task in tasks for method in EQTL_METHODS]
            found += [
                Cell(suite.name, task, model, method, name, seed) for model, task, method in kinds for seed in seeds
            ]
            continue
        for task in tasks:
            for model in [*(BASELINES if request.baselines else ()), *models]:
                # The k-mers depend on no seed, but for a split by it.
                own = seeds[:1] if model == KMER and protocol.validation == "file" else seeds
                methods = {KMER: ("",), CNN: ("full",)}.get(model, request.methods)
                found += [Cell(suite.name, task, model, method, name, seed) for method in methods for seed in own]
    # Those of a task together; asked for twice, made once.
    order = {task: index for index, task in enumerate(tasks)} if suite.eqtl is None else {}
    return sorted(dict.fromkeys(found), key=lambda cell: order.get(cell.task, 0))


class SequenceCells:
    """Makes the cells of a suite of labelled sequences; `genome` has frequencies for models that read them."""

    def __init__(
        self,
        suite: Suite,
        root: str,
        encoder: Callable[[str], Encoder],
        genome: ProbabilisticGenome | None = None,
        *,
        drop_leaks: bool = False,
    ) -> None:
        self._suite, self._root, self._encoder, self._genome = suite, root, encoder, genome
        self._drop_leaks = drop_leaks
        self._loaded = lru_cache(maxsize=1)(self._load)
        self._prepared = lru_cache(maxsize=1)(self._prepare)
        self._embedded = lru_cache(maxsize=1)(self._embed)

    def make(self, cell: Cell) -> Made:
        """Make a cell."""
        suite, task = self._suite, self._suite.task(cell.task)
        metric = suite.metric_of(task)
        # Only a split by seed is another for another seed.
        part = cell.task, cell.protocol, cell.seed if suite.protocols[cell.protocol].validation != "file" else 0
        loaded = self._loaded(*part)
        read_as = [task.problem, task.classes, suite.columns.model_dump(), metric]
        identity: dict[str, Any] = {"data": loaded.identity, "task": fingerprint(read_as)}
        record: dict[str, Any] = {
            "metric": metric,
            "note": loaded.note,
            "splits": [count._asdict() for count in loaded.data.counts],
            "sources": loaded.sources,
            "identity": identity,
        }
        test = loaded.data.parts["test"]
        problem, labels = test.problem, test.known_labels
        if cell.model == KMER:
            identity["model"] = f"{KMER} 1"
            model, validated, scores = kmer_baseline(*loaded.data.parts.values(), metric=metric)
            value = evaluate(problem, loaded.data.validation.known_labels, validated, [metric])[metric]
            record |= {"problem": problem, "validation": value, "chosen": {"c": model.c}, "parameters": None}
            return record, labels, scores
        encoder = self._encoder(cell.model)
        settings = self.settings_of(cell.task, cell.protocol, cell.method, encoder.family)
        genome = self._genome_of(encoder)
        identity |= {"model": encoder.identity(), "settings": settings.model_dump(mode="json")}
        identity["genome"] = genome and genome.identity
        parts = self._prepared(part, cell.model, settings.max_tokens)
        record["unplaced"] = {} if genome is None else unplaced(parts)
        if settings.method == "probe":
            values, scores = self._probe(cell, part, settings, metric)
        else:
            values, (problem, labels, scores) = _trained(cell, encoder, parts, settings, metric)
        return record | values | {"problem": problem}, labels, scores

    def settings_of(self, task: str, protocol: str, method: str, family: str) -> FinetuneSettings:
        """Return how a model of a family is fine-tuned on a task."""
        row = self._suite.task(task)
        settings = self._suite.protocols[protocol].settings_for(family)
        most = self._suite.max_tokens(row, protocol, family)
        scaling = self._suite.rope_scaling(row, protocol, family)
        return settings.replace(
            method=method,
            max_tokens=settings.max_tokens if most is None else most,
            rope_scaling=settings.rope_scaling if scaling is None else scaling,
        )

    def _load(self, task: str, protocol: str, seed: int) -> LoadedTask:
        suite = self._suite
        how = suite.protocols[protocol]
        return load_task(suite, suite.task(task), self._root, how, seed=seed, drop_leaks=self._drop_leaks)

    def _genome_of(self, encoder: Encoder) -> ProbabilisticGenome | None:
        return self._genome if encoder.family == "mutbert" else None

    def _prepare(self, part: tuple[str, str, int], model: str, max_tokens: int | None) -> dict[str, LabelledInputs]:
        encoder = self._encoder(model)
        genome = self._genome_of(encoder)
        return {
            name: LabelledInputs(encoder.inputs(examples, max_tokens=max_tokens, genome=genome), examples)
            for name, examples in self._loaded(*part).data.parts.items()
        }

    def _embed(self, part: tuple[str, str, int], model: str, seed: int) -> tuple[Any, int]:
        encoder = self._encoder(model)
        settings = self.settings_of(*part[:2], "probe", encoder.family)
        parts = self._prepared(part, model, settings.max_tokens)
        longest = max(int(own.inputs.length_N.max()) for own in parts.values())
        body, parameters = _body(encoder, longest, settings.rope_scaling, seed)
        return {name: embed_sequences(encoder, body, own.inputs, settings) for name, own in parts.items()}, parameters

    def _probe(
        self, cell: Cell, part: tuple[str, str, int], settings: FinetuneSettings, metric: str
    ) -> tuple[dict[str, Any], npt.NDArray[Any]]:
        parts, before = self._prepared(part, cell.model, settings.max_tokens), self._embedded.cache_info().misses
        # Weights of a trained model are the same for every seed.
        fresh = self._encoder(cell.model).identity().startswith(RANDOM)
        embedded, parameters = self._embedded(part, cell.model, cell.seed if fresh else 0)
        train, validation = ((embedded[name], parts[name].examples.known_labels) for name in ("train", "validation"))
        examples = parts["train"].examples
        probe = fit_linear(
            examples.problem,
            train,
            validation,
            classes=len(examples.classes),
            metric=metric,
            class_weights=settings.class_weights,
        )
        new = self._embedded.cache_info().misses > before
        tokens = sum(int(own.inputs.length_N.sum()) for own in parts.values()) if new else 0
        value = evaluate(examples.problem, validation[1], probe.scores(validation[0]), [metric])[metric]
        values = {"validation": value, "chosen": {"c": probe.c}, "parameters": parameters, "tokens": tokens}
        return values, probe.scores(embedded["test"])


def _body(encoder: Encoder, longest: int, rope_scaling: Any, seed: int) -> tuple[Any, int]:
    """Return a model without a head on its device, and its number of parameters; `seed` is of fresh weights."""
    torch.manual_seed(seed)
    body = encoder.body(longest, rope_scaling=rope_scaling)
    body.to("cuda" if torch.cuda.is_available() else "cpu")
    return body, sum(parameter.numel() for parameter in body.parameters())


def _trained(
    cell: Cell, encoder: Encoder, parts: dict[str, LabelledInputs], settings: FinetuneSettings, metric: str
) -> tuple[dict[str, Any], tuple[str, npt.NDArray[Any], npt.NDArray[Any]]]:
    test = parts["test"]
    with tempfile.TemporaryDirectory() as folder:
        trained = classifier_trainer(
            encoder, parts["train"], parts["validation"], settings, Path(folder), metric=metric, seed=cell.seed
        ).fine_tune()
        each_token = test.examples.problem == "token"
        logits = classifier_logits(trained.model, test.inputs, settings, each_token=each_token)
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    chosen = {"step": trained.best_step, "of": trained.steps}
    best = [
        entry[f"eval_{metric}"]
        for entry in trained.history
        if entry["step"] == trained.best_step and f"eval_{metric}" in entry
    ]
    values = {"validation": best[0], "chosen": chosen, "parameters": parameters, "tokens": trained.tokens}
    return values, scores_and_labels(test.examples, logits)


class EqtlCells:
    """Makes the cells of an eQTL suite; `reference` is a FASTA or a genome store."""

    def __init__(self, suite: Suite, root: str, encoder: Callable[[str], Encoder], reference: str | None) -> None:
        if reference is None:
            raise InputError(f"{suite.name}: needs the reference; give --fasta or --genome")
        if not Path(reference).exists():
            raise InputError(f"{reference}: no such file; give the reference by --fasta or --genome")
        assert suite.eqtl is not None
        self._suite, self._eqtl, self._root, self._encoder = suite, suite.eqtl, root, encoder
        self._reference = reference
        self._data = lru_cache(maxsize=1)(self._read)
        self._embedded = lru_cache(maxsize=1)(self._embed)

    def make(self, cell: Cell) -> Made:
        """Make a cell."""
        read, _, word = self._data()
        protocol, task = self._eqtl.protocols[cell.protocol], self._suite.task(cell.task)
        before = self._embedded.cache_info().misses
        embeddings, parameters, tokens = self._embedded(cell.model, cell.protocol)
        head, feature = cell.method.split(", ")
        found = evaluate_variants(embeddings, task, protocol, head=head, feature=feature, seed=cell.seed)
        rows = {"train": len(found.train_rows), "test": len(found.test_rows)}
        same = {"duplicates": 0, "in_train": 0, "dropped": 0, "sha256": read.source.sha256}
        record = {
            "problem": "binary",
            "metric": self._suite.metric,
            "validation": None,
            "chosen": {"c": found.c},
            "parameters": parameters,
            "tokens": tokens if self._embedded.cache_info().misses > before else 0,
            "note": "",
            "rows": {**rows, "split_by": read.split_by, "unused": found.unused, "saved": embeddings.saved},
            "splits": [{"split": name, "examples": count, **same} for name, count in rows.items()],
            "sources": [{"split": "all", **vars(read.source)}],
            "identity": {
                "data": fingerprint([read.source.sha256, self._eqtl.length]),
                "reference": word,
                "task": fingerprint([task.model_dump(), self._eqtl.columns.model_dump()]),
                "model": self._encoder(cell.model).identity(),
                "settings": protocol.model_dump(mode="json"),
            },
        }
        return record, found.labels, found.scores

    def _read(self) -> tuple[Variants, ProbabilisticGenome, str]:
        read = read_variants(task_file(self._suite, self._root, "", "train") or "", self._eqtl.columns)
        genome = open_genome(self._reference, read.table)
        word = genome.identity if genome.manifest else sha256_of(Path(self._reference))
        return read, genome, word

    def _embed(self, model: str, name: str) -> tuple[VariantEmbeddings, int, int]:
        read, genome, _ = self._data()
        encoder, protocol = self._encoder(model), self._eqtl.protocols[name]
        longest = self._eqtl.length + 2 * protocol.special_tokens
        own = encoder.family == "mutbert"
        scaling = {"type": "dynamic", "factor": protocol.rope_factor} if own and protocol.rope_factor else None
        # All seeds of a protocol share what is embedded, so fresh weights are those of the first.
        body, parameters = _body(encoder, longest, scaling, protocol.first_seed)
        embeddings = embed_variants(encoder, body, read, genome, protocol, self._eqtl.length)
        return embeddings, parameters, len(embeddings.key_U) * longest
