"""Concatenate stores of different contigs, such as the parts of a build on a cluster, into one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutbert import __version__
from mutbert.errors import InputError
from mutbert.files import atomic_directory, check_output
from mutbert.genome.format import write_manifest, write_reference, write_variants
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.variants import NO_CONTIG, NOT_SELECTED, REASONS, USED
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mutbert.arrays import UInt8
    from mutbert.progress import Advance


@dataclass(frozen=True)
class MergeReport:
    """What a merge made: lengths in the order of the parts, positions that vary, and counts of records by VCF file."""

    path: Path
    parts: int
    lengths: Mapping[str, int]
    variants: int
    records: Sequence[Mapping[str, Any]]


def merge_genomes(
    genomes: Sequence[str | Path], output: str | Path, *, force: bool = False, progress: bool = False
) -> MergeReport:
    """Concatenate stores of different contigs.

    Parts that were built with ``contigs`` from the same files, in the order of the FASTA, make the same arrays as one
    build of all.

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
        raise InputError(f"{output}: no genome was given; name at least one")
    check_output(output, force=force, directory=True, inputs=genomes)
    parts = [ProbabilisticGenome.open(path, check=True) for path in genomes]
    found = {name: part for part in reversed(parts) for name in part.contigs}
    for part in parts:
        for name in part.contigs:
            if found[name] is not part:
                raise InputError(
                    f"{part.path}: contig {name} is in {found[name].path} too; leave out one of them, or build the "
                    "parts with --contigs that do not overlap"
                )
    manifests = [part.manifest for part in parts]
    provenance: dict[str, Any] = {
        "created_by": f"mutbert {__version__}",
        "sources": _unique(source for manifest in manifests for source in manifest.get("sources", [])),
        "settings": _common_settings(parts),
        "records": _sum_records(manifests),
        "contig_names": _join_names(manifests),
    }
    total = sum(sum(part.lengths.values()) for part in parts)
    with (
        atomic_directory(output, force=force) as folder,
        progress_bar("Merging", total, unit="bases", show=progress) as advance,
    ):
        contigs = write_reference(folder, _sequences(parts, advance))
        written = write_variants(folder, contigs, _variants(parts))
        write_manifest(folder, written, **provenance)
    return MergeReport(
        path=output,
        parts=len(parts),
        lengths={name: contig.length for name, contig in written.items()},
        variants=sum(last - first for *_, (first, last) in written.values()),
        records=provenance["records"],
    )


def _sequences(parts: Iterable[ProbabilisticGenome], advance: Advance) -> Iterator[tuple[str, UInt8, Any]]:
    for part in parts:
        for name, contig in part.contigs.items():
            yield name, part.bases(name, 0, contig.length), part.arrays["soft_mask.npy"][slice(*contig.soft_mask)]
            advance(contig.length)


def _variants(parts: Iterable[ProbabilisticGenome]) -> Iterator[tuple[str, Any, Any]]:
    for part in parts:
        position, frequency = part.arrays["variant_position.npy"], part.arrays["variant_frequency.npy"]
        for name, contig in part.contigs.items():
            yield name, position[slice(*contig.variants)], frequency[slice(*contig.variants)]


def _common_settings(parts: Sequence[ProbabilisticGenome]) -> dict[str, Any]:
    every = [part.manifest.get("settings", {}) for part in parts]
    for part, settings in zip(parts, every, strict=True):
        for key in every[0].keys() | settings.keys():
            if key != "contigs" and every[0].get(key) != settings.get(key):
                raise InputError(
                    f"{part.path}: was built with {key} {settings.get(key)}, and {parts[0].path} with "
                    f"{every[0].get(key)}; build the parts with the same settings"
                )
    wanted = [settings.get("contigs") for settings in every]
    return {**every[0], "contigs": None if None in wanted else [name for names in wanted for name in names]}


def _sum_records(manifests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the sums of what became of each file's records; each part has counted all, also of the others' contigs."""
    by_file: dict[str, list[Mapping[str, Any]]] = {}
    for manifest in manifests:
        vcfs = [source for source in manifest.get("sources", []) if source["kind"] == "vcf"]
        for source, counts in zip(vcfs, manifest.get("records", []), strict=True):
            by_file.setdefault(f"{source['sha256']} {source.get('prefix', '')}", []).append(counts)
    return [_sum_of_file(counts) for counts in by_file.values()]


def _sum_of_file(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sums = {text: sum(part["not_used"].get(text, 0) for part in parts) for text in REASONS[NOT_SELECTED + 1 : USED]}
    used = sum(part["used"] for part in parts)
    # What no part has: of contigs that no part's FASTA has, or else of contigs that were not selected.
    rest = parts[0]["read"] - used - sum(sums.values())
    unknown = min(rest, *(part["not_used"].get(REASONS[NO_CONTIG], 0) for part in parts))
    not_used = {REASONS[NO_CONTIG]: unknown, REASONS[NOT_SELECTED]: rest - unknown, **sums}
    return {
        **parts[0],
        "used": used,
        "decomposed": sum(part.get("decomposed", 0) for part in parts),
        "not_used": {text: count for text, count in not_used.items() if count},
    }


def _join_names(manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    every = [manifest.get("contig_names", {}) for manifest in manifests]
    vcf_name = {contig: name for names in every for contig, name in names.get("vcf_name", {}).items()}
    # What one part did not have in its FASTA, another may have.
    unmatched = _unique(name for names in every for name in names.get("only_in_vcf", []))
    return {
        "vcf_name": vcf_name,
        "only_in_fasta": [contig for names in every for contig in names.get("only_in_fasta", [])],
        "only_in_vcf": [name for name in unmatched if name not in vcf_name.values()],
    }


def _unique(values: Iterable[Any]) -> list[Any]:
    every = list(values)
    return [value for number, value in enumerate(every) if value not in every[:number]]
