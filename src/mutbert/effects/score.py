"""Variant calls in, the same records with scores out."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import polars as pl
import torch

import mutbert
from mutbert.effects import records as files
from mutbert.effects.alleles import Reason
from mutbert.effects.scores import LOCUS, Scorer, ScoreSettings, open_scorer
from mutbert.errors import InputError
from mutbert.files import check_output, sha256_of
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.vcf import VcfHeader, count_by_index, read_header, read_lines
from mutbert.inference.parts import check_done, parts_folder, parts_path, run_parts, was_stopped
from mutbert.inference.run import model_hash, model_name
from mutbert.model import MutBertForMaskedLM
from mutbert.progress import Advance, progress_bar, scaled
from mutbert.regions import ContigNames, Region, merge_regions, names_text, read_bed
from mutbert.tables import notebook_html

Processes = tuple[int, int, Callable[[], Any]]
_FAR: Final = 1 << 31  # after the end of any contig


@dataclass(frozen=True)
class ScoreReport:
    """What became of the records, all of which are in the output."""

    output: Path
    table: Path | None
    records: int
    alleles: int  # A record without alternate counts as one.
    scored: Mapping[str, int]  # By kind.
    missing: Mapping[str, int]  # By reason.
    fields: tuple[str, ...]
    index: Path | None = None
    why_no_index: str = "another process makes it"
    without_frequency: int = 0  # SNVs that have no AFLLR.
    without_background: int = 0  # Scores that have no percentage.
    person_not_used: Mapping[str, int] | None = None  # Records of the person's genotypes that change nothing.
    without_snvs: Mapping[str, int] | None = None  # Of every SNV, positions that have none, by reason.
    warnings: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        rows = [{"alleles": name, "number": count} for name, count in {**self.scored, **self.missing}.items()]
        return notebook_html(f"{self.output}: {self.records:,} records, {self.alleles:,} alleles", rows)


def score_variants(
    model: str | Path | MutBertForMaskedLM, genome: str | Path | ProbabilisticGenome, vcf: str | Path,
    output: str | Path, *, scores: Sequence[str] = ("llr",), context: int | None = None, windows: str = "centred",
    strands: str | None = None, surroundings: str = "reference", sample: str | None = None,
    person_vcf: str | Path | None = None, flank: int = 8, longest: int = 50,
    distance_bases: int | None = None, frequency_field: str | None = None, calibration: str | Path | None = None,
    calibrate: bool = False, table: str | Path | None = None, prefix: str = "MUTBERT", batch_size: int = 32,
    precision: str = "fp32", rope_scaling: Mapping[str, Any] | None = None,
    region: Sequence[str] | str | None = None, bed: str | Path | None = None, part_records: int | None = None,
    resume: bool = False, force: bool = False, progress: bool = False,
) -> ScoreReport:  # fmt: skip
    """Score the alternate alleles of a VCF.

    Processes that ``torchrun`` starts share the work, and the first writes the output. A VCF of another assembly, whose
    REF differs from the genome in more than half of at least 100 alleles, raises InputError.

    Parameters
    ----------
    model, genome, vcf
        A checkpoint, run on a GPU if there is one (in Python also a loaded model), or a fine-tuned classifier's folder;
        the store of the VCF's assembly; a VCF or BCF.
    output
        ``.vcf.gz``, ``.vcf`` or ``.bcf``: the records with ``MUTBERT_LLR`` and so on in INFO, and ``MUTBERT_WHY`` for
        an alternate without a score; of a classifier ``MUTBERT_delta_LABEL``, the change of its log-odds, of several
        classes of the log-probability, or of its number. ``.tsv``, ``.tsv.gz`` or ``.parquet``: a row per alternate.
        ``.json``, with `calibrate`: a background.
    scores, windows, flank, longest, distance_bases
        Any of ``llr``, ``unmasked`` and ``distance``; ``centred``, or ``shared`` by neighbours, which is faster; bases
        on either side of an MNV or indel that count; length of the longest MNV or indel that is scored; bases around a
        variant whose embeddings are compared, by default the whole window.
    surroundings, sample, person_vcf, strands
        Sequence around a variant: ``reference``, ``population`` or ``person``; name of the person; VCF with the
        person's genotypes, by default `vcf`; ``forward``, or ``both`` for the mean over the two strands, by default
        both, or for a classifier as in training.
    frequency_field
        INFO field with frequencies of alternate alleles: adds AFLLR = LLR + ln((f_alt + ε) / (f_ref + ε)) for SNVs,
        with ε = 1e-4 and f_ref = 1 − Σ f_alt.
    calibration, calibrate
        Background: adds ``LLR_PCT`` and so on, the percentage of it that is less extreme (windows must be centred);
        make a background of the VCF, such as of a population's common variants.
    table, prefix, region, bed
        Second output, ``.tsv``, ``.tsv.gz`` or ``.parquet``; prefix of INFO fields; score only records whose POS is in
        this region, such as ``chr1:1-1000000``, or one of several, which needs an index; a BED file of regions instead.
    part_records
        Records per part, by default 1,000, or 16,384 positions of every SNV; a stopped run loses at most one part, and
        processes share parts.
    context, batch_size, precision, rope_scaling, resume, force, progress
        As for the other commands that run a model.

    Returns
    -------
    ScoreReport

    Raises
    ------
    InputError
        A VCF that cannot be read or is of another assembly, a model without the scores, an output that exists.

    Examples
    --------
    >>> report = mutbert.score_variants("model", "population.genome", "variants.vcf", "scored.vcf", flank=2)
    >>> report.scored["snv"], report.missing["symbolic"]
    (44, 3)
    """
    settings = ScoreSettings(
        scores, context, windows, strands, flank, longest, distance_bases, batch_size, precision, rope_scaling
    )
    vcf, output = Path(vcf), Path(output)
    of_person = person_vcf or (vcf if surroundings == "person" else None)
    paths = (table, of_person, calibration, bed)
    second, person, background, listed = (None if path is None else Path(path) for path in paths)
    inputs = (model, genome, vcf, person, background, bed)
    formats = (".json",) if calibrate else files.VCFS + files.TABLES
    check_outputs(output, second, inputs, formats, prefix, force=force or (resume and was_stopped(output)))
    if calibrate and (background or frequency_field or second):
        raise InputError("a background has scores alone; leave out --calibration, --frequency-field and --table")
    header = _check_header(vcf, prefix, frequency_field, settings.scores)
    known = None if background is None else files.Calibration(background)
    if settings.windows == "shared" and (calibrate or known):
        raise InputError("windows are shared, so that no background of other variants serves; choose centred")
    regions = (region,) if isinstance(region, str) else tuple(region or ())
    how: dict[str, Any] = {"surroundings": surroundings, "person_vcf": person, "sample": sample}
    with ExitStack() as stack:
        processes = join_processes(stack)
        progress = progress and processes[0] == 0
        scorer = open_scorer(model, genome, settings=settings, progress=progress, **how)
        run = ScoreRun(scorer, known, prefix, model_name(model), vcf, header, frequency_field, calibrate=calibrate)
        found = Path(stack.enter_context(TemporaryDirectory(prefix="mutbert-")), "regions")
        run.stretch, total = _locate(regions, listed, vcf, header, scorer.genome.lengths, found)
        where, size = listed or ",".join(regions) or None, part_records or 1000
        how |= {"calibration": background, "region": where, "part_records": size}
        records = files.cut_records(vcf, frequency_field, scorer, region=run.stretch, size=size)
        bar = progress_bar("scoring", total, unit="variants", show=progress)
        return run.carry_out(records, output, second, how, bar, processes, resume=resume, force=force)


def join_processes(stack: ExitStack) -> Processes:
    """Return the number of this process, how many there are, and a function that waits for all of them."""
    rank, ranks = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if ranks == 1:
        return rank, ranks, lambda: None
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    # Some wait for others as long as scoring takes; where one fails, torchrun ends all.
    torch.distributed.init_process_group("gloo", timeout=timedelta(days=30))
    stack.callback(torch.distributed.destroy_process_group)
    return rank, ranks, torch.distributed.barrier


def check_outputs(
    output: Path, table: Path | None, inputs: Iterable[Any], formats: tuple[str, ...], prefix: str, *, force: bool
) -> None:
    """Raise an InputError for outputs of unknown formats, or in whose place something else is, or a bad prefix."""
    if re.fullmatch(r"[A-Za-z_][\w.]*", prefix, re.ASCII) is None:
        raise InputError(f"prefix is {prefix!r}; use letters, digits, _ and . that begin with a letter or _")
    for path, allowed in ((output, formats), (table, files.TABLES)):
        if path is not None:
            # No suffix, where it is allowed, is a directory.
            is_directory, named = "" in allowed and not path.suffix, tuple(filter(None, allowed))
            if not is_directory and (not path.name.endswith(named) or path.name in named):
                raise InputError(f"{path}: the suffix chooses the format; it must be one of {', '.join(named)}")
            for kind in ("", *files.INDICES.get(path.suffix, ())):
                own = path.with_name(f"{path.name}.{kind}".rstrip("."))
                check_output(own, force=force, directory=is_directory, inputs=inputs)
    if table is not None and output.resolve() == table.resolve():
        raise InputError(f"{table}: is the other output too; choose another table")


def _check_header(vcf: Path, prefix: str, frequency_field: str | None, scores: Iterable[str]) -> VcfHeader:
    """Return the VCF's header, which has the field of frequencies, and none that is to be added."""
    header = read_header(vcf)
    if taken := [name for name in header.info if name.startswith(f"{prefix}_")]:
        raise InputError(f"{vcf}: has an INFO field {taken[0]} already; choose other names with --prefix")
    floats = [name for name, (_, kind) in header.info.items() if kind == "Float"]
    if frequency_field is not None and frequency_field not in floats:
        raise InputError(f"{vcf}: declares no INFO field {frequency_field} of type Float, but {names_text(floats, 30)}")
    if frequency_field is not None and "llr" not in scores:
        raise InputError(f"frequency_field is {frequency_field!r}, but what it adjusts is LLR; add llr to scores")
    return header


def _locate(
    regions: Sequence[str], bed: Path | None, vcf: Path, header: VcfHeader, genome: Mapping[str, int], listed: Path
) -> tuple[Path | None, int | None]:
    """Return a file of the regions, whose records are to be scored; else how many the VCF has, if that is known."""
    counted = count_by_index(vcf)
    if bed is None and not regions:
        return None, sum((counted or {}).values()) or None
    if bed is not None and regions:
        raise InputError(f"{bed}: regions are named as well as a BED file; choose one or the other")
    if counted is None:
        raise InputError(f"{vcf}: has no up-to-date index to find a region by; run 'bcftools index -f'")
    # In the order of the file, whose header may lack some.
    declared = {name: length or _FAR for name, length in header.contigs.items()}
    known = dict.fromkeys(counted, _FAR) | (declared or dict(genome))
    asked = read_bed(bed, known) if bed is not None else [Region.parse(one, known) for one in regions]
    # A contig is whole also where the header has it shorter than it is.
    ends = ((one, _FAR if one.end == known[one.contig] else one.end) for one in merge_regions(asked, known))
    lines = (f"{one.contig}\t{one.start + 1}\t{end}\n" for one, end in ends)
    listed.write_text("".join(lines), encoding="utf-8")
    return listed, None


class ScoreRun:
    """What scores the parts of a VCF, counts what became of them, and writes the outputs."""

    def __init__(
        self, scorer: Scorer, known: files.Calibration | None, prefix: str, model: str, vcf: Any = None,
        header: Any = None, frequency_field: str | None = None, *, calibrate: bool = False,
    ) -> None:  # fmt: skip
        self.scorer, self.known, self.prefix, self.model, self.calibrate = scorer, known, prefix, model, calibrate
        self.vcf, self.header, self.frequency_field = vcf, header, frequency_field
        self.stretch: Path | None = None  # a file of the regions that records are of
        self.fields, self.counts = dict(scorer.fields), Counter[str]()
        if frequency_field is not None:
            if "LLR" not in self.fields:
                raise InputError(f"frequency_field is {frequency_field!r}, but a classifier has no LLR that it adjusts")
            text = f"with f_ALT of INFO field {frequency_field} and f_REF what its alternates leave of 1"
            text = f"LLR + ln((f_ALT + {files.EPSILON:g}) / (f_REF + {files.EPSILON:g})), {text}"
            self.fields["AFLLR"] = text, -1
        if known is not None:
            self.fields |= known.added(scorer.fields)

    def carry_out(
        self, pieces: Iterable[Any], output: Path, second: Path | None, asked: Mapping[str, Any],
        bar: AbstractContextManager[Advance], processes: Processes, *, resume: bool, force: bool,
    ) -> ScoreReport:  # fmt: skip
        """Return the report of a run whose parts all processes score, and whose outputs the first of them writes."""
        (rank, ranks, barrier), folder = processes, parts_path(output)
        outputs = list(filter(None, (output, second)))
        with ExitStack() as stack:
            plan = {"prefix": self.prefix, **self.plan(asked)} if rank == 0 or resume else {}
            if rank == 0:
                stack.enter_context(parts_folder(output, plan, outputs, resume=resume, force=force))
            elif resume:
                check_done(output, plan, outputs, force=force)
            barrier()
            try:
                with bar as advance:
                    parts = run_parts(
                        folder, enumerate(pieces), partial(self.write, advance), rank=rank, ranks=ranks,
                        skipped=lambda piece: advance(self.size(piece)),
                    )  # fmt: skip
                barrier()
                counts = self.count(parts)
            except InputError:
                # Parts of an input that cannot be used are of no use.
                for part in folder.glob("[0-9]*") if rank == 0 and self.vcf else ():
                    part.unlink()
                raise
            barrier()
            if rank == 0:
                counts |= self.write_outputs(output, second, parts, {**plan, "model_name": self.model})
        return ScoreReport(output, second, **counts)

    def size(self, piece: Any) -> int:
        """Return how many records, or bases that are not N, a part has."""
        return len(piece)

    def plan(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that results depend on: files by their SHA-256."""
        digest, given = cache(sha256_of), {**asdict(self.scorer.settings), "frequency_field": self.frequency_field}
        settings = {name: digest(one) if isinstance(one, Path) else one for name, one in {**given, **asked}.items()}
        # Which windows share a batch changes results by no more than rounding.
        del settings["batch_size"]
        origin = {"vcf": self.vcf and digest(self.vcf), "model": model_hash(self.scorer.model)}
        plan = {"mutbert": mutbert.__version__, **origin, "genome": self.scorer.genome.identity, "settings": settings}
        if self.known is not None:
            self.known.check(plan, self.scorer.fields)
        return plan

    def write_outputs(
        self, path: Path, table: Path | None, parts: list[Path], made_by: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write the outputs; return the index of the first, if any, and else why there is none."""
        for one in filter(None, (table, path)):
            if one.name.endswith(files.TABLES):
                files.write_table(one, parts, list(self.fields))
        if path.name.endswith(files.VCFS):
            index, why = files.write_vcf(path, parts, *self.source(parts), self.fields, made_by)
            return {"index": index, "why_no_index": why}
        if path.suffix == ".json":
            files.write_calibration(path, parts, self.scorer.fields, made_by, self.vcf.name)
        return {"why_no_index": ""}

    def source(self, parts: list[Path]) -> tuple[bytes, Collection[str], Iterator[bytes]]:  # noqa: ARG002
        """Return a VCF's header, the contigs that it declares, and its records, all without what scores add."""
        lines = (line for block in read_lines(self.vcf, region=self.stretch) for line in block[:-1].split(b"\n"))
        return b"".join(read_lines(self.vcf, header=True)), self.header.contigs, lines

    def write(self, advance: Advance, piece: Any, path: Path) -> None:
        """Write a part's rows: record, which allele, kind, each field as float32, and why there is no score."""
        scorer, records = self.scorer, piece
        rows = records.select("record", chrom="contig", pos=pl.col("position") + 1, id="ID", ref="ref", alt="alt")
        alleles = scorer.find(*(column.to_list() for column in rows.select(LOCUS)))
        self.counts.update(Reason(reason).text for reason in alleles.reason_A)
        files.check_assembly(self.vcf, scorer.genome.path.name, self.counts)
        score_AF = scorer.score(alleles, scaled(advance, len(records) / max(len(alleles), 1)))
        columns = dict(zip(scorer.fields, score_AF.T.astype(np.float64), strict=True))
        if self.frequency_field is not None:
            odds_A = files.log_odds(self.vcf, records, self.frequency_field, self.counts)
            columns["AFLLR"] = columns["LLR"] + odds_A
        if self.known is not None:
            columns |= self.known.percentages(columns, alleles.kind_A)
        rows = rows.with_columns(pl.col("alt").str.split(",")).explode("alt")
        rows.with_columns(scorer.columns(alleles, columns)).write_parquet(path)

    def count(self, parts: list[Path]) -> dict[str, Any]:
        """Return counts of `ScoreReport`; raise an InputError where a VCF, read as a whole, has no contig in common."""
        names = list(self.fields)
        summary = pl.len(), pl.col("record").max(), pl.col(names).count(), pl.col("chrom").unique()
        counts = pl.concat([pl.read_parquet(path).group_by("kind", "why").agg(summary) for path in parts])
        scored, missing = Counter[str](), Counter[str]()
        for kind, why, number in counts.select("kind", "why", "len").iter_rows():
            (missing if why else scored)[why or kind] += number
        with_score = counts.select(pl.col(names).sum()).row(0, named=True)
        contigs = counts["chrom"].explode().drop_nulls().unique().sort()
        genome, most = self.scorer.genome, max(scored["snv"], scored["mnv"] + scored["indel"])
        if self.stretch is None and len(contigs) and not any(map(ContigNames(genome.lengths).find, contigs)):
            what = f"its contigs ({names_text(contigs)}) are none of the genome's ({names_text(genome.lengths)})"
            raise InputError(f"{self.vcf}: {what}; use its genome, or rename them by 'bcftools annotate --rename-chrs'")
        if self.calibrate and most < files.LEAST:
            raise InputError(f"{self.vcf}: has {most} scored alleles of a kind; a background needs {files.LEAST}")
        extreme = [] if self.known is None else [name for name in self.known.fields if with_score.get(name)]
        around, by_reason = self.scorer.surroundings, missing + Counter({".": scored.total()})
        return {
            "records": counts.select(pl.col("record").max().fill_null(-1)).item() + 1, "alleles": by_reason.total(),
            "scored": dict(sorted(scored.items())), "missing": dict(sorted(missing.items())), "fields": tuple(names),
            "without_frequency": with_score["LLR"] - with_score["AFLLR"] if self.frequency_field else 0,
            "without_background": sum(with_score[name] - with_score.get(f"{name}_PCT", 0) for name in extreme),
            "person_not_used": dict(around.not_used) if around.kind == "person" else None,
            "warnings": (*self.scorer.notes, *files.check_assembly(self.vcf, genome.path.name, by_reason)),
        }  # fmt: skip
