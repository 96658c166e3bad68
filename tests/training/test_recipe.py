import re
from pathlib import Path

import pytest
import yaml

from mutbert.errors import InputError
from mutbert.training.recipe import load_recipe


def test_a_recipe_is_read_and_written_with_every_default(recipe_path, tmp_path):
    recipe = load_recipe(recipe_path)
    assert recipe.training["learning_rate"] == 1e-3
    assert recipe.masking.policy == "variants_first"
    again = tmp_path / "resolved.yaml"
    again.write_text(recipe.as_yaml())
    assert load_recipe(again) == recipe
    assert yaml.safe_load(again.read_text())["masking"]["share"] == 0.15


def test_overrides_win_and_are_yaml(recipe_path):
    recipe = load_recipe(
        recipe_path,
        ["seed=9", "masking.share=0.3", "training.learning_rate=4e-4", "held_out=[22, chr2]", "train=chr1",
         "training.max_steps=7", "model.rope_scaling={type: linear, factor: 2}"],
    )  # fmt: skip
    assert recipe.seed == 9
    assert recipe.masking.share == 0.3
    assert recipe.training["learning_rate"] == 4e-4
    assert recipe.held_out == ("22", "chr2")
    assert recipe.train == ("chr1",)
    assert recipe.model["rope_scaling"] == {"type": "linear", "factor": 2}


def test_what_is_left_out_may_be_said_to_be_none(recipe_path):
    assert load_recipe(recipe_path, ["windows_a_step=null"]).windows_a_step is None
    assert load_recipe(recipe_path, ["windows_a_step=16"]).windows_a_step == 16


@pytest.mark.parametrize("word", ["no", "No", "off", "y", "yes"])
def test_words_are_words(recipe_path, word):
    """YAML 1.1 took them for truth values, and a strategy of the library is called no."""
    assert load_recipe(recipe_path, [f"training.eval_strategy={word}"]).training["eval_strategy"] == word
    assert load_recipe(recipe_path, ["training.bf16=true", "training.fp16=False"]).training["bf16"] is True


def test_one_genome_needs_no_list(recipe_path):
    assert load_recipe(recipe_path, ["genome=a.genome"]).genome == ("a.genome",)
    assert load_recipe(recipe_path, ["genome=[a.genome, b.genome]"]).genome == ("a.genome", "b.genome")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", "unknown key sed; did you mean seed"),
        ("masking.shares=0.1", r"unknown key masking\.shares; did you mean masking\.share"),
        ("masking.policy=random_first", "choose variants_first, uniform, weighted, spans"),
        ("masking.span_length=0", "at least 1"),
        ("masking.variant_weight=0", "above 0"),
        ("weighting.variant=-1", "0 or more"),
        ("dropout.schedule=never", "choose throughout or epoch_start"),
        ("frequencies=both", "choose population or reference"),
        ("reverse_complement=1.5", "it is a share"),
        ("windows_a_step=0", "at least 1"),
        ("windows_a_step=many", "expected int"),
        ("initial_model=3", "expected str"),
        ("genome=[]", "genome is empty"),
        ("masking.share=0", "above 0"),
        ("masking.share=0.001", "of 30 positions is none"),
        ("tempering.kind=sqrt", "choose none, log or published"),
        ("seed=-1", "from 0 to"),
        ("seed=one", "seed is 'one'; expected int"),
        ("seed=true", "expected int"),
        ("window_length=0", "from 1 to 65536"),
        ("held_out=[]", "held_out is empty"),
        ("evaluation=3", "expected nested keys"),
        ("model=3", "expected nested keys"),
        ("held_out={a: 1}", "expected a list"),
        ("evaluation.windows=0", "at least 1"),
        ("seed", "not of the form key=value"),
        ("seed.x=1", "holds no nested keys"),
        ("seed={", "not YAML"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(recipe_path, override, message):
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(recipe_path, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "holds no settings"),
        ("", "holds no settings"),
        ("a: [", "not YAML"),
        ("seed: 1\nseed: 2\n", "given twice"),
        ("genome: g\noutput: o\n", "held_out is missing"),
        ("!!python/object/apply:os.system [echo]", "not YAML"),
    ],
)
def test_files_that_are_no_recipes_are_refused(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_names_the_shipped_ones(tmp_path):
    with pytest.raises(InputError, match="demo, mutbert, mutbert-corrected, mutbert-multi, mutbert-ref, small"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(tmp_path)


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
