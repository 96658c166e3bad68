"""One person's single-nucleotide genotypes as variants of a genome that is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np

from mutbert.errors import InputError
from mutbert.genome.positions import merge_alleles
from mutbert.genome.sources import check_samples
from mutbert.genome.variants import (
    REASONS,
    Alleles,
    Calls,
    Reference,
    Tally,
    read_alleles,
)  # fmt: skip
from mutbert.genome.vcf import GENOTYPES, count_by_index, find_frequencies, read_header
from mutbert.progress import progress_bar
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from mutbert.arrays import Int64, UInt16
    from mutbert.genome.store import ProbabilisticGenome

# As of variants that are scored: another assembly, where of so many compared records so great a share differs.
_COMPARED, _SHARE = 100, 0.5

_OF_A_PERSON: Final = {
    "contig not in the FASTA": "contig not in the genome",
    "contig not selected": "contig not asked for",
    "frequency missing": "no genotype called",
    "reference base differs from the FASTA": "reference base differs from the genome",
    "frequency not above the minimum": "as the reference",
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
    header = read_header(vcf)
    check_samples([sample], {vcf: header.samples})
    calls = Calls(vcf, "", find_frequencies(vcf, header, GENOTYPES, [sample]), ("PASS", "."))
    wanted = {name: contig for name, contig in genome.contigs.items() if contigs is None or name in contigs}
    sequence, ambiguity = genome.arrays["sequence.npy"], genome.arrays["ambiguity.npy"]
    reference = Reference(wanted, sequence, ambiguity, [name for name in genome.contigs if name not in wanted])
    tally, index, regions, found = Tally.of(), count_by_index(vcf) or {}, [], []
    for name, records in index.items():
        if (contig := reference.find(calls, name)) >= 0:
            regions.append((name, 0, None))
        else:
            tally.reasons[REASONS[-1 - contig]] += records
    if regions or not index:
        with progress_bar(f"genotypes of {sample}", None, unit="records", show=progress) as advance:
            for read, alleles in read_alleles(calls, reference, tally, regions):
                found.append(alleles)
                advance(read)
    if tally.reasons["compared"] >= _COMPARED and tally.reasons["mismatched"] > _SHARE * tally.reasons["compared"]:
        calls.refuse_assembly(tally)
    names = list(index or tally.contigs)
    if names and all(reference.find(calls, name) == -1 for name in names):
        raise InputError(
            f"{vcf}: its contigs ({names_text(names)}) are none of {genome.path.name} ({names_text(genome.lengths)}); "
            "use the genotypes that are of its assembly"
        )

    def refuse_sum(position: int, total: float) -> NoReturn:
        name = reference.names[int(reference.contig_of(np.array([position]))[0])]
        raise InputError(f"{vcf}: contig {name}: the alleles of {sample} at a position sum to {total:g}, more than 1")

    position_V, frequency_V4, (merged,) = merge_alleles([Alleles.concatenate(found)], 0.0, refuse_sum)
    tally.add(merged)
    none = np.zeros(0, np.int64), np.zeros((0, 4), np.uint16)
    variants = dict.fromkeys(wanted, none)
    variants |= {name: (place_V, rows_V4) for name, place_V, rows_V4 in reference.split(position_V, frequency_V4)}
    return variants, {_OF_A_PERSON.get(text, text): tally.reasons[text] for text in REASONS[:-1] if tally.reasons[text]}
