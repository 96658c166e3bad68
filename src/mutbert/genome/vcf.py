"""VCF and BCF files as frames: htslib reads them in a child process, and polars parses its text."""

from __future__ import annotations

import gzip
import re
import select
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import dropwhile, islice
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, TypeAlias

import pysam
import pysam.bcftools

from mutbert.errors import InputError
from mutbert.files import check_input
from mutbert.regions import names_text

if TYPE_CHECKING:
    import polars as pl


Region: TypeAlias = "tuple[str, int, int | None]"  # 0-based start and end; None: to the last record
Regions: TypeAlias = "list[Region] | Path | None"  # a path: of a table of them, 1-based and inclusive

GENOTYPES: Final = "GT"  # the frequency field that stands for counting genotypes
_COLUMNS: Final = {"contig": "CHROM", "position": "POS", "ref": "REF", "alt": "ALT", "filter": "FILTER"}
_BLOCK_BYTES: Final = 1 << 21
# As much as any user may have: the child reads on while a block is processed.
_PIPE_BYTES: Final = 1 << 20
# bcftools holds the interpreter while it runs, and prints to the process's own standard output.
_CHILD: Final = """
import sys, pysam, pysam.bcftools
pysam.set_verbosity(1)
getattr(pysam.bcftools, sys.argv[1])("-o", "/dev/stdout", *sys.argv[2:], catch_stdout=False)
"""
# Text without blank lines at its end, where htslib would stop; it may accept the last line of a file that was cut.
_STRIP: Final = """
import gzip, sys
with open(sys.argv[1], "rb") as file:
    text = gzip.open(file) if file.peek(2)[:2] == b"\\x1f\\x8b" else file
    blank = b""
    while block := text.read(1 << 20):
        block = blank + block
        kept = block.rstrip()
        blank = block[len(kept):]
        sys.stdout.buffer.write(kept)
    end, start = blank.partition(b"\\n")[0] + b"\\n", kept.rfind(b"\\n") + 1
    sys.stdout.buffer.write(end)
    if start and kept[start] != 35 and (kept[start:] + end).count(b"\\t") < 7:
        sys.exit("the last line has fewer than 8 columns")
"""
_SILENT: Final = 30  # seconds of a child that neither reads nor writes; twice so long is the end of it
# Nothing of an index is read in this process, which a damaged one could end.
_COUNTS: Final = "import sys, pysam.bcftools; sys.stdout.write(pysam.bcftools.index('--stats', sys.argv[1]))"
# What begins a line that explains a failure, the cause of others first.
_CAUSES: Final = (r"(EOFError|zlib\.error|gzip\.BadGzipFile): ", r"\[E::\w+\] ", r".*stderr=")
_LISTED: Final = "{listed}"  # in a command, the file with the samples' names
_DECLARED: Final = re.compile(r"^##(INFO|FORMAT|FILTER|contig)=<(.*)>$", re.MULTILINE)
_ATTRIBUTE: Final = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^,]*)')


class VcfHeader(NamedTuple):
    """What a file declares."""

    info: Mapping[str, tuple[str, str]]  # Number and Type
    formats: Collection[str]
    filters: Collection[str]
    contigs: Mapping[str, int | None]  # with their lengths
    samples: Sequence[str]


def read_header(path: Path) -> VcfHeader:
    """Return what a VCF or BCF file declares, whatever its compression."""
    check_input(path, "VCF")
    # A damaged BCF could end this process; why another file cannot be read is for the child to explain.
    text = "" if _is_bcf(path) else _text_header(path)
    text = text or b"".join(read_lines(path, header=True)).decode(errors="replace")
    declared: dict[str, dict[str, dict[str, str]]] = {"INFO": {}, "FORMAT": {}, "FILTER": {}, "contig": {}}
    for kind, body in _DECLARED.findall(text):
        values = dict(_ATTRIBUTE.findall(body))
        declared[kind][values.get("ID", "")] = values
    info = {name: (one.get("Number", "."), one.get("Type", "String")) for name, one in declared["INFO"].items()}
    lengths = {name: one.get("length", "") for name, one in declared["contig"].items()}
    contigs = {name: int(length) if length.isdecimal() else None for name, length in lengths.items()}
    samples = text.rstrip("\n").rpartition("\n")[2].split("\t")[9:]
    return VcfHeader(info, declared["FORMAT"], declared["FILTER"], contigs, samples)


def read_records(
    path: Path, fields: Sequence[str] = (), *, region: Regions = None, samples: Collection[str] | None = None
) -> Generator[pl.DataFrame, None, None]:
    """Yield records with POS in the regions: `_COLUMNS`, POS 0-based, and a String for each field, ``.`` for none."""
    if samples is not None and "GT" not in fields:  # INFO/AC and INFO/AN are counted anew
        yield from _count_records(path, region, samples)
        return
    # A blank before each sample's genotype.
    words = [*(f"%{name}" for name in _COLUMNS.values()), *("[ %GT]" if one == "GT" else f"%{one}" for one in fields)]
    command = ["query", "-f", "\\t".join(words) + "\\n", *_of_region(region)]
    has_blanks = " " in "".join(samples or ())  # where a name that is listed ends
    places = [read_header(path).samples.index(name) + 1 for name in samples or ()] if has_blanks else []
    command += ["-S", _LISTED] if samples and not places else []
    for lines in _bcftools(path, command, listed=samples or ()):
        records = _parse(lines, [*_COLUMNS, *fields])
        if places:
            records = records.with_columns(records["GT"].str.split(" ").list.gather([0, *places]).list.join(" "))
        yield records


def _count_records(path: Path, region: Regions, samples: Collection[str]) -> Generator[pl.DataFrame, None, None]:
    import polars as pl

    done, is_part = 0, pl.col("INFO/AN") != str(2 * len(samples))
    # Without genotypes, a record would keep the counts that it has.
    cleared = ["annotate", "-x", "INFO/AC,INFO/AN", "-Ou", *_of_region(region)]
    recounted = ["view", "-H", "--no-version", "-G", "-S", _LISTED]
    counts = {f"INFO/{one}": pl.col("info").str.extract(f"(?:^|;){one}=([^;]*)").fill_null(".") for one in ("AC", "AN")}
    names = ["contig", "position", "id", "ref", "alt", "quality", "filter", "info"]
    blocks = _bcftools(path, cleared, recounted, listed=samples)
    try:
        for records in _by_position(_parse(lines, names).select(*_COLUMNS, **counts) for lines in blocks):
            if len(records.filter(pl.len().over("site") > 1, is_part)):
                break
            done += len(records)
            yield records.drop("site")
        else:
            return
    except InputError as error:
        # They take no record with what the header does not declare, be it the contig, or an allele that is not in ALT.
        if not re.search("cannot proceed|Incorrect allele", str(error)):
            raise
    for records in read_genotypes(path, samples, region=region):
        if len(records) > done:
            yield records[done:]
        done = max(done - len(records), 0)


def _by_position(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield records anew, those of one position together; `site` is the position's number."""
    import polars as pl

    held = pl.DataFrame()
    for frame in frames:
        site = pl.col("contig").rle_id() + pl.col("position").rle_id()
        held = pl.concat([held, frame], how="diagonal").with_columns(site=site)
        if first := int((held["site"] != held["site"][-1]).sum()):
            yield held[:first]
            held = held[first:]
    if len(held):
        yield held


def read_genotypes(path: Path, samples: Collection[str], *, region: Regions = None) -> Iterator[pl.DataFrame]:
    """Yield records with ``INFO/AC`` and ``INFO/AN`` of their genotypes' text; AC ``none`` for an unknown allele."""
    import polars as pl

    text, alternates = pl.col("GT"), pl.when(pl.col("alt") != ".").then(pl.col("alt").str.count_matches(",") + 1)
    for records in _by_position(read_records(path, ["GT"], region=region, samples=samples)):
        most = int(records.select(alternates.max()).item() or 0)
        words = [str(one) if most < 10 else rf"\b{one}\b" for one in range(most + 1)]
        calls = pl.concat_list([text.str.count_matches(word, literal=most < 10) for word in words])
        calls = calls.list.head(alternates.fill_null(0) + 1)
        is_known = text.str.count_matches(r"[^ |/.]+") == calls.list.sum()
        counts = calls.list.slice(1).cast(pl.List(pl.String)).list.join(",")
        counts = pl.when(is_known).then(counts).otherwise(pl.lit("none"))
        counted = records.with_columns(counts.alias("INFO/AC"), calls.list.sum().cast(pl.String).alias("INFO/AN"))
        # Where a site was split (1/2 into 1/. and ./1), AN is that of all records of the position.
        is_part = pl.col("INFO/AN") != str(2 * len(samples))
        split = counted.filter(pl.len().over("site") > 1, is_part.any().over("site")).select("site", "GT")
        for place, pattern in (("sample", "[^ ]+"), ("place", "[^/|]+")):
            parts = text.str.extract_all(pattern)
            split = split.with_columns(parts, pl.int_ranges(parts.list.len()).alias(place)).explode("GT", place)
        called = split.filter(text != ".").unique(["site", "sample", "place"]).group_by("site").len()
        number = pl.col("site").replace_strict(called["site"], called["len"], default=None).cast(pl.String)
        number = pl.when(pl.col("INFO/AN") != "0").then(number).fill_null(pl.col("INFO/AN"))
        yield counted.with_columns(number.alias("INFO/AN")).drop("site")


def _parse(lines: bytes, names: Sequence[str]) -> pl.DataFrame:
    import polars as pl

    schema = {name: pl.Int64 if name == "position" else pl.String for name in names}
    # Polars' own "utf8-lossy" takes half as long again, also where there is nothing to replace.
    text = lines if lines.isascii() else lines.decode("utf-8", "replace").encode()
    frame = pl.read_csv(text, has_header=False, schema=schema, separator="\t", quote_char=None)
    return frame.with_columns(pl.col("position") - 1)


def read_lines(path: Path, *, header: bool = False, region: Regions = None) -> Generator[bytes, None, None]:
    """Yield whole lines of a file's header or of its records, many at a time, as ``bcftools view`` writes them."""
    yield from _bcftools(path, ["view", "-h" if header else "-H", "--no-version", *_of_region(region)])


def _of_region(region: Regions) -> list[str]:
    if isinstance(region, Path):
        return ["-R", str(region), "--regions-overlap", "pos"]
    places = [f"{{{name}}}:{start + 1}-{'' if end is None else end}" for name, start, end in region or ()]
    return ["-r", ",".join(places), "--regions-overlap", "pos"] if places else []


def find_frequencies(
    path: Path, header: VcfHeader, wanted: str, samples: Collection[str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Return the INFO field that has a file's frequencies, or two of a quotient, and whose genotypes these count."""
    kinds = {name: kind for name, (_, kind) in header.info.items()}
    has_genotypes = bool(header.samples) and GENOTYPES in header.formats
    has_counts, is_default = kinds.get("AC") == kinds.get("AN") == "Integer", wanted == "AF" and "AF" not in kinds
    is_counted = samples is not None or wanted == GENOTYPES
    parts, kind = tuple(wanted.split("/")), "Integer" if "/" in wanted else "Float"
    is_declared = len(parts) <= 2 and all(kinds.get(name) == kind for name in parts)
    if not is_counted and (is_declared or (is_default and has_counts)):
        return ("AC", "AN") if is_default else parts, None
    if has_genotypes and (is_counted or is_default):
        chosen = set(header.samples if samples is None else samples)
        return ("AC", "AN"), tuple(name for name in header.samples if name in chosen)
    if is_counted:
        raise InputError(f"{path}: its header declares no genotypes (samples and FORMAT GT); use a VCF with them")
    floats = [name for name, kind in kinds.items() if kind == "Float"]
    choices = [*floats, *["AC/AN"] * has_counts, *["GT (genotypes)"] * has_genotypes]
    remedy = f"choose one of {names_text(choices, 30)} with --frequency-field" if choices else "use another VCF"
    there = f" (it is {kinds[wanted]})" if wanted in kinds else ""
    raise InputError(f"{path}: its header declares no INFO field {wanted} of type {kind}{there}; {remedy}")


def count_by_index(path: Path) -> dict[str, int] | None:
    """Return how many records a file's index counts on each contig; None without an index that can be used."""
    if not _indices(path) or older_index(path) is not None:
        return None
    # An index without counts, of another kind, or damaged is as none.
    with suppress(ValueError, TimeoutExpired):
        command = [sys.executable, "-P", "-c", _COUNTS, str(path.absolute())]
        done = subprocess.run(command, capture_output=True, check=False, timeout=_SILENT)
        lines = done.stdout.decode().splitlines() if not done.returncode else []
        return {name: int(number) for name, _, number in (line.split("\t") for line in lines)} or None
    return None


def older_index(path: Path) -> Path | None:
    """Return the index that is older than its file, and so may belong to another state of it."""
    return next((one for one in _indices(path) if one.stat().st_mtime_ns < path.stat().st_mtime_ns), None)


def _indices(path: Path) -> list[Path]:
    return [one for suffix in (".tbi", ".csi") if (one := path.with_name(path.name + suffix)).is_file()]


def _is_bcf(path: Path) -> bool:
    with suppress(OSError, EOFError, zlib.error), _unpacked(path) as file:  # what is damaged is no BCF
        return file.read(3) == b"BCF"
    return False


def _unpacked(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if check_input(path, "VCF") else path.open("rb")


def _text_header(path: Path) -> str:
    """Return the header of a VCF, read in this process, as starting another takes longer; nothing where it fails."""
    with ExitStack() as stack, suppress(pysam.SamtoolsError, OSError):
        stack.callback(pysam.set_verbosity, pysam.set_verbosity(0))
        text = pysam.bcftools.view("-h", "--no-version", str(path.absolute()))
        return text if isinstance(text, str) else bytes(text).decode(errors="replace")
    return ""


def _bcftools(path: Path, *commands: list[str], listed: Collection[str] = ()) -> Generator[bytes, None, None]:
    """Yield whole lines, many at a time, of what commands of bcftools print of a file, each reading the one before."""
    with tempfile.NamedTemporaryFile() as names, tempfile.TemporaryFile() as errors, ExitStack() as stack:
        Path(names.name).write_text("".join(f"{name}\n" for name in listed), encoding="utf-8")
        children: list[Popen[bytes]] = []
        scripts = [(_CHILD, *(names.name if one == _LISTED else one for one in words)) for words in commands]
        as_is = "-h" in commands[0] or _indices(path) or _is_bcf(path)
        for script in scripts if as_is else [(_STRIP,), *scripts]:
            # -P: nothing is imported from the working directory.
            command = [sys.executable, "-P", "-c", *script, "-" if children else str(path.absolute())]
            given = children[-1].stdout if children else None
            child = Popen(command, bufsize=0, pipesize=_PIPE_BYTES, stdin=given or DEVNULL, stdout=PIPE, stderr=errors)
            if given is not None:
                given.close()  # so that a command ends where the next one has
            children.append(stack.enter_context(child))
            stack.callback(child.kill)
        import polars as pl  # noqa: F401  # loaded while the child starts to read; the functions that use it follow

        last, rest = b"", b""
        for block in _blocks(path, children):
            lines, end, rest = (rest + block).rpartition(b"\n")
            if end:
                last = lines[lines.rfind(b"\n") + 1 :]
                yield lines + end
        if failed := [status for child in children if (status := child.wait())]:
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace").splitlines() or [f"it ended with status {failed[0]}"]
            why = next((line for cause in _CAUSES for line in said if re.match(cause, line)), said[-1])
            why = re.sub(rf"^({'|'.join(_CAUSES)})|\\n'?$", "", why)
            # A child whose reader has ended is ended by SIGPIPE.
            if killed := [signal.Signals(-one).name for one in failed if one < 0 and -one != signal.SIGPIPE]:
                memory = ", perhaps as memory ran out: use fewer --workers" if "SIGKILL" in killed else ""
                why = f"htslib was ended by {killed[0]}{memory}"
            why = (_find_odd_line(path) if "parse" in why and "#CHROM" not in why else "") or why
            after = b":".join(last.split(b"\t")[:2]).decode("utf-8", "replace")
            text = f"cannot be read as VCF{f' after {after}' if after else ''} ({why})"
            raise InputError(f"{path}: {text}; check that it is one, and complete")


def _blocks(path: Path, children: Sequence[Popen[bytes]]) -> Iterator[bytes]:
    """Yield what the last child prints; raise InputError where all of them have stopped without an end."""
    output, parts, before = children[-1].stdout, list[bytes](), object()
    assert output is not None
    ready = select.poll()  # which takes any number of open files
    ready.register(output, select.POLLIN)
    while True:
        while not ready.poll(1000 * _SILENT):
            counts = [_transferred(child) for child in children]
            if counts == before:
                raise InputError(f"{path}: htslib neither reads on nor ends; index it anew, or copy it again")
            before = counts
        parts.append(output.read(_BLOCK_BYTES))
        if not parts[-1] or sum(map(len, parts)) >= _BLOCK_BYTES:
            yield b"".join(parts)
            if not parts[-1]:
                return
            parts.clear()


def _transferred(child: Popen[bytes]) -> object:
    """Return how much a process has read and written; where the system does not count it, what equals nothing."""
    with suppress(OSError):
        return Path(f"/proc/{child.pid}/io").read_text(encoding="ascii").partition("syscr")[0]
    return object()


def _find_odd_line(path: Path) -> str:
    """Return the number and the fault of the first line after the header that is no record."""
    with suppress(OSError, EOFError, zlib.error), _unpacked(path) as lines:
        numbered = dropwhile(lambda one: not one[1].startswith(b"#CHROM"), enumerate(lines, 1))
        for number, line in islice(numbered, 1, None):
            columns = line.split(b"\t", 8)
            if line.startswith(b"#"):
                return f"line {number} is a comment among the records"
            if len(columns) < 8:
                return f"line {number} has fewer than 8 columns"
            if not columns[1].isdigit():
                return f"line {number} has no number for POS"
    return ""
