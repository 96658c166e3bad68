"""Alleles scored by a fine-tuned classifier, against `predict` of both windows, which are written out as text."""

import json

import numpy as np
import polars as pl
import pysam
import pytest
import torch

from mutbert import ScoreSettings, mutate_region, predict_table, score_alleles, score_variants
from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError
from mutbert.examples.table import Columns
from mutbert.inference.bases import PredictionSettings

CONTEXT = 30
OUTPUTS = {  # what the model is trained for, its labels, and what an output is by the columns of `predict`
    "binary": ("single_label_classification", ["no", "yes/sir"], lambda p: np.log(p[:, 1:] / p[:, :1])),
    "multiclass": ("single_label_classification", ["a", "b c", "b-c"], np.log),
    "multilabel": ("multi_label_classification", ["x", "y"], lambda p: np.log(p / (1 - p))),
    "regression": ("regression", ["log2 fold"], lambda p: p),
}
NAMES = {
    "binary": ["delta_yes_sir"], "multiclass": ["delta_a_0", "delta_b_c_1", "delta_b_c_2"],
    "multilabel": ["delta_x", "delta_y"], "regression": ["delta_log2_fold"],
}  # fmt: skip
# Contig, 1-based position, bases of REF, ALT (None: others): in the middle, at ends and beside N.
RECORDS = [
    ("chr1", 50, 1, None), ("chr1", 50, 3, None), ("chr1", 50, 1, "ACGTT"), ("chr1", 60, 5, ""), ("chr1", 1, 1, None),
    ("chr1", 399, 1, None), ("chr1", 600, 1, None), ("chr2", 299, 2, "TTTT"), ("chr2", 2, 1, "GGG"),
]  # fmt: skip


@pytest.fixture(scope="module")
def tuned(model_folders, peer_folders, tmp_path_factory):
    """Write a model's folder as fine-tuning does, with random weights."""

    def tuned(kind, problem, **settings):
        folder, encoder = tmp_path_factory.mktemp("tuned"), open_encoder((model_folders | peer_folders)[kind])
        torch.manual_seed(1)
        model = encoder.classifier(len(OUTPUTS[problem][1]), 0)
        torch.nn.init.normal_([one for one in model.modules() if isinstance(one, torch.nn.Linear)][-1].weight)
        model.config.problem_type, model.config.id2label = OUTPUTS[problem][0], dict(enumerate(OUTPUTS[problem][1]))
        model.config.input_settings = settings
        model.save_pretrained(folder)
        encoder.save_tokenizer(folder, None)
        return folder

    return tuned


@pytest.fixture(scope="module")
def records(contigs):
    found = []
    for name, at, length, alt in RECORDS:
        ref = contigs[name][at - 1 : at - 1 + length]
        others = ref.translate(str.maketrans("ACGT", "CATG"))
        found.append((name, at, ref, others if alt is None else ref[0] + alt[1:]))
    return found


def window_of(sequence, centre):
    start = min(max(centre - CONTEXT // 2, 0), len(sequence) - CONTEXT)
    return sequence[start : start + CONTEXT]


def changes(contigs, records, predicted):
    """What ``predicted(windows)`` has of each record's window with ALT, less that with REF."""
    windows = []
    for name, at, ref, alt in records:
        start, own = at - 1, contigs[name]
        same = alt[0] == ref[0]  # of an indel the first base stays
        first, removed, inserted = start + same, ref[same:], alt[same:]
        for bases in (removed, inserted):
            haplotype = own[:first] + bases + own[first + len(removed) :]
            windows.append(window_of(haplotype, first + len(bases) // 2))
    outputs = predicted(windows)
    return outputs[1::2] - outputs[::2]


def by_predict(folder, problem):
    def predicted(windows):
        frame = predict_table(folder, pl.DataFrame({"sequence": windows}), None, columns=Columns())["predictions"]
        return OUTPUTS[problem][2](frame.select("^(p|predicted)_.*$").to_numpy())

    return predicted


@pytest.mark.parametrize(
    ("kind", "problem", "strands"),
    [
        ("mutbert", "binary", "both"), ("mutbert", "multiclass", "forward"), ("mutbert", "multilabel", "both"),
        ("mutbert", "regression", "forward"), ("esm", "binary", "both"), ("ntv2-50m", "regression", "both"),
        ("dnabert2", "multiclass", "forward"), ("caduceus-ph", "binary", "forward"),
    ],
)  # fmt: skip
def test_scores_are_changes_of_predictions(tuned, contigs, genome, records, write, tmp_path, kind, problem, strands):
    folder = tuned(kind, problem, strands=strands)
    wanted = changes(contigs, records, by_predict(folder, problem))
    assert np.abs(wanted).max() > 1e-3
    found = score_alleles(folder, genome, records, settings=ScoreSettings(context=CONTEXT))
    assert found.columns[5:-1] == NAMES[problem]
    np.testing.assert_allclose(found.select(NAMES[problem]).to_numpy(), wanted, atol=2e-5)
    lines = [f"{name}\t{at}\t.\t{ref}\t{alt}\t.\t.\t." for name, at, ref, alt in sorted(records)]
    vcf = write(tmp_path / "in.vcf", [*lines, "chr2\t300\t.\tN\t<DEL>\t.\t.\t."])
    report = score_variants(folder, genome, vcf, tmp_path / "out.bcf", context=CONTEXT)
    assert (report.fields, report.missing, report.warnings) == (tuple(NAMES[problem]), {"symbolic": 1}, ())
    with pysam.VariantFile(str(report.output)) as file:
        rows = [[one.info[f"MUTBERT_{name}"][0] for name in report.fields] for one in list(file)[:-1]]
    np.testing.assert_allclose(rows, wanted[[records.index(one) for one in sorted(records)]], rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize(("kind", "problem"), [("mutbert", "multiclass"), ("esm", "binary")])
def test_mutagenesis_of_a_classifier(tuned, contigs, genome, tmp_path, kind, problem):
    folder = tuned(kind, problem, strands="both")
    found = mutate_region(folder, tmp_path / "x.parquet", genome=genome, region="chr1:394-402",
                          settings=PredictionSettings(context=CONTEXT))  # fmt: skip
    assert (found["positions"], found["unknown"], found["notes"]) == (9, 2, [])
    table = pl.read_parquet(tmp_path / "x.parquet")
    every = [("chr1", at, contigs["chr1"][at - 1], base) for at in range(394, 401) for base in "ACGT"]
    snvs = [one for one in every if one[2] != one[3]]
    wanted = dict(zip(snvs, changes(contigs, snvs, by_predict(folder, problem)), strict=True))
    for contig, at, ref, base in every:
        row = table.row(at - 394, named=True)
        values = [row[f"{name}_{base}"] for name in NAMES[problem]]
        np.testing.assert_allclose(values, wanted.get((contig, at, ref, base), 0), atol=2e-5)
    assert table.tail(2).select("^delta_.*$").to_numpy().size == np.isnan(table.select("^delta_.*$").to_numpy()).sum()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("mutbert", {"scores": ("distance",)}, "leave out --scores and --windows"),
        ("mutbert", {"windows": "shared"}, "leave out --scores and --windows"),
        ("mutbert", {"context": 63}, "63 bases has 65 tokens, and the model reads 64; use a smaller --context"),
        ("mutbert", {"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling of its training"),
        ("mutbert", {"frequency_field": "AF"}, "a classifier has no LLR"),
        ("esm", {"surroundings": "population"}, "reads tokens; choose reference surroundings"),
    ],
)
def test_what_a_classifier_has_not_is_one_line(tuned, genome, write, lines, tmp_path, kind, settings, message):
    folder, vcf = tuned(kind, "binary"), write(tmp_path / "in.vcf", lines(5))
    with pytest.raises(InputError, match=message):
        score_variants(folder, genome, vcf, tmp_path / "out.tsv", **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]


def test_what_differs_from_the_training_is_said(tuned, genome, write, lines, tmp_path):
    vcf, folder = write(tmp_path / "in.vcf", lines(5)), tuned("mutbert", "binary", strands="both", max_tokens=42)
    report = score_variants(folder, genome, vcf, tmp_path / "out.tsv", strands="forward", table=tmp_path / "x.tsv")
    assert report.warnings == ("strands is forward, and both in training",)
    score_variants(folder, genome, vcf, tmp_path / "out.vcf", flank=2)
    plan = next(line for line in (tmp_path / "out.vcf").read_text().splitlines() if line.startswith("##mutbert_score"))
    settings = json.loads(plan.partition("=")[2])["settings"]
    assert (settings["context"], settings["strands"]) == (40, "both")
