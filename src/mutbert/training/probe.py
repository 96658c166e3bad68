"""A linear probe: embeddings of a frozen model, and a linear model on them whose penalty is chosen on validation data.

Shape suffixes: N sequences, D features, K outputs.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from mutbert.encoders.probe import mean_over_tokens
from mutbert.errors import InputError, MissingExtraError
from mutbert.inference.run import sequence_outputs
from mutbert.scoring.metrics import LOWER_IS_BETTER, evaluate

try:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler
except ImportError as error:
    raise MissingExtraError("scikit-learn", "bench") from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutbert.arrays import Float32, Float64
    from mutbert.encoders.adapter import Encoder
    from mutbert.encoders.inputs import Inputs
    from mutbert.examples.table import Examples
    from mutbert.progress import Advance
    from mutbert.training.finetune_settings import FinetuneSettings


PENALTIES: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of C, the inverse of the penalty, that are tried; of ridge regression its inverse likewise."""
_ITERATIONS: Final = 500


@dataclass(frozen=True)
class Probe:
    """A linear model on embeddings.

    Parameters
    ----------
    weight_KD, bias_K : ndarray of float64
        For embeddings as they are: standardisation is within. Of two classes there is one row, the log odds.
    c : float
        The chosen inverse penalty.
    """

    weight_KD: Float64
    bias_K: Float64
    c: float

    def scores(self, embedding_ND: Float32) -> Float32:
        """Give decision values: (N,) where there is one row, and (N, K) otherwise."""
        score_NK = (embedding_ND @ self.weight_KD.T + self.bias_K).astype(np.float32)
        return score_NK[:, 0] if score_NK.shape[1] == 1 else score_NK


def embed_sequences(
    encoder: Encoder, body: Any, inputs: Inputs, settings: FinetuneSettings, advance: Advance | None = None
) -> Float32:
    """Embed sequences by a frozen model: the mean of its last hidden states over all tokens.

    Returns
    -------
    ndarray of float32, shape (N, D)
        Of both strands the mean, where the settings say so.
    """

    def run(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return mean_over_tokens(encoder.hidden_states(body, batch), batch)

    return sequence_outputs(
        body,
        run,
        inputs,
        batch_size=2 * (settings.micro_batch_size or settings.batch_size),
        precision=settings.precision,
        strands=settings.strands,
        advance=advance,
    )


def fit_probe(
    train: tuple[Examples, Float32],
    validation: tuple[Examples, Float32],
    *,
    metric: str,
    class_weights: str = "none",
    penalties: Sequence[float] = PENALTIES,
) -> Probe:
    """Fit linear models to embeddings of the training data, and choose the one that is best on the validation data.

    Parameters
    ----------
    train, validation : tuple of (Examples, ndarray)
        Labels and embeddings, (N, D).
    metric : str
        Of `mutbert.scoring.metrics`; of equals the strongest penalty is taken.
    class_weights : {"none", "balanced"}
        As in `FinetuneSettings`.
    penalties : sequence of float
        Values of C to try.

    Returns
    -------
    Probe
        Logistic regression for classes, one for each of several labels; ridge regression for numbers.

    Raises
    ------
    InputError
        When the training data have one class alone, or labels are of single bases.
    """
    problem, label = train[0].problem, validation[0].known_labels
    if problem == "token":
        raise InputError("a probe is for labels of sequences; give method=full or method=lora for labels of bases")
    if problem == "regression" and class_weights == "balanced":
        raise InputError("class_weights is balanced, but the labels are numbers and no classes; give none")
    scaler = StandardScaler().fit(train[1].astype(np.float64))
    scaled = scaler.transform(train[1].astype(np.float64))
    best: tuple[float, Probe] | None = None
    for c in sorted(penalties):
        weight_KD, bias_K = _fit(problem, scaled, train[0], c, class_weights)
        weight_KD = weight_KD / scaler.scale_
        probe = Probe(weight_KD, bias_K - weight_KD @ scaler.mean_, c)
        score = probe.scores(validation[1])
        # One column of labels is no less a column.
        value = evaluate(problem, label, score if problem == "multiclass" else score.reshape(label.shape), [metric])[
            metric
        ]
        value = -np.inf if np.isnan(value) else -value if metric in LOWER_IS_BETTER else value
        if best is None or value > best[0]:
            best = value, probe
    assert best is not None
    return best[1]


def as_classifier(probe: Probe, outputs: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Give a probe as weight (outputs, D) and bias (outputs,) of a classifier's linear layer."""
    weight, bias = torch.from_numpy(probe.weight_KD), torch.from_numpy(probe.bias_K)
    if len(weight) == 1 and outputs == 2:
        # The difference of the two logits is the log odds.
        weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
    return weight.to(dtype), bias.to(dtype)


def _fit(problem: str, scaled_ND: Float64, examples: Examples, c: float, class_weights: str) -> tuple[Float64, Float64]:
    label = examples.known_labels
    if problem == "regression":
        ridge = Ridge(alpha=1 / c).fit(scaled_ND, label)
        return np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_)
    columns = [label] if problem != "multilabel" else list(label.T)
    rows: list[tuple[Float64, Float64]] = []
    for column in columns:
        if len(np.unique(column)) < 2:
            raise InputError("the training data have one class alone, of which nothing can be learnt; give other data")
        model = LogisticRegression(
            C=c, class_weight="balanced" if class_weights == "balanced" else None, max_iter=_ITERATIONS
        )
        with warnings.catch_warnings():
            # One that has not converged in so many steps is as good as it gets, and is compared like the others.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(scaled_ND, column)
        rows.append(_every_class(model, problem, len(examples.classes)))
    return np.concatenate([weight for weight, _ in rows]), np.concatenate([bias for _, bias in rows])


def _every_class(model: Any, problem: str, classes: int) -> tuple[Float64, Float64]:
    """Give a row of weights for each class, those without an example in the training data included."""
    if problem != "multiclass":
        return model.coef_, model.intercept_
    present = model.classes_
    weight_KD = np.zeros((classes, model.coef_.shape[1]))
    bias_K = np.full(classes, -np.inf)
    if len(present) == 2:
        weight_KD[present] = np.concatenate([-model.coef_ / 2, model.coef_ / 2])
        bias_K[present] = np.concatenate([-model.intercept_ / 2, model.intercept_ / 2])
    else:
        weight_KD[present], bias_K[present] = model.coef_, model.intercept_
    # Low enough never to be chosen, and a number.
    return weight_KD, np.where(np.isinf(bias_K), -1e4, bias_K)
