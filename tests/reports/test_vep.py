"""The page of variant effects, made of its folder alone and read back."""

import json
import random
import re

import polars as pl
import pytest

from mutbert import ProbabilisticGenome, VepColumns, evaluate_variant_effects
from mutbert.effects.scores import ScoreSettings
from mutbert.reports.vep import write_page_of


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression"])
def made(request, tmp_path_factory, write_genome, model_folders):
    """A folder of each problem: SNVs of two groups, one with too few, and labels with characters of HTML."""
    folder, chance = tmp_path_factory.mktemp(request.param), random.Random(1)
    text = "".join(chance.choices("ACGT", k=600))
    genome = ProbabilisticGenome.open(write_genome(folder / "a.genome", {"chr1": text}))
    classes = {"binary": ["good", "bad <b>"], "multiclass": ["a", "b <i>", "c"], "regression": []}[request.param]
    rows = []
    for index in range(20, 580, 4):
        alt = "ACGT"[("ACGT".index(text[index]) + chance.randint(1, 3)) % 4]
        label = chance.choice(classes) if classes else str(chance.gauss(0, 1))
        rows.append(f"chr1,{index + 1},{text[index]},{alt},{label},{'few' if index == 20 else 'many'}")
    rows += ["chr1,20,N,A,VUS,many" if classes else "chr1,20,N,A,,many"]
    table = folder / "own & <table>.csv"
    table.write_text("\n".join(["chrom,pos,ref,alt,y,group", *rows]) + "\n")
    columns = VepColumns(label="y", group="group", exclude=("VUS",), positive=tuple(classes[1:]) * (len(classes) == 2))
    result = evaluate_variant_effects(
        f"one={model_folders['mutbert']}", genome, table, folder / "out",
        columns=columns if classes else VepColumns(effect="y", group="group"),
        settings=ScoreSettings(context=30, strands="forward"), resamples=50,
    )  # fmt: skip
    return folder / "out", json.loads(json.dumps(result))


def test_a_page_holds_everything_and_fetches_nothing(made, read_page):
    folder, result = made
    page, problem = read_page(folder / "report.html"), result["problem"]
    page.check_alone()
    assert "own & <table>.csv" in page.words
    assert len(page.drawings) == {"binary": 5, "regression": 3, "multiclass": 7}[problem]
    for part in result["parts"]:
        for row in part["rows"]:
            value, low, high = (row[f"{result['metrics'][0]}{end}"] for end in ("", "_low", "_high"))
            wanted = {row["predictor"], f"{value:z.3f}", f"{low:z.3f} to {high:z.3f}"}
            assert any(wanted <= set(cells) for table in page.tables for cells in table)
    assert all(one["description"] in page.words for one in result["predictors"].values())
    assert "1 of 141 rows are not used." in page.words


def test_the_folder_alone_makes_the_page(made, tmp_path, read_page):
    folder, result = made
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert write_page_of(folder) == folder / "report.html"
    assert (folder / "report.html").read_bytes() == before
    # What is not defined has a dash, and a part without numbers its reason.
    for part in result["parts"]:
        part["rows"] = [
            row | dict.fromkeys(set(row) - {"predictor", "model", "end", "missing"}) for row in part["rows"]
        ]
    result["parts"][0] |= {"rows": [], "why": "there is nothing"}
    (tmp_path / "vep.json").write_text(json.dumps(result))
    pl.read_parquet(folder / "scores.parquet").write_parquet(tmp_path / "scores.parquet")
    page = read_page(write_page_of(tmp_path))
    assert "Not measured: there is nothing." in page.words
    assert not re.search(r"\bnan\b", page.words)
