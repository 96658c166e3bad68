"""Scores of a chunk of records, with what is derived of them: ratios adjusted by frequencies, percentages.

Shape suffixes: A alternate alleles.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert.effects.alleles import Kind, Reason
from mutbert.effects.parts import Counts
from mutbert.effects.records import info_numbers
from mutbert.effects.score_tables import KIND_TEXT, SCORED, Scored
from mutbert.effects.scores import Field
from mutbert.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from mutbert.effects.calibration import Calibration
    from mutbert.effects.records import RecordFile, Records
    from mutbert.effects.scores import Scorer
    from mutbert.progress import Advance

    Float64 = npt.NDArray[np.float64]

EPSILON: Final = 1e-4
"""Added to frequencies, so that an allele that was not seen has a ratio."""
NOT_OF_ITS_KIND: Final = "no_score_of_its_kind"
"""Why an MNV or indel has no score where none of those asked for is meant for it."""


class Survey(NamedTuple):
    """What a file holds.

    Parameters
    ----------
    records, alleles, chunks : int
        How many.
    in_order : bool
        Whether its records are.
    """

    records: int
    alleles: int
    chunks: int
    in_order: bool


def check_frequency_field(file: RecordFile, name: str, scores: Sequence[str]) -> None:
    """Refuse a field that cannot be frequencies of alternate alleles, or is of no use.

    Parameters
    ----------
    file : RecordFile
        The file.
    name : str
        The INFO field.
    scores : sequence of str
        Groups of scores that are asked for.

    Raises
    ------
    InputError
        When the header does not declare it, or as something else; when the score that it adjusts is not asked for.
    """
    if "llr" not in scores:
        raise InputError(f"frequency_field is {name!r}, but what it adjusts is LLR; add llr to scores")
    number, kind = file.info.get(name, ("", ""))
    if not number:
        have = ", ".join(name for name, (number, kind) in file.info.items() if (number, kind) == ("A", "Float"))
        raise InputError(f"{file.path}: declares no INFO field {name}; of frequencies it has {have or 'none'}")
    if kind != "Float" or number not in {"A", "1", "."}:
        raise InputError(
            f"{file.path}: INFO field {name} is declared with Number={number}, Type={kind}; frequencies are Number=A, "
            "Type=Float: choose another field"
        )


def survey(file: RecordFile, size: int, stride: int | None, frequency_field: str | None, advance: Advance) -> Survey:
    """Read a file once, so that what is wrong with its last record is said before the first is scored.

    Parameters
    ----------
    file : RecordFile
        The file.
    size, stride
        As for `RecordFile.chunks`.
    frequency_field : str, optional
        An INFO field that is read too.
    advance : Advance
        Told of the bytes read.

    Raises
    ------
    InputError
        When a record cannot be used.
    """
    records = alleles = chunks = 0
    for chunk in file.chunks(size, stride):
        if frequency_field is not None:
            _frequencies(chunk, frequency_field)
        records += len(chunk.lines)
        alleles += sum(alternate.count(",") + 1 for alternate in chunk.alternates)
        chunks += 1
        advance(chunk.read)
    return Survey(records, alleles, chunks, bool(file.is_sorted))


class Work:
    """Scores chunks of records.

    Parameters
    ----------
    scorer : Scorer
        Gives the scores.
    frequency_field : str, optional
        An INFO field with the frequency of each alternate allele: adds AFLLR.
    calibration : Calibration, optional
        Adds percentages.

    Attributes
    ----------
    fields : tuple of Field
        The columns of what `score` gives.
    """

    def __init__(
        self, scorer: Scorer, frequency_field: str | None = None, calibration: Calibration | None = None
    ) -> None:
        self.scorer = scorer
        self._frequency_field = frequency_field
        self._calibration = calibration
        derived: list[Field] = []
        if frequency_field is not None:
            derived.append(
                Field(
                    "AFLLR",
                    f"LLR adjusted by allele frequencies, LLR + ln((f_ALT + {EPSILON:g}) / (f_REF + {EPSILON:g})), "
                    f"with f_ALT of INFO field {frequency_field} and f_REF what its alternates leave of 1",
                    -1,
                )
            )
        if calibration is not None:
            derived += calibration.fields(scorer.fields)
        self.fields = (*scorer.fields, *derived)

    def score(self, records: Records, advance: Advance | None = None) -> tuple[Scored, Counts]:
        """Score records.

        Parameters
        ----------
        records : Records
            A chunk.
        advance : Advance, optional
            Told of the alleles done since its last call.

        Returns
        -------
        (Scored, Counts)
            The scores, and what became of the alleles.
        """
        alleles = self.scorer.find(records.contigs, records.positions, records.references, records.alternates)
        score_AF = self.scorer.score(alleles, advance).astype(np.float64)
        columns: dict[str, Float64] = {
            field.name: column_A for field, column_A in zip(self.scorer.fields, score_AF.T, strict=True)
        }
        without_frequency = without_background = 0
        if self._frequency_field is not None:
            llr_A = columns["LLR"]
            columns["AFLLR"] = llr_A + _log_odds(records, self._frequency_field)
            without_frequency = int(np.sum(~np.isnan(llr_A) & np.isnan(columns["AFLLR"])))
        if self._calibration is not None:
            for field in self.scorer.fields:
                if field.extreme:
                    value_A = columns[field.name]
                    percentage_A = self._calibration.percentage(field.name, value_A, alleles.kind_A)
                    without_background += int(np.sum(~np.isnan(value_A) & np.isnan(percentage_A)))
                    columns[f"{field.name}_PCT"] = percentage_A
            columns = {field.name: columns[field.name] for field in self.fields}
        has_score_A = np.any(~np.isnan(score_AF), axis=1)
        words = {int(reason): reason.text for reason in Reason}
        why = [
            SCORED if has_score else words[reason] if reason else NOT_OF_ITS_KIND
            for has_score, reason in zip(has_score_A, alleles.reason_A.tolist(), strict=True)
        ]
        scored = Counter(KIND_TEXT[Kind(kind)] for kind in alleles.kind_A[has_score_A].tolist())
        missing = Counter(reason for reason in why if reason != SCORED)
        counts = Counts(
            len(records.lines), len(alleles), dict(scored), dict(missing), without_frequency, without_background
        )
        return Scored(records, alleles, columns, why), counts


def _frequencies(records: Records, name: str) -> list[list[float | None]]:
    """Read the frequencies of each record's alternates, and refuse what is none."""
    found = info_numbers(records, name)
    for row, frequencies in enumerate(found):
        for frequency in frequencies:
            if frequency is not None and not 0 <= frequency <= 1 and not math.isnan(frequency):
                raise InputError(
                    f"{records.place(row)}: INFO field {name} is {frequency:g}, but a frequency is from 0 to 1; choose "
                    "another field, or mend the line"
                )
    return found


def _log_odds(records: Records, name: str) -> Float64:
    """Compute ln((f_ALT + ε) / (f_REF + ε)) of each alternate allele; NaN where a frequency of its record is missing.

    Returns
    -------
    ndarray of float64, shape (A,)
        In the order of the alleles.
    """
    found = _frequencies(records, name)
    count_N = np.array([len(frequencies) for frequencies in found], dtype=np.int64)
    alternate_A = np.array([np.nan if f is None else f for frequencies in found for f in frequencies], dtype=np.float64)
    record_A = np.repeat(np.arange(len(found)), count_N)
    sum_N = np.zeros(len(found))
    np.add.at(sum_N, record_A, alternate_A)
    # Rounded frequencies may add up to a little more than 1.
    reference_A = np.maximum(1 - sum_N, 0)[record_A]
    odds_A: Float64 = np.log((alternate_A + EPSILON) / (reference_A + EPSILON))
    return odds_A
