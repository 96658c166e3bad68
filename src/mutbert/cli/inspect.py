"""``mutbert genome inspect``."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from mutbert.cli.printing import print_json, print_table
from mutbert.errors import InputError
from mutbert.files import atomic_file, check_output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mutbert.genome.summary import GenomeSummary

_WIDEST_BAR = 50
_MOST_CONTIGS = 30
# Where there is no terminal, a comparison is as wide as a usual one.
_WIDTH = 80
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Inspected(NamedTuple):
    """A genome, what it holds, and what its manifest says of its making."""

    path: Path
    summary: GenomeSummary
    made: Mapping[str, Any]


def inspect(
    paths: list[Path] = typer.Argument(
        ..., metavar="GENOME...", help="Stores made by 'mutbert genome build'; several are compared."
    ),
    plot: list[Path] = typer.Option(
        [], "--plot", metavar="FILE", help="Draw the frequency spectra, as .svg or .png; may be repeated."
    ),
    force: bool = typer.Option(False, "--force", help="Replace a plot where it exists."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Show what genomes hold, and what was not used and why; their checksums are verified."""
    _check_plots(plot, force=force)
    inspected = [_inspect(path) for path in paths]
    for file in plot:
        _draw(file, inspected, force=force)
    if as_json:
        objects = [_as_object(one) for one in inspected]
        print_json(objects[0] if len(objects) == 1 else {"genomes": objects})
    elif len(inspected) == 1:
        _print_one(inspected[0])
    else:
        _print_comparison(inspected)


def _inspect(path: Path) -> Inspected:
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.genome.summary import summarise_genome

    genome = ProbabilisticGenome.open(path, check=True)
    # Another writer's manifest may say less than ours.
    made = {
        key: genome.manifest.get(key)
        for key in ("version", "created_by", "sources", "settings", "records", "contig_names")
    }
    return Inspected(path, summarise_genome(genome), made)


def _as_object(one: Inspected) -> dict[str, Any]:
    from mutbert.genome.summary import DOUBLING_EDGES

    summary = one.summary
    return {
        "path": str(one.path),
        **vars(summary),
        "contigs": summary.contigs.to_dicts(),
        "doubling_edges": DOUBLING_EDGES,
        "known_share": summary.known_share,
        "soft_masked_share": summary.soft_masked_share,
        "ti_tv": summary.transitions_per_transversion,
        **one.made,
    }


def _print_one(one: Inspected) -> None:
    _print_summary(one.path, one.summary)
    if one.made["version"] == 1:
        typer.echo("format version 1, which does not keep the soft mask; build the genome again to have it\n")
    print_records(one.made["records"] or [])
    names = one.made["contig_names"] or {}
    print_names(names.get("only_in_fasta", []), names.get("only_in_vcf", []))
    _print_sources(one.made)


def _print_summary(path: Path, summary: GenomeSummary) -> None:
    typer.echo(f"{path}: checksums are right\n")
    # The longest of them, in the genome's order.
    longest = summary.contigs.with_row_index().top_k(_MOST_CONTIGS, by="length").sort("index")
    rows = [_contig_row(**contig) for contig in longest.drop("index").iter_rows(named=True)]
    if len(summary.contigs) > 1:
        rows.append(_contig_row("all", **vars(summary)))
    print_table(("contig", "bases", "not N", "variants", "per kb", "ti/tv", "het per kb"), rows)
    if len(summary.contigs) > _MOST_CONTIGS:
        typer.echo(f"and {len(summary.contigs) - _MOST_CONTIGS:,} more, all of them shorter; --json lists every contig")
    typer.echo(
        f"\n{summary.bytes_on_disk:,} bytes on disk, {summary.bytes_per_base:.4f} a base; "
        f"{summary.known_share:.2%} of the bases are not N, {summary.soft_masked_share:.2%} soft-masked"
    )
    typer.echo(
        f"{summary.alternates:,} alternate alleles; {summary.multi_allelic:,} positions with more than one; "
        f"{summary.transitions:,} transitions, {summary.transversions:,} transversions, "
        f"ratio {_ratio(summary.transitions, summary.transversions)}"
    )
    typer.echo(
        f"mean frequency of an alternate allele {_mean_frequency(summary)}; expected heterozygosity "
        f"{summary.diversity_per_kilobase:.3f} a kilobase\n"
    )
    if summary.alternates:
        _print_spectrum(summary.spectrum)
        # Where most alleles are in the rarest twentieth, that table shows little of them.
        if summary.spectrum[0] > summary.alternates / 2:
            _print_spectra([(path.stem, summary)])


def _contig_row(name: str, **counts: Any) -> tuple[str, ...]:
    return (
        name,
        *(f"{counts[key]:,}" for key in ("length", "known", "variants")),
        f"{counts['per_kilobase']:.2f}",
        _ratio(counts["transitions"], counts["transversions"]),
        f"{counts['diversity_per_kilobase']:.3f}",
    )


def _ratio(transitions: int, transversions: int) -> str:
    return f"{transitions / transversions:.2f}" if transversions else "none"


def _mean_frequency(summary: GenomeSummary) -> str:
    mean = summary.mean_alternate_frequency
    return "none" if mean is None else f"{mean:.4f}"


def _print_spectrum(spectrum: Sequence[int]) -> None:
    most = max(spectrum)
    bins = len(spectrum)
    typer.echo("Alternate alleles by frequency")
    for index, count in enumerate(spectrum):
        bar = "█" * -(-count * _WIDEST_BAR // most)
        typer.echo(f"{index / bins:5.2f} to {(index + 1) / bins:4.2f} {count:>12,} {bar}")
    typer.echo()


def _print_comparison(inspected: Sequence[Inspected]) -> None:
    """Print genomes side by side, as many as the terminal has room for, then the next."""
    names = _names([one.path for one in inspected])
    typer.echo(f"{len(inspected)} genomes: checksums are right\n")
    beside = max(1, (_terminal_width() - 24) // 18)
    for start in range(0, len(inspected), beside):
        group = inspected[start : start + beside]
        print_table(
            ("", *names[start : start + beside]),
            zip(_FACTS, *(_facts(one) for one in group), strict=True),
        )
        typer.echo()
    _print_spectra([(name, one.summary) for name, one in zip(names, inspected, strict=True)])


_FACTS = (
    "contigs",
    "bases",
    "not N",
    "share not N",
    "soft-masked",
    "variants",
    "per kb",
    "alternate alleles",
    "multi-allelic",
    "ti/tv",
    "mean frequency",
    "het per kb",
    "bytes a base",
    "frequencies",
    "minimum",
)


def _facts(one: Inspected) -> tuple[str, ...]:
    summary, settings = one.summary, one.made["settings"] or {}
    fields = dict.fromkeys(counts["frequency_from"] for counts in one.made["records"] or [])
    samples = settings.get("samples")
    people = f" of {samples['number']:,}" if samples else ""
    minimum = settings.get("min_frequency")
    return (
        f"{len(summary.contigs):,}",
        f"{summary.length:,}",
        f"{summary.known:,}",
        f"{summary.known_share:.2%}",
        f"{summary.soft_masked_share:.2%}" if one.made["version"] != 1 else "unknown",
        f"{summary.variants:,}",
        f"{summary.per_kilobase:.2f}",
        f"{summary.alternates:,}",
        f"{summary.multi_allelic:,}",
        _ratio(summary.transitions, summary.transversions),
        _mean_frequency(summary),
        f"{summary.diversity_per_kilobase:.3f}",
        f"{summary.bytes_per_base:.4f}",
        (", ".join(fields) or "none") + people,
        "unknown" if minimum is None else f"{minimum:g}",
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """Call each genome by its folder's name, or by its path where two have the same."""
    short = [path.resolve().name.removesuffix(".genome") for path in paths]
    return short if len(set(short)) == len(paths) else [str(path) for path in paths]


def _print_spectra(genomes: Sequence[tuple[str, GenomeSummary]]) -> None:
    """Print spectra side by side, over bins that double and with one scale for all bars."""
    from mutbert.genome.summary import DOUBLING_EDGES

    spectra = [summary.doubling_spectrum for _, summary in genomes]
    most = max(map(max, spectra))
    if not most:
        return
    # Rarer than anything in any of the genomes is nothing to show.
    first = next(index for index in range(len(spectra[0])) if any(spectrum[index] for spectrum in spectra))
    edges = [f"{edge:.3g}" for edge in DOUBLING_EDGES[1:]]
    digits = len(f"{most:,}")
    label = max(map(len, [*edges[first:], "up to"]))
    # Each genome has two blanks, the number, a blank, and a bar of at least six characters.
    room = _terminal_width() - label
    beside = min(len(genomes), max(1, room // (digits + 9)))
    width = min(room // beside - digits - 3, _WIDEST_BAR)
    typer.echo("Alternate alleles by frequency, each line twice as far as the one before")
    for start in range(0, len(genomes), beside):
        heads = (
            f"  {_shortened(name, digits + 1 + width):<{digits + 1 + width}}" for name, _ in genomes[start:][:beside]
        )
        typer.echo((f"{'up to':>{label}}" + "".join(heads)).rstrip())
        for index in range(first, len(edges)):
            cells = (
                f"  {spectrum[index]:>{digits},} {_bar(spectrum[index] / most, width):<{width}}"
                for spectrum in spectra[start : start + beside]
            )
            typer.echo((f"{edges[index]:>{label}}" + "".join(cells)).rstrip())
        typer.echo()


def _shortened(name: str, width: int) -> str:
    return name if len(name) <= width else "…" + name[1 - width :]


def _bar(share: float, width: int) -> str:
    """Draw a bar to an eighth of a character; what is there at all is seen."""
    eighths = math.ceil(share * width * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _terminal_width() -> int:
    return shutil.get_terminal_size((_WIDTH, 24)).columns if sys.stdout.isatty() else _WIDTH


def _check_plots(files: Sequence[Path], *, force: bool) -> None:
    """Refuse what could not be drawn before anything is read for it."""
    for file in files:
        if file.suffix not in {".svg", ".png"}:
            raise InputError(f"{file}: the suffix chooses the format; it must be .svg or .png")
        check_output(file, force=force)
    if files:
        import mutbert.reports.figures  # noqa: F401


def _draw(file: Path, inspected: Sequence[Inspected], *, force: bool) -> None:
    from mutbert.genome.summary import DOUBLING_EDGES
    from mutbert.reports.figures import spectra_figure, spectra_image

    names = _names([one.path for one in inspected])
    spectra = {name: one.summary.doubling_spectrum for name, one in zip(names, inspected, strict=True)}
    with atomic_file(file, force=force) as partial:
        if file.suffix == ".png":
            partial.write_bytes(spectra_image(DOUBLING_EDGES, spectra))
        else:
            partial.write_text(spectra_figure(DOUBLING_EDGES, spectra), encoding="utf-8")


def print_records(records: Sequence[Mapping[str, Any]]) -> None:
    """Print what became of the records of each VCF file."""
    for counts in records:
        rows: list[tuple[str, int]] = [("read", counts["read"]), ("used", counts["used"]), *counts["not_used"].items()]
        typer.echo(f"{counts['file']}, frequencies from {counts['frequency_from']}")
        print_table(
            ("records", "number", "share"),
            ((name, f"{number:,}", f"{number / max(counts['read'], 1):.2%}") for name, number in rows),
        )
        # Stores that were made before records were taken apart do not say.
        if counts.get("decomposed"):
            typer.echo(f"of the used, {counts['decomposed']:,} of several nucleotides, taken apart")
        typer.echo()


def print_names(only_in_fasta: Iterable[str], only_in_vcf: Iterable[str]) -> None:
    """Print the contigs that only one side has."""
    from mutbert.regions import names_text

    typer.echo(f"contigs of the FASTA without records: {names_text(only_in_fasta)}")
    typer.echo(f"contigs of the VCF that the FASTA does not have: {names_text(only_in_vcf)}")


def _print_sources(made: Mapping[str, Any]) -> None:
    settings = ", ".join(
        f"{name} {_setting_text(value)}" for name, value in (made["settings"] or {}).items() if value is not None
    )
    typer.echo(f"made by {made['created_by'] or 'an unknown program'} with {settings or 'no settings'}")
    for source in made["sources"] or []:
        prefix = f"{source['prefix']}=" if source.get("prefix") else ""
        typer.echo(
            f"{source['kind']:>5} {prefix}{source['file']}, {source['bytes']:,} bytes, SHA-256 {source['sha256']}"
        )


def _setting_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    # The chosen people are kept as their number and a checksum of their names.
    if isinstance(value, dict) and {"number", "sha256"} <= value.keys():
        return f"{value['number']:,} (SHA-256 of their names {value['sha256']})"
    return str(value)
