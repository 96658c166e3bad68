"""The first reading of the records: what is wrong with the last one is said before the first is scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert.effects.alleles import Reason
from mutbert.effects.bcf import BcfCheck
from mutbert.effects.chunk_scores import frequencies_of
from mutbert.effects.records import refuse_fields
from mutbert.errors import InputError
from mutbert.regions import ContigNames, names_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mutbert.effects.alleles import Alleles
    from mutbert.effects.chunk_scores import ChunkScorer
    from mutbert.effects.records import RecordFile
    from mutbert.progress import Advance

# Of records whose REF was compared: a share of mismatches, and how many records it is said of. Of another assembly it
# is about three in four, as many as differ by chance.
_WARNED: Final = (0.1, 20)
_REFUSED: Final = (0.5, 100)


# Of a short file, so many parts, that shards and processes share, and that a killed run does not lose all; but so many
# records of each.
_PARTS: Final = 32
_LEAST_RECORDS: Final = 16


class Survey(NamedTuple):
    """What a file holds.

    Parameters
    ----------
    records, alleles, chunks : int
        How many.
    chunk_records : int
        Most records of a chunk.
    in_order : bool
        Whether its records are.
    contigs : mapping of str to int or None
        Names of contigs that records have, in the order that they come in, with their lengths in the genome; ``None``
        where it has none such.
    warnings : tuple of str
        What is odd and may be meant so, in a line each.
    """

    records: int
    alleles: int
    chunks: int
    chunk_records: int
    in_order: bool
    contigs: Mapping[str, int | None]
    warnings: tuple[str, ...]


def survey(
    file: RecordFile, chunk_scorer: ChunkScorer, advance: Advance, *, new_fields: Sequence[str] = (), as_bcf: bool
) -> Survey:
    """Read a file once.

    Parameters
    ----------
    file : RecordFile
        The file.
    chunk_scorer : ChunkScorer
        Says how it is cut into chunks, and has the genome that REF is compared with.
    advance : Advance
        Told of the bytes read.
    new_fields : sequence of str
        INFO fields that are to be added.
    as_bcf : bool
        Whether the records are to be BCF.

    Raises
    ------
    InputError
        When a record cannot be used; when the genome has none of the contigs; when more than half of at least 100
        compared records have another REF than the genome, which then is of another assembly.
    """
    cuts = chunk_scorer.cuts
    bcf = BcfCheck(file.header) if as_bcf else None
    records = alleles = chunks = compared = differing = 0
    contigs: dict[str, None] = {}
    for chunk in file.chunks(*cuts):
        refuse_fields(chunk, new_fields)
        if chunk_scorer.frequency_field is not None:
            frequencies_of(chunk, chunk_scorer.frequency_field)
        if bcf is not None:
            bcf.refuse(chunk.lines, chunk.place)
        found = chunk_scorer.scorer.find(chunk.contigs, chunk.positions, chunk.references, chunk.alternates)
        compared += _records(found, _COMPARED)
        differing += _records(found, (Reason.REFERENCE_MISMATCH,))
        contigs |= dict.fromkeys(chunk.contigs)
        records += len(chunk.lines)
        alleles += len(found)
        chunks = chunk.number + 1
        advance(chunk.read)
    genome = chunk_scorer.scorer.genome
    names = ContigNames(genome.lengths)
    lengths = {name: genome.lengths.get(names.find(name) or "") for name in contigs}
    if contigs and not any(lengths.values()):
        raise InputError(
            f"{file.path}: its contigs ({names_text(contigs)}) are none of {genome.path.name} "
            f"({names_text(genome.lengths)}); give the genome that it is of, or rename them, as by 'bcftools annotate "
            "--rename-chrs'"
        )
    warnings = _compare(f"{file.path}", genome.path.name, compared, differing)
    size = min(cuts.size, max(-(-records // _PARTS), _LEAST_RECORDS))
    if size < cuts.size:
        # Such a file is short enough to be read again.
        chunks = sum(1 for _ in file.chunks(*cuts._replace(size=size)))
    return Survey(records, alleles, chunks, size, bool(file.is_sorted), lengths, warnings)


_COMPARED: Final = (
    Reason.SCORED,
    Reason.REFERENCE_MISMATCH,
    Reason.AMBIGUOUS_ALTERNATE,
    Reason.NOT_A_CHANGE,
    Reason.TOO_LONG,
)


def _records(alleles: Alleles, reasons: Sequence[Reason]) -> int:
    """Count records that have an allele with one of some reasons."""
    has_A = np.isin(alleles.reason_A, [int(reason) for reason in reasons])
    return len(np.unique(alleles.record_A[has_A]))


def _compare(file: str, genome: str, compared: int, differing: int) -> tuple[str, ...]:
    """Refuse a file of another assembly, and warn where it may be of another."""

    def is_more_than(limit: tuple[float, int]) -> bool:
        share, least = limit
        return compared >= least and differing > share * compared

    if not is_more_than(_WARNED):
        return ()
    said = f"{file}: of {compared:,} records, {differing:,} have another REF than {genome} ({differing / compared:.0%})"
    if is_more_than(_REFUSED):
        raise InputError(
            f"{said}, so it is of another assembly; give the genome that it is of, or take such records out by "
            "'bcftools norm --check-ref x'"
        )
    return (f"{said} and no score; see whether it is of another assembly",)
