"""Fine-tune a model on one's own table: sequences with a class, several labels, numbers, or a class for each base.

Linear models on features have their penalty chosen on validation data: probes, k-mers, heads on embeddings. Shape
suffixes: N rows, F features, K classes or columns.
"""

import math
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
import transformers
from accelerate import PartialState
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from mutbert.arrays import Float32
from mutbert.encoders.adapter import CNN, Encoder, open_encoder
from mutbert.encoders.inputs import Inputs, InputSettings
from mutbert.encoders.token_encoders import ProbedClassifier, mean_over_tokens, most_tokens
from mutbert.errors import InputError, printable
from mutbert.examples.splits import conflicts, part_task
from mutbert.examples.table import NOT_COUNTED, Examples, read_examples
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.run import sequence_outputs
from mutbert.model.checkpoints import library_bars_off
from mutbert.run_folder import PREDICTIONS
from mutbert.scoring import resampling
from mutbert.scoring.metrics import LOWER_IS_BETTER, evaluate, write_predictions
from mutbert.tables import SourceFile, listed_names
from mutbert.training import classifier
from mutbert.training.classifier import LabelledInputs
from mutbert.training.folder import Run, RunResult, folder_of, plain, provenance_of
from mutbert.training.recipe import FinetuneRecipe, FinetuneSettings

Labelled = tuple[Any, npt.NDArray[Any]]  # features, dense or sparse (N, F), and labels
Linear = tuple[float, npt.NDArray[np.floating], npt.NDArray[np.floating]]

Fitted = TypeVar("Fitted")
# Values of C, the inverse penalty, that are tried by default; for ridge regression, of 1 / alpha.
PENALTIES: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_FEW: Final = 2000  # training sequences for which a probe is tried too
_BETTER: Final = 0.02  # by which it has to be better
_OF_CLASSES: Final = ("binary", "multiclass", "token")
_ABSENT: Final = -1e4  # low enough never to be the highest, and finite


def finetune(recipe: FinetuneRecipe, *, resume: bool = False, force: bool = False, progress: bool = False) -> RunResult:
    """Fine-tune a model on one's own data.

    Parameters
    ----------
    recipe : FinetuneRecipe
        The run.
    resume, force : bool
        Resume from the last checkpoint of the run's folder; replace the folder.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    RunResult
        The model's folder and its metrics.

    Raises
    ------
    InputError
        Data or settings that cannot be used, with file and line; a run that exists; a loss that is not finite.

    Examples
    --------
    >>> recipe = mutbert.FinetuneRecipe(model="model", train="table.csv", output="runs/mine", finetune={"max_steps": 2})
    >>> mutbert.finetune(recipe).metrics["problem"]
    'binary'
    """
    # First of all, since later calls would take this process for the only one.
    state = PartialState(cpu=not torch.accelerator.is_available())
    settings = recipe.finetune
    if recipe.model == CNN:
        raise InputError("model cnn: is a baseline of 'mutbert bench'; choose a model folder or repository")
    data, splits, metric, identities, found = _data(recipe)
    encoder = open_encoder(recipe.model, revision=recipe.revision, trust_remote_code=recipe.trust_remote_code)
    genome = None if recipe.genome is None else ProbabilisticGenome.open(recipe.genome)
    parts = {
        name: classifier.LabelledInputs(encoder.inputs(part, max_tokens=settings.max_tokens, genome=genome), part)
        for name, part in data.items()
    }
    longest = max(int(part.inputs.length_N.max()) for part in parts.values())
    identities |= {"model": encoder.identity()} | ({} if genome is None else {"genome": genome.identity})
    folder = folder_of(recipe.output, resume=resume, force=force)
    run = Run(folder, recipe.output, recipe, provenance_of() | {"data": identities})
    if resume and (done := run.finished()):
        return done
    # A model or a setting that cannot be used is an error before the folder is created, or replaced.
    trainer, probe = None, _probe_of_few(encoder, parts, recipe, metric, longest)
    if settings.method == "probe":
        encoder.body(longest, rope_scaling=settings.rope_scaling)
        classifier.constant_value(parts["validation"], metric)
    else:
        trainer = classifier.classifier_trainer(
            encoder, parts["train"], parts["validation"], settings, folder, metric=metric,
            seed=recipe.seed, resumable=True, longest=longest, head=probe and probe[1],
        )  # fmt: skip
    inputs = [recipe.train, recipe.validation, recipe.test, recipe.genome, recipe.model]
    with run.open(inputs, resume=resume, force=force) as (step, notes):
        trained: dict[str, Any] = {"best_step": 0, "steps": 0, "history": []}
        if trainer is None:
            model = _probed(encoder, parts, recipe, metric, longest)
        else:
            model, trained = trainer.fine_tune(run.write_records, step, show=progress)
        metrics = {}
        if state.is_main_process:
            # First, so that a failure from here on does not lose it.
            _publish(run, model, encoder, data["train"], genome)
            metrics = _metrics(run, model, trained, parts, metric, notes + found) | {"splits": splits}
            metrics["notes"] += _advice(parts, metric, metrics["metrics"]["validation"][metric], probe)
        return run.finish("finetune", metrics, trained["history"])


def _data(recipe: FinetuneRecipe) -> tuple[dict[str, Examples], list[dict[str, Any]], str, dict[str, str], list[str]]:
    """Return the parts of the data and their counts, the metric, checksums of files, and what was found in them."""
    read, sources, notes = dict[str, Examples](), dict[str, SourceFile](), list[str]()
    problem: str | None = recipe.problem
    classes = recipe.classes or None

    def note(text: str) -> None:
        notes.append(text)
        PartialState().print(printable(text), file=sys.stderr)

    for name in ("train", "validation", "test"):
        if (place := getattr(recipe, name)) is None:
            continue
        left_out = dict[str, int]()
        part, source = read_examples(place, recipe.columns, problem=problem, classes=classes, left_out=left_out)
        read[name], sources[name] = part, source
        if name == "train":
            problem, classes = part.problem, part.classes if part.problem in _OF_CLASSES else None
            PartialState().print(printable(f"{place}: {_summary(part)}"), file=sys.stderr)
        for what, count in left_out.items():
            if count:
                note(f"{place}: rows without {what}, left out: {count:,}")
        if problem in {"binary", "multiclass"} and (count := conflicts(part)):
            note(f"{place}: sequences with different labels in different rows: {count:,}")
    data, splits = part_task(
        read, sources, how="grouped", share=recipe.validation_share, seed=recipe.seed, drop_leaks=recipe.drop_leaks
    )
    classifier.check_classes(data["train"], f"{recipe.train}: the training data")
    what = f"{recipe.validation or recipe.train}: the validation data"
    classifier.check_classes(data["validation"], what, known=data["train"])
    for one in splits:
        if one["in_train"]:
            note(f"{one['split']} sequences that are in the training data: {one['in_train']:,} of {one['examples']:,}")
    metric, names = recipe.finetune.metric, classifier.names_of_metrics(str(problem))
    if metric not in (None, *names):
        raise InputError(f"finetune.metric is {metric!r}; {problem} problems have {', '.join(names)}")
    metric = metric or ("pearson" if problem == "regression" else "mcc")
    return data, splits, metric, {name: source.sha256 for name, source in sources.items()}, notes


def _summary(train: Examples) -> str:
    """Return the problem that was inferred, and how often each class occurs, or the range of numbers."""
    labels, names = train.known_labels, train.classes
    if train.problem in _OF_CLASSES:
        found = [f"{count:,}" for count in np.bincount(labels[labels != NOT_COUNTED], minlength=len(names))]
    elif train.problem == "multilabel":
        found = [f"{(one == 1).sum():,} of {(one >= 0).sum():,}" for one in labels.T]
    else:
        found = [f"{np.nanmin(one):g} to {np.nanmax(one):g}" for one in labels.reshape(len(train), -1).T]
    counts = listed_names(f"{name}: {one}" for name, one in zip(names, found, strict=True))
    return f"{train.problem}; rows: {len(train):,}, {counts}"


def _probe_of_few(
    encoder: Encoder, parts: Mapping[str, LabelledInputs], recipe: FinetuneRecipe, metric: str, longest: int
) -> tuple[float, Mapping[str, torch.Tensor] | None] | None:
    """Return what a probe reaches on the validation data, and its weights, where training sequences are few.

    Training starts from them ("LP-FT", Kumar et al. 2022, arXiv 2202.10054), unless the model has a classifier.
    """
    if recipe.finetune.method == "probe" or len(parts["train"].examples) > _FEW:
        return None
    # Some models and labels have none.
    with suppress(InputError):
        model, validation = _probed(encoder, parts, recipe, metric, longest), parts["validation"]
        logits = classifier.classifier_logits(model, validation, recipe.finetune)
        reached = evaluate(*classifier.scores_and_labels(validation.examples, logits), [metric])[metric]
        trained = any("SequenceClassification" in name for name in model.config.architectures or ())
        return reached, model.classifier.state_dict() if encoder.family == "mutbert" and not trained else None
    return None


def _advice(
    parts: Mapping[str, LabelledInputs], metric: str, reached: float | None, probe: tuple[float, Any] | None
) -> list[str]:
    """Return a line where the metric is no better than a constant guess, and one where a probe is better than that."""
    sign, lines, value = -1 if metric in LOWER_IS_BETTER else 1, [], math.nan if reached is None else reached
    if not sign * value > sign * classifier.constant_value(parts["validation"], metric):
        how = "is no better than a constant guess at any evaluation, so that the loss chose the step"
        lines.append(f"{metric}, {value:.4f} on the validation data, {how}")
    margin = _BETTER * (abs(value) if sign < 0 else 1)
    if probe and (math.isnan(value) or sign * probe[0] > sign * value + margin):
        how = "choose finetune.method=probe for so few sequences"
        lines.append(f"a probe of the model reaches {metric} {probe[0]:.4f} on the validation data; {how}")
    return lines


def _probed(
    encoder: Encoder, parts: Mapping[str, LabelledInputs], recipe: FinetuneRecipe, metric: str, longest: int
) -> Any:
    """Return a classifier on the frozen model, fitted to its embeddings."""
    train, own, settings = parts["train"], encoder.family == "mutbert", recipe.finetune
    transformers.set_seed(recipe.seed)
    if own:
        classes, scaling = train.examples.classes, settings.rope_scaling
        model = encoder.classifier(len(classes), longest, classes=classes, rope_scaling=scaling)
        if model.config.pooler_type != "mean":
            how = "its classifier reads the first token instead of the mean of all, so that it cannot hold a probe"
            raise InputError(f"{encoder.name}: {how}; choose finetune.method=lora")
    body = model.base_model if own else encoder.body(longest, rope_scaling=settings.rope_scaling)
    body.to("cuda" if torch.cuda.is_available() else "cpu")
    _, *layer = fit_linear(
        train.examples.problem,
        *((embed_sequences(encoder, body, parts[name].inputs, settings), parts[name].examples.known_labels)
          for name in ("train", "validation")),
        classes=len(train.examples.classes), metric=metric, class_weights=settings.class_weights,
    )  # fmt: skip
    weight, bias = (torch.from_numpy(values).float().to(body.device) for values in layer)
    if not own:
        return ProbedClassifier(body, encoder.hidden_states, weight, bias)
    model.classifier.load_state_dict({"weight": weight, "bias": bias})
    return model.to(body.device)


def _publish(run: Run, model: Any, encoder: Encoder, train: Examples, genome: ProbabilisticGenome | None) -> None:
    """Publish a model, with what its outputs mean and how it reads in its configuration."""
    config, names, recipe = model.config, train.classes, cast("FinetuneRecipe", run.recipe)
    if train.problem == "regression" and len(names) < config.num_labels:
        names = tuple(f"LABEL_{number}" for number in range(config.num_labels))
    types = {"multilabel": "multi_label_classification", "regression": "regression"}
    config.problem_type = types.get(train.problem, "single_label_classification")
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    settings = InputSettings(
        **recipe.finetune.model_dump(include={"max_tokens", "strands", "precision"}), genome=recipe.genome,
        genome_identity=None if genome is None else genome.identity, region=recipe.columns.region,
    )  # fmt: skip
    config.input_settings = settings.model_dump(exclude_none=True)
    with run.publish_model() as folder, library_bars_off():
        model.save_pretrained(folder)
        encoder.save_tokenizer(folder, settings.max_tokens or most_tokens(model))


def _metrics(
    run: Run, model: Any, trained: Mapping[str, Any], parts: Mapping[str, LabelledInputs], metric: str, notes: list[str]
) -> dict[str, Any]:
    """Return the content of ``metrics.json``, and write the predictions of the test data, or of the validation data."""
    recipe = cast("FinetuneRecipe", run.recipe)
    train, shown, interval = parts["train"].examples, "test" if "test" in parts else "validation", None
    found: dict[str, Any] = {"validation": trained.get("validation"), shown: None}
    for name in [name for name, known in found.items() if known is None]:
        logits, examples = classifier.classifier_logits(model, parts[name], recipe.finetune), parts[name].examples
        problem, labels, scores = classifier.scores_and_labels(examples, logits)
        found[name] = evaluate(problem, labels, scores)
        if name == shown:
            rows = np.arange(len(examples))
            if examples.problem == "token":
                rows = np.repeat(rows, [*map(len, logits)])[classifier.token_labels(examples, logits)[1]]
            names = [examples.names[row] or str(row) for row in rows]
            write_predictions(run.folder / PREDICTIONS, labels, scores, classes=train.classes, names=names)
        if name == "test":
            interval = plain(resampling.interval([resampling.TaskScores(problem, metric, labels, [scores])]))
    return {
        "problem": train.problem, "metric": metric, "classes": list(train.classes),
        "best_step": trained["best_step"], "steps": trained["steps"],
        "metrics": {name: plain(values) for name, values in found.items()},
        "interval": interval, "shown": shown,
        "facts": {"model": recipe.model, "method": recipe.finetune.method, "seed": str(recipe.seed)},
        "notes": notes + [f"{reason}: {count:,} sequences" for reason, count in classifier.unplaced(parts).items()],
    }  # fmt: skip


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
        if problem == "regression":
            return Ridge(alpha=1 / c)
        return LogisticRegression(C=c, class_weight=weight, max_iter=iterations)

    def fit(c: float) -> Linear:
        columns = labels.T if labels.ndim == 2 else [labels]
        # Of several labels, some may be missing.
        rows = [slice(None) if known.all() else known for known in ~np.isnan(columns)]
        pairs = ((features_NF[own], column[own]) for column, own in zip(columns, rows, strict=True))
        fitted = [fit_quietly(estimator(c), *pair) for pair in pairs]
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
    return classifier.decision_scores(problem, np.asarray(features_NF @ weight_KF.T + bias_K, dtype=np.float32))


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


def embed_sequences(encoder: Encoder, body: Any, inputs: Inputs, settings: FinetuneSettings, **more: Any) -> Float32:
    """Return the means of a frozen model's last hidden states over all tokens, (N, F), of one strand or both."""

    def run(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return mean_over_tokens(encoder.hidden_states(body, batch), batch.get("attention_mask"))

    return sequence_outputs(
        body, run, inputs, batch_size=2 * (settings.micro_batch_size or settings.batch_size),
        precision=settings.precision, strands=settings.strands, name=lambda row: f"sequence {row}", **more,
    )  # fmt: skip
