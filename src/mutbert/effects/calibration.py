"""How extreme a score is among those of a background, such as a population's common variants.

The file of a background is JSON: which model, genome and settings it was scored with, and of each field, SNVs and other
alleles apart, how many alleles there were and quantiles of their scores.

Shape suffixes: A alternate alleles, Q quantiles.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import mutbert
from mutbert.effects.alleles import Kind
from mutbert.effects.parts import differences
from mutbert.effects.score_tables import NUMBERS, read_numbers
from mutbert.effects.scores import Field
from mutbert.errors import InputError, one_line
from mutbert.files import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from mutbert.arrays import Float64, UInt8
    from mutbert.effects.parts import Whole


FORMAT: Final = "mutbert calibration"
VERSION: Final = 1
QUANTILES: Final = 1001
LEAST: Final = 100
"""Alleles that a background needs at least, of a kind that it is to serve."""
GROUPS: Final = {"snv": (Kind.SNV,), "mnv_indel": (Kind.MNV, Kind.INDEL)}
"""Kinds of alleles whose scores are compared with one another."""
_GROUP_NAMES: Final = {"snv": "SNVs", "mnv_indel": "MNVs and indels"}
# What the scores of a background depend on; others may be asked for beside them.
_SETTINGS: Final = (
    "context", "windows", "strands", "surroundings", "sample", "person_vcf", "flank", "longest", "distance_bases",
    "precision", "rope_scaling",
)  # fmt: skip


def describe(made_of: Mapping[str, Any], fields: Sequence[Field]) -> dict[str, Any]:
    """Say of what a background is.

    Parameters
    ----------
    made_of : mapping
        As in `mutbert.effects.parts.Run`.
    fields : sequence of Field
        Those of the scorer.

    Returns
    -------
    dict
        What the file begins with, and by `Field.extreme` which fields it will have.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_of": {
            "model": made_of["model"],
            "genome": made_of["genome"],
            "settings": {name: made_of["settings"][name] for name in _SETTINGS},
        },
        "extreme": {field.name: field.extreme for field in fields if field.extreme},
    }


def write_calibration(path: Path, whole: Whole) -> None:
    """Write the file of a background from its parts.

    Of the scores of one field at a time all are in memory, four bytes each, as quantiles ask for it.

    Parameters
    ----------
    path : Path
        The file; it is replaced.
    whole : Whole
        The parts.

    Raises
    ------
    InputError
        When no field has enough alleles.
    """
    head = dict(whole.run.calibration or {})
    backgrounds: dict[str, dict[str, Any]] = {}
    most = 0
    for name in head.pop("extreme"):
        backgrounds[name] = {}
        for group, kinds in GROUPS.items():
            value_A = _values(whole, name, kinds)
            most = max(most, len(value_A))
            enough = len(value_A) >= LEAST
            backgrounds[name][group] = {
                "alleles": len(value_A),
                "quantiles": quantiles(value_A).tolist() if enough else None,
            }
    if most < LEAST:
        raise InputError(too_few(whole.run.vcf, most))
    extreme = (whole.run.calibration or {})["extreme"]
    fields = {name: {"extreme": extreme[name], **groups} for name, groups in backgrounds.items()}
    write_json(path, {**head, "created_by": mutbert.__version__, "vcf": whole.run.vcf, "fields": fields}, force=True)


def too_few(vcf: str, alleles: int) -> str:
    """Say that a VCF has too few alleles for a background."""
    return f"{vcf}: has {alleles} alleles, and a background needs {LEAST} with a score of one kind; give more"


def _values(whole: Whole, name: str, kinds: tuple[Kind, ...]) -> npt.NDArray[np.float32]:
    found = [np.zeros(0, dtype=np.float32)]
    for content in whole.contents(NUMBERS):
        arrays = read_numbers(content)
        value_A = arrays[name][np.isin(arrays["kind"], [int(kind) for kind in kinds])]
        found.append(value_A[~np.isnan(value_A)].astype(np.float32))
    return np.concatenate(found)


def quantiles(value_A: npt.NDArray[Any]) -> Float64:
    """Compute evenly spaced quantiles, the least and the greatest included; by NumPy's method ``linear``.

    Returns
    -------
    ndarray of float64, shape (Q,)
        `QUANTILES` of them, rounded as scores are, to float32; of fewer values, these in their order.
    """
    if len(value_A) <= QUANTILES:
        return np.sort(value_A.astype(np.float64))
    found_Q = np.quantile(value_A.astype(np.float64), np.linspace(0, 1, QUANTILES), method="linear")
    # What is a score of the background is then that score again, so that ties are seen.
    return found_Q.astype(np.float32).astype(np.float64)


def percentage_below(quantile_Q: Float64, value_A: Float64) -> Float64:
    """Say what percentage of a background is below each value: what `quantiles` does, backwards.

    Parameters
    ----------
    quantile_Q : ndarray of float64, shape (Q,)
        Of the background, evenly spaced.
    value_A : ndarray of float64, shape (A,)
        Values; NaN stays so.

    Returns
    -------
    ndarray of float64, shape (A,)
        0 to 100. Between two quantiles a straight line; of a value that several quantiles are, the middle of these.
    """
    steps = len(quantile_Q) - 1
    left_A = np.searchsorted(quantile_Q, value_A, "left")
    right_A = np.searchsorted(quantile_Q, value_A, "right")
    below_A = np.clip(left_A - 1, 0, steps - 1)
    low_A, high_A = quantile_Q[below_A], quantile_Q[below_A + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between_A = below_A + (value_A - low_A) / (high_A - low_A)
    rank_A = np.where(left_A < right_A, (left_A + right_A - 1) / 2, between_A)
    percentage_A: Float64 = 100 * np.clip(rank_A, 0, steps) / steps
    percentage_A[np.isnan(value_A)] = np.nan
    # Beyond both ends there is no line.
    percentage_A[value_A < quantile_Q[0]] = 0
    percentage_A[value_A > quantile_Q[-1]] = 100
    return percentage_A


@dataclass(frozen=True)
class Calibration:
    """A background, as its file has it.

    Parameters
    ----------
    path : Path
        The file.
    made_of : mapping
        The model, the genome and the settings.
    extreme : mapping of str to int
        The fields, with their `Field.extreme`.
    quantile_Q : mapping of (str, str) to ndarray of float64, shape (Q,)
        By field and group; those with enough alleles.
    alleles : mapping of (str, str) to int
        Of how many they are.
    """

    path: Path
    made_of: Mapping[str, Any]
    extreme: Mapping[str, int]
    quantile_Q: Mapping[tuple[str, str], Float64]
    alleles: Mapping[tuple[str, str], int]

    def refuse_other(self, made_of: Mapping[str, Any], fields: Sequence[Field]) -> None:
        """Refuse a run that its scores cannot be compared with.

        Raises
        ------
        InputError
            With what differs.
        """
        now = {name: made_of[name] for name in ("model", "genome")}
        now["settings"] = {name: made_of["settings"][name] for name in _SETTINGS}
        if found := differences(self.made_of, now):
            raise InputError(
                f"{self.path}: is of other scores: {'; '.join(found)}; make one by --calibrate as these are"
            )
        names = [field.name for field in fields if field.extreme]
        if not set(names) & set(self.extreme):
            raise InputError(
                f"{self.path}: has no {' or '.join(names)}, but {', '.join(self.extreme)}; make one by --calibrate "
                "with the same --scores"
            )

    def fields(self, fields: Sequence[Field]) -> list[Field]:
        """Give the fields that it adds to those of a scorer."""
        have = {name for name, _ in self.quantile_Q}
        return [
            Field(
                f"{field.name}_PCT",
                f"Percentage, 0 to 100, of a background's alleles of its kind (SNVs, or MNVs and indels) whose "
                f"{field.name} is less extreme, which is {'higher' if field.extreme < 0 else 'lower'}; the background "
                f"is {self.path.name.replace(chr(34), '_')}, of {self._size(field.name)}",
                0,
            )
            for field in fields
            if field.name in have
        ]

    def _size(self, name: str) -> str:
        sizes = [
            f"{self.alleles[name, group]:,} {_GROUP_NAMES[group]}" for group in GROUPS if (name, group) in self.alleles
        ]
        return " and ".join(sizes)

    def percentage(self, name: str, value_A: Float64, kind_A: UInt8) -> Float64:
        """Say of each score what percentage of the background is less extreme.

        Parameters
        ----------
        name : str
            The field.
        value_A : ndarray of float64, shape (A,)
            Scores; NaN where there is none.
        kind_A : ndarray of uint8, shape (A,)
            `Kind` of each allele.

        Returns
        -------
        ndarray of float64, shape (A,)
            0 to 100, with two digits behind the point, as more would say nothing; NaN where there is no score or the
            background has too few of its kind.
        """
        found_A = np.full(len(value_A), np.nan)
        for group, kinds in GROUPS.items():
            quantile_Q = self.quantile_Q.get((name, group))
            if quantile_Q is not None:
                rows = np.flatnonzero(np.isin(kind_A, [int(kind) for kind in kinds]))
                below_A = percentage_below(quantile_Q, value_A[rows])
                found_A[rows] = below_A if self.extreme[name] > 0 else 100 - below_A
        return found_A.round(2)


def read_calibration(path: Path) -> Calibration:
    """Read the file of a background.

    Raises
    ------
    InputError
        When it is missing, none, damaged or of a newer version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({one_line(error, 160)}); make it by --calibrate") from None
    except ValueError:
        raise InputError(f"{path}: is no file of a background; make one by --calibrate") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(f"{path}: is no file of a background; make one by --calibrate")
    if values.get("version") != VERSION:
        raise InputError(
            f"{path}: is of version {values.get('version')}, and this version of mutbert reads {VERSION}; "
            "update mutbert"
        )
    try:
        extreme = {name: int(field["extreme"]) for name, field in values["fields"].items()}
        quantile_Q = {
            (name, group): np.array(field[group]["quantiles"], dtype=np.float64)
            for name, field in values["fields"].items()
            for group in GROUPS
            if field[group]["quantiles"] is not None
        }
        for (name, _), values_Q in quantile_Q.items():
            if values_Q.ndim != 1 or len(values_Q) < LEAST or not np.all(np.diff(values_Q) >= 0):
                raise ValueError(f"{name}: its quantiles do not ascend")
        alleles = {(name, group): int(values["fields"][name][group]["alleles"]) for name, group in quantile_Q}
        return Calibration(path, dict(values["made_of"]), extreme, quantile_Q, alleles)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: is damaged ({one_line(error, 160)}); make it anew by --calibrate") from None
