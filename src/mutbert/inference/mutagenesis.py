"""Every substitution at every position of a region.

Shape suffixes: P positions, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from mutbert import alphabet
from mutbert.errors import InputError, MissingExtraError
from mutbert.files import atomic_file, check_output
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.base_predictions import DesignedSequence, PredictionSettings, open_predictor
from mutbert.inference.opening import model_name
from mutbert.inference.surroundings import count_differing, open_surroundings, place_windows, records_not_used
from mutbert.inference.tracks import MASK_EVERY
from mutbert.progress import progress_bar
from mutbert.regions import Region

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mutbert.arrays import Int64
    from mutbert.inference.base_predictions import BasePredictor, Predicted
    from mutbert.inference.surroundings import Surroundings
    from mutbert.model import MutBertForMaskedLM


# Of so many positions, whoever waits is told how long it takes and what is quicker.
_MANY: Final = 100_000


@dataclass(frozen=True)
class MutagenesisReport:
    """What `mutate_region` wrote.

    Parameters
    ----------
    output : Path
        The table.
    region : Region
        What it is of.
    positions : int
        Its rows.
    unknown : int
        Positions that are N in the reference, which have no values.
    ambiguous : int
        Positions that are another IUPAC code, which have probabilities but no ratios.
    differing : int or None
        Of a person's surroundings: positions of all windows at which she differs from the reference.
    not_used : mapping of str to int
        Of a person's surroundings: records of the file that change nothing, by reason.
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
        A checkpoint, read to a GPU where there is one; or a loaded model, which runs where it is.
    output : str or Path
        The table, ``.parquet``, written as it comes, with a row a position: ``contig``, ``start`` (0-based),
        ``reference`` (its base); ``llr_A`` to ``llr_T``, ln P(base) − ln P(reference), 0 at the reference itself;
        ``probability_A`` to ``probability_T``, as if there were no other token; ``entropy`` of these, in nats. Not a
        number where there is none: see `MutagenesisReport`. Needs pyarrow.
    genome : str, Path or ProbabilisticGenome, optional
        The store that the region is of.
    sequence : str or Path, optional
        A FASTA in its place, say of a designed sequence.
    region : str or Region, optional
        As in ``chr22:101-200``, 1-based and both ends included. May be left out where `sequence` has one record alone.
    surroundings : {"reference", "population", "person"}
        What stands around the position in its window.
    person_vcf, sample : str or Path, and str, optional
        Of a person: the file with the genotypes, and the name in it.
    settings : PredictionSettings, optional
        How the model is asked.
    force : bool
        Replace `output` where it exists.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    MutagenesisReport
        What was written.

    Raises
    ------
    InputError
        When an input cannot be used, or a setting does not fit the model.
    MissingExtraError
        When pyarrow is not installed.
    """
    output = Path(output)
    if output.suffix != ".parquet":
        raise InputError(f"{output}: the table is Parquet; give a name that ends in .parquet")
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "embed") from None
    check_output(output, force=force)
    around, place = _subject(genome, sequence, region, surroundings, person_vcf, sample, progress=progress)
    predictor = open_predictor(model, around, settings)
    number = list(around.lengths).index(place.contig)
    if progress and len(place) > _MANY:
        print(_many(place, predictor), file=sys.stderr)  # noqa: T201
    at_once = predictor.windows_at_once(1)
    unknown, ambiguous = 0, 0
    metadata = {
        "mutbert_mutagenesis": "1",
        "region": str(place),
        "model": model_name(model),
        "surroundings": "sequence" if sequence is not None else surroundings,
        "context": str(predictor.context),
        "strands": (settings or PredictionSettings()).strands,
    }
    if sample is not None:
        metadata["sample"] = sample
    with (
        atomic_file(output, force=force) as partial,
        _Table(partial, place.contig, metadata) as table,
        progress_bar("mutagenesis", len(place), unit="positions", show=progress) as advance,
    ):
        for first in range(place.start, place.end, at_once):
            position_P = np.arange(first, min(first + at_once, place.end), dtype=np.int64)
            predicted = predictor.predict(np.full(len(position_P), number, dtype=np.int64), position_P, 1, advance)
            table.add(position_P, predicted)
            unknown += int((predicted.base_P == alphabet.UNKNOWN).sum())
            ambiguous += int(((predicted.base_P >= len(alphabet.BASES)) & predicted.known).sum())
    seen = place_windows(
        np.array([place.start, place.end - 1]), np.full(2, around.lengths[place.contig]), predictor.context
    )
    differing = count_differing(around, [(number, int(seen.start_P[0]), int(seen.start_P[1] + seen.length_P[1]))])
    return MutagenesisReport(output, place, len(place), unknown, ambiguous, differing, records_not_used(around))


def _many(place: Region, predictor: BasePredictor) -> str:
    fewer = predictor.stride // MASK_EVERY
    instead = f"; 'mutbert tracks' takes a forward pass for {fewer:,}" if fewer > 1 else ""
    return f"{place}: {len(place):,} positions, with a forward pass each for every strand{instead}"


def _subject(
    genome: str | Path | ProbabilisticGenome | None,
    sequence: str | Path | None,
    region: str | Region | None,
    surroundings: str,
    person_vcf: str | Path | None,
    sample: str | None,
    *,
    progress: bool,
) -> tuple[Surroundings, Region]:
    if (genome is None) == (sequence is None):
        given = "nothing to mutate is" if genome is None else "both a genome and a sequence are"
        raise InputError(
            f"{given} given; give either a genome (--genome) and a region of it (--region), or a FASTA (--sequence)"
        )
    if sequence is not None:
        if surroundings != "reference" or sample is not None or person_vcf is not None:
            raise InputError(
                f"{sequence}: a sequence has no population and no persons, so its surroundings are itself; leave "
                "surroundings, sample and person_vcf out"
            )
        designed = DesignedSequence(Path(sequence), None if region is None else str(region))
        if not designed.is_known(designed.region):
            raise InputError(_all_unknown(designed.region))
        return designed, designed.region
    if region is None:
        raise InputError("no region is given; give one, as in --region chr22:101-200")
    assert genome is not None
    if not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(genome)
    place = Region.parse(str(region), genome.lengths)
    if not len(genome.known_runs(place.contig, place.start, place.end)):
        raise InputError(_all_unknown(place))
    vcf = None if person_vcf is None else Path(person_vcf)
    around = open_surroundings(genome, surroundings, vcf=vcf, sample=sample, contigs=[place.contig], progress=progress)
    return around, place


def _all_unknown(place: Region) -> str:
    return f"{place}: all {len(place):,} bases are N, so that there is nothing to mutate; give another region"


class _Table:
    """Writes rows as they come, a row group each call; a context manager."""

    def __init__(self, path: Path, contig: str, metadata: Mapping[str, str]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        values = [f"{kind}_{base}" for kind in ("llr", "probability") for base in alphabet.BASES]
        self._schema = pa.schema(
            [
                ("contig", pa.string()),
                ("start", pa.int64()),
                ("reference", pa.string()),
                *((name, pa.float32()) for name in (*values, "entropy")),
            ],
            metadata=metadata,
        )
        self._contig = contig
        self._file = parquet.ParquetWriter(path, self._schema)

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, position_P: Int64, predicted: Predicted) -> None:
        import pyarrow as pa

        columns = [*predicted.log_ratios().T, *predicted.probabilities().T, predicted.entropies()]
        letters = np.array(list(alphabet.IUPAC))[predicted.base_P]
        arrays = [
            pa.array([self._contig]).take(pa.array(np.zeros(len(position_P), dtype=np.int64))),
            pa.array(position_P),
            pa.array(letters),
            *(pa.array(column) for column in columns),
        ]
        self._file.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
