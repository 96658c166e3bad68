"""cut.py WHAT FILE -o OUTPUT: cut work into parts, a job each: contigs of FASTA files, or BED files of regions."""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pysam.bcftools

from mutbert.errors import InputError, one_line
from mutbert.files import atomic_directory, write_json
from mutbert.genome.sources import parse_sources, read_fasta
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.vcf import count_by_index, read_header, read_records
from mutbert.regions import ContigNames, Region, merge_regions, names_text, read_bed

_FAR = 1 << 31  # after the end of any contig


def cut_contigs(files: list[str], wanted: list[str], bases: int) -> dict[str, list[str]]:
    """Return the contigs of each part: neighbours, until they have so many bases together."""
    sources = parse_sources(files)
    lengths = {one.name(name): len(code_L) for one in sources for name, code_L, _ in read_fasta(one.path)}
    if missing := [name for name in wanted if ContigNames(lengths).find(name) is None]:
        raise InputError(f"genome: contigs: no {names_text(missing)} in {files[0]}; there are {names_text(lengths)}")
    asked, parts, size = ContigNames(wanted or lengths), list[list[str]](), bases
    for name in filter(asked.find, lengths):
        if size >= bases:
            parts.append([])
            size = 0
        parts[-1].append(name)
        size += lengths[name]
    return {f"{number:04}": part for number, part in enumerate(parts, start=1)}


def cut_records(vcf: Path, store: str, parts: int, grid: str) -> Iterator[list[str]]:
    """Yield BED lines of about equal numbers of records, of which the first line has the number.

    Where the grid of a context, or of a model's folder, is not "0", no window of it has records of two parts.
    """
    if not (counts := count_by_index(vcf)):
        try:
            pysam.bcftools.index("--force", str(vcf), catch_stdout=False)
        except pysam.SamtoolsError as error:
            what = f"{vcf}: has no index, and none can be made ({one_line(error, 160)})"
            raise InputError(f"{what}; use 'bcftools sort -Oz', which sorts and compresses it") from None
        if not (counts := count_by_index(vcf)):
            raise InputError(f"{vcf}: has no records")
    lengths, declared = ProbabilisticGenome.open(store).lengths, read_header(vcf).contigs
    text = "" if grid.isdecimal() else Path(grid, "config.json").read_text(encoding="utf-8")
    context = int(json.loads(text)["max_position_embeddings"]) - 2 if text else int(grid)
    names, ranks, stride = ContigNames(lengths), {name: rank for rank, name in enumerate(declared)}, context // 2 or 1
    # Of each part: its first contig, where it begins there, and its first record.
    cuts, contigs, ends, records = list[tuple[str, int, int]](), list[str](), dict[str, int](), 0
    for frame in read_records(vcf):
        for rows in frame.partition_by("contig", maintain_order=True):
            name, start_N = rows["contig"][0], rows["position"].to_numpy()
            end_N = start_N + rows["ref"].str.len_bytes().to_numpy().astype(np.int64) - 1
            due_N = records + np.arange(len(rows))
            if is_new := name not in ends:
                # Regions are read in the order that contigs have in the header.
                if cuts and ranks.get(name, 0) < ranks.get(contigs[-1], 0):
                    cuts.append((name, 0, records))
                contigs.append(name)
            # Close to the ends of a contig, windows are shifted off the grid.
            most = min(declared.get(name) or _FAR, lengths.get(names.find(name) or "", _FAR) - context)
            is_free_N = start_N // stride > np.append(ends.get(name, -1), end_N[:-1]) // stride
            is_free_N &= (start_N >= context) & (start_N < most)
            is_free_N[0] |= is_new
            for row in np.flatnonzero(is_free_N):
                if not cuts or due_N[row] >= cuts[-1][2] + sum(counts.values()) / parts:
                    cuts.append((name, 0 if is_new and not row else int(start_N[row]), int(due_N[row])))
            ends[name], records = int(end_N[-1]), records + len(rows)
    for (first, start, record), (last, end, next_record) in pairwise([*cuts, (contigs[-1], _FAR, records)]):
        lines = [f"# {next_record - record} records"]
        for name in contigs[contigs.index(first) : contigs.index(last) + 1]:
            begin, until = start if name == first else 0, end if name == last else _FAR
            until = min(until, declared.get(name) or _FAR)
            lines += [f"{name}\t{begin}\t{until}"] * (begin < until)
        yield lines


def cut_bases(store: str, bed: str | None, parts: int) -> Iterator[list[str]]:
    """Yield BED lines of equal numbers of bases that are not N."""
    genome = ProbabilisticGenome.open(store)
    whole = [Region(name, 0, length) for name, length in genome.lengths.items()]
    asked = merge_regions(read_bed(Path(bed), genome.lengths) if bed else whole, genome.lengths)
    runs = [(one.contig, *run) for one in asked for run in genome.known_runs(one.contig, one.start, one.end).tolist()]
    size, found, room = -(-sum(end - start for _, start, end in runs) // parts), list[list[str]](), 0
    for contig, start, end in runs:
        while start < end:
            if not room:
                found.append([])
                room = size
            until = min(end, start + room)
            found[-1].append(f"{contig}\t{start}\t{until}")
            start, room = until, room - (until - start)
    yield from found


def cut_lines(bed: Path, parts: int) -> Iterator[list[str]]:
    """Yield equal numbers of a BED file's lines."""
    lines = [one for one in bed.read_text(encoding="utf-8").splitlines() if one.strip()]
    lines = [one for one in lines if not one.startswith(("#", "track", "browser"))]
    for rows in np.array_split(np.arange(len(lines)), min(parts, len(lines)) or 1):
        yield [lines[row] for row in rows]


def main() -> None:
    """Cut as the command line has it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("contigs", "records", "bases", "lines"))
    parser.add_argument("files", nargs="+")
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--contig", action="append", default=[])
    parser.add_argument("--grid", default="0")
    for option in ("--bed", "--genome"):
        parser.add_argument(option)
    for option in ("--bases", "--parts"):
        parser.add_argument(option, type=int, default=1)
    asked = parser.parse_args()
    if asked.what == "contigs":
        write_json(asked.output, cut_contigs(asked.files, asked.contig, asked.bases), force=True)
        return
    first = asked.files[0]
    if asked.what == "records":
        beds = list(cut_records(Path(first), asked.genome, asked.parts, asked.grid))
    else:
        bases = asked.what == "bases"
        beds = list(cut_bases(first, asked.bed, asked.parts) if bases else cut_lines(Path(first), asked.parts))
    with atomic_directory(asked.output, force=True) as folder:
        for number, lines in enumerate(beds, start=1):
            path = folder / f"{number:04}-of-{len(beds):04}.bed"
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


try:
    main()
except (InputError, OSError) as error:
    sys.exit(f"mutbert: {error}")
