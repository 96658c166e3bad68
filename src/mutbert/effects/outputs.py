"""The files made of scored parts: tables, and the VCF with the scores in INFO."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pysam
import pysam.bcftools

from mutbert.errors import InputError
from mutbert.files import atomic_file, check_output
from mutbert.genome.vcf import read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mutbert.effects.parts import Region
    from mutbert.effects.scores import Field

VCFS: Final = (".vcf.gz", ".vcf", ".bcf")
TABLES: Final = (".tsv.gz", ".tsv", ".parquet")
_LOCUS: Final = ("chrom", "pos", "id", "ref", "alt", "kind")
_INFO: Final = 7


def check_outputs(
    output: Path, table: Path | None, inputs: Sequence[str | Path], *, background: bool, force: bool
) -> None:
    """Raise an InputError for an output that cannot be written, or is an input."""
    suffixes = {output: (".json",) if background else VCFS + TABLES} | ({} if table is None else {table: TABLES})
    for path, allowed in suffixes.items():
        if not path.name.endswith(allowed) or path.name in allowed:
            raise InputError(f"{path}: the suffix chooses the format; it must be one of {', '.join(allowed)}")
        check_output(path, force=force, inputs=inputs)
    if table is not None and output.resolve() == table.resolve():
        raise InputError(f"{table}: is the other output too; choose another table")


def write_table(path: Path, parts: list[Path], fields: Sequence[str]) -> None:
    """Write the parts as one table, a row an alternate allele."""
    columns = [*_LOCUS, *fields, "why"]
    with atomic_file(path, force=True) as aside:
        if path.suffix == ".parquet":
            pl.scan_parquet(parts).select(columns).sink_parquet(aside)
            return
        with pysam.BGZFile(str(aside), "wb") if path.suffix == ".gz" else aside.open("wb") as file:
            file.write(("\t".join(columns) + "\n").encode())
            for part in parts:
                rows = pl.read_parquet(part, columns=columns)
                file.write(rows.write_csv(separator="\t", include_header=False, quote_style="never").encode())


def write_vcf(
    path: Path,
    parts: list[Path],
    vcf: Path,
    region: Region,
    prefix: str,
    fields: Sequence[Field],
    plan: Mapping[str, Any],
) -> tuple[Path | None, str]:
    """Write a VCF's records with the parts' scores in INFO; return the index, or None and why there is none."""
    header, columns = b"".join(read_lines(vcf, header=True)).decode("utf-8", "surrogateescape").rsplit("\n", 2)[:2]
    contigs = {
        name: None
        for part in parts
        for name in pl.read_parquet(part, columns=["chrom"])["chrom"].unique(maintain_order=True)
    }
    added = [
        f"##contig=<ID={name}>" for name in contigs if not re.search(f"##contig=<ID={re.escape(name)}[,>]", header)
    ]
    declared = [(f"{field.name},Number=A,Type=Float", field.description) for field in fields]
    declared.append(("WHY,Number=.,Type=String", "Why an alternate allele has no score; . where it has"))
    added += [f'##INFO=<ID={prefix}_{field},Description="{text.replace(chr(34), "_")}">' for field, text in declared]
    text = "\n".join([header, *added, f"##mutbert_score={json.dumps({'prefix': prefix, **plan})}", columns, ""])
    lines = (line for block in read_lines(vcf, region=region) for line in block[:-1].split(b"\n"))
    infos = (info for part in parts for info in _infos(pl.read_parquet(part), prefix, [field.name for field in fields]))
    for ending in (".tbi", ".csi"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    with atomic_file(path, force=True) as aside:
        written = aside.with_name(f"{aside.name}.vcf.gz") if path.suffix == ".bcf" else aside
        try:
            with written.open("wb") if path.suffix == ".vcf" else pysam.BGZFile(str(written), "wb") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
                for line, info in zip(lines, infos, strict=True):
                    file.write(_with_info(line, info.encode()))
            if written != aside:
                with _quiet():
                    view = "--no-version", "-Ob", "-o", os.fspath(aside), os.fspath(written)
                    pysam.bcftools.view(*view, catch_stdout=False)
        except pysam.SamtoolsError:
            raise InputError(
                f"{path}: its records cannot be BCF, which needs each contig, filter and field declared; write .vcf.gz"
            ) from None
        finally:
            if written != aside:
                written.unlink(missing_ok=True)
    return _index(path) if path.suffix != ".vcf" else (None, ".vcf files have none")


def _infos(part: pl.DataFrame, prefix: str, fields: Sequence[str]) -> Iterator[str]:
    """Yield of each record ``MUTBERT_LLR=-1.5,.;MUTBERT_WHY=.,symbolic``, without fields that no alternate has."""
    # Six digits, as htslib writes them.
    columns = {name: [None if value is None else f"{value:.6g}" for value in part[name]] for name in fields}
    texts = pl.DataFrame(
        {"record": part["record"], **columns, "WHY": part["why"]}, schema_overrides=dict.fromkeys(fields, pl.String)
    )
    words = [
        pl.when(pl.col(name).is_not_null().any())
        .then(pl.lit(f"{prefix}_{name}=") + pl.col(name).fill_null(".").str.join(","))
        .alias(name)
        for name in (*fields, "WHY")
    ]
    infos = texts.group_by("record", maintain_order=True).agg(words)
    yield from infos.select(pl.concat_str(pl.exclude("record"), separator=";", ignore_nulls=True)).to_series()


def _with_info(line: bytes, info: bytes) -> bytes:
    if info:
        columns = line.split(b"\t", _INFO + 1)
        columns[_INFO] = info if columns[_INFO] == b"." else columns[_INFO] + b";" + info
        line = b"\t".join(columns)
    return line + b"\n"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep htslib from printing what an exception says."""
    verbosity = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(verbosity)


def _index(path: Path) -> tuple[Path | None, str]:
    aside = path.with_name(f".{path.name}.index.partial")
    # A .tbi file cannot hold positions from 2^29 on.
    with _quiet():
        for ending in (".csi",) if path.suffix == ".bcf" else (".tbi", ".csi"):
            with suppress(OSError):
                preset = "bcf" if path.suffix == ".bcf" else "vcf"
                pysam.tabix_index(str(path), preset=preset, force=True, index=str(aside), csi=ending == ".csi")
                return aside.replace(path.with_name(path.name + ending)), ""
    aside.unlink(missing_ok=True)
    return None, "the records are not in order"
