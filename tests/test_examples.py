"""Every public function has a docstring of NumPy's sections; examples run, those of classes too."""

import doctest
import inspect
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

import mutbert

INPUTS = Path(__file__).resolve().parent / "golden" / "inputs"
FUNCTIONS = [name for name in mutbert.__all__ if inspect.isfunction(getattr(mutbert, name))]
EXAMPLES = [name for name in mutbert.__all__ if ">>>" in (getattr(mutbert, name).__doc__ or "")]
NAMES = {"small.fa": "ref.fa", "small.vcf": "panel.vcf", "asked.vcf": "variants.vcf"}
SUITE = """version: 1
name: mine
title: What sequences are rich in
metric: mcc
files: ['{split}.csv']
tasks: [{name: rich, length: 50}]
protocols: {corrected: {finetune: {max_steps: 2}}}
"""
# These train, or draw with matplotlib.
SLOW = {"draw_mutagenesis", "finetune", "pretrain", "report", "report_benchmark", "run_benchmark"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files that the examples read."""
    root = tmp_path_factory.mktemp("examples")
    shutil.copytree(INPUTS, root, dirs_exist_ok=True)
    for source, name in NAMES.items():
        shutil.copy(INPUTS / source, root / name)
    mutbert.build_genome(root / "ref.fa", root / "population.genome", root / "panel.vcf")
    mutbert.MutBertForSequenceClassification.from_pretrained(root / "model").save_pretrained(root / "classifier")
    table = pl.read_csv(INPUTS / "table.csv").with_columns(label=(pl.col("label") == "rich").cast(int))
    table[:24].write_csv(root / "train.csv")
    table[24:].write_csv(root / "test.csv")
    rows = [line.split("\t")[:5] for line in (root / "variants.vcf").read_text().splitlines() if line[0] != "#"]
    snvs = [f"{c},{p},{ref},{alt}" for c, p, _, ref, alt in rows if {ref, alt} <= set("ACGT")]
    lines = [f"{snv},{at % 2}" for at, snv in enumerate(snvs)]
    (root / "labelled.csv").write_text("\n".join(["chrom,pos,ref,alt,label", *lines]))
    (root / "mine.yaml").write_text(SUITE)
    return root


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_has_every_section_and_parameter(name):
    function = getattr(mutbert, name)
    text = inspect.getdoc(function)
    sections = re.split(r"^(\w+)\n-+\n", text, flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True))
    wanted = {"Parameters", "Returns", "Raises", "Examples"}
    assert wanted - set(found) <= ({"Returns"} if inspect.signature(function).return_annotation is None else set())
    heads = re.findall(r"^(\w[\w, ]*?)(?: :.*)?$", found["Parameters"], re.MULTILINE)
    named = [word for head in heads for word in head.split(", ")]
    assert sorted(named) == sorted(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly if name in SLOW else ()) for name in EXAMPLES]
)
def test_an_example_runs(name, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    example = doctest.DocTestParser().get_doctest(
        getattr(mutbert, name).__doc__, {"mutbert": mutbert}, name, None, None
    )
    result = doctest.DocTestRunner(verbose=False).run(example)
    assert result.attempted
    assert not result.failed, capsys.readouterr().out
