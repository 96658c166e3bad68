"""A value at every base of a genome, for genome browsers.

Shape suffixes: P positions, S stretches of a window each, R regions, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mutbert import alphabet
from mutbert.arrays import list_ranges
from mutbert.errors import InputError
from mutbert.files import atomic_file, check_output
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.base_predictions import PredictionSettings, open_predictor
from mutbert.inference.surroundings import count_differing, open_surroundings, records_not_used
from mutbert.inference.track_files import check_tracks, open_track, track_suffix
from mutbert.progress import progress_bar
from mutbert.regions import Region, read_bed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mutbert.arrays import Float32, Int64
    from mutbert.inference.base_predictions import Predicted
    from mutbert.inference.track_files import TrackWriter
    from mutbert.model import MutBertForMaskedLM


MASK_EVERY: Final = 8
"""By default one base in so many is masked at once, close to the share that is masked in training."""


def _reference_probability(predicted: Predicted) -> Float32:
    probability_P4 = predicted.probabilities()
    value_P = np.full(len(probability_P4), np.nan, dtype=np.float32)
    single = np.flatnonzero(predicted.base_P < len(alphabet.BASES))
    value_P[single] = probability_P4[single, predicted.base_P[single]]
    return value_P


def _best_alternate_llr(predicted: Predicted) -> Float32:
    ratio_P4 = predicted.log_ratios()
    single = np.flatnonzero(predicted.base_P < len(alphabet.BASES))
    ratio_P4[single, predicted.base_P[single]] = -np.inf
    value_P: Float32 = ratio_P4.max(axis=1)
    return value_P


_VALUES: Final[dict[str, Callable[[Predicted], Float32]]] = {
    "entropy": lambda predicted: predicted.entropies(),
    "reference_probability": _reference_probability,
    "best_alternate_llr": _best_alternate_llr,
}
TRACKS: Final = tuple(_VALUES)
"""What can be written."""


@dataclass(frozen=True)
class TracksReport:
    """What `write_tracks` wrote.

    Parameters
    ----------
    outputs : mapping of str to Path
        The file of each track.
    contigs : int
        Contigs of which something was asked for.
    bases : int
        Bases that were asked for.
    unknown : int
        Of these, N, which have no value.
    ambiguous : int
        Of these, another IUPAC code, which have an entropy but no other value.
    differing : int or None
        Of a person's surroundings: at so many of these bases she differs from the reference.
    not_used : mapping of str to int
        Of a person's surroundings: records of the file that change nothing, by reason.
    """

    outputs: Mapping[str, Path]
    contigs: int
    bases: int
    unknown: int
    ambiguous: int
    differing: int | None
    not_used: Mapping[str, int]


def write_tracks(
    model: str | Path | MutBertForMaskedLM,
    genome: str | Path | ProbabilisticGenome,
    output: str | Path,
    *,
    tracks: Sequence[str] = ("entropy",),
    regions: Sequence[str | Region] = (),
    bed: str | Path | None = None,
    mask_every: int = MASK_EVERY,
    surroundings: str = "reference",
    person_vcf: str | Path | None = None,
    sample: str | None = None,
    settings: PredictionSettings | None = None,
    force: bool = False,
    progress: bool = False,
) -> TracksReport:
    """Write what a model predicts at every base of a genome, or of some regions of it.

    Every base is covered once, however regions overlap. A value is a function of the position, the surroundings and the
    settings; it does not depend on the regions.

    Parameters
    ----------
    model : str, Path or MutBertForMaskedLM
        A checkpoint, read to a GPU where there is one; or a loaded model, which runs where it is.
    genome : str, Path or ProbabilisticGenome
        A store.
    output : str or Path
        The file; its suffix chooses the format: ``.bw`` or ``.bigwig``, which need pyBigWig, ``.bedgraph`` or
        ``.bedgraph.gz``. Of several tracks each has its own, ``NAME.TRACK.bw``.
    tracks : sequence of str
        Of `TRACKS`: ``"entropy"`` of the distribution over A, C, G, T in nats; ``"reference_probability"``, that of the
        reference base; ``"best_alternate_llr"``, the greatest ln P(base) − ln P(reference base) of the other three.
    regions : sequence of str or Region
        As in ``chr22:101-200``, 1-based and both ends included, or ``chr22``. With neither these nor `bed`, the whole
        genome.
    bed : str or Path, optional
        A BED file of regions in their place.
    mask_every : int
        See `mutbert.inference.base_predictions.BasePredictor.predict`: 1 masks one base at a time, in the middle of its
        window; K above 1 one base in K; 0 none.
    surroundings : {"reference", "population", "person"}
        What the windows are.
    person_vcf, sample : str or Path, and str, optional
        Of a person: the file with the genotypes, and the name in it.
    settings : PredictionSettings, optional
        How the model is asked.
    force : bool
        Replace outputs where they exist.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    TracksReport
        What was written.

    Raises
    ------
    InputError
        When an input cannot be used, a setting does not fit the model, or all bases asked for are N.
    MissingExtraError
        When pyBigWig is needed and not installed.
    """
    outputs = _outputs(Path(output), tracks)
    if mask_every < 0:
        raise InputError(f"mask_every is {mask_every}; give 0 for none, 1 for one base at a time, or more")
    for path in outputs.values():
        check_output(path, force=force)
    if not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(genome)
    check_tracks(Path(output), genome.lengths)
    stretches = _merged(genome.lengths, _asked_for(genome, regions, None if bed is None else Path(bed)))
    bases = sum(end - start for _, start, end in stretches)
    names = list(genome.lengths)
    if not any(len(genome.known_runs(names[contig], start, end)) for contig, start, end in stretches):
        raise InputError(f"{output}: all {bases:,} bases that are asked for are N, so there is nothing to write")
    around = open_surroundings(
        genome,
        surroundings,
        vcf=None if person_vcf is None else Path(person_vcf),
        sample=sample,
        contigs={names[contig] for contig, _, _ in stretches},
        progress=progress,
    )
    predictor = open_predictor(model, around, settings)
    unknown, ambiguous = 0, 0
    with ExitStack() as stack:
        writers: dict[str, TrackWriter] = {}
        for track, path in outputs.items():
            partial = stack.enter_context(atomic_file(path, force=force))
            # Closed before its file gets its name.
            writers[track] = stack.enter_context(open_track(partial, track_suffix(path), track, genome.lengths))
        bar = stack.enter_context(progress_bar("tracks", bases, unit="bases", show=progress))
        advance = bar
        stride = 1 if mask_every == 1 else predictor.stride
        for chunk in _chunks(stretches, stride, predictor.windows_at_once(mask_every)):
            stretch_P, position_P = list_ranges(chunk.begin_S, chunk.end_S)
            contig_P = chunk.contig_S[stretch_P]
            predicted = predictor.predict(contig_P, position_P, mask_every, advance)
            unknown += int((~predicted.known).sum())
            ambiguous += int(((predicted.base_P >= len(alphabet.BASES)) & predicted.known).sum())
            for track, writer in writers.items():
                _write(writer, names, contig_P, position_P, _VALUES[track](predicted))
    contigs = len({contig for contig, _, _ in stretches})
    differing = count_differing(around, stretches)
    return TracksReport(outputs, contigs, bases, unknown, ambiguous, differing, records_not_used(around))


def _outputs(output: Path, tracks: Sequence[str]) -> dict[str, Path]:
    suffix = track_suffix(output)
    if not tracks:
        raise InputError(f"no track is given; give some of {', '.join(TRACKS)}")
    for track in tracks:
        if track not in TRACKS:
            raise InputError(f"track is {track!r}; it must be one of {', '.join(TRACKS)}")
    if len(set(tracks)) == 1:
        return {tracks[0]: output}
    stem = output.name[: -len(suffix)]
    return {track: output.with_name(f"{stem}.{track}{suffix}") for track in tracks}


def _asked_for(genome: ProbabilisticGenome, regions: Sequence[str | Region], bed: Path | None) -> list[Region]:
    if bed is not None:
        if regions:
            raise InputError(f"{bed}: regions are given beside a BED file; give one or the other")
        return read_bed(bed, genome.lengths)
    if not regions:
        return [Region(name, 0, length) for name, length in genome.lengths.items()]
    return [Region.parse(str(region), genome.lengths) for region in regions]


def _merged(lengths: Mapping[str, int], regions: Sequence[Region]) -> list[tuple[int, int, int]]:
    """Give contig number, start and end of the stretches that are in any region, in the genome's order."""
    number = {name: index for index, name in enumerate(lengths)}
    merged: list[tuple[int, int, int]] = []
    for contig, start, end in sorted((number[region.contig], region.start, region.end) for region in regions):
        if merged and merged[-1][0] == contig and start <= merged[-1][2]:
            merged[-1] = (contig, merged[-1][1], max(merged[-1][2], end))
        else:
            merged.append((contig, start, end))
    return merged


class _Chunk(NamedTuple):
    """Stretches that are predicted together; 0-based and half-open, shape (S,) each."""

    contig_S: Int64
    begin_S: Int64
    end_S: Int64


def _chunks(stretches: Sequence[tuple[int, int, int]], stride: int, most: int) -> Iterator[_Chunk]:
    """Cut stretches where the grid has another window, and give so many pieces at a time.

    Small stretches go together, so that the model's batches are full.
    """
    waiting: list[Int64] = []
    count = 0
    for contig, start, end in stretches:
        for first in range(start, end, most * stride):
            last = min(first + most * stride, end)
            inner = np.arange(first // stride + 1, -(-last // stride), dtype=np.int64) * stride
            begin_S, end_S = np.append(first, inner), np.append(inner, last)
            pieces_3S = np.stack([np.full(len(begin_S), contig), begin_S, end_S])
            while pieces_3S.shape[1]:
                waiting.append(pieces_3S[:, : most - count])
                count += waiting[-1].shape[1]
                pieces_3S = pieces_3S[:, waiting[-1].shape[1] :]
                if count == most:
                    yield _Chunk(*np.concatenate(waiting, axis=1))
                    waiting, count = [], 0
    if waiting:
        yield _Chunk(*np.concatenate(waiting, axis=1))


def _write(writer: TrackWriter, names: Sequence[str], contig_P: Int64, position_P: Int64, value_P: Float32) -> None:
    there = np.flatnonzero(~np.isnan(value_P))
    contig_P, position_P, value_P = contig_P[there], position_P[there], value_P[there]
    contigs, first = np.unique(contig_P, return_index=True)
    for contig, (begin, end) in zip(contigs, pairwise([*first, len(there)]), strict=True):
        writer.add(names[contig], position_P[begin:end], value_P[begin:end])
