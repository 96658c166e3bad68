"""Alleles scored by a fine-tuned classifier, against `predict` of both windows, which are written out as text."""

import numpy as np
import polars as pl
import pysam
import pytest
import torch

from mutbert import ScoreSettings, mutate_region, predict_table, score_all_snvs, score_alleles, score_variants
from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError
from mutbert.examples.table import Columns
from mutbert.inference.bases import PredictionSettings

CONTEXT = 30
OF_CLASSES = "single_label_classification"
# Problem, labels, names of columns, and what is scored by the columns of `predict`.
OUTPUTS = {
    "binary": (OF_CLASSES, ["no", "yes/sir"], ["delta_yes_sir"], lambda p: np.log(p[:, 1:] / p[:, :1])),
    "multiclass": (OF_CLASSES, ["a", "b c", "b-c"], ["delta_a_0", "delta_b_c_1", "delta_b_c_2"], np.log),
    "multilabel": ("multi_label_classification", ["x", "y"], ["delta_x", "delta_y"], lambda p: np.log(p / (1 - p))),
    "regression": ("regression", ["log2 fold"], ["delta_log2_fold"], lambda p: p),
}
# Contig, 1-based position, bases of REF, ALT (None: others): in the middle, at ends and next to N.
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


def changes(folder, problem, contigs, records):
    """What `predict` has for each record's window with ALT, less that with REF."""
    windows = []
    for name, at, ref, alt in records:
        sequence, same = contigs[name], alt[0] == ref[0]  # of an indel the first base stays
        first = at - 1 + same
        for bases in (ref[same:], alt[same:]):
            haplotype = sequence[:first] + bases + sequence[at - 1 + len(ref) :]
            start = first + len(bases) // 2 - CONTEXT // 2
            start = min(max(start, 0), len(haplotype) - CONTEXT)
            windows.append(haplotype[start : start + CONTEXT])
    frame = predict_table(folder, pl.DataFrame({"sequence": windows}), None, columns=Columns())["predictions"]
    outputs = OUTPUTS[problem][3](frame.select("^(p|predicted)_.*$").to_numpy())
    return outputs[1::2] - outputs[::2]


@pytest.mark.parametrize(
    ("kind", "problem", "strands"),
    [
        ("mutbert", "binary", "both"), ("mutbert", "multiclass", "forward"), ("mutbert", "multilabel", "both"),
        ("mutbert", "regression", "forward"), ("esm", "binary", "both"), ("ntv2-50m", "regression", "both"),
        ("dnabert2", "multiclass", "forward"), ("caduceus-ph", "binary", "forward"),
    ],
)  # fmt: skip
def test_scores_are_changes_of_predictions(tuned, contigs, genome, write, tmp_path, kind, problem, strands):
    folder, names, records = tuned(kind, problem, strands=strands), OUTPUTS[problem][2], []
    for contig, at, length, alt in sorted(RECORDS, key=lambda one: one[:2]):
        ref = contigs[contig][at - 1 : at - 1 + length]
        others = ref.translate(str.maketrans("ACGT", "CATG"))
        records.append((contig, at, ref, others if alt is None else ref[0] + alt[1:]))
    wanted = changes(folder, problem, contigs, records)
    assert np.abs(wanted).max() > 1e-3
    found = score_alleles(folder, genome, records, settings=ScoreSettings(context=CONTEXT))
    assert found.columns[5:-1] == names
    np.testing.assert_allclose(found.select(names).to_numpy(), wanted, atol=2e-5)
    lines = [f"{contig}\t{at}\t.\t{ref}\t{alt}\t.\t.\t." for contig, at, ref, alt in records]
    vcf = write(tmp_path / "in.vcf", [*lines, "chr2\t300\t.\tN\t<DEL>\t.\t.\t."])
    report = score_variants(folder, genome, vcf, tmp_path / "out.bcf", context=CONTEXT)
    assert (report.fields, report.missing, report.warnings) == (tuple(names), {"symbolic": 1}, ())
    with pysam.VariantFile(str(report.output)) as file:
        rows = [[one.info[f"MUTBERT_{name}"][0] for name in names] for one in list(file)[:-1]]
    np.testing.assert_allclose(rows, wanted, rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize(("kind", "problem"), [("mutbert", "multiclass"), ("esm", "binary")])
def test_mutagenesis_of_a_classifier(tuned, contigs, genome, tmp_path, kind, problem):
    folder, settings = tuned(kind, problem, strands="both"), PredictionSettings(context=CONTEXT)
    for wrong in ("strands", "precision"):
        with pytest.raises(InputError, match=f"{wrong} is 'x'; it must be one of"):
            mutate_region(folder, tmp_path / "x.parquet", genome=genome, region="chr1:394-402",
                          settings=PredictionSettings(**{wrong: "x"}))  # fmt: skip
    report = mutate_region(folder, tmp_path / "x.parquet", genome=genome, region="chr1:394-402", settings=settings)
    assert (report["positions"], report["unknown"], report["notes"]) == (9, 2, [])
    table = pl.read_parquet(tmp_path / "x.parquet")
    assert table.tail(2).select(pl.col("^delta_.*$").is_nan()).to_numpy().all()
    every = [(at, contigs["chr1"][at - 1], base) for at in range(394, 401) for base in "ACGT"]
    snvs = [("chr1", *one) for one in every if one[1] != one[2]]
    wanted = dict(zip(snvs, changes(folder, problem, contigs, snvs), strict=True))
    for at, ref, base in every:
        values = [table[f"{name}_{base}"][at - 394] for name in OUTPUTS[problem][2]]
        np.testing.assert_allclose(values, wanted.get(("chr1", at, ref, base), 0), atol=2e-5)


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
    with pytest.raises(InputError, match="a classifier takes a forward pass an alternate; use --vcf, or mutbert muta"):
        score_all_snvs(folder, genome, tmp_path / "out.tsv", context=20)
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]


def test_windows_are_as_long_as_in_training_and_what_differs_is_noted(tuned, genome, write, lines, tmp_path):
    vcf, folder = write(tmp_path / "in.vcf", lines(5)), tuned("mutbert", "binary", strands="both", max_tokens=42)
    report = score_variants(folder, genome, vcf, tmp_path / "out.vcf", strands="forward")
    assert report.warnings == ("strands is forward, and both in training",)
    assert '"context": 40' in report.output.read_text()
