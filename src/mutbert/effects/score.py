"""Variant calls in, the same records with scores out."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

import mutbert
from mutbert.effects.alleles import Kind, Reason
from mutbert.effects.calibration import LEAST, Calibration, write_calibration
from mutbert.effects.records import EPSILON, TABLES, VCFS, check_assembly, cut_records, log_odds, write_table, write_vcf
from mutbert.effects.scores import Field, ScoreSettings, open_scorer
from mutbert.errors import InputError
from mutbert.files import check_output, sha256_of
from mutbert.genome.vcf import VcfHeader, count_by_index, read_header
from mutbert.inference.resumable import parts_folder, parts_path, run_parts, was_stopped
from mutbert.inference.run import model_hash, model_name
from mutbert.progress import progress_bar, scaled
from mutbert.regions import ContigNames, Region, names_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.model import MutBertForMaskedLM
    from mutbert.progress import Advance

_KINDS: Final = np.array([kind.name.lower() for kind in Kind], dtype=object)
_REASONS: Final = np.array([reason.text for reason in Reason], dtype=object)


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
    warnings: tuple[str, ...] = ()


def score_variants(
    model: str | Path | MutBertForMaskedLM, genome: str | Path | ProbabilisticGenome, vcf: str | Path,
    output: str | Path, *, scores: tuple[str, ...] = ("llr",), context: int | None = None, windows: str = "centred",
    strands: str = "both", surroundings: str = "reference", sample: str | None = None,
    person_vcf: str | Path | None = None, flank: int = 8, longest: int = 50,
    distance_bases: int | None = None, frequency_field: str | None = None, calibration: str | Path | None = None,
    calibrate: bool = False, table: str | Path | None = None, prefix: str = "MUTBERT", batch_size: int = 32,
    precision: str = "fp32", rope_scaling: Mapping[str, Any] | None = None, region: str | None = None,
    part_records: int = 1000, resume: bool = False, force: bool = False, progress: bool = False,
) -> ScoreReport:  # fmt: skip
    """Score the alternate alleles of a VCF.

    Processes that ``torchrun`` starts share the work, and the first writes the output. A VCF of another assembly, whose
    REF differs from the genome in more than half of at least 100 alleles, raises InputError.

    Parameters
    ----------
    model, genome, vcf
        A checkpoint, run on a GPU if there is one (in Python also a loaded model); the store of the VCF's
        assembly; a VCF or BCF.
    output
        ``.vcf.gz``, ``.vcf`` or ``.bcf``: the records with ``MUTBERT_LLR`` and so on in INFO, and ``MUTBERT_WHY`` for
        an alternate without a score. ``.tsv``, ``.tsv.gz`` or ``.parquet``: a row per alternate. ``.json``, with
        `calibrate`: a background.
    scores, windows, flank, longest, distance_bases
        Any of ``llr``, ``unmasked`` and ``distance``; ``centred``, or ``shared`` by neighbours, which is faster; bases
        on either side of an MNV or indel that count; length of the longest MNV or indel that is scored; bases around a
        variant whose embeddings are compared, by default the whole window.
    surroundings, sample, person_vcf
        Sequence around a variant: ``reference``, ``population`` or ``person``; name of the person; VCF with the
        person's genotypes, by default `vcf`.
    frequency_field
        INFO field with frequencies of alternate alleles: adds AFLLR = LLR + ln((f_alt + ε) / (f_ref + ε)) for SNVs,
        with ε = 1e-4 and f_ref = 1 − Σ f_alt.
    calibration, calibrate
        Background: adds ``LLR_PCT`` and so on, the percentage of it that is less extreme (windows must be centred);
        make a background of the VCF, such as of a population's common variants.
    table, prefix, region
        Second output, ``.tsv``, ``.tsv.gz`` or ``.parquet``; prefix of INFO fields; score only records whose POS is in
        this region, such as ``chr1:1-1000000``, which needs an index.
    part_records
        Records per part; a stopped run loses at most one part, and processes share parts.
    context, strands, batch_size, precision, rope_scaling, resume, force, progress
        As for the other commands that run a model.

    Returns
    -------
    ScoreReport
    """
    settings = ScoreSettings(
        tuple(scores), context, windows, strands, flank, longest, distance_bases, batch_size, precision, rope_scaling
    )
    second, person, background = (None if path is None else Path(path) for path in (table, person_vcf, calibration))
    run = _Run(
        model, genome, Path(vcf), Path(output), second, person, background, settings, surroundings, sample,
        frequency_field, calibrate, prefix, region, part_records, progress and os.environ.get("RANK", "0") == "0",
    )  # fmt: skip
    inputs = (model, genome, vcf, person, background)
    run.check(inputs, force=force or (resume and was_stopped(run.output)))
    return run.run(resume=resume, force=force)


@dataclass
class _Run:
    """What is asked for, and what scores it once that is open."""

    model: Any
    genome: Any
    vcf: Path
    output: Path
    table: Path | None
    person_vcf: Path | None
    calibration: Path | None
    settings: ScoreSettings
    surroundings: str
    sample: str | None
    frequency_field: str | None
    calibrate: bool
    prefix: str
    region: str | None
    part_records: int
    show: bool
    header: VcfHeader = field(init=False)
    known: Calibration | None = None
    stretch: tuple[str, int, int | None] | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def check(self, inputs: tuple[Any, ...], *, force: bool) -> None:
        """Raise an InputError for what is known to be wrong before the model is loaded."""
        suffixes = {self.output: (".json",) if self.calibrate else VCFS + TABLES}
        for path, allowed in (suffixes | ({} if self.table is None else {self.table: TABLES})).items():
            if not path.name.endswith(allowed) or path.name in allowed:
                raise InputError(f"{path}: the suffix chooses the format; it must be one of {', '.join(allowed)}")
            check_output(path, force=force, inputs=inputs)
        if self.table is not None and self.output.resolve() == self.table.resolve():
            raise InputError(f"{self.table}: is the other output too; choose another table")
        if re.fullmatch(r"[A-Za-z_][\w.]*", self.prefix, re.ASCII) is None:
            raise InputError(f"prefix is {self.prefix!r}; use letters, digits, _ and . that begin with a letter or _")
        if self.calibrate and (self.calibration or self.frequency_field or self.table):
            raise InputError("a background has scores alone; leave out --calibration, --frequency-field and --table")
        if self.settings.windows == "shared" and (self.calibrate or self.calibration):
            raise InputError("windows are shared, so that no background of other variants serves; choose centred")
        self.header = read_header(self.vcf)
        if taken := [one for one in self.header.info if one.startswith(f"{self.prefix}_")]:
            raise InputError(f"{self.vcf}: has an INFO field {taken[0]} already; choose other names with --prefix")
        numbers = [one for one, (_, kind) in self.header.info.items() if kind == "Float"]
        if (name := self.frequency_field) is not None:
            if name not in numbers:
                text = names_text(numbers, 30)
                raise InputError(f"{self.vcf}: declares no INFO field {name} with Type=Float, but {text}")
            if "llr" not in self.settings.scores:
                raise InputError(f"frequency_field is {name!r}, but what it adjusts is LLR; add llr to scores")
        if self.calibration is not None:
            self.known = Calibration(self.calibration)
        if self.surroundings == "person" and self.person_vcf is None:
            self.person_vcf = self.vcf

    def run(self, *, resume: bool, force: bool) -> ScoreReport:
        """Score what is not scored yet; the first process writes the outputs."""
        from torch import distributed

        rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        with ExitStack() as stack:
            if ranks > 1:
                # Some wait for others as long as scoring takes; where one fails, torchrun ends all.
                distributed.init_process_group("gloo", timeout=timedelta(days=30))
                stack.callback(distributed.destroy_process_group)
            barrier = distributed.barrier if ranks > 1 else lambda: None
            self.open()
            plan, folder = self.plan() if rank == 0 else {}, parts_path(self.output)
            if rank == 0:
                stack.enter_context(parts_folder(self.output, plan, resume=resume, force=force))
            barrier()
            try:
                parts = self.score(folder, rank, ranks)
                barrier()
                report = self.report(parts)
            except InputError:
                # Parts of an input that cannot be used are of no use.
                for part in folder.glob("[0-9]*") if rank == 0 else ():
                    part.unlink()
                raise
            barrier()
            if rank:
                return report
            index: tuple[Path | None, str] = None, ""
            if self.calibrate:
                write_calibration(self.output, parts, self.scorer.fields, plan, self.vcf.name)
            elif self.output.name.endswith(VCFS):
                made_by = {"prefix": self.prefix, **plan, "model_name": model_name(self.model)}
                index = write_vcf(self.output, parts, self.vcf, self.header, self.stretch, self.fields, made_by)
            for path in (self.output, self.table):
                if path is not None and path.name.endswith(TABLES):
                    write_table(path, parts, report.fields)
            return replace(report, index=index[0], why_no_index=index[1])

    def open(self) -> None:
        """Open the model and the genome, and locate the region."""
        self.scorer = open_scorer(
            self.model, self.genome, surroundings=self.surroundings, person_vcf=self.person_vcf, sample=self.sample,
            settings=self.settings, progress=self.show,
        )  # fmt: skip
        self.fields = list(self.scorer.fields)
        if (name := self.frequency_field) is not None:
            text = f"LLR + ln((f_ALT + {EPSILON:g}) / (f_REF + {EPSILON:g})), with f_ALT of INFO field {name} and f_REF"
            self.fields.append(Field("AFLLR", f"{text} what its alternates leave of 1", -1))
        if self.known is not None:
            self.fields += self.known.added(self.scorer.fields)
        self.counted = count_by_index(self.vcf)
        if self.region is not None:
            if self.counted is None:
                raise InputError(f"{self.vcf}: has no up-to-date index to find a region by; run 'bcftools index -f'")
            lengths = {name: length or 1 << 31 for name, length in self.header.contigs.items()}
            found = Region.parse(self.region, lengths or self.scorer.genome.lengths)
            self.stretch = found.contig, found.start, None if found.end == lengths.get(found.contig) else found.end

    def plan(self) -> dict[str, Any]:
        """Return all that results depend on."""
        digest = cache(sha256_of)
        names = ("surroundings", "sample", "frequency_field", "region", "part_records")
        settings = asdict(self.scorer.settings) | {name: getattr(self, name) for name in names}
        # Which windows share a batch changes results by no more than rounding.
        del settings["batch_size"]
        for name in ("person_vcf", "calibration"):
            settings[name] = (path := getattr(self, name)) and digest(path)
        origin = {"vcf": digest(self.vcf), "model": model_hash(self.scorer.model)}
        plan = {"mutbert": mutbert.__version__, **origin, "genome": self.scorer.genome.identity, "settings": settings}
        if self.known is not None:
            self.known.check(plan, self.scorer.fields)
        return plan

    def score(self, folder: Path, rank: int, ranks: int) -> list[Path]:
        """Score this process's parts that are not there yet; return the files of all."""
        fields = ["ID"] + ([] if self.frequency_field is None else [f"INFO/{self.frequency_field}"])
        total = None if self.region is not None else sum((self.counted or {}).values()) or None
        with progress_bar("scoring", total, unit="variants", show=self.show) as advance:
            parts = cut_records(self.vcf, fields, self.scorer, region=self.stretch, size=self.part_records)
            return run_parts(
                folder, enumerate(parts), partial(self.score_part, advance), rank=rank, ranks=ranks,
                skipped=lambda records: advance(len(records)),
            )  # fmt: skip

    def score_part(self, advance: Advance, records: pl.DataFrame, path: Path) -> None:
        """Write a part's rows: record, which allele, kind, each field as float32, and why there is no score."""
        scorer, locus = self.scorer, records.select("contig", pl.col("position") + 1, "ref", "alt")
        alleles = scorer.find(*(column.to_list() for column in locus))
        self.counts.update(_REASONS[alleles.reason_A].tolist())
        check_assembly(self.vcf, scorer.genome.path.name, self.counts)
        odds_A = None if self.frequency_field is None else log_odds(self.vcf, records, self.frequency_field)
        # Plus zero, so that none is written as -0.
        score_AF = scorer.score(alleles, scaled(advance, len(records) / max(len(alleles), 1))) + np.float32(0)
        columns = {one.name: score_AF[:, number].astype(np.float64) for number, one in enumerate(scorer.fields)}
        if odds_A is not None:
            columns["AFLLR"] = columns["LLR"] + odds_A
        if self.known is not None:
            columns |= self.known.percentages(columns, alleles.kind_A)
        meant_A = (alleles.kind_A == Kind.SNV) | bool({"llr", "distance"} & set(scorer.settings.scores))
        without_A = (alleles.reason_A == Reason.SCORED) & np.isnan(score_AF).all(axis=1)
        whys = [without_A & meant_A, without_A], [Reason.NOT_A_NUMBER, Reason.NO_SCORE_OF_ITS_KIND]
        reasons = pl.Series("why", _REASONS[np.select(*whys, alleles.reason_A)], dtype=pl.String)
        alts = pl.col("alt").str.split(",")
        rows = records.select("record", chrom="contig", pos=pl.col("position") + 1, id="ID", ref="ref", alt=alts)
        rows.explode("alt").with_columns(
            pl.Series("kind", _KINDS[alleles.kind_A], dtype=pl.String),
            *(pl.Series(name, value_A.astype(np.float32), nan_to_null=True) for name, value_A in columns.items()),
            reasons.replace(Reason.SCORED.text, None),
        ).write_parquet(path)

    def report(self, parts: list[Path]) -> ScoreReport:
        """Return what became of all parts."""
        names = [one.name for one in self.fields]
        summary = pl.len(), pl.col("record").max(), pl.col(names).count(), pl.col("chrom").unique()
        counts = pl.concat([pl.read_parquet(path).group_by("kind", "why").agg(summary) for path in parts])
        scored, missing = Counter[str](), Counter[str]()
        for kind, why, number in counts.select("kind", "why", "len").iter_rows():
            (missing if why else scored)[why or kind] += number
        with_score = counts.select(pl.col(names).sum()).row(0, named=True)
        contigs = counts["chrom"].explode().drop_nulls().unique().sort()
        genome, most = self.scorer.genome, max(scored["snv"], scored["mnv"] + scored["indel"])
        if len(contigs) and not any(map(ContigNames(genome.lengths).find, contigs)) and self.region is None:
            raise InputError(
                f"{self.vcf}: its contigs ({names_text(contigs)}) are none of the genome's "
                f"({names_text(genome.lengths)}); use its genome, or rename them by 'bcftools annotate --rename-chrs'"
            )
        if self.calibrate and most < LEAST:
            raise InputError(f"{self.vcf}: has {most} scored alleles of a kind; a background needs {LEAST}: use more")
        extreme = [] if self.known is None else [name for name in self.known.fields if with_score.get(name)]
        around, by_reason = self.scorer.surroundings, missing + Counter({".": scored.total()})
        return ScoreReport(
            self.output, self.table, counts.select(pl.col("record").max().fill_null(-1)).item() + 1,
            by_reason.total(), dict(sorted(scored.items())), dict(sorted(missing.items())), tuple(names),
            without_frequency=with_score["LLR"] - with_score["AFLLR"] if self.frequency_field else 0,
            without_background=sum(with_score[name] - with_score.get(f"{name}_PCT", 0) for name in extreme),
            person_not_used=dict(around.not_used) if around.kind == "person" else None,
            warnings=check_assembly(self.vcf, genome.path.name, by_reason),
        )  # fmt: skip
