"""Results on the disk: what a killed process, a full disk or a newer version leaves there, and who may write."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mutbert.errors import InputError
from mutbert.evaluation.results import (
    DONE,
    FAILED,
    Cell,
    CellResult,
    Predictions,
    fingerprint,
    read_predictions,
    read_results,
    refuse_others,
    results_writer,
)

CELL = Cell("suite", "task", "model", "full", "corrected", 1)
PREDICTIONS = Predictions(np.array([0, 1, 1]), np.array([-1.5, 0.25, 3], dtype=np.float32))


def result(seed=1, status=DONE, **values):
    values = values or ({"metrics": {"mcc": 0.5}} if status == DONE else {"reason": "it broke"})
    return CellResult(CELL._replace(seed=seed), status, {"data": "d", "model": "m"}, values)


def write(folder, *results, shard=(1, 1)):
    with results_writer(folder, shard) as append:
        for entry in results:
            append(entry, PREDICTIONS if entry.status == DONE else None)
    return folder / "shards" / f"{shard[0]}-of-{shard[1]}" / "cells.jsonl"


def test_what_is_written_is_read(tmp_path):
    folder = tmp_path / "new" / "results"
    first, second = result(), result(2, metrics={"mcc": None, "f1": 0.125}, note="Zürich\u2028\n")
    path = write(folder, first, second)
    assert read_results(folder) == {first.cell: first, second.cell: second}
    # One line a cell, whatever is in it.
    assert path.read_bytes().count(b"\n") == 2
    assert [json.loads(line)["seed"] for line in path.read_bytes().splitlines()] == [1, 2]
    found = read_predictions(folder, CELL)
    assert (found.labels.tolist(), found.scores.tolist()) == ([0, 1, 1], [-1.5, 0.25, 3.0])
    assert found.scores.dtype == np.float32


def test_there_may_be_nothing(tmp_path):
    assert read_results(tmp_path / "missing") == {}
    path = write(tmp_path)
    assert not path.exists()
    assert read_results(tmp_path) == {}
    path.touch()
    assert read_results(tmp_path) == {}


def test_a_value_that_json_does_not_know_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path, result(metrics={"mcc": float("nan")}))
    assert read_results(tmp_path) == {}


def test_a_line_cut_anywhere_is_no_line_and_the_next_writer_removes_it(tmp_path):
    path = write(tmp_path, result(1), result(2))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in (*range(first, len(whole), 7), len(whole) - 1):
        path.write_bytes(whole[:end])
        assert list(read_results(tmp_path)) == [CELL]
        write(tmp_path, result(3))
        assert [cell.seed for cell in read_results(tmp_path)] == [1, 3]
        assert path.read_bytes().startswith(whole[:first])
    # Cut in the first line already.
    path.write_bytes(whole[:5])
    assert read_results(tmp_path) == {}
    write(tmp_path)
    assert path.read_bytes() == b""


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from mutbert.evaluation.results import Cell, CellResult, Predictions, results_writer
with results_writer(Path(sys.argv[1]), (1, 1)) as write:
    print("holds", flush=True)
    scores = np.zeros(1000, np.float32)
    for seed in range(10**6):
        cell = Cell("suite", "task", "model", "full", "corrected", seed)
        write(CellResult(cell, "done", {}, {"metrics": {"mcc": 0.5}, "long": "x" * 20000}), Predictions(scores, scores))
"""


def test_a_writer_that_is_killed_leaves_whole_cells_alone(tmp_path):
    for _ in range(2):
        before = set(read_results(tmp_path))
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"holds\n"
            # Meanwhile nobody else writes the same part, but another part is free.
            with pytest.raises(InputError, match="1-of-1: another process is writing it"):
                write(tmp_path)
            write(tmp_path, shard=(2, 2))
            deadline = time.monotonic() + 60
            while len(set(read_results(tmp_path)) - before) < 3 and not before and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        found = read_results(tmp_path)
        assert len(found) >= 3
        assert all(len(read_predictions(tmp_path, cell).scores) == 1000 for cell in found)
    # The lock went with the process.
    write(tmp_path, result(-1))
    assert result(-1).cell in read_results(tmp_path)


def _stop_in_the_middle(folder):
    """Write half a line and be gone, as a process that is killed while it writes."""
    with results_writer(folder, (1, 1)):
        path = folder / "shards" / "1-of-1" / "cells.jsonl"
        with path.open("ab") as lines:
            lines.write(result(7).as_json().encode()[:40])
            lines.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_killed_in_the_middle_of_a_line_costs_that_line_alone(tmp_path):
    path = write(tmp_path, result(1))
    before = path.read_bytes()
    process = multiprocessing.get_context("fork").Process(target=_stop_in_the_middle, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(path.read_bytes()) == len(before) + 40
    assert list(read_results(tmp_path)) == [CELL]
    write(tmp_path, result(2))
    assert path.read_bytes() == before + result(2).as_json().encode() + b"\n"


def test_an_error_within_leaves_what_was_written_and_lets_go(tmp_path):
    with contextlib.suppress(ZeroDivisionError), results_writer(tmp_path, (1, 1)) as append:
        append(result(1), PREDICTIONS)
        raise ZeroDivisionError
    write(tmp_path, result(2))
    assert len(read_results(tmp_path)) == 2


def test_shards_are_read_together(tmp_path):
    for part in (1, 2, 3):
        write(tmp_path, result(part), shard=(part, 3))
    assert [cell.seed for cell in read_results(tmp_path)] == [1, 2, 3]
    # All predictions are in one place.
    assert len(list((tmp_path / "predictions").iterdir())) == 3


def test_of_a_cell_that_was_run_again_the_last_counts(tmp_path):
    write(tmp_path, result(status=FAILED))
    assert read_results(tmp_path)[CELL].status == FAILED
    write(tmp_path, result(status=FAILED, reason="it broke otherwise"))
    assert read_results(tmp_path)[CELL].values == {"reason": "it broke otherwise"}
    write(tmp_path, result(metrics={"mcc": 0.25}))
    assert read_results(tmp_path)[CELL].values == {"metrics": {"mcc": 0.25}}
    write(tmp_path, result(metrics={"mcc": 0.75}))
    assert read_results(tmp_path)[CELL].values == {"metrics": {"mcc": 0.75}}
    # What is done is not undone by another part that failed.
    write(tmp_path, result(status=FAILED), shard=(1, 2))
    assert read_results(tmp_path)[CELL].status == DONE


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"nonsense", "is no result"),
        (b"\x00\x00\x00", "is no result"),
        (b"\xff\xfe", "is no result"),
        (b"[1, 2]", "is no result"),
        (b"3", "is no result"),
        (b"", "is no result"),
        (b"{}", "is no result"),
        (b'{"version": 1}', "is no result"),
        (result().as_json().replace('"done"', '"perhaps"').encode(), "is no result .*perhaps"),
        (result().as_json().replace('"seed": 1, ', "").encode(), "is no result .*seed"),
    ],
)
def test_lines_that_are_none_are_refused_with_their_number(tmp_path, line, message):
    path = write(tmp_path, result(1))
    good = path.read_bytes()
    path.write_bytes(good + line + b"\n" + good)
    with pytest.raises(InputError, match=rf"cells\.jsonl, line 2: {message}.*; remove the line") as caught:
        read_results(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", [result().as_json().replace('"version": 1', '"version": 2'), '{"version": 2, "all": "else is another"}']
)
def test_results_of_a_newer_version_are_refused_and_not_to_be_removed(tmp_path, line):
    path = write(tmp_path, result(1))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"line 2: is of version 2, and .* reads 1; update mutbert") as caught:
        read_results(tmp_path)
    assert "remove" not in str(caught.value)


def test_predictions_that_are_damaged_are_refused(tmp_path):
    write(tmp_path, result())
    path = tmp_path / "predictions" / CELL.file_name
    whole = path.read_bytes()
    expected = read_predictions(tmp_path, CELL)
    rng = np.random.default_rng(0)
    damaged = [b"", b"PK", whole[:30], whole[: len(whole) // 2], whole[:-1], b"\0" * len(whole)]
    for _ in range(200):
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    messages = []
    for data in damaged:
        path.write_bytes(data)
        try:
            found = read_predictions(tmp_path, CELL)
        except InputError as error:
            messages.append(str(error))
        else:
            # What does not matter to a reader may have changed, such as a date.
            assert (found.labels == expected.labels).all()
            assert (found.scores == expected.scores).all()
    assert len(messages) > 100
    assert all("run the grid again" in message and "\n" not in message for message in messages)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path, CELL)
    np.savez(path, labels=np.array([{"an": "object"}]), scores=np.zeros(1))
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path, CELL)
    np.savez(path, labels=np.zeros(1))
    with pytest.raises(InputError, match=r"cannot be read .*scores"):
        read_predictions(tmp_path, CELL)


def test_what_was_done_with_something_else_is_refused(tmp_path):
    done = {CELL: result()}
    refuse_others(done, CELL, {"data": "d", "model": "m"}, tmp_path)
    # What was not written down then is not compared.
    refuse_others(done, CELL, {"data": "d", "model": "m", "task": "t"}, tmp_path)
    with pytest.raises(InputError, match="was done with another data; choose another folder"):
        refuse_others(done, CELL, {"data": "other", "model": "m"}, tmp_path)
    with pytest.raises(
        InputError, match=r"suite/task, model \(full\), corrected, seed 1 was done with another data and"
    ):
        refuse_others(done, CELL, {"data": "other", "model": "another"}, tmp_path)


def test_names_of_files_are_plain_and_of_any_two_cells_another():
    cells = [
        CELL,
        CELL._replace(task="task-model", model=""),
        CELL._replace(task="task", model="/a/b c"),
        CELL._replace(model="_a_b_c"),
        CELL._replace(model="x" * 300),
        CELL._replace(model="x" * 301),
        CELL._replace(model="é" * 300),
        CELL._replace(model="../../x"),
        CELL._replace(seed=2),
    ]
    names = [cell.file_name for cell in cells]
    assert len(set(names)) == len(names)
    for name in names:
        assert "/" not in name
        assert len(name.encode()) < 200


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be made .*; choose another folder of results"):
        write(tmp_path / "file")


def test_a_fingerprint_differs_where_what_it_is_of_does():
    assert fingerprint([1, "a", {"b": 2, "c": 3}]) == fingerprint([1, "a", {"c": 3, "b": 2}])
    different = [[1], ["1"], [1.5], [[1]], [None], [True], [{"a": 1}], [1, 1], []]
    assert len({fingerprint(parts) for parts in different}) == len(different)
