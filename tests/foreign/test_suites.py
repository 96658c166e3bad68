"""VCF and BCF files of other projects' test suites through build, verify and score; ``fetch.py`` gets them."""

import hashlib
import re
from collections import defaultdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pysam
import pysam.bcftools
import pytest

from mutbert import build_genome, score_variants, verify_genome
from mutbert.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / "tests" / "properties"))
    from test_genome import File, Population, Record, assert_rows, read_slowly, variants_of

FOLDER = ROOT / "build" / "foreign"
LARGEST = 100_000_000  # bases of a FASTA; what needs more is left out
PATHS = [path for path in sorted(FOLDER.rglob("*")) if path.is_file() and path.suffix not in (".tbi", ".csi")]
FILES = [*{hashlib.sha256(path.read_bytes()).digest(): path for path in PATHS}.values()]  # each content once
NONE = pytest.param(FOLDER, marks=pytest.mark.skip("run tests/foreign/fetch.py"))


def bcftools(verb, *words):
    verbosity = pysam.set_verbosity(0)
    try:
        text = getattr(pysam.bcftools, verb)(*words)
        return (text if isinstance(text, str) else text.decode("utf-8", "replace")).splitlines()
    finally:
        pysam.set_verbosity(verbosity)


def read(path):
    """Return a file as bcftools prints it, and where frequencies can be from: what is taken by default, and ``GT``."""
    header = bcftools("view", "--no-version", "-h", str(path))
    kinds = {line[: line.find(",")]: re.search("Type=(\\w+)", line)[1] for line in header if "Type=" in line}
    af, ac, an = (kinds.get(f"##INFO=<ID={name}") for name in ("AF", "AC", "AN"))
    above, below = ("AF", "") if af == "Float" else ("AC", "AN") if af is None and ac == an == "Integer" else ("", "")
    samples = tuple(header[-1].split("\t")[9:])
    has_calls = bool(samples) and "##FORMAT=<ID=GT" in kinds
    words = ["%CHROM", "%POS", "%REF", "%ALT", "%FILTER"]
    words += [f"%INFO/{above}" if above else ".", f"%INFO/{below}" if below else "1"]
    records = []
    for line in bcftools("query", "-f", "\\t".join(words) + "[\\t%GT]" * has_calls + "\\n", str(path)):
        chrom, pos, ref, alts, state, counts, total, *calls = line.split("\t")
        total = 0 if total == "." else int(total)
        values = ["." if one in (".", "nan") else str(Fraction(one) / total) for one in counts.split(",") if total]
        alts, keys = tuple(alts.split(",")), "GT" * has_calls
        records.append(Record(chrom, int(pos), ref, alts, state, tuple(values or ["."]), keys, tuple(calls)))
    sources = ["AF"] * bool(above) + ["GT"] * (has_calls and (bool(above) or af is None))
    return File("", samples, tuple(records), "", declared=True), sources


def sequences_of(records):
    """Return contigs that have the REF of their records, of several the first, and N."""
    letters = defaultdict(bytearray)
    for record in records:
        if record.pos > LARGEST:
            pytest.skip("its contigs are too long")
        if re.search(r"\s", record.chrom):  # as no name in a FASTA
            continue
        text = letters[record.chrom]
        text.extend(b"N" * (record.pos + len(record.ref) + 20 - len(text)))
        for place, base in enumerate(record.ref.upper(), record.pos - 1):
            if place >= 0 and base in "ACGT" and text[place] == ord("N"):
                text[place] = ord(base)
    return {("", name): text.decode() for name, text in letters.items()} or {("", "none"): "N"}


def attempt(function, *arguments, **options):
    """Return what comes back and no text, or nothing and the line of InputError; all else is a failure."""
    try:
        return function(*arguments, **options), ""
    except InputError as error:
        why = str(error)
    assert "\n" not in why
    return None, why


@pytest.mark.nightly
@pytest.mark.parametrize("path", FILES or [NONE], ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_foreign_file(path, tmp_path, model_folders):
    """Frequencies are those of bcftools by the rules of ``docs/genome.md``, or one line has the reason for none."""
    try:
        file, sources = read(path)
    except pysam.SamtoolsError:
        file, sources = None, ["AF"]
    population = Population(sequences_of(file.records if file else ()), (file,))
    fasta, store = tmp_path / "x.fa", tmp_path / "x.genome"
    fasta.write_text("".join(f">{name}\n{text}\n" for (_, name), text in population.sequences.items()))
    build_genome(fasta, store)
    # Without AF or AC/AN, it is GT that comes of AF.
    for asked, source in zip(("AF", "GT"), sources or ["AF"], strict=False):
        report, why = attempt(build_genome, fasta, store, path, frequency_field=asked, force=True)
        print(f"build|{why}")
        if file:
            options = {"frequency_field": source, "filters": ("PASS", "."), "min_frequency": 0.02}
            expected = read_slowly(population, samples=None, **options)
            refusals = {"declares no"} if not sources else expected if isinstance(expected, set) else set()
            if any(one.chrom == two.chrom and one.pos > two.pos for one, two in pairwise(file.records)):
                refusals.add("comes after a later position")
            assert bool(why) == bool(refusals)
            assert re.search("|".join(refusals), why)
        if report and file:
            (counts,), (rows, (reasons,), (decomposed,)) = report["records"], expected
            assert {"used": counts["used"], **counts["not_used"]} == {"used": 0, **reasons}
            assert (counts["read"], counts["decomposed"]) == (len(file.records), decomposed)
            assert_rows(variants_of(store), rows)
            print(f"positions|{len(rows)}")
        if report:
            verified = verify_genome(store, fasta, path)
            assert verified["agrees"], verified["differences"]
    model, options = model_folders["mutbert"], {"context": 30, "strands": "forward", "flank": 2}
    report, why = attempt(score_variants, model, store, path, tmp_path / "scored.vcf.gz", **options)
    print(f"score|{why}")
    if report and file:
        assert (report.records, report.alleles) == (len(file.records), sum(len(one.alts) for one in file.records))
