"""transformers' Trainer for both trainings: it saves before it evaluates and stops where a loss is not finite."""

import json
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, get_type_hints

import torch
import transformers
from pydantic import TypeAdapter, ValidationError

from mutbert.errors import InputError, one_line, reading
from mutbert.files import write_json
from mutbert.model.checkpoints import library_bars_off
from mutbert.progress import progress_bar
from mutbert.run_folder import HISTORY, WRITING
from mutbert.settings import check_keys
from mutbert.training.folder import checkpoint_of, publish_checkpoint

# What would change results without a word, or break a run.
_RESERVED: Final = (
    "accelerator_config", "auto_find_batch_size", "eval_do_concat_batches", "greater_is_better", "group_by_length",
    "ignore_data_skip", "label_smoothing_factor", "load_best_model_at_end", "neftune_noise_alpha", "num_train_epochs",
    "push_to_hub", "resume_from_checkpoint", "save_only_model", "train_sampling_strategy", "use_liger_kernel",
)  # fmt: skip
# What does not follow from the recipe alone, or from the step.
_NOT_SHOWN: Final = re.compile("epoch|flos|step|_per_second|time$")
_UNLOGGED: Final = "unlogged.json"  # in a checkpoint: the last step that was logged, and each process' losses since


class RunTrainer(transformers.Trainer, transformers.TrainerCallback):
    """Trainer of a run, and its own callback: samples in order, checkpoints before evaluations, the best one known."""

    optimizer: Any

    def __init__(self, *, args: transformers.TrainingArguments, folder: Path, **settings: Any) -> None:
        try:
            super().__init__(args=args, **settings)
            # Wrong settings are an error before the folder is created.
            self.create_optimizer_and_scheduler(args.max_steps)
            self.get_train_dataloader(), self.get_eval_dataloader()
        except Exception as error:  # of the library, of torch or of an optimizer's package
            raise InputError(f"training: {one_line(error)}") from None
        self.optimizer: Any = None
        self.lr_scheduler = None
        self.control: Any
        self.folder = folder
        args.output_dir = str(folder / WRITING)
        # The library's own progress would be shown twice.
        self.remove_callback(transformers.PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        """Return a sampler in order, which is random already: sample i is a function of (seed, i)."""
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Return a loader whose processes leave SIGTERM to this one, which needs them until the end of its step."""
        loader = super()._get_dataloader(*args, **kwargs)
        loader.worker_init_fn = _ignore_sigterm  # and no seed, which no sample depends on
        return loader

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
        with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        best = checkpoint_of(self.folder, self.state.global_step)
        if self._determine_best_metric(metrics, trial=None) and best.is_dir():
            self.state.best_model_checkpoint = str(best)
        return metrics

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, and write the history; raise InputError for a loss that is not finite, in all processes."""
        if not math.isfinite(logs.get("loss", logs.get("train_loss", 0.0))):
            logged = max((entry["step"] for entry in self.state.log_history if "loss" in entry), default=0)
            when = f"between steps {logged + 1} and {self.state.global_step}"
            # The weights of the last logged step may be those that gave this loss.
            raise self.diverged(f"the loss was not a finite number {when}", max(logged, 1))
        super().log(logs, *args, **kwargs)
        self._latest |= logs
        if self.is_world_process_zero():
            write_json(self.folder / HISTORY, history_of(self.state.log_history), force=True)

    def diverged(self, what: str, step: int) -> InputError:
        """Return the error for a run that diverged, whose checkpoints from a step on are of no use."""
        remedy = "try a lower learning_rate, more warmup_steps, max_grad_norm=1.0, or bf16 and not fp16"
        useless = f"checkpoints from step {step} on are of no use"
        return InputError(f"{what}, so the run was stopped and {useless}; {remedy}")

    def run(self, records: Callable[[Path], None], step: int, *, show: bool) -> None:
        """Train, on from the checkpoint of a step unless it is 0."""
        self._records, self._latest, self._has_stepped = records, dict[str, float](), False
        left, show = self.args.max_steps - step, show and self.is_world_process_zero()
        self._read = checkpoint_of(self.folder, step) if step else None
        bar = progress_bar("training", left, unit="steps", show=show)
        try:
            with library_bars_off(), _postponed(signal.SIGTERM) as self._stopped, bar as self._advance:
                self.add_callback(self)
                self.train(self._read and str(self._read))
        except Exception:
            remedy = "remove it, and --resume goes on from an earlier one" if step else "get it anew"
            # Until the first step is done, what was read shows whether it serves.
            name = self._read or self.model.name_or_path or "model"
            with nullcontext() if self._has_stepped else reading(name, remedy):
                raise

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Evaluate a step that a run was stopped after: the checkpoint was saved, and all that follows was not."""
        args, state, step = self.args, self.state, self.state.global_step
        if self._read and checkpoint_of(self.folder, step) != self._read:
            raise ValueError(f"trainer_state.json is of step {step}")
        history_of(state.log_history)
        # Where the run was started, its folder may have had another path.
        if state.best_global_step and (best := checkpoint_of(self.folder, state.best_global_step)).is_dir():
            state.best_model_checkpoint = str(best)
        if step and (file := checkpoint_of(self.folder, step) / _UNLOGGED).is_file():
            self._globalstep_last_logged, *losses = json.loads(file.read_text(encoding="utf-8"))
            same = len(losses) == args.world_size
            self._tr_loss += losses[args.process_index] if same else sum(losses) / len(losses)
        due = args.eval_strategy == "steps" and (step % state.eval_steps == 0 or step == state.max_steps)
        done = any(entry["step"] == step and "eval_loss" in entry for entry in state.log_history)
        if step and due and step >= args.eval_delay and not done:
            self.control.should_save = False
            self._evaluate(None, None)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Log before a checkpoint, save one and stop where SIGTERM was received, and show progress."""
        control, self._has_stepped = self.control, True
        control.should_log = control.should_log or control.should_save
        if self._stopped:
            self.accelerator.set_trigger()
        # All processes stop at the same step, where one of them was asked to. What else is due is left to the next run.
        if self._stopped if self.args.world_size == 1 else self.accelerator.check_trigger():
            self._stopped.append(signal.SIGTERM)
            control.should_evaluate, control.should_save, control.should_training_stop = False, True, True
            control.should_log = control.should_log or not hasattr(self, "_tr_loss")  # of older transformers
        names = [name for name in ("loss", f"eval_{self.args.metric_for_best_model}") if name in self._latest]
        notes = (f"{name.replace('eval_', 'evaluation ')} {self._latest[name]:.4f}" for name in names)
        self._advance(1, ", ".join(notes))

    def on_save(self, *_: Any, **__: Any) -> None:
        """Publish a checkpoint, with the run's records."""
        logged, losses = self._globalstep_last_logged, list[float]()
        if logged < self.state.global_step:
            losses = self.accelerator.gather(self._tr_loss.reshape(1)).tolist()
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            writing = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            # A pickle that nothing reads.
            (writing / "training_args.bin").unlink(missing_ok=True)
            self._records(writing)
            if losses:
                write_json(writing / _UNLOGGED, [logged, *losses])
            publish_checkpoint(writing, self.folder, self.args.save_total_limit or 0, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()


@contextmanager
def _postponed(number: int) -> Iterator[list[int]]:
    """Yield a list that a signal is added to; it is handled at the end."""
    stopped, handler = list[int](), signal.getsignal(number)
    if handled := handler != signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(number, lambda *_: stopped.append(number))
    try:
        yield stopped
    finally:
        if handled:
            signal.signal(number, handler)
    if stopped:
        signal.raise_signal(number)
        raise SystemExit(128 + number)  # where the handler does not end the program, the training has not ended either


def _ignore_sigterm(_: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def history_of(log: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return the numbers of a Trainer's log that follow from the recipe alone."""
    return [
        # In an order of its own, as a checkpoint sorts what was logged.
        {"step": int(entry["step"]), **{name: entry[name] for name in sorted(entry) if not _NOT_SHOWN.search(name)}}
        for entry in log if "loss" in entry or "eval_loss" in entry
    ]  # fmt: skip


def trainer_arguments(
    given: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, Any]
) -> transformers.TrainingArguments:
    """Return the arguments `given` by a recipe over `defaults`, with what is `fixed`; InputError names a wrong one."""
    # The library creates its folder; the run's is created once everything is known to be right.
    fixed = {
        "output_dir": os.curdir, "data_seed": None, "disable_tqdm": True, "label_names": ["labels"],
        "logging_nan_inf_filter": False, "remove_unused_columns": False, "report_to": "none", **fixed,
    }  # fmt: skip
    kinds, closed = get_type_hints(transformers.TrainingArguments), {*_RESERVED, *fixed}
    for key, value in given.items():
        if key in closed:
            raise InputError(f"training.{key} cannot be set: other settings decide it, or it would change the result")
        check_keys([key], (name for name in kinds if name not in closed), "training.")
        try:
            TypeAdapter(kinds[key] | bool).validate_python(value)  # fsdp may be true
        except ValidationError as error:
            raise InputError(f"training.{key}: {error.errors()[0]['msg']} (given: {value!r})") from None
    if given.get("save_strategy") == "best":
        raise InputError("training.save_strategy cannot be best: the best checkpoint is always kept; choose steps")
    # Every weight of our model has a part in every loss, so that processes need not look for those that have not.
    defaults = {"use_cpu": not torch.accelerator.is_available(), "ddp_find_unused_parameters": False, **defaults}
    try:
        arguments = transformers.TrainingArguments(**{**defaults, **given, **fixed})
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
