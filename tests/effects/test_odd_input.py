"""Odd and malformed VCFs, each scored from end to end: records with scores or a reason, or one clear line."""

import gzip

import pysam
import pysam.bcftools
import pytest

from mutbert.errors import InputError

# Positions of chr1, 1-based: 401 to 410 are N, 501 is R, 600 is the last.
START = "##fileformat=VCFv4.2\n"
CHROM = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
NAMES = ("MUTBERT_LLR", "MUTBERT_PLLR", "MUTBERT_WHY")


@pytest.fixture(scope="module")
def at(contigs):
    """Give bases of chr1 by their 1-based position, and a base that is another."""

    def at(position, length=1):
        return contigs["chr1"][position - 1 : position - 1 + length]

    return at


@pytest.fixture
def outcome(score, tmp_path, capfd, records_of):
    """Score a file, check that its records came through, and give the kind of score or the reason of each alternate."""

    def outcome(vcf):
        report = score(vcf, tmp_path / "scored.vcf.gz", force=True)
        assert capfd.readouterr() == ("", "")
        # The other side reads it, and finds what was there before.
        pysam.set_verbosity(0)
        try:
            before = records_of(vcf)
            assert records_of(report.output, without=[f"MUTBERT_{name}" for name in (*report.fields, "WHY")]) == before
        finally:
            pysam.set_verbosity(3)
        found = []
        for line in gzip.decompress(report.output.read_bytes()).decode("utf-8", "replace").splitlines():
            if not line.startswith("#"):
                columns = line.split("\t")
                words = dict(word.partition("=")[::2] for word in columns[7].split(";"))
                none = ",".join("." * (columns[4].count(",") + 1))
                for llr, pllr, why in zip(*(words.get(name, none).split(",") for name in NAMES), strict=True):
                    assert (llr, pllr, why).count(".") == 2
                    found.append("LLR" if llr != "." else "PLLR" if pllr != "." else why)
        assert (report.records, report.alleles) == (len(before), len(found))
        return found

    return outcome


def alleles(at):
    """Odd alleles: POS, REF, ALT, and what comes of each alternate."""
    a = at(50)
    b = "ACGT"["ACGT".index(a) - 1]
    return [
        (50, at(50, 2), f"{b}{at(51)},{a},{at(50, 2)}T", ["LLR", "PLLR", "PLLR"]),
        (50, a, ".", ["no_alternate"]),
        (50, a, f"{b},.", ["LLR", "no_alternate"]),
        (50, a, "*", ["overlapping_deletion"]),
        (50, a, f"{b},<NON_REF>", ["LLR", "symbolic"]),
        (50, a, f"{a}]chr2:20]", ["symbolic"]),
        (50, a, f".{a}", ["symbolic"]),
        (50, a, a, ["not_a_change"]),
        (50, b, a, ["reference_mismatch"]),
        (50, a, "R", ["ambiguous_alternate"]),
        (50, "N", f"{b},<DEL>", ["ambiguous_reference", "symbolic"]),
        (405, "A", "C", ["unknown_reference"]),
        (399, at(399), f"{at(399)}G", ["PLLR"]),
        (400, at(400), at(400) + "ACGT"["ACGT".index(at(400)) - 1], ["unknown_reference"]),
        (410, "A", "ATTG", ["unknown_reference"]),
        (501, "A", "C", ["LLR"]),
        (501, "C", "T", ["reference_mismatch"]),
        (1, at(1), "A" if at(1) != "A" else "C", ["LLR"]),
        (600, at(600), "A" if at(600) != "A" else "C", ["LLR"]),
        (600, at(600), at(600) + "ACG", ["PLLR"]),
        (0, "N", "A", ["outside_contig"]),
        (601, "A", "C", ["outside_contig"]),
        (2_000_000_000, "A", "C", ["outside_contig"]),
        (60, at(60), at(60) + "ACGTT" * 10 + "A", ["too_long"]),
        (50, at(50, 3), b + ("A" if at(52) != "A" else "C"), ["PLLR"]),
    ]


def test_all_of_them_in_one_file(outcome, write, tmp_path, at):
    cases = sorted(alleles(at), key=lambda case: case[0])
    lines = [f"chr1\t{position}\t.\t{ref}\t{alt}\t.\t.\t." for position, ref, alt, _ in cases]
    lines.append("chrUn\t5\t.\tN\tC,<DEL>\t.\t.\t.")
    header = START + "##contig=<ID=chr1>\n##contig=<ID=chrUn>\n"
    found = outcome(write(tmp_path / "in.vcf.gz", lines, header=header))
    assert found == [one for *_, expected in cases for one in expected] + ["contig_not_in_genome", "symbolic"]


def test_odd_lines(outcome, write, tmp_path, at):
    snv = f"chr1\t50\t.\t{at(50)}\t{'AC'[at(50) == 'A']}"
    declared = START + "##contig=<ID=chr1,length=7>\n"
    described = declared + '##INFO=<ID=A,Number=1,Type=Integer,Description="a, \\"b\\" <c>">\n'
    cases = [
        (START, [f"{snv}\t.\t.\t."]),
        # A header that was edited: contigs 0 to 2 are gone.
        (START + "##contig=<ID=chr1,length=600,IDX=3>\n", [f"{snv}\t.\t.\t."]),
        (declared, [f"{snv}\t.\t.\t"]),
        (described, [f"{snv}\t.\t.\tA=1;"]),
        (declared, [f"{snv}\t.\tfar\tNEW=1;FLAG"]),
        (described, [f"{snv}\t.\t.\tA=1;A=2"]),
        (declared, [f"{snv}\t.\t.\tLONG={'x' * 200_000}"]),
        (declared, [snv.replace("\t.\t", "\trs1;rs2\t", 1) + "\t1.5e3\tPASS\tNOTE=ge\u00f6ffnet"] * 3),
        (START.replace("4.2", "4.4") + "##contig=<ID=chr1>\n", [f"{snv}\t.\t.\t."]),
    ]
    for number, (header, lines) in enumerate(cases):
        vcf = write(tmp_path / f"{number}.vcf", lines, header=header)
        packed = tmp_path / f"{number}.vcf.gz"
        packed.write_bytes(gzip.compress(vcf.read_bytes()))
        assert outcome(packed) == ["LLR"] * len(lines), number
        if "IDX" in header:
            assert outcome(write(tmp_path / "x.bcf", lines, header=header)) == ["LLR"]


HEAD = (START + CHROM + "\n").encode()
LINE = b"chr1\t50\t.\tA\tC\t.\t.\t.\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (HEAD + LINE + LINE.replace(b"50", b"fifty"), "line 4 has no number for POS"),
        (gzip.compress(HEAD + LINE * 500)[:-30], "(truncated|end-of-stream)"),
        (HEAD + LINE.replace(b"chr1", b"NC_1"), r"contigs \(NC_1\) are none of"),
    ],
)
def test_what_is_no_vcf_is_refused_in_one_line(score, tmp_path, capfd, content, message):
    vcf = tmp_path / "in.vcf"
    vcf.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        score(vcf, tmp_path / "out.vcf.gz")
    assert str(caught.value).startswith(str(vcf))
    assert "\n" not in str(caught.value)
    # Nothing is left behind, and nobody else has said anything.
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]
    assert capfd.readouterr().err == ""
