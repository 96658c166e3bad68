"""The page of `mutbert.explore`: its data against genome, tracks and scores; and in Chromium, without a network."""

import base64
import gzip
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest

import mutbert
from mutbert import ProbabilisticGenome, alphabet
from mutbert.inference.bases import PredictionSettings

HOSTILE = '<img/src=x/onerror="document.title=1">'
LETTERS = "ACGTTGCAATGNRCTA" * 40
GENES = "##gff-version 3\n22\tx\tgene\t{0}\t{1}\t.\t+\t.\tID=g;Name=GENE{2}\n9\tx\tgene\t1\t9\t.\t+\t.\tID=far\n"


def unpack(text, dtype=None):
    raw = gzip.decompress(base64.b64decode(text))
    return raw.decode() if dtype is None else np.frombuffer(raw, dtype)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_genome, model_folders):
    """A folder with a genome, a VCF of variants in it, scored by the model, with names that try to be HTML; genes."""
    folder = tmp_path_factory.mktemp("explorer")
    shutil.copytree(model_folders["mutbert"], folder / "model")
    varying = {20: [0.75, 0.25, 0, 0], 21: [0.1, 0.2, 0.3, 0.4], 300: [0, 0.5, 0, 0.5]}
    write_genome(folder / "small.genome", {"chr22": LETTERS, f"b:{HOSTILE}": LETTERS[:200]}, {"chr22": varying})
    rows = [(pos, HOSTILE if pos == 30 else f"rs{pos}", LETTERS[pos - 1]) for pos in range(25, 600, 5)]
    lines = [f"22\t{pos}\t{name}\t{ref}\t{'<DEL>' if pos == 45 else 'A,T'}\t.\t.\t." for pos, name, ref in rows]
    head = "##fileformat=VCFv4.2\n##contig=<ID=22>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (folder / "asked.vcf").write_text(head + "\n".join(lines) + "\n")
    for name in ("scored.vcf.gz", "scored.vcf", "scored.parquet"):
        mutbert.score_variants(folder / "model", folder / "small.genome", folder / "asked.vcf", folder / name)
    (folder / "genes.gff3").write_text(GENES.format(101, 300, HOSTILE))
    return folder


def test_a_page_has_the_genome_and_what_tracks_predict(made, tmp_path):
    genome, settings = ProbabilisticGenome.open(made / "small.genome"), PredictionSettings(context=40)
    where = {"regions": ["22:11-60", "chr22:401-450"], "settings": settings}
    page = tmp_path / "page.html"
    found = mutbert.explore(genome, page, model=made / "model", annotation=made / "genes.gff3", **where)
    assert (found["bases"], found["variants"], found["annotation"]) == (100, 2, 0)
    tracks = mutbert.write_tracks(
        made / "model", genome, tmp_path / "x.bedgraph", tracks=["entropy", "best_alternate_llr"], **where
    )["outputs"]
    data = data_of(page)
    for region, start in zip(data["regions"], (10, 400), strict=True):
        frequencies = np.array([data["codes"][letter] for letter in unpack(region["sequence"])])
        frequencies[unpack(region["position"], "<u4")] = unpack(region["frequency"], "<u2").reshape(-1, 4) / 65535
        np.testing.assert_allclose(frequencies, genome.frequencies("chr22", start, start + 50), atol=1e-7)
        cost_L4 = unpack(region["probability"], "<u2").reshape(-1, 4) * np.float64(data["unit"])
        unknown = genome.bases("chr22", start, start + 50) == alphabet.UNKNOWN
        assert (cost_L4[unknown] == data["missing"] * data["unit"]).all()
        reference_L4 = genome.reference().frequencies("chr22", start, start + 50) == 1
        ratio = cost_L4[reference_L4] - np.where(reference_L4, np.inf, cost_L4).min(axis=1)[reference_L4.any(axis=1)]
        entropy = (np.exp(-cost_L4) * cost_L4).sum(axis=1)[~unknown]
        for name, values in (("entropy", entropy), ("best_alternate_llr", ratio)):
            position, value = np.loadtxt(tracks[name], skiprows=1, usecols=(1, 3)).T
            np.testing.assert_allclose(values, value[(position >= start) & (position < start + 50)], atol=2e-3)


@pytest.mark.parametrize("vcf", ["scored.vcf.gz", "scored.vcf"])
def test_a_page_has_the_scores_of_a_vcf(made, tmp_path, vcf):
    page, table = tmp_path / "page.html", pl.read_parquet(made / "scored.parquet")
    for regions in ((), ("chr22:100-300",)):
        found = mutbert.explore(made / "small.genome", page, vcf=made / vcf, regions=regions, force=True)
        assert regions or str(found["regions"][0]) == "chr22:1-640"
        rows = table.filter(pl.col("pos").is_between(100, 300)) if regions else table
        variants, start = data_of(page)["variants"], 0
        assert (unpack(variants["position"], "<u4") + 1 - start).tolist() == rows["pos"].to_list()
        for column, name in (("ID", "id"), ("ref", "ref"), ("alt", "alt"), ("why", "why")):
            assert unpack(variants[column]).split("\n") == rows[name].fill_null("").to_list()
        for name, packed in variants["scores"]:
            np.testing.assert_allclose(unpack(packed, "<f4"), rows[name].fill_null(np.nan), rtol=1e-5)
    mutbert.explore(made / "small.genome", page, vcf=made / vcf, regions="chr22:601-620", force=True)
    assert data_of(page)["variants"]["count"] == 0


def test_names_cannot_be_html(made, tmp_path):
    """No name ends the page's data, and only its own scripts have the number without which none runs."""
    page = tmp_path / "page.html"
    mutbert.explore(made / "small.genome", page, vcf=made / "scored.vcf", annotation=made / "genes.gff3")
    assert unpack(data_of(page)["annotation"]["text"]).startswith("chr22\tx\tgene\t101\t300\t")
    mutbert.explore(made / "small.genome", tmp_path / "other.html", regions=[f"b:{HOSTILE}:1-50"])
    text = (tmp_path / "other.html").read_text()
    assert "<img" not in text
    assert re.fullmatch(r"[\w.*|-]+", data_of(tmp_path / "other.html")["regions"][0]["name"])
    assert len(re.findall("<script", text)) == 3
    (nonce,) = set(re.findall(r"nonce[=-]\W?(\w{32})", text))
    assert nonce not in page.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "x.pdf"}, "x.pdf: the page is HTML"),
        ({"vcf": "asked.vcf"}, "asked.vcf: has no scores .* score it first"),
        ({"mask_every": -1}, "mask_every is -1"),
        ({"annotation": "genes.bed"}, "genes.bed: the suffix names the format"),
        ({"annotation": "odd.gtf"}, "odd.gtf, line 2: expected nine columns"),
        ({"annotation": "far.gtf"}, "far.gtf: its contigs .9. are none of the genome's"),
        ({"regions": "chr22:1-9999"}, "not within chr22:1-640"),
    ],
)
def test_mistakes(made, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(made)
    (made / "odd.gtf").write_text("# one\n22\tx\tgene\tone\t2\t.\t+\t.\tx\n")
    (made / "far.gtf").write_text("9\tx\tgene\t1\t2\t.\t+\t.\tx\n")
    with pytest.raises(mutbert.InputError, match=message):
        mutbert.explore("small.genome", **{"output": tmp_path / "page.html", **options})


def test_too_long_a_region_has_a_remedy(tmp_path):
    genome = ProbabilisticGenome.from_sequences([("long", np.zeros(1_200_000, np.uint8), [])])
    with pytest.raises(mutbert.InputError, match=r"1,200,000 bases are too many .* --region long:1-1000000"):
        mutbert.explore(genome, tmp_path / "page.html", regions="long")
    assert mutbert.explore(genome, tmp_path / "page.html")["bases"] == 1_000_000


@pytest.mark.nightly
def test_the_page_in_a_browser(made, tmp_path, tab):
    from playwright.sync_api import expect

    wrong, requests, page = [], [], tmp_path / "page.html"
    tab.on("console", lambda one: wrong.append(one.text))
    tab.on("pageerror", lambda one: wrong.append(str(one)))
    tab.on("request", lambda one: requests.append(one.url))
    mutbert.explore(
        made / "small.genome", page, model=made / "model", vcf=made / "scored.vcf", annotation=made / "genes.gff3",
        regions=["chr22", f"b:{HOSTILE}"], settings=PredictionSettings(context=40),
    )  # fmt: skip
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-ready]", state="attached")
    view = "explorer.trackViews.find((one) => one.track.name === name).viewports[0]"
    rows, locus = tab.locator("#rows tr"), tab.locator(".igv-search-input")

    def green(name):
        image = "canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data"
        count = f"{image}.filter((_, at, all) => at % 4 === 0 && !all[at] && all[at + 1] === 158).length"
        return tab.evaluate(f"(name) => {{ const {{canvas}} = {view}; return {count}; }}", name)

    def clicked(name):
        box = tab.evaluate(f"(name) => {view}.viewportElement.getBoundingClientRect().toJSON()", name)
        tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + 34)
        popover = tab.locator(".igv-ui-popover:visible")
        expect(popover).to_contain_text("position" if name != "Genes" else "Location")
        text = popover.inner_text().replace("\xa0", " ")
        popover.locator("svg").first.click()
        return text

    assert green("Population logo") == green("Model logo") == 0
    tab.fill("#search", "rs105 alt")
    expect(tab.locator("#rows")).to_have_text("No variant matches.")
    tab.fill("#search", "rs105")
    expect(rows).to_have_count(2)
    rows.first.locator("button").click()
    expect(locus).to_have_value("chr22:75-135")
    expect(tab.locator("#detail")).to_contain_text("rs105")
    tab.wait_for_timeout(1000)
    assert green("Population logo") > 100
    assert green("Model logo") > 100
    assert {"alleles", "rs105", "LLR"} <= set(clicked("Scored variants").split())
    assert "best alternate LLR" in clicked("Model entropy")
    assert HOSTILE in clicked("Genes")
    tab.fill("#search", "onerror")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text(HOSTILE)
    tab.fill("#search", "LLR<0 pos>=300")
    tab.locator("#head button", has_text="LLR").first.focus()
    tab.keyboard.press("Enter")
    expect(rows).not_to_have_count(2)
    values = [float(one) for one in tab.locator("#rows td:nth-child(5)").all_inner_texts()]
    assert values == sorted(values)
    assert max(values) < 0
    tab.select_option("#regions", index=1)
    expect(locus).to_have_value("b__img_src_x_onerror__document.title_1___1:1-200")
    assert tab.title() != "1"
    assert wrong == []
    assert requests == [page.as_uri()]
