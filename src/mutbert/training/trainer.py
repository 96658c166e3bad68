"""transformers' Trainer, taught compact batches, the held-out evaluation, and when to stop.

Shape suffixes: B windows, P positions with ``[CLS]`` and ``[SEP]``, T targets of a window, S sums.
"""

from __future__ import annotations

import math
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
import transformers

from mutbert import alphabet
from mutbert.errors import InputError, one_line
from mutbert.training.failures import TrainingStoppedError
from mutbert.training.held_out import GROUPS, held_out_sums, summarise_sums
from mutbert.training.throughput import BACKWARD_AND_FORWARD, matrix_operations, matrix_rate
from mutbert.windows.dataset import expand_batch, targets_of

if TYPE_CHECKING:
    from mutbert.training.held_out import HeldOut
    from mutbert.training.recipe import Dropout

# What the library and torch raise where a setting cannot be.
_OF_SETTINGS: Final = (
    ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError, OSError, AssertionError,
    NotImplementedError,
)  # fmt: skip

CROSS_ENTROPY: Final = "eval_cross_entropy"
"""What the held-out cross-entropy over all targets is called in a log; those of other groups have a suffix."""


class Work(NamedTuple):
    """What a process has trained: tokens, matrix operations, and seconds without evaluations and checkpoints."""

    tokens: float = 0.0
    operations: float = 0.0
    seconds: float = 0.0


class PretrainTrainer(transformers.Trainer):
    """The library's Trainer with compact batches and the held-out evaluation.

    Parameters
    ----------
    windows_a_process : int
        Windows of an optimisation step in this process. They stay as many where ``auto_find_batch_size`` makes
        batches smaller.
    dropout : Dropout
        When dropout is on.
    **settings
        As `transformers.Trainer` takes them, without `compute_metrics`.

    """

    def __init__(self, *, windows_a_process: int, dropout: Dropout, **settings: Any) -> None:
        super().__init__(compute_metrics=self._summarise, **settings)
        self.control: Any
        self.windows_a_process = windows_a_process
        self._dropout = dropout
        self._config = settings["model"].config
        self._held_out: HeldOut | None = None
        self._evaluated_step = -1
        self._first_step: int | None = None
        self._random_state: list[torch.Tensor] = []
        self._work = self._lap_work = Work()
        self._lap_start = time.perf_counter()
        self._idle = 0.0
        # The first step with a loss that is no number, kept on the device, where looking at it means waiting.
        self._bad_step = torch.zeros((), dtype=torch.int64, device=self.args.device)
        # The library's own progress would come twice.
        self.remove_callback(transformers.PrinterCallback)

    @classmethod
    def checked(cls, **settings: Any) -> PretrainTrainer:
        """Make a trainer, and what it would make later, so that a setting that cannot be shows before anything is done.

        Raises
        ------
        InputError
            With what the library says.
        """
        arguments = settings["args"]
        output = arguments.output_dir
        # The library makes this folder, which may only be made when all is known to be well.
        with tempfile.TemporaryDirectory() as arguments.output_dir:
            try:
                trainer = cls(**settings)
                trainer.create_optimizer_and_scheduler(arguments.max_steps)
                trainer.get_train_dataloader()
            except _OF_SETTINGS as error:
                raise InputError(f"training: {one_line(error)}") from None
        arguments.output_dir = output
        trainer.optimizer = trainer.lr_scheduler = None
        return trainer

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        """Take windows in order, which is random already: window i is drawn from (seed, i)."""
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)

    def _inner_training_loop(self, batch_size: int | None = None, **settings: Any) -> Any:
        """Begin, or begin again with smaller batches and more of them in a step, so that steps stay the same."""
        if self.args.auto_find_batch_size and batch_size is not None:
            if self._random_state:
                self._begin_again(batch_size)
            else:
                self._random_state = _random_states(self.args.device)
            batch_size = largest_divisor(self.windows_a_process, batch_size)
            self.args.gradient_accumulation_steps = self.windows_a_process // batch_size
        elif not self.args.auto_find_batch_size:
            # Earlier versions of the library take the size of a checkpoint, which another number of processes wrote.
            batch_size = self._train_batch_size = self.args.train_batch_size
        self._first_step = None
        return super()._inner_training_loop(batch_size=batch_size, **settings)

    def _begin_again(self, batch_size: int) -> None:
        if self.state.global_step != self._first_step:
            # Weights have changed since the beginning, which the library would take for initial ones.
            raise TrainingStoppedError(
                f"the memory did not suffice after step {self.state.global_step}; give "
                f"training.per_device_train_batch_size={batch_size} and --resume"
            )
        self.model.zero_grad()
        for state, restore in zip(self._random_state, (torch.set_rng_state, torch.cuda.set_rng_state), strict=False):
            restore(state)

    def training_step(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Note what a step takes, and a loss that is no number."""
        if self._first_step is None:
            self._first_step = self.state.global_step
            # What came before the first step is not the training's.
            self._lap_start, self._idle = time.perf_counter(), 0.0
        count, length = inputs["base_codes"].shape
        targets = inputs["target_places"].numel()
        operations = BACKWARD_AND_FORWARD * matrix_operations(self._config, count, length + 2, targets)
        self._lap_work = Work(self._lap_work.tokens + count * (length + 2), self._lap_work.operations + operations, 0.0)
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        bad = ~torch.isfinite(loss) & (self._bad_step == 0)
        self._bad_step = torch.where(bad, self.state.global_step + 1, self._bad_step)
        return loss

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Expand the batch on the device."""
        if not self._dropout.is_on(self.state.global_step):
            model.eval()
        return super().compute_loss(model, expand_batch(inputs), *args, **kwargs)

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sum up over a window's targets, so that no logits have to be kept.

        Returns
        -------
        tuple of torch.Tensor
            The loss; float32 (B, S) of `held_out_sums`; and the same again, in the place of labels.
        """
        inputs = self._prepare_inputs(inputs)
        dense = expand_batch(inputs)
        targets = targets_of(inputs, dense["labels"])
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(**dense)
        log_BTV = output.logits.float().log_softmax(-1)
        sums_BS = held_out_sums(log_BTV[..., alphabet.BASE_IDS], targets)
        return output.loss.detach().float(), sums_BS, sums_BS

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Save the checkpoint that is due before evaluating, and leave the random numbers as they were.

        An evaluation that fails, or that a run is killed in, then costs no training; and the weights do not depend on
        how often a run is evaluated.
        """
        if self.is_in_train and self.control.should_save:
            self._save_checkpoint(self.model, trial=None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
            self.control.should_save = False
        start = time.perf_counter()
        devices = [] if self.args.device.type == "cpu" else [self.args.device]
        with torch.random.fork_rng(devices, device_type=self.args.device.type if devices else "cuda"):
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        self.control.should_evaluate = False
        self._idle += time.perf_counter() - start
        return metrics

    def evaluate_in_training(self) -> None:
        """Evaluate as between two steps, with what follows of it for the learning rate."""
        self._evaluate(None, None)

    def final_evaluation(self) -> HeldOut:
        """Evaluate the model as it is, unless that was the last thing done."""
        if self._held_out is None or self._evaluated_step != self.state.global_step:
            self.evaluate()
        assert self._held_out is not None, "an evaluation leaves what it found"
        return self._held_out

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.check_health()
        start = time.perf_counter()
        super()._save_checkpoint(model, trial)
        self._idle += time.perf_counter() - start

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add to what is logged how fast the training is."""
        if "loss" in logs:
            self.check_health()
            logs |= self._lap()
        super().log(logs, *args, **kwargs)

    def check_health(self) -> None:
        """Stop where a loss was no number.

        Raises
        ------
        TrainingStoppedError
            With the step; in all processes alike.
        """
        steps = self.accelerator.gather(self._bad_step.reshape(1))
        bad = steps[steps > 0]
        if len(bad):
            # The weights that gave this loss are those of the step before.
            raise _diverged(f"the loss was not a finite number at step {int(bad.min())}", int(bad.min()) - 1)

    def _lap(self) -> dict[str, float]:
        """Give the speed since the last lap, without evaluations and checkpoints."""
        lap = self._lap_work._replace(seconds=time.perf_counter() - self._lap_start - self._idle)
        self._work = Work(*(sum(pair) for pair in zip(self._work, lap, strict=True)))
        self._lap_start, self._idle, self._lap_work = time.perf_counter(), 0.0, Work()
        return self._speed_of(lap)

    def speed(self) -> dict[str, float]:
        """Give the speed over all that this process has trained: tokens a second of all processes, share of ceiling."""
        return self._speed_of(self._work)

    def _speed_of(self, work: Work) -> dict[str, float]:
        if not work.seconds > 0:
            return {}
        return {
            "tokens_per_second": self.args.world_size * work.tokens / work.seconds,
            "share_of_ceiling": work.operations / work.seconds / self.ceiling(),
        }

    def ceiling(self) -> float:
        """Measure the rate of plain matrix products in the training's precision, operations a second, once."""
        dtype = torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else torch.float32
        return matrix_rate(self.args.device, dtype)

    def _summarise(self, prediction: transformers.EvalPrediction) -> dict[str, float]:
        self._held_out = summarise_sums(prediction.predictions)
        self._evaluated_step = self.state.global_step
        every, variant, other = (self._held_out.cross_entropy[group] for group in GROUPS[:3])
        if not math.isfinite(every):
            step = self.state.global_step
            raise _diverged(f"the held-out cross-entropy was not a finite number after step {step}", step)
        # Not a number, where there are no such targets, is no JSON.
        named = {"cross_entropy": every, "cross_entropy_variant": variant, "cross_entropy_other": other}
        return {name: value for name, value in named.items() if not math.isnan(value)}


def _diverged(what: str, spoilt_from: int) -> TrainingStoppedError:
    return TrainingStoppedError(
        f"{what}, so the run was stopped; try a lower training.learning_rate, more training.warmup_steps, "
        "training.max_grad_norm=1.0, or bf16 and not fp16",
        spoilt_from,
    )


def largest_divisor(number: int, most: int) -> int:
    """Find the largest divisor of a number that is not above another."""
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)


def _random_states(device: torch.device) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states
