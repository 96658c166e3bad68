"""A VCF scored as a whole: records as they went in, the scorer's numbers, and every allele accounted for."""

import copy
import gzip
import math
import re
from collections import Counter

import numpy as np
import pysam
import pysam.bcftools
import pytest
import torch

from mutbert import score_variants
from mutbert.effects.scores import ScoreSettings, open_scorer
from mutbert.errors import InputError

FIELDS = ("MUTBERT_LLR", "MUTBERT_ENT", "MUTBERT_PLLR")
ADDED = (*FIELDS, "MUTBERT_WHY")


def read_text(path):
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()


def records(path):
    return [line.split("\t") for line in read_text(path).splitlines() if not line.startswith("#")]


def info(columns):
    return dict(word.partition("=")[::2] for word in columns[7].split(";") if word.startswith("MUTBERT_"))


@pytest.fixture
def scored(score, write, lines, tmp_path):
    """A file and what came of it."""
    vcf = write(tmp_path / "in.vcf.gz", lines(60))
    return vcf, score(vcf, tmp_path / "out.vcf.gz")


def test_records_come_out_as_they_went_in_with_a_score_or_a_reason(scored, loaded, genome, records_of, capfd):
    vcf, report = scored
    before, after, reasons = records(vcf), records(report.output), Counter()
    assert records_of(report.output, without=ADDED) == records_of(vcf)
    pysam.bcftools.stats(str(report.output))
    assert capfd.readouterr().err == ""
    scorer = open_scorer(loaded, genome, settings=ScoreSettings(context=30, strands="forward", flank=2))
    for columns, changed in zip(before, after, strict=True):
        # One record at a time, so that no other can have a part in it.
        score_AF = scorer.score(scorer.find([columns[0]], [int(columns[1])], [columns[3]], [columns[4]]))
        found = info(changed)
        reasons.update(found.get("MUTBERT_WHY", ".").split(","))
        for name, column_A in zip(FIELDS, score_AF.T, strict=True):
            assert (name in found) == np.isfinite(column_A).any()
            values = [math.nan if text == "." else float(text) for text in found.get(name, ".").split(",")]
            np.testing.assert_allclose(values, column_A if name in found else [math.nan], rtol=2e-5, atol=1e-6)
    del reasons["."]
    assert (reasons, set(report.scored)) == (report.missing, {"snv", "mnv", "indel"})
    assert (report.records, report.index.name) == (len(before), "out.vcf.gz.tbi")
    assert report.alleles == sum(columns[4].count(",") + 1 for columns in before)
    assert report.alleles == sum(report.scored.values()) + sum(report.missing.values())
    assert all(reason in report._repr_html_() for reason in reasons)
    with pysam.VariantFile(str(report.output)) as file:
        found = [(record.pos, record.ref) for record in file.fetch("chr1", 100, 300)]
    rows = [(columns[0], int(columns[1]), columns[3]) for columns in after]
    assert found == [(at, ref) for name, at, ref in rows if name == "chr1" and at <= 300 and at - 1 + len(ref) > 100]


def test_positions_beyond_a_tbi_and_records_out_of_order(score, write, lines, tmp_path, records_of):
    header = "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n##contig=<ID=long,length=700000000>\n"
    far = ["chr1\t5\t.\tN\t<DEL>\t.\t.\t.", "long\t5\t.\tA\tC\t.\t.\t.", "long\t600000000\t.\tA\tC\t.\t.\t."]
    report = score(write(tmp_path / "far.vcf", far, header=header), tmp_path / "out.vcf.gz")
    assert report.index == tmp_path / "out.vcf.gz.csi"
    assert report.missing == {"contig_not_in_genome": 2, "symbolic": 1}
    vcf = write(tmp_path / "in.vcf", lines(20)[::-1])
    with pytest.raises(InputError, match=r"in\.vcf: has no up-to-date index to find a region by; run 'bcft"):
        score(vcf, tmp_path / "x.tsv", region="chr1")
    for suffix in (".vcf.gz", ".bcf"):
        report = score(vcf, tmp_path / f"out{suffix}", force=True)
        assert (report.index, report.why_no_index) == (None, "the records are not in order")
        assert records_of(report.output, without=ADDED) == records_of(vcf)
    # The index of what was there before is gone.
    assert not list(tmp_path.glob("*.csi"))


def test_bcf_comes_in_and_goes_out_also_where_contigs_are_not_declared(
    score, write, lines, tmp_path, records_of, header
):
    bare = "".join(line for line in header.splitlines(keepends=True) if not line.startswith("##contig"))
    vcf = write(tmp_path / "in.vcf", lines(10), header=bare)
    text, packed = (score(vcf, tmp_path / name).output for name in ("out.vcf.gz", "out.bcf"))
    from_bcf = score(write(tmp_path / "packed.bcf", lines(10)), tmp_path / "again.bcf").output
    assert records_of(text) == records_of(packed) == records_of(from_bcf) != []
    undeclared = write(tmp_path / "undeclared.vcf", ["chr1\t5\t.\tN\t<DEL>\t.\tnew\tNEW=3"])
    with pytest.raises(InputError, match=r"x\.bcf: its records cannot be BCF, which needs each .*; write \.vcf\.gz"):
        score(undeclared, tmp_path / "x.bcf")
    # What was scored is not lost.
    (tmp_path / "x.bcf.parts").rename(tmp_path / "x.vcf.gz.parts")
    assert score(undeclared, tmp_path / "x.vcf.gz", resume=True).missing == {"symbolic": 1}


@pytest.mark.parametrize(
    ("good", "bad", "outcome"),
    [(18, 2, None), (17, 3, "warned"), (0, 19, None), (1, 98, "warned"), (50, 50, "warned"), (49, 51, "refused")],
)
def test_a_file_of_another_assembly_is_told_by_its_ref(score, write, contigs, tmp_path, good, bad, outcome):
    lines = ["chr9\t5\t.\tA\tC\t.\t.\t."] * 300
    for position, base in enumerate(contigs["chr1"][: good + bad], start=1):
        ref = base if position <= good else "ACGT"["ACGT".index(base) - 1]
        lines.append(f"chr1\t{position}\t.\t{ref}\t{'ACGT'['ACGT'.index(ref) - 1]},<DEL>\t.\t.\t.")
    vcf = write(tmp_path / "in.vcf", lines)
    said = f"in.vcf: of {good + bad} alleles, {bad} have another REF than small.genome ({bad / (good + bad):.0%})"
    if outcome == "refused":
        with pytest.raises(InputError, match=re.escape(said) + ", so it is of another assembly"):
            score(vcf, tmp_path / "out.vcf.gz", part_records=7)
        assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]
        return
    report = score(vcf, tmp_path / "out.vcf.gz", part_records=7)
    assert report.missing.get("reference_mismatch", 0) == bad
    assert len(report.warnings) == (outcome == "warned")
    assert all(said in warning for warning in report.warnings)


def test_what_is_not_a_number_is_said_to_be_none(loaded, genome, write, lines, tmp_path):
    broken = copy.deepcopy(loaded)
    with torch.no_grad():
        broken.bert.embeddings.word_embeddings.weight[5] = math.nan
    vcf = write(tmp_path / "in.vcf", lines(30))
    for scores in ("llr", "unmasked"):
        report = score_variants(broken, genome, vcf, tmp_path / f"{scores}.tsv", scores=(scores,), context=30, flank=2)
        assert report.scored == {}
        others = "not_a_number" if scores == "llr" else "no_score_of_its_kind"
        for row in records(report.output)[1:]:
            assert row[-1] == {"none": "symbolic", "snv": "not_a_number"}.get(row[5], others)


def test_the_frequency_adjusted_ratio_is_its_formula(score, write, contigs, tmp_path):
    base = contigs["chr1"][99]
    first, second = [other for other in "ACGT" if other != base][:2]
    cases = [
        (first, "AF=0.25", [0.25]),
        (f"{first},{second}", "AF=0.25,0.5", [0.25, 0.5]),
        (first, "AF=1", [1.0]),
        (first, "AF=0", [0.0]),
        # Rounded sums of a little more than 1.
        (f"{first},{second}", "AF=0.5,0.50001", [0.5, 0.50001]),
        (f"{first},{second}", "AF=0.25,.", None),
        (f"{first},{second}", "AF=.", None),
        # htslib takes what is no number for missing.
        (first, "AF=x", None),
        (first, ".", None),
        (f"{base}TT", "AF=0.5", None),
    ]
    vcf = write(tmp_path / "in.vcf", [f"chr1\t100\t.\t{base}\t{alt}\t.\t.\t{text}" for alt, text, _ in cases])
    report = score(vcf, tmp_path / "out.vcf", frequency_field="AF")
    for columns, (_, _, frequencies) in zip(records(report.output), cases, strict=True):
        found = info(columns)
        assert ("MUTBERT_AFLLR" in found) == (frequencies is not None)
        if frequencies is not None:
            ratio, adjusted = (np.array(found[f"MUTBERT_{one}"].split(","), float) for one in ("LLR", "AFLLR"))
            odds = np.log((np.array(frequencies) + 1e-4) / (max(1 - sum(frequencies), 0) + 1e-4))
            np.testing.assert_allclose(adjusted, ratio + odds, atol=1e-5)
    assert report.without_frequency == 6


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("AF=1.5", "AF", r"in\.vcf, chr1:5: INFO field AF is 1\.5, but each alternate has one frequency from 0 to 1"),
        ("AF=-0.1", "AF", "each alternate has one frequency from 0 to 1"),
        ("AF=0.1,0.2", "AF", "INFO field AF is 0.1,0.2, but each alternate has one frequency"),
        (".", "EUR_AF", "declares no INFO field EUR_AF of type Float, but AF"),
        (".", "DB", "declares no INFO field DB of type Float"),
    ],
)
def test_what_is_no_frequency_is_refused(score, write, lines, tmp_path, text, field, message):
    vcf = write(tmp_path / "in.vcf", [*lines(5), f"chr1\t5\t.\tA\tC\t.\t.\t{text}"])
    with pytest.raises(InputError, match=message):
        score(vcf, tmp_path / "out.vcf", frequency_field=field)
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]


def test_a_few_impossible_frequencies_have_no_score(score, write, lines, contigs, tmp_path):
    ref = contigs["chr2"][298]
    alts = ",".join([base for base in "ACGT" if base != ref][:2])
    rows = [f"chr2\t299\t.\t{ref}\t{alts}\t.\t.\tAF={value}" for value in ("1.03,.", "0.6,0.6", "0.1", "0.1,0.2")]
    reports = [
        score(write(tmp_path / "in.vcf", [*lines(400), *own]), tmp_path / "x.tsv", frequency_field="AF", force=True)
        for own in ([], rows)
    ]
    assert reports[1].scored["snv"] - reports[0].scored["snv"] == 8
    assert reports[1].without_frequency - reports[0].without_frequency == 6


def test_a_scored_file_is_scored_again_under_another_prefix(scored, score, tmp_path, records_of):
    _, first = scored
    with pytest.raises(InputError, match=r"MUTBERT_LLR already.*--prefix"):
        score(first.output, tmp_path / "again.vcf.gz")
    again = score(first.output, tmp_path / "again.vcf.gz", prefix="SECOND.one", context=20)
    added = [name.replace("MUTBERT", "SECOND.one") for name in ADDED]
    assert records_of(again.output, without=added) == records_of(first.output)
    assert len(re.findall("^##mutbert_score=", read_text(again.output), re.MULTILINE)) == 2


@pytest.mark.parametrize(
    ("output", "settings", "message"),
    [
        ("out.txt", {}, r"must be one of \.vcf\.gz, \.vcf"),
        (".vcf.gz", {}, "must be one of"),
        ("out.vcf", {"calibrate": True}, r"must be one of \.json$"),
        ("out.vcf", {"table": "out.vcf"}, "must be one of"),
        ("out.json", {"calibrate": True, "frequency_field": "AF"}, "leave out"),
        ("out.json", {"calibrate": True, "windows": "shared"}, "windows are shared, .*; choose centred"),
        ("absent/out.vcf", {}, "the directory .*absent does not exist"),
        ("there.vcf", {}, "exists already"),
        ("in.vcf", {"force": True}, "the input .*in.vcf would be lost"),
        ("folder.vcf", {"force": True}, "is not a regular file"),
        ("out.vcf", {"prefix": "a b"}, "prefix is 'a b'"),
        ("out.vcf", {"frequency_field": "AF", "scores": ("unmasked",)}, "add llr to scores"),
        ("out.vcf", {"calibration": "absent.json"}, r"absent\.json: is no background"),
        ("out.vcf", {"surroundings": "person", "sample": "eve"}, "no sample eve"),
        ("out.vcf", {"person_vcf": "in.vcf"}, "choose person for it"),
        ("out.vcf", {"scores": ("best",)}, "best"),
        ("out.vcf", {"windows": "wide"}, "windows is 'wide'"),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(genome, write, lines, tmp_path, output, settings, message):
    vcf = write(tmp_path / "in.vcf", lines(5))
    (tmp_path / "there.vcf").touch()
    (tmp_path / "folder.vcf").mkdir()
    for name in {"table", "calibration", "person_vcf"} & set(settings):
        settings = settings | {name: tmp_path / settings[name]}
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message) as caught:
        score_variants("no/model", genome, vcf, tmp_path / output, **settings)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf", ".vcf", ".tsv", ".parquet"])
def test_nothing_at_all_comes_out_as_nothing(score, write, tmp_path, suffix):
    report = score(write(tmp_path / "in.vcf", []), tmp_path / f"out{suffix}")
    assert (report.index is not None) == (suffix in {".vcf.gz", ".bcf"})
    assert (report.records, report.alleles, report.scored, report.missing) == (0, 0, {}, {})
