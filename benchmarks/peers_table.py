"""Write the table of what each known model supports: every command is run on a tiny checkpoint in its published layout.

    python benchmarks/peers_table.py

The table is part of docs/benchmarks.md. Models of one layout differ in size alone and share a checkpoint.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import peer_files
from measure import run_script
from mutbert import VepColumns, build_genome, embed, evaluate_variant_effects, finetune
from mutbert.effects.scores import ScoreSettings
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.known import MODELS
from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertTokenizer
from mutbert.settings import read_settings
from mutbert.training.recipe import FinetuneRecipe

if TYPE_CHECKING:
    from mutbert.encoders.known import KnownModel

COLUMNS: Final = ("model", "loads", "embeds", "probe", "full", "LoRA", "variants")
METHODS: Final = ("probe", "full", "lora")


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(table(Path(folder)), end="")


def table(folder: Path) -> str:
    """Return the table in Markdown; what fails raises."""
    data = _write_data(folder)
    done: dict[str, tuple[str, ...]] = {}
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for model in MODELS:
        layout = model.name if model.family == "caduceus" else model.family
        if layout not in done:
            done[layout] = _verbs(model, folder / layout, data)
        lines.append(f"| {' | '.join((f'`{model.name}`', *done[layout]))} |")
    return "\n".join(lines) + "\n"


def _verbs(model: KnownModel, folder: Path, data: Path) -> tuple[str, ...]:
    """Return the outcome of every command on a tiny checkpoint."""
    place = folder / "checkpoint"
    if model.family == "mutbert":
        size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        MutBertForMaskedLM(MutBertConfig(**size)).save_pretrained(place)
        MutBertTokenizer().save_pretrained(place)
    else:
        peer_files.write(model.name, place, "tiny")
    open_encoder(place).body(20)
    embed(place, fasta=data / "ref.fa", output=folder / "embeddings.parquet")
    for method in METHODS:
        settings = [f"model={place}", f"train={data / 'train.csv'}", f"output={folder / method}"]
        settings += [f"finetune.{text}" for text in (f"method={method}", "max_steps=1", "batch_size=8")]
        finetune(read_settings(FinetuneRecipe, None, settings))
    asked = ("distance",) if model.family == "dnabert2" else ("llr", "distance")
    evaluate_variant_effects(
        place,
        data / "ref.genome",
        data / "variants.csv",
        folder / "vep",
        columns=VepColumns(label="label"),
        settings=ScoreSettings(scores=asked, context=36),
        resamples=100,
    )
    parts = json.loads((folder / "vep" / "vep.json").read_text())["parts"]
    found = {row["predictor"].split()[-1] for part in parts for row in part["rows"] if row["model"]}
    scores = ", ".join(name for field, name in (("LLR", "LLR"), ("L2", "distances")) if field in found)
    return ("yes", "yes", *("yes" for _ in METHODS), scores)


def _write_data(folder: Path) -> Path:
    """Write a reference, its store, labelled sequences and labelled variants."""
    generator = random.Random(0)
    sequence = "".join(generator.choices("ACGT", k=200))
    (folder / "ref.fa").write_text(f">chr1\n{sequence}\n")
    build_genome(folder / "ref.fa", folder / "ref.genome")
    rows = [f"{''.join(generator.choices('ACGT', k=30))},{number % 2}" for number in range(32)]
    (folder / "train.csv").write_text("\n".join(["sequence,label", *rows]) + "\n")
    variants = []
    for number, position in enumerate(range(40, 160, 6)):
        reference = sequence[position - 1]
        other = generator.choice([base for base in "ACGT" if base != reference])
        variants.append(f"chr1,{position},{reference},{other},{number % 2}")
    (folder / "variants.csv").write_text("\n".join(["chromosome,position,ref,alt,label", *variants]) + "\n")
    return folder


if __name__ == "__main__":
    run_script(main)
