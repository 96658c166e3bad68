"""Every recipe that comes with the package: its values, and a scaled-down run of each."""

import math
import re
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

from mutbert.errors import InputError
from mutbert.model import MutBertConfig, MutBertForMaskedLM
from mutbert.training.pretrain import pretrain
from mutbert.training.recipe import Dropout, load_recipe

RECIPES = sorted(entry.name.removesuffix(".yaml") for entry in files("mutbert").joinpath("recipes").iterdir())
PUBLISHED = ["mutbert", "mutbert-multi", "mutbert-ref"]
SCALED_DOWN = (
    "held_out=[chr2]", "train=[chr1]", "window_length=30", "evaluation.windows=8", "model.hidden_size=16",
    "model.num_hidden_layers=2", "model.num_attention_heads=2", "model.intermediate_size=32", "training.max_steps=3",
    "training.per_device_train_batch_size=4", "training.per_device_eval_batch_size=4", "training.warmup_steps=1",
    "training.logging_steps=1", "training.eval_steps=3", "training.save_steps=3",
)  # fmt: skip


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
    assert result.metrics["steps"] == 3
    assert all(math.isfinite(entry["loss"]) for entry in result.history if "loss" in entry)
    MutBertForMaskedLM.from_pretrained(result.model)
    # What a run writes down is a recipe, and that of this run.
    recipe = load_recipe(name, words)
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe.replace(windows_a_step=recipe.windows_a_step or 4)


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


def test_a_recipe_is_read_and_written_with_every_default(recipe_path, tmp_path):
    recipe = load_recipe(recipe_path)
    assert (recipe.training["learning_rate"], recipe.masking.policy) == (1e-3, "variants_first")
    again = tmp_path / "resolved.yaml"
    again.write_text(recipe.as_yaml())
    assert load_recipe(again) == recipe


@pytest.mark.parametrize(
    "override",
    ["sed=1", "masking.shares=0.1", "masking.policy=random_first", "masking.share=0.001", "seed=-1", "seed=one",
     "weighting.variant=-1", "dropout.schedule=never", "reverse_complement=1.5", "windows_a_step=0", "genome=[]",
     "window_length=0", "held_out=[]", "evaluation.share=0"],
)  # fmt: skip
def test_a_wrong_value_is_named_in_one_line(recipe_path, override):
    with pytest.raises(InputError, match=re.escape(override.split("=")[0])) as caught:
        load_recipe(recipe_path, [override])
    assert "\n" not in str(caught.value)


def test_the_recipe_of_the_guide_is_one_and_shows_the_published_values(tmp_path):
    guide = Path(__file__).resolve().parents[2] / "docs" / "pretraining.md"
    (sample,) = re.findall(r"^```yaml\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    path = tmp_path / "recipe.yaml"
    path.write_text(sample)
    recipe = load_recipe(path)
    path.write_text("genome: g\noutput: o\nheld_out: [chr22]\n")
    defaults = load_recipe(path)
    for name in ("seed", "window_length", "masking", "tempering", "evaluation"):
        assert getattr(recipe, name) == getattr(defaults, name)
