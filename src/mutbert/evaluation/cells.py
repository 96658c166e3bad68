"""Cells of the grid: which there are, and how one is made; those of one task and model share what is prepared."""

from __future__ import annotations

import tempfile
from functools import cached_property, lru_cache, partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mutbert.encoders.adapter import CNN
from mutbert.encoders.known import RANDOM
from mutbert.errors import InputError
from mutbert.evaluation.eqtl import FEATURES, HEADS, embed_variants, evaluate_variants
from mutbert.evaluation.eqtl_table import open_genome, read_variants
from mutbert.evaluation.kmer import kmer_baseline
from mutbert.evaluation.results import Cell, fingerprint
from mutbert.examples.splits import part_task, random_split
from mutbert.examples.table import read_examples
from mutbert.files import sha256_of
from mutbert.scoring.metrics import evaluate
from mutbert.tables import NoSuchFileError, find_file, is_fasta
from mutbert.training.classifier import classifier_logits, classifier_trainer, scores_and_labels, unplaced
from mutbert.training.classifier_data import LabelledInputs
from mutbert.training.linear import embed_sequences, fit_linear

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from mutbert.arrays import Float32
    from mutbert.encoders.adapter import Encoder
    from mutbert.evaluation.eqtl import VariantEmbeddings
    from mutbert.evaluation.eqtl_table import Variants
    from mutbert.evaluation.run import GridRequest
    from mutbert.evaluation.suites import Suite
    from mutbert.examples.table import Examples
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.tables import SourceFile
    from mutbert.training.finetune_settings import FinetuneSettings

    Record = dict[str, Any]  # what a cell's JSON has
    Made = tuple[Record, npt.NDArray[Any], npt.NDArray[Any]]  # and labels and scores of its test rows
    Part = tuple[str, str, int]  # task, protocol and seed of a split

KMER: Final = "kmer"
BASELINES: Final = (KMER, CNN)
"""Trivial models, which a language model has to beat."""
_EQTL_METHODS: Final = tuple(f"{head}, {feature}" for head, feature in product(HEADS, FEATURES))
_HUB, _SUBSET_SEED = "hf://", 0


def cells_of(suite: Suite, tasks: list[str], models: list[str], request: GridRequest) -> list[Cell]:
    """Return the cells of a suite, each once; those that share work follow each other."""
    names = [name for name in request.protocols if name in suite.grid.protocols]
    every = [*(BASELINES if request.baselines and suite.eqtl is None else ()), *models]
    found = []
    for task, name, model in product(tasks, names, every):
        protocol, methods = suite.grid.protocols[name], request.methods
        first = protocol.first_seed if request.first_seed is None else request.first_seed
        seeds = range(first, first + (request.seeds or protocol.seeds))
        if suite.eqtl:
            methods = _EQTL_METHODS
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
        drop_leaks: bool = False,
    ) -> None:  # fmt: skip
        self._suite, self._encoder, self._genome = suite, encoder, genome
        self._loaded = lru_cache(maxsize=1)(partial(load_task, suite, root, drop_leaks=drop_leaks))
        self._prepared = lru_cache(maxsize=1)(self._prepare)
        self._embedded = lru_cache(maxsize=1)(self._embed)

    def make(self, cell: Cell) -> Made:
        """Make a cell."""
        suite, task = self._suite, self._suite.task(cell.task)
        metric, protocol = task.metric or suite.metric, suite.protocols[cell.protocol]
        # Only a split by seed is another for another seed.
        part = cell.task, cell.protocol, 0 if protocol.validation == "file" else cell.seed
        data, about = self._loaded(*part)
        read_as = [task.problem, task.classes, suite.columns.model_dump(), metric]
        identity: Record = {"data": about["identity"], "task": fingerprint(read_as)}
        record: Record = {**about, "metric": metric, "identity": identity}
        if cell.model == KMER:
            identity["model"] = f"{KMER} 1"
            model, validated, scores = kmer_baseline(*data.values(), metric=metric)
            value = evaluate(model.problem, data["validation"].known_labels, validated, [metric])[metric]
            record |= {"problem": model.problem, "validation": value, "chosen": {"c": model.c}, "parameters": None}
            return record, data["test"].known_labels, scores
        encoder = self._encoder(cell.model)
        settings = suite.settings_of(task, cell.protocol, encoder.family).replace(method=cell.method)
        genome = self._genome_of(encoder)
        identity |= {"model": encoder.identity(), "settings": settings.model_dump(mode="json")}
        identity["genome"] = genome and genome.identity
        parts = self._prepared(part, encoder, settings.max_tokens)
        record["unplaced"] = {} if genome is None else unplaced(parts)
        if settings.method == "probe":
            values, labels, scores = self._probe(cell, encoder, part, settings, metric)
        else:
            values, labels, scores = _trained(cell, encoder, parts, settings, metric)
        return record | values, labels, scores

    def _genome_of(self, encoder: Encoder) -> ProbabilisticGenome | None:
        return self._genome if encoder.family == "mutbert" else None

    def _prepare(self, part: Part, encoder: Encoder, max_tokens: int | None) -> dict[str, LabelledInputs]:
        options: Any = {"max_tokens": max_tokens, "genome": self._genome_of(encoder)}
        return {
            name: LabelledInputs(encoder.inputs(examples, **options), examples)
            for name, examples in self._loaded(*part)[0].items()
        }

    def _embed(self, part: Part, encoder: Encoder, seed: int) -> tuple[dict[str, Float32], Record]:
        settings = self._suite.settings_of(self._suite.task(part[0]), part[1], encoder.family)
        parts = self._prepared(part, encoder, settings.max_tokens)
        longest = max(int(own.inputs.length_N.max()) for own in parts.values())
        body, parameters = _body(encoder, longest, settings.rope_scaling, seed)
        tokens = sum(int(own.inputs.length_N.sum()) for own in parts.values())
        embedded = {name: embed_sequences(encoder, body, own.inputs, settings) for name, own in parts.items()}
        # Of the first cell that uses them.
        return embedded, {"parameters": parameters, "tokens": tokens}

    def _probe(self, cell: Cell, encoder: Encoder, part: Part, settings: FinetuneSettings, metric: str) -> Made:
        parts = self._prepared(part, encoder, settings.max_tokens)
        # Weights of a trained model are the same for every seed.
        embedded, about = self._embedded(part, encoder, cell.seed if encoder.identity().startswith(RANDOM) else 0)
        train, validation = ((embedded[name], parts[name].examples.known_labels) for name in ("train", "validation"))
        examples = parts["train"].examples
        probe = fit_linear(
            examples.problem, train, validation, classes=len(examples.classes), metric=metric,
            class_weights=settings.class_weights,
        )  # fmt: skip
        values = {
            "problem": examples.problem,
            "validation": evaluate(examples.problem, validation[1], probe.scores(validation[0]), [metric])[metric],
            "chosen": {"c": probe.c},
            "parameters": about["parameters"],
            "tokens": about.pop("tokens", 0),
        }
        return values, parts["test"].examples.known_labels, probe.scores(embedded["test"])


def _body(encoder: Encoder, longest: int, rope_scaling: Any, seed: int) -> tuple[Any, int]:
    """Return a model without a head on its device, and its number of parameters; `seed` is of fresh weights."""
    torch.manual_seed(seed)
    body = encoder.body(longest, rope_scaling=rope_scaling)
    body.to("cuda" if torch.cuda.is_available() else "cpu")
    return body, sum(parameter.numel() for parameter in body.parameters())


def _trained(
    cell: Cell, encoder: Encoder, parts: dict[str, LabelledInputs], settings: FinetuneSettings, metric: str
) -> Made:
    test = parts["test"]
    with tempfile.TemporaryDirectory() as folder:
        trained = classifier_trainer(
            encoder, parts["train"], parts["validation"], settings, Path(folder), metric=metric, seed=cell.seed
        ).fine_tune()
        logits = classifier_logits(trained.model, test.inputs, settings, each_token=test.problem == "token")
    problem, labels, scores = scores_and_labels(test.examples, logits)
    name, best = f"eval_{metric}", trained.best_step
    values = {
        "problem": problem,
        "validation": next(one[name] for one in trained.history if one["step"] == best and name in one),
        "chosen": {"step": best, "of": trained.steps},
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "tokens": trained.tokens,
    }
    return values, labels, scores


def load_task(
    suite: Suite, root: str, task: str, protocol: str, seed: int, *, drop_leaks: bool
) -> tuple[dict[str, Examples], dict[str, Any]]:
    """Return a task's parts, and what a cell's record has of them: note, counts, sources, identity.

    Files are below `root`: a folder, or ``hf://datasets/OWNER/NAME[@REVISION]``. Without a file of validation data,
    `seed` decides which sequences these are.
    """
    how, row = suite.protocols[protocol], suite.task(task)
    classes = row.classes if row.problem in {"binary", "multiclass", "token"} else None
    parts: dict[str, Examples] = {}
    sources: dict[str, SourceFile] = {}
    for split in suite.splits:
        if path := task_file(suite, root, task, split):
            # The columns of a FASTA have names of their own.
            fasta = {"sequence": "sequence", "label": "label", "name": "name", "region": "name"}
            columns = suite.columns.replace(**fasta) if is_fasta(path) else suite.columns
            parts[split], sources[split] = read_examples(path, columns, problem=row.problem, classes=classes)
    train, most, note = parts["train"], how.max_train_rows, ""
    if most is not None and most < len(train):
        chosen_N = random_split(len(train), most / len(train), _SUBSET_SEED)
        parts["train"] = train.select(np.flatnonzero(chosen_N)[:most])
        note = f"{suite.name}: at most {most:,} training sequences; no benchmark"
    validation = "file" if "validation" in parts else how.validation
    data, counts = part_task(
        parts, sources, how=validation, share=how.validation_share, seed=seed, drop_leaks=drop_leaks
    )
    # The seed of a split is in the cell's name.
    settings = [validation, how.validation_share, most, drop_leaks]
    return data, {
        "note": note,
        "splits": counts,
        "sources": [{"split": name, **vars(source)} for name, source in sources.items()],
        "identity": fingerprint([sorted((name, source.sha256) for name, source in sources.items()), settings]),
    }


def check_files(suite: Suite, root: str, tasks: list[str]) -> None:
    """Raise InputError where a local file is missing; of files on the Hub nothing is known before they are read."""
    for task in [] if root.startswith(_HUB) else [""] if suite.eqtl else tasks:
        for split in suite.splits:
            task_file(suite, root, task, split)


def task_file(suite: Suite, root: str, task: str, split: str) -> str | None:
    """Return the path of a task's file, plain or gzip; None where there are no validation data.

    Raise InputError for another file that is missing. `root` may be the file of an eQTL suite itself.
    """
    if suite.eqtl and not root.startswith(_HUB) and Path(root).is_file():
        return root
    called: str = suite.splits[split]  # type: ignore[index]
    names = [pattern.replace("{task}", task).replace("{split}", called) for pattern in suite.files]
    for path in (f"{root.rstrip('/')}/{name}" for name in names):
        if not root.startswith(_HUB):
            if found := next((one for one in (path, f"{path}.gz") if Path(one).is_file()), None):
                return found
            continue
        try:
            find_file(path)
        except NoSuchFileError:
            continue
        return path
    if split == "validation":
        return None
    raise InputError(
        f"{root}: has none of {', '.join(names)}; name the folder of the {suite.name} files by --data "
        f"{suite.name}=..., or the tasks that there are by --task"
    )


class EqtlCells:
    """Makes the cells of an eQTL suite; `reference` is a FASTA or a genome store."""

    def __init__(self, suite: Suite, root: str, encoder: Callable[[str], Encoder], reference: str | None) -> None:
        if reference is None or not Path(reference).exists():
            what = "needs the reference" if reference is None else f"there is no reference {reference}"
            raise InputError(f"{suite.name}: {what}; add --fasta or --genome")
        assert suite.eqtl is not None
        self._suite, self._eqtl, self._root, self._encoder = suite, suite.eqtl, root, encoder
        self._reference = reference
        self._embedded = lru_cache(maxsize=1)(self._embed)

    def make(self, cell: Cell) -> Made:
        """Make a cell."""
        read, _, reference = self._data
        protocol, task = self._eqtl.protocols[cell.protocol], self._suite.task(cell.task)
        embeddings, about = self._embedded(cell.model, cell.protocol)
        head, feature = cell.method.split(", ")
        found = evaluate_variants(embeddings, task, protocol, head=head, feature=feature, seed=cell.seed)
        rows = {"train": len(found.train_rows), "test": len(found.test_rows)}
        same = {"duplicates": 0, "in_train": 0, "dropped": 0, "sha256": read.source.sha256}
        record = {
            "problem": "binary",
            "metric": self._suite.metric,
            "validation": None,
            "chosen": {"c": found.c},
            "parameters": about["parameters"],
            "tokens": about.pop("tokens", 0),
            "note": "",
            "rows": {**rows, "split_by": read.split_by, "unused": found.unused, "saved": embeddings.saved},
            "splits": [{"split": name, "examples": count, **same} for name, count in rows.items()],
            "sources": [{"split": "all", **vars(read.source)}],
            "identity": {
                "data": fingerprint([read.source.sha256, self._eqtl.length]),
                "reference": reference,
                "task": fingerprint([task.model_dump(), self._eqtl.columns.model_dump()]),
                "model": self._encoder(cell.model).identity(),
                "settings": protocol.model_dump(mode="json"),
            },
        }
        return record, found.labels, found.scores

    @cached_property
    def _data(self) -> tuple[Variants, ProbabilisticGenome, str]:
        read = read_variants(task_file(self._suite, self._root, "", "train") or "", self._eqtl.columns)
        genome = open_genome(self._reference, read.table)
        return read, genome, genome.identity if genome.manifest else sha256_of(Path(self._reference))

    def _embed(self, model: str, name: str) -> tuple[VariantEmbeddings, Record]:
        read, genome, _ = self._data
        encoder, protocol = self._encoder(model), self._eqtl.protocols[name]
        longest, scaling = self._eqtl.length + 2 * protocol.special_tokens, None
        if encoder.family == "mutbert" and protocol.rope_factor:
            scaling = {"type": "dynamic", "factor": protocol.rope_factor}
        # All seeds of a protocol share what is embedded, so fresh weights are those of the first.
        body, parameters = _body(encoder, longest, scaling, protocol.first_seed)
        embeddings = embed_variants(encoder, body, read, genome, protocol, self._eqtl.length)
        return embeddings, {"parameters": parameters, "tokens": len(embeddings.key_U) * longest}
