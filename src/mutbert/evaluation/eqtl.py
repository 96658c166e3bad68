"""Causal variants told apart by embeddings of the windows around them, without training the model.

The reference and the alternate window of each variant are embedded once; a head of scikit-learn learns from both and
the tissue. Shape suffixes: N rows of the table, T training rows, U distinct windows, B batch, L tokens, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mutbert.encoders.inputs import read_windows
from mutbert.errors import InputError
from mutbert.evaluation.eqtl_table import TOKEN, Variants, count_reasons, find_windows
from mutbert.examples.splits import grouped_split, region_split, sequence_keys
from mutbert.examples.table import Examples
from mutbert.inference.run import batch_of, run_batches
from mutbert.regions import Region
from mutbert.scoring.metrics import evaluate
from mutbert.training.linear import choose_penalty, fit_quietly
from mutbert.windows.randomness import random_bits

if TYPE_CHECKING:
    from mutbert.arrays import Bool, Float32, Float64, Int64
    from mutbert.encoders.adapter import Encoder
    from mutbert.encoders.inputs import PaddedWindows
    from mutbert.evaluation.suites import EqtlProtocol, EqtlTask
    from mutbert.examples.table import Keys
    from mutbert.genome.store import ProbabilisticGenome

FEATURES: Final = ("window", "variant")
"""The mean over the tokens around the variant; or its own token alone."""
HEADS: Final = ("svm", "logistic")
"""A support vector machine with a Gaussian kernel, or logistic regression."""
NOT_DRAWN: Final = "more training rows than max_train_rows"
"""The reason of rows that were not drawn, besides those of `mutbert.evaluation.eqtl_table.REASONS`."""

_ROWS: Final = 105  # a stream of random numbers; others are in `mutbert.windows.randomness`
_AT_ONCE: Final = 4096


class VariantEmbeddings(NamedTuple):
    """Features of a table's variants by a model."""

    table: pl.DataFrame  # see `find_windows`
    place: str  # of the table
    length: int  # bases of a window
    key_U: Keys  # see `sequence_keys`
    features: dict[str, Float32]  # by `FEATURES`, (U, D); NaN where the variant's token was not found

    @property
    def saved(self) -> int:
        """How many windows need no embedding of their own, since other rows have the same ones."""
        return 2 * int((self.table["reference_window"] >= 0).sum()) - len(self.key_U)

    def pair(self, rows: Int64, feature: str) -> Float32:
        """Return the features of rows that are used, the reference's and then the alternate's, (B, 2 D)."""
        sides = (self.table[f"{side}_window"].to_numpy()[rows] for side in ("reference", "alternate"))
        return np.concatenate([self.features[feature][window_B] for window_B in sides], axis=1)


class EqtlResult(NamedTuple):
    """Test rows scored by a head that learnt from training rows."""

    scores: Float64  # of each test row: a decision value, above 0 for causal; or 1 and 0, for hard labels
    labels: Int64  # of each test row
    metrics: dict[str, float]
    c: float  # the chosen inverse penalty
    train_rows: Int64  # of the table, ascending
    test_rows: Int64
    unused: dict[str, int]  # rows of the task by reason


def embed_variants(
    encoder: Encoder, body: Any, variants: Variants, genome: ProbabilisticGenome, protocol: EqtlProtocol, length: int,
    **settings: Any,
) -> VariantEmbeddings:  # fmt: skip
    """Return embeddings of the windows around variants, each distinct one embedded once by a `body` without a head.

    Rows whose token is not found are not used, as a neighbour's is of something else.
    """
    table, (contig_U, start_U, allele_U) = find_windows(variants, genome, length)
    keys, found, outputs = [], [], []
    for first in range(0, len(start_U), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        length_B = np.full_like(start_U[part], length)
        windows = read_windows(genome, contig_U[part], start_U[part], length_B)
        rows = np.arange(len(windows))
        windows = windows.with_codes(rows, length_B // 2, allele_U[part].astype(np.uint8))
        nothing = ("",) * len(rows), (None,) * len(rows), "", ()
        keys.append(sequence_keys(Examples(windows.base_codes, windows.offsets, None, *nothing)))
        rows, output_B2D = _embed_windows(encoder, body, windows, length, protocol, settings)
        found.append(first + rows)
        outputs.append(output_B2D)
    found_F = np.concatenate(found)
    if not len(found_F):
        raise InputError(f"{encoder.name}: the token of no variant was found; use a model that reads such windows")
    output_F2D = np.concatenate([output_B2D for output_B2D in outputs if len(output_B2D)])
    feature_U2D = np.full((len(start_U), output_F2D.shape[1]), np.nan, dtype=np.float32)
    feature_U2D[found_F] = output_F2D
    lost = ~pl.all_horizontal(pl.col("reference_window", "alternate_window").is_in(found_F.tolist()))
    table = table.with_columns(reason=pl.coalesce("reason", pl.when(lost).then(pl.lit(TOKEN))))
    features = dict(zip(FEATURES, np.split(feature_U2D, 2, axis=1), strict=True))
    return VariantEmbeddings(table, variants.source.place, length, np.concatenate(keys), features)


def _embed_windows(
    encoder: Encoder, body: Any, windows: PaddedWindows, length: int, protocol: EqtlProtocol, settings: dict[str, Any]
) -> tuple[Int64, Float32]:
    """Return the windows whose variant's token is found, and both features of each, (B, 2 D)."""
    inputs, every = encoder.inputs(windows, special_tokens=protocol.special_tokens), np.arange(len(windows))
    # The first token, the variant's and the last: special ones and padding are outside. Where one is not found, as a
    # tokenizer may lose bases, all are in doubt.
    bases = (0, length // 2, length - 1)
    place_N3 = np.stack([inputs.tokens_at(every, np.full_like(every, base)) for base in bases], axis=1)
    found = np.flatnonzero((place_N3 >= 0).all(axis=1))

    def predict(chosen: Int64, _: bool) -> list[torch.Tensor]:
        states_BLD = encoder.hidden_states(body, batch_of(inputs, found[chosen], body))
        place_B3 = torch.from_numpy(place_N3[found[chosen]]).to(states_BLD.device)
        return [_pooled(states_BLD, place_B3, protocol.pooled_tokens)]

    if not len(found):
        return found, np.zeros((0, 0), dtype=np.float32)
    order, (output_B2D,) = run_batches(body, inputs.length_N[found], predict, **settings)
    return found[order], output_B2D


def _pooled(states_BLD: torch.Tensor, place_B3: torch.Tensor, tokens: int) -> torch.Tensor:
    """Return the mean over tokens around the variant's, and then the state of that: float32 (B, 2 D)."""
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


def evaluate_variants(
    embeddings: VariantEmbeddings, task: EqtlTask, protocol: EqtlProtocol, *, head: str, feature: str, seed: int
) -> EqtlResult:
    """Return the test rows of a task as a head scores them that learnt from at most ``protocol.max_train_rows`` rows.

    C is chosen by the AUROC of what the protocol scores, the strongest penalty of equals, on test or on about a fifth
    of the training rows (`hold_out`); then all training rows are fitted again.
    """
    if head not in HEADS or feature not in FEATURES:
        raise ValueError(f"head {head!r} on {feature!r}: choose of {', '.join(HEADS)} and {', '.join(FEATURES)}")
    table = embeddings.table
    inside = task_rows(table, task, protocol.edges)
    used, unused = inside & table["reason"].is_null(), count_reasons(table["reason"].filter(inside))
    test, train = (np.flatnonzero(used & side) for side in (table["is_test"], ~table["is_test"]))
    if len(train) > protocol.max_train_rows:
        order = np.argsort(random_bits(seed, _ROWS, train, 1)[:, 0], kind="stable")
        unused[NOT_DRAWN] = len(train) - protocol.max_train_rows
        train = np.sort(train[order[: protocol.max_train_rows]])
    label_N = table["label"].to_numpy()
    for name, rows in (("training", train), ("test", test)):
        if not _both_classes(label_N[rows]):
            what = f"the {len(rows)} {name} rows of task {task.name} are not of both classes"
            raise InputError(f"{embeddings.place}: {what}; add rows, or choose another range of distances")
    tissue_ND = encode_tissues(table["tissue"], train, protocol.tissue)

    def features(rows: Int64) -> Float64:
        return np.concatenate([embeddings.pair(rows, feature), tissue_ND[rows]], axis=1, dtype=np.float64)

    def scores(fitted: Any, rows: Int64) -> Float64:
        # Test rows may be many more than those learnt from, and double precision doubles them again.
        method = fitted.predict if protocol.scores == "labels" else fitted.decision_function
        parts = [method(features(rows[first : first + _AT_ONCE])) for first in range(0, len(rows), _AT_ONCE)]
        return np.concatenate(parts).astype(np.float64)

    def fit(rows: Int64, c: float) -> Any:
        model = SVC(C=c, kernel="rbf") if head == "svm" else LogisticRegression(C=c, max_iter=500)
        return fit_quietly(make_pipeline(StandardScaler(), model), features(rows), label_N[rows])

    def area(found: tuple[float, Float64]) -> float:
        return evaluate("binary", label_N[chosen_on], found[1], ["auroc"])["auroc"]

    learnt_from, chosen_on = train, test
    if protocol.choose_c_on == "validation" and len(protocol.c) > 1:
        held_T = hold_out(embeddings, train, task, seed)
        learnt_from, chosen_on = train[~held_T], train[held_T]
    c, score_N = choose_penalty(lambda c: (c, scores(fit(learnt_from, c), chosen_on)), area, protocol.c)
    if chosen_on is not test:
        score_N = scores(fit(train, c), test)
    return EqtlResult(score_N, label_N[test], evaluate("binary", label_N[test], score_N), c, train, test, unused)


def task_rows(table: pl.DataFrame, task: EqtlTask, edges: str) -> pl.Series:
    """Return which rows have a task's distance, used or not; with `edges` "both" the farther end too."""
    farthest = np.inf if task.to_distance is None else task.to_distance
    closed: Any = "both" if edges == "both" else "left"
    return table["distance"].is_between(task.from_distance, farthest, closed=closed).fill_null(False)


def encode_tissues(tissues: pl.Series, train: Int64, kind: str) -> Float64:
    """Return features of each row's tissue, (N, D): its rank, or one-hot among the names of training rows."""
    tissue_N = _ranks(tissues)[:, None]
    return (tissue_N if kind == "number" else tissue_N == np.unique(tissue_N[train])).astype(np.float64)


def _ranks(texts: pl.Series) -> Int64:
    """Return the rank of each text among the distinct ones, from 0."""
    return texts.rank("dense").cast(pl.Int64).to_numpy() - 1


def _both_classes(label_N: Int64) -> bool:
    return len(np.unique(label_N)) == 2


def hold_out(embeddings: VariantEmbeddings, train: Int64, task: EqtlTask, seed: int) -> Bool:
    """Return which training rows are held out, by contigs or else by `blocks`: no neighbour is on the other side."""
    label_T = embeddings.table["label"].to_numpy()[train]
    held_T = region_split([Region(contig, 0, 1) for contig in embeddings.table["contig"][train]], 0.2, seed)
    if held_T is None or not all(_both_classes(label_T[side]) for side in (held_T, ~held_T)):
        held_T = grouped_split(label_T, blocks(embeddings, train), 0.2, seed)
    if not all(_both_classes(label_T[side]) for side in (held_T, ~held_T)):
        what = f"of the {len(train)} training rows of task {task.name} none of both classes can be held out"
        raise InputError(f"{embeddings.place}: {what} to choose C on; add rows, or set one value of c")
    return held_T


def blocks(embeddings: VariantEmbeddings, train: Int64) -> Keys:
    """Return the same key for rows whose windows overlap, or are equal on either strand, or whose neighbours' do."""
    table = embeddings.table
    contig_T, position_T = _ranks(table["contig"])[train], table["position"].to_numpy()[train]
    by_place = np.lexsort((position_T, contig_T))
    near = (np.diff(contig_T[by_place]) == 0) & (np.diff(position_T[by_place]) < embeddings.length)
    _, key_T = np.unique(embeddings.key_U[table["reference_window"].to_numpy()[train]], return_inverse=True)
    by_key = np.argsort(key_T, kind="stable")
    equal = np.diff(key_T[by_key]) == 0
    links = [(order[:-1][linked], order[1:][linked]) for order, linked in ((by_place, near), (by_key, equal))]
    one, other = (np.concatenate(ends) for ends in zip(*links, strict=True))
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(train), len(train)))
    _, block_T = connected_components(graph, directed=False)
    # A block is known by its first row's position in the genome, whatever the order of the rows.
    _, first = np.unique(block_T[by_place], return_index=True)
    lane_T2 = np.zeros((len(train), 2), dtype=np.uint64)
    lane_T2[:, 0] = (contig_T[by_place[first]] << 40 | position_T[by_place[first]])[block_T] << 1
    return lane_T2.view("V16")[:, 0]
