"""Compare a genome with its sources, from which it is derived again by a path of its own.

The text of pysam and htslib is all that this has in common with the builder: polars types and judges the alleles by
``docs/genome.md``, so that a mistake has to be made twice to go unseen. Shape suffixes: L bases of a contig, R alleles,
V variants, U those of either side.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
import pysam

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.genome import sources as inputs
from mutbert.genome import variants as fates
from mutbert.genome.fasta import read_fasta
from mutbert.genome.format import FREQUENCY_ONE
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.vcf import Frequencies, count_genotypes, find_frequencies, read_header, read_records
from mutbert.progress import progress_bar
from mutbert.regions import ContigNames

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mutbert.arrays import Float64, Int64, UInt8

_TEXTS: Final = 40  # differences that are described
_TEXTS_OF_A_CONTIG: Final = 4  # of its bases, and of its variants
_LARGEST_DISTANCE: Final = 1 / FREQUENCY_ONE + 2e-6  # the fixed point's, and that of six digits
_WHAT: Final = "VCF file {}: {}"
_LOWER: Final = np.uint8(ord("a") ^ ord("A"))
_BASE: Final = pl.Enum(list(alphabet.BASES))
_RECORD: Final = pl.Schema({
    "file": pl.UInt32, "record": pl.UInt32, "position": pl.Int64, "ref": pl.String, "alt": pl.String,
    "above": pl.String, "below": pl.String, "fate": pl.UInt8,
})  # fmt: skip


@dataclass
class VerifyReport:
    """How a genome compares with its sources."""

    path: Path
    sources: Sequence[inputs.SourceCheck]
    contigs: int = 0  # that both sides have
    bases: int = 0  # of them
    variants: int = 0  # positions that vary on both sides
    records: int = 0  # of all VCF files
    largest_difference: float = 0.0  # between a stored frequency and the one derived
    differing: int = 0  # contigs, bases, variants, counts
    differences: list[str] = field(default_factory=list)  # some of them

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.differing


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

    The settings are those of the genome's manifest.

    Parameters
    ----------
    genome : path
        The store; its checksums are verified first.
    fasta, vcf : path or sequence of paths
        The sources in the order of the build; ``"PREFIX=path"`` for one that had a prefix.
    samples, population, sample : path, str, str, optional
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
    fastas, vcfs = inputs.parse_sources(fasta), inputs.parse_sources(vcf)
    settings = store.manifest.get("settings")
    if not settings:
        raise InputError(f"{store.path}: has no settings of a build; verify a genome of 'mutbert genome build'")
    if (None if people is None else inputs.describe_samples(people)) != settings.get("samples"):
        remedy = "use the same --samples, --population or --sample, or none, as when it was built"
        raise InputError(f"{store.path}: was built from other samples; {remedy}")
    headers = {path: read_header(path) for path, _ in vcfs}
    if people is not None:
        inputs.check_samples(people, {path: header.samples for path, header in headers.items()})
    field = settings["frequency_field"]
    files = [(one, find_frequencies(one.path, headers[one.path], field, people)) for one in vcfs]
    checks = inputs.check_sources(store.manifest.get("sources") or [], fastas, vcfs, progress=progress)
    report = VerifyReport(store.path, [*checks])
    contigs = ContigNames(source.name(name) for source in fastas for name, *_ in read_fasta(source.path))
    wanted = ContigNames(contigs if settings["contigs"] is None else settings["contigs"])
    selected = {name: 0 for name in contigs if wanted.find(name) is not None}  # their lengths, once they are read
    parts, counts = defaultdict[str, list[Path]](list), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="mutbert-verify-") as folder:
        with progress_bar("Reading the variants", None, unit="records", show=progress and bool(vcfs)) as advance:
            for name, records in _read_records(files, contigs, [*selected], {*settings.get("filter", ["PASS", "."])}):
                parts[name].append(Path(folder, f"{sum(map(len, parts.values()))}"))
                records.write_ipc(parts[name][-1])
                advance(len(records))
        with progress_bar("Comparing", sum(store.lengths.values()), unit="bases", show=progress) as advance:
            for name, letter_L in _read_letters(fastas):
                records = pl.concat([pl.DataFrame(schema=_RECORD), *map(pl.read_ipc, parts[name])])
                alleles = _judge(_find_changes(records), letter_L, settings["min_frequency"])
                for file, position in alleles.filter("is_impossible").select("file", "position").iter_rows():
                    where = f"{vcfs[file].path}: {name}:{position + 1}"
                    raise InputError(f"{where}: the frequencies are impossible; no genome was built from it")
                counts.update(_count_records(alleles))
                if name in selected:
                    selected[name] = len(letter_L)
                if name in selected and name in store.contigs:
                    _compare_bases(report, store, name, letter_L)
                    _compare_variants(report, store, name, alleles)
                advance(len(letter_L))
    sources = {_WHAT.format(number, "frequency_from"): str(found) for number, (_, found) in enumerate(files, 1)}
    _compare_numbers(report, store, selected, {**counts, **sources})
    return report


def _read_letters(fastas: Sequence[inputs.Source]) -> Iterator[tuple[str, UInt8]]:
    """Yield each contig's name and letters (L,) as they are in the FASTA, but for U."""
    for source in fastas:
        with pysam.FastxFile(str(source.path), persist=False) as records:
            for record in records:
                letters = record.sequence.encode().translate(bytes.maketrans(b"Uu", b"Tt"))
                yield source.name(record.name), np.frombuffer(letters, np.uint8)
    # Records of contigs that are not in the FASTA are only counted.
    yield "", np.frombuffer(b"N", np.uint8)


def _read_records(
    files: Sequence[tuple[inputs.Source, Frequencies]], contigs: ContigNames, selected: Sequence[str], filters: set[str]
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield records (`_RECORD`) of a contig, without a name for those of contigs that are not in the FASTA."""
    for number, (source, found) in enumerate(files):
        fields, contig, read = [f"INFO/{name}" for name in found.fields], pl.col("contig"), 0
        below = fields[1] if len(fields) > 1 else pl.lit("1")
        for records in read_records(source.path, fields if found.samples is None else ["GT"], samples=found.samples):
            names = {name: contigs.find(source.name(name)) or "" for name in records["contig"].unique()}
            passing = [one for one in records["filter"].unique() if filters & {"any", *one.split(";")}]
            records = records if found.samples is None else count_genotypes(records)
            records = records.with_row_index("record", read).with_columns(
                contig.replace_strict(names), file=number, above=fields[0], below=below, fate=pl.lit(None)
            )
            fails = ~pl.col("filter").is_in(passing)
            cases = {fates.NO_CONTIG: contig == "", fates.NOT_SELECTED: ~contig.is_in(selected), fates.FILTERED: fails}
            for (name,), part in records.with_columns(_fate(cases)).group_by("contig", maintain_order=True):
                yield str(name), part.select(*_RECORD).cast(_RECORD)
            read += len(records)


def _fate(cases: Mapping[int, pl.Expr]) -> pl.Expr:
    """Return the fate of rows: what it is, or else that of the first condition that holds; null is used so far."""
    return pl.coalesce("fate", *(pl.when(condition).then(fate) for fate, condition in cases.items()))


def _find_changes(records: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each base that an alternate allele changes, and for each allele that cannot change one."""
    ref, alt, value, below = map(pl.col, ("ref", "alt", "value", "below"))
    before, after, offset, position = map(pl.col, ("before", "after", "offset", "position"))
    alts, values = alt.str.to_uppercase().str.split(","), pl.col("above").str.split(",")
    alike = pl.when(pl.col("above") == ".").then(pl.lit(".")).otherwise(pl.lit("none")).repeat_by(alts.list.len())
    values = pl.when(values.list.len() == alts.list.len()).then(values).otherwise(alike)
    rows = records.with_columns(ref.str.to_uppercase(), alt=alts, value=values).explode("alt", "value")
    # What is no number is impossible, and what is missing is missing.
    number = pl.when(value != ".").then(value.cast(pl.Float64, strict=False).fill_null(-1))
    below = below.cast(pl.Float64, strict=False)
    frequency = (number / pl.when(below > 0).then(below)).fill_nan(None).cast(pl.Float32).cast(pl.Float64)
    cases = {
        fates.OVERLAPPING: alt == "*",
        fates.NO_ALTERNATE: alt == ".",
        fates.SYMBOLIC: ~alt.str.contains("^[A-Z]+$"),
    }
    cases |= {fates.INDEL: alt.str.len_bytes() != ref.str.len_bytes(), fates.SAME: alt == ref}
    rows = rows.with_row_index("row").with_columns(_fate(cases), frequency=frequency)
    is_long = pl.col("fate").is_null() & (ref.str.len_bytes() > 1)
    letters = {"before": ref.str.split(""), "after": alt.str.split("")}
    bases = rows.filter(is_long).with_columns(offset=pl.int_ranges(ref.str.len_bytes()), **letters)
    bases = bases.explode("offset", "before", "after").filter(before != after)
    # An allele of several nucleotides is known by all that it changes.
    first, last = offset.min().over("row"), offset.max().over("row")
    trimmed = (text.str.slice(first, last - first + 1) for text in (ref, alt))
    whole = pl.concat_str(position + first, *trimmed, separator=" ")
    bases = bases.with_columns(position + offset, whole=pl.when(first < last).then(whole))
    rows = pl.concat([rows.filter(~is_long).with_columns(before=ref, after=alt), bases], how="diagonal")
    rows = rows.sort("row", maintain_order=True).with_columns(
        before.cast(_BASE, strict=False), after.cast(_BASE, strict=False)
    )
    cases = {fates.UNKNOWN_REFERENCE: before, fates.ODD_ALTERNATE: after, fates.NO_FREQUENCY: pl.col("frequency")}
    return rows.with_columns(_fate({fate: column.is_null() for fate, column in cases.items()}))


def _judge(rows: pl.DataFrame, letter_L: UInt8, minimum: float) -> pl.DataFrame:
    """Return a contig's alleles, in the order of reading, with `fate`, and `is_impossible` for wrong frequencies."""
    frequency, total, still = pl.col("frequency"), pl.col("total"), pl.col("fate").is_null()
    at_R = rows["position"].to_numpy()
    inside_R = (at_R >= 0) & (at_R < len(letter_L))
    code_R = alphabet.CODE_OF_BYTE[letter_L[at_R * inside_R]] * inside_R
    share_R = alphabet.DISTRIBUTIONS[code_R, rows["before"].to_physical().fill_null(0).to_numpy()]
    unknown_R = code_R == alphabet.UNKNOWN
    masks = {fates.OUTSIDE: ~inside_R, fates.UNKNOWN_REFERENCE: unknown_R, fates.MISMATCH: share_R == 0}
    cases = {fate: pl.lit(pl.Series(mask_R)) for fate, mask_R in masks.items()}
    rows = rows.with_row_index("number").with_columns(_fate(cases))

    # The earliest allele says which base of an IUPAC code is the reference; of equal alleles the earliest counts.
    def is_first(name: str, *keys: str) -> pl.Expr:
        return pl.col(name) == pl.col(name).filter(still).first().over(keys)

    equal = ("position", "before", "after", "whole")
    agrees = is_first("before", "position") & is_first("frequency", *equal)
    rows = rows.with_columns(_fate({fates.CONFLICT: ~agrees, fates.DUPLICATE: ~is_first("number", *equal)}))
    # Different alleles of one position add up. As numbers of 24 bits, decimals are a little more or less.
    rows = rows.with_columns(total=frequency.filter(still).sum().over("position"))
    is_impossible = still & ((frequency < 0) | (frequency > 1) | (total > 1 + fates.SUM_TOLERANCE))
    is_rare = (total <= minimum * (1 + 2**-23)) | (frequency == 0)
    fate = _fate({fates.TOO_RARE: is_rare}).fill_null(fates.USED)
    return rows.with_columns(fate, is_impossible=is_impossible)


def _count_records(alleles: pl.DataFrame) -> Counter[str]:
    """Return how many records there are of each file, by how far their furthest allele came."""
    fate, counts = pl.col("fate"), Counter[str]()
    is_apart = ((fate == fates.USED) & pl.col("whole").is_not_null()).any()
    records = alleles.group_by("file", "record").agg(fate.max(), is_apart=is_apart)
    for file, furthest, apart, number in records.group_by("file", "fate", "is_apart").len().iter_rows():
        one = {"read": number, fates.REASONS[furthest]: number, "decomposed": number * apart}
        counts.update({_WHAT.format(file + 1, what): many for what, many in one.items()})
    return counts


def _find_variants(alleles: pl.DataFrame) -> tuple[Int64, Float64]:
    """Return positions (V,) and distributions (V, 4)."""
    bases, before, after = [*alphabet.BASES], pl.col("before"), pl.col("after")
    sums = {base: pl.col("frequency").filter(after == base).sum() for base in bases}
    rest = (1 - pl.col("total").first()).clip(0)
    sites = alleles.filter(pl.col("fate") == fates.USED).group_by("position").agg(before.first(), rest=rest, **sums)
    sites = sites.with_columns(pl.when(before == base).then("rest").otherwise(base).alias(base) for base in bases)
    sites = sites.sort("position")
    frequency_V4 = sites.select(bases).to_numpy()
    return sites["position"].to_numpy(), frequency_V4 / frequency_V4.sum(axis=1, keepdims=True)


def _compare_variants(report: VerifyReport, store: ProbabilisticGenome, name: str, alleles: pl.DataFrame) -> None:
    position, _, frequency_V4 = store.variants(name)
    sides: list[tuple[Any, Any]] = [_find_variants(alleles), (position, frequency_V4)]
    position_U = np.union1d(*(position_V for position_V, _ in sides))
    both_U24 = np.zeros((len(position_U), 2, 4))
    for side, (position_V, row_V4) in enumerate(sides):
        both_U24[np.searchsorted(position_U, position_V), side] = row_V4
    distance_U = abs(both_U24[:, 0] - both_U24[:, 1]).max(axis=1)
    shared_U = (both_U24.sum(axis=2) > 0).all(axis=1)
    different = np.flatnonzero(distance_U > _LARGEST_DISTANCE)
    for at in different[:_TEXTS_OF_A_CONTIG]:
        ours, theirs = both_U24[at].round(5).tolist()
        place = f"{name}:{position_U[at] + 1}"
        report.differences.append(f"{place}: A, C, G, T are {ours} by the VCF, {theirs} in the genome")
    report.variants, report.differing = report.variants + int(shared_U.sum()), report.differing + len(different)
    report.largest_difference = float(distance_U[shared_U].max(initial=report.largest_difference))


def _compare_bases(report: VerifyReport, store: ProbabilisticGenome, name: str, letter_L: UInt8) -> None:
    shared = min(len(letter_L), store.lengths[name])
    stored_L = alphabet.BYTE_OF_CODE[store.bases(name, 0, shared)]
    stored_L |= store.soft_masked(name, 0, shared) * _LOWER
    # A store of version 1 does not keep the mask.
    letter_L = letter_L[:shared] & ~(_LOWER * np.uint8(store.manifest["version"] == 1))
    different = np.flatnonzero(letter_L != stored_L)
    for at in different[:_TEXTS_OF_A_CONTIG]:
        fasta, genome = chr(letter_L[at]), chr(stored_L[at])
        report.differences.append(f"{name}:{at + 1}: {fasta} in the FASTA, {genome} in the genome")
    report.contigs, report.bases = report.contigs + 1, report.bases + shared
    report.differing += len(different)


def _compare_numbers(
    report: VerifyReport, store: ProbabilisticGenome, lengths: Mapping[str, int], counts: Mapping[str, Any]
) -> None:
    """Compare the contigs, and what became of the records."""
    derived, stored = dict(counts), dict[str, Any]()
    for number, entry in enumerate(store.manifest.get("records") or [], 1):
        listed = {**entry, **entry["not_used"], "file": 0, "not_used": 0}
        stored |= {_WHAT.format(number, what): value for what, value in listed.items()}
    for side, of in ((derived, lengths), (stored, store.lengths)):
        side |= {f"contig {name}": f"{length:,} bases" for name, length in of.items()}
        order = [name for name in of if name in lengths and name in store.lengths]
        side |= {f"contig number {number}": name for number, name in enumerate(order, 1)}
    pairs = {what: (derived.get(what) or "none", stored.get(what) or "none") for what in derived | stored}
    texts = [f"{what}: {one} by the sources, {two} in the genome" for what, (one, two) in pairs.items() if one != two]
    report.records = sum(value for what, value in counts.items() if what.endswith("read"))
    report.differing += len(texts)
    report.differences = [*texts, *report.differences][:_TEXTS]
