"""Readers of what commands leave behind and print: each brings it to an answer that can be stored."""

import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pysam.bcftools
from golden_answers import Answer
from safetensors import safe_open
from typer.testing import CliRunner

import mutbert
from mutbert.cli.main import app

UNITS = 65535
PLACES = ("chrom", "pos", "id", "ref", "alt")
# Titles of columns when answers were stored.
OLD = {"name": "name", "contig": "chrom", "start": "start", "end": "end"}


def cli(*words: Any) -> Any:
    """Run a command in this process; return what it prints."""
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    if result.exit_code:
        raise RuntimeError(f"mutbert {' '.join(map(str, words))}\n{result.output}") from result.exception
    return json.loads(result.stdout)


def text_of(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()


def digest(content: bytes) -> str:
    """Return the first 64 bits of a SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def part_of(said: Mapping[str, Any], names: str) -> Answer:
    """Return some of what is printed: what does not depend on paths, versions and how a result is packed."""
    return {name: said[name] for name in names.split()}


def rows_by_value(column: Sequence[str | None]) -> dict[str, list[int]]:
    """Return the rows of each text of a column, but of those that have none."""
    return {one: [n for n, other in enumerate(column) if other == one] for one in sorted({*column} - {None})}


def columns_of_text(path: Path) -> dict[str, list[str]]:
    return pl.read_csv(path, separator="\t", infer_schema=False).to_dict(as_series=False)


def columns_of(path: Path, **older: str) -> Answer:
    """Read a Parquet table, some columns by older titles: numbers as arrays, the rest as lists."""
    found: Answer = {}
    for column in pl.read_parquet(path).rename(older).iter_columns():
        found[column.name] = column.to_numpy() if column.dtype.is_numeric() else column.to_list()
        if column.dtype.is_float():
            found[column.name] = found[column.name].astype(np.float32)
    # Contigs of many rows, and bases.
    if "contig" in found:
        found["contig"] = {one: found["contig"].count(one) for one in dict.fromkeys(found["contig"])}
    if "reference" in found:
        found["reference"] = "".join(found["reference"])
    return found


def zero_based(path: Path, position: str) -> Answer:
    """Read a table of positions, which were 0-based and had another title."""
    found = columns_of(path, chrom="contig", pos=position, ref="reference")
    return {**found, position: found[position] - 1}


def units(frequency: np.ndarray, parts: int = 1) -> np.ndarray:
    """Return frequencies as whole numbers of units, which have to be near enough."""
    scaled = frequency.astype(np.float64) * UNITS * parts
    whole = np.rint(scaled).astype(np.int64)
    assert np.abs(scaled - whole).max(initial=0) < 0.02, "frequencies are not of units of 1/65535"
    return whole


def letters_of(genome: mutbert.ProbabilisticGenome, name: str) -> str:
    """Return a contig's bases, in lower case where it is soft-masked."""
    letters = np.array(list(genome.sequence(name)))
    return "".join(np.where(genome.soft_masked(name, 0, len(letters)), np.char.lower(letters), letters).tolist())


def genome_of(path: Path) -> Answer:
    """Read a store through, contig by contig: whole numbers all, as a store keeps units of 1/65535."""
    genome = mutbert.ProbabilisticGenome.open(path, check=True)
    variants = [genome.variants(name) for name in genome.lengths]
    contigs = {
        name: {
            "length": length,
            "variants": len(genome.variants(name).position),
            "letters": digest(letters_of(genome, name).encode()),
            "frequencies": digest(units(genome.frequencies(name, 0, length), 4).astype("<i4").tobytes()),
        }
        for name, length in genome.lengths.items()
    }
    return {
        "contigs": contigs,
        "has_soft_mask": genome.has_soft_mask,
        "position": np.concatenate([one.position for one in variants]).astype(np.int32),
        "reference": np.concatenate([one.reference for one in variants]).astype(np.uint8),
        "frequency": np.concatenate([units(one.frequency) for one in variants]).astype(np.uint16),
    }


def built(path: Path, said: Mapping[str, Any]) -> Answer:
    """All that a new genome contains, and its report."""
    assert said["lengths"] == mutbert.ProbabilisticGenome.open(path).lengths
    kept = part_of(said, "variants contig_names only_in_fasta only_in_vcf")
    return {**genome_of(path), "records": counts_of(said), **kept, "notes": len(said["notes"])}


def counts_of(said: Mapping[str, Any]) -> list[Answer]:
    """Return what became of each file's records, without its name."""
    return [part_of(counts, "frequency_from read used decomposed not_used") for counts in said["records"]]


def merged(path: Path, said: Mapping[str, Any]) -> Answer:
    return {**genome_of(path), "report": part_of(said, "variants"), "records": counts_of(said)}


def inspected(_: Path, said: Mapping[str, Any]) -> Answer:
    left_out = {"path", "created_by", "version", "bytes_on_disk", "bytes_per_base"}
    genomes = said.get("genomes", [said])
    return {"genomes": [{name: value for name, value in one.items() if name not in left_out} for one in genomes]}


def exported(path: Path, said: Mapping[str, Any]) -> Answer:
    if path.suffix == ".parquet":
        content = zero_based(path, "position")
    else:
        content = {"text": text_of(path).replace("chrom\tpos\tref\t", "contig\tposition\treference\t", 1)}
    return {"report": part_of(said, "kind regions bases variants changed"), **content}


def scored(path: Path, said: Mapping[str, Any]) -> Answer:
    """Read a table of scores, or a VCF with its table; with the background that the scores are compared with."""
    if path.suffix in (".vcf", ".gz", ".bcf") and not path.name.endswith(".tsv.gz"):
        return info_of(path)
    names = "records alleles scored missing fields without_frequency without_background person_not_used"
    found = {"report": part_of(said, names), **table_of(path)}
    background = path.with_suffix(".json")
    return {"fields": background_of(background), **found} if background.exists() else found


def table_of(path: Path) -> Answer:
    """Read a table of scores, in whose rows the alleles of ``asked.vcf`` have to be."""
    if path.suffix == ".parquet":
        found = columns_of(path)
    else:
        found = dict(columns_of_text(path))
        found["pos"] = np.array(list(map(int, found["pos"])))
        for name in set(found) - {*PLACES, "kind", "why"}:
            found[name] = np.array([float(one or "nan") for one in found[name]], dtype=np.float32)
    rows = zip(*(list(found.pop(name)) for name in PLACES), strict=True)
    lines = [line.split("\t") for line in re.findall("^[^#].*", Path("asked.vcf").read_text(), re.MULTILINE)]
    alleles = [
        (chrom, int(pos), name, ref, alt) for chrom, pos, name, ref, alts, *_ in lines for alt in alts.split(",")
    ]
    assert [(*row[:4], row[4] or ".") for row in rows] == alleles, "rows of the table are not the alleles of the VCF"
    return found | {name: rows_by_value(found[name]) for name in ("kind", "why")}


def info_of(path: Path) -> Answer:
    """Read the fields that a VCF's header and records have got, in a run that wrote a table as well."""
    text = pysam.bcftools.view("--no-version", str(path)) if path.suffix == ".bcf" else text_of(path)
    declared = re.findall(r'##INFO=<ID=(MB_\w+),Number=(.),Type=(\w+),Description=".+">', text)
    fields: dict[str, list[str]] = {name: [] for name, *_ in declared}
    records = (re.findall("^[^#].*", one, re.MULTILINE) for one in (text, Path("asked.vcf").read_text()))
    for line, given in zip(*records, strict=True):
        columns = line.split("\t")
        words = columns[7].split(";")
        added = dict(word.split("=", 1) for word in words if word.startswith("MB_"))
        columns[7] = ";".join(word for word in words if not word.startswith("MB_")) or "."
        assert "\t".join(columns) == given, "a record has changed"
        alleles = len(columns[4].split(","))
        for name, column in fields.items():
            values = added[name].split(",") if name in added else ["."] * alleles
            assert len(values) == alleles, f"{name} has not a value for each allele"
            column += values
    why = rows_by_value([None if word == "." else word for word in fields.pop("MB_WHY")])
    texts = {name[3:]: ["nan" if word == "." else word for word in column] for name, column in fields.items()}
    numbers = {name: np.array(column, np.float32) for name, column in texts.items()}
    same = table_of(path.with_name(f"{path.name.partition('.')[0]}.parquet"))
    assert same["why"] == why, "the table has other reasons"
    for name, column in numbers.items():
        np.testing.assert_allclose(same[name], column, atol=2e-5, rtol=2e-5, err_msg=name)
    return {"declared": declared, "why": why, **numbers}


def background_of(path: Path) -> Answer:
    """Read what is extreme among a background's scores."""
    fields: Answer = {}
    for name, field in json.loads(path.read_text(encoding="utf-8"))["fields"].items():
        fields[name] = {"extreme": field["extreme"]}
        for group in ("snv", "mnv_indel"):
            alleles, quantiles = (field[group][one] for one in ("alleles", "quantiles"))
            fields[name][group] = {"alleles": alleles, "quantiles": quantiles and np.array(quantiles, np.float32)}
    return fields


def embedded(path: Path, said: Mapping[str, Any]) -> Answer:
    """Read embeddings of either format."""
    report = {"report": part_of(said, "records bases layers differing not_used hidden_size")}
    if path.suffix == ".safetensors":
        with safe_open(path, "numpy") as file:
            held = file.metadata()
            columns = {old: json.loads(held[f"{name}s"]) for old, name in OLD.items()}
            vectors = {name.replace("embeddings", "embedding"): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return {**report, **columns, **vectors, "metadata": part_of(held, "pooling layers strands")}
    table = pl.read_parquet(path).to_dict(as_series=False)
    found: Answer = {old: table[name] for old, name in OLD.items()}
    for name, rows in table.items():
        if name.startswith("embedding"):
            # Of many vectors, some show whether all are right.
            if isinstance(rows[0][0], list):
                found["bases"] = [len(row) for row in rows]
                found[name] = np.array([vector for row in rows for vector in row][::7], dtype=np.float32)
            else:
                found[name] = np.array(rows[:12], dtype=np.float32)
    return {**report, **found, "metadata": part_of(pl.read_parquet_metadata(path), "pooling layers strands")}


def tracked(_: Path, said: Mapping[str, Any]) -> Answer:
    """Read tracks as bedGraph: every value with its place."""
    found: Answer = {"report": part_of(said, "contigs bases unknown ambiguous differing not_used")}
    for kind, name in said["outputs"].items():
        head, *lines = text_of(Path(name)).splitlines()
        contigs, starts, ends, values = zip(*(line.split("\t") for line in lines), strict=True)
        assert all(int(end) == int(start) + 1 for start, end in zip(starts, ends, strict=True)), "not a line a base"
        found[kind] = {
            "head": head,
            "contigs": {one: contigs.count(one) for one in dict.fromkeys(contigs)},
            "start": np.array(starts, dtype=np.int32),
            "value": np.array(values, dtype=np.float32),
        }
    return found


def mutated(path: Path, said: Mapping[str, Any]) -> Answer:
    return {
        "report": part_of(said, "region positions unknown ambiguous differing not_used"),
        **zero_based(path, "start"),
    }


def predicted(path: Path, _: Mapping[str, Any]) -> Answer:
    return predictions_of(columns_of_text(path))


def predictions_of(columns: Mapping[str, list[str]]) -> Answer:
    """Return predictions: probabilities as numbers, the rest as text."""
    found = {name: np.array(column, dtype=np.float32) if name.startswith("p_") else rows_by_value(column)
             for name, column in columns.items() if name != "name"}  # fmt: skip
    return {"columns": list(columns), **found, "names": digest(" ".join(columns["name"]).encode())}
