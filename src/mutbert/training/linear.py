"""Linear models on features, with the penalty chosen on validation data: probes, k-mers, heads on embeddings.

Shape suffixes: N rows, F features, K classes or columns.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from mutbert.encoders.probe import mean_over_tokens
from mutbert.errors import InputError
from mutbert.inference.run import sequence_outputs
from mutbert.scoring.metrics import LOWER_IS_BETTER, evaluate
from mutbert.training.classifier import decision_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt
    import torch

    from mutbert.arrays import Float32
    from mutbert.encoders.adapter import Encoder
    from mutbert.encoders.inputs import Inputs
    from mutbert.progress import Advance
    from mutbert.training.recipe import FinetuneSettings

    Labelled = tuple[Any, npt.NDArray[Any]]  # features, dense or sparse (N, F), and labels
    # C, and a linear layer on unscaled features: weights (K, F) and biases (K,); for two classes it has two outputs
    Linear = tuple[float, npt.NDArray[np.floating], npt.NDArray[np.floating]]

Fitted = TypeVar("Fitted")
PENALTIES: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of C, the inverse penalty, that are tried by default; for ridge regression, of 1 / alpha."""
_ABSENT: Final = -1e4  # low enough never to be the highest, and finite


def fit_linear(
    problem: str, train: Labelled, validation: Labelled, *, classes: int, metric: str,
    penalties: Iterable[float] = PENALTIES, scale: bool = True, class_weights: str = "none", iterations: int = 500,
) -> Linear:  # fmt: skip
    """Return logistic regression, or ridge regression of numbers, with the C that is best on the validation data.

    `classes` that have no training example are never predicted. `scale` standardises the features.
    """
    if problem == "token":
        raise InputError("a linear model needs labels of sequences; labels of bases need method=full or method=lora")
    if problem == "regression" and class_weights == "balanced":
        raise InputError("class_weights is balanced, but the labels are numbers and no classes; give none")
    (features_NF, labels), weight = train, "balanced" if class_weights == "balanced" else None
    scaler = StandardScaler().fit(features_NF.astype(np.float64)) if scale else None
    if scaler:
        features_NF = scaler.transform(features_NF.astype(np.float64))

    def estimator(c: float) -> Any:
        logistic = LogisticRegression(C=c, class_weight=weight, max_iter=iterations)
        return Ridge(alpha=1 / c) if problem == "regression" else logistic

    def fit(c: float) -> Linear:
        columns = labels.T if problem == "multilabel" else [labels]
        fitted = [fit_quietly(estimator(c), features_NF, column) for column in columns]
        weight_KF = np.concatenate([np.atleast_2d(one.coef_) for one in fitted])
        bias_K = np.concatenate([np.atleast_1d(one.intercept_) for one in fitted])
        if scaler:
            weight_KF = weight_KF / scaler.scale_
            bias_K = bias_K - weight_KF @ scaler.mean_
        if problem in {"multilabel", "regression"}:
            return c, weight_KF, bias_K
        if len(weight_KF) == 1:
            # The difference of the two outputs is the log odds.
            weight_KF, bias_K = np.concatenate([-weight_KF, weight_KF]) / 2, np.concatenate([-bias_K, bias_K]) / 2
        every_KF = np.zeros((classes, weight_KF.shape[1]), weight_KF.dtype)
        every_K = np.full(classes, _ABSENT, bias_K.dtype)
        every_KF[fitted[0].classes_], every_K[fitted[0].classes_] = weight_KF, bias_K
        return c, every_KF, every_K

    def value(model: Linear) -> float:
        scores = linear_scores(problem, validation[0], model)
        labels = validation[1].reshape(scores.shape) if problem == "regression" else validation[1]
        found = evaluate(problem, labels, scores, [metric])[metric]
        return -found if metric in LOWER_IS_BETTER else found

    return choose_penalty(fit, value, penalties)


def linear_scores(problem: str, features_NF: Any, model: Linear) -> Float32:
    """Return the decision values of what `fit_linear` returned, as `mutbert.scoring.metrics` takes them."""
    _, weight_KF, bias_K = model
    return decision_scores(problem, np.asarray(features_NF @ weight_KF.T + bias_K, dtype=np.float32))


def choose_penalty(
    fit: Callable[[float], Fitted], value: Callable[[Fitted], float], penalties: Iterable[float]
) -> Fitted:
    """Return what was fitted with the C of the highest value; of equals, with the strongest penalty."""
    fitted = [fit(c) for c in sorted(penalties)]
    return fitted[int(np.argmax(np.nan_to_num([value(one) for one in fitted], nan=-np.inf)))]


def fit_quietly(estimator: Any, features_NF: Any, label_N: npt.NDArray[Any]) -> Any:
    """Return an estimator fitted to labels, also where it has not converged; raise InputError for one class alone."""
    if is_classifier(estimator) and len(np.unique(label_N)) < 2:
        raise InputError("the training data have one class alone; choose other data")
    with warnings.catch_warnings():
        # One that has not converged in so many iterations is compared like the others.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(features_NF, label_N)


def embed_sequences(
    encoder: Encoder, body: Any, inputs: Inputs, settings: FinetuneSettings, advance: Advance | None = None
) -> Float32:
    """Return the means of a frozen model's last hidden states over all tokens, (N, F), of one strand or both."""

    def run(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return mean_over_tokens(encoder.hidden_states(body, batch), batch)

    return sequence_outputs(
        body, run, inputs, batch_size=2 * (settings.micro_batch_size or settings.batch_size),
        precision=settings.precision, strands=settings.strands, advance=advance,
    )  # fmt: skip
