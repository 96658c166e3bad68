"""The shipped suites say what was published, each value of it; and one's own suite is checked before it is run."""

import pytest

from mutbert.errors import InputError
from mutbert.evaluation.suites import (
    FAMILIES,
    EqtlProtocol,
    load_suite,
    shipped_suites,
)
from mutbert.training.finetune_settings import FinetuneSettings

HISTONE = [f"H3K{mark}" for mark in ("27ac", "27me3", "36me3", "4me1", "4me2", "4me3", "9ac", "9me3")]
HISTONE = ["H2AFZ", *HISTONE, "H4K20me1"]
NT = {
    # Length, RoPE factor, tokens of Nucleotide Transformers, tokens of DNABERT-2.
    **dict.fromkeys(HISTONE, (1000, 2.0, 200, 256)),
    **dict.fromkeys(["enhancers", "enhancers_types"], (400, None, 70, 80)),
    **dict.fromkeys(["promoter_all", "promoter_no_tata", "promoter_tata"], (300, None, 60, 70)),
    **dict.fromkeys(["splice_sites_acceptors", "splice_sites_all", "splice_sites_donors"], (600, 1.5, 110, 140)),
}
THREE_CLASSES = {"enhancers_types", "splice_sites_all"}
PAPER = {
    # MCC of TFBS and NT in hundredths, AUROC of eQTL.
    "dnabert2": (67.92, 63.70, 0.590),
    "nt-500m-1000g": (57.89, 65.49, 0.607),
    "nt-500m-human": (56.36, 65.77, 0.610),
    "nt-2.5b-multi": (63.40, 67.27, None),
    "ntv2-50m": (56.82, 64.66, 0.599),
    "ntv2-100m": (58.95, 65.35, 0.593),
    "ntv2-250m": (63.17, 65.58, 0.603),
    "ntv2-500m": (65.63, 67.79, 0.613),
    "mutbert-ref": (67.82, 63.75, 0.611),
    "mutbert": (68.29, 65.82, 0.615),
    "mutbert-multi": (66.54, 65.48, 0.616),
}
SEQUENCE_SUITES = [("tfbs", name) for name in "01234"] + [("nt", name) for name in NT]


def task_of(suite, name):
    return next(task for task in load_suite(suite).tasks if task.name == name)


def test_there_are_three_suites_of_so_many_tasks():
    assert shipped_suites() == ["eqtl", "nt", "tfbs"]
    assert [task.name for task in load_suite("tfbs").tasks] == list("01234")
    assert sorted(task.name for task in load_suite("nt").tasks) == sorted(NT)
    assert len(load_suite("nt").tasks) == 18
    assert len(load_suite("eqtl").eqtl.tasks) == 3
    assert {name: load_suite(name).metric for name in shipped_suites()} == {"eqtl": "auroc", "nt": "mcc", "tfbs": "mcc"}


@pytest.mark.parametrize("name", list("01234"))
def test_tasks_of_tfbs(name):
    suite, task = load_suite("tfbs"), task_of("tfbs", name)
    assert (task.length, task.problem, task.classes, suite.metric_of(task)) == (101, "binary", ("0", "1"), "mcc")
    # 102 tokens with [CLS] and [SEP] cut the last of 101 bases.
    assert suite.max_tokens(task, "published", "mutbert") == task.length + 2 - 1
    assert [suite.max_tokens(task, "published", family) for family in ("nt", "ntv2", "dnabert2")] == [30, 30, 30]
    assert suite.max_tokens(task, "published", "cnn") is None
    assert {suite.max_tokens(task, "corrected", family) for family in FAMILIES} == {None}
    assert {suite.rope_scaling(task, protocol, "mutbert") for protocol in ("published", "corrected")} == {None}


@pytest.mark.parametrize("name", list(NT))
def test_tasks_of_nt(name):
    suite, task = load_suite("nt"), task_of("nt", name)
    length, factor, nt_tokens, dnabert_tokens = NT[name]
    assert task.length == length
    several = name in THREE_CLASSES
    assert (task.problem, task.classes) == (("multiclass", ("0", "1", "2")) if several else ("binary", ("0", "1")))
    assert suite.metric_of(task) == "mcc"
    tokens = [suite.max_tokens(task, "published", family) for family in ("nt", "ntv2", "dnabert2", "mutbert", "cnn")]
    assert tokens == [nt_tokens, nt_tokens, dnabert_tokens, None, None]
    assert {suite.max_tokens(task, "corrected", family) for family in FAMILIES} == {None}
    scaling = None if factor is None else {"type": "dynamic", "factor": factor}
    assert suite.rope_scaling(task, "published", "mutbert") == scaling
    # What was published is so many times what the model was trained for, and enough for the task.
    assert length + 2 <= 512 * (factor or 1)
    # The others have positions of their own; and corrected, as much as is needed.
    assert suite.rope_scaling(task, "published", "nt") is None
    assert suite.rope_scaling(task, "corrected", "mutbert") is None


@pytest.mark.parametrize(("suite", "rate", "warmup"), [("tfbs", 3e-5, 50), ("nt", 1e-4, 100)])
def test_published_settings_of_fine_tuning(suite, rate, warmup):
    protocol = load_suite(suite).protocols["published"]
    assert protocol.finetune == FinetuneSettings(
        method="full",
        learning_rate=rate,
        weight_decay=0.01,
        warmup_steps=warmup,
        epochs=3.0,
        max_steps=None,
        batch_size=32,
        eval_steps=200,
        strands="forward",
        reverse_complement=False,
        class_weights="none",
    )
    assert (protocol.finetune.lora.rank, protocol.finetune.lora.alpha, protocol.finetune.lora.dropout) == (8, 16, 0.05)
    assert (protocol.first_seed, protocol.seeds) == (42, 1)
    assert protocol.max_train_rows is None


@pytest.mark.parametrize("suite", ["tfbs", "nt"])
def test_corrected_differs_from_published_where_it_has_to_and_nowhere_else(suite):
    published, corrected = (load_suite(suite).protocols[name] for name in ("published", "corrected"))
    # The settings are the user's choice, and the same for both.
    assert corrected.finetune == published.finetune
    assert corrected.by_family == published.by_family
    assert (corrected.first_seed, corrected.seeds) == (1, 5)
    assert corrected.validation_share == published.validation_share == 0.1
    # A network without pre-training needs a rate of its own.
    assert corrected.settings_for("cnn").learning_rate == 1e-3
    assert corrected.settings_for("mutbert") == corrected.finetune


def test_validation_data():
    tfbs, nt = load_suite("tfbs"), load_suite("nt")
    assert {protocol.validation for protocol in tfbs.protocols.values()} == {"file"}
    assert dict(tfbs.splits) == {"train": "train", "validation": "dev", "test": "test"}
    assert nt.protocols["published"].validation == "random"
    assert nt.protocols["corrected"].validation == "grouped"
    assert dict(nt.splits) == {"train": "train", "test": "test"}


def test_the_eqtl_suite():
    suite = load_suite("eqtl")
    assert [(task.name, task.from_distance, task.to_distance) for task in suite.eqtl.tasks] == [
        ("0-30kb", 0, 30_000),
        ("30-100kb", 30_000, 100_000),
        ("100kb-", 100_000, None),
    ]
    assert suite.eqtl.length == 2048
    assert suite.eqtl.protocols["published"] == EqtlProtocol(
        c=(1, 5, 10),
        choose_c_on="test",
        scores="labels",
        tissue="number",
        special_tokens=False,
        edges="both",
        max_train_rows=5000,
        rope_factor=4.0,
        pooled_tokens=1536,
        first_seed=0,
        seeds=5,
    )


@pytest.mark.parametrize("model", list(PAPER))
def test_averages_of_the_paper(model):
    for suite, value, scale in zip(("tfbs", "nt", "eqtl"), PAPER[model], (100, 100, 1), strict=True):
        found = [row.value for row in load_suite(suite).paper if row.name == model]
        assert found == ([] if value is None else [pytest.approx(value / scale, abs=1e-12)])


def test_nothing_else_is_of_the_paper():
    for suite, count in (("tfbs", 11), ("nt", 11), ("eqtl", 10)):
        rows = load_suite(suite).paper
        assert len({row.name for row in rows}) == len(rows) == count
        assert {row.parameters for row in rows if row.name.startswith("mutbert")} == {85_656_585}


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
    assert [suite.metric_of(task) for task in suite.tasks] == ["mcc", "accuracy", "spearman", "auroc", "mcc"]
    assert suite.tasks[0].classes == ("neg", "pos")
    assert suite.columns.label == ("y",)
    protocol = suite.protocols["corrected"]
    assert suite.max_tokens(suite.tasks[0], "corrected", "dnabert2") == 12
    settings = protocol.settings_for("cnn")
    assert settings.learning_rate == 1.0
    assert settings.lora.rank == 4
    assert protocol.settings_for("nt").learning_rate == 1e-3
    assert suite.task_names == ["two", "three", "number", "any", "each"]
    assert suite.task("each") == suite.tasks[4]
    # What is written with results is the same suite.
    assert load(suite.as_yaml()) == suite
    changed = suite.with_protocols({"corrected": protocol.with_overrides(["seeds=7", "finetune.lora.rank=2"])})
    assert (changed.protocols["corrected"].seeds, changed.protocols["corrected"].finetune.lora.rank) == (7, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", "version: Input should be 1"),
        ("metric: mcc", "metrik: mcc", "metric is missing; add it"),
        ("seeds: 2", "seds: 2", "unknown key protocols.corrected.seds; did you mean protocols.corrected.seeds?"),
        ("{name: two,", "{name: two, lenght: 3,", "unknown key tasks.0.lenght; did you mean tasks.0.length?"),
        ("metric: spearman", "metric: mcc", "task number: metric is 'mcc'; metrics of regression problems are pearson"),
        ("metric: spearman", "metric: mse", "task number: metric is 'mse', where lower is better"),
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
        ("{task}-{split}", "{task}-{part}", "files: '{task}-{part}.tsv' contains other braces than {task} and {split}"),
        ("{task}-{split}", "{task}", "files: '{task}.tsv' has no {split}"),
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


def test_there_is_no_such_suite(tmp_path):
    with pytest.raises(InputError, match=r"tfsb: cannot be read .*come with the package: eqtl, nt, tfbs"):
        load_suite("tfsb")
    with pytest.raises(InputError, match="cannot be read"):
        load_suite(tmp_path)


def test_an_eqtl_suite_is_scored_by_what_two_classes_have(load):
    text = """\
version: 1
name: own
title: x
metric: {metric}
files: [table.csv]
eqtl:
  tasks: [{{name: all, from_distance: 0}}]
  protocols:
    corrected:
      {{c: [{c}], choose_c_on: {chosen}, scores: decision, tissue: one-hot, special_tokens: true, edges: lower}}
"""
    suite = load(text.format(metric="auroc", c="0.1", chosen="validation"))
    assert (suite.eqtl.protocols["corrected"].c, suite.task_names) == ((0.1,), ["all"])
    for metric, c, chosen, message in (
        ("pearson", 1, "test", "metric is 'pearson'; metrics of binary problems"),
        ("mcc", -1, "test", "Input should be greater than 0"),
        ("mcc", "", "test", "should have at least 1 item"),
        ("mcc", 1, "train", "choose_c_on: Input should be 'validation' or 'test'"),
    ):
        with pytest.raises(InputError, match=message):
            load(text.format(metric=metric, c=c, chosen=chosen))
