"""One person's single-nucleotide genotypes as variants of a genome that is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mutbert.genome.alleles import Reason
from mutbert.genome.fields import find_frequency_fields
from mutbert.genome.frequencies import Calls
from mutbert.genome.population import Population
from mutbert.genome.samples import check_samples
from mutbert.genome.sources import Source
from mutbert.genome.vcf import read_header
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from mutbert.arrays import Int64, UInt8, UInt16
    from mutbert.genome.store import ProbabilisticGenome

_OF_A_PERSON: Final = {
    Reason.CONTIG_NOT_IN_FASTA.text: "contig not in the genome",
    Reason.CONTIG_NOT_SELECTED.text: "contig not asked for",
    Reason.NO_FREQUENCY.text: "no genotype called",
    Reason.MISMATCH.text: "reference base differs from the genome",
    Reason.NOT_ABOVE_MINIMUM.text: "as the reference",
}


def read_person(
    genome: ProbabilisticGenome,
    vcf: Path,
    sample: str,
    *,
    contigs: Collection[str] | None = None,
    progress: bool = False,
) -> tuple[dict[str, tuple[Int64, UInt16]], dict[str, int]]:
    """Return a person's variants by contig, positions (V,) and frequencies (V, 4), and records not used by reason.

    Where the two chromosomes differ, each has half. Of contigs other than `contigs`, an indexed file is not read.
    """
    check_samples([sample], {vcf: read_header(vcf).samples})
    fields = find_frequency_fields(vcf, "GT", [sample])
    population = Population(
        [(Source(vcf), Calls(vcf, fields, ("PASS", ".")))],
        _Sequences(genome, [name for name in genome.lengths if contigs is None or name in contigs]),
        min_frequency=0.0,
        not_selected=[name for name in genome.lengths if contigs is not None and name not in contigs],
    )
    with progress_bar(f"genotypes of {sample}", population.bytes_to_read, unit="bytes", show=progress) as advance:
        found = {one.contig: (one.position_V.astype(np.int64), one.frequency_V4) for one in population.contigs(advance)}
    reasons = population.counts[0].not_used.items()
    return found, {_OF_A_PERSON.get(reason, reason): count for reason, count in reasons}


class _Sequences:
    """Some of a store's sequences, as whoever reads a VCF compares records with them."""

    def __init__(self, genome: ProbabilisticGenome, contigs: list[str]) -> None:
        self._genome = genome
        self._number = {name: number for number, name in enumerate(genome.lengths)}
        self.lengths: Mapping[str, int] = {name: genome.lengths[name] for name in contigs}

    def codes_at(self, name: str, position_V: Int64, /) -> UInt8:
        contig_V = np.full(len(position_V), self._number[name])
        return self._genome.windows(contig_V, position_V.astype(np.int64), 1).base_BL[:, 0]
