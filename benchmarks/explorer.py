"""Time until the explorer's page is ready in Chromium, and of its CPU: a random genome, model and scored variants.

It needs playwright and a Chromium in the path. Runs are apart, each in a browser of its own.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from playwright.sync_api import sync_playwright

import mutbert
from mutbert import MutBertConfig, MutBertForMaskedLM, ProbabilisticGenome, alphabet
from mutbert.inference.bases import PredictionSettings

HEAD = """##fileformat=VCFv4.2
##contig=<ID=chr1>
##INFO=<ID=MUTBERT_LLR,Number=A,Type=Float,Description="">
##INFO=<ID=MUTBERT_LLR_PCT,Number=A,Type=Float,Description="">
##INFO=<ID=MUTBERT_WHY,Number=.,Type=String,Description="">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""


def write_page(folder: Path, bases: int, variants: int) -> Path:
    """Write a page of a genome where one base in a hundred varies."""
    random = np.random.default_rng(1)
    code_L = random.integers(4, size=bases).astype(np.uint8)
    genome = ProbabilisticGenome.from_sequences([("chr1", code_L, [])])
    place_V = np.sort(random.choice(bases, bases // 100, replace=False)).astype(np.int64)
    fixed_V4 = np.zeros((len(place_V), 4), np.uint16)
    alternate = random.integers(1, 32768, len(place_V))
    fixed_V4[np.arange(len(place_V)), code_L[place_V]] = 65535 - alternate
    fixed_V4[np.arange(len(place_V)), (code_L[place_V] + 1) % 4] = alternate
    rows = (
        f"chr1\t{place + 1}\trs{place}\t{alphabet.BASES[code_L[place]]}\t{alphabet.BASES[code_L[place] ^ 1]}\t.\t.\t"
        f"MUTBERT_LLR={random.normal(-1, 2):.5g};MUTBERT_LLR_PCT={random.uniform(0, 100):.4g}\n"
        for place in np.sort(random.choice(bases, variants, replace=False))
    )
    (folder / "scored.vcf").write_text(HEAD + "".join(rows))
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    torch.manual_seed(1)
    model = MutBertForMaskedLM(MutBertConfig(**size, initializer_range=1.0)).eval()
    mutbert.explore(
        genome.with_variants({"chr1": (place_V, fixed_V4)}), folder / "page.html", model=model, mask_every=0,
        vcf=folder / "scored.vcf", regions="chr1", settings=PredictionSettings(strands="forward"), progress=True,
    )  # fmt: skip
    return folder / "page.html"


def main() -> None:
    """Print the size of the page, and of each run the milliseconds by the clock and of the page's process."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("bases", 1_000_000), ("variants", 20_000), ("runs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page, found = write_page(Path(folder), asked.bases, asked.variants), []
        for _ in range(asked.runs):
            program = shutil.which("chromium") or shutil.which("google-chrome")
            with driver.chromium.launch(executable_path=program, args=["--no-sandbox"]) as browser:
                tab = browser.new_page(viewport={"width": 1400, "height": 900})
                session = tab.context.new_cdp_session(tab)
                session.send("Performance.enable")
                tab.goto(page.as_uri())
                tab.wait_for_selector("html[data-ready]", state="attached")
                known = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
                ready = int(tab.evaluate("document.documentElement.dataset.ready"))
                found.append({"ready_ms": ready, "cpu_ms": round(1000 * known["ProcessTime"])})
        print(json.dumps({**vars(asked), "bytes": page.stat().st_size, "found": found}))


if __name__ == "__main__":
    main()
