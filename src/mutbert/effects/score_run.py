"""A run of scoring: its parts are finished one by one, by any number of processes, and then put together."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mutbert.effects.calibration import LEAST, describe, too_few
from mutbert.effects.parts import COMPLETE, PUBLISHING, Counts, Parts, Run, Whole, differences
from mutbert.effects.processes import begun_by_first, called_by_first
from mutbert.effects.score_files import Index, kind_of, put_together, refuse_same, write_header
from mutbert.effects.score_report import ScoreReport, report_of
from mutbert.effects.score_tables import WRITERS, table_header
from mutbert.effects.survey import survey
from mutbert.effects.vcf_header import declare
from mutbert.errors import InputError
from mutbert.files import check_output, locked, remove_directory, rename_directory
from mutbert.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from mutbert.effects.chunk_scores import ChunkScorer
    from mutbert.effects.fingerprint import Fingerprint
    from mutbert.effects.processes import World
    from mutbert.effects.records import RecordFile
    from mutbert.effects.score_tables import Scored

_VCF: Final = "vcf.gz"


class Place:
    """Where a run's outputs and its parts are."""

    def __init__(self, output: Path, table: Path | None, shard: tuple[int, int], *, calibrate: bool) -> None:
        self.output = output
        self.table = table
        self.shard = shard
        self.calibrate = calibrate
        kinds = [kind_of(output, calibrate=calibrate)]
        if table is not None:
            if calibrate:
                raise InputError(f"{table}: a background has no table; leave out --table with --calibrate")
            kinds.append(kind_of(table, table=True))
        # Two tables may be made of the same parts.
        self.kinds = tuple(dict.fromkeys(kinds))
        part, of = shard
        if not 1 <= part <= of:
            raise InputError(f"shard {part}/{of}: give the part from 1 to the number of parts, such as 1/4")
        self.final = output.with_name(f"{output.name}.shard-{part}-of-{of}") if of > 1 else output
        self.parts = Parts(self.final.with_name(self.final.name + ".parts"))

    def refuse(self, inputs: list[Path], *, resume: bool, force: bool) -> None:
        """Refuse, before anything is loaded, what could not be written."""
        outputs = [path for path in (self.output, self.table) if path is not None]
        refuse_same(outputs, inputs)
        run = self.parts.read_run()
        # One that was stopped while it put its results into place may have put some.
        stopped_there = resume and run is not None and run.state == PUBLISHING
        if self.final != self.output:
            check_output(self.final, force=force, directory=True)
            return
        for path in outputs:
            if path.is_dir():
                raise InputError(f"{path}: is a folder; choose another output")
            check_output(path, force=force or stopped_there)


class ScoreRun:
    """A run, of which this process does its part.

    Parameters
    ----------
    place : Place
        Where it is.
    file : RecordFile
        The records.
    chunk_scorer : ChunkScorer
        Scores them.
    fingerprint : Fingerprint
        What the results depend on.
    declarations : callable
        Gives the header lines that are added, of what the fingerprint says.
    prefix : str
        What INFO fields begin with.
    show : bool
        Show progress, and say warnings, on standard error.
    """

    def __init__(
        self,
        place: Place,
        file: RecordFile,
        chunk_scorer: ChunkScorer,
        fingerprint: Fingerprint,
        declarations: Callable[[Mapping[str, Any]], Sequence[str]],
        prefix: str,
        *,
        show: bool,
    ) -> None:
        self._place = place
        self._file = file
        self._chunk_scorer = chunk_scorer
        self._fingerprint = fingerprint
        self._declarations = declarations
        self._prefix = prefix
        self._show = show
        self._parts = place.parts

    def begin(self, world: World, *, resume: bool, force: bool) -> ScoreReport:
        """Do the run as its first, or only, process."""
        folder = self._parts.folder
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror}); choose another output") from None
        with locked(folder, self._place.output):
            begun = self._parts.read_run()
            if begun is not None and not (resume or force):
                raise InputError(
                    f"{folder}: an unfinished run is there; give --resume to go on with it, or --force to start anew"
                )
            try:
                if begun is not None and resume:
                    self._parts.remove_marks()
                else:
                    if resume:
                        self._say([f"{folder}: no run is there to go on with, so one is started"])
                    begun = None
                    self._parts.clear()
                with called_by_first(folder, world) as roll:
                    # Reading large files may take longer than the others would wait, were this process not there.
                    made_of = self._fingerprint.take(show=self._show)
                    self._chunk_scorer.refuse_other_background(made_of)
                    if begun is not None:
                        self._refuse_other(begun, made_of)
                    run = begun or self._prepare(made_of)
                    self._say(run.warnings)
                    roll.call()
                    self._score(run, world, lambda: None)
                    for number in range(run.chunks):
                        rank = self._rank_of(number, world)
                        if rank is not None:
                            roll.wait_for(partial(self._is_done, number), rank)
                    roll.wait_for_end()
                    return self._finish(run)
            except BaseException:
                # What has finished nothing is not worth a question at the next call; a run of an earlier call is.
                if begun is None and self._parts.is_empty():
                    with suppress(InputError, OSError):
                        self._parts.clear()
                        folder.rmdir()
                raise

    def help(self, world: World) -> ScoreReport:
        """Do this process's part of a run that another has begun."""
        with begun_by_first(self._parts.folder, world) as check:
            run = self._parts.read_run()
            assert run is not None, "the first process has written it"
            self._refuse_other(run, self._fingerprint.take_without_files(run.made_of))
            if run.vcf_bytes != self._file.bytes:
                raise InputError(
                    f"{self._file.path}: has {self._file.bytes:,} bytes, and {run.vcf_bytes:,} where the first process "
                    "of this call runs; give all the same file"
                )
            counts = self._score(run, world, check)
        return self._report(run, counts, Index(None, "the first process makes it"))

    def _is_done(self, number: int) -> bool:
        return self._parts.counts(number) is not None

    def _rank_of(self, number: int, world: World) -> int | None:
        """Say which process does a part; ``None`` where it is another shard's."""
        part, of = self._place.shard
        return number // of % world.size if number % of == part - 1 else None

    def _say(self, lines: Sequence[str]) -> None:
        if self._show:
            for line in lines:
                print(f"mutbert: {line}", file=sys.stderr, flush=True)  # noqa: T201

    def _prepare(self, made_of: Mapping[str, Any]) -> Run:
        scorer = self._chunk_scorer.scorer
        with progress_bar("checking records", self._file.bytes, unit="bytes", show=self._show) as advance:
            found = survey(
                self._file,
                self._chunk_scorer,
                advance,
                new_fields=self._chunk_scorer.names(self._prefix) if _VCF in self._place.kinds else (),
                as_bcf=self._place.output.suffix == ".bcf" and not self._file.is_bcf,
            )
        if self._place.calibrate and found.alleles < LEAST:
            raise InputError(too_few(self._file.path.name, found.alleles))
        around = scorer.surroundings
        run = Run(
            made_of=made_of,
            shard=self._place.shard,
            kinds=self._place.kinds,
            records=found.records,
            alleles=found.alleles,
            chunks=found.chunks,
            chunk_records=found.chunk_records,
            in_order=found.in_order,
            columns=tuple(field.name for field in self._chunk_scorer.fields),
            vcf=self._file.path.name,
            vcf_bytes=self._file.bytes,
            warnings=found.warnings,
            person_not_used=dict(around.not_used) if around.kind == "person" else None,
            calibration=describe(made_of, scorer.fields) if self._place.calibrate else None,
        )
        header = declare(self._file.header, self._declarations(made_of), found.contigs)
        for kind, content in ((_VCF, header), ("tsv.gz", table_header(run.columns))):
            if kind in run.kinds:
                write_header(self._parts.header(kind), content)
        self._parts.write_run(run)
        return run

    def _refuse_other(self, run: Run, made_of: Mapping[str, Any]) -> None:
        found = differences(run.made_of, made_of)
        if run.shard != self._place.shard:
            found.append(f"the shard was {'/'.join(map(str, run.shard))}")
        if found:
            raise InputError(
                f"{self._place.output}: cannot go on: {'; '.join(found)}; give the same as before, or --force without "
                "--resume to start anew"
            )

    def _score(self, run: Run, world: World, check: Callable[[], None]) -> Counts:
        """Score what is this process's and not done yet; gives what became of all that is its."""
        own = [number for number in range(run.chunks) if self._rank_of(number, world) == world.rank]
        left = {number for number in own if not self._is_done(number)}
        if left:
            last = max(left)
            total = round(run.alleles * len(left) / run.chunks)
            if len(own) == run.chunks:
                # All are this process's, so that what is left is known.
                total = run.alleles - sum(self._counts(number).alleles for number in own if number not in left)
            with (
                progress_bar("scoring", total, unit="variants", show=self._show) as advance,
                # A part is written while the next is scored, as packing many genotypes takes its time.
                ThreadPoolExecutor(1) as writer,
            ):
                pace = advance
                writing: Future[None] | None = None
                for records in self._file.chunks(*self._chunk_scorer.cuts._replace(size=run.chunk_records)):
                    if records.number in left:
                        check()
                        scored, counts = self._chunk_scorer.score(records, pace)
                        if writing is not None:
                            writing.result()
                        writing = writer.submit(self._write, scored, counts)
                    if records.number == last:
                        break
                if writing is not None:
                    writing.result()
        return sum((self._counts(number) for number in own), Counts())

    def _write(self, scored: Scored, counts: Counts) -> None:
        writers = {kind: partial(WRITERS[kind], scored, self._prefix) for kind in self._place.kinds}
        self._parts.write(scored.records.number, writers, counts)

    def _counts(self, number: int) -> Counts:
        counts = self._parts.counts(number)
        if counts is None:
            raise InputError(
                f"{self._parts.path(number, 'json')}: was changed while the run went on; run again with --resume"
            )
        return counts

    def _finish(self, run: Run) -> ScoreReport:
        """Put the results into place."""
        place = self._place
        self._parts.remove_marks()
        if place.final != place.output:
            self._parts.write_run(replace(run, state=COMPLETE))
            part, of = place.shard
            counts = sum((self._counts(number) for number in range(part - 1, run.chunks, of)), Counts())
            rename_directory(self._parts.folder, place.final)
            index = Index(None, "it is made when shards are merged")
            return report_of(run, counts, index, place.final, None)
        self._parts.write_run(replace(run, state=PUBLISHING))
        whole = Whole(run, [self._parts])
        counts = whole.total()
        index = put_together(place.output, whole)
        if place.table is not None:
            put_together(place.table, whole)
        remove_directory(self._parts.folder)
        return self._report(run, counts, index)

    def _report(self, run: Run, counts: Counts, index: Index) -> ScoreReport:
        return report_of(run, counts, index, self._place.final, self._place.table)
