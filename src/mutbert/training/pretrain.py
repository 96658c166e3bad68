"""Pre-train a masked language model: recipe -> transformers.Trainer -> checkpoint.

Shape suffixes: B windows, L positions, V tokens.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mutbert.errors import InputError, MissingExtraError
from mutbert.genome.store import ProbabilisticGenome
from mutbert.progress import progress_bar
from mutbert.publishing import (
    locked,
    publish_directory,
    publish_file,
    refuse_existing,
    remove_directory,
    rename_directory,
)
from mutbert.training.baselines import CrossEntropy, evaluate_baselines, fit_baselines
from mutbert.training.recipe import PretrainRecipe, check_keys, load_recipe
from mutbert.windows.sampler import WindowSampler
from mutbert.windows.splits import split_genome
from mutbert.windows.tempering import Tempering

try:
    import torch
    import transformers
    from accelerate import PartialState
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback
except ImportError as error:
    raise MissingExtraError(error.name or "a library", "train") from error

from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertTokenizer
from mutbert.windows.dataset import WindowDataset, whole_batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RECIPE: Final = "recipe.yaml"
MODEL: Final = "model"
CHECKPOINTS: Final = "checkpoints"
HISTORY: Final = "history.json"
HELD_OUT: Final = "held_out.json"
_WRITING: Final = ".writing"
# Not those that were being removed when a run was killed.
_CHECKPOINT: Final = "checkpoint-*[0-9]"

# What the run decides itself, and why a recipe cannot.
_RESERVED: Final = {
    "output_dir": "give output instead",
    "seed": "give seed at the top of the recipe",
    "data_seed": "give seed at the top of the recipe",
    "resume_from_checkpoint": "give --resume instead",
    "num_train_epochs": "windows are drawn for max_steps steps, there are no epochs",
    "remove_unused_columns": "batches are made of what the model takes",
    "label_names": "batches are made of what the model takes",
    "train_sampling_strategy": "window i is drawn from (seed, i), so the order is already random",
    "report_to": "TensorBoard files are always written",
    "disable_tqdm": "progress is shown as for every verb",
    "load_best_model_at_end": "the model of the last step is the result; checkpoints hold the others",
    "push_to_hub": "share the finished model folder instead",
}


@dataclass(frozen=True)
class PretrainResult:
    """What a pre-training run gave.

    Parameters
    ----------
    model : Path
        The trained model's folder, for ``from_pretrained``.
    steps : int
        Optimisation steps.
    held_out : dict of str to CrossEntropy
        Cross-entropy on the held-out targets of the model and of trivial predictors, in nats a target.
    targets : dict of str to int
        How many held-out targets there are: ``all_targets``, ``variant_targets``, ``other_targets``.
    history : list of dict
        What was logged: the step, training loss, learning rate, and held-out cross-entropies.
    """

    model: Path
    steps: int
    held_out: Mapping[str, CrossEntropy]
    targets: Mapping[str, int]
    history: Sequence[Mapping[str, float]]


def pretrain(
    recipe: PretrainRecipe | str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> PretrainResult:
    """Pre-train a masked language model.

    The run's folder holds the resolved recipe, TensorBoard files, the logged history, the last checkpoints, and at
    the end the model and its held-out table. Model and checkpoints are written aside and renamed.

    Parameters
    ----------
    recipe : PretrainRecipe, str or Path
        A recipe, the path of one in YAML, or the name of one that comes with this package.
    overrides : sequence of str
        ``key=value``, where `recipe` is a path.
    resume : bool
        Go on from the last checkpoint of the run's folder, where there is one.
    force : bool
        Replace the run's folder where it exists.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    PretrainResult
        The model's folder and its held-out table.

    Raises
    ------
    InputError
        When the recipe, the genome or the output cannot be used.
    """
    if not isinstance(recipe, PretrainRecipe):
        recipe = load_recipe(recipe, overrides)
    output = Path(recipe.output)
    train_data, held_out_data, train_regions = _datasets(recipe)
    arguments = _training_arguments(recipe, output)
    transformers.set_seed(recipe.seed)
    model = MutBertForMaskedLM(_model_config(recipe))
    # One epoch is the whole run, so that a window is never drawn twice.
    train_data.size = (
        arguments.max_steps
        * arguments.train_batch_size
        * (arguments.gradient_accumulation_steps * arguments.world_size)
    )

    checkpoint = _open_run(recipe, output, resume=resume, force=force)
    with locked(output):
        trainer = _Trainer(
            model=model,
            args=arguments,
            train_dataset=train_data,
            eval_dataset=held_out_data,
            data_collator=whole_batch,
            compute_metrics=_mean_cross_entropy,
            callbacks=[
                TensorBoardCallback(SummaryWriter(output / "tensorboard")),
                _PublishCheckpoints(output),
                _WriteHistory(output),
                _ShowProgress(show=progress),
            ],
        )
        # The library's own progress would come twice.
        trainer.remove_callback(transformers.PrinterCallback)
        with _one_progress_bar():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            _save_model(trainer, recipe, output)
            trained = _held_out_of(trainer)
        table = evaluate_baselines(
            fit_baselines(train_data.sampler.genome, train_regions, progress=progress), held_out_data
        )
        floor = table.pop("entropy floor")
        result = PretrainResult(
            model=output / MODEL,
            steps=trainer.state.global_step,
            held_out={**table, "model": trained, "entropy floor": floor},
            targets=_count_targets(held_out_data),
            history=_history(trainer.state),
        )
        if trainer.is_world_process_zero():
            _write_json(output / HELD_OUT, {
                "unit": "nats a target",
                "steps": result.steps,
                "targets": dict(result.targets),
                "cross_entropy": {name: value._asdict() for name, value in result.held_out.items()},
            })  # fmt: skip
            shutil.rmtree(output / _WRITING, ignore_errors=True)
    return result


def _datasets(recipe: PretrainRecipe) -> tuple[WindowDataset, WindowDataset, list[Any]]:
    genome = ProbabilisticGenome.open(recipe.genome, check=True)
    split = split_genome(genome, recipe.train, recipe.held_out)
    train = WindowSampler(genome, recipe.window_length, split.train, seed=recipe.seed)
    held_out = WindowSampler(genome, recipe.window_length, split.held_out, seed=recipe.evaluation.seed)
    return (
        WindowDataset(train, recipe.masking, recipe.tempering, size=0),
        WindowDataset(held_out, recipe.evaluation.masking, Tempering("none"), size=recipe.evaluation.windows),
        split.train,
    )


def _model_config(recipe: PretrainRecipe) -> MutBertConfig:
    known = [name for name in inspect.signature(MutBertConfig.__init__).parameters if name not in {"self", "kwargs"}]
    check_keys(recipe.model, known, "model.")
    settings = {"max_position_embeddings": recipe.window_length + 2, **recipe.model}
    if settings["max_position_embeddings"] < recipe.window_length + 2:
        raise InputError(
            f"model.max_position_embeddings is {settings['max_position_embeddings']}, but windows of "
            f"{recipe.window_length} bases with [CLS] and [SEP] need {recipe.window_length + 2}"
        )
    try:
        return MutBertConfig(**settings)
    except (ValueError, TypeError) as error:
        raise InputError(f"model: {' '.join(str(error).split())}") from None


def _training_arguments(recipe: PretrainRecipe, output: Path) -> transformers.TrainingArguments:
    for key in recipe.training:
        if key in _RESERVED:
            raise InputError(f"training.{key} cannot be set: {_RESERVED[key]}")
    known = [entry.name for entry in dataclasses.fields(transformers.TrainingArguments) if entry.name not in _RESERVED]
    check_keys(recipe.training, known, "training.")
    steps = recipe.training.get("max_steps", 0)
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"training.max_steps is {steps!r}; give the number of optimisation steps")
    defaults = {
        "logging_steps": 10,
        "save_total_limit": 2,
        "eval_strategy": "steps",
        # Half precision on the CPU is refused unless the CPU is asked for.
        "use_cpu": not torch.accelerator.is_available(),
    }
    try:
        return transformers.TrainingArguments(
            **{**defaults, **recipe.training},
            # A checkpoint is written here and renamed when it is complete.
            output_dir=str(output / _WRITING),
            seed=recipe.seed,
            remove_unused_columns=False,
            label_names=["labels"],
            report_to="none",
            disable_tqdm=True,
        )
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise InputError(f"training: {' '.join(str(error).split())}") from None


def _open_run(recipe: PretrainRecipe, output: Path, *, resume: bool, force: bool) -> Path | None:
    """Prepare the run's folder and give the checkpoint to go on from, if any."""
    state = PartialState()
    checkpoint = None
    if state.is_main_process:
        text = recipe.as_yaml()
        if resume and output.exists():
            _same_recipe(output / RECIPE, text)
        else:
            # Recipes keep their runs in a folder of that name, which nobody should have to make first.
            output.parent.mkdir(parents=True, exist_ok=True)
            refuse_existing(output, force=force)
            if output.exists():
                with locked(output):
                    remove_directory(output)
            output.mkdir()
        with publish_file(output / RECIPE, force=True) as file:
            file.write_text(text, encoding="utf-8")
        shutil.rmtree(output / _WRITING, ignore_errors=True)
    state.wait_for_everyone()
    if resume:
        checkpoint = max((output / CHECKPOINTS).glob(_CHECKPOINT), key=_step_of, default=None)
    return checkpoint


def _same_recipe(path: Path, text: str) -> None:
    if not path.is_file():
        raise InputError(f"{path}: there is no run to resume; leave --resume out, or give the folder of a run")
    old = path.read_text(encoding="utf-8")
    for before, now in zip(old.splitlines(), text.splitlines(), strict=False):
        if before != now:
            raise InputError(
                f"{path}: the run was started with '{before.strip()}', the recipe now says '{now.strip()}'"
            )
    if old != text:
        raise InputError(f"{path}: the run was started with another recipe; resume with the same one")


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _save_model(trainer: transformers.Trainer, recipe: PretrainRecipe, output: Path) -> None:
    """Publish the trained model before it is evaluated, so that a failure there does not lose it."""
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        with publish_directory(output / MODEL, force=True) as folder:
            trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
            MutBertTokenizer(model_max_length=recipe.window_length + 2).save_pretrained(folder)
            (folder / RECIPE).write_text(recipe.as_yaml(), encoding="utf-8")


class _Trainer(transformers.Trainer):
    """The library's Trainer with batches that know which positions vary."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # The loss is already a mean over targets, of which every window has the same number.
        self.model_accepts_loss_kwargs = False

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        """Take windows in order, which is random already: window i is drawn from (seed, i)."""
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Take away what only the evaluation needs."""
        return super().compute_loss(model, _without_variants(inputs), *args, **kwargs)

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sum cross-entropies over a window's targets, so that no logits have to be kept.

        Returns
        -------
        tuple of torch.Tensor
            The loss; float64 (B, 4): the sum over all targets, their number, and the same over those that vary;
            and the same again, in the place of labels.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(**_without_variants(inputs))
        loss_BL = -(inputs["labels"] * output.logits.float().log_softmax(-1)).sum(-1).double()
        every_BL = inputs["label_mask"]
        variant_BL = every_BL & inputs["variant_mask"]
        sums_B4 = torch.stack(
            [
                part
                for mask_BL in (every_BL, variant_BL)
                for part in ((loss_BL * mask_BL).sum(1), mask_BL.sum(1).double())
            ],
            dim=1,
        )
        return output.loss.detach().float(), sums_B4, sums_B4


def _without_variants(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in inputs.items() if name != "variant_mask"}


@contextmanager
def _one_progress_bar() -> Iterator[None]:
    """Keep the library's bars for writing each checkpoint out of ours."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


def _mean_cross_entropy(prediction: transformers.EvalPrediction) -> dict[str, float]:
    every, targets, variant, variants = prediction.predictions.sum(axis=0)
    others = targets - variants
    return {
        "cross_entropy": float(every / targets),
        "cross_entropy_variant": float(variant / variants) if variants else math.nan,
        "cross_entropy_other": float((every - variant) / others) if others else math.nan,
    }


def _held_out_of(trainer: _Trainer) -> CrossEntropy:
    """Evaluate the trained model, unless the last step was evaluated already."""
    metrics = next(
        (
            entry
            for entry in trainer.state.log_history
            if entry["step"] == trainer.state.global_step and "eval_cross_entropy" in entry
        ),
        None,
    )
    metrics = metrics or trainer.evaluate()
    return CrossEntropy(*(metrics[f"eval_cross_entropy{part}"] for part in ("", "_variant", "_other")))


def _count_targets(dataset: WindowDataset) -> dict[str, int]:
    every = variant = 0
    for first in range(0, len(dataset), 256):
        batch = dataset.batch(range(first, min(first + 256, len(dataset))))
        every += int(batch["label_mask"].sum())
        variant += int((batch["label_mask"] & batch["variant_mask"]).sum())
    return {"all_targets": every, "variant_targets": variant, "other_targets": every - variant}


class _PublishCheckpoints(transformers.TrainerCallback):
    """Rename a checkpoint to its place when all of it is written, and remove the oldest beyond the limit."""

    def __init__(self, output: Path) -> None:
        self.output = output

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
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


class _WriteHistory(transformers.TrainerCallback):
    """Keep what was logged where a report can find it while the run goes on."""

    def __init__(self, output: Path) -> None:
        self.output = output

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if state.is_world_process_zero:
            _write_json(self.output / HISTORY, _history(state))


class _ShowProgress(transformers.TrainerCallback):
    """Show steps, time left and the latest losses."""

    def __init__(self, *, show: bool) -> None:
        self.show = show
        self._bar = ExitStack()
        self._advance: Any = None
        self._step = 0
        self._latest: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._step = state.global_step
        show = self.show and state.is_world_process_zero
        self._advance = self._bar.enter_context(
            progress_bar("pre-training", state.max_steps - state.global_step, unit="steps", show=show)
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        self._latest.update(logs or {})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        shown = {"loss": "loss", "held out": "eval_cross_entropy"}
        note = ", ".join(f"{name} {self._latest[key]:.4f}" for name, key in shown.items() if key in self._latest)
        self._advance(state.global_step - self._step, note)
        self._step = state.global_step

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        self._bar.close()


def _history(state: Any) -> list[dict[str, float]]:
    """Keep the numbers of a Trainer's log that a report shows."""
    kept = ("loss", "grad_norm", "learning_rate")
    return [
        {"step": entry["step"]}
        | {name: value for name, value in entry.items() if name in kept or name.startswith("eval_cross_entropy")}
        for entry in state.log_history
        if "loss" in entry or "eval_cross_entropy" in entry
    ]


def _write_json(path: Path, value: Any) -> None:
    with publish_file(path, force=True) as file:
        file.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
