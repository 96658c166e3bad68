"""Fine-tune one model on one training set: transformers' Trainer, with the best step by a metric kept.

Shape suffixes: N sequences, D outputs, T bases.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from mutbert.errors import InputError, MissingExtraError, one_line
from mutbert.files import atomic_file, write_json
from mutbert.inference.run import base_outputs, sequence_outputs
from mutbert.model.checkpoints import library_bars_off
from mutbert.run_folder import WRITING
from mutbert.scoring.metrics import LOWER_IS_BETTER, evaluate
from mutbert.settings import check_keys
from mutbert.training.callbacks import CatchUpEvaluation, ShowProgress
from mutbert.training.classifier_data import IGNORED, Targets, TrainingSamples
from mutbert.training.classifier_loss import ClassifierLoss, balanced_weights, decision_scores, outputs_needed
from mutbert.training.failures import TrainingStoppedError
from mutbert.training.trainer import largest_divisor
from mutbert.windows.dataset import whole_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from mutbert.arrays import Float32
    from mutbert.encoders.adapter import Encoder
    from mutbert.encoders.inputs import Inputs
    from mutbert.examples.table import Examples
    from mutbert.training.finetune_settings import FinetuneSettings

    Log = list[dict[str, float]]

BEST: Final = "best.safetensors"
"""In a run's folder: the weights of the best step so far, of those that are trained."""
BEST_STEP: Final = "best.json"

_RESERVED: Final = {
    "output_dir": "it is the run's folder",
    "seed": "give seed",
    "data_seed": "give seed",
    "learning_rate": "give learning_rate beside training",
    "weight_decay": "give weight_decay beside training",
    "warmup_steps": "give warmup_steps beside training",
    "max_grad_norm": "give max_grad_norm beside training",
    "num_train_epochs": "give epochs beside training",
    "max_steps": "give max_steps beside training",
    "per_device_train_batch_size": "give batch_size and micro_batch_size beside training",
    "per_device_eval_batch_size": "give batch_size and micro_batch_size beside training",
    "gradient_accumulation_steps": "it follows from batch_size and micro_batch_size",
    "auto_find_batch_size": "give micro_batch_size beside training",
    "eval_strategy": "give eval_steps beside training",
    "eval_steps": "give eval_steps beside training",
    "save_strategy": "a checkpoint is saved at each evaluation",
    "save_steps": "a checkpoint is saved at each evaluation",
    "load_best_model_at_end": "the best step by metric is the result",
    "metric_for_best_model": "give metric beside training",
    "bf16": "give precision beside training",
    "fp16": "give precision: bf16 beside training",
    "remove_unused_columns": "batches are made of what the model takes",
    "label_names": "batches are made of what the model takes",
    "group_by_length": "sequences of a step are always similar in length",
    "train_sampling_strategy": "sequences of a step are always similar in length",
    "label_smoothing_factor": "the loss is that of the problem",
    "accelerator_config": "each process takes its own part of a batch",
    "ignore_data_skip": "a resumed run goes on with the samples that come next",
    "report_to": "progress and history are written anyway",
    "disable_tqdm": "progress is shown as for every verb",
    "push_to_hub": "share the finished model folder instead",
}


@dataclass(frozen=True)
class LabelledInputs:
    """Sequences as a model takes them, with their labels.

    Parameters
    ----------
    inputs : Inputs
        The sequences.
    examples : Examples
        What they were made of.
    """

    inputs: Inputs
    examples: Examples

    @property
    def targets(self) -> Targets:
        """The labels as a loss takes them."""
        each_base = self.examples.problem == "token"
        return Targets(self.examples.known_labels, self.examples.offsets if each_base else None)


def unplaced(parts: Mapping[str, LabelledInputs]) -> dict[str, int]:
    """Count the sequences that are read without the population's frequencies, by reason."""
    counts: dict[str, int] = {}
    for part in parts.values():
        for reason, count in getattr(part.inputs, "unplaced", {}).items():
            counts[reason] = counts.get(reason, 0) + count
    return {reason: count for reason, count in counts.items() if count}


def refuse_one_class(train: Examples, place: str = "") -> None:
    """Refuse training data of one class alone; `place` begins the message, such as ``"train.csv: "``.

    Raises
    ------
    InputError
        Of problems with classes, where there are no two of them.
    """
    if train.problem not in {"binary", "multiclass", "token"}:
        return
    labels = train.known_labels
    if len(np.unique(labels[labels != IGNORED])) < 2:
        raise InputError(
            f"{place}the training data have one class alone, of which nothing can be learnt; give other data"
        )


@dataclass(frozen=True)
class FinetunedModel:
    """What fine-tuning gave.

    Parameters
    ----------
    model : nn.Module
        With the weights of the best step.
    best_step : int
        That step; 0 for a model that is not trained by steps.
    steps : int
        Steps that were taken.
    history : list of dict
        Loss and learning rate, and what each evaluation found, by step.
    tokens : int
        Tokens trained on, padding not counted.
    """

    model: Any
    best_step: int
    steps: int
    history: Log
    tokens: int


def finetune_classifier(
    encoder: Encoder,
    train: LabelledInputs,
    validation: LabelledInputs,
    settings: FinetuneSettings,
    folder: Path,
    *,
    metric: str,
    seed: int,
    callbacks: Sequence[transformers.TrainerCallback] = (),
    checkpoint: Path | None = None,
    progress: bool = False,
) -> FinetunedModel:
    """Fine-tune a model, all of it or low-rank adapters, and give the best step by a metric on the validation data.

    Parameters
    ----------
    encoder : Encoder
        The model.
    train, validation : LabelledInputs
        The data, prepared by the encoder.
    settings : FinetuneSettings
        How; its `metric` is not looked at.
    folder : Path
        Where the best weights are kept meanwhile.
    metric : str
        One of `mutbert.scoring.metrics`; of equals, the earliest step is the best.
    seed : int
        What the order of samples, fresh weights and dropout depend on.
    callbacks : sequence of TrainerCallback
        What else is to be done, for example saving checkpoints, which are made where this is not empty.
    checkpoint : Path, optional
        Where to go on.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    FinetunedModel
        The model, on the training's device; adapters are merged into it.

    Raises
    ------
    InputError
        When a setting or the model cannot be used; when the loss is no finite number.
    """
    refuse_one_class(train.examples)
    problem = train.examples.problem
    outputs = outputs_needed(problem, train.examples.known_labels, len(train.examples.classes))
    longest = int(max(train.inputs.length_N.max(), validation.inputs.length_N.max()))
    transformers.set_seed(seed)
    model = encoder.classifier(outputs, longest, each_token=problem == "token", rope_scaling=settings.rope_scaling)
    if settings.method == "lora":
        model = _with_adapters(model, encoder, settings)
    arguments = _arguments(
        settings, folder, len(train.examples), seed, save=bool(callbacks), all_used=encoder.family == "mutbert"
    )
    weights = None
    if settings.class_weights == "balanced":
        weights = balanced_weights(problem, train.examples.known_labels, outputs)
    samples = TrainingSamples(
        train.inputs,
        train.targets,
        steps=arguments.max_steps,
        batch_size=settings.batch_size,
        seed=seed,
        reverse_complement=settings.reverse_complement,
    )
    trainer = ClassifierTrainer(
        loss=ClassifierLoss(problem, weights),
        validation=validation,
        settings=settings,
        metric=metric,
        folder=folder,
        model=model,
        args=arguments,
        train_dataset=samples,
        data_collator=whole_batch,
    )
    for callback in callbacks:
        trainer.add_callback(callback)
    shown = ShowProgress("fine-tuning", lambda logged: _note(logged, metric), show=progress)
    trainer.add_callback(shown)
    trainer.add_callback(CatchUpEvaluation(trainer.evaluate_in_training, lambda log: evaluations_of(log, metric)))
    try:
        with library_bars_off():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        shown.close()
    best_step = trainer.load_best()
    trained = trainer.accelerator.unwrap_model(trainer.model)
    if settings.method == "lora":
        trained = trained.merge_and_unload()
    steps = trainer.state.global_step
    return FinetunedModel(
        trained,
        best_step,
        steps,
        classifier_history(trainer.state.log_history),
        samples.tokens() * steps // arguments.max_steps,
    )


def classifier_logits(
    model: Any, inputs: Inputs, settings: FinetuneSettings, *, each_token: bool = False, rows: Any = None
) -> Float32 | list[Float32]:
    """Give a classifier's logits: (N, D); with `each_token` one (bases, D) for each sequence."""
    give: Callable[..., Any] = base_outputs if each_token else sequence_outputs
    found: Float32 | list[Float32] = give(
        model,
        lambda batch: model(**batch).logits,
        inputs,
        rows,
        batch_size=2 * (settings.micro_batch_size or settings.batch_size),
        precision=settings.precision,
        strands=settings.strands,
    )
    return found


def scores_and_labels(
    examples: Examples, logits: Float32 | list[Float32]
) -> tuple[str, npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Bring logits and labels into the form that metrics take: problem, labels, scores.

    Labels of bases count one by one, those that do not count left out; sequences may have been cut.
    """
    if examples.problem != "token":
        assert isinstance(logits, np.ndarray)
        scores = decision_scores(examples.problem, logits)
        # A table may have its numbers in one column of several that it could have.
        labels = examples.known_labels.reshape(scores.shape) if scores.ndim == 1 else examples.known_labels
        return examples.problem, labels, scores
    label_T = np.concatenate(
        [
            examples.known_labels[start : start + len(row)]
            for start, row in zip(examples.offsets[:-1], logits, strict=True)
        ]
    )
    score_TD = np.concatenate(list(logits))
    counts = label_T != IGNORED
    problem = "binary" if score_TD.shape[1] == 2 else "multiclass"
    return problem, label_T[counts], decision_scores(problem, score_TD[counts])


def classifier_history(log: Log) -> Log:
    """Keep the numbers of a Trainer's log that depend on nothing but the settings, and each evaluation once."""
    history: Log = []
    evaluated: set[int] = set()
    for entry in log:
        names = [
            name for name in sorted(entry) if name in {"loss", "grad_norm", "learning_rate"} or name[:5] == "eval_"
        ]
        if not {"loss", "eval_loss"} & entry.keys():
            continue
        if "eval_loss" in entry:
            if entry["step"] in evaluated:
                continue
            evaluated.add(int(entry["step"]))
        history.append({"step": int(entry["step"]), **{name: entry[name] for name in names}})
    return history


class ClassifierTrainer(transformers.Trainer):
    """The library's Trainer with our loss, our evaluation, and the best step kept.

    Parameters
    ----------
    loss : ClassifierLoss
        The training loss.
    validation : LabelledInputs
        What steps are compared on.
    settings : FinetuneSettings
        How predictions are made, and when to stop.
    metric : str
        What they are compared by.
    folder : Path
        Where the best weights are kept.
    **others
        As `transformers.Trainer` takes them.
    """

    def __init__(
        self,
        *,
        loss: ClassifierLoss,
        validation: LabelledInputs,
        settings: FinetuneSettings,
        metric: str,
        folder: Path,
        **others: Any,
    ) -> None:
        # The library wants something to evaluate on before it evaluates; what it is, is our own matter.
        super().__init__(eval_dataset=others["train_dataset"], **others)
        self.control: Any
        self._loss = loss
        self._validation = validation
        self._settings = settings
        self._metric = metric
        self._folder = folder
        # A loss is a mean over its own batch, whatever the model's own would be.
        self.model_accepts_loss_kwargs = False
        self.remove_callback(transformers.PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        """Take samples in order, which is shuffled already."""
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, torch.Tensor]], device: Any) -> Any:
        """Say what the parts of a step count on average, over all processes; ``None`` where they all count the same."""
        weights = [self._loss.weight_of(batch["labels"]) for batch in batch_samples]
        known = [weight for weight in weights if weight is not None]
        if not known:
            return None
        mean = torch.stack(known).mean().to(device)
        return self.accelerator.gather(mean[None]).mean() if self.args.world_size > 1 else mean

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:
        """Compute the loss of the problem; the mean over the parts of a step is that over all of it."""
        labels = inputs["labels"]
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        loss = self._loss(outputs.logits, labels)
        weight = self._loss.weight_of(labels)
        if weight is not None and num_items_in_batch is not None:
            loss = loss * (weight / num_items_in_batch.clamp(min=torch.finfo(loss.dtype).tiny))
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Stop where a loss is no number."""
        if "loss" in logs and not math.isfinite(logs["loss"]):
            raise self._stopped("the loss was")
        super().log(logs, *args, **kwargs)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Save the checkpoint that is due, compute the metrics on the validation data, and keep the best step."""
        if self.is_in_train and self.control.should_save:
            self._save_checkpoint(self.model, trial=None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
            self.control.should_save = False
        found = {f"eval_{name}": value for name, value in self._validate().items()}
        before = evaluations_of(self.state.log_history, self._metric)
        self.log(dict(found))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        self.control.should_evaluate = False
        step, value = self.state.global_step, _compared(self._metric, found[f"eval_{self._metric}"])
        if value > max(
            (_compared(self._metric, other) for at, other in before.items() if at < step), default=-math.inf
        ):
            self._keep(step, found[f"eval_{self._metric}"])
        evaluated = evaluations_of(self.state.log_history, self._metric)
        if self._settings.patience is not None and _stale(evaluated, self._metric) >= self._settings.patience:
            self.control.should_training_stop = True
        return found

    def evaluate_in_training(self) -> None:
        """Evaluate as between two steps."""
        self.evaluate()

    def load_best(self) -> int:
        """Give the model the weights of the best step, and say which that was.

        Raises
        ------
        InputError
            When the metric could not be computed at any evaluation.
        """
        self.accelerator.wait_for_everyone()
        path = self._folder / BEST
        if not path.is_file():
            raise InputError(
                f"{self._metric} could not be computed on the validation data, which may have one class alone; give "
                "other validation data or another metric"
            )
        model = self.accelerator.unwrap_model(self.model)
        model.load_state_dict(load_file(path), strict=False)
        return int(json.loads((self._folder / BEST_STEP).read_text(encoding="utf-8"))["step"])

    def _keep(self, step: int, value: float) -> None:
        if not self.is_world_process_zero():
            return
        model = self.accelerator.unwrap_model(self.model)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        buffers = {name for name, _ in model.named_buffers()}
        state = {
            name: value.detach().contiguous().clone()
            for name, value in model.state_dict().items()
            if name in trained | buffers
        }
        with atomic_file(self._folder / BEST, force=True) as file:
            save_file(state, file)
        write_json(self._folder / BEST_STEP, {"step": step, self._metric: value}, force=True)

    def _stopped(self, what: str) -> TrainingStoppedError:
        return TrainingStoppedError(
            f"{what} not a finite number up to step {self.state.global_step}, so the run was stopped; try a lower "
            "learning_rate"
        )

    def _validate(self) -> dict[str, float]:
        """Share the validation data out among the processes, and compute all metrics of the problem."""
        examples, count = self._validation.examples, len(self._validation.examples)
        world, rank = self.args.world_size, self.args.process_index
        # As many for each, since what they give has to be gathered.
        rows = np.arange(-(-count // world) * world).reshape(-1, world)[:, rank] % count
        model = self.accelerator.unwrap_model(self.model)
        each_token = examples.problem == "token"
        logits = classifier_logits(model, self._validation.inputs, self._settings, each_token=each_token, rows=rows)
        if world > 1:
            logits = self._gathered(logits, count)
        every = torch.from_numpy(np.concatenate(list(logits)) if each_token else np.asarray(logits))
        if not every.isfinite().all():
            raise self._stopped("predictions were")
        problem, labels, scores = scores_and_labels(examples, logits)
        found = evaluate(problem, labels, scores)
        if each_token:
            target = torch.from_numpy(self._validation.examples.known_labels)
            kept = np.concatenate(
                [np.arange(start, start + len(row)) for start, row in zip(examples.offsets[:-1], logits, strict=True)]
            )
            loss = self._loss(every[None].cpu(), target[kept][None].cpu())
        else:
            loss = self._loss(every, torch.from_numpy(examples.known_labels))
        return {"loss": float(loss), **found}

    def _gathered(self, logits: Any, count: int) -> Any:
        device = self.args.device
        if isinstance(logits, np.ndarray):
            every = self.accelerator.gather(torch.from_numpy(logits).to(device)[None])
            # Process by process; a row of the whole is of each process in turn.
            return every.transpose(0, 1).flatten(0, 1)[:count].cpu().numpy()
        length = torch.tensor([len(row) for row in logits], device=device)
        flat = self.accelerator.pad_across_processes(torch.from_numpy(np.concatenate(logits)).to(device), dim=0)
        lengths = self.accelerator.gather(length[None]).cpu().numpy()
        parts = [
            np.split(part.cpu().numpy()[: own.sum()], np.cumsum(own)[:-1])
            for part, own in zip(self.accelerator.gather(flat[None]), lengths, strict=True)
        ]
        return [row for turn in zip(*parts, strict=True) for row in turn][:count]


def _with_adapters(model: Any, encoder: Encoder, settings: FinetuneSettings) -> Any:
    if not encoder.lora_targets:
        raise InputError(f"{encoder.name}: has no layers for low-rank adapters; give method=full")
    try:
        import peft
    except ImportError:
        raise MissingExtraError("peft", "bench") from None
    inside = [name.split(".") for name, _ in model.named_modules()]
    heads = [head for head in encoder.fresh_modules if any(head in parts for parts in inside)]
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and name.rpartition(".")[2] in encoder.lora_targets
        and not set(heads).intersection(name.split("."))
    ]
    if not targets:
        raise InputError(f"{encoder.name}: has none of the layers {', '.join(encoder.lora_targets)}; give method=full")
    config = peft.LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=targets,
        modules_to_save=heads,
    )
    with warnings.catch_warnings():
        # It asks the model what the library now calls by another name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        return peft.get_peft_model(model, config)


def _arguments(
    settings: FinetuneSettings, folder: Path, count: int, seed: int, *, save: bool, all_used: bool
) -> transformers.TrainingArguments:
    for key in settings.training:
        if key in _RESERVED:
            raise InputError(f"training.{key} cannot be set: {_RESERVED[key]}")
    known = [entry.name for entry in dataclasses.fields(transformers.TrainingArguments) if entry.name not in _RESERVED]
    check_keys(settings.training, known, "training.")
    steps = settings.max_steps or max(1, math.ceil(settings.epochs * count / settings.batch_size))
    every = min(steps, settings.eval_steps or math.ceil(count / settings.batch_size))
    try:
        arguments = transformers.TrainingArguments(
            **{
                "logging_steps": 50,
                "lr_scheduler_type": "linear",
                "use_cpu": not torch.accelerator.is_available(),
                # Of other models, poolers and the like may have no part in the loss.
                "ddp_find_unused_parameters": not all_used,
                **settings.training,
            },
            output_dir=str(folder / WRITING),
            seed=seed,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            warmup_steps=settings.warmup_steps,
            max_grad_norm=settings.max_grad_norm,
            max_steps=steps,
            eval_strategy="steps",
            eval_steps=every,
            save_strategy="steps" if save else "no",
            save_steps=every,
            save_total_limit=1,
            bf16=settings.precision == "bf16",
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            label_names=["labels"],
            report_to="none",
            disable_tqdm=True,
        )
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise InputError(f"training: {one_line(error)}") from None
    arguments._n_gpu = min(arguments.n_gpu, 1)
    part, rest = divmod(settings.batch_size, arguments.world_size)
    if rest or not part:
        raise InputError(
            f"batch_size is {settings.batch_size}, which {arguments.world_size} processes cannot divide; choose a "
            "multiple of the number of processes"
        )
    batch = largest_divisor(part, settings.micro_batch_size or part)
    arguments.per_device_train_batch_size = batch
    arguments.gradient_accumulation_steps = part // batch
    return arguments


def evaluations_of(log: Log, metric: str, *, lower: bool = False) -> dict[int, float]:
    """Give what the evaluations found of a metric, by step; with `lower` such that lower is better."""
    found = {int(entry["step"]): entry[f"eval_{metric}"] for entry in log if f"eval_{metric}" in entry}
    return {step: -_compared(metric, value) for step, value in found.items()} if lower else found


def _compared(metric: str, value: float) -> float:
    """Make larger better, and what is no number the worst."""
    if math.isnan(value):
        return -math.inf
    return -value if metric in LOWER_IS_BETTER else value


def _stale(evaluated: Mapping[int, float], metric: str) -> int:
    """Count the evaluations since the best one."""
    values = [_compared(metric, evaluated[step]) for step in sorted(evaluated)]
    return len(values) - 1 - int(np.argmax(values))


def _note(logged: Mapping[str, float], metric: str) -> str:
    written = {"loss": "loss {:.4f}", f"eval_{metric}": f"{metric} {{:.4f}}"}
    return ", ".join(form.format(logged[name]) for name, form in written.items() if name in logged)


def remove_working_files(folder: Path) -> None:
    """Remove what a run needs only while it lasts."""
    for name in (BEST, BEST_STEP):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / WRITING, ignore_errors=True)
