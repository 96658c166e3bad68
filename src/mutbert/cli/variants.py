"""``mutbert score`` of a VCF, or of alleles that are written out in the command."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from mutbert.cli.streams import temporary_folder
from mutbert.errors import InputError

_VARIANT = re.compile(r"(?P<contig>[^\s]+):(?P<position>[0-9][0-9,]*):(?P<ref>[A-Za-z]+):(?P<alt>[A-Za-z]+|\*)")


def with_variants(
    function: Callable[..., Any], *, vcf: str | None = None, variants: Sequence[str] = (),
    output: str | None = None, **options: Any,
) -> Any:  # fmt: skip
    """Call `score_variants` for a VCF; or for alleles, and return their rows where there is no output."""
    if (vcf is None) == (not variants):
        raise InputError("score: needs either a --vcf, or alleles, as in --variant chr22:17000515:T:C")
    if vcf is not None:
        if output is None:
            raise InputError(f"{vcf}: an --output is needed, such as scored.vcf.gz, or - for standard output")
        return function(vcf=vcf, output=output, **options)
    lines = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO", *map(_line_of, variants)]
    with temporary_folder() as folder:
        # Its name is the option's, for messages.
        (path := folder / "--variant").write_text("\n".join([*lines, ""]), encoding="utf-8")
        report = function(vcf=path, output=output or folder / "scores.parquet", **options)
        if output is not None:
            return report
        import polars as pl

        return {"variants": pl.read_parquet(folder / "scores.parquet").drop("id").to_dicts()}


def _line_of(variant: str) -> str:
    """Return an allele as a line of a VCF."""
    found = _VARIANT.fullmatch(variant)
    if found is None:
        raise InputError(f"--variant {variant}: must be CHR:POSITION:REF:ALT, such as chr22:17000515:T:C")
    position = found["position"].replace(",", "")
    return "\t".join([found["contig"], position, ".", found["ref"], found["alt"], ".", ".", "."])


def text_of(result: Any) -> Any:
    """Return a result as it is shown: positions as they are written in files."""
    if not isinstance(result, dict) or "variants" not in result:
        return result
    return {"variants": [{**row, "pos": str(row["pos"])} for row in result["variants"]]}
