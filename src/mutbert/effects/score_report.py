"""What became of a run of scoring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mutbert.effects.parts import Counts, Run
    from mutbert.effects.score_files import Index


@dataclass(frozen=True)
class ScoreReport:
    """What became of a run.

    Parameters
    ----------
    output : Path
        The file; of a shard, its folder.
    table : Path or None
        The second file; ``None`` of a shard, where it is made when shards are merged.
    records : int
        Records, all of which are in the output.
    alleles : int
        Alternate alleles; a record without one counts as one. They are those with a score and those without.
    scored : mapping of str to int
        Alleles with a score, by kind: ``snv``, ``mnv``, ``indel``.
    missing : mapping of str to int
        Alleles without, by reason; see `mutbert.effects.alleles.Reason`.
    fields : tuple of str
        The scores' names, as tables have them; in a VCF the prefix stands before.
    index : Path or None
        The output's index.
    why_no_index : str
        Empty where there is one, and of tables and backgrounds, which have none.
    without_frequency : int
        SNVs whose record does not say how frequent its alleles are, where that is asked for.
    without_background : int
        Scores of a kind of which the background has too few for a percentage.
    person_not_used : mapping of str to int, optional
        Records of the person's genotypes that changed nothing, by reason.
    warnings : tuple of str
        What is odd and may be meant so, in a line each: that many records have another REF than the genome, or that
        shards have more than what is written of them.
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


def report_of(run: Run, counts: Counts, index: Index, output: Path, table: Path | None) -> ScoreReport:
    """Put a report together."""
    return ScoreReport(
        output=output,
        table=table,
        records=counts.records,
        alleles=counts.alleles,
        scored=dict(counts.scored),
        missing=dict(counts.missing),
        fields=run.columns,
        index=index.path,
        why_no_index=index.why_not,
        without_frequency=counts.without_frequency,
        without_background=counts.without_background,
        person_not_used=run.person_not_used,
        warnings=run.warnings,
    )
