"""What a run does besides optimising: publish checkpoints, keep its history, show progress."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import transformers
from accelerate import PartialState

from mutbert.progress import progress_bar
from mutbert.publishing import publish_json, remove_directory, rename_directory

CHECKPOINTS: Final = "checkpoints"
HISTORY: Final = "history.json"
# Not those that were being removed when a run was killed.
_CHECKPOINT: Final = "checkpoint-*[0-9]"


def last_checkpoint(output: Path) -> Path | None:
    """Find the checkpoint of a run's folder to go on from; all that bear the name are complete."""
    return max((output / CHECKPOINTS).glob(_CHECKPOINT), key=_step_of, default=None)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


class PublishCheckpoints(transformers.TrainerCallback):
    """Rename a checkpoint to its place when all of it is written, and remove the oldest beyond the limit.

    Parameters
    ----------
    output : Path
        The run's folder.
    """

    def __init__(self, output: Path) -> None:
        self.output = output

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        PartialState().wait_for_everyone()
        if not state.is_world_process_zero:
            return
        checkpoints = self.output / CHECKPOINTS
        checkpoints.mkdir(exist_ok=True)
        name = f"checkpoint-{state.global_step}"
        # The Trainer's own arguments are a pickle, which nothing reads; the recipe says the same in text.
        (Path(args.output_dir) / name / "training_args.bin").unlink(missing_ok=True)
        rename_directory(Path(args.output_dir) / name, checkpoints / name)
        if args.save_total_limit:
            for old in sorted(checkpoints.glob(_CHECKPOINT), key=_step_of)[: -args.save_total_limit]:
                remove_directory(old)


class WriteHistory(transformers.TrainerCallback):
    """Keep what was logged where a report can find it while the run goes on.

    Parameters
    ----------
    output : Path
        The run's folder.
    """

    def __init__(self, output: Path) -> None:
        self.output = output

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        if state.is_world_process_zero:
            publish_json(self.output / HISTORY, history_of(state), force=True)


class ShowProgress(transformers.TrainerCallback):
    """Show steps, time left and the latest losses.

    Parameters
    ----------
    show : bool
        ``False`` prints nothing.
    """

    def __init__(self, *, show: bool) -> None:
        self.show = show
        self._bar = ExitStack()
        self._advance: Any = None
        self._step = 0
        self._latest: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        self._step = state.global_step
        show = self.show and state.is_world_process_zero
        self._advance = self._bar.enter_context(
            progress_bar("pre-training", state.max_steps - state.global_step, unit="steps", show=show)
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002, D102
        self._latest.update(logs or {})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        shown = {"loss": "loss", "held out": "eval_cross_entropy"}
        note = ", ".join(f"{name} {self._latest[key]:.4f}" for name, key in shown.items() if key in self._latest)
        self._advance(state.global_step - self._step, note)
        self._step = state.global_step

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        self._bar.close()


def history_of(state: Any) -> list[dict[str, float]]:
    """Keep the numbers of a Trainer's log that a report shows."""
    kept = ("loss", "grad_norm", "learning_rate")
    return [
        {"step": entry["step"]}
        | {name: value for name, value in entry.items() if name in kept or name.startswith("eval_cross_entropy")}
        for entry in state.log_history
        if "loss" in entry or "eval_cross_entropy" in entry
    ]
