"""Every record is used or has a reason: each rule by itself; `tests/properties/test_genome.py` has random files."""

import pytest

from mutbert import ProbabilisticGenome, build_genome
from mutbert.errors import InputError
from mutbert.genome.format import FREQUENCY_ONE


@pytest.fixture
def build(tmp_path, write_fasta, write_vcf):
    """Build from one contig ``chr1`` and some records; gives the rows that are not the reference, and the counts."""

    def run(records, sequence="ACGT" * 10, *, header=None, **options):
        fasta = write_fasta(tmp_path / "x.fa", {"chr1": sequence})
        vcf = write_vcf(tmp_path / "x.vcf", records, **({"header": header} if header else {}))
        report = build_genome(fasta, tmp_path / "x.genome", vcf, force=True, **options)
        variants = ProbabilisticGenome.open(report["path"]).variants("chr1")
        rows = dict(zip(variants.position.tolist(), variants.frequency.tolist(), strict=True))
        (counts,) = report["records"]
        assert counts["read"] == len(records) == counts["used"] + sum(counts["not_used"].values())
        return rows, {"used": counts["used"], **counts["not_used"]}

    return run


def row(**frequency):
    return pytest.approx([frequency.get(base, 0) for base in "ACGT"], abs=1 / FREQUENCY_ONE)


def test_single_nucleotide_alleles_of_mixed_sites_are_kept(build):
    records = [
        ("chr1", 1, "A", "G,AT,<DEL>,*", "0.2,0.3,0.1,0.1"),
        # With a deletion, the single-nucleotide allele is written with the longer REF: C to T at position 4, T to A.
        ("chr1", 2, "CGT", "C,CGA,TGT", "0.1,0.25,0.05"),
    ]
    rows, counts = build(records)
    assert rows == {0: row(A=0.8, G=0.2), 1: row(C=0.95, T=0.05), 3: row(T=0.75, A=0.25)}
    assert counts == {"used": 2}


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


def test_records_past_the_end_are_counted_unless_all_are(build):
    inside, outside = ("chr1", 1, "A", "C", 0.5), ("chr1", 401, "A", "C", 0.5)
    rows, counts = build([inside, outside], "ACGT" * 100)
    assert list(rows) == [0]
    assert counts == {"used": 1, "outside the contig": 1}
    with pytest.raises(InputError, match="all 1 records that could be used lie outside"):
        build([outside], "ACGT" * 100)


def test_positions_that_go_back_are_refused(build):
    with pytest.raises(InputError, match=r"x\.vcf: chr1:2 comes after a later position; sort the file with"):
        build([("chr1", pos, "ACGT"[(pos - 1) % 4], "ACGT"[pos % 4], 0.5) for pos in (5, 9, 2, 5)])


def test_a_file_without_any_frequency_is_refused(build):
    with pytest.raises(InputError, match=r"none of the 2 records that could be used has a frequency \(EUR_AF\)"):
        build([("chr1", 1, "A", "C", 0.5), ("chr1", 2, "C", "A", 0.5)], frequency_field="EUR_AF")


@pytest.mark.parametrize("value", [".", "EUR_AF=0.5", "nan", ".,."])
def test_a_missing_frequency_is_counted(build, value):
    _, counts = build([("chr1", 1, "A", "G", 0.6), ("chr1", 2, "C", "A,G" if "," in value else "A", value)])
    assert counts == {"used": 1, "frequency missing": 1}


@pytest.mark.parametrize(
    ("pos", "alternates", "value"),
    [
        *((2, "A", value) for value in ("1.5", "-0.1", "inf", "0.1,0.2")),
        *((2, "A,G", value) for value in ("0.6,0.6", "0.6")),
        (2, "A,CT", "0.6,0.6"),
        (1, "C", "0.6"),
    ],
)
def test_impossible_frequencies_are_refused(build, tmp_path, pos, alternates, value):
    message = f"chr1:2: AF={value} is not a frequency from 0 to 1 for each alternate allele"
    if pos == 1:
        message = "chr1:1: the alternate alleles of its records sum to 1.2, more than 1"
    with pytest.raises(InputError) as refusal:
        build([("chr1", 1, "A", "G", 0.6), ("chr1", pos, "AC"[pos - 1], alternates, value)])
    assert str(refusal.value).startswith(f"{tmp_path / 'x.vcf'}: {message}")
    assert "\n" not in str(refusal.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.fa", "x.vcf"]


GENOTYPES = """##fileformat=VCFv4.4
##FORMAT=<ID=GT,Number=1,Type=String,Description="">
##FORMAT=<ID=DP,Number=1,Type=Integer,Description="">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts\tt\tu
"""
MANY = ",".join(["C", *("A" + "C" * length for length in range(1, 10)), "G"])


@pytest.mark.parametrize(
    ("alternates", "keys", "calls", "expected"),
    [
        ("C", "GT", "0|1 1/1 .", row(A=1 / 4, C=3 / 4)),
        ("C", "GT", "./1 .|. .", row(C=1)),
        ("C", "GT", "1 0|1|1 0/0", row(A=1 / 2, C=1 / 2)),
        # The form of VCF 4.4, in which the first allele has a separator too.
        ("C", "GT", "|0|1 /1/1 0/0", row(A=1 / 2, C=1 / 2)),
        ("C,G", "GT:DP", "0:7 1|2:3 .:.", row(A=1 / 3, C=1 / 3, G=1 / 3)),
        ("C,G", "DP:GT", "7:0 3:1|2 .:.", row(A=1 / 3, C=1 / 3, G=1 / 3)),
        (MANY, "GT", "10|1 0/11 11", row(A=2 / 5, C=1 / 5, G=2 / 5)),
        ("C", "GT", ". ./. .", "frequency missing"),
        ("C", "DP", "7 8 9", "frequency missing"),
        ("C", "GT", "0|2 0 0", "chr1:5: AC=none, AN=3 is not a frequency"),
        ("C", "GT", "10 0 0", "chr1:5"),
        (MANY, "GT", "0|12 0 0", "chr1:5"),
        ("C", "GT", "0|x 0 0", "chr1:5"),
        ("C", "GT", "0|0 0|0", "chr1:5"),
    ],
)
def test_genotypes_are_counted(tmp_path, write_fasta, alternates, keys, calls, expected):
    lines = ["\t".join(["chr1", "1", ".", "A", "C", ".", ".", ".", "GT", "0", "0", "1"])]
    lines.append("\t".join(["chr1", "5", ".", "A", alternates, ".", ".", ".", keys, *calls.split()]))
    (tmp_path / "x.vcf").write_text(GENOTYPES + "".join(f"{line}\n" for line in lines))
    words = write_fasta(tmp_path / "x.fa", {"chr1": "ACGT" * 3}), tmp_path / "x.genome", tmp_path / "x.vcf"
    if isinstance(expected, str) and "missing" not in expected:
        with pytest.raises(InputError, match=expected) as refusal:
            build_genome(*words)
        assert "\n" not in str(refusal.value)
        return
    report = build_genome(*words)
    if isinstance(expected, str):
        assert report["records"][0]["not_used"] == {expected: 1}
    else:
        assert ProbabilisticGenome.open(report["path"]).frequencies("chr1", 4, 5)[0].tolist() == expected
