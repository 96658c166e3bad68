"""A genome compared with what its sources say, derived again by a path of its own.

`mutbert.genome.vcf_text` reads the variants, `mutbert.genome.rederive` judges them, and this module reads the
sequences and compares. None of them shares a line with the builder, so that a mistake has to be made twice to go
unseen. Shape suffixes: L bases of a contig, D places that differ, V positions that vary, B those that vary on both
sides, 4 bases in the order A, C, G, T, F files, 17 fates of a record.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pysam

from mutbert.errors import InputError
from mutbert.genome.layout import FREQUENCY_ONE, MANIFEST
from mutbert.genome.rederive import (
    BITS,
    BITS_OF_BYTE,
    FATES,
    NO_CONTIG,
    NOT_SELECTED,
    USED,
    Derived,
    Places,
    derive_contig,
)
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.vcf_text import FileTally, Rules, read_vcf
from mutbert.progress import progress_bar
from mutbert.publishing import sha256_of
from mutbert.regions import match_contig, names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    UInt8 = npt.NDArray[np.uint8]
    Int64 = npt.NDArray[np.int64]

MOST_TEXTS: Final = 20
"""Differences that a report describes; the others are only counted."""

LARGEST_ROUNDING: Final = 1 / FREQUENCY_ONE + 1e-7
"""A stored frequency is no further from its source than this: the fixed point, and seven digits."""

# Each kind of difference gets a share, so that a thousand wrong bases do not hide a wrong variant.
_KINDS = ("contigs", "bases", "soft mask", "variants", "frequencies", "records")
_TEXTS_OF_A_KIND = MOST_TEXTS // len(_KINDS)
_PIECE = 1 << 24
# The bit in which a lower-case letter of ASCII differs from its upper case.
_LOWER = 0x20
_PREFIXED = re.compile(r"([A-Za-z0-9_-]+)=(.+)", re.DOTALL)
_BITS_OF_CODE = np.array([BITS[letter] for letter in "ACGTRYSWKMBDHVN"], dtype=np.uint8)
_LETTER_OF_BITS = {bits: letter for letter, bits in BITS.items() if letter != "U"}


@dataclass(frozen=True)
class SourceCheck:
    """A file beside the one that the genome was built from.

    Parameters
    ----------
    kind : str
        ``"fasta"`` or ``"vcf"``.
    file : str
        The given file, or the manifest's where none is given for it.
    status : str
        ``"same"``; ``"different"``: another SHA-256, be it that the file was only packed anew; ``"not in the
        manifest"``; ``"not given"``. None of them is a difference by itself: the contents decide.
    """

    kind: str
    file: str
    status: str


@dataclass(frozen=True)
class VerifyReport:
    """How a genome compares with its sources.

    Parameters
    ----------
    path : Path
        The genome.
    contigs, bases : int
        Contigs that both sides have, and their bases compared.
    variants : int
        Positions that vary on both sides, whose frequencies were compared.
    records : int
        Records read of all VCF files.
    largest_difference : float
        The largest distance between a stored frequency and the one derived.
    sources : sequence of SourceCheck
        The given files beside those of the manifest.
    differences : sequence of str
        What differs, at most `MOST_TEXTS` lines.
    differing : int
        Everything that differs: contigs, bases, their soft mask, variants, counts.
    """

    path: Path
    contigs: int
    bases: int
    variants: int
    records: int
    largest_difference: float
    sources: Sequence[SourceCheck]
    differences: Sequence[str]
    differing: int

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.differing


class _Source(NamedTuple):
    prefix: str
    path: Path


class _FastaContig(NamedTuple):
    number: int
    prefix: str
    bare: str  # the FASTA's name
    name: str  # the genome's
    selected: bool


class _Differences:
    def __init__(self) -> None:
        self.total = 0
        self._texts: dict[str, list[str]] = {kind: [] for kind in _KINDS}

    def add(self, kind: str, text: str, number: int = 1) -> None:
        """Count a difference of so many things, and keep its text where there is room."""
        self.total += number
        if len(self._texts[kind]) < MOST_TEXTS:
            self._texts[kind].append(text)

    def texts(self) -> list[str]:
        """Give each kind its share, and what others leave to the first that have more."""
        number = {kind: min(len(texts), _TEXTS_OF_A_KIND) for kind, texts in self._texts.items()}
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

    The settings are those of the genome's manifest. Memory is one contig's letters and about a hundred bytes for
    each of its alleles; the alleles of all contigs lie in a temporary file, 25 bytes each.

    Parameters
    ----------
    genome : str or Path
        The store; its checksums are verified first.
    fasta, vcf : path, or iterable of paths
        The sources in the order of the build; ``"PREFIX=path"`` for one that was given so.
    samples : str or Path, optional
        The file of samples whose genotypes were counted: one name a line, or a table of sample, population, ...
    population : str, optional
        Of `samples`, only those with this word in a later column.
    sample : str, optional
        The one sample whose genotypes were counted.
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
    file = store.path / MANIFEST
    minimum, asked, rules = _read_rules(file, store.manifest, samples, population, sample)
    fastas = _read_sources(fasta)
    vcfs = _read_sources(vcf)
    checks = _check_sources(store.manifest, fastas, vcfs, progress=progress)
    contigs = _list_contigs(fastas, asked)
    differences = _Differences()
    _compare_names(store, [contig.name for contig in contigs if contig.selected], differences)

    with ExitStack() as stack:
        places = stack.enter_context(Places())
        tallies = _read_variants(vcfs, contigs, rules, places, progress=progress)
        _check_samples(rules.samples, tallies)
        fates_F17 = np.array([tally.fates for tally in tallies], dtype=np.int64).reshape(-1, len(FATES))
        decomposed_F = np.zeros(len(vcfs), dtype=np.int64)
        total = sum(store.lengths.values())
        advance = stack.enter_context(progress_bar("Comparing", total, unit="bases", show=progress))
        compared = bases = variants = 0
        largest = 0.0
        for contig, letters_L in _read_letters(fastas, contigs):
            stored = store.variants(contig.name) if contig.name in store.contigs else None
            derived = derive_contig(
                places.of(contig.number),
                letters_L,
                minimum,
                [str(source.path) for source in vcfs],
                contig.name,
                np.empty(0, dtype=np.int64) if stored is None else stored.position,
            )
            fates_F17 += derived.fates_F17
            decomposed_F += derived.decomposed_F
            if stored is not None:
                compared += 1
                bases += _compare_bases(store, contig.name, letters_L, differences, advance)
                number, distance = _compare_variants(
                    contig.name, stored.position, stored.frequency, derived, differences
                )
                variants += number
                largest = max(largest, distance)
    _compare_records(store.manifest, vcfs, tallies, fates_F17, decomposed_F, differences)
    return VerifyReport(
        path=store.path,
        contigs=compared,
        bases=bases,
        variants=variants,
        records=sum(tally.read for tally in tallies),
        largest_difference=largest,
        sources=checks,
        differences=differences.texts(),
        differing=differences.total,
    )


def _read_rules(
    file: Path,
    manifest: Mapping[str, Any],
    samples: str | Path | None,
    population: str | None,
    sample: str | None,
) -> tuple[float, list[str] | None, Rules]:
    """Read from the manifest what the build was told: the minimum, the contigs asked for, and the rest."""
    try:
        settings = manifest["settings"]
        minimum = float(settings["min_frequency"])
        field = str(settings["frequency_field"])
        asked = None if settings["contigs"] is None else [str(name) for name in settings["contigs"]]
        filters = settings.get("filter", ["PASS", "."])
        passing = None if filters is None or "any" in filters else frozenset(map(str, filters))
        chosen = settings.get("samples")
        number, digest = (0, "") if chosen is None else (int(chosen["number"]), str(chosen["sha256"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file}: does not say how the genome was built ({error!r}); only genomes of 'mutbert genome build' can be "
            "verified"
        ) from None
    names = _read_samples(samples, population, sample)
    if chosen is None and names is not None:
        raise InputError(f"{file}: no samples were chosen when the genome was built; leave out --samples and --sample")
    if chosen is not None and names is None:
        raise InputError(
            f"{file}: the genome was built from {number} chosen samples; give the same with --samples or --sample"
        )
    if names is not None and (len(names), _digest(names)) != (number, digest):
        raise InputError(
            f"{file}: the genome was built from {number} chosen samples, and the {len(names)} given are not the same "
            "ones; give --samples, --population or --sample as when it was built"
        )
    return minimum, asked, Rules(field, passing, names)


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode("utf-8")).hexdigest()


def _read_samples(samples: str | Path | None, population: str | None, sample: str | None) -> frozenset[str] | None:
    """Give the names of the chosen samples; None where none are chosen."""
    if sample is not None:
        if samples is not None or population is not None:
            raise InputError(f"--sample {sample}: is one sample alone; leave out --samples and --population")
        return frozenset([sample])
    if samples is None:
        if population is not None:
            raise InputError(f"--population {population}: chooses among the samples of a table; give it with --samples")
        return None
    try:
        lines = Path(samples).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{samples}: cannot be read as a list of samples ({error}); check the path") from None
    rows = [
        [word.strip() for word in line.split("\t")] if "\t" in line else line.split()
        for line in lines
        if line.strip() and not line.startswith("#")
    ]
    if rows and rows[0][0] == "sample":
        del rows[0]
    names = frozenset(row[0] for row in rows if population is None or population in row[1:])
    if not names:
        wanted = "no samples" if population is None else f"no samples of population {population!r}"
        raise InputError(f"{samples}: lists {wanted}; expected lines of sample, population, ...")
    return names


def _read_sources(given: Iterable[str | Path] | str | Path) -> list[_Source]:
    sources = []
    for one in [given] if isinstance(given, (str, Path)) else given:
        found = _PREFIXED.fullmatch(one) if isinstance(one, str) and not Path(one).exists() else None
        source = _Source(found[1], Path(found[2])) if found else _Source("", Path(one))
        if not source.path.is_file():
            raise InputError(f"{source.path}: no such file; check the path")
        sources.append(source)
    return sources


def _check_sources(
    manifest: Mapping[str, Any], fastas: Sequence[_Source], vcfs: Sequence[_Source], *, progress: bool
) -> list[SourceCheck]:
    """Compare the given files with the manifest's, each with the one in its place."""
    checks = []
    total = sum(source.path.stat().st_size for source in [*fastas, *vcfs])
    with progress_bar("Comparing checksums", total, unit="bytes", show=progress) as advance:
        for kind, given in (("fasta", fastas), ("vcf", vcfs)):
            listed = [source for source in manifest.get("sources") or [] if source.get("kind") == kind]
            for source, entry in zip_longest(given, listed):
                if source is None:
                    checks.append(SourceCheck(kind, str(entry.get("file")), "not given"))
                    continue
                digest = sha256_of(source.path, advance)
                found = "not in the manifest" if entry is None else "different"
                same = entry is not None and (entry.get("bytes"), entry.get("sha256")) == (
                    source.path.stat().st_size,
                    digest,
                )
                checks.append(SourceCheck(kind, str(source.path), "same" if same else found))
    return checks


def _read_fasta(path: Path) -> Iterator[tuple[str, str]]:
    """Give name and letters of each contig."""
    empty = True
    try:
        with pysam.FastxFile(str(path)) as file:
            for entry in file:
                empty = False
                yield entry.name, entry.sequence or ""
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as FASTA ({error}); check the path and that it is complete") from None
    if empty:
        raise InputError(f"{path}: is not FASTA, or has no contigs; give a FASTA file")


def _list_contigs(fastas: Sequence[_Source], asked: Sequence[str] | None) -> list[_FastaContig]:
    """List the FASTA's contigs in their order, and which of them were asked for."""
    names = [
        (source.prefix, bare, f"{source.prefix}.{bare}" if source.prefix else bare)
        for source in fastas
        for bare, _ in _read_fasta(source.path)
    ]
    whole = dict.fromkeys(name for _, _, name in names)
    if len(whole) < len(names):
        ((twice, _),) = Counter(name for _, _, name in names).most_common(1)
        raise InputError(f"{fastas[-1].path}: contig {twice} comes twice in the FASTA files given; give each file once")
    selected = set(whole) if asked is None else {match_contig(name, whole) for name in asked}
    return [_FastaContig(at, prefix, bare, name, name in selected) for at, (prefix, bare, name) in enumerate(names)]


def _compare_names(store: ProbabilisticGenome, expected: Sequence[str], differences: _Differences) -> None:
    stored = list(store.contigs)
    wanted = frozenset(expected)
    for name in expected:
        if name not in store.contigs:
            differences.add("contigs", f"contig {name}: is in the FASTA, and not in the genome")
    for name in stored:
        if name not in wanted:
            differences.add("contigs", f"contig {name}: is in the genome, and not in the FASTA")
    if set(stored) == wanted and stored != list(expected):
        differences.add(
            "contigs", f"order of contigs: {names_text(expected)} in the FASTA, {names_text(stored)} in the genome"
        )


def _read_variants(
    vcfs: Sequence[_Source], contigs: Sequence[_FastaContig], rules: Rules, places: Places, *, progress: bool
) -> list[FileTally]:
    tallies = []
    total = sum(source.path.stat().st_size for source in vcfs)
    with progress_bar("Reading the variants", total, unit="bytes", show=progress and bool(vcfs)) as advance:
        for number, source in enumerate(vcfs):
            own = {contig.bare: contig for contig in contigs if contig.prefix == source.prefix}
            tallies.append(read_vcf(source.path, number, _contig_finder(own), rules, places, advance))
    return tallies


def _contig_finder(contigs: Mapping[str, _FastaContig]) -> Callable[[str], int]:
    def find_contig(name: str) -> int:
        bare = match_contig(name, contigs)
        if bare is None:
            return -1 - NO_CONTIG
        return contigs[bare].number if contigs[bare].selected else -1 - NOT_SELECTED

    return find_contig


def _check_samples(chosen: frozenset[str] | None, tallies: Sequence[FileTally]) -> None:
    if chosen is not None:
        absent = chosen.difference(*(tally.samples for tally in tallies))
        if absent:
            raise InputError(
                f"sample {min(absent)}: is in none of the VCF files given ({len(absent)} of {len(chosen)} samples are "
                "not); give the files that the genome was built from"
            )


def _read_letters(fastas: Sequence[_Source], contigs: Sequence[_FastaContig]) -> Iterator[tuple[_FastaContig, UInt8]]:
    """Give each selected contig with its letters as ASCII, shape (L,)."""
    letters = ((source.path, bare, sequence) for source in fastas for bare, sequence in _read_fasta(source.path))
    for contig, (path, _, sequence) in zip(contigs, letters, strict=True):
        if not contig.selected:
            continue
        letters_L = np.frombuffer(sequence.encode("ascii", "replace"), dtype=np.uint8)
        del sequence
        for start in range(0, len(letters_L), _PIECE):
            wrong = np.flatnonzero(BITS_OF_BYTE[letters_L[start : start + _PIECE]] == 0)
            if len(wrong):
                place = start + int(wrong[0])
                raise InputError(
                    f"{path}: contig {contig.bare}, position {place + 1}: {chr(letters_L[place])!r} is not an IUPAC "
                    "nucleotide code; give a FASTA of DNA"
                )
        yield contig, letters_L


def _compare_bases(
    store: ProbabilisticGenome,
    name: str,
    letters_L: UInt8,
    differences: _Differences,
    advance: Callable[[float], None],
) -> int:
    """Compare a contig's length, bases and soft mask; give the number of bases compared."""
    length = store.contigs[name].length
    if length != len(letters_L):
        differences.add(
            "contigs", f"contig {name}: has {len(letters_L):,} bases in the FASTA, {length:,} in the genome"
        )
    both = min(length, len(letters_L))
    # A store of version 1 does not keep the mask.
    keeps_mask = store.manifest["version"] > 1
    for start in range(0, both, _PIECE):
        end = min(start + _PIECE, both)
        expected = BITS_OF_BYTE[letters_L[start:end]]
        found = _BITS_OF_CODE[store.bases(name, start, end)]
        place_D = np.flatnonzero(expected != found)
        for place in place_D[:MOST_TEXTS]:
            differences.add(
                "bases",
                f"{name}:{start + place + 1}: the base is {_LETTER_OF_BITS[int(expected[place])]} in the FASTA, "
                f"{_LETTER_OF_BITS[int(found[place])]} in the genome",
            )
        differences.total += max(len(place_D) - MOST_TEXTS, 0)
        if keeps_mask:
            lower = (letters_L[start:end] & _LOWER) != 0
            place_D = np.flatnonzero(lower != store.soft_masked(name, start, end))
            for place in place_D[:MOST_TEXTS]:
                case, mask = ("lower", "not soft-masked") if lower[place] else ("upper", "soft-masked")
                differences.add(
                    "soft mask", f"{name}:{start + place + 1}: is in {case} case in the FASTA, and {mask} in the genome"
                )
            differences.total += max(len(place_D) - MOST_TEXTS, 0)
        advance(end - start)
    return both


def _compare_variants(
    name: str, stored_V: Int64, frequency_V4: npt.NDArray[np.float32], derived: Derived, differences: _Differences
) -> tuple[int, float]:
    """Compare a contig's variants; give the number of frequencies compared and their largest distance."""
    _, expected_B, found_B = np.intersect1d(derived.position_V, stored_V, assume_unique=True, return_indices=True)
    missing = np.delete(derived.position_V, expected_B)
    extra = np.delete(stored_V, found_B)
    for positions, text in (
        (missing, "varies by the VCF, and not in the genome"),
        (extra, "varies in the genome, and not by the VCF"),
    ):
        for position in positions[:MOST_TEXTS]:
            differences.add("variants", f"{name}:{position + 1}: {text}")
        differences.total += max(len(positions) - MOST_TEXTS, 0)

    expected_B4 = derived.frequency_V4[expected_B]
    found_B4 = frequency_V4[found_B]
    distance_B = np.abs(found_B4 - expected_B4).max(axis=1, initial=0)
    wrong = np.flatnonzero(distance_B > LARGEST_ROUNDING)
    for row in wrong[:MOST_TEXTS]:
        differences.add(
            "frequencies",
            f"{name}:{stored_V[found_B[row]] + 1}: A, C, G, T are {_row_text(expected_B4[row])} by the VCF, "
            f"{_row_text(found_B4[row])} in the genome",
        )
    differences.total += max(len(wrong) - MOST_TEXTS, 0)
    return len(expected_B), float(distance_B.max(initial=0))


def _row_text(frequency_4: npt.NDArray[np.floating[Any]]) -> str:
    return " ".join(f"{value:.5f}" for value in frequency_4)


def _compare_records(
    manifest: Mapping[str, Any],
    vcfs: Sequence[_Source],
    tallies: Sequence[FileTally],
    fates_F17: Int64,
    decomposed_F: Int64,
    differences: _Differences,
) -> None:
    """Compare what became of the records with what the manifest says, file by file in the order given."""
    listed = manifest.get("records") or []
    if len(listed) != len(vcfs):
        differences.add("records", f"VCF files: {len(vcfs)} given, {len(listed)} in the genome's manifest")
        return
    for source, tally, fates, decomposed, entry in zip(vcfs, tallies, fates_F17, decomposed_F, listed, strict=True):
        not_used = entry.get("not_used") or {}
        expected = {"frequencies from": tally.frequency_from, "records read": tally.read, "records used": fates[USED]}
        found = {
            "frequencies from": entry.get("frequency_from"),
            "records read": entry.get("read"),
            "records used": entry.get("used"),
        }
        if "decomposed" in entry:
            expected["records decomposed"] = decomposed
            found["records decomposed"] = entry["decomposed"]
        for fate in [*FATES[:USED], *(reason for reason in not_used if reason not in FATES[:USED])]:
            expected[f"records not used, {fate}"] = fates[FATES.index(fate)] if fate in FATES[:USED] else 0
            found[f"records not used, {fate}"] = not_used.get(fate, 0)
        for what, value in expected.items():
            if value != found[what]:
                differences.add("records", f"{source.path}: {what}: {value}, by the genome's manifest {found[what]}")
