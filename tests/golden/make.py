"""Write the stored answers of ``cases.py`` and ``golden_runs.py``, or of some rooms: ``make.py scores model``.

What is stored was made at commit 2811033; the rooms of ``golden_runs.py`` at bcf0929. Answers are made again only where
an output is meant to change; then this line says at which commit, and the commit's message says which answers changed
and why.
"""

import sys
import tempfile
import time
from pathlib import Path

import golden_runs  # noqa: F401 - adds its cases
import torch
from cases import CASES, ROOMS
from golden_answers import differences, plain, store
from golden_inputs import Inputs


def main() -> None:
    """Run the cases; those that are to give the same as another are compared with it."""
    rooms = sys.argv[1:] or ROOMS
    torch.set_num_threads(1)
    answers, wrong = {}, []
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(Path(folder))
        for name, case in CASES.items():
            if name.partition("/")[0] not in rooms:
                continue
            begun = time.perf_counter()
            answers[name] = plain(case.run(inputs))
            print(f"{time.perf_counter() - begun:6.2f} s  {name}")
            if case.stored != name:
                wrong += differences(answers[name], answers[case.stored], case.tolerance_at, name)
    for room in rooms:
        names = [name for name, case in CASES.items() if name.startswith(f"{room}/") and case.stored == name]
        for path in store(room, {name: answers[name] for name in names}):
            print(f"{path.stat().st_size:>8,} bytes  {path.name}")
    if wrong:
        sys.exit("\n".join(["not the same as those that they have to be:", *wrong]))


if __name__ == "__main__":
    main()
