"""Build a probabilistic genome from FASTA and VCF files, in one atomic step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutbert import __version__
from mutbert.errors import InputError
from mutbert.genome.compression import check_input
from mutbert.genome.fasta import read_pieces
from mutbert.genome.frequencies import Population, RecordCounts
from mutbert.genome.layout import MANIFEST
from mutbert.genome.vcf import find_frequency_fields
from mutbert.genome.writer import StoreWriter
from mutbert.progress import progress_bar
from mutbert.publishing import publish_directory, refuse_existing, sha256_of
from mutbert.regions import match_contig, names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


@dataclass(frozen=True)
class BuildReport:
    """What a build made, and what became of its input.

    Parameters
    ----------
    path : Path
        The store.
    lengths : dict of str to int
        Its contigs with their lengths in bases.
    variants : int
        Positions that vary.
    records : list of RecordCounts
        Records read, used and not used by reason, for each VCF file.
    contig_names : dict of str to str
        The VCF's name of each contig with records, by the FASTA's.
    only_in_fasta : list of str
        Selected contigs without a record in any VCF.
    only_in_vcf : list of str
        Contigs with records that the FASTA does not have.
    """

    path: Path
    lengths: Mapping[str, int]
    variants: int
    records: Sequence[RecordCounts]
    contig_names: Mapping[str, str]
    only_in_fasta: Sequence[str]
    only_in_vcf: Sequence[str]


def build_genome(
    fasta: str | Path | Sequence[str | Path],
    output: str | Path,
    vcf: str | Path | Sequence[str | Path] = (),
    *,
    min_frequency: float = 0.02,
    frequency_field: str = "AF",
    contigs: Sequence[str] | None = None,
    force: bool = False,
    progress: bool = False,
) -> BuildReport:
    """Build a probabilistic genome.

    At a position where the alternate single-nucleotide alleles of all records together have a frequency above
    `min_frequency`, the distribution is theirs, and REF has the rest; everywhere else it is the reference's.
    ``docs/genome.md`` says what counts and lists every reason for which a record does not.

    Parameters
    ----------
    fasta : path or sequence of paths
        The reference: plain, gzip or bgzip.
    output : path
        The store to write, by custom ``NAME.genome``.
    vcf : path or sequence of paths
        The population's variants: VCF or BCF, with or without genotypes, which are not read. None at all makes a
        store of the reference alone.
    min_frequency : float
        Strict: a frequency that equals it is not kept. 0 keeps every allele that occurs. The default is the
        published one (Long et al. 2025, bioRxiv 2025.01.23.634452).
    frequency_field : str
        The INFO field with a frequency for each alternate allele. Where ``AF`` is asked for and a file's header does
        not declare it, ``AC/AN`` serves.
    contigs : sequence of str, optional
        The contigs of the FASTA to keep, under either naming; all where left out.
    force : bool
        Replace `output` where it exists.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    BuildReport
        What was made; `mutbert.ProbabilisticGenome.open` opens it.

    Raises
    ------
    InputError
        When an input cannot be used, in one line that names the file, the place and the remedy; nothing is left behind.
    """
    fastas, vcfs, output = _paths(fasta), _paths(vcf), Path(output)
    if not 0 <= min_frequency < 1:
        raise InputError(f"minimum frequency {min_frequency:g}: is not at least 0 and below 1")
    if not fastas:
        raise InputError(f"{output}: no FASTA was given; give at least one")
    refuse_existing(output, force=force, mark=MANIFEST)
    for path in fastas:
        check_input(path, "FASTA")
    files = [(path, find_frequency_fields(path, frequency_field)) for path in vcfs]

    with publish_directory(output, force=force, mark=MANIFEST) as folder, StoreWriter(folder) as writer:
        with progress_bar("Reading the reference", _bytes(fastas), unit="bytes", show=progress) as advance:
            not_selected = _add_sequences(writer, fastas, contigs, advance)
        population = Population(files, writer, min_frequency=min_frequency, not_selected=not_selected)
        with progress_bar("Reading the variants", _bytes(vcfs), unit="bytes", show=progress and bool(vcfs)) as advance:
            variants = 0
            for contig, position_V, frequency_V4 in population.contigs(advance):
                writer.add_variants(contig, position_V, frequency_V4)
                variants += len(position_V)
        with progress_bar("Checksums", _bytes([*fastas, *vcfs]), unit="bytes", show=progress) as advance:
            sources = [
                *(_source("fasta", path, advance) for path in fastas),
                *(_source("vcf", path, advance) for path in vcfs),
            ]
        report = BuildReport(
            path=output,
            lengths=writer.lengths,
            variants=variants,
            records=population.counts,
            contig_names=population.contig_names,
            only_in_fasta=[name for name in writer.lengths if name not in population.contig_names] if vcfs else [],
            only_in_vcf=list(population.unmatched),
        )
        settings = {
            "min_frequency": min_frequency,
            "frequency_field": frequency_field,
            "contigs": None if contigs is None else list(contigs),
        }
        writer.finish(**_description(report, sources, settings))
    return report


def _add_sequences(
    writer: StoreWriter, fastas: Sequence[Path], contigs: Sequence[str] | None, advance: Callable[[float], None]
) -> list[str]:
    """Write the wanted contigs; give the names of the others."""
    not_selected = []
    for name, pieces in groupby(read_pieces(fastas, advance), key=lambda piece: piece.contig):
        if contigs is None or match_contig(name, contigs) is not None:
            writer.add_contig(name, (piece.base_L for piece in pieces))
        else:
            not_selected.append(name)
    there = writer.lengths
    missing = [name for name in contigs or [] if match_contig(name, there) is None]
    if missing or not there:
        raise InputError(
            f"{names_text(map(str, fastas))}: no contig {names_text(missing)}; "
            f"there are {names_text([*there, *not_selected])}"
        )
    return not_selected


def _description(report: BuildReport, sources: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Say what the manifest holds besides contigs and arrays; nothing depends on when or where it was built."""
    return {
        "created_by": f"mutbert {__version__}",
        "sources": sources,
        "settings": settings,
        "records": [asdict(counts) for counts in report.records],
        "contig_names": {
            "vcf_name": dict(report.contig_names),
            "only_in_fasta": list(report.only_in_fasta),
            "only_in_vcf": list(report.only_in_vcf),
        },
    }


def _source(kind: str, path: Path, advance: Callable[[float], None]) -> dict[str, Any]:
    return {"kind": kind, "file": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path, advance)}


def _paths(given: str | Path | Iterable[str | Path]) -> list[Path]:
    return [Path(given)] if isinstance(given, str | Path) else [Path(path) for path in given]


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
