"""What a model says of alternate alleles, as numbers: log-likelihood ratios, entropies, distances of embeddings.

Shape suffixes: A alleles, F fields, T bases and S spans that are read, D hidden size, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from mutbert.effects.alleles import (
    LONGEST,
    Alleles,
    Haplotypes,
    Kind,
    Reason,
    find_alleles,
    read_haplotypes,
    snv_windows,
)  # fmt: skip
from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.opening import check_run, open_model, resolve_context, rope_scaled
from mutbert.inference.run import PaddedWindows, Queries, Results, entropy, run_windows
from mutbert.inference.surroundings import PLACEMENTS, Surroundings, open_surroundings
from mutbert.model import MutBertForMaskedLM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mutbert.arrays import Float32, Float64
    from mutbert.progress import Advance


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

    scores: tuple[str, ...] = ("llr",)  # groups of `FIELDS`
    context: int | None = None  # bases of a window, by default as many as the model is trained for
    # As in `place_windows`. SNVs of one shared window are masked together, at most as large a share of it as in
    # training; MNVs and indels are centred either way.
    windows: str = "centred"
    strands: str = "both"  # the mean over a window and its reverse complement, or "forward"
    flank: int = 8  # bases on either side of an MNV or indel that PLLR counts
    longest: int = LONGEST  # changed bases of an MNV or indel that is scored; at most `context` less both flanks
    distance_bases: int | None = None  # around the variant, whose mean L2_WINDOW and COS_WINDOW compare; by default all
    batch_size: int = 32  # windows
    precision: str = "fp32"  # or "bf16"
    # Such as {"type": "dynamic", "factor": 2}, for a context longer than trained.
    rope_scaling: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.scores if name not in FIELDS]
        if unknown or not self.scores:
            raise InputError(f"scores has {unknown[0] if unknown else 'none'!r}; use some of {', '.join(FIELDS)}")
        if self.windows not in PLACEMENTS:
            raise InputError(f"windows is {self.windows!r}; it must be one of {', '.join(PLACEMENTS)}")
        check_run(self.strands, self.precision, self.batch_size)
        for name, least in (("flank", 0), ("longest", 1), ("distance_bases", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")

    def within(self, context: int) -> ScoreSettings:
        """Return the settings for windows of so many bases, with `longest` bounded by the room between flanks."""
        room = context - 2 * self.flank
        if room < 1:
            raise InputError(
                f"flank is {self.flank}, which leaves no room in a context of {context} bases; use a smaller one"
            )
        return replace(self, context=context, longest=min(self.longest, room))


class Scorer:
    """Scores alleles of a genome with a model, which runs on its device and is left as it was.

    A score depends on its allele, the surroundings and the settings. With shared windows it also depends on which other
    alleles of the window are scored in the same call, since they are masked together. `fields` are the columns of
    `score`.
    """

    # SNVs, and other alleles, whose windows are in memory at once. SNVs of a shared window stay together.
    at_once = sys.maxsize, 64

    def __init__(
        self, model: MutBertForMaskedLM, genome: ProbabilisticGenome, surroundings: Surroundings,
        settings: ScoreSettings,
    ) -> None:  # fmt: skip
        fields = [field for name in FIELDS if name in settings.scores for field in FIELDS[name]]
        context = resolve_context(model.config, settings.context, settings.rope_scaling)
        self._set(model, genome, surroundings, settings, context, fields)

    def _set(
        self, model: Any, genome: ProbabilisticGenome, surroundings: Surroundings, settings: ScoreSettings,
        context: int, fields: Sequence[Field],
    ) -> None:  # fmt: skip
        self.model, self.genome, self.surroundings = model, genome, surroundings
        self.settings, self.context, self.fields = settings.within(context), context, tuple(fields)

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
        for chosen_A, at_once in zip((scored_A & snv_A, scored_A & ~snv_A), self.at_once, strict=True):
            every = np.flatnonzero(chosen_A)
            for rows in np.split(every, range(at_once, len(every), at_once)) if len(every) else ():
                columns = self._columns(alleles.take(rows), advance)
                for number, field in enumerate(self.fields):
                    if field.name in columns:
                        score_AF[rows, number] = columns[field.name]
        return score_AF

    def _columns(self, alleles: Alleles, advance: Advance) -> dict[str, Float32 | Float64]:
        """Return the scores of SNVs, or of other alleles, by field."""
        snvs, every = alleles.kind_A[0] == Kind.SNV, np.arange(len(alleles))
        columns: dict[str, Float32 | Float64] = {}
        groups = [name for name in FIELDS if set(FIELDS[name]) & set(self.fields)]
        # Of a group of scores, 1 is all that there is to do.
        advance = scaled(advance, len(alleles) / len(groups))
        for name in groups:
            if name == "distance":
                both = self._haplotypes(alleles, self.settings.windows if snvs else "centred")
                columns |= distances(self._states(both.windows, both.spans(self.settings.distance_bases), advance))
            elif snvs:
                logit_A4 = self._logits(alleles, advance, masked=name == "llr")
                ratio_A = logit_A4[every, alleles.alternate_A] - logit_A4[every, alleles.reference_A]
                columns |= {"LLR": ratio_A, "ENT": entropy(logit_A4)} if name == "llr" else {"ULLR": ratio_A}
            elif name == "llr" and any(field.name == "PLLR" for field in self.fields):
                both = self._haplotypes(alleles, "centred")
                columns["PLLR"] = both.pseudo_ratios(self.settings.flank, partial(self._run, advance=advance))
            else:
                advance(1)
        return columns

    def _haplotypes(self, alleles: Alleles, placement: str) -> Haplotypes:
        return read_haplotypes(self.surroundings.genome, alleles, self.context, placement)

    def _logits(self, alleles: Alleles, advance: Advance, *, masked: bool) -> Float32:
        """Return logits of A, C, G and T at SNVs, (A, 4)."""
        where = self.context, self.settings.windows
        passes, queries, position_A = snv_windows(self.surroundings.genome, alleles, *where, masked=masked)
        return self._run(passes, queries, advance).logit_T4[position_A]

    def _states(self, windows: PaddedWindows, queries: Queries, advance: Advance) -> Float32:
        """Return the mean hidden states of the spans of `Haplotypes.spans`, (S, D)."""
        return self._run(windows, queries, advance).state_SD

    def _run(self, passes: PaddedWindows, queries: Queries, advance: Advance) -> Results:
        with rope_scaled(self.model.config, self.settings.rope_scaling):
            return run_windows(self.model, passes, queries, **self._how(len(passes), advance))

    def _how(self, passes: int, advance: Advance) -> dict[str, Any]:
        """Return how batches are run."""
        how = {name: getattr(self.settings, name) for name in ("strands", "batch_size", "precision")}
        return how | {"advance": scaled(advance, 1 / max(passes, 1))}


def scaled(advance: Advance, factor: float) -> Advance:
    """Return a callback that advances by `factor` for each unit."""
    return lambda amount, /, note="": advance(amount * factor, note)


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
    if not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(genome)
    around_variants = open_surroundings(genome, surroundings, vcf=person_vcf, sample=sample, progress=progress)
    return Scorer(open_model(model, MutBertForMaskedLM), genome, around_variants, settings)
