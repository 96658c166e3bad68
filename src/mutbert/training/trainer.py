"""transformers' Trainer for both trainings: it saves before it evaluates and stops where a loss is not finite.

Shape suffixes: B windows, T targets of a window, V tokens, S sums.
"""

from __future__ import annotations

import math
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

import torch
import transformers
from accelerate import PartialState
from pydantic import TypeAdapter, ValidationError

from mutbert import alphabet
from mutbert.errors import InputError, one_line
from mutbert.files import write_json
from mutbert.model.checkpoints import library_bars_off
from mutbert.progress import progress_bar
from mutbert.run_folder import HISTORY, WRITING
from mutbert.settings import check_keys
from mutbert.training.folder import TrainingStoppedError, checkpoint_of, publish_checkpoint
from mutbert.training.held_out import GROUPS, HeldOut, held_out_sums, summarise_sums
from mutbert.windows.dataset import expand_batch, targets_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mutbert.training.recipe import Dropout


# What would change results without a word, or break a run.
_RESERVED: Final = (
    "accelerator_config", "auto_find_batch_size", "eval_do_concat_batches", "group_by_length", "ignore_data_skip",
    "label_smoothing_factor", "neftune_noise_alpha", "num_train_epochs", "push_to_hub", "resume_from_checkpoint",
    "save_only_model", "train_sampling_strategy", "use_liger_kernel",
)  # fmt: skip
Kind = TypeVar("Kind", bound="RunTrainer")


class RunTrainer(transformers.Trainer):
    """Trainer of a run: samples in their order, checkpoints before evaluations, the best one known."""

    def __init__(self, *, if_diverged: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.control: Any
        self._if_diverged = if_diverged
        # The library's own progress would be shown twice.
        self.remove_callback(transformers.PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        """Return a sampler in order, which is random already: sample i is a function of (seed, i)."""
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Return the batches of a step; none where the evaluation of a resumed run has stopped it."""
        if self.control.should_training_stop:
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Save the checkpoint that is due, which a failure here then leaves, evaluate, and restore the random state."""
        if self.is_in_train and self.control.should_save:
            self._save_checkpoint(self.model, trial=None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        device = self.args.device
        devices = [] if device.type == "cpu" else [device]
        with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        best = checkpoint_of(Path(self.args.output_dir).parent, self.state.global_step)
        if self._determine_best_metric(metrics, trial=None) and best.is_dir():
            self.state.best_model_checkpoint = str(best)
        return metrics

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log; raise TrainingStoppedError for a loss that is not finite, in all processes alike."""
        if not math.isfinite(logs.get("loss", logs.get("train_loss", 0.0))):
            logged = max((entry["step"] for entry in self.state.log_history if "loss" in entry), default=0)
            when = f"between steps {logged + 1} and {self.state.global_step}"
            # The weights of the last logged step may be those that gave this loss.
            raise self.diverged(f"the loss was not a finite number {when}", max(logged, 1))
        super().log(logs, *args, **kwargs)

    def diverged(self, what: str, spoilt_from: int | None = None) -> TrainingStoppedError:
        """Return the error for a run that diverged, in this step by default."""
        message = f"{what}, so the run was stopped; {self._if_diverged}"
        return TrainingStoppedError(message, self.state.global_step if spoilt_from is None else spoilt_from)

    def run(
        self, records: Callable[[Path], None], checkpoint: Path | None, description: str, notes: Mapping[str, str], *,
        show: bool,
    ) -> dict[str, float]:  # fmt: skip
        """Train, from a checkpoint if there is one, and return the library's measures of the training.

        `records` writes the recipe and the like into a checkpoint; `notes` are formats of logged values to show.
        """
        with ExitStack() as bar, library_bars_off():
            self.add_callback(_RunCallback(self, records, bar, description, notes, show))
            measured: dict[str, float] = self.train(str(checkpoint) if checkpoint else None).metrics
        return measured


def build_trainer(kind: type[Kind], arguments: transformers.TrainingArguments, run: Path, **settings: Any) -> Kind:
    """Return a trainer for a run's folder, which need not exist; InputError for wrong settings."""
    try:
        trainer = kind(args=arguments, **settings)
        trainer.create_optimizer_and_scheduler(arguments.max_steps)
        trainer.get_train_dataloader(), trainer.get_eval_dataloader()
    except Exception as error:  # of the library, of torch or of an optimizer's package
        raise InputError(f"training: {one_line(error)}") from None
    trainer.optimizer = trainer.lr_scheduler = None
    arguments.output_dir = str(run / WRITING)
    return trainer


class PretrainTrainer(RunTrainer):
    """Trainer with compact batches, the dropout's schedule and the held-out evaluation."""

    def __init__(self, *, dropout: Dropout, **settings: Any) -> None:
        super().__init__(compute_metrics=self._summarise, **settings)
        self._dropout = dropout
        self._held_out: tuple[int, HeldOut] = -1, HeldOut({}, {}, {})

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a batch, which is expanded on the device."""
        if not self._dropout.is_on(self.state.global_step):
            model.eval()
        return super().compute_loss(model, expand_batch(inputs), *args, **kwargs)

    def prediction_step(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> Any:
        """Return no loss, and the sums of each window, (B, S), as logits and as labels, so that no logits are kept."""
        inputs = self._prepare_inputs(inputs)
        dense = expand_batch(inputs)
        targets = targets_of(inputs, dense["labels"])
        with torch.no_grad(), self.compute_loss_context_manager():
            logit_BTV = model(**dense).logits
        sums_BS = held_out_sums(logit_BTV.float().log_softmax(-1)[..., alphabet.BASE_IDS], targets)
        return None, sums_BS, sums_BS

    def held_out(self) -> HeldOut:
        """Return the evaluation of the model as it is."""
        if self._held_out[0] != self.state.global_step:
            self.evaluate()
        return self._held_out[1]

    def _summarise(self, prediction: transformers.EvalPrediction) -> dict[str, float]:
        step = self.state.global_step
        self._held_out = step, summarise_sums(prediction.predictions)
        every, variant, other = (self._held_out[1].cross_entropy[group] for group in GROUPS[:3])
        if not math.isfinite(every):
            raise self.diverged(f"the held-out cross-entropy was not a finite number after step {step}")
        named = {"loss": every, "loss_variant": variant, "loss_other": other}
        # JSON has no NaN, which stands for no such targets.
        return {name: value for name, value in named.items() if not math.isnan(value)}


@dataclass
class _RunCallback(transformers.TrainerCallback):
    """Publishes checkpoints, writes the history and shows progress."""

    trainer: RunTrainer
    records: Callable[[Path], None]
    bar: ExitStack
    description: str
    notes: Mapping[str, str]
    show: bool
    latest: dict[str, float] = field(default_factory=dict)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, show = state.global_step, self.show and state.is_world_process_zero
        self.run = Path(args.output_dir).parent
        self.advance = self.bar.enter_context(
            progress_bar(self.description, state.max_steps - step, unit="steps", show=show)
        )
        # Where the run was started, its folder may have had another path.
        if state.best_global_step and (best := checkpoint_of(self.run, state.best_global_step)).is_dir():
            state.best_model_checkpoint = str(best)
        due = step % state.eval_steps == 0 or step == state.max_steps if args.eval_strategy == "steps" else False
        if step and due and step >= args.eval_delay and not any(
            entry["step"] == step and "eval_loss" in entry for entry in state.log_history
        ):  # fmt: skip
            # It was stopped after the checkpoint and before the evaluation of the same step, with all that follows.
            control.should_save = False
            self.trainer._evaluate(None, None)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        # A checkpoint does not hold the losses since the last log, so that a resumed run would not know them.
        control.should_log = control.should_log or control.should_save
        written = (text.format(self.latest[name]) for name, text in self.notes.items() if name in self.latest)
        self.advance(1, ", ".join(written))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        self.latest |= logs or {}
        if state.is_world_process_zero:
            write_json(self.run / HISTORY, history_of(state.log_history), force=True)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        processes = PartialState()
        processes.wait_for_everyone()
        if state.is_world_process_zero:
            writing = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            # A pickle that nothing reads.
            (writing / "training_args.bin").unlink(missing_ok=True)
            self.records(writing)
            publish_checkpoint(writing, self.run, args.save_total_limit or 0, state.best_model_checkpoint)
        processes.wait_for_everyone()


def history_of(log: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return the numbers of a Trainer's log that follow from the recipe alone."""
    history = []
    for entry in log:
        if "loss" in entry or "eval_loss" in entry:
            # In an order of its own, as a checkpoint sorts what was logged.
            names = [name for name in sorted(entry) if not re.search("epoch|flos|step|_per_second|time$", name)]
            history.append({"step": int(entry["step"]), **{name: entry[name] for name in names}})
    return history


def trainer_arguments(
    given: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, Any]
) -> transformers.TrainingArguments:
    """Return the arguments `given` by a recipe over `defaults`, with what is `fixed`; InputError names a wrong one."""
    # The library creates its folder; the run's is created once everything is known to be right.
    fixed = {
        "output_dir": os.curdir, "data_seed": None, "disable_tqdm": True, "label_names": ["labels"],
        "logging_nan_inf_filter": False, "remove_unused_columns": False, "report_to": "none", **fixed,
    }  # fmt: skip
    for key in given:
        if key in _RESERVED or key in fixed:
            raise InputError(f"training.{key} cannot be set: other settings decide it, or it would change the result")
    kinds = get_type_hints(transformers.TrainingArguments)
    known = [field.name for field in fields(transformers.TrainingArguments)]
    check_keys(given, (name for name in known if name not in _RESERVED and name not in fixed), "training.")
    for key, value in given.items():
        try:
            TypeAdapter(kinds[key] | bool).validate_python(value)  # fsdp may be true
        except ValidationError as error:
            raise InputError(f"training.{key}: {error.errors()[0]['msg']} (given: {value!r})") from None
    if given.get("save_strategy") == "best":
        raise InputError("training.save_strategy cannot be best: the best checkpoint is always kept; choose steps")
    try:
        arguments = transformers.TrainingArguments(
            **{"use_cpu": not torch.accelerator.is_available(), **defaults, **given, **fixed}
        )
    except Exception as error:
        raise InputError(f"training: {one_line(error)}") from None
    if arguments.fp16 and arguments.device.type == "cpu":
        raise InputError("training.fp16 needs a GPU; choose training.bf16=true, or neither")
    # Several GPUs are used by as many processes; one process of the library would copy the model at each step.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def share_batch(arguments: transformers.TrainingArguments, total: int, most: int | None, name: str) -> None:
    """Divide a step's samples among processes, and then into batches of at most so many, as equal as possible."""
    part, rest = divmod(total, arguments.world_size)
    if rest or not part:
        processes = f"which {arguments.world_size} processes cannot divide; choose a multiple of their number"
        raise InputError(f"{name} is {total}, {processes}")
    batch = next(size for size in range(min(part, most or part), 0, -1) if part % size == 0)
    arguments.per_device_train_batch_size = batch
    arguments.gradient_accumulation_steps = part // batch
