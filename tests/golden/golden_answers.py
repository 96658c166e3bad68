"""How answers of the golden cases are stored, and compared."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent

Answer = dict[str, Any]
Tolerance = tuple[float, float]  # how far a number may be from the stored one, and by how many times that


def plain(value: Any) -> Any:
    """Return an answer as it is stored: arrays as they are, and what JSON holds."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value


def store(room: str, answers: Mapping[str, Answer]) -> None:
    """Write the answers of a room: ``ROOM.json``, and the numbers of its arrays, one after the other by type, apart.

    An array is ``{"array": [type, shape, first number]}`` in the text. (In a file of its own within the npz it would
    cost some hundred bytes more, and most are small.)
    """
    numbers: dict[str, list[np.ndarray]] = {}

    def reference_to(array: np.ndarray) -> Answer:
        kept = numbers.setdefault(array.dtype.name, [])
        kept.append(array.reshape(-1))
        return {"array": [array.dtype.name, list(array.shape), sum(map(len, kept[:-1]))]}

    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(one, default=reference_to)}" for name, one in answers.items())
    (HERE / f"{room}.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    np.savez_compressed(HERE / f"{room}.npz", **{name: np.concatenate(parts) for name, parts in numbers.items()})


def stored(room: str) -> dict[str, Answer]:
    """Return what `store` wrote."""
    with np.load(HERE / f"{room}.npz", allow_pickle=False) as file:
        numbers = dict(file)

    def with_arrays(value: Answer) -> Any:
        if value.keys() != {"array"}:
            return value
        name, shape, first = value["array"]
        return numbers[name][first : first + int(np.prod(shape))].reshape(shape)

    read: dict[str, Answer] = json.loads((HERE / f"{room}.json").read_text(), object_hook=with_arrays)
    return read


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Go through an answer: each value, and each line of a text, with its place."""
    if isinstance(value, str) and "\n" in value:
        value = value.splitlines()
    if isinstance(value, dict | list) and value:
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(one, f"{place}/{name}".removeprefix("/"))
    else:
        yield place, value


def differences(found: Any, expected: Any, tolerance_at: Callable[[str], Tolerance]) -> list[str]:
    """Return a line for each difference from the stored answer; the tolerance depends on the place in it."""
    there, wanted = dict(leaves(found)), dict(leaves(expected))
    lines = [f"{place}: is not there" for place in wanted.keys() - there.keys()]
    lines += [f"{place}: is new" for place in there.keys() - wanted.keys()]
    for place in wanted.keys() & there.keys():
        if isinstance(wanted[place], np.ndarray | float):
            lines += _of_numbers(np.asarray(there[place]), np.asarray(wanted[place]), place, *tolerance_at(place))
        elif type(there[place]) is not type(wanted[place]) or there[place] != wanted[place]:
            lines.append(f"{place}: {there[place]!r}, not {wanted[place]!r}")
    return sorted(lines)


def _of_numbers(found: np.ndarray, expected: np.ndarray, place: str, atol: float, rtol: float) -> list[str]:
    if (found.dtype.kind, found.shape) != (expected.dtype.kind, expected.shape):
        return [f"{place}: {found.dtype} {found.shape}, not {expected.dtype} {expected.shape}"]
    same = found == expected
    if expected.dtype.kind == "f":
        same = np.isclose(found.astype(np.float64), expected.astype(np.float64), rtol, atol, equal_nan=True)
    return [] if same.all() else [f"{place}: {found[~same]}, not {expected[~same]}, at {np.argwhere(~same).tolist()}"]
