"""``verify`` against stores that are written by hand, right and wrong ones; `tests/properties` has the builder's."""

import hashlib

import numpy as np
import pytest
from typer.testing import CliRunner

from mutbert import verify_genome
from mutbert.cli.main import genome as app
from mutbert.errors import InputError
from mutbert.files import sha256_of
from mutbert.genome.format import FREQUENCY_ONE


def fixed_row(reference, alternates):
    """Units of 1/65535 for shares as text, such as C.25 G.1; the reference has the rest."""
    row = [0, 0, 0, 0]
    for word in alternates.split():
        row["ACGT".index(word[0])] += round(float(word[1:]) * FREQUENCY_ONE)
    row["ACGT".index(reference)] += FREQUENCY_ONE - sum(row)
    return row


SEQUENCES = {"1": "ACGTRACGTNNNACGT", "2": "CCCCCCcc"}
# Positions from 1, as reference and alternates.
VARIANTS = {"1": {1: "A C.25", 3: "G A.5 T.125"}, "2": {4: "C G.0625"}}
RECORDS = [("1", 1, "A", "C", 0.25), ("1", 3, "G", "A,T", ".5,.125"), ("1", 6, "A", "*", 1), ("2", 4, "C", "G", 0.0625)]


def with_variant(contig, position, row):
    return {**VARIANTS, contig: {**VARIANTS[contig], position: row}}


def with_letter(start, letter):
    return {**SEQUENCES, "1": SEQUENCES["1"][: start - 1] + letter + SEQUENCES["1"][start:]}


TAMPERED = [
    ({"contigs": with_letter(8, "T")}, 1, "1:8: G in the FASTA, T in the genome"),
    ({"contigs": with_letter(12, "A")}, 1, "1:12: N in the FASTA, A in the genome"),
    ({"contigs": with_letter(5, "Y")}, 1, "1:5: R in the FASTA, Y in the genome"),
    ({"contigs": with_letter(8, "g")}, 1, "1:8: G in the FASTA, g in the genome"),
    ({"contigs": {**SEQUENCES, "2": "C" * 8}}, 2, "2:8: c in the FASTA, C in the genome"),
    ({"contigs": {**SEQUENCES, "1": SEQUENCES["1"] + "A"}}, 1, "contig 1: 16 bases by the sources, 17"),
    ({"contigs": {**SEQUENCES, "2": SEQUENCES["2"][:-1]}}, 1, "contig 2: 8 bases by the sources, 7"),
    ({"contigs": dict(reversed(SEQUENCES.items()))}, 2, "contig number 1: 1 by the sources, 2 in the genome"),
    ({"contigs": {"1": SEQUENCES["1"]}}, 1, "contig 2: 8 bases by the sources, none in the genome"),
    ({"contigs": {**SEQUENCES, "3": "A"}}, 1, "contig 3: none by the sources, 1"),
    ({"variants": {**VARIANTS, "1": {1: "A C.25"}}}, 1, "1:3: A, C, G, T are [0.5, 0.0, 0.375, 0.125] by the VCF"),
    ({"variants": with_variant("2", 5, "C T.5")}, 1, "2:5: A, C, G, T are [0.0, 0.0, 0.0, 0.0] by the VCF, [0.0, 0.4"),
    ({"variants": with_variant("2", 4, "C A.0625")}, 1, "[0.0625, 0.9375, 0.0, 0.0] in the genome"),
    ({"counts": {"read": 5}}, 1, "VCF file 1: read: 4 by the sources, 5 in the genome"),
    ({"counts": {"used": 2}}, 1, "VCF file 1: used: 3 by the sources, 2 in the genome"),
    ({"counts": None}, 2, "VCF file 1: read: 4 by the sources, none in the genome"),
]  # fmt: skip


@pytest.fixture
def tampered(tmp_path, write_fasta, write_vcf, write_genome):
    """Write a store by hand, right or wrong in what is given; gives it with its sources."""

    def write(contigs=SEQUENCES, variants=VARIANTS, counts=(), samples=None):
        fasta, vcf = write_fasta(tmp_path / "x.fa", SEQUENCES), write_vcf(tmp_path / "x.vcf", RECORDS)
        shares = {
            name: {place - 1: np.array(fixed_row(*row.split(" ", 1)) if isinstance(row, str) else row) / FREQUENCY_ONE
                   for place, row in variants[name].items()}
            for name in variants.keys() & contigs.keys()
        }  # fmt: skip
        records = [] if counts is None else [{"read": 4, "used": 3} | dict(counts)]
        settings = {"min_frequency": 0.02, "frequency_field": "AF", "contigs": None, "samples": samples}
        origin = {"records": records, "sources": [{"sha256": sha256_of(file)} for file in (fasta, vcf)]}
        return write_genome(tmp_path / "x.genome", contigs, shares, settings=settings, **origin), fasta, vcf

    return write


def test_a_right_store_agrees(tampered, compress, as_version_1):
    store, fasta, vcf = tampered()
    report = verify_genome(store, fasta, vcf)
    assert (report["agrees"], report["differences"]) == (True, [])
    assert (report["contigs"], report["bases"], report["variants"], report["records"]) == (2, 24, 3, 4)
    assert report["sources"] == {str(fasta): True, str(vcf): True}
    # Sources of other bytes may have the same contents; of version 1, there is no soft mask to compare.
    report = verify_genome(as_version_1(store), [fasta], [compress(vcf, "gzip")])
    assert report["agrees"]
    assert report["sources"] == {str(fasta): True, str(vcf): False}
    assert not verify_genome(store, [fasta])["agrees"]


@pytest.mark.parametrize(("change", "number", "text"), TAMPERED)
def test_a_wrong_store_differs(tampered, change, number, text):
    report = verify_genome(*tampered(**change))
    assert not report["agrees"]
    assert (report["differing"], len(report["differences"])) == (number, number)
    assert any(text in line for line in report["differences"]), report["differences"]


@pytest.mark.parametrize(("by", "agrees"), [(1, True), (2, False)])
def test_no_more_than_the_fixed_point_is_allowed(tampered, by, agrees):
    # A quarter of 65535 is 16383.75, which is stored as 16384.
    row = [65535 - 16384 + by, 16384 - by, 0, 0]
    assert verify_genome(*tampered(variants=with_variant("1", 1, row)))["agrees"] == agrees


@pytest.mark.parametrize(
    ("chosen", "options", "message"),
    [
        ((), {"sample": "ann"}, "was built from other samples; use the same --samples"),
        (("ann", "bob"), {}, "was built from other samples"),
        (("bob",), {"sample": "ann"}, "was built from other samples"),
        (("eve",), {"sample": "eve"}, "no sample eve; there are ann, bob"),
        (("eve",), {"samples": "absent.txt"}, "cannot be read as a list of samples"),
    ],
)
def test_other_samples_are_refused(tmp_path, tampered, write_vcf, chosen, options, message):
    digest = hashlib.sha256("\n".join(sorted(chosen)).encode()).hexdigest()
    samples = {"number": len(chosen), "sha256": digest} if chosen else None
    store, fasta, _ = tampered(samples=samples)
    vcf = write_vcf(tmp_path / "y.vcf", [("1", 1, "A", "C", ".", "0|1", "0/1")], ("ann", "bob"))
    with pytest.raises(InputError, match=message):
        verify_genome(store, fasta, vcf, **options)


def test_command(tampered):
    store, fasta, vcf = tampered(contigs=with_letter(1, "C"), counts={"used": 7})
    result = CliRunner().invoke(app, ["verify", str(store), "--fasta", str(fasta), "--vcf", str(vcf)])
    assert result.exit_code == 1
    assert "differing: 2" in result.stdout
    assert "  1:1: A in the FASTA, C in the genome" in result.stdout
    assert "VCF file 1: used: 3 by the sources, 7 in the genome" in result.stdout
