"""Pre-training: what it leaves behind, what cannot be pre-trained, and its held-out figures against plain loops."""

import json
import math
from importlib.resources import files

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model import MutBertForMaskedLM, MutBertTokenizer
from mutbert.regions import Region
from mutbert.settings import read_settings
from mutbert.training.pretrain import CALIBRATED, GROUPS, fit_baselines, held_out_sums, pretrain, summarise_sums
from mutbert.training.recipe import PretrainRecipe
from mutbert.windows.dataset import Targets, WindowDataset, expand_batch
from mutbert.windows.masking import Tempering
from mutbert.windows.sampler import Part, RegionSet, WindowSampler, select_regions


@pytest.fixture(scope="module")
def unbroken(write_recipe, tmp_path_factory):
    """One run that nothing interrupts, for the others to be compared with."""
    return pretrain(write_recipe(tmp_path_factory.mktemp("unbroken")))


def test_a_run_leaves_a_model_that_loads_and_its_metrics(unbroken):
    model = MutBertForMaskedLM.from_pretrained(unbroken.model)
    tokenizer = MutBertTokenizer.from_pretrained(unbroken.model)
    assert model(**tokenizer("ACGTN", return_tensors="pt")).logits.shape == (1, 7, 9)
    run, written = unbroken.model.parent, unbroken.metrics
    assert json.loads((run / "metrics.json").read_text()) == written
    assert json.loads((run / "history.json").read_text()) == unbroken.history
    assert (written["kind"], written["version"], written["steps"]) == ("pretrain", 2, 6)
    assert list(written["cross_entropy"])[2:] == ["order-5 Markov chain", "model", "entropy floor"]
    targets = written["targets"]
    assert targets["all"] == 24 * int(30 * 0.15) == targets["variant"] + targets["other"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["checkpoint-4", "checkpoint-6"]
    assert list((run / "tensorboard").glob("events.*"))
    assert "order-5 Markov chain" in unbroken.report.read_text()
    for name in ("recipe.yaml", "provenance.json"):
        assert (unbroken.model / name).read_text() == (run / name).read_text()


def test_the_held_out_figure_is_the_models_cross_entropy(unbroken):
    recipe = read_settings(PretrainRecipe, unbroken.model / "recipe.yaml")
    genome = ProbabilisticGenome.open(recipe.genome[0])
    sampler = WindowSampler([Part(genome, select_regions(genome, ["chr2"]))], 30, seed=recipe.evaluation.seed)
    dataset = WindowDataset(sampler, recipe.evaluation.masking, Tempering(), size=24)
    model = MutBertForMaskedLM.from_pretrained(unbroken.model).eval()
    every, variant, invariant = [], [], []
    for index in range(24):
        batch = dataset[index]
        varies = batch["variant_places"].tolist()
        item = {name: tensor[0] for name, tensor in expand_batch(batch).items()}
        with torch.no_grad():
            logits = model(input_probs=item["input_probs"][None]).logits[0].double()
        # Every target is hidden: the model is never shown a part of the answer.
        assert (item["input_probs"][item["target_places"]][:, 4] == 1).all()
        for target, place in enumerate(item["target_places"].tolist()):
            log_sum = math.log(logits[place].exp().sum())
            loss = sum(float(item["labels"][target, v]) * (log_sum - float(logits[place, v])) for v in range(9))
            every.append(loss)
            (variant if place - 1 in varies else invariant).append(loss)
    means = [sum(part) / len(part) for part in (every, variant, invariant)]
    found = [unbroken.metrics["cross_entropy"]["model"][group] for group in ("all", "variant", "other")]
    assert found == pytest.approx(means, abs=1e-5)


@pytest.mark.parametrize("words", [["training.eval_steps=1"], ["training.dataloader_num_workers=1"]])
def test_the_same_recipe_gives_the_same_model(unbroken, recipe_path, same_weights, words):
    again = pretrain(recipe_path, words)
    assert same_weights(again.model, unbroken.model)
    for name in ("targets", "cross_entropy", "calibration"):
        assert again.metrics[name] == unbroken.metrics[name]


def test_dropout_is_on_when_the_recipe_says_so(recipe_path, monkeypatch):
    seen, forward = [], MutBertForMaskedLM.forward

    def spy(self, **inputs):
        if torch.is_grad_enabled():
            seen.append(self.training)
        return forward(self, **inputs)

    monkeypatch.setattr(MutBertForMaskedLM, "forward", spy)
    pretrain(recipe_path, ["dropout={schedule: epoch_start, on_steps: 1, epoch_steps: 4}"])
    assert seen == [True, False, False, False, True, False]


def test_a_model_is_trained_on_from_another(unbroken, recipe_path):
    words = [f"initial_model={unbroken.model}", "model={}", "training.max_steps=1", "training.learning_rate=1e-12",
             "training.weight_decay=0.0"]  # fmt: skip
    after = MutBertForMaskedLM.from_pretrained(pretrain(recipe_path, words).model)
    before = MutBertForMaskedLM.from_pretrained(unbroken.model)
    for one, other in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


WRONG = {
    "masking.policy=random_first": r"masking\.policy",
    "masking.share=0.001": "masking.share of 30 positions is none",
    "masking.final_share=0.03": "masking.final_share of 30 positions is none",
    "masking.replce=0.1": r"unknown key masking\.replce; did you mean masking\.replace",
    "model.hidden_sise=8": r"unknown key model\.hidden_sise; did you mean model\.hidden_size",
    "training.save_strategy=best": "the best checkpoint is always kept",
    "training.auto_find_batch_size=true": "it would change the result",
    "training.max_steps=0": "set the number of optimisation steps",
    "training.fp16=true": "needs a GPU",
    "training.lr_scheduler_kwargs={foo: 1}": "training: ",
    "training.per_device_train_batch_size=0": "windows_a_step is 0",
    "training.max_grad_norm=abc": r"training\.max_grad_norm: .* valid number",
    "windows_a_step=8 training.gradient_accumulation_steps=2": "set one of the two",
    "optimizer=muon training.fsdp=true": "muon needs whole matrices; use adamw, or train without sharding",
    "model.hidden_size=15": "model: ",
    "model.vocab_size=12": r"model\.vocab_size is 12",
    "model.max_position_embeddings=20": "need 32",
    "initial_model=absent": "initial_model absent: no such model folder",
    "weighting.soft_masked=0.5": "no soft-masked bases",
    "held_out=[chr9]": "chr9",
    "train=['chr2:1-100']": "share bases",
    "train=[{bed: chr1}, {bed: 'chr2:1-100'}]": "^chr2:1-100: no window of 30 bases",
    "train=[{bed: absent.bed}]": r"^absent\.bed: cannot be read",
    "train=[{bed: chr1, weight: 0}]": r"train\.0\.weight: .* greater than 0 \(given: 0\)",
    "train=[chr1, {bed: chr1}]": r"train\.0: .*RegionSet \(given: 'chr1'\)",
    "genome=absent.genome": "no such genome store",
    "output=/proc/none/run": "cannot be created",
}


@pytest.mark.parametrize("override", WRONG)
def test_what_cannot_be_trained_is_an_error_before_an_old_run_is_replaced(recipe_path, tmp_path, override):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("of an old run")
    with pytest.raises(InputError, match=WRONG[override]) as caught:
        pretrain(
            recipe_path, override.split(" ") if override.startswith(("windows_a", "opt")) else [override], force=True
        )
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


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
    recipe = read_settings(PretrainRecipe, name, words, shipped="recipes")
    assert read_settings(PretrainRecipe, tmp_path / "run" / "recipe.yaml") == recipe


def draw_targets(seed, windows, count):
    """Invariant targets, and variant ones with frequencies from rare to fixed."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 4, (windows, count))
    variant = rng.random((windows, count)) < 0.5
    alternate = np.where(variant, rng.choice([0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.9, 1.0], variant.shape), 0)
    frequency = np.zeros((windows, count, 4))
    np.put_along_axis(frequency, reference[..., None], 1 - alternate[..., None], axis=2)
    np.put_along_axis(frequency, (reference[..., None] + 1) % 4, alternate[..., None], axis=2)
    predicted = rng.dirichlet(np.ones(9), (windows, count))[..., 5:]
    frequency, alternate, predicted = (torch.tensor(one).float() for one in (frequency, alternate, predicted))
    nowhere = torch.zeros(windows, count, dtype=torch.long)
    return Targets(nowhere, frequency, torch.tensor(variant), alternate), predicted


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 12))
def test_cross_entropy_and_calibration_are_those_of_plain_loops(seed, windows, count):
    targets, predicted = draw_targets(seed, windows, count)
    found = summarise_sums(held_out_sums(predicted.log(), targets).numpy())

    losses = {group: [] for group in GROUPS}
    pairs = {name: [[] for _ in range(10)] for name in CALIBRATED}
    for window in range(windows):
        for place in range(count):
            target, guess = targets.frequency_BT4[window, place].tolist(), predicted[window, place].tolist()
            loss = -sum(t * math.log(g) for t, g in zip(target, guess, strict=True))
            varies = bool(targets.variant_BT[window, place])
            names = ["all", "variant" if varies else "other"]
            if varies:
                alternate = float(targets.alternate_BT[window, place])
                above = sum(alternate >= np.float32(edge) for edge in (0.05, 0.1, 0.2, 0.5))
                names.append(GROUPS[3 + above])
            for name in names:
                losses[name].append(loss)
            for t, g in zip(target, guess, strict=True):
                for name in CALIBRATED if varies else CALIBRATED[:1]:
                    pairs[name][min(int(np.float32(g) * np.float32(10)), 9)].append((g, t))
    assert found["targets"] == {group: len(losses[group]) for group in GROUPS}
    means = [np.mean(losses[group]) if losses[group] else math.nan for group in GROUPS]
    assert list(found["cross_entropy"].values()) == pytest.approx(means, abs=1e-5, nan_ok=True)
    for name in CALIBRATED:
        expected = [(*np.mean(inside, axis=0), len(inside)) for inside in pairs[name] if inside]
        assert len(found["calibration"][name]) == len(expected)
        for entry, wanted in zip(found["calibration"][name], expected, strict=True):
            assert tuple(entry.values()) == pytest.approx(wanted, abs=1e-5)


REGIONS = [Region("chr1", 0, 700), Region("chr1", 900, 1203)]


def count_one_by_one(genome, scales):
    composition, markov = np.zeros(4), np.ones((4**5, 4))
    for region, scale in zip(REGIONS, scales, strict=True):
        for position in range(region.start, region.end):
            frequency = scale * genome.frequencies("chr1", position, position + 1)[0]
            composition += frequency
            if position >= 5:
                before = alphabet.decode(genome.bases("chr1", position - 5, position))
                markov[int(before.translate(str.maketrans("ACGT", "0123")), 4)] += frequency
    return composition / composition.sum(), markov / markov.sum(axis=1, keepdims=True)


# Of several genomes, counts add up; of a mixture, each set is 1003 bases by its weight, 1 or 3 quarters.
@pytest.mark.parametrize(
    ("chunk", "sources", "scales"),
    [
        (1 << 22, [None, None], [1, 1]),
        (97, [RegionSet(bed="a", weight=2), RegionSet(bed="b", weight=6)], [1003 / 4 / 700, 1003 * 3 / 4 / 303]),
    ],
)
def test_fitted_counts_are_those_of_a_plain_loop(genome_path, chunk, sources, scales):
    genome = ProbabilisticGenome.open(genome_path)
    parts = [Part(genome, [region], source) for region, source in zip(REGIONS, sources, strict=True)]
    fitted = fit_baselines(parts, chunk=chunk)
    for found, wanted in zip(fitted, count_one_by_one(genome, scales), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
