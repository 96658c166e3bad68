"""``mutbert genome inspect``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mutbert.cli.printing import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mutbert.genome.summary import GenomeSummary

_WIDEST_BAR = 50


def inspect(
    path: Path = typer.Argument(..., metavar="GENOME", help="A store made by 'mutbert genome build'."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as one JSON object."),
) -> None:
    """Show what a genome holds, and what was not used and why; its checksums are verified."""
    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.genome.summary import summarise_genome

    genome = ProbabilisticGenome.open(path, check=True)
    summary = summarise_genome(genome)
    # Another writer's manifest may say less than ours.
    made = {key: genome.manifest.get(key) for key in ("created_by", "sources", "settings", "records", "contig_names")}
    if as_json:
        print_json({"path": str(path), **asdict(summary), "ti_tv": summary.transitions_per_transversion, **made})
        return
    _print_summary(path, summary)
    print_records(made["records"] or [])
    names = made["contig_names"] or {}
    print_names(names.get("only_in_fasta", []), names.get("only_in_vcf", []))
    _print_sources(made)


def _print_summary(path: Path, summary: GenomeSummary) -> None:
    typer.echo(f"{path}: checksums are right\n")
    print_table(
        ("contig", "bases", "not N", "variants", "per kb"),
        (
            (one.name, f"{one.length:,}", f"{one.known:,}", f"{one.variants:,}", f"{one.per_kilobase:.2f}")
            for one in [*summary.contigs, *([_total(summary)] if len(summary.contigs) > 1 else [])]
        ),
    )
    typer.echo(f"\n{summary.bytes_on_disk:,} bytes on disk, {summary.bytes_per_base:.4f} a base")
    ratio = summary.transitions_per_transversion
    typer.echo(
        f"{summary.alternates:,} alternate alleles; {summary.multi_allelic:,} positions with more than one; "
        f"{summary.transitions:,} transitions, {summary.transversions:,} transversions, "
        f"ratio {'none' if ratio is None else f'{ratio:.2f}'}\n"
    )
    if summary.alternates:
        _print_spectrum(summary.spectrum)


def _total(summary: GenomeSummary) -> Any:
    from mutbert.genome.summary import ContigSummary

    return ContigSummary("all", summary.length, summary.known, summary.variants, summary.per_kilobase)


def _print_spectrum(spectrum: Sequence[int]) -> None:
    most = max(spectrum)
    bins = len(spectrum)
    typer.echo("Alternate alleles by frequency")
    for index, count in enumerate(spectrum):
        bar = "█" * -(-count * _WIDEST_BAR // most)
        typer.echo(f"{index / bins:5.2f} to {(index + 1) / bins:4.2f} {count:>12,} {bar}")
    typer.echo()


def print_records(records: Sequence[Mapping[str, Any]]) -> None:
    """Print what became of the records of each VCF file."""
    for counts in records:
        rows: list[tuple[str, int]] = [("read", counts["read"]), ("used", counts["used"]), *counts["not_used"].items()]
        typer.echo(f"{counts['file']}, frequencies from {counts['frequency_from']}")
        print_table(
            ("records", "number", "share"),
            ((name, f"{number:,}", f"{number / max(counts['read'], 1):.2%}") for name, number in rows),
        )
        typer.echo()


def print_names(only_in_fasta: Iterable[str], only_in_vcf: Iterable[str]) -> None:
    """Print the contigs that only one side has."""
    from mutbert.regions import names_text

    typer.echo(f"contigs of the FASTA without records: {names_text(only_in_fasta)}")
    typer.echo(f"contigs of the VCF that the FASTA does not have: {names_text(only_in_vcf)}")


def _print_sources(made: Mapping[str, Any]) -> None:
    settings = ", ".join(f"{name} {value}" for name, value in (made["settings"] or {}).items() if value is not None)
    typer.echo(f"made by {made['created_by'] or 'an unknown program'} with {settings or 'no settings'}")
    for source in made["sources"] or []:
        typer.echo(f"{source['kind']:>5} {source['file']}, {source['bytes']:,} bytes, SHA-256 {source['sha256']}")
