"""``verify`` against stores that are written by hand, right ones and wrong ones, and against the builder's."""

import ast
import gzip
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mutbert import alphabet
from mutbert.cli.genome import app
from mutbert.errors import InputError
from mutbert.genome import verify
from mutbert.genome.build import build_genome
from mutbert.genome.store import FREQUENCY_ONE, StoreWriter
from mutbert.genome.verify import verify_genome

HEADER = """##fileformat=VCFv4.2
##INFO=<ID=AF,Number=A,Type=Float,Description="Allele frequency">
##INFO=<ID=EUR_AF,Number=A,Type=Float,Description="Allele frequency, in Europe">
##INFO=<ID=AC_nfe,Number=A,Type=Integer,Description="Allele count">
##INFO=<ID=AN_nfe,Number=1,Type=Integer,Description="Allele number">
##FILTER=<ID=low,Description="Low quality">
##FILTER=<ID=q10,Description="Lower quality">
##contig=<ID=1>
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""
COUNTS = """##fileformat=VCFv4.2
##INFO=<ID=AC,Number=A,Type=Integer,Description="Allele count">
##INFO=<ID=AN,Number=1,Type=Integer,Description="Allele number">
##contig=<ID=1>
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""
SAMPLES = ("ann", "bob", "cay", "dan")
GENOTYPES = """##fileformat=VCFv4.2
##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Depth">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##contig=<ID=1>
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t""" + "\t".join(SAMPLES)
GENOTYPES += "\n"


def digest_of(*names):
    return {"number": len(names), "sha256": hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()}


def fixed_row(reference, alternates):
    """Units of 1/65535 for shares that are given in text, such as C.25 G.1; the reference has the rest."""
    row = [0, 0, 0, 0]
    for word in alternates.split():
        row["ACGT".index(word[0])] += round(float(word[1:]) * FREQUENCY_ONE)
    row["ACGT".index(reference)] += FREQUENCY_ONE - sum(row)
    return row


def write_store(folder, contigs, variants, *, records=(), settings=None, sources=()):
    """Write a store by hand; variants by contig, then by position from 1, as reference and alternates: ``A C.25``."""
    folder.mkdir()
    with StoreWriter(folder) as writer:
        for name, sequence in contigs.items():
            here = sorted(variants.get(name, {}).items())
            position = np.array([place - 1 for place, _ in here], dtype=np.uint32)
            rows = [row if isinstance(row, list) else fixed_row(row[0], row[2:]) for _, row in here]
            frequency = np.array(rows, dtype=np.uint16).reshape(-1, 4)
            lower = np.array([letter.islower() for letter in sequence])
            writer.add_contig(name, alphabet.encode(sequence), position, frequency, lower)
        writer.finish(
            sources=list(sources),
            settings={"min_frequency": 0.02, "frequency_field": "AF", "contigs": None, **(settings or {})},
            records=list(records),
        )
    return folder


def counts_of(read, not_used=None, source="AF", **more):
    used = read - sum((not_used or {}).values())
    return {"frequency_from": source, "read": read, "used": used, "not_used": not_used or {}, **more}


def write_records(path, records, header=HEADER):
    """Write lines of CHROM POS REF ALT INFO FILTER [FORMAT GENOTYPES]; what is left out is ``.``."""
    lines = []
    for record in records:
        chrom, pos, ref, alt, *rest = record.split()
        info, passed, *samples = [*rest, *["."] * 2][: max(len(rest), 2)]
        lines.append("\t".join([chrom, pos, ".", ref, alt, ".", passed, info, *samples]) + "\n")
    path.write_text(header + "".join(lines))
    return path


@pytest.fixture
def check(tmp_path, write_fasta):
    """Verify a store of one contig "1" that is written from what a case expects."""

    def run(sequence, records, expected, counts, *, header=HEADER, settings=None, **options):
        fasta = write_fasta(tmp_path / "x.fa", {"1": sequence})
        vcf = write_records(tmp_path / "x.vcf", records, header)
        store = write_store(
            tmp_path / "x.genome", {"1": sequence}, {"1": expected}, records=[counts], settings=settings
        )
        return verify_genome(store, fasta, vcf, **options)

    return run


CASES = {
    "one SNV": ("ACGT", ["1 2 C T AF=.25"], {2: "C T.25"}, {}),
    "multi-allelic": ("ACGT", ["1 2 C T,A AF=.25,.125"], {2: "C A.125 T.25"}, {}),
    "an allele below the minimum stays with others": ("ACGT", ["1 2 C T,A AF=.25,.001"], {2: "C A.001 T.25"}, {}),
    "split lines add up": ("ACGT", ["1 2 C T AF=.015", "1 2 C A AF=.015"], {2: "C A.015 T.015"}, {}),
    "lower case": ("aCgT", ["1 1 a c AF=.25", "1 3 G t AF=.5"], {1: "A C.25", 3: "G T.5"}, {}),
    "U in the FASTA": ("ACGU", ["1 4 T C AF=.25"], {4: "T C.25"}, {}),
    "reference gone": ("ACGT", ["1 2 C T AF=1"], {2: "C T1"}, {}),
    "sum a little above one": ("ACGT", ["1 2 C T,A AF=.5,.5005"], {2: [32784, 0, 0, 32751]}, {}),
    "the minimum is strict": (
        "ACGT",
        ["1 2 C T,A AF=.009,.01", "1 3 G A AF=.0201"],
        {3: "G A.0201"},
        {"frequency not above the minimum": 1},
    ),
    "frequency zero": (
        "ACGT",
        ["1 2 C T AF=.25", "1 2 C A AF=0"],
        {2: "C T.25"},
        {"frequency not above the minimum": 1},
    ),
    "duplicates and conflicts": (
        "ACGT",
        ["1 2 C T AF=.25", "1 2 C T AF=.25", "1 2 C T AF=.5", "1 2 CG TG AF=.25", "1 2 C T,A AF=.5,.1"],
        {2: "C A.1 T.25"},
        {"duplicate record": 2, "conflicts with an earlier record": 1},
    ),
    "an SNV written long": (
        "ACGTACGT",
        ["1 2 CGT C,CGA AF=.1,.25", "1 5 ACG ATG AF=.5"],
        {4: "T A.25", 6: "C T.5"},
        {},
    ),
    "kinds of alleles": (
        "ACGTACGT",
        [
            "1 1 A . AF=.1",
            "1 2 C <DEL> AF=.1",
            "1 2 C <*> AF=.1",
            "1 2 C C[1:5[ AF=.1",
            "1 3 G * AF=.1",
            "1 3 G GA AF=.1",
            "1 3 GT G AF=.1",
            "1 4 T T AF=.1",
            "1 4 T R AF=.1",
            "1 5 A *,<DEL>,AT AF=.1,.1,.1",
            "1 5 A C,* AF=.25,.1",
        ],
        {5: "A C.25"},
        {
            "no alternate allele": 1,
            "symbolic or structural": 3,
            "overlapping deletion (*)": 1,
            "insertion or deletion": 3,
            "alternate is the reference": 1,
            "alternate base not A, C, G or T": 1,
        },
    ),
    "the reference": (
        "ANRT",
        [
            "1 0 A C AF=.1",
            "1 1 G C AF=.1",
            "1 1 N C AF=.1",
            "1 2 A C AF=.1",
            "1 3 C T AF=.1",
            "1 3 G A AF=.25",
            "1 3 A T AF=.25",
            "1 5 A C AF=.1",
        ],
        {3: "G A.25"},
        {
            "outside the contig": 2,
            "reference base differs from the FASTA": 2,
            "reference base unknown": 2,
            "conflicts with an earlier record": 1,
        },
    ),
    "contigs and filters": (
        "ACGT",
        ["2 1 A C AF=.5", "chr1 2 C T AF=.5 low", "chr1 3 G A AF=.5 low;PASS", "chr1 4 T A AF=.5 ."],
        {3: "G A.5", 4: "T A.5"},
        {"contig not in the FASTA": 1, "filtered": 1},
    ),
    "missing frequencies": (
        "ACGT",
        ["1 1 A C AF=.", "1 2 C T,A AF=.,.25", "1 3 G A,T EUR_AF=.5,.5", "1 4 T A AF=nan", "1 4 N A .", "1 4 T A AF=x"],
        {2: "C A.25"},
        {"frequency missing": 4, "reference base unknown": 1},
    ),
    "several nucleotides": (
        "ACGTACGT",
        ["1 1 ACGT GCAT AF=.25", "1 1 A G AF=.125", "1 6 CG TT AF=.5"],
        {1: "A G.375", 3: "G A.25", 6: "C T.5", 7: "G T.5"},
        {},
        2,
    ),
    "equal alleles of several nucleotides, written differently": (
        "ACGTACGT",
        ["1 1 ACGT ATAT AF=.25", "1 2 CG TA AF=.25", "1 2 CG TA AF=.5", "1 2 CGT TAA AF=.125"],
        {2: "C T.375", 3: "G A.375", 4: "T A.125"},
        {"duplicate record": 1, "conflicts with an earlier record": 1},
        2,
    ),
    "parts of several nucleotides": (
        "ACNTACGT",
        ["1 2 CN TA AF=.25", "1 4 TA NC AF=.25", "1 8 TA CC AF=.25", "1 6 CG TN AF=."],
        {2: "C T.25", 5: "A C.25", 8: "T C.25"},
        {"frequency missing": 1},
        3,
    ),
    "several nucleotides from before the contig": ("ACGT", ["1 0 TA GC AF=.25"], {1: "A C.25"}, {}, 1),
    "several nucleotides around the contig's start": (
        "NCGT",
        ["1 0 TA GC AF=.25"],
        {},
        {"outside the contig": 1},
    ),
    "several nucleotides below the minimum": (
        "ACGT",
        ["1 1 AC GT AF=.015", "1 1 A G AF=.015"],
        {1: "A G.03"},
        {},
        1,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_rules(check, case):
    sequence, records, expected, not_used, *decomposed = case
    counts = counts_of(len(records), not_used, decomposed=decomposed[0] if decomposed else 0)
    report = check(sequence, records, expected, counts)
    assert (report.differences, report.differing, report.agrees) == ([], 0, True)
    assert (report.contigs, report.bases) == (1, len(sequence))
    assert (report.variants, report.records) == (len(expected), len(records))
    assert report.largest_difference <= 1 / FREQUENCY_ONE


@pytest.mark.parametrize("field", ["EUR_AF", "AC_nfe/AN_nfe"])
def test_another_field(check, field):
    records = ["1 1 A C AF=.1;EUR_AF=.5;AC_nfe=1;AN_nfe=2", "1 2 C T EUR_AF=.;AC_nfe=1;AN_nfe=0", "1 3 G T AF=.1"]
    counts = counts_of(3, {"frequency missing": 2}, source=field)
    assert check("ACGT", records, {1: "A C.5"}, counts, settings={"frequency_field": field}).agrees


def test_counts_where_there_is_no_frequency(check):
    records = ["1 1 A C,G AC=1,3;AN=8", "1 2 C T AN=8", "1 3 G A AC=2", "1 4 T A AC=2;AN=."]
    counts = counts_of(4, {"frequency missing": 3}, source="AC/AN")
    assert check("ACGT", records, {1: "A C.125 G.375"}, counts, header=COUNTS).agrees


CALLS = [
    "1 1 A C . . GT 0|1 0/1 1|1 0|0",
    "1 2 C T . . GT:DP ./1:3 .:. 0 0|1|1",
    "1 3 G A,T . . DP:GT 3:0/2 .:./. 1 9:1",
    "1 4 T C . . DP 3 3 3 3",
    "1 5 A C . . GT . ./. .|. ./.",
    "1 6 C T . .",
]


def test_genotypes_of_all(check):
    # 4 of 8; then T, C, C T T: 3 of 5. The third record has no calls for the second to last fields but 0/2.
    records = [*CALLS[:2], "1 3 G A,T . . DP:GT 3:0/2 .:./. 1:1/0 9:1", *CALLS[3:]]
    counts = counts_of(6, {"frequency missing": 3}, source="genotypes")
    report = check("ACGTAC", records, {1: "A C.5", 2: "C T.6", 3: "G A.4 T.2"}, counts, header=GENOTYPES)
    assert report.differences == []


def test_genotypes_of_more_than_ten_alleles(check):
    alternates = ",".join(["C", *("A" + "C" * length for length in range(1, 10)), "G"])
    records = [f"1 1 A {alternates} . . GT 0/1 0/11 1/10 11|11", "1 2 C T . . GT 0/1 0/0 0/0 0/0"]
    variants = {1: "A C.25 G.375", 2: "C T.125"}
    assert check("ACGT", records, variants, counts_of(2, source="genotypes"), header=GENOTYPES).agrees


def test_nothing_is_imported_from_the_working_directory(tmp_path, write_fasta, monkeypatch):
    (tmp_path / "pysam.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert verify_genome(*write_tampered(tmp_path, write_fasta)).agrees


def test_a_line_longer_than_what_is_read_at_once(check):
    alternate = "<" + "X" * (1 << 23) + ">"
    records = [f"1 1 A {alternate} AF=.5", "1 2 C T AF=.5"]
    assert check("ACGT", records, {2: "C T.5"}, counts_of(2, {"symbolic or structural": 1})).agrees


@pytest.mark.parametrize(
    ("chosen", "expected", "missing"),
    [
        (("ann", "dan"), {1: "A C.25", 2: "C T.75"}, 0),
        (("cay",), {1: "A C1"}, 0),
        (("bob",), {1: "A C.5"}, 1),
    ],
)
def test_chosen_samples(check, tmp_path, chosen, expected, missing):
    listing = tmp_path / "names.txt"
    listing.write_text("# people\n" + "\n".join(reversed(chosen)) + "\n\n")
    not_used = {"frequency missing": missing, "frequency not above the minimum": 2 - len(expected) - missing}
    counts = counts_of(2, {reason: number for reason, number in not_used.items() if number}, source="genotypes")
    settings = {"samples": digest_of(*chosen)}
    options = {"sample": chosen[0]} if chosen == ("bob",) else {"samples": listing}
    report = check("ACGT", CALLS[:2], expected, counts, header=GENOTYPES, settings=settings, **options)
    assert report.differences == []


@pytest.mark.parametrize("blank", ["\t", "  "])
def test_a_panel_of_samples(check, tmp_path, blank):
    panel = tmp_path / "panel"
    rows = ["sample pop super", "ann GBR EUR", "bob YRI AFR", "cay LWK AFR", "dan FIN EUR"]
    panel.write_text("".join(row.replace(" ", blank) + "\n" for row in rows))
    settings = {"samples": digest_of("ann", "dan")}
    counts = counts_of(1, source="genotypes")
    options = {"samples": panel, "population": "EUR"}
    assert check("ACGT", CALLS[:1], {1: "A C.25"}, counts, header=GENOTYPES, settings=settings, **options).agrees
    options["population"] = "cay"
    with pytest.raises(InputError, match="lists no samples of population 'cay'"):
        verify_genome(tmp_path / "x.genome", tmp_path / "x.fa", tmp_path / "x.vcf", **options)


@pytest.mark.parametrize(
    ("chosen", "options", "message"),
    [
        (None, {"sample": "ann"}, "no samples were chosen"),
        (digest_of("ann", "bob"), {}, "built from 2 chosen samples; give the same"),
        (digest_of("ann", "bob"), {"sample": "ann"}, "built from 2 chosen samples, and the 1 given are not the same"),
        (digest_of("bob"), {"sample": "ann"}, "built from 1 chosen samples, and the 1 given are not the same"),
        (digest_of("eve"), {"sample": "eve"}, "has none of the chosen samples"),
        (digest_of("eve"), {"sample": "eve", "population": "EUR"}, "leave out --samples and --population"),
        (None, {"population": "EUR"}, "give it with --samples"),
        (digest_of("eve"), {"samples": "absent.txt"}, "cannot be read as a list of samples"),
    ],
)
def test_other_samples_are_refused(check, chosen, options, message):
    counts = counts_of(1, source="genotypes")
    with pytest.raises(InputError, match=message) as error:
        check("ACGT", CALLS[:1], {1: "A C.5"}, counts, header=GENOTYPES, settings={"samples": chosen}, **options)
    assert "\n" not in str(error.value)


def test_a_sample_may_be_in_one_of_the_files(tmp_path, write_fasta):
    fasta = write_fasta(tmp_path / "x.fa", {"1": "ACGT"})
    first = write_records(tmp_path / "a.vcf", CALLS[:1], GENOTYPES)
    second = write_records(tmp_path / "b.vcf", ["1 4 T A . . GT 0/1"], GENOTYPES.split("\tann")[0] + "\tann\n")
    records = [counts_of(1, source="genotypes")] * 2
    store = write_store(
        tmp_path / "x.genome",
        {"1": "ACGT"},
        {"1": {1: "A C.5", 4: "T A.5"}},
        records=records,
        settings={"samples": digest_of("ann", "bob")},
    )
    names = tmp_path / "names"
    names.write_text("ann\nbob\n")
    assert verify_genome(store, fasta, [first, second], samples=names).agrees
    with pytest.raises(InputError, match="sample bob: is in none of the VCF files given"):
        verify_genome(store, fasta, [second, second], samples=names)


@pytest.mark.parametrize(
    ("filters", "expected"), [(["any"], {1, 2, 3, 4}), (["low"], {3, 4}), (["."], {1}), (["PASS", "q10"], {2, 4})]
)
def test_filters(check, filters, expected):
    records = ["1 1 A C AF=.5 .", "1 2 C T AF=.5 PASS", "1 3 G T AF=.5 low", "1 4 T C AF=.5 q10;low"]
    variants = {1: "A C.5", 2: "C T.5", 3: "G T.5", 4: "T C.5"}
    not_used = {"filtered": 4 - len(expected)} if len(expected) < 4 else {}
    kept = {place: variants[place] for place in expected}
    assert check("ACGT", records, kept, counts_of(4, not_used), settings={"filter": filters}).agrees


@pytest.mark.parametrize("kept", [True, False])
def test_a_sum_at_the_minimum_may_be_on_either_side(check, kept):
    # As decimals .01 and .01 make .02, as binary numbers a little less or more.
    records = ["1 2 C T,A AF=.01,.01"]
    not_used = {} if kept else {"frequency not above the minimum": 1}
    assert check("ACGT", records, {2: "C A.01 T.01"} if kept else {}, counts_of(1, not_used)).agrees


def test_nothing_is_near_a_minimum_of_zero(check):
    report = check("ACGT", ["1 2 C T AF=0"], {2: "C T0"}, counts_of(1), settings={"min_frequency": 0})
    assert report.differences[0] == "1:2: varies in the genome, and not by the VCF"


@pytest.mark.parametrize("asked", [["2"], ["chr2"]])
def test_contigs_that_were_asked_for(tmp_path, write_fasta, asked):
    fasta = write_fasta(tmp_path / "x.fa", {"1": "ACGT", "2": "ACGTA"})
    vcf = write_records(tmp_path / "x.vcf", ["chr2 1 A C AF=.5", "1 1 A C AF=.5", "3 1 A C AF=.5"])
    counts = counts_of(3, {"contig not selected": 1, "contig not in the FASTA": 1})
    store = write_store(
        tmp_path / "x.genome", {"2": "ACGTA"}, {"2": {1: "A C.5"}}, records=[counts], settings={"contigs": asked}
    )
    report = verify_genome(store, fasta, vcf)
    assert (report.agrees, report.contigs, report.bases) == (True, 1, 5)


def test_prefixes(tmp_path, write_fasta):
    human = write_fasta(tmp_path / "h.fa", {"chr1": "ACGT", "chr2": "CCCC"})
    mouse = write_fasta(tmp_path / "m.fa", {"chr1": "TTTT"})
    first = write_records(tmp_path / "h.vcf", ["1 1 A C AF=.5", "X 1 A C AF=.5"])
    second = write_records(tmp_path / "m.vcf", ["1 1 T C AF=.25", "chr2 1 C T AF=.25"])
    contigs = {"human.chr1": "ACGT", "human.chr2": "CCCC", "mouse.chr1": "TTTT"}
    variants = {"human.chr1": {1: "A C.5"}, "mouse.chr1": {1: "T C.25"}}
    records = [counts_of(2, {"contig not in the FASTA": 1})] * 2
    store = write_store(tmp_path / "x.genome", contigs, variants, records=records)
    fastas = [f"human={human}", f"mouse={mouse}"]
    report = verify_genome(store, fastas, [f"human={first}", f"mouse={second}"])
    assert (report.differences, report.contigs, report.variants) == ([], 3, 2)
    assert not verify_genome(store, fastas, [first, second]).agrees
    # A name that is a file's is no prefix.
    store = write_store(tmp_path / "y.genome", {"chr1": "TTTT"}, {}, records=[])
    assert verify_genome(store, str(mouse.rename(tmp_path / "m=1.fa"))).agrees


@pytest.mark.parametrize("kind", ["plain", "gzip", "bgzip"])
def test_ways_of_packing(tmp_path, write_fasta, compress, kind):
    # Contigs come twice and in another order.
    contigs = {"1": "ACGT" * 5, "2": "CCCC"}
    fasta = write_fasta(tmp_path / "x.fa", contigs, kind=kind)
    first = ["2 1 C T AF=.25", *(f"1 {place} A C AF=.25" for place in (1, 5, 9, 13))]
    second = ["1 1 A G AF=.25", "2 2 C T AF=.25", "1 5 A C AF=.25"]
    files = []
    for name, records in (("a.vcf", first), ("b.vcf", second)):
        path = write_records(tmp_path / name, records)
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n").rstrip(b"\r\n"))
        files.append(compress(path, kind))
    variants = {"1": {1: "A C.25 G.25", 5: "A C.25", 9: "A C.25", 13: "A C.25"}, "2": {1: "C T.25", 2: "C T.25"}}
    records = [counts_of(5), counts_of(3, {"duplicate record": 1})]
    store = write_store(tmp_path / "x.genome", contigs, variants, records=records)
    assert verify_genome(store, fasta, files).differences == []
    assert not verify_genome(store, fasta, files[::-1]).agrees


def test_bcf(tmp_path, write_fasta):
    # 0.0200001 differs from the minimum in the seventh digit, which BCF has and its text has not.
    records = ["1 1 A C,G AF=.25,.", "1 2 C T AF=.0123456789 low", "1 3 G T AF=.3333333333", "1 4 T C ."]
    text = write_records(tmp_path / "x.vcf", [*records, "1 4 TA CC AF=.123456789"])
    fasta = write_fasta(tmp_path / "x.fa", {"1": "ACGTA"})
    packed = tmp_path / "x.bcf"
    with pysam.VariantFile(str(text)) as source, pysam.VariantFile(str(packed), "wb", header=source.header) as target:
        for record in source:
            target.write(record)
    assert gzip.decompress(packed.read_bytes())[:3] == b"BCF"
    store = write_store(
        tmp_path / "x.genome",
        {"1": "ACGTA"},
        {"1": {1: "A C.25", 3: "G T.3333333333", 4: "T C.123456789", 5: "A C.123456789"}},
        records=[counts_of(5, {"filtered": 1, "frequency missing": 1}, decomposed=1), counts_of(5, {"x": 5})],
    )
    differences = verify_genome(store, fasta, [packed, text]).differences
    # The numbers are exactly those of the text, so that the second file has duplicates and no conflicts.
    assert not any("x.bcf" in text for text in differences)
    assert any("x.vcf: records not used, duplicate record: 3," in text for text in differences)


SEQUENCES = {"1": "ACGTRACGTNNNACGT", "2": "CCCCCCcc"}
VARIANTS = {"1": {1: "A C.25", 3: "G A.5 T.125"}, "2": {4: "C G.0625"}}
RECORDS = ["1 1 A C AF=.25", "1 3 G A,T AF=.5,.125", "1 6 A AT AF=.5", "2 4 C G AF=.0625"]
NOT_USED = {"insertion or deletion": 1}


def with_variant(contig, position, row):
    here = {**VARIANTS[contig], position: row}
    return {**VARIANTS, contig: {place: row for place, row in here.items() if row is not None}}


def with_sequence(contig, start, letters):
    sequence = SEQUENCES[contig]
    return {**SEQUENCES, contig: sequence[: start - 1] + letters + sequence[start - 1 + len(letters) :]}


def fixed_off(by):
    row = fixed_row("A", "C.25")
    return [row[0] - by, row[1] + by, row[2], row[3]]


TAMPERED = {
    "a base": ({"contigs": with_sequence("1", 8, "T")}, 1, "1:8: the base is G in the FASTA, T in the genome"),
    "an ambiguity run": (
        {"contigs": with_sequence("1", 12, "A")},
        1,
        "1:12: the base is N in the FASTA, A in the genome",
    ),
    "an IUPAC code": ({"contigs": with_sequence("1", 5, "Y")}, 1, "1:5: the base is R in the FASTA, Y in the genome"),
    "a base that is soft-masked": (
        {"contigs": with_sequence("1", 8, "g")},
        1,
        "1:8: is in upper case in the FASTA, and soft-masked in the genome",
    ),
    "bases that are not soft-masked": (
        {"contigs": {**SEQUENCES, "2": "CCCCCCCC"}},
        2,
        "2:8: is in lower case in the FASTA, and not soft-masked in the genome",
    ),
    "a longer contig": (
        {"contigs": {**SEQUENCES, "1": SEQUENCES["1"] + "A"}},
        1,
        "contig 1: has 16 bases in the FASTA, 17 in the genome",
    ),
    "a shorter contig": (
        {"contigs": {**SEQUENCES, "2": SEQUENCES["2"][:-1]}},
        1,
        "contig 2: has 8 bases in the FASTA, 7 in the genome",
    ),
    "order of contigs": (
        {"contigs": {name: SEQUENCES[name] for name in ("2", "1")}},
        1,
        "order of contigs: 1, 2 in the FASTA, 2, 1 in the genome",
    ),
    "a contig that is missing": (
        {"contigs": {"1": SEQUENCES["1"]}},
        1,
        "contig 2: is in the FASTA, and not in the genome",
    ),
    "a contig too many": (
        {"contigs": {**SEQUENCES, "3": "A"}},
        1,
        "contig 3: is in the genome, and not in the FASTA",
    ),
    "a variant that is missing": (
        {"variants": with_variant("1", 3, None)},
        1,
        "1:3: varies by the VCF, and not in the genome",
    ),
    "an extra variant": (
        {"variants": with_variant("2", 5, "C T.5")},
        1,
        "2:5: varies in the genome, and not by the VCF",
    ),
    "a variant one base off": (
        {"variants": {**with_variant("1", 1, None), "1": {2: "C A.25", 3: VARIANTS["1"][3]}}},
        2,
        "1:2: varies in the genome, and not by the VCF",
    ),
    "a frequency": (
        {"variants": with_variant("1", 1, fixed_off(5))},
        1,
        "1:1: A, C, G, T are 0.75000 0.25000 0.00000 0.00000 by the VCF, 0.74992 0.25008 0.00000 0.00000 in the genome",
    ),
    "another allele": (
        {"variants": with_variant("2", 4, "C A.0625")},
        1,
        "2:4: A, C, G, T are 0.00000 0.93750 0.06250 0.00000 by the VCF, 0.06250 0.93750 0.00000 0.00000 in the genome",
    ),
    "records read": ({"counts": {"read": 5}}, 1, "x.vcf: records read: 4, by the genome's manifest 5"),
    "records used": ({"counts": {"used": 2}}, 1, "x.vcf: records used: 3, by the genome's manifest 2"),
    "records decomposed": (
        {"counts": {"decomposed": 1}},
        1,
        "x.vcf: records decomposed: 0, by the genome's manifest 1",
    ),
    "a reason": (
        {"counts": {"not_used": {"filtered": 1}}},
        2,
        "x.vcf: records not used, filtered: 0, by the genome's manifest 1",
    ),
    "an unknown reason": (
        {"counts": {"not_used": {**NOT_USED, "bad luck": 1}}},
        1,
        "x.vcf: records not used, bad luck: 0, by the genome's manifest 1",
    ),
    "source of frequencies": (
        {"counts": {"frequency_from": "AC/AN"}},
        1,
        "x.vcf: frequencies from: AF, by the genome's manifest AC/AN",
    ),
    "number of files": ({"counts": None}, 1, "VCF files: 1 given, 0 in the genome's manifest"),
}


def write_tampered(folder, write_fasta, contigs=SEQUENCES, variants=VARIANTS, counts=()):
    """Write a right store, or one that is wrong in what is given; gives it with its sources."""
    fasta = write_fasta(folder / "x.fa", SEQUENCES)
    vcf = write_records(folder / "x.vcf", RECORDS)
    right = counts_of(4, NOT_USED, file="x.vcf", decomposed=0)
    records = [] if counts is None else [right | dict(counts)]
    sources = [
        {"kind": kind, "file": file.name, "bytes": file.stat().st_size, "sha256": sha256(file)}
        for kind, file in (("fasta", fasta), ("vcf", vcf))
    ]
    return write_store(folder / "x.genome", contigs, variants, records=records, sources=sources), fasta, vcf


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_right_store_agrees(tmp_path, write_fasta):
    report = verify_genome(*write_tampered(tmp_path, write_fasta))
    assert (report.agrees, report.differences) == (True, [])
    assert (report.contigs, report.bases, report.variants, report.records) == (2, 24, 3, 4)
    assert [source.status for source in report.sources] == ["same", "same"]


def test_a_store_of_version_1_has_no_soft_mask_to_compare(tmp_path, write_fasta, as_version_1):
    store, fasta, vcf = write_tampered(tmp_path, write_fasta)
    assert verify_genome(as_version_1(store), fasta, vcf).agrees


def test_a_soft_mask_that_differs_all_over_is_counted(tmp_path, write_fasta):
    store = write_store(tmp_path / "x.genome", {"1": "acgt" * 100}, {}, records=[])
    report = verify_genome(store, write_fasta(tmp_path / "x.fa", {"1": "ACGT" * 100}))
    assert (report.differing, len(report.differences)) == (400, verify.MOST_TEXTS)


@pytest.mark.parametrize(("change", "number", "text"), TAMPERED.values(), ids=TAMPERED.keys())
def test_a_wrong_store_differs(tmp_path, write_fasta, change, number, text):
    report = verify_genome(*write_tampered(tmp_path, write_fasta, **change))
    assert not report.agrees
    assert (report.differing, len(report.differences)) == (number, number)
    assert any(line.endswith(text) for line in report.differences), report.differences


@pytest.mark.parametrize(("by", "agrees"), [(1, True), (2, False)])
def test_no_more_than_the_fixed_point_is_allowed(tmp_path, write_fasta, by, agrees):
    # A quarter of 65535 is 16383.75, which is stored as 16384.
    assert fixed_row("A", "C.25")[1] == 16384
    store = write_tampered(tmp_path, write_fasta, variants=with_variant("1", 1, fixed_off(-by)))
    assert verify_genome(*store).agrees == agrees


def test_many_differences_are_counted_and_some_described(tmp_path, write_fasta):
    sequence = "ACGT" * 50
    fasta = write_fasta(tmp_path / "x.fa", {"1": sequence, "2": sequence})
    records = [f"{name} {place} A C AF=.5" for name in "12" for place in range(1, 200, 4)]
    vcf = write_records(tmp_path / "x.vcf", records)
    wrong = dict.fromkeys(range(1, 100, 4), "A C.25")
    store = write_store(tmp_path / "x.genome", {"1": "C" * 200, "2": sequence}, {"1": wrong, "2": wrong})
    report = verify_genome(store, fasta, vcf)
    # 150 bases, 25 of 50 variants missing and 25 wrong in each contig, no manifest of records.
    assert report.differing == 150 + 2 * 25 + 2 * 25 + 1
    assert len(report.differences) == verify.MOST_TEXTS == 20
    kinds = ["the base is", "varies by the VCF", "A, C, G, T are", "VCF files"]
    assert [sum(kind in line for line in report.differences) for kind in kinds] == [3 + 10, 3, 3, 1]


def test_sources_of_other_bytes_and_equal_contents_agree(tmp_path, write_fasta, compress):
    store, fasta, vcf = write_tampered(tmp_path, write_fasta)
    compress(vcf, "gzip")
    report = verify_genome(store, [fasta], [vcf])
    assert report.agrees
    assert [(one.kind, one.file, one.status) for one in report.sources] == [
        ("fasta", str(fasta), "same"),
        ("vcf", str(vcf), "different"),
    ]
    report = verify_genome(store, [fasta])
    assert [one.status for one in report.sources] == ["same", "not given"]
    assert not report.agrees
    report = verify_genome(store, fasta, [vcf, vcf])
    assert [one.status for one in report.sources] == ["same", "different", "not in the manifest"]
    assert not report.agrees


@pytest.mark.parametrize(
    ("record", "header", "message"),
    [
        ("1 1 A C AF=1.5", HEADER, "1:1: the frequencies are impossible"),
        ("1 1 A C AF=-.5", HEADER, "1:1: the frequencies are impossible"),
        ("1 1 A C AF=1e300", HEADER, "1:1: the frequencies are impossible"),
        ("1 1 A C,G AF=.5", HEADER, "1:1: the frequencies are impossible"),
        ("1 1 A C,G AF=.5,.502", HEADER, "1:1: the frequencies are impossible"),
        ("1 x A C AF=.5", HEADER, "cannot be read as VCF .*position 'x'"),
        ("1 1 A C AF=.5", HEADER.replace("ID=AF", "ID=XX"), "declares no INFO field AF of type Float"),
        ("1 1 A C AF=.5", HEADER.replace("##file", "##fiel"), "cannot be read as VCF .*unknown file type"),
        ("1 1 A C AF=.5", HEADER.replace("#CHROM", "##HROM"), "cannot be read as VCF .*No sample line"),
        ("1 1 A C . . GT 0/1 0/0 0/0", GENOTYPES, "1:1 does not match the number of samples"),
        ("1 1 A C . . GT 0/1 0/0 0/-1 0/0", GENOTYPES, "cannot be read as VCF .* at 1:1"),
    ],
)
def test_a_vcf_that_nothing_was_built_from(check, tmp_path, record, header, message):
    with pytest.raises(InputError, match=message) as error:
        check("ACGT", [record], {}, counts_of(1), header=header)
    assert str(error.value).startswith(f"{tmp_path / 'x.vcf'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ACGT\n", "is not FASTA"),
        (b">1\nAC!T\n", "contig 1, position 3: '!' is not an IUPAC nucleotide code"),
        (b">1\nACGT\n>1\nACGT\n", "contig 1 comes twice"),
    ],
)
def test_a_fasta_that_nothing_was_built_from(tmp_path, write_fasta, content, message):
    store, fasta, vcf = write_tampered(tmp_path, write_fasta)
    fasta.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        verify_genome(store, fasta, vcf)
    assert str(error.value).startswith(f"{fasta}: ")


def test_a_vcf_that_was_cut_short(tmp_path, write_fasta, compress):
    store, fasta, vcf = write_tampered(tmp_path, write_fasta)
    compress(vcf, "gzip")
    vcf.write_bytes(vcf.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read as VCF"):
        verify_genome(store, fasta, vcf)


def test_a_store_that_does_not_say_how_it_was_made(tmp_path, write_fasta):
    store, fasta, vcf = write_tampered(tmp_path, write_fasta)
    manifest = json.loads((store / "manifest.json").read_text())
    del manifest["settings"]
    (store / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="does not say how the genome was built"):
        verify_genome(store, fasta, vcf)


BUILDER = {
    "fasta",
    "vcf",
    "alleles",
    "merging",
    "frequencies",
    "build",
    "writer",
    "compression",
    "genotypes",
    "samples",
}


def test_nothing_is_shared_with_the_builder():
    tree = ast.parse(Path(verify.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert not imported & {f"mutbert.genome.{name}" for name in BUILDER}
    assert {name for name in imported if name.startswith("mutbert")} <= {
        "mutbert.errors",
        "mutbert.progress",
        "mutbert.files",
        "mutbert.regions",
        "mutbert.genome.format",
        "mutbert.genome.store",
    }


LENGTH = 12


@st.composite
def populations(draw):
    """A FASTA with ambiguous codes, and sorted records of all kinds that a builder accepts."""
    sequence = draw(st.text("ACGTacgtRYN", min_size=LENGTH, max_size=LENGTH))
    records = []
    for position in sorted(draw(st.lists(st.integers(1, LENGTH + 1), max_size=12))):
        here = sequence[position - 1 : position + 1].upper() or "A"
        here = "".join({"R": "G", "Y": "C"}.get(base, base) for base in here)
        reference = here[: draw(st.integers(1, len(here)))]
        changed = [draw(st.sampled_from("ACGT" if "N" in reference else "ACGTN")) + reference[1:] for _ in range(2)]
        choices = st.sampled_from([*changed, *changed, reference + "A", "*", "<DEL>"])
        alternates = draw(st.lists(choices, min_size=1, max_size=2, unique=True))
        values = [draw(st.sampled_from([0, 0.004, 0.01, 0.015, 0.05, 0.0625, 1 / 3 / 16])) for _ in alternates]
        passed = draw(st.sampled_from(["PASS", "PASS", ".", "low"]))
        records.append(f"chr1 {position} {reference} {','.join(alternates)} AF={','.join(map(str, values))} {passed}")
    return sequence, records


@given(populations(), st.sampled_from([0, 0.02, 0.03]))
def test_the_builder_agrees(tmp_path_factory, write_fasta, population, minimum):
    sequence, records = population
    folder = tmp_path_factory.mktemp("built")
    fasta = write_fasta(folder / "x.fa", {"1": sequence, "2": "ACGT"})
    # A record of its own keeps the builder from refusing a file of which nothing is used.
    vcf = write_records(folder / "x.vcf", [*records, "2 1 A C AF=.5"])
    build_genome(fasta, folder / "x.genome", vcf, min_frequency=minimum)
    report = verify_genome(folder / "x.genome", fasta, vcf)
    assert report.differences == []
    assert report.records == len(records) + 1
    assert report.largest_difference <= 0.75 / FREQUENCY_ONE + 1e-7


@pytest.mark.shared
def test_real_data_agree(shared, tmp_path):
    folder = shared / "data/human_grch37"
    fasta = folder / "chr22_1-22000000.fa.gz"
    vcf = folder / "chr22_16050075-19759394.1000g_phase3.sites.vcf.gz"
    build_genome(fasta, tmp_path / "x.genome", vcf)
    report = verify_genome(tmp_path / "x.genome", fasta, vcf)
    assert report.differences == []
    assert (report.contigs, report.bases, report.records) == (1, 22_000_000, 99_832)
    assert report.variants > 10_000
    assert [one.status for one in report.sources] == ["same", "same"]


@pytest.fixture
def program(monkeypatch, capsys):
    """Run the whole program; gives exit status, standard output and standard error."""
    from mutbert.cli.main import run

    def invoke(*arguments):
        monkeypatch.setattr(sys, "argv", ["mutbert", "genome", "verify", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            run()
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return invoke


def test_command_agrees(tmp_path, write_fasta, program):
    store, fasta, vcf = write_tampered(tmp_path, write_fasta)
    status, out, err = program(store, "--fasta", fasta, "--vcf", vcf)
    assert status == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for line in ("contigs 2", "bases 24", "variants 3", "records 4", f"{fasta} fasta same"):
        assert line in lines
    assert lines[-1] == f"{store}: agrees with its sources"
    assert "Reading the variants" in err


def test_command_differs(tmp_path, write_fasta, program):
    sequences = {**SEQUENCES, "1": "CCCCCCCC" + SEQUENCES["1"][8:]}
    store, fasta, vcf = write_tampered(tmp_path, write_fasta, contigs=sequences, counts={"used": 7})
    status, out, _ = program(store, "--fasta", fasta, "--vcf", vcf)
    assert status == 1
    assert f"{store}: differs from its sources in 7 places" in out
    assert "  1:1: the base is A in the FASTA, C in the genome" in out
    assert "records used: 3, by the genome's manifest 7" in out
    status, out, _ = program(store, "--fasta", fasta, "--vcf", vcf, "--json")
    result = json.loads(out)
    assert (status, result["agrees"], result["differing"], len(result["differences"])) == (1, False, 7, 7)
    assert result["sources"][1] == {"kind": "vcf", "file": str(vcf), "status": "same"}


def test_command_counts_what_it_does_not_describe(tmp_path, write_fasta, program, monkeypatch):
    store, fasta, vcf = write_tampered(tmp_path, write_fasta, contigs={**SEQUENCES, "2": "GGGCGGgg"})
    monkeypatch.setattr(verify, "MOST_TEXTS", 5)
    status, out, _ = program(store, "--fasta", fasta, "--vcf", vcf)
    assert status == 1
    assert "differs from its sources in 7 places" in out
    assert out.splitlines()[-1] == "  and 2 more"


def test_command_refuses(tmp_path, write_fasta, program):
    store, fasta, vcf = write_tampered(tmp_path, write_fasta)
    for arguments, message in (
        ((store, "--fasta", fasta, "--vcf", tmp_path / "absent.vcf"), "absent.vcf: no such file"),
        ((store, "--fasta", fasta, "--vcf", vcf, "--sample", "ann"), "no samples were chosen"),
        ((tmp_path / "absent.genome", "--fasta", fasta), "no such genome store"),
    ):
        status, out, err = program(*arguments)
        assert (status, out) == (2, "")
        assert message in err.splitlines()[-1]
    content = bytearray((store / "sequence.npy").read_bytes())
    content[-1] ^= 1
    (store / "sequence.npy").write_bytes(content)
    status, _, err = program(store, "--fasta", fasta, "--vcf", vcf)
    assert status == 2
    assert "sequence.npy: its SHA-256 is not the manifest's" in err


def test_command_takes_samples(tmp_path, write_fasta, program):
    fasta = write_fasta(tmp_path / "x.fa", {"1": "ACGT"})
    vcf = write_records(tmp_path / "x.vcf", CALLS[:1], GENOTYPES)
    panel = tmp_path / "panel"
    panel.write_text("ann GBR EUR\nbob YRI AFR\n")
    store = write_store(
        tmp_path / "x.genome",
        {"p.1": "ACGT"},
        {"p.1": {1: "A C.5"}},
        records=[counts_of(1, source="genotypes")],
        settings={"samples": digest_of("bob")},
    )
    command = [store, "--fasta", f"p={fasta}", "--vcf", f"p={vcf}"]
    assert program(*command, "--samples", panel, "--population", "AFR")[0] == 0
    assert program(*command, "--sample", "bob")[0] == 0
    assert program(*command, "--samples", panel)[0] == 2


def test_help_names_the_command():
    assert "verify" in CliRunner().invoke(app, ["--help"]).stdout
