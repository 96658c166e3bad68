"""The tutorial runs as written and finds the planted motif."""

import numpy as np
import pyarrow.parquet as pq
import pysam
import pytest

from mutbert.scoring.metrics import evaluate


def auroc(inside, score):
    return evaluate("binary", inside.astype(int), score, ["auroc"])["auroc"]


@pytest.mark.nightly
def test_scores_mutagenesis_and_tracks_find_the_motif(read_page, run_samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, _ = run_samples(read_page("docs/tutorial.md"))
    assert names["auroc"] > 0.95
    assert 0.2 < names["inside"].mean() < 0.5
    with pysam.VariantFile(str(tmp_path / "scored.vcf.gz")) as file:
        scores = [record.info["MUTBERT_LLR"][0] for record in file.fetch("chr1", 190_000, 200_000)]
    assert len(scores) == (tmp_path / "variants.vcf").read_text().count("\nchr1\t")
    assert np.isfinite(scores).all()
    table = pq.read_table(tmp_path / "region.parquet")
    worst = np.min([table[f"llr_{base}"].to_numpy() for base in "ACGT"], axis=0)
    assert auroc(names["in_site"][195_000:195_120], -worst) > 0.95
    # For tracks every eighth base is masked at once, and windows are not centred.
    assert auroc(names["in_site"][190_000:], -names["entropy"]) > 0.9
