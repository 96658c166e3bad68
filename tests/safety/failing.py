"""Commands in processes forked from one that has imported everything, in which a call of the system fails or kills."""

import fcntl
import multiprocessing
import os
import re
import sys
from pathlib import Path

CALLS = ("rename", "replace", "fsync", "unlink", "remove", "rmdir", "mkdir", "link", "chmod")
_OURS = ("cli.main", "demo", "effects.score", "evaluation", "export", "genome.export", "inference", "training.finetune")
_OTHERS = ("matplotlib.pyplot", "peft", "pyBigWig", "pyarrow.parquet", "sklearn.linear_model", "transformers")
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([*(f"mutbert.{name}" for name in _OURS), *_OTHERS])


def run(words, folder, number=0, fault=0, no_locks=0):
    """Run a command in a folder; return its exit status, its output, and its calls that changed the folder, in order.

    The call of this number raises the OSError `fault`, or ends the process where that is 0; a lock raises `no_locks`.
    """
    log = Path(f"{folder}.log")
    process = _context.Process(target=_run, args=(words, str(folder), log, number, fault, no_locks))
    process.start()
    process.join()
    text, _, calls = log.read_text(encoding="utf-8").partition("\0")
    return process.exitcode, re.sub(r".*\r", "", text), calls.split("\0") if calls else []


def _run(words, folder, log, number, fault, no_locks):
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    calls = []

    def fails(number, *path):
        raise OSError(number, os.strerror(number), *path)

    def patched(name, original):
        def call(path, *arguments, **settings):
            opened = path if name == "fsync" else settings.get("dir_fd")
            place = "" if opened is None else os.readlink(f"/proc/self/fd/{opened}")  # noqa: PTH115
            place = os.path.join(place, *[] if name == "fsync" else [os.fsdecode(path)])  # noqa: PTH118
            if os.path.abspath(place).startswith(f"{folder}/"):  # noqa: PTH100
                calls.append(f"{name} {place}")
                if len(calls) == number:
                    fails(fault, *[] if name == "fsync" else [path]) if fault else os._exit(9)
            return original(path, *arguments, **settings)

        return call

    for name in CALLS:
        setattr(os, name, patched(name, getattr(os, name)))
    if no_locks:
        fcntl.flock = lambda *_: fails(no_locks)
    from mutbert.cli.main import run

    sys.argv = ["mutbert", *words]
    try:
        run()
    finally:
        os.write(output, "\0".join(["", *calls]).encode())
