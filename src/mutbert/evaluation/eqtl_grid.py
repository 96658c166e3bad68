"""The cells of an eQTL suite: a model's embeddings once, and heads, features, tasks and seeds on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mutbert.errors import InputError
from mutbert.evaluation.eqtl import FEATURES, HEADS, embed_variants, evaluate_variants
from mutbert.evaluation.eqtl_table import open_genome, read_variants
from mutbert.evaluation.results import Cell, Predictions, fingerprint
from mutbert.evaluation.task_files import HUB, found_file
from mutbert.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mutbert.encoders.adapter import Encoder
    from mutbert.evaluation.eqtl import VariantEmbeddings
    from mutbert.evaluation.eqtl_table import Variants
    from mutbert.evaluation.suites import EqtlProtocol, EqtlSuite, EqtlTask, Suite
    from mutbert.genome.store import ProbabilisticGenome

METHODS = tuple(f"{head}, {feature}" for head in HEADS for feature in FEATURES)
"""A head and what it sees: the mean of a window, or the variant's own token."""


def eqtl_cells(
    suite: Suite, tasks: Sequence[EqtlTask], models: Sequence[str], protocols: Sequence[str], seeds: int | None
) -> list[Cell]:
    """List the cells of an eQTL suite, a model's together, since they share its embeddings."""
    assert suite.eqtl is not None
    found = []
    for name in protocols:
        protocol = suite.eqtl.protocols.get(name)
        if protocol is None:
            continue
        every = range(protocol.first_seed, protocol.first_seed + (seeds or protocol.seeds))
        found += [
            Cell(suite.name, task.name, model, method, name, seed)
            for model in models
            for task in tasks
            for method in METHODS
            for seed in every
        ]
    return found


class EqtlWork:
    """Does the cells of an eQTL suite.

    Parameters
    ----------
    suite : Suite
        The suite.
    root : str
        The table, or the folder or data set that holds it.
    reference : str or None
        A FASTA or a genome store; its allele frequencies are used by models that read them.
    encoder : callable
        Opens a model by its name.
    """

    def __init__(self, suite: Suite, root: str, reference: str | None, encoder: Callable[[str], Encoder]) -> None:
        assert suite.eqtl is not None
        if reference is None:
            raise InputError(f"{suite.name}: needs the reference; give --fasta or --genome")
        if not Path(reference).exists():
            raise InputError(f"{reference}: there is no such file; give the reference by --fasta or --genome")
        if not root.startswith(HUB):
            found_file(suite, root)
        self._suite = suite
        self._eqtl: EqtlSuite = suite.eqtl
        self._root = root
        self._reference = reference
        self._encoder = encoder
        self._read: Variants | None = None
        self._genome: ProbabilisticGenome | None = None
        self._reference_word: str | None = None
        self._embedded: tuple[tuple[str, str], VariantEmbeddings, int] | None = None

    def made_of(self, cell: Cell) -> dict[str, str]:
        """Say what a cell depends on."""
        read, genome = self._data()
        protocol = self._protocol(cell).model_dump()
        manifest = genome.manifest or None
        if self._reference_word is None:
            self._reference_word = fingerprint([manifest]) if manifest else sha256_of(Path(self._reference))[:16]
        task = next(task for task in self._eqtl.tasks if task.name == cell.task)
        return {
            "data": fingerprint([read.source.sha256, manifest, self._eqtl.length]),
            "reference": self._reference_word,
            "task": fingerprint([task.model_dump(), self._eqtl.columns.model_dump()]),
            "model": self._encoder(cell.model).identity(),
            "settings": fingerprint([protocol]),
        }

    def work(self, cell: Cell) -> tuple[dict[str, Any], Predictions]:
        """Do a cell."""
        read, _ = self._data()
        protocol = self._protocol(cell)
        tokens = 0
        if self._embedded is None or self._embedded[0] != (cell.model, cell.protocol):
            tokens = self._embed(cell, protocol)
        assert self._embedded is not None
        _, embeddings, parameters = self._embedded
        head, feature = cell.method.split(", ")
        task = next(task for task in self._eqtl.tasks if task.name == cell.task)
        found = evaluate_variants(embeddings, task, protocol, head=head, feature=feature, seed=cell.seed)
        values = {
            "problem": "binary",
            "metric": self._suite.metric,
            "metrics": found.metrics,
            "validation": None,
            "chosen": {"c": found.c},
            "parameters": parameters,
            "tokens": tokens,
            "smoke": "",
            "rows": {
                "train": len(found.train_rows),
                "test": len(found.test_rows),
                "split_by": read.split_by,
                "unused": dict(found.unused),
                "windows_saved": embeddings.saved,
            },
            "splits": [
                {
                    "split": name,
                    "examples": len(rows),
                    "duplicates": 0,
                    "in_train": 0,
                    "dropped": 0,
                    "sha256": read.source.sha256,
                }
                for name, rows in (("train", found.train_rows), ("test", found.test_rows))
            ],
            "sources": [{"split": "all", **dataclasses.asdict(read.source)}],
        }
        return values, Predictions(found.labels, found.scores.astype("float32"))

    def _protocol(self, cell: Cell) -> EqtlProtocol:
        return self._eqtl.protocols[cell.protocol]

    def _data(self) -> tuple[Variants, ProbabilisticGenome]:
        if self._read is None or self._genome is None:
            self._read = read_variants(found_file(self._suite, self._root), self._eqtl.columns)
            self._genome = open_genome(self._reference, self._read.table)
        return self._read, self._genome

    def _embed(self, cell: Cell, protocol: EqtlProtocol) -> int:
        """Embed all variants by a model, as a protocol wants them; give the tokens that it took."""
        read, genome = self._data()
        encoder = self._encoder(cell.model)
        longest = self._eqtl.length + 2 * protocol.special_tokens
        scaled = protocol.rope_factor is not None and encoder.family == "mutbert"
        scaling = {"type": "dynamic", "factor": protocol.rope_factor} if scaled else None
        # The same for all seeds of a protocol, which share what is embedded: fresh weights must not depend on where a
        # run was stopped.
        torch.manual_seed(protocol.first_seed)
        body = encoder.body(longest, rope_scaling=scaling)
        body.to("cuda" if torch.cuda.is_available() else "cpu")
        embeddings = embed_variants(encoder, body, read, genome, protocol, self._eqtl.length)
        parameters = sum(parameter.numel() for parameter in body.parameters())
        self._embedded = (cell.model, cell.protocol), embeddings, parameters
        return len(embeddings.key_U) * longest
