import json

import pytest

from mutbert import MutBertForMaskedLM, ProbabilisticGenome


@pytest.mark.slow
def test_the_demo_makes_everything_it_promises(demo):
    assert ProbabilisticGenome.open(demo / "population.genome", check=True).lengths == {"chr1": 2_000_000}
    MutBertForMaskedLM.from_pretrained(demo / "run" / "model")
    table = json.loads((demo / "run" / "metrics.json").read_text())
    assert table["steps"] == 4
    page = (demo / "report.html").read_text()
    for part in ("Frequency spectrum", "Training curve", "Held-out table", "Embeddings"):
        assert f"<h2>{part}</h2>" in page
    assert page.count("<svg") == 3
    assert f"{table['cross_entropy']['model']['all']:.4f}" in page
    # Namespaces are names, not addresses; there is no address at all.
    assert "http" not in page.replace("http://www.w3.org/", "")


@pytest.mark.slow
def test_the_demo_is_not_overwritten_unless_forced(demo, mutbert_here):
    done = mutbert_here("demo", "--output", demo, status=2)
    assert "exists already" in done.stderr
    assert len(done.stderr.splitlines()) == 1
