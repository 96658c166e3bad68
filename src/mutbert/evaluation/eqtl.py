"""Causal variants told apart by embeddings of the windows around them, without training the model.

Every row stays in its table, and one that is not used has a reason. Shape suffixes: N rows of the table, T training
rows, U distinct windows, B batch, L tokens, D features.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mutbert.arrays import Bool, Float32, Float64, Int64
from mutbert.effects.alleles import Kind, Reason, find_alleles
from mutbert.encoders.adapter import Encoder
from mutbert.encoders.inputs import PaddedWindows, read_windows
from mutbert.errors import InputError
from mutbert.evaluation.suites import EqtlProtocol, EqtlTask
from mutbert.evaluation.vep_table import check_genome, count_values
from mutbert.examples.splits import grouped_split, region_split
from mutbert.examples.table import Keys
from mutbert.genome.sources import read_fasta
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.run import batch_of, run_batches
from mutbert.regions import ContigNames, Region
from mutbert.scoring.metrics import evaluate
from mutbert.tables import SourceFile, numbers, positions, read_table, reject, texts_of, truths
from mutbert.training.finetune import choose_penalty, fit_quietly
from mutbert.windows.randomness import random_bits

FEATURES: Final = ("window", "variant")  # the mean over the tokens around the variant; or its own token alone
HEADS: Final = ("svm", "logistic")  # a support vector machine with a Gaussian kernel; or logistic regression

_SIDES: Final = {"train": False, "test": True}
_ROWS: Final = 105  # a stream of random numbers; others are in `mutbert.windows.randomness`
_AT_ONCE: Final = 4096


def read_variants(place: str | Path, columns: Mapping[str, str]) -> tuple[pl.DataFrame, SourceFile]:
    """Return a table of variants in the file's order, and the file.

    Columns are contig and tissue; position, 1-based; reference and alternate as in the file; label, 1 where causal;
    distance, in bases on either side, or null; is_test, null where the split is neither train nor test.
    """
    file, source = read_table(place, list(columns.values()))
    place = source.place
    texts = {key: texts_of(file, place, columns[key]) for key in ("contig", "tissue", "reference", "alternate")}
    for key in ("contig", "tissue"):
        reject(file, place, columns[key], texts[key].is_null(), "fill it in, or remove the row")
    labels, distances = truths(file, place, columns["label"]), numbers(file, place, columns["distance"])
    reject(file, place, columns["label"], labels.is_null(), "expected 0 or 1")
    is_test = texts_of(file, place, columns["split"]).str.to_lowercase().replace_strict(_SIDES, default=None)
    for side, value in _SIDES.items():
        if value not in is_test:
            raise InputError(f"{place}: no row has {side!r} in column {columns['split']}; rows are train or test")
    found = {"label": labels.cast(pl.Int64), "distance": distances.abs(), "is_test": is_test}
    found["position"] = positions(file, place, columns["position"])
    return pl.DataFrame({key: values.fill_null("") for key, values in texts.items()} | found), source


def open_genome(place: str | Path, contigs: pl.Series) -> ProbabilisticGenome:
    """Return a genome store; or a FASTA (plain, gzip or bgzip), of which these contigs alone are kept."""
    path = Path(place)
    if path.is_dir():
        return ProbabilisticGenome.open(path)
    wanted = ContigNames(contigs.unique())
    return ProbabilisticGenome.from_sequences((one for one in read_fasta(path) if wanted.find(one[0])), path)


def find_windows(
    table: pl.DataFrame, place: str, genome: ProbabilisticGenome, length: int
) -> tuple[pl.DataFrame, Int64]:
    """Return a table with its windows' numbers, -1 where a row is not used, and contig, start and allele of each."""
    variants = (table[name].to_list() for name in ("contig", "position", "reference", "alternate"))
    alleles = find_alleles(genome, *variants, longest=1)
    check_genome(place, table["contig"], alleles, genome)
    single_N = (table["reference"].str.len_bytes() == 1).to_numpy() & (alleles.kind_A == Kind.SNV)
    start_N = alleles.start_A - length // 2
    inside_N = (start_N >= 0) & (start_N + length <= np.array([*genome.lengths.values(), -1])[alleles.contig_A])
    masks = {
        "no distance is given": table["distance"].is_null(),
        "the split is neither train nor test": table["is_test"].is_null(),
        "other than a change of one base": ~single_N,
        **{reason.meaning: alleles.reason_A == reason for reason in Reason if reason},
        "the window goes beyond the contig's end": ~inside_N,
    }
    found = (pl.when(pl.Series(mask)).then(pl.lit(reason)) for reason, mask in masks.items())
    reasons = pl.select(reason=pl.coalesce(*found)).to_series()
    used = np.flatnonzero(reasons.is_null())
    if not len(used):
        counts = ", ".join(f"{reason} ({count})" for reason, count in count_values(reasons).items())
        raise InputError(f"{place}: no row can be used: {counts}; use the table's own genome, or another table")
    where = alleles.contig_A[used], start_N[used]
    sides = [np.stack([*where, allele_A[used]]) for allele_A in (alleles.reference_A, alleles.alternate_A)]
    window_3U, number = np.unique(np.hstack(sides), axis=1, return_inverse=True)
    window_2N = np.full((2, len(table)), -1, dtype=np.int64)
    window_2N[:, used] = number.reshape(2, -1)
    return table.with_columns(reasons, reference_window=window_2N[0], alternate_window=window_2N[1]), window_3U


def embed_variants(
    encoder: Encoder, body: Any, table: pl.DataFrame, window_3U: Int64, genome: ProbabilisticGenome,
    protocol: EqtlProtocol, length: int, **settings: Any,
) -> tuple[pl.DataFrame, dict[str, Float32]]:  # fmt: skip
    """Return the table of `find_windows`, and `FEATURES` of its windows by a `body` without a head, (U, D)."""
    (contig_U, start_U, allele_U), found, outputs = window_3U, [], []
    for first in range(0, len(start_U), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        length_B = np.full_like(start_U[part], length)
        windows = read_windows(genome, contig_U[part], start_U[part], length_B)
        windows = windows.with_codes(np.arange(len(windows)), length_B // 2, allele_U[part].astype(np.uint8))
        rows, output_B2D = _embed_windows(encoder, body, windows, length, protocol, settings)
        found.append(first + rows)
        outputs.append(output_B2D)
    found_F = np.concatenate(found)
    if not len(found_F):
        raise InputError(f"{encoder.name}: the token of no variant was found; use a model that reads such windows")
    output_F2D = np.concatenate([output_B2D for output_B2D in outputs if len(output_B2D)])
    feature_U2D = np.full((len(start_U), output_F2D.shape[1]), np.nan, dtype=np.float32)
    feature_U2D[found_F] = output_F2D
    # A neighbour of a token that is not found is the token of something else.
    lost = ~pl.all_horizontal(pl.col("reference_window", "alternate_window").is_in(found_F.tolist()))
    table = table.with_columns(reason=pl.coalesce("reason", pl.when(lost).then(pl.lit("its token was not found"))))
    return table, dict(zip(FEATURES, np.split(feature_U2D, 2, axis=1), strict=True))


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


def choose_rows(
    table: pl.DataFrame, task: EqtlTask, protocol: EqtlProtocol, seed: int
) -> tuple[Int64, Int64, dict[str, int]]:
    """Return a task's training rows, at most ``max_train_rows`` of them, its test rows, and how many are unused."""
    farthest = np.inf if task.to_distance is None else task.to_distance
    closed: Any = "both" if protocol.edges == "both" else "left"
    inside = table["distance"].is_between(task.from_distance, farthest, closed=closed).fill_null(False)
    used, unused = inside & table["reason"].is_null(), count_values(table["reason"].filter(inside))
    test, train = (np.flatnonzero(used & side) for side in (table["is_test"], ~table["is_test"]))
    if len(train) > protocol.max_train_rows:
        order = np.argsort(random_bits(seed, _ROWS, train, 1)[:, 0], kind="stable")
        unused["more training rows than max_train_rows"] = len(train) - protocol.max_train_rows
        train = np.sort(train[order[: protocol.max_train_rows]])
    return train, test, unused


def score_variants(
    table: pl.DataFrame, feature_UD: Float32, train: Int64, test: Int64, protocol: EqtlProtocol, *, head: str,
    seed: int, length: int, name: str,
) -> tuple[Float64, float]:  # fmt: skip
    """Return scores of test rows by a head that learnt from training rows, and its C; `name` is for messages.

    C has the best AUROC, of equals the strongest penalty, on test or on rows that are held out (`hold_out`); then all
    training rows are fitted again.
    """
    label_N = table["label"].to_numpy()
    for side, rows in (("training", train), ("test", test)):
        if len(np.unique(label_N[rows])) < 2:
            what = f"the {len(rows)} {side} rows are not of both classes"
            raise InputError(f"{name}: {what}; add rows, or choose another range of distances")
    tissue_ND = encode_tissues(table["tissue"], train, protocol.tissue)
    windows = [table[f"{side}_window"].to_numpy() for side in ("reference", "alternate")]

    def features(rows: Int64) -> Float64:
        pair = [feature_UD[window_N[rows]] for window_N in windows]
        return np.concatenate([*pair, tissue_ND[rows]], axis=1, dtype=np.float64)

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
        held_T = hold_out(table, train, seed, length, name)
        learnt_from, chosen_on = train[~held_T], train[held_T]
    c, score_N = choose_penalty(lambda c: (c, scores(fit(learnt_from, c), chosen_on)), area, protocol.c)
    return score_N if chosen_on is test else scores(fit(train, c), test), c


def encode_tissues(tissues: pl.Series, train: Int64, kind: str) -> Float64:
    """Return features of each row's tissue, (N, D): its rank, or one-hot among the names of training rows."""
    tissue_N = _ranks(tissues)[:, None]
    return (tissue_N if kind == "number" else tissue_N == np.unique(tissue_N[train])).astype(np.float64)


def _ranks(texts: pl.Series) -> Int64:
    """Return the rank of each text among the distinct ones, from 0."""
    return texts.rank("dense").cast(pl.Int64).to_numpy() - 1


def hold_out(table: pl.DataFrame, train: Int64, seed: int, length: int, name: str) -> Bool:
    """Return which training rows are held out, by contigs or else by `_blocks`: no neighbour is on the other side."""
    label_T = table["label"].to_numpy()[train]
    by_contig = region_split([Region(contig, 0, 1) for contig in table["contig"][train]], 0.2, seed)
    by_block = grouped_split(label_T, _blocks(table, train, length), 0.2, seed)
    for held_T in (by_contig, by_block):
        if held_T is not None and all(len(np.unique(label_T[side])) == 2 for side in (held_T, ~held_T)):
            return held_T
    what = f"of the {len(train)} training rows none of both classes can be held out to choose C on"
    raise InputError(f"{name}: {what}; add rows, or set one value of c")


def _blocks(table: pl.DataFrame, train: Int64, length: int) -> Keys:
    """Return the same key for rows whose windows overlap, or whose neighbours' do: the place of the first of them."""
    place_T = (_ranks(table["contig"])[train] << 40) + table["position"].to_numpy()[train] - 1
    order = np.argsort(place_T, kind="stable")
    is_first_T = np.diff(place_T[order], prepend=-length) >= length
    lane_T2 = np.zeros((len(train), 2), dtype=np.uint64)
    lane_T2[order, 0] = np.maximum.accumulate(np.where(is_first_T, place_T[order], 0)) << 1
    return lane_T2.view("V16")[:, 0]
