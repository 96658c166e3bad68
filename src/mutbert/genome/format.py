"""The format of a store, of which ``docs/format.md`` is normative."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mutbert.arrays import Int64, UInt8, UInt16
from mutbert.errors import InputError, reading
from mutbert.files import sha256_of

Rows: TypeAlias = npt.NDArray[Any]
Target: TypeAlias = "Path | dict[str, Rows]"  # the folder of files, or arrays in memory by file name

FORMAT: Final = "mutbert.genome"
FORMAT_VERSION: Final = 2
MANIFEST: Final = "manifest.json"
FREQUENCY_ONE: Final = 65535
BASES_PER_BYTE: Final = 4
LONGEST_CONTIG: Final = 2**32 - 1

AMBIGUITY: Final = np.dtype([("start", "<u4"), ("length", "<u4"), ("code", "u1")])
SOFT_MASK: Final = np.dtype([("start", "<u4"), ("length", "<u4")])

# The files of a store: the type of a row, and its shape.
ARRAYS: Final[dict[str, tuple[np.dtype[Any], tuple[int, ...]]]] = {
    "sequence.npy": (np.dtype("u1"), ()),
    "ambiguity.npy": (AMBIGUITY, ()),
    "soft_mask.npy": (SOFT_MASK, ()),
    "variant_position.npy": (np.dtype("<u4"), ()),
    "variant_frequency.npy": (np.dtype("<u2"), (4,)),
}
SEQUENCE_ARRAYS, VARIANT_ARRAYS = tuple(ARRAYS)[:3], tuple(ARRAYS)[3:]

UNPACK: Final = ((np.arange(256)[:, None] >> [0, 2, 4, 6]) & 3).astype(np.uint8).reshape(-1).view(np.uint32)
"""(256,) a packed byte to its four base codes in one uint32, so that unpacking is a single look-up."""


class Contig(NamedTuple):
    """Where a contig's data lie: its first byte in ``sequence.npy``, and half-open ranges of rows in the others."""

    name: str
    length: int
    offset: int
    ambiguity: tuple[int, int]
    soft_mask: tuple[int, int]
    variants: tuple[int, int]


def float_to_fixed(frequency_V4: npt.NDArray[np.floating[Any]]) -> UInt16:
    """Return distributions in fixed point, uint16 (V, 4), by the largest remainder; rows sum to exactly 65535."""
    exact = frequency_V4.astype(np.float64).reshape(-1, 4)
    total = exact.sum(axis=1, keepdims=True)
    assert np.all((exact >= 0) & (np.abs(total - 1) < 1e-3)), "frequencies are not negative, and rows sum to 1"
    exact *= FREQUENCY_ONE / total
    floor = np.floor(exact)
    # As many of a row's largest remainders as are missing are rounded up; ties go to the first base. Ranks are counted
    # base by base, in bytes, as a sort of so many short rows takes several times the memory.
    missing = FREQUENCY_ONE - floor.sum(axis=1, keepdims=True)
    rest_4V = np.ascontiguousarray((exact - floor).T)
    larger = [
        [other >= rest if at < base else other > rest for at, other in enumerate(rest_4V)]
        for base, rest in enumerate(rest_4V)
    ]
    rank = np.sum(larger, axis=1, dtype=np.uint8).T
    return np.asarray(floor + (rank < missing), dtype=np.uint16)


def pack(code_L: UInt8) -> UInt8:
    """Return base codes four to a byte, the first in the lowest bits; an ambiguous code is packed as A."""
    packed = np.empty(-(-len(code_L) // BASES_PER_BYTE), dtype=np.uint8)
    # By blocks that the processor's cache holds, of four bases as one number.
    for begin in range(0, len(packed), block := 1 << 14):
        code = code_L[begin * BASES_PER_BYTE : (begin + block) * BASES_PER_BYTE]
        four = np.append(code * (code < 4), np.zeros(-len(code) % BASES_PER_BYTE, np.uint8)).view("<u4")
        packed[begin : begin + block] = four | four >> 6 | four >> 12 | four >> 18
    return packed


def find_runs(value_L: UInt8, dtype: np.dtype[Any], label: Callable[[UInt8], UInt8] = np.asarray) -> Rows:
    """Return the longest runs of one label, as rows of `AMBIGUITY` or `SOFT_MASK`; labels of 0 are no runs."""
    starts, labels, last, block = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)], 0, 1 << 20
    # By blocks, as a contig may be as large as what is free.
    for begin in range(0, len(value_L), block):
        label_L = label(value_L[begin : begin + block])
        change = np.flatnonzero(np.diff(label_L, prepend=np.uint8(last)) != 0)  # of booleans it is quicker
        starts.append(change + begin)
        labels.append(label_L[change])
        last = label_L[-1]
    start, code = np.concatenate(starts), np.concatenate(labels)
    columns = [column[code > 0] for column in (start, np.diff(start, append=len(value_L)), code)]
    return np.rec.fromarrays(columns[: len(dtype.names or ())], dtype=dtype).view(np.ndarray)


def write_reference(target: Target, contigs: Iterable[tuple[str, UInt8, Rows]]) -> dict[str, Contig]:
    """Write contigs (name, base codes (L,), soft mask as runs), one in memory at a time; return where each lies."""
    found: dict[str, Contig] = {}
    with _growing(target, SEQUENCE_ARRAYS) as append:
        for name, code_L, soft_mask in contigs:
            if len(code_L) > LONGEST_CONTIG:
                raise InputError(f"contig {name}: longer than {LONGEST_CONTIG:,} bases, the most a store can hold")
            offset, _ = append("sequence.npy", pack(code_L))
            ambiguity = append("ambiguity.npy", find_runs(code_L, AMBIGUITY, lambda code: code * (code >= 4)))
            found[name] = Contig(name, len(code_L), offset, ambiguity, append("soft_mask.npy", soft_mask), (0, 0))
    return found


def write_variants(
    target: Target, contigs: Mapping[str, Contig], variants: Iterable[tuple[str, Int64, UInt16]]
) -> dict[str, Contig]:
    """Write variants (contig, ascending positions (V,), fixed point (V, 4)); return the contigs with their rows."""
    found = {name: contig._replace(variants=(0, 0)) for name, contig in contigs.items()}
    with _growing(target, VARIANT_ARRAYS) as append:
        for name, position_V, frequency_V4 in variants:
            assert np.all(np.diff(position_V.astype(np.int64), prepend=-1, append=found[name].length) > 0), "ascending"
            sums_V = frequency_V4.sum(axis=1, dtype=int)
            assert np.array_equal(sums_V, np.full(len(position_V), FREQUENCY_ONE)), "rows sum to 65535"
            found[name] = found[name]._replace(variants=append("variant_position.npy", position_V))
            append("variant_frequency.npy", frequency_V4)
    return found


def write_manifest(folder: Path, contigs: Mapping[str, Contig], **provenance: Any) -> None:
    """Write the manifest, which makes a store of the folder; `provenance` is added as it is."""
    arrays = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in ARRAYS}
    entries = [contig._asdict() for contig in contigs.values()]
    manifest = {"format": FORMAT, "version": FORMAT_VERSION, **provenance, "contigs": entries, "arrays": arrays}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _growing(target: Target, names: Iterable[str]) -> Iterator[Callable[[str, Rows], tuple[int, int]]]:
    """Yield a function that appends rows to an array and returns their half-open range."""
    rows = dict.fromkeys(names, 0)
    with ExitStack() as stack:
        opened = ((target / name).open("wb") if isinstance(target, Path) else BytesIO() for name in rows)
        files = dict(zip(rows, map(stack.enter_context, opened), strict=True))

        def append(name: str, added: Rows) -> tuple[int, int]:
            files[name].write(np.ascontiguousarray(added, dtype=ARRAYS[name][0]).data)
            first, rows[name] = rows[name], rows[name] + len(added)
            return first, rows[name]

        def write_headers() -> None:
            # NumPy pads a header, so that it keeps its size when the first dimension grows.
            for name, file in files.items():
                dtype, tail = ARRAYS[name]
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
                file.seek(0)
                np.lib.format.write_array_header_1_0(file, header | {"shape": (rows[name], *tail)})

        write_headers()
        yield append
        write_headers()
        if isinstance(target, dict):
            for name, file in files.items():
                file.seek(0)
                target[name] = np.lib.format.read_array(file)


def read_store(path: Path, *, check: bool) -> tuple[dict[str, Any], dict[str, Contig], dict[str, Rows]]:
    """Return a store's manifest, contigs and memory-mapped arrays."""
    file = path / MANIFEST
    if not file.is_file():
        raise InputError(f"{path}: no such genome store (no {MANIFEST}); build one with 'mutbert genome build'")
    with reading(file, "copy or build the store again"):
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError("it does not describe a genome store")
        if manifest["version"] > FORMAT_VERSION:
            raise ValueError(f"for its format version {manifest['version']}, install a newer mutbert")
        arrays = {name: _open_array(path / name, manifest, check=check) for name in ARRAYS}
        found: dict[str, Contig] = {}
        for entry in manifest["contigs"]:
            # Stores of version 1 keep no soft mask.
            ranges = entry["ambiguity"], entry["soft_mask"] if manifest["version"] > 1 else (0, 0), entry["variants"]
            contig = Contig(entry["name"], entry["length"], entry["offset"], *map(tuple, ranges))
            parts = ((contig.offset, contig.offset + -(-contig.length // BASES_PER_BYTE)), *contig[3:])
            is_whole = isinstance(contig.name, str) and all(type(one) is int for one in chain(contig[1:3], *contig[3:]))
            is_inside = all(0 <= a <= b <= len(rows) for (a, b), rows in zip(parts, arrays.values(), strict=False))
            if not is_whole or not is_inside or not 1 <= contig.length <= LONGEST_CONTIG:
                raise ValueError(f"contig {contig.name} does not fit the arrays")
            found[contig.name] = contig
        if len(found) < max(len(manifest["contigs"]), 1):
            raise ValueError("it has no contigs, or two of one name")
    return manifest, found, arrays


def _open_array(file: Path, manifest: Mapping[str, Any], *, check: bool) -> Rows:
    dtype, tail = ARRAYS[file.name]
    if file.name == "soft_mask.npy" and manifest["version"] == 1:
        return np.empty(0, dtype)
    expected = manifest["arrays"][file.name]
    if file.stat().st_size != expected["bytes"] or (check and sha256_of(file) != expected["sha256"]):
        raise ValueError(f"{file.name}: its size or its SHA-256 is not the manifest's, so it is damaged")
    # A plain array over the memory map: subclass bookkeeping would cost more than the reads themselves.
    array: Rows = np.asarray(np.lib.format.open_memmap(file, mode="r"))
    if array.dtype != dtype or array.shape[1:] != tail:
        raise ValueError(f"{file.name}: holds {array.dtype} {array.shape}, not the format's array")
    return array
