"""Results on the disk: what is written is read, and what a killed process, a damaged disk or another version leaves."""

import json

import numpy as np
import pytest

from mutbert.errors import InputError
from mutbert.evaluation.cells import Cell, cell_of
from mutbert.evaluation.run import read_predictions, read_records, write_cell

CELL = Cell("suite", "task", "model", "full", "corrected", 1)
LABELS, SCORES = np.array([0, 1, 1]), np.array([-1.5, 0.25, 3], dtype=np.float32)
RECORD = {"metric": "mcc", "metrics": {"mcc": 0.5, "f1": float("nan")}, "note": "Zürich\u2028\n"}


def write(folder, cell=CELL):
    cell.path(folder).parent.mkdir(parents=True, exist_ok=True)
    write_cell(folder, cell, RECORD, LABELS, SCORES)
    return cell.path(folder)


def test_any_two_cells_have_files_of_their_own_that_are_read(tmp_path):
    assert read_records(tmp_path / "missing") == []
    names = ["a", "a/b", "a-b", "a b", "../a", "é", "a%2Fb", "A"]
    cells = [CELL._replace(model=name) for name in names] + [CELL._replace(task=name) for name in names]
    cells += [CELL, CELL._replace(method=""), CELL._replace(protocol="published"), CELL._replace(seed=11)]
    paths = {write(tmp_path, cell) for cell in cells}
    assert len(paths) == len(cells)
    assert tmp_path / "suite" / "task" / "model-full" / "corrected-1.json" in paths
    assert all(len(path.relative_to(tmp_path).parts) == 4 for path in paths)
    records = read_records(tmp_path)
    assert [cell_of(record) for record in records] == sorted(cells)
    # What is not defined is no number.
    assert records[0]["metrics"] == {"mcc": 0.5, "f1": None}
    assert (records[0]["kind"], records[0]["version"], records[0]["note"]) == ("cell", 2, RECORD["note"])
    labels, scores = read_predictions(tmp_path, CELL)
    assert (labels.tolist(), scores.tolist(), scores.dtype) == ([0, 1, 1], [-1.5, 0.25, 3.0], np.float32)


def test_a_failure_is_replaced_by_success_and_never_replaces_it(tmp_path):
    path = CELL.path(tmp_path)
    path.parent.mkdir(parents=True)
    write_cell(tmp_path, CELL, {"reason": "no memory"})
    assert [record["reason"] for record in read_records(tmp_path)] == ["no memory"]
    failed = path.with_suffix(".failed.json").read_bytes()
    write(tmp_path)
    assert not path.with_suffix(".failed.json").exists()
    # As a process leaves it that is killed before it removes the failure, or while it writes.
    path.with_suffix(".failed.json").write_bytes(failed)
    path.with_name(".corrected-1.0a1b2c3d.json").write_text("{")
    assert ["reason" in record for record in read_records(tmp_path)] == [False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no result of a cell"),
        (
            '{"version": 2}',
            "(KeyError: 'suite'); it is no result of a cell, so remove it and run the grid again",
        ),
        (
            json.dumps({"version": 2, **CELL._asdict()}),
            "(KeyError: 'metrics'); it is no result of a cell",
        ),
        (json.dumps({"version": 3, **CELL._asdict(), "reason": ""}), "of which mutbert reads 2; update mutbert"),
        ("\udce9", "is no result of a cell"),
    ],
)
def test_a_damaged_file_is_an_error_with_its_name(tmp_path, text, message):
    path = write(tmp_path)
    path.write_bytes(text.encode(errors="surrogateescape"))
    path.with_suffix(".parquet").write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        read_records(tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"corrected-1\.parquet: cannot be read"):
        read_predictions(tmp_path, CELL)
