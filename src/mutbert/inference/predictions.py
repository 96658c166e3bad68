"""What a fine-tuned model predicts for sequences, and how likely a masked model finds each, as tables.

Shape suffixes: N sequences, K outputs, P bases.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch

from mutbert import alphabet
from mutbert.arrays import list_ranges
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.inputs import read_as_trained
from mutbert.encoders.token_encoders import most_tokens
from mutbert.errors import InputError
from mutbert.examples.table import Columns, Examples, read_examples, table_of
from mutbert.files import atomic_file, check_output
from mutbert.genome.format import SOFT_MASK
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.bases import BasePredictor, PredictionSettings
from mutbert.inference.classifier import problem_of
from mutbert.inference.reading import fit_sequences
from mutbert.inference.run import base_outputs, check_run, sequence_outputs
from mutbert.model import MutBertForMaskedLM
from mutbert.progress import progress_bar

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
    precision, strands, long, batch_size, trust_remote_code, force, progress : optional
        As for `embed`, the first two by default as in training; `long` is ``truncate`` where training did that, else
        ``refuse``; ``window`` is the mean over equal windows.

    Returns
    -------
    dict
        The output, the number of ``sequences``, of them ``only_N``, nothing but N, the model's ``problem`` and
        ``classes``; counts of ``long`` sequences and, with a genome, of those read without its frequencies,
        ``unplaced``; ``notes`` on what differs from training.

    Raises
    ------
    InputError
        A sequence that cannot be read or is too long, with its location; a model that is no classifier.

    Examples
    --------
    >>> report = mutbert.predict_table("classifier", "table.csv", "predictions.tsv", columns=mutbert.Columns())
    >>> report["sequences"], report["classes"]
    (48, ('LABEL_0', 'LABEL_1'))
    """
    check_run(strands or "forward", precision or "fp32", batch_size, long or "refuse")
    if output is not None:
        output = Path(output)
        if output.suffix not in _SEPARATORS:
            raise InputError(f"{output}: its name does not tell the format; end it in {', '.join(_SEPARATORS)}")
        check_output(output, force=force, inputs=(model, sequences, genome))
    # A faulty table is found before a large model is read.
    columns = columns.replace(label=())
    examples, source = read_examples(sequences, columns)
    encoder = open_encoder(model, trust_remote_code=trust_remote_code)
    classifier, each_token = encoder.trained_classifier()
    config = classifier.config
    settings, store, notes = read_as_trained(model, config, genome=genome, strands=strands, precision=precision)
    if columns.region is None and store is not None:
        examples, _ = read_examples(sequences, columns.replace(region=settings.region))
    limits = [one for one in (settings.max_tokens, most_tokens(classifier)) if one is not None]
    most, trained = min(limits, default=None), "truncate" if settings.max_tokens else "refuse"
    long = long or trained
    pieces = fit_sequences(examples, encoder, most, long, place=source.place)
    inputs = encoder.inputs(pieces.pieces, max_tokens=most, genome=store)
    if pieces.counts and settings.max_tokens and long != trained:
        notes.append(f"long is {long}, and {trained} in training")
    classifier.to("cuda" if torch.cuda.is_available() else "cpu")
    classes = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    problem = "token" if each_token else problem_of(config)
    if config.problem_type is None and problem in {"binary", "multiclass"}:
        notes.append("config.json has no problem_type: outputs are read as classes, one of which is right, not labels")
    outputs: Any = base_outputs if each_token else sequence_outputs
    with progress_bar("predicting", len(pieces.row_P), unit="sequences", work=pieces.work, show=progress) as advance:
        logits = outputs(
            classifier, lambda batch: classifier(**batch).logits, inputs, batch_size=batch_size, advance=advance,
            precision=settings.precision, strands=settings.strands,
            name=lambda piece: f"{source.place}, sequence {pieces.pieces.names[piece]}",
        )  # fmt: skip
    table = _columns(pieces.whole, pieces.pool(logits), problem, classes)
    if output is None:
        return {"predictions": table, "notes": notes}
    with atomic_file(output, force=force) as file:
        if separator := _SEPARATORS[output.suffix]:
            rounded = table.with_columns(pl.col(pl.Float64).round_sig_figs(6), pl.col(pl.String).replace("", None))
            rounded.write_csv(file, separator=separator)
        else:
            table.write_parquet(file)
    counted = encoder.inputs(pieces.whole, genome=store) if long == "window" else inputs  # sequences, not windows
    return {
        "output": output, "sequences": len(table), "only_N": pieces.only_unknown, "problem": problem,
        "classes": classes, "long": pieces.counts, "notes": notes, "unplaced": getattr(counted, "unplaced", {}),
    }  # fmt: skip


def _columns(examples: Examples, logits: Any, problem: str, classes: Sequence[str]) -> pl.DataFrame:
    """Return a row for each sequence, of logits (N, K) or, of bases, one array (bases, K) each."""
    columns: dict[str, Any] = {"name": examples.names}
    if any(examples.regions):
        for title, part in (("chrom", "contig"), ("start", "start"), ("end", "end")):
            columns[title] = [getattr(region, part, None) for region in examples.regions]
    if problem != "regression":
        kinds = {"token": lambda one: one.argmax(axis=1), "multilabel": lambda one: np.flatnonzero(one > 0)}
        choose: Any = kinds.get(problem, lambda one: [one.argmax()])
        columns["predicted"] = [" ".join(classes[number] for number in choose(one)) for one in logits]
    if problem != "token":
        value_NK = torch.from_numpy(np.asarray(logits, dtype=np.float64))
        turned = {"regression": value_NK, "multilabel": value_NK.sigmoid()}.get(problem, value_NK.softmax(dim=1))
        kind = "predicted" if problem == "regression" else "p"
        columns |= {f"{kind}_{name}": value_N.numpy() for name, value_N in zip(classes, turned.T, strict=True)}
    return pl.DataFrame(columns)


def predict_sequences(
    model: str | Path, sequences: Any, *, columns: Columns | None = None, **options: Any
) -> pl.DataFrame:
    """Return a fine-tuned model's predictions for sequences as a frame; `predict_table` writes them.

    Parameters
    ----------
    model, sequences, columns, options
        As for `predict_table`; sequences as for `embed_sequences`.

    Returns
    -------
    DataFrame
        What `predict_table` writes, a row per sequence.

    Raises
    ------
    InputError
        As for `predict_table`.

    Examples
    --------
    >>> mutbert.predict_sequences("classifier", {"one": "ACGTTGCA", "two": "GATTACA"}).columns
    ['name', 'predicted', 'p_LABEL_0', 'p_LABEL_1']
    """
    found = predict_table(model, table_of(sequences), None, columns=columns or Columns(), **options)
    return found["predictions"]  # type: ignore[no-any-return]


def score_sequences(
    model: str | Path | MutBertForMaskedLM, sequences: Any, *, settings: PredictionSettings | None = None,
    progress: bool = False,
) -> pl.DataFrame:  # fmt: skip
    """Return the pseudo-log-likelihood of each sequence: the sum of ln P(base), each base masked in turn.

    P is over A, C, G and T; other codes do not count (Salazar et al. 2020, arXiv 1910.14659). In a sequence longer than
    the context, each base is in the middle of its own window. To compare different lengths, divide by the bases.

    Parameters
    ----------
    model : str, Path or MutBertForMaskedLM
        A checkpoint, run on a GPU if there is one (in Python also a loaded model).
    sequences
        A FASTA, FASTQ, CSV, TSV or Parquet file (in Python also what `embed_sequences` takes).
    settings, progress : optional
        How the model is run; show progress.

    Returns
    -------
    DataFrame
        ``name``, by default its number from 0, ``bases`` that count, and their ``log_likelihood`` in nats, or null.

    Raises
    ------
    InputError
        A sequence that cannot be read, with its location; a model that is not masked.

    Examples
    --------
    >>> mutbert.score_sequences("model", ["ACGTTGCANN", "GATTACA"])["bases"].to_list()
    [8, 7]
    """
    examples, _ = read_examples(table_of(sequences), Columns(label=()))
    codes, unmasked = np.split(examples.base_codes, examples.offsets[1:-1]), np.zeros(0, dtype=SOFT_MASK)
    genome = ProbabilisticGenome.from_sequences((str(row), code_L, unmasked) for row, code_L in enumerate(codes))
    predictor = BasePredictor(model, genome, settings or PredictionSettings())
    row_P, position_P = list_ranges(np.zeros(len(examples), dtype=np.int64), examples.lengths)
    at_once = predictor.windows_at_once(1)
    with progress_bar("scoring", len(row_P), unit="bases", show=progress) as advance:
        parts = [slice(first, first + at_once) for first in range(0, len(row_P), at_once)]
        scores = pl.concat(predictor.predict(row_P[part], position_P[part], 1, advance) for part in parts)
    log_P, known_P = scores["reference_probability"].cast(pl.Float64).log(), scores["base"] < len(alphabet.BASES)
    bases_N = np.bincount(row_P[known_P], minlength=len(examples))
    total_N = np.where(bases_N, np.bincount(row_P[known_P], log_P.filter(known_P), len(examples)), np.nan)
    names = [name or str(row) for row, name in enumerate(examples.names)]
    return pl.DataFrame({"name": names, "bases": bases_N, "log_likelihood": total_N}).fill_nan(None)
