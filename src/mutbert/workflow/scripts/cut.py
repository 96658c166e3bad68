"""cut.py HOW PARTS FILES OUTPUT: cut work into BED files of regions, a job each.

records PARTS GRID VCF GENOME; bases PARTS GENOME [BED]; lines PARTS BED
"""

import json
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pysam.bcftools

from mutbert.errors import InputError, one_line
from mutbert.files import atomic_directory
from mutbert.genome.store import ProbabilisticGenome
from mutbert.genome.vcf import count_by_index, read_header, read_records
from mutbert.regions import ContigNames, Region, merge_regions, read_bed

_FAR = 1 << 31  # after the end of any contig


def cut_records(parts: int, grid: str, file: str, store: str) -> Iterator[list[str]]:
    """Yield BED lines of about equal numbers of records, of which the first line has the number.

    Where the grid of a context, or of a model's folder, is not "0", no window of it has records of two parts.
    """
    vcf = Path(file)
    if not (counts := count_by_index(vcf)):
        try:
            pysam.bcftools.index("--force", str(vcf), catch_stdout=False)
        except pysam.SamtoolsError as error:
            what = f"{vcf}: has no index, and none can be made ({one_line(error, 160)})"
            raise InputError(f"{what}; use 'bcftools sort -Oz', which sorts and compresses it") from None
        if not (counts := count_by_index(vcf)):
            raise InputError(f"{vcf}: has no records")
    lengths, declared = ProbabilisticGenome.open(store).lengths, read_header(vcf).contigs
    config = Path(grid, "config.json")
    if not grid.isdecimal() and not config.is_file():
        raise InputError(f"score: windows: of {grid}, no folder of a model, they need a `context` to be shared")
    context = int(grid if grid.isdecimal() else json.loads(config.read_bytes())["max_position_embeddings"] - 2)
    names, stride, known = ContigNames(lengths), context // 2 or 1, declared or lengths
    # Of each part: its first contig, where it begins there, and its first record.
    cuts, contigs, ends, records = list[tuple[str, int, int]](), list[str](), dict[str, int](), 0
    for frame in read_records(vcf):
        for rows in frame.partition_by("contig", maintain_order=True):
            name, start_N = rows["contig"][0], rows["position"].to_numpy()
            end_N = start_N + rows["ref"].str.len_bytes().to_numpy().astype(np.int64) - 1
            due_N = records + np.arange(len(rows))
            if is_new := name not in ends:
                contigs.append(name)
            # Close to the ends of a contig, windows are shifted off the grid.
            most = min(known.get(name) or _FAR, lengths.get(names.find(name) or "", _FAR) - context)
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
            until = min(until, known.get(name) or _FAR)
            lines += [f"{name}\t{begin}\t{until}"] * (begin < until)
        yield lines


def cut_bases(parts: int, store: str, bed: str = "") -> Iterator[list[str]]:
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


def cut_lines(parts: int, bed: str) -> Iterator[list[str]]:
    """Yield equal numbers of a BED file's lines."""
    lines = [one for one in Path(bed).read_text(encoding="utf-8").splitlines() if one.strip()]
    lines = [one for one in lines if not one.startswith(("#", "track", "browser"))]
    for rows in np.array_split(np.arange(len(lines)), min(parts, len(lines)) or 1):
        yield [lines[row] for row in rows]


how, count, *names, output = sys.argv[1:]
try:
    cuts: dict[str, Callable[..., Iterator[list[str]]]]
    cuts = {"records": cut_records, "bases": cut_bases, "lines": cut_lines}
    if not (beds := list(cuts[how](int(count), *names))):
        raise InputError(f"{', '.join(names)}: there is nothing but N")
    with atomic_directory(Path(output), force=True) as folder:
        for number, lines in enumerate(beds, start=1):
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{number:04}-of-{len(beds):04}.bed").write_text(text, encoding="utf-8")
except (InputError, OSError) as error:
    sys.exit(f"mutbert: {error}")
