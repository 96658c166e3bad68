"""Every substitution at every position of a region.

Shape suffixes: P positions, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mutbert import alphabet
from mutbert.errors import InputError, MissingExtraError
from mutbert.files import atomic_file, check_output
from mutbert.genome.fasta import read_fasta
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.bases import BasePredictor, PredictionSettings
from mutbert.inference.opening import model_name
from mutbert.inference.surroundings import open_surroundings, place_windows
from mutbert.progress import progress_bar
from mutbert.regions import Region

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mutbert.arrays import Int64
    from mutbert.inference.bases import Predicted
    from mutbert.model import MutBertForMaskedLM


@dataclass(frozen=True)
class MutagenesisReport:
    """What `mutate_region` wrote: the table, its region, and its rows.

    `unknown` positions are N and have no values, `ambiguous` ones another IUPAC code with probabilities alone. In a
    person's windows `differing` positions are not the reference's; `not_used` records change nothing, by reason.
    """

    output: Path
    region: Region
    positions: int
    unknown: int
    ambiguous: int
    differing: int | None
    not_used: Mapping[str, int]


def mutate_region(
    model: str | Path | MutBertForMaskedLM,
    output: str | Path,
    *,
    genome: str | Path | ProbabilisticGenome | None = None,
    sequence: str | Path | None = None,
    region: str | Region | None = None,
    surroundings: str = "reference",
    person_vcf: str | Path | None = None,
    sample: str | None = None,
    settings: PredictionSettings | None = None,
    force: bool = False,
    progress: bool = False,
) -> MutagenesisReport:
    """Ask a model for every substitution at every position of a region, each position masked in turn.

    Parameters
    ----------
    model : str, Path or MutBertForMaskedLM
        A checkpoint, read to a GPU if there is one; or a loaded model, which runs where it is.
    output : str or Path
        The table, ``.parquet``, with a row a position: ``contig``, ``start`` (0-based), ``reference`` (its base);
        ``llr_A`` to ``llr_T``, ln P(base) − ln P(reference), 0 at the reference itself; ``probability_A`` to
        ``probability_T``, as if there were no other token; ``entropy`` of these, in nats. NaN where there is none.
    genome, sequence : str, Path or ProbabilisticGenome, optional
        The store that the region is of; or a FASTA, say of a designed sequence.
    region : str or Region, optional
        As in ``chr22:101-200``, 1-based and both ends included. May be left out where `sequence` has one record alone.
    surroundings, person_vcf, sample : str, optional
        What surrounds the position: the ``"reference"``, the ``"population"``'s frequencies, or the genotypes of one
        ``"person"``, `sample` of `person_vcf`.
    settings : PredictionSettings, optional
        How the model is run.
    force, progress : bool
        Replace `output` where it exists; show progress on standard error.
    """
    output, settings = Path(output), settings or PredictionSettings()
    if output.suffix != ".parquet":
        raise InputError(f"{output}: the table is Parquet; give a name that ends in .parquet")
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "embed") from None
    check_output(output, force=force)
    if sequence is not None and (surroundings != "reference" or sample or person_vcf):
        raise InputError(f"{sequence}: a sequence has no population and no persons; leave surroundings, sample and "
                         "person_vcf out")  # fmt: skip
    opened, place = _open(genome, sequence, region)
    vcf = None if person_vcf is None else Path(person_vcf)
    around = open_surroundings(opened, surroundings, vcf=vcf, sample=sample, contigs=[place.contig], progress=progress)
    predictor = BasePredictor(model, around.genome, settings)
    number, at_once = list(opened.lengths).index(place.contig), predictor.windows_at_once(1)
    frames = []
    with progress_bar("mutagenesis", len(place), unit="positions", show=progress) as advance:
        for first in range(place.start, place.end, at_once):
            position_P = np.arange(first, min(first + at_once, place.end), dtype=np.int64)
            predicted = predictor.predict(np.full_like(position_P, number), position_P, 1, advance)
            frames.append(_table(place.contig, position_P, predicted))
    table = pl.concat(frames)
    metadata = {
        "mutbert_mutagenesis": "1", "region": str(place), "model": model_name(model),
        "surroundings": "sequence" if sequence is not None else surroundings, "context": str(predictor.context),
        "strands": settings.strands, **({} if sample is None else {"sample": sample}),
    }  # fmt: skip
    with atomic_file(output, force=force) as partial:
        parquet.write_table(table.to_arrow().replace_schema_metadata(metadata), partial)
    unknown = int((table["reference"] == "N").sum())
    ambiguous = int((~table["reference"].is_in(list(alphabet.BASES))).sum()) - unknown
    ends = np.array([place.start, place.end - 1])
    start_2, length_2 = place_windows(ends, np.full(2, opened.lengths[place.contig]), predictor.context)
    differing = around.count_differing([(number, int(start_2[0]), int(start_2[1] + length_2[1]))])
    return MutagenesisReport(output, place, len(place), unknown, ambiguous, differing, around.not_used)


def _open(
    genome: str | Path | ProbabilisticGenome | None, sequence: str | Path | None, region: str | Region | None
) -> tuple[ProbabilisticGenome, Region]:
    """Open a genome, or a FASTA as one, and find the region."""
    if (genome is None) == (sequence is None):
        given = "nothing to mutate is" if genome is None else "both a genome and a sequence are"
        raise InputError(f"{given} given; give either a genome (--genome) and a region of it (--region), or a FASTA "
                         "(--sequence)")  # fmt: skip
    if sequence is not None:
        genome = ProbabilisticGenome.from_sequences(read_fasta(Path(sequence)), sequence)
        if len(genome.lengths) == 1:
            region = region or next(iter(genome.lengths))
    elif not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(str(genome))
    if region is None:
        raise InputError(f"no region is given; give one, as in --region {next(iter(genome.lengths))}:101-200")
    place = Region.parse(str(region), genome.lengths)
    if not len(genome.known_runs(place.contig, place.start, place.end)):
        raise InputError(f"{place}: all {len(place):,} bases are N, so that there is nothing to mutate")
    return genome, place


def _table(contig: str, position_P: Int64, predicted: Predicted) -> pl.DataFrame:
    columns = {"start": position_P, "reference": np.array(list(alphabet.IUPAC))[predicted.base_P]}
    for kind, value_P4 in (("llr", predicted.log_ratios()), ("probability", predicted.probabilities())):
        columns |= {f"{kind}_{base}": value_P for base, value_P in zip(alphabet.BASES, value_P4.T, strict=True)}
    return pl.DataFrame(columns).select(pl.lit(contig).alias("contig"), pl.all(), entropy=predicted.entropies())
