"""Suites of labelled variants and probes: tables of the published columns, metrics by hand, and a motif to find."""

import random
import re

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from mutbert import GridRequest, ProbabilisticGenome, evaluate_variant_effects, run_benchmark
from mutbert.effects.alleles import find_alleles
from mutbert.effects.scores import ScoreSettings, TokenScorer, open_scorer
from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError
from mutbert.evaluation.suites import load_suite
from mutbert.evaluation.vep_probe import embed, probe
from mutbert.model import MutBertConfig, MutBertForMaskedLM

MOTIF, CHROMOSOMES, A_CHROMOSOME = "TGACGTCACGATTAC", 4, 60
# Seven bases of the motif, and three that are random, on either side.
SETTINGS = ScoreSettings(context=21, flank=0, strands="forward")


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_genome):
    """Variants with the columns of TraitGym, a third of which destroy a motif, and their genome."""
    chance, rows, contigs = random.Random(5), [], {}
    for chrom in map(str, range(1, CHROMOSOMES + 1)):
        letters = chance.choices("ACGT", k=95 * A_CHROMOSOME + 100)
        for number in range(A_CHROMOSOME):
            at, label = 50 + 95 * number, number % 3 == 0
            letters[at] = "A"
            if label:
                letters[at - 7 : at + 8] = MOTIF
            consequence = ("5_prime_UTR_variant", "PLS")[number % 2]
            rows.append((chrom, at + 1, "A", chance.choice("CGT"), "OMIM", consequence, label, 9, f"PLS_{number // 3}"))
        contigs[f"chr{chrom}"] = "".join(letters)
    columns = ("chrom", "pos", "ref", "alt", "OMIM", "consequence", "label", "tss_dist", "match_group")
    folder = write_genome(tmp_path_factory.mktemp("a") / "a.genome", contigs)
    return pl.DataFrame(rows, columns, orient="row"), ProbabilisticGenome.open(folder)


@pytest.fixture(scope="module")
def model(model_folders, tmp_path_factory):
    """A folder of a model with random weights, wide enough for a linear function to single out a motif."""
    config = MutBertConfig.from_pretrained(model_folders["mutbert"], hidden_size=64, intermediate_size=64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MutBertForMaskedLM(config).save_pretrained(folder := tmp_path_factory.mktemp("model") / "wide")
    return folder


def by_chromosome(chroms, labels, scores):
    """Return the area and the number of positives of each chromosome."""
    own = [chroms == chrom for chrom in np.unique(chroms)]
    return np.array([(average_precision_score(labels[one], scores[one]), labels[one].sum()) for one in own]).T


def test_the_mean_over_chromosomes_and_a_planted_motif(tmp_path, made, model):
    (table := tmp_path / "mendelian_traits_matched_9" / "test.parquet").parent.mkdir()
    made[0].write_parquet(table)
    how = {"suite": "traitgym-mendelian", "probe": True, "settings": SETTINGS, "resamples": 50}
    result = evaluate_variant_effects(f"nt-2.5b-multi={model}", made[1], tmp_path, tmp_path / "out", **how)
    scores = pl.read_parquet(tmp_path / "out" / "scores.parquet")
    assert result["metrics"] == ["auprc_by_chrom", "auroc", "auprc"]
    assert [part["name"] for part in result["parts"]] == ["all variants", "5_prime_UTR_variant", "PLS"]
    for part in result["parts"]:
        inside = scores.filter(pl.lit(part["name"] == "all variants") | (pl.col("group") == part["name"]))
        chroms, labels = inside["chrom"].to_numpy(), inside["target"].to_numpy()
        for row in part["rows"]:
            values = inside[row["predictor"]].to_numpy() * (1 if row["end"] == "high" else -1)
            area_C, positives_C = by_chromosome(chroms, labels, values)
            found = [row[f"auprc_by_chrom{end}"] for end in ("_low", "", "_high")]
            assert [found[1], row["alone"]] == pytest.approx([np.average(area_C, weights=positives_C)] * 2, abs=1e-9)
            assert (np.diff([area_C.min(), *found, area_C.max()]) > -1e-9).all()
    rows = {row["predictor"]: row for row in result["parts"][0]["rows"]}
    assert rows["nt-2.5b-multi probe"]["auprc_by_chrom"] > 0.9 > rows["nt-2.5b-multi LLR"]["auprc_by_chrom"]
    assert "4 folds of chromosomes" in result["predictors"]["nt-2.5b-multi probe"]["description"]
    page = re.sub("<td>–</td>", "", (tmp_path / "out" / "report.html").read_text())
    assert "<td>GPN-MSA LLR (published)</td><td>0.694</td>" in page
    assert re.search("<tr><td>nt-2.5b-multi LLR</td>.*<td>0.120</td><td>0</td>", page)


def test_a_probe_learns_from_other_chromosomes_alone(made, model):
    """With random labels it is at chance; and what it predicts of a chromosome does not depend on its labels."""
    table, genome = made
    alleles = find_alleles(genome, *(column.to_list() for column in table[:, :4]))
    scorer, rng = open_scorer(model, genome, settings=SETTINGS), np.random.default_rng(2)

    def predict(labels, alleles=alleles):
        found, notes = probe("m", scorer, alleles, pl.Series(labels), "binary", "auprc", lambda *_: None)
        return found["m probe"].values if found else notes

    chroms, labels = table["chrom"].to_numpy(), rng.permutation(table["label"].to_numpy())
    scores = predict(labels)
    area_C, positives_C = by_chromosome(chroms, labels, scores)
    error = area_C.std(ddof=1) / np.sqrt(CHROMOSOMES)
    assert np.average(area_C, weights=positives_C) == pytest.approx(labels.mean(), abs=3 * error)
    other, first = labels.copy(), chroms == "1"
    other[first] = rng.permutation(labels[first])
    again = predict(other)
    np.testing.assert_array_equal(again[first], scores[first])
    assert (again[~first] != scores[~first]).all()
    (note,) = predict(labels[first], alleles[first])
    need = "m probe is left out: it needs 3 folds of whole chromosomes, each with 5 variants of either class; "
    assert note == f"{need}there are 1, the smallest with {labels[first].sum()}."
    assert predict(np.arange(len(labels)) % 20 == 0) == [f"{need}there are 4, the smallest with 3."]


@pytest.mark.parametrize("name", ["mutbert", "dnabert2", "nt-500m-1000g", "ntv2-50m", "caduceus-ph", "caduceus-ps"])
def test_embeddings_of_every_model_are_those_of_its_distances(name, made, model_folders, peer_folders):
    folder, settings = (model_folders | peer_folders)[name], ScoreSettings(scores=("distance",), context=24, flank=0)
    make, given = (open_scorer, folder) if name == "mutbert" else (TokenScorer, open_encoder(folder))
    scorer = make(given, made[1], settings=settings)
    alleles = find_alleles(made[1], *(column.to_list() for column in made[0][:12, :4]))
    state_2AKD = embed(scorer, alleles, [0, scorer.model.config.num_hidden_layers], lambda *_: None)
    distance_AK = np.linalg.norm(state_2AKD[1] - state_2AKD[0], axis=2)
    np.testing.assert_allclose(distance_AK[:, 1], scorer.score(alleles)[:, list(scorer.fields).index("L2")], rtol=1e-4)
    assert (np.abs(np.diff(distance_AK)) > 1e-3).any()


def test_ones_own_suite_of_a_vcf_from_clinvar(tmp_path, made, model):
    rows = made[0][:40].select("chrom", "pos", "ref", "alt", "label", "consequence").iter_rows()
    line = "{}\t{}\t.\t{}\t{}\t.\t.\tCLNSIG={};MC={}".format
    lines = [line(*site, "Pathogenic" if label else "Benign", consequence) for *site, label, consequence in rows]
    head = [f'##INFO=<ID={name},Number=1,Type=String,Description="">' for name in ("CLNSIG", "MC")]
    head += ["##contig=<ID=1>", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    (tmp_path / "sites.vcf").write_text("\n".join(["##fileformat=VCFv4.2", *head, *lines, ""]))
    (own := tmp_path / "own.yaml").write_text(
        "{base: clinvar, name: own, files: [sites.vcf], vep: {columns: {label: CLNSIG, group: MC}}}"
    )
    how = {"suite": own, "settings": SETTINGS, "resamples": 20}
    result = evaluate_variant_effects(model, made[1], tmp_path, tmp_path / "out", **how)
    assert (result["metrics"], result["classes"]) == (["auroc", "auprc"], ["Benign", "Pathogenic"])
    assert [part["name"] for part in result["parts"]] == ["all variants", "5_prime_UTR_variant", "PLS"]
    scores = pl.read_parquet(tmp_path / "out" / "scores.parquet")
    expected = roc_auc_score(scores["target"], -scores["wide LLR"])
    assert result["parts"][0]["rows"][0]["auroc"] == pytest.approx(expected)


def test_suites_of_other_commands_and_files_that_are_not_there(tmp_path, made, model):
    assert load_suite("traitgym-complex").vep == load_suite("traitgym-mendelian").vep
    with pytest.raises(InputError, match="use mutbert bench vep --suite clinvar"):
        run_benchmark(tmp_path, GridRequest(suites="clinvar"))
    for suite, place, words in (
        ("tfbs", None, "is none of labelled variants; use mutbert bench run"), (None, None, "or --suite NAME"),
        ("clinvar", tmp_path, "has none of test.parquet; name the folder of the clinvar files by --variants"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            evaluate_variant_effects(model, made[1], place, tmp_path / "x", suite=suite)
