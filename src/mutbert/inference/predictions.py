"""What a fine-tuned model predicts for sequences, as a table, and for windows of a genome.

Shape suffixes: N sequences or windows, K outputs.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
import torch

from mutbert import alphabet
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.known import resolve_model
from mutbert.encoders.token_encoders import AutoEncoder, most_tokens
from mutbert.errors import InputError
from mutbert.examples.table import read_examples
from mutbert.files import atomic_file, check_output
from mutbert.inference.reading import check_long, fit_sequences, read_as_trained
from mutbert.inference.run import base_outputs, check_run, sequence_outputs
from mutbert.progress import progress_bar, scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mutbert.arrays import Float64, Int64
    from mutbert.encoders.inputs import PaddedWindows
    from mutbert.examples.table import Columns, Examples
    from mutbert.inference.run import Surroundings
    from mutbert.progress import Advance

_SEPARATORS: Final = {".tsv": "\t", ".csv": ",", ".parquet": ""}


def predict_table(
    model: str | Path, sequences: str | Path | pl.DataFrame, output: str | Path | None, *, columns: Columns,
    genome: str | Path | None = None, batch_size: int = 32, precision: str | None = None, strands: str | None = None,
    long: str | None = None, trust_remote_code: bool = False, force: bool = False, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write a fine-tuned model's predictions for the sequences of a table or a FASTA, which it reads as in training.

    Parameters
    ----------
    model, sequences : str or Path
        A fine-tuned model's folder, or a repository of the Hub; CSV, TSV, Parquet or FASTA, without labels.
    output : str or Path
        ``.tsv``, ``.csv`` or ``.parquet``: a row per sequence in the order of the file, with ``name``, its region where
        that is known, ``predicted``, and the probability of each class (``p_CLASS``), a column per number, or the
        classes of all bases separated by spaces.
    columns, genome
        What the file's columns mean; a store, whose allele frequencies MutBERT reads where a region is known, by
        default that of the training, or none.
    precision, strands, long : optional
        fp32, or bf16 for bfloat16 autocast, by default as in training; forward, or both for the mean over the two
        strands, by default as in training; what becomes of sequences that are longer than the model reads, refuse,
        truncate, window (the mean over equal windows) or skip, by default truncate where training did and else refuse.
    batch_size, trust_remote_code, force, progress : optional
        As for the other commands that run a model.

    Returns
    -------
    dict
        The output, the number of ``sequences``, of them ``only_N``, nothing but N, the ``problem`` that the model was
        fine-tuned for, and its ``classes``; counts of ``long`` sequences and, with a genome, of those read without its
        frequencies (``unplaced``); ``notes`` on what differs from training.
    """
    output = None if output is None else Path(output)
    if output is not None and output.suffix not in _SEPARATORS:
        raise InputError(f"{output}: its name does not tell the format; end it in {', '.join(_SEPARATORS)}")
    check_run(strands or "forward", precision or "fp32", batch_size)
    check_long(long or "refuse")
    given = None if genome == "none" else genome
    if output is not None:
        check_output(output, force=force, inputs=(model, sequences, given))
    examples, _ = read_examples(sequences, columns.replace(label=()))
    encoder = open_encoder(model, trust_remote_code=trust_remote_code)
    classifier, each_token = encoder.trained_classifier()
    config = classifier.config
    settings, store, notes = read_as_trained(model, config, genome=genome, strands=strands, precision=precision)
    if store is not None and columns.region is None:
        examples, _ = read_examples(sequences, columns.replace(label=(), region=settings.region))
    limits = [one for one in (settings.max_tokens, most_tokens(classifier)) if one is not None]
    trained = "truncate" if settings.max_tokens else "refuse"
    place = "table" if isinstance(sequences, pl.DataFrame) else sequences
    pieces = fit_sequences(
        place, examples, partial(encoder.inputs, genome=store), min(limits, default=None), long or trained
    )
    if pieces.counts and settings.max_tokens and long not in {None, trained}:
        notes.append(f"long is {long}, and {trained} in training")
    classifier.to("cuda" if torch.cuda.is_available() else "cpu")
    classes = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    problem = "token" if each_token else _problem_of(config)
    if config.problem_type is None and problem in {"binary", "multiclass"}:
        notes.append(
            "config.json has no problem_type: outputs are read as classes, of which one is right, not as labels"
        )
    outputs: Any = base_outputs if each_token else sequence_outputs
    count = len(pieces.row_P)
    how: dict[str, Any] = {"batch_size": batch_size, "precision": settings.precision, "strands": settings.strands}
    how["name"] = lambda piece: examples.names[pieces.row_P[piece]] or f"{place}, sequence {pieces.row_P[piece]}"
    with progress_bar("predicting", count, unit="sequences", show=progress) as advance:
        logits = outputs(classifier, lambda batch: classifier(**batch).logits, pieces.inputs, **how, advance=advance)
    table = _columns(examples, pieces.rows, pieces.pool(logits), problem, classes)
    if output is None:
        return {"predictions": table, "notes": notes}
    with atomic_file(output, force=force) as file:
        if separator := _SEPARATORS[output.suffix]:
            rounded = table.with_columns(pl.col(pl.Float64).round_sig_figs(6), pl.col(pl.String).replace("", None))
            rounded.write_csv(file, separator=separator)
        else:
            table.write_parquet(file)
    unknown = np.logical_and.reduceat(examples.base_codes == alphabet.UNKNOWN, examples.offsets[:-1])
    return {
        "output": output, "sequences": len(table), "only_N": int(unknown.sum()), "problem": problem, "classes": classes,
        "long": pieces.counts, "notes": notes,
        "unplaced": getattr(pieces.inputs, "unplaced", {}) if store is not None else {},
    }  # fmt: skip


def _columns(examples: Examples, rows_N: Int64, logits: Any, problem: str, classes: Sequence[str]) -> pl.DataFrame:
    """Return a row for each of some sequences, of logits (N, K) or, of bases, one array (bases, K) each."""
    columns: dict[str, Any] = {"name": [examples.names[row] or str(row) for row in rows_N]}
    if any(region is not None for region in examples.regions):
        for title, part in (("chrom", "contig"), ("start", "start"), ("end", "end")):
            columns[title] = [getattr(examples.regions[row], part, None) for row in rows_N]
    value_NK = torch.zeros(0, 0) if problem == "token" else torch.from_numpy(np.asarray(logits, dtype=np.float64))
    if problem == "regression":
        columns |= {f"predicted_{name}": value_N.numpy() for name, value_N in zip(classes, value_NK.T, strict=True)}
        return pl.DataFrame(columns)
    if problem == "token":
        chosen: Any = [one.argmax(axis=1) for one in logits]
    elif problem == "multilabel":
        chosen, value_NK = [np.flatnonzero(row) for row in (value_NK > 0).numpy()], torch.sigmoid(value_NK)
    else:
        chosen, value_NK = value_NK.argmax(dim=1)[:, None].numpy(), torch.softmax(value_NK, dim=1)
    columns["predicted"] = [" ".join(classes[one] for one in row) for row in chosen]
    columns |= {f"p_{name}": value_N.numpy() for name, value_N in zip(classes, value_NK.T, strict=problem != "token")}
    return pl.DataFrame(columns)


def _problem_of(config: Any) -> str:
    named = {"regression": "regression", "multi_label_classification": "multilabel"}.get(config.problem_type)
    return named or {1: "regression", 2: "binary"}.get(config.num_labels, "multiclass")


class WindowClassifier:
    """A fine-tuned model of sequences that reads windows of a genome, over the strands that it was trained with.

    `fields` are the names of its outputs as ``delta_LABEL``, and descriptions of their changes; of two classes there is
    the second alone.
    """

    def __init__(self, model: str, seen: Surroundings, settings: Any) -> None:
        check_run(settings.strands or "both", settings.precision, settings.batch_size)
        encoder, is_around = open_encoder(model), seen.kind != "reference"
        self.model, each_token = encoder.trained_classifier()
        self.name, self.inputs, config = model, encoder.inputs, self.model.config
        genome = seen.genome.path if seen.kind == "population" else "none"
        trained, _, self.notes = read_as_trained(model, config, genome=genome, strands=settings.strands)
        limits = [one for one in (trained.max_tokens, most_tokens(self.model)) if one is not None]
        self.strands, self._most = trained.strands, min(limits, default=None)
        usual = [getattr(encoder, "context", None), self._most and self._most - 2]
        self.context = min(bases for bases in usual if bases) if settings.context is None else settings.context
        for is_wrong, what in (
            (each_token, "predicts a label for each base; give a classifier of sequences"),
            (self.context < 1, f"context is {self.context}; it must be at least 1"),
            (settings.rope_scaling is not None, "has the rope_scaling of its training; leave it out"),
            (is_around and isinstance(encoder, AutoEncoder), "reads tokens; choose reference surroundings for it"),
        ):
            if is_wrong:
                raise InputError(f"{model}: {what}")
        self._how = {"strands": self.strands, "batch_size": settings.batch_size, "precision": settings.precision}
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._problem = _problem_of(config)
        labels = [str(config.id2label[number]) for number in range(self._problem == "binary", config.num_labels)]
        what = {"regression": "predicted", "multiclass": "log-probability of"}.get(self._problem, "log-odds of")
        names = ["delta_" + re.sub(r"\W", "_", label, flags=re.ASCII) for label in labels]
        if len(set(names)) < len(names):
            names = [f"{name}_{number}" for number, name in enumerate(names)]
        texts = [f"Change of the {what} {label}, window with ALT minus window with REF" for label in labels]
        self.fields = dict(zip(names, texts, strict=True))

    def outputs(self, windows: PaddedWindows, advance: Advance, name: Callable[[int], str] | None = None) -> Float64:
        """Return the outputs (N, K): log-odds, of several classes log-probabilities, or numbers in their own units."""
        inputs = self.inputs(windows)
        if self._most is not None and (longest := int(inputs.length_N.max(initial=0))) > self._most:
            what = f"a window of {self.context:,} bases has {longest:,} tokens, and the model reads {self._most:,}"
            raise InputError(f"{self.name}: {what}; use a smaller --context")
        how = {**self._how, "advance": scaled(advance, 1 / max(len(windows), 1)), "name": name}
        logits = sequence_outputs(self.model, lambda batch: self.model(**batch).logits, inputs, **how)
        value_NK = torch.from_numpy(logits).double()
        value_NK = value_NK[:, 1:] - value_NK[:, :1] if self._problem == "binary" else value_NK
        return (value_NK.log_softmax(dim=1) if self._problem == "multiclass" else value_NK).numpy()


def open_classifier(model: Any, seen: Surroundings, settings: Any) -> WindowClassifier | None:
    """Return the classifier of a folder that `finetune`, or another program, wrote; None where it is none."""
    if not isinstance(model, str | Path):
        return None
    folder = resolve_model(str(model))
    try:
        values = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        is_classifier = "input_settings" in values or "ForSequenceClassification" in str(values.get("architectures"))
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # Whoever reads it next raises what is wrong.
    return WindowClassifier(folder, seen, settings) if is_classifier else None
