"""Odd and malformed VCFs, each scored from end to end: records with scores or a reason, or one clear line."""

import gzip

import pysam
import pysam.bcftools
import pytest

from mutbert.errors import InputError

# Positions of chr1, 1-based: 401 to 410 are N, 501 is R, 600 is the last.
START = "##fileformat=VCFv4.2\n"
CHROM = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"


@pytest.fixture(scope="module")
def at(contigs):
    """Give bases of chr1 by their 1-based position, and a base that is another."""

    def at(position, length=1):
        return contigs["chr1"][position - 1 : position - 1 + length]

    return at


@pytest.fixture
def outcome(score, tmp_path, capfd, records_of):
    """Score a file, check that its records came through, and give the kind of score or the reason of each alternate."""

    def outcome(vcf, **settings):
        report = score(vcf, tmp_path / "scored.vcf.gz", force=True, **settings)
        captured = capfd.readouterr()
        assert (captured.out, captured.err) == ("", "")
        # The other side reads it, and finds what was there before.
        fields = [f"MUTBERT_{name}" for name in (*report.fields, "WHY")]
        pysam.set_verbosity(0)
        try:
            before = records_of(vcf)
            assert records_of(report.output, without=fields) == before
        finally:
            pysam.set_verbosity(3)
        assert report.records == len(before)
        found = []
        for line in gzip.decompress(report.output.read_bytes()).decode("utf-8", "replace").splitlines():
            if not line.startswith("#"):
                columns = line.split("\t")
                words = dict(word.partition("=")[::2] for word in columns[7].split(";"))
                count = columns[4].count(",") + 1
                why = words.get("MUTBERT_WHY", ",".join("." * count)).split(",")
                values = {
                    name: words.get(f"MUTBERT_{name}", ",".join("." * count)).split(",") for name in ("LLR", "PLLR")
                }
                assert {len(why), *map(len, values.values())} == {count}
                for number in range(count):
                    named = [name for name, texts in values.items() if texts[number] != "."]
                    assert bool(named) == (why[number] == ".")
                    found.append(named[0] if named else why[number])
        assert len(found) == report.alleles == sum(report.scored.values()) + sum(report.missing.values())
        return found

    return outcome


def alleles(at):
    """Give odd alleles: what they are called, POS, REF, ALT, and what comes of each alternate."""
    a = at(50)
    b = "ACGT"["ACGT".index(a) - 1]
    c = "ACGT"["ACGT".index(a) - 2]
    long = "A" * 60
    return [
        ("an SNV", 50, a, b, ["LLR"]),
        ("two alternates", 50, a, f"{b},{c}", ["LLR", "LLR"]),
        ("an SNV and indels", 50, at(50, 2), f"{b}{at(51)},{a},{at(50, 2)}T", ["LLR", "PLLR", "PLLR"]),
        ("no alternate", 50, a, ".", ["no_alternate"]),
        ("a missing one among others", 50, a, f"{b},.", ["LLR", "no_alternate"]),
        ("a deletion from upstream", 50, a, "*", ["overlapping_deletion"]),
        ("a symbolic deletion", 50, a, "<DEL>", ["symbolic"]),
        ("an SNV of GVCF", 50, a, f"{b},<NON_REF>", ["LLR", "symbolic"]),
        ("a breakend", 50, a, f"{a}]chr2:20]", ["symbolic"]),
        ("a single breakend", 50, a, f".{a}", ["symbolic"]),
        ("ALT is REF", 50, a, a, ["not_a_change"]),
        ("REF is another base", 50, b, a, ["reference_mismatch"]),
        ("an IUPAC code in ALT", 50, a, "R", ["ambiguous_alternate"]),
        ("N in REF where there is a base", 50, "N", b, ["ambiguous_reference"]),
        ("a base in REF where there is N", 405, "A", "C", ["unknown_reference"]),
        ("a base that the IUPAC code has", 501, "A", "C", ["LLR"]),
        ("a base that the IUPAC code does not have", 501, "C", "T", ["reference_mismatch"]),
        ("the first base", 1, at(1), "A" if at(1) != "A" else "C", ["LLR"]),
        ("the last base", 600, at(600), "A" if at(600) != "A" else "C", ["LLR"]),
        ("an insertion behind the last base", 600, at(600), at(600) + "ACG", ["PLLR"]),
        ("before the first base", 0, "N", "A", ["outside_contig"]),
        ("behind the last base", 601, "A", "C", ["outside_contig"]),
        ("far behind", 2_000_000_000, "A", "C", ["outside_contig"]),
        ("a long insertion", 50, a, a + long, ["too_long"]),
        ("an MNV", 50, at(50, 2), b + ("A" if at(51) != "A" else "C"), ["PLLR"]),
        ("bases exchanged for fewer", 50, at(50, 3), b + b, None),
    ]  # fmt: skip


def test_all_of_them_in_one_file(outcome, write, tmp_path, at):
    cases = sorted(alleles(at), key=lambda case: case[1])
    vcf = write(
        tmp_path / "in.vcf.gz", [f"chr1\t{position}\t.\t{ref}\t{alt}\t.\t.\t." for _, position, ref, alt, _ in cases]
    )
    found = outcome(vcf)
    for _, _, _, alternate, expected in cases:
        own, found = found[: alternate.count(",") + 1], found[alternate.count(",") + 1 :]
        assert expected is None or own == expected
    assert not found


def odd_lines(at):
    """Give odd records of which the allele is an SNV: what is odd, header lines, and the record."""
    base = at(50)
    other = "A" if base != "A" else "C"
    snv = f"chr1\t50\t.\t{base}\t{other}"
    declared = START + "##contig=<ID=chr1,length=600>\n"
    quoted = START + '##INFO=<ID=A,Number=1,Type=String,Description="a, \\"b\\" <c>">\n'
    described = declared + '##INFO=<ID=A,Number=1,Type=Integer,Description="a">\n'
    return [
        ("no meta lines but the first", START, [f"{snv}\t.\t.\t."]),
        ("an empty INFO", declared, [f"{snv}\t.\t.\t"]),
        ("a semicolon at the end of INFO", described, [f"{snv}\t.\t.\tA=1;"]),
        ("fields that no line declares", declared, [f"{snv}\t.\tfar\tNEW=1;FLAG"]),
        ("a field twice", described, [f"{snv}\t.\t.\tA=1;A=2"]),
        ("INFO of 200 kB", declared, [f"{snv}\t.\t.\tLONG={'x' * 200_000}"]),
        ("several IDs", declared, [snv.replace("\t.\t", "\trs1;rs2\t", 1) + "\t.\t.\t."]),
        ("QUAL in exponents", declared, [f"{snv}\t1.5e3\tPASS\t."]),
        ("letters of other languages", described, [f"{snv}\t.\t.\tNOTE=ge\u00f6ffnet"]),
        ("the same record thrice", declared, [f"{snv}\t.\t.\t."] * 3),
        ("quotes and commas in a description", quoted, [f"{snv}\t.\t.\tA=x"]),
        ("a contig of another length", START + "##contig=<ID=chr1,length=7>\n", [f"{snv}\t.\t.\t."]),
        ("a version that is new", START.replace("4.2", "4.4") + "##contig=<ID=chr1>\n", [f"{snv}\t.\t.\t."]),
    ]  # fmt: skip


def test_odd_lines(outcome, write, tmp_path, at):
    for number, (name, header, lines) in enumerate(odd_lines(at)):
        vcf = write(tmp_path / f"{number}.vcf", lines, header=header)
        assert outcome(vcf) == ["LLR"] * len(lines), name


def test_a_contig_that_the_genome_does_not_have(outcome, write, tmp_path):
    header = START + "##contig=<ID=chrUn>\n##contig=<ID=chr1>\n"
    vcf = write(
        tmp_path / "in.vcf", [f"{name}\t5\t.\tN\tC,<DEL>\t.\t.\t." for name in ("chrUn", "chr1")], header=header
    )
    assert outcome(vcf) == ["contig_not_in_genome", "symbolic", "ambiguous_reference", "symbolic"]


def test_gzip_that_is_not_bgzip(outcome, write, tmp_path, at):
    vcf = write(tmp_path / "plain.vcf", [f"chr1\t50\t.\t{at(50)}\t<DEL>\t.\t.\t."])
    packed = tmp_path / "in.vcf.gz"
    packed.write_bytes(gzip.compress(vcf.read_bytes()))
    assert outcome(packed) == ["symbolic"]


def malformed():
    """Give what is no VCF: what it is, the bytes, and what is said of it, by htslib but for what it takes."""
    head = (START + CHROM + "\n").encode()
    samples = (START + CHROM + "\tFORMAT\tann\tbob\n").encode()
    line = b"chr1\t50\t.\tA\tC\t.\t.\t.\n"
    return [
        ("nothing", b"", "is empty"),
        ("a FASTA", b">chr1\nACGT\n", "cannot be read as VCF"),
        ("no line of columns", START.encode() + line, "No sample line"),
        ("spaces for tabs", head + b"chr1 50 . A C . . .\n", "VCF parse error"),
        ("too few columns", head + b"chr1\t50\t.\tA\n", "VCF parse error"),
        ("a position in words", head + line + line.replace(b"50", b"fifty"), "position 'fifty'"),
        ("a position without end", head + line.replace(b"50", b"9" * 30), "too large"),
        ("a sample twice", samples.replace(b"bob", b"ann"), "Duplicated sample name"),
        ("a line that is cut", head + line + line[:-4], "middle of a line"),
        ("gzip that is cut", gzip.compress(head + line * 500)[:-30], "truncated"),
        (
            "contigs of which the genome has none",
            head + line.replace(b"chr1", b"NC_1"),
            r"contigs \(NC_1\) are none of",
        ),
    ]


@pytest.mark.parametrize(("what", "content", "message"), malformed(), ids=[case[0] for case in malformed()])
def test_what_is_no_vcf_is_refused_in_one_line(score, tmp_path, capfd, what, content, message):
    vcf = tmp_path / "in.vcf"
    vcf.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        score(vcf, tmp_path / "out.vcf.gz")
    assert str(caught.value).startswith(str(vcf))
    assert "\n" not in str(caught.value)
    # Nothing is left behind, and nobody else has said anything.
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]
    assert capfd.readouterr().err == ""
