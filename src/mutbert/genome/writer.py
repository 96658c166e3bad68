"""Write a store: sequences, their variants, and last the manifest that makes it one."""

from __future__ import annotations

import json
import zlib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

import numpy as np
import numpy.typing as npt

from mutbert.errors import InputError
from mutbert.files import sha256_of
from mutbert.genome.format import (
    ARRAYS,
    BASES_PER_BYTE,
    FORMAT,
    FORMAT_VERSION,
    FREQUENCY_ONE,
    LONGEST_CONTIG,
    MANIFEST,
    SOFT_MASK,
    Contig,
    ambiguous_runs,
    codes_at,
    join_runs,
    pack,
    true_runs,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO

    from mutbert.arrays import Int64, UInt8, UInt16, UInt32


_ROWS_OF_A_COPY: Final = 1 << 22
_BYTES_OF_A_CHECKSUM: Final = 1 << 20

_SEQUENCE_ARRAYS: Final = ("sequence.npy", "ambiguity.npy", "soft_mask.npy")


class StoreWriter:
    """Write the arrays of a store into an empty folder: sequences, their variants, and last the manifest.

    Sequences may come in pieces and variants in any order of contigs, so that memory is one piece of sequence and
    one contig's variants; the disk never holds more than the result. A context manager: nothing opens as a store
    before `finish` has written the manifest.

    Parameters
    ----------
    directory : Path
        An empty folder; or one that a writer was stopped in.
    contigs : sequence of Contig
        Those that the stopped writer had added; what it wrote behind them is cut off.
    """

    def __init__(self, directory: Path, contigs: Sequence[Contig] = ()) -> None:
        self._directory = directory
        self._contigs = {contig.name: contig for contig in contigs}
        self._runs: dict[str, npt.NDArray[Any]] = {}
        self._rows = dict.fromkeys(ARRAYS, 0)
        self._header_bytes = dict.fromkeys(ARRAYS, 0)
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> Self:
        try:
            for name in ARRAYS:
                if self._contigs and not (self._directory / name).is_file():
                    self._refuse_damage(name)
                self._files[name] = (self._directory / name).open("r+b" if self._contigs else "w+b")
                if not self._contigs:
                    self._write_header(name)
            if self._contigs:
                self._go_on()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A full disk says so again at each of them.
        with ExitStack() as stack:
            for file in self._files.values():
                stack.callback(file.close)

    @property
    def lengths(self) -> dict[str, int]:
        """The lengths in bases of the contigs added so far."""
        return {name: contig.length for name, contig in self._contigs.items()}

    def add_contig(
        self,
        name: str,
        bases: UInt8 | Iterable[UInt8],
        position_V: UInt32 | None = None,
        frequency_V4: UInt16 | None = None,
        soft_mask: npt.NDArray[Any] | None = None,
    ) -> None:
        """Append a contig, with its variants and its soft mask where they are known already.

        Parameters
        ----------
        name : str
            The contig's name, not used before.
        bases : ndarray of uint8, shape (L,), or iterable of such
            Reference base codes, in one piece or many.
        position_V, frequency_V4 : ndarray, optional
            See `add_variants`.
        soft_mask : ndarray, optional
            See `add_soft_mask`.

        Raises
        ------
        InputError
            When the contig is longer than a 32-bit position can say.
        """
        assert name not in self._contigs, f"contig {name} is given twice"
        offset = self._rows["sequence.npy"]
        length = 0
        runs = []
        left_over = np.zeros(0, dtype=np.uint8)
        for piece in (bases,) if isinstance(bases, np.ndarray) else bases:
            runs.append(ambiguous_runs(piece, length))
            length += len(piece)
            if length > LONGEST_CONTIG:
                raise InputError(f"contig {name}: longer than {LONGEST_CONTIG:,} bases, the most a store can hold")
            pending = np.concatenate([left_over, piece]) if len(left_over) else piece
            whole = len(pending) // BASES_PER_BYTE * BASES_PER_BYTE
            self._append("sequence.npy", pack(pending[:whole]))
            left_over = pending[whole:].copy()
        self._append("sequence.npy", pack(left_over))
        first = self._rows["ambiguity.npy"]
        self._runs[name] = join_runs(runs)
        self._append("ambiguity.npy", self._runs[name])
        ambiguity, masked = (first, self._rows["ambiguity.npy"]), self._rows["soft_mask.npy"]
        self._contigs[name] = Contig(name, length, offset, ambiguity, (masked, masked), (0, 0))
        if soft_mask is not None:
            self.add_soft_mask(name, soft_mask)
        if position_V is not None and frequency_V4 is not None:
            self.add_variants(name, position_V, frequency_V4)

    def add_store(self, contigs: Iterable[Contig], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Append all contigs of another store, whose rows are taken as they are.

        Parameters
        ----------
        contigs : iterable of Contig
            The other store's; none of a name that was used before.
        arrays : mapping of str to ndarray
            Its arrays by file name.
        """
        before = dict(self._rows)
        for name, rows in arrays.items():
            for start in range(0, len(rows), _ROWS_OF_A_COPY):
                self._append(name, rows[start : start + _ROWS_OF_A_COPY])
        for contig in contigs:
            assert contig.name not in self._contigs, f"contig {contig.name} is given twice"
            ambiguity, soft_mask, variants = (
                (first + before[name], last + before[name])
                for name, (first, last) in (
                    ("ambiguity.npy", contig.ambiguity),
                    ("soft_mask.npy", contig.soft_mask),
                    ("variant_position.npy", contig.variants),
                )
            )
            self._contigs[contig.name] = contig._replace(
                offset=contig.offset + before["sequence.npy"],
                ambiguity=ambiguity,
                soft_mask=soft_mask,
                variants=variants,
            )

    def add_soft_mask(self, name: str, mask: npt.NDArray[Any]) -> None:
        """Append the soft mask of a contig, once for each contig that has one.

        Parameters
        ----------
        name : str
            A contig that was added.
        mask : ndarray of bool, shape (L,), or of `mutbert.genome.format.SOFT_MASK`, shape (runs,)
            For each base whether it is masked; or the longest runs of masked bases, ascending.
        """
        contig = self._contigs[name]
        assert contig.soft_mask[0] == contig.soft_mask[1], f"the soft mask of contig {name} is given twice"
        if mask.dtype == bool:
            assert len(mask) == contig.length, "a flag for each base"
            mask = true_runs(mask)
        assert mask.dtype == SOFT_MASK, "flags or runs"
        end = mask["start"].astype(np.int64) + mask["length"]
        assert np.all(mask["length"] > 0), "runs are not empty"
        assert np.all(mask["start"][1:] > end[:-1]), "runs ascend and do not touch"
        assert not len(mask) or end[-1] <= contig.length, "runs lie in the contig"
        first = self._rows["soft_mask.npy"]
        self._append("soft_mask.npy", mask)
        self._contigs[name] = contig._replace(soft_mask=(first, self._rows["soft_mask.npy"]))

    def add_variants(self, name: str, position_V: UInt32, frequency_V4: UInt16) -> tuple[int, int]:
        """Append the variants of a contig, once for each contig that has any.

        Parameters
        ----------
        name : str
            A contig that was added.
        position_V : ndarray of uint32, shape (V,)
            0-based positions of the variants, strictly ascending.
        frequency_V4 : ndarray of uint16, shape (V, 4)
            Their frequencies in fixed point; each row sums to 65535.

        Returns
        -------
        tuple of int
            Half-open range of their rows.
        """
        contig = self._contigs[name]
        assert contig.variants == (0, 0), f"the variants of contig {name} are given twice"
        assert len(position_V) == len(frequency_V4), "a row of frequencies for each position"
        assert np.all(position_V[1:] > position_V[:-1]), "positions ascend"
        assert not len(position_V) or position_V[-1] < contig.length, "positions lie in the contig"
        assert np.all(frequency_V4.sum(axis=1, dtype=np.int64) == FREQUENCY_ONE), "rows sum to 65535"
        first = self._rows["variant_position.npy"]
        self._append("variant_position.npy", position_V.astype("<u4"))
        self._append("variant_frequency.npy", frequency_V4.astype("<u2"))
        rows = first, self._rows["variant_position.npy"]
        self._contigs[name] = contig._replace(variants=rows)
        return rows

    @property
    def contigs(self) -> list[Contig]:
        """The contigs added so far."""
        return list(self._contigs.values())

    def flush(self) -> None:
        """Hand everything to the operating system, so that it outlives this process."""
        for file in self._files.values():
            file.flush()

    def sequence_checksum(self) -> int:
        """Compute the CRC-32 of all sequences, ambiguous runs and soft masks."""
        checksum = 0
        for name in _SEQUENCE_ARRAYS:
            file = self._files[name]
            file.seek(self._header_bytes[name])
            while chunk := file.read(_BYTES_OF_A_CHECKSUM):
                checksum = zlib.crc32(chunk, checksum)
        return checksum

    def variant_rows(self, first: int, last: int) -> tuple[bytes, bytes] | None:
        """Read rows of the variants back: positions and frequencies; ``None`` where the files do not have them."""
        parts = []
        for name in ("variant_position.npy", "variant_frequency.npy"):
            file = self._files[name]
            size = _row_bytes(name)
            file.seek(self._header_bytes[name] + first * size)
            parts.append(file.read((last - first) * size))
            file.seek(0, 2)
            if len(parts[-1]) < (last - first) * size:
                return None
        return parts[0], parts[1]

    def forget_variants(self, keep: Mapping[str, tuple[int, int]]) -> None:
        """Keep the variants of some contigs, whose rows come first, and cut the others off."""
        self._contigs = {name: one._replace(variants=keep.get(name, (0, 0))) for name, one in self._contigs.items()}
        rows = max((last for _, last in keep.values()), default=0)
        for name in ("variant_position.npy", "variant_frequency.npy"):
            self._rows[name] = rows
            self._files[name].truncate(self._header_bytes[name] + rows * _row_bytes(name))
            self._files[name].seek(0, 2)

    def codes_at(self, name: str, position_V: Int64) -> UInt8:
        """Read the base codes of a contig that was added, at some 0-based positions in any order, shape (V,)."""
        contig = self._contigs[name]
        file = self._files["sequence.npy"]
        file.flush()
        # Mapped, not read: only the pages that hold a wanted position are touched.
        packed = np.memmap(
            file,
            np.uint8,
            "r",
            self._header_bytes["sequence.npy"] + contig.offset,
            (-(-contig.length // BASES_PER_BYTE),),
        )
        return codes_at(np.asarray(packed), self._runs[name], position_V)

    def finish(self, **description: Any) -> None:
        """Write the manifest.

        Parameters
        ----------
        **description
            What else the manifest says: ``sources``, ``settings``, ``records``...; anything JSON can hold.
        """
        for name, file in self._files.items():
            self._write_header(name)
            file.close()
        manifest = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            **description,
            "contigs": [contig._asdict() for contig in self._contigs.values()],
            "arrays": {
                name: {
                    "bytes": (self._directory / name).stat().st_size,
                    "sha256": sha256_of(self._directory / name),
                }
                for name in ARRAYS
            },
        }
        (self._directory / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")

    def _go_on(self) -> None:
        """Find the ends of what a stopped writer wrote."""
        last = max(self._contigs.values(), key=lambda contig: contig.offset)
        self._rows["sequence.npy"] = last.offset + -(-last.length // BASES_PER_BYTE)
        self._rows["ambiguity.npy"] = last.ambiguity[1]
        self._rows["soft_mask.npy"] = max(contig.soft_mask[1] for contig in self._contigs.values())
        for name, file in self._files.items():
            try:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
            except ValueError:
                self._refuse_damage(name)
            self._header_bytes[name] = file.tell()
            size = file.tell() + self._rows[name] * _row_bytes(name)
            if file.seek(0, 2) < size:
                self._refuse_damage(name)
            if name in _SEQUENCE_ARRAYS:
                file.truncate(size)
        file = self._files["ambiguity.npy"]
        file.seek(self._header_bytes["ambiguity.npy"])
        runs = np.frombuffer(file.read(last.ambiguity[1] * _row_bytes("ambiguity.npy")), ARRAYS["ambiguity.npy"][0])
        self._runs = {contig.name: runs[slice(*contig.ambiguity)] for contig in self._contigs.values()}
        for file in self._files.values():
            file.seek(0, 2)

    def _refuse_damage(self, name: str) -> NoReturn:
        raise InputError(
            f"{self._directory / name}: is damaged, so the build cannot go on; build anew without --resume"
        )

    def _append(self, name: str, rows: npt.NDArray[Any]) -> None:
        self._files[name].write(np.ascontiguousarray(rows).data)
        self._rows[name] += len(rows)

    def _write_header(self, name: str) -> None:
        # NumPy pads the header so that the first dimension may grow in place.
        dtype, tail = ARRAYS[name]
        file = self._files[name]
        file.seek(0)
        header = {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (self._rows[name], *tail),
        }
        np.lib.format.write_array_header_1_0(file, header)
        self._header_bytes[name] = file.tell()


def _row_bytes(name: str) -> int:
    dtype, tail = ARRAYS[name]
    return int(dtype.itemsize * np.prod(tail, dtype=int))
