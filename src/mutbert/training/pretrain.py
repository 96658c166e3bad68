"""Pre-train a masked language model: recipe -> transformers.Trainer -> checkpoint."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import shutil
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers
from accelerate import PartialState
from accelerate.utils import broadcast
from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import TensorBoardCallback

from mutbert.errors import InputError, MissingExtraError, one_line
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertTokenizer
from mutbert.model.checkpoints import library_bars_off, read_checkpoint
from mutbert.publishing import (
    locked,
    publish_directory,
    publish_file,
    publish_json,
    refuse_existing,
    remove_directory,
)
from mutbert.run_folder import EVALUATED, GENOMES, HELD_OUT, MODEL, PROVENANCE, RECIPE, REPORT, WRITING
from mutbert.training.baselines import FLOOR, evaluate_baselines, fit_baselines
from mutbert.training.callbacks import (
    CatchUpEvaluation,
    PublishCheckpoints,
    ShowProgress,
    WriteHistory,
    cross_entropies_of,
    history_of,
)
from mutbert.training.checkpoints import best_checkpoint, resumable_checkpoint
from mutbert.training.failures import explain_failures
from mutbert.training.held_out import held_out_windows
from mutbert.training.provenance import provenance_of
from mutbert.training.recipe import PretrainRecipe, check_keys, load_recipe
from mutbert.training.trainer import PretrainTrainer, largest_divisor
from mutbert.windows.dataset import WindowDataset, whole_batch
from mutbert.windows.sampler import WindowSampler
from mutbert.windows.splits import genome_name, split_genomes
from mutbert.windows.tempering import Tempering

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mutbert.training.held_out import CalibrationBin
    from mutbert.windows.splits import Split

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
    "save_only_model": "a run could not go on from such a checkpoint as if nothing had been",
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
    arguments = _training_arguments(recipe, output)
    main = is_main_process()
    transformers.set_seed(recipe.seed)
    model = _initial_model(recipe)
    # One epoch is the whole run, so that a window is never drawn twice.
    windows_a_process = arguments.train_batch_size * arguments.gradient_accumulation_steps
    train_data.size = arguments.max_steps * windows_a_process * arguments.world_size
    provenance = provenance_of(genomes)

    with _run_folder(recipe, provenance, held_out_data, output, resume=resume, force=force) as (checkpoint, notes):
        shown = ShowProgress(show=progress)
        trainer = PretrainTrainer(
            windows_a_process=windows_a_process,
            dropout=recipe.dropout,
            model=model,
            args=arguments,
            train_dataset=train_data,
            eval_dataset=held_out_data,
            data_collator=whole_batch,
            callbacks=[
                *([TensorBoardCallback(SummaryWriter(output / "tensorboard"))] if main else []),
                PublishCheckpoints(output, recipe.as_yaml(), provenance),
                WriteHistory(output),
                shown,
            ],
        )
        trainer.add_callback(CatchUpEvaluation(trainer.evaluate))
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
    return result


def is_main_process() -> bool:
    """Say whether this process is the only one, or the one of several that speaks for all."""
    return bool(PartialState().is_main_process)


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
    known = [name for name in inspect.signature(MutBertConfig.__init__).parameters if name not in {"self", "kwargs"}]
    check_keys(recipe.model, known, "model.")
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
    most = model.config.max_position_embeddings
    if most < needed:
        raise InputError(
            f"model.max_position_embeddings is {most}, but windows of {recipe.window_length} bases with [CLS] and "
            f"[SEP] need {needed}"
        )
    return model


def _training_arguments(recipe: PretrainRecipe, output: Path) -> transformers.TrainingArguments:
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
    defaults = {
        "logging_steps": 10,
        "save_total_limit": 2,
        "eval_strategy": "steps",
        # Every weight has a part in every loss, so that processes need not look for those that have not.
        "ddp_find_unused_parameters": False,
        # A loss that is no number stops the run; the library would leave it out of the mean.
        "logging_nan_inf_filter": False,
        # Half precision on the CPU is refused unless the CPU is asked for.
        "use_cpu": not torch.accelerator.is_available(),
    }
    try:
        arguments = transformers.TrainingArguments(
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


@contextmanager
def _run_folder(
    recipe: PretrainRecipe,
    provenance: Mapping[str, Any],
    held_out: WindowDataset,
    output: Path,
    *,
    resume: bool,
    force: bool,
) -> Iterator[tuple[Path | None, list[str]]]:
    """Prepare the run's folder, hold it while the run lasts, and give the checkpoint to go on from, if any."""
    state = PartialState()
    with ExitStack() as held:
        checkpoint, notes = None, []
        with _said_once(state):
            if state.is_main_process:
                if resume and output.exists():
                    _same_run(output, recipe, provenance, held_out)
                else:
                    # Recipes keep their runs in a folder of that name, which nobody should have to make first.
                    with _made(output.parent):
                        output.parent.mkdir(parents=True, exist_ok=True)
                    refuse_existing(output, force=force, mark=RECIPE)
                    if output.exists():
                        with locked(output):
                            remove_directory(output)
                    with _made(output):
                        output.mkdir()
                held.enter_context(locked(output))
                shutil.rmtree(output / WRITING, ignore_errors=True)
                with explain_failures(output):
                    for name, text in _records(recipe, provenance, held_out).items():
                        with publish_file(output / name, force=True) as file:
                            file.write_text(text, encoding="utf-8")
                if resume:
                    checkpoint, torn = resumable_checkpoint(output)
                    notes = [f"{wrong}; going on from {checkpoint or 'the beginning'}" for wrong in torn]
        for note in notes:
            print(note, file=sys.stderr)  # noqa: T201
        step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
        step = int(broadcast(torch.tensor([step], device=state.device))[0])
        yield (output / "checkpoints" / f"checkpoint-{step}" if step else None), notes


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({one_line(error)}); choose another output") from None


@contextmanager
def _said_once(state: PartialState) -> Iterator[None]:
    """Have all processes stop where the main one has found something wrong."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    failed = int(broadcast(torch.tensor([int(failure is not None)], device=state.device))[0])
    if failure is not None:
        raise failure
    if failed:
        raise InputError("the main process has stopped; it says why")


def _records(recipe: PretrainRecipe, provenance: Mapping[str, Any], held_out: WindowDataset) -> dict[str, str]:
    """Write what a run is, by file name."""
    return {
        RECIPE: recipe.as_yaml(),
        PROVENANCE: json.dumps(provenance, indent=1) + "\n",
        EVALUATED: held_out_windows(held_out),
    }


def _same_run(output: Path, recipe: PretrainRecipe, provenance: Mapping[str, Any], held_out: WindowDataset) -> None:
    """Refuse to go on with another recipe, another genome or another evaluation."""
    path = output / RECIPE
    if not path.is_file():
        raise InputError(f"{path}: there is no run to resume; leave --resume out, or give the folder of a run")
    old, text = path.read_text(encoding="utf-8"), recipe.as_yaml()
    for before, now in zip(old.splitlines(), text.splitlines(), strict=False):
        if before != now:
            raise InputError(
                f"{path}: the run was started with '{before.strip()}', the recipe now says '{now.strip()}'"
            )
    if old != text:
        raise InputError(f"{path}: the run was started with another recipe; resume with the same one")
    if (output / PROVENANCE).is_file():
        before = json.loads((output / PROVENANCE).read_text(encoding="utf-8"))["genomes"]
        for name, digest in provenance["genomes"].items():
            if before.get(name) != digest:
                raise InputError(
                    f"{output / PROVENANCE}: {name} is not the genome that the run was started with; resume with the "
                    "same one, or start anew"
                )
    path = output / EVALUATED
    if path.is_file() and path.read_text(encoding="utf-8") != held_out_windows(held_out):
        raise InputError(
            f"{path}: the held-out windows are not those that the run was started with; resume with the version of "
            "mutbert that it was started with, or start anew"
        )


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
        with publish_directory(output / MODEL, force=True) as folder:
            trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder, state_dict=weights)
            MutBertTokenizer(model_max_length=recipe.window_length + 2).save_pretrained(folder)
            (folder / RECIPE).write_text(recipe.as_yaml(), encoding="utf-8")
            publish_json(folder / PROVENANCE, provenance)
            publish_json(folder / GENOMES, {"genomes": {genome_name(genome): genome.manifest for genome in genomes}})


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
    publish_json(output / HELD_OUT, written, force=True)


def _with_report(
    result: PretrainResult,
    recipe: PretrainRecipe,
    provenance: Mapping[str, Any],
    trainer: PretrainTrainer,
    output: Path,
) -> PretrainResult:
    """Write the page to look at, where matplotlib is installed."""
    try:
        from mutbert.reports.pretraining import CalibrationBin, PretrainingReport, write_pretraining_page
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
        calibration={name: [CalibrationBin(*entry) for entry in bins] for name, bins in result.calibration.items()},
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
