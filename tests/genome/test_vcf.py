"""VCF and BCF in every wrapping; files that are cut, damaged or something else are refused in one line."""

import re
import sys

import pysam
import pysam.bcftools
import pytest

from mutbert.errors import InputError
from mutbert.genome.vcf import count_by_index, find_frequencies, read_header, read_lines, read_records

FIELDS = "##fileformat=VCFv4.2\n{}#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO{}\n"
RECORDS = [("chr1", pos, "A", "C", 0.25) for pos in range(1, 60)] + [("z", 7, "G", "T", 0.5)]


def read(path, *fields, **options):
    """Return the records as rows; what cannot be read is refused."""
    read_header(path)
    return [row for frame in read_records(path, fields, **options) for row in frame.rows()]


def refusal(function, *arguments):
    with pytest.raises(InputError) as raised:
        function(*arguments)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_bcf_is_read_and_a_cut_one_refused(tmp_path, write_vcf, capfd):
    path = write_vcf(tmp_path / "x.vcf", RECORDS[:-1])
    path.write_text(path.read_text().replace("#CHROM", "##contig=<ID=chr1,length=99>\n#CHROM", 1))
    for kind in ("-Ob", "-Ou"):
        packed = tmp_path / f"x{kind}.bcf"
        pysam.bcftools.view(kind, "-o", str(packed), str(path), catch_stdout=False)
        assert [row[1] + 1 for row in read(packed)] == [pos for _, pos, *_ in RECORDS[:-1]]
        whole = packed.read_bytes()
        for size in range(1, len(whole), len(whole) // 7):
            (tmp_path / "cut.bcf").write_bytes(whole[:size])
            refusal(read, tmp_path / "cut.bcf")
    assert read_header(packed).contigs == {"chr1": 99}
    assert capfd.readouterr() == ("", "")


def test_regions_have_each_record_once(tmp_path, write_vcf):
    records = [("c:1", 3, "ACG", "A", 0.5), *(("c:1", 5, "A", alt, 0.5) for alt in "CG"), ("c:1", 9, "A", "G", 1)]
    path = write_vcf(tmp_path / "x.vcf.gz", [*records, ("d", 1, "A", "C", 0.5)], kind="bgzip")
    assert count_by_index(path) is None
    pysam.tabix_index(str(path), preset="vcf")
    assert count_by_index(path) == {"c:1": 4, "d": 1}
    places = [
        [row[:2] for row in read(path, region=[region])] for region in (("c:1", 0, 4), ("c:1", 4, 8), ("c:1", 8, None))
    ]
    assert places == [[("c:1", 2)], [("c:1", 4), ("c:1", 4)], [("c:1", 8)]]
    assert len(read(path, region=[("c:1", 0, None), ("d", 0, None)])) == 5
    (tmp_path / "x.vcf.gz.tbi").write_bytes(b"no index")
    assert count_by_index(path) is None


@pytest.mark.parametrize("kind", ["plain", "gzip", "bgzip"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n\r\n", "\n \n", "\t\n\n"])
def test_the_end_of_the_text_may_be_blank_or_missing(tmp_path, write_vcf, compress, kind, end):
    path = write_vcf(tmp_path / "x.vcf", RECORDS)
    path.write_bytes(path.read_bytes().rstrip() + end.encode())
    compress(path, kind)
    assert [row[:2] for row in read(path)] == [(chrom, pos - 1) for chrom, pos, *_ in RECORDS]


@pytest.mark.parametrize("contig", ["Plasmid_é", "c"])
def test_text_that_is_not_utf_8_is_carried_through(tmp_path, contig):
    path, declared = tmp_path / "x.vcf", '##INFO=<ID=D,Number=.,Type=String,Description="caf\xe9">\n'
    head = FIELDS.format(f"##contig=<ID=c>\n{declared}", "").encode("latin-1")
    lines = [f"{contig}\t{pos}\t.\tA\tC\t.\t.\tD=".encode() + b"Lef\xe8vre\n" for pos in (3, 4)]
    path.write_bytes(head + b"".join(lines))
    pysam.tabix_index(str(path), preset="vcf", keep_original=True)
    names = ["x.vcf", "x.vcf.gz"]
    if contig == "c":  # htslib writes no other to BCF
        pysam.bcftools.view("-Ob", "-o", f"{path}.bcf", "--write-index", str(path), catch_stdout=False)
        names.append("x.vcf.bcf")
    for name in names:
        rows = [(row[0], row[1], row[-1]) for row in read(tmp_path / name, "INFO/D")]
        assert rows == [(contig, pos, "Lef\ufffdvre") for pos in (2, 3)], name
        assert b"".join(read_lines(tmp_path / name)) == b"".join(lines)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("#x", "line 5 is a comment among the records"),
        ("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO", "line 5 is a comment"),
        ("chr1 1 . A C . . .", "line 5 has fewer than 8 columns"),
        ("", "line 5 has fewer than 8 columns"),
        ("chr1\t.\t.\tA\tC\t.\t.\t.", "line 5 has no number for POS"),
        ("chr1\tnine\t.\tA\tC\t.\tPASS\tAF=0.1", "line 5 has no number for POS"),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "gzip", "bgzip"])
def test_a_line_that_is_no_record_is_named(tmp_path, compress, line, message, kind):
    path, record = tmp_path / "x.vcf", "chr1\t1\t.\tA\tC\t.\t.\tAF=0.1\n"
    path.write_text(FIELDS.format(EUR, "") + record + f"{line}\n" + record)
    assert message in refusal(read, compress(path, kind))
    # At the end, a blank line is none.
    path.write_text(FIELDS.format(EUR, "") + record + f"{line}\n")
    assert not line or f"{path}: cannot be read as VCF" in refusal(read, compress(path, kind))


@pytest.mark.parametrize("kind", ["gzip", "bgzip"])
def test_files_that_were_cut_or_damaged_are_refused(tmp_path, write_vcf, kind):
    # Some thousand records, so that the damage is far after the header.
    path = write_vcf(tmp_path / "x.vcf", [("chr1", pos, "A", "C", pos / 99999) for pos in range(1, 99999)], kind=kind)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for content in (
        whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :],
        whole[:middle] + whole[middle + 9 :],
    ):
        path.write_bytes(content)
        assert re.search(r"cannot be read as VCF after chr1:\d+ \(", refusal(read, path))
    whole = write_vcf(path, RECORDS, kind=kind).read_bytes()
    for size in range(1, len(whole), len(whole) // 16):
        path.write_bytes(whole[:size])
        assert str(path) in refusal(read, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (">chr1\nACGT\n", "cannot be read as VCF"),
        ("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nchr1\t1\t.\tA\tC\t.\t.\tAF=0.5\n", "cannot be read as VCF"),
        ("##fileformat=VCFv4.2\n", "cannot be read as VCF"),
        (FIELDS.format("", "\tFORMAT\ta\ta"), "Duplicated sample name"),
    ],
)
def test_what_is_no_vcf_is_refused(tmp_path, content, message):
    path = tmp_path / "x.vcf"
    path.write_text(content)
    assert message in refusal(read_header, path)


AC = '##INFO=<ID=AC,Number=A,Type=Integer,Description="">\n'
AN = '##INFO=<ID=AN,Number=1,Type=Integer,Description="">\n'
EUR = '##INFO=<ID=EUR_AF,Number=A,Type=Float,Description="Of those, in Europe, ID=AF">\n'
GT = '##FORMAT=<ID=GT,Number=1,Type=String,Description="">\n'
COUNTED = (("AC", "AN"), ("someone",))
TEXT = '##INFO=<ID=AF,Number=A,Type=String,Description="">\n'


@pytest.mark.parametrize(
    ("fields", "samples", "wanted", "outcome"),
    [
        (AC + AN + EUR, "", "AF", (("AC", "AN"), None)),
        (AC + AN + EUR, "", "EUR_AF", (("EUR_AF",), None)),
        (AC + EUR, "", "AF", "no INFO field AF of type Float; choose one of EUR_AF with --frequency-field"),
        (AC + AN, "", "EUR_AF", "no INFO field EUR_AF of type Float; choose one of AC/AN with --frequency-field"),
        (AC + AN + EUR, "", "AC/AN", (("AC", "AN"), None)),
        (GT, "\tFORMAT\tsomeone", "AF", COUNTED),
        (GT + EUR, "\tFORMAT\tsomeone", "EUR_AF", (("EUR_AF",), None)),
        (GT + EUR, "\tFORMAT\tsomeone", "GT", COUNTED),
        (EUR, "\tFORMAT\tsomeone", "GT", "its header declares no genotypes"),
        (GT, "", "GT", "its header declares no genotypes"),
        (AC + EUR, "", "AC/EUR_AF", "no INFO field AC/EUR_AF of type Integer"),
        (GT, "\tFORMAT\tsomeone", "EUR_AF", "GT (genotypes)"),
        (TEXT, "", "AF", "no INFO field AF of type Float (it is String); use another VCF"),
        ('##FORMAT=<ID=AC,Number=A,Type=Integer,Description="">\n', "\tFORMAT\ts", "AF", "Float; use another VCF"),
    ],
)
def test_the_frequency_fields_are_found(tmp_path, fields, samples, wanted, outcome):
    path = tmp_path / "x.vcf"
    path.write_text(FIELDS.format(fields, samples))
    if isinstance(outcome, str):
        assert outcome in refusal(find_frequencies, path, read_header(path), wanted)
    else:
        assert find_frequencies(path, read_header(path), wanted) == outcome


@pytest.mark.parametrize("odd", ["z\t3", "c\t3"])
def test_genotypes_are_counted_whatever_the_header_declares(tmp_path, odd):
    """AC and AN of the file are not believed; what is not declared, a contig or a field, comes after many records."""
    declared = "##contig=<ID=c>\n" + AC + AN + GT
    lines = ["c\t1\t.\tA\tC\t.\t.\tAC=7;AN=9\tGT\t0|1\t.\t1"] * 2000 + [
        "c\t2\t.\tA\tC,G\t.\t.\tAC=7,1;AN=9\tDP\t1\t2\t3"
    ]
    lines += [f"{odd}\t.\tA\tC,G\t.\t.\tXX=1\tGT\t0|1\t2\t1"]
    path = tmp_path / "x.vcf"
    path.write_text(FIELDS.format(declared, "\tFORMAT\ts\tt\tu") + "".join(f"{line}\n" for line in lines))
    rows = [row[-2:] for row in read(path, "INFO/AC", "INFO/AN", samples=["u", "s"])]
    assert len(rows) == 2002
    assert set(rows[:2000]) == {("2", "3")}
    assert rows[2001] == ("2,0", "3")
    assert rows[2000] in ((".", "."), ("0,0", "0"))


@pytest.mark.parametrize(("name", "what"), [
    ("KILL", "htslib was ended by SIGKILL, perhaps as memory ran out: use fewer --workers"),
    pytest.param("STOP", "htslib neither reads on nor ends", marks=pytest.mark.nightly),
])  # fmt: skip
def test_a_reader_that_the_system_ends_or_that_is_silent_is_one_line(name, what, tmp_path, write_vcf, monkeypatch):
    path = write_vcf(tmp_path / "x.vcf", RECORDS[:-1])
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nkill -{name} $$\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    line = refusal(read, path)
    assert line.startswith(f"{path}: ")
    assert what in line
