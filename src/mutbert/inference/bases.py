"""What a model predicts at single bases of a genome: every substitution in a region, and tracks for genome browsers.

Shape suffixes: P positions, W windows, N passes, L length in bases, E edits, S spans, 4 bases in the order A, C, G, T.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

import mutbert
from mutbert import alphabet
from mutbert.arrays import Float32, Int64, UInt8, list_ranges
from mutbert.encoders.inputs import MASKED, place_windows, read_windows
from mutbert.errors import InputError, require
from mutbert.files import atomic_file, check_output, sha256_of
from mutbert.genome.sources import read_fasta
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference import run
from mutbert.inference.classifier import WindowClassifier, open_classifier
from mutbert.inference.parts import parts_folder, run_parts, was_stopped
from mutbert.inference.track_files import TRACK_FORMATS, check_bigwig, write_track
from mutbert.model import MutBertForMaskedLM
from mutbert.progress import Advance, progress_bar, scaled
from mutbert.regions import Region, merge_regions, read_bed
from mutbert.settings import listed

TRACKS: Final = ("entropy", "reference_probability", "best_alternate_llr")


@dataclass(frozen=True)
class PredictionSettings:
    """How bases are predicted."""

    context: int | None = None  # bases per window, by default as many as in training
    strands: str | None = None  # forward, or both for their mean; by default both, or for a classifier as in training
    batch_size: int = 32
    precision: str = "fp32"
    rope_scaling: Mapping[str, Any] | None = None
    bases_at_once: int = 1 << 20  # of all windows that are held at once


class BasePredictor:
    """Predicts bases of a genome as it is seen, independently of which other positions are asked for."""

    def __init__(
        self, model: str | Path | MutBertForMaskedLM, genome: ProbabilisticGenome, settings: PredictionSettings
    ) -> None:
        # Before a large model is read.
        run.check_run(settings.strands or "both", settings.precision, settings.batch_size)
        self.model = run.open_model(model, MutBertForMaskedLM)
        self.context = run.resolve_context(self.model.config, settings.context, settings.rope_scaling)
        self._genome, self.settings = genome, replace(settings, strands=settings.strands or "both")

    def windows_at_once(self, mask_every: int) -> int:
        """Return how many windows' positions one call should ask for, so that its memory is bounded."""
        return max(self.settings.bases_at_once // (self.context * max(mask_every, 1)), 1)

    def predict(self, contig_P: Int64, position_P: Int64, mask_every: int, advance: Advance) -> pl.DataFrame:
        """Return `score_bases` at 0-based positions of contigs, by the contigs' numbers in the genome's order.

        With `mask_every` 1, each is masked alone, in the middle of its window. Else windows lie half a context apart;
        with K above 1, pass r of K masks all positions but N whose remainder by K is r, and they are read from it.
        """
        alone, length_P = mask_every == 1, self._genome.slots[contig_P, 1]
        start_P, _ = place_windows(position_P, length_P, self.context, "centred" if alone else "shared")
        (contig_W, start_W), window_P = np.unique([contig_P, start_P], axis=1, return_inverse=True)
        bases_W = np.minimum(self.context, self._genome.slots[contig_W, 1])
        windows = read_windows(self._genome, contig_W, start_W, bases_W)
        window_P, column_P = window_P.reshape(-1), position_P - start_P
        base_P = windows.code_NL[window_P, column_P]
        known = np.flatnonzero(base_P != alphabet.UNKNOWN)
        # One that is masked alone has a remainder that no other position of its contig has.
        phases = int(length_P.max(initial=1)) if alone else max(mask_every, 1)
        pass_N, row_K = np.unique(window_P[known] * phases + position_P[known] % phases, return_inverse=True)
        window_N, phase_N = np.divmod(pass_N, phases)
        passes, contigs = windows.take(window_N), list(self._genome.lengths)
        if mask_every:
            position_NL = start_W[window_N, None] + np.arange(passes.code_NL.shape[1])
            known_NL = (passes.code_NL != alphabet.UNKNOWN) & passes.inside_NL
            row_E, column_E = np.nonzero(known_NL & (position_NL % phases == phase_N[:, None]))
            passes = passes.with_codes(row_E, column_E, MASKED)
        how: dict[str, Any] = {name: getattr(self.settings, name) for name in ("strands", "batch_size", "precision")}
        how["advance"] = scaled(advance, len(known) / max(len(passes), 1))
        how["name"] = lambda row: f"{contigs[contig_W[window_N[row]]]}, window from {start_W[window_N[row]] + 1:,}"
        logit_P4 = np.full((len(position_P), len(alphabet.BASES)), np.nan, dtype=np.float32)
        with run.rope_scaled(self.model.config, self.settings.rope_scaling):
            queries = run.Queries(row_K, column_P[known])
            logit_P4[known] = run.run_windows(self.model, passes, queries, **how).logit_T4
        return score_bases(base_P, logit_P4)


class OutputPredictor(BasePredictor):
    """Predicts how other bases of a genome, as it is seen, change the outputs of a fine-tuned classifier."""

    def __init__(self, classifier: WindowClassifier, genome: ProbabilisticGenome, settings: PredictionSettings) -> None:
        self.context, self.settings = classifier.context, replace(settings, strands=classifier.strands)
        self._classifier, self._genome = classifier, genome

    def predict(self, contig_P: Int64, position_P: Int64, mask_every: int, advance: Advance) -> pl.DataFrame:  # noqa: ARG002
        """Return a row a position: the ``base`` code, and each output with each base less that with the reference's."""
        start_P, length_P = place_windows(position_P, self._genome.slots[contig_P, 1], self.context)
        windows, column_P = read_windows(self._genome, contig_P, start_P, length_P), position_P - start_P
        base_P, bases = windows.code_NL[np.arange(len(column_P)), column_P], len(alphabet.BASES)
        known, names, contigs = np.flatnonzero(base_P < bases), self._classifier.fields, list(self._genome.lengths)
        row_N, code_N = np.repeat(known, bases), np.tile(np.arange(bases, dtype=np.uint8), len(known))
        output_NK = self._classifier.outputs(
            windows.take(row_N).with_codes(np.arange(len(row_N)), column_P[row_N], code_N), scaled(advance, len(known)),
            lambda row: f"{contigs[contig_P[row_N[row]]]}:{position_P[row_N[row]] + 1}",
        )  # fmt: skip
        output_P4K = output_NK.reshape(len(known), bases, len(names))
        change_P4K = np.full((len(base_P), bases, len(names)), np.nan, dtype=np.float32)
        change_P4K[known] = output_P4K - output_P4K[np.arange(len(known)), base_P[known], None]
        titles = [f"{name}_{base}" for base in alphabet.BASES for name in names]
        return pl.DataFrame({"base": base_P, **dict(zip(titles, change_P4K.reshape(len(base_P), -1).T, strict=True))})


def score_bases(base_P: UInt8, logit_P4: Float32) -> pl.DataFrame:
    """Return the reference's ``base`` code and scores; of N all are NaN, of other ambiguous codes comparisons alone."""
    probability_P4 = np.exp(run.base_log_probabilities(logit_P4)).astype(np.float32)
    is_reference_P4 = base_P[:, None] == np.arange(len(alphabet.BASES))
    reference_P, chance_P = (
        np.fmax.reduce(np.where(is_reference_P4, value_P4, np.float32(np.nan)), axis=1)
        for value_P4 in (logit_P4, probability_P4)
    )
    ratio_P4 = logit_P4 - reference_P[:, None]
    names = [f"{kind}_{base}" for kind in ("llr", "probability") for base in alphabet.BASES]
    return pl.DataFrame({
        "base": base_P, **dict(zip(names, np.hstack([ratio_P4, probability_P4]).T, strict=True)),
        "entropy": run.entropy(logit_P4).astype(np.float32), "reference_probability": chance_P,
        "best_alternate_llr": np.where(is_reference_P4, np.float32(-np.inf), ratio_P4).max(axis=1),
    })  # fmt: skip


def mutate_region(
    model: str | Path | MutBertForMaskedLM, output: str | Path, *,
    genome: str | Path | ProbabilisticGenome | None = None, fasta: str | Path | None = None,
    region: str | Region | None = None, surroundings: str = "reference", person_vcf: str | Path | None = None,
    sample: str | None = None, settings: PredictionSettings | None = None, force: bool = False, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Score every substitution at every position of a region, each position masked in turn.

    Parameters
    ----------
    model : str, Path or MutBertForMaskedLM
        A checkpoint, run on a GPU if there is one (in Python also a loaded model), or a fine-tuned classifier's folder.
    output : str or Path
        A ``.parquet`` table, a row per position: ``chrom``, ``pos`` (1-based), ``ref`` (its base); ``llr_A`` to
        ``llr_T``, ln P(base) − ln P(reference); ``probability_A`` to ``probability_T``, as if there were no other
        token; ``entropy`` of these, in nats. Of a classifier ``delta_LABEL_A`` to ``delta_LABEL_T``, as
        `score_variants` has them. NaN where there is none.
    genome, fasta, region : optional
        The store that the region is in; a FASTA instead, such as of a designed sequence; the region, such as
        ``chr22:101-200``, 1-based and inclusive, which a FASTA of one record may go without.
    surroundings, person_vcf, sample, settings, force, progress : optional
        Sequence around it: ``reference``, ``population`` or ``person``; VCF with the person's genotypes; person's name;
        how the model is run; replace the output where it exists; show progress.

    Returns
    -------
    dict
        The output, its region and numbers of its positions, as of `write_tracks`.

    Raises
    ------
    InputError
        A region that is not in the genome or is all N, and an output that exists.

    Examples
    --------
    >>> report = mutbert.mutate_region("model", "region.parquet", genome="population.genome", region="chr1:101-120")
    >>> report["positions"]
    20
    """
    output, settings = Path(output), settings or PredictionSettings()
    if output.suffix != ".parquet":
        raise InputError(f"{output}: the table is Parquet; give a name that ends in .parquet")
    require("pyarrow")
    check_output(output, force=force, inputs=(model, genome, fasta, person_vcf))
    if fasta is not None and (surroundings != "reference" or sample or person_vcf):
        raise InputError(f"{fasta}: a sequence has no population; leave surroundings, sample and person_vcf out")
    if (genome is None) == (fasta is None):
        raise InputError("give either a genome (--genome) and a region of it (--region), or a FASTA (--fasta)")
    if fasta is not None:
        genome = ProbabilisticGenome.from_sequences(read_fasta(Path(fasta)), fasta)
        region = region or (next(iter(genome.lengths)) if len(genome.lengths) == 1 else None)
    elif not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(str(genome))
    if region is None:
        raise InputError(f"no region is given; give one, as in --region {next(iter(genome.lengths))}:101-200")
    place = Region.parse(str(region), genome.lengths)
    known = int((genome.bases(place.contig, place.start, place.end) != alphabet.UNKNOWN).sum())
    if not known:
        raise InputError(f"{place}: all {len(place):,} bases are N, so that there is nothing to mutate")
    around = run.open_surroundings(genome, surroundings, person_vcf, sample, contigs=[place.contig], progress=progress)
    classifier = open_classifier(model, around, settings)
    where = around.genome, settings
    predictor = OutputPredictor(classifier, *where) if classifier else BasePredictor(model, *where)
    number, at_once = list(genome.lengths).index(place.contig), predictor.windows_at_once(1)
    every_P = np.arange(place.start, place.end, dtype=np.int64)
    with progress_bar("mutagenesis", known, unit="positions", show=progress) as advance:
        parts = np.split(every_P, range(at_once, len(place), at_once))
        scores = pl.concat(predictor.predict(np.full_like(one_P, number), one_P, 1, advance) for one_P in parts)
    letters = list(alphabet.decode(scores["base"].to_numpy()))
    table = pl.DataFrame({"chrom": [place.contig] * len(place), "pos": every_P + 1, "ref": letters})
    table = table.hstack(scores.select(pl.exclude("base", "reference_probability", "best_alternate_llr")))
    metadata = {
        "mutbert_mutagenesis": "2", "region": str(place), "model": run.model_name(model),
        "surroundings": "sequence" if fasta is not None else surroundings, "context": str(predictor.context),
        "strands": str(predictor.settings.strands), **({} if sample is None else {"sample": sample}),
    }  # fmt: skip
    from pyarrow import parquet

    with atomic_file(output, force=force) as partial:
        parquet.write_table(table.to_arrow().replace_schema_metadata(metadata), partial)
    (first, last), length = place_windows(every_P[[0, -1]], genome.slots[number, 1], predictor.context)
    differing = around.count_differing([Region(place.contig, int(first), int(last + length))])
    counts = {"positions": len(place), **_unscored(scores.lazy()), "differing": differing}
    notes = {} if classifier is None else {"notes": classifier.notes}
    return {"output": output, "region": place, **counts, "not_used": around.not_used, **notes}


def _unscored(scores: pl.LazyFrame) -> dict[str, int]:
    """Return how many bases are N, without any value, and how many another ambiguous code, without comparisons."""
    unknown, others = pl.col("base") == alphabet.UNKNOWN, pl.col("base") >= len(alphabet.BASES)
    return scores.select(unknown=unknown.sum(), ambiguous=(others & ~unknown).sum()).collect().row(0, named=True)


def write_tracks(
    model: str | Path | MutBertForMaskedLM, genome: str | Path | ProbabilisticGenome, output: str | Path, *,
    tracks: Sequence[str] = ("entropy",), regions: Sequence[str | Region] = (), bed: str | Path | None = None,
    mask_every: int = 8, surroundings: str = "reference", person_vcf: str | Path | None = None,
    sample: str | None = None, settings: PredictionSettings | None = None,
    resume: bool = False, force: bool = False, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write what a model predicts at every base of a genome, or of some regions of it, for genome browsers.

    Parameters
    ----------
    model, genome
        A checkpoint, run on a GPU if there is one (in Python also a loaded model); a genome store.
    output : str or Path
        A ``.bw``, ``.bigwig``, ``.bedgraph`` or ``.bedgraph.gz`` file; of several tracks one each, ``NAME.TRACK.bw``.
    tracks : sequence of str
        ``entropy`` of the distribution over A, C, G, T in nats; ``reference_probability``; ``best_alternate_llr``, the
        greatest ln P(base) − ln P(reference base) of the other three.
    regions, bed : optional
        Such as ``chr22:101-200``, 1-based and inclusive, or ``chr22``; a BED file instead. By default all contigs.
    mask_every : int
        1 masks one base at a time, in the middle of its window; K above 1 masks one base in K, by default close to the
        fraction in training; 0 masks none.
    surroundings, person_vcf, sample, settings, resume, force, progress : optional
        What windows hold: ``reference``, ``population`` or ``person``; VCF with the person's genotypes; person's name;
        how the model is run; continue a run that was stopped; replace outputs where they exist; show progress.

    Returns
    -------
    dict
        The file of each track; numbers of contigs and bases, of those ``unknown`` (N), ``ambiguous`` (other codes) and
        ``differing`` between a person and the reference, and of the person's records ``not_used``, by reason.

    Raises
    ------
    InputError
        A region that is not in the genome, an unknown track or format, an output that exists.

    Examples
    --------
    >>> report = mutbert.write_tracks("model", "population.genome", "entropy.bedgraph", regions=["chr1:1-100"])
    >>> report["bases"]
    100
    """
    output, settings, regions = Path(output), settings or PredictionSettings(), listed(regions)
    outputs = _outputs(output, listed(tracks))
    if mask_every < 0:
        raise InputError(f"mask_every is {mask_every}; give 0 for none, 1 for one base at a time, or more")
    for path in outputs.values():
        resumes = force or (resume and was_stopped(path))
        check_output(path, force=resumes, inputs=(model, genome, bed, person_vcf))
    genome = genome if isinstance(genome, ProbabilisticGenome) else ProbabilisticGenome.open(genome)
    lengths, names = genome.lengths, list(genome.lengths)
    check_bigwig(output, lengths)
    if bed is not None and regions:
        raise InputError(f"{bed}: regions are given as well as a BED file; give one or the other")
    asked = read_bed(Path(bed), lengths) if bed else [Region.parse(str(one), lengths) for one in regions or lengths]
    merged = merge_regions(asked, names)
    contigs, bases = {region.contig for region in merged}, sum(map(len, merged))
    span_S3 = np.array([(names.index(region.contig), region.start, region.end) for region in merged], dtype=np.int64)
    if not (known := known_bases(genome, span_S3)):
        raise InputError(f"{output}: all {bases:,} bases that are asked for are N, so there is nothing to write")
    around = run.open_surroundings(genome, surroundings, person_vcf, sample, contigs=contigs, progress=progress)
    predictor = BasePredictor(model, around.genome, settings)
    plan = {
        "mutbert": mutbert.__version__, "model": run.model_hash(predictor.model), "genome": genome.identity,
        **asdict(predictor.settings), "context": predictor.context, "tracks": list(outputs),
        "regions": span_S3.tolist(), "mask_every": mask_every, "surroundings": surroundings, "sample": sample,
        "person_vcf": person_vcf and sha256_of(Path(person_vcf)),
    }  # fmt: skip
    # Windows of the grid lie half a context apart.
    stride = 1 if mask_every == 1 else max(predictor.context // 2, 1)
    work = f"{known:,} bases, about {-(-known // stride) * max(mask_every, 1):,} windows"
    with (
        parts_folder(output, plan, outputs.values(), resume=resume, force=force) as folder,
        progress_bar("tracks", known, unit="bases", work=work, show=progress) as advance,
    ):

        def compute(chunk_S3: Int64, path: Path) -> None:
            span_P, position_P = list_ranges(chunk_S3[:, 1], chunk_S3[:, 2])
            located = pl.Series("contig", chunk_S3[span_P, 0]), pl.Series("position", position_P)
            scores = predictor.predict(chunk_S3[span_P, 0], position_P, mask_every, advance)
            scores.select(*located, "base", *outputs).write_parquet(path)

        chunks = enumerate(_chunks(span_S3, stride, predictor.windows_at_once(mask_every)))
        parts = run_parts(folder, chunks, compute, skipped=lambda one: advance(known_bases(genome, one)))
        named = pl.col("contig").replace_strict(dict(enumerate(names)), return_dtype=pl.String)
        scans = [pl.scan_parquet(part).with_columns(named) for part in parts]
        with ExitStack() as stack:
            for track, path in outputs.items():
                write_track(stack.enter_context(atomic_file(path, force=force)), scans, track, lengths)
        counts = {"contigs": len(contigs), "bases": bases, **_unscored(pl.scan_parquet(parts))}
    return {"outputs": outputs, **counts, "differing": around.count_differing(merged), "not_used": around.not_used}


def known_bases(genome: ProbabilisticGenome, span_S3: Int64) -> int:
    """Return how many bases of spans, (S, 3), are not N, each of which takes a model's time."""
    names = list(genome.lengths)
    return sum(int(np.diff(genome.known_runs(names[number], *ends)).sum()) for number, *ends in span_S3.tolist())


def _outputs(output: Path, tracks: Sequence[str]) -> dict[str, Path]:
    """Return the file of each track."""
    length = next((len(suffix) for suffix in TRACK_FORMATS if output.name.lower()[1:].endswith(suffix)), 0)
    if not length:
        raise InputError(f"{output}: the suffix chooses the format; it must be one of {', '.join(TRACK_FORMATS)}")
    if not tracks or not set(tracks) <= set(TRACKS):
        raise InputError(f"tracks are {', '.join(tracks) or 'none'}; give some of {', '.join(TRACKS)}")
    if len(set(tracks)) == 1:
        return {tracks[0]: output}
    return {track: output.with_name(f"{output.name[:-length]}.{track}{output.name[-length:]}") for track in tracks}


def _chunks(span_S3: Int64, stride: int, most: int) -> Iterator[Int64]:
    """Yield spans as (S, 3) of contig, start and end, of so many windows of the grid, cut where a window begins."""
    start_S, end_S = span_S3[:, 1:].T
    # Windows are numbered over all spans.
    count_S = -(-end_S // stride) - start_S // stride
    before_S = np.cumsum(count_S) - count_S
    for first in range(0, int(count_S.sum()), most):
        cut_S = (start_S // stride + first - before_S) * stride
        begin_S, until_S = np.clip([cut_S, cut_S + most * stride], start_S, end_S)
        yield np.column_stack([span_S3[:, 0], begin_S, until_S])[begin_S < until_S]
