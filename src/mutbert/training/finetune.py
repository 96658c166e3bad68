"""Fine-tune a model on one's own table: sequences with a class, several labels, numbers, or a class for each base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import torch
import transformers
from accelerate import PartialState
from pydantic import Field, model_validator

from mutbert.encoders.adapter import CNN, open_encoder
from mutbert.encoders.token_encoders import ProbedClassifier
from mutbert.errors import InputError
from mutbert.examples.files import Columns, read_examples
from mutbert.examples.task_data import TaskData, part_task
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model.checkpoints import library_bars_off
from mutbert.run_folder import PREDICTIONS
from mutbert.scoring import resampling
from mutbert.scoring.metrics import evaluate, metric_names
from mutbert.scoring.predictions import write_predictions
from mutbert.settings import Settings, Words, read_settings
from mutbert.training import classifier
from mutbert.training.classifier_data import LabelledInputs
from mutbert.training.finetune_settings import FinetuneSettings
from mutbert.training.folder import Run, RunResult, open_run, plain, provenance_of
from mutbert.training.recipe import Seed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mutbert.encoders.adapter import Encoder
    from mutbert.examples.table import Examples

_PROBLEM_TYPES: Final = {"multilabel": "multi_label_classification", "regression": "regression"}


class FinetuneRecipe(Settings):
    """A fine-tuning run."""

    model: (
        str  # folder, a name of mutbert.encoders.known, or repository of the Hub; random: before it for fresh weights
    )
    # CSV, TSV, Parquet or FASTA (>name|label), also of the Hub (hf://datasets/...). Without validation data, a share of
    # the training data is held out to choose the best step on.
    train: str
    output: str  # the run's folder
    validation: str | None = None
    test: str | None = None
    columns: Columns = Columns()  # meaning of the tables' columns
    # Inferred from the training data by default, as are the classes in the order of their numbers.
    problem: Literal["binary", "multiclass", "multilabel", "regression", "token"] | None = None
    classes: Words = ()
    # Of each class; equal sequences, also on the other strand, stay together.
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    drop_leaks: bool = False  # drop training sequences that validation or test data contain, on either strand
    genome: str | None = None  # a store, whose frequencies MutBERT reads where columns.region locates a sequence
    seed: Seed = 42  # of order, fresh weights and dropout
    finetune: FinetuneSettings = FinetuneSettings()
    revision: str | None = None  # commit, tag or branch of the model's repository
    trust_remote_code: bool = False  # run code that comes with the model

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.genome is not None and self.columns.region is None:
            raise ValueError("genome is given, but not columns.region, which locates a sequence; set both")
        return self


def read_finetune_recipe(path: Path | None, overrides: Sequence[str] = ()) -> FinetuneRecipe:
    """Return the recipe of a YAML file with ``key=value`` on top, or of these alone."""
    return read_settings(FinetuneRecipe, path, overrides)


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
    """
    # First of all, since later calls would take this process for the only one.
    state = PartialState(cpu=not torch.accelerator.is_available())
    settings = recipe.finetune
    if recipe.model == CNN:
        raise InputError("model cnn: is a baseline of 'mutbert bench'; choose a model folder or repository")
    data, metric, identities = _data(recipe)
    encoder = open_encoder(recipe.model, revision=recipe.revision, trust_remote_code=recipe.trust_remote_code)
    genome = None if recipe.genome is None else ProbabilisticGenome.open(recipe.genome)
    parts = {
        name: LabelledInputs(encoder.inputs(part, max_tokens=settings.max_tokens, genome=genome), part)
        for name, part in data.parts.items()
    }
    longest = max(int(part.inputs.length_N.max()) for part in parts.values())
    # A model or a setting that cannot be used is an error before the folder is created, or replaced.
    trainer = None
    if settings.method == "probe":
        encoder.body(longest, rope_scaling=settings.rope_scaling)
    else:
        trainer = classifier.classifier_trainer(
            encoder, parts["train"], parts["validation"], settings, Path(recipe.output), metric=metric,
            seed=recipe.seed, resumable=True,
        )  # fmt: skip
    identities |= {"model": encoder.identity()} | ({} if genome is None else {"genome": genome.identity})
    run = Run(Path(recipe.output), recipe, provenance_of() | {"data": identities})
    with open_run(
        run, inputs=[recipe.train, recipe.validation, recipe.test, recipe.genome, recipe.model], resume=resume,
        force=force, if_short_of_memory="lower finetune.micro_batch_size (the result stays the same)",
    ) as (checkpoint, notes):  # fmt: skip
        if trainer is None:
            trained = _probed(encoder, parts, recipe, metric, longest)
        else:
            trained = trainer.fine_tune(run.write_records, checkpoint, show=progress)
        metrics = {}
        if state.is_main_process:
            # First, so that a failure from here on does not lose it.
            _publish(run, trained.model, encoder, data.train, longest)
            metrics = _metrics(trained, parts, data, recipe, metric, notes)
        return run.finish("finetune", metrics, trained.history)


def _data(recipe: FinetuneRecipe) -> tuple[TaskData, str, dict[str, str]]:
    """Return the parts of the data, with labels as the training data have them, the metric, and checksums of files."""
    columns = recipe.columns
    train, source = read_examples(recipe.train, columns, problem=recipe.problem, classes=recipe.classes or None)
    sources, others = {"train": source}, dict[str, "Examples | None"](validation=None, test=None)
    classes = train.classes if train.problem in {"binary", "multiclass", "token"} else None
    for name, place in (("validation", recipe.validation), ("test", recipe.test)):
        if place is not None:
            others[name], sources[name] = read_examples(place, columns, problem=train.problem, classes=classes)
    data = part_task(
        train, others["validation"], others["test"], sources, how="grouped", share=recipe.validation_share,
        seed=recipe.seed, drop_leaks=recipe.drop_leaks,
    )  # fmt: skip
    classifier.check_classes(data.train, f"{recipe.train}: ")
    metric = recipe.finetune.metric or ("pearson" if train.problem == "regression" else "mcc")
    names = metric_names("multiclass" if train.problem == "token" else train.problem)
    if metric not in names:
        raise InputError(f"finetune.metric is {metric!r}; {train.problem} problems have {', '.join(names)}")
    return data, metric, {name: source.sha256 for name, source in sources.items()}


def _probed(
    encoder: Encoder, parts: Mapping[str, LabelledInputs], recipe: FinetuneRecipe, metric: str, longest: int
) -> classifier.FinetunedModel:
    """Return a classifier on the frozen model, fitted to its embeddings."""
    from mutbert.training.linear import embed_sequences, fit_linear

    train, own, settings = parts["train"], encoder.family == "mutbert", recipe.finetune
    transformers.set_seed(recipe.seed)
    if own:
        model = encoder.classifier(train.outputs, longest, rope_scaling=settings.rope_scaling)
        if model.config.pooler_type != "mean":
            raise InputError(
                f"{encoder.name}: its classifier reads the first token instead of the mean of all, so that it cannot "
                "hold a probe; choose finetune.method=lora"
            )
        body = model.base_model
    else:
        body = encoder.body(longest, rope_scaling=settings.rope_scaling)
    body.to("cuda" if torch.cuda.is_available() else "cpu")
    embedded = [
        (embed_sequences(encoder, body, parts[name].inputs, settings), parts[name].examples.known_labels)
        for name in ("train", "validation")
    ]
    classes = len(train.examples.classes)
    probe = fit_linear(train.problem, *embedded, classes=classes, metric=metric, class_weights=settings.class_weights)
    weight, bias = (torch.from_numpy(values).float().to(body.device) for values in probe.weights())
    if not own:
        return classifier.FinetunedModel(ProbedClassifier(body, encoder.hidden_states, weight, bias), 0, 0, [], 0)
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
    return classifier.FinetunedModel(model.to(body.device), 0, 0, [], 0)


def _publish(run: Run, model: Any, encoder: Encoder, train: Examples, longest: int) -> None:
    """Publish a model, with what its outputs mean in its configuration."""
    config, names = model.config, train.classes
    if train.problem == "regression" and len(names) < config.num_labels:
        names = tuple(f"LABEL_{number}" for number in range(config.num_labels))
    config.problem_type = _PROBLEM_TYPES.get(train.problem, "single_label_classification")
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    with run.publish_model() as folder, library_bars_off():
        model.save_pretrained(folder)
        encoder.save_tokenizer(folder, longest)


def _metrics(
    trained: classifier.FinetunedModel, parts: Mapping[str, LabelledInputs], data: TaskData, recipe: FinetuneRecipe,
    metric: str, notes: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Return the content of ``metrics.json``, and write the predictions of the test data, or of the validation data."""
    shown = "test" if "test" in parts else "validation"
    found, interval = {}, None
    for name in {"validation": 0, shown: 0}:
        best = [one for one in trained.history if one["step"] == trained.best_step and "eval_loss" in one]
        if name != shown and best:
            known = metric_names("multiclass" if data.train.problem == "token" else data.train.problem)
            found[name] = {one: best[0][f"eval_{one}"] for one in known}
            continue
        part = parts[name]
        logits = classifier.classifier_logits(
            trained.model, part.inputs, recipe.finetune, each_token=part.problem == "token"
        )
        problem, labels, scores = classifier.scores_and_labels(part.examples, logits)
        found[name] = evaluate(problem, labels, scores)
        if name == shown:
            path, names = Path(recipe.output) / PREDICTIONS, classifier.names_of_scores(part.examples, logits)
            write_predictions(path, labels, scores, classes=data.train.classes, names=names)
        if name == "test":
            interval = plain(resampling.interval([resampling.TaskScores(problem, metric, labels, [scores])])._asdict())
    return {
        "problem": data.train.problem, "metric": metric, "classes": list(data.train.classes),
        "best_step": trained.best_step, "steps": trained.steps,
        "metrics": {name: plain(values) for name, values in found.items()},
        "interval": interval, "shown": shown, "splits": [count._asdict() for count in data.counts],
        "facts": {"model": recipe.model, "method": recipe.finetune.method, "seed": str(recipe.seed)},
        "notes": notes + [f"{reason}: {count:,} sequences" for reason, count in classifier.unplaced(parts).items()],
    }  # fmt: skip
