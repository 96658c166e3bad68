"""Every recipe that comes with the package, scaled down; what a recipe may say."""

import math
import re
from importlib.resources import files
from pathlib import Path

import pytest

from mutbert.model import MutBertForMaskedLM
from mutbert.training.pretrain import pretrain
from mutbert.training.recipe import load_recipe

RECIPES = sorted(entry.name.removesuffix(".yaml") for entry in files("mutbert").joinpath("recipes").iterdir())
SCALED_DOWN = (
    "held_out=['small:chr2']", "train=['small:chr1']", "window_length=30", "windows_a_step=8", "evaluation.windows=8",
    "model.hidden_size=16", "model.num_hidden_layers=2", "model.num_attention_heads=2", "model.intermediate_size=32",
    "training.max_steps=3", "training.per_device_train_batch_size=4", "training.per_device_eval_batch_size=4",
    "training.warmup_steps=1", "training.logging_steps=1", "training.eval_steps=3", "training.save_steps=3",
)  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_scaled_down_run_of_each_passes(name, genome_path, tmp_path):
    words = [*SCALED_DOWN, f"genome={genome_path}", f"output={tmp_path / 'run'}"]
    result = pretrain(name, words)
    assert result.metrics["steps"] == 3
    assert all(math.isfinite(entry["loss"]) for entry in result.history if "loss" in entry)
    MutBertForMaskedLM.from_pretrained(result.model)
    # What a run writes down is a recipe, and that of this run.
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == load_recipe(name, words)


def test_the_recipe_of_the_guide_shows_the_defaults(tmp_path):
    guide = Path(__file__).resolve().parents[2] / "docs" / "pretraining.md"
    (sample,) = re.findall(r"^```yaml\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    recipes = []
    for text in (sample, "genome: g\noutput: o\nheld_out: [chr22]\n"):
        (tmp_path / "recipe.yaml").write_text(text)
        recipes.append(load_recipe(tmp_path / "recipe.yaml"))
    for name in ("seed", "window_length", "masking", "tempering", "evaluation"):
        assert getattr(recipes[0], name) == getattr(recipes[1], name)
