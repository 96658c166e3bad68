"""Concatenate stores of different contigs, such as the parts of a build on a cluster, into one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutbert import __version__
from mutbert.errors import InputError
from mutbert.files import atomic_directory, check_output
from mutbert.genome.format import VARIANT_ARRAYS, write_manifest, write_reference, write_variants
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.variants import NO_CONTIG, NOT_SELECTED, REASONS
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mutbert.arrays import UInt8


@dataclass(frozen=True)
class MergeReport:
    """What a merge made."""

    path: Path
    parts: int
    lengths: Mapping[str, int]  # in the order of the parts
    variants: int  # positions that vary
    records: Sequence[Mapping[str, Any]]  # what became of them, by VCF file


def merge_genomes(
    genomes: Sequence[str | Path], output: str | Path, *, force: bool = False, progress: bool = False
) -> MergeReport:
    """Concatenate stores of different contigs, such as the parts of a build on a cluster.

    Parts that were built with ``contigs`` from the same files, in the order of the FASTA, make the same arrays as one
    build of all.

    Parameters
    ----------
    genomes : sequence of paths
        The stores, built with the same settings; no contig may be in two of them.
    output : path
        The store to write.
    force, progress : bool
        Replace the output where it exists; show progress on standard error.

    Returns
    -------
    MergeReport
        What was made.
    """
    output = Path(output)
    if not genomes:
        raise InputError(f"{output}: no genome was given; name at least one")
    check_output(output, force=force, directory=True, inputs=genomes)
    parts = [ProbabilisticGenome.open(path, check=True) for path in genomes]
    provenance = _merge_provenance(parts)
    found: dict[str, ProbabilisticGenome] = {}
    for part in parts:
        if twice := part.contigs.keys() & found.keys():
            first = next(name for name in part.contigs if name in twice)
            raise InputError(
                f"{part.path}: contig {first} is in {found[first].path} too; leave out one of them, or build the parts "
                "with --contigs that do not overlap"
            )
        found |= dict.fromkeys(part.contigs, part)

    def rows_of(name: str, kind: str, array: str) -> Any:
        return found[name].arrays[array][slice(*getattr(found[name].contigs[name], kind))]

    def sequences() -> Iterator[tuple[str, UInt8, Any]]:
        for name, part in found.items():
            yield name, part.bases(name, 0, part.lengths[name]), rows_of(name, "soft_mask", "soft_mask.npy")
            advance(part.contigs[name].length)

    variants = ((name, *(rows_of(name, "variants", array) for array in VARIANT_ARRAYS)) for name in found)
    total = sum(sum(part.lengths.values()) for part in parts)
    with (
        atomic_directory(output, force=force) as folder,
        progress_bar("Merging", total, unit="bases", show=progress) as advance,
    ):
        written = write_variants(folder, write_reference(folder, sequences()), variants)
        write_manifest(folder, written, **provenance)
    lengths = {name: contig.length for name, contig in written.items()}
    number = sum(last - first for *_, (first, last) in written.values())
    return MergeReport(output, len(parts), lengths, number, provenance["records"])


def _merge_provenance(parts: Sequence[ProbabilisticGenome]) -> dict[str, Any]:
    """Return what the manifest holds of sources, settings, records and names; raise where settings differ."""
    manifests = [{"settings": {}, "sources": [], "records": [], "contig_names": {}, **one.manifest} for one in parts]
    every, names = ([manifest[key] for manifest in manifests] for key in ("settings", "contig_names"))
    for part, settings in zip(parts, every, strict=True):
        for key in (every[0].keys() | settings.keys()) - {"contigs"}:
            if every[0].get(key) != settings.get(key):
                raise InputError(
                    f"{part.path}: was built with {key} {settings.get(key)}, and {parts[0].path} with "
                    f"{every[0].get(key)}; build the parts with the same settings"
                )
    wanted = [settings.get("contigs") for settings in every]
    vcf_name = {contig: name for one in names for contig, name in one.get("vcf_name", {}).items()}
    # What one part did not have in its FASTA, another may have.
    unmatched = dict.fromkeys(name for one in names for name in one.get("only_in_vcf", []))
    sources = {json.dumps(source): source for manifest in manifests for source in manifest["sources"]}
    by_file: dict[str, list[Mapping[str, Any]]] = {}
    for manifest in manifests:
        vcfs = [json.dumps(source) for source in manifest["sources"] if source["kind"] == "vcf"]
        for source, counts in zip(vcfs, manifest["records"], strict=True):
            by_file.setdefault(source, []).append(counts)
    return {
        "created_by": f"mutbert {__version__}",
        "sources": [*sources.values()],
        "settings": {**every[0], "contigs": None if None in wanted else [name for some in wanted for name in some]},
        "records": [_sum_records(counts) for counts in by_file.values()],
        "contig_names": {
            "vcf_name": vcf_name,
            "only_in_fasta": [contig for one in names for contig in one.get("only_in_fasta", [])],
            "only_in_vcf": [name for name in unmatched if name not in vcf_name.values()],
        },
    }


def _sum_records(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what became of a file's records; each part has counted all, also of the others' contigs."""
    sums = sum((Counter(part["not_used"]) for part in parts), Counter[str]())
    used, decomposed = (sum(part[key] for part in parts) for key in ("used", "decomposed"))
    # What is not of a contig that a part has is in none of their FASTA files, or else not selected.
    no_contig, not_selected = REASONS[NO_CONTIG], REASONS[NOT_SELECTED]
    rest = parts[0]["read"] - used - sums.total() + sums[no_contig] + sums[not_selected]
    sums[no_contig] = min(rest, *(part["not_used"].get(no_contig, 0) for part in parts))
    sums[not_selected] = rest - sums[no_contig]
    not_used = {text: sums[text] for text in REASONS if sums[text]}
    return {**parts[0], "used": used, "decomposed": decomposed, "not_used": not_used}
