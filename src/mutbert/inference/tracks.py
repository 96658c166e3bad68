"""A value at every base of a genome, for genome browsers: bigWig, or bedGraph, plain or bgzip.

Shape suffixes: P positions, S spans.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
import pysam

import mutbert
from mutbert import alphabet
from mutbert.arrays import list_ranges
from mutbert.errors import InputError, require
from mutbert.files import atomic_file, check_output, sha256_of
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.bases import BasePredictor, PredictionSettings
from mutbert.inference.resumable import parts_folder, run_parts
from mutbert.inference.run import model_hash, on_disk, open_surroundings
from mutbert.progress import progress_bar
from mutbert.regions import Region, merge_regions, read_bed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mutbert.arrays import Int64
    from mutbert.model import MutBertForMaskedLM

TRACKS: Final = ("entropy", "reference_probability", "best_alternate_llr")
_BIGWIG: Final = (".bw", ".bigwig")
# The longest first: .bedgraph.gz is no .gz.
_SUFFIXES: Final = (".bedgraph.gz", ".bedgraph", *_BIGWIG)
# A bigWig counts contigs by two bytes.
_MOST_CONTIGS: Final = (1 << 16) - 1


@dataclass(frozen=True)
class TracksReport:
    """What `write_tracks` wrote: the file of each track, and numbers of contigs and bases that were asked for."""

    outputs: Mapping[str, Path]
    contigs: int
    bases: int
    unknown: int  # N, without a value
    ambiguous: int  # another IUPAC code, with an entropy alone
    differing: int | None  # in a person, not the reference's
    not_used: Mapping[str, int]  # of the person's records, by reason


def write_tracks(
    model: str | Path | MutBertForMaskedLM, genome: str | Path | ProbabilisticGenome, output: str | Path, *,
    tracks: Sequence[str] = ("entropy",), regions: Sequence[str | Region] = (), bed: str | Path | None = None,
    mask_every: int = 8, surroundings: str = "reference", person_vcf: str | Path | None = None,
    sample: str | None = None, settings: PredictionSettings | None = None,
    resume: bool = False, force: bool = False, progress: bool = False,
) -> TracksReport:  # fmt: skip
    """Write what a model predicts at every base of a genome, or of some regions of it.

    Parameters
    ----------
    model, genome
        A checkpoint, read to a GPU if there is one, or a loaded model, which runs where it is; and a store.
    output : str or Path
        A ``.bw`` or ``.bigwig`` (which need pyBigWig), ``.bedgraph`` or ``.bedgraph.gz`` file. Of several tracks each
        has its own, ``NAME.TRACK.bw``.
    tracks : sequence of str
        ``"entropy"`` of the distribution over A, C, G, T in nats; ``"reference_probability"``, that of the reference
        base; ``"best_alternate_llr"``, the greatest ln P(base) − ln P(reference base) of the other three.
    regions, bed : optional
        As in ``chr22:101-200``, 1-based and both ends included, or ``chr22``; or a BED file. Else the whole genome.
    mask_every : int
        1 masks one base at a time, in the middle of its window; K above 1 one base in K, by default close to the share
        that is masked in training; 0 none.
    surroundings, person_vcf, sample : optional
        What windows hold: the ``"reference"``, the ``"population"``'s frequencies, or the genotypes of one
        ``"person"``, `sample` of `person_vcf`.
    settings, resume, force, progress : optional
        How the model is run; continue a run that was stopped; replace outputs where they exist; show progress.
    """
    output, settings = Path(output), settings or PredictionSettings()
    outputs = _outputs(output, tracks)
    if mask_every < 0:
        raise InputError(f"mask_every is {mask_every}; give 0 for none, 1 for one base at a time, or more")
    for path in outputs.values():
        check_output(path, force=force, inputs=on_disk(model, genome, bed, person_vcf))
    genome = genome if isinstance(genome, ProbabilisticGenome) else ProbabilisticGenome.open(genome)
    lengths, names = genome.lengths, list(genome.lengths)
    if output.suffix.lower() in _BIGWIG and len(lengths) > _MOST_CONTIGS:
        raise InputError(f"{output}: a bigWig takes {_MOST_CONTIGS:,} contigs at most; write .bedgraph.gz")
    if bed is not None and regions:
        raise InputError(f"{bed}: regions are given as well as a BED file; give one or the other")
    asked = [Region.parse(str(region), lengths) for region in regions or lengths]
    merged = merge_regions(asked if bed is None else read_bed(Path(bed), lengths), names)
    contigs, bases = {region.contig for region in merged}, sum(map(len, merged))
    span_S3 = np.array([(names.index(region.contig), region.start, region.end) for region in merged], dtype=np.int64)
    if not any(len(genome.known_runs(region.contig, region.start, region.end)) for region in merged):
        raise InputError(f"{output}: all {bases:,} bases that are asked for are N, so there is nothing to write")
    around = open_surroundings(genome, surroundings, vcf=person_vcf, sample=sample, contigs=contigs, progress=progress)
    predictor = BasePredictor(model, around.genome, settings)
    plan = {
        "mutbert": mutbert.__version__, "model": model_hash(predictor.model), "genome": genome.identity,
        **asdict(settings), "context": predictor.context, "tracks": list(outputs), "regions": span_S3.tolist(),
        "mask_every": mask_every, "surroundings": surroundings, "sample": sample,
        "person_vcf": person_vcf and sha256_of(Path(person_vcf)),
    }  # fmt: skip
    with (
        parts_folder(output, plan, resume=resume, force=force) as folder,
        progress_bar("tracks", bases, unit="bases", show=progress) as advance,
    ):

        def compute(chunk_S3: Int64, path: Path) -> None:
            span_P, position_P = list_ranges(chunk_S3[:, 1], chunk_S3[:, 2])
            scores = predictor.predict(contig_P := chunk_S3[span_P, 0], position_P, mask_every, advance)
            located = pl.DataFrame({"contig": contig_P, "position": position_P})
            located.hstack(scores.select("base", *outputs)).write_parquet(path)

        # Windows of the grid lie half a context apart.
        stride = 1 if mask_every == 1 else max(predictor.context // 2, 1)
        chunks = enumerate(_chunks(span_S3, stride, predictor.windows_at_once(mask_every)))
        parts = run_parts(folder, chunks, compute, skipped=lambda chunk: advance(int(np.diff(chunk[:, 1:]).sum())))
        with ExitStack() as stack:
            for track, path in outputs.items():
                _write(stack.enter_context(atomic_file(path, force=force)), parts, track, lengths)
        codes = dict(pl.scan_parquet(parts).group_by("base").len().collect().iter_rows())
    unknown = codes.pop(alphabet.UNKNOWN, 0)
    ambiguous = sum(count for code, count in codes.items() if code >= len(alphabet.BASES))
    differing = around.count_differing(merged)
    return TracksReport(outputs, len(contigs), bases, unknown, ambiguous, differing, around.not_used)


def _outputs(output: Path, tracks: Sequence[str]) -> dict[str, Path]:
    """Return the file of each track."""
    length = next((len(suffix) for suffix in _SUFFIXES if output.name.lower()[1:].endswith(suffix)), 0)
    if not length:
        raise InputError(f"{output}: the suffix chooses the format; it must be one of {', '.join(_SUFFIXES)}")
    if not tracks or not set(tracks) <= set(TRACKS):
        raise InputError(f"tracks are {', '.join(tracks) or 'none'}; give some of {', '.join(TRACKS)}")
    if output.suffix.lower() in _BIGWIG:
        require("pyBigWig", "tracks")
    if len(set(tracks)) == 1:
        return {tracks[0]: output}
    return {track: output.with_name(f"{output.name[:-length]}.{track}{output.name[-length:]}") for track in tracks}


def _chunks(span_S3: Int64, stride: int, most: int) -> Iterator[Int64]:
    """Yield spans as (S, 3) of contig, start and end, of so many windows of the grid, cut where a window begins."""
    start_S, end_S = span_S3[:, 1], span_S3[:, 2]
    # Windows are numbered over all spans.
    count_S = -(-end_S // stride) - start_S // stride
    before_S = np.cumsum(count_S) - count_S
    for first in range(0, int(count_S.sum()), most):
        cut_S = (start_S // stride + first - before_S) * stride
        part = np.flatnonzero((before_S < first + most) & (before_S + count_S > first))
        bounds = np.maximum(start_S, cut_S), np.minimum(end_S, cut_S + most * stride)
        yield np.column_stack([span_S3[:, 0], *bounds])[part]


def _write(path: Path, parts: Sequence[Path], track: str, lengths: Mapping[str, int]) -> None:
    """Write a track's values in the format of the suffix; bases without one are left out."""
    names = list(lengths)

    def values() -> Iterator[tuple[str, pl.DataFrame]]:
        for part in parts:
            frame = pl.read_parquet(part, columns=["contig", "position", track]).filter(pl.col(track).is_not_nan())
            for (contig,), rows in frame.group_by("contig", maintain_order=True):
                yield names[contig], rows.drop("contig")

    if path.suffix.lower() in _BIGWIG:
        import pyBigWig

        with pyBigWig.open(str(path), "w") as file:
            file.addHeader(list(lengths.items()))
            for contig, rows in values():
                position_P, value_P = (column.to_numpy() for column in rows)
                edges = np.flatnonzero(np.diff(position_P, prepend=-2, append=-2) != 1).tolist()
                for first, end in pairwise(edges):
                    file.addEntries(contig, int(position_P[first]), values=value_P[first:end], span=1, step=1)
        return
    with pysam.BGZFile(str(path), "wb") if path.suffix.lower() == ".gz" else path.open("wb") as file:
        file.write(f'track type=bedGraph name="{track}"\n'.encode())
        for contig, rows in values():
            # Each number is the shortest that is read as the same float32.
            lines = rows.select(pl.lit(contig), "position", end=pl.col("position") + 1, value=track)
            file.write(lines.write_csv(include_header=False, separator="\t").encode())
