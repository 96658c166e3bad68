"""Fine-tune one model on one training set, and return the best step by a metric on the validation data.

Shape suffixes: N sequences, S samples of the run, B batch, L tokens, T bases, K or D outputs.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import transformers
from accelerate.utils import gather_object
from torch.utils.data import Dataset
from transformers.trainer_utils import EvalLoopOutput

from mutbert.arrays import Float32, Int64
from mutbert.encoders.adapter import Encoder, takes_mask
from mutbert.encoders.inputs import Inputs
from mutbert.errors import InputError, one_line, require
from mutbert.examples.table import NOT_COUNTED, Examples
from mutbert.inference.run import base_outputs, sequence_outputs
from mutbert.scoring.metrics import LOWER_IS_BETTER, constant_guess, evaluate, metric_names
from mutbert.training import trainer as trainers
from mutbert.training.losses import ClassifierLoss, balanced_weights, output_layer, scale_of
from mutbert.training.recipe import FinetuneSettings
from mutbert.windows.randomness import STRAND, random_bits, unit_interval

Logits = Float32 | list[Float32]  # (N, D), or for labels of bases (T, D) for each sequence


class LabelledInputs(NamedTuple):
    """Sequences as a model takes them, and the examples that they come from."""

    inputs: Inputs
    examples: Examples


class TrainingSamples(Dataset[Any]):
    """The samples of a whole run in the order of training, with `reverse` half of them on the other strand."""

    def __init__(self, data: LabelledInputs, steps: int, batch_size: int, seed: int, *, reverse: bool) -> None:
        self.data = data
        self.row_S = sample_order(data.inputs.length_N, steps, batch_size, seed)
        drawn_S = unit_interval(random_bits(seed, STRAND, np.arange(len(self.row_S)), 1)[:, 0])
        self.reverse_S = drawn_S < (0.5 if reverse else 0)

    def __len__(self) -> int:
        return len(self.row_S)

    def __getitems__(self, samples: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Return the parts of a batch, as torch's loader asks for it; labels are (B,), (B, K), or of bases (B, L)."""
        index = np.asarray(samples, dtype=np.int64)
        return [self._part(part) for part in unpadded_parts(index, self.data.inputs.length_N[self.row_S[index]])]

    def _part(self, index: Int64) -> dict[str, torch.Tensor]:
        rows, reverse = self.row_S[index], self.reverse_S[index]
        inputs, examples = self.data
        batch, label = inputs.batch(rows, reverse), examples.known_labels
        if examples.problem != "token":
            return {**batch, "labels": torch.from_numpy(label[rows])}
        label_BL = np.full(next(iter(batch.values())).shape[:2], NOT_COUNTED, dtype=np.int64)
        for label_L, row, turned in zip(label_BL, rows, reverse, strict=True):
            own = label[examples.offsets[row] : examples.offsets[row + 1]][:: -1 if turned else 1]
            inside_L = label_L[1:-1]
            inside_L[: len(own)] = own[: len(inside_L)]
        return {**batch, "labels": torch.from_numpy(label_BL)}


def unpadded_parts(sample_B: Int64, length_B: Int64) -> list[Int64]:
    """Return a batch as it is, or in parts where more than half of it would be padding, and of each part at most."""
    if len(length_B) * length_B.max() <= 2 * length_B.sum():
        return [sample_B]
    size_B = np.arange(1, len(length_B) + 1) * np.maximum.accumulate(length_B)
    end = int(np.argmax(size_B > 2 * np.cumsum(length_B)))
    return [sample_B[:end], *unpadded_parts(sample_B[end:], length_B[end:])]


def sample_order(length_N: Int64, steps: int, batch_size: int, seed: int) -> Int64:
    """Return the row of each sample, (steps * batch_size,): one shuffled pass over all sequences after the other.

    No step has a sequence twice where there are enough. Where their numbers of tokens `length_N` differ, those of a
    step are similar, also of one that ends a pass and begins the next.
    """
    # Enough steps are sorted together to leave little padding, and little order.
    total, mixed, most = steps * batch_size, bool((length_N != length_N[0]).any()), 64 * batch_size
    passes, begun = [], np.zeros(0, dtype=np.int64)  # the rows of a step that the next pass completes
    for number in range(-(-total // len(length_N))):
        rng = np.random.default_rng([seed, number])
        order = rng.permutation(len(length_N))
        others = np.flatnonzero(~np.isin(order, begun))
        if mixed and len(begun):
            others = others[np.argsort(np.abs(length_N[order[others]] - length_N[begun].mean()), kind="stable")]
        first = others[: -len(begun) % batch_size]
        rest = np.delete(order, first)
        if mixed:
            parts = np.split(rest, np.arange(most, len(rest), most))
            rest = np.concatenate([_by_length(part, length_N, batch_size, rng) for part in parts])
        passes.append(np.concatenate([order[first], rest]))
        begun = np.concatenate([begun, passes[-1]])
        begun = begun[len(begun) // batch_size * batch_size :]
    return np.concatenate(passes)[:total].astype(np.int64)


def _by_length(row_R: Int64, length_N: Int64, batch_size: int, rng: np.random.Generator) -> Int64:
    """Return rows as whole steps of similar lengths in random order, and then those that are left, similar too."""
    row_R = row_R[np.argsort(length_N[row_R], kind="stable")]
    whole, left = divmod(len(row_R), batch_size)
    start = batch_size * int(rng.integers(whole + 1))
    steps = np.delete(row_R, slice(start, start + left)).reshape(-1, batch_size)
    return np.concatenate([rng.permutation(steps).ravel(), row_R[start : start + left]])


def decision_scores(problem: str, logits: Float32) -> Float32:
    """Return the decision values of logits: of two classes the log odds of the second (N,), of one number (N,)."""
    if problem == "binary":
        return logits[:, 1] - logits[:, 0]
    return logits[:, 0] if problem == "regression" and logits.shape[1] == 1 else logits


def classifier_trainer(
    encoder: Encoder, train: LabelledInputs, validation: LabelledInputs, settings: FinetuneSettings, folder: Path, *,
    metric: str, seed: int, longest: int = 0, resumable: bool = False, head: Mapping[str, torch.Tensor] | None = None,
) -> ClassifierTrainer:  # fmt: skip
    """Return the trainer of a model, all of it or low-rank adapters; other sequences have `longest` tokens at most.

    Its last layer starts from `head`, which returns numbers as they are, or from fresh weights.
    """
    check_classes(train.examples, "the training data")
    constant_value(validation, metric)
    problem, classes, outputs = train.examples.problem, train.examples.classes, len(train.examples.classes)
    longest = int(max(longest, train.inputs.length_N.max(), validation.inputs.length_N.max()))
    transformers.set_seed(seed)
    model = encoder.classifier(
        outputs, longest, classes=classes, each_token=problem == "token", rope_scaling=settings.rope_scaling
    )
    if settings.micro_batch_size != 1 and len(np.unique(train.inputs.length_N)) > 1 and not takes_mask(model):
        what = "has no attention_mask, so that sequences of several lengths cannot be trained in a batch"
        raise InputError(f"{encoder.name}: {what}; set finetune.micro_batch_size=1")
    labels = train.examples.known_labels
    balanced = settings.class_weights == "balanced"
    loss = ClassifierLoss(
        problem, balanced_weights(problem, labels, outputs) if balanced else None,
        **(scale_of(labels, output_layer(model, outputs)) if problem == "regression" else {}),
    )  # fmt: skip
    if head is not None:
        (layer := output_layer(model, outputs)).load_state_dict(head)
        loss.rescale(layer)
    if settings.method == "lora":
        model = _with_adapters(model, encoder, settings)
    count = len(train.examples)
    batch_size = min(settings.batch_size, count)
    steps = settings.max_steps or max(1, math.ceil(settings.epochs * count / batch_size))
    warmup = min(50, steps // 10) if settings.warmup_steps is None else settings.warmup_steps
    every = min(steps, settings.eval_steps or math.ceil(count / batch_size))
    defaults = {"logging_steps": 50, "lr_scheduler_type": "linear", "save_total_limit": 1}
    own = settings.model_dump(include={"learning_rate", "weight_decay", "max_grad_norm"})
    arguments = trainers.trainer_arguments(settings.training, defaults, own | {
        "seed": seed, "max_steps": steps, "warmup_steps": warmup, "bf16": settings.precision == "bf16", "fp16": False,
        "per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "gradient_accumulation_steps": 1,
        "eval_strategy": "steps", "eval_steps": every, "save_strategy": "steps", "save_steps": every,
        "save_only_model": not resumable, "load_best_model_at_end": True, "metric_for_best_model": metric,
        "greater_is_better": metric not in LOWER_IS_BETTER, "average_tokens_across_devices": True,
        # Poolers and the like of other models may have no part in the loss.
        "ddp_find_unused_parameters": encoder.family != "mutbert",
    })  # fmt: skip
    trainers.share_batch(arguments, batch_size, settings.micro_batch_size, "batch_size")
    samples = TrainingSamples(train, steps, batch_size, seed, reverse=settings.reverse_complement)
    return ClassifierTrainer(
        args=arguments, folder=folder, compute_loss_func=loss, validation=validation, settings=settings, model=model,
        train_dataset=samples, data_collator=list,
    )  # fmt: skip


def check_classes(examples: Examples, what: str, known: Examples | None = None) -> None:
    """Raise InputError where one class alone occurs, or one that training data `known` lack; `what` names the data."""
    if examples.problem not in {"binary", "multiclass", "token"}:
        return
    every = (part.known_labels for part in (examples, known or examples))
    found, others = (np.unique(label[label != NOT_COUNTED]) for label in every)
    lacking = [examples.classes[number] for number in np.setdiff1d(found, others)]
    problem = f"have class {lacking[0]!r}, which the training data lack" if lacking else "have one class alone"
    if lacking or len(found) < 2:
        raise InputError(f"{what} {problem}; choose other data")


def constant_value(data: LabelledInputs, metric: str) -> float:
    """Return the metric of the best constant guess, InputError where no guesses have one; 0 for correlations."""
    rng, examples, width = np.random.default_rng(0), data.examples, len(data.examples.classes)
    logits: Logits = rng.normal(size=(len(examples), width)).astype(np.float32)
    if examples.problem == "token":
        logits = [rng.normal(size=(length - 2, width)).astype(np.float32) for length in data.inputs.length_N.tolist()]
    found = scores_and_labels(examples, logits)
    if math.isnan(evaluate(*found, [metric])[metric]):
        raise InputError(f"{metric} cannot be computed on the validation data; choose others, or another metric")
    return float(np.nan_to_num(constant_guess(*found)[metric]))


def unplaced(parts: Mapping[str, LabelledInputs]) -> dict[str, int]:
    """Return the number of sequences that are read without the population's frequencies, by reason."""
    return dict(sum((Counter(getattr(part.inputs, "unplaced", {})) for part in parts.values()), Counter[str]()))


def classifier_logits(
    model: Any, data: LabelledInputs, settings: FinetuneSettings, rows: Int64 | None = None
) -> Logits:
    """Return a classifier's logits of some sequences or all: (N, D); of labels of bases one (bases, D) for each."""
    outputs: Callable[..., Logits] = base_outputs if data.examples.problem == "token" else sequence_outputs
    # Of some rows, as in training, a number that is not finite stops the run and is explained there.
    name = None if rows is not None else lambda row: data.examples.names[row] or f"sequence {row}"
    return outputs(
        model, lambda batch: model(**batch).logits, data.inputs, rows, precision=settings.precision,
        batch_size=2 * (settings.micro_batch_size or settings.batch_size), strands=settings.strands, name=name,
    )  # fmt: skip


def scores_and_labels(examples: Examples, logits: Logits) -> tuple[str, npt.NDArray[Any], Float32]:
    """Return problem, labels and scores as metrics take them; of bases, those that count, one by one."""
    if examples.problem != "token":
        scores = decision_scores(examples.problem, np.asarray(logits))
        # A table may have its numbers in one column of several that it could have.
        labels = examples.known_labels.reshape(scores.shape) if scores.ndim == 1 else examples.known_labels
        return examples.problem, labels, scores
    label_T, counts_T = token_labels(examples, logits)
    score_TD = np.concatenate(list(logits))[counts_T]
    problem = "binary" if score_TD.shape[1] == 2 else "multiclass"
    return problem, label_T[counts_T], decision_scores(problem, score_TD)


def names_of_metrics(problem: str) -> tuple[str, ...]:
    """Return the metrics of a problem; of bases, those of several classes."""
    return metric_names("multiclass" if problem == "token" else problem)


def token_labels(examples: Examples, logits: Logits) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the labels of the bases that have logits, as sequences may have been truncated, and which count."""
    starts = zip(examples.offsets[:-1], logits, strict=True)
    label_T = np.concatenate([examples.known_labels[start : start + len(one)] for start, one in starts])
    return label_T, label_T != NOT_COUNTED


class ClassifierTrainer(trainers.RunTrainer):
    """Trainer with the loss of the problem, and evaluations as predictions are made."""

    def __init__(self, *, validation: LabelledInputs, settings: FinetuneSettings, **others: Any) -> None:
        # The library needs a data set before it evaluates; what is evaluated on is `validation`.
        super().__init__(eval_dataset=others["train_dataset"], **others)
        self._validation, self._settings = validation, settings
        # The model need not know the weight of a step, as the loss is not its own.
        self.model_accepts_loss_kwargs = False

    def fine_tune(
        self, records: Callable[[Path], None] = lambda _: None, step: int = 0, *, show: bool = False
    ) -> tuple[Any, dict[str, Any]]:
        """Return the model of the best step by the metric on the validation data, of equals by the loss, and numbers.

        These are ``best_step``, its ``validation`` metrics, ``steps`` taken, ``history``, ``tokens`` without padding.
        """
        self.run(records, step, show=show)
        state, samples, loss = self.state, self.train_dataset, self.compute_loss_func
        model = self.accelerator.unwrap_model(self.model)
        if self._settings.method == "lora":
            model = model.merge_and_unload()
        if loss.problem == "regression":
            loss.rescale(output_layer(model, len(samples.data.examples.classes)), undo=True)
        history = trainers.history_of(state.log_history)
        best = next(one for one in history if one["step"] == state.best_global_step and "eval_loss" in one)
        tokens = int(samples.data.inputs.length_N[samples.row_S].sum()) * state.global_step // self.args.max_steps
        return model, {
            "best_step": best["step"], "steps": state.global_step, "history": history, "tokens": tokens,
            "validation": {name: best[f"eval_{name}"] for name in names_of_metrics(loss.problem)},
        }  # fmt: skip

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Return the batches of a step, and their weight in all processes together."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        weights = [self.compute_loss_func.weight_of(part["labels"]) for parts in batches for part in parts]
        return batches, self.accelerator.gather(torch.stack(weights).sum()[None].to(device)).sum() if batches else None

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Return the loss of a batch, the sum of its parts; processes share their gradients at the last of them."""
        step, (*first, last) = super().training_step, inputs
        with self.accelerator.no_sync(model):
            losses = [step(model, part, num_items_in_batch) for part in first]
        return sum(losses, step(model, last, num_items_in_batch))

    def _determine_best_metric(self, metrics: Any, trial: Any) -> bool:  # noqa: ARG002
        """Return whether this evaluation is the best so far by the metric, of equals by the loss; stop for patience."""
        name, sign = f"eval_{self.args.metric_for_best_model}", 1 if self.args.greater_is_better else -1
        known = [entry for entry in self.state.log_history if "eval_loss" in entry]
        best = max(known, key=lambda one: (np.nan_to_num(sign * one[name], nan=-np.inf), -one["eval_loss"]))
        self.state.best_metric, self.state.best_global_step = best[name], best["step"]
        waited, patience = self.state.global_step - best["step"], self._settings.patience
        if patience is not None and waited // int(self.args.eval_steps) >= patience:
            self.control.should_training_stop = True
        return bool(waited == 0)

    def evaluation_loop(self, *_: Any, **__: Any) -> EvalLoopOutput:
        """Return loss and all metrics of the problem on the validation data, divided among the processes."""
        examples, world = self._validation.examples, self.args.world_size
        count = len(examples)
        rows = np.arange(-(-count // world) * world).reshape(-1, world)[:, self.args.process_index] % count
        model = self.accelerator.unwrap_model(self.model)
        logits = classifier_logits(model, self._validation, self._settings, rows)
        if world > 1:
            parts = gather_object([logits])
            logits = [parts[row % world][row // world] for row in range(count)]
        labels = token_labels(examples, logits)[0] if examples.problem == "token" else examples.known_labels
        every = torch.from_numpy(np.concatenate(list(logits)) if examples.problem == "token" else np.asarray(logits))
        if not every.isfinite().all():
            step = self.state.global_step
            raise self.diverged(f"predictions were not finite numbers after step {step}", step)
        loss = self.compute_loss_func
        metrics = {"loss": float(loss(SimpleNamespace(logits=every), torch.tensor(labels)))}
        if loss.problem == "regression":
            logits = np.asarray(logits) * loss.spread.numpy() + loss.centre.numpy()
        metrics |= evaluate(*scores_and_labels(examples, logits))
        return EvalLoopOutput(every, None, {f"eval_{name}": value for name, value in metrics.items()}, count)


def _with_adapters(model: Any, encoder: Encoder, settings: FinetuneSettings) -> Any:
    if not encoder.lora_targets:
        raise InputError(f"{encoder.name}: has no layers for low-rank adapters; choose method=full")
    require("peft")
    import peft

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
