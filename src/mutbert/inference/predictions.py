"""What a fine-tuned model predicts for sequences, as a table. Shape suffixes: N sequences, K outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
import torch

from mutbert import alphabet
from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError
from mutbert.examples.table import read_examples
from mutbert.files import atomic_file, check_output
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.run import base_outputs, check_run, sequence_outputs
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.examples.table import Columns, Examples

_SEPARATORS: Final = {".tsv": "\t", ".csv": ",", ".parquet": ""}


def predict_table(
    model: str | Path, sequences: str | Path | pl.DataFrame, output: str | Path | None, *, columns: Columns,
    genome: str | Path | None = None, batch_size: int = 32, precision: str = "fp32", strands: str = "forward",
    trust_remote_code: bool = False, force: bool = False, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write a fine-tuned model's predictions for the sequences of a table or a FASTA.

    Parameters
    ----------
    model, sequences : str or Path
        A fine-tuned model's folder, or a repository of the Hub; CSV, TSV, Parquet or FASTA, without labels.
    output : str or Path
        ``.tsv``, ``.csv`` or ``.parquet``: a row per sequence in the order of the file, with ``name``, its region where
        that is known, ``predicted``, and the probability of each class (``p_CLASS``), a column per number, or the
        classes of all bases separated by spaces.
    columns, genome
        What the file's columns mean; a store, whose allele frequencies MutBERT reads where a region is known.
    batch_size, precision, strands, trust_remote_code, force, progress : optional
        As for the other commands that run a model.

    Returns
    -------
    dict
        The output, the number of ``sequences``, of them ``only_N``, nothing but N, the
        ``problem`` that the model was fine-tuned for, and its ``classes``.
    """
    output = None if output is None else Path(output)
    if output is not None and output.suffix not in _SEPARATORS:
        raise InputError(f"{output}: its name does not tell the format; end it in {', '.join(_SEPARATORS)}")
    check_run(strands, precision, batch_size)
    if output is not None:
        check_output(output, force=force, inputs=(model, sequences, genome))
    examples, _ = read_examples(sequences, columns.replace(label=()))
    encoder = open_encoder(model, trust_remote_code=trust_remote_code)
    inputs = encoder.inputs(examples, genome=None if genome is None else ProbabilisticGenome.open(genome))
    classifier, each_token = encoder.trained_classifier(int(inputs.length_N.max(initial=0)))
    classifier.to("cuda" if torch.cuda.is_available() else "cpu")
    config = classifier.config
    classes = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    named = {"regression": "regression", "multi_label_classification": "multilabel"}.get(config.problem_type)
    by_number = {1: "regression", 2: "binary"}.get(config.num_labels, "multiclass")
    problem = "token" if each_token else named or by_number
    if config.problem_type is None and problem in {"binary", "multiclass"}:
        what = f"its config.json has no problem_type, without which {config.num_labels} outputs are classes or labels"
        kinds = "single_label_classification or multi_label_classification"
        raise InputError(f"{model}: {what}; write there which it is, {kinds}")
    outputs: Any = base_outputs if each_token else sequence_outputs
    how: dict[str, Any] = {"batch_size": batch_size, "precision": precision, "strands": strands}
    how["name"] = lambda row: examples.names[row] or f"{sequences}, sequence {row}"
    with progress_bar("predicting", len(examples), unit="sequences", show=progress) as advance:
        logits = outputs(classifier, lambda batch: classifier(**batch).logits, inputs, **how, advance=advance)
    table = _columns(examples, logits, problem, classes)
    if output is None:
        return {"predictions": table}
    with atomic_file(output, force=force) as file:
        if separator := _SEPARATORS[output.suffix]:
            rounded = table.with_columns(pl.col(pl.Float64).round_sig_figs(6), pl.col(pl.String).replace("", None))
            rounded.write_csv(file, separator=separator)
        else:
            table.write_parquet(file)
    unknown = np.logical_and.reduceat(examples.base_codes == alphabet.UNKNOWN, examples.offsets[:-1])
    counts = {"sequences": len(examples), "only_N": int(unknown.sum())}
    return {"output": output, **counts, "problem": problem, "classes": classes}


def _columns(examples: Examples, logits: Any, problem: str, classes: Sequence[str]) -> pl.DataFrame:
    """Return a row a sequence, of logits (N, K) or, of bases, one array (bases, K) each."""
    columns: dict[str, Any] = {"name": [name or str(row) for row, name in enumerate(examples.names)]}
    if any(region is not None for region in examples.regions):
        for title, part in (("chrom", "contig"), ("start", "start"), ("end", "end")):
            columns[title] = [getattr(region, part, None) for region in examples.regions]
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
