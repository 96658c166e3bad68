"""What a run reads and writes: records in parts, tables, and backgrounds, such as a population's common variants.

The file of a background is JSON: ``format`` and ``version``; ``made_of``, the model, genome and settings it was scored
with; and of each of ``fields``, for SNVs and for other alleles, how many ``alleles`` there were and ``quantiles`` of
their scores. Shape suffixes: N records, A alternate alleles, Q quantiles.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pysam.bcftools

import mutbert
from mutbert.arrays import Float64, UInt8
from mutbert.effects.alleles import COMPARED, Kind
from mutbert.effects.scores import Field, Scorer
from mutbert.encoders.inputs import place_windows
from mutbert.errors import InputError, one_line
from mutbert.files import atomic_file, write_json
from mutbert.genome.variants import MOST_IMPOSSIBLE, SUM_TOLERANCE
from mutbert.genome.vcf import read_records
from mutbert.inference.parts import differences
from mutbert.regions import ContigNames

VCFS: Final = (".vcf.gz", ".vcf", ".bcf")
INDICES: Final = {".gz": ("tbi", "csi"), ".bcf": ("csi",)}  # a .tbi file cannot hold positions from 2^29 on
TABLES: Final = (".tsv.gz", ".tsv", ".parquet")
EPSILON: Final = 1e-4  # added to frequencies, so that an allele that was never seen has a ratio
_FORMAT: Final = "mutbert calibration"
_QUANTILES: Final = 1001
LEAST: Final = 100  # alleles of a kind that a background needs to serve that kind
_GROUPS: Final = {"snv": (Kind.SNV,), "mnv_indel": (Kind.MNV, Kind.INDEL)}  # whose scores can be compared
# Settings that a background's scores do not depend on.
_OTHER_SETTINGS: Final = {"scores", "frequency_field", "calibration", "region", "part_records"}


def cut_records(
    path: Path, frequency_field: str | None, scorer: Scorer, *, region: Path | None, size: int
) -> Iterator[pl.DataFrame]:
    """Yield numbered records in parts of at most `size`, others than SNVs counting ten; shared windows stay whole."""
    fields = ["ID"] if frequency_field is None else ["ID", f"INFO/{frequency_field}"]
    texts = dict.fromkeys(["contig", "ref", "alt", *fields], pl.String())
    held = pl.DataFrame(schema={"record": pl.Int64(), "part": pl.Int64(), "position": pl.Int64(), **texts})
    is_snv = (pl.col("ref").str.len_bytes() == 1) & pl.col("alt").str.contains("^.(,.)*$")
    lengths, contig, position, reached = scorer.genome.lengths, "", 0, 0
    records = weight = first = 0
    for frame in read_records(path, fields, region=region):
        weight_N = np.where(frame.select(is_snv).to_series(), 1, 10)
        first_N = weight + np.cumsum(weight_N) - weight_N
        if scorer.settings.windows == "shared":
            names = ContigNames(lengths)
            length_of = {name: lengths.get(names.find(name) or "", 1 << 32) for name in frame["contig"].unique()}
            length_N = np.array([length_of[name] for name in frame["contig"]], dtype=np.int64)
            begin_N = frame["position"].to_numpy()
            ends_2N = np.stack([begin_N, begin_N + frame["ref"].str.len_bytes().to_numpy() - 1])
            is_same_N = (frame["contig"] == frame["contig"].shift(1, fill_value=contig)).to_numpy()
            for row in np.flatnonzero(is_same_N & (np.diff(begin_N, prepend=position) < 0))[:1].tolist():
                late = f"{frame['contig'][row]}:{begin_N[row] + 1} comes too late, and shared windows need a sorted"
                raise InputError(f"{path}: {late} file; use 'bcftools sort' first, or choose --windows centred")
            window_2N, _ = place_windows(np.clip(ends_2N, 0, length_N - 1), length_N, scorer.context, "shared")
            # No part begins in the window where the record before ends.
            is_free_N = ~is_same_N | (window_2N[0] > np.append(reached, window_2N[1, :-1]))
            first_N = np.maximum.accumulate(np.where(is_free_N, first_N, first))
            contig, position, reached = frame["contig"][-1], int(begin_N[-1]), int(window_2N[1, -1])
        part, record = pl.Series(first_N // size), pl.int_range(records, records + pl.len(), dtype=pl.Int64)
        numbered = frame.with_columns(part=part, record=record).select(held.columns)
        records, weight, first = records + len(frame), weight + int(weight_N.sum()), int(first_N[-1])
        *whole, held = pl.concat([held, numbered]).partition_by("part", maintain_order=True)
        yield from whole
    yield held


def log_odds(path: Path, records: pl.DataFrame, name: str, counts: Counter[str]) -> Float64:
    """Return ln((f_ALT + ε) / (f_REF + ε)) of each alternate allele with frequencies of an INFO field, shape (A,).

    f_REF is what the alternates leave of 1; NaN where a frequency of the record is missing or impossible. `counts` has
    the records so far; as in a build, one in a hundred may be impossible.
    """
    value, number = pl.col(f"INFO/{name}"), pl.col("alt").str.count_matches(",", literal=True) + 1
    each, one = pl.col("frequency"), pl.element()
    frequency = value.str.split(",").list.eval(one.cast(pl.Float64, strict=False).fill_nan(None))
    # One dot stands for all alternates.
    is_wrong = (each.list.len() != number) | each.list.eval(~one.is_between(0, 1)).list.any()
    is_wrong = (value != ".") & (is_wrong | (each.list.sum() > 1 + SUM_TOLERANCE))
    rows = records.with_columns(frequency=frequency).with_columns(is_wrong=is_wrong)
    wrong = rows.filter("is_wrong")
    counts.update({"read": len(records), "impossible": len(wrong)})
    if counts["impossible"] > MOST_IMPOSSIBLE * counts["read"]:
        contig, position, text = wrong.select("contig", pl.col("position") + 1, value).row(0)
        what = f"INFO field {name} is {text}, but each alternate has one frequency from 0 to 1, with a sum of at most 1"
        raise InputError(f"{path}, {contig}:{position}: {what}, and over 1% of records have not; use another field")
    known = pl.when((each.list.drop_nulls().list.len() == number) & ~pl.col("is_wrong")).then(each)
    # Rounded frequencies may add up to a little more than 1.
    reference = (1 - each.list.sum()).clip(0).alias("reference")
    rows = rows.select(known.otherwise(pl.lit(None, pl.Float64).repeat_by(number)), reference).explode("frequency")
    return rows.select(((each + EPSILON) / (pl.col("reference") + EPSILON)).log()).to_series().to_numpy()


def check_assembly(path: Path, genome: str, counts: Counter[str]) -> tuple[str, ...]:
    """Return a warning where REF often differs from the genome; raise an InputError where it mostly does."""
    count, differing = sum(counts[reason.text] for reason in COMPARED), counts["reference_mismatch"]
    share = differing / max(count, 1)
    text = f"{path}: of {count:,} alleles, {differing:,} have another REF than {genome} ({share:.0%})"
    if count >= 100 and differing > 0.5 * count:
        raise InputError(f"{text}, so it is of another assembly; use its genome, or 'bcftools norm --check-ref x'")
    warned = count >= 20 and differing > 0.1 * count
    return (f"{text} and no score; see whether it is of another assembly",) if warned else ()


def write_table(path: Path, parts: list[Path], fields: Sequence[str], where: pl.Expr | bool = True) -> None:
    """Write the parts, or some of their rows, as one table, a row an alternate allele."""
    columns = ["chrom", "pos", "id", "ref", "alt", "kind", *fields, "why"]
    with atomic_file(path, force=True) as aside:
        if path.suffix == ".parquet":
            pl.scan_parquet(parts).filter(where).select(columns).sink_parquet(aside)
            return
        with pysam.BGZFile(str(aside), "wb") if path.suffix == ".gz" else aside.open("wb") as file:
            for number, part in enumerate(parts):
                rows = pl.read_parquet(part, columns=columns).filter(where)
                file.write(rows.write_csv(separator="\t", include_header=not number, quote_style="never").encode())


def write_vcf(
    path: Path, parts: list[Path], header: bytes, declared: Collection[str], lines: Iterable[bytes],
    fields: Mapping[str, Field], plan: Mapping[str, Any],
) -> tuple[Path | None, str]:  # fmt: skip
    """Write lines of a VCF with the parts' scores in INFO; return the index, or None and why there is none."""
    prefix = plan["prefix"]
    text, names = header.decode("utf-8", "surrogateescape").rsplit("\n", 2)[:2]
    chroms = (pl.read_parquet(part, columns=["chrom"])["chrom"] for part in parts)
    contigs = dict.fromkeys(name for chrom in chroms for name in chrom.unique(maintain_order=True))
    infos = [(f"{name},Number=A,Type=Float", text.replace('"', "_")) for name, (text, _) in fields.items()]
    infos.append(("WHY,Number=.,Type=String", "Why an alternate allele has no score; . where it has"))
    added = [f"##contig=<ID={name}>" for name in contigs if name not in declared]
    added += [f'##INFO=<ID={prefix}_{field},Description="{description}">' for field, description in infos]
    head = "\n".join([text, *added, f"##mutbert_score={json.dumps(plan)}", names, ""])
    words = (info for part in parts for info in _infos(pl.read_parquet(part), prefix, list(fields)))
    with atomic_file(path, force=True) as aside, ExitStack() as stack:
        written = aside
        if path.suffix == ".bcf":
            written = aside.with_name(f"{aside.name}.vcf.gz")
            stack.callback(written.unlink, missing_ok=True)
        with written.open("wb") if path.suffix == ".vcf" else pysam.BGZFile(str(written), "wb") as file:
            file.write(head.encode("utf-8", "surrogateescape"))
            for line, info in zip(lines, words, strict=True):
                columns = line.split(b"\t", 8)
                columns[7] = b";".join(word for word in (columns[7], info.encode()) if word not in {b".", b""}) or b"."
                file.write(b"\t".join(columns) + b"\n")
        if path.suffix == ".bcf" and not _bcftools("view", "--no-version", "-Ob", "-o", str(aside), str(written)):
            raise InputError(f"{path}: its records cannot be BCF, which needs each field declared; write .vcf.gz")
    if not path.is_file():
        return None, "a pipe or a device has none"
    for kind in INDICES.get(path.suffix, ()):
        path.with_name(f"{path.name}.{kind}").unlink(missing_ok=True)
    for kind in INDICES.get(path.suffix, ()):
        if _bcftools("index", f"--{kind}", str(path)):
            return path.with_name(f"{path.name}.{kind}"), ""
    return None, ".vcf files have none" if path.suffix == ".vcf" else "the records are not in order"


def _infos(part: pl.DataFrame, prefix: str, fields: Sequence[str]) -> Iterator[str]:
    """Yield of each record ``MUTBERT_LLR=-1.5,.;MUTBERT_WHY=.,symbolic``, without fields that no alternate has."""
    # Six digits, as htslib writes them.
    texts = [part[name].map_elements("{:.6g}".format, return_dtype=pl.String) for name in fields]
    words = [
        pl.when(pl.col(name).is_not_null().any())
        .then(pl.lit(f"{prefix}_{name}=") + pl.col(name).fill_null(".").str.join(","))
        .alias(name)
        for name in (*fields, "WHY")
    ]
    infos = part.select("record", *texts, WHY="why").group_by("record", maintain_order=True).agg(words)
    yield from infos.select(pl.concat_str(pl.exclude("record"), separator=";", ignore_nulls=True)).to_series()


def _bcftools(command: str, *words: str) -> bool:
    """Return whether a command ended well; htslib prints nothing."""
    with ExitStack() as stack, suppress(pysam.SamtoolsError):
        stack.callback(pysam.set_verbosity, pysam.set_verbosity(0))
        getattr(pysam.bcftools, command)(*words, catch_stdout=False)
        return True
    return False


def _made_of(plan: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in plan["settings"].items() if name not in _OTHER_SETTINGS}
    return {"model": plan["model"], "genome": plan["genome"], "settings": settings}


def write_calibration(
    path: Path, parts: list[Path], fields: Mapping[str, Field], plan: Mapping[str, Any], vcf: str
) -> None:
    """Write a background's file from scored parts; the scores of one field at a time are in memory."""
    found: dict[str, dict[str, Any]] = {}
    for name, extreme in ((name, extreme) for name, (_, extreme) in fields.items() if extreme):
        found[name] = {"extreme": extreme}
        for group, kinds in _GROUPS.items():
            rows = pl.scan_parquet(parts).filter(pl.col("kind").is_in([kind.name.lower() for kind in kinds]))
            scores = rows.select(pl.col(name).drop_nulls()).collect().to_series().to_numpy()
            own = quantiles(scores).tolist() if len(scores) >= LEAST else None
            found[name][group] = {"alleles": len(scores), "quantiles": own}
    head = {"format": _FORMAT, "version": 1, "made_of": _made_of(plan), "created_by": mutbert.__version__}
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
            if (values["format"], values["version"]) != (_FORMAT, 1):
                raise ValueError(f"{values['format']} of version {values['version']}")
            self.made_of, self.fields = dict(values["made_of"]), values["fields"]
            every = {(name, group): one[group]["quantiles"] for name, one in self.fields.items() for group in _GROUPS}
            self._quantile_Q = {key: np.array(own, np.float64) for key, own in every.items() if own is not None}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            what = f"is no background that can be read ({one_line(error)})"
            raise InputError(f"{path}: {what}; make it by --calibrate") from None

    def check(self, plan: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
        """Raise an InputError where scores cannot be compared with the background."""
        if found := differences(self.made_of, _made_of(plan)):
            raise InputError(f"{self.path}: is of other scores: {'; '.join(found)}; make one by --calibrate")
        if not fields.keys() & self.fields:
            own, wanted = ", ".join(self.fields), " or ".join(name for name, (_, extreme) in fields.items() if extreme)
            raise InputError(f"{self.path}: has no {wanted}, but {own}; make one by --calibrate with the same --scores")

    def added(self, fields: Mapping[str, Field]) -> dict[str, Field]:
        """Return the fields that it adds to those of a scorer."""
        text = "Percentage, 0 to 100, of {}'s alleles of its kind whose {} is less extreme, thus {}"
        ways = {name: "higher" if fields[name][1] < 0 else "lower" for name, _ in self._quantile_Q if name in fields}
        return {f"{name}_PCT": (text.format(self.path.name, name, way), 0) for name, way in ways.items()}

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
