"""How answers of the golden cases are stored, and compared."""

import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent

Answer = dict[str, Any]


class Tolerance(NamedTuple):
    """How far a number may be from the stored one: `atol`, and `rtol` times that."""

    atol: float = 0.0
    rtol: float = 0.0


def plain(value: Any) -> Any:
    """Bring an answer to what is stored: arrays as they are, and what JSON holds."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return value.item()
    assert value is None or isinstance(value, str | int | float), f"{value!r} cannot be stored"
    return value


def store(room: str, answers: Mapping[str, Answer]) -> list[Path]:
    """Write the answers of a room: ``ROOM.json``, and the numbers of its arrays, by type one behind the other, apart.

    An array is ``{"array": [type, shape, first number]}`` in the text. (In a file of its own within the npz it would
    cost some hundred bytes more, and most are small.)
    """
    numbers: dict[str, list[np.ndarray]] = {}

    def without_arrays(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            kept = numbers.setdefault(value.dtype.name, [])
            first = sum(map(len, kept))
            kept.append(value.reshape(-1))
            return {"array": [value.dtype.name, list(value.shape), first]}
        if isinstance(value, dict):
            return {name: without_arrays(one) for name, one in value.items()}
        assert not isinstance(value, list) or not any(isinstance(one, np.ndarray) for one in value), "array in a list"
        return value

    written = {name: without_arrays(plain(answer)) for name, answer in answers.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in written.items())
    paths = [HERE / f"{room}.json", HERE / f"{room}.npz"]
    paths[0].write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    np.savez_compressed(paths[1], **{name: np.concatenate(parts) for name, parts in numbers.items()})
    return paths


def stored(room: str) -> dict[str, Answer]:
    """Read what `store` wrote."""
    with np.load(HERE / f"{room}.npz", allow_pickle=False) as file:
        numbers = {name: file[name] for name in file.files}

    def with_arrays(value: Any) -> Any:
        if isinstance(value, dict):
            if value.keys() == {"array"}:
                name, shape, first = value["array"]
                return numbers[name][first : first + int(np.prod(shape))].reshape(shape)
            return {name: with_arrays(one) for name, one in value.items()}
        return value

    read: dict[str, Answer] = with_arrays(json.loads((HERE / f"{room}.json").read_text(encoding="utf-8")))
    return read


def differences(found: Any, expected: Any, tolerance_at: Callable[[str], Tolerance], place: str = "") -> list[str]:
    """Say in a line each where an answer is not the stored one; the tolerance depends on the place in it."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        lines = [f"{place}/{name}: is not there" for name in expected if name not in found]
        lines += [f"{place}/{name}: is new" for name in found if name not in expected]
        for name in expected:
            if name in found:
                lines += differences(found[name], expected[name], tolerance_at, f"{place}/{name}")
        return lines
    if isinstance(expected, list) and isinstance(found, list):
        if len(found) != len(expected):
            return [f"{place}: {len(found)} entries instead of {len(expected)}"]
        pairs = zip(found, expected, strict=True)
        return [line for n, pair in enumerate(pairs) for line in differences(*pair, tolerance_at, f"{place}[{n}]")]
    tolerance = tolerance_at(place)
    if isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        return _of_arrays(found, expected, tolerance, place)
    if isinstance(expected, str) and isinstance(found, str) and "\n" in expected:
        lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), "stored", "found", lineterm="", n=0)
        return [f"{place}: {line}" for line in list(lines)[:8]]
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (found, expected))
    if numbers and isinstance(expected, float):
        return _of_arrays(np.array([found], dtype=np.float64), np.array([expected]), tolerance, place)
    return [] if type(found) is type(expected) and found == expected else [f"{place}: {found!r}, not {expected!r}"]


def _of_arrays(found: np.ndarray, expected: np.ndarray, tolerance: Tolerance, place: str) -> list[str]:
    if (found.dtype.kind == "f") != (expected.dtype.kind == "f"):
        return [f"{place}: {found.dtype} instead of {expected.dtype}"]
    if expected.dtype.kind == "f":
        found, expected = found.astype(np.float64), expected.astype(np.float64)
    try:
        np.testing.assert_equal(found.shape, expected.shape)
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found, expected, **tolerance._asdict())
        else:
            np.testing.assert_array_equal(found, expected)
    except AssertionError as error:
        return [f"{place}: {error}"]
    return []
