"""What stands around a variant: the reference, the population's allele frequencies, or one person's genome.

Shape suffixes: N windows, L length in bases, M positions with a distribution of their own, P positions, V variants, 4
bases in the order A, C, G, T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np

from mutbert import alphabet
from mutbert.arrays import list_ranges
from mutbert.errors import InputError
from mutbert.genome.person import read_person
from mutbert.inference.passes import Passes, join_passes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from mutbert.arrays import Int64, UInt16
    from mutbert.genome.store import ProbabilisticGenome, Windows


SURROUNDINGS: Final = ("reference", "population", "person")
PLACEMENTS: Final = ("centred", "shared")


class Surroundings(Protocol):
    """Gives windows of a genome."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """The contigs' lengths in bases, in the genome's order."""

    def windows(self, contig_B: Int64, start_B: Int64, length: int) -> Windows:
        """Read windows of one length, as `ProbabilisticGenome.windows` does, which gives a population's."""


class Reference:
    """The reference alone.

    Parameters
    ----------
    genome : ProbabilisticGenome
        Its frequencies are not used.
    """

    def __init__(self, genome: ProbabilisticGenome) -> None:
        self._genome = genome

    @property
    def lengths(self) -> Mapping[str, int]:
        """The contigs' lengths in bases."""
        return self._genome.lengths

    def windows(self, contig_B: Int64, start_B: Int64, length: int) -> Windows:
        """Read windows of one length."""
        found = self._genome.windows(contig_B, start_B, length)
        none = np.zeros(0, dtype=np.int64)
        return found._replace(row_N=none, column_N=none, frequency_N4=np.zeros((0, 4), dtype=np.uint16))


class Person:
    """The reference with one person's single-nucleotide genotypes; where the two chromosomes differ, half of each.

    Parameters
    ----------
    genome : ProbabilisticGenome
        Gives the reference.
    vcf : Path
        Has the person's genotypes. Records that are filtered, indels and symbolic alleles change nothing.
    sample : str
        The person's name in it.
    contigs : collection of str, optional
        The genome's contigs that will be looked at; all where left out. Of others, an indexed file is not read.
    progress : bool
        Show progress of reading on standard error.

    Raises
    ------
    InputError
        When the file cannot be read, does not have the person, or is of another assembly.
    """

    def __init__(
        self,
        genome: ProbabilisticGenome,
        vcf: Path,
        sample: str,
        *,
        contigs: Collection[str] | None = None,
        progress: bool = False,
    ) -> None:
        self._reference = Reference(genome)
        variants, self.not_used = read_person(genome, vcf, sample, contigs=contigs, progress=progress)
        """Records that change nothing, by reason."""
        self._is_read = np.array([name in variants for name in genome.lengths])
        none = np.zeros(0, np.int64), np.zeros((0, 4), np.uint16)
        found = [variants.get(name, none) for name in genome.lengths]
        # Positions are counted through all contigs, so that one search finds them.
        self._base = np.cumsum([0, *genome.lengths.values()])
        shifted = [position_V + base for (position_V, _), base in zip(found, self._base[:-1], strict=True)]
        self._position: Int64 = np.concatenate([none[0], *shifted])
        self._frequency: UInt16 = np.concatenate([none[1], *(frequency_V4 for _, frequency_V4 in found)])

    @property
    def lengths(self) -> Mapping[str, int]:
        """The contigs' lengths in bases."""
        return self._reference.lengths

    def __len__(self) -> int:
        """Count the positions at which the person differs from the reference."""
        return len(self._position)

    def count(self, contig_N: Int64, start_N: Int64, end_N: Int64) -> int:
        """Count the positions at which the person differs within some stretches; one in two stretches counts twice."""
        begin_N, end_N = np.searchsorted(self._position, self._base[contig_N] + np.stack([start_N, end_N]))
        return int((end_N - begin_N).sum())

    def windows(self, contig_B: Int64, start_B: Int64, length: int) -> Windows:
        """Read windows of one length.

        Raises
        ------
        ValueError
            When one is on a contig that was not asked for.
        """
        if not self._is_read[contig_B].all():
            raise ValueError("a window is on a contig of which the person's genotypes were not read")
        first_B = self._base[contig_B] + start_B
        row_N, variant_N = list_ranges(*np.searchsorted(self._position, np.stack([first_B, first_B + length])))
        return self._reference.windows(contig_B, start_B, length)._replace(
            row_N=row_N,
            column_N=self._position[variant_N] - first_B[row_N],
            frequency_N4=self._frequency[variant_N],
        )


class Placed(NamedTuple):
    """Where windows lie.

    Parameters
    ----------
    start_P, length_P : ndarray of int64, shape (P,)
        0-based start in the contig, and bases.
    """

    start_P: Int64
    length_P: Int64


def place_windows(position_P: Int64, contig_length_P: Int64, context: int, placement: str = "centred") -> Placed:
    """Choose the window in which each position is looked at.

    A window near a contig's end is shifted inwards, so that it has real bases from end to end; of a contig that is
    shorter than the context, the window is all of it.

    Parameters
    ----------
    position_P : ndarray of int64, shape (P,)
        0-based positions.
    contig_length_P : ndarray of int64, shape (P,)
        Length of each one's contig.
    context : int
        Bases of a window.
    placement : {"centred", "shared"}
        ``"centred"``: the position is base ``context // 2`` of its window. ``"shared"``: windows lie on a grid half a
        context apart, so that neighbours share one; each position has at least a quarter of the context, rounded down,
        on either side, but for contigs' ends. Either way the window is a function of the position alone.

    Returns
    -------
    Placed
        Starts and lengths.
    """
    if placement == "shared":
        stride = max(context // 2, 1)
        start_P = position_P // stride * stride - (context - stride) // 2
    else:
        start_P = position_P - context // 2
    length_P = np.minimum(context, contig_length_P)
    return Placed(np.clip(start_P, 0, contig_length_P - length_P), length_P)


def read_windows(surroundings: Surroundings, contig_N: Int64, start_N: Int64, length_N: Int64) -> Passes:
    """Read windows of any lengths.

    Parameters
    ----------
    surroundings : Surroundings
        The genome.
    contig_N, start_N, length_N : ndarray of int64, shape (N,)
        Each window's contig, by its number in the genome's order, 0-based start and length.

    Returns
    -------
    Passes
        In this order.
    """
    lengths, group_N = np.unique(length_N, return_inverse=True)
    parts, members = [], []
    for number, length in enumerate(lengths.tolist()):
        rows = np.flatnonzero(group_N == number)
        found = surroundings.windows(contig_N[rows], start_N[rows], length)
        # N says that nothing is known, whatever a population has there.
        known_M = found.base_BL[found.row_N, found.column_N] != alphabet.UNKNOWN
        parts.append(
            Passes(
                found.base_BL,
                length_N[rows],
                found.row_N[known_M],
                found.column_N[known_M],
                found.frequency_N4[known_M],
            )
        )
        members.append(rows)
    if len(parts) <= 1:
        return join_passes(parts)
    back_N = np.empty(len(length_N), dtype=np.int64)
    back_N[np.concatenate(members)] = np.arange(len(length_N))
    return join_passes(parts).take(back_N)


def records_not_used(surroundings: Surroundings) -> Mapping[str, int]:
    """Count a person's records that change nothing, by reason; of other surroundings there are none."""
    return dict(surroundings.not_used) if isinstance(surroundings, Person) else {}


def count_differing(surroundings: Surroundings, stretches: Iterable[tuple[int, int, int]]) -> int | None:
    """Count the positions of stretches at which a person differs from the reference; of other surroundings, ``None``.

    Parameters
    ----------
    surroundings : Surroundings
        Whose.
    stretches : iterable of (int, int, int)
        Contig, by its number in the genome's order, and 0-based start and end.
    """
    if not isinstance(surroundings, Person):
        return None
    contig_N, start_N, end_N = np.array(list(stretches), dtype=np.int64).reshape(-1, 3).T
    return surroundings.count(contig_N, start_N, end_N)


def open_surroundings(
    genome: ProbabilisticGenome,
    kind: str,
    *,
    vcf: Path | None = None,
    sample: str | None = None,
    contigs: Collection[str] | None = None,
    progress: bool = False,
) -> Surroundings:
    """Give a genome as it is to be seen around variants.

    Parameters
    ----------
    genome : ProbabilisticGenome
        The genome.
    kind : {"reference", "population", "person"}
        Which of them.
    vcf, sample : Path and str, optional
        Of a person: the file with the genotypes, and the name in it.
    contigs, progress : collection of str and bool, optional
        As for `Person`.

    Raises
    ------
    InputError
        When `kind` is none of these, something is given that it has no use for, or a person's file cannot be used.
    """
    if kind not in SURROUNDINGS:
        raise InputError(f"surroundings is {kind!r}; it must be one of {', '.join(SURROUNDINGS)}")
    if kind != "person":
        for name, value in (("sample", sample), ("person_vcf", vcf)):
            if value is not None:
                raise InputError(f"{name} {value} is given, but the surroundings are the {kind}; choose person for it")
        return genome if kind == "population" else Reference(genome)
    if sample is None:
        raise InputError("the surroundings are a person, but no sample is named; give --sample NAME, as in its VCF")
    if vcf is None:
        raise InputError(f"the surroundings are {sample}, but no genotypes are given; give --person-vcf FILE")
    return Person(genome, vcf, sample, contigs=contigs, progress=progress)
