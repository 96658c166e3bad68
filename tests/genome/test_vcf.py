"""VCF and BCF in every wrapping; files that are cut, damaged or something else are refused in one line."""

import re
import shutil
import subprocess

import pysam
import pytest

from mutbert.errors import InputError
from mutbert.genome.fields import FrequencyFields, find_frequency_fields
from mutbert.genome.frequencies import Calls, list_contigs
from mutbert.genome.vcf_text import count_by_index, read_lines

RECORDS = [("chr1", pos, "A", "C", 0.25) for pos in range(1, 60)] + [("z", 7, "G", "T", 0.5)]


def read(path):
    """Give the records as columns of text; what cannot be read is refused."""
    text = b"".join(lines.text for lines in read_lines(path)).decode()
    assert not text or text.endswith("\n")
    list_contigs(Calls(path, FrequencyFields(("AF",)), ("PASS", ".")))
    return [line.split("\t") for line in text.splitlines()]


def refusal(function, *arguments):
    with pytest.raises(InputError) as raised:
        function(*arguments)
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", ["plain", "gzip", "bgzip"])
def test_every_wrapping_is_read(tmp_path, write_vcf, capfd, kind):
    path = write_vcf(tmp_path / "x.vcf", RECORDS, kind=kind)
    verbosity = pysam.get_verbosity()
    expected = [(chrom, str(pos), ".", ref, alt, ".", "PASS", f"AF={af}") for chrom, pos, ref, alt, af in RECORDS]
    assert read(path) == [list(record) for record in expected]
    assert list_contigs(Calls(path, FrequencyFields(("AF",)), ())) == ["chr1", "z"]
    assert str(find_frequency_fields(path, "AF")) == "AF"
    assert sum(lines.read for lines in read_lines(path)) == pytest.approx(path.stat().st_size, abs=28)
    assert pysam.get_verbosity() == verbosity
    assert capfd.readouterr() == ("", "")


def test_an_index_counts_the_records_of_each_contig(tmp_path, write_vcf):
    path = write_vcf(tmp_path / "x.vcf.gz", RECORDS, kind="bgzip")
    assert count_by_index(path) is None
    pysam.tabix_index(str(path), preset="vcf")
    assert count_by_index(path) == {"chr1": 59, "z": 1}
    (tmp_path / "x.vcf.gz.tbi").write_bytes(b"no index")
    assert count_by_index(path) is None


@pytest.mark.bcftools
@pytest.mark.parametrize("kind", ["-Ob", "-Ou"])
def test_bcf_is_read(tmp_path, write_vcf, kind):
    if shutil.which("bcftools") is None:
        pytest.skip("bcftools is not there")
    path = write_vcf(tmp_path / "x.vcf", RECORDS[:-1])
    path.write_text(path.read_text().replace("#CHROM", "##contig=<ID=chr1>\n#CHROM", 1))
    subprocess.run(["bcftools", "view", kind, "-o", tmp_path / "x.bcf", path], check=True)
    assert [int(record[1]) for record in read(tmp_path / "x.bcf")] == [pos for _, pos, *_ in RECORDS[:-1]]
    whole = (tmp_path / "x.bcf").read_bytes()
    for size in range(1, len(whole)):
        (tmp_path / "cut.bcf").write_bytes(whole[:size])
        refusal(read, tmp_path / "cut.bcf")


@pytest.mark.parametrize("kind", ["gzip", "bgzip"])
def test_a_file_cut_anywhere_is_refused(tmp_path, write_vcf, kind):
    whole = write_vcf(tmp_path / "x.vcf", RECORDS, kind=kind).read_bytes()
    path = tmp_path / "cut.vcf"
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        assert str(path) in refusal(read, path)


def test_plain_text_cut_within_a_line_is_refused(tmp_path, write_vcf):
    path = write_vcf(tmp_path / "x.vcf", RECORDS)
    path.write_text(path.read_text()[:-3])
    assert "ends in the middle of a line" in refusal(read, path)


@pytest.mark.parametrize("kind", ["gzip", "bgzip"])
def test_a_flipped_bit_is_found(tmp_path, write_vcf, kind):
    # Two thousand records, so that the damage is far behind the header.
    path = write_vcf(tmp_path / "x.vcf", [("chr1", pos, "A", "C", pos / 9999) for pos in range(1, 9999)], kind=kind)
    content = bytearray(path.read_bytes())
    content[-200] ^= 4
    path.write_bytes(content)
    assert re.search("damaged|cannot be decompressed", refusal(read, path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("hello\nworld\n", "is not VCF or BCF"),
        (">chr1\nACGT\n", "is not VCF or BCF"),
        ("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nchr1\t1\t.\tA\tC\t.\t.\tAF=0.5\n", "is not VCF or BCF"),
        ("##fileformat=VCFv4.2\n", "is not VCF or BCF"),
    ],
)
def test_what_is_no_vcf_is_refused(tmp_path, content, message):
    path = tmp_path / "x.vcf"
    path.write_text(content)
    assert message in refusal(find_frequency_fields, path, "AF")


def test_missing_files_and_folders_are_refused(tmp_path):
    assert "no such VCF file" in refusal(find_frequency_fields, tmp_path / "absent.vcf", "AF")
    assert "is a folder" in refusal(find_frequency_fields, tmp_path, "AF")


@pytest.mark.parametrize(
    "line", ["chr1\t9\t.\tA", "chr1\tnine\t.\tA\tC\t.\tPASS\tAF=0.1", "", "chr1\t-5\t.\tA\tC\t.\t.\tAF=1"]
)
@pytest.mark.parametrize("kind", ["plain", "gzip", "bgzip"])
def test_a_line_that_is_no_record_is_refused(tmp_path, write_vcf, compress, line, kind):
    path = write_vcf(tmp_path / "x.vcf", [("chr1", 3, "A", "C", 0.5)])
    path.write_text(path.read_text() + line + "\n")
    compress(path, kind)
    assert "what comes after chr1:3 cannot be parsed" in refusal(read, path)


FIELDS = "##fileformat=VCFv4.2\n{}#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO{}\n"
AC = '##INFO=<ID=AC,Number=A,Type=Integer,Description="">\n'
AN = '##INFO=<ID=AN,Number=1,Type=Integer,Description="">\n'
EUR = '##INFO=<ID=EUR_AF,Number=A,Type=Float,Description="">\n'
GT = '##FORMAT=<ID=GT,Number=1,Type=String,Description="">\n'
TEXT = '##INFO=<ID=AF,Number=A,Type=String,Description="">\n'


@pytest.mark.parametrize(
    ("fields", "samples", "wanted", "outcome"),
    [
        (AC + AN + EUR, "", "AF", ("AC", "AN")),
        (AC + AN + EUR, "", "EUR_AF", ("EUR_AF",)),
        (AC + EUR, "", "AF", "no INFO field AF (nor AC and AN); its number fields are: EUR_AF; choose one with"),
        (AC + AN, "", "EUR_AF", "no INFO field EUR_AF; its number fields are: none; it has to carry"),
        (AC + AN + EUR, "", "AC/AN", ("AC", "AN")),
        (GT, "\tFORMAT\tsomeone", "AF", ("GT",)),
        (GT + EUR, "\tFORMAT\tsomeone", "EUR_AF", ("EUR_AF",)),
        (GT + EUR, "\tFORMAT\tsomeone", "GT", ("GT",)),
        (EUR, "\tFORMAT\tsomeone", "GT", "its header declares no FORMAT field GT"),
        (GT, "", "GT", "has no samples whose genotypes could be counted"),
        (AC + EUR, "", "AC/EUR_AF", "INFO field EUR_AF is declared as Float and not as Integer"),
        ("", "\tFORMAT\tsomeone", "AF", "or --frequency-field GT to count its genotypes"),
        (TEXT, "", "AF", "INFO field AF is declared as String and not as Float"),
    ],
)
def test_the_frequency_fields_are_found(tmp_path, fields, samples, wanted, outcome):
    path = tmp_path / "x.vcf"
    path.write_text(FIELDS.format(fields, samples))
    if isinstance(outcome, tuple):
        assert find_frequency_fields(path, wanted).names == outcome
    else:
        assert outcome in refusal(find_frequency_fields, path, wanted)
