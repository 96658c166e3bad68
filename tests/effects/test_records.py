"""Whole records in and out: odd and malformed files, where bcftools judges what may pass and what came out."""

import gzip
import re
from itertools import pairwise

import pysam
import pysam.bcftools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import files
from mutbert.effects import records as records_module
from mutbert.effects.records import RecordFile, annotate, info_numbers, refuse_fields
from mutbert.effects.vcf_header import declare, refuse_declared
from mutbert.errors import InputError
from mutbert.genome import vcf as genome_vcf

FIRST = "##fileformat=VCFv4.2\n"
CONTIG = "##contig=<ID=1,length=1000>\n"
AF = '##INFO=<ID=AF,Number=A,Type=Float,Description="Allele frequency">\n'
GT = '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
META = FIRST + CONTIG + AF + GT
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
SITES = COLUMNS + "\n"
TWO = COLUMNS + "\tFORMAT\ts1\ts2\n"
RECORD = "1\t10\t.\tA\tC\t.\t.\tAF=0.5\n"
LLR = '##INFO=<ID=M_LLR,Number=A,Type=Float,Description="Score">'
WHY = '##INFO=<ID=M_WHY,Number=.,Type=String,Description="Why not">'


def record(**columns):
    """Give a line with some columns changed, and others behind INFO."""
    fields = {"chrom": "1", "pos": "10", "id": ".", "ref": "A", "alt": "C", "qual": ".", "filters": ".", "info": "AF=1"}
    return "\t".join((fields | columns).values()) + "\n"


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, **how):
    return [line for records in RecordFile(path).chunks(**how) for line in records.lines]


def refusal(path, **how):
    with pytest.raises(InputError) as raised:
        read(path, **how)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def bcftools(command, *arguments, output):
    """Run it, and give what it writes as bytes; `None` where it refuses the file."""
    try:
        getattr(pysam.bcftools, command)("--no-version", "-o", str(output), *map(str, arguments), catch_stdout=False)
    except pysam.SamtoolsError:
        return None
    return output.read_bytes()


def body(text):
    return [line for line in text.split(b"\n") if line and not line.startswith(b"#")]


SAMPLES = "\t".join(f"s{number}" for number in range(3000))

# What is odd but legal, or at least read by htslib: content, records.
ODD = {
    "plain": (META + SITES + RECORD, 1),
    "no records": (META + SITES, 0),
    "no records, no line end": (META + COLUMNS, 0),
    "CRLF": ((META + SITES + RECORD * 3).replace("\n", "\r\n"), 3),
    "no line end": ((META + SITES + RECORD * 2)[:-1], 2),
    "CRLF, no line end": ((META + SITES + RECORD * 2).replace("\n", "\r\n")[:-2], 2),
    "carriage return within": (META + SITES + record(info="AF=1\r;DB"), 1),
    "no contig lines": (FIRST + AF + SITES + RECORD, 1),
    "no declarations": (FIRST + SITES + RECORD, 1),
    "INFO declared twice": (META + AF + SITES + RECORD, 1),
    "INFO declared twice, differing": (META + AF.replace("Float", "String") + SITES + RECORD, 1),
    "contig declared twice": (META + CONTIG + SITES + RECORD, 1),
    "INFO without Number": (META + '##INFO=<ID=X,Type=Float,Description="">\n' + SITES + RECORD, 1),
    "INFO without ID": (META + '##INFO=<Number=1,Type=Float,Description="">\n' + SITES + RECORD, 1),
    "header line without value": (META + "##strange\n" + SITES + RECORD, 1),
    "header in UTF-8": (META + "##note=é\n" + SITES + RECORD, 1),
    "header in Latin-1": ((META + "##note=é\n" + SITES + RECORD).encode("latin-1"), 1),
    "INFO in Latin-1": ((META + SITES + record(info="X=é")).encode("latin-1"), 1),
    "version 4.5": ((META + SITES + RECORD).replace("v4.2", "v4.5"), 1),
    "undeclared contig": (META + SITES + record(chrom="HLA*01:01"), 1),
    "contig in angles": (META + SITES + record(chrom="<1>"), 1),
    "contig with an equals sign": (META + SITES + record(chrom="a=b"), 1),
    "contig with a space": (META + SITES + record(chrom="a b"), 1),
    "POS 0": (META + SITES + record(pos="0"), 1),
    "POS behind the contig": (META + SITES + record(pos="2000"), 1),
    "POS behind 2^31": (META + SITES + record(pos="3000000000"), 1),
    "POS with zeros": (META + SITES + record(pos="007"), 1),
    "lower case": (META + SITES + record(ref="a", alt="c"), 1),
    "IUPAC": (META + SITES + record(ref="R", alt="N"), 1),
    "REF is a dot": (META + SITES + record(ref="."), 1),
    "REF with a comma": (META + SITES + record(ref="A,T"), 1),
    "ALT is REF": (META + SITES + record(alt="A"), 1),
    "ALT is a dot": (META + SITES + record(alt="."), 1),
    "ALT is a star": (META + SITES + record(alt="*,C"), 1),
    "ALT symbolic": (META + SITES + record(alt="<DEL>"), 1),
    "ALT a breakend": (META + SITES + record(alt="A[1:100["), 1),
    "ALT with an empty part": (META + SITES + record(alt="C,,G"), 1),
    "ALT no letters": (META + SITES + record(alt="1?"), 1),
    "many alternates": (META + SITES + record(alt=",".join("A" * number for number in range(2, 300))), 1),
    "no ID": (META + SITES + record(id=""), 1),
    "QUAL not a number": (META + SITES + record(qual="high"), 1),
    "QUAL nan": (META + SITES + record(qual="nan"), 1),
    "QUAL with many digits": (META + SITES + record(qual="100.123456789"), 1),
    "no QUAL": (META + SITES + record(qual=""), 1),
    "undeclared FILTER": (META + SITES + record(filters="q10;s50"), 1),
    "FILTER with empty parts": (META + SITES + record(filters="PASS;;PASS"), 1),
    "no FILTER": (META + SITES + record(filters=""), 1),
    "no INFO": (META + SITES + record(info=""), 1),
    "INFO is a dot": (META + SITES + record(info="."), 1),
    "INFO ends with a semicolon": (META + SITES + record(info="AF=0.5;"), 1),
    "INFO with an empty part": (META + SITES + record(info="AF=0.5;;DB"), 1),
    "INFO a semicolon": (META + SITES + record(info=";"), 1),
    "INFO field twice": (META + SITES + record(info="AF=0.5;AF=0.4"), 1),
    "INFO undeclared": (META + SITES + record(info="ZZ=1,2;DB"), 1),
    "INFO not a number": (META + SITES + record(info="AF=x"), 1),
    "INFO too many numbers": (META + SITES + record(info="AF=0.1,0.2"), 1),
    "INFO with spaces in a value": (META + SITES + record(info='X="a, b <c>";AF=1'), 1),
    "INFO of 1 MB": (META + SITES + record(info="X=" + "y" * 1_000_000) + RECORD, 2),
    "duplicates": (META + SITES + RECORD * 5, 5),
    "unsorted": (META + SITES + record(pos="9") + record(pos="7") + record(chrom="2") + record(pos="8"), 4),
    "columns behind INFO, no samples": (META + SITES + record(more="GT\t0/1"), 1),
    "tab at the end": (META + SITES + record(more=""), 1),
    "samples": (META + TWO + record(more="GT\t0/1\t1|1"), 1),
    "more columns than samples": (META + TWO + record(more="GT\t0/1\t1|1\t0/0"), 1),
    "dots for genotypes": (META + TWO + record(more=".\t.\t."), 1),
    "undeclared FORMAT": (META + TWO + record(more="GQ:X\t1:2\t3"), 1),
    "3,000 samples": (META + COLUMNS + "\tFORMAT\t" + SAMPLES + "\n" + record(more="GT" + "\t0|1" * 3000) * 20, 20),
    "empty lines at the end": (META + SITES + RECORD + "\n\r\n\n", 1),
}


@pytest.mark.parametrize(("content", "count"), ODD.values(), ids=ODD.keys())
def test_what_is_odd_comes_out_as_it_came_in(tmp_path, capfd, content, count):
    path = write(tmp_path / "in.vcf", content)
    file = RecordFile(path)
    chunks = list(file.chunks(size=3))
    lines = [line for records in chunks for line in records.lines]
    assert len(lines) == count
    plain = path.read_bytes().replace(b"\r\n", b"\n").rstrip(b"\r\n") + b"\n"
    assert file.header + b"".join(line + b"\n" for line in lines) == plain
    assert capfd.readouterr() == ("", "")

    # bcftools takes empty lines for records, so that they are no fair comparison.
    whole = bcftools("view", write(tmp_path / "plain.vcf", plain), output=tmp_path / "plain.out")
    said = capfd.readouterr().err
    # Said once, of the first kind of name that is missing.
    general = re.compile(r".*Missing headers may cause later processing to fail")
    header = declare(file.header, [LLR, WHY], {"1": 1000})
    info = [b"M_LLR=-0.125" if number % 2 else b"M_LLR=.;M_WHY=symbolic" for number in range(count)]
    scored = write(tmp_path / "scored.vcf", header + annotate(lines, info))
    viewed = bcftools("view", scored, output=tmp_path / "scored.out")
    new = set(capfd.readouterr().err.splitlines()) - set(said.splitlines())
    assert not [line for line in new if not general.fullmatch(line)]
    if not said:
        assert not new
    # The new fields are all that is new: taken out of what bcftools reads, by hand...
    assert body(
        re.sub(rb"\t(M_LLR|M_WHY)=[^;\t\n]*", rb"\t.", re.sub(rb"[;](M_LLR|M_WHY)=[^;\t\n]*", b"", viewed))
    ) == body(whole)
    # ... and by bcftools, which refuses to where something is not declared, thus in the file as it was as well.
    unscored = write(tmp_path / "unscored.vcf", header + annotate(lines, [b""] * count))
    removed, expected = (
        bcftools("annotate", "-x", "INFO/M_LLR,INFO/M_WHY", one, output=tmp_path / "out") for one in (scored, unscored)
    )
    assert removed == expected
    if "not defined" not in said:
        assert removed is not None
    declared = set(header.splitlines()) - set(file.header.splitlines())
    assert [
        line for line in bcftools("view", unscored, output=tmp_path / "out").splitlines() if line not in declared
    ] == [line for line in whole.splitlines() if line not in declared]
    capfd.readouterr()


# What is refused: content, what is said, and whether bcftools refuses it too; where not, why we do.
LINE = len(META.splitlines()) + 2
MALFORMED = {
    "empty": ("", "is empty", True),
    "text": ("hello\nworld\n", "is not VCF or BCF", True),
    "FASTA": (">chr1\nACGT\n", "is not VCF or BCF", True),
    "no ##fileformat": (CONTIG + SITES + RECORD, "first line is ##fileformat=VCFv4.2", True),
    "##fileformat in the second line": (CONTIG + FIRST + SITES + RECORD, "first line is ##fileformat", True),
    "#CHROM alone": (SITES + RECORD, "first line is ##fileformat", True),
    "byte order mark": ("\ufeff" + META + SITES + RECORD, "is not VCF or BCF", True),
    "UTF-16": ((META + SITES + RECORD).encode("utf-16"), "is not VCF or BCF", True),
    "other format": ((META + SITES + RECORD).replace("VCFv4.2", "GVF"), "is not VCF or BCF", True),
    "header cut": (META[:-20], "has no line that begins with #CHROM, so it may be cut short", True),
    "line ends of old Macintoshes": (
        (META + SITES + RECORD).replace("\n", "\r"),
        "no line that begins with #CHROM",
        True,
    ),
    "no #CHROM": (META + RECORD, f"line {LINE - 1}: a record without a line '#CHROM", True),
    "#chrom": (META + SITES.lower() + RECORD, f"line {LINE - 1}: a header line begins with ##", True),
    "comment in the header": (META + "# x\n" + SITES + RECORD, "a header line begins with ##", True),
    "empty line in the header": (META + "\n" + SITES + RECORD, "is empty, but the header goes on", False),
    "NUL in the header": (META + "##x=a\0b\n" + SITES + RECORD, "has a NUL byte", True),
    "two #CHROM": (META + SITES * 2 + RECORD, "a header line stands behind the one that begins with #CHROM", True),
    "header with spaces": (META + SITES.replace("\t", " ") + RECORD, "separated by spaces; VCF has tabs", True),
    "column missing": (META + SITES.replace("\tQUAL", "") + RECORD, "its columns must be #CHROM POS ID REF", True),
    "column named otherwise": (META + SITES.replace("ID", "NAME") + RECORD, "its columns must be #CHROM POS", True),
    "FORMAT without samples": (META + COLUMNS + "\tFORMAT\n" + RECORD, "behind INFO come FORMAT and one or", True),
    "samples without FORMAT": (META + COLUMNS + "\ts1\ts2\n" + RECORD, "behind INFO come FORMAT and one or", True),
    "sample twice": (META + COLUMNS + "\tFORMAT\ts1\ts1\n", "two samples have the name s1", True),
    "sample without name": (META + COLUMNS + "\tFORMAT\ts1\t\n", "a sample has no name, or a tab stands", True),
    "spaces for tabs": (META + SITES + RECORD.replace("\t", " "), "separated by spaces; VCF has tabs", True),
    "seven columns": (META + SITES + RECORD.replace("\tAF=0.5", ""), "fewer columns than the 8 of a record (7)", True),
    "cut short": ((META + SITES + RECORD * 2)[:-15], "fewer columns than the 8 of a record (4); it may be cut", True),
    "a word": (META + SITES + RECORD + "end\n", f"line {LINE + 1}: has fewer columns than the 8", True),
    "fewer columns than samples": (META + TWO + record(more="GT\t0/1"), "fewer columns than the 11 of", True),
    "no columns for samples": (META + TWO + RECORD, "record with its header's 2 samples", True),
    "last sample empty": (META + TWO + record(more="GT\t0/1\t"), "fewer columns than the 11 of", True),
    "empty line between": (META + SITES + RECORD + "\n" + RECORD, f"line {LINE + 1}: is empty, but records", True),
    "empty line first": (META + SITES + "\n" + RECORD, f"line {LINE}: is empty, but records follow", True),
    "files put together": ((META + SITES + RECORD) * 2, f"line {LINE + 1}: begins with #", True),
    # It would be taken for a record of a contig whose name begins with #.
    "record commented out": (META + SITES + RECORD + "#" + RECORD, f"line {LINE + 1}: begins with #", False),
    "POS a word": (META + SITES + record(pos="ten"), "its POS 'ten' is not a number from 0 on", True),
    "POS a fraction": (META + SITES + record(pos="1.5"), "its POS '1.5' is not a number", True),
    "POS negative": (META + SITES + RECORD + record(pos="-5"), f"line {LINE + 1}: its POS '-5'", True),
    "POS a dot": (META + SITES + record(pos="."), "its POS '.' is not", True),
    "POS with a space": (META + SITES + record(pos=" 10"), "its POS ' 10' is not", True),
    # It would become 0.
    "no POS": (META + SITES + record(pos=""), "its POS '' is not a number", False),
    "POS with a sign": (META + SITES + record(pos="+10"), "its POS '+10' is not a number", False),
    # No index reaches there.
    "POS too large": (META + SITES + record(pos=str(1 << 40)), "is larger than any contig", False),
    "POS far too large": (META + SITES + record(pos="1" * 5000), "is larger than any contig", True),
    # They would become dots, or a contig without a name.
    "no CHROM": (META + SITES + record(chrom=""), "its CHROM is empty", False),
    "no REF": (META + SITES + record(ref=""), "its REF is empty", False),
    "no ALT": (META + SITES + record(alt=""), "its ALT is empty; mend the line (no alternate is written .)", False),
    "NUL in REF": (META + SITES + record(ref="A\0"), f"line {LINE}: has a NUL byte", True),
    # The rest of the line would be lost.
    "NUL in INFO": (META + SITES + RECORD + record(info="AF=1\0;DB"), f"line {LINE + 1}: has a NUL byte", False),
    "contig with a comma": (META + SITES + record(chrom="1,2"), "'1,2' cannot be the name of a contig", True),
    "contig with a quote": (META + SITES + record(chrom='"1'), "cannot be the name of a contig", True),
    "INFO name with spaces": (
        META + SITES + record(info="AF=1 ; DP = 5"),
        "cannot be the name of a field of INFO",
        True,
    ),
    "FILTER with a comma": (META + SITES + record(filters="q10,s50"), "cannot be the name of a field of FILTER", True),
    "FORMAT with a comma": (
        META + TWO + record(more="GT,X\t0/1\t0/1"),
        "cannot be the name of a field of FORMAT",
        True,
    ),
}


@pytest.mark.parametrize(("content", "message", "by_bcftools"), MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_malformed_is_refused_in_one_line(tmp_path, capfd, content, message, by_bcftools):
    path = write(tmp_path / "in.vcf", content)
    assert message in refusal(path)
    assert capfd.readouterr() == ("", "")
    assert (bcftools("view", path, output=tmp_path / "out.vcf") is None) == by_bcftools
    capfd.readouterr()


LINES = (
    META + SITES + RECORD + record(chrom="2", filters="q10;s5", info="AF=0.1;DB;X=a,b") + record(alt="C,G", id="rs1")
)
PIECES = (*'\t\n\r ,;<>"[].=#AC10-+:|/%\0é', "\t\t", "\n\n", "##", "\n#", "\r\n", "")


@given(
    st.lists(st.tuples(st.integers(0, len(LINES)), st.integers(0, 5), st.sampled_from(PIECES)), min_size=1, max_size=3)
)
def test_what_is_not_refused_bcftools_reads(tmp_path_factory, edits):
    text = LINES
    for place, removed, inserted in edits:
        text = text[:place] + inserted + text[place + removed :]
    folder = tmp_path_factory.mktemp("edited")
    path = write(folder / "in.vcf", text)
    try:
        file = RecordFile(path)
        lines = [line for records in file.chunks() for line in records.lines]
    except InputError:
        refusal(path)
        return
    scored = write(folder / "scored.vcf", file.header + annotate(lines, [b"M_LLR=1"] * len(lines)))
    assert bcftools("view", scored, output=folder / "out") is not None


def test_what_is_missing_or_a_folder_is_refused(tmp_path):
    assert "no such VCF file" in refusal(tmp_path / "absent.vcf")
    assert "is a folder" in refusal(tmp_path)


def make_vcf(count=3000):
    """Give a sorted file with more than one block of bgzip."""
    lines = [
        record(chrom=str(1 + number // 2000), pos=str(1 + number % 2000 // 2), id=f"rs{number}", info=f"AF=0.{number}")
        for number in range(count)
    ]
    return META + "##contig=<ID=2>\n" + SITES + "".join(lines)


def wrap(path, kind):
    """Compress a plain file, under a name that says nothing of it."""
    if kind == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    elif kind == "bgzip":
        pysam.tabix_compress(str(path), f"{path}.packed")
        path.write_bytes(path.with_name(path.name + ".packed").read_bytes())
    elif kind != "plain":
        bcftools("view", {"bcf": "-Ob", "plain bcf": "-Ou"}[kind], path, output=path.with_name("packed"))
        path.write_bytes(path.with_name("packed").read_bytes())
    return path


KINDS = ("plain", "gzip", "bgzip", "bcf", "plain bcf")


@pytest.mark.parametrize("kind", KINDS)
def test_every_wrapping_gives_the_same(tmp_path, capfd, kind):
    text = make_vcf()
    path = wrap(write(tmp_path / "x", text), kind)
    file = RecordFile(path)
    assert file.is_bcf == kind.endswith("bcf")
    assert file.info == {"AF": ("A", "Float")}
    assert file.contigs == ("1", "2")
    assert file.samples == ()
    assert file.bytes == path.stat().st_size
    assert file.is_sorted is None
    chunks = list(file.chunks(size=700))
    assert file.is_sorted is True
    assert [(one.number, one.first, len(one.lines)) for one in chunks] == [
        (0, 0, 700), (1, 700, 700), (2, 1400, 700), (3, 2100, 700), (4, 2800, 200),
    ]  # fmt: skip
    assert sum(one.read for one in chunks) == pytest.approx(file.bytes, abs=28)
    lines = [line for one in chunks for line in one.lines]
    columns = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    assert [line.split(b"\t")[:7] for line in lines] == [[part.encode() for part in line[:7]] for line in columns]
    assert [name for one in chunks for name in one.contigs] == [line[0] for line in columns]
    assert [position for one in chunks for position in one.positions] == [int(line[1]) for line in columns]
    # BCF keeps frequencies as 32-bit numbers, and its header is htslib's.
    whole = text.encode() if not file.is_bcf else bcftools("view", path, output=tmp_path / "out")
    assert file.header + annotate(lines, [b""] * len(lines)) == whole
    if file.is_bcf:
        assert chunks[1].place(2) == f"{path}, record 703 (1:352)"
    else:
        assert chunks[1].place(2) == f"{path}, line {len(file.header.splitlines()) + 703} (1:352)"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["gzip", "bgzip", "bcf"])
def test_a_compressed_file_cut_anywhere_is_refused(tmp_path, kind):
    whole = wrap(write(tmp_path / "x", make_vcf(60)), kind).read_bytes()
    for size in range(1, len(whole), 7):
        refusal(write(tmp_path / "cut", whole[:size]))


@pytest.mark.parametrize("kind", ["gzip", "bgzip", "bcf"])
def test_a_flipped_bit_is_found(tmp_path, kind):
    content = bytearray(wrap(write(tmp_path / "x", make_vcf()), kind).read_bytes())
    content[-200] ^= 4
    assert re.search("damaged|cannot be decompressed", refusal(write(tmp_path / "x", bytes(content))))


def test_samples_of_a_bcf_come_with_their_genotypes(tmp_path):
    path = wrap(write(tmp_path / "x", META + TWO + record(more="GT\t0/1\t1|1") * 3), "bcf")
    assert RecordFile(path).samples == ("s1", "s2")
    assert read(path) == [b"1\t10\t.\tA\tC\t.\t.\tAF=1\tGT\t0/1\t1|1"] * 3


def test_a_bcf_whose_text_is_not_utf8_is_refused(tmp_path):
    info = '##INFO=<ID=X,Number=1,Type=String,Description="x">\n'
    records = META + info + SITES + RECORD + record(info="X=é")
    assert "not UTF-8" in refusal(wrap(write(tmp_path / "x", records.encode("latin-1")), "bcf"))
    header = META + info.replace('"x"', '"é"') + SITES + RECORD
    assert "not UTF-8" in refusal(wrap(write(tmp_path / "y", header.encode("latin-1")), "bcf"))


@st.composite
def vcfs(draw):
    """Draw records in order, of any REF, in few places."""
    bases = st.text("ACGT", min_size=1, max_size=9)
    lines = []
    for contig in range(draw(st.integers(1, 3))):
        positions = sorted(draw(st.lists(st.integers(0, 60), max_size=30)))
        lines += [(str(contig), position, draw(bases), draw(bases)) for position in positions]
    text = "".join(record(chrom=name, pos=str(pos), ref=ref, alt=alt) for name, pos, ref, alt in lines)
    return lines, draw(st.sampled_from([META, FIRST])) + SITES + text


def cells(stride):
    """Give what says in which cell of a grid a position is; nothing where there is no grid."""
    return None if stride is None else lambda _, position: position // stride


def read_by_blocks(path, block, **how):
    """Read with blocks of another size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_BLOCK_BYTES", block)
        patch.setattr(genome_vcf, "_FIRST_BYTES", block)
        patch.setattr(genome_vcf, "_BYTES_AT_ONCE", block)
        return [(one.first, one.lines) for one in RecordFile(path).chunks(**how)]


@given(vcfs(), st.integers(21, 400), st.integers(1, 12), st.integers(1, 20) | st.none(), st.sampled_from(KINDS[:3]))
def test_blocks_change_nothing(tmp_path_factory, vcf, block, size, stride, kind):
    _, text = vcf
    path = wrap(write(tmp_path_factory.mktemp("blocks") / "x", text), kind)
    found = read_by_blocks(path, block, size=size, window_of=cells(stride))
    expected = body(text.encode())
    assert [line for _, lines in found for line in lines] == expected
    assert [first for first, _ in found] == [
        sum(len(lines) for _, lines in found[:place]) for place in range(len(found))
    ]
    assert found == read_by_blocks(path, 1 << 16, size=size, window_of=cells(stride))
    if stride is None:
        assert all(len(lines) == size for _, lines in found[:-1])


@given(vcfs(), st.integers(1, 8), st.integers(1, 20))
def test_no_cell_is_cut_and_no_chunk_is_longer_than_it_must_be(tmp_path_factory, vcf, size, stride):
    lines, text = vcf
    file = RecordFile(write(tmp_path_factory.mktemp("cells") / "x", text))
    found = list(file.chunks(size=size, window_of=cells(stride)))
    # Every base of REF, one by one, is in a cell.
    cells_of = [{(name, (pos - 1 + base) // stride) for base in range(len(ref))} for name, pos, ref, _ in lines]
    ends = [one.first for one in found[1:]]
    for end in ends:
        assert not set().union(*cells_of[:end]) & {(lines[end][0], (lines[end][1] - 1) // stride)}
    for begin, end in pairwise([0, *ends]):
        # Where it could have been ended before, it had fewer records than asked for.
        for earlier in range(begin + size, end):
            assert set().union(*cells_of[:earlier]) & {(lines[earlier][0], (lines[earlier][1] - 1) // stride)}
        assert end - begin >= size
    assert file.is_sorted is True


@pytest.mark.parametrize(
    "lines", [record(pos="9") + record(pos="8"), RECORD + record(chrom="2") + RECORD], ids=["position", "contig"]
)
def test_a_grid_needs_a_sorted_file(tmp_path, lines):
    path = write(tmp_path / "x.vcf", META + SITES + lines)
    message = refusal(path, window_of=cells(100))
    assert "comes after" in message
    assert "bcftools sort" in message
    file = RecordFile(path)
    assert sum(len(one.lines) for one in file.chunks()) == lines.count("\n")
    assert file.is_sorted is False


def test_long_lines_make_short_chunks(tmp_path, monkeypatch):
    lines = "".join(record(info="X=" + "y" * (1000 * number)) for number in range(1, 6))
    path = write(tmp_path / "x.vcf", META + SITES + lines)
    monkeypatch.setattr(records_module, "_MOST_BYTES", 5000)
    assert [len(one.lines) for one in RecordFile(path).chunks()] == [3, 2]
    # A cell is not cut for it.
    assert [len(one.lines) for one in RecordFile(path).chunks(window_of=cells(10))] == [5]


def test_chunks_of_nothing_are_no_chunks(tmp_path):
    file = RecordFile(write(tmp_path / "x.vcf", META + SITES + RECORD))
    with pytest.raises(ValueError, match="must be at least 1"):
        next(file.chunks(size=0))


@given(vcfs(), st.integers(1, 8), st.integers(1, 30))
def test_passes_bound_a_chunk_and_fill_it(tmp_path_factory, vcf, size, most):
    lines, text = vcf
    file = RecordFile(write(tmp_path_factory.mktemp("passes") / "x", text))
    passes = [2 * len(ref) + len(alt) for *_, ref, alt in lines]
    end = 0
    for chunk in file.chunks(size, lambda ref, alt: 2 * len(ref) + len(alt), most):
        begin, end = end, end + len(chunk.lines)
        assert chunk.first == begin
        assert end - begin == 1 or (end - begin <= size and sum(passes[begin:end]) <= most)
        # The next record had no room.
        assert end == len(lines) or end - begin == size or sum(passes[begin : end + 1]) > most
    assert end == len(lines)


def test_declarations_stand_before_the_columns():
    header = (META + SITES).encode()
    assert declare(header, [LLR, WHY], {"9": 5}).decode() == META + LLR + "\n" + WHY + "\n" + SITES
    contigs = {"9": 5, "x y": 7, "a,b": 7, "HLA*01:01": 8, "odd": None}
    declared = declare((FIRST + AF + SITES).encode(), ["##mutbert_score=<model=x>"], contigs).decode()
    lines = "##contig=<ID=9,length=5>\n##contig=<ID=HLA*01:01,length=8>\n##contig=<ID=odd>\n##mutbert_score=<model=x>\n"
    assert declared == FIRST + AF + lines + SITES


@pytest.mark.parametrize("existing", [LLR, LLR.replace("ID=M_LLR,Number=A", "Number=A,ID=M_LLR")])
def test_a_field_that_is_there_already_is_refused(existing):
    with pytest.raises(InputError, match=r"INFO field M_LLR already.*--prefix"):
        refuse_declared((META + existing + "\n" + SITES).encode(), ["M_WHY", "M_LLR"])
    longer = existing.replace("M_LLR", "M_LLR_PCT")
    refuse_declared((META + longer + "\n" + SITES).encode(), ["M_WHY", "M_LLR"])


@given(
    st.lists(st.text("AC=;.,1", max_size=12), min_size=1, max_size=6),
    st.booleans(),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_only_info_becomes_longer(infos, has_samples, scored):
    more = {"more": "GT\t0/1\t.;X"} if has_samples else {}
    lines = [record(info=info, **more).rstrip("\n").encode() for info in infos]
    added = [b"M_LLR=1.5;M_WHY=." if score else b"" for score, _ in zip(scored, lines, strict=False)]
    text = annotate(lines, added)
    assert text.endswith(b"\n")
    for before, after, field in zip(lines, text[:-1].split(b"\n"), added, strict=True):
        old, new = before.split(b"\t"), after.split(b"\t")
        assert new[:7] + new[8:] == old[:7] + old[8:]
        parts = [part for part in old[7].split(b";") if part] if old[7] != b"." else []
        if field:
            assert [part for part in new[7].split(b";") if part] == parts + field.split(b";")
            assert new[7].startswith(old[7] if old[7] != b"." else b"")
        else:
            assert new == old


@pytest.mark.parametrize("info", ["M_LLR=1", "AF=1;M_LLR=.;X", "AF=1;M_WHY=a", "M_WHY"])
def test_a_record_that_has_a_new_field_already_is_refused(tmp_path, info):
    path = write(tmp_path / "x.vcf", META + SITES + RECORD + record(info=info))
    (records,) = RecordFile(path).chunks()
    with pytest.raises(InputError, match=r"the record has an INFO field M_(LLR|WHY) already.*--prefix") as raised:
        refuse_fields(records, ["M_LLR", "M_WHY"])
    assert str(raised.value).startswith(f"{path}, line {LINE + 1} (1:10): ")
    # Names that only hold one, and other columns.
    write(path, META + SITES + record(id="M_LLR", info=info.replace("M_", "AM_")) + record(info="X=M_LLR"))
    (records,) = RecordFile(path).chunks()
    refuse_fields(records, ["M_LLR", "M_WHY"])


def test_nothing_is_annotated_to_nothing():
    assert annotate([], []) == b""
    with pytest.raises(ValueError, match="zip"):
        annotate([b"x"], [])


@pytest.mark.parametrize(
    ("alt", "info", "expected"),
    [
        ("C", "AF=0.25", [0.25]),
        ("C", "AC=1;AF=1e-3;AN=9", [0.001]),
        ("C,G", "AF=0.1,0.2;EUR_AF=0.9,0.8", [0.1, 0.2]),
        ("C,G", "EUR_AF=0.9,0.8;AF=0.1,.", [0.1, None]),
        ("C,G", "AF=.", [None, None]),
        ("C,G", "AF", [None, None]),
        ("C,G", "XAF=1,2", [None, None]),
        ("C", ".", [None]),
        ("C", "AF=", [None]),
        ("C", "AF=0.1;AF=0.2", [0.1]),
        (".", "AF=.", [None]),
        (".", "AF=0", [None]),
        ("C", "AF=0.1,0.2", "INFO field AF has 2 values for 1 alternate alleles"),
        ("C,G", "AF=0.1", "INFO field AF has 1 values for 2 alternate alleles"),
        ("C", "AF=rare", "INFO field AF is 'rare', which is no number"),
    ],
)
def test_numbers_of_alternates(tmp_path, alt, info, expected):
    path = write(tmp_path / "x.vcf", META + SITES + record(info="AF=1") + record(alt=alt, info=info))
    (records,) = RecordFile(path).chunks()
    if isinstance(expected, list):
        assert info_numbers(records, "AF") == [[1.0], expected]
        return
    with pytest.raises(InputError) as raised:
        info_numbers(records, "AF")
    assert f"{path}, line {LINE + 1} (1:10): {expected}" in str(raised.value)
