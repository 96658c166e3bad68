"""A recipe's settings for transformers, with what a run decides itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import torch
import transformers

from mutbert.errors import InputError, one_line
from mutbert.run_folder import WRITING
from mutbert.settings import check_keys
from mutbert.training.trainer import largest_divisor

if TYPE_CHECKING:
    from pathlib import Path

    from mutbert.training.recipe import PretrainRecipe

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
    "load_best_model_at_end": "the model of the last step is the result; the best checkpoint is kept beside it",
    "label_smoothing_factor": "targets are distributions already",
    "neftune_noise_alpha": "inputs are distributions, not embeddings of one token each",
    "batch_eval_metrics": "the evaluation adds up window by window anyway",
    "eval_do_concat_batches": "the evaluation adds up window by window anyway",
    "include_for_metrics": "the evaluation adds up window by window anyway",
    "use_liger_kernel": "there is none for this model",
    "parallelism_config": "a model of this size is shared out by windows, or by fsdp",
    "ignore_data_skip": "a resumed run goes on with the windows that come next",
    "accelerator_config": "each process draws its own part of a batch, which accelerate could not cut",
    "save_only_model": "a run could not go on from such a checkpoint as if nothing had been",
    "push_to_hub": "share the finished model folder instead",
}

_METRICS: Final = ("loss", "cross_entropy", "cross_entropy_variant", "cross_entropy_other")


def training_arguments(recipe: PretrainRecipe, output: Path) -> transformers.TrainingArguments:
    """Check a recipe's settings for the library, and complete them.

    Parameters
    ----------
    recipe : PretrainRecipe
        The recipe.
    output : Path
        The run's folder.

    Returns
    -------
    transformers.TrainingArguments
        Batch size and accumulation are such that all processes together take the recipe's ``windows_a_step``.

    Raises
    ------
    InputError
        When a setting is unknown, cannot be, or is not the recipe's to decide.
    """
    for key in recipe.training:
        if key in _RESERVED:
            raise InputError(f"training.{key} cannot be set: {_RESERVED[key]}")
    known = [entry.name for entry in dataclasses.fields(transformers.TrainingArguments) if entry.name not in _RESERVED]
    check_keys(recipe.training, known, "training.")
    steps = recipe.training.get("max_steps", 0)
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"training.max_steps is {steps!r}; give the number of optimisation steps")
    if recipe.training.get("save_strategy") == "best":
        raise InputError(
            "training.save_strategy cannot be best: the best of all checkpoints is kept anyway; give steps"
        )
    if recipe.windows_a_step is not None and "gradient_accumulation_steps" in recipe.training:
        raise InputError("training.gradient_accumulation_steps follows from windows_a_step; give one of the two")
    _check_numbers(recipe)
    defaults = {
        "logging_steps": 10,
        "save_total_limit": 2,
        "eval_strategy": "steps",
        # Of cross-entropies, whatever they are called.
        "greater_is_better": False,
        # Every weight has a part in every loss, so that processes need not look for those that have not.
        "ddp_find_unused_parameters": False,
        # A loss that is no number stops the run; the library would leave it out of the mean.
        "logging_nan_inf_filter": False,
        # Half precision on the CPU is refused unless the CPU is asked for.
        "use_cpu": not torch.accelerator.is_available(),
    }
    settings = {**defaults, **recipe.training}
    sharding = settings.get("fsdp_config") or {}
    if settings.get("fsdp") and isinstance(sharding, Mapping):
        # A checkpoint of whole tensors is read without pickle, and by another number of processes too.
        settings["fsdp_config"] = {"fsdp_version": 2, "state_dict_type": "FULL_STATE_DICT", **sharding}
    try:
        arguments = transformers.TrainingArguments(
            **settings,
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
    if arguments.fp16 and arguments.device.type == "cpu":
        raise InputError("training.fp16 needs a GPU; give training.bf16=true, or neither")
    # Several accelerators are used by as many processes; one process of the library would copy the model each step.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    if recipe.windows_a_step is not None:
        part, rest = divmod(recipe.windows_a_step, arguments.world_size)
        if rest or not part:
            raise InputError(
                f"windows_a_step is {recipe.windows_a_step}, which {arguments.world_size} processes cannot divide; "
                "choose a multiple of the number of processes"
            )
        batch = largest_divisor(part, arguments.per_device_train_batch_size)
        arguments.per_device_train_batch_size = batch
        arguments.gradient_accumulation_steps = part // batch
    return arguments


def _check_numbers(recipe: PretrainRecipe) -> None:
    """Refuse numbers that the library would take, and stumble over later."""
    least = {
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "dataloader_num_workers": 0,
        "dataloader_prefetch_factor": 1,
    }
    for name, lowest in least.items():
        value = recipe.training.get(name)
        if value is not None and (not isinstance(value, int) or value < lowest):
            raise InputError(f"training.{name} is {value!r}; give a whole number from {lowest} on")
    metric = recipe.training.get("metric_for_best_model")
    if metric is not None and str(metric).removeprefix("eval_") not in _METRICS:
        raise InputError(f"training.metric_for_best_model is {metric!r}; choose one of {', '.join(_METRICS)}")
