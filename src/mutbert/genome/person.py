"""One person's single-nucleotide genotypes as variants of a genome that is there."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import numpy as np

from mutbert.errors import InputError
from mutbert.genome.population import Population
from mutbert.genome.sources import check_samples
from mutbert.genome.variants import REASONS, Calls, Reference
from mutbert.genome.vcf import GENOTYPES, find_frequencies, read_header
from mutbert.regions import names_text

if TYPE_CHECKING:
    from collections.abc import Collection

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
    with TemporaryDirectory(prefix="mutbert-person-") as folder:
        found = Population(Path(folder), [calls], reference)
        found.read(0.0, progress=progress)
        tally = found.tallies[0]
        if tally.reasons["compared"] >= _COMPARED:
            calls.check_assembly(tally, _SHARE)
        if found.unmatched and not found.names and not tally.reasons["contig not selected"]:
            raise InputError(
                f"{vcf}: its contigs ({names_text(found.unmatched)}) are none of {genome.path.name} "
                f"({names_text(genome.lengths)}); use the genotypes that are of its assembly"
            )
        variants = dict.fromkeys(wanted, (np.zeros(0, np.int64), np.zeros((0, 4), np.uint16)))
        variants |= {name: (position_V, row_V4) for name, position_V, row_V4 in found.variants()}
    return variants, {_OF_A_PERSON.get(text, text): tally.reasons[text] for text in REASONS[:-1] if tally.reasons[text]}
