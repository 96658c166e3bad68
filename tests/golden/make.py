"""Write the stored answers of ``cases.py``, or of some rooms: ``make.py scores model``.

What is stored was made at commit 2811033; the rooms runs, benchmark, effects and settings at bcf0929. Answers are made
again only where an output is meant to change; then this line says at which commit, and the commit's message says which
answers changed and why.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path

import torch
from cases import CASES, ROOMS, stored_name
from golden_answers import plain, store
from golden_inputs import make_inputs


def main() -> None:
    """Run the cases whose answers are stored; the tests compare the others with them."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make_inputs(Path(folder))
        for room in sys.argv[1:] or ROOMS:
            answers = {}
            for name in (name for name in CASES if name.startswith(f"{room}/") and stored_name(name) == name):
                begun = time.perf_counter()
                answers[name] = plain(CASES[name]())
                print(f"{time.perf_counter() - begun:6.2f} s  {name}")
            store(room, answers)


if __name__ == "__main__":
    main()
