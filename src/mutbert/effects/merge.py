"""Shards of one run, put together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mutbert.effects.parts import COMPLETE, Parts, Run, Whole, differences
from mutbert.effects.score_files import kind_of, put_together, refuse_no_bcf, refuse_same
from mutbert.effects.score_report import ScoreReport, report_of
from mutbert.errors import InputError
from mutbert.files import check_output

if TYPE_CHECKING:
    from collections.abc import Sequence


def merge_scores(
    shards: Sequence[str | Path], output: str | Path, *, table: str | Path | None = None, force: bool = False
) -> ScoreReport:
    """Put the shards of one run together, to what one process had written.

    Parameters
    ----------
    shards : sequence of str or Path
        The folders that `mutbert.score_variants` left, in any order. They stay.
    output : str or Path
        The file to write, in a format whose parts the shards have; bgzip, plain VCF and BCF have the same.
    table : str or Path, optional
        A second file, a table.
    force : bool
        Replace outputs where they exist.

    Returns
    -------
    ScoreReport
        Of all shards.

    Raises
    ------
    InputError
        When one is missing, not complete, damaged or of another run.
    """
    output = Path(output)
    second = None if table is None else Path(table)
    outputs = [path for path in (output, second) if path is not None]
    refuse_same(outputs, [])
    for path in outputs:
        check_output(path, force=force)
    whole = _opened([Path(shard) for shard in shards])
    kinds = {output: kind_of(output, calibrate=whole.run.calibration is not None)}
    if second is not None:
        kinds[second] = kind_of(second, table=True)
    for path, kind in kinds.items():
        if kind not in whole.run.kinds:
            raise InputError(
                f"{path}: the shards have no parts for it, but of {', '.join(whole.run.kinds)}; choose one"
            )
    counts = whole.total()
    if output.suffix == ".bcf":
        refuse_no_bcf(output, whole)
    index = put_together(output, whole)
    if second is not None:
        put_together(second, whole)
    report = report_of(whole.run, counts, index, output, second)
    if left := [kind for kind in whole.run.kinds if kind not in kinds.values()]:
        said = f"{output}: the shards have parts for {' and '.join(left)} too, of which nothing is written"
        report = replace(report, warnings=(*report.warnings, f"{said}; give --table for a table"))
    return report


def _opened(folders: list[Path]) -> Whole:
    """Open shards, and refuse what is not all of one run."""
    found: dict[int, tuple[Path, Run]] = {}
    first: tuple[Path, Run] | None = None
    for folder in folders:
        run = Parts(folder).read_run()
        if run is None:
            raise InputError(f"{folder}: is no shard; give the folders that 'mutbert score --shard' left")
        if run.state != COMPLETE:
            raise InputError(f"{folder}: is not complete; go on with it by 'mutbert score --shard ... --resume'")
        first = first or (folder, run)
        if others := differences(first[1].made_of, run.made_of):
            raise InputError(f"{folder}: is of another run than {first[0]}: {'; '.join(others)}; give shards of one")
        part, of = run.shard
        if of != first[1].shard[1]:
            raise InputError(
                f"{folder}: is one of {of} shards, but {first[0]} one of {first[1].shard[1]}; give shards of one"
            )
        if part in found:
            raise InputError(f"{folder}: is shard {part}/{of}, which {found[part][0]} is too; give each once")
        found[part] = (folder, run)
    if first is None:
        raise InputError("no shard was given; give the folders that 'mutbert score --shard' left")
    of = first[1].shard[1]
    if lost := [f"{part}/{of}" for part in range(1, of + 1) if part not in found]:
        raise InputError(f"{first[0]}: of its run, shard {', '.join(lost)} is not given; give all")
    return Whole(first[1], [Parts(found[part][0]) for part in range(1, of + 1)])
