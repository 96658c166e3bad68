"""Fine-tune one model on one training set, and return the best step by a metric on the validation data.

Shape suffixes: N sequences, D outputs, T bases.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import transformers
from transformers.trainer_utils import EvalLoopOutput

from mutbert.errors import InputError, MissingExtraError, one_line
from mutbert.examples.table import NOT_COUNTED
from mutbert.inference.run import base_outputs, sequence_outputs
from mutbert.scoring.metrics import LOWER_IS_BETTER, evaluate
from mutbert.training import trainer as trainers
from mutbert.training.classifier_data import ClassifierLoss, TrainingSamples, balanced_weights, decision_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from mutbert.arrays import Float32, Int64
    from mutbert.encoders.adapter import Encoder
    from mutbert.encoders.inputs import Inputs
    from mutbert.examples.table import Examples
    from mutbert.training.classifier_data import LabelledInputs
    from mutbert.training.finetune_settings import FinetuneSettings

    Logits = Float32 | list[Float32]  # (N, D), or for labels of bases (T, D) for each sequence


class FinetunedModel(NamedTuple):
    """A fine-tuned model."""

    model: Any  # with the weights of the best step, adapters merged
    best_step: int
    steps: int  # that were taken
    history: list[dict[str, float]]
    tokens: int  # that were trained on, padding excluded


def classifier_trainer(
    encoder: Encoder, train: LabelledInputs, validation: LabelledInputs, settings: FinetuneSettings, folder: Path, *,
    metric: str, seed: int, resumable: bool = False,
) -> ClassifierTrainer:  # fmt: skip
    """Return the trainer of a model, all of it or low-rank adapters, with its checkpoints in `folder`."""
    check_classes(train.examples)
    longest, each_token = int(max(part.inputs.length_N.max() for part in (train, validation))), train.problem == "token"
    transformers.set_seed(seed)
    model = encoder.classifier(train.outputs, longest, each_token=each_token, rope_scaling=settings.rope_scaling)
    if settings.method == "lora":
        model = _with_adapters(model, encoder, settings)
    arguments = _arguments(settings, len(train.examples), metric, seed, resumable=resumable)
    # Poolers and the like of other models may have no part in the loss.
    arguments.ddp_find_unused_parameters = encoder.family != "mutbert"
    weights = None
    if settings.class_weights == "balanced":
        weights = balanced_weights(train.problem, train.examples.known_labels, train.outputs)
    samples = TrainingSamples(
        train, steps=arguments.max_steps, batch_size=settings.batch_size, seed=seed,
        reverse_complement=settings.reverse_complement,
    )  # fmt: skip
    return trainers.build_trainer(
        ClassifierTrainer, arguments, folder, loss=ClassifierLoss(train.problem, weights), validation=validation,
        settings=settings, model=model, train_dataset=samples, data_collator=dict,
    )  # fmt: skip


def check_classes(train: Examples, place: str = "") -> None:
    """Raise InputError for training data of one class alone; `place` begins the message."""
    labels = train.known_labels
    if train.problem in {"binary", "multiclass", "token"} and len(np.unique(labels[labels != NOT_COUNTED])) < 2:
        raise InputError(f"{place}the training data have one class alone; choose other data")


def unplaced(parts: Mapping[str, LabelledInputs]) -> dict[str, int]:
    """Return the number of sequences that are read without the population's frequencies, by reason."""
    return dict(sum((Counter(getattr(part.inputs, "unplaced", {})) for part in parts.values()), Counter[str]()))


def classifier_logits(
    model: Any, inputs: Inputs, settings: FinetuneSettings, *, each_token: bool = False, rows: Int64 | None = None
) -> Logits:
    """Return a classifier's logits: (N, D); with `each_token` one (bases, D) for each sequence."""
    outputs: Callable[..., Logits] = base_outputs if each_token else sequence_outputs
    return outputs(
        model, lambda batch: model(**batch).logits, inputs, rows, precision=settings.precision,
        batch_size=2 * (settings.micro_batch_size or settings.batch_size), strands=settings.strands,
    )  # fmt: skip


def scores_and_labels(examples: Examples, logits: Logits) -> tuple[str, npt.NDArray[Any], Float32]:
    """Return problem, labels and scores as metrics take them; of bases, those that count, one by one."""
    if examples.problem != "token":
        scores = decision_scores(examples.problem, np.asarray(logits))
        # A table may have its numbers in one column of several that it could have.
        labels = examples.known_labels.reshape(scores.shape) if scores.ndim == 1 else examples.known_labels
        return examples.problem, labels, scores
    label_T, counts_T = _token_labels(examples, logits)
    score_TD = np.concatenate(list(logits))[counts_T]
    problem = "binary" if score_TD.shape[1] == 2 else "multiclass"
    return problem, label_T[counts_T], decision_scores(problem, score_TD)


def names_of_scores(examples: Examples, logits: Logits) -> list[str]:
    """Return the name of the sequence of each score of `scores_and_labels`; its row where it has none."""
    names = [name or str(row) for row, name in enumerate(examples.names)]
    if examples.problem != "token":
        return names
    every: list[str] = np.repeat(names, [len(one) for one in logits])[_token_labels(examples, logits)[1]].tolist()
    return every


def _token_labels(examples: Examples, logits: Logits) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the labels of the bases that have logits, as sequences may have been truncated, and which count."""
    starts = zip(examples.offsets[:-1], logits, strict=True)
    label_T = np.concatenate([examples.known_labels[start : start + len(one)] for start, one in starts])
    return label_T, label_T != NOT_COUNTED


class ClassifierTrainer(trainers.RunTrainer):
    """Trainer with the loss of the problem, and evaluations as predictions are made."""

    def __init__(
        self, *, loss: ClassifierLoss, validation: LabelledInputs, settings: FinetuneSettings, **others: Any
    ) -> None:
        # The library needs a data set before it evaluates; what is evaluated on is `validation`.
        super().__init__(if_diverged="try a lower learning_rate", eval_dataset=others["train_dataset"], **others)
        self._loss, self._validation, self._settings = loss, validation, settings
        # The loss is a mean over its own batch, whatever the model's own would be.
        self.model_accepts_loss_kwargs = False

    def fine_tune(
        self, records: Callable[[Path], None] = lambda _: None, checkpoint: Path | None = None, *, show: bool = False
    ) -> FinetunedModel:
        """Return the model of the best step by the metric on the validation data; of equal steps, of the first."""
        metric = self.args.metric_for_best_model
        notes = {"loss": "loss {:.4f}", f"eval_{metric}": f"{metric} {{:.4f}}"}
        self.run(records, checkpoint, "fine-tuning", notes, show=show)
        steps, best_step = self.state.global_step, self.state.best_global_step
        if best_step is None:
            raise InputError(
                f"{metric} could not be computed on the validation data, which may have one class alone; choose other "
                "validation data or another metric"
            )
        model = self.accelerator.unwrap_model(self.model)
        if self._settings.method == "lora":
            model = model.merge_and_unload()
        tokens = self.train_dataset.tokens() * steps // self.args.max_steps
        return FinetunedModel(model, best_step, steps, trainers.history_of(self.state.log_history), tokens)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Return the batches of a step, and their mean weight over all processes; None where all weigh the same."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        known = [weight for batch in batches if (weight := self._loss.weight_of(batch["labels"])) is not None]
        if not known:
            return batches, None
        mean = torch.stack(known).mean().to(device)
        return batches, self.accelerator.gather(mean[None]).mean() if self.args.world_size > 1 else mean

    def compute_loss(
        self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> Any:  # fmt: skip
        """Return the loss of the problem, such that the mean over the batches of a step is that of the step."""
        labels = inputs["labels"]
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        loss = self._loss(outputs.logits, labels)
        weight = self._loss.weight_of(labels)
        if weight is not None and num_items_in_batch is not None:
            loss = loss * (weight / num_items_in_batch.clamp(min=torch.finfo(loss.dtype).tiny))
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate, and stop the training after as many evaluations without improvement as the settings allow."""
        metrics = super().evaluate(*args, **kwargs)
        every, best = int(self.args.eval_steps), self.state.best_global_step
        waited = (self.state.global_step - (best or every)) // every
        if self._settings.patience is not None and waited >= self._settings.patience:
            self.control.should_training_stop = True
        return metrics

    def evaluation_loop(self, *_: Any, **__: Any) -> EvalLoopOutput:
        """Return loss and all metrics of the problem on the validation data, divided among the processes."""
        data, count, world = self._validation, len(self._validation.examples), self.args.world_size
        rows = np.arange(-(-count // world) * world).reshape(-1, world)[:, self.args.process_index] % count
        model = self.accelerator.unwrap_model(self.model)
        each_token = data.problem == "token"
        logits = classifier_logits(model, data.inputs, self._settings, each_token=each_token, rows=rows)
        if world > 1:
            logits = self._gathered(logits, count)
        every = torch.from_numpy(np.concatenate(list(logits)) if each_token else np.asarray(logits))
        if not every.isfinite().all():
            raise self.diverged(f"predictions were not finite numbers after step {self.state.global_step}")
        labels = data.examples.known_labels
        if each_token:
            every, labels = every[None], _token_labels(data.examples, logits)[0][None]
        loss = float(self._loss(every, torch.tensor(labels)))
        metrics = {"loss": loss, **evaluate(*scores_and_labels(data.examples, logits))}
        return EvalLoopOutput(every, None, {f"eval_{name}": value for name, value in metrics.items()}, count)

    def _gathered(self, logits: Logits, count: int) -> Logits:
        """Return the logits of all processes, which have the rows in turn."""
        length_N = self._validation.inputs.length_N - 2
        bases = isinstance(logits, list)
        own = np.stack([np.pad(one, ((0, max(length_N) - len(one)), (0, 0))) for one in logits]) if bases else logits
        every = self.accelerator.gather(torch.tensor(own, device=self.args.device)[None])
        found: Float32 = every.transpose(0, 1).flatten(0, 1)[:count].cpu().numpy()
        return [one[:length] for one, length in zip(found, length_N, strict=True)] if bases else found


def _with_adapters(model: Any, encoder: Encoder, settings: FinetuneSettings) -> Any:
    if not encoder.lora_targets:
        raise InputError(f"{encoder.name}: has no layers for low-rank adapters; choose method=full")
    try:
        import peft
    except ImportError:
        raise MissingExtraError("peft", "all") from None
    parts = {part for name, _ in model.named_modules() for part in name.split(".")}
    heads = [head for head in encoder.fresh_modules if head in parts]
    config = peft.LoraConfig(
        r=settings.lora.rank, lora_alpha=settings.lora.alpha, lora_dropout=settings.lora.dropout,
        target_modules=list(encoder.lora_targets), exclude_modules=rf"(.*\.)?({'|'.join(heads)})(\..*)?",
        modules_to_save=heads,
    )  # fmt: skip
    with warnings.catch_warnings():
        # It asks the model what the library now calls by another name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        try:
            return peft.get_peft_model(model, config)
        except ValueError as error:
            raise InputError(f"{encoder.name}: {one_line(error)}; choose method=full") from None


def _arguments(
    settings: FinetuneSettings, count: int, metric: str, seed: int, *, resumable: bool
) -> transformers.TrainingArguments:
    steps = settings.max_steps or max(1, math.ceil(settings.epochs * count / settings.batch_size))
    every = min(steps, settings.eval_steps or math.ceil(count / settings.batch_size))
    defaults = {"logging_steps": 50, "lr_scheduler_type": "linear", "save_total_limit": 1}
    own = settings.model_dump(include={"learning_rate", "weight_decay", "warmup_steps", "max_grad_norm"})
    fixed = own | {
        "seed": seed, "max_steps": steps, "bf16": settings.precision == "bf16", "fp16": False,
        "per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "gradient_accumulation_steps": 1,
        "eval_strategy": "steps", "eval_steps": every, "save_strategy": "steps", "save_steps": every,
        "save_only_model": not resumable, "load_best_model_at_end": True, "metric_for_best_model": metric,
        "greater_is_better": metric not in LOWER_IS_BETTER, "ddp_find_unused_parameters": False,
    }  # fmt: skip
    arguments = trainers.trainer_arguments(settings.training, defaults, fixed)
    trainers.share_batch(arguments, settings.batch_size, settings.micro_batch_size, "batch_size")
    return arguments
