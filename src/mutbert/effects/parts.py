"""Records cut into parts of bounded work, each scored into a frame with one row an alternate allele.

Shape suffixes: N records, A alternate alleles, F fields.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from mutbert.effects.alleles import Kind, Reason
from mutbert.effects.scores import Field
from mutbert.encoders.inputs import place_windows
from mutbert.errors import InputError
from mutbert.genome.vcf import read_records
from mutbert.regions import ContigNames

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mutbert.arrays import Float64
    from mutbert.effects.alleles import Alleles
    from mutbert.effects.calibration import Calibration
    from mutbert.effects.scores import Scorer
    from mutbert.progress import Advance

    Region = tuple[str, int, int | None] | None

# Added to frequencies, so that an allele that was never seen has a ratio.
_EPSILON: Final = 1e-4
# A share of mismatches, and of how many compared records at least. On another assembly about three in four differ, as
# by chance.
_WARNED: Final = (0.1, 20)
_REFUSED: Final = (0.5, 100)
_COMPARED: Final = (
    Reason.REFERENCE_MISMATCH, Reason.SCORED, Reason.AMBIGUOUS_ALTERNATE, Reason.NOT_A_CHANGE, Reason.TOO_LONG,
    Reason.NOT_A_NUMBER, Reason.NO_SCORE_OF_ITS_KIND,
)  # fmt: skip
KIND_TEXTS: Final = np.array([kind.name.lower() for kind in Kind], dtype=object)
REASON_TEXTS: Final = np.array([reason.text for reason in Reason], dtype=object)


def cut_records(
    path: Path, fields: Sequence[str], scorer: Scorer, *, region: Region = None, size: int = 1000,
    passes: int = 4000,
) -> Iterator[pl.DataFrame]:  # fmt: skip
    """Yield a file's records, numbered, in parts, at least one, which depend on them, the settings and the sizes alone.

    A part has `size` records at most and about so many `passes` of the model. With shared windows it only begins with a
    record whose window has no base of REF of an earlier one.
    """
    texts = dict.fromkeys(["ref", "alt", *fields], pl.String())
    held = pl.DataFrame(schema={"record": pl.Int64(), "contig": pl.String(), "position": pl.Int64(), **texts})
    cuts = records = 0
    for frame in _weighed(path, fields, scorer, region):
        numbered = frame.with_columns(pl.int_range(records, records + pl.len(), dtype=pl.Int64).alias("record"))
        records += len(frame)
        held = pl.concat([held, numbered]) if len(held) else numbered
        total_N, free = held["passes"].cum_sum().to_numpy(), np.flatnonzero(held["free"].to_numpy())
        ends = [0]
        while ends[-1] < len(held):
            most = passes + (total_N[ends[-1] - 1] if ends[-1] else 0)
            end = max(min(ends[-1] + size, int(np.searchsorted(total_N, most, "right"))), ends[-1] + 1)
            if not len(later := free[np.searchsorted(free, end) :]):
                break
            ends.append(int(later[0]))
        yield from (held[begin:end] for begin, end in pairwise(ends))
        held = held[ends[-1] :]
        cuts += len(ends) - 1
    if len(held) or not cuts:
        yield held


def _weighed(path: Path, fields: Sequence[str], scorer: Scorer, region: Region) -> Iterator[pl.DataFrame]:
    """Yield records with `passes`, about how many each takes, and `free`, whether a part may begin with it."""
    settings, lengths = scorer.settings, scorer.surroundings.genome.lengths
    asked, alt = set(settings.scores), pl.col("alt")
    letters = (pl.col("ref").str.len_chars() + alt.str.len_chars()).clip(upper_bound=2 * settings.longest)
    passes = (
        pl.when((pl.col("ref").str.len_chars() == 1) & alt.str.contains("^[A-Za-z](,[A-Za-z])*$"))
        .then(len(asked) + ("distance" in asked))
        .when(alt.str.contains("^[A-Za-z,]+$") & bool(asked - {"unmasked"}))
        .then((4 * settings.flank + letters) * (alt.str.count_matches(",", literal=True) + 1))
        .otherwise(0)
    ) * (2 if settings.strands == "both" else 1)
    names, contigs, last, reach = ContigNames(lengths), dict[str, tuple[int, int]](), -1, -1
    for frame in read_records(path, fields, region=region):
        frame = frame.with_columns(passes.cast(pl.Int64).alias("passes"), free=pl.lit(value=True))
        if scorer.stride is not None:
            for name in frame["contig"].unique(maintain_order=True):
                contigs.setdefault(name, (len(contigs) << 32, lengths.get(names.find(name) or "", 1 << 32)))
            base_N, length_N = np.array([contigs[name] for name in frame["contig"]], dtype=np.int64).T
            first_N = frame["position"].to_numpy()
            end_N = first_N + frame["ref"].str.len_chars().to_numpy().astype(np.int64) - 1
            unsorted = np.flatnonzero(np.diff(base_N + first_N, prepend=last) < 0)
            if len(unsorted):
                raise InputError(
                    f"{path}: {frame['contig'][int(unsorted[0])]}:{first_N[unsorted[0]] + 1} comes too late, and "
                    "shared windows need a sorted file; use 'bcftools sort' first, or choose --windows centred"
                )
            last = int(base_N[-1] + first_N[-1])
            window_N, reached_N = (
                base_N + place_windows(np.clip(one_N, 0, length_N - 1), length_N, scorer.context, "shared").start_P
                for one_N in (first_N, end_N)
            )
            reach_N = np.maximum.accumulate(np.append(reach, reached_N))
            reach = int(reach_N[-1])
            frame = frame.with_columns(free=pl.Series(window_N > reach_N[:-1]))
        yield frame


def score_part(
    records: pl.DataFrame, alleles: Alleles, scorer: Scorer, odds_A: Float64 | None, calibration: Calibration | None,
    advance: Advance,
) -> pl.DataFrame:  # fmt: skip
    """Return a part's rows: record, which allele, kind, each field as float32, and why there is no score."""
    # Plus zero, so that none is written as -0.
    score_AF = scorer.score(alleles, advance) + np.float32(0)
    columns = {field.name: score_AF[:, number].astype(np.float64) for number, field in enumerate(scorer.fields)}
    if odds_A is not None:
        columns["AFLLR"] = columns["LLR"] + odds_A
    if calibration is not None:
        for field in calibration.added(scorer.fields):
            name = field.name.removesuffix("_PCT")
            columns[field.name] = calibration.percentage(name, columns[name], alleles.kind_A)
    meant_A = (alleles.kind_A == Kind.SNV) | bool({"llr", "distance"} & set(scorer.settings.scores))
    without_A = (alleles.reason_A == Reason.SCORED) & np.isnan(score_AF).all(axis=1)
    reason_A = np.where(
        without_A, np.where(meant_A, Reason.NOT_A_NUMBER, Reason.NO_SCORE_OF_ITS_KIND), alleles.reason_A
    )
    return (
        records.select(
            "record", chrom="contig", pos=pl.col("position") + 1, id="ID", ref="ref", alt=pl.col("alt").str.split(",")
        )
        .explode("alt")
        .with_columns(
            pl.Series("kind", KIND_TEXTS[alleles.kind_A], dtype=pl.String),
            *(pl.Series(name, value_A.astype(np.float32), nan_to_null=True) for name, value_A in columns.items()),
            pl.Series("why", REASON_TEXTS[reason_A], dtype=pl.String).replace(Reason.SCORED.text, None),
        )
    )


def log_odds(path: Path, records: pl.DataFrame, name: str) -> Float64:
    """Return ln((f_ALT + ε) / (f_REF + ε)) of each alternate allele with frequencies of an INFO field, shape (A,).

    f_REF is what the alternates leave of 1; NaN where a frequency of the record is missing.
    """
    text, count_N = records[f"INFO/{name}"], records["alt"].str.count_matches(",", literal=True).to_numpy() + 1
    # One dot stands for all alternates.
    given_N, parts = (text != ".").to_numpy(), text.str.split(",")
    record_A = np.repeat(np.arange(len(records)), count_N)
    frequency_A = np.full(len(record_A), np.nan)
    faulty, fault = np.flatnonzero(given_N & (parts.list.len().to_numpy() != count_N)), "each alternate has one value"
    if not len(faulty):
        values = parts.filter(given_N).explode().cast(pl.Float64, strict=False)
        frequency_A[given_N[record_A]] = values.fill_null(np.nan).to_numpy()
        faulty, fault = record_A[(frequency_A < 0) | (frequency_A > 1)], "a frequency is from 0 to 1"
    for row in faulty[:1].tolist():
        raise InputError(
            f"{path}, {records['contig'][row]}:{records['position'][row] + 1}: INFO field {name} is {text[row]}, but "
            f"{fault}; correct it, or choose another field"
        )
    # Rounded frequencies may add up to a little more than 1.
    reference_A = np.maximum(1 - np.bincount(record_A, frequency_A), 0)[record_A]
    odds_A: Float64 = np.log((frequency_A + _EPSILON) / (reference_A + _EPSILON))
    return odds_A


def adjusted_field(name: str) -> Field:
    """Return the field of LLR adjusted by the frequencies of an INFO field."""
    ratio = f"ln((f_ALT + {_EPSILON:g}) / (f_REF + {_EPSILON:g}))"
    text = f"LLR + {ratio}, with f_ALT of INFO field {name} and f_REF what its alternates leave of 1"
    return Field("AFLLR", f"LLR adjusted by allele frequencies, {text}", -1)


def check_assembly(path: Path, genome: str, counts: Counter[str]) -> tuple[str, ...]:
    """Return a warning where REF often differs from the genome; raise an InputError where it mostly does.

    `counts` are alternate alleles by reason.
    """
    count, differing = sum(counts[reason.text] for reason in _COMPARED), counts[Reason.REFERENCE_MISMATCH.text]
    warned, refused = (count >= least and differing > share * count for share, least in (_WARNED, _REFUSED))
    share = f"{differing / max(count, 1):.0%}"
    text = f"{path}: of {count:,} alleles, {differing:,} have another REF than {genome} ({share})"
    if refused:
        raise InputError(
            f"{text}, so it is of another assembly; give the genome that it is of, or remove such records by 'bcftools "
            "norm --check-ref x'"
        )
    return (f"{text} and no score; see whether it is of another assembly",) if warned else ()
