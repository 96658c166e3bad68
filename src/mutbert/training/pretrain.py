"""Pre-train a masked language model: recipe -> transformers.Trainer -> checkpoint."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers
from accelerate import PartialState
from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import TensorBoardCallback

from mutbert.errors import InputError, one_line
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertTokenizer
from mutbert.model.checkpoints import library_bars_off
from mutbert.publishing import (
    locked,
    publish_directory,
    publish_file,
    publish_json,
    refuse_existing,
    remove_directory,
)
from mutbert.run_folder import GENOME, HELD_OUT, MODEL, RECIPE, WRITING
from mutbert.training.baselines import CrossEntropy, evaluate_baselines, fit_baselines
from mutbert.training.callbacks import PublishCheckpoints, ShowProgress, WriteHistory, history_of, last_checkpoint
from mutbert.training.recipe import PretrainRecipe, check_keys, load_recipe
from mutbert.training.trainer import PretrainTrainer
from mutbert.windows.dataset import WindowDataset, whole_batch
from mutbert.windows.sampler import WindowSampler
from mutbert.windows.splits import split_genome
from mutbert.windows.tempering import Tempering

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
    windows_a_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    train_data.size = arguments.max_steps * windows_a_step

    with _run_folder(recipe, output, resume=resume, force=force) as checkpoint:
        trainer = PretrainTrainer(
            targets_a_window=recipe.masking.targets(recipe.window_length),
            model=model,
            args=arguments,
            train_dataset=train_data,
            eval_dataset=held_out_data,
            data_collator=whole_batch,
            callbacks=[
                TensorBoardCallback(SummaryWriter(output / "tensorboard")),
                PublishCheckpoints(output),
                WriteHistory(output),
                ShowProgress(show=progress),
            ],
        )
        with library_bars_off():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            _save_model(trainer, recipe, train_data.sampler.genome, output)
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
            history=history_of(trainer.state),
        )
        if trainer.is_world_process_zero():
            written = {
                "unit": "nats a target",
                "steps": result.steps,
                "targets": dict(result.targets),
                "cross_entropy": {name: value._asdict() for name, value in result.held_out.items()},
            }
            publish_json(output / HELD_OUT, written, force=True)
            shutil.rmtree(output / WRITING, ignore_errors=True)
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
        raise InputError(f"model: {one_line(error)}") from None


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
        # Every weight has a part in every loss, so that processes need not look for those that have not.
        "ddp_find_unused_parameters": False,
        # Half precision on the CPU is refused unless the CPU is asked for.
        "use_cpu": not torch.accelerator.is_available(),
    }
    try:
        return transformers.TrainingArguments(
            **{**defaults, **recipe.training},
            # A checkpoint is written here and renamed when it is complete.
            output_dir=str(output / WRITING),
            seed=recipe.seed,
            remove_unused_columns=False,
            label_names=["labels"],
            report_to="none",
            disable_tqdm=True,
        )
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise InputError(f"training: {one_line(error)}") from None


@contextmanager
def _run_folder(recipe: PretrainRecipe, output: Path, *, resume: bool, force: bool) -> Iterator[Path | None]:
    """Prepare the run's folder, hold it while the run lasts, and give the checkpoint to go on from, if any."""
    state = PartialState()
    with ExitStack() as held:
        if state.is_main_process:
            text = recipe.as_yaml()
            if resume and output.exists():
                _same_recipe(output / RECIPE, text)
            else:
                # Recipes keep their runs in a folder of that name, which nobody should have to make first.
                output.parent.mkdir(parents=True, exist_ok=True)
                refuse_existing(output, force=force, mark=RECIPE)
                if output.exists():
                    with locked(output):
                        remove_directory(output)
                output.mkdir()
            held.enter_context(locked(output))
            shutil.rmtree(output / WRITING, ignore_errors=True)
            with publish_file(output / RECIPE, force=True) as file:
                file.write_text(text, encoding="utf-8")
        state.wait_for_everyone()
        yield last_checkpoint(output) if resume else None


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


def _save_model(
    trainer: transformers.Trainer, recipe: PretrainRecipe, genome: ProbabilisticGenome, output: Path
) -> None:
    """Publish the trained model before it is evaluated, so that a failure there does not lose it."""
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        with publish_directory(output / MODEL, force=True) as folder:
            trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder)
            MutBertTokenizer(model_max_length=recipe.window_length + 2).save_pretrained(folder)
            (folder / RECIPE).write_text(recipe.as_yaml(), encoding="utf-8")
            (folder / GENOME).write_text(json.dumps(genome.manifest, indent=1) + "\n", encoding="utf-8")


def _held_out_of(trainer: PretrainTrainer) -> CrossEntropy:
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
        every += int(batch["target_mask"].sum())
        variant += int((batch["target_mask"] & batch["variant_mask"]).sum())
    return {"all_targets": every, "variant_targets": variant, "other_targets": every - variant}
