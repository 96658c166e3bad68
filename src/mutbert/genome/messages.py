"""What a worker process is told and what it answers: a line of JSON, and then the bytes of arrays.

No object is ever unpickled.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from mutbert.errors import InputError
from mutbert.genome.fields import FrequencyFields
from mutbert.genome.frequencies import Calls, Piece, read_alleles
from mutbert.genome.sites import Alleles
from mutbert.genome.vcf_text import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_TYPES: Final = tuple(np.dtype(kind) for kind in ("<u4", "u1", "u1", "<f4", "<u4", "<u4"))
"""Of the columns of `Alleles`."""


class Task(NamedTuple):
    """What a worker is to read; the arguments of `mutbert.genome.frequencies.read_alleles`."""

    calls: Calls
    places: tuple[Place, ...] = ()
    contigs: tuple[str, ...] = ()


def do_task(task: Task) -> Iterator[Piece]:
    """Do a task in this process."""
    return read_alleles(*task)


def serve() -> None:
    """Do the tasks that come on standard input; the main program of a worker process."""
    # Ctrl-C goes to the whole group, and the parent sees to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    send = sys.stdout.buffer
    # Nothing but answers may get there.
    sys.stdout = sys.stderr
    with suppress(BrokenPipeError):
        for line in sys.stdin.buffer:
            try:
                for piece in do_task(_read_task(line)):
                    _send_piece(piece, send)
                    send.flush()
                answer: dict[str, str] = {}
            except InputError as error:
                answer = {"error": str(error)}
            send.write(json.dumps(answer).encode() + b"\n")
            send.flush()


def task_line(task: Task) -> bytes:
    """Write a task as a worker process reads it."""
    (path, fields, filters), places, contigs = task
    return json.dumps([str(path), fields, filters, places, contigs]).encode() + b"\n"


def _read_task(line: bytes) -> Task:
    path, (names, columns, samples), filters, places, contigs = json.loads(line)
    fields = FrequencyFields(tuple(names), None if columns is None else tuple(columns), samples)
    calls = Calls(Path(path), fields, tuple(filters))
    return Task(calls, tuple(Place(*place) for place in places), tuple(contigs))


def _send_piece(piece: Piece, send: BinaryIO) -> None:
    message = {
        "contig": piece.contig,
        "records": piece.records,
        "alleles": len(piece.alleles.position_A),
        "tally": piece.tally_R.tolist(),
        "read": piece.read,
    }
    send.write(json.dumps(message).encode() + b"\n")
    for column, kind in zip(piece.alleles, _TYPES, strict=True):
        send.write(np.ascontiguousarray(column, dtype=kind).data)


def receive_piece(answer: BinaryIO) -> Piece | None:
    """Read the next piece of a worker's answer; ``None`` where the task is done.

    Raises
    ------
    InputError
        What the worker raised.
    EOFError
        When it has ended.
    """
    line = answer.readline()
    if not line:
        raise EOFError
    message: dict[str, Any] = json.loads(line)
    if "error" in message:
        raise InputError(message["error"])
    if "contig" not in message:
        return None
    rows = message["alleles"]
    columns = [np.frombuffer(answer.read(rows * kind.itemsize), dtype=kind) for kind in _TYPES]
    tally_R = np.array(message["tally"], dtype=np.int64)
    return Piece(message["contig"], message["records"], Alleles(*columns), tally_R, message["read"])
