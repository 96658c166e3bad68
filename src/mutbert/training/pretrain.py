"""Pre-train a masked language model: recipe -> transformers.Trainer -> checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from accelerate import PartialState
from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import TensorBoardCallback

from mutbert.alphabet import VOCABULARY_SIZE
from mutbert.errors import InputError, one_line
from mutbert.files import atomic_file, write_json
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertTokenizer
from mutbert.model.checkpoints import library_bars_off, read_checkpoint
from mutbert.model.configuration_mutbert import DEFAULTS
from mutbert.run_folder import EVALUATED, GENOMES
from mutbert.settings import check_keys
from mutbert.training import trainer as trainers
from mutbert.training.folder import Run, RunResult, open_run, plain, provenance_of
from mutbert.training.held_out import FLOOR, evaluate_baselines, fit_baselines, held_out_windows
from mutbert.training.recipe import PretrainRecipe, load_recipe
from mutbert.windows.dataset import WindowDataset
from mutbert.windows.masking import Tempering
from mutbert.windows.sampler import WindowSampler, genome_name, split_genomes

if TYPE_CHECKING:
    from collections.abc import Sequence


def pretrain(
    recipe: PretrainRecipe | str | Path, overrides: Sequence[str] = (), *, resume: bool = False, force: bool = False,
    progress: bool = False,
) -> RunResult:  # fmt: skip
    """Pre-train a masked language model.

    Started by ``torchrun`` or ``accelerate launch``, every process calls this and trains its part.

    Parameters
    ----------
    recipe : PretrainRecipe, str or Path
        A recipe, the path of one in YAML, or the name of one that comes with this package.
    overrides : sequence of str
        ``key=value``, where `recipe` is a path or a name.
    resume, force : bool
        Resume from the last complete checkpoint of the run's folder; replace the folder.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    RunResult
        The model's folder and its metrics.
    """
    if not isinstance(recipe, PretrainRecipe):
        recipe = load_recipe(recipe, overrides)
    state, folder = PartialState(), Path(recipe.output)
    # Checksums are verified by one process of each machine.
    genomes = [ProbabilisticGenome.open(path, check=state.is_local_main_process) for path in recipe.genome]
    trainer, recipe = _trainer(recipe, genomes, folder)
    run = Run(folder, recipe, provenance_of(genomes))
    with open_run(
        run, inputs=[*recipe.genome, recipe.initial_model], resume=resume, force=force,
        if_short_of_memory="lower training.per_device_train_batch_size (the result stays the same)",
    ) as (checkpoint, notes):  # fmt: skip
        if state.is_main_process:
            with atomic_file(folder / EVALUATED, force=True) as file:
                file.write_text(held_out_windows(trainer.eval_dataset), encoding="utf-8")
            trainer.add_callback(TensorBoardCallback(SummaryWriter(folder / "tensorboard")))
        # An evaluation before the first step belongs to the run that has taken it.
        trainer.args.eval_on_start = trainer.args.eval_on_start and checkpoint is None
        shown = {"loss": "loss {:.4f}", "eval_loss": "held out {:.4f}"}
        speed = trainer.run(run.write_records, checkpoint, "pre-training", shown, show=progress)
        _publish(trainer, run, genomes)
        trained, metrics = trainer.held_out(), {}
        if state.is_main_process:
            baselines = fit_baselines(trainer.train_dataset.sampler.parts, progress=progress)
            found = evaluate_baselines(*baselines, trainer.eval_dataset)
            found |= {"model": trained, FLOOR: found.pop(FLOOR)}
            metrics = {
                "unit": "nats per target", "targets": trained.targets, "calibration": trained.calibration,
                "cross_entropy": {name: plain(one.cross_entropy) for name, one in found.items()},
                "steps": trainer.state.global_step, "facts": _facts(trainer, recipe, speed), "notes": notes,
            }  # fmt: skip
        return run.finish("pretrain", metrics, trainers.history_of(trainer.state.log_history))


def is_main_process() -> bool:
    """Return whether this process is the only one, or the one of several that reports for all."""
    return bool(PartialState().is_main_process)


def leave_other_processes() -> None:
    """End what this process shares with others, as a program of several has to before it ends itself."""
    PartialState().destroy_process_group()


def _trainer(
    recipe: PretrainRecipe, genomes: Sequence[ProbabilisticGenome], folder: Path
) -> tuple[trainers.PretrainTrainer, PretrainRecipe]:
    """Return the trainer, and the recipe as it is for any number of processes."""
    trained, evaluated = split_genomes(genomes, recipe.train, recipe.held_out)
    arguments, windows = _arguments(recipe)
    train = WindowSampler(trained, recipe.window_length, seed=recipe.seed, reverse=recipe.reverse_complement)
    train_data = WindowDataset(
        # One epoch is the whole run, so that a window is never drawn twice.
        train, recipe.masking, recipe.tempering, size=arguments.max_steps * windows, frequencies=recipe.frequencies,
        weighting=recipe.weighting,
    )  # fmt: skip
    held_out = WindowSampler(evaluated, recipe.window_length, seed=recipe.evaluation.seed)
    held_out_data = WindowDataset(
        held_out, recipe.evaluation.masking, Tempering("none"), size=recipe.evaluation.windows
    )
    training = {name: value for name, value in recipe.training.items() if name != "gradient_accumulation_steps"}
    recipe = recipe.replace(windows_a_step=windows, training=training)
    transformers.set_seed(recipe.seed)
    model = _initial_model(recipe)
    trainer = trainers.build_trainer(
        trainers.PretrainTrainer, arguments, folder, dropout=recipe.dropout, model=model, train_dataset=train_data,
        eval_dataset=held_out_data, data_collator=dict, if_diverged="try a lower training.learning_rate, more "
        "training.warmup_steps, training.max_grad_norm=1.0, or bf16 and not fp16",
    )  # fmt: skip
    return trainer, recipe


def _arguments(recipe: PretrainRecipe) -> tuple[transformers.TrainingArguments, int]:
    """Return the library's arguments, and the windows of a step over all processes."""
    steps = recipe.training.get("max_steps", 0)
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"training.max_steps is {steps!r}; set the number of optimisation steps")
    if recipe.windows_a_step is not None and "gradient_accumulation_steps" in recipe.training:
        raise InputError("training.gradient_accumulation_steps follows from windows_a_step; set one of the two")
    defaults: dict[str, Any] = {"logging_steps": 10, "save_total_limit": 2, "eval_strategy": "steps"}
    # Every weight has a part in every loss, so that processes need not look for those that have not.
    defaults["ddp_find_unused_parameters"] = False
    given = dict(recipe.training)
    if given.get("fsdp"):
        # A checkpoint of whole tensors is read without pickle, and by another number of processes too.
        sharding = {"fsdp_version": 2, "state_dict_type": "FULL_STATE_DICT"}
        given["fsdp_config"] = sharding | (given.get("fsdp_config") or {})
    fixed = {
        "seed": recipe.seed, "load_best_model_at_end": False, "metric_for_best_model": "loss",
        "greater_is_better": False,
    }  # fmt: skip
    arguments = trainers.trainer_arguments(given, defaults, fixed)
    batch, parts = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    windows = recipe.windows_a_step or batch * parts * arguments.world_size
    trainers.share_batch(arguments, windows, batch, "windows_a_step")
    return arguments, windows


def _initial_model(recipe: PretrainRecipe) -> MutBertForMaskedLM:
    check_keys(recipe.model, [*DEFAULTS, "rope_scaling", "rope_parameters"], "model.")
    needed = recipe.window_length + 2
    try:
        if recipe.initial_model is None:
            model = MutBertForMaskedLM(MutBertConfig(**{"max_position_embeddings": needed, **recipe.model}))
        else:
            model = read_checkpoint(recipe.initial_model, MutBertForMaskedLM, **recipe.model)
    except InputError as error:
        raise InputError(f"initial_model {error}") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"model: {one_line(error)}") from None
    if model.config.vocab_size != VOCABULARY_SIZE:
        raise InputError(f"model.vocab_size is {model.config.vocab_size}; windows have {VOCABULARY_SIZE} tokens")
    most = model.config.max_position_embeddings
    if most < needed:
        raise InputError(
            f"model.max_position_embeddings is {most}, but windows of {recipe.window_length} bases with [CLS] and "
            f"[SEP] need {needed}"
        )
    return model


def _publish(trainer: trainers.PretrainTrainer, run: Run, genomes: Sequence[ProbabilisticGenome]) -> None:
    """Publish the trained model before it is evaluated, so that a failure there does not lose it."""
    # Processes that each hold a part of the weights collect them together.
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        with run.publish_model() as folder, library_bars_off():
            model.save_pretrained(folder, state_dict=weights)
            MutBertTokenizer(model_max_length=model.config.max_position_embeddings).save_pretrained(folder)
            write_json(folder / GENOMES, {"genomes": {genome_name(genome): genome.manifest for genome in genomes}})


def _facts(trainer: trainers.PretrainTrainer, recipe: PretrainRecipe, speed: dict[str, float]) -> dict[str, str]:
    """Return what a report says of a run, in words."""
    arguments, state, length = trainer.args, trainer.state, recipe.window_length
    windows = recipe.windows_a_step or 0
    parameters = sum(parameter.numel() for parameter in trainer.accelerator.unwrap_model(trainer.model).parameters())
    precision = "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "float32"
    tokens = speed["train_samples_per_second"] * (length + 2)
    return {
        "parameters": f"{parameters:,}",
        "windows per step": f"{windows:,} of {length:,} bases",
        "tokens trained on": f"{state.global_step * windows * (length + 2):,}",
        "speed": f"{tokens:,.0f} tokens per second, evaluations included" if tokens else "no step in this part",
        "computed on": f"{arguments.world_size} x {arguments.device.type}, {precision}",
        "best checkpoint kept": Path(state.best_model_checkpoint).name if state.best_model_checkpoint else "none",
        "seed": str(recipe.seed),
        "genomes": ", ".join(Path(path).name for path in recipe.genome),
    }
