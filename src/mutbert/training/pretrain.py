"""Pre-train a masked language model: recipe -> transformers.Trainer -> checkpoint."""

from __future__ import annotations

import dataclasses
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from accelerate import PartialState
from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import TensorBoardCallback

from mutbert.alphabet import VOCABULARY_SIZE
from mutbert.errors import InputError, MissingExtraError, one_line
from mutbert.files import atomic_directory, write_json
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertTokenizer
from mutbert.model.checkpoints import library_bars_off, read_checkpoint
from mutbert.model.configuration_mutbert import DEFAULTS
from mutbert.run_folder import EVALUATED, GENOMES, HELD_OUT, MODEL, PROVENANCE, RECIPE, REPORT, WRITING
from mutbert.settings import check_keys
from mutbert.training.arguments import training_arguments
from mutbert.training.baselines import FLOOR, evaluate_baselines, fit_baselines
from mutbert.training.callbacks import (
    CatchUpEvaluation,
    PublishCheckpoints,
    ShowProgress,
    WriteHistory,
    cross_entropies_of,
    history_of,
    progress_note,
)
from mutbert.training.checkpoints import best_checkpoint
from mutbert.training.failures import explain_failures
from mutbert.training.folder import RunRecords, held_folder
from mutbert.training.held_out import held_out_windows
from mutbert.training.provenance import provenance_of
from mutbert.training.recipe import PretrainRecipe, load_recipe, resolved
from mutbert.training.trainer import PretrainTrainer
from mutbert.windows.dataset import WindowDataset, whole_batch
from mutbert.windows.masking import Tempering
from mutbert.windows.sampler import WindowSampler, genome_name, split_genomes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mutbert.training.held_out import CalibrationBin
    from mutbert.windows.sampler import Split


@dataclass(frozen=True)
class PretrainResult:
    """What a pre-training run gave.

    Parameters
    ----------
    model : Path
        The trained model's folder, for ``from_pretrained``.
    steps : int
        Optimisation steps.
    held_out : dict of str to dict of str to float
        Cross-entropy on the held-out targets by predictor (the model, and trivial ones) and kind of target
        (`mutbert.training.held_out.GROUPS`), in nats a target; not a number where there are no such targets. Of
        several processes, only the main one computes the trivial predictors.
    targets : dict of str to int
        How many held-out targets there are of each kind.
    calibration : dict of str to list of CalibrationBin
        What the model predicted against what was observed.
    history : list of dict
        What was logged: the step, training loss, gradient norm, learning rate, and held-out cross-entropies.
    report : Path or None
        The page to look at; None where matplotlib is not installed, and in other processes than the main one.
    notes : list of str
        What else is to be known about the run, each in one line.
    """

    model: Path
    steps: int
    held_out: Mapping[str, Mapping[str, float]]
    targets: Mapping[str, int]
    calibration: Mapping[str, Sequence[CalibrationBin]]
    history: Sequence[Mapping[str, float]]
    report: Path | None
    notes: Sequence[str]


def pretrain(
    recipe: PretrainRecipe | str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> PretrainResult:
    """Pre-train a masked language model.

    The run's folder holds the resolved recipe, TensorBoard files, the logged history, the last checkpoints and the
    best, and at the end the model, its held-out table and a report. Model and checkpoints are written aside and
    renamed. Started by ``torchrun`` or ``accelerate launch``, every process calls this and trains its part.

    Parameters
    ----------
    recipe : PretrainRecipe, str or Path
        A recipe, the path of one in YAML, or the name of one that comes with this package.
    overrides : sequence of str
        ``key=value``, where `recipe` is a path.
    resume : bool
        Go on from the last whole checkpoint of the run's folder, where there is one.
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
        When the recipe, the genome or the output cannot be used; when the loss is no finite number, the memory does
        not suffice, or the disk is full.
    """
    if not isinstance(recipe, PretrainRecipe):
        recipe = load_recipe(recipe, overrides)
    output = Path(recipe.output)
    genomes = _genomes(recipe)
    split = split_genomes(genomes, recipe.train, recipe.held_out)
    train_data, held_out_data = _datasets(recipe, split)
    arguments = training_arguments(recipe, output)
    main = is_main_process()
    transformers.set_seed(recipe.seed)
    model = _initial_model(recipe)
    windows_a_process = arguments.train_batch_size * arguments.gradient_accumulation_steps
    recipe = resolved(recipe, windows_a_process * arguments.world_size)
    # One epoch is the whole run, so that a window is never drawn twice.
    train_data.size = arguments.max_steps * windows_a_process * arguments.world_size
    provenance = provenance_of(genomes)
    trainer = PretrainTrainer.checked(
        windows_a_process=windows_a_process,
        dropout=recipe.dropout,
        model=model,
        args=arguments,
        train_dataset=train_data,
        eval_dataset=held_out_data,
        data_collator=whole_batch,
    )

    records = RunRecords(recipe.as_yaml(), provenance, "genomes", {EVALUATED: held_out_windows(held_out_data)})
    inputs = [*recipe.genome, *([recipe.initial_model] if recipe.initial_model else [])]
    with held_folder(records, output, inputs=inputs, resume=resume, force=force) as (checkpoint, notes):
        shown = ShowProgress("pre-training", progress_note, show=progress)
        if main:
            trainer.add_callback(TensorBoardCallback(SummaryWriter(output / "tensorboard")))
        trainer.add_callback(PublishCheckpoints(output, recipe.as_yaml(), provenance, cross_entropies_of))
        trainer.add_callback(WriteHistory(output, history_of))
        trainer.add_callback(shown)
        trainer.add_callback(CatchUpEvaluation(trainer.evaluate_in_training, cross_entropies_of))
        # An evaluation before the first step belongs to the run that has taken it.
        arguments.eval_on_start = arguments.eval_on_start and checkpoint is None
        with library_bars_off(), explain_failures(output):
            try:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            finally:
                shown.close()
            trainer.check_health()
            _save_model(trainer, recipe, genomes, provenance, output)
            trained = trainer.final_evaluation()
        table = {"model": trained}
        if main:
            baselines = evaluate_baselines(fit_baselines(split.train, progress=progress), held_out_data)
            floor = baselines.pop(FLOOR)
            table = {**baselines, **table, FLOOR: floor}
        result = PretrainResult(
            model=output / MODEL,
            steps=trainer.state.global_step,
            held_out={name: found.cross_entropy for name, found in table.items()},
            targets=trained.targets,
            calibration=trained.calibration,
            history=history_of(trainer.state.log_history),
            report=None,
            notes=notes,
        )
        if main:
            _write_held_out(result, output)
            result = _with_report(result, recipe, provenance, trainer, output)
            shutil.rmtree(output / WRITING, ignore_errors=True)
        # One that ended now would take the main one with it, which may still be writing.
        PartialState().wait_for_everyone()
    return result


def is_main_process() -> bool:
    """Say whether this process is the only one, or the one of several that speaks for all."""
    return bool(PartialState().is_main_process)


def leave_other_processes() -> None:
    """End what this process shares with others, as a program of several has to before it ends itself."""
    PartialState().destroy_process_group()


def _genomes(recipe: PretrainRecipe) -> list[ProbabilisticGenome]:
    """Open the genomes by memory map; the checksums are looked at by one process of each machine."""
    check = PartialState().is_local_main_process
    return [ProbabilisticGenome.open(path, check=check) for path in recipe.genome]


def _datasets(recipe: PretrainRecipe, split: Split) -> tuple[WindowDataset, WindowDataset]:
    train = WindowSampler(split.train, recipe.window_length, seed=recipe.seed, reverse=recipe.reverse_complement)
    held_out = WindowSampler(split.held_out, recipe.window_length, seed=recipe.evaluation.seed)
    return (
        WindowDataset(
            train,
            recipe.masking,
            recipe.tempering,
            size=0,
            frequencies=recipe.frequencies,
            weighting=recipe.weighting,
        ),
        WindowDataset(held_out, recipe.evaluation.masking, Tempering("none"), size=recipe.evaluation.windows),
    )


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
        raise InputError(
            f"model.vocab_size is {model.config.vocab_size}; windows are made of {VOCABULARY_SIZE} different tokens"
        )
    most = model.config.max_position_embeddings
    if most < needed:
        raise InputError(
            f"model.max_position_embeddings is {most}, but windows of {recipe.window_length} bases with [CLS] and "
            f"[SEP] need {needed}"
        )
    return model


def _save_model(
    trainer: PretrainTrainer,
    recipe: PretrainRecipe,
    genomes: Sequence[ProbabilisticGenome],
    provenance: Mapping[str, Any],
    output: Path,
) -> None:
    """Publish the trained model before it is evaluated, so that a failure there does not lose it."""
    # Processes that each hold a part of the weights have to give them together.
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        with atomic_directory(output / MODEL, force=True) as folder:
            trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder, state_dict=weights)
            MutBertTokenizer(model_max_length=recipe.window_length + 2).save_pretrained(folder)
            (folder / RECIPE).write_text(recipe.as_yaml(), encoding="utf-8")
            write_json(folder / PROVENANCE, provenance)
            write_json(folder / GENOMES, {"genomes": {genome_name(genome): genome.manifest for genome in genomes}})


def _write_held_out(result: PretrainResult, output: Path) -> None:
    def plain(values: Mapping[str, float]) -> dict[str, float | None]:
        # JSON has no word for what is not a number.
        return {name: None if math.isnan(value) else value for name, value in values.items()}

    written = {
        "unit": "nats a target",
        "steps": result.steps,
        "targets": dict(result.targets),
        "cross_entropy": {name: plain(values) for name, values in result.held_out.items()},
        "calibration": {name: [entry._asdict() for entry in bins] for name, bins in result.calibration.items()},
    }
    write_json(output / HELD_OUT, written, force=True)


def _with_report(
    result: PretrainResult,
    recipe: PretrainRecipe,
    provenance: Mapping[str, Any],
    trainer: PretrainTrainer,
    output: Path,
) -> PretrainResult:
    """Write the page to look at, where matplotlib is installed."""
    try:
        from mutbert.reports.pretraining import PretrainingReport, write_pretraining_page
    except MissingExtraError as error:
        note = f"no report was written: {error}"
        print(note, file=sys.stderr)  # noqa: T201
        return dataclasses.replace(result, notes=[*result.notes, note])
    report = PretrainingReport(
        name=output.name,
        steps=result.steps,
        history=result.history,
        held_out=result.held_out,
        targets=result.targets,
        calibration=result.calibration,
        facts=_facts(result, recipe, provenance, trainer, output),
        recipe=recipe.as_yaml(),
        notes=result.notes,
    )
    write_pretraining_page(output / REPORT, report, force=True)
    return dataclasses.replace(result, report=output / REPORT)


def _facts(
    result: PretrainResult,
    recipe: PretrainRecipe,
    provenance: Mapping[str, Any],
    trainer: PretrainTrainer,
    output: Path,
) -> dict[str, str]:
    """Say what the run was made of, in words."""
    arguments = trainer.args
    windows = trainer.windows_a_process * arguments.world_size
    parameters = sum(parameter.numel() for parameter in trainer.accelerator.unwrap_model(trainer.model).parameters())
    best = best_checkpoint(output, cross_entropies_of(trainer.state.log_history))
    precision = "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "float32"
    speed = trainer.speed()
    return {
        "parameters": f"{parameters:,}",
        "windows a step": f"{windows:,} of {recipe.window_length:,} bases",
        "tokens trained on": f"{result.steps * windows * (recipe.window_length + 2):,}",
        "speed": (
            f"{speed['tokens_per_second']:,.0f} tokens a second, {speed['share_of_ceiling']:.0%} of the rate of plain "
            "matrix products"
            if speed
            else "nothing was trained in this part of the run"
        ),
        "computed on": f"{arguments.world_size} x {arguments.device.type}, {precision}",
        "best checkpoint that is kept": best.name if best else "none was evaluated",
        "seed": str(recipe.seed),
        "genomes": ", ".join(f"{name} ({digest[:12]})" for name, digest in provenance["genomes"].items()),
        "versions": ", ".join(f"{name} {number}" for name, number in provenance["versions"].items()),
        "commit": provenance["commit"] or "not from a checkout",
    }
