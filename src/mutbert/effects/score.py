"""Variant calls in, the same records with scores out.

The work lies in ``OUTPUT.parts`` until it is whole: ``plan.json``, all that results depend on, and one Parquet file for
each part of the records. A part that is there is done, whichever process scored it, and whenever.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from torch import distributed

import mutbert
from mutbert.effects.alleles import LONGEST
from mutbert.effects.calibration import LEAST, Calibration, differences, write_calibration
from mutbert.effects.haplotypes import FLANK
from mutbert.effects.outputs import TABLES, VCFS, check_outputs, part_files, write_table, write_vcf
from mutbert.effects.parts import (
    PART_RECORDS,
    REASON_TEXTS,
    adjusted_field,
    check_assembly,
    cut_records,
    log_odds,
    score_part,
)
from mutbert.effects.scores import ScoreSettings, model_hash, open_scorer
from mutbert.errors import InputError
from mutbert.files import atomic_file, locked, sha256_of, write_json
from mutbert.genome.vcf import VcfHeader, count_by_index, read_header
from mutbert.inference.opening import model_name
from mutbert.progress import progress_bar
from mutbert.regions import ContigNames, Region, names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.model import MutBertForMaskedLM

    Model = str | Path | MutBertForMaskedLM
    Genome = str | Path | ProbabilisticGenome

__all__ = ["ScoreReport", "score_variants"]

_PLAN: Final = "plan.json"
# Of a contig whose length the header does not give.
_NO_END: Final = (1 << 31) - 1


@dataclass(frozen=True)
class ScoreReport:
    """What became of the records, all of which are in the output.

    `alleles` are those `scored`, by kind, and those `missing` a score, by reason; a record without alternate is one.
    Where asked for, `without_frequency` SNVs have no AFLLR, `without_background` scores no percentage, and
    `person_not_used` records of the person's genotypes change nothing, by reason.
    """

    output: Path
    table: Path | None
    records: int
    alleles: int
    scored: Mapping[str, int]
    missing: Mapping[str, int]
    fields: tuple[str, ...]
    index: Path | None
    why_no_index: str
    without_frequency: int = 0
    without_background: int = 0
    person_not_used: Mapping[str, int] | None = None
    warnings: tuple[str, ...] = ()


def score_variants(
    model: str | Path | MutBertForMaskedLM,
    genome: str | Path | ProbabilisticGenome,
    vcf: str | Path,
    output: str | Path,
    *,
    scores: tuple[str, ...] = ("llr",),
    context: int | None = None,
    windows: str = "centred",
    strands: str = "both",
    surroundings: str = "reference",
    sample: str | None = None,
    person_vcf: str | Path | None = None,
    flank: int = FLANK,
    longest: int = LONGEST,
    distance_bases: int | None = None,
    frequency_field: str | None = None,
    calibration: str | Path | None = None,
    calibrate: bool = False,
    table: str | Path | None = None,
    prefix: str = "MUTBERT",
    batch_size: int = 32,
    precision: str = "fp32",
    rope_scaling: Mapping[str, Any] | None = None,
    region: str | None = None,
    part_records: int = PART_RECORDS,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
) -> ScoreReport:
    """Score the alternate alleles of a VCF.

    Processes that `torchrun` starts call this alike and share the work; the first writes the output. A file whose REF
    differs from the genome in more than half of at least 100 records is of another assembly and raises an InputError.

    Parameters
    ----------
    model : str, Path or MutBertForMaskedLM
        A checkpoint, read to a GPU where there is one; or a loaded model, which runs where it is.
    genome : str, Path or ProbabilisticGenome
        The store of the VCF's assembly.
    vcf : str or Path
        VCF or BCF: plain, gzip or bgzip.
    output : str or Path
        ``.vcf.gz``, ``.vcf`` or ``.bcf``: the records with ``MUTBERT_LLR`` and so on in INFO, and ``MUTBERT_WHY`` where
        an alternate has no score. ``.tsv``, ``.tsv.gz`` or ``.parquet``: a row an alternate. ``.json``, with
        `calibrate`: a background.
    scores, context, windows, strands, flank, longest, distance_bases, batch_size, precision, rope_scaling
        As for `mutbert.effects.scores.ScoreSettings`.
    surroundings : {"reference", "population", "person"}
        The sequence around the variants.
    sample, person_vcf : str and Path, optional
        The person's name, and the file with the genotypes, by default `vcf`.
    frequency_field : str, optional
        An INFO field with frequencies of alternate alleles: adds AFLLR, LLR + ln((f_alt + ε) / (f_ref + ε)) with
        ε = 1e-4 and f_ref = 1 − Σ f_alt, of SNVs.
    calibration : str or Path, optional
        A background: adds ``LLR_PCT`` and so on, the percentage of it that is less extreme. Windows must be centred.
    calibrate : bool
        Make a background of the VCF, such as of a population's common variants.
    table : str or Path, optional
        A second file, a table.
    prefix : str
        Of the names of INFO fields.
    region : str, optional
        ``chr1:1-1000000``: only records whose POS is in it, found by the file's index.
    part_records : int
        Most records of a part, which is what a stopped run loses, and what processes share.
    resume, force, progress : bool
        Continue a run that was stopped; replace the output or start a stopped run anew; show progress.

    Returns
    -------
    ScoreReport
        What became of the records.
    """
    settings = ScoreSettings(
        tuple(scores), context, windows, strands, flank, longest, distance_bases, batch_size, precision, rope_scaling
    )
    second, person, background = (None if path is None else Path(path) for path in (table, person_vcf, calibration))
    run = _Run(
        Path(vcf), Path(output), second, person, background, settings, surroundings, sample, frequency_field, calibrate,
        prefix, region, part_records, progress and os.environ.get("RANK", "0") == "0",
    )  # fmt: skip
    run.check(resume=resume, force=force)
    return run.run(model, genome, resume=resume, force=force)


@contextmanager
def _ranks() -> Iterator[tuple[int, int, Callable[[], Any]]]:
    """Yield the rank of this process, how many `torchrun` has started, and a barrier for all of them."""
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        yield rank, ranks, lambda: None
        return
    # Some wait for others as long as scoring takes; where one fails, torchrun ends all.
    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    try:
        yield rank, ranks, distributed.barrier
    finally:
        distributed.destroy_process_group()


@dataclass
class _Run:
    """What is asked for, and once it is open what scores it."""

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

    @property
    def folder(self) -> Path:
        return self.output.with_name(f"{self.output.name}.parts")

    @property
    def genotypes(self) -> Path | None:
        return self.vcf if self.surroundings == "person" and self.person_vcf is None else self.person_vcf

    def check(self, *, resume: bool, force: bool) -> None:
        """Raise an InputError for what is known to be wrong before the model is loaded."""
        self.settings.check()
        inputs = [path for path in (self.vcf, self.person_vcf, self.calibration) if path is not None]
        # A run that was stopped while it wrote its outputs may have written some.
        force = force or (resume and (self.folder / _PLAN).exists())
        check_outputs(self.output, self.table, inputs, self.folder, background=self.calibrate, force=force)
        if re.fullmatch(r"[A-Za-z_][\w.]*", self.prefix, re.ASCII) is None:
            raise InputError(f"prefix is {self.prefix!r}; give letters, digits, _ and . that begin with a letter or _")
        if self.calibrate and (self.calibration or self.frequency_field or self.table):
            raise InputError("a background has scores alone; leave out --calibration, --frequency-field and --table")
        if self.settings.windows == "shared" and (self.calibrate or self.calibration):
            raise InputError("windows are shared, so that no background of other variants serves; choose centred")
        self.header = read_header(self.vcf)
        if taken := [one for one in self.header.info if one.startswith(f"{self.prefix}_")]:
            raise InputError(f"{self.vcf}: has an INFO field {taken[0]} already; choose other names with --prefix")
        name = self.frequency_field
        if name is not None and self.header.info.get(name, ("", ""))[1] != "Float":
            have = [one for one, (_, kind) in self.header.info.items() if kind == "Float"]
            raise InputError(f"{self.vcf}: declares no INFO field {name} with Type=Float, but {names_text(have, 30)}")
        if name is not None and "llr" not in self.settings.scores:
            raise InputError(f"frequency_field is {name!r}, but what it adjusts is LLR; add llr to scores")
        if self.calibration is not None:
            self.known = Calibration(self.calibration)

    def run(self, model: Model, genome: Genome, *, resume: bool, force: bool) -> ScoreReport:
        """Score what is not scored yet; the first process writes the outputs."""
        with _ranks() as (rank, ranks, barrier):
            self.open(model, genome)
            with locked(self.folder, self.output) if rank == 0 else nullcontext():
                begun = False
                try:
                    plan = self.begin(resume=resume, force=force) if rank == 0 else {}
                    begun = True
                    barrier()
                    self.score(rank, ranks)
                    barrier()
                    report = self.report()
                    barrier()
                except InputError:
                    # Parts of an input that cannot be used are of no use.
                    if rank == 0 and (begun or not part_files(self.folder)):
                        shutil.rmtree(self.folder)
                    raise
                return self.write(report, plan | {"model_name": model_name(model)}) if rank == 0 else report

    def open(self, model: Model, genome: Genome) -> None:
        """Open the model and the genome, and make the folder of parts."""
        self.scorer = open_scorer(
            model, genome, surroundings=self.surroundings, person_vcf=self.genotypes, sample=self.sample,
            settings=self.settings, progress=self.show,
        )  # fmt: skip
        self.fields = list(self.scorer.fields)
        if self.frequency_field is not None:
            self.fields.append(adjusted_field(self.frequency_field))
        if self.known is not None:
            self.fields += self.known.added(self.scorer.fields)
        if self.region is not None:
            if count_by_index(self.vcf) is None:
                raise InputError(f"{self.vcf}: has no up-to-date index to find a region by; run 'bcftools index -f'")
            lengths = {name: length or _NO_END for name, length in self.header.contigs.items()}
            found = Region.parse(self.region, lengths or self.scorer.genome.lengths)
            end = None if found.end == lengths.get(found.contig) else found.end
            self.stretch = found.contig, found.start, end
        self.folder.mkdir(exist_ok=True)

    def begin(self, *, resume: bool, force: bool) -> dict[str, Any]:
        """Return all that results depend on, which is in the folder of parts from now on."""
        digest = cache(sha256_of)
        files = {"person_vcf": self.genotypes, "calibration": self.calibration}
        names = ("surroundings", "sample", "frequency_field", "region", "part_records")
        settings = asdict(self.scorer.settings) | {name: getattr(self, name) for name in names}
        # Which windows share a batch changes results by no more than rounding.
        del settings["batch_size"]
        made = {
            "mutbert": mutbert.__version__,
            "vcf": digest(self.vcf),
            "model": model_hash(self.scorer.model),
            "genome": hashlib.sha256(json.dumps(self.scorer.genome.manifest, sort_keys=True).encode()).hexdigest(),
            "settings": settings | {name: path and digest(path) for name, path in files.items()},
        }
        plan: dict[str, Any] = json.loads(json.dumps(made))
        if self.known is not None:
            self.known.check(plan, self.scorer.fields)
        path, parts = self.folder / _PLAN, part_files(self.folder)
        if parts and resume:
            if found := "; ".join(differences(json.loads(path.read_text(encoding="utf-8")), plan)):
                raise InputError(f"{self.output}: cannot go on: {found}; give the same, or --force to start anew")
            return plan
        if parts and not force:
            raise InputError(f"{self.folder}: holds a stopped run; give --resume to go on, or --force to start anew")
        for part in parts:
            part.unlink()
        write_json(path, plan, force=True)
        return plan

    def score(self, rank: int, ranks: int) -> None:
        """Score this process's parts that are not there yet."""
        fields = ["ID"] + ([] if self.frequency_field is None else [f"INFO/{self.frequency_field}"])
        total = None if self.region is not None else sum((count_by_index(self.vcf) or {}).values()) or None
        counts, first = Counter[str](), 0
        with progress_bar("scoring", total, unit="variants", show=self.show) as advance:
            parts = cut_records(self.vcf, fields, self.scorer, region=self.stretch, size=self.part_records)
            for number, records in enumerate(parts):
                path = self.folder / f"{number:08d}.parquet"
                if number % ranks != rank or path.exists():
                    advance(len(records))
                else:
                    locus = records.select("contig", pl.col("position") + 1, "ref", "alt")
                    alleles = self.scorer.find(*(column.to_list() for column in locus))
                    counts.update(REASON_TEXTS[alleles.reason_A].tolist())
                    check_assembly(self.vcf, self.scorer.genome.path.name, counts)
                    name = self.frequency_field
                    odds_A = None if name is None else log_odds(self.vcf, records, name)
                    share = len(records) / max(len(alleles), 1)
                    part = score_part(
                        records, alleles, self.scorer, first=first, odds_A=odds_A, calibration=self.known,
                        advance=lambda done, /, note="", share=share: advance(done * share, note),
                    )  # fmt: skip
                    with atomic_file(path, force=True) as aside:
                        part.write_parquet(aside)
                first += len(records)

    def report(self) -> ScoreReport:
        """Return what became of all parts."""
        scored, missing, known = Counter[str](), Counter[str](), Counter[str]()
        contigs, records = dict[str, None](), 0
        for path in part_files(self.folder):
            part = pl.read_parquet(path)
            for kind, why, number in part.group_by("kind", "why").len().iter_rows():
                (missing if why else scored)[why or kind] += number
            known.update(part.count().row(0, named=True))
            contigs |= dict.fromkeys(part["chrom"].unique(maintain_order=True))
            records += part["record"].n_unique()
        genome, most = self.scorer.genome, max(scored["snv"], scored["mnv"] + scored["indel"])
        if contigs and not any(map(ContigNames(genome.lengths).find, contigs)) and self.region is None:
            raise InputError(
                f"{self.vcf}: its contigs ({names_text(contigs)}) are none of the genome's "
                f"({names_text(genome.lengths)}); give its genome, or rename them by 'bcftools annotate --rename-chrs'"
            )
        if self.calibrate and most < LEAST:
            raise InputError(f"{self.vcf}: has {most} scored alleles of a kind; a background needs {LEAST}: give more")
        extreme = [] if self.known is None else [name for name in self.known.fields if known[name]]
        around = self.scorer.surroundings
        return ScoreReport(
            output=self.output,
            table=self.table,
            records=records,
            alleles=scored.total() + missing.total(),
            scored=dict(sorted((+scored).items())),
            missing=dict(sorted(missing.items())),
            fields=tuple(one.name for one in self.fields),
            index=None,
            why_no_index="another process makes it",
            person_not_used=dict(around.not_used) if around.kind == "person" else None,
            without_frequency=known["LLR"] - known["AFLLR"] if self.frequency_field else 0,
            without_background=sum(known[name] - known[f"{name}_PCT"] for name in extreme),
            warnings=check_assembly(self.vcf, genome.path.name, missing + Counter({".": scored.total()})),
        )

    def write(self, report: ScoreReport, plan: dict[str, Any]) -> ScoreReport:
        """Write the outputs and remove the parts."""
        for warning in report.warnings if self.show else ():
            print(f"mutbert: {warning}", file=sys.stderr, flush=True)  # noqa: T201
        parts = part_files(self.folder)
        index: tuple[Path | None, str] = None, ""
        if self.calibrate:
            write_calibration(self.output, parts, self.scorer.fields, plan, self.vcf.name)
        elif self.output.name.endswith(VCFS):
            index = write_vcf(self.output, parts, self.vcf, self.stretch, self.prefix, self.fields, plan)
        for path in (self.output, self.table):
            if path is not None and path.name.endswith(TABLES):
                write_table(path, parts, report.fields)
        # The plan last, so that what is left of a run is known as one.
        for path in parts:
            path.unlink()
        shutil.rmtree(self.folder)
        return replace(report, index=index[0], why_no_index=index[1])
