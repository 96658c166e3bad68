"""Pre-training: what it leaves behind, and what cannot be pre-trained."""

import json
import math

import pytest
import torch

from mutbert.errors import InputError
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model import MutBertForMaskedLM, MutBertTokenizer
from mutbert.training.pretrain import pretrain
from mutbert.training.recipe import load_recipe
from mutbert.windows.dataset import WindowDataset, expand_batch
from mutbert.windows.masking import Tempering
from mutbert.windows.sampler import Part, WindowSampler, select_regions


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
    assert targets["all"] == 24 * int(30 * 0.15)
    assert 0 < targets["variant"] < targets["all"] == targets["variant"] + targets["other"]
    assert written["facts"]["tokens trained on"] == f"{6 * 4 * 32}"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["checkpoint-4", "checkpoint-6"]
    assert list((run / "tensorboard").glob("events.*"))
    assert "order-5 Markov chain" in unbroken.report.read_text()
    keys = [list(entry) for entry in unbroken.history]
    assert keys.count(["step", "grad_norm", "learning_rate", "loss"]) == 6
    assert keys.count(["step", "eval_loss", "eval_loss_other", "eval_loss_variant"]) == len(keys) - 6 == 2
    for name in ("recipe.yaml", "provenance.json"):
        assert (unbroken.model / name).read_text() == (run / name).read_text()


def test_the_held_out_figure_is_the_models_cross_entropy(unbroken):
    recipe = load_recipe(unbroken.model / "recipe.yaml")
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


def test_the_model_survives_a_failure_after_its_training(recipe_path, tmp_path, monkeypatch):
    monkeypatch.setattr("mutbert.training.pretrain.evaluate_baselines", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pretrain(recipe_path)
    MutBertForMaskedLM.from_pretrained(tmp_path / "run" / "model")


WRONG = {
    "sed=1": "unknown key sed; did you mean seed",
    "masking.policy=random_first": r"masking\.policy",
    "masking.share=0.001": "masking.share of 30 positions is none",
    "genome=[]": "genome: ",
    "model.hidden_sise=8": r"unknown key model\.hidden_sise; did you mean model\.hidden_size",
    "training.learning_rat=1": r"unknown key training\.learning_rat; did you mean training\.learning_rate",
    "training.seed=1": r"training\.seed cannot be set",
    "training.save_strategy=best": "the best checkpoint is always kept",
    "training.auto_find_batch_size=true": "it would change the result",
    "training.max_steps=0": "set the number of optimisation steps",
    "training.fp16=true": "needs a GPU",
    "training.learning_rate=-1": "training: ",
    "training.optim=lomo": "training: ",
    "training.lr_scheduler_kwargs={foo: 1}": "training: ",
    "training.per_device_train_batch_size=0": "windows_a_step is 0",
    "training.per_device_eval_batch_size=0": "training: ",
    "training.max_grad_norm=abc": r"training\.max_grad_norm: .* valid number",
    "training.dataloader_num_workers=-1": "training: ",
    "windows_a_step=8 training.gradient_accumulation_steps=2": "set one of the two",
    "model.hidden_size=15": "model: ",
    "model.vocab_size=12": r"model\.vocab_size is 12",
    "model.max_position_embeddings=20": "need 32",
    "initial_model=absent": "initial_model absent: no such model folder",
    "weighting.soft_masked=0.5": "no soft-masked bases",
    "held_out=[chr9]": "chr9",
    "train=['chr2:1-100']": "share bases",
    "genome=absent.genome": "no such genome store",
    "output=/proc/none/run": "cannot be created",
}


@pytest.mark.parametrize("override", WRONG)
def test_what_cannot_be_trained_is_an_error_before_an_old_run_is_replaced(recipe_path, tmp_path, override):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("of an old run")
    with pytest.raises(InputError, match=WRONG[override]) as caught:
        pretrain(recipe_path, override.split(" ") if override.startswith("windows_a") else [override], force=True)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]
