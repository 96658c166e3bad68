import json

from mutbert import MutBertForMaskedLM, ProbabilisticGenome


def test_the_demo_makes_everything_it_promises(demo):
    assert ProbabilisticGenome.open(demo / "population.genome", check=True).lengths == {"chr1": 2_000_000}
    MutBertForMaskedLM.from_pretrained(demo / "run" / "model")
    table = json.loads((demo / "run" / "metrics.json").read_text())
    assert table["steps"] == 4
    page = (demo / "report.html").read_text()
    for part in ("Frequency spectrum", "Training curve", "Held-out table", "Embeddings", "Explorer"):
        assert f"<h2>{part}</h2>" in page
    assert page.count("<svg") == 3
    assert '<a href="explorer.html">' in page
    assert "run/model" in (demo / "explorer.html").read_text()
    assert f"{table['cross_entropy']['model']['all']:.4f}" in page


def test_a_rerun_does_not_recommend_to_lose_checkpoints(demo, mutbert_here):
    assert any((demo / "run" / "checkpoints").iterdir())
    assert mutbert_here("demo", "-o", demo, status=2).stderr.endswith("exists already; choose another output\n")
