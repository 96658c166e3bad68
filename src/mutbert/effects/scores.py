"""What a model says of alternate alleles, as numbers: log-likelihood ratios, entropies, distances of embeddings.

Shape suffixes: A alleles, F fields, N windows, B batch, T tokens and S spans read, K columns, D states, 4 bases.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch

from mutbert import alphabet
from mutbert.arrays import Float32, Float64, Int64, UInt8
from mutbert.effects.alleles import Alleles, Kind, Reason, find_alleles, read_haplotypes, snv_windows, unique_columns
from mutbert.encoders.inputs import PLACEMENTS, Batch, PaddedWindows, TokenInputs, place_windows
from mutbert.encoders.peers import PeerEncoder
from mutbert.encoders.token_encoders import AutoEncoder, most_tokens
from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference import run
from mutbert.inference.classifier import WindowClassifier, open_classifier
from mutbert.model import MutBertForMaskedLM
from mutbert.progress import Advance, progress_bar, scaled
from mutbert.settings import list_fields, listed
from mutbert.tables import positions, read_table

Field = tuple[str, int]
LOCUS: Final = ("chrom", "pos", "ref", "alt")
FIELDS: Final[dict[str, dict[str, Field]]] = {
    "llr": {
        "LLR": (("Masked log-likelihood ratio of an SNV, ln P(ALT) - ln P(REF) with the position masked; negative "
                 "where the model expects REF"), -1),
        "ENT": ("Entropy in nats of the model's distribution over A, C, G, T at an SNV's position, masked", 0),
        "PLLR": (("Pseudo-log-likelihood ratio of an MNV or indel: sum over its bases and their flanks, each masked in "
                  "turn, of ln P + ln 4, ALT minus REF"), -1),
    },
    "unmasked": {
        "ULLR": ("Unmasked log-likelihood ratio of an SNV, ln P(ALT) - ln P(REF) with the window as it is", -1),
    },
    "distance": {
        "L2": ("Euclidean distance of the embeddings at the variant, of the window with ALT and with REF", 1),
        "COS": ("Cosine distance of the embeddings at the variant, of the window with ALT and with REF", 1),
        "L2_WINDOW": ("Euclidean distance of the mean embeddings of the window with ALT and with REF", 1),
        "COS_WINDOW": ("Cosine distance of the mean embeddings of the window with ALT and with REF", 1),
    },
}  # fmt: skip
"""Descriptions of the numbers of an allele, and -1 where low ones are of interest, 1 where high ones are, 0 neither."""


@dataclass(frozen=True)
class ScoreSettings:
    """How alleles are scored."""

    scores: Sequence[str] = ("llr",)  # any of `llr`, `unmasked` and `distance`
    context: int | None = None  # bases per window, by default as many as in training
    windows: str = "centred"  # `centred`, or of SNVs `shared` by neighbours, which is faster
    strands: str | None = None  # `forward` or the mean over `both`; by default both, or for a classifier as in training
    flank: int = 8  # bases on either side of an MNV or indel that PLLR counts
    longest: int = 50  # changed bases of an MNV or indel that is scored; at most `context` less both flanks
    distance_bases: int | None = None  # around the variant, whose mean L2_WINDOW and COS_WINDOW compare; by default all
    batch_size: int = 32  # windows per batch
    precision: str = "fp32"  # `fp32`, or `bf16` for bfloat16 autocast
    rope_scaling: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        list_fields(self)
        given = [("scores", one, FIELDS) for one in self.scores or ("none",)]
        for name, word, choices in (*given, ("windows", self.windows, PLACEMENTS)):
            if word not in choices:
                raise InputError(f"{name} is {word!r}; it must be one of {', '.join(choices)}")
        run.check_run(self.strands or "both", self.precision, self.batch_size)
        for name, least in (("flank", 0), ("longest", 1), ("distance_bases", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")


class Scorer:
    """Scores alleles of a genome with a model; SNVs of a shared window that one call scores are masked together."""

    def __init__(
        self, model: Any, genome: ProbabilisticGenome, surroundings: run.Surroundings, settings: ScoreSettings,
        context: int | None = None,
    ) -> None:  # fmt: skip
        self.context = context or run.resolve_context(model.config, settings.context, settings.rope_scaling)
        self.model, self.genome, self.surroundings = model, genome, surroundings
        # SNVs whose windows are in memory at once; about, as those of a window stay together.
        self.at_once = min(1 << 13, (1 << 22) // self.context + 1)
        if (room := self.context - 2 * settings.flank) < 1:
            raise InputError(f"flank {settings.flank} leaves no room in a context of {self.context} bases; lower it")
        strands, longest = settings.strands or "both", min(settings.longest, room)
        self.settings = replace(settings, strands=strands, context=self.context, longest=longest)
        self._how = dict[str, Any](strands=strands, batch_size=settings.batch_size, precision=settings.precision)
        self.find = partial(find_alleles, genome, longest=longest)
        self.notes: list[str] = []
        self.fields = {name: one for key, own in FIELDS.items() if key in settings.scores for name, one in own.items()}

    def score(self, alleles: Alleles, advance: Advance | None = None, at_once: int | None = None) -> Float32:
        """Return scores, shape (A, F), in the order of `fields`; NaN where an allele has no such score."""
        score_AF = np.full((len(alleles), len(self.fields)), np.nan, dtype=np.float32)
        advance, most = advance or (lambda _, /, note="": None), at_once or self.at_once  # noqa: ARG005
        order = np.lexsort((alleles.start_A, alleles.contig_A))
        scored = order[alleles.reason_A[order] == Reason.SCORED]
        advance(len(alleles) - len(scored))
        is_snv = alleles.kind_A[scored] == Kind.SNV
        # MNVs and indels have many windows each.
        for every, size in ((scored[is_snv], most), (scored[~is_snv], min(most, 64))):
            for rows in self._split(alleles, every, size):
                columns, missing_A = self._columns(alleles[rows], advance), np.full(len(rows), np.nan)
                score_AF[rows] = np.stack([columns.get(name, missing_A) for name in self.fields], axis=1)
        return score_AF

    def logits(self, snvs: Alleles, advance: Advance, *, masked: bool) -> Float32:
        """Return logits of A, C, G and T, (A, 4), at sorted SNVs, one a position, with that masked or as it is."""
        logit_A4 = np.zeros((len(snvs), len(alphabet.BASES)), dtype=np.float32)
        for rows in self._split(snvs, np.arange(len(snvs)), self.at_once):
            logit_A4[rows] = self._logits(snvs[rows], scaled(advance, len(rows)), masked=masked)
        return logit_A4

    def _split(self, alleles: Alleles, every: Int64, size: int) -> Iterator[Int64]:
        """Yield about so many of some sorted alleles at a time; those of a window stay together."""
        contig, start = alleles.contig_A[every], alleles.start_A[every]
        # At a contig's end several cells of the grid have one window.
        window, _ = place_windows(start, self.genome.slots[contig, 1], self.context, self.settings.windows)
        is_new = np.diff([contig, window], prepend=-1).any(axis=0)
        first = np.maximum.accumulate(np.where(is_new, np.arange(len(every)), 0))
        yield from np.split(every, np.flatnonzero(np.diff(first // size)) + 1) if len(every) else ()

    def columns(self, alleles: Alleles, values: Mapping[str, Float64]) -> list[pl.Series]:
        """Return the kinds of alleles, their scores and more values, and why one has none of the scores."""
        meant_A = (alleles.kind_A == Kind.SNV) | bool({"llr", "distance"} & set(self.settings.scores))
        without_A = (alleles.reason_A == Reason.SCORED) & np.isnan([values[name] for name in self.fields]).all(axis=0)
        whys = [without_A & meant_A, without_A], [Reason.NOT_A_NUMBER, Reason.NO_SCORE_OF_ITS_KIND]
        kinds, reasons = [kind.name.lower() for kind in Kind], [None, *(reason.text for reason in Reason if reason)]
        return [
            pl.Series("kind", [kinds[kind] for kind in alleles.kind_A], dtype=pl.String),
            # Plus zero, so that none is -0.
            *(pl.Series(name, one_A + 0.0, dtype=pl.Float32, nan_to_null=True) for name, one_A in values.items()),
            pl.Series("why", [reasons[why] for why in np.select(*whys, alleles.reason_A)], dtype=pl.String),
        ]

    def _columns(self, alleles: Alleles, advance: Advance) -> dict[str, Float32 | Float64]:
        """Return the scores of SNVs, or of other alleles, by field."""
        snvs = alleles.kind_A[0] == Kind.SNV
        where, columns = (self.surroundings.genome, alleles, self.context), dict[str, Any]()
        groups = [name for name, fields in FIELDS.items() if fields.keys() & self.fields]
        # Of a group of scores, 1 is all that there is to do.
        advance = scaled(advance, len(alleles) / len(groups))
        for name in groups:
            if name == "distance":
                both = read_haplotypes(*where, self.settings.windows if snvs else "centred")
                columns |= distances(self.states(both.windows, both.spans(self.settings.distance_bases), advance))
            elif snvs:
                logit_A4 = self._logits(alleles, advance, masked=name == "llr")
                columns |= compare_bases(name, logit_A4, alleles.reference_A, alleles.alternate_A)
            elif name == "llr" and "PLLR" in self.fields:
                both = read_haplotypes(*where, "centred")
                columns["PLLR"] = both.pseudo_ratios(self.settings.flank, partial(self._run, advance=advance))
            else:
                advance(1)
        return columns

    def _logits(self, alleles: Alleles, advance: Advance, *, masked: bool) -> Float32:
        """Return logits of A, C, G and T at SNVs, (A, 4)."""
        where = self.context, self.settings.windows
        windows, queries, position_A = snv_windows(self.surroundings.genome, alleles, *where, masked=masked)
        return self._run(windows, queries, advance).logit_T4[position_A]

    def states(self, windows: PaddedWindows, queries: run.Queries, advance: Advance) -> Float32:
        """Return the mean hidden states of the spans of `Haplotypes.spans`, (S, D)."""
        return self._run(windows, queries, advance).state_SD

    def _run(self, windows: PaddedWindows, queries: run.Queries, advance: Advance) -> run.Results:
        with run.rope_scaled(self.model.config, self.settings.rope_scaling):
            advance = scaled(advance, 1 / max(len(windows), 1))
            return run.run_windows(self.model, windows, queries, **self._how, advance=advance)


class ClassifierScorer(Scorer):
    """Scores alleles by how they change the outputs of a fine-tuned classifier or regressor, `WindowClassifier`."""

    def __init__(
        self, classifier: WindowClassifier, genome: ProbabilisticGenome, seen: run.Surroundings, settings: ScoreSettings
    ) -> None:
        if (settings.scores, settings.windows) != (("llr",), "centred"):
            raise InputError(f"{classifier.name}: a classifier scores in its own way; leave out --scores and --windows")
        settings = replace(settings, strands=classifier.strands)
        super().__init__(classifier.model, genome, seen, settings, classifier.context)
        self.classifier, self.notes = classifier, classifier.notes
        self.fields = {name: (text, 1) for name, text in classifier.fields.items()}

    def _columns(self, alleles: Alleles, advance: Advance) -> dict[str, Float32 | Float64]:
        both = read_haplotypes(self.surroundings.genome, alleles, self.context, "centred")
        output_NK = self.classifier.outputs(both.windows, scaled(advance, len(alleles)))
        before_AK, after_AK = output_NK[both.row_H].reshape(2, len(alleles), -1)
        return dict(zip(self.fields, (after_AK - before_AK).T, strict=True))


class TokenScorer(Scorer):
    """Scores alleles of a genome's reference with a model that reads tokens: 6-mers, byte pairs, single letters.

    With w(b) the token that holds an SNV's position, masked, with base b there, LLR = ln P(w(ALT)) − ln P(w(REF)), for
    6-mers conditional on the five other bases (as in Dalla-Torre et al. 2023), which follow from the window's start and
    runs of N. Models whose tokens do not stay tokens when a base is exchanged have distances alone; none has PLLR.
    """

    def __init__(self, encoder: AutoEncoder, genome: ProbabilisticGenome, settings: ScoreSettings) -> None:
        if settings.rope_scaling is not None or settings.windows != "centred":
            raise InputError(f"{encoder.name}: rope_scaling and shared windows are for MutBERT; leave them out")
        peer = encoder if isinstance(encoder, PeerEncoder) and encoder.likelihood else None
        asked = set(settings.scores) if peer else {"distance"} & set(settings.scores)
        # An MNV or indel makes other tokens, which have no ratio.
        fields = {name: one for key in FIELDS if key in asked for name, one in FIELDS[key].items() if name != "PLLR"}
        if not fields:
            raise InputError(f"{encoder.name}: another base is no other token, so it has no likelihood ratio; "
                             "add distance to --scores")  # fmt: skip
        context = settings.context or encoder.context
        model = peer.masked(0) if peer and asked != {"distance"} else encoder.body(0)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        super().__init__(model, genome, run.Surroundings("reference", genome.reference(), {}), settings, context)
        self.encoder, self.fields = encoder, fields
        self._body = model if asked == {"distance"} else model.base_model

    def _logits(self, alleles: Alleles, advance: Advance, *, masked: bool) -> Float32:
        # They are log-probabilities up to a constant; NaN where the SNV is in no token, or one of the four is none.
        peer = self.encoder
        assert isinstance(peer, PeerEncoder)
        # Words of bases, of which the special tokens are none.
        vocabulary = peer.tokenizer.get_vocab().items()
        words = {word: number for word, number in vocabulary if word and set(word) <= set(alphabet.BASES)}
        both = read_haplotypes(self.surroundings.genome, alleles, self.context, "centred")
        every = np.arange(len(alleles))
        windows, column_A = both.windows.take(both.row_H[every]), both.begin_H[every]

        def find(inputs: TokenInputs, reverse: bool) -> Int64:
            offset_A = windows.length_N - 1 - column_A if reverse else column_A
            token_A, id_A, within_A = inputs.locate(every, offset_A)
            choice_A4 = _with_bases(words, id_A, within_A)
            # Complements are the order A, C, G, T reversed.
            return np.column_stack([token_A, choice_A4[:, ::-1] if reverse else choice_A4])

        def read(batch: Batch, found_BK: torch.Tensor) -> torch.Tensor:
            token_B = found_BK[:, 0]
            if masked:
                row_B = torch.arange(len(token_B), device=token_B.device)
                batch["input_ids"][row_B, token_B] = peer.tokenizer.mask_token_id
            return peer.masked_logits(self.model, batch, token_B).gather(1, found_BK[:, 1:])

        return self._read(windows, find, read, advance)

    def states(self, windows: PaddedWindows, queries: run.Queries, advance: Advance) -> Float32:
        """Return the mean hidden states of the tokens that spans overlap; NaN where these are unknown."""
        # A row for each haplotype, with begin and end of both its spans.
        passes = windows.take(queries.row_S.reshape(2, 2, -1)[:, 0].reshape(-1))
        spans = np.stack([queries.begin_S, queries.end_S]).reshape(2, 2, 2, -1)
        span_N4, every = spans.transpose(1, 3, 2, 0).reshape(-1, 4), np.arange(len(passes))

        def find(inputs: TokenInputs, reverse: bool) -> Int64:
            own_N4 = passes.length_N[:, None] - span_N4[:, [1, 0, 3, 2]] if reverse else span_N4
            return np.stack([inputs.tokens_at(every, own_N4[:, side] - side % 2) for side in range(4)], axis=1)

        def read(batch: Batch, found_B4: torch.Tensor) -> torch.Tensor:
            if queries.layers:
                states_BTD = torch.cat(self.encoder.layer_states(self._body, batch, queries.layers), dim=2).float()
            else:
                states_BTD = self.encoder.hidden_states(self._body, batch).float()
            index_T = torch.arange(states_BTD.shape[1], device=states_BTD.device)
            means = []
            for first in (0, 2):
                weight_BT = (index_T >= found_B4[:, first, None]) & (index_T <= found_B4[:, first + 1, None])
                # No matrix product, which autocast would compute in less precision.
                total_BD = (weight_BT[..., None].float() * states_BTD).sum(dim=1)
                means.append(total_BD / weight_BT.sum(dim=1, keepdim=True))
            return torch.cat(means, dim=1)

        states = self._read(passes, find, read, advance).reshape(2, len(passes) // 2, 2, -1)
        return states.swapaxes(1, 2).reshape(2 * len(passes), -1)

    def _read(
        self, windows: PaddedWindows, find: Callable[[TokenInputs, bool], Int64],
        read: Callable[[Batch, torch.Tensor], torch.Tensor], advance: Advance,
    ) -> Float32:  # fmt: skip
        """Return the mean over strands of what `read` computes of what `find` returns; NaN where that is negative."""
        most, strands = most_tokens(self._body), []
        for reverse in (False, True)[: 1 + (self.settings.strands == "both")]:
            inputs = self.encoder.inputs(windows.reverse_complement() if reverse else windows)
            if most is not None and (longest := int(inputs.length_N.max(initial=0))) > most:
                what = f"{self.context:,} bases have {longest:,} tokens, where the model has positions for {most:,}"
                raise InputError(f"{self.encoder.name}: {what}; use a smaller --context")
            strands.append((inputs, find(inputs, reverse)))
        rows = np.flatnonzero(np.all([(found_NK >= 0).all(axis=1) for _, found_NK in strands], axis=0))

        def predict(chosen: Int64, reverse: bool) -> list[torch.Tensor]:
            inputs, found_NK = strands[reverse]
            batch = run.batch_of(inputs, rows[chosen], self.model)
            return [read(batch, torch.from_numpy(found_NK[rows[chosen]]).to(batch["input_ids"].device))]

        length_N, advance = strands[0][0].length_N[rows], scaled(advance, 1 / max(len(rows), 1))
        order, found = run.run_batches(self.model, length_N, predict, **self._how, advance=advance)
        value_ND = np.full((len(windows), found[0].shape[1] if found else 4), np.nan, dtype=np.float32)
        if found:
            value_ND[rows[order]] = found[0]
        return value_ND


def compare_bases(group: str, logit_A4: Float32, reference_A: UInt8, alternate_A: UInt8) -> dict[str, Any]:
    """Return the scores of SNVs by the logits of A, C, G and T at their positions, masked for `llr`."""
    every = np.arange(len(logit_A4))
    ratio_A = logit_A4[every, alternate_A] - logit_A4[every, reference_A]
    return {"LLR": ratio_A, "ENT": run.entropy(logit_A4)} if group == "llr" else {"ULLR": ratio_A}


def distances(state_SD: Float32) -> dict[str, Float64]:
    """Return distances of states: at the variants with REF, over their windows with REF, then both with ALT.

    Cosine distance is half the squared distance of the unit vectors, which keeps its digits where they hardly differ.
    """
    state_4AD = state_SD.astype(np.float64).reshape(4, -1, state_SD.shape[1])
    unit_4AD = state_4AD / np.maximum(np.linalg.norm(state_4AD, axis=2, keepdims=True), np.finfo(np.float64).tiny)
    square_2A, half_2A = (((one[:2] - one[2:]) ** 2).sum(axis=2) for one in (state_4AD, unit_4AD))
    values = np.stack([np.sqrt(square_2A), half_2A / 2], axis=1).reshape(4, -1)
    return dict(zip(FIELDS["distance"], values, strict=True))


def _with_bases(words: Mapping[str, int], id_N: Int64, offset_N: Int64) -> Int64:
    """Return the ids of tokens with A, C, G and T at an offset in each, (N, 4); -1 where one is no token."""
    texts = {number: word for word, number in words.items()}
    pairs, pair_N = unique_columns(np.stack([id_N, offset_N]))
    ids = np.full((pairs.shape[1], len(alphabet.BASES)), -1, dtype=np.int64)
    for row, (number, offset) in enumerate(pairs.T.tolist()):
        word = texts.get(number, "")
        if 0 <= offset < len(word):
            ids[row] = [words.get(word[:offset] + base + word[offset + 1 :], -1) for base in alphabet.BASES]
    return ids[pair_N]


def open_scorer(
    model: str | Path | MutBertForMaskedLM, genome: str | Path | ProbabilisticGenome, *,
    surroundings: str = "reference", person_vcf: Path | None = None, sample: str | None = None,
    settings: ScoreSettings = ScoreSettings(), progress: bool = False,
) -> Scorer:  # fmt: skip
    """Return a scorer; a checkpoint is read to a GPU where there is one, a loaded model runs where it is."""
    store = genome if isinstance(genome, ProbabilisticGenome) else ProbabilisticGenome.open(genome)
    seen = run.open_surroundings(store, surroundings, vcf=person_vcf, sample=sample, progress=progress)
    if classifier := open_classifier(model, seen, settings):
        return ClassifierScorer(classifier, store, seen, settings)
    return Scorer(run.open_model(model, MutBertForMaskedLM), store, seen, settings)


def score_alleles(
    model: str | Path | MutBertForMaskedLM, genome: str | Path | ProbabilisticGenome, alleles: Any, *,
    settings: ScoreSettings = ScoreSettings(), surroundings: str = "reference", progress: bool = False,
) -> pl.DataFrame:  # fmt: skip
    """Return scores of alternate alleles as a frame; `score_variants` scores those of a VCF.

    Parameters
    ----------
    model, genome
        As for `score_variants`.
    alleles
        One as text, ``chr22:17000515:T:C``, or as a tuple, ``("chr22", 17000515, "T", "C")``; a list of either; or a
        frame of polars or pandas with columns ``chrom``, ``pos``, ``ref`` and ``alt``. Positions are 1-based, and
        alternates may be separated by commas.
    settings, surroundings, progress : optional
        How alleles are scored; ``reference`` or ``population``; show progress.

    Returns
    -------
    DataFrame
        A row per alternate allele, in order: ``chrom``, ``pos``, ``ref``, ``alt``; ``kind``, as ``snv``; a column per
        score, as ``LLR``, null where an allele has none; and ``why`` it has none at all.

    Raises
    ------
    InputError
        An allele that is not written as such, and a model without the scores.

    Examples
    --------
    >>> table = mutbert.score_alleles("model", "population.genome", ["chr1:1:A:G", "chr1:3:GCA:G"])
    >>> table["kind"].to_list()
    ['snv', 'indel']
    """
    if not hasattr(alleles, "columns"):
        alleles = [alleles] if isinstance(alleles, tuple) else listed(alleles)
        rows = [one.rsplit(":", 3) if isinstance(one, str) else one for one in alleles]
        if wrong := [one for one in rows if len(one) != len(LOCUS)]:
            raise InputError(f"allele {wrong[0]!r}: write it as in chr22:17000515:T:C, or as a tuple of the four")
        alleles = {name: [str(row[number]) for row in rows] for number, name in enumerate(LOCUS)}
    texts, source = read_table(pl.DataFrame(alleles), LOCUS)
    locus = texts.select(pl.col(LOCUS).fill_null("")).with_columns(positions(texts, source.place, "pos"))
    locus = locus.with_columns(pl.col("alt").str.split(",")).explode("alt")
    scorer = open_scorer(model, genome, surroundings=surroundings, settings=settings, progress=progress)
    found = scorer.find(*(column.to_list() for column in locus))
    with progress_bar("scoring", len(found), unit="alleles", show=progress) as advance:
        values = scorer.score(found, advance).T.astype(np.float64)
    return locus.with_columns(scorer.columns(found, dict(zip(scorer.fields, values, strict=True))))
