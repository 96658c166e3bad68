"""Input files of a genome: FASTA as base codes and soft mask, prefixes of species, and whose genotypes are counted."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pysam

from mutbert import alphabet
from mutbert.arrays import UInt8
from mutbert.errors import InputError
from mutbert.files import check_input, sha256_of
from mutbert.genome.format import SOFT_MASK, find_runs
from mutbert.genome.vcf import find_frequencies, read_header
from mutbert.regions import names_text
from mutbert.settings import listed

FILTERS: Final = ("PASS", ".")
ANY_FILTER: Final = "any"  # stands for every FILTER
LINE_BASES: Final = 60  # of what is written
_LOWER: Final = np.uint8(16)
_PIECE_BASES: Final = 1 << 20
# Byte to base code, with one more bit for lower case, for one pass over the text.
_CODES: Final = (alphabet.CODE_OF_BYTE | _LOWER * np.array([chr(byte).islower() for byte in range(256)])).tobytes()


class Source(NamedTuple):
    """A FASTA or VCF file; its contig ``chr1`` is ``human.chr1`` in the genome where the prefix is ``human``."""

    path: Path
    prefix: str = ""

    def name(self, contig: str) -> str:
        """Return the genome's name of a contig."""
        return f"{self.prefix}.{contig}" if self.prefix else contig

    def describe(self, kind: str, advance: Callable[[float], None] | None = None) -> dict[str, Any]:
        """Return what a manifest keeps: kind, name without folder, bytes, SHA-256, and the prefix if it has one."""
        file = {"file": self.path.name, "bytes": self.path.stat().st_size, "sha256": sha256_of(self.path, advance)}
        return {"kind": kind} | file | ({"prefix": self.prefix} if self.prefix else {})


class Calls(NamedTuple):
    """A VCF file and how it is read."""

    source: Source
    filters: Collection[str]
    fields: tuple[str, ...]  # of INFO, with frequencies or with both parts of a quotient
    samples: tuple[str, ...] | None  # whose genotypes the fields count anew

    @property
    def frequencies(self) -> str:
        """Where frequencies come from: ``AF``, ``AC/AN``, ``genotypes``."""
        return "/".join(self.fields) if self.samples is None else "genotypes"


Sources: TypeAlias = "str | Path | Sequence[str | Path]"


def parse_sources(given: Sources) -> list[Source]:
    """Return one or many of ``FILE`` or ``PREFIX=FILE``; a file that exists under the whole text is that file."""
    sources: list[Source] = []
    for one in listed(given):
        parts = None if Path(one).exists() else re.fullmatch(r"([A-Za-z0-9_-]+)=(.+)", str(one))
        source = Source(Path(one)) if parts is None else Source(Path(parts[2]), parts[1])
        if source in sources:
            raise InputError(f"{source.path}: comes twice; name each file once")
        sources.append(source)
    return sources


def check_sources(fastas: Sequence[Source], vcfs: Sequence[Source]) -> None:
    """Raise for a FASTA that cannot be read, and for a VCF with the prefix of no FASTA."""
    for source in fastas:
        check_input(source.path, "FASTA")
    prefixes = dict.fromkeys(source.prefix for source in fastas)
    for path, prefix in vcfs:
        if prefix not in prefixes:
            known = names_text(f"{one}=" for one in prefixes if one)
            raise InputError(f"{path}: its prefix {prefix!r} is that of no FASTA; prefixes are {known}")


def read_samples(
    samples: str | Path | Sequence[str] | None, population: str | None = None, sample: str | None = None
) -> list[str] | None:
    """Return the names of one sample, of a list, of a file of names, or of the rows of a panel with a population."""
    samples = samples if sample is None else [sample]
    if not isinstance(samples, (str, Path)):
        return None if samples is None else list(samples)
    path = Path(samples)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of samples ({error}); check the path") from None
    rows = [line.split() for line in lines if line.strip() and line[0] != "#"]
    if rows and rows[0][0].lower() == "sample" and len(rows[0]) > 1:
        del rows[0]
    names = [row[0] for row in rows if population is None or population in row[1:]]
    if not names:
        known = names_text(dict.fromkeys(word for row in rows for word in row[1:]), 30)
        raise InputError(f"{path}: no sample of population {population or 'any'}; there are {known}")
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise InputError(f"{path}: sample {twice[0]} comes twice; remove one of the lines")
    return names


def find_calls(
    vcfs: Sequence[Source], frequency_field: str, samples: Sequence[str] | None, filters: Collection[str]
) -> list[Calls]:
    """Return how each file is read, by what it declares; raise where it lacks the field, the samples or the filters."""
    headers = {source: read_header(source.path) for source in vcfs}
    paths = names_text(str(source.path) for source in vcfs)
    people = {name for header in headers.values() for name in header.samples}
    declared = {"PASS", ".", ANY_FILTER}.union(*(header.filters for header in headers.values()))
    for what, names, there in (("sample", samples, people), ("declared FILTER", filters if vcfs else None, declared)):
        unknown = [name for name in names or () if name not in there]
        if unknown or (names is not None and not names):
            raise InputError(f"{paths}: no {what} {names_text(unknown)}; there are {names_text(sorted(there), 30)}")
    calls = []
    for source, header in headers.items():
        if samples is not None and set(samples).isdisjoint(header.samples):  # chromosome Y may have men alone
            raise InputError(f"{source.path}: has none of the chosen samples; leave the file out or choose others")
        calls.append(Calls(source, filters, *find_frequencies(source.path, header, frequency_field, samples)))
    return calls


def describe_samples(chosen: Sequence[str] | None) -> dict[str, Any] | None:
    """Return what a manifest keeps of chosen samples: their number and a checksum, not their names."""
    names = "\n".join(sorted(chosen or ())).encode()
    return None if chosen is None else {"number": len(chosen), "sha256": hashlib.sha256(names).hexdigest()}


def read_fasta(path: Path) -> Iterator[tuple[str, UInt8, npt.NDArray[Any]]]:
    """Yield each contig's name, base codes (L,) and runs of lower case (`SOFT_MASK`); U is read as T."""
    for name, sequence in read_sequences(path):
        code_L = np.empty(len(sequence), dtype=np.uint8)
        # By pieces, as a chromosome and each copy of it take hundreds of megabytes.
        for start in range(0, len(sequence), _PIECE_BASES):
            piece = sequence[start : start + _PIECE_BASES].encode("ascii", "replace").translate(_CODES)
            code_L[start : start + _PIECE_BASES] = np.frombuffer(piece, dtype=np.uint8)
        if code_L.max() == alphabet.NOT_A_BASE:
            wrong = int(np.argmax(code_L == alphabet.NOT_A_BASE))
            raise InputError(f"{path}: contig {name}, position {wrong + 1}: {sequence[wrong]!r} is not an IUPAC code")
        soft_mask = find_runs(code_L, SOFT_MASK, lambda code: code & _LOWER)
        code_L &= np.uint8(15)
        yield name, code_L, soft_mask


def read_sequences(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each contig's name and letters, blanks left out as `samtools faidx` does."""
    is_packed, seen = check_input(path, "FASTA"), set[str]()
    verbosity = pysam.set_verbosity(0)
    try:
        # What htslib would skip or cut without a word: text before the first header, and NUL bytes.
        with pysam.BGZFile(str(path)) as text:
            start = text.read(_PIECE_BASES).strip()[:10].decode("ascii", "replace")
        if start and start[0] != ">":
            raise InputError(f"{path}: is not FASTA, it starts with {start!r} and not with '>'; use a FASTA file")
        with path.open("rb") as file:
            if not is_packed and any(b"\0" in piece for piece in iter(lambda: file.read(_PIECE_BASES), b"")):
                raise InputError(f"{path}: holds NUL bytes, so it is damaged; copy or download it again")
        with pysam.FastxFile(str(path), persist=False) as records:
            for record in records:
                # After blanks, the name is in the comment.
                name, sequence = record.name or "".join((record.comment or "").split()[:1]), record.sequence or ""
                sequence = "".join(sequence.split()) if " " in sequence or "\t" in sequence else sequence
                for is_wrong, problem in (
                    (not name, f"header {len(seen) + 1} has no name; write the contig's name right after the '>'"),
                    (name in seen, f"contig {name} comes twice; rename or remove one"),
                    (record.quality is not None, f"contig {name} has a line that starts with '+'; use a FASTA file"),
                    (not sequence, f"contig {name} has no sequence; remove its header or add the bases"),
                ):
                    if is_wrong:
                        raise InputError(f"{path}: {problem}")
                seen.add(name)
                yield name, sequence
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as FASTA ({error}); copy or download it again") from None
    finally:
        pysam.set_verbosity(verbosity)
    if not seen:
        raise InputError(f"{path}: holds no sequence; use a FASTA file with at least one contig")


def fasta_lines(letter_L: UInt8) -> bytes:
    """Return letters, as ASCII bytes, in lines of `LINE_BASES`, each with its end."""
    padded_L = np.pad(letter_L, (0, -len(letter_L) % LINE_BASES), constant_values=ord("\n"))
    lines = np.pad(padded_L.reshape(-1, LINE_BASES), ((0, 0), (0, 1)), constant_values=ord("\n"))
    return lines.tobytes().rstrip(b"\n") + b"\n"
