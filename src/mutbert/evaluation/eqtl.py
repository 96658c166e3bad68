"""Causal variants told apart by embeddings of the windows around them, without training the model.

The reference and the alternate window of each variant are embedded once; a head of scikit-learn learns from both
and the tissue. Shape suffixes: N rows of the table, T training rows, U different windows, B batch, L tokens, D
features.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mutbert import alphabet
from mutbert.errors import InputError, MissingExtraError
from mutbert.evaluation.eqtl_table import TOKEN, USED, count_reasons, variant_windows
from mutbert.examples.splits import SplitRows, grouped_split, region_split, sequence_keys
from mutbert.genome.store import ProbabilisticGenome, Windows
from mutbert.inference.run import sequence_outputs
from mutbert.regions import Region
from mutbert.scoring.metrics import evaluate
from mutbert.windows.randomness import random_bits

try:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
except ImportError as error:
    raise MissingExtraError("scikit-learn", "bench") from error

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from mutbert.arrays import Bool, Float32, Float64, Int64
    from mutbert.encoders.adapter import Encoder
    from mutbert.encoders.inputs import Inputs
    from mutbert.evaluation.eqtl_table import Genome, VariantTable
    from mutbert.evaluation.suites import EqtlProtocol, EqtlTask
    from mutbert.examples.table import Keys
    from mutbert.progress import Advance

    Int8 = npt.NDArray[np.int8]

FEATURES: Final = ("window", "variant")
"""The mean over the tokens around the variant; or its own token alone."""
HEADS: Final = ("svm", "logistic")

NOT_DRAWN: Final = "more training rows than max_train_rows"
"""The reason of rows that were not drawn, besides those of `mutbert.evaluation.eqtl_table.REASONS`."""

_ROWS: Final = 105
_VALIDATION_SHARE: Final = 0.2
_ITERATIONS: Final = 500
_WINDOWS_AT_ONCE: Final = 4096
_SCORED_AT_ONCE: Final = 4096
_PLACES: Final = "places"


@dataclass(frozen=True, eq=False)
class VariantEmbeddings:
    """What is known of a table's variants by a model.

    Parameters
    ----------
    window_UD, variant_UD : ndarray of float32, shape (U, D)
        The features of each different window; see `FEATURES`. Not a number where the variant's token was not found.
    key_U : ndarray of void, shape (U,)
        See `mutbert.examples.splits.sequence_keys`.
    reference_N, alternate_N : ndarray of int64, shape (N,)
        The windows of each row of the table; -1 where it has none.
    reason_N : ndarray of int8, shape (N,)
        Why a row is not used, as in `VariantTable`.
    length : int
        Bases of a window.
    saved : int
        How many windows needed no embedding of their own, since other rows have the same ones.
    """

    window_UD: Float32
    variant_UD: Float32
    key_U: Keys
    reference_N: Int64
    alternate_N: Int64
    reason_N: Int8
    length: int
    saved: int

    @property
    def unused(self) -> dict[str, int]:
        """The rows of the table that are not used, by reason."""
        return count_reasons(self.reason_N)

    def pair(self, rows: Int64, feature: str) -> Float32:
        """Give the features of rows that are used: the reference's and behind them the alternate's, (B, 2 D)."""
        feature_UD = {"window": self.window_UD, "variant": self.variant_UD}[feature]
        return np.concatenate([feature_UD[self.reference_N[rows]], feature_UD[self.alternate_N[rows]]], axis=1)


@dataclass(frozen=True, eq=False)
class EqtlResult:
    """What came of a head on a task.

    Parameters
    ----------
    scores : ndarray of float64
        Of each test row: a decision value, above 0 for causal; or 1 and 0, where the protocol scores hard labels.
    labels : ndarray of int64
        Of each test row.
    metrics : dict of str to float
        All those of `mutbert.scoring.metrics` for two classes.
    c : float
        The chosen inverse penalty.
    train_rows, test_rows : ndarray of int64
        Which rows of the table were learnt from and tested on, ascending.
    unused : mapping of str to int
        Rows of the task that were not used, by reason.
    """

    scores: Float64
    labels: Int64
    metrics: dict[str, float]
    c: float
    train_rows: Int64
    test_rows: Int64
    unused: Mapping[str, int]


def embed_variants(
    encoder: Encoder,
    body: Any,
    table: VariantTable,
    source: Genome,
    protocol: EqtlProtocol,
    length: int,
    *,
    frequencies: bool = False,
    batch_size: int = 32,
    precision: str = "fp32",
    advance: Advance | None = None,
) -> VariantEmbeddings:
    """Embed the windows of a table's variants, each different one once.

    Parameters
    ----------
    encoder : Encoder
        The model.
    body : nn.Module or None
        It without a head, where it is to run; loaded here where ``None``.
    table : VariantTable
        The variants.
    source : Genome
        See `mutbert.evaluation.eqtl_table.open_genome`.
    protocol : EqtlProtocol
        Says how many tokens are pooled, whether special tokens stand around a window, and for MutBERT the RoPE scaling
        of a body that is loaded here.
    length : int
        Bases of a window; the variant is at index ``length // 2``.
    frequencies : bool
        Read all positions but the variant's as the population's distributions, for models that can; `source` is a
        store then.
    batch_size : int
        Windows at once.
    precision : {"fp32", "bf16"}
        As for `mutbert.inference.run.run_batches`.
    advance : Advance, optional
        Told of the windows done since its last call.

    Returns
    -------
    VariantEmbeddings
        Rows whose token is not found are not used: a neighbour's would say something else.

    Raises
    ------
    InputError
        When no row can be used, the genome is of another assembly, or the model cannot read such windows or no
        frequencies.
    ValueError
        When frequencies are asked for and the genome has none.
    """
    population = None
    if frequencies:
        if not isinstance(source, ProbabilisticGenome):
            raise ValueError("a FASTA has no frequencies; give a genome store, or frequencies=False")
        population = _CentreUnknown.of(source)
    windows = variant_windows(table, source, length)
    parts: list[_CentredInputs] = []
    keys: list[Keys] = []
    for first in range(0, len(windows), _WINDOWS_AT_ONCE):
        examples = windows.examples(np.arange(first, min(first + _WINDOWS_AT_ONCE, len(windows))))
        inputs = encoder.inputs(examples, genome=population, special_tokens=protocol.special_tokens)
        parts.append(_CentredInputs(inputs, length))
        keys.append(sequence_keys(examples))
    if body is None:
        scaled = protocol.rope_factor is not None and encoder.family == "mutbert"
        scaling = {"type": "dynamic", "factor": protocol.rope_factor} if scaled else None
        body = encoder.body(int(max(part.length_N.max() for part in parts)), rope_scaling=scaling)

    def run(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        place_B3 = batch.pop(_PLACES)
        return _pooled(encoder.hidden_states(body, batch), place_B3, protocol.pooled_tokens)

    found_U = np.concatenate([part.found_N for part in parts])
    feature_U2D: Float32 | None = None
    first = 0
    for part in parts:
        output_B2D = sequence_outputs(
            body,
            run,
            part,
            np.flatnonzero(part.found_N),
            batch_size=batch_size,
            precision=precision,
            advance=advance,
        )
        if len(output_B2D):
            if feature_U2D is None:
                feature_U2D = np.full((len(windows), output_B2D.shape[1]), np.nan, dtype=np.float32)
            feature_U2D[first + np.flatnonzero(part.found_N)] = output_B2D
        first += len(part.length_N)
    if feature_U2D is None:
        raise InputError(f"{encoder.name}: the token of no variant was found; give a model that reads such windows")

    reason_N = windows.reason_N.copy()
    used = np.flatnonzero(reason_N == USED)
    reason_N[used[~(found_U[windows.reference_N[used]] & found_U[windows.alternate_N[used]])]] = TOKEN
    features = feature_U2D.shape[1] // 2
    return VariantEmbeddings(
        np.ascontiguousarray(feature_U2D[:, :features]),
        np.ascontiguousarray(feature_U2D[:, features:]),
        np.concatenate(keys),
        windows.reference_N,
        windows.alternate_N,
        reason_N,
        length,
        windows.saved,
    )


def evaluate_variants(
    embeddings: VariantEmbeddings,
    table: VariantTable,
    task: EqtlTask,
    protocol: EqtlProtocol,
    *,
    head: str,
    feature: str,
    seed: int,
) -> EqtlResult:
    """Fit a head on a task's training rows, and score its test rows.

    At most ``protocol.max_train_rows`` training rows are drawn at random, whatever their labels. Each feature is
    standardised on the rows that are learnt from. C is chosen by the AUROC of what the protocol scores, the strongest
    penalty of equals: on test; or on about a fifth of the training rows, contigs held out, and then all training rows
    are fitted again. Where contigs cannot be held out with both classes on either side, rows are held out such that
    those whose windows overlap or are equal, on either strand, stay on one side.

    A tissue is one-hot among the sorted names of the training rows that were drawn, and all zeros where these do not
    have it; as a number it is its place among the sorted names of the table.

    Parameters
    ----------
    embeddings, table : VariantEmbeddings, VariantTable
        As `embed_variants` gave and got them.
    task : EqtlTask
        Which rows, by distance.
    protocol : EqtlProtocol
        How.
    head : str
        Of `HEADS`: a support vector machine with a Gaussian kernel, or logistic regression.
    feature : str
        Of `FEATURES`.
    seed : int
        Of the rows drawn and held out, from 0 on.

    Returns
    -------
    EqtlResult

    Raises
    ------
    InputError
        When training or test rows are not of both classes, or none can be held out.
    ValueError
        When there is no such head or feature.
    """
    if head not in HEADS or feature not in FEATURES:
        raise ValueError(f"head {head!r} on {feature!r}: choose of {', '.join(HEADS)} and {', '.join(FEATURES)}")
    inside_N = task_rows(table, task, protocol.edges)
    used_N = inside_N & (embeddings.reason_N == USED)
    unused = count_reasons(embeddings.reason_N[inside_N])
    train, test = np.flatnonzero(used_N & ~table.test_N), np.flatnonzero(used_N & table.test_N)
    if len(train) > protocol.max_train_rows:
        order = np.argsort(random_bits(seed, _ROWS, train, 1)[:, 0], kind="stable")
        unused[NOT_DRAWN] = len(train) - protocol.max_train_rows
        train = np.sort(train[order[: protocol.max_train_rows]])
    for name, rows in (("training", train), ("test", test)):
        if not _both_classes(table.label_N[rows]):
            raise InputError(
                f"{table.place}: the {len(rows)} {name} rows of task {task.name} are not of both classes; give more "
                "rows, or another range of distances"
            )

    def features(rows: Int64) -> Float64:
        return np.concatenate(
            [embeddings.pair(rows, feature), _tissues(table, rows, train, protocol.tissue)], axis=1, dtype=np.float64
        )

    def scores(fitted: Any, rows: Int64) -> Float64:
        # Test rows may be many more than those learnt from, and double precision doubles them again.
        method = fitted.predict if protocol.scores == "labels" else fitted.decision_function
        starts = range(0, len(rows), _SCORED_AT_ONCE)
        return np.concatenate([method(features(rows[first : first + _SCORED_AT_ONCE])) for first in starts]).astype(
            np.float64
        )

    def fit(rows: Int64, c: float) -> Any:
        return _fit(head, features(rows), table.label_N[rows], c)

    penalties = sorted(protocol.c)
    learnt_from, chosen_on = train, test
    if protocol.choose_c_on == "validation" and len(penalties) > 1:
        split = _hold_out(embeddings, table, train, task, seed)
        learnt_from, chosen_on = train[split.train], train[split.validation]
    best: tuple[float, float, Float64] | None = None
    for c in penalties:
        score_N = scores(fit(learnt_from, c), chosen_on)
        value = evaluate("binary", table.label_N[chosen_on], score_N, ["auroc"])["auroc"]
        if best is None or value > best[0]:
            best = value, c, score_N
    assert best is not None
    _, c, score_N = best
    if chosen_on is not test:
        score_N = scores(fit(train, c), test)
    label_N = table.label_N[test]
    return EqtlResult(score_N, label_N, evaluate("binary", label_N, score_N), c, train, test, unused)


def task_rows(table: VariantTable, task: EqtlTask, edges: str) -> Bool:
    """Mark the rows of a task by their distance, whether they are used or not.

    Parameters
    ----------
    table, task
        Rows, and a range of distances.
    edges : {"lower", "both"}
        Whether the farther end belongs to the task too, and so to two tasks.
    """
    farthest = np.inf if task.to_distance is None else task.to_distance
    near_N = table.distance_N <= farthest if edges == "both" else table.distance_N < farthest
    return np.asarray((table.distance_N >= task.from_distance) & near_N)


class _CentreUnknown(ProbabilisticGenome):
    """A genome that does not know the middle of a window, so that there the window's own base stands."""

    @classmethod
    def of(cls, genome: ProbabilisticGenome) -> _CentreUnknown:
        return cls(genome.path, genome.contigs, genome.manifest, genome.arrays)

    def windows(self, contig_B: Int64, start_B: Int64, length: int) -> Windows:
        base_BL, row_N, column_N, frequency_N4 = super().windows(contig_B, start_B, length)
        base_BL[:, length // 2] = alphabet.UNKNOWN
        kept = column_N != length // 2
        return Windows(base_BL, row_N[kept], column_N[kept], frequency_N4[kept])


class _CentredInputs:
    """Windows as a model takes them, with the places of their first token, the variant's, and the last.

    These are tokens of bases: special ones and padding are outside. Where one is not found, as a tokenizer may lose
    bases, the places of all are in doubt.
    """

    def __init__(self, inputs: Inputs, length: int) -> None:
        self._inputs = inputs
        self.length_N = inputs.length_N
        rows = np.arange(len(self.length_N))
        places = (0, length // 2, length - 1)
        self._place_N3 = np.stack([inputs.tokens_at(rows, np.full_like(rows, place)) for place in places], axis=1)
        self.found_N: Bool = np.all(self._place_N3 >= 0, axis=1)

    def batch(self, rows: Int64, reverse: Bool | None = None) -> dict[str, torch.Tensor]:
        assert reverse is None, "places are those of windows read forward"
        return {**self._inputs.batch(rows), _PLACES: torch.from_numpy(self._place_N3[rows])}

    def tokens_at(self, rows: Int64, place_B: Int64) -> Int64:
        return self._inputs.tokens_at(rows, place_B)


def _pooled(states_BLD: torch.Tensor, place_B3: torch.Tensor, tokens: int) -> torch.Tensor:
    """Give the mean over tokens around the variant's, and behind it the state of that: float32 (B, 2 D)."""
    states_BLD = states_BLD.float()
    first_B1, centre_B1, last_B1 = (place_B3[:, number : number + 1] for number in range(3))
    place_L = torch.arange(states_BLD.shape[1], device=states_BLD.device)
    start_B1 = torch.maximum(centre_B1 - tokens // 2, first_B1)
    end_B1 = torch.minimum(centre_B1 - tokens // 2 + tokens, last_B1 + 1)
    weight_BL = ((place_L >= start_B1) & (place_L < end_B1)).float()
    # No product of matrices, which autocast would compute in less precision.
    mean_BD = (weight_BL[..., None] * states_BLD).sum(dim=1) / weight_BL.sum(dim=1, keepdim=True)
    variant_BD = states_BLD[torch.arange(len(states_BLD), device=states_BLD.device), centre_B1[:, 0]]
    return torch.cat([mean_BD, variant_BD], dim=1)


def _tissues(table: VariantTable, rows: Int64, train: Int64, kind: str) -> Float32:
    if kind == "number":
        return table.tissue_N[rows, None].astype(np.float32)
    hot = table.tissue_N[rows, None] == np.unique(table.tissue_N[train])
    return np.asarray(hot, dtype=np.float32)


def _fit(head: str, feature_TD: Float64, label_T: Int64, c: float) -> Any:
    model = SVC(C=c, kernel="rbf") if head == "svm" else LogisticRegression(C=c, max_iter=_ITERATIONS)
    with warnings.catch_warnings():
        # One that has not converged in so many steps is as good as it gets, and is compared like the others.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), model).fit(feature_TD, label_T)


def _both_classes(label_N: Int64) -> bool:
    return len(np.unique(label_N)) == 2


def _hold_out(embeddings: VariantEmbeddings, table: VariantTable, train: Int64, task: EqtlTask, seed: int) -> SplitRows:
    """Split training rows so that no variant, and none of its neighbours, is on both sides."""
    label_T = table.label_N[train]

    def of_both(split: SplitRows) -> bool:
        return all(_both_classes(label_T[side]) for side in split)

    places = zip(table.contig_N[train].tolist(), table.position_N[train].tolist(), strict=True)
    regions = [Region(table.contigs[contig], position, position + 1) for contig, position in places]
    by_contig = region_split(regions, _VALIDATION_SHARE, seed)
    if by_contig is not None and of_both(by_contig):
        return by_contig
    by_block = grouped_split(label_T, _blocks(embeddings, table, train), _VALIDATION_SHARE, seed)
    if not of_both(by_block):
        raise InputError(
            f"{table.place}: of the {len(train)} training rows of task {task.name} none of both classes can be held "
            "out to choose C on; give more rows, or one value of c"
        )
    return by_block


def _blocks(embeddings: VariantEmbeddings, table: VariantTable, train: Int64) -> Keys:
    """Give rows the same key whose windows overlap, or are equal on either strand, or whose neighbours' do."""
    contig_T, position_T = table.contig_N[train], table.position_N[train]
    by_place = np.lexsort((position_T, contig_T))
    near = (np.diff(contig_T[by_place]) == 0) & (np.diff(position_T[by_place]) < embeddings.length)
    _, key_T = np.unique(embeddings.key_U[embeddings.reference_N[train]], return_inverse=True)
    by_key = np.argsort(key_T, kind="stable")
    equal = np.diff(key_T[by_key]) == 0
    links = [(order[:-1][linked], order[1:][linked]) for order, linked in ((by_place, near), (by_key, equal))]
    one, other = (np.concatenate(ends) for ends in zip(*links, strict=True))
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(train), len(train)))
    _, block_T = connected_components(graph, directed=False)
    # A block is known by its first row's place in the genome, whatever the order of the rows.
    _, first = np.unique(block_T[by_place], return_index=True)
    lane_T2 = np.zeros((len(train), 2), dtype=np.uint64)
    lane_T2[:, 0] = (contig_T[by_place[first]] << 40 | position_T[by_place[first]])[block_T] << 1
    return lane_T2.view("V16")[:, 0]
