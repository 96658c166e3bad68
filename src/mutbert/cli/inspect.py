"""``mutbert genome inspect``."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mutbert.cli.printing import print_result, print_table
from mutbert.errors import InputError
from mutbert.files import atomic_file, check_output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Genomes = Sequence[Mapping[str, Any]]

_WIDEST_BAR = 50
_MOST_CONTIGS = 30
# Of tables of contigs and of genomes: the header, which number it is, and its format.
_COLUMNS = (
    ("contig", "name", ""), ("bases", "length", ","), ("not N", "known", ","), ("variants", "variants", ","),
    ("per kb", "per_kilobase", ".2f"), ("ti/tv", "ti_tv", ".2f"), ("het per kb", "diversity_per_kilobase", ".3f"),
)  # fmt: skip
_FACTS = (
    *_COLUMNS[1:3], ("share not N", "known_share", ".2%"), ("soft-masked", "soft_masked_share", ".2%"), *_COLUMNS[3:5],
    ("alternate alleles", "alternates", ","), ("multi-allelic", "multi_allelic", ","), _COLUMNS[5],
    ("mean frequency", "mean_alternate_frequency", ".4f"), _COLUMNS[6], ("bytes per base", "bytes_per_base", ".4f"),
)  # fmt: skip


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
    paths, files = [Path(path) for path in genomes], [Path(path) for path in plot]
    for file in files:
        if file.suffix not in {".svg", ".png"}:
            raise InputError(f"{file}: the suffix chooses the format; it must be .svg or .png")
        check_output(file, force=force, inputs=paths)
    if files:
        # First, since it raises where its library is not installed.
        from mutbert.reports.figures import spectra_figure, spectra_image
    found = [_read(path) for path in paths]
    spectra = {name: genome["doubling_spectrum"] for name, genome in zip(_names(found), found, strict=True)}
    for file in files:
        draw = spectra_image if file.suffix == ".png" else lambda *values: spectra_figure(*values).encode()
        with atomic_file(file, force=force) as partial:
            partial.write_bytes(draw(found[0]["doubling_edges"], spectra))
    return found


def _read(path: Path) -> dict[str, Any]:
    """Return the numbers of a genome and entries of its manifest, which another writer may have left out."""
    from mutbert.genome.export import DOUBLING_EDGES, summarise_genome
    from mutbert.genome.store import ProbabilisticGenome

    genome = ProbabilisticGenome.open(path, check=True)
    summary = summarise_genome(genome)
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
    abreast = max(1, (columns - 24) // 18)
    named = list(zip(_names(genomes), genomes, strict=True))
    for start in range(0, len(genomes), abreast):
        group = named[start : start + abreast]
        facts = [("", *_facts(genomes[0])), *((name, *_facts(genome).values()) for name, genome in group)]
        header, *rows = zip(*facts, strict=True)
        print_table(header, rows)
        typer.echo()
        _print_spectra(group, most, columns)
    if len(genomes) == 1:
        _print_origin(genomes[0])


def _names(genomes: Genomes) -> list[str]:
    short = [Path(genome["path"]).resolve().name.removesuffix(".genome") for genome in genomes]
    return short if len(set(short)) == len(genomes) else [genome["path"] for genome in genomes]


def _text(numbers: Mapping[str, Any], key: str, form: str) -> str:
    return "none" if numbers[key] is None else format(numbers[key], form)


def _print_contigs(genome: Mapping[str, Any]) -> None:
    contigs = genome["contigs"]
    longest = sorted(range(len(contigs)), key=lambda index: -contigs[index]["length"])[:_MOST_CONTIGS]
    rows = [
        {**row, "ti_tv": row["transitions"] / row["transversions"] if row["transversions"] else None}
        for row in [*(contigs[index] for index in sorted(longest)), *[{**genome, "name": "all"}] * (len(contigs) > 1)]
    ]
    print_table([head for head, *_ in _COLUMNS], [[_text(row, *column[1:]) for column in _COLUMNS] for row in rows])
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
    sources = [{key: one.get(key) for key in ("kind", "prefix", "file", "bytes", "sha256")}
               for one in genome["sources"] or []]  # fmt: skip
    print_result({"records": genome["records"], **(genome["contig_names"] or {}), "settings": settings})
    print_result({"sources": sources, "created_by": genome["created_by"]})


def _facts(genome: Mapping[str, Any]) -> dict[str, str]:
    settings = genome["settings"] or {}
    fields = dict.fromkeys(counts["frequency_from"] for counts in genome["records"] or [])
    people = f" of {settings['samples']['number']:,}" if settings.get("samples") else ""
    minimum = settings.get("min_frequency")
    facts = {"contigs": f"{len(genome['contigs']):,}", **{fact[0]: _text(genome, *fact[1:]) for fact in _FACTS}}
    unknown = {"soft-masked": "unknown"} if genome["version"] == 1 else {}
    ends = {"frequencies": (", ".join(fields) or "none") + people}
    return facts | unknown | ends | {"minimum": "unknown" if minimum is None else f"{minimum:g}"}


def _print_spectra(genomes: Sequence[tuple[str, Mapping[str, Any]]], most: int, columns: int) -> None:
    """Print spectra side by side, over bins that double and with one scale for all bars."""
    spectra = [genome["doubling_spectrum"] for _, genome in genomes]
    # Rarer than anything in any of the genomes is nothing to show.
    first = next((index for index, counts in enumerate(zip(*spectra, strict=True)) if any(counts)), None)
    if first is None:
        return
    edges = [f"{edge:.3g}" for edge in genomes[0][1]["doubling_edges"][1:]]
    digits, label = len(f"{most:,}"), max(map(len, [*edges[first:], "up to"]))
    # Each genome has two blanks, the number, a blank, and its bar.
    width = min(max((columns - label) // len(spectra) - digits - 3, 6), _WIDEST_BAR)
    room = digits + 1 + width
    typer.echo("Alternate alleles by frequency, in bins that double")
    typer.echo((f"{'up to':>{label}}" + "".join(f"  {name[-room:]:<{room}}" for name, _ in genomes)).rstrip())
    for edge, *counts in list(zip(edges, *spectra, strict=True))[first:]:
        cells = (f"  {count:>{digits},} {'█' * math.ceil(count / most * width):<{width}}" for count in counts)
        typer.echo((f"{edge:>{label}}" + "".join(cells)).rstrip())
    typer.echo()
