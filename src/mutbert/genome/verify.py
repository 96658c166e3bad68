"""Compare a genome with its sources, from which it is derived again by a path of its own.

htslib's text is all that this has in common with the builder: polars types and judges the alleles by
``docs/genome.md``, so that a mistake has to be made twice to go unseen. Shape suffixes: L bases of a contig, F files.
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
from mutbert.genome.vcf import Frequencies, count_genotypes, find_frequencies, read_header, read_records
from mutbert.progress import progress_bar
from mutbert.regions import match_contig, names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from mutbert.progress import Advance

    Array = np.ndarray[Any, Any]

_TEXTS_OF_A_KIND: Final = 4
_LARGEST_DISTANCE: Final = 1 / FREQUENCY_ONE + 2e-6  # the fixed point's, and that of six digits
_BASES: Final = tuple(alphabet.BASES)
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
    fastas, vcfs = inputs.parse_sources(fasta), inputs.parse_sources(vcf)
    work = _Verification(store, vcfs, people)
    checks = list(inputs.check_sources(store.manifest.get("sources") or [], fastas, vcfs, progress=progress))
    contigs = {source.name(name): source.prefix for source in fastas for name, *_ in read_fasta(source.path)}
    asked = work.settings["contigs"]
    selected = [*contigs] if asked is None else [match_contig(name, contigs) for name in asked]
    work.compare_names([name for name in contigs if name in selected])
    compared, bases, variants, largest = 0, 0, 0, 0.0
    with tempfile.TemporaryDirectory(prefix="mutbert-verify-") as folder:
        with progress_bar("Reading the variants", None, unit="records", show=progress and bool(vcfs)) as advance:
            parts = work.read_files(contigs, selected, Path(folder), advance)
        with progress_bar("Comparing", sum(store.lengths.values()), unit="bases", show=progress) as advance:
            for source, (own_name, code_L, mask) in ((one, found) for one in fastas for found in read_fasta(one.path)):
                name = source.name(own_name)
                advance(len(code_L))
                if name not in selected:
                    continue
                alleles = pl.concat([pl.DataFrame(schema=_ALLELE), *map(pl.read_ipc, parts[name])])
                expected = work.judge(name, alleles, code_L)
                if name in store.contigs:
                    compared += 1
                    bases += work.compare_bases(name, code_L, mask)
                    shared, distance = work.compare_variants(name, expected)
                    variants, largest = variants + shared, max(largest, distance)
    work.compare_records()
    texts, records = [*chain(*work.texts.values())], int(work.counts_F18[:, :-1].sum())
    return VerifyReport(store.path, compared, bases, variants, records, largest, checks, texts, work.differing)


class _Verification:
    """A store, its sources, what became of the records of these, and what differs."""

    def __init__(self, store: ProbabilisticGenome, vcfs: Sequence[inputs.Source], people: Sequence[str] | None) -> None:
        self._store, self._vcfs, file = store, vcfs, store.path / MANIFEST
        self.settings: dict[str, Any] = store.manifest.get("settings") or {}
        if not self.settings:
            raise InputError(
                f"{file}: does not say how the genome was built; verify a genome of 'mutbert genome build'"
            )
        chosen = self.settings.get("samples")
        if (None if people is None else inputs.describe_samples(people)) != chosen:
            raise InputError(
                f"{file}: the genome was built from {(chosen or {}).get('number', 'no')} chosen samples, and "
                f"{'none' if people is None else len(people)} or others were named; use the same --samples, "
                "--population or --sample as when it was built"
            )
        self.differing, self.texts = 0, defaultdict[str, list[str]](list)
        headers = {path: read_header(path) for path, _ in vcfs}
        if people is not None:
            inputs.check_samples(people, {path: header.samples for path, header in headers.items()})
        field = self.settings["frequency_field"]
        self._fields = [find_frequencies(path, headers[path], field, people) for path, _ in vcfs]
        # Records by fate, and those taken apart.
        self.counts_F18 = np.zeros((len(vcfs), len(fates.REASONS) + 1), dtype=np.int64)

    def _add(self, kind: str, different: Any, describe: Callable[[Any], str]) -> None:
        self.differing += len(different)
        self.texts[kind] += [describe(one) for one in different[: _TEXTS_OF_A_KIND - len(self.texts[kind])]]

    def read_files(
        self, contigs: Mapping[str, str], selected: Collection[str | None], folder: Path, advance: Advance
    ) -> Mapping[str, list[Path]]:
        """Return files of alleles by contig; records that are not selected or do not pass are only counted."""
        filters = set(self.settings.get("filter") or ["PASS", "."])
        parts = defaultdict(list)
        contig, fate = pl.col("contig"), pl.col("fate")
        for number, ((path, prefix), found) in enumerate(zip(self._vcfs, self._fields, strict=True)):
            own = {name.removeprefix(f"{prefix}."): name for name, other in contigs.items() if other == prefix}
            columns = [f"INFO/{name}" for name in found.fields] if found.samples is None else ["GT"]
            names: dict[str, str] = {}
            read = 0
            for records in read_records(path, columns, samples=found.samples):
                for name in set(records["contig"].unique()).difference(names):
                    names[name] = own.get(match_contig(name, own) or "", "")
                passing = [
                    one for one in records["filter"].unique() if not filters.isdisjoint(["any", *one.split(";")])
                ]
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
                np.add.at(self.counts_F18[number], records.filter(fate != fates.USED)["fate"].to_numpy(), 1)
                alleles = _type_alleles(_read_numbers(records.filter(fate == fates.USED), found))
                for at, ((name,), part) in enumerate(alleles.group_by("contig", maintain_order=True)):
                    parts[name].append(folder / f"{number}.{read}.{at}")
                    part.drop("contig").write_ipc(parts[name][-1])
                read += len(records)
                advance(len(records))
        return parts

    def judge(self, name: str, rows: pl.DataFrame, code_L: Array) -> pl.DataFrame:
        """Judge the alleles of a contig, in the order of reading, count their records, and return the variants."""
        row, position, frequency, before, fate = map(pl.col, ("row", "position", "frequency", "before", "fate"))
        place_R = rows["position"].to_numpy()
        inside_R = (place_R >= 0) & (place_R < len(code_L))
        code_R = code_L[place_R * inside_R]
        other_R = alphabet.DISTRIBUTIONS[code_R, rows["before"].fill_null(0).to_numpy()] == 0
        rows = rows.with_row_index("row").with_columns(
            fate=_first(
                (fate != fates.USED, fate),
                (pl.lit(pl.Series(~inside_R)), fates.OUTSIDE),
                (pl.lit(pl.Series(code_R == alphabet.UNKNOWN)), fates.UNKNOWN_REFERENCE),
                (pl.lit(pl.Series(other_R)), fates.MISMATCH),
                otherwise=fate,
            )
        )
        # The earliest allele says which base of an IUPAC code is the reference; of equal alleles the earliest counts.
        equal = ("position", "before", "after", "whole")
        good = rows.filter(fate == fates.USED).with_columns(
            frequency.cast(pl.Float64),
            fate=_first(
                (before != before.first().over("position"), fates.CONFLICT),
                (frequency != frequency.first().over(equal), fates.CONFLICT),
                (row != row.first().over(equal), fates.DUPLICATE),
                otherwise=fate,
            ),
        )
        # Different alleles of one position add up.
        total = pl.col("total")
        accepted = good.filter(fate == fates.USED).with_columns(total=frequency.sum().over("position"))
        impossible = (frequency < 0) | (frequency > 1) | (total > 1 + fates.SUM_TOLERANCE)
        for wrong in accepted.filter(impossible).iter_rows(named=True):
            path = self._vcfs[wrong["file"]].path
            raise InputError(
                f"{path}: {name}:{wrong['position'] + 1}: the frequencies are impossible (below 0, above 1, or not one "
                "number for each alternate allele); no genome was built from it"
            )
        # As numbers of 24 bits, decimals are a little more or less.
        is_above = total > self.settings["min_frequency"] * (1 + 2**-23)
        sums = {base: frequency.filter(pl.col("after") == code).sum() for code, base in enumerate(_BASES)}
        by_position = accepted.filter(is_above).group_by("position", maintain_order=True)
        sites = by_position.agg(before.first(), total.first(), **sums)
        rest = (1 - total).clip(0)
        sites = sites.with_columns(
            pl.when(before == code).then(rest).otherwise(base).alias(base) for code, base in enumerate(_BASES)
        )
        accepted = accepted.with_columns(fate=pl.when(is_above & (frequency > 0)).then(fate).otherwise(fates.TOO_RARE))

        judged = pl.concat(
            [rows.filter(fate != fates.USED), good.filter(fate != fates.USED), accepted], how="diagonal_relaxed"
        )
        part = (fate == fates.USED) & (pl.col("whole") > 0)
        records = judged.group_by("file", "record").agg(fate.max(), part=part.any())
        np.add.at(self.counts_F18, (records["file"].to_numpy(), records["fate"].to_numpy()), 1)
        np.add.at(self.counts_F18[:, -1], records.filter("part")["file"].to_numpy(), 1)
        return sites.select(position, *(pl.col(base) / pl.sum_horizontal(*_BASES) for base in _BASES))

    def compare_names(self, expected: Sequence[str]) -> None:
        """Compare the contigs and their order."""
        stored = list(self._store.contigs)
        texts = [f"contig {name}: is in the FASTA, and not in the genome" for name in expected if name not in stored]
        texts += [f"contig {name}: is in the genome, and not in the FASTA" for name in stored if name not in expected]
        order = f"order of contigs: {names_text(expected)} in the FASTA, {names_text(stored)} in the genome"
        self._add("contigs", texts or [order] * (stored != expected), str)

    def compare_bases(self, name: str, code_L: Array, mask: Array) -> int:
        """Compare a contig's length, bases and soft mask; return the number of bases compared."""
        length = self._store.contigs[name].length
        lengths = f"contig {name}: has {len(code_L):,} bases in the FASTA, {length:,} in the genome"
        self._add("contigs", [lengths] if length != len(code_L) else [], str)
        lower_L, start = np.zeros(len(code_L), dtype=bool), mask["start"].astype(np.int64)
        lower_L[list_ranges(start, start + mask["length"])[1]] = True
        shared = min(length, len(code_L))
        # A store of version 1 does not keep the mask.
        masked_L = self._store.soft_masked(name, 0, shared) if self._store.manifest["version"] > 1 else lower_L[:shared]
        for kind, expected_L, found_L, words in (
            ("base", code_L[:shared], self._store.bases(name, 0, shared), alphabet.IUPAC),
            ("case", lower_L[:shared], masked_L, ("upper", "lower")),
        ):

            def describe(at: int, kind: str = kind, both: Any = (expected_L, found_L), words: Any = words) -> str:
                fasta, genome = (words[int(one_L[at])] for one_L in both)
                return f"{name}:{at + 1}: the {kind} is {fasta} in the FASTA, {genome} in the genome"

            self._add(kind, np.flatnonzero(expected_L != found_L), describe)
        return shared

    def compare_variants(self, name: str, expected: pl.DataFrame) -> tuple[int, float]:
        """Compare a contig's variants; return the number of frequencies compared and their largest distance."""
        position, _, frequency_V4 = self._store.variants(name)
        stored = pl.DataFrame({"position": position.astype(np.int64), **dict(zip(_BASES, frequency_V4.T, strict=True))})
        rows = expected.join(stored, on="position", how="full", coalesce=True, suffix="_stored").sort("position")
        for base, text in (
            ("A_stored", "varies by the VCF, and not in the genome"),
            ("A", "varies in the genome, and not by the VCF"),
        ):
            places = rows.filter(pl.col(base).is_null())["position"] + 1
            self._add("variants", places, f"{name}:{{0}}: {text}".format)
        distances = [(pl.col(base) - pl.col(f"{base}_stored")).abs() for base in _BASES]
        shared = rows.drop_nulls().with_columns(distance=pl.max_horizontal(*distances))

        def describe(row: tuple[Any, ...]) -> str:
            by_vcf, in_genome = (" ".join(f"{value:.5f}" for value in row[at : at + 4]) for at in (1, 5))
            return f"{name}:{row[0] + 1}: A, C, G, T are {by_vcf} by the VCF, {in_genome} in the genome"

        self._add("frequencies", shared.filter(pl.col("distance") > _LARGEST_DISTANCE).rows(), describe)
        return len(shared), shared.select(pl.col("distance").max().fill_null(0.0)).item()

    def compare_records(self) -> None:
        """Compare what became of the records with what the manifest holds, file by file in the order given."""
        listed = self._store.manifest.get("records") or []
        if len(listed) != len(self._vcfs):
            text = f"VCF files: {len(self._vcfs)} given, {len(listed)} in the genome's manifest"
            self._add("records", [text], str)
            return
        files = zip(self._vcfs, self._fields, self.counts_F18.tolist(), listed, strict=True)
        for (path, _), field, (*unused, used, apart), entry in files:
            derived = {"frequencies from": str(field), "records read": sum(unused) + used}
            derived |= {"records used": used, "records decomposed": apart}
            keys = ("frequency_from", "read", "used", "decomposed")
            found = {what: entry.get(key, 0) for what, key in zip(derived, keys, strict=True)}
            derived |= {f"records not used, {reason}": n for reason, n in zip(fates.REASONS[:-1], unused, strict=True)}
            found |= {f"records not used, {reason}": n for reason, n in entry["not_used"].items()}
            rows = [(what, derived.get(what, 0), found.get(what, 0)) for what in derived | found]
            texts = [f"{path}: {what}: {one}, by the genome's manifest {two}" for what, one, two in rows if one != two]
            self._add("records", texts, str)


def _first(*cases: tuple[pl.Expr, pl.Expr | int], otherwise: pl.Expr) -> pl.Expr:
    """Return the number beside the first condition that holds."""
    for condition, number in reversed(cases):
        otherwise = pl.when(condition).then(number).otherwise(otherwise)
    return otherwise


def _read_numbers(records: pl.DataFrame, found: Frequencies) -> pl.DataFrame:
    """Turn the text of frequencies into lists, null where missing and -1 where there is not one for each allele."""
    if found.samples is not None:
        records = count_genotypes(records)
    alts = pl.col("alt").str.to_uppercase().str.split(",")
    number = alts.list.len()
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
