"""Fine-tune a model on one's own table: sequences with a class, several labels, numbers, or a class for each base."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import numpy as np
import torch
import transformers
from accelerate import PartialState
from pydantic import Field, model_validator

from mutbert.encoders.adapter import CNN, open_encoder
from mutbert.encoders.probe import ProbedClassifier
from mutbert.errors import InputError, MissingExtraError
from mutbert.examples.columns import TableColumns
from mutbert.examples.files import read_examples
from mutbert.examples.task_data import SplitCount, TaskData, part_task
from mutbert.files import atomic_directory, write_json
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.predictions import prediction_columns, write_predictions
from mutbert.model.checkpoints import library_bars_off
from mutbert.run_folder import METRICS, MODEL, PREDICTIONS, PROVENANCE, RECIPE, REPORT
from mutbert.scoring.metrics import evaluate, metric_names
from mutbert.scoring.resampling import bootstrap_interval
from mutbert.settings import Settings, Words, read_settings
from mutbert.training.callbacks import PublishCheckpoints, WriteHistory
from mutbert.training.classifier import (
    LabelledInputs,
    classifier_history,
    classifier_logits,
    evaluations_of,
    finetune_classifier,
    refuse_one_class,
    remove_working_files,
    scores_and_labels,
    unplaced,
)
from mutbert.training.classifier_loss import outputs_needed
from mutbert.training.failures import SMALLER_SEQUENCES, explain_failures
from mutbert.training.finetune_settings import FinetuneSettings
from mutbert.training.folder import RunRecords, held_folder
from mutbert.training.probe import as_classifier, embed_sequences, fit_probe
from mutbert.training.provenance import provenance_of
from mutbert.training.recipe import Seed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mutbert.encoders.adapter import Encoder
    from mutbert.examples.places import SourceFile
    from mutbert.examples.table import Examples
    from mutbert.scoring.resampling import Interval

_PROBLEM_TYPES: Final = {
    "binary": "single_label_classification",
    "multiclass": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
    "token": "single_label_classification",
}


class FinetuneRecipe(Settings):
    """A fine-tuning run.

    Parameters
    ----------
    model : str
        A model folder, a name of `mutbert.encoders.known`, or a repository of the Hub; ``random:`` before it for fresh
        weights.
    train : str
        The training data: CSV, TSV, Parquet or FASTA (``>name|label``), also from the Hub (``hf://datasets/...``).
    output : str
        The run's folder.
    validation : str, optional
        What the best step is chosen on; a share of the training data where left out.
    test : str, optional
        What is reported on.
    columns : TableColumns
        What the tables' columns mean.
    problem : str, optional
        One of `mutbert.examples.table.PROBLEMS`; found out from the labels where left out.
    classes : tuple of str
        The classes in the order of their numbers; found out from the training data where empty.
    validation_share : float
        That share: of each class, with equal sequences, of either strand, on one side.
    drop_leaks : bool
        Drop training sequences that validation or test data hold, on either strand.
    genome : str, optional
        A genome store, whose allele frequencies MutBERT is given where `columns.region` says where a sequence lies.
    seed : int
        What order, fresh weights and dropout depend on.
    finetune : FinetuneSettings
        How.
    revision : str, optional
        A commit, tag or branch of the model's repository.
    trust_remote_code : bool
        Run code that comes with the model.
    """

    model: str
    train: str
    output: str
    validation: str | None = None
    test: str | None = None
    columns: TableColumns = TableColumns()
    problem: Literal["binary", "multiclass", "multilabel", "regression", "token"] | None = None
    classes: Words = ()
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    drop_leaks: bool = False
    genome: str | None = None
    seed: Seed = 42
    finetune: FinetuneSettings = FinetuneSettings()
    revision: str | None = None
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.genome is not None and self.columns.region is None:
            raise ValueError("genome is given, but not columns.region, which says where a sequence lies; give both")
        return self


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run gave.

    Parameters
    ----------
    model : Path
        The model's folder, for ``from_pretrained`` and ``mutbert predict``.
    problem : str
        One of `mutbert.examples.table.PROBLEMS`.
    metric : str
        What the best step was chosen by.
    best_step, steps : int
        That step, and steps that were taken; 0 of a probe.
    metrics : dict of str to dict of str to float
        All metrics of the problem, on ``validation`` and ``test``, as far as there are these data.
    interval : Interval or None
        Of the metric on the test data, by resampling its rows.
    counts : tuple of SplitCount
        What each part holds.
    unplaced : dict of str to int
        Sequences whose frequencies were not used, by reason, where a genome was given.
    history : list of dict
        What was logged.
    report : Path or None
        The page to look at; None where matplotlib is not installed, and in other processes than the main one.
    """

    model: Path
    problem: str
    metric: str
    best_step: int
    steps: int
    metrics: Mapping[str, Mapping[str, float]]
    interval: Interval | None
    counts: tuple[SplitCount, ...]
    unplaced: Mapping[str, int]
    history: list[dict[str, float]]
    report: Path | None


def read_finetune_recipe(path: Path | None, overrides: Sequence[str] = ()) -> FinetuneRecipe:
    """Return the recipe of a YAML file with ``key=value`` on top, or of these alone."""
    return read_settings(FinetuneRecipe, path, overrides)


def finetune(
    recipe: FinetuneRecipe, *, resume: bool = False, force: bool = False, progress: bool = False
) -> FinetuneResult:
    """Fine-tune a model on one's own data.

    Parameters
    ----------
    recipe : FinetuneRecipe
        The run.
    resume : bool
        Go on from the last checkpoint of the run's folder.
    force : bool
        Replace the run's folder where it exists.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    FinetuneResult
        The model's folder and what it reaches.

    Raises
    ------
    InputError
        When data, model, settings or output cannot be used.
    """
    # First of all, as whoever asks which process this is before it is set up is told that there is one alone.
    PartialState(cpu=not torch.accelerator.is_available())
    output = Path(recipe.output)
    if recipe.model == CNN:
        raise InputError("model cnn: is there to compare with, in 'mutbert bench'; give a model folder or repository")
    data, sources = _data(recipe)
    refuse_one_class(data.train, f"{recipe.train}: ")
    problem = data.train.problem
    settings = recipe.finetune
    metric = settings.metric or ("pearson" if problem == "regression" else "mcc")
    names = metric_names("multiclass" if problem == "token" else problem)
    if metric not in names:
        raise InputError(f"finetune.metric is {metric!r}; of {problem} problems there are {', '.join(names)}")
    encoder = open_encoder(recipe.model, revision=recipe.revision, trust_remote_code=recipe.trust_remote_code)
    genome = None if recipe.genome is None else ProbabilisticGenome.open(recipe.genome)
    parts: dict[str, LabelledInputs] = {}
    for name, part in data.parts.items():
        parts[name] = LabelledInputs(encoder.inputs(part, max_tokens=settings.max_tokens, genome=genome), part)
    # A model that cannot be loaded is refused before the folder is made, or replaced.
    encoder.body(max(int(part.inputs.length_N.max()) for part in parts.values()), rope_scaling=settings.rope_scaling)
    made_of = {name: source.sha256 for name, source in sources.items()} | {"model": encoder.identity()}
    if genome is not None:
        made_of["genome"] = genome.identity
    provenance = provenance_of([]) | {"data": made_of}
    records = RunRecords(recipe.as_yaml(), provenance, "data", {})
    given = (recipe.train, recipe.validation, recipe.test, recipe.genome, recipe.model)
    inputs = [path for path in given if path is not None]
    with (
        held_folder(records, output, inputs=inputs, resume=resume, force=force) as (checkpoint, _),
        explain_failures(output, SMALLER_SEQUENCES),
    ):
        best_step = steps = 0
        history: list[dict[str, float]] = []
        if settings.method == "probe":
            model = _probed(encoder, parts, settings, metric, recipe.seed)
        else:
            callbacks = [
                PublishCheckpoints(
                    output, records.recipe, provenance, lambda log: evaluations_of(log, metric, lower=True)
                ),
                WriteHistory(output, classifier_history),
            ]
            trained = finetune_classifier(
                encoder,
                parts["train"],
                parts["validation"],
                settings,
                output,
                metric=metric,
                seed=recipe.seed,
                callbacks=callbacks,
                checkpoint=checkpoint,
                progress=progress,
            )
            model, best_step, steps, history = trained.model, trained.best_step, trained.steps, trained.history
        result = FinetuneResult(
            output / MODEL, problem, metric, best_step, steps, {}, None, data.counts, unplaced(parts), history, None
        )
        if PartialState().is_main_process:
            result = _finished(result, model, encoder, parts, recipe, records, output)
            remove_working_files(output)
        PartialState().wait_for_everyone()
    return result


def _data(recipe: FinetuneRecipe) -> tuple[TaskData, dict[str, SourceFile]]:
    """Read the parts; what labels mean is found out from the training data, for all of them."""
    columns = recipe.columns.chosen()
    train, source = read_examples(recipe.train, columns, problem=recipe.problem, classes=recipe.classes or None)
    sources = {"train": source}
    others: dict[str, Examples | None] = {"validation": None, "test": None}
    classes = train.classes if train.problem in {"binary", "multiclass", "token"} else None
    for name, place in (("validation", recipe.validation), ("test", recipe.test)):
        if place is not None:
            others[name], sources[name] = read_examples(place, columns, problem=train.problem, classes=classes)
    data = part_task(
        train,
        others["validation"],
        others["test"],
        sources,
        how="grouped",
        share=recipe.validation_share,
        seed=recipe.seed,
        drop_leaks=recipe.drop_leaks,
    )
    return data, sources


def _probed(
    encoder: Encoder, parts: Mapping[str, LabelledInputs], settings: FinetuneSettings, metric: str, seed: int
) -> Any:
    """Fit a probe, and make it the classifier of the model that it was fitted on."""
    train, validation = parts["train"], parts["validation"]
    longest = max(int(part.inputs.length_N.max()) for part in parts.values())
    problem = train.examples.problem
    outputs = outputs_needed(problem, train.examples.known_labels, len(train.examples.classes))
    transformers.set_seed(seed)
    own = encoder.family == "mutbert"
    if own:
        model = encoder.classifier(outputs, longest, rope_scaling=settings.rope_scaling)
        if model.config.pooler_type != "mean":
            raise InputError(
                f"{encoder.name}: its classifier reads the first token and not the mean of all, so that a probe cannot "
                "be saved in it; give finetune.method=lora"
            )
        body = model.base_model
    else:
        body = encoder.body(longest, rope_scaling=settings.rope_scaling)
    body.to("cuda" if torch.cuda.is_available() else "cpu")
    embedded = [embed_sequences(encoder, body, part.inputs, settings) for part in (train, validation)]
    probe = fit_probe(
        (train.examples, embedded[0]),
        (validation.examples, embedded[1]),
        metric=metric,
        class_weights=settings.class_weights,
    )
    weight, bias = (values.to(body.device) for values in as_classifier(probe, outputs, torch.float32))
    if not own:
        return ProbedClassifier(body, encoder.hidden_states, weight, bias)
    with torch.no_grad():
        model.classifier.weight.copy_(weight)
        model.classifier.bias.copy_(bias)
    return model.to(body.device)


def _finished(
    result: FinetuneResult,
    model: Any,
    encoder: Encoder,
    parts: Mapping[str, LabelledInputs],
    recipe: FinetuneRecipe,
    records: RunRecords,
    output: Path,
) -> FinetuneResult:
    """Publish the model first; then say what it reaches."""
    train = parts["train"].examples
    _describe(model.config, train, result.problem)
    longest = max(int(part.inputs.length_N.max()) for part in parts.values())
    with atomic_directory(output / MODEL, force=True) as folder, library_bars_off():
        model.save_pretrained(folder)
        encoder.save_tokenizer(folder, longest)
        (folder / RECIPE).write_text(records.recipe, encoding="utf-8")
        write_json(folder / PROVENANCE, records.provenance)
    metrics: dict[str, dict[str, float]] = {}
    interval = None
    compared: dict[str, Any] = {}
    for name in ("validation", "test"):
        if name not in parts:
            continue
        part = parts[name]
        logits = classifier_logits(model, part.inputs, recipe.finetune, each_token=result.problem == "token")
        problem, labels, scores = scores_and_labels(part.examples, logits)
        metrics[name] = evaluate(problem, labels, scores)
        compared[name] = (problem, labels, scores)
        if name == "test":
            interval = bootstrap_interval(problem, result.metric, labels, [scores])
            columns = prediction_columns(part.examples, logits, result.problem, train.classes)
            write_predictions(output / PREDICTIONS, columns, force=True)
    result = dataclasses.replace(result, metrics=metrics, interval=interval)
    write_json(output / METRICS, finetune_summary(result), force=True)
    return _with_report(result, compared, recipe, records, train, output)


def finetune_summary(result: FinetuneResult) -> dict[str, Any]:
    """Give what a run reached as JSON can hold it; what is not defined is null."""

    def plain(values: Mapping[str, float]) -> dict[str, float | None]:
        return {name: None if np.isnan(value) else float(value) for name, value in values.items()}

    return {
        "problem": result.problem,
        "metric": result.metric,
        "best_step": result.best_step,
        "steps": result.steps,
        "metrics": {name: plain(values) for name, values in result.metrics.items()},
        "interval": None if result.interval is None else plain(result.interval._asdict()),
        "splits": [count._asdict() for count in result.counts],
        "unplaced": dict(result.unplaced),
    }


def _describe(config: Any, train: Examples, problem: str) -> None:
    """Put into a model's configuration what its outputs mean."""
    names = train.classes
    if problem == "regression" and len(names) < config.num_labels:
        names = tuple(f"LABEL_{number}" for number in range(config.num_labels))
    config.problem_type = _PROBLEM_TYPES[problem]
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}


def _with_report(
    result: FinetuneResult,
    compared: Mapping[str, Any],
    recipe: FinetuneRecipe,
    records: RunRecords,
    train: Examples,
    output: Path,
) -> FinetuneResult:
    try:
        from mutbert.reports.finetuning import FinetuningReport, write_finetuning_page
    except MissingExtraError as error:
        print(f"no report was written: {error}", file=sys.stderr)  # noqa: T201
        return result
    name = "test" if "test" in compared else "validation"
    problem, labels, scores = compared[name]
    report = FinetuningReport(
        name=output.name,
        problem=problem,
        metric=result.metric,
        classes=train.classes,
        metrics=result.metrics,
        interval=result.interval,
        shown=name,
        labels=labels,
        scores=scores,
        history=result.history,
        best_step=result.best_step,
        steps=result.steps,
        splits=[count._asdict() for count in result.counts],
        facts={
            "model": recipe.model,
            "method": recipe.finetune.method,
            "seed": str(recipe.seed),
            "versions": ", ".join(f"{key} {value}" for key, value in records.provenance["versions"].items()),
            "commit": records.provenance["commit"] or "not from a checkout",
        },
        recipe=records.recipe,
        notes=[f"{reason}: {count:,} sequences" for reason, count in result.unplaced.items()],
    )
    write_finetuning_page(output / REPORT, report, force=True)
    return dataclasses.replace(result, report=output / REPORT)
