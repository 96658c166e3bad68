"""join.py OUTPUT PARTS: one file of those of the parts, in their order; counts of their reports are added up."""

import gzip
import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import pysam.bcftools
from pyarrow import parquet

from mutbert.errors import InputError, one_line
from mutbert.files import atomic_file, write_json


def join_calls(output: Path, parts: list[str]) -> None:
    """Concatenate VCF or BCF files, whose records are not read, and index the result."""
    try:
        pysam.bcftools.concat("--naive", "-o", str(output), *parts, catch_stdout=False)
        kind = "tbi" if all(Path(f"{part}.tbi").exists() for part in parts) else "csi"
        pysam.bcftools.index(f"--{kind}", "--force", str(output), catch_stdout=False)
    except pysam.SamtoolsError as error:
        raise InputError(f"{output}: its parts cannot be joined ({one_line(error, 200)})") from None


def join_tables(output: Path, parts: list[str]) -> None:
    """Concatenate Parquet files; or text, plain or bgzip, whose first line is that of the first file."""
    is_packed = output.suffix == ".gz"
    with atomic_file(output, force=True) as aside:
        if output.suffix == ".parquet":
            with parquet.ParquetWriter(aside, parquet.read_schema(parts[0])) as table:
                for part in parts:
                    table.write_table(parquet.read_table(part))
            return
        with pysam.BGZFile(str(aside), "wb") if is_packed else aside.open("wb") as file:
            for number, part in enumerate(parts):
                with gzip.open(part) if is_packed else Path(part).open("rb") as lines:
                    head = lines.readline()
                    file.write(b"" if number else head)
                    shutil.copyfileobj(lines, file)


def join_reports(output: Path, parts: list[str]) -> None:
    """Write the report of `mutbert score` as of one run."""
    found = [json.loads(Path(one).read_text(encoding="utf-8")) for one in parts]
    total = dict(found[0])
    for key, value in total.items():
        each = [one[key] for one in found]
        if key in {"output", "index"} and value:
            total[key] = re.sub(r"/[^/.]+(?=\.[^/]+$)", "", value)
        elif isinstance(value, int):
            total[key] = sum(each)
        elif key in {"scored", "missing"}:
            total[key] = dict(sorted(sum(map(Counter, each), Counter[str]()).items()))
        elif key == "warnings":
            total[key] = [*dict.fromkeys(warning for warnings in each for warning in warnings)]
    write_json(output, total, force=True)


path, names = Path(sys.argv[1]), sys.argv[2:]
join = {".json": join_reports, ".bcf": join_calls}.get(path.suffix, join_tables)
try:
    (join_calls if path.name.endswith(".vcf.gz") else join)(path, names)
except InputError as error:
    sys.exit(f"mutbert: {error}")
