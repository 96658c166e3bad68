"""Scores of a chunk of records, with what is derived of them: ratios adjusted by frequencies, percentages.

Shape suffixes: A alternate alleles.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mutbert.effects.alleles import Kind, Reason
from mutbert.effects.parts import Counts
from mutbert.effects.records import Cuts, info_numbers
from mutbert.effects.score_tables import KIND_TEXT, SCORED, Scored
from mutbert.effects.scores import Field
from mutbert.errors import InputError
from mutbert.inference.surroundings import place_windows
from mutbert.regions import ContigNames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mutbert.arrays import Float64, Int64
    from mutbert.effects.calibration import Calibration
    from mutbert.effects.records import RecordFile, Records
    from mutbert.effects.scores import Scorer, ScoreSettings
    from mutbert.progress import Advance


EPSILON: Final = 1e-4
"""Added to frequencies, so that an allele that was not seen has a ratio."""
RECORDS_A_PART: Final = 1000
PASSES_A_PART: Final = 4000
"""What a killed run loses at most, but for shared windows, whose parts may be larger."""


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


class ChunkScorer:
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
    cuts : Cuts
        How records are cut into chunks, which depends on the scorer's settings alone.
    frequency_field : str or None
        As given.
    """

    def __init__(
        self, scorer: Scorer, frequency_field: str | None = None, calibration: Calibration | None = None
    ) -> None:
        self.scorer = scorer
        self.cuts = Cuts(RECORDS_A_PART, _PassesOf(scorer.settings), PASSES_A_PART, _window_of(scorer))
        self.frequency_field = frequency_field
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

    def names(self, prefix: str) -> list[str]:
        """Give the names of the INFO fields that are added to records."""
        return [f"{prefix}_{field.name}" for field in self.fields] + [f"{prefix}_WHY"]

    def refuse_other_background(self, made_of: Mapping[str, Any]) -> None:
        """Refuse a background that is of other scores than a run, as `mutbert.effects.parts.Run.made_of` has it."""
        if self._calibration is not None:
            self._calibration.refuse_other(made_of, self.scorer.fields)

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
        if self.frequency_field is not None:
            llr_A = columns["LLR"]
            columns["AFLLR"] = llr_A + _log_odds(records, self.frequency_field)
            without_frequency = int(np.sum(~np.isnan(llr_A) & np.isnan(columns["AFLLR"])))
        if self._calibration is not None:
            for field in self.scorer.fields:
                if field.name in self._calibration.extreme:
                    value_A = columns[field.name]
                    percentage_A = self._calibration.percentage(field.name, value_A, alleles.kind_A)
                    without_background += int(np.sum(~np.isnan(value_A) & np.isnan(percentage_A)))
                    columns[f"{field.name}_PCT"] = percentage_A
            columns = {field.name: columns[field.name] for field in self.fields}
        has_score_A = np.any(~np.isnan(score_AF), axis=1)
        words = {int(reason): reason.text for reason in Reason}
        why = [
            SCORED if has_score else words[reason] if reason else self._why_none(kind)
            for has_score, reason, kind in zip(
                has_score_A.tolist(), alleles.reason_A.tolist(), alleles.kind_A.tolist(), strict=True
            )
        ]
        scored = Counter(KIND_TEXT[Kind(kind)] for kind in alleles.kind_A[has_score_A].tolist())
        missing = Counter(reason for reason in why if reason != SCORED)
        counts = Counts(
            len(records.lines), len(alleles), dict(scored), dict(missing), without_frequency, without_background
        )
        return Scored(records, alleles, columns, why), counts

    def _why_none(self, kind: int) -> str:
        """Say why an allele has no score that could have one."""
        is_meant = kind == Kind.SNV or _OF_ALL_KINDS & set(self.scorer.settings.scores)
        return (Reason.NOT_A_NUMBER if is_meant else Reason.NO_SCORE_OF_ITS_KIND).text


# Groups of scores that are not of SNVs alone.
_OF_ALL_KINDS: Final = frozenset({"llr", "distance"})


class _PassesOf:
    """Says at most how many passes of the model a record takes, by its text alone.

    Parameters
    ----------
    settings : ScoreSettings
        As `Scorer.settings`.
    """

    def __init__(self, settings: ScoreSettings) -> None:
        asked = set(settings.scores)
        strands = 2 if settings.strands == "both" else 1
        # With ALT and with REF.
        sides = 2 if "distance" in asked else 0
        self._strands = strands
        self._snv = strands * (len(asked - {"distance"}) + sides)
        self._others = sides + (4 * settings.flank if "llr" in asked else 0)
        self._each_base = 1 if "llr" in asked else 0
        self._longest = settings.longest

    def __call__(self, reference: str, alternates: str) -> int:
        if len(reference) == len(alternates) == 1:
            return self._snv
        passes = 0
        for alternate in alternates.split(","):
            if len(reference) == len(alternate) == 1:
                passes += self._snv
            elif alternate.isalpha():
                bases = min(len(reference), self._longest) + min(len(alternate), self._longest)
                passes += self._strands * (self._others + self._each_base * bases)
        return passes


def _window_of(scorer: Scorer) -> Callable[[str, int], int] | None:
    """Give what says where the shared window of a position begins; nothing where windows are not shared."""
    stride, context = scorer.stride, scorer.settings.context
    if stride is None or context is None:
        return None
    lengths = scorer.genome.lengths
    names = ContigNames(lengths)

    @lru_cache(maxsize=2)
    def starts_of(contig: str) -> Int64 | None:
        name = names.find(contig)
        if name is None:
            return None
        position_P = np.arange(0, lengths[name], stride)
        return place_windows(position_P, np.full(len(position_P), lengths[name]), context, "shared").start_P

    def window_of(contig: str, position: int) -> int:
        start_P = starts_of(contig)
        # What the genome does not have is in no window.
        return position if start_P is None else int(start_P[min(max(position, 0) // stride, len(start_P) - 1)])

    return window_of


def frequencies_of(records: Records, name: str) -> list[list[float | None]]:
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
    found = frequencies_of(records, name)
    count_N = np.array([len(frequencies) for frequencies in found], dtype=np.int64)
    alternate_A = np.array([np.nan if f is None else f for frequencies in found for f in frequencies], dtype=np.float64)
    record_A = np.repeat(np.arange(len(found)), count_N)
    sum_N = np.zeros(len(found))
    np.add.at(sum_N, record_A, alternate_A)
    # Rounded frequencies may add up to a little more than 1.
    reference_A = np.maximum(1 - sum_N, 0)[record_A]
    odds_A: Float64 = np.log((alternate_A + EPSILON) / (reference_A + EPSILON))
    return odds_A
