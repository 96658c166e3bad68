"""What a model says of alternate alleles, as numbers: log-likelihood ratios, entropies, distances of embeddings.

Shape suffixes: A alleles, F fields, P different positions, W different windows, N passes, T bases that are read, S
stretches that are read, D hidden size, 4 bases in the order A, C, G, T.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from mutbert.effects.alleles import LONGEST, Alleles, Kind, Reason, find_alleles
from mutbert.effects.pseudo_likelihood import FLANK, haplotype_passes
from mutbert.effects.windows import SnvWindows
from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.opening import check_run, open_model, resolve_context, rope_scaled
from mutbert.inference.run import PaddedWindows, Queries, Results, concatenate_windows, entropy, run_windows
from mutbert.inference.surroundings import PLACEMENTS, open_surroundings, read_windows
from mutbert.model import MutBertForMaskedLM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from mutbert.arrays import Float32, Int64
    from mutbert.inference.surroundings import Surroundings
    from mutbert.progress import Advance


SCORES: Final = ("llr", "unmasked", "distance")
"""Groups of scores that can be asked for."""

# Bases of the windows of MNVs and indels that are held at once: of these an allele has many.
_BASES_AT_ONCE: Final = 1 << 22


class Field(NamedTuple):
    """A number that an allele is given.

    Parameters
    ----------
    name : str
        As files have it, behind their prefix.
    description : str
        What it is, in a line.
    extreme : int
        −1 where low values are what is looked for, 1 where high ones are, 0 where neither.
    """

    name: str
    description: str
    extreme: int


_LLR: Final = Field(
    "LLR",
    "Masked log-likelihood ratio of an SNV, ln P(ALT) - ln P(REF) with the position masked; negative where the model "
    "expects REF",
    -1,
)
_ENTROPY: Final = Field(
    "ENT", "Entropy in nats of the model's distribution over A, C, G, T at an SNV's position, masked", 0
)
_PLLR: Final = Field(
    "PLLR",
    "Pseudo-log-likelihood ratio of an MNV or indel: sum over its bases and their flanks, each masked in turn, of "
    "ln P + ln 4, ALT minus REF",
    -1,
)
_UNMASKED: Final = Field(
    "ULLR", "Unmasked log-likelihood ratio of an SNV, ln P(ALT) - ln P(REF) with the window as it is", -1
)
DISTANCES: Final = (
    Field("L2", "Euclidean distance of the embeddings at the variant, of the window with ALT and with REF", 1),
    Field("COS", "Cosine distance of the embeddings at the variant, of the window with ALT and with REF", 1),
    Field("L2_WINDOW", "Euclidean distance of the mean embeddings of the window with ALT and with REF", 1),
    Field("COS_WINDOW", "Cosine distance of the mean embeddings of the window with ALT and with REF", 1),
)


@dataclass(frozen=True)
class ScoreSettings:
    """How alleles are scored.

    Parameters
    ----------
    scores : tuple of str
        Of `SCORES`: ``"llr"`` gives LLR and ENT of SNVs and PLLR of MNVs and indels, ``"unmasked"`` ULLR of SNVs,
        ``"distance"`` L2, COS, L2_WINDOW and COS_WINDOW of all.
    context : int, optional
        Bases of a window; where left out, what the model is trained for.
    windows : {"centred", "shared"}
        As for `mutbert.inference.surroundings.place_windows`. Shared, SNVs of one window are masked together, at most
        as large a part of it as in training; MNVs and indels are centred either way.
    strands : {"both", "forward"}
        As for `mutbert.inference.run.run_windows`.
    flank : int
        Bases on either side of an MNV or indel that are part of PLLR.
    longest : int
        MNVs and indels of more changed bases are not scored; never more than `context` less both flanks.
    distance_bases : int, optional
        Bases around the variant over which L2_WINDOW and COS_WINDOW take the mean; the whole window where left out.
    batch_size : int
        Windows at once.
    precision : {"fp32", "bf16"}
        As for `mutbert.inference.run.run_batches`.
    rope_scaling : mapping, optional
        ``{"type": "linear" | "dynamic", "factor": f}``, for a context longer than the model is trained for.
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


class Scorer:
    """Scores alleles of a genome with a model.

    A score depends on its allele, the surroundings and the settings. With shared windows it depends also on which other
    alleles of the same window are scored in the same call, since they are masked together.

    Parameters
    ----------
    model : MutBertForMaskedLM
        Runs where it is, and is left as it was found.
    genome : ProbabilisticGenome
        The reference.
    surroundings : Surroundings
        What the windows are read from.
    settings : ScoreSettings
        How.

    Attributes
    ----------
    settings : ScoreSettings
        With `context` and `longest` as they are used.
    fields : tuple of Field
        The columns of what `score` gives.
    stride : int or None
        With shared windows, bases from one window of the grid to the next.

    Raises
    ------
    InputError
        When a setting is out of range or does not fit the model.
    """

    def __init__(
        self,
        model: MutBertForMaskedLM,
        genome: ProbabilisticGenome,
        surroundings: Surroundings,
        settings: ScoreSettings,
    ) -> None:
        check_settings(settings)
        context = resolve_context(model.config, settings.context, settings.rope_scaling)
        room = context - 2 * settings.flank
        if room < 1:
            raise InputError(
                f"flank is {settings.flank}, which leaves no room in a context of {context} bases; give a smaller one"
            )
        self.model = model
        self.genome = genome
        self.surroundings = surroundings
        self.settings = replace(settings, context=context, longest=min(settings.longest, room))
        self.fields = _fields(settings.scores)
        self.stride = max(context // 2, 1) if settings.windows == "shared" else None
        self._context = context
        self._length = np.array(list(genome.lengths.values()), dtype=np.int64)

    def find(
        self, contigs: Sequence[str], positions: Sequence[int], references: Sequence[str], alternates: Sequence[str]
    ) -> Alleles:
        """Tell what each alternate allele of some records changes; see `mutbert.effects.alleles.find_alleles`."""
        return find_alleles(self.genome, contigs, positions, references, alternates, longest=self.settings.longest)

    def score(self, alleles: Alleles, advance: Advance | None = None) -> Float32:
        """Score alleles.

        Parameters
        ----------
        alleles : Alleles
            Those with a reason get no score.
        advance : Advance, optional
            Told of the alleles done since its last call.

        Returns
        -------
        ndarray of float32, shape (A, F)
            In the order of `fields`; NaN where an allele has no such score.

        Raises
        ------
        ValueError
            When an allele is longer than `settings` allow; `find` gives those a reason.
        """
        score_AF = np.full((len(alleles), len(self.fields)), np.nan, dtype=np.float32)
        scored_A = alleles.reason_A == Reason.SCORED
        snvs = np.flatnonzero(scored_A & (alleles.kind_A == Kind.SNV))
        others = np.flatnonzero(scored_A & (alleles.kind_A != Kind.SNV))
        if advance is not None:
            advance(len(alleles) - len(snvs) - len(others))
        with rope_scaled(self.model.config, self.settings.rope_scaling):
            if len(snvs):
                self._put(score_AF, snvs, self._snvs(alleles.take(snvs), advance))
            if {"llr", "distance"} & set(self.settings.scores):
                for rows in self._slices(alleles, others):
                    self._put(score_AF, rows, self._others(alleles.take(rows), advance))
        return score_AF

    def _slices(self, alleles: Alleles, rows: Int64) -> list[Int64]:
        """Cut MNVs and indels into slices whose windows fit into memory together."""
        if not len(rows):
            return []
        inserted_R = np.array([len(alleles.inserted[row]) for row in rows.tolist()], dtype=np.int64)
        removed_R = alleles.end_A[rows] - alleles.start_A[rows]
        if max(inserted_R.max(), removed_R.max()) > self.settings.longest:
            raise ValueError(f"an allele changes more bases than the {self.settings.longest} that are scored here")
        passes_R = 2 + 4 * self.settings.flank + inserted_R + removed_R
        at_once = max(_BASES_AT_ONCE // self._context, 1)
        cuts = np.flatnonzero(np.diff(np.cumsum(passes_R) // at_once)) + 1
        return np.split(rows, cuts)

    def _put(self, score_AF: Float32, rows: Int64, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        for number, field in enumerate(self.fields):
            if field.name in columns:
                score_AF[rows, number] = columns[field.name]

    def _snvs(self, alleles: Alleles, advance: Advance | None) -> dict[str, npt.NDArray[Any]]:
        windows = SnvWindows(alleles, self._length, self._context, self.settings.windows)
        plain = read_windows(self.surroundings.genome, windows.contig_W, windows.start_W, windows.length_W)
        plan = _Plan()
        masked, unmasked, sides = None, None, None
        if "llr" in self.settings.scores:
            passes, pass_P = windows.masked(plain, together=self.stride is not None)
            masked = plan.add(passes, pass_P, windows.column_P)
        if "unmasked" in self.settings.scores:
            unmasked = plan.add(plain, windows.window_P, windows.column_P)
        if "distance" in self.settings.scores:
            sides = plan.add_sides(*windows.sides(plain, alleles, self.settings.distance_bases))
        results = self._run(plan, len(alleles), advance)
        columns: dict[str, npt.NDArray[Any]] = {}
        before_A, after_A = alleles.reference_A.astype(np.int64), alleles.alternate_A.astype(np.int64)
        for name, part in (("LLR", masked), ("ULLR", unmasked)):
            if part is not None:
                logit_A4 = results.logit_T4[part][windows.position_A]
                every = np.arange(len(alleles))
                columns[name] = logit_A4[every, after_A] - logit_A4[every, before_A]
        if masked is not None:
            columns["ENT"] = entropy(results.logit_T4[masked])[windows.position_A]
        if sides is not None:
            columns |= distances(results.state_SD[sides])
        return columns

    def _others(self, alleles: Alleles, advance: Advance | None) -> dict[str, npt.NDArray[Any]]:
        both = haplotype_passes(
            self.surroundings.genome,
            alleles,
            self._length,
            self._context,
            self.settings.flank,
            self.settings.distance_bases,
        )
        plan = _Plan()
        masked, sides = None, None
        if "llr" in self.settings.scores:
            masked = plan.add(both.masked(), np.arange(len(both.row_T)), both.column_T)
        if "distance" in self.settings.scores:
            sides = plan.add_sides(both.windows, both.row_S, both.begin_S, both.end_S)
        results = self._run(plan, len(alleles), advance)
        columns: dict[str, npt.NDArray[Any]] = {}
        if masked is not None:
            columns["PLLR"] = both.ratio(results.logit_T4[masked])
        if sides is not None:
            columns |= distances(results.state_SD[sides])
        return columns

    def _run(self, plan: _Plan, alleles: int, advance: Advance | None) -> Results:
        passes = concatenate_windows(plan.passes)
        share = alleles / max(len(passes), 1)
        return run_windows(
            self.model,
            passes,
            plan.reads(),
            batch_size=self.settings.batch_size,
            precision=self.settings.precision,
            strands=self.settings.strands,
            advance=None if advance is None else lambda done, /, note="": advance(done * share, note),
        )


class _Plan:
    """Collects passes of several kinds, so that they run together, and what is read of each."""

    def __init__(self) -> None:
        self.passes: list[PaddedWindows] = []
        self._bases: list[tuple[Int64, Int64]] = []
        self._stretches: list[tuple[Int64, Int64, Int64]] = []
        self._count = 0

    def add(self, passes: PaddedWindows, row_T: Int64, column_T: Int64) -> slice:
        """Add passes of which bases are read; gives where their logits will be."""
        self._bases.append((row_T + self._count, column_T))
        self._add(passes)
        end = sum(len(row) for row, _ in self._bases)
        return slice(end - len(row_T), end)

    def add_sides(self, passes: PaddedWindows, row_S: Int64, begin_S: Int64, end_S: Int64) -> slice:
        """Add passes of which stretches are read; gives where their states will be."""
        self._stretches.append((row_S + self._count, begin_S, end_S))
        self._add(passes)
        end = sum(len(row) for row, *_ in self._stretches)
        return slice(end - len(row_S), end)

    def _add(self, passes: PaddedWindows) -> None:
        self.passes.append(passes)
        self._count += len(passes)

    def reads(self) -> Queries:
        none = np.zeros(0, dtype=np.int64)
        bases = [np.concatenate([none, *column]) for column in zip(*self._bases, strict=True)] or [none] * 2
        stretches = [np.concatenate([none, *column]) for column in zip(*self._stretches, strict=True)] or [none] * 3
        return Queries(*bases, *stretches)


def distances(state_SD: Float32) -> dict[str, npt.NDArray[Any]]:
    """Compare states: at the variants with REF, over their windows with REF, and both with ALT."""
    at, over, at_other, over_other = state_SD.astype(np.float64).reshape(4, -1, state_SD.shape[1])
    return {
        "L2": _euclidean(at, at_other),
        "COS": _cosine(at, at_other),
        "L2_WINDOW": _euclidean(over, over_other),
        "COS_WINDOW": _cosine(over, over_other),
    }


def _euclidean(one_AD: npt.NDArray[np.float64], other_AD: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    distance: npt.NDArray[np.float64] = np.sqrt(((one_AD - other_AD) ** 2).sum(axis=1))
    return distance


def _cosine(one_AD: npt.NDArray[np.float64], other_AD: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # Half the squared distance of the unit vectors, which keeps its digits where they hardly differ.
    unit_AD, other_unit_AD = (
        side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        for side in (one_AD, other_AD)
    )
    distance: npt.NDArray[np.float64] = ((unit_AD - other_unit_AD) ** 2).sum(axis=1) / 2
    return distance


def _fields(scores: Sequence[str]) -> tuple[Field, ...]:
    groups = {"llr": (_LLR, _ENTROPY, _PLLR), "unmasked": (_UNMASKED,), "distance": DISTANCES}
    return tuple(field for name in SCORES if name in scores for field in groups[name])


def check_settings(settings: ScoreSettings) -> None:
    """Raise an InputError where a setting is out of range."""
    unknown = [name for name in settings.scores if name not in SCORES]
    if unknown or not settings.scores:
        raise InputError(f"scores has {unknown[0] if unknown else 'none'!r}; give some of {', '.join(SCORES)}")
    if settings.windows not in PLACEMENTS:
        raise InputError(f"windows is {settings.windows!r}; it must be one of {', '.join(PLACEMENTS)}")
    check_run(settings.strands, settings.precision, settings.batch_size)
    for name, least in (("flank", 0), ("longest", 1), ("distance_bases", 1)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise InputError(f"{name} is {value}; it must be at least {least}")


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
    """Open model and genome for scoring.

    Parameters
    ----------
    model : str, Path or MutBertForMaskedLM
        A checkpoint, read to a GPU where there is one; or a loaded model, which runs where it is.
    genome : str, Path or ProbabilisticGenome
        A store.
    surroundings : {"reference", "population", "person"}
        What stands around the variants.
    person_vcf, sample : Path and str, optional
        Of a person: the file with the genotypes, and the name in it.
    settings : ScoreSettings, optional
        How alleles are scored.
    progress : bool
        Show progress on standard error while a person's genotypes are read.

    Returns
    -------
    Scorer
        Ready to score.

    Raises
    ------
    InputError
        When something cannot be opened, or settings do not fit.
    """
    settings = settings or ScoreSettings()
    check_settings(settings)
    if not isinstance(genome, ProbabilisticGenome):
        genome = ProbabilisticGenome.open(genome)
    around_variants = open_surroundings(genome, surroundings, vcf=person_vcf, sample=sample, progress=progress)
    return Scorer(open_model(model, MutBertForMaskedLM), genome, around_variants, settings)
