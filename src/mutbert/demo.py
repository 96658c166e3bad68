"""The whole way on a simulated population, ending with one HTML page."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mutbert import alphabet
from mutbert.effects.score import score_variants
from mutbert.explorer import explore
from mutbert.files import check_output, mark_directory, remove_directory
from mutbert.genome.build import build_genome
from mutbert.genome.export import summarise_genome
from mutbert.genome.simulate import simulate_population
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference.bases import PredictionSettings
from mutbert.inference.embeddings import embed
from mutbert.regions import Region
from mutbert.reports import plots
from mutbert.reports.page import Section, write_page
from mutbert.reports.pretraining import held_out_section, training_section
from mutbert.settings import read_settings
from mutbert.training.pretrain import pretrain
from mutbert.training.recipe import PretrainRecipe
from mutbert.windows.sampler import select_regions

_LENGTH, _SAMPLES, _BROWSED = 2_000_000, 500, 5_000


def run_demo(
    output: str | Path = "demo", *, seed: int = 1, steps: int | None = None, force: bool = False, progress: bool = False
) -> dict[str, Any]:
    """Simulate a population, build its genome, pre-train a small model, embed, and report.

    Parameters
    ----------
    output, seed, steps
        Folder for all of it; seed of the simulated population; training steps, by default the recipe's 300.
    """
    start, output = time.monotonic(), Path(output)
    # The first thing that a demo writes, finished or not.
    check_output(output, force=force, directory=True)
    if output.exists():
        remove_directory(output)
    output.mkdir()
    own = ("population*/*", "run/*", "held_out_windows.bed", "embeddings.parquet", "*.html", "scored.vcf.gz*")
    mark_directory(output, own)

    def announce(step: int, text: str) -> None:
        if progress:
            print(f"[{step}/5] {text}", file=sys.stderr, flush=True)  # noqa: T201

    announce(1, f"simulating {_SAMPLES} people, {_LENGTH:,} bases")
    people = simulate_population(output / "population", length=_LENGTH, samples=_SAMPLES, seed=seed, progress=progress)

    announce(2, "building the probabilistic genome")
    genome_path = output / "population.genome"
    build_genome(people["fasta"], genome_path, people["vcf"], progress=progress)
    genome = ProbabilisticGenome.open(genome_path)

    announce(3, "pre-training a small model")
    overrides = [f"genome={genome_path}", f"output={output / 'run'}"]
    overrides += [] if steps is None else [f"training.max_steps={steps}"]
    recipe = read_settings(PretrainRecipe, "demo", overrides, shipped="recipes")
    try:
        trained = pretrain(recipe, progress=progress)
    except BaseException as error:
        # The demo itself has no --resume.
        error.__notes__ = [f"mutbert pretrain {recipe.output}/recipe.yaml --resume goes on with its model"]
        raise

    announce(4, "embedding windows of the held-out region")
    (region,) = select_regions(genome, recipe.held_out)
    starts = np.linspace(region.start, region.end - recipe.window_length, 600, dtype=np.int64)
    bed, embeddings = output / "held_out_windows.bed", output / "embeddings.parquet"
    bed.write_text("".join(f"{region.contig}\t{start}\t{start + recipe.window_length}\n" for start in starts))
    embed(trained.model, genome=genome_path, bed=bed, output=embeddings, batch_size=64, progress=progress)

    announce(5, "scoring variants, and writing the report")
    is_gc_P = np.isin(genome.bases(region.contig, 0, region.end), alphabet.encode("GC"))
    gc_share = np.array([is_gc_P[start : start + recipe.window_length].mean() for start in starts])
    vectors = np.array(pl.read_parquet(embeddings, columns=["embedding"])["embedding"].to_list())
    with plots.style():
        curve, table = training_section(trained.metrics, trained.history), held_out_section(trained.metrics)
        sections = [_spectrum(summarise_genome(genome)), curve, table, _embeddings(vectors, gc_share)]
    sections.append(_explorer(output, genome, trained.model, people["vcf"], region, progress=progress))
    page = output / "report.html"
    write_page(page, "MutBERT demo", "A simulated population, from FASTA and VCF to a trained model.", sections)
    seconds = time.monotonic() - start
    return {"report": page, "model": trained.model, "genome": genome_path, "embeddings": embeddings, "seconds": seconds}


def _explorer(
    output: Path, genome: ProbabilisticGenome, model: Path, vcf: Path, region: Region, *, progress: bool
) -> Section:
    """Score variants where the held-out region begins, write a page to browse them, and return a link to it."""
    scored, page = output / "scored.vcf.gz", output / "explorer.html"
    browsed, strands = Region(region.contig, region.start, region.start + _BROWSED), "forward"
    score_variants(model, genome.path, vcf, scored, region=str(browsed), strands=strands, progress=progress)
    settings = PredictionSettings(strands=strands)
    explore(genome, page, model=model, vcf=scored, regions=[browsed], settings=settings, progress=progress)
    text = f"{browsed}, base by base: the population, what the model predicts, and its score of each variant."
    return Section("Explorer", text, links={"Open the explorer": page.name})


def _spectrum(genome: dict[str, Any]) -> Section:
    text = (
        f"{genome['variants']:,} of {genome['length']:,} positions vary with a frequency above 0.02 among {_SAMPLES:,} "
        f"simulated people, {genome['per_kilobase']:.1f} per kilobase; there are {genome['transitions']:,} transitions "
        f"and {genome['transversions']:,} transversions. The store takes {genome['bytes_per_base']:.3f} bytes per base."
    )
    edges = np.linspace(0, 1, len(genome["spectrum"]) + 1)
    figure, axes = plots.new_figure(3.2)
    axes.bar(edges[:-1], genome["spectrum"], width=np.diff(edges) * 0.94, align="edge", color=plots.COLOURS[0])
    axes.set(xlim=(0, 1), xlabel="frequency of the alternate allele", ylabel="alleles")
    axes.grid(visible=False, axis="x")
    return Section("Frequency spectrum", text, plots.svg(figure, "Frequency spectrum"))


def _embeddings(vectors_ND: Any, gc_share_N: Any) -> Section:
    from sklearn.decomposition import PCA

    text = (
        f"Mean embeddings of {len(vectors_ND):,} held-out windows with {vectors_ND.shape[1]} features each, on their "
        "first two principal components and coloured by the share of G and C, which the model never saw."
    )
    figure, axes = plots.new_figure(3.8)
    points_N2 = PCA(2, svd_solver="full").fit_transform(vectors_ND)
    drawn = axes.scatter(*points_N2.T, c=gc_share_N, s=14, cmap="viridis", linewidths=0)
    axes.set(xlabel="first principal component", ylabel="second principal component")
    figure.colorbar(drawn, ax=axes, label="share of G and C").outline.set_visible(False)
    return Section("Embeddings", text, plots.svg(figure, "Embeddings by share of G and C"))
