"""Compare a genome with its sources, from which it is derived again by a path of its own.

bcftools reads the variants in a child process; polars types and judges their alleles by ``docs/genome.md``. Nothing is
shared with the builder, so that a mistake has to be made twice to go unseen. Shape suffixes: L bases of a contig,
R alleles' rows, A of them accepted, V positions that vary, 4 bases in the order A, C, G, T, F files.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
import pysam

from mutbert.errors import InputError
from mutbert.files import sha256_of
from mutbert.genome.format import FREQUENCY_ONE, MANIFEST
from mutbert.genome.store import ProbabilisticGenome, Variants
from mutbert.progress import Advance, progress_bar
from mutbert.regions import match_contig, names_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    Array = np.ndarray[Any, Any]
    Sources = list[tuple[str, Path]]  # prefix and file

MOST_TEXTS: Final = 20
"""Differences that a report describes; the others are only counted."""

_KINDS: Final = ("contigs", "bases", "soft mask", "variants", "frequencies", "records")
# A record goes by the one of its alleles that came furthest. "used" is also what nothing else is known of yet.
_FATES: Final = (
    "contig not in the FASTA", "contig not selected", "filtered", "no alternate allele", "symbolic or structural",
    "overlapping deletion (*)", "insertion or deletion", "alternate is the reference",
    "alternate base not A, C, G or T", "frequency missing", "reference base unknown", "outside the contig",
    "reference base differs from the FASTA", "duplicate record", "conflicts with an earlier record",
    "frequency not above the minimum", "used",
)  # fmt: skip
_NO_CONTIG, _NOT_SELECTED, _FILTERED, _NO_ALTERNATE, _SYMBOLIC, _OVERLAPPING, _INDEL, _SAME, _ODD = range(9)
_NO_FREQUENCY, _UNKNOWN, _OUTSIDE, _OTHER_REFERENCE, _DUPLICATE, _CONFLICT, _TOO_RARE, _USED = range(9, 17)

# bcftools prints six digits of a frequency; the fixed point adds its own, and a sum this near the minimum may be on
# either side.
_LARGEST_DISTANCE: Final = 1 / FREQUENCY_ONE + 2e-6
_NEAR: Final = 6e-6
_ROUNDING: Final = 1e-3

_LETTERS: Final = "ACGTRYSWKMBDHVN"
_MEMBERS: Final = np.array([1, 2, 4, 8, 5, 10, 6, 9, 12, 3, 14, 13, 11, 7, 15, 0], dtype=np.uint8)  # a bit a base
_CODE: Final = np.full(256, 15, dtype=np.uint8)  # a byte of ASCII to the letter's place; 15 is none
for _code, _letter in [*enumerate(_LETTERS), (3, "U")]:
    _CODE[[ord(_letter), ord(_letter.lower())]] = _code

_CHILD: Final = (
    "import sys, pysam, pysam.bcftools as b; pysam.set_verbosity(1); "
    "getattr(b, sys.argv[1])('-o', '/dev/stdout', *sys.argv[2:], catch_stdout=False)"
)
_TEXT_BYTES: Final = 1 << 22
_BASES_AT_ONCE: Final = 1 << 24
_RECORD: Final = {
    "contig": pl.String, "position": pl.Int64, "ref": pl.String, "alt": pl.String, "filter": pl.String,
    "above": pl.String, "below": pl.String,
}  # fmt: skip
_ALLELE: Final = {
    "file": pl.UInt32, "record": pl.UInt32, "position": pl.Int64, "frequency": pl.Float32, "whole": pl.UInt64,
    "before": pl.UInt8, "after": pl.UInt8, "fate": pl.UInt8,
}  # fmt: skip


@dataclass(frozen=True)
class SourceCheck:
    """A source beside the manifest's. No status is a difference by itself: the contents decide."""

    kind: str  # "fasta" or "vcf"
    file: str
    status: str  # "same"; "different": another SHA-256, be it only packed anew; "not in the manifest"; "not given"


@dataclass(frozen=True)
class VerifyReport:
    """How a genome compares with its sources."""

    path: Path
    contigs: int  # that both sides have
    bases: int  # of them
    variants: int  # positions that vary on both sides
    records: int  # of all VCF files
    largest_difference: float  # between a stored frequency and the one derived
    sources: Sequence[SourceCheck]
    differences: Sequence[str]  # at most `MOST_TEXTS`
    differing: int  # contigs, bases, their soft mask, variants, counts

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.differing


class _Differences:
    def __init__(self) -> None:
        self.total = 0
        self._texts: dict[str, list[str]] = {kind: [] for kind in _KINDS}

    def add(self, kind: str, number: int, texts: Iterable[str]) -> None:
        """Count so many differences, and keep some of their texts."""
        self.total += number
        self._texts[kind] += islice(texts, MOST_TEXTS - len(self._texts[kind]))

    def texts(self) -> list[str]:
        """Return a share of each kind, so that none hides another, and more of the first where others leave room."""
        number = {kind: min(len(texts), MOST_TEXTS // len(_KINDS)) for kind, texts in self._texts.items()}
        for kind, texts in self._texts.items():
            number[kind] += min(len(texts) - number[kind], MOST_TEXTS - sum(number.values()))
        return [text for kind, texts in self._texts.items() for text in texts[: number[kind]]]


def verify_genome(
    genome: str | Path,
    fasta: Iterable[str | Path] | str | Path,
    vcf: Iterable[str | Path] | str | Path = (),
    *,
    samples: str | Path | None = None,
    population: str | None = None,
    sample: str | None = None,
    progress: bool = False,
) -> VerifyReport:
    """Derive a genome again from its sources, by another path than the builder's, and compare.

    The settings are those of the genome's manifest. Memory is one contig's letters and some hundred bytes for each of
    its alleles; the alleles of all contigs lie in temporary files, about 40 bytes each.

    Parameters
    ----------
    genome : str or Path
        The store; its checksums are verified first.
    fasta, vcf : path, or iterable of paths
        The sources in the order of the build; ``"PREFIX=path"`` for one that was given so.
    samples, population, sample : str, optional
        The samples whose genotypes were counted, as the build was given them.
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
    people = _read_samples(samples, population, sample)
    minimum, field, asked, filters = _read_rules(store, people)
    fastas, vcfs = _read_sources(fasta), _read_sources(vcf)
    checks = list(_check_sources(store.manifest.get("sources") or [], fastas, vcfs, progress=progress))
    contigs = {name: key for name, key, _ in _read_fastas(fastas)}
    selected = set(contigs) if asked is None else {match_contig(name, contigs) for name in asked}
    differences = _Differences()
    _compare_names(list(store.contigs), [name for name in contigs if name in selected], differences)
    counts_F18 = np.zeros((len(vcfs), len(_FATES) + 1), dtype=np.int64)  # records by fate, and those taken apart
    compared = bases = variants = 0
    largest = 0.0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutbert-verify-")))
        fields = [_find_frequencies(path, field, people, folder) for _, path in vcfs]
        if absent := (people or frozenset()).difference(*(counted for _, counted in fields)):
            raise InputError(f"sample {names_text(sorted(absent))}: is in none of the VCF files given")
        with progress_bar("Reading the variants", None, unit="records", show=progress and bool(vcfs)) as advance:
            parts = _read_variants(vcfs, fields, contigs, selected, filters, folder, counts_F18, advance)
        show = progress_bar("Comparing", sum(store.lengths.values()), unit="bases", show=progress)
        advance = stack.enter_context(show)
        for name, _, letters_L in _read_fastas(fastas):
            if name not in selected:
                continue
            stored = store.variants(name) if name in store.contigs else None
            alleles = pl.concat([pl.DataFrame(schema=_ALLELE), *map(pl.read_ipc, parts[name])])
            near_V = np.empty(0) if stored is None else stored.position
            expected = _judge(name, alleles, letters_L, minimum, near_V, vcfs, counts_F18)
            if stored is not None:
                compared += 1
                bases += _compare_bases(store, name, letters_L, differences, advance)
                number, distance = _compare_variants(name, expected, stored, differences)
                variants, largest = variants + number, max(largest, distance)
    _compare_records(store.manifest.get("records") or [], vcfs, fields, counts_F18, differences)
    return VerifyReport(
        store.path, compared, bases, variants, int(counts_F18[:, :-1].sum()), largest, checks, differences.texts(),
        differences.total,
    )  # fmt: skip


def _read_rules(
    store: ProbabilisticGenome, people: frozenset[str] | None
) -> tuple[float, str, list[str] | None, set[str]]:
    """Return the minimum, field, contigs and filters of the build; `people` have to be the samples of then."""
    file = store.path / MANIFEST
    try:
        settings = store.manifest["settings"]
        minimum, field = float(settings["min_frequency"]), str(settings["frequency_field"])
        asked, filters = settings["contigs"], set(settings.get("filter", ["PASS", "."]) or ["any"])
        chosen = settings.get("samples") or {"number": 0, "sha256": None}
        number, digest = int(chosen["number"]), chosen["sha256"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: does not say how the genome was built ({error!r}); only genomes of 'mutbert genome build' can be "
            "verified"
        ) from None
    if not number and people is not None:
        raise InputError(f"{file}: no samples were chosen when the genome was built; leave out --samples and --sample")
    given = None if people is None else hashlib.sha256("\n".join(sorted(people)).encode("utf-8")).hexdigest()
    if given != digest:
        others = "" if people is None else f", and the {len(people)} given are not the same"
        raise InputError(
            f"{file}: the genome was built from {number} chosen samples{others}; give the same with --samples, "
            "--population or --sample as when it was built"
        )
    return minimum, field, asked, filters


def _read_samples(samples: str | Path | None, population: str | None, sample: str | None) -> frozenset[str] | None:
    """Return the names of the chosen samples; None where none are chosen."""
    if sample is not None and (samples is not None or population is not None):
        raise InputError(f"--sample {sample}: is one sample alone; leave out --samples and --population")
    if samples is None and population is not None:
        raise InputError(f"--population {population}: chooses among the samples of a table; give it with --samples")
    if samples is None:
        return None if sample is None else frozenset([sample])
    try:
        lines = Path(samples).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{samples}: cannot be read as a list of samples ({error}); check the path") from None
    rows = [line.split("\t" if "\t" in line else None) for line in lines if line.strip() and not line.startswith("#")]
    rows = [[word.strip() for word in row] for row in rows if row[0] != "sample" or row is not rows[0]]
    names = frozenset(row[0] for row in rows if population is None or population in row[1:])
    if not names:
        wanted = "no samples" if population is None else f"no samples of population {population!r}"
        raise InputError(f"{samples}: lists {wanted}; expected lines of sample, population, ...")
    return names


def _read_sources(given: Iterable[str | Path] | str | Path) -> Sources:
    """Return files with their prefixes; a text that is a file's name has none."""
    sources = []
    for one in [given] if isinstance(given, (str, Path)) else given:
        found = None if Path(one).exists() else re.fullmatch(r"(?s)([A-Za-z0-9_-]+)=(.+)", str(one))
        sources.append((found[1], Path(found[2])) if found else ("", Path(one)))
        if not sources[-1][1].is_file():
            raise InputError(f"{sources[-1][1]}: no such file; check the path")
    return sources


def _check_sources(
    listed: Sequence[Mapping[str, Any]], fastas: Sources, vcfs: Sources, *, progress: bool
) -> Iterator[SourceCheck]:
    """Compare the given files with the manifest's, each with the one in its place."""
    total = sum(path.stat().st_size for _, path in (*fastas, *vcfs))
    with progress_bar("Comparing checksums", total, unit="bytes", show=progress) as advance:
        for kind, given in (("fasta", fastas), ("vcf", vcfs)):
            for source, entry in zip_longest(given, [entry for entry in listed if entry.get("kind") == kind]):
                if source is None:
                    yield SourceCheck(kind, str(entry.get("file")), "not given")
                    continue
                same = sha256_of(source[1], advance) == (entry or {}).get("sha256")
                other = "not in the manifest" if entry is None else "different"
                yield SourceCheck(kind, str(source[1]), "same" if same else other)


def _read_fastas(fastas: Sources) -> Iterator[tuple[str, tuple[str, str], Array]]:
    """Yield each contig's name in the genome, its prefix and name in the FASTA, and its letters as ASCII, (L,)."""
    names: set[str] = set()
    for prefix, path in fastas:
        before = len(names)
        try:
            with pysam.FastxFile(str(path)) as file:
                for entry in file:
                    name = f"{prefix}.{entry.name}" if prefix else entry.name
                    text = (entry.sequence or "").encode("ascii", "replace")
                    if odd := text.translate(None, (_LETTERS + _LETTERS.lower() + "Uu").encode()):
                        place = f"contig {entry.name}, position {text.index(odd[:1]) + 1}"
                        raise InputError(f"{path}: {place}: {chr(odd[0])!r} is not an IUPAC nucleotide code")
                    if name in names:
                        raise InputError(f"{path}: contig {name} comes twice in the FASTA files given")
                    names.add(name)
                    yield name, (prefix, entry.name), np.frombuffer(text, dtype=np.uint8)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as FASTA ({error}); check that it is complete") from None
        if len(names) == before:
            raise InputError(f"{path}: is not FASTA, or has no contigs; give a FASTA file")


def _bcftools(path: Path, folder: Path, *words: str) -> Iterator[bytes]:
    """Yield whole lines, many at a time, of what a command of bcftools prints of a file."""
    # -P: nothing is imported from the working directory.
    command = [sys.executable, "-P", "-c", _CHILD, *words, str(path.absolute())]
    with (
        (folder / "errors").open("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as child,
    ):
        assert child.stdout is not None
        rest = b""
        try:
            while block := child.stdout.read(_TEXT_BYTES):
                lines, end, rest = (rest + block).rpartition(b"\n")
                if end:
                    yield lines + end
            failed = child.wait()
        finally:
            child.kill()
        if failed:
            errors.seek(0)
            said = errors.read().splitlines() or ["it was ended"]
            why = next((line for line in said if line.startswith("[E::")), said[-1])
            why = why.rpartition("stderr=")[2].removesuffix("\\n'")
            raise InputError(f"{path}: cannot be read as VCF ({why}); check the file, and that it is complete")


def _find_frequencies(path: Path, field: str, people: frozenset[str] | None, folder: Path) -> tuple[str, Sequence[str]]:
    """Return the INFO field or quotient that has a file's frequencies, or "genotypes" and the samples that count."""
    header = b"".join(_bcftools(path, folder, "view", "-h", "--no-version")).decode("utf-8", "replace")
    kinds = dict(re.findall(r"^##INFO=<.*?\bID=([^,>]+).*?\bType=(\w+)", header, re.MULTILINE))
    has_genotypes = re.search(r"^##FORMAT=<.*?\bID=GT[,>]", header, re.MULTILINE)
    samples = header.rstrip("\n").rpartition("\n")[2].split("\t")[9:] if has_genotypes else []
    if field == "AF" and kinds.get("AF") != "Float":
        field = "AC/AN" if kinds.get("AC") == kinds.get("AN") == "Integer" else "GT" if samples else "AF"
    if people is not None or field == "GT":
        if not samples:
            raise InputError(f"{path}: has no genotypes, from which the genome's frequencies come; give another file")
        counted = [name for name in samples if people is None or name in people]
        if not counted:
            raise InputError(f"{path}: has none of the chosen samples; leave it out, or give other samples")
        return "genotypes", counted
    kind = "Integer" if "/" in field else "Float"
    if missing := [name for name in field.split("/") if kinds.get(name) != kind]:
        raise InputError(f"{path}: declares no INFO field {missing[0]} of type {kind}, which the genome was built from")
    return field, []


def _read_variants(
    vcfs: Sources,
    fields: Sequence[tuple[str, Sequence[str]]],
    contigs: Mapping[str, tuple[str, str]],
    selected: Collection[str | None],
    filters: set[str],
    folder: Path,
    counts_F18: Array,
    advance: Advance,
) -> Mapping[str, list[Path]]:
    """Return files of alleles by contig; records of no contig of the genome, or that do not pass, are only counted."""
    parts = defaultdict(list)
    contig, fate = pl.col("contig"), pl.col("fate")
    for number, ((prefix, path), (field, counted)) in enumerate(zip(vcfs, fields, strict=True)):
        own = {bare: name for name, (other, bare) in contigs.items() if other == prefix}
        (folder / "samples").write_text("".join(f"{name}\n" for name in counted), encoding="utf-8")
        above, _, below = field.partition("/")
        values = "[ %GT]\\t" if counted else f"%INFO/{above}\\t" + (f"%INFO/{below}" if below else "1")
        query = ["-f", f"%CHROM\\t%POS\\t%REF\\t%ALT\\t%FILTER\\t{values}\\n"]
        query += ["-S", str(folder / "samples")] if counted else []
        names: dict[str, str] = {}
        read = 0
        for text in _bcftools(path, folder, "query", *query):
            records = pl.read_csv(
                text, has_header=False, schema=_RECORD, separator="\t", quote_char=None, encoding="utf8-lossy"
            )
            for name in set(records["contig"].unique()).difference(names):
                names[name] = own.get(match_contig(name, own) or "", "")
            passing = [one for one in records["filter"].unique() if not filters.isdisjoint(["any", *one.split(";")])]
            records = records.with_row_index("record", read).with_columns(contig.replace_strict(names))
            records = records.with_columns(
                file=pl.lit(number),
                fate=_first(
                    (contig == "", _NO_CONTIG),
                    (~contig.is_in(list(selected)), _NOT_SELECTED),
                    (~pl.col("filter").is_in(passing), _FILTERED),
                    otherwise=pl.lit(_USED),
                ),
            )
            np.add.at(counts_F18[number], records.filter(fate != _USED)["fate"].to_numpy(), 1)
            alleles = _type_alleles(_read_numbers(records.filter(fate == _USED), genotypes=bool(counted)))
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


def _read_numbers(records: pl.DataFrame, *, genotypes: bool) -> pl.DataFrame:
    """Turn the text behind the alleles into lists of them and of their numbers, and the number to divide these by.

    Of genotypes calls are counted; a number is null where it is missing, and -1 where there is not one an allele.
    """
    alts, above, below = pl.col("alt").str.to_uppercase().str.split(","), pl.col("above"), pl.col("below")
    number = alts.list.len()
    if genotypes:
        most = max(records["alt"].str.count_matches(",").to_list(), default=0) + 2
        words = [rf"\b{allele}\b" if most > 10 else str(allele) for allele in range(most)]
        calls = pl.concat_list([above.str.count_matches(word, literal=most <= 10) for word in words])
        calls = calls.list.head(number + 1)
        return records.with_columns(alt=alts, above=calls.list.tail(number), below=calls.list.sum())
    numbers = above.str.split(",").cast(pl.List(pl.Float64), strict=False)
    none, wrong = pl.lit(None, pl.Float64).repeat_by(number), pl.lit(-1.0).repeat_by(number)
    numbers = pl.when(above == ".").then(none).when(numbers.list.len() == number).then(numbers).otherwise(wrong)
    return records.with_columns(alt=alts, above=numbers, below=below.cast(pl.Float64, strict=False))


def _type_alleles(records: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each alternate allele, and of one that changes several nucleotides for each of these."""
    ref, alt, fate, offset, still = *map(pl.col, ("ref", "alt", "fate", "offset")), pl.col("fate") == _USED
    before, after, frequency, below = map(pl.col, ("before", "after", "frequency", "below"))
    rows = records.with_columns(ref.str.to_uppercase()).explode("alt", "above")
    rows = rows.with_row_index("row").with_columns(
        pl.col("position") - 1,
        frequency=pl.col("above") / pl.when(below > 0).then(below),
        fate=_first(
            (alt == "*", _OVERLAPPING),
            (alt == ".", _NO_ALTERNATE),
            (~alt.str.contains("^[A-Z]+$"), _SYMBOLIC),
            (alt.str.len_bytes() != ref.str.len_bytes(), _INDEL),
            (alt == ref, _SAME),
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
    odd = (before.is_null(), _UNKNOWN), (after.is_null(), _ODD), (frequency.fill_nan(None).is_null(), _NO_FREQUENCY)
    fate = _first(*((still & condition, number) for condition, number in odd), otherwise=fate)
    return rows.with_columns(fate=fate).select("contig", *(pl.col(name).cast(kind) for name, kind in _ALLELE.items()))


def _judge(
    name: str, rows: pl.DataFrame, letters_L: Array, minimum: float, stored_V: Array, vcfs: Sources, counts_F18: Array
) -> tuple[Array, Array]:
    """Judge the alleles of a contig, in the order of reading, count their records, and return the variants.

    Where a sum is as near to the minimum as the digits allow, the stored positions decide.
    """
    place_R, fate_R = rows["position"].to_numpy(), rows["fate"].to_numpy().copy()
    inside_R = (place_R >= 0) & (place_R < len(letters_L))
    members_R = _MEMBERS[np.where(inside_R, _CODE[letters_L[place_R * inside_R]], 15)] if len(letters_L) else 0 * fate_R
    other_R = (members_R >> rows["before"].fill_null(0).to_numpy()) & 1 == 0
    for which_R, fate in ((other_R, _OTHER_REFERENCE), (members_R == 15, _UNKNOWN), (~inside_R, _OUTSIDE)):
        fate_R[which_R & (rows["fate"].to_numpy() == _USED)] = fate

    # The earliest allele says which base of an IUPAC code is the reference; of equal alleles the earliest counts.
    row, frequency, equal = pl.col("row"), pl.col("frequency"), ("position", "after", "whole")
    good = rows.with_row_index("row").filter(fate_R == _USED)
    other = pl.col("before") != pl.col("before").first().over("position")
    fate_R[good.filter(other)["row"].to_numpy()] = _CONFLICT
    good = good.filter(~other).with_columns(
        first=row.first().over(equal), same=frequency == frequency.first().over(equal)
    )
    repeats, accepted = good.filter(row != pl.col("first")), good.filter(row == pl.col("first"))
    fate_R[repeats["row"].to_numpy()] = np.where(repeats["same"].to_numpy(), _DUPLICATE, _CONFLICT)

    # Different alleles of one position add up.
    frequency_A = accepted["frequency"].to_numpy().astype(np.float64)
    position_V, at_A = np.unique(accepted["position"].to_numpy(), return_inverse=True)
    frequency_V4 = np.zeros((len(position_V), 4))
    np.add.at(frequency_V4, (at_A, accepted["after"].to_numpy()), frequency_A)
    sum_V = frequency_V4.sum(axis=1)
    impossible_A = (frequency_A < 0) | (frequency_A > 1) | (sum_V[at_A] > 1 + _ROUNDING)
    for wrong in accepted.filter(impossible_A).iter_rows(named=True):
        raise InputError(
            f"{vcfs[wrong['file']][1]}: {name}:{wrong['position'] + 1}: the frequencies are impossible (below 0, above "
            "1, or not one number for each alternate allele); no genome was built from it"
        )
    near_V = (np.abs(sum_V - minimum) <= _NEAR * minimum) & (sum_V > 0)
    above_V = np.where(near_V, np.isin(position_V, stored_V), sum_V > minimum)
    fate_R[accepted["row"].to_numpy()] = np.where(above_V[at_A] & (frequency_A > 0), _USED, _TOO_RARE)
    frequency_V4[at_A, accepted["before"].to_numpy()] = np.maximum(1 - sum_V[at_A], 0)
    frequency_V4 /= frequency_V4.sum(axis=1, keepdims=True)

    part = (pl.col("fate") == _USED) & (pl.col("whole") > 0)
    records = rows.with_columns(fate=fate_R).group_by("file", "record").agg(pl.col("fate").max(), part=part.any())
    np.add.at(counts_F18, (records["file"].to_numpy(), records["fate"].to_numpy()), 1)
    np.add.at(counts_F18[:, -1], records.filter("part")["file"].to_numpy(), 1)
    return position_V[above_V], frequency_V4[above_V]


def _compare_names(stored: Sequence[str], expected: Sequence[str], differences: _Differences) -> None:
    texts = [f"contig {name}: is in the FASTA, and not in the genome" for name in expected if name not in stored]
    texts += [f"contig {name}: is in the genome, and not in the FASTA" for name in stored if name not in expected]
    if not texts and stored != expected:
        texts = [f"order of contigs: {names_text(expected)} in the FASTA, {names_text(stored)} in the genome"]
    differences.add("contigs", len(texts), texts)


def _compare_bases(
    store: ProbabilisticGenome, name: str, letters_L: Array, differences: _Differences, advance: Advance
) -> int:
    """Compare a contig's length, bases and soft mask; return the number of bases compared."""
    length = store.contigs[name].length
    if length != len(letters_L):
        text = f"contig {name}: has {len(letters_L):,} bases in the FASTA, {length:,} in the genome"
        differences.add("contigs", 1, [text])
    both = min(length, len(letters_L))
    for start in range(0, both, _BASES_AT_ONCE):
        end = min(start + _BASES_AT_ONCE, both)
        expected, found = _CODE[letters_L[start:end]], store.bases(name, start, end)
        texts = (
            f"{name}:{start + at + 1}: the base is {_LETTERS[expected[at]]} in the FASTA, {_LETTERS[found[at]]} in the "
            "genome"
            for at in np.flatnonzero(expected != found)
        )
        differences.add("bases", int(np.count_nonzero(expected != found)), texts)
        lower = letters_L[start:end] >= ord("a")
        # A store of version 1 does not keep the mask.
        masked = store.soft_masked(name, start, end) if store.manifest["version"] > 1 else lower
        words = ("upper case in the FASTA, and soft-masked", "lower case in the FASTA, and not soft-masked")
        texts = (
            f"{name}:{start + at + 1}: is in {words[int(lower[at])]} in the genome"
            for at in np.flatnonzero(lower != masked)
        )
        differences.add("soft mask", int(np.count_nonzero(lower != masked)), texts)
        advance(end - start)
    return both


def _compare_variants(
    name: str, expected: tuple[Array, Array], stored: Variants, differences: _Differences
) -> tuple[int, float]:
    """Compare a contig's variants; return the number of frequencies compared and their largest distance."""
    position, at, stored_at = np.intersect1d(expected[0], stored.position, assume_unique=True, return_indices=True)
    for places, text in (
        (np.delete(expected[0], at), "varies by the VCF, and not in the genome"),
        (np.delete(stored.position, stored_at), "varies in the genome, and not by the VCF"),
    ):
        differences.add("variants", len(places), [f"{name}:{place + 1}: {text}" for place in places[:MOST_TEXTS]])
    wanted, found = expected[1][at], stored.frequency[stored_at]
    distance = np.abs(found - wanted).max(axis=1, initial=0)
    wrong = np.flatnonzero(distance > _LARGEST_DISTANCE)
    texts = (
        f"{name}:{position[row] + 1}: A, C, G, T are {_row_text(wanted[row])} by the VCF, {_row_text(found[row])} in "
        "the genome"
        for row in wrong
    )
    differences.add("frequencies", len(wrong), texts)
    return len(position), float(distance.max(initial=0))


def _row_text(row_4: Array) -> str:
    return " ".join(f"{value:.5f}" for value in row_4)


def _compare_records(
    listed: Sequence[Mapping[str, Any]],
    vcfs: Sources,
    fields: Sequence[tuple[str, Sequence[str]]],
    counts_F18: Array,
    differences: _Differences,
) -> None:
    """Compare what became of the records with what the manifest says, file by file in the order given."""
    if len(listed) != len(vcfs):
        differences.add("records", 1, [f"VCF files: {len(vcfs)} given, {len(listed)} in the genome's manifest"])
        return
    for (_, path), (field, _), counts, entry in zip(vcfs, fields, counts_F18.tolist(), listed, strict=True):
        *unused, used, decomposed = counts
        derived = {"read": sum(unused) + used, "used": used, "decomposed": decomposed}
        found = {"decomposed": decomposed} | {key: entry[key] for key in derived if key in entry}
        derived |= {f"not used, {reason}": number for reason, number in zip(_FATES, unused, strict=False)}
        found |= {f"not used, {reason}": number for reason, number in (entry.get("not_used") or {}).items()}
        rows = [("frequencies from", field, entry.get("frequency_from"))]
        rows += [(f"records {what}", derived.get(what, 0), found.get(what, 0)) for what in derived | found]
        texts = [f"{path}: {what}: {one}, by the genome's manifest {two}" for what, one, two in rows if one != two]
        differences.add("records", len(texts), texts)
