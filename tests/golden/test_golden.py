"""What the product answers is what it answered when its answers were stored; see ``make.py``."""

import contextlib
import os
from pathlib import Path

import pytest

# The scripts of this folder import each other.
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).resolve().parent))
    import cases
    import golden_answers as answers
    import golden_inputs


@pytest.fixture(scope="module", autouse=True)
def inputs(tmp_path_factory):
    """The working directory has all that is read."""
    folder = tmp_path_factory.mktemp("golden")
    golden_inputs.make_inputs(folder)
    with contextlib.chdir(folder):
        yield


@pytest.fixture(scope="module")
def stored():
    """Every stored answer by its case."""
    return {name: answer for room in cases.ROOMS for name, answer in answers.stored(room).items()}


def test_every_case_is_stored_and_nothing_else(stored):
    assert set(stored) == {cases.stored_name(name) for name in cases.CASES}


@pytest.mark.parametrize("name", cases.CASES)
def test_the_answer_is_the_stored_one(name, stored):
    expected = stored[cases.stored_name(name)]
    found = answers.plain(cases.CASES[name]())
    # On the machine where they were made, most answers are bit-equal.
    tolerance_at = (lambda _: (0, 0)) if os.environ.get("GOLDEN_EXACT") else cases.tolerance_at
    wrong = answers.differences({name: found}, {name: expected}, tolerance_at)
    assert not wrong, "\n".join([f"{name} is not as stored:", *wrong[:40]])
