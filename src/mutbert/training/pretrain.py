"""Pre-train a masked language model: recipe -> transformers.Trainer -> checkpoint, and its held-out evaluation.

All cross-entropies are in nats per target, between the target's distribution over A, C, G, T and the predicted one:
``-sum(target * log(predicted))``. Shape suffixes: B windows, T targets of a window, V tokens, S sums, 4 bases.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
import transformers
from accelerate import PartialState
from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import TensorBoardCallback

from mutbert import alphabet
from mutbert.arrays import Float32, Float64, Int64
from mutbert.errors import InputError, one_line
from mutbert.files import atomic_file, write_json
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertTokenizer
from mutbert.model.checkpoints import library_bars_off, read_checkpoint
from mutbert.model.configuration_mutbert import DEFAULTS
from mutbert.progress import progress_bar
from mutbert.run_folder import EVALUATED, GENOMES
from mutbert.settings import check_keys, listed, read_settings
from mutbert.training import trainer as trainers
from mutbert.training.folder import Run, RunResult, folder_of, plain, provenance_of
from mutbert.training.muon import MuonWith
from mutbert.training.recipe import Dropout, PretrainRecipe
from mutbert.windows.dataset import Targets, WindowDataset, expand_batch, targets_of
from mutbert.windows.masking import Tempering
from mutbert.windows.sampler import Part, WindowSampler, genome_name, split_genomes

HeldOut = dict[str, dict[str, Any]]  # what `summarise_sums` returns
_EDGES: Final = (0.05, 0.1, 0.2, 0.5)
GROUPS: Final = (
    "all", "variant", "other", "variant, below 0.05", "variant, 0.05 to 0.1", "variant, 0.1 to 0.2",
    "variant, 0.2 to 0.5", "variant, 0.5 and above",
)  # fmt: skip
"""Kinds of targets: all, variant ones, the others, and variant ones by the frequency of what is not the reference."""
CALIBRATED: Final = ("all targets", "variant targets")
FLOOR: Final = "entropy floor"  # name of predicting the target itself
_BINS: Final = 10
_ORDER: Final = 5  # bases before a position that the Markov chain reads
_CONTEXTS: Final = 4**_ORDER


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

    Raises
    ------
    InputError
        A recipe or a genome that cannot be used; a run that exists; a loss that is not finite.

    Examples
    --------
    >>> small = ["evaluation.windows=4", "training.max_steps=2", "training.per_device_train_batch_size=2"]
    >>> genome = ["genome=population.genome", "train=[chr1]", "held_out=[chr2]", "output=runs/small"]
    >>> mutbert.pretrain("small", genome + small).metrics["steps"]
    2
    """
    if not isinstance(recipe, PretrainRecipe):
        recipe = read_settings(PretrainRecipe, recipe, listed(overrides), shipped="recipes")
    state, folder = PartialState(), folder_of(recipe.output, resume=resume, force=force)
    # Checksums are verified by one process of each machine.
    genomes = [ProbabilisticGenome.open(path, check=state.is_local_main_process) for path in recipe.genome]
    trainer, recipe = _trainer(recipe, genomes, folder)
    run = Run(folder, recipe.output, recipe, provenance_of(genomes))
    if resume and (done := run.finished()):
        return done
    with run.open([*recipe.genome, recipe.initial_model], resume=resume, force=force) as (step, notes):
        if state.is_main_process:
            with atomic_file(folder / EVALUATED, force=True) as file:
                held_out_windows(trainer.eval_dataset).write_csv(file, separator="\t")
            trainer.add_callback(TensorBoardCallback(SummaryWriter(folder / "tensorboard")))
        # An evaluation before the first step belongs to the run that has taken it.
        trainer.args.eval_on_start = trainer.args.eval_on_start and not step
        trainer.run(run.write_records, step, show=progress)
        _publish(trainer, run, genomes)
        if trainer.evaluated != trainer.state.global_step:
            trainer.evaluate()
        metrics = {}
        if state.is_main_process:
            baselines = fit_baselines(trainer.train_dataset.sampler.parts, progress=progress)
            found = evaluate_baselines(*baselines, trainer.eval_dataset)
            found |= {"model": trainer.held_out, FLOOR: found.pop(FLOOR)}
            metrics = {
                "unit": "nats per target", **trainer.held_out,
                "cross_entropy": {name: plain(one["cross_entropy"]) for name, one in found.items()},
                "steps": trainer.state.global_step, "facts": _facts(trainer, recipe), "notes": notes,
            }  # fmt: skip
        return run.finish("pretrain", metrics, trainers.history_of(trainer.state.log_history))


def _trainer(
    recipe: PretrainRecipe, genomes: Sequence[ProbabilisticGenome], folder: Path
) -> tuple[PretrainTrainer, PretrainRecipe]:
    """Return the trainer, and the recipe as it is for any number of processes."""
    trained, evaluated = split_genomes(genomes, recipe.train, recipe.held_out)
    given = dict(recipe.training)
    steps = given.get("max_steps", 0)
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"training.max_steps is {steps!r}; set the number of optimisation steps")
    if recipe.windows_a_step is not None and "gradient_accumulation_steps" in given:
        raise InputError("training.gradient_accumulation_steps follows from windows_a_step; set one of the two")
    if given.get("fsdp"):
        # A checkpoint of whole tensors is read without pickle, and by another number of processes too.
        sharding = {"fsdp_version": 2, "state_dict_type": "FULL_STATE_DICT"}
        given["fsdp_config"] = sharding | (given.get("fsdp_config") or {})
    defaults = {"logging_steps": 10, "save_total_limit": 2, "eval_strategy": "steps"}
    args = trainers.trainer_arguments(given, defaults, {"seed": recipe.seed, "metric_for_best_model": "loss"})
    batch, parts = args.per_device_train_batch_size, args.gradient_accumulation_steps
    windows = recipe.windows_a_step or batch * parts * args.world_size
    trainers.share_batch(args, windows, batch, "windows_a_step")
    training = {name: value for name, value in recipe.training.items() if name != "gradient_accumulation_steps"}
    recipe = recipe.replace(windows_a_step=windows, training=training)
    length, evaluation = recipe.window_length, recipe.evaluation
    train = WindowDataset(
        # One epoch is the whole run, so that a window is never drawn twice.
        WindowSampler(trained, length, seed=recipe.seed, reverse=recipe.reverse_complement), recipe.masking,
        recipe.tempering, size=steps * windows, steps=steps, frequencies=recipe.frequencies, weighting=recipe.weighting,
    )  # fmt: skip
    held_out = WindowSampler(evaluated, length, seed=evaluation.seed)
    transformers.set_seed(recipe.seed)
    trainer = PretrainTrainer(
        args=args, folder=folder, dropout=recipe.dropout, muon=recipe.muon_scale if recipe.optimizer == "muon" else 0.0,
        model=_initial_model(recipe), train_dataset=train,
        eval_dataset=WindowDataset(held_out, evaluation.masking, Tempering("none"), size=evaluation.windows),
        data_collator=dict,
    )  # fmt: skip
    return trainer, recipe


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
    tokens, most = model.config.vocab_size, model.config.max_position_embeddings
    if tokens != alphabet.VOCABULARY_SIZE:
        raise InputError(f"model.vocab_size is {tokens}; windows have {alphabet.VOCABULARY_SIZE} tokens")
    if most < needed:
        windows = f"windows of {recipe.window_length} bases with [CLS] and [SEP]"
        raise InputError(f"model.max_position_embeddings is {most}, but {windows} need {needed}")
    return model


class PretrainTrainer(trainers.RunTrainer):
    """Trainer with compact batches, the dropout's schedule, Muon and the held-out evaluation."""

    def __init__(self, *, dropout: Dropout, muon: float, **settings: Any) -> None:
        self._muon = muon
        super().__init__(compute_metrics=self._summarise, **settings)
        self._dropout = dropout
        self.evaluated, self.held_out = -1, HeldOut()

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Return the library's optimizer, or one that has Muon for the matrices of the encoder's layers."""
        created = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if created and self._muon:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ValueError("optimizer muon needs whole matrices; use adamw, or train without sharding")
            matrices = [weight for weight in self.model.bert.encoder.parameters() if weight.ndim == 2]
            rate, decay = self._muon * self.args.learning_rate, self.args.weight_decay
            self.optimizer = optimizer = MuonWith(matrices, optimizer, lr=rate, weight_decay=decay)
        return optimizer

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a batch, which is expanded on the device."""
        if not self._dropout.is_on(self.state.global_step):
            model.eval()
        return super().compute_loss(model, expand_batch(inputs), *args, **kwargs)

    def prediction_step(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> Any:
        """Return no loss, and the sums of each window, (B, S), as logits and as labels, so that no logits are kept."""
        inputs = self._prepare_inputs(inputs)
        dense = expand_batch(inputs)
        targets = targets_of(inputs, dense["labels"])
        with torch.no_grad(), self.compute_loss_context_manager():
            logit_BTV = model(**dense).logits
        sums_BS = held_out_sums(logit_BTV.float().log_softmax(-1)[..., alphabet.BASE_IDS], targets)
        return None, sums_BS, sums_BS

    def _summarise(self, prediction: transformers.EvalPrediction) -> dict[str, float]:
        self.evaluated, self.held_out = (step := self.state.global_step), summarise_sums(prediction.predictions)
        every, variant, other = (self.held_out["cross_entropy"][group] for group in GROUPS[:3])
        if not math.isfinite(every):
            raise self.diverged(f"the held-out cross-entropy was not a finite number after step {step}", step)
        named = {"loss": every, "loss_variant": variant, "loss_other": other}
        # JSON has no NaN, which stands for no such targets.
        return {name: value for name, value in named.items() if not math.isnan(value)}


def _publish(trainer: PretrainTrainer, run: Run, genomes: Sequence[ProbabilisticGenome]) -> None:
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


def _facts(trainer: PretrainTrainer, recipe: PretrainRecipe) -> dict[str, str]:
    """Return what a report says of a run, in words."""
    arguments, state, length, windows = trainer.args, trainer.state, recipe.window_length, recipe.windows_a_step or 0
    parameters = sum(parameter.numel() for parameter in trainer.accelerator.unwrap_model(trainer.model).parameters())
    precision = "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "float32"
    return {
        "parameters": f"{parameters:,}",
        "windows per step": f"{windows:,} of {length:,} bases",
        "tokens trained on": f"{state.global_step * windows * (length + 2):,}",
        **trainer.train_dataset.sampler.facts(),
        "computed on": f"{arguments.world_size} x {arguments.device.type}, {precision}",
        "best checkpoint kept": Path(state.best_model_checkpoint).name if state.best_model_checkpoint else "none",
    }


def held_out_sums(log_predicted_BT4: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return sums for `summarise_sums`, float32 (B, S), of log probabilities of A, C, G, T at the targets."""
    target_BT4, variant_BT = targets.frequency_BT4, targets.variant_BT
    log_BT4 = log_predicted_BT4.float()
    # A base of frequency 0 adds nothing, whatever was predicted for it.
    loss_BT = -torch.where(target_BT4 > 0, target_BT4 * log_BT4, 0).sum(-1)
    edges = torch.tensor(_EDGES, device=loss_BT.device)
    bin_BT = torch.bucketize(targets.alternate_BT, edges, right=True)
    masks = [torch.ones_like(variant_BT), variant_BT, ~variant_BT]
    masks += [variant_BT & (bin_BT == number) for number in range(len(_EDGES) + 1)]
    # Not times the mask, as a loss may be infinite.
    sums = [part for mask in masks for part in (torch.where(mask, loss_BT, 0).sum(1), mask.sum(1))]

    predicted_BT4 = log_BT4.exp()
    # NaN has no bin; the cross-entropy shows it.
    place_BT4 = (predicted_BT4.nan_to_num(0) * _BINS).long().clamp(0, _BINS - 1)
    for mask in masks[:2]:
        inside_BT4 = mask[..., None].expand_as(place_BT4)
        for value_BT4 in (torch.ones_like(predicted_BT4), predicted_BT4, target_BT4):
            binned = torch.zeros(len(loss_BT), _BINS, device=loss_BT.device)
            binned.scatter_add_(1, place_BT4.flatten(1), (value_BT4 * inside_BT4).flatten(1))
            sums += binned.unbind(1)
    return torch.stack([part.float() for part in sums], dim=1)


def summarise_sums(sums_BS: npt.NDArray[np.floating]) -> HeldOut:
    """Return what a predictor achieves, of the sums of all windows, (B, S).

    ``cross_entropy``, not a number without such targets, and numbers of ``targets`` are of each of `GROUPS`. Bins of
    the ``calibration``, of each of `CALIBRATED`, have the mean ``predicted`` probability, the mean frequency
    ``observed``, and the number of ``pairs`` of a target and a base, if any.
    """
    sums = sums_BS.sum(axis=0, dtype=np.float64)
    losses, counts = sums[: 2 * len(GROUPS)].reshape(-1, 2).T
    with np.errstate(invalid="ignore"):
        means = losses / counts
    binned = sums[2 * len(GROUPS) :].reshape(len(CALIBRATED), 3, _BINS)
    return {
        "cross_entropy": dict(zip(GROUPS, means.tolist(), strict=True)),
        "targets": dict(zip(GROUPS, counts.astype(int).tolist(), strict=True)),
        "calibration": {
            name: [
                {"predicted": float(predicted / count), "observed": float(observed / count), "pairs": int(count)}
                for count, predicted, observed in part.T if count
            ]
            for name, part in zip(CALIBRATED, binned, strict=True)
        },
    }  # fmt: skip


def held_out_windows(dataset: WindowDataset) -> pl.DataFrame:
    """Return the windows of an evaluation, so that other programs can evaluate the same ones.

    Columns: genome, chrom, start and end (0-based, half-open), and targets, offsets from the start joined by commas.
    """
    sampler, frames = dataset.sampler, []
    names = np.array([genome_name(genome) for genome in sampler.genomes])
    for indices, places in _batches(dataset):
        targets = pl.Series(dataset.batch(indices.tolist())["target_places"].numpy()).cast(pl.List(pl.String))
        frames.append(pl.DataFrame({
            "genome": names[places.genome_B], "chrom": sampler.contig_names(places), "start": places.start_B,
            "end": places.start_B + sampler.length, "targets": targets.list.join(","),
        }))  # fmt: skip
    return pl.concat(frames)


def fit_baselines(parts: Sequence[Part], *, chunk: int = 1 << 22, progress: bool = False) -> tuple[Float64, Float64]:
    """Return shares of bases (4,), and of bases after every five (1024, 4), in the training regions of all genomes.

    Each set of a mixture counts by its weight, whatever its size. A position that varies adds its allele frequencies;
    the five bases before, the first most significant, are the reference's. One is added to every count after five
    (Laplace).
    """
    composition = np.zeros(4)
    markov = np.ones((_CONTEXTS, 4))
    sizes = [sum(map(len, part.regions)) for part in parts]
    # Without a mixture, every base counts 1.
    given = [part.source.weight if part.source else size for part, size in zip(parts, sizes, strict=True)]
    scales = [sum(sizes) * weight / (sum(given) * size) for weight, size in zip(given, sizes, strict=True)]
    with progress_bar("counting bases", sum(sizes), unit="bases", show=progress) as advance:
        for scale, genome, contig, start, end in (
            (scale, part.genome, region.contig, start, min(start + chunk, region.end))
            for scale, part in zip(scales, parts, strict=True)
            for region in part.regions for start in range(region.start, region.end, chunk)
        ):  # fmt: skip
            base, frequency = genome.bases(contig, start, end), genome.frequencies(contig, start, end)
            known = base < 4
            # The five bases before a chunk are read with it, so that chunks leave no seam.
            context = _contexts(genome, contig, start, end)
            usable = known & (context >= 0)
            composition += scale * frequency[known].sum(axis=0, dtype=np.float64)
            for letter in range(4):
                weights = frequency[usable, letter]
                markov[:, letter] += scale * np.bincount(context[usable], weights=weights, minlength=_CONTEXTS)
            advance(len(base))
    return composition / composition.sum(), markov / markov.sum(axis=1, keepdims=True)


def evaluate_baselines(composition: Float64, markov: Float64, dataset: WindowDataset) -> dict[str, HeldOut]:
    """Return what trivial predictors achieve on a dataset's targets, by name, with `FLOOR` last.

    The Markov chain reads the true five bases before each target, even those that are hidden from the model, or
    predicts the composition where one of them is unknown.
    """
    sums: dict[str, list[Float32]] = {}
    sampler = dataset.sampler
    for indices, places in _batches(dataset):
        targets = targets_of(dataset.batch(indices.tolist()))
        located = zip(places.genome_B, sampler.contig_names(places), places.start_B, strict=True)
        context_BL = np.stack(
            [_contexts(sampler.genomes[one], name, at, at + sampler.length) for one, name, at in located]
        )
        context_BT = np.take_along_axis(context_BL, targets.place_BT.numpy() - 1, axis=1)
        markov_BT4 = np.where((context_BT >= 0)[..., None], markov[context_BT], composition)
        predictions = {
            "uniform": np.full_like(markov_BT4, 0.25),
            "base composition": np.broadcast_to(composition, markov_BT4.shape),
            "order-5 Markov chain": markov_BT4,
            FLOOR: targets.frequency_BT4.numpy(),
        }
        for name, predicted_BT4 in predictions.items():
            with np.errstate(divide="ignore"):
                log_BT4 = torch.from_numpy(np.log(predicted_BT4))
            sums.setdefault(name, []).append(held_out_sums(log_BT4, targets).numpy())
    return {name: summarise_sums(np.concatenate(parts)) for name, parts in sums.items()}


def _batches(dataset: WindowDataset) -> Iterator[tuple[Int64, Any]]:
    """Yield the indices of some windows and where these are."""
    for indices in np.array_split(np.arange(len(dataset)), range(256, len(dataset), 256)):
        yield indices, dataset.sampler.places(indices)


def _contexts(genome: ProbabilisticGenome, contig: str, start: int, end: int) -> Int64:
    """Return the number of the five bases before each position of a region; -1 where one is ambiguous."""
    before = min(_ORDER, start)
    base = np.full(_ORDER + end - start, 4, dtype=np.int64)
    base[_ORDER - before :] = genome.bases(contig, start - before, end)
    windows_L5 = np.lib.stride_tricks.sliding_window_view(base[:-1], _ORDER)
    context_L = windows_L5 @ 4 ** np.arange(_ORDER)[::-1]
    return np.where((windows_L5 < 4).all(axis=1), context_L, -1)
