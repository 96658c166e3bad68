"""What a run does besides optimising: publish checkpoints, keep its history, show progress."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from accelerate import PartialState

from mutbert.files import write_json
from mutbert.progress import progress_bar
from mutbert.run_folder import HISTORY, PROVENANCE, RECIPE
from mutbert.training.checkpoints import prune_checkpoints, publish_checkpoint
from mutbert.training.trainer import CROSS_ENTROPY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Log = list[dict[str, float]]
    Evaluated = Callable[[Log], Mapping[int, float]]


class PublishCheckpoints(transformers.TrainerCallback):
    """Give a checkpoint its name when all of it is written, and remove those that need not be kept.

    Parameters
    ----------
    output : Path
        The run's folder.
    recipe : str
        The resolved recipe, kept in each.
    provenance : mapping
        What the run is made with, likewise.
    evaluated : callable
        Gives of a Trainer's log what the evaluations found, by step; of the lowest, the checkpoint is kept.
    """

    def __init__(self, output: Path, recipe: str, provenance: Mapping[str, Any], evaluated: Evaluated) -> None:
        self.output = output
        self.recipe = recipe
        self.provenance = provenance
        self.evaluated = evaluated

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        # A checkpoint does not hold the losses since the last log, of which a resumed run would know nothing.
        control.should_log = control.should_log or control.should_save

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        processes = PartialState()
        processes.wait_for_everyone()
        if state.is_world_process_zero:
            writing = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            # The Trainer's own arguments are a pickle, which nothing reads; the recipe says the same in text.
            (writing / "training_args.bin").unlink(missing_ok=True)
            (writing / RECIPE).write_text(self.recipe, encoding="utf-8")
            write_json(writing / PROVENANCE, self.provenance, force=True)
            publish_checkpoint(writing, self.output)
            self._prune(args, state)
        processes.wait_for_everyone()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        if state.is_world_process_zero:
            self._prune(args, state)

    def _prune(self, args: Any, state: Any) -> None:
        if (args.save_total_limit or 0) > 0:
            prune_checkpoints(self.output, args.save_total_limit, self.evaluated(state.log_history))


class CatchUpEvaluation(transformers.TrainerCallback):
    """Evaluate a resumed run at once where its checkpoint was saved before an evaluation that was due.

    Parameters
    ----------
    evaluate : callable
        The trainer's.
    evaluated : callable
        Gives of a Trainer's log what the evaluations found, by step.
    """

    def __init__(self, evaluate: Callable[[], object], evaluated: Evaluated) -> None:
        self.evaluate = evaluate
        self.evaluated = evaluated

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        step = state.global_step
        due = step and args.eval_strategy == "steps" and step % state.eval_steps == 0 and step >= args.eval_delay
        if due and step not in self.evaluated(state.log_history):
            self.evaluate()


class WriteHistory(transformers.TrainerCallback):
    """Keep what was logged where a report can find it while the run goes on.

    Parameters
    ----------
    output : Path
        The run's folder.
    history : callable
        Gives of a Trainer's log what to keep.
    """

    def __init__(self, output: Path, history: Callable[[Log], Log]) -> None:
        self.output = output
        self.history = history

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        if state.is_world_process_zero:
            write_json(self.output / HISTORY, self.history(state.log_history), force=True)


class ShowProgress(transformers.TrainerCallback):
    """Show steps, time left, the latest losses and how fast it goes.

    Parameters
    ----------
    description : str
        What is being done.
    note : callable
        Writes the latest of what was logged.
    show : bool
        ``False`` prints nothing.
    """

    def __init__(self, description: str, note: Callable[[Mapping[str, float]], str], *, show: bool) -> None:
        self.description = description
        self.note = note
        self.show = show
        self._bar = ExitStack()
        self._advance: Any = None
        self._step = 0
        self._latest: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        # It may begin again, with smaller batches.
        self._bar.close()
        self._step = state.global_step
        show = self.show and state.is_world_process_zero
        self._advance = self._bar.enter_context(
            progress_bar(self.description, state.max_steps - state.global_step, unit="steps", show=show)
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002, D102
        self._latest.update(logs or {})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        self._advance(state.global_step - self._step, self.note(self._latest))
        self._step = state.global_step

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002, D102
        self.close()

    def close(self) -> None:
        """Leave the bar as it is, also after an error."""
        self._bar.close()


def progress_note(logged: Mapping[str, float]) -> str:
    """Write the latest of what was logged, as far as there is any."""
    written = {
        "loss": "loss {:.4f}",
        CROSS_ENTROPY: "held out {:.4f}",
        "tokens_per_second": "{:,.0f} tokens/s",
        "share_of_ceiling": "{:.0%} of ceiling",
    }
    return ", ".join(form.format(logged[name]) for name, form in written.items() if name in logged)


def history_of(log: Log) -> Log:
    """Keep the numbers of a Trainer's log that depend on nothing but the recipe, and each evaluation once."""
    kept = ("loss", "grad_norm", "learning_rate")
    history: list[dict[str, float]] = []
    evaluated = set()
    for entry in log:
        if CROSS_ENTROPY in entry:
            # A resumed run may have evaluated its last step again.
            if entry["step"] in evaluated:
                continue
            evaluated.add(entry["step"])
        if "loss" in entry or CROSS_ENTROPY in entry:
            # In an order of its own, as a checkpoint sorts what was logged.
            names = [name for name in sorted(entry) if name in kept or name.startswith(CROSS_ENTROPY)]
            history.append({"step": entry["step"], **{name: entry[name] for name in names}})
    return history


def cross_entropies_of(log: Log) -> dict[int, float]:
    """Give the held-out cross-entropy by step."""
    return {int(entry["step"]): entry[CROSS_ENTROPY] for entry in log if CROSS_ENTROPY in entry}
