"""Build a probabilistic genome from FASTA and VCF files: contig by contig, to be resumed, published in one step."""

from __future__ import annotations

import errno
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mutbert import __version__
from mutbert.errors import InputError
from mutbert.files import atomic_directory, check_input, check_output
from mutbert.genome.fields import GENOTYPES, find_frequency_fields
from mutbert.genome.format import FORMAT_VERSION, MANIFEST, SOFT_MASK, join_runs
from mutbert.genome.frequencies import ANY_FILTER, Calls
from mutbert.genome.pieces import read_pieces
from mutbert.genome.population import Population, RecordCounts
from mutbert.genome.resuming import Journal, check_plan, read_journal, whole_contigs
from mutbert.genome.samples import check_samples, describe_samples, read_samples
from mutbert.genome.sources import Source, describe_source, parse_sources
from mutbert.genome.vcf_text import older_index, read_header
from mutbert.genome.workers import Workers
from mutbert.genome.writer import StoreWriter
from mutbert.progress import progress_bar
from mutbert.regions import ContigNames, names_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from mutbert.genome.pieces import FastaPiece
    from mutbert.genome.resuming import Begun, Finished

MIN_FREQUENCY: Final = 0.02
"""The published minimum (Long et al. 2025, bioRxiv 2025.01.23.634452)."""

FILTERS: Final = ("PASS", ".")
"""The FILTER that passes unless told otherwise."""


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
        The VCF's name of each contig with records, by the genome's.
    only_in_fasta : list of str
        Selected contigs without a record in any VCF.
    only_in_vcf : list of str
        Contigs with records that the FASTA does not have.
    notes : list of str
        What could be better with the input, though it was used.
    """

    path: Path
    lengths: Mapping[str, int]
    variants: int
    records: Sequence[RecordCounts]
    contig_names: Mapping[str, str]
    only_in_fasta: Sequence[str]
    only_in_vcf: Sequence[str]
    notes: Sequence[str] = ()


def build_genome(
    fasta: str | Path | Source | Sequence[str | Path | Source],
    output: str | Path,
    vcf: str | Path | Source | Sequence[str | Path | Source] = (),
    *,
    min_frequency: float | None = None,
    frequency_field: str = "AF",
    samples: str | Path | Sequence[str] | None = None,
    population: str | None = None,
    sample: str | None = None,
    filters: Sequence[str] = FILTERS,
    contigs: Sequence[str] | None = None,
    workers: int | Workers = 1,
    resume: bool = False,
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
        The reference: plain, gzip or bgzip. ``PREFIX=FILE`` puts a prefix before its contigs' names
        (``human.chr1``), so that one genome can hold several species.
    output : path
        The store to write, by custom ``NAME.genome``.
    vcf : path or sequence of paths
        The population's variants: VCF or BCF, with or without genotypes; with a prefix, those of that species. None at
        all makes a store of the reference alone.
    min_frequency : float, optional
        Strict: a frequency that equals it is not kept. 0 keeps every allele that occurs. By default the published one,
        0.02; 0 for one person's genome.
    frequency_field : str
        The INFO field with a frequency for each alternate allele; a quotient of two, such as ``AC/AN``; or ``GT``, to
        count the genotypes. Where ``AF`` is asked for and a file's header does not declare it, ``AC/AN`` serves, and
        after that the genotypes.
    samples : path or sequence of str, optional
        Count the genotypes of these samples: names, or a file with them (see `mutbert.genome.samples.read_samples`).
    population : str, optional
        Of the samples of a panel file, those of this population.
    sample : str, optional
        Count the genotypes of one sample: its diploid genome, heterozygous positions half and half.
    filters : sequence of str
        A record passes with one of these names in FILTER; ``.`` stands for an empty FILTER, ``any`` for every one.
    contigs : sequence of str, optional
        The contigs of the FASTA to keep, under either naming; all where left out.
    workers : int or Workers
        Processes that read the VCF files: over contigs and over regions of one where there is an index, over files
        where there is none. The result does not depend on it.
    resume : bool
        Go on with a build that was stopped: finished contigs are not read again. The sources are compared first, by
        size and checksum. A store that is finished and was built from the same is left as it is.
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
        When an input cannot be used, in one line that names the file, the place and the remedy. Finished contigs are
        then kept for `resume`; without any, nothing is left behind.
    """
    fastas, vcfs, output = parse_sources(fasta), parse_sources(vcf), Path(output)
    if min_frequency is None:
        min_frequency = MIN_FREQUENCY if sample is None else 0.0
    if not 0 <= min_frequency < 1:
        raise InputError(f"minimum frequency {min_frequency:g}: is not at least 0 and below 1")
    if not fastas:
        raise InputError(f"{output}: no FASTA was given; give at least one")
    for source in fastas:
        check_input(source.path, "FASTA")
    _check_prefixes(fastas, vcfs)
    chosen = _chosen_samples(samples, population, sample, frequency_field, vcfs)
    calls = _calls(vcfs, frequency_field, chosen, tuple(filters))
    settings = {
        "min_frequency": min_frequency,
        "frequency_field": GENOTYPES if chosen is not None else frequency_field,
        "contigs": None if contigs is None else list(contigs),
        "filter": list(filters),
        "samples": None if chosen is None else describe_samples(chosen),
    }
    if not (resume and (output / MANIFEST).exists()):
        check_output(output, force=force, mark=MANIFEST)
    with Workers(workers) if isinstance(workers, int) else nullcontext(workers) as crew:
        paths = [source.path for source in (*fastas, *vcfs)]
        with progress_bar("Checksums", _bytes(paths), unit="bytes", show=progress) as advance:
            sources = [
                *(describe_source("fasta", source, advance) for source in fastas),
                *(describe_source("vcf", source, advance) for source in vcfs),
            ]
        plan = {"created_by": f"mutbert {__version__}", "sources": sources, "settings": settings}
        if resume and (output / MANIFEST).exists() and (report := _built_already(output, plan)):
            return report
        files = list(zip(vcfs, calls, strict=True))
        return _Build(output, fastas, files, plan, workers=crew, progress=progress).run(resume=resume, force=force)


class _Build:
    """One build: its input, and what it has made so far."""

    def __init__(
        self,
        output: Path,
        fastas: Sequence[Source],
        vcfs: Sequence[tuple[Source, Calls]],
        plan: Mapping[str, Any],
        *,
        workers: Workers,
        progress: bool,
    ) -> None:
        self._output = output
        self._fastas = fastas
        self._vcfs = vcfs
        self._plan = plan
        self._workers = workers
        self._progress = progress
        self._journal = Journal(Path())

    def run(self, *, resume: bool, force: bool) -> BuildReport:
        with (
            self._saying_what_is_kept(),
            atomic_directory(
                self._output, force=force, mark=MANIFEST, resume=resume, keep=lambda: self._journal.finished > 0
            ) as folder,
        ):
            self._journal = Journal(folder)
            before = read_journal(folder) if resume else None
            if before is None:
                # Of a build that had not come so far, nothing may stay: a store has its own files alone.
                for left in folder.iterdir():
                    left.unlink()
            else:
                # Whatever is wrong now, what was finished stays.
                self._journal.finished = len(before.finished)
                used = {number for one in before.finished for number in one.tallies}
                check_plan(self._output, before.plan, self._plan, used)
            with closing(self._journal), StoreWriter(folder, before.contigs if before else ()) as writer:
                finished = self._go_on(writer, before) if before else []
                not_selected = before.plan["not_selected"] if before else self._write_reference(writer)
                report = self._write_variants(writer, finished, not_selected)
                writer.finish(**_description(report, self._plan))
                self._journal.remove()
        return report

    def _go_on(self, writer: StoreWriter, before: Begun) -> list[Finished]:
        """Take over what an earlier process finished."""
        if writer.sequence_checksum() != before.checksum:
            raise InputError(f"{self._output}.partial: its sequences are damaged; build anew without --resume")
        whole = whole_contigs(before.finished, writer)
        writer.forget_variants({one.contig: one.variants for one in whole})
        self._journal.go_on({**self._plan, "not_selected": before.plan["not_selected"]}, whole)
        return whole

    def _write_reference(self, writer: StoreWriter) -> list[str]:
        """Write the wanted contigs; give the names of the others."""
        wanted = self._plan["settings"]["contigs"]
        selected = None if wanted is None else ContigNames(wanted)
        paths = [source.path for source in self._fastas]
        not_selected = []
        with progress_bar("Reading the reference", _bytes(paths), unit="bytes", show=self._progress) as advance:
            for name, pieces in groupby(read_pieces(self._fastas, advance), key=lambda piece: piece.contig):
                if selected is None or selected.find(name) is not None:
                    soft_masks: list[npt.NDArray[Any]] = []
                    writer.add_contig(name, _bases(pieces, soft_masks))
                    writer.add_soft_mask(name, join_runs(soft_masks, SOFT_MASK))
                else:
                    not_selected.append(name)
        there = ContigNames(writer.lengths)
        missing = [name for name in wanted or [] if there.find(name) is None]
        if missing or not writer.lengths:
            raise InputError(
                f"{names_text(map(str, paths))}: no contig {names_text(missing)}; "
                f"there are {names_text([*there, *not_selected])}"
            )
        writer.flush()
        plan = {**self._plan, "not_selected": not_selected}
        self._journal.begin(plan, writer.contigs, writer.sequence_checksum())
        return not_selected

    def _write_variants(
        self, writer: StoreWriter, finished: Sequence[Finished], not_selected: Sequence[str]
    ) -> BuildReport:
        population = Population(
            self._vcfs,
            writer,
            min_frequency=self._plan["settings"]["min_frequency"],
            not_selected=not_selected,
            finished={one.contig: (one.vcf_name, one.tallies) for one in finished},
            workers=self._workers,
        )
        with (
            progress_bar(
                "Reading the variants",
                population.bytes_to_read,
                unit="bytes",
                show=self._progress and bool(self._vcfs),
            ) as advance,
            closing(population.contigs(advance)) as found,
        ):
            for contig in found:
                rows = writer.add_variants(contig.contig, contig.position_V, contig.frequency_V4)
                writer.flush()
                self._journal.add(contig, rows)
        names = population.contig_names
        return BuildReport(
            path=self._output,
            lengths=writer.lengths,
            variants=sum(last - first for *_, (first, last) in writer.contigs),
            records=population.counts,
            contig_names={name: names[name] for name in writer.lengths if name in names},
            only_in_fasta=[name for name in writer.lengths if name not in names] if self._vcfs else [],
            only_in_vcf=list(population.unmatched),
            notes=[
                f"{index}: is older than its file, so it was not used; index the file anew to read it by regions"
                for source, _ in self._vcfs
                if (index := older_index(source.path)) is not None
            ],
        )

    @contextmanager
    def _saying_what_is_kept(self) -> Iterator[None]:
        try:
            yield
        except (InputError, OSError) as error:
            message = str(error)
            if isinstance(error, OSError):
                if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                message = f"{self._output}: {error.strerror}; make room or choose another place"
            if self._journal.finished and "--resume" not in message:
                message += f"; {self._journal.finished:,} finished contigs are kept: go on with --resume"
            raise InputError(message) from None


def _bases(pieces: Iterable[FastaPiece], soft_masks: list[npt.NDArray[Any]]) -> Iterator[npt.NDArray[np.uint8]]:
    """Give the bases of a contig's pieces as they are read, and put their soft masks aside."""
    for piece in pieces:
        soft_masks.append(piece.soft_mask)
        yield piece.base_L


def _check_prefixes(fastas: Sequence[Source], vcfs: Sequence[Source]) -> None:
    prefixes = {source.prefix for source in fastas}
    for source in vcfs:
        if source.prefix not in prefixes:
            known = names_text(sorted(f"{prefix}=" for prefix in prefixes if prefix)) if prefixes != {""} else "none"
            raise InputError(
                f"{source.path}: its prefix {source.prefix or '(none)'!r} is that of no FASTA; prefixes are {known}"
            )


def _chosen_samples(
    samples: str | Path | Sequence[str] | None,
    population: str | None,
    sample: str | None,
    frequency_field: str,
    vcfs: Sequence[Source],
) -> list[str] | None:
    """Give the names of the samples whose genotypes are counted; ``None`` where none are chosen."""
    if sample is not None and samples is not None:
        raise InputError(f"sample {sample}: one sample and a list of them were given; give one of both")
    if population is not None and not isinstance(samples, (str, Path)):
        raise InputError(f"population {population}: give a panel file with the populations of samples (--samples)")
    if sample is None and samples is None:
        return None
    if frequency_field not in {"AF", GENOTYPES}:
        raise InputError(
            f"frequency field {frequency_field}: samples are chosen, so genotypes are counted; give only one of both"
        )
    if not vcfs:
        raise InputError("samples are chosen, but no VCF was given; give one with genotypes")
    if sample is not None:
        return [sample]
    assert samples is not None
    return read_samples(Path(samples), population) if isinstance(samples, (str, Path)) else list(samples)


def _calls(
    vcfs: Sequence[Source], frequency_field: str, chosen: Sequence[str] | None, filters: tuple[str, ...]
) -> list[Calls]:
    headers = {source.path: read_header(source.path) for source in vcfs}
    if chosen is not None:
        check_samples(chosen, {path: header.samples for path, header in headers.items()})
    declared = {"PASS", ".", ANY_FILTER}.union(*(header.filters for header in headers.values()))
    unknown = [name for name in filters if name not in declared]
    if vcfs and (unknown or not filters):
        raise InputError(
            f"{names_text(str(path) for path in headers)}: no header declares the FILTER {names_text(unknown)}; "
            f"there are {names_text(sorted(declared), 30)}"
        )
    return [Calls(source.path, find_frequency_fields(source.path, frequency_field, chosen), filters) for source in vcfs]


def _built_already(output: Path, plan: Mapping[str, Any]) -> BuildReport | None:
    """Give the report of a store that was built from the same; ``None`` where it was built from something else."""
    from mutbert.genome.store import ProbabilisticGenome

    manifest = ProbabilisticGenome.open(output).manifest
    if manifest["version"] != FORMAT_VERSION or any(manifest.get(key) != plan[key] for key in plan):
        return None
    names = manifest["contig_names"]
    return BuildReport(
        path=output,
        lengths={contig["name"]: contig["length"] for contig in manifest["contigs"]},
        variants=sum(last - first for first, last in (contig["variants"] for contig in manifest["contigs"])),
        records=[RecordCounts(**counts) for counts in manifest["records"]],
        contig_names=names["vcf_name"],
        only_in_fasta=names["only_in_fasta"],
        only_in_vcf=names["only_in_vcf"],
        notes=[],
    )


def _description(report: BuildReport, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Say what the manifest holds besides contigs and arrays; nothing depends on when or where it was built."""
    return {
        **plan,
        "records": [asdict(counts) for counts in report.records],
        "contig_names": {
            "vcf_name": dict(report.contig_names),
            "only_in_fasta": list(report.only_in_fasta),
            "only_in_vcf": list(report.only_in_vcf),
        },
    }


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
