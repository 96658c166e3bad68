"""Labelled sequences from files: CSV, TSV, Parquet and FASTA, from a folder or from the Hugging Face Hub.

Shape suffixes: N sequences, T bases of all sequences together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.errors import InputError, MissingExtraError
from mutbert.examples.columns import Columns, bytes_of, is_fasta, read_table, select_rows
from mutbert.examples.labels import read_labels
from mutbert.examples.places import SourceFile, find_file
from mutbert.examples.table import PROBLEMS, Examples
from mutbert.regions import Region

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mutbert.arrays import Int64, UInt8
    from mutbert.examples.columns import FileTable


_REGION: Final = r"(?s)^(?P<contig>.+?):(?P<start>[0-9]{1,18})-(?P<end>[0-9]{1,18})(?:\|.*)?$"


class ReadExamples(NamedTuple):
    """What a file holds, and which file it was."""

    examples: Examples
    source: SourceFile


def read_examples(
    place: str | Path,
    columns: Columns | None = None,
    *,
    problem: str | None = None,
    classes: Sequence[str] | None = None,
) -> ReadExamples:
    """Read labelled sequences.

    The suffix tells the format: ``.csv``, ``.tsv`` or ``.txt`` (tabs), ``.fa``, ``.fasta``, ``.fna`` or ``.fas``, each
    also with ``.gz`` (gzip or bgzip), and ``.parquet``. A FASTA's label stands behind the last ``|`` of the header.

    Sequences are IUPAC codes in either case; U is read as T. Class labels that are all 0 to K - 1 keep their numbers,
    and so do a file's in which 0 or 1 stands alone; other labels have the places that they have in `classes`, or are
    numbered in sorted order (numbers by their size). Files of one task that may not all hold every class need
    `classes`, the ones of the training set. Labels of a column of floating-point numbers are rounded to float32.

    Parameters
    ----------
    place : str or Path
        As for `find_file`.
    columns : Columns, optional
        Which columns mean what.
    problem : str, optional
        One of `mutbert.examples.table.PROBLEMS`. Where left out, whole numbers or words make it ``binary`` when there
        are two of them and ``multiclass`` otherwise; other numbers ``regression``; several columns ``multilabel`` when
        they hold 0 and 1 alone, and else ``regression``. For ``token`` a label is as many digits as the sequence has
        bases, or as many whole numbers with spaces or commas between them, -100 where a base does not count.
    classes : sequence of str, optional
        The names of the classes in the order of their numbers, at least two. Labels are these names, or their numbers.
        For ``multilabel`` and ``regression`` other names for the columns.

    Returns
    -------
    ReadExamples
        In the order of the file.

    Raises
    ------
    InputError
        When the file cannot be found or read, is cut short or damaged, lacks a column, holds no rows, or a row's
        sequence or label is missing or not what it should be; the message names file and line (of Parquet the row,
        from 1).
    ValueError
        When `problem` is none of those, or there are no labels for it.
    MissingExtraError
        When pyarrow or huggingface_hub is needed and not installed.
    """
    try:
        import pyarrow as pa  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "embed") from None
    columns = columns or Columns()
    if problem not in (None, *PROBLEMS) or (problem and not columns.labels):
        raise ValueError(f"problem {problem!r}: is one of {PROBLEMS}, and needs a column of labels")
    path, source = find_file(place)
    table = select_rows(read_table(path, source.place, columns.wanted), columns.where)
    base_codes, offsets = _encode(table, columns.sequence)
    labels = read_labels(table, columns, offsets, problem, classes)
    regions, unplaced = _read_regions(table, columns.region, np.diff(offsets))
    name = columns.name or ("name" if "name" in table.columns and is_fasta(source.place) else None)
    examples = Examples(
        base_codes,
        offsets,
        labels.values,
        tuple(table.columns[name].fill_null("").to_pylist()) if name else ("",) * (len(offsets) - 1),
        regions,
        labels.problem,
        labels.classes,
        unplaced,
    )
    return ReadExamples(examples, source)


def _encode(table: FileTable, name: str) -> tuple[UInt8, Int64]:
    sequences = table.columns[name]
    if sequences.type != "large_string":
        raise InputError(f"{table.place}: column {name} holds lists; the sequences should be text")
    text_T, offsets = bytes_of(sequences.fill_null(""))
    code_T = alphabet.CODE_OF_BYTE[text_T]
    # As the file is read: of an empty sequence and a wrong character the one that comes first.
    empty = np.flatnonzero(np.diff(offsets) == 0)
    wrong = np.flatnonzero(code_T == alphabet.NOT_A_BASE)
    wrong_row = int(np.searchsorted(offsets, wrong[0], side="right")) - 1 if len(wrong) else len(table.row_N)
    if len(empty) and empty[0] < wrong_row:
        raise table.wrong(int(empty[0]), "the sequence is empty; remove the row, or add the bases")
    if len(wrong):
        at = int(wrong[0] - offsets[wrong_row])
        character = sequences[wrong_row].as_py()[at]
        raise table.wrong(
            wrong_row,
            f"{character!r} at position {at} of the sequence (the first is 0) is not an IUPAC nucleotide code; give "
            "DNA or RNA",
        )
    return code_T, offsets


def _read_regions(
    table: FileTable, name: str | None, length_N: Int64
) -> tuple[tuple[Region | None, ...], dict[str, int]]:
    import pyarrow.compute as pc

    if name is None:
        return (None,) * len(length_N), {}
    text = table.columns[name].fill_null("")
    parts = pc.extract_regex(text, _REGION)
    contigs = parts.field("contig")
    start_N, end_N = (
        np.asarray(pc.cast(pc.if_else(parts.is_valid(), parts.field(part), "0"), "int64")) for part in ("start", "end")
    )
    missing_N = np.asarray(pc.equal(text, ""))
    written_N = np.asarray(parts.is_valid())
    agrees_N = end_N - start_N == length_N
    reasons = {
        "no region is given": missing_N,
        "the region is not written as CONTIG:START-END": ~missing_N & ~written_N,
        "the region's length is not the sequence's": written_N & ~agrees_N,
    }
    rows = zip((written_N & agrees_N).tolist(), contigs.to_pylist(), start_N.tolist(), end_N.tolist(), strict=True)
    regions = tuple(Region(contig, start, end) if known else None for known, contig, start, end in rows)
    return regions, {reason: int(mask.sum()) for reason, mask in reasons.items() if mask.any()}
