"""`transformers.TrainingArguments` of both trainings, from what a recipe may set and what the run sets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers

from mutbert.errors import InputError, one_line
from mutbert.run_folder import WRITING
from mutbert.settings import check_keys

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# What would change results without a word, or break a run.
_RESERVED: Final = {
    "accelerator_config": "each process draws its own part of a batch",
    "auto_find_batch_size": "it changes the windows of a step; lower the batch size, and the result stays the same",
    "group_by_length": "the order of samples follows from the seed",
    "ignore_data_skip": "a resumed run continues with the samples that come next",
    "label_smoothing_factor": "the loss is defined by the targets",
    "neftune_noise_alpha": "inputs are distributions, not embeddings of single tokens",
    "num_train_epochs": "set the number of steps",
    "push_to_hub": "share the finished model folder instead",
    "resume_from_checkpoint": "use --resume",
    "save_only_model": "a run cannot be resumed from such a checkpoint",
    "train_sampling_strategy": "the order of samples follows from the seed",
}
_LEAST: Final = {
    "per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0, "dataloader_prefetch_factor": 1,
}  # fmt: skip


def trainer_arguments(
    given: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, Any], run: Path
) -> transformers.TrainingArguments:
    """Return the arguments `given` by a recipe over `defaults`, with what is `fixed`; InputError names a wrong one."""
    fixed = {
        "output_dir": str(run / WRITING), "data_seed": None, "disable_tqdm": True, "label_names": ["labels"],
        "logging_nan_inf_filter": False, "remove_unused_columns": False, "report_to": "none", **fixed,
    }  # fmt: skip
    for key in given:
        if key in _RESERVED or key in fixed:
            raise InputError(
                f"training.{key} cannot be set: {_RESERVED.get(key, 'the run sets it by its own settings')}"
            )
    known = (field.name for field in dataclasses.fields(transformers.TrainingArguments))
    check_keys(given, (name for name in known if name not in _RESERVED and name not in fixed), "training.")
    for key, least in _LEAST.items():
        value = given.get(key, least)
        if not isinstance(value, int) or value < least:
            raise InputError(f"training.{key} is {value!r}; it must be an integer of at least {least}")
    if given.get("save_strategy") == "best":
        raise InputError("training.save_strategy cannot be best: the best checkpoint is always kept; choose steps")
    try:
        arguments = transformers.TrainingArguments(
            **{"use_cpu": not torch.accelerator.is_available(), **defaults, **given, **fixed}
        )
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
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
        processes = arguments.world_size
        raise InputError(
            f"{name} is {total}, which {processes} processes cannot divide; choose a multiple of {processes}"
        )
    batch = next(size for size in range(min(part, most or part), 0, -1) if part % size == 0)
    arguments.per_device_train_batch_size = batch
    arguments.gradient_accumulation_steps = part // batch
