"""What a model says of alternate alleles, as numbers: log-likelihood ratios, entropies, distances of embeddings.

Shape suffixes: A alleles, F fields, P distinct positions, T bases that are read, S stretches that are read, D hidden
size, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from mutbert.effects.allele_windows import SnvWindows, haplotype_passes
from mutbert.effects.alleles import LONGEST, Alleles, Kind, Reason, find_alleles
from mutbert.encoders.inputs import PLACEMENTS, read_windows
from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.run import (
    NO_ROWS,
    Queries,
    Results,
    check_run,
    entropy,
    open_model,
    open_surroundings,
    resolve_context,
    rope_scaled,
    run_windows,
)
from mutbert.model import MutBertForMaskedLM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mutbert.arrays import Float32, Float64
    from mutbert.encoders.inputs import PaddedWindows
    from mutbert.inference.run import Surroundings
    from mutbert.progress import Advance

    Columns = Mapping[str, Float32 | Float64]

_OTHERS_AT_ONCE: Final = 64
_BASES_AT_ONCE: Final = 1 << 22


class Field(NamedTuple):
    """A number that an allele gets; `extreme` is −1 where low values are of interest, 1 where high ones, 0 neither."""

    name: str
    description: str
    extreme: int


FIELDS: Final = {
    "llr": (
        Field("LLR", "Masked log-likelihood ratio of an SNV, ln P(ALT) - ln P(REF) with the position masked; negative "
              "where the model expects REF", -1),
        Field("ENT", "Entropy in nats of the model's distribution over A, C, G, T at an SNV's position, masked", 0),
        Field("PLLR", "Pseudo-log-likelihood ratio of an MNV or indel: sum over its bases and their flanks, each "
              "masked in turn, of ln P + ln 4, ALT minus REF", -1),
    ),
    "unmasked": (
        Field("ULLR", "Unmasked log-likelihood ratio of an SNV, ln P(ALT) - ln P(REF) with the window as it is", -1),
    ),
    "distance": (
        Field("L2", "Euclidean distance of the embeddings at the variant, of the window with ALT and with REF", 1),
        Field("COS", "Cosine distance of the embeddings at the variant, of the window with ALT and with REF", 1),
        Field("L2_WINDOW", "Euclidean distance of the mean embeddings of the window with ALT and with REF", 1),
        Field("COS_WINDOW", "Cosine distance of the mean embeddings of the window with ALT and with REF", 1),
    ),
}  # fmt: skip
"""What each group of scores that can be asked for adds."""


@dataclass(frozen=True)
class ScoreSettings:
    """How alleles are scored."""

    # Groups of `FIELDS`.
    scores: tuple[str, ...] = ("llr",)
    # Bases of a window, by default as many as the model is trained for.
    context: int | None = None
    # As in `mutbert.encoders.inputs.place_windows`. SNVs of one shared window are masked together, at most as
    # large a share of it as in training; MNVs and indels are centred either way.
    windows: str = "centred"
    # "both" for the mean over a window and its reverse complement, or "forward".
    strands: str = "both"
    # Bases on either side of an MNV or indel that PLLR counts.
    flank: int = 8
    # Changed bases of an MNV or indel that is scored; at most `context` less both flanks.
    longest: int = LONGEST
    # Around the variant, over which L2_WINDOW and COS_WINDOW take the mean; by default the whole window.
    distance_bases: int | None = None
    # Windows that run at once, and in which precision: "fp32" or "bf16".
    batch_size: int = 32
    precision: str = "fp32"
    # Such as {"type": "dynamic", "factor": 2}, for a context longer than trained.
    rope_scaling: Mapping[str, Any] | None = None

    def check(self) -> None:
        """Raise an InputError where a setting is out of range."""
        unknown = [name for name in self.scores if name not in FIELDS]
        if unknown or not self.scores:
            raise InputError(f"scores has {unknown[0] if unknown else 'none'!r}; use some of {', '.join(FIELDS)}")
        if self.windows not in PLACEMENTS:
            raise InputError(f"windows is {self.windows!r}; it must be one of {', '.join(PLACEMENTS)}")
        check_run(self.strands, self.precision, self.batch_size)
        for name, least in (("flank", 0), ("longest", 1), ("distance_bases", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")

    def within(self, context: int) -> ScoreSettings:
        """Return the settings for windows of so many bases, with `longest` bounded by the room between flanks."""
        room = context - 2 * self.flank
        if room < 1:
            raise InputError(
                f"flank is {self.flank}, which leaves no room in a context of {context} bases; use a smaller one"
            )
        return replace(self, context=context, longest=min(self.longest, room))


class AlleleScorer:
    """What scorers have in common; those of a model have `_snvs` and `_others`, which return columns by field."""

    fields: tuple[Field, ...]
    model: Any

    def __init__(self, genome: ProbabilisticGenome, settings: ScoreSettings, context: int) -> None:
        self.genome, self.settings, self.context = genome, settings.within(context), context
        self._length = np.array(list(genome.lengths.values()), dtype=np.int64)
        self._at_once = _BASES_AT_ONCE // context + 1, _BASES_AT_ONCE // context + 1

    def find(
        self, contigs: Sequence[str], positions: Sequence[int], references: Sequence[str], alternates: Sequence[str]
    ) -> Alleles:
        """Return what each alternate allele changes, as `mutbert.effects.alleles.find_alleles` does."""
        return find_alleles(self.genome, contigs, positions, references, alternates, longest=self.settings.longest)

    def score(self, alleles: Alleles, advance: Advance | None = None) -> Float32:
        """Return scores, shape (A, F), in the order of `fields`; NaN where an allele has no such score."""
        score_AF = np.full((len(alleles), len(self.fields)), np.nan, dtype=np.float32)
        scored_A, snv_A = alleles.reason_A == Reason.SCORED, alleles.kind_A == Kind.SNV
        advance = advance or (lambda _, /, note="": None)  # noqa: ARG005
        advance(int((~scored_A).sum()))
        kinds = ((scored_A & snv_A, self._snvs), (scored_A & ~snv_A, self._others))
        for (chosen_A, score), at_once in zip(kinds, self._at_once, strict=True):
            every = np.flatnonzero(chosen_A)
            for rows in np.split(every, range(at_once, len(every), at_once)):
                columns = score(alleles.take(rows), advance) if len(rows) else {}
                for number, field in enumerate(self.fields):
                    if field.name in columns:
                        score_AF[rows, number] = columns[field.name]
        return score_AF

    def _snvs(self, alleles: Alleles, advance: Advance) -> Columns:
        raise NotImplementedError

    def _others(self, alleles: Alleles, advance: Advance) -> Columns:
        raise NotImplementedError


class Scorer(AlleleScorer):
    """Scores alleles of a genome with a model, which runs on its device and is left as it was.

    A score depends on its allele, the surroundings and the settings. With shared windows it also depends on which other
    alleles of the window are scored in the same call, since they are masked together. `fields` are the columns of
    `score`; `stride` is the step of the grid of shared windows, else ``None``.
    """

    def __init__(
        self, model: MutBertForMaskedLM, genome: ProbabilisticGenome, surroundings: Surroundings,
        settings: ScoreSettings,
    ) -> None:  # fmt: skip
        settings.check()
        super().__init__(genome, settings, resolve_context(model.config, settings.context, settings.rope_scaling))
        self.model, self.surroundings = model, surroundings
        self.fields = tuple(field for name in FIELDS if name in settings.scores for field in FIELDS[name])
        self.stride = max(self.context // 2, 1) if settings.windows == "shared" else None
        # SNVs of a shared window stay together; MNVs and indels have many windows each.
        self._at_once = sys.maxsize, _OTHERS_AT_ONCE

    def score(self, alleles: Alleles, advance: Advance | None = None) -> Float32:
        """Return scores, shape (A, F), in the order of `fields`; NaN where an allele has no such score."""
        with rope_scaled(self.model.config, self.settings.rope_scaling):
            return super().score(alleles, advance)

    def _snvs(self, alleles: Alleles, advance: Advance) -> Columns:
        windows = SnvWindows(alleles, self._length, self.context, self.settings.windows)
        plain = read_windows(self.surroundings.genome, windows.contig_W, windows.start_W, windows.length_W)
        columns: dict[str, Float32 | Float64] = {}
        every, share = np.arange(len(alleles)), len(alleles) / len(set(self.settings.scores))
        for name in set(self.settings.scores):
            if name == "distance":
                passes, *stretches = windows.sides(plain, alleles, self.settings.distance_bases)
                columns |= distances(self._run(passes, Queries(NO_ROWS, NO_ROWS, *stretches), share, advance).state_SD)
                continue
            passes, pass_P = plain, windows.window_P
            if name == "llr":
                passes, pass_P = windows.masked(plain, together=self.stride is not None)
            logit_P4 = self._run(passes, Queries(pass_P, windows.column_P), share, advance).logit_T4
            logit_A4 = logit_P4[windows.position_A]
            ratio_A = logit_A4[every, alleles.alternate_A] - logit_A4[every, alleles.reference_A]
            if name == "llr":
                columns["ENT"] = entropy(logit_P4)[windows.position_A]
            columns["LLR" if name == "llr" else "ULLR"] = ratio_A
        return columns

    def _others(self, alleles: Alleles, advance: Advance) -> Columns:
        asked = {"llr", "distance"} & set(self.settings.scores)
        if not asked:
            advance(len(alleles))
            return {}
        flank, wide, share = self.settings.flank, self.settings.distance_bases, len(alleles) / len(asked)
        both = haplotype_passes(self.surroundings.genome, alleles, self._length, self.context, flank, wide)
        columns: dict[str, Float32 | Float64] = {}
        if "llr" in asked:
            reads = Queries(np.arange(len(both.row_T)), both.column_T)
            columns["PLLR"] = both.ratio(self._run(both.masked(), reads, share, advance).logit_T4)
        if "distance" in asked:
            reads = Queries(NO_ROWS, NO_ROWS, both.row_S, both.begin_S, both.end_S)
            columns |= distances(self._run(both.windows, reads, share, advance).state_SD)
        return columns

    def _run(self, passes: PaddedWindows, reads: Queries, share: float, advance: Advance) -> Results:
        settings, share = self.settings, share / max(len(passes), 1)
        return run_windows(
            self.model, passes, reads, batch_size=settings.batch_size, precision=settings.precision,
            strands=settings.strands, advance=lambda done, /, note="": advance(done * share, note),
        )  # fmt: skip


def distances(state_SD: Float32) -> dict[str, Float64]:
    """Return distances of states: at the variants with REF, over their windows with REF, then both with ALT.

    Cosine distance is half the squared distance of the unit vectors, which keeps its digits where they hardly differ.
    """
    state_4AD = state_SD.astype(np.float64).reshape(4, -1, state_SD.shape[1])
    unit_4AD = state_4AD / np.maximum(np.linalg.norm(state_4AD, axis=2, keepdims=True), np.finfo(np.float64).tiny)
    square_2A, half_2A = (((one[:2] - one[2:]) ** 2).sum(axis=2) for one in (state_4AD, unit_4AD))
    names = [field.name for field in FIELDS["distance"]]
    values = np.stack([np.sqrt(square_2A), half_2A / 2], axis=1).reshape(4, -1)
    return dict(zip(names, values, strict=True))


def open_scorer(
    model: str | Path | MutBertForMaskedLM, genome: str | Path | ProbabilisticGenome, *,
    surroundings: str = "reference", person_vcf: Path | None = None, sample: str | None = None,
    settings: ScoreSettings = ScoreSettings(), progress: bool = False,
) -> Scorer:  # fmt: skip
    """Return a scorer; a checkpoint is read to a GPU where there is one, a loaded model runs where it is.

    `surroundings` is ``"reference"``, ``"population"`` or ``"person"``, with the file of the person's genotypes and the
    sample's name in it.
    """
    settings.check()
    if not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(genome)
    around_variants = open_surroundings(genome, surroundings, vcf=person_vcf, sample=sample, progress=progress)
    return Scorer(open_model(model, MutBertForMaskedLM), genome, around_variants, settings)
