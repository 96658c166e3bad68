"""Pre-training: what it leaves behind, also when it is killed."""

import builtins
import json
import math
import multiprocessing
import random
import time

import pytest
import torch
from safetensors.torch import load_file

import mutbert.training.pretrain as module
from mutbert.errors import InputError, MissingExtraError
from mutbert.files import locked
from mutbert.genome.store import ProbabilisticGenome
from mutbert.model import MutBertForMaskedLM, MutBertTokenizer
from mutbert.training.pretrain import pretrain
from mutbert.training.recipe import load_recipe
from mutbert.windows.batches import expand_batch
from mutbert.windows.dataset import WindowDataset
from mutbert.windows.sampler import WindowSampler
from mutbert.windows.splits import Part, select_regions
from mutbert.windows.tempering import Tempering


def assert_same_weights(first, second):
    first, second = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.fixture(scope="module")
def unbroken(write_recipe, tmp_path_factory):
    """One run that nothing interrupts, for the others to be compared with."""
    return pretrain(write_recipe(tmp_path_factory.mktemp("unbroken")))


def test_a_run_leaves_a_model_that_loads_and_its_table(unbroken):
    model = MutBertForMaskedLM.from_pretrained(unbroken.model)
    tokenizer = MutBertTokenizer.from_pretrained(unbroken.model)
    assert model(**tokenizer("ACGTN", return_tensors="pt")).logits.shape == (1, 7, 9)
    run = unbroken.model.parent
    written = json.loads((run / "held_out.json").read_text())
    assert written["steps"] == unbroken.steps == 6
    assert list(written["cross_entropy"]) == [
        "uniform", "base composition", "order-5 Markov chain", "model", "entropy floor"
    ]  # fmt: skip
    targets = written["targets"]
    assert targets["all"] == 24 * int(30 * 0.15)
    assert 0 < targets["variant"] < targets["all"] == targets["variant"] + targets["other"]
    assert sum(count for group, count in targets.items() if group.startswith("variant, ")) == targets["variant"]
    assert sum(entry["pairs"] for entry in written["calibration"]["all targets"]) == 4 * targets["all"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["checkpoint-4", "checkpoint-6"]
    assert list((run / "tensorboard").glob("events.*"))
    assert not list(run.rglob("training_args.bin"))
    assert not (run / ".writing").exists()
    steps = [entry["step"] for entry in unbroken.history if "eval_cross_entropy" in entry]
    assert steps == [3, 6]
    assert all(entry["grad_norm"] > 0 for entry in unbroken.history if "loss" in entry)
    assert unbroken.report == run / "report.html"
    page = unbroken.report.read_text()
    assert "order-5 Markov chain" in page
    assert f"{unbroken.held_out['model']['all']:.4f}" in page


def test_what_a_run_was_made_with_stands_beside_its_model_and_checkpoints(unbroken, genome):
    run = unbroken.model.parent
    recipe, provenance = ((run / name).read_text() for name in ("recipe.yaml", "provenance.json"))
    for folder in (unbroken.model, *(run / "checkpoints").iterdir()):
        assert (folder / "recipe.yaml").read_text() == recipe
        assert json.loads((folder / "provenance.json").read_text()) == json.loads(provenance)
    made = json.loads(provenance)
    assert made["versions"]["torch"] == torch.__version__
    assert made["genomes"] == {"small.genome": genome.identity}
    assert json.loads((unbroken.model / "genomes.json").read_text()) == {"genomes": {"small": genome.manifest}}


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
    found = [unbroken.held_out["model"][group] for group in ("all", "variant", "other")]
    assert found == pytest.approx(means, abs=1e-5)


def test_the_same_recipe_gives_the_same_model(unbroken, recipe_path):
    again = pretrain(recipe_path)
    assert_same_weights(again.model, unbroken.model)
    assert (again.model.parent / "held_out.json").read_text() == (unbroken.model.parent / "held_out.json").read_text()
    assert again.history == unbroken.history


def test_accumulated_batches_are_one_large_batch(write_recipe, tmp_path):
    """Every window has as many targets as any other, so the mean of means is the mean."""
    models = []
    for name, batch, accumulated in (("whole", 4, 1), ("parts", 2, 2)):
        (tmp_path / name).mkdir()
        settings = (
            f"training.per_device_train_batch_size={batch}",
            f"training.gradient_accumulation_steps={accumulated}",
        )
        dropout = ("model.hidden_dropout_prob=0.0", "model.attention_probs_dropout_prob=0.0")
        models.append(pretrain(write_recipe(tmp_path / name), [*settings, *dropout]))
    whole, parts = (load_file(model.model / "model.safetensors") for model in models)
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, parts[name], atol=2e-5, rtol=0)
    losses = [[entry["loss"] for entry in model.history if "loss" in entry] for model in models]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.slow
def test_killed_at_twenty_random_moments_nothing_torn_opens_and_the_resumed_run_equals_the_unbroken(
    write_recipe, recipe_path, tmp_path, monkeypatch
):
    # Several threads would do nothing here but wait for each other.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    processes = multiprocessing.get_context("forkserver")
    # The server imports the libraries once, those too that a run imports late; then a process is this run alone.
    processes.set_forkserver_preload(["mutbert.training.pretrain", "mutbert.reports.pretraining", "torch._dynamo"])
    first = processes.Process(target=time.sleep, args=(0,))
    first.start()
    first.join()
    longer = ["training.max_steps=40", "training.save_steps=2", "training.eval_steps=4", "training.warmup_steps=10"]
    moments = random.Random(5)

    # Measured once, so that the moments spread over a whole run on any machine.
    (tmp_path / "unbroken").mkdir()
    start = time.monotonic()
    whole = processes.Process(target=pretrain, args=(write_recipe(tmp_path / "unbroken"), longer))
    whole.start()
    whole.join()
    assert whole.exitcode == 0
    seconds = time.monotonic() - start

    run = tmp_path / "run"
    killed = 0
    fresh = True
    while killed < 20:
        settings = {"resume": not fresh, "force": fresh}
        process = processes.Process(target=pretrain, args=(recipe_path, longer), kwargs=settings)
        process.start()
        process.join(timeout=moments.uniform(0.05, 0.5) * seconds)
        process.kill()
        process.join()
        killed += process.exitcode != 0
        # A run that was finished is started anew; one that was not goes on where it was.
        fresh = not (run / "recipe.yaml").exists() or (run / "held_out.json").exists()
        if (run / "model").exists():
            MutBertForMaskedLM.from_pretrained(run / "model")
            assert (run / "model" / "recipe.yaml").exists()
        for checkpoint in (run / "checkpoints").glob("checkpoint-*[0-9]"):
            state = json.loads((checkpoint / "trainer_state.json").read_text())
            assert f"checkpoint-{state['global_step']}" == checkpoint.name
            MutBertForMaskedLM.from_pretrained(checkpoint)
            torch.load(checkpoint / "optimizer.pt", weights_only=True)
    last = processes.Process(target=pretrain, args=(recipe_path, longer), kwargs={"resume": not fresh, "force": fresh})
    last.start()
    last.join()
    assert last.exitcode == 0
    assert_same_weights(run / "model", tmp_path / "unbroken" / "run" / "model")
    for name in ("held_out.json", "history.json"):
        assert (run / name).read_text() == (tmp_path / "unbroken" / "run" / name).read_text()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hidden_sise=8", r"unknown key model\.hidden_sise; did you mean model\.hidden_size"),
        ("training.learning_rat=1", r"unknown key training\.learning_rat; did you mean training\.learning_rate"),
        ("training.seed=1", "give seed at the top"),
        ("training.save_strategy=best", "the best of all checkpoints is kept anyway"),
        ("training.label_smoothing_factor=0.1", "targets are distributions already"),
        ("training.save_only_model=true", "a run could not go on"),
        ("output=/proc/none/run", "cannot be made"),
        ("training.max_steps=0", "give the number of optimisation steps"),
        ("training.lr_scheduler_type=wavy", "training: "),
        ("model.hidden_size=15", "model: "),
        ("model.max_position_embeddings=20", "need 32"),
        ("window_length=5000", "no stretch of 5000 known bases"),
        ("held_out=[chr9]", "no such contig"),
        ("train=['chr2:1-100']", "share bases"),
        ("genome=absent.genome", "no such genome store"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(recipe_path, tmp_path, override, message):
    with pytest.raises(InputError, match=message) as caught:
        pretrain(recipe_path, [override])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_kept_unless_forced(recipe_path, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        pretrain(recipe_path)
    with pytest.raises(InputError, match=r"holds mine\.txt, which mutbert did not write"):
        pretrain(recipe_path, force=True)
    with pytest.raises(InputError, match="no run to resume"):
        pretrain(recipe_path, resume=True)
    assert (tmp_path / "run" / "mine.txt").exists()


def test_a_run_is_resumed_with_its_own_recipe_alone(recipe_path):
    pretrain(recipe_path, ["training.max_steps=2"])
    with pytest.raises(InputError, match=r"started with 'training\.learning_rate: 0\.001', the recipe now says 'train"):
        pretrain(recipe_path, ["training.max_steps=2", "training.learning_rate=0.5"], resume=True)


def test_a_finished_model_survives_a_failing_evaluation(recipe_path, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("the evaluation failed")

    monkeypatch.setattr(module, "evaluate_baselines", fail)
    with pytest.raises(RuntimeError, match="evaluation failed"):
        pretrain(recipe_path)
    MutBertForMaskedLM.from_pretrained(tmp_path / "run" / "model")


def test_a_run_that_goes_on_is_not_resumed_by_another(recipe_path, tmp_path):
    pretrain(recipe_path, ["training.max_steps=2"])
    with locked(tmp_path / "run"), pytest.raises(InputError, match="another process is writing"):
        pretrain(recipe_path, ["training.max_steps=2"], resume=True)


def test_without_matplotlib_there_is_no_report_and_the_run_says_so(recipe_path, monkeypatch, capsys):
    monkeypatch.setattr("builtins.__import__", _without_matplotlib(builtins.__import__))
    result = pretrain(recipe_path, ["training.max_steps=1"])
    assert result.report is None
    (note,) = result.notes
    assert "no report was written: matplotlib is not installed" in note
    assert note in capsys.readouterr().err
    assert not (result.model.parent / "report.html").exists()


def _without_matplotlib(original):
    def find(name, *arguments):
        if name.startswith("mutbert.reports"):
            raise MissingExtraError("matplotlib", "report")
        return original(name, *arguments)

    return find
