"""Measure the scoring of variants with the full-size model against the published embedding way.

    python benchmarks/score.py
    python benchmarks/score.py --genome NAME.genome --vcf PANEL.vcf.gz

The published way embeds, of each variant, the window with REF and the window with ALT: tokenised one by one as text,
padded to a maximum length, turned into one-hot rows on the host, and run in float32. Ours is what ``mutbert score``
runs for the masked log-likelihood ratio, with bfloat16 by autocast: one window a position, or windows that neighbours
share. All look at one strand and at the same context, and take turns; the best of the rounds counts.

*Spread* variants are far apart, so that no two share a window. *Dense* ones are consecutive single-nucleotide variants
of a panel, or without one random ones about as dense as in 1000 Genomes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pysam
import torch
from torch.nn import functional

from bars import PUBLISHED, Bar, draw_bars
from measure import describe_machine, machine_text, run_script
from model import now
from mutbert import alphabet
from mutbert.cli.command import print_table
from mutbert.effects.alleles import Kind, Reason, find_alleles
from mutbert.effects.scores import Scorer, ScoreSettings
from mutbert.encoders.inputs import place_windows
from mutbert.errors import InputError
from mutbert.files import write_json
from mutbert.genome.build import build_genome
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.run import Surroundings
from mutbert.model import MutBertConfig, MutBertForMaskedLM, MutBertTokenizer

if TYPE_CHECKING:
    from mutbert.effects.alleles import Alleles

# About the distance of a record to the next one in 1000 Genomes phase 3.
SPACING: Final = 35
FRAME: Final = 2


class Case(NamedTuple):
    """Variants, and how we score them."""

    name: str
    alleles: Alleles
    ways: dict[str, dict[str, Any]]


def main() -> None:
    """Read the command line, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--spread", type=int, default=16, help="variants that are far apart (%(default)s)")
    parser.add_argument("--dense", type=int, default=256, help="variants that are close together (%(default)s)")
    parser.add_argument("--genome", type=Path, help="a store, for real variants that are close together")
    parser.add_argument("--vcf", type=Path, help="the panel that they are taken from")
    parser.add_argument("--context", type=int, default=510, help="bases per window (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="windows at once (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (%(default)s)")
    parser.add_argument("--layers", type=int, default=12, help="layers of the model (%(default)s)")
    parser.add_argument("--hidden", type=int, default=768, help="its features, in heads of 64 (%(default)s)")
    parser.add_argument("--output", "-o", type=Path, metavar="FOLDER", help="where to put score.json, .svg and .png")
    arguments = parser.parse_args()

    for name in ("spread", "dense", "context", "batch", "repeats", "layers"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} is {getattr(arguments, name)}; it must be at least 1")
    if arguments.hidden < 64 or arguments.hidden % 64:
        raise InputError(f"--hidden is {arguments.hidden}; heads have 64 features, so it must be a multiple of 64")
    if (arguments.genome is None) != (arguments.vcf is None):
        raise InputError("--genome and --vcf go together; give both or neither")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = describe_machine(("torch", "transformers", "numpy"))
    if device.type == "cuda":
        machine["processor"] += f", {torch.cuda.get_device_name()}"
    print(machine_text(machine))
    torch.manual_seed(0)
    config = MutBertConfig(
        hidden_size=arguments.hidden,
        num_attention_heads=arguments.hidden // 64,
        intermediate_size=4 * arguments.hidden,
        num_hidden_layers=arguments.layers,
        max_position_embeddings=arguments.context + FRAME,
    )
    model = MutBertForMaskedLM(config).to(device).eval()
    figures: dict[str, Any] = {"machine": machine, "cases": []}
    with tempfile.TemporaryDirectory() as folder:
        spread, dense = find_variants(arguments, Path(folder))
        bf16 = {"precision": "bf16"}
        for genome, case in (
            (spread[0], Case("spread", spread[1], {"ours": bf16, "ours, both strands": bf16 | {"strands": "both"}})),
            (dense[0], Case("dense", dense[1], {"ours": bf16, "ours, shared windows": bf16 | {"windows": "shared"}})),
        ):
            rows = measure(model, genome, case, arguments)
            figures["cases"].append({"case": case.name, "variants": len(case.alleles), "ways": rows})
            print(f"\n{case.name}: {len(case.alleles)} SNVs, {arguments.context} bases around each")
            print_table(
                ("way", "variants/s", "× published way"),
                [(row["way"], f"{row['variants_per_second']:.3f}", f"{row['speedup']:.2f}") for row in rows],
            )
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output / "score.json", figures, force=True)
        draw(figures, arguments.output, machine_text(machine))


def find_variants(
    arguments: argparse.Namespace, folder: Path
) -> tuple[tuple[ProbabilisticGenome, Alleles], tuple[ProbabilisticGenome, Alleles]]:
    """Return a genome and its SNVs for each case."""
    generator = np.random.default_rng(0)
    length = max(arguments.spread * 2 * arguments.context, arguments.dense * SPACING * 2) + 2 * arguments.context
    bases = alphabet.decode(generator.integers(0, len(alphabet.BASES), length).astype(np.uint8))
    (folder / "random.fa").write_text(f">random\n{bases}\n", encoding="ascii")
    build_genome(folder / "random.fa", folder / "random.genome")
    genome = ProbabilisticGenome.open(folder / "random.genome")
    far = arguments.context + 2 * arguments.context * np.arange(arguments.spread)
    near = arguments.context + np.cumsum(generator.integers(1, 2 * SPACING, arguments.dense))
    spread = genome, snvs(genome, [("random", int(at)) for at in far], generator)
    if arguments.vcf is None:
        return spread, (genome, snvs(genome, [("random", int(at)) for at in near], generator))
    real = ProbabilisticGenome.open(arguments.genome)
    with pysam.VariantFile(str(arguments.vcf)) as file:
        records = [
            (record.contig, record.pos, record.ref, record.alts[0])
            for record, _ in zip(
                (one for one in file if one.alts and {len(one.ref), *map(len, one.alts)} == {1}),
                range(arguments.dense),
                strict=False,
            )
        ]
    found = find_alleles(real, *zip(*records, strict=True))
    usable = np.flatnonzero((found.reason_A == Reason.SCORED) & (found.kind_A == Kind.SNV))
    if not len(usable):
        raise InputError(f"{arguments.vcf}: none of its first records is an SNV of {arguments.genome}; give its genome")
    return spread, (real, found.take(usable))


def snvs(genome: ProbabilisticGenome, places: list[tuple[str, int]], generator: np.random.Generator) -> Alleles:
    """Return a random SNV at each 0-based position."""
    before = [int(genome.bases(contig, at, at + 1)[0]) for contig, at in places]
    after = [(code + int(step)) % 4 for code, step in zip(before, generator.integers(1, 4, len(before)), strict=True)]
    return find_alleles(
        genome,
        [contig for contig, _ in places],
        [at + 1 for _, at in places],
        [alphabet.BASES[code] for code in before],
        [alphabet.BASES[code] for code in after],
    )


def scorer_of(
    model: MutBertForMaskedLM, genome: ProbabilisticGenome, arguments: argparse.Namespace, **settings: Any
) -> Scorer:
    """Return the scorer of ``mutbert score``, on one strand."""
    given = {"context": arguments.context, "strands": "forward", "batch_size": arguments.batch} | settings
    return Scorer(model, genome, Surroundings("reference", genome.reference(), {}), ScoreSettings(**given))


def measure(
    model: MutBertForMaskedLM, genome: ProbabilisticGenome, case: Case, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return the time of a round of each way; of many variants, the published way scores the first ones only."""
    few = case.alleles.take(np.arange(min(len(case.alleles), arguments.spread)))
    tokenizer = MutBertTokenizer(model_max_length=arguments.context + FRAME)
    length = np.array(list(genome.lengths.values()))
    names = list(genome.lengths)
    start_A, bases_A = place_windows(few.start_A, length[few.contig_A], arguments.context)
    texts = [
        alphabet.decode(genome.bases(names[contig], start, start + bases))
        for contig, start, bases in zip(few.contig_A, start_A, bases_A, strict=True)
    ]
    columns = few.start_A - start_A

    def published() -> torch.Tensor:
        """Return the distance of the mean embeddings of both windows of each variant."""
        distances = []
        for first in range(0, len(few), arguments.batch):
            rows = range(first, min(first + arguments.batch, len(few)))
            means = []
            for code_A in (few.reference_A, few.alternate_A):
                sequences = [
                    texts[row][: columns[row]] + alphabet.BASES[code_A[row]] + texts[row][columns[row] + 1 :]
                    for row in rows
                ]
                tokens = [
                    tokenizer(sequence, padding="max_length", truncation=True, return_tensors="pt")
                    for sequence in sequences
                ]
                ids = torch.cat([entry["input_ids"] for entry in tokens])
                keep = torch.cat([entry["attention_mask"] for entry in tokens]).to(model.device)
                probs = functional.one_hot(ids, alphabet.VOCABULARY_SIZE).float().to(model.device)
                with torch.no_grad():
                    hidden = model.bert(input_probs=probs, attention_mask=keep).last_hidden_state
                means.append(hidden[:, 1:-1].mean(dim=1))
            distances.append((means[0] - means[1]).norm(dim=1))
        return torch.cat(distances).cpu()

    check(published(), scorer_of(model, genome, arguments, scores=("distance",)), few)
    runs: dict[str, Any] = {PUBLISHED: (published, len(few))}
    for name, settings in case.ways.items():
        scorer = scorer_of(model, genome, arguments, **settings)
        runs[name] = (lambda scorer=scorer: scorer.score(case.alleles), len(case.alleles))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(arguments.repeats + 1):
        for name, (run, variants) in runs.items():
            start = now(model.device)
            run()
            if number:
                times[name].append((now(model.device) - start) / variants)
    return [
        {
            "way": name,
            "variants_per_second": 1 / min(found),
            "speedup": min(times[PUBLISHED]) / min(found),
        }
        for name, found in times.items()
    ]


def check(distance: torch.Tensor, scorer: Scorer, alleles: Alleles) -> None:
    """Stop if the distances of the published way differ from ours in float32."""
    names = list(scorer.fields)
    ours = scorer.score(alleles)[:, names.index("L2_WINDOW")]
    if not np.allclose(distance.numpy(), ours, atol=1e-3):
        worst = float(np.abs(distance.numpy() - ours).max())
        raise SystemExit(f"the ways differ: their distances by up to {worst:.2g}")


def draw(figures: dict[str, Any], folder: Path, title: str) -> None:
    """Draw what was measured as bars, to ``score.svg`` and ``.png``."""
    bars = [
        Bar(
            f"{case['case']} variants, {row['way']}",
            row["variants_per_second"],
            f"{row['variants_per_second']:,.2f}, {row['speedup']:.2f}×",
        )
        for case in figures["cases"]
        for row in case["ways"]
    ]
    draw_bars(folder / "score", title, "variants per second", bars)


if __name__ == "__main__":
    run_script(main)
