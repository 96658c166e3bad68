"""Which people's genotypes are counted: lists of samples, and panels with their populations."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from mutbert.errors import InputError
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path


def read_samples(path: Path, population: str | None = None) -> list[str]:
    """Read the names of samples from a file.

    Parameters
    ----------
    path : Path
        One name a line; or a panel as the 1000 Genomes project has it, with columns for the sample, its population and
        its super-population (by blanks or tabs; more columns are fine). A panel's first line is left out where it
        begins with ``sample``, and so are lines that begin with ``#``.
    population : str, optional
        Only samples with this word in one of the columns behind the name.

    Returns
    -------
    list of str
        In the file's order.

    Raises
    ------
    InputError
        When the file cannot be read or names no sample, one twice, or none of the population.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{path}: cannot be read as a list of samples ({reason}); check the path") from None
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    if rows and rows[0][0].lower() == "sample" and len(rows[0]) > 1:
        del rows[0]
    if population is not None:
        populations = dict.fromkeys(word for row in rows for word in row[1:])
        rows = [row for row in rows if population in row[1:]]
        if not rows:
            raise InputError(f"{path}: no sample of population {population}; there are {names_text(populations, 30)}")
    names = [row[0] for row in rows]
    if not names:
        raise InputError(f"{path}: names no sample; give one name a line")
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise InputError(f"{path}: sample {twice} comes twice; remove one of the lines")
    return names


def check_samples(chosen: Sequence[str], available: Mapping[Path, Collection[str]]) -> None:
    """Refuse samples that no file has, and files that have none of them.

    Parameters
    ----------
    chosen : sequence of str
        The samples asked for.
    available : mapping of Path to collection of str
        The samples of each VCF file. A file need not have all: that of chromosome Y has only men.

    Raises
    ------
    InputError
        In one line that names the samples or the file.
    """
    known = set().union(*available.values())
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise InputError(
            f"{names_text(map(str, available))}: no sample {names_text(unknown)}; there are {names_text(sorted(known))}"
        )
    for path, names in available.items():
        if not set(chosen) & set(names):
            raise InputError(f"{path}: has none of the chosen samples; leave the file out or choose others")


def describe_samples(chosen: Sequence[str]) -> dict[str, Any]:
    """Say of chosen samples what a manifest keeps: their number and a checksum, not their names."""
    text = "\n".join(sorted(chosen)).encode("utf-8")
    return {"number": len(chosen), "sha256": hashlib.sha256(text).hexdigest()}
