"""Where a VCF file has its allele frequencies: in an INFO field, a quotient of two, or in its genotypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mutbert.errors import InputError
from mutbert.genome.vcf_text import VcfHeader, read_header
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

GENOTYPES: Final = "GT"
"""The name by which frequencies counted from genotypes are asked for."""


class FrequencyFields(NamedTuple):
    """Where a file keeps its allele frequencies.

    Parameters
    ----------
    names : tuple of str
        One INFO field that holds them; two whose quotient they are, such as ``("AC", "AN")``; or ``("GT",)``.
    columns : tuple of int or None
        Of genotypes: the columns of the samples that count, from 0, ascending; ``None`` for all.
    samples : int
        Columns with genotypes in the file.
    """

    names: tuple[str, ...]
    columns: tuple[int, ...] | None = None
    samples: int = 0

    @property
    def are_genotypes(self) -> bool:
        """Whether frequencies are counted from genotypes."""
        return self.names == (GENOTYPES,)

    def __str__(self) -> str:
        """Write them as people do: ``AF``, ``AC/AN`` or ``genotypes``."""
        return "genotypes" if self.are_genotypes else "/".join(self.names)


def find_frequency_fields(path: Path, wanted: str, samples: Collection[str] | None = None) -> FrequencyFields:
    """Find out from a file's header where its allele frequencies are.

    Parameters
    ----------
    path : Path
        VCF or BCF: plain, gzip or bgzip.
    wanted : str
        The INFO field to read; two with a slash between for their quotient; or ``GT``, to count genotypes. Where ``AF``
        is wanted and not declared, ``AC/AN`` serves, and where these are not declared, the genotypes.
    samples : collection of str, optional
        Count the genotypes of these samples, as far as the file has them.

    Returns
    -------
    FrequencyFields
        What to read.

    Raises
    ------
    InputError
        When the file cannot be read or is no VCF, or its header does not declare what is needed.
    """
    header = read_header(path)
    if samples is not None or wanted == GENOTYPES:
        return _genotypes(path, header, samples)
    parts = tuple(wanted.split("/"))
    types = ("Integer",) * 2 if len(parts) == 2 else ("Float",)
    if len(parts) == len(types) and all(name in header.info for name in parts):
        for name, kind in zip(parts, types, strict=True):
            if header.info[name] != kind:
                raise InputError(
                    f"{path}: INFO field {name} is declared as {header.info[name]} and not as {kind}; "
                    "choose another with --frequency-field"
                )
        return FrequencyFields(parts, None, len(header.samples))
    if wanted == "AF":
        if header.info.get("AC") == header.info.get("AN") == "Integer":
            return FrequencyFields(("AC", "AN"), None, len(header.samples))
        if header.samples and header.has_genotypes:
            return _genotypes(path, header, None)
    floats = [name for name, kind in header.info.items() if kind == "Float"]
    remedy = "choose one with --frequency-field" if floats else "it has to carry allele frequencies"
    if header.samples:
        remedy += ", or --frequency-field GT to count its genotypes"
    raise InputError(
        f"{path}: its header declares no INFO field {wanted}{' (nor AC and AN)' if wanted == 'AF' else ''}; "
        f"its number fields are: {names_text(floats, 30)}; {remedy}"
    )


def _genotypes(path: Path, header: VcfHeader, samples: Collection[str] | None) -> FrequencyFields:
    if not header.samples:
        raise InputError(f"{path}: has no samples whose genotypes could be counted; give a VCF with genotypes")
    if not header.has_genotypes:
        raise InputError(f"{path}: its header declares no FORMAT field GT; give a VCF with genotypes")
    if samples is None:
        return FrequencyFields((GENOTYPES,), None, len(header.samples))
    chosen = set(samples)
    columns = tuple(number for number, name in enumerate(header.samples) if name in chosen)
    return FrequencyFields((GENOTYPES,), columns, len(header.samples))
