"""Stores of different contigs become one, as if they had been built together: the parts of a build on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutbert import __version__
from mutbert.errors import InputError
from mutbert.files import atomic_directory, check_output
from mutbert.genome.alleles import Reason
from mutbert.genome.format import MANIFEST
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.writer import StoreWriter
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class MergeReport:
    """What a merge made.

    Parameters
    ----------
    path : Path
        The store.
    parts : int
        Stores that it was made of.
    lengths : dict of str to int
        Its contigs with their lengths in bases, in the order of the parts.
    variants : int
        Positions that vary.
    records : list of dict
        Of each VCF file: records read, used and not used by reason, over all parts.
    """

    path: Path
    parts: int
    lengths: Mapping[str, int]
    variants: int
    records: Sequence[Mapping[str, Any]]


def merge_genomes(
    genomes: Sequence[str | Path], output: str | Path, *, force: bool = False, progress: bool = False
) -> MergeReport:
    """Put stores of different contigs together.

    Parts that were built with ``contigs`` from the same files, given in the order of the FASTA, make the same arrays as
    one build of all.

    Parameters
    ----------
    genomes : sequence of paths
        The stores, no contig in two of them, built with the same settings.
    output : path
        The store to write.
    force : bool
        Replace `output` where it exists.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    MergeReport
        What was made.

    Raises
    ------
    InputError
        When a store cannot be used, a contig is in two, or their settings differ.
    """
    output = Path(output)
    if not genomes:
        raise InputError(f"{output}: no genome was given; give at least one")
    check_output(output, force=force, mark=MANIFEST)
    parts = [ProbabilisticGenome.open(path, check=True) for path in genomes]
    _check_contigs(parts)
    records = _sum_records(parts)
    description: dict[str, Any] = {
        "created_by": f"mutbert {__version__}",
        "sources": _unique(source for part in parts for source in part.manifest.get("sources", [])),
        "settings": _common_settings(parts),
        "records": records,
        "contig_names": _join_names(parts),
    }
    total = sum(part.bytes_on_disk for part in parts)
    with (
        atomic_directory(output, force=force, mark=MANIFEST) as folder,
        StoreWriter(folder) as writer,
        progress_bar("Merging", total, unit="bytes", show=progress) as advance,
    ):
        for part in parts:
            writer.add_store(part.contigs.values(), part.arrays)
            advance(part.bytes_on_disk)
        writer.finish(**description)
    return MergeReport(
        path=output,
        parts=len(parts),
        lengths=writer.lengths,
        variants=sum(last - first for *_, (first, last) in writer.contigs),
        records=records,
    )


def _check_contigs(parts: Sequence[ProbabilisticGenome]) -> None:
    seen: dict[str, Path] = {}
    for part in parts:
        for name in part.contigs:
            if name in seen:
                raise InputError(
                    f"{part.path}: contig {name} is in {seen[name]} too; leave out one of them, or build the parts "
                    "with --contigs that do not overlap"
                )
            seen[name] = part.path


def _common_settings(parts: Sequence[ProbabilisticGenome]) -> dict[str, Any]:
    first = parts[0].manifest.get("settings", {})
    for part in parts[1:]:
        settings = part.manifest.get("settings", {})
        for key in first.keys() | settings.keys():
            if key != "contigs" and first.get(key) != settings.get(key):
                raise InputError(
                    f"{part.path}: was built with {key} {settings.get(key)}, and {parts[0].path} with "
                    f"{first.get(key)}; build the parts with the same settings"
                )
    wanted = [part.manifest.get("settings", {}).get("contigs") for part in parts]
    contigs = None if None in wanted else [name for names in wanted for name in names]
    return {**first, "contigs": contigs}


def _sum_records(parts: Sequence[ProbabilisticGenome]) -> list[dict[str, Any]]:
    """Add up what became of each file's records; each part has counted all, also those of the others' contigs."""
    by_file: dict[str, list[Mapping[str, Any]]] = {}
    for part in parts:
        vcfs = [source for source in part.manifest.get("sources", []) if source["kind"] == "vcf"]
        for source, counts in zip(vcfs, part.manifest.get("records", []), strict=True):
            by_file.setdefault(f"{source['sha256']} {source.get('prefix', '')}", []).append(counts)
    return [_sum_of_file(counts) for counts in by_file.values()]


def _sum_of_file(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    elsewhere = {Reason.CONTIG_NOT_IN_FASTA.text, Reason.CONTIG_NOT_SELECTED.text}
    summed = {
        reason.text: sum(part["not_used"].get(reason.text, 0) for part in parts)
        for reason in Reason
        if reason is not Reason.USED and reason.text not in elsewhere
    }
    used = sum(part["used"] for part in parts)
    # What no part has: of contigs that no part's FASTA has, or else of contigs that were not selected.
    rest = parts[0]["read"] - used - sum(summed.values())
    unknown = min(rest, *(part["not_used"].get(Reason.CONTIG_NOT_IN_FASTA.text, 0) for part in parts))
    not_used = {
        Reason.CONTIG_NOT_IN_FASTA.text: unknown,
        Reason.CONTIG_NOT_SELECTED.text: rest - unknown,
        **summed,
    }
    return {
        "file": parts[0]["file"],
        "frequency_from": parts[0]["frequency_from"],
        "read": parts[0]["read"],
        "used": used,
        "decomposed": sum(part.get("decomposed", 0) for part in parts),
        "not_used": {text: count for text, count in not_used.items() if count},
    }


def _join_names(parts: Sequence[ProbabilisticGenome]) -> dict[str, Any]:
    names = [part.manifest.get("contig_names", {}) for part in parts]
    vcf_name = {contig: name for one in names for contig, name in one.get("vcf_name", {}).items()}
    # What one part did not have in its FASTA, another may have.
    known = set(vcf_name.values())
    return {
        "vcf_name": vcf_name,
        "only_in_fasta": [contig for one in names for contig in one.get("only_in_fasta", [])],
        "only_in_vcf": _unique(name for one in names for name in one.get("only_in_vcf", []) if name not in known),
    }


def _unique(values: Iterable[Any]) -> list[Any]:
    every = list(values)
    return [value for number, value in enumerate(every) if value not in every[:number]]
