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
from mutbert.effects.alleles import LONGEST, Reason
from mutbert.effects.calibration import LEAST, Calibration, differences, read_calibration, write_calibration
from mutbert.effects.haplotypes import FLANK
from mutbert.effects.outputs import TABLES, VCFS, check_outputs, part_files, write_table, write_vcf
from mutbert.effects.parts import EPSILON, PART_RECORDS, REASON_TEXTS, cut_records, log_odds, score_part
from mutbert.effects.scores import Field, ScoreSettings, model_hash, open_scorer
from mutbert.errors import InputError
from mutbert.files import atomic_file, locked, sha256_of, write_json
from mutbert.genome.vcf import VcfHeader, count_by_index, read_header
from mutbert.inference.opening import model_name
from mutbert.inference.surroundings import Person
from mutbert.progress import progress_bar, with_rate
from mutbert.regions import ContigNames, Region, names_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mutbert.genome.store import ProbabilisticGenome
    from mutbert.model import MutBertForMaskedLM

__all__ = ["ScoreReport", "score_variants"]

_PLAN: Final = "plan.json"
# A share of mismatches, and of how many compared records at least. On another assembly about three in four differ, as
# by chance.
_WARNED: Final = (0.1, 20)
_REFUSED: Final = (0.5, 100)
_COMPARED: Final = (
    Reason.REFERENCE_MISMATCH, Reason.SCORED, Reason.AMBIGUOUS_ALTERNATE, Reason.NOT_A_CHANGE, Reason.TOO_LONG,
    Reason.NOT_A_NUMBER, Reason.NO_SCORE_OF_ITS_KIND,
)  # fmt: skip
# Of a contig whose length the header does not give.
_NO_END: Final = (1 << 31) - 1


@dataclass(frozen=True)
class ScoreReport:
    """What became of the records, all of which are in the output.

    `alleles` are those `scored`, by kind, and those `missing` a score, by reason; a record without alternate counts as
    one. `without_frequency` are SNVs without AFLLR and `without_background` scores without percentage, where these are
    asked for; `person_not_used` are records of the person's genotypes that change nothing, by reason.
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

    Raises
    ------
    InputError
        When an input cannot be used, or does not fit the run to continue.
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
    with _ranks() as (rank, ranks, barrier):
        run.open(model, genome)
        with locked(run.folder, run.output) if rank == 0 else nullcontext():
            begun = False
            try:
                plan = run.begin(resume=resume, force=force) if rank == 0 else {}
                begun = True
                barrier()
                run.score(rank, ranks)
                barrier()
                report = run.report()
                barrier()
            except InputError:
                # Parts of an input that cannot be used are of no use.
                if rank == 0 and (begun or not part_files(run.folder)):
                    shutil.rmtree(run.folder)
                raise
            return run.write(report, plan | {"model_name": model_name(model)}) if rank == 0 else report


@contextmanager
def _ranks() -> Iterator[tuple[int, int, Callable[[], Any]]]:
    """Yield the rank of this process, how many `torchrun` has started, and a barrier for all of them."""
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        yield 0, 1, lambda: None
        return
    # They wait for one another as long as scoring takes; where one fails, torchrun ends all.
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
        check_outputs(self.output, self.table, inputs, self.folder, _PLAN, background=self.calibrate, force=force)
        if re.fullmatch(r"[A-Za-z_][\w.]*", self.prefix, re.ASCII) is None:
            raise InputError(f"prefix is {self.prefix!r}; give letters, digits, _ and . that begin with a letter or _")
        if self.calibrate and (self.calibration or self.frequency_field or self.table):
            raise InputError("a background has scores alone; leave out --calibration, --frequency-field and --table")
        if self.settings.windows == "shared" and (self.calibrate or self.calibration):
            raise InputError(
                "windows are shared, so that scores depend on a file's other variants and no background serves another "
                "file; choose centred"
            )
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
            self.known = read_calibration(self.calibration)

    def open(self, model: str | Path | MutBertForMaskedLM, genome: str | Path | ProbabilisticGenome) -> None:
        """Open the model and the genome, and make the folder of parts."""
        self.scorer = open_scorer(
            model, genome, surroundings=self.surroundings, person_vcf=self.genotypes, sample=self.sample,
            settings=self.settings, progress=self.show,
        )  # fmt: skip
        self.fields = list(self.scorer.fields)
        if self.frequency_field is not None:
            ratio = f"ln((f_ALT + {EPSILON:g}) / (f_REF + {EPSILON:g}))"
            said = f"{ratio}, with f_ALT of INFO field {self.frequency_field} and f_REF what its alternates leave of 1"
            self.fields.append(Field("AFLLR", f"LLR adjusted by allele frequencies, LLR + {said}", -1))
        if self.known is not None:
            self.fields += self.known.fields(self.scorer.fields)
        self.stretch: tuple[str, int, int | None] | None = None
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
            if found := differences(json.loads(path.read_text(encoding="utf-8")), plan):
                raise InputError(
                    f"{self.output}: cannot go on: {'; '.join(found)}; give the same as before, or --force without "
                    "--resume to start anew"
                )
            return plan
        if parts and not force:
            raise InputError(f"{self.folder}: holds a stopped run; give --resume to go on, or --force to start anew")
        if resume:
            self._say(f"{self.folder}: holds no run to go on with, so one is started")
        for part in parts:
            part.unlink()
        write_json(path, plan, force=True)
        return plan

    def score(self, rank: int, ranks: int) -> None:
        """Score this process's parts that are not there yet."""
        fields = ["ID"] + ([] if self.frequency_field is None else [f"INFO/{self.frequency_field}"])
        indexed = None if self.region is not None else count_by_index(self.vcf)
        total = None if indexed is None else sum(indexed.values())
        counts, first = Counter[str](), 0
        with progress_bar("scoring", total, unit="variants", show=self.show) as advance:
            rated = with_rate(advance, "variants")
            parts = cut_records(self.vcf, fields, self.scorer, region=self.stretch, size=self.part_records)
            for number, records in enumerate(parts):
                path = self.folder / f"{number:08d}.parquet"
                if number % ranks != rank or path.exists():
                    advance(len(records))
                else:
                    columns = (records["contig"], records["position"] + 1, records["ref"], records["alt"])
                    alleles = self.scorer.find(*(column.to_list() for column in columns))
                    counts.update(REASON_TEXTS[alleles.reason_A].tolist())
                    self._check_assembly(counts)
                    name = self.frequency_field
                    odds_A = None if name is None else log_odds(self.vcf, records, name)
                    share = len(records) / max(len(alleles), 1)
                    part = score_part(
                        records, alleles, self.scorer, first=first, odds_A=odds_A, calibration=self.known,
                        advance=lambda done, /, note="", share=share: rated(done * share, note),
                    )  # fmt: skip
                    with atomic_file(path, force=True) as aside:
                        part.write_parquet(aside)
                first += len(records)

    def _check_assembly(self, counts: Counter[str]) -> tuple[str, ...]:
        """Return a warning where REF often differs from the genome; raise an InputError where it mostly does.

        `counts` are alternate alleles by reason.
        """
        genome = self.scorer.genome
        count, differing = sum(counts[reason.text] for reason in _COMPARED), counts[Reason.REFERENCE_MISMATCH.text]
        warned, refused = (count >= least and differing > share * count for share, least in (_WARNED, _REFUSED))
        text = (
            f"{self.vcf}: of {count:,} alleles, {differing:,} have another REF than {genome.path.name} "
            f"({differing / max(count, 1):.0%})"
        )
        if refused:
            raise InputError(
                f"{text}, so it is of another assembly; give the genome that it is of, or remove such records by "
                "'bcftools norm --check-ref x'"
            )
        return (f"{text} and no score; see whether it is of another assembly",) if warned else ()

    def report(self) -> ScoreReport:
        """Return what became of all parts."""
        own = {one.name for one in self.fields}
        known = [] if self.known is None else [name for name in self.known.extreme if name in own]
        derived = {
            "without_frequency": [("LLR", "AFLLR")] if "AFLLR" in own else [],
            "without_background": [(name, f"{name}_PCT") for name in known],
        }
        sums = {
            # Plus a zero, as there may be none.
            name: pl.sum_horizontal(
                pl.lit(0),
                *(pl.col(one).is_not_null() & (pl.col(two).is_null() if two in own else True) for one, two in pairs),
            ).sum()
            for name, pairs in derived.items()
        }
        groups, contigs, records = [], dict[str, None](), 0
        for path in part_files(self.folder):
            part = pl.read_parquet(path)
            groups.append(part.group_by("kind", "why").agg(pl.len(), **sums))
            contigs |= dict.fromkeys(part["chrom"].unique(maintain_order=True))
            records += part["record"].n_unique()
        names, genome = ContigNames(self.scorer.genome.lengths), self.scorer.genome
        if contigs and not any(map(names.find, contigs)) and self.region is None:
            raise InputError(
                f"{self.vcf}: its contigs ({names_text(contigs)}) are none of {genome.path.name} "
                f"({names_text(genome.lengths)}); give the genome that it is of, or rename them by 'bcftools annotate "
                "--rename-chrs'"
            )
        counts = pl.concat(groups).group_by("kind", "why").sum().sort("kind", "why")
        scored = dict(counts.filter(pl.col("why").is_null()).select("kind", "len").iter_rows())
        missing = dict(counts.drop_nulls("why").group_by("why", maintain_order=True).agg(pl.sum("len")).iter_rows())
        warnings = self._check_assembly(Counter(missing) + Counter({Reason.SCORED.text: sum(scored.values())}))
        most = max(scored.get("snv", 0), scored.get("mnv", 0) + scored.get("indel", 0))
        if self.calibrate and most < LEAST:
            raise InputError(
                f"{self.vcf}: has {most} scored alleles of a kind, and a background needs {LEAST}; give more"
            )
        totals = counts.select(pl.sum("len", *sums)).row(0, named=True)
        around = self.scorer.surroundings
        return ScoreReport(
            output=self.output,
            table=self.table,
            records=records,
            alleles=totals.pop("len"),
            scored=scored,
            missing=missing,
            fields=tuple(one.name for one in self.fields),
            index=None,
            why_no_index="another process makes it",
            person_not_used=dict(around.not_used) if isinstance(around, Person) else None,
            warnings=warnings,
            **totals,
        )

    def write(self, report: ScoreReport, plan: dict[str, Any]) -> ScoreReport:
        """Write the outputs and remove the parts."""
        for warning in report.warnings:
            self._say(warning)
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

    def _say(self, line: str) -> None:
        if self.show:
            print(f"mutbert: {line}", file=sys.stderr, flush=True)  # noqa: T201
