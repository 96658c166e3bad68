"""Suites are checked before they are run; the values of the shipped ones are among the frozen answers."""

import pytest

from mutbert.errors import InputError
from mutbert.evaluation.suites import load_suite
from mutbert.training.recipe import FinetuneSettings


@pytest.mark.parametrize(
    ("family", "suite", "task", "tokens", "scaling"),
    [
        # 102 tokens with [CLS] and [SEP] cut the last of 101 bases.
        ("mutbert", "tfbs", "3", 102, None),
        ("mutbert", "nt", "splice_sites_all", None, {"type": "dynamic", "factor": 1.5}),
        ("nt", "nt", "splice_sites_all", 110, None),
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
    assert loaded.settings_of(loaded.by_name[task], "published", family) == base.replace(**published)
    assert loaded.settings_of(loaded.by_name[task], "corrected", family) == base


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
paper: [{model: One, name: one, value: 0.5, parameters: 8}]
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
    assert suite.settings_of(suite.tasks[0], "corrected", "dnabert2").max_tokens == 12
    settings = suite.settings_of(suite.tasks[0], "corrected", "cnn")
    assert (settings.learning_rate, settings.lora.rank, settings.max_tokens) == (1.0, 4, None)
    # What is written with results is the same suite.
    assert load(suite.as_yaml()) == suite


EQTL = """\
{version: 1, name: own, title: x, metric: auroc, files: [table.csv],
 eqtl: {length: 40, tasks: [{name: all, from_distance: 0}], protocols: {corrected: {
   c: [1], choose_c_on: test, scores: decision, tissue: one-hot, special_tokens: true, edges: lower}}}}
"""
VEP = """\
{version: 1, name: own, title: x, metric: auprc_by_chrom, files: [table.csv], vep: {columns: {label: y}, probe: true},
 paper: [{model: One, name: one, score: LLR, value: 0.5}]}
"""


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (OWN, "seeds: 2", "seds: 2", "unknown key protocols.corrected.seds; did you mean protocols.corrected.seeds?"),
        (OWN, "{name: two,", "{name: two, lenght: 3,", "unknown key tasks.0.lenght; did you mean tasks.0.length?"),
        (OWN, "metric: spearman", "metric: mcc", "task number: metric is 'mcc'; regression problems are compared by"),
        (OWN, "name: three", "name: two", "task two comes twice"),
        (OWN, "  corrected:", "  better:", "protocols.better"),
        (OWN, "name: own", "name: a/b", "name: String should match pattern"),
        # What would only be noticed in the middle of a run.
        (OWN, "{cnn: {learning_rate: 1,", "{cnn: {learnin_rate: 1,", "learnin_rate"),
        (OWN, "{task}-{split}", "{task}-{part}", "files: '{task}-{part}.tsv': expected {split}, perhaps {task}"),
        (OWN, ", test: c}", "}", "splits: name train and test, each differently"),
        (OWN, "value: 0.5", "value: good", "a row has a model, its name, its value and its parameters"),
        (OWN, OWN.partition("protocols:")[2], " {}", "has no tasks or no protocols; add at least one of each"),
        (EQTL, "metric: auroc", "metric: pearson", "metric is 'pearson'; binary problems are compared by"),
        (EQTL, "c: [1]", "c: [-1]", "Input should be greater than 0"),
        (VEP, "metric: auprc_by_chrom", "metric: mcc", "metric is 'mcc'; variants are compared by auroc, "),
        (VEP, "label: y", "lable: y", "Input should be 'label', 'positive', "),
        (VEP, "score: LLR, ", "", "a row has a model, its name, its value and its score"),
        (EQTL, "length: 40", "columns: {contg: CHR}", "Input should be 'contig', 'position', "),
    ],
)  # fmt: skip
def test_a_suite_that_cannot_be_is_an_error_in_one_line(load, text, old, new, message):
    assert load(text).name == "own"
    with pytest.raises(InputError) as caught:
        load(text.replace(old, new, 1))
    assert message in str(caught.value)
    assert "own.yaml: " in str(caught.value)
    assert "\n" not in str(caught.value)
