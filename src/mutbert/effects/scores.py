"""What a model says of alternate alleles, as numbers: log-likelihood ratios, entropies, distances of embeddings.

Shape suffixes: A alleles, F fields, P distinct positions, W distinct windows, N passes, T bases that are read, S
stretches that are read, D hidden size, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from mutbert.effects.alleles import LONGEST, Alleles, Kind, Reason, find_alleles
from mutbert.effects.haplotypes import FLANK, haplotype_passes
from mutbert.effects.snv_windows import SnvWindows
from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.opening import check_run, open_model, resolve_context, rope_scaled
from mutbert.inference.run import NO_ROWS, PaddedWindows, Queries, Results, entropy, run_windows
from mutbert.inference.surroundings import PLACEMENTS, open_surroundings, read_windows
from mutbert.model import MutBertForMaskedLM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mutbert.arrays import Float32, Float64, Int64
    from mutbert.inference.surroundings import Surroundings
    from mutbert.progress import Advance

    Columns = dict[str, Float32 | Float64]

SCORES: Final = ("llr", "unmasked", "distance")
"""Groups of scores that can be asked for."""
_OTHERS_AT_ONCE: Final = 64


class Field(NamedTuple):
    """A number that an allele gets; `extreme` is −1 where low values are of interest, 1 where high ones, 0 neither."""

    name: str
    description: str
    extreme: int


_OF_GROUP: Final = {
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
DISTANCES: Final = _OF_GROUP["distance"]


@dataclass(frozen=True)
class ScoreSettings:
    """How alleles are scored.

    Of `SCORES`, ``"llr"`` adds LLR and ENT of SNVs and PLLR of MNVs and indels, ``"unmasked"`` ULLR of SNVs, and
    ``"distance"`` L2, COS, L2_WINDOW and COS_WINDOW of all. Windows have `context` bases, by default as many as the
    model is trained for, ``"centred"`` or ``"shared"`` as in `mutbert.inference.surroundings.place_windows`. Shared,
    SNVs of one window are masked together, at most as large a share of it as in training; MNVs and indels are centred
    either way. Strands are ``"both"``, for the mean over a window and its reverse complement, or ``"forward"``.

    PLLR counts `flank` bases on either side of an MNV or indel. Those of more changed bases than `longest` are not
    scored; it is at most `context` less both flanks. L2_WINDOW and COS_WINDOW take the mean over `distance_bases`
    around the variant, by default over the whole window. `batch_size` windows run at once, in `precision` ``"fp32"`` or
    ``"bf16"``; `rope_scaling`, such as ``{"type": "dynamic", "factor": 2}``, serves a context longer than trained.
    """

    scores: tuple[str, ...] = ("llr",)
    context: int | None = None
    windows: str = "centred"
    strands: str = "both"
    flank: int = FLANK
    longest: int = LONGEST
    distance_bases: int | None = None
    batch_size: int = 32
    precision: str = "fp32"
    rope_scaling: Mapping[str, Any] | None = None

    def check(self) -> None:
        """Raise an InputError where a setting is out of range."""
        unknown = [name for name in self.scores if name not in SCORES]
        if unknown or not self.scores:
            raise InputError(f"scores has {unknown[0] if unknown else 'none'!r}; give some of {', '.join(SCORES)}")
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
                f"flank is {self.flank}, which leaves no room in a context of {context} bases; give a smaller one"
            )
        return replace(self, context=context, longest=min(self.longest, room))


class Scorer:
    """Scores alleles of a genome with a model, which runs on its device and is left as it was.

    A score depends on its allele, the surroundings and the settings. With shared windows it also depends on which other
    alleles of the window are scored in the same call, since they are masked together. `fields` are the columns of
    `score`; `stride` is the step of the grid of shared windows, else ``None``.
    """

    def __init__(
        self,
        model: MutBertForMaskedLM,
        genome: ProbabilisticGenome,
        surroundings: Surroundings,
        settings: ScoreSettings,
    ) -> None:
        settings.check()
        self._context = resolve_context(model.config, settings.context, settings.rope_scaling)
        self.model, self.genome, self.surroundings = model, genome, surroundings
        self.settings = settings.within(self._context)
        self.fields = tuple(field for name in SCORES if name in settings.scores for field in _OF_GROUP[name])
        self.stride = max(self._context // 2, 1) if settings.windows == "shared" else None
        self._length = np.array(list(surroundings.genome.lengths.values()), dtype=np.int64)

    def find(
        self, contigs: Sequence[str], positions: Sequence[int], references: Sequence[str], alternates: Sequence[str]
    ) -> Alleles:
        """Return what each alternate allele changes, as `mutbert.effects.alleles.find_alleles` does."""
        return find_alleles(self.genome, contigs, positions, references, alternates, longest=self.settings.longest)

    def score(self, alleles: Alleles, advance: Advance | None = None) -> Float32:
        """Return scores, shape (A, F), in the order of `fields`; NaN where an allele has no such score."""
        score_AF = np.full((len(alleles), len(self.fields)), np.nan, dtype=np.float32)
        scored_A, snv_A = alleles.reason_A == Reason.SCORED, alleles.kind_A == Kind.SNV
        others = np.flatnonzero(scored_A & ~snv_A & bool({"llr", "distance"} & set(self.settings.scores)))
        # MNVs and indels have many windows each.
        parts = [
            np.flatnonzero(scored_A & snv_A),
            *np.split(others, range(_OTHERS_AT_ONCE, len(others), _OTHERS_AT_ONCE)),
        ]
        if advance is not None:
            advance(len(alleles) - sum(map(len, parts)))
        with rope_scaled(self.model.config, self.settings.rope_scaling):
            for rows, score in zip(parts, (self._snvs, *[self._others] * len(parts)), strict=False):
                if len(rows):
                    put_columns(score_AF, rows, self.fields, score(alleles.take(rows), advance))
        return score_AF

    def _snvs(self, alleles: Alleles, advance: Advance | None) -> Columns:
        windows = SnvWindows(alleles, self._length, self._context, self.settings.windows)
        plain = read_windows(self.surroundings.genome, windows.contig_W, windows.start_W, windows.length_W)
        columns: Columns = {}
        every = np.arange(len(alleles))
        for name in self.settings.scores:
            if name == "distance":
                passes, *stretches = windows.sides(plain, alleles, self.settings.distance_bases)
                columns |= distances(
                    self._run(passes, Queries(NO_ROWS, NO_ROWS, *stretches), len(alleles), advance).state_SD
                )
                continue
            masked = (
                windows.masked(plain, together=self.stride is not None) if name == "llr" else (plain, windows.window_P)
            )
            logit_P4 = self._run(masked[0], Queries(masked[1], windows.column_P), len(alleles), advance).logit_T4
            logit_A4 = logit_P4[windows.position_A]
            ratio_A = logit_A4[every, alleles.alternate_A] - logit_A4[every, alleles.reference_A]
            columns |= (
                {"LLR": ratio_A, "ENT": entropy(logit_P4)[windows.position_A]} if name == "llr" else {"ULLR": ratio_A}
            )
        return columns

    def _others(self, alleles: Alleles, advance: Advance | None) -> Columns:
        flank, wide = self.settings.flank, self.settings.distance_bases
        both = haplotype_passes(self.surroundings.genome, alleles, self._length, self._context, flank, wide)
        columns: Columns = {}
        if "llr" in self.settings.scores:
            reads = Queries(np.arange(len(both.row_T)), both.column_T)
            columns["PLLR"] = both.ratio(self._run(both.masked(), reads, len(alleles), advance).logit_T4)
        if "distance" in self.settings.scores:
            reads = Queries(NO_ROWS, NO_ROWS, both.row_S, both.begin_S, both.end_S)
            columns |= distances(self._run(both.windows, reads, len(alleles), advance).state_SD)
        return columns

    def _run(self, passes: PaddedWindows, reads: Queries, alleles: int, advance: Advance | None) -> Results:
        share = alleles / max(len(passes), 1) / len(self.settings.scores)
        return run_windows(
            self.model,
            passes,
            reads,
            batch_size=self.settings.batch_size,
            precision=self.settings.precision,
            strands=self.settings.strands,
            advance=None if advance is None else lambda done, /, note="": advance(done * share, note),
        )


def put_columns(score_AF: Float32, rows: Int64, fields: Sequence[Field], columns: Mapping[str, Any]) -> None:
    """Write the columns of some alleles into their scores; a field without a column stays as it is."""
    for number, field in enumerate(fields):
        if field.name in columns:
            score_AF[rows, number] = columns[field.name]


def distances(state_SD: Float32) -> Columns:
    """Return distances of states: at the variants with REF, over their windows with REF, then both with ALT."""
    at, over, other_at, other_over = state_SD.astype(np.float64).reshape(4, -1, state_SD.shape[1])
    return {
        "L2": _euclidean(at, other_at),
        "COS": _cosine(at, other_at),
        "L2_WINDOW": _euclidean(over, other_over),
        "COS_WINDOW": _cosine(over, other_over),
    }


def _euclidean(one_AD: Float64, other_AD: Float64) -> Float64:
    distance_A: Float64 = np.sqrt(((one_AD - other_AD) ** 2).sum(axis=1))
    return distance_A


def _cosine(one_AD: Float64, other_AD: Float64) -> Float64:
    # Half the squared distance of the unit vectors keeps its digits where they hardly differ.
    tiny = np.finfo(np.float64).tiny
    one, other = (side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), tiny) for side in (one_AD, other_AD))
    distance_A: Float64 = ((one - other) ** 2).sum(axis=1) / 2
    return distance_A


def open_scorer(
    model: str | Path | MutBertForMaskedLM,
    genome: str | Path | ProbabilisticGenome,
    *,
    surroundings: str = "reference",
    person_vcf: Path | None = None,
    sample: str | None = None,
    settings: ScoreSettings | None = None,
    progress: bool = False,
) -> Scorer:
    """Return a scorer; a checkpoint is read to a GPU where there is one, a loaded model runs where it is.

    `surroundings` is ``"reference"``, ``"population"`` or ``"person"``, with the file of the person's genotypes and the
    sample's name in it.
    """
    settings = settings or ScoreSettings()
    settings.check()
    if not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(genome)
    around_variants = open_surroundings(genome, surroundings, vcf=person_vcf, sample=sample, progress=progress)
    return Scorer(open_model(model, MutBertForMaskedLM), genome, around_variants, settings)


def model_hash(model: Any) -> str:
    """Return the SHA-256 of a loaded model's weights and configuration, in whatever files they were."""
    origin = {"_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"}
    config = {name: value for name, value in model.config.to_dict().items() if name not in origin}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
