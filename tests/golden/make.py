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
from cases import CASES, ROOMS, stored_name, tolerance_at
from golden_answers import differences, plain, store
from golden_inputs import make_inputs


def main() -> None:
    """Run the cases; those that are to come to the same answer as another are compared with it."""
    rooms = sys.argv[1:] or ROOMS
    torch.set_num_threads(1)
    answers, wrong = {}, []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make_inputs(Path(folder))
        for name, case in CASES.items():
            if name.partition("/")[0] in rooms:
                begun = time.perf_counter()
                answers[name] = plain(case())
                print(f"{time.perf_counter() - begun:6.2f} s  {name}")
    for room in rooms:
        names = [name for name in answers if name.startswith(f"{room}/") and stored_name(name) == name]
        store(room, {name: answers[name] for name in names})
    for name, answer in answers.items():
        wrong += differences({name: answer}, {name: answers[stored_name(name)]}, tolerance_at)
    if wrong:
        sys.exit("\n".join(["not the same as those that they have to be:", *wrong]))


if __name__ == "__main__":
    main()
