"""A linear probe of a model's embeddings of variants, next to its zero-shot scores.

As in TraitGym (Benegas et al. 2025, doi 10.1101/2025.02.11.637758), a chromosome is predicted by models that were
trained, and whose settings were chosen, on others. Shape suffixes: A alleles, N those with embeddings, K layers, D
states, F features.
"""

from typing import Any, Final

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mutbert.arrays import Float32, Int64
from mutbert.effects.alleles import Alleles, read_haplotypes
from mutbert.effects.scores import ClassifierScorer, Scorer
from mutbert.evaluation.vep_predictors import FOLDS, Predictor
from mutbert.progress import Advance, scaled
from mutbert.training.finetune import fit_quietly

PENALTIES: Final = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)  # inverse ones, which are tried
_FEWEST: Final = 5  # variants of either class in a fold
_AT_ONCE: Final = 1024


def probe(
    name: str, scorer: Scorer, alleles: Alleles, targets: pl.Series, problem: str, metric: str, advance: Advance
) -> tuple[dict[str, Predictor], list[str]]:
    """Return a model's probe as a predictor by its name, or a note on why there is none."""
    target_A = targets.cast(pl.Int64).to_numpy()
    if isinstance(scorer, ClassifierScorer) or problem != "binary":
        why = "it is for labels of two classes, and for models that are not fine-tuned"
    elif not (why := _folds(alleles.contig_A, target_A)[1]):
        # A quarter, half, three quarters of the layers, and all.
        last = int(scorer.model.config.num_hidden_layers)
        layers = sorted({-(-last * quarter // 4) for quarter in range(1, 5)})
        state_2AKD = embed(scorer, alleles, layers, scaled(advance, 0.5))
        known = np.flatnonzero(np.isfinite(state_2AKD).all(axis=(0, 2, 3)))
        fold_N, why = _folds(alleles.contig_A[known], target_A[known])
    if why:
        advance(len(alleles))
        return {}, [f"{name} probe is left out: {why}."]
    value_A, chosen = np.full(len(alleles), np.nan), []
    label_N, count = target_A[known], int(fold_N.max()) + 1
    for fold in range(count):
        train, own = np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)
        found: list[Any] = []
        for layer in range(len(layers)):
            found.append(_search(features(state_2AKD[:, known[train], layer]), label_N[train], fold_N[train], metric))
            advance(0.5 * len(alleles) / count / len(layers))
        best = max(range(len(layers)), key=lambda layer: found[layer].best_score_)
        value_A[known[own]] = found[best].decision_function(features(state_2AKD[:, known[own], best]))
        chosen.append(f"layer {layers[best]} with C {found[best].best_params_['logisticregression__C']:g}")
    words = (
        "logistic regression on difference, product and distance of the embeddings at the variant with REF and with "
        f"ALT, each of {count} folds of chromosomes from the others; by held-out ones of these: {', '.join(chosen)}"
    )
    return {f"{name} probe": Predictor(name, words, 0, value_A)}, []


def embed(scorer: Scorer, alleles: Alleles, layers: list[int], advance: Advance) -> Float32:
    """Return mean hidden states of layers at alleles, with REF and with ALT, (2, A, K, D); NaN where there is none."""
    parts = []
    for some in np.split(alleles, range(_AT_ONCE, len(alleles), _AT_ONCE)):
        both = read_haplotypes(scorer.surroundings.genome, some, scorer.context, "centred")
        queries = both.spans(None)._replace(layers=layers)
        state_SD = scorer.states(both.windows, queries, scaled(advance, len(some)))
        # Without those of whole windows.
        parts.append(state_SD.reshape(4, len(some), len(layers), -1)[::2])
    return np.concatenate(parts, axis=1)


def features(state_2ND: Float32) -> Float32:
    """Return the difference, the product and the Euclidean distance of embeddings, (N, 2 D + 1)."""
    reference_ND, alternate_ND = state_2ND
    difference_ND = alternate_ND - reference_ND
    distance_N1 = np.linalg.norm(difference_ND, axis=1, keepdims=True)
    return np.concatenate([difference_ND, reference_ND * alternate_ND, distance_N1], axis=1)


def _folds(contig_N: Int64, target_N: Int64) -> tuple[Int64, str]:
    """Return each variant's fold of whole chromosomes, and why folds do not do."""
    count, fold_N = min(FOLDS, len(np.unique(contig_N))), np.zeros(len(contig_N), dtype=np.int64)
    if count >= 3 and np.bincount(target_N, minlength=2).min() >= count:
        for fold, (_, own) in enumerate(StratifiedGroupKFold(count).split(target_N, target_N, contig_N)):
            fold_N[own] = fold
    fewest = int(np.bincount(2 * fold_N + target_N, minlength=2 * count or 1).min())
    if count >= 3 and fewest >= _FEWEST:
        return fold_N, ""
    need = f"it needs 3 folds of whole chromosomes, each with {_FEWEST} variants of either class"
    return fold_N, f"{need}; there are {count}, the smallest with {fewest}"


def _search(feature_NF: Float32, label_N: Int64, fold_N: Int64, metric: str) -> Any:
    """Return a classifier whose C was chosen by holding out one fold after another."""
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    scoring = "roc_auc" if metric.startswith("auroc") else "average_precision"
    grid = {"logisticregression__C": PENALTIES}
    return fit_quietly(GridSearchCV(model, grid, scoring=scoring, cv=PredefinedSplit(fold_N)), feature_NF, label_N)
