"""Which records are used and whose genotypes are counted; `tests/properties/test_genome.py` has random files."""

import pytest

from mutbert import ProbabilisticGenome, build_genome, verify_genome
from mutbert.errors import InputError
from mutbert.genome.format import FREQUENCY_ONE
from mutbert.genome.sources import read_samples


@pytest.fixture
def build(tmp_path, write_fasta, write_vcf):
    """Build from one contig ``chr1`` and some records; gives the rows that are not the reference, and the counts."""

    def run(records, **options):
        fasta = write_fasta(tmp_path / "x.fa", {"chr1": "ACGT" * 10})
        vcf = write_vcf(tmp_path / "x.vcf", records)
        report = build_genome(fasta, tmp_path / "x.genome", vcf, force=True, **options)
        variants = ProbabilisticGenome.open(report["path"]).variants("chr1")
        rows = dict(zip(variants.position.tolist(), variants.frequency.tolist(), strict=True))
        (counts,) = report["records"]
        assert counts["read"] == len(records) == counts["used"] + sum(counts["not_used"].values())
        return rows, {"used": counts["used"], **counts["not_used"]}

    return run


def row(**frequency):
    return pytest.approx([frequency.get(base, 0) for base in "ACGT"], abs=1 / FREQUENCY_ONE)


@pytest.mark.parametrize("minimum", [0.02, 0.05, 0.1, 0.3, 0.45])
def test_the_minimum_is_strict(build, minimum):
    # In float32 some of these decimals are a little larger than they say.
    records = [("chr1", 1, "A", "C", minimum), ("chr1", 2, "C", "A", minimum + 1e-6)]
    records += [("chr1", 3, "G", "A,C", f"{minimum / 2},{minimum / 2}")]
    rows, counts = build(records, min_frequency=minimum)
    assert list(rows) == [1]
    assert counts == {"used": 1, "frequency not above the minimum": 2}


def test_one_wrong_reference_base_is_counted_and_more_are_another_assembly(build):
    good = [("chr1", 4 * i + 1, "A", "C", 0.5) for i in range(10)]
    rows, counts = build(sorted([*good, ("chr1", 2, "G", "A", 0.5)]))
    assert len(rows) == 10
    assert counts == {"used": 10, "reference base differs from the FASTA": 1}
    with pytest.raises(InputError, match=r"in 2 of 12 records \(16\.7%\), first at chr1:2; it"):
        build(sorted([*good, ("chr1", 2, "G", "A", 0.5), ("chr1", 6, "T", "A", 0.5)]))


def test_positions_that_go_back_are_refused(build):
    with pytest.raises(InputError, match=r"x\.vcf: chr1:2 comes after a later position; sort the file with"):
        build([("chr1", pos, "ACGT"[(pos - 1) % 4], "ACGT"[pos % 4], 0.5) for pos in (5, 9, 2, 5)])


@pytest.mark.parametrize("value", [".", "EUR_AF=0.5", "nan", ".,."])
def test_a_missing_frequency_is_counted(build, value):
    _, counts = build([("chr1", 1, "A", "G", 0.6), ("chr1", 2, "C", "A,G" if "," in value else "A", value)])
    assert counts == {"used": 1, "frequency missing": 1}


def test_numbers_are_what_htslib_makes_of_their_text(build):
    rows, counts = build([("chr1", 1, "A", "C", "0.1_5"), ("chr1", 2, "C", "G", "1e-1"), ("chr1", 5, "A", "C", "x")])
    assert rows == {0: row(A=0.9, C=0.1), 1: row(C=0.9, G=0.1)}
    assert counts == {"used": 2, "frequency missing": 1}


@pytest.mark.parametrize(
    ("pos", "alternates", "value"),
    [
        *((2, "A", value) for value in ("1.5", "-0.1", "inf", "0.1,0.2")),
        *((2, "A,G", value) for value in ("0.6,0.6", "0.6")),
        (2, "A,CT", "0.6,0.6"),
        (1, "C", "0.6"),
    ],
)
def test_impossible_frequencies_are_counted_and_many_refused(build, tmp_path, pos, alternates, value):
    first = f"chr1:2: AF={value}" if pos == 2 else "chr1:1: the alternate alleles of its records sum to more than 1"
    records, number = [("chr1", 1, "A", "G", 0.6), ("chr1", pos, "AC"[pos - 1], alternates, value)], 3 - pos
    with pytest.raises(InputError) as refusal:
        build([*records, *[("chr1", 5, "A", ".", 0.1)] * (100 * number - 3)])
    message = f"{number} of {100 * number - 1} records have no frequency from 0 to 1 for each alternate allele"
    assert str(refusal.value).startswith(f"{tmp_path / 'x.vcf'}: {message}")
    assert f"first {first};" in str(refusal.value)
    rows, counts = build([*records, *[("chr1", 5, "A", ".", 0.1)] * (100 * number - 2)])
    assert [*rows] == [0] * (pos == 2)
    assert counts["impossible frequency"] == number
    assert verify_genome(tmp_path / "x.genome", tmp_path / "x.fa", tmp_path / "x.vcf")["agrees"]


def test_all_of_ref_is_compared(build):
    good = [("chr1", 5, "A", "C", 0.5), ("chr1", 9, "ACGT", "ACGA,A", "0.5,0.1")]
    for ref, alt in (("TTGT", "TTGA"), ("TC", "CG"), ("ACGTTTTT", "A,ACGATTTT")):
        rows, counts = build([("chr1", 1, ref, alt, 0.2 if alt[1:2] != "," else "0.1,0.2"), *good])
        assert [*rows] == [4, 11]
        assert counts == {"used": 2, "reference base differs from the FASTA": 1}


def test_a_file_in_which_nothing_is_called_is_noted(tmp_path, write_fasta, write_vcf):
    fasta = write_fasta(tmp_path / "x.fa", {"1": "ACGT", "Y": "ACGT"})
    vcfs = [
        write_vcf(tmp_path / "1.vcf", [("1", 1, "A", "C", ".", "0|1", "1|1")], "FM"),
        write_vcf(tmp_path / "Y.vcf", [("Y", 1, "A", "C", ".", ".", "1"), ("Y", 2, "C", "T", ".", "./.", "1")], "FM"),
    ]
    report = build_genome(fasta, tmp_path / "x.genome", vcfs, sample="F")
    assert [one["not_used"] for one in report["records"]] == [{}, {"frequency missing": 2}]
    assert [note.split(":")[0] for note in report["notes"]] == ["Y.vcf"]
    assert verify_genome(report["path"], fasta, vcfs, sample="F")["agrees"]
    with pytest.raises(InputError, match="none of the 2 records that could be used has a frequency"):
        build_genome(fasta, tmp_path / "y.genome", vcfs[1], sample="F")


GENOTYPES = """##fileformat=VCFv4.4
##FORMAT=<ID=GT,Number=1,Type=String,Description="">
##FORMAT=<ID=DP,Number=1,Type=Integer,Description="">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts\tt\tu
"""
MANY = ",".join(["C", *("A" + "C" * length for length in range(1, 10)), "G"])


@pytest.mark.parametrize(
    ("alternates", "keys", "calls", "expected"),
    [
        # The form of VCF 4.4, in which the first allele has a separator too.
        ("C", "GT", "|0|1 /1/1 0/0", row(A=1 / 2, C=1 / 2)),
        ("C,G", "DP:GT", "7:0 3:1|2 .:.", row(A=1 / 3, C=1 / 3, G=1 / 3)),
        (MANY, "GT", "10|1 0/11 11", row(A=2 / 5, C=1 / 5, G=2 / 5)),
        ("C", "GT", "0|2 0 0", "first chr1:5: AC=none, AN=3"),
        ("C", "GT", "10 0 0", "chr1:5"),
        (MANY, "GT", "0|12 0 0", "chr1:5"),
        ("C", "GT", "0|x 0 0", "chr1:5"),
        ("C", "GT", "0.1 0 0", "Invalid character '.' in 'GT' FORMAT field at chr1:5"),
        ("C", "GT", "0|0 0|0", "chr1:5"),
    ],
)
def test_genotypes_are_counted(tmp_path, write_fasta, alternates, keys, calls, expected):
    lines = ["\t".join(["chr1", "1", ".", "A", "C", ".", ".", ".", "GT", "0", "0", "1"])]
    lines.append("\t".join(["chr1", "5", ".", "A", alternates, ".", ".", ".", keys, *calls.split()]))
    (tmp_path / "x.vcf").write_text(GENOTYPES + "".join(f"{line}\n" for line in lines))
    words = write_fasta(tmp_path / "x.fa", {"chr1": "ACGT" * 3}), tmp_path / "x.genome", tmp_path / "x.vcf"
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected) as refusal:
            build_genome(*words)
        assert "\n" not in str(refusal.value)
    else:
        build_genome(*words)
        assert ProbabilisticGenome.open(words[1]).frequencies("chr1", 4, 5)[0].tolist() == expected


@pytest.mark.parametrize("declared", ["", "##contig=<ID=chr1>\n"])
def test_names_of_samples_have_blanks_and_genotypes_unknown_alleles(tmp_path, write_fasta, declared):
    vcf, line = tmp_path / "x.vcf", "chr1\t{}\t.\tA\tC\t.\t.\t.\tGT\t0\t{}\t1\n"
    header = GENOTYPES.replace("#CHROM", f"{declared}#CHROM").replace("\tt\t", "\tt of u\t")
    words = write_fasta(tmp_path / "x.fa", {"chr1": "ACGT" * 3}), tmp_path / "x.genome", vcf
    vcf.write_text(header + line.format(1, 1) + line.format(1, "."))
    build_genome(*words)
    assert ProbabilisticGenome.open(words[1]).variants("chr1").frequency.tolist() == [row(A=1 / 3, C=2 / 3)]
    vcf.write_text(header + line.format(1, 1) + line.format(5, 2))
    with pytest.raises(InputError, match="first chr1:5: AC=none, AN=2"):
        build_genome(*words, force=True)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["C,G 1/2 1/2 0/0"], row(A=1 / 3, C=1 / 3, G=1 / 3)),
        (["C 1/0 1/0 0/0", "G 0/1 0/1 0/0"], row(A=1 / 3, C=1 / 3, G=1 / 3)),
        (["C 1/. 1/. 0/0", "G ./1 ./1 0/0"], row(A=1 / 3, C=1 / 3, G=1 / 3)),
        (["C 1|1 0|1 0|1", "G ./. 1|0 ./."], row(A=1 / 6, C=4 / 6, G=1 / 6)),
        (["C 1/. . .", "G ./1 . .", "T ./. . ."], row(C=1 / 2, G=1 / 2)),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "index"])
def test_calls_of_a_split_site_are_counted_over_its_lines(tmp_path, write_fasta, compress, lines, expected, kind):
    text, fasta = GENOTYPES, write_fasta(tmp_path / "x.fa", {"chr1": "ACGT" * 3000})
    # After many records that are complete, so that the site is in no first block.
    rows = [f"{pos} A C 0|1 0|0 0|0" for pos in range(1, 11997, 4)] + [f"11997 A {line}" for line in lines]
    for pos, ref, alt, *calls in map(str.split, rows):
        text += "\t".join(["chr1", pos, ".", ref, alt, ".", ".", ".", "GT", *calls]) + "\n"
    (tmp_path / "x.vcf").write_text(text)
    vcf, output = compress(tmp_path / "x.vcf", kind), tmp_path / "x.genome"
    build_genome(fasta, output, vcf, min_frequency=0, frequency_field="GT")
    found = ProbabilisticGenome.open(output).frequencies("chr1", 11992, 12000)
    assert found[4].tolist() == expected
    assert found[0].tolist() == row(A=5 / 6, C=1 / 6)
    assert verify_genome(output, fasta, vcf)["agrees"]


# ---- whose genotypes

PANEL = "sample\tpop\tsuper_pop\tgender\t\t\nHG1\tGBR\tEUR\tmale\nHG2\tFIN\tEUR\tfemale\nNA3\tYRI\tAFR\tmale\t\t\n"


@pytest.mark.parametrize(
    ("text", "population", "outcome"),
    [
        ("b\na\n", None, "b a"),
        ("# people\n\nb\r\na", None, "b a"),
        (PANEL, None, "HG1 HG2 NA3"),
        (PANEL, "EUR", "HG1 HG2"),
        (PANEL.replace("\t", " "), "FIN", "HG2"),
        # The name itself is no population.
        ("GBR x\nHG1 GBR\n", "GBR", "HG1"),
        (PANEL, "AMR", "no sample of population AMR; there are GBR, EUR, male, FIN, female, YRI, AFR"),
        (PANEL, "eur", "no sample of population eur"),
        ("a\nb\n", "EUR", "no sample of population EUR; there are none"),
        ("# nobody\n\n", None, "no sample of population any"),
        ("a\nb\na\n", None, "sample a comes twice"),
    ],
)
def test_lists_and_panels_are_read_or_refused(tmp_path, text, population, outcome):
    path = tmp_path / "samples.txt"
    path.write_text(text, newline="")
    if "sample" not in outcome:
        assert read_samples(path, population) == outcome.split()
    else:
        with pytest.raises(InputError, match=f"samples.txt: {outcome}"):
            read_samples(path, population)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": "HG9"}, r"1\.vcf, .*Y\.vcf: no sample HG9; there are HG1, HG2, NA3"),
        ({"samples": ["HG1", "HG8", "HG9"]}, "no sample HG8, HG9; there are"),
        ({"sample": "HG2"}, r"Y\.vcf: has none of the chosen samples"),
        ({"sample": "HG1", "samples": ["HG1"]}, "one sample and a list"),
        ({"population": "EUR", "samples": ["HG1"]}, "population EUR: needs a panel file"),
        ({"sample": "HG1", "frequency_field": "EUR_AF"}, "samples are chosen, so genotypes are counted"),
    ],
)
def test_samples_that_cannot_be_counted_are_refused(tmp_path, write_fasta, write_vcf, options, message):
    """Of three people, of whom two men have a file of their own."""
    fasta = write_fasta(tmp_path / "x.fa", {"chr1": "ACGT", "chrY": "ACGT"})
    every = write_vcf(tmp_path / "1.vcf", [("1", 1, "A", "C", 0.9, "0|1", "1|1", "0|0")], ["HG1", "HG2", "NA3"])
    men = write_vcf(tmp_path / "Y.vcf", [("Y", 1, "A", "T", 0.9, "1", "0")], ["NA3", "HG1"])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message) as refusal:
        build_genome(fasta, tmp_path / "x.genome", [every, men], **options)
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.iterdir()) == before
