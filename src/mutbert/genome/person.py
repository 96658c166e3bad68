"""One person's single-nucleotide genotypes as variants of a genome that is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np

from mutbert.errors import InputError
from mutbert.genome.sources import check_samples
from mutbert.genome.variants import Alleles, Calls, Reason, Reference, Tally, merge_alleles, read_alleles, tally_merged
from mutbert.genome.vcf import GENOTYPES, count_by_index, find_frequencies, read_header
from mutbert.progress import progress_bar
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from mutbert.arrays import Int64, UInt16
    from mutbert.genome.store import ProbabilisticGenome

# As of variants that are scored: another assembly, where of so many compared records so great a share differs.
_COMPARED, _MISMATCHES = 100, 0.5

_OF_A_PERSON: Final = {
    Reason.CONTIG_NOT_IN_FASTA: "contig not in the genome",
    Reason.CONTIG_NOT_SELECTED: "contig not asked for",
    Reason.NO_FREQUENCY: "no genotype called",
    Reason.MISMATCH: "reference base differs from the genome",
    Reason.NOT_ABOVE_MINIMUM: "as the reference",
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
    tally, index = Tally(), count_by_index(vcf) or {}
    regions = []
    for name, records in index.items():
        if (contig := reference.find(calls, name)) >= 0:
            regions.append((name, 0, None))
        else:
            tally.reasons[-1 - contig] += records
    found = []
    if regions or not index:
        with progress_bar(f"genotypes of {sample}", None, unit="records", show=progress) as advance:
            for _, records, alleles in read_alleles(calls, reference, tally, regions):
                found.append(alleles)
                advance(records)
    if tally.compared >= _COMPARED and tally.mismatched > _MISMATCHES * tally.compared:
        calls.refuse_assembly(tally)
    if sum(tally.reasons) == tally.reasons[Reason.CONTIG_NOT_IN_FASTA] > 0 and not any(len(one[0]) for one in found):
        names = names_text(index or tally.by_contig)
        raise InputError(f"{vcf}: its contigs ({names}) are none of {genome.path.name} ({names_text(genome.lengths)})")

    def refuse_sum(position: int, total: float) -> NoReturn:
        name, position = reference.place(position)
        raise InputError(f"{vcf}: {name}:{position + 1}: the alleles of {sample} sum to {total:g}, more than 1")

    alleles = Alleles.concatenate(found)
    position_V, frequency_V4, stage_A = merge_alleles(alleles, 0.0, refuse_sum)
    tally.add(Tally(tally_merged(alleles, stage_A)[0]))
    variants = {}
    for name, start, length in zip(wanted, reference.start_C, reference.length_C, strict=True):
        here = slice(*np.searchsorted(position_V, [start, start + length]))
        variants[name] = position_V[here] - start, frequency_V4[here]
    reasons = {_OF_A_PERSON.get(reason, reason.text): tally.reasons[reason] for reason in list(Reason)[:-1]}
    return variants, {text: count for text, count in reasons.items() if count}
