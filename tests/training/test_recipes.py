"""Every recipe that comes with the package: its values, and a scaled-down run of each."""

import json
import math
from dataclasses import replace
from importlib.resources import files

import pytest
import torch
from transformers import get_scheduler

from mutbert.errors import InputError
from mutbert.model import MutBertConfig, MutBertForMaskedLM
from mutbert.training.pretrain import pretrain
from mutbert.training.recipe import Dropout, load_recipe
from mutbert.training.trainer import PretrainTrainer

RECIPES = sorted(entry.name.removesuffix(".yaml") for entry in files("mutbert").joinpath("recipes").iterdir())
PUBLISHED = ["mutbert", "mutbert-multi", "mutbert-ref"]
SCALED_DOWN = (
    "held_out=[chr2]",
    "train=[chr1]",
    "window_length=30",
    "evaluation.windows=8",
    "model.hidden_size=16",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=2",
    "model.intermediate_size=32",
    "training.max_steps=3",
    "training.per_device_train_batch_size=4",
    "training.per_device_eval_batch_size=4",
    "training.warmup_steps=1",
    "training.logging_steps=1",
    "training.eval_steps=3",
    "training.save_steps=3",
)


def test_all_of_them_are_here():
    assert RECIPES == ["demo", "mutbert", "mutbert-corrected", "mutbert-multi", "mutbert-ref", "small"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_scaled_down_run_of_each_passes(name, genome_path, tmp_path):
    words = [*SCALED_DOWN, f"genome={genome_path}", f"output={tmp_path / 'run'}"]
    if load_recipe(name).windows_a_step:
        words.append("windows_a_step=8")
    if name == "mutbert-multi":
        other = other_genome(genome_path, tmp_path)
        words += [f"genome=[{genome_path}, {other}]", "train=['small:chr1', 'other:chr1']", "held_out=['small:chr2']"]
    result = pretrain(name, words)
    assert result.steps == 3
    assert all(math.isfinite(entry["loss"]) for entry in result.history if "loss" in entry)
    MutBertForMaskedLM.from_pretrained(result.model)
    # What a run writes down is a recipe, and that of this run.
    recipe = load_recipe(name, words)
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == replace(recipe, windows_a_step=recipe.windows_a_step or 4)


def other_genome(genome_path, folder):
    """Give the same genome under another name."""
    copy = folder / "other.genome"
    copy.mkdir()
    for file in genome_path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_are_exact(name):
    """docs of the published method: windows, masking, batch, optimiser, budget, and what was wrong with them."""
    recipe = load_recipe(name)
    assert (recipe.seed, recipe.window_length, recipe.windows_a_step) == (66, 510, 128 * 4 * 4)
    masking = recipe.masking
    assert (masking.replace, masking.random, masking.keep) == (0.8, 0.0, 0.2)
    assert masking.targets(510) == 76
    reference = name == "mutbert-ref"
    assert masking.policy == ("uniform" if reference else "variants_first")
    assert recipe.frequencies == ("reference" if reference else "population")
    if not reference:
        assert (recipe.tempering.kind, recipe.tempering.temperature) == ("published", 0.7)
    assert MutBertConfig(**recipe.model).to_dict() == MutBertConfig().to_dict()
    training = recipe.training
    assert (training["learning_rate"], training["weight_decay"], training["max_grad_norm"]) == (4e-4, 0.01, 1.0)
    assert (training["max_steps"], training["warmup_steps"]) == (120_000, 10_000)
    assert training["eval_steps"] == training["save_steps"] == 500
    assert recipe.reverse_complement == 0
    # 126 G tokens in all.
    assert training["max_steps"] * recipe.windows_a_step * 512 == pytest.approx(126e9, rel=0.01)


def test_what_is_corrected_is_corrected_and_nothing_else():
    published, corrected = load_recipe("mutbert"), load_recipe("mutbert-corrected")
    assert corrected.tempering.kind == "none"
    assert corrected.dropout.schedule == "throughout"
    for name in ("genome", "seed", "window_length", "windows_a_step", "masking", "evaluation", "model", "training"):
        assert getattr(corrected, name) == getattr(published, name)


@pytest.mark.parametrize("name", ["mutbert", "mutbert-corrected"])
def test_the_learning_rate_goes_as_published(name):
    """From 1e-6 straight up to 4e-4 in 10,000 steps, then down a cosine to 1e-8 at 120,000."""
    training = load_recipe(name).training
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=training["learning_rate"])
    scheduler = get_scheduler(
        training["lr_scheduler_type"],
        optimizer,
        num_warmup_steps=training["warmup_steps"],
        num_training_steps=training["max_steps"],
        scheduler_specific_kwargs=training["lr_scheduler_kwargs"],
    )
    (rate,) = (schedule for schedule in scheduler.lr_lambdas)
    at = {step: 4e-4 * rate(step) for step in (0, 5_000, 9_999, 65_000, 119_999)}
    assert at[0] == pytest.approx(1e-6)
    assert at[5_000] == pytest.approx((1e-6 + 4e-4) / 2, rel=1e-3)
    assert at[9_999] == pytest.approx(4e-4)
    assert at[65_000] == pytest.approx((4e-4 + 1e-8) / 2, rel=1e-3)
    assert at[119_999] == pytest.approx(1e-8, rel=1e-2)


def test_published_dropout_is_off_for_97_percent_of_the_steps():
    dropout = load_recipe("mutbert").dropout
    on = [dropout.is_on(step) for step in range(120_000)]
    # From the beginning of an epoch to the first evaluation.
    assert all(on[:500])
    assert not any(on[500:16_700])
    assert on[16_700]
    assert 1 - sum(on) / len(on) == pytest.approx(0.97, abs=0.005)
    assert all(Dropout().is_on(step) for step in range(0, 120_000, 97))


def test_dropout_is_on_when_the_recipe_says_so(recipe_path, monkeypatch):
    seen = []
    compute = PretrainTrainer.compute_loss

    def spy(self, model, *arguments, **settings):
        loss = compute(self, model, *arguments, **settings)
        seen.append(model.training)
        return loss

    monkeypatch.setattr(PretrainTrainer, "compute_loss", spy)
    pretrain(recipe_path, ["dropout={schedule: epoch_start, on_steps: 1, epoch_steps: 4}"])
    assert seen == [True, False, False, False, True, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "never"}, "choose throughout or epoch_start"),
        ({"on_steps": -1}, "the first must be from 0 to the second"),
        ({"on_steps": 3, "epoch_steps": 2}, "the first must be from 0 to the second"),
        ({"on_steps": 0, "epoch_steps": 0}, "the first must be from 0 to the second"),
    ],
)
def test_a_dropout_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Dropout(**settings)


def test_a_model_is_trained_on_from_another(recipe_path, tmp_path):
    first = pretrain(recipe_path)
    words = [f"output={tmp_path / 'second'}", f"initial_model={first.model}", "model={}", "training.max_steps=1",
             "training.learning_rate=1e-12", "training.weight_decay=0.0"]  # fmt: skip
    second = pretrain(recipe_path, words)
    before, after = (MutBertForMaskedLM.from_pretrained(result.model) for result in (first, second))
    assert before.config.hidden_size == after.config.hidden_size
    for one, other in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["initial_model=absent"], "initial_model absent: no such model folder"),
        (["windows_a_step=8", "training.gradient_accumulation_steps=2"], "give one of the two"),
        (["weighting.soft_masked=0.5"], "no soft-masked bases"),
        (["genome=[absent.genome]"], "no such genome store"),
        (["masking={policy: spans, span_length: 31}"], "longer than a window of 30"),
        (["evaluation.share=.inf"], r"evaluation\.share is inf"),
        (["evaluation.share=0"], r"evaluation\.share is 0"),
        (["model.vocab_size=12"], r"model\.vocab_size is 12; windows are made of 9"),
        (["training.fp16=true"], r"training\.fp16 needs a GPU"),
        (["training.learning_rate=-1"], "training: "),
        (["training.learning_rate=abc"], "training: "),
        (["training.adam_beta1=2"], "training: "),
        (["training.optim=lomo"], "training: "),
        (["training.lr_scheduler_type=cosine_with_min_lr"], "training: "),
        (["training.lr_scheduler_kwargs={foo: 1}"], "training: "),
        (["training.per_device_train_batch_size=0"], "give a whole number from 1 on"),
        (["training.per_device_eval_batch_size=none"], "give a whole number from 1 on"),
        (["training.gradient_accumulation_steps=0"], "give a whole number from 1 on"),
        (["training.dataloader_num_workers=-1"], "give a whole number from 0 on"),
        (["training.dataloader_num_workers=1", "training.dataloader_prefetch_factor=0"], "number from 1 on"),
        (["training.metric_for_best_model=nonsense"], "choose one of loss, cross_entropy"),
        (["training.use_liger_kernel=true"], "there is none for this model"),
    ],
)
def test_what_does_not_go_together_is_refused(recipe_path, tmp_path, words, message):
    """And before an old run is replaced."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("of an old run")
    with pytest.raises(InputError, match=message) as caught:
        pretrain(recipe_path, words, force=True)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


def test_another_genome_of_the_same_name_is_not_gone_on_with(recipe_path, genome_path, tmp_path):
    copy = tmp_path / "copied.genome"
    copy.mkdir()
    for file in genome_path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    words = [f"genome={copy}", "training.max_steps=2"]
    pretrain(recipe_path, words)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["changed"] = True
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"copied\.genome is not what the run was started with"):
        pretrain(recipe_path, words, resume=True)


def test_other_held_out_windows_are_not_gone_on_with(recipe_path, tmp_path):
    pretrain(recipe_path, ["training.max_steps=2"])
    path = tmp_path / "run" / "held_out_windows.tsv"
    path.write_text(path.read_text().replace("\t", " ", 1))
    with pytest.raises(InputError, match=r"held_out_windows\.tsv: is not what the run was started with"):
        pretrain(recipe_path, ["training.max_steps=2"], resume=True)


def test_the_reference_alone_is_trained_on_and_frequencies_are_evaluated(write_recipe, tmp_path):
    results = {}
    for frequencies in ("population", "reference"):
        (tmp_path / frequencies).mkdir()
        recipe = write_recipe(tmp_path / frequencies)
        results[frequencies] = pretrain(recipe, [f"frequencies={frequencies}", "masking.policy=uniform"])
    first, second = results.values()
    assert first.targets == second.targets
    for name in ("uniform", "entropy floor"):
        assert first.held_out[name] == second.held_out[name]
    assert first.history[0]["loss"] != second.history[0]["loss"]
