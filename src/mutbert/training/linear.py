"""Linear models on features, with the penalty chosen on validation data: probes, k-mers, heads on embeddings.

Shape suffixes: N rows, F features, K classes or columns.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mutbert.encoders.token_encoders import mean_over_tokens
from mutbert.errors import InputError
from mutbert.inference.run import sequence_outputs
from mutbert.scoring.metrics import LOWER_IS_BETTER, evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt
    import torch

    from mutbert.arrays import Float32, Float64
    from mutbert.encoders.adapter import Encoder
    from mutbert.encoders.inputs import Inputs
    from mutbert.progress import Advance
    from mutbert.training.finetune_settings import FinetuneSettings

    Labelled = tuple[Any, npt.NDArray[Any]]  # features, dense or sparse (N, F), and labels

Fitted = TypeVar("Fitted")
PENALTIES: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of C, the inverse penalty, that are tried by default; for ridge regression, of 1 / alpha."""
_ABSENT: Final = -1e4  # low enough never to be the highest, and finite


class LinearModel(NamedTuple):
    """Fitted linear models of one problem: one for each column of ``multilabel``, otherwise one."""

    problem: str
    classes: int
    c: float
    estimators: list[Any]

    def scores(self, features_NF: Any) -> Float32:
        """Return decision values, as `mutbert.scoring.metrics` takes them."""
        features_NF = _double(features_NF)
        if self.problem == "regression":
            return np.asarray(self.estimators[0].predict(features_NF), dtype=np.float32)
        found = [estimator.decision_function(features_NF) for estimator in self.estimators]
        if self.problem != "multiclass":
            return np.asarray(found[0] if self.problem == "binary" else np.stack(found, axis=1), dtype=np.float32)
        score_NK = np.full((features_NF.shape[0], self.classes), _ABSENT, dtype=np.float32)
        present = self.estimators[0].classes_
        score_NK[:, present] = np.stack([-found[0], found[0]], axis=1) / 2 if len(present) == 2 else found[0]
        return score_NK

    def weights(self) -> tuple[Float64, Float64]:
        """Return (K, F) and (K,) of a linear layer on unscaled features; for two classes, of a layer of two outputs."""
        weight_KF = np.concatenate([np.atleast_2d(one[-1].coef_) for one in self.estimators])
        bias_K = np.concatenate([np.atleast_1d(one[-1].intercept_) for one in self.estimators])
        scaler = self.estimators[0][0]
        weight_KF = weight_KF / scaler.scale_
        bias_K = bias_K - weight_KF @ scaler.mean_
        if self.problem not in {"binary", "multiclass"}:
            return weight_KF, bias_K
        if len(weight_KF) == 1:
            # The difference of the two outputs is the log odds.
            weight_KF, bias_K = np.concatenate([-weight_KF, weight_KF]) / 2, np.concatenate([-bias_K, bias_K]) / 2
        present = self.estimators[0].classes_
        every_KF, every_K = np.zeros((self.classes, weight_KF.shape[1])), np.full(self.classes, _ABSENT)
        every_KF[present], every_K[present] = weight_KF, bias_K
        return every_KF, every_K


def fit_linear(
    problem: str, train: Labelled, validation: Labelled, *, classes: int, metric: str,
    penalties: Iterable[float] = PENALTIES, scale: bool = True, class_weights: str = "none", iterations: int = 500,
) -> LinearModel:  # fmt: skip
    """Return logistic regression, or ridge regression of numbers, with the C that is best on the validation data.

    `classes` that have no training example are never predicted. `scale` standardises the features.
    """
    if problem == "token":
        raise InputError("a linear model needs labels of sequences; labels of bases need method=full or method=lora")
    if problem == "regression" and class_weights == "balanced":
        raise InputError("class_weights is balanced, but the labels are numbers and no classes; give none")
    features_NF, weight = _double(train[0]), "balanced" if class_weights == "balanced" else None

    def estimator(c: float) -> Any:
        logistic = LogisticRegression(C=c, class_weight=weight, max_iter=iterations)
        one = Ridge(alpha=1 / c) if problem == "regression" else logistic
        return make_pipeline(StandardScaler(), one) if scale else one

    def fit(c: float) -> LinearModel:
        columns = train[1].T if problem == "multilabel" else [train[1]]
        return LinearModel(problem, classes, c, [fit_quietly(estimator(c), features_NF, label) for label in columns])

    def value(model: LinearModel) -> float:
        scores = model.scores(validation[0])
        # Ridge regression of one column predicts a flat array.
        labels = validation[1].reshape(scores.shape) if problem == "regression" else validation[1]
        found = evaluate(problem, labels, scores, [metric])[metric]
        return -found if metric in LOWER_IS_BETTER else found

    return choose_penalty(fit, value, penalties)


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


def _double(features_NF: Any) -> Any:
    return features_NF.astype(np.float64) if isinstance(features_NF, np.ndarray) else features_NF


def embed_sequences(
    encoder: Encoder, body: Any, inputs: Inputs, settings: FinetuneSettings, advance: Advance | None = None
) -> Float32:
    """Return the means of a frozen model's last hidden states over all tokens, (N, F), of one strand or both."""

    def run(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return mean_over_tokens(encoder.hidden_states(body, batch), batch.get("attention_mask"))

    return sequence_outputs(
        body, run, inputs, batch_size=2 * (settings.micro_batch_size or settings.batch_size),
        precision=settings.precision, strands=settings.strands, advance=advance,
    )  # fmt: skip
