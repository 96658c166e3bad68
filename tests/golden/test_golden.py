"""What the product answers is what it answered when its answers were stored; see ``make.py``.

Several cases are of one answer: a file in another wrapping, the same by the command, a format with fewer digits.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def _load(name):
    """Load a script from beside this file, which may import others from there."""
    spec = importlib.util.spec_from_file_location(f"golden.{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        spec.loader.exec_module(module)
    return module


cases = _load("golden_runs").cases
answers, made = sys.modules["golden_answers"], sys.modules["golden_inputs"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return made.Inputs(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def stored():
    """Every stored answer by its case."""
    return {name: answer for room in cases.ROOMS for name, answer in answers.stored(room).items()}


def test_every_case_is_stored_and_nothing_else(stored):
    assert set(stored) == {case.stored for case in cases.CASES.values()}


@pytest.mark.parametrize("name", cases.CASES)
def test_the_answer_is_the_stored_one(name, inputs, stored):
    case = cases.CASES[name]
    found = answers.plain(case.run(inputs))
    # On the machine where they were made, most answers are bit-equal.
    tolerance_at = (lambda _: answers.Tolerance()) if os.environ.get("GOLDEN_EXACT") else case.tolerance_at
    wrong = answers.differences(found, stored[case.stored], tolerance_at)
    assert not wrong, "\n".join([f"{name} is not the stored {case.stored}:", *wrong[:40]])
