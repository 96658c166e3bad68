"""What a fine-tuned model says of sequences, as a table.

Shape suffixes: N sequences, K outputs.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError, MissingExtraError
from mutbert.examples.files import read_examples
from mutbert.files import atomic_file, check_output
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.outputs import base_outputs, sequence_outputs
from mutbert.inference.predict import PRECISIONS, STRANDS
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from mutbert.examples.columns import Columns
    from mutbert.examples.table import Examples

    Logits = npt.NDArray[np.float32] | Sequence[npt.NDArray[np.float32]]
    Table = dict[str, list[Any]]

_SEPARATORS: Final = {".tsv": "\t", ".csv": ","}
_FORMATS: Final = (*_SEPARATORS, ".parquet")
# What a configuration calls a problem, and what it is called here; of classes there may be two or more.
_PROBLEMS: Final = {"multi_label_classification": "multilabel", "regression": "regression"}


@dataclass(frozen=True)
class PredictionReport:
    """What `predict_table` wrote.

    Parameters
    ----------
    output : Path
        The file.
    sequences : int
        Its rows.
    problem : str
        What the model was fine-tuned for.
    classes : tuple of str
        The classes, or the names of the numbers.
    """

    output: Path
    sequences: int
    problem: str
    classes: tuple[str, ...]


def predict_table(
    model: str | Path,
    sequences: str | Path,
    output: str | Path,
    *,
    columns: Columns,
    genome: str | Path | None = None,
    batch_size: int = 32,
    precision: str = "fp32",
    strands: str = "forward",
    trust_remote_code: bool = False,
    force: bool = False,
    progress: bool = False,
) -> PredictionReport:
    """Write what a fine-tuned model says of each sequence of a file.

    Parameters
    ----------
    model : str or Path
        The folder of a fine-tuned model, or a repository of the Hub.
    sequences : str or Path
        CSV, TSV, Parquet or FASTA; see `mutbert.examples.files.read_examples`. Labels are not looked at.
    output : str or Path
        ``.tsv``, ``.csv`` or ``.parquet``: a row a sequence in the order of the file, with ``name``, its place where
        that is known, ``predicted``, and the probability of each class (``p_CLASS``); of numbers a column each; of
        labels of bases the classes of all of them, separated by spaces.
    columns : Columns
        What the file's columns mean.
    genome : str or Path, optional
        A genome store, whose allele frequencies MutBERT is given where a sequence's place is known.
    batch_size : int
        Sequences at once.
    precision : {"fp32", "bf16"}
        As for `mutbert.inference.predict.predict`.
    strands : {"forward", "both"}
        Where both, the mean of the logits for a sequence and for its reverse complement.
    trust_remote_code : bool
        Run code that comes with the model.
    force : bool
        Replace `output` where it exists.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    PredictionReport
        What was written.

    Raises
    ------
    InputError
        When model, sequences or output cannot be used.
    """
    output = Path(output)
    if output.suffix not in _FORMATS:
        raise InputError(f"{output}: its name does not tell the format; end it in {', '.join(_FORMATS)}")
    for name, value, choices in (("precision", precision, PRECISIONS), ("strands", strands, STRANDS)):
        if value not in choices:
            raise InputError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
    check_output(output, force=force)
    examples, _ = read_examples(sequences, columns)
    encoder = open_encoder(model, trust_remote_code=trust_remote_code)
    opened = None if genome is None else ProbabilisticGenome.open(genome)
    inputs = encoder.inputs(examples, genome=opened)
    classifier, each_token = encoder.trained_classifier(int(inputs.length_N.max(initial=0)))
    classifier.to("cuda" if torch.cuda.is_available() else "cpu")
    problem, classes = _meaning(classifier.config, each_token=each_token)
    give: Any = base_outputs if each_token else sequence_outputs
    with progress_bar("predicting", len(examples), unit="sequences", show=progress) as advance:
        logits = give(
            classifier,
            lambda batch: classifier(**batch).logits,
            inputs,
            batch_size=batch_size,
            precision=precision,
            strands=strands,
            advance=advance,
        )
    write_predictions(output, prediction_columns(examples, logits, problem, classes), force=force)
    return PredictionReport(output, len(examples), problem, classes)


def prediction_columns(examples: Examples, logits: Logits, problem: str, classes: Sequence[str]) -> Table:
    """Bring a classifier's logits into columns.

    Parameters
    ----------
    examples : Examples
        N sequences; where they have labels of this problem, there is a column ``observed``.
    logits : ndarray of float32, shape (N, K), or sequence of such
        Of each sequence; for labels of bases one array (bases, K) a sequence.
    problem : str
        One of `mutbert.examples.table.PROBLEMS`.
    classes : sequence of str
        Names of the K outputs.

    Returns
    -------
    dict of str to list
        Columns of N values each.
    """
    table: Table = {"name": [name or str(row) for row, name in enumerate(examples.names)]}
    if any(region is not None for region in examples.regions):
        for part in ("contig", "start", "end"):
            table[part] = [None if region is None else getattr(region, part) for region in examples.regions]
    observed = examples.labels if examples.problem == problem else None
    if problem == "token":
        if observed is not None:
            table["observed"] = [
                _joined(observed[start:end], classes)
                for start, end in zip(examples.offsets[:-1], examples.offsets[1:], strict=True)
            ]
        table["predicted"] = [_joined(row.argmax(axis=1), classes) for row in logits]
        return table
    values_NK = np.asarray(logits, dtype=np.float64)
    if problem == "regression":
        observed_NK = None if observed is None else observed.reshape(values_NK.shape)
        for number, name in enumerate(classes):
            if observed_NK is not None:
                table[f"observed_{name}"] = observed_NK[:, number].tolist()
            table[f"predicted_{name}"] = values_NK[:, number].tolist()
        return table
    if problem == "multilabel":
        probability_NK = 1 / (1 + np.exp(-values_NK))
        if observed is not None:
            table["observed"] = [_named(row, classes) for row in observed]
        table["predicted"] = [_named(row, classes) for row in values_NK > 0]
    else:
        shifted_NK = np.exp(values_NK - values_NK.max(axis=1, keepdims=True))
        probability_NK = shifted_NK / shifted_NK.sum(axis=1, keepdims=True)
        if observed is not None:
            table["observed"] = [classes[number] for number in observed]
        table["predicted"] = [classes[number] for number in values_NK.argmax(axis=1)]
    for number, name in enumerate(classes):
        table[f"p_{name}"] = probability_NK[:, number].tolist()
    return table


def write_predictions(path: Path, table: Mapping[str, list[Any]], *, force: bool = False) -> None:
    """Write a table as its suffix says: ``.tsv``, ``.csv`` or ``.parquet``.

    Raises
    ------
    InputError
        When `path` exists and `force` is false.
    MissingExtraError
        When pyarrow is needed and not installed.
    """
    with atomic_file(path, force=force) as file:
        if path.suffix != ".parquet":
            with file.open("w", encoding="utf-8", newline="") as lines:
                writer = csv.writer(lines, delimiter=_SEPARATORS[path.suffix], lineterminator="\n")
                writer.writerow(table)
                writer.writerows(zip(*(map(_written, column) for column in table.values()), strict=True))
            return
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError:
            raise MissingExtraError("pyarrow", "bench") from None
        parquet.write_table(pa.table(dict(table)), file)


def _written(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _meaning(config: Any, *, each_token: bool) -> tuple[str, tuple[str, ...]]:
    """Read off a configuration what a model was fine-tuned for."""
    classes = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    if each_token:
        return "token", classes
    if config.problem_type is None and config.num_labels == 1:
        return "regression", classes
    several = "binary" if config.num_labels == 2 else "multiclass"
    return _PROBLEMS.get(config.problem_type or "", several), classes


def _joined(numbers: npt.NDArray[Any], classes: Sequence[str]) -> str:
    return " ".join(classes[number] if number >= 0 else str(number) for number in numbers)


def _named(present: npt.NDArray[Any], classes: Sequence[str]) -> str:
    return " ".join(name for name, here in zip(classes, present, strict=True) if here)
