"""``mutbert genome inspect``."""

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Any

import typer

from mutbert.cli.command import print_result, print_table

Genomes = Sequence[Mapping[str, Any]]
_MOST_CONTIGS = 30
# What is shown of a genome, which number it is, and its format; and what of each contig.
_FACTS = {
    "bases": ("length", ","), "not N": ("known", ","), "share not N": ("known_share", ".2%"),
    "soft-masked": ("soft_masked_share", ".2%"), "variants": ("variants", ","), "per kb": ("per_kilobase", ".2f"),
    "alternate alleles": ("alternates", ","), "multi-allelic": ("multi_allelic", ","), "ti/tv": ("ti_tv", ".2f"),
    "mean frequency": ("mean_alternate_frequency", ".4f"), "het per kb": ("diversity_per_kilobase", ".3f"),
    "bytes per base": ("bytes_per_base", ".4f"),
}  # fmt: skip
_FACTS_OF_CONTIGS = ("bases", "not N", "variants", "per kb", "ti/tv", "het per kb")


def inspect_genomes(
    genomes: Sequence[str | Path], *, plot: Sequence[str | Path] = (), force: bool = False
) -> list[dict[str, Any]]:
    """Show what genomes hold, and what was not used and why; their checksums are verified.

    Parameters
    ----------
    genomes, plot, force
        Stores made by 'mutbert genome build', of which several are compared; draw the frequency spectra, as .svg or
        .png, may be repeated; replace a plot where it exists.
    """
    paths = [Path(path) for path in genomes]
    if plot:
        # First, since it raises where its library is not installed.
        from mutbert.reports import plots

        files = plots.check_figures(plot, force=force, inputs=paths)
    found = [_read(path) for path in paths]
    if plot:
        spectra = dict(zip(_names(found), (genome["doubling_spectrum"] for genome in found), strict=True))
        with plots.style():
            figure = plots.spectra_figure(found[0]["doubling_edges"], spectra)
            plots.write_figures(figure, "Frequency spectra", files, force=force)
    return found


def _read(path: Path) -> dict[str, Any]:
    """Return the numbers of a genome and entries of its manifest, which another writer may have left out."""
    from mutbert.genome.export import DOUBLING_EDGES, summarise_genome
    from mutbert.genome.store import ProbabilisticGenome

    summary = summarise_genome(genome := ProbabilisticGenome.open(path, check=True))
    kept = ("version", "created_by", "sources", "settings", "records", "contig_names")
    numbers = {"path": str(path), **summary, "contigs": summary["contigs"].to_dicts()}
    return numbers | {"doubling_edges": DOUBLING_EDGES, **{key: genome.manifest.get(key) for key in kept}}


def print_inspected(genomes: Genomes) -> None:
    """Print one genome in full, or several side by side, as many as the terminal has room for."""
    typer.echo(f"{genomes[0]['path'] if len(genomes) == 1 else f'{len(genomes)} genomes'}: checksums are right\n")
    if len(genomes) == 1:
        _print_contigs(genomes[0])
    columns = shutil.get_terminal_size((80, 24)).columns
    most = max(max(genome["doubling_spectrum"]) for genome in genomes)
    names, abreast = _names(genomes), max(1, (columns - 24) // 18)
    for start in range(0, len(genomes), abreast):
        group = dict(zip(names[start : start + abreast], genomes[start : start + abreast], strict=True))
        print_result({"": {name: _facts_of_genome(genome) for name, genome in group.items()}})
        typer.echo()
        _print_spectra(group, most, columns)
    if len(genomes) == 1:
        _print_origin(genomes[0])


def _names(genomes: Genomes) -> list[str]:
    short = [Path(genome["path"]).resolve().name.removesuffix(".genome") for genome in genomes]
    return short if len(set(short)) == len(genomes) else [genome["path"] for genome in genomes]


def _facts(numbers: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    facts = {name: (numbers[_FACTS[name][0]], _FACTS[name][1]) for name in names}
    return {name: "none" if number is None else format(number, form) for name, (number, form) in facts.items()}


def _print_contigs(genome: Mapping[str, Any]) -> None:
    contigs = genome["contigs"]
    longest = sorted(contigs, key=lambda contig: -contig["length"])[:_MOST_CONTIGS]
    rows, every = [], [{**genome, "name": "all"}] * (len(contigs) > 1)
    for row in [*(contig for contig in contigs if contig in longest), *every]:
        ratio = row["transitions"] / row["transversions"] if row["transversions"] else None
        rows.append({"contig": row["name"], **_facts({**row, "ti_tv": ratio}, _FACTS_OF_CONTIGS)})
    print_result({"contigs": rows})
    if len(contigs) > _MOST_CONTIGS:
        typer.echo(f"and {len(contigs) - _MOST_CONTIGS:,} more, all of them shorter; --json lists every contig")
    typer.echo()


def _print_origin(genome: Mapping[str, Any]) -> None:
    """Print the sources of a genome, the settings, and the fate of the records."""
    if genome["version"] == 1:
        typer.echo("format version 1, which does not keep the soft mask; build the genome again to have it\n")
    settings = {
        # The chosen people are kept as their number and a checksum of their names.
        key: f"{value['number']:,} (SHA-256 of their names {value['sha256']})" if isinstance(value, dict) else value
        for key, value in (genome["settings"] or {}).items()
    }
    columns = ("kind", "prefix", "file", "bytes", "sha256")
    sources = [{key: one.get(key) for key in columns} for one in genome["sources"] or []]
    shown = {"settings": settings, "sources": sources, "created_by": genome["created_by"]}
    print_result({"records": genome["records"], **(genome["contig_names"] or {}), **shown})


def _facts_of_genome(genome: Mapping[str, Any]) -> dict[str, str]:
    settings = genome["settings"] or {}
    fields = ", ".join(dict.fromkeys(counts["frequency_from"] for counts in genome["records"] or [])) or "none"
    people = f" of {settings['samples']['number']:,}" if settings.get("samples") else ""
    facts = {"contigs": f"{len(genome['contigs']):,}", **_facts(genome, _FACTS), "frequencies": fields + people}
    unknown = {"soft-masked": "unknown"} if genome["version"] == 1 else {}
    return {**facts, **unknown, "minimum": format(settings["min_frequency"], "g") if settings else "unknown"}


def _print_spectra(genomes: Mapping[str, Mapping[str, Any]], most: int, columns: int) -> None:
    """Print spectra side by side, over bins that double and with one scale for all bars."""
    edges = (f"{edge:.3g}" for edge in next(iter(genomes.values()))["doubling_edges"][1:])
    rows = zip(edges, *(genome["doubling_spectrum"] for genome in genomes.values()), strict=True)
    # Rarer than anything in any of the genomes is nothing to show.
    if not (bins := list(dropwhile(lambda row: not any(row[1:]), rows))):
        return
    digits, label = len(f"{most:,}"), max(len(edge) for edge, *_ in [*bins, ("up to",)])
    # Each genome has two blanks, the number, a blank, and its bar.
    width = min(max((columns - label) // len(genomes) - digits - 3, 6), 50)
    room, bar = digits + 1 + width, "█" * width
    typer.echo("Alternate alleles by frequency, in bins that double")
    lines = []
    for edge, *counts in bins:
        bars = (f"{count:>{digits},} {bar[: math.ceil(count / most * width)]:<{width}}" for count in counts)
        lines.append([edge.rjust(label), *bars])
    print_table(["up to".rjust(label), *(name[-room:].ljust(room) for name in genomes)], lines)
    typer.echo()
