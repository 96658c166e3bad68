"""Cells of the grid: which there are, and how one is made; those of one task and model share what is prepared."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from scipy.sparse import csr_matrix

from mutbert.arrays import Float32
from mutbert.encoders.adapter import CNN, Encoder
from mutbert.encoders.known import RANDOM
from mutbert.errors import InputError
from mutbert.evaluation import eqtl
from mutbert.examples.splits import part_task, random_split
from mutbert.examples.table import Examples, read_examples
from mutbert.files import sha256_of
from mutbert.genome.store import ProbabilisticGenome
from mutbert.progress import progress_bar
from mutbert.scoring.metrics import evaluate
from mutbert.tables import NoSuchFileError, SourceFile, find_file, is_fasta
from mutbert.training import classifier
from mutbert.training.finetune import embed_sequences, fit_linear, linear_scores

Record = dict[str, Any]  # what a cell's JSON has
Made = tuple[Record, npt.NDArray[Any], npt.NDArray[Any]]  # and labels and scores of its test rows
Part = tuple[str, str, int]  # task, protocol and seed of a split

if TYPE_CHECKING:
    from mutbert.evaluation.run import GridRequest
    from mutbert.evaluation.suites import Suite


KMER: Final = "kmer"
BASELINES: Final = (KMER, CNN)  # trivial models, which a language model has to beat
LENGTHS: Final = (4, 5, 6, 7)  # of k-mers
PENALTIES: Final = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)  # inverse ones, which are tried for k-mers
HUB: Final = "hf://"


class Cell(NamedTuple):
    """A model, trained by a method with a seed on a suite's task as a protocol has it."""

    suite: str
    task: str
    model: str
    method: str  # empty where there is only one
    protocol: str
    seed: int

    def __str__(self) -> str:
        return f"{self.suite}/{self.task}, {label_of(self.model, self.method)}, {self.protocol}, seed {self.seed}"

    def path(self, folder: Path) -> Path:
        """Path of its JSON file; names are percent-encoded, as a model may be called by its repository."""
        model = f"{self.model}-{self.method}" if self.method else self.model
        parts = [quote(word, safe=" ,+=@") for word in (self.suite, self.task, model)]
        return folder.joinpath(*parts, f"{self.protocol}-{self.seed}.json")


def label_of(model: str, method: str) -> str:
    """Return a model and its method for people."""
    return f"{model} ({method})" if method else model


def cell_of(record: Mapping[str, Any]) -> Cell:
    """Return the cell that a record is of."""
    return Cell(*(record[name] for name in Cell._fields))


def cells_of(suite: Suite, models: Iterable[str], request: GridRequest) -> list[Cell]:
    """Return the cells of a suite, each once; those that share work follow each other."""
    chosen = {*request.tasks}
    tasks = [task for task in suite.by_name if not chosen or chosen & {task, f"{suite.name}/{task}"}]
    names = [name for name in request.protocols if name in suite.grid.protocols]
    every = [*(BASELINES if request.baselines and suite.eqtl is None else ()), *models]
    found = []
    for task, name, model in product(tasks, names, every):
        protocol, methods = suite.grid.protocols[name], request.methods
        first = protocol.first_seed if request.first_seed is None else request.first_seed
        seeds = range(first, first + (request.seeds or protocol.seeds))
        if suite.eqtl:
            methods = tuple(f"{head}, {feature}" for head, feature in product(eqtl.HEADS, eqtl.FEATURES))
        elif model in BASELINES:
            methods = ("",) if model == KMER else ("full",)
            # The k-mers depend on no seed, but for a split by it.
            seeds = seeds[:1] if model == KMER and protocol.validation == "file" else seeds
        found += [Cell(suite.name, task, model, method, name, seed) for method, seed in product(methods, seeds)]
    if suite.eqtl:
        # All tasks share a model's embeddings.
        found.sort(key=lambda cell: (names.index(cell.protocol), every.index(cell.model)))
    return list(dict.fromkeys(found))


class SequenceCells:
    """Makes the cells of a suite of labelled sequences; `genome` has frequencies for models that read them."""

    def __init__(
        self, suite: Suite, root: str, encoder: Callable[[str], Encoder], genome: ProbabilisticGenome | None = None, *,
        drop_leaks: bool = False, show: bool = False,
    ) -> None:  # fmt: skip
        self._suite, self._encoder, self._genome, self._show = suite, encoder, genome, show
        self._loaded = lru_cache(maxsize=1)(partial(_load_task, suite, root, drop_leaks))
        self._prepared = lru_cache(maxsize=1)(self._prepare)
        self._embedded = lru_cache(maxsize=1)(self._embed)

    def make(self, cell: Cell) -> Made:
        """Make a cell."""
        suite, task = self._suite, self._suite.by_name[cell.task]
        metric, protocol = task.metric or suite.metric, suite.protocols[cell.protocol]
        # Only a split by seed is another for another seed.
        part = cell.task, cell.protocol, 0 if protocol.validation == "file" else cell.seed
        data, about = self._loaded(*part)
        read_as = [task.problem, task.classes, suite.columns.model_dump(), metric]
        identity: Record = {"data": about["identity"], "task": fingerprint(read_as)}
        record: Record = {**about, "metric": metric, "identity": identity, "parameters": None}
        if cell.model == KMER:
            identity["model"] = f"{KMER} 1"
            values, scores = kmer_baseline(data, metric)
            return record | values, data["test"].known_labels, scores
        encoder = self._encoder(cell.model)
        settings = suite.settings_of(task, cell.protocol, encoder.family).replace(method=cell.method)
        genome = self._genome if encoder.family == "mutbert" else None
        identity |= {"model": encoder.identity(), "settings": settings.model_dump(mode="json")}
        identity["genome"] = genome and genome.identity
        parts = self._prepared(part, encoder, settings.max_tokens)
        record["unplaced"] = {} if genome is None else classifier.unplaced(parts)
        if settings.method == "probe":
            # Weights of a trained model are the same for every seed.
            seed = cell.seed if encoder.identity().startswith(RANDOM) else 0
            embedded, cost = self._embedded(part, encoder, seed)
            values, scores = _linear(data, embedded, metric, class_weights=settings.class_weights)
            # What the embeddings took counts for the first cell that uses them.
            values |= {"parameters": cost["parameters"], "tokens": cost.pop("tokens", 0)}
            return record | values, data["test"].known_labels, scores
        with tempfile.TemporaryDirectory() as folder:
            trainer = classifier.classifier_trainer(
                encoder, parts["train"], parts["validation"], settings, Path(folder), metric=metric, seed=cell.seed,
                longest=int(parts["test"].inputs.length_N.max()),
            )  # fmt: skip
            model, trained = trainer.fine_tune(show=self._show)
            logits = classifier.classifier_logits(model, parts["test"], settings)
        problem, labels, scores = classifier.scores_and_labels(parts["test"].examples, logits)
        values = {"problem": problem, "validation": trained["validation"][metric], "tokens": trained["tokens"]}
        values["chosen"] = {"step": trained["best_step"], "of": trained["steps"]}
        values["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        return record | values, labels, scores

    def _prepare(self, part: Part, encoder: Encoder, most: int | None) -> dict[str, classifier.LabelledInputs]:
        genome = self._genome if encoder.family == "mutbert" else None
        return {
            name: classifier.LabelledInputs(encoder.inputs(examples, max_tokens=most, genome=genome), examples)
            for name, examples in self._loaded(*part)[0].items()
        }

    def _embed(self, part: Part, encoder: Encoder, seed: int) -> tuple[dict[str, Float32], Record]:
        settings = self._suite.settings_of(self._suite.by_name[part[0]], part[1], encoder.family)
        parts = self._prepared(part, encoder, settings.max_tokens)
        lengths = np.concatenate([own.inputs.length_N for own in parts.values()])
        body, parameters = _body(encoder, int(lengths.max()), settings.rope_scaling, seed)
        with progress_bar("embedding", len(lengths), unit="sequences", show=self._show) as advance:
            embed = partial(embed_sequences, encoder, body, settings=settings, advance=advance)
            embedded = {name: embed(own.inputs) for name, own in parts.items()}
        return embedded, {"parameters": parameters, "tokens": int(lengths.sum())}


def kmer_features(examples: Examples) -> csr_matrix:
    """Return which 4- to 7-mers of A, C, G and T each sequence has on either strand, as float32 (N, 21760).

    Columns are 4-mers first, in alphabetical order; a k-mer and its reverse complement share the first one's.
    """
    code_T = examples.base_codes.astype(np.int32)
    row_T = np.repeat(np.arange(len(examples)), examples.lengths)
    # Of the k-mer that begins at each base: its number, that of its reverse complement, and whether it is one.
    forward_T, reverse_T, known_T = np.zeros_like(code_T), np.zeros_like(code_T), np.ones(len(code_T), dtype=np.bool_)
    rows, columns, width = [], [], 0
    for k in range(1, LENGTHS[-1] + 1):
        count = max(len(code_T) - k + 1, 0)
        last_T = code_T[k - 1 :]
        forward_T = forward_T[:count] * 4 + last_T
        reverse_T = reverse_T[:count] + (3 - last_T) * 4 ** (k - 1)
        known_T = known_T[:count] & (last_T < 4) & (row_T[:count] == row_T[k - 1 :])
        if k in LENGTHS:
            rows.append(row_T[:count][known_T])
            columns.append(width + np.minimum(forward_T, reverse_T)[known_T])
            width += 4**k
    where = np.concatenate(rows), np.concatenate(columns)
    features = csr_matrix((np.ones(len(where[0]), np.float32), where), shape=(len(examples), width))
    features.data[:] = 1
    return features


def kmer_baseline(parts: Mapping[str, Examples], metric: str) -> tuple[Record, Float32]:
    """Return what a linear model of the training data's k-mers reached on validation data, and scores of test rows."""
    every = {name: kmer_features(part) for name, part in parts.items()}
    used = np.flatnonzero(every["train"].getnnz(axis=0))
    if parts["train"].problem != "token" and not len(used):
        raise InputError(f"kmer: no training sequence has {LENGTHS[0]} known bases in a row")
    features = {name: found[:, used] for name, found in every.items()}
    return _linear(parts, features, metric, penalties=PENALTIES, scale=False, iterations=300)


def _linear(
    parts: Mapping[str, Examples], features: Mapping[str, Any], metric: str, **options: Any
) -> tuple[Record, Float32]:
    """Return what a linear model with C chosen on validation data reached there, and its scores of test rows."""
    problem, classes = parts["train"].problem, len(parts["train"].classes)
    train, validation = ((features[name], parts[name].known_labels) for name in ("train", "validation"))
    model = fit_linear(problem, train, validation, classes=classes, metric=metric, **options)
    validated, tested = (linear_scores(problem, features[name], model) for name in ("validation", "test"))
    value = evaluate(problem, validation[1], validated, [metric])[metric]
    return {"problem": problem, "validation": value, "chosen": {"c": model[0]}}, tested


def _body(encoder: Encoder, longest: int, rope_scaling: Any, seed: int) -> tuple[Any, int]:
    """Return a model without a head on its device, and its number of parameters; `seed` is of fresh weights."""
    torch.manual_seed(seed)
    body = encoder.body(longest, rope_scaling=rope_scaling)
    body.to("cuda" if torch.cuda.is_available() else "cpu")
    return body, sum(parameter.numel() for parameter in body.parameters())


def _load_task(
    suite: Suite, root: str, drop_leaks: bool, task: str, protocol: str, seed: int
) -> tuple[dict[str, Examples], Record]:
    """Return a task's parts, split by `seed` where validation data have no file, and what a cell's record has of it."""
    how, row = suite.protocols[protocol], suite.by_name[task]
    classes = row.classes if row.problem in {"binary", "multiclass", "token"} else None
    parts, sources = dict[str, Any](), dict[str, Any]()
    for split in suite.splits:
        if path := task_file(suite, root, task, split):
            # The columns of a FASTA have names of their own.
            fasta = {"sequence": "sequence", "label": "label", "name": "name", "region": "name"}
            columns = suite.columns.replace(**fasta) if is_fasta(path) else suite.columns
            parts[split], sources[split] = read_examples(path, columns, problem=row.problem, classes=classes)
    train, most, note = parts["train"], how.max_train_rows, ""
    if most is not None and most < len(train):
        chosen_N = random_split(len(train), most / len(train), 0)
        parts["train"] = train.select(np.flatnonzero(chosen_N)[:most])
        note = f"{suite.name}: at most {most:,} training sequences; no benchmark"
    validation = "file" if "validation" in parts else how.validation
    data, counts = part_task(
        parts, sources, how=validation, share=how.validation_share, seed=seed, drop_leaks=drop_leaks
    )
    # The seed of a split is in the cell's name.
    settings = [validation, how.validation_share, most, drop_leaks]
    identity = fingerprint([sorted((name, source.sha256) for name, source in sources.items()), settings])
    read = [{"split": name, **vars(source)} for name, source in sources.items()]
    return data, {"note": note, "splits": counts, "sources": read, "identity": identity}


def task_file(suite: Suite, root: str, task: str, split: str) -> str | None:
    """Return the path of a task's file below a folder or Hub data set; None where there are no validation data."""
    if (suite.eqtl or suite.vep) and not root.startswith(HUB) and Path(root).is_file():
        return root
    called: str = suite.splits[split]  # type: ignore[index]
    names = [pattern.replace("{task}", task).replace("{split}", called) for pattern in suite.files]
    for path in (f"{root.rstrip('/')}/{name}" for name in names):
        if root.startswith(HUB):
            with suppress(NoSuchFileError):
                find_file(path)
                return path
        if found := next((one for one in (path, f"{path}.gz") if Path(one).is_file()), None):
            return found
    if split == "validation":
        return None
    option = "--variants" if suite.vep else f"--data {suite.name}=..., or the tasks that there are by --task"
    raise InputError(f"{root}: has none of {', '.join(names)}; name the folder of the {suite.name} files by {option}")


class EqtlCells:
    """Makes the cells of an eQTL suite; `reference` is a FASTA or a genome store."""

    def __init__(
        self, suite: Suite, root: str, encoder: Callable[[str], Encoder], reference: str | None, *, show: bool = False
    ) -> None:
        if reference is None or not Path(reference).exists():
            what = "needs the reference" if reference is None else f"there is no reference {reference}"
            raise InputError(f"{suite.name}: {what}; add --fasta or --genome")
        self._suite, self._root, self._encoder, self._reference, self._show = suite, root, encoder, reference, show
        self._eqtl: Any = suite.eqtl
        self._embedded = lru_cache(maxsize=1)(self._embed)

    def make(self, cell: Cell) -> Made:
        """Make a cell."""
        _, source, _, reference = self._data
        protocol, task = self._eqtl.protocols[cell.protocol], self._suite.by_name[cell.task]
        table, features, about = self._embedded(cell.model, cell.protocol)
        head, feature = cell.method.split(", ")
        train, test, unused = eqtl.choose_rows(table, task, protocol, cell.seed)
        scores, c = eqtl.score_variants(
            table, features[feature], train, test, protocol, head=head, seed=cell.seed, length=self._eqtl.length,
            name=f"{source.place}, task {task.name}",
        )  # fmt: skip
        rows = {"train": len(train), "test": len(test)}
        same = {"duplicates": 0, "in_train": 0, "dropped": 0, "sha256": source.sha256}
        record = {
            "problem": "binary", "metric": self._suite.metric, "validation": math.nan, "chosen": {"c": c},
            "parameters": about["parameters"], "tokens": about.pop("tokens", 0), "note": "",
            "rows": {**rows, "unused": unused}, "sources": [{"split": "all", **vars(source)}],
            "splits": [{"split": name, "examples": count, **same} for name, count in rows.items()],
            "identity": {
                "data": fingerprint([source.sha256, self._eqtl.length]), "reference": reference,
                "task": fingerprint([task.model_dump(), self._eqtl.columns]),
                "model": self._encoder(cell.model).identity(), "settings": protocol.model_dump(mode="json"),
            },
        }  # fmt: skip
        return record, table["label"].to_numpy()[test], scores

    @cached_property
    def _data(self) -> tuple[pl.DataFrame, SourceFile, ProbabilisticGenome, str]:
        read = eqtl.read_variants(task_file(self._suite, self._root, "", "train") or "", self._eqtl.columns)
        genome = eqtl.open_genome(self._reference, read[0]["contig"])
        return *read, genome, genome.identity if genome.manifest else sha256_of(Path(self._reference))

    def _embed(self, model: str, name: str) -> tuple[pl.DataFrame, dict[str, Float32], Record]:
        table, source, genome, _ = self._data
        encoder, protocol, length = self._encoder(model), self._eqtl.protocols[name], self._eqtl.length
        longest, scaling = length + 2 * protocol.special_tokens, None
        if encoder.family == "mutbert" and protocol.rope_factor:
            scaling = {"type": "dynamic", "factor": protocol.rope_factor}
        # All seeds of a protocol share what is embedded, so fresh weights are those of the first.
        body, parameters = _body(encoder, longest, scaling, protocol.first_seed)
        table, windows = eqtl.find_windows(table, source.place, genome, length)
        with progress_bar("embedding", windows.shape[1], unit="windows", show=self._show) as advance:
            table, features = eqtl.embed_variants(
                encoder, body, table, windows, genome, protocol, length, advance=advance
            )
        return table, features, {"parameters": parameters, "tokens": len(features["window"]) * longest}


def fingerprint(parts: Sequence[object]) -> str:
    """Return a word of what JSON can hold that differs where that does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
