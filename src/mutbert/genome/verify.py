"""Compare a genome with its sources, from which it is derived again by a path of its own.

htslib's text is all that this has in common with the builder: polars types and judges the alleles by
``docs/genome.md``, so that a mistake has to be made twice to go unseen. Shape suffixes: L bases of a contig, R alleles'
rows, A of them accepted, V positions that vary, 4 bases in the order A, C, G, T, F files.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from mutbert import alphabet
from mutbert.arrays import list_ranges
from mutbert.errors import InputError
from mutbert.genome import sources as inputs
from mutbert.genome import variants as fates
from mutbert.genome.fasta import read_fasta
from mutbert.genome.format import FREQUENCY_ONE, MANIFEST
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.vcf import Frequencies, find_frequencies, read_header, read_records
from mutbert.progress import progress_bar
from mutbert.regions import match_contig, names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from mutbert.progress import Advance

    Array = np.ndarray[Any, Any]

_TEXTS_OF_A_KIND: Final = 4
_LARGEST_DISTANCE: Final = 1 / FREQUENCY_ONE + 2e-6  # the fixed point's, and that of six digits

_ALLELE: Final = {
    "file": pl.UInt32, "record": pl.UInt32, "position": pl.Int64, "frequency": pl.Float32, "whole": pl.UInt64,
    "before": pl.UInt8, "after": pl.UInt8, "fate": pl.UInt8,
}  # fmt: skip


@dataclass(frozen=True)
class VerifyReport:
    """How a genome compares with its sources."""

    path: Path
    contigs: int  # that both sides have
    bases: int  # of them
    variants: int  # positions that vary on both sides
    records: int  # of all VCF files
    largest_difference: float  # between a stored frequency and the one derived
    sources: Sequence[inputs.SourceCheck]
    differences: Sequence[str]  # some of each kind
    differing: int  # contigs, bases, their soft mask, variants, counts

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.differing


class _Differences:
    def __init__(self) -> None:
        self.total = 0
        self.texts: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, different: Any, describe: Callable[[Any], str]) -> None:
        """Count what is different, and describe some of it."""
        self.total += len(different)
        room = _TEXTS_OF_A_KIND - len(self.texts[kind])
        self.texts[kind] += [describe(one) for one in different[:room]]


def verify_genome(
    genome: str | Path,
    fasta: inputs.Sources,
    vcf: inputs.Sources = (),
    *,
    samples: str | Path | None = None,
    population: str | None = None,
    sample: str | None = None,
    progress: bool = False,
) -> VerifyReport:
    """Derive a genome again from its sources, by another path than the builder's, and compare.

    The settings are those of the genome's manifest. Memory is one contig's letters and some hundred bytes for each of
    its alleles; the alleles of all contigs lie in temporary files, about 30 bytes each.

    Parameters
    ----------
    genome : str or Path
        The store; its checksums are verified first.
    fasta, vcf : path, or sequence of paths
        The sources in the order of the build; ``"PREFIX=path"`` for one that had a prefix.
    samples, population, sample : str, optional
        The samples whose genotypes were counted, as for the build.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    VerifyReport
        What was compared, and what differs.

    Raises
    ------
    InputError
        When the genome is damaged or was not made by ``mutbert genome build``, a source cannot be read or can never
        have been built from, or the samples are not those of the build.
    """
    store = ProbabilisticGenome.open(genome, check=True)
    people = [sample] if sample else None if samples is None else inputs.read_samples(Path(samples), population)
    minimum, field, asked, filters = _read_rules(store, people)
    fastas, vcfs = inputs.parse_sources(fasta), inputs.parse_sources(vcf)
    checks = list(inputs.check_sources(store.manifest.get("sources") or [], fastas, vcfs, progress=progress))
    contigs = {source.name(name): source.prefix for source in fastas for name, *_ in read_fasta(source.path)}
    selected = set(contigs) if asked is None else {match_contig(name, contigs) for name in asked}
    differences = _Differences()
    _compare_names(list(store.contigs), [name for name in contigs if name in selected], differences)
    counts_F18 = np.zeros((len(vcfs), len(fates.REASONS) + 1), dtype=np.int64)  # records by fate, and those taken apart
    compared, bases, variants, largest = 0, 0, 0, 0.0
    headers = {source.path: read_header(source.path) for source in vcfs}
    if people is not None:
        inputs.check_samples(people, {path: header.samples for path, header in headers.items()})
    fields = [find_frequencies(path, headers[path], field, people) for path, _ in vcfs]
    with tempfile.TemporaryDirectory(prefix="mutbert-verify-") as folder:
        with progress_bar("Reading the variants", None, unit="records", show=progress and bool(vcfs)) as advance:
            parts = _read_files(vcfs, fields, contigs, selected, filters, Path(folder), counts_F18, advance)
        with progress_bar("Comparing", sum(store.lengths.values()), unit="bases", show=progress) as advance:
            for source, (own_name, code_L, mask) in ((one, found) for one in fastas for found in read_fasta(one.path)):
                name = source.name(own_name)
                advance(len(code_L))
                if name not in selected:
                    continue
                alleles = pl.concat([pl.DataFrame(schema=_ALLELE), *map(pl.read_ipc, parts[name])])
                expected = _judge(name, alleles, code_L, minimum, vcfs, counts_F18)
                if name in store.contigs:
                    compared += 1
                    bases += _compare_bases(store, name, code_L, mask, differences)
                    shared, distance = _compare_variants(store, name, expected, differences)
                    variants, largest = variants + shared, max(largest, distance)
    _compare_records(store.manifest.get("records") or [], vcfs, fields, counts_F18, differences)
    texts, records = [*chain(*differences.texts.values())], int(counts_F18[:, :-1].sum())
    return VerifyReport(store.path, compared, bases, variants, records, largest, checks, texts, differences.total)


def _read_rules(
    store: ProbabilisticGenome, people: Sequence[str] | None
) -> tuple[float, str, list[str] | None, set[str]]:
    """Return the minimum, field, contigs and filters of the build; `people` have to be the samples of then."""
    file, settings = store.path / MANIFEST, store.manifest.get("settings")
    if settings is None:
        raise InputError(f"{file}: does not say how the genome was built; verify a genome of 'mutbert genome build'")
    rules = float(settings["min_frequency"]), str(settings["frequency_field"]), settings["contigs"]
    filters, chosen = set(settings.get("filter") or ["PASS", "."]), settings.get("samples")
    if (None if people is None else inputs.describe_samples(people)) != chosen:
        raise InputError(
            f"{file}: the genome was built from {(chosen or {}).get('number', 'no')} chosen samples, and "
            f"{'none' if people is None else len(people)} or others were named; use the same --samples, --population "
            "or --sample as when it was built"
        )
    return *rules, filters


def _read_files(
    vcfs: Sequence[inputs.Source],
    fields: Sequence[Frequencies],
    contigs: Mapping[str, str],
    selected: Collection[str | None],
    filters: set[str],
    folder: Path,
    counts_F18: Array,
    advance: Advance,
) -> Mapping[str, list[Path]]:
    """Return files of alleles by contig; records of no contig of the genome, or that do not pass, are only counted."""
    parts = defaultdict(list)
    contig, fate = pl.col("contig"), pl.col("fate")
    for number, ((path, prefix), found) in enumerate(zip(vcfs, fields, strict=True)):
        own = {name.removeprefix(f"{prefix}."): name for name, other in contigs.items() if other == prefix}
        names: dict[str, str] = {}
        read = 0
        for records in read_records(path, [f"INFO/{name}" for name in found.fields], samples=found.samples):
            for name in set(records["contig"].unique()).difference(names):
                names[name] = own.get(match_contig(name, own) or "", "")
            passing = [one for one in records["filter"].unique() if not filters.isdisjoint(["any", *one.split(";")])]
            records = records.with_row_index("record", read).with_columns(contig.replace_strict(names))
            records = records.with_columns(
                file=pl.lit(number),
                fate=_first(
                    (contig == "", fates.NO_CONTIG),
                    (~contig.is_in(list(selected)), fates.NOT_SELECTED),
                    (~pl.col("filter").is_in(passing), fates.FILTERED),
                    otherwise=pl.lit(fates.USED),
                ),
            )
            np.add.at(counts_F18[number], records.filter(fate != fates.USED)["fate"].to_numpy(), 1)
            alleles = _type_alleles(_read_numbers(records.filter(fate == fates.USED), found))
            for at, ((name,), part) in enumerate(alleles.group_by("contig", maintain_order=True)):
                parts[name].append(folder / f"{number}.{read}.{at}")
                part.drop("contig").write_ipc(parts[name][-1])
            read += len(records)
            advance(len(records))
    return parts


def _first(*cases: tuple[pl.Expr, int], otherwise: pl.Expr) -> pl.Expr:
    """Return the number beside the first condition that holds."""
    for condition, number in reversed(cases):
        otherwise = pl.when(condition).then(number).otherwise(otherwise)
    return otherwise


def _read_numbers(records: pl.DataFrame, found: Frequencies) -> pl.DataFrame:
    """Turn the text of frequencies into lists of them, and the number to divide these by.

    Of genotypes calls are counted; a number is null where it is missing, and -1 where there is not one an allele.
    """
    alts = pl.col("alt").str.to_uppercase().str.split(",")
    number = alts.list.len()
    if found.samples is not None:
        most = max(records["alt"].str.count_matches(",").to_list(), default=0) + 2
        words = [rf"\b{allele}\b" if most > 10 else str(allele) for allele in range(most)]
        calls = pl.concat_list([pl.col("genotypes").str.count_matches(word, literal=most <= 10) for word in words])
        calls = calls.list.head(number + 1)
        return records.with_columns(alt=alts, above=calls.list.tail(number), below=calls.list.sum())
    above = pl.col(f"INFO/{found.fields[0]}")
    below = pl.col(f"INFO/{found.fields[1]}").cast(pl.Float64, strict=False) if len(found.fields) > 1 else pl.lit(1.0)
    numbers = above.str.split(",").cast(pl.List(pl.Float64), strict=False)
    none, wrong = pl.lit(None, pl.Float64).repeat_by(number), pl.lit(-1.0).repeat_by(number)
    numbers = pl.when(above == ".").then(none).when(numbers.list.len() == number).then(numbers).otherwise(wrong)
    return records.with_columns(alt=alts, above=numbers, below=below)


def _type_alleles(records: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each alternate allele, and of one that changes several nucleotides for each of these."""
    ref, alt, fate, offset, still = *map(pl.col, ("ref", "alt", "fate", "offset")), pl.col("fate") == fates.USED
    before, after, frequency, below = map(pl.col, ("before", "after", "frequency", "below"))
    rows = records.with_columns(ref.str.to_uppercase()).explode("alt", "above")
    rows = rows.with_row_index("row").with_columns(
        frequency=pl.col("above") / pl.when(below > 0).then(below),
        fate=_first(
            (alt == "*", fates.OVERLAPPING),
            (alt == ".", fates.NO_ALTERNATE),
            (~alt.str.contains("^[A-Z]+$"), fates.SYMBOLIC),
            (alt.str.len_bytes() != ref.str.len_bytes(), fates.INDEL),
            (alt == ref, fates.SAME),
            otherwise=fate,
        ),
    )
    long = still & (ref.str.len_bytes() > 1)
    first, last = offset.min().over("row"), offset.max().over("row")
    trimmed = [text.str.slice(first, last - first + 1) for text in (ref, alt)]
    whole = pl.concat_str(pl.col("position") + first, *trimmed, separator=" ").hash()
    single = (
        rows.filter(long)
        .with_columns(offset=pl.int_ranges(ref.str.len_bytes()), before=ref.str.split(""), after=alt.str.split(""))
        .explode("offset", "before", "after")
        .filter(before != after)
        .with_columns(pl.col("position") + offset, whole=pl.when(first < last).then(whole).otherwise(0))
    )
    rows = pl.concat([rows.filter(~long).with_columns(before=ref, after=alt, whole=0), single], how="diagonal_relaxed")
    bases = {base: number for number, base in enumerate("ACGT")}
    rows = rows.sort("row", maintain_order=True).with_columns(
        before.replace_strict(bases, default=None), after.replace_strict(bases, default=None)
    )
    odd = {fates.UNKNOWN_REFERENCE: before, fates.ODD_ALTERNATE: after, fates.NO_FREQUENCY: frequency.fill_nan(None)}
    fate = _first(*((still & one.is_null(), number) for number, one in odd.items()), otherwise=fate)
    return rows.with_columns(fate=fate).select("contig", *(pl.col(name).cast(kind) for name, kind in _ALLELE.items()))


def _judge(
    name: str, rows: pl.DataFrame, code_L: Array, minimum: float, vcfs: Sequence[inputs.Source], counts_F18: Array
) -> tuple[Array, Array]:
    """Judge the alleles of a contig, in the order of reading, count their records, and return the variants."""
    place_R, fate_R = rows["position"].to_numpy(), rows["fate"].to_numpy().copy()
    inside_R = (place_R >= 0) & (place_R < len(code_L))
    code_R = code_L[place_R * inside_R]
    other_R = alphabet.DISTRIBUTIONS[code_R, rows["before"].fill_null(0).to_numpy()] == 0
    unknown_R = code_R == alphabet.UNKNOWN
    for which_R, fate in ((other_R, fates.MISMATCH), (unknown_R, fates.UNKNOWN_REFERENCE), (~inside_R, fates.OUTSIDE)):
        fate_R[which_R & (rows["fate"].to_numpy() == fates.USED)] = fate

    # The earliest allele says which base of an IUPAC code is the reference; of equal alleles the earliest counts.
    row, frequency, equal = pl.col("row"), pl.col("frequency"), ("position", "after", "whole")
    good = rows.with_row_index("row").filter(fate_R == fates.USED)
    other = pl.col("before") != pl.col("before").first().over("position")
    fate_R[good.filter(other)["row"].to_numpy()] = fates.CONFLICT
    good = good.filter(~other).with_columns(
        first=row.first().over(equal), same=frequency == frequency.first().over(equal)
    )
    repeats, accepted = good.filter(row != pl.col("first")), good.filter(row == pl.col("first"))
    fate_R[repeats["row"].to_numpy()] = np.where(repeats["same"].to_numpy(), fates.DUPLICATE, fates.CONFLICT)

    # Different alleles of one position add up.
    frequency_A = accepted["frequency"].to_numpy().astype(np.float64)
    position_V, at_A = np.unique(accepted["position"].to_numpy(), return_inverse=True)
    frequency_V4 = np.zeros((len(position_V), 4))
    np.add.at(frequency_V4, (at_A, accepted["after"].to_numpy()), frequency_A)
    sum_V = frequency_V4.sum(axis=1)
    impossible_A = (frequency_A < 0) | (frequency_A > 1) | (sum_V[at_A] > 1 + fates.SUM_TOLERANCE)
    for wrong in accepted.filter(impossible_A).iter_rows(named=True):
        raise InputError(
            f"{vcfs[wrong['file']].path}: {name}:{wrong['position'] + 1}: the frequencies are impossible (below 0, "
            "above 1, or not one number for each alternate allele); no genome was built from it"
        )
    above_V = sum_V > minimum * (1 + 2**-23)  # as numbers of 24 bits, decimals are a little more or less
    fate_R[accepted["row"].to_numpy()] = np.where(above_V[at_A] & (frequency_A > 0), fates.USED, fates.TOO_RARE)
    frequency_V4[at_A, accepted["before"].to_numpy()] = np.maximum(1 - sum_V[at_A], 0)
    frequency_V4 /= frequency_V4.sum(axis=1, keepdims=True)

    part = (pl.col("fate") == fates.USED) & (pl.col("whole") > 0)
    records = rows.with_columns(fate=fate_R).group_by("file", "record").agg(pl.col("fate").max(), part=part.any())
    np.add.at(counts_F18, (records["file"].to_numpy(), records["fate"].to_numpy()), 1)
    np.add.at(counts_F18[:, -1], records.filter("part")["file"].to_numpy(), 1)
    return position_V[above_V], frequency_V4[above_V]


def _compare_names(stored: Sequence[str], expected: Sequence[str], differences: _Differences) -> None:
    texts = [f"contig {name}: is in the FASTA, and not in the genome" for name in expected if name not in stored]
    texts += [f"contig {name}: is in the genome, and not in the FASTA" for name in stored if name not in expected]
    order = f"order of contigs: {names_text(expected)} in the FASTA, {names_text(stored)} in the genome"
    differences.add("contigs", texts or [order] * (stored != expected), str)


def _compare_bases(store: ProbabilisticGenome, name: str, code_L: Array, mask: Array, differences: _Differences) -> int:
    """Compare a contig's length, bases and soft mask; return the number of bases compared."""
    length = store.contigs[name].length
    lengths = f"contig {name}: has {len(code_L):,} bases in the FASTA, {length:,} in the genome"
    differences.add("contigs", [lengths] if length != len(code_L) else [], str)
    lower_L = np.zeros(len(code_L), dtype=bool)
    lower_L[list_ranges(mask["start"].astype(np.int64), mask["start"].astype(np.int64) + mask["length"])[1]] = True
    shared = min(length, len(code_L))
    # A store of version 1 does not keep the mask.
    masked_L = store.soft_masked(name, 0, shared) if store.manifest["version"] > 1 else lower_L[:shared]
    for kind, expected_L, found_L, words in (
        ("base", code_L[:shared], store.bases(name, 0, shared), alphabet.IUPAC),
        ("case", lower_L[:shared], masked_L, ("upper", "lower")),
    ):

        def describe(at: int, kind: str = kind, both: Any = (expected_L, found_L), words: Any = words) -> str:
            fasta, genome = (words[int(one_L[at])] for one_L in both)
            return f"{name}:{at + 1}: the {kind} is {fasta} in the FASTA, {genome} in the genome"

        differences.add(kind, np.flatnonzero(expected_L != found_L), describe)
    return shared


def _compare_variants(
    store: ProbabilisticGenome, name: str, expected: tuple[Array, Array], differences: _Differences
) -> tuple[int, float]:
    """Compare a contig's variants; return the number of frequencies compared and their largest distance."""
    stored = store.variants(name)
    position, at, stored_at = np.intersect1d(expected[0], stored.position, assume_unique=True, return_indices=True)
    for places, text in (
        (np.delete(expected[0], at) + 1, "varies by the VCF, and not in the genome"),
        (np.delete(stored.position, stored_at) + 1, "varies in the genome, and not by the VCF"),
    ):
        differences.add("variants", places, f"{name}:{{0}}: {text}".format)
    wanted, found = expected[1][at], stored.frequency[stored_at]
    distance = np.abs(found - wanted).max(axis=1, initial=0)

    def describe(row: int) -> str:
        by_vcf, in_genome = (" ".join(f"{value:.5f}" for value in rows[row]) for rows in (wanted, found))
        return f"{name}:{position[row] + 1}: A, C, G, T are {by_vcf} by the VCF, {in_genome} in the genome"

    differences.add("frequencies", np.flatnonzero(distance > _LARGEST_DISTANCE), describe)
    return len(position), float(distance.max(initial=0))


def _compare_records(
    listed: Sequence[Mapping[str, Any]],
    vcfs: Sequence[inputs.Source],
    fields: Sequence[Frequencies],
    counts_F18: Array,
    differences: _Differences,
) -> None:
    """Compare what became of the records with what the manifest holds, file by file in the order given."""
    if len(listed) != len(vcfs):
        differences.add("records", [f"VCF files: {len(vcfs)} given, {len(listed)} in the genome's manifest"], str)
        return

    def flatten(counts: Mapping[str, Any]) -> dict[str, Any]:
        words = {"frequencies from": counts.get("frequency_from")}
        words |= {f"records {key}": counts.get(key, 0) for key in ("read", "used", "decomposed")}
        return words | {f"records not used, {reason}": number for reason, number in counts["not_used"].items()}

    for (path, _), field, counts, entry in zip(vcfs, fields, counts_F18.tolist(), listed, strict=True):
        *unused, used, decomposed = counts
        numbers = {"read": sum(unused) + used, "used": used, "decomposed": decomposed, "frequency_from": str(field)}
        not_used = dict(zip(fates.REASONS[:-1], unused, strict=True))
        derived, found = flatten({**numbers, "not_used": not_used}), flatten(entry)
        rows = [(what, derived.get(what, 0), found.get(what, 0)) for what in derived | found]
        texts = [f"{path}: {what}: {one}, by the genome's manifest {two}" for what, one, two in rows if one != two]
        differences.add("records", texts, str)
