"""The whole way on a simulated population, ending with one HTML page."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from mutbert import alphabet
from mutbert.errors import MissingExtraError
from mutbert.files import check_output, mark_directory, remove_directory
from mutbert.genome.build import build_genome
from mutbert.genome.simulate import simulate_population
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.summary import GenomeSummary, summarise_genome
from mutbert.inference.embeddings import embed
from mutbert.reports.figures import scatter_figure, spectrum_figure
from mutbert.reports.page import Section, html_table, write_page
from mutbert.reports.training_figures import training_figure
from mutbert.training.pretrain import PretrainResult, pretrain
from mutbert.training.recipe import load_recipe
from mutbert.windows.sampler import select_regions

try:
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtraError("pyarrow") from error

if TYPE_CHECKING:
    import numpy.typing as npt

_LENGTH: Final = 2_000_000
_SAMPLES: Final = 500
_EMBEDDED_WINDOWS: Final = 600


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Parameters
    ----------
    report : Path
        The page to open in a browser.
    model : Path
        The trained model's folder.
    genome : Path
        The genome store.
    embeddings : Path
        Embeddings of windows of the held-out region, Parquet.
    seconds : float
        How long all of it took.
    """

    report: Path
    model: Path
    genome: Path
    embeddings: Path
    seconds: float


def run_demo(
    output: str | Path = "demo", *, seed: int = 1, steps: int | None = None, force: bool = False, progress: bool = False
) -> DemoResult:
    """Simulate a population, build its genome, pre-train a small model, embed, and report.

    Parameters
    ----------
    output : str or Path
        The folder for all of it.
    seed : int
        What the population depends on; the model's training has the seed of the recipe ``demo``.
    steps : int, optional
        Optimisation steps, in place of the recipe's.
    force : bool
        Replace `output` where it exists.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    DemoResult
        Where everything is.

    Raises
    ------
    InputError
        When `output` exists and `force` is false.
    """
    start = time.monotonic()
    output = Path(output)
    # The first thing that a demo makes, finished or not.
    check_output(output, force=force, directory=True)
    if output.exists():
        remove_directory(output)
    output.mkdir()
    mark_directory(output, ("population*/*", "held_out_windows.bed", "embeddings.parquet", "report.html"))

    def announce(step: int, text: str) -> None:
        if progress:
            print(f"[{step}/5] {text}", file=sys.stderr, flush=True)  # noqa: T201

    announce(1, f"simulating {_SAMPLES} people, {_LENGTH:,} bases")
    population = simulate_population(
        output / "population", length=_LENGTH, samples=_SAMPLES, seed=seed, progress=progress
    )
    announce(2, "building the probabilistic genome")
    genome_path = output / "population.genome"
    build_genome(population.fasta, genome_path, population.vcf, progress=progress)
    genome = ProbabilisticGenome.open(genome_path)

    announce(3, "pre-training a small model")
    recipe = load_recipe("demo", [f"genome={genome_path}", f"output={output / 'run'}"])
    if steps is not None:
        recipe = replace(recipe, training={**recipe.training, "max_steps": steps})
    trained = pretrain(recipe, progress=progress)

    announce(4, "embedding windows of the held-out region")
    (region,) = select_regions(genome, recipe.held_out)
    starts = np.linspace(region.start, region.end - recipe.window_length, _EMBEDDED_WINDOWS, dtype=np.int64)
    bed = output / "held_out_windows.bed"
    bed.write_text("".join(f"{region.contig}\t{start}\t{start + recipe.window_length}\n" for start in starts))
    embeddings = output / "embeddings.parquet"
    embed(trained.model, genome=genome_path, bed=bed, output=embeddings, batch_size=64, progress=progress)

    announce(5, "writing the report")
    report = output / "report.html"
    contig = list(genome.contigs).index(region.contig)
    windows = genome.windows(np.full(len(starts), contig), starts, recipe.window_length)
    gc_share = np.isin(windows.base_BL, (alphabet.IUPAC.index("G"), alphabet.IUPAC.index("C"))).mean(axis=1)
    _write_report(report, summarise_genome(genome), population.samples, trained, embeddings, gc_share)
    return DemoResult(report, trained.model, genome_path, embeddings, time.monotonic() - start)


def _write_report(
    path: Path,
    summary: GenomeSummary,
    samples: int,
    trained: PretrainResult,
    embeddings: Path,
    gc_share: npt.NDArray[np.float64],
) -> None:
    references = {
        name: value["all"] for name, value in trained.held_out.items() if name not in {"model", "entropy floor"}
    }
    vectors = np.array(pq.read_table(embeddings, columns=["embedding"])["embedding"].to_pylist())
    edges = np.linspace(0, 1, len(summary.spectrum) + 1).tolist()
    sections = [
        Section(
            "Frequency spectrum",
            f"{summary.variants:,} of {summary.length:,} positions vary with a frequency above 0.02 among {samples:,} "
            f"simulated people, {summary.per_kilobase:.1f} a thousand bases; there are {summary.transitions:,} "
            f"transitions and {summary.transversions:,} transversions. "
            f"The store takes {summary.bytes_per_base:.3f} byte a base.",
            spectrum_figure(edges, summary.spectrum),
        ),
        Section(
            "Training curve",
            "Every target of the held-out region is hidden from the model. Dashed: what trivial predictors reach "
            "there; the Markov chain sees the five true bases before each target.",
            training_figure(trained.history, references),
        ),
        Section(
            "Held-out table",
            f"Cross-entropy in nats a target after {trained.steps:,} steps; lower is better, and nothing can go below "
            "the entropy floor.",
            html_table(
                ("targets", "number", *trained.held_out),
                (
                    [group, f"{count:,}", *(f"{values[group]:.4f}" for values in trained.held_out.values())]
                    for group, count in trained.targets.items()
                    if count
                ),
            ),
        ),
        Section(
            "Embeddings",
            f"Mean embeddings of {len(vectors):,} held-out windows with {vectors.shape[1]} features each, "
            "drawn on their first two principal components and coloured by the share of G and C, which the model was "
            "never told.",
            scatter_figure(_principal_components(vectors), gc_share, "share of G and C"),
        ),
    ]
    write_page(path, "MutBERT demo", "A simulated population, from FASTA and VCF to a trained model.", sections)


def _principal_components(vectors_ND: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Project onto the first two principal components; their signs are fixed, so that pictures repeat."""
    centred = vectors_ND - vectors_ND.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[:2, np.abs(axes[:2]).argmax(axis=1)].diagonal())
    projected: npt.NDArray[np.float64] = centred @ (axes[:2] * signs[:, None]).T
    return projected
