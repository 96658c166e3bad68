"""Suites are checked before they are run; the values of the shipped ones are among the frozen answers."""

import pytest

from mutbert.errors import InputError
from mutbert.evaluation.suites import load_suite
from mutbert.training.finetune_settings import FinetuneSettings


@pytest.mark.parametrize(
    ("family", "suite", "task", "tokens", "scaling"),
    [
        # 102 tokens with [CLS] and [SEP] cut the last of 101 bases.
        ("mutbert", "tfbs", "3", 102, None),
        ("mutbert", "nt", "H3K4me1", None, {"type": "dynamic", "factor": 2.0}),
        ("mutbert", "nt", "splice_sites_all", None, {"type": "dynamic", "factor": 1.5}),
        ("nt", "nt", "splice_sites_all", 110, None),
        ("dnabert2", "tfbs", "0", 30, None),
        ("cnn", "tfbs", "0", None, None),
    ],
)
def test_settings_of_a_task(family, suite, task, tokens, scaling):
    """Published is as published, corrected without what cuts sequences; the learning rate is the same."""
    loaded = load_suite(suite)
    rate, warmup = {"tfbs": (3e-5, 50), "nt": (1e-4, 100)}[suite]
    base = FinetuneSettings(
        learning_rate=1e-3 if family == "cnn" else rate, warmup_steps=warmup, eval_steps=200, epochs=3.0
    )
    published = {"max_tokens": tokens, "rope_scaling": scaling}
    assert loaded.settings_of(loaded.task(task), "published", family) == base.replace(**published)
    assert loaded.settings_of(loaded.task(task), "corrected", family) == base


OWN = """\
version: 1
name: own
title: One's own
metric: mcc
files: ["{task}-{split}.tsv"]
splits: {train: a, validation: b, test: c}
columns: {sequence: seq, label: y}
tasks:
  - {name: two, length: 8, classes: [neg, pos]}
  - {name: three, length: 8, problem: multiclass, classes: [x, y, z], metric: accuracy}
  - {name: number, length: 8, problem: regression, metric: spearman}
  - {name: any, length: 8, problem: multilabel, metric: auroc}
  - {name: each, length: 8, problem: token, classes: [i, o]}
protocols:
  corrected:
    validation: grouped
    validation_share: 0.2
    seeds: 2
    max_tokens: {dnabert2: 12}
    finetune: {learning_rate: 1e-3}
    by_family: {cnn: {learning_rate: 1, lora: {rank: 4}}}
"""


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "own.yaml"
        path.write_text(text)
        return load_suite(path)

    return load


def test_ones_own_suite(load):
    suite = load(OWN)
    assert [task.problem for task in suite.tasks] == ["binary", "multiclass", "regression", "multilabel", "token"]
    assert (suite.tasks[0].classes, suite.columns.label) == (("neg", "pos"), ("y",))
    assert suite.task_names == ["two", "three", "number", "any", "each"]
    assert suite.task("each") == suite.tasks[4]
    assert suite.settings_of(suite.tasks[0], "corrected", "dnabert2").max_tokens == 12
    settings = suite.settings_of(suite.tasks[0], "corrected", "cnn")
    assert (settings.learning_rate, settings.lora.rank, settings.max_tokens) == (1.0, 4, None)
    # What is written with results is the same suite.
    assert load(suite.as_yaml()) == suite
    protocol = suite.protocols["corrected"].with_overrides(["seeds=7", "finetune.lora.rank=2"])
    changed = suite.with_protocols({"corrected": protocol}).protocols["corrected"]
    assert (changed.seeds, changed.finetune.lora.rank) == (7, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", "version: Input should be 1"),
        ("metric: mcc", "metrik: mcc", "unknown key metrik; did you mean metric?"),
        ("seeds: 2", "seds: 2", "unknown key protocols.corrected.seds; did you mean protocols.corrected.seeds?"),
        ("{name: two,", "{name: two, lenght: 3,", "unknown key tasks.0.lenght; did you mean tasks.0.length?"),
        ("metric: spearman", "metric: mcc", "task number: metric is 'mcc'; regression problems are compared by"),
        ("metric: spearman", "metric: mse", "task number: metric is 'mse'; regression problems are compared by"),
        ("name: three", "name: two", "task two comes twice"),
        ("  corrected:", "  better:", "protocols.better"),
        ("validation: grouped", "validation: none", "validation: Input should be 'file', 'random' or 'grouped'"),
        ("validation_share: 0.2", "validation_share: 1", "validation_share: Input should be less than 1"),
        ("seeds: 2", "seeds: 0", "seeds: Input should be greater than or equal to 1"),
        ("name: own", "name: a/b", "name: String should match pattern"),
        ("learning_rate: 1e-3", "learning_rate: 0", "finetune.learning_rate"),
        # What would only be noticed in the middle of a run.
        ("{cnn: {learning_rate: 1,", "{cnn: {learnin_rate: 1,", "learnin_rate"),
        ("{dnabert2: 12}", "{dnabert2: few}", "max_tokens.dnabert2: Input should be a valid integer"),
        ("{task}-{split}", "{task}-{part}", "files: '{task}-{part}.tsv': expected {split}, perhaps {task}"),
        ("{task}-{split}", "{task}", "files: '{task}.tsv': expected {split}"),
        ("validation: b,", "dev: b,", "splits.dev"),
        (", test: c}", "}", "splits: name train and test, each differently"),
    ],
)  # fmt: skip
def test_a_suite_that_cannot_be_is_an_error_in_one_line(load, old, new, message):
    assert OWN.count(old) >= 1
    with pytest.raises(InputError) as caught:
        load(OWN.replace(old, new, 1))
    assert message in str(caught.value)
    assert "own.yaml: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_suite_needs_tasks_and_protocols(load):
    head, _, rest = OWN.partition("tasks:\n")
    for text in (head + "protocols:\n" + rest.partition("protocols:\n")[2], OWN.partition("protocols:\n")[0]):
        with pytest.raises(InputError, match="has no tasks or no protocols; add at least one of each"):
            load(text)
    with pytest.raises(InputError, match=r"tfsb: cannot be read .*come with the package: eqtl, nt, tfbs"):
        load_suite("tfsb")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric: auroc", "metric: pearson", "metric is 'pearson'; binary problems are compared by"),
        ("c: [1]", "c: [-1]", "Input should be greater than 0"),
        ("c: [1]", "c: []", "should have at least 1 item"),
        ("choose_c_on: test", "choose_c_on: train", "choose_c_on: Input should be 'validation' or 'test'"),
    ],
)
def test_an_eqtl_suite_that_cannot_be(load, old, new, message):
    text = """\
{version: 1, name: own, title: x, metric: auroc, files: [table.csv], eqtl: {tasks: [{name: all, from_distance: 0}],
 protocols: {corrected: {c: [1], choose_c_on: test, scores: decision, tissue: one-hot, special_tokens: true,
                         edges: lower}}}}
"""
    assert load(text).task_names == ["all"]
    with pytest.raises(InputError, match=message):
        load(text.replace(old, new))
