"""How extreme a score is among those of a background, such as a population's common variants.

The file of a background is JSON: ``format`` and ``version``; ``made_of``, the model, genome and settings it was scored
with; and of each of ``fields``, for SNVs and for other alleles, how many ``alleles`` there were and ``quantiles`` of
their scores. Shape suffixes: A alternate alleles, Q quantiles.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

import mutbert
from mutbert.effects.alleles import Kind
from mutbert.errors import InputError, one_line
from mutbert.files import write_json
from mutbert.inference.resumable import differences

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mutbert.arrays import Float64, UInt8
    from mutbert.effects.scores import Field

_FORMAT: Final = "mutbert calibration"
_VERSION: Final = 1
_QUANTILES: Final = 1001
LEAST: Final = 100  # alleles of a kind that a background needs to serve that kind
# Kinds of alleles whose scores are compared with one another.
_GROUPS: Final = {"snv": (Kind.SNV,), "mnv_indel": (Kind.MNV, Kind.INDEL)}
# Settings that a background's scores do not depend on.
_OTHER_SETTINGS: Final = {"scores", "frequency_field", "calibration", "region", "part_records"}


def _made_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in plan["settings"].items() if name not in _OTHER_SETTINGS}
    return {"model": plan["model"], "genome": plan["genome"], "settings": settings}


def _extremes(fields: Mapping[str, Field]) -> dict[str, int]:
    return {name: extreme for name, (_, extreme) in fields.items() if extreme}


def write_calibration(
    path: Path, parts: list[Path], fields: Mapping[str, Field], plan: Mapping[str, Any], vcf: str
) -> None:
    """Write a background's file from scored parts; the scores of one field at a time are in memory."""
    found: dict[str, dict[str, Any]] = {}
    for name, extreme in _extremes(fields).items():
        found[name] = {"extreme": extreme}
        for group, kinds in _GROUPS.items():
            rows = pl.col("kind").is_in([kind.name.lower() for kind in kinds])
            scores = pl.scan_parquet(parts).filter(rows).select(name).collect().to_series().drop_nulls().to_numpy()
            own = quantiles(scores).tolist() if len(scores) >= LEAST else None
            found[name][group] = {"alleles": len(scores), "quantiles": own}
    head = {"format": _FORMAT, "version": _VERSION, "made_of": _made_of(plan), "created_by": mutbert.__version__}
    write_json(path, {**head, "vcf": vcf, "fields": found}, force=True)


def quantiles(value_A: Float64) -> Float64:
    """Return 1,001 evenly spaced quantiles, extremes included, by NumPy's method ``linear``; fewer values sorted.

    They are rounded to float32, as scores are, so that ties with a score of the background are seen.
    """
    if len(value_A) <= _QUANTILES:
        return np.sort(value_A.astype(np.float64))
    return np.quantile(value_A.astype(np.float64), np.linspace(0, 1, _QUANTILES)).astype(np.float32).astype(np.float64)


def percentage_below(quantile_Q: Float64, value_A: Float64) -> Float64:
    """Return the percentage of a background below each value, the inverse of `quantiles`; NaN remains NaN.

    Linear between two quantiles; a value that equals several quantiles is at the middle of them.
    """
    left_A, right_A = (np.searchsorted(quantile_Q, value_A, side) for side in ("left", "right"))
    between_A = np.interp(value_A, quantile_Q, np.arange(len(quantile_Q)))
    rank_A = np.where(left_A < right_A, (left_A + right_A - 1) / 2, between_A)
    return np.asarray(100 * rank_A / (len(quantile_Q) - 1))


class Calibration:
    """A background from its file; raises an InputError where that is missing, another or damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if (values["format"], values["version"]) != (_FORMAT, _VERSION):
                raise ValueError(f"{values['format']} of version {values['version']}")
            self.made_of, self.fields = dict(values["made_of"]), values["fields"]
            every = {(name, group): one[group]["quantiles"] for name, one in self.fields.items() for group in _GROUPS}
            self._quantile_Q = {key: np.array(own, np.float64) for key, own in every.items() if own is not None}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            text = f"is no background that can be read ({one_line(error)}); make it by --calibrate"
            raise InputError(f"{path}: {text}") from None

    def check(self, plan: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
        """Raise an InputError where scores cannot be compared with the background."""
        if found := differences(self.made_of, _made_of(plan)):
            raise InputError(f"{self.path}: is of other scores: {'; '.join(found)}; make one by --calibrate")
        if not (names := _extremes(fields)).keys() & self.fields:
            own, wanted = ", ".join(self.fields), " or ".join(names)
            raise InputError(f"{self.path}: has no {wanted}, but {own}; make one by --calibrate with the same --scores")

    def added(self, fields: Mapping[str, Field]) -> dict[str, Field]:
        """Return the fields that it adds to those of a scorer."""
        text = "Percentage, 0 to 100, of {}'s alleles of its kind whose {} is less extreme, thus {}"
        known = {name for name, _ in self._quantile_Q}
        return {
            f"{name}_PCT": (text.format(self.path.name, name, "higher" if extreme < 0 else "lower"), 0)
            for name, (_, extreme) in fields.items()
            if name in known
        }

    def percentages(self, columns: Mapping[str, Float64], kind_A: UInt8) -> dict[str, Float64]:
        """Return the percentages of the background that are less extreme, with two decimals; NaN where it has none."""
        found: dict[str, Float64] = {}
        for (name, group), quantile_Q in self._quantile_Q.items():
            if name in columns:
                rows = np.isin(kind_A, _GROUPS[group])
                below_A = percentage_below(quantile_Q, columns[name][rows])
                value_A = found.setdefault(f"{name}_PCT", np.full(len(kind_A), np.nan))
                value_A[rows] = (below_A if self.fields[name]["extreme"] > 0 else 100 - below_A).round(2)
        return found
