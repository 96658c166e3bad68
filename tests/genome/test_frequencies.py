"""Every record is used or has a reason: random files against a plain-text reader, then each rule by itself."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mutbert import alphabet, files
from mutbert.errors import InputError
from mutbert.genome import alleles, sites
from mutbert.genome import population as population_room
from mutbert.genome import vcf_text as vcf_room
from mutbert.genome.build import build_genome
from mutbert.genome.store import FREQUENCY_ONE, ProbabilisticGenome

SETS = {"R": "AG", "Y": "CT", "N": "ACGT"} | {base: base for base in "ACGT"}


def read_as_text(contigs, text, min_frequency):
    """Read a VCF the slow way: line by line, allele by allele, base by base.

    Returns the rows, as {(contig, position): {base: frequency}}, and the number of records by reason.
    """
    bare = {name.removeprefix("chr"): name for name in contigs}
    reasons, seen, references = [], {}, {}
    for number, line in enumerate(row for row in text.splitlines() if not row.startswith("#")):
        chrom, pos, _, ref, alts, _, state, info = line.split("\t")
        name = bare.get(chrom.removeprefix("chr"))
        if name is None:
            reasons.append(["contig not in the FASTA"])
            continue
        if state not in ("PASS", "."):
            reasons.append(["filtered"])
            continue
        reasons.append([])
        for alt, value in zip(alts.split(","), info.removeprefix("AF=").split(","), strict=True):
            reasons[-1] += allele_as_text(contigs[name], name, int(pos), ref, alt, value, seen, references, number)
    total = Counter()
    for (name, place, *_), (frequency, _) in seen.items():
        total[name, place] += frequency
    kept = {key for key, value in total.items() if value > min_frequency + 1e-9}
    rows = {key: Counter({references[key]: 1 - total[key]}) for key in kept}
    decomposed = set()
    for (name, place, alt, whole), (frequency, number) in seen.items():
        if (name, place) in kept and frequency > 0:
            rows[name, place][alt] += frequency
            reasons[number].append("used")
            if whole:
                decomposed.add(number)
    order = [reason.text for reason in alleles.Reason]
    counts = Counter(max(found, key=order.index) for found in reasons)
    return rows, counts, len(decomposed)


def allele_as_text(sequence, name, pos, ref, alt, value, seen, references, number):
    if alt == ".":
        return ["no alternate allele"]
    if alt == "*":
        return ["overlapping deletion (*)"]
    if alt.startswith("<"):
        return ["symbolic or structural"]
    if len(ref) != len(alt):
        return ["insertion or deletion"]
    ref, alt = ref.upper(), alt.upper()
    places = [i for i in range(len(ref)) if ref[i] != alt[i]]
    if not places:
        return ["alternate is the reference"]
    whole = (pos + places[0], ref[places[0] : places[-1] + 1], alt[places[0] : places[-1] + 1])
    return [
        change_as_text(
            sequence, name, pos - 1 + i, ref[i], alt[i], value, whole if places[1:] else None, seen, references, number
        )
        for i in places
    ]


def change_as_text(sequence, name, place, before, after, value, whole, seen, references, number):
    if before not in "ACGT":
        return "reference base unknown"
    if after not in "ACGT":
        return "alternate base not A, C, G or T"
    if value == ".":
        return "frequency missing"
    frequency = float(value)
    if not 0 <= place < len(sequence):
        return "outside the contig"
    base = sequence[place].upper()
    if base == "N":
        return "reference base unknown"
    if before not in SETS[base]:
        return "reference base differs from the FASTA"
    reference = references.setdefault((name, place), before)
    if reference != before:
        return "conflicts with an earlier record"
    key = (name, place, after, whole)
    if key in seen:
        return "duplicate record" if seen[key][0] == frequency else "conflicts with an earlier record"
    seen[key] = (frequency, number)
    return "frequency not above the minimum"


@st.composite
def populations(draw):
    """A FASTA of one or two contigs, and records that are right more often than not."""
    contigs = {f"chr{i}": draw(st.text("ACGTACGTACGTacgtNR", min_size=3, max_size=20)) for i in range(1, 3)}
    records = []
    for chrom in draw(st.permutations(["chr2", "1", "9"])):
        sequence = contigs.get(f"chr{chrom[-1]}", "ACGT")
        for pos in sorted(draw(st.lists(st.integers(0, len(sequence) + 2), max_size=12))):
            size = draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
            ref = sequence[max(pos - 1, 0) :][:size] or "A"
            ref = draw(st.sampled_from([ref, ref, ref, ref.upper(), "A", "N"]))
            single = [ref[:i] + base + ref[i + 1 :] for i in range(len(ref)) for base in "ACGTc"]
            alt = st.sampled_from([*single, *single, "N", "*", "<DEL>", "AT", "GTT"])
            alts = draw(st.lists(alt, min_size=1, max_size=3) | st.just(["."]))
            # Little each, so that all the alternates of a position never sum above 1.
            values = [draw(st.sampled_from([".", "0", "0.005", "0.01", "0.02", "0.0200001", "0.07"])) for _ in alts]
            state = draw(st.sampled_from(["PASS", "PASS", "PASS", ".", "low", "low;other"]))
            records.append((chrom, pos, ref, ",".join(alts), ",".join(values), state))
            if draw(st.integers(0, 5)) == 0:
                records.append(records[-1])
    return contigs, records


@given(
    populations(),
    st.sampled_from(["plain", "gzip", "bgzip"]),
    st.sampled_from([0, 0.01, 0.02, 0.1]),
    st.sampled_from([1, 2, 1000]),
)
def test_random_files_equal_a_plain_text_reader(
    tmp_path_factory, write_fasta, write_vcf, population, kind, min_frequency, chunk
):
    contigs, records = population
    # Records of contigs that the FASTA does not have, and nothing else, are refused.
    assume({chrom for chrom, *_ in records} != {"9"})
    folder = tmp_path_factory.mktemp("population")
    text = write_vcf(folder / "plain.vcf", records).read_text()
    rows, counts, decomposed = read_as_text(contigs, text, min_frequency)
    assume(all(sum(row.values()) < 1.001 for row in rows.values()))
    # So are records of which every one that might be used lies outside the contigs.
    further = [reason.text for reason in alleles.Reason if reason > alleles.Reason.OUTSIDE]
    assume(not {"outside the contig", "frequency missing"} & set(counts) or any(one in counts for one in further))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(population_room, "MOST_MISMATCHES", 2)
        patch.setattr(vcf_room, "_BYTES_AT_ONCE", 20 * chunk)
        patch.setattr(files, "_BLOCK_BYTES", 20 * chunk)
        patch.setattr(sites, "_ALLELES_OF_A_PIECE", chunk)
        report = build_genome(
            write_fasta(folder / "x.fa", contigs),
            folder / "x.genome",
            write_vcf(folder / "x.vcf", records, kind=kind),
            min_frequency=min_frequency,
        )
    (found,) = report.records
    assert {"used": found.used, **found.not_used} == {"used": 0, **counts}
    assert found.decomposed == decomposed
    assert found.read == len(records) == found.used + sum(found.not_used.values())
    genome = ProbabilisticGenome.open(report.path, check=True)
    for name, sequence in contigs.items():
        expected = alphabet.DISTRIBUTIONS[alphabet.encode(sequence)]
        for (contig, place), row in rows.items():
            if contig == name:
                expected[place] = [row.get(base, 0) for base in "ACGT"]
        np.testing.assert_allclose(genome.frequencies(name, 0, len(sequence)), expected, atol=1 / FREQUENCY_ONE)
        assert genome.variants(name).position.tolist() == sorted(p for contig, p in rows if contig == name)


@pytest.fixture
def build(tmp_path, write_fasta, write_vcf):
    """Build from one contig ``chr1`` and some records; gives the rows that are not the reference, and the counts."""

    def run(records, sequence="ACGT" * 10, *, header=None, **options):
        fasta = write_fasta(tmp_path / "x.fa", {"chr1": sequence})
        vcf = write_vcf(tmp_path / "x.vcf", records, **({"header": header} if header else {}))
        report = build_genome(fasta, tmp_path / "x.genome", vcf, force=True, **options)
        variants = ProbabilisticGenome.open(report.path).variants("chr1")
        rows = dict(zip(variants.position.tolist(), variants.frequency.tolist(), strict=True))
        (counts,) = report.records
        assert counts.read == len(records) == counts.used + sum(counts.not_used.values())
        return rows, {"used": counts.used, **counts.not_used}

    return run


def row(**frequency):
    return pytest.approx([frequency.get(base, 0) for base in "ACGT"], abs=1 / FREQUENCY_ONE)


def test_alternates_add_up_in_one_line_and_over_lines(build):
    records = [
        ("chr1", 1, "A", "C,G", "0.2,0.1"),
        ("chr1", 2, "C", "A", 0.015),
        ("chr1", 2, "C", "T", 0.015),
        ("chr1", 3, "G", "A,C,T", "0.2,0.3,0.5"),
    ]
    rows, counts = build(records)
    assert rows == {0: row(A=0.7, C=0.2, G=0.1), 1: row(C=0.97, A=0.015, T=0.015), 2: row(A=0.2, C=0.3, T=0.5)}
    assert counts == {"used": 4}


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


def test_a_minimum_of_zero_keeps_every_allele_that_occurs(build):
    rows, counts = build([("chr1", 1, "A", "C", 0), ("chr1", 2, "C", "A", 0.0001)], min_frequency=0)
    assert rows == {1: row(C=0.9999, A=0.0001)}
    assert counts == {"used": 1, "frequency not above the minimum": 1}


def test_counts_stand_in_for_a_frequency_that_is_not_declared(build):
    header = "##fileformat=VCFv4.2\n{}{}#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n".format(
        '##INFO=<ID=AC,Number=A,Type=Integer,Description="">\n', '##INFO=<ID=AN,Number=1,Type=Integer,Description="">\n'
    )
    records = [("chr1", 1, "A", "C,G", "AC=10,30;AN=100"), ("chr1", 2, "C", "A", "AC=2;AN=100")]
    rows, counts = build(records, header=header)
    assert rows == {0: row(A=0.6, C=0.1, G=0.3)}
    assert counts == {"used": 1, "frequency not above the minimum": 1}
    rows, counts = build(
        [*records[:1], ("chr1", 2, "C", "A", "AC=0;AN=0"), ("chr1", 3, "G", "A", "AC=1")], header=header
    )
    assert counts == {"used": 1, "frequency missing": 2}


def test_another_field_may_be_read(build):
    rows, _ = build([("chr1", 1, "A", "C", "AF=0.5;EUR_AF=0.25")], frequency_field="EUR_AF")
    assert rows == {0: row(A=0.75, C=0.25)}


def test_an_ambiguous_base_agrees_with_its_members(build):
    records = [("chr1", 1, "A", "G", 0.25), ("chr1", 2, "C", "G", 0.25), ("chr1", 3, "A", "C", 0.5)]
    rows, counts = build(records, "RRNACGT")
    assert rows == {0: row(A=0.75, G=0.25)}
    assert counts == {"used": 1, "reference base differs from the FASTA": 1, "reference base unknown": 1}


def test_one_wrong_reference_base_is_counted_and_more_are_another_assembly(build):
    good = [("chr1", 4 * i + 1, "A", "C", 0.5) for i in range(10)]
    rows, counts = build(sorted([*good, ("chr1", 2, "G", "A", 0.5)]))
    assert len(rows) == 10
    assert counts == {"used": 10, "reference base differs from the FASTA": 1}
    with pytest.raises(InputError, match=r"in 2 of 12 records \(16\.7%\), first at chr1:2 where REF is G .* has C; it"):
        build(sorted([*good, ("chr1", 2, "G", "A", 0.5), ("chr1", 6, "T", "A", 0.5)]))


def test_up_to_one_per_cent_may_differ(build):
    good = [("chr1", i + 1, "ACGT"[i % 4], "ACGT"[(i + 1) % 4], 0.5) for i in range(300)]
    wrong = [("chr1", 4 * i + 1, "C", "G", 0.5) for i in range(4)]
    _, counts = build(sorted([*good, *wrong[:3]]), "ACGT" * 100)
    assert counts == {"used": 300, "reference base differs from the FASTA": 3}
    with pytest.raises(InputError, match="in 4 of 304 records"):
        build(sorted([*good, *wrong]), "ACGT" * 100)


def test_records_past_the_end_are_counted_unless_all_are(build):
    inside, outside = ("chr1", 1, "A", "C", 0.5), ("chr1", 401, "A", "C", 0.5)
    rows, counts = build([inside, outside], "ACGT" * 100)
    assert list(rows) == [0]
    assert counts == {"used": 1, "outside the contig": 1}
    with pytest.raises(InputError, match="all 1 records that could be used lie outside"):
        build([outside], "ACGT" * 100)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_positions_that_go_back_are_refused(build, monkeypatch, chunk):
    monkeypatch.setattr(files, "_BLOCK_BYTES", 20 * chunk)
    with pytest.raises(InputError, match=r"x\.vcf: chr1:2 comes after chr1:9, so .* sort it with 'bcftools sort'"):
        build([("chr1", pos, "ACGT"[(pos - 1) % 4], "ACGT"[pos % 4], 0.5) for pos in (5, 9, 2, 5)])


def test_alleles_of_several_nucleotides_are_taken_apart_and_add_up(build):
    records = [
        ("chr1", 1, "ACG", "GCT,GCG", "0.1,0.25"),
        ("chr1", 1, "A", "G", "0.2"),
        ("chr1", 1, "ACGT", "GCTT", "0.1"),
        ("chr1", 1, "AC", "GA", "0.05"),
        ("chr1", 1, "ac", "ga", "0.06"),
    ]
    rows, counts = build(records)
    # A>G of ACG>GCT, of the long-written A>G (the plain one conflicts with it), and of AC>GA.
    assert rows == {0: row(A=0.6, G=0.4), 1: row(C=0.95, A=0.05), 2: row(G=0.9, T=0.1)}
    assert counts == {"used": 2, "duplicate record": 1, "conflicts with an earlier record": 2}


def test_a_file_without_any_frequency_is_refused(build):
    with pytest.raises(InputError, match=r"none of the 2 records that could be used has a frequency \(EUR_AF\)"):
        build([("chr1", 1, "A", "C", 0.5), ("chr1", 2, "C", "A", 0.5)], frequency_field="EUR_AF")


@pytest.mark.parametrize("value", [".", "EUR_AF=0.5", "nan", ".,."])
def test_a_missing_frequency_is_counted(build, value):
    _, counts = build([("chr1", 1, "A", "G", 0.6), ("chr1", 2, "C", "A,G" if "," in value else "A", value)])
    assert counts == {"used": 1, "frequency missing": 1}


@pytest.mark.parametrize(
    ("filters", "used"), [(["PASS"], 1), (["PASS", "."], 2), (["low"], 2), (["low", "other", "."], 4), (["any"], 6)]
)
def test_the_filters_that_pass_are_chosen(build, filters, used):
    states = ["PASS", ".", "low", "low;q10", "other", "q10"]
    records = [("chr1", 4 * i + 1, "A", "C", 0.5, state) for i, state in enumerate(states)]
    _, counts = build(records, filters=filters, header=FILTERS)
    assert counts["used"] == used
    assert counts.get("filtered", 0) == 6 - used


FILTERS = """##fileformat=VCFv4.2
##INFO=<ID=AF,Number=A,Type=Float,Description="Allele frequency">
##FILTER=<ID=low,Description="">
##FILTER=<ID=q10,Description="">
##FILTER=<ID=other,Description="">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO
"""


def test_an_unknown_filter_is_refused(build):
    with pytest.raises(InputError, match=r"no header declares the FILTER lwo; there are \., PASS, any, low"):
        build([("chr1", 1, "A", "C", 0.5)], filters=["PASS", "lwo"])


def test_a_repeated_line_counts_once(build):
    records = [("chr1", 1, "A", "C", 0.25), ("chr1", 1, "A", "C", 0.25), ("chr1", 1, "A", "C", 0.5)]
    rows, counts = build(records)
    assert rows == {0: row(A=0.75, C=0.25)}
    assert counts == {"used": 1, "duplicate record": 1, "conflicts with an earlier record": 1}


def test_rounding_above_one_is_normalised(build):
    rows, _ = build([("chr1", 1, "A", "C,G", "0.5,0.5005")])
    assert rows == {0: row(C=0.5 / 1.0005, G=0.5005 / 1.0005)}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (("chr1", 2, "C", "A", "1.5"), "chr1:2: AF=1.5 is not between 0 and 1"),
        (("chr1", 2, "C", "A", "-0.1"), "chr1:2: AF=-0.1 is not between 0 and 1"),
        (("chr1", 2, "C", "A", "inf"), "chr1:2: AF=inf is not between 0 and 1"),
        (("chr1", 2, "C", "A,G", "0.6,0.6"), "chr1:2: AF=0.6,0.6 sums to more than 1"),
        (("chr1", 2, "C", "A,CT", "0.6,0.6"), "chr1:2: AF=0.6,0.6 sums to more than 1"),
        (("chr1", 2, "C", "A,G", "0.6"), "chr1:2: AF=0.6 is not one value for each alternate allele"),
        (("chr1", 2, "C", "A", "0.1,0.2"), "chr1:2: AF=0.1,0.2 is not one value for each alternate allele"),
        (("chr1", 1, "A", "C", "0.6"), "chr1:1: the alternate alleles of its records sum to 1.2, more than 1"),
    ],
)
def test_impossible_frequencies_are_refused(build, tmp_path, record, message):
    with pytest.raises(InputError) as refusal:
        build([("chr1", 1, "A", "G", 0.6), record])
    assert str(refusal.value).startswith(f"{tmp_path / 'x.vcf'}: {message}")
    assert "\n" not in str(refusal.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.fa", "x.vcf"]


def test_records_that_cannot_be_used_need_no_frequency(build):
    records = [
        ("chr1", 1, "A", "G", "EUR_AF=0.1", "low"),
        ("chr1", 1, "A", "AT", "."),
        ("chr1", 1, "A", ".", "."),
        ("chr1", 2, "C", "A,CT", "0.5,."),
        ("chr9", 2, "C", "A", "7"),
    ]
    rows, counts = build(records)
    assert rows == {1: row(C=0.5, A=0.5)}
    assert counts == {
        "used": 1,
        "contig not in the FASTA": 1,
        "filtered": 1,
        "no alternate allele": 1,
        "insertion or deletion": 1,
    }
