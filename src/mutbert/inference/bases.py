"""What a model predicts at single bases of a genome, masked or not, and every substitution at every base of a region.

Shape suffixes: P positions, W windows, N passes, L length in bases, E edits, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from mutbert import alphabet
from mutbert.encoders.inputs import MASKED, place_windows, read_windows
from mutbert.errors import InputError, require
from mutbert.files import atomic_file, check_output
from mutbert.genome.fasta import read_fasta
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.run import (
    Queries,
    base_log_probabilities,
    check_run,
    entropy,
    model_name,
    on_disk,
    open_model,
    open_surroundings,
    resolve_context,
    rope_scaled,
    run_windows,
)
from mutbert.model import MutBertForMaskedLM
from mutbert.progress import progress_bar
from mutbert.regions import Region

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mutbert.arrays import Float32, Int64, UInt8
    from mutbert.progress import Advance


@dataclass(frozen=True)
class PredictionSettings:
    """How bases are predicted."""

    context: int | None = None  # bases of a window; as many as in training where left out
    strands: str = "both"
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
        check_run(settings.strands, settings.precision, settings.batch_size)
        self.model = open_model(model, MutBertForMaskedLM)
        self.context = resolve_context(self.model.config, settings.context, settings.rope_scaling)
        self._genome, self._settings = genome, settings
        self._length = np.array(list(genome.lengths.values()), dtype=np.int64)

    def windows_at_once(self, mask_every: int) -> int:
        """Return how many windows' positions one call should ask for, so that its memory is bounded."""
        return max(self._settings.bases_at_once // (self.context * max(mask_every, 1)), 1)

    def predict(self, contig_P: Int64, position_P: Int64, mask_every: int, advance: Advance) -> pl.DataFrame:
        """Return `score_bases` at 0-based positions of contigs, by the contigs' numbers in the genome's order.

        With `mask_every` 1, each position is masked alone, in the middle of a window of its own. Else windows lie on a
        grid half a context apart. With K above 1 they have K passes each, of which pass r masks all positions but N
        whose remainder by K is r, and a position is read where it is masked; with 0, one pass, with nothing masked.
        """
        alone, phases = mask_every == 1, max(mask_every, 1)
        length_P = self._length[contig_P]
        start_P, _ = place_windows(position_P, length_P, self.context, "centred" if alone else "shared")
        # Centred windows of two positions near a contig's end may be one, but have different masks.
        keys = np.stack([contig_P, start_P, position_P] if alone else [contig_P, start_P])
        (contig_W, start_W, *_), window_P = np.unique(keys, axis=1, return_inverse=True)
        windows = read_windows(self._genome, contig_W, start_W, np.minimum(self.context, self._length[contig_W]))
        window_P, column_P = window_P.reshape(-1), position_P - start_P
        base_P = windows.code_NL[window_P, column_P]
        known = np.flatnonzero(base_P != alphabet.UNKNOWN)
        logit_P4 = np.full((len(position_P), len(alphabet.BASES)), np.nan, dtype=np.float32)
        advance(len(position_P) - len(known))
        if not len(known):
            return score_bases(base_P, logit_P4)
        # With one phase, the remainder is 0.
        pass_N, row_K = np.unique(window_P[known] * phases + position_P[known] % phases, return_inverse=True)
        passes = windows.take(pass_N // phases)
        if alone:
            passes = passes.with_codes(row_K, column_P[known], MASKED)
        elif mask_every:
            phase_N = (pass_N - start_W[pass_N // phases]) % phases
            chosen_NL = (np.arange(passes.code_NL.shape[1]) - phase_N[:, None]) % phases == 0
            row_E, column_E = np.nonzero(chosen_NL & (passes.code_NL != alphabet.UNKNOWN) & passes.inside_NL)
            passes = passes.with_codes(row_E, column_E, MASKED)
        share, done = len(known) / len(passes), 0.0

        def in_bases(windows: float, /, note: str = "") -> None:
            nonlocal done
            before, done = done, done + windows * share
            advance(round(done) - round(before), note)

        run = {name: getattr(self._settings, name) for name in ("strands", "batch_size", "precision")}
        with rope_scaled(self.model.config, self._settings.rope_scaling):
            queries = Queries(row_K, column_P[known])
            logit_P4[known] = run_windows(self.model, passes, queries, **run, advance=in_bases).logit_T4
        return score_bases(base_P, logit_P4)


def score_bases(base_P: UInt8, logit_P4: Float32) -> pl.DataFrame:
    """Return a row a position: the reference's ``base`` code, and the scores of `mutate_region` and `write_tracks`.

    Logits of A, C, G and T are NaN where the reference is N, and so is all that compares with a reference that is no
    single base.
    """
    probability_P4, bases = np.exp(base_log_probabilities(logit_P4)).astype(np.float32), len(alphabet.BASES)
    # NaN past the four bases.
    reference_P, chance_P = (
        np.pad(value_P4, ((0, 0), (0, 1)), constant_values=np.nan)[np.arange(len(base_P)), np.minimum(base_P, bases)]
        for value_P4 in (logit_P4, probability_P4)
    )
    ratio_P4 = logit_P4 - reference_P[:, None]
    alternate_P = np.where(base_P[:, None] == np.arange(bases), -np.inf, ratio_P4).max(axis=1).astype(np.float32)
    columns = {"base": base_P}
    for kind, value_P4 in (("llr", ratio_P4), ("probability", probability_P4)):
        columns |= {f"{kind}_{base}": value_P for base, value_P in zip(alphabet.BASES, value_P4.T, strict=True)}
    columns |= {"entropy": entropy(logit_P4).astype(np.float32)}
    return pl.DataFrame({**columns, "reference_probability": chance_P, "best_alternate_llr": alternate_P})


@dataclass(frozen=True)
class MutagenesisReport:
    """What `mutate_region` wrote: the table, its region, and its rows."""

    output: Path
    region: Region
    positions: int
    unknown: int  # N, without values
    ambiguous: int  # another IUPAC code, with probabilities alone
    differing: int | None  # in a person's windows, not the reference's
    not_used: Mapping[str, int]  # of the person's records, by reason


def mutate_region(
    model: str | Path | MutBertForMaskedLM, output: str | Path, *,
    genome: str | Path | ProbabilisticGenome | None = None, sequence: str | Path | None = None,
    region: str | Region | None = None, surroundings: str = "reference", person_vcf: str | Path | None = None,
    sample: str | None = None, settings: PredictionSettings | None = None, force: bool = False, progress: bool = False,
) -> MutagenesisReport:  # fmt: skip
    """Write a model's scores of every substitution at every position of a region, each position masked in turn.

    Parameters
    ----------
    model : str, Path or MutBertForMaskedLM
        A checkpoint, read to a GPU if there is one; or a loaded model, which runs where it is.
    output : str or Path
        A ``.parquet`` table with a row a position: ``contig``, ``start`` (0-based), ``reference`` (its base); ``llr_A``
        to ``llr_T``, ln P(base) − ln P(reference); ``probability_A`` to ``probability_T``, as if there were no other
        token; ``entropy`` of these, in nats. NaN where there is none.
    genome, sequence, region : optional
        A store and a region of it, as in ``chr22:101-200``, 1-based and both ends included; or instead a FASTA, whose
        region may be left out if it has one record.
    surroundings, person_vcf, sample : optional
        What surrounds the position: the ``"reference"``, the ``"population"``'s frequencies, or the genotypes of one
        ``"person"``, `sample` of `person_vcf`.
    settings, force, progress : optional
        How the model is run; replace `output` where it exists; show progress.
    """
    output, settings = Path(output), settings or PredictionSettings()
    if output.suffix != ".parquet":
        raise InputError(f"{output}: the table is Parquet; give a name that ends in .parquet")
    require("pyarrow", "embed")
    check_output(output, force=force, inputs=on_disk(model, genome, sequence, person_vcf))
    if sequence is not None and (surroundings != "reference" or sample or person_vcf):
        raise InputError(f"{sequence}: a sequence has no population and no persons; leave surroundings, sample and "
                         "person_vcf out")  # fmt: skip
    opened, place = _open_region(genome, sequence, region)
    contigs = [place.contig]
    around = open_surroundings(opened, surroundings, vcf=person_vcf, sample=sample, contigs=contigs, progress=progress)
    predictor = BasePredictor(model, around.genome, settings)
    number, at_once = list(opened.lengths).index(place.contig), predictor.windows_at_once(1)
    every_P = np.arange(place.start, place.end, dtype=np.int64)
    with progress_bar("mutagenesis", len(place), unit="positions", show=progress) as advance:
        frames = [
            predictor.predict(np.full_like(position_P, number), position_P, 1, advance)
            for position_P in np.split(every_P, range(at_once, len(place), at_once))
        ]
    scores = pl.concat(frames)
    reference = np.array(list(alphabet.IUPAC))[scores["base"]]
    table = pl.DataFrame({"contig": [place.contig] * len(place), "start": every_P, "reference": reference})
    table = table.hstack(scores.select(pl.col("^llr_.$", "^probability_.$", "entropy")))
    metadata = {
        "mutbert_mutagenesis": "1", "region": str(place), "model": model_name(model),
        "surroundings": "sequence" if sequence is not None else surroundings, "context": str(predictor.context),
        "strands": settings.strands, **({} if sample is None else {"sample": sample}),
    }  # fmt: skip
    from pyarrow import parquet

    with atomic_file(output, force=force) as partial:
        parquet.write_table(table.to_arrow().replace_schema_metadata(metadata), partial)
    unknown = int((table["reference"] == "N").sum())
    ambiguous = int((~table["reference"].is_in(list(alphabet.BASES))).sum()) - unknown
    ends = np.array([place.start, place.end - 1])
    start_2, length_2 = place_windows(ends, np.full(2, opened.lengths[place.contig]), predictor.context)
    differing = around.count_differing([Region(place.contig, int(start_2[0]), int(start_2[1] + length_2[1]))])
    return MutagenesisReport(output, place, len(place), unknown, ambiguous, differing, around.not_used)


def _open_region(
    genome: str | Path | ProbabilisticGenome | None, sequence: str | Path | None, region: str | Region | None
) -> tuple[ProbabilisticGenome, Region]:
    """Return a genome, or a FASTA as one, and the region of it."""
    if (genome is None) == (sequence is None):
        given = "nothing to mutate is" if genome is None else "both a genome and a sequence are"
        raise InputError(f"{given} given; give either a genome (--genome) and a region of it (--region), or a FASTA "
                         "(--sequence)")  # fmt: skip
    if sequence is not None:
        genome = ProbabilisticGenome.from_sequences(read_fasta(Path(sequence)), sequence)
        region = region or (next(iter(genome.lengths)) if len(genome.lengths) == 1 else None)
    elif not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(str(genome))
    if region is None:
        raise InputError(f"no region is given; give one, as in --region {next(iter(genome.lengths))}:101-200")
    place = Region.parse(str(region), genome.lengths)
    if not len(genome.known_runs(place.contig, place.start, place.end)):
        raise InputError(f"{place}: all {len(place):,} bases are N, so that there is nothing to mutate")
    return genome, place
