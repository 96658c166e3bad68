"""A VCF scored as a whole: records as they went in, the scorer's numbers, and every allele accounted for."""

import copy
import gzip
import json
import math
import re

import numpy as np
import pysam
import pysam.bcftools
import pytest
import torch

from mutbert import build_genome, merge_scores, score_variants
from mutbert.effects.scores import ScoreSettings, open_scorer
from mutbert.errors import InputError
from mutbert.files import sha256_of

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
    report = score(vcf, tmp_path / "out.vcf.gz")
    return vcf, report


def test_every_record_comes_out_as_it_went_in_but_for_what_is_added(scored, records_of, capfd):
    vcf, report = scored
    assert records_of(report.output, without=ADDED) == records_of(vcf)
    names = ",".join(f"INFO/{name}" for name in ADDED)
    removed = pysam.bcftools.annotate("--no-version", "-x", names, str(report.output)).splitlines()
    assert [line for line in removed if not line.startswith("#")] == records_of(vcf)
    for before, after in zip(records(vcf), records(report.output), strict=True):
        # Byte for byte: what is added stands behind what was there, or in place of a dot.
        added = ";".join(f"{name}={value}" for name, value in info(after).items())
        assert after == [*before[:7], added if before[7] == "." else f"{before[7]};{added}", *before[8:]]
    pysam.bcftools.stats(str(report.output))
    assert capfd.readouterr().err == ""


def test_the_header_is_the_inputs_with_lines_added(scored):
    vcf, report = scored
    before = [line for line in read_text(vcf).splitlines() if line.startswith("#")]
    after = [line for line in read_text(report.output).splitlines() if line.startswith("#")]
    added = after[len(before) - 1 : -1]
    assert [*before[:-1], *added, before[-1]] == after
    assert [line.partition(",")[0] for line in added[:-1]] == [f"##INFO=<ID={name}" for name in ADDED]
    assert added[-1].startswith("##mutbert_score=<ID=MUTBERT,Version=")
    assert "windows=centred; strands=forward" in added[-1]
    # Neither a place on this machine nor a date.
    assert str(vcf.parent) not in added[-1]
    assert not re.search(r"20\d\d-", added[-1])


def test_values_are_the_scorers(scored, loaded, genome):
    vcf, report = scored
    scorer = open_scorer(loaded, genome, settings=ScoreSettings(context=30, strands="forward", flank=2))
    compared = 0
    for before, after in zip(records(vcf), records(report.output), strict=True):
        # One record at a time, so that no other can have a part in it.
        alleles = scorer.find([before[0]], [int(before[1])], [before[3]], [before[4]])
        score_AF = scorer.score(alleles)
        found = info(after)
        for name, column_A in zip(FIELDS, score_AF.T, strict=True):
            if np.isnan(column_A).all():
                assert name not in found
                continue
            values = [math.nan if text == "." else float(text) for text in found[name].split(",")]
            np.testing.assert_allclose(values, column_A, rtol=2e-5, atol=1e-6)
            compared += len(values)
    assert compared > 60


def test_every_allele_is_accounted_for(scored):
    vcf, report = scored
    alleles = sum(columns[4].count(",") + 1 for columns in records(vcf))
    assert (report.records, report.alleles) == (len(records(vcf)), alleles)
    assert sum(report.scored.values()) + sum(report.missing.values()) == alleles
    reasons = [word for columns in records(report.output) for word in info(columns).get("MUTBERT_WHY", "").split(",")]
    for reason, count in report.missing.items():
        assert reasons.count(reason) == count > 0
    assert set(report.scored) == {"snv", "mnv", "indel"}
    assert report.index == report.output.with_name("out.vcf.gz.tbi")


@pytest.mark.parametrize("suffix", [".vcf", ".bcf", ".tsv", ".tsv.gz", ".parquet"])
def test_every_format_holds_the_same(scored, score, tmp_path, suffix, records_of):
    vcf, first = scored
    report = score(vcf, tmp_path / f"other{suffix}")
    assert dict(report.scored) == dict(first.scored)
    if suffix == ".vcf":
        assert report.output.read_bytes() == gzip.decompress(first.output.read_bytes())
        assert report.index is None
        assert report.why_no_index == ".vcf files have none"
        return
    if suffix == ".bcf":
        assert records_of(report.output) == records_of(first.output)
        assert report.index == report.output.with_name("other.bcf.csi")
        return
    rows = [
        (columns[0], int(columns[1]), columns[2], columns[3], alternate, number, info(columns))
        for columns in records(first.output)
        for number, alternate in enumerate(columns[4].split(","))
    ]
    if suffix == ".parquet":
        from pyarrow import parquet

        found = parquet.read_table(report.output).to_pylist()
    else:
        names, *values = [line.split("\t") for line in read_text(report.output).splitlines()]
        found = [dict(zip(names, (value or None for value in row), strict=True)) for row in values]
    assert len(found) == len(rows) == report.alleles
    for row, (name, position, own, reference, alternate, number, words) in zip(found, rows, strict=True):
        assert [row[key] for key in ("chrom", "id", "ref", "alt")] == [name, own, reference, alternate]
        assert int(row["pos"]) == position
        for key in ("LLR", "ENT", "PLLR"):
            text = words.get(f"MUTBERT_{key}", "").split(",")
            text = text[number] if len(text) > number else ""
            if text in {"", "."}:
                assert row[key] is None
            else:
                assert float(row[key]) == pytest.approx(float(text), rel=1e-5)
        why = words.get("MUTBERT_WHY", "").split(",")
        assert row["why"] == (why[number] if len(why) > number and why[number] not in {"", "."} else None)
        assert row["kind"] in {"snv", "mnv", "indel", "none"}


def test_a_second_table_is_the_one_that_is_written_alone(scored, score, tmp_path):
    vcf, first = scored
    alone = score(vcf, tmp_path / "alone.parquet")
    for suffix in (".parquet", ".tsv.gz"):
        both = score(vcf, tmp_path / "both.vcf.gz", table=tmp_path / f"second{suffix}", force=True)
        assert both.output.read_bytes() == first.output.read_bytes()
    assert (tmp_path / "second.parquet").read_bytes() == alone.output.read_bytes()
    score(vcf, tmp_path / "plain.tsv", table=tmp_path / "packed.tsv.gz")
    assert (
        read_text(tmp_path / "plain.tsv")
        == read_text(tmp_path / "packed.tsv.gz")
        == read_text(tmp_path / "second.tsv.gz")
    )


def test_the_index_finds_what_a_whole_reading_finds(scored):
    _, report = scored
    with pysam.VariantFile(str(report.output)) as file:
        found = [str(record) for record in file.fetch("chr1", 100, 300)]
    expected = ["\t".join(columns) + "\n" for columns in records(report.output) if columns[0] == "chr1"]
    overlapping = [
        line
        for line in expected
        if int(line.split("\t")[1]) <= 300 and int(line.split("\t")[1]) - 1 + len(line.split("\t")[3]) > 100
    ]
    assert found == overlapping != []


def test_a_contig_longer_than_a_tbi_reaches_has_a_csi(score, write, tmp_path):
    header = "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n##contig=<ID=long,length=700000000>\n"
    first = "chr1\t5\t.\tN\t<DEL>\t.\t.\t."
    vcf = write(
        tmp_path / "in.vcf", [first, "long\t5\t.\tA\tC\t.\t.\t.", "long\t600000000\t.\tA\tC\t.\t.\t."], header=header
    )
    report = score(vcf, tmp_path / "out.vcf.gz")
    assert report.index == tmp_path / "out.vcf.gz.csi"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.vcf", "out.vcf.gz", "out.vcf.gz.csi"]
    assert report.missing == {"contig_not_in_genome": 2, "symbolic": 1}
    with pysam.VariantFile(str(report.output)) as file:
        assert [record.pos for record in file.fetch("long", 500_000_000)] == [600_000_000]


def test_records_out_of_order_have_no_index(score, write, lines, tmp_path, records_of):
    vcf = write(tmp_path / "in.vcf", lines(20)[::-1])
    (tmp_path / "out.vcf.gz.tbi").write_bytes(b"of what was there before")
    for suffix in (".vcf.gz", ".bcf"):
        report = score(vcf, tmp_path / f"out{suffix}")
        assert (report.index, report.why_no_index) == (None, "the records are not in order")
        assert records_of(report.output, without=ADDED) == records_of(vcf)
    assert not list(tmp_path.glob("*.tbi"))
    with pytest.raises(InputError, match=r"in\.vcf, line 10: .*shared windows need a sorted file"):
        score(vcf, tmp_path / "shared.vcf.gz", windows="shared")
    assert not list(tmp_path.glob("*.parts"))


def test_contigs_that_no_line_declares_are_declared(score, write, lines, tmp_path, capfd, records_of, header):
    header = "".join(line for line in header.splitlines(keepends=True) if not line.startswith("##contig"))
    vcf = write(tmp_path / "in.vcf", lines(10), header=header)
    outputs = [score(vcf, tmp_path / name).output for name in ("out.vcf", "out.vcf.gz", "out.bcf")]
    seen = [records_of(path) for path in outputs]
    assert seen[0] == seen[1] == seen[2] != []
    assert capfd.readouterr().err == ""
    assert "##contig=<ID=chr2,length=300>" in read_text(outputs[0])


def test_bcf_takes_what_its_header_does_not_declare(score, write, tmp_path, records_of):
    lines = ["chr1\t5\t.\tA\tC\t.\tnew\tNEW=3", "other\t7\t.\tA\tC\t.\t.\tMORE"]
    vcf = write(tmp_path / "in.vcf", lines)
    report = score(vcf, tmp_path / "out.bcf")
    assert [line.split("\t")[:7] for line in records_of(report.output)] == [line.split("\t")[:7] for line in lines]
    assert report.index is not None


BCF_HEADER = """##fileformat=VCFv4.2
##contig=<ID=chr1,length=600>
##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">
##INFO=<ID=P,Number=1,Type=Float,Description="P value">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Depth">
"""
GENOTYPES = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tann\tbob"


def bcf_line(position=50, qual=".", info=".", rest="GT:DP\t0/1:3\t0/1:4"):
    return f"chr1\t{position}\t.\tN\t<DEL>\t{qual}\t.\t{info}\t{rest}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"info": "DP=abc"}, r"of INFO, BCF would keep 'DP=abc' as 'DP=\.', by what the header says"),
        ({"info": "NEW=7;DP=3.5"}, "'DP=3.5' as 'DP=3'"),
        ({"info": "DP=99999999999"}, r"'DP=99999999999' as 'DP=\.'"),
        ({"info": "P=1e-300"}, "'P=1e-300' as 'P=0'"),
        ({"qual": "high"}, "of QUAL, BCF would keep 'high' as '0'"),
        ({"rest": "GT:DP\t0/x:3\t0/1:4"}, "htslib cannot read what the record has in INFO, FORMAT or samples"),
        ({"rest": "GT:DP\t0/1:abc\t0/1:4"}, "htslib cannot read"),
        ({"rest": "GT\t0/1:3\t0/1"}, "htslib cannot read"),
        ({"rest": "GT:DP\t0/1:3.5\t0/1:4"}, "htslib cannot read|of a sample, BCF would keep"),
        ({"rest": "GT:DP\t0/1:3\t0/1:4\t0/0:5"}, r"of a sample, BCF would keep '0/0:5' as '\.'"),
        ({"position": 3000000000}, "or its POS is too large"),
    ],
)
def test_what_bcf_would_not_keep_is_refused_before_anything_is_scored(
    score, write, tmp_path, monkeypatch, small_parts, capfd, line, message
):
    good = [bcf_line(info="UNDECLARED=1")] * 8
    vcf = write(tmp_path / "in.vcf", [*good, bcf_line(**line)], header=BCF_HEADER, columns=GENOTYPES)
    with monkeypatch.context() as patch:
        patch.setattr("mutbert.effects.scores.Scorer.score", lambda *_: pytest.fail("scored"))
        with pytest.raises(
            InputError, match=rf"in\.vcf, line 16 \(chr1:\d+\): .*({message}).*; write \.vcf\.gz"
        ) as caught:
            score(vcf, tmp_path / "out.bcf")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]
    report = score(vcf, tmp_path / "out.vcf.gz", shard=(1, 1))
    assert records(report.output)[-1][5:7] == records(vcf)[-1][5:7]
    # Shards of text cannot be merged to BCF either, which is seen before they are lost.
    shards = [score(vcf, tmp_path / "two.vcf.gz", shard=(part, 2)).output for part in (1, 2)]
    with pytest.raises(InputError, match=rf"out\.bcf: chr1:\d+: .*({message})"):
        merge_scores(shards, tmp_path / "out.bcf")
    assert not (tmp_path / "out.bcf").exists()
    assert capfd.readouterr().err == ""


def test_what_bcf_writes_otherwise_and_keeps_is_not_refused(score, write, tmp_path, records_of):
    lines = [
        bcf_line(qual="100.123456789", info="P=0.123456789;;DP=007;"),
        bcf_line(info="DP=.;P=NaN;FLAG;NEW=a,b:c=d;DP=3"),
        bcf_line(info="DP=", rest="GT:DP\t0/1\t./."),
        bcf_line(info="P=-inf", rest="DP:GT:ODD\t3:.|1:x,y\t.:1"),
    ]
    vcf = write(tmp_path / "in.vcf", lines, header=BCF_HEADER, columns=GENOTYPES)
    one, two = (score(vcf, tmp_path / name).output for name in ("out.bcf", "out.vcf.gz"))
    # As bcftools reads both.
    assert [line.replace(":.", "") for line in records_of(one)] == [
        line.replace("0.123456789", "0.123457").replace(":.", "") for line in records_of(two)
    ]


@pytest.mark.parametrize("kind", [".vcf.gz", ".bcf", ".tsv"])
def test_a_field_of_ours_that_no_header_declares_is_found_before_anything_is_scored(
    score, write, lines, tmp_path, monkeypatch, small_parts, kind
):
    more = [f"chr2\t{290 + number}\t.\tN\t<DEL>\t.\t.\t{info}" for number, info in enumerate((".", "MUTBERT_WHY=x"))]
    vcf = write(tmp_path / "in.vcf", [*lines(15), *more])
    if kind == ".tsv":
        # A table has it not.
        assert score(vcf, tmp_path / "out.tsv").records == len(lines(15)) + 2
        return
    monkeypatch.setattr("mutbert.effects.scores.Scorer.score", lambda *_: pytest.fail("scored"))
    with pytest.raises(InputError, match=r"in\.vcf, line \d+ \(chr2:291\): the record has an INFO field MUTBERT_WHY"):
        score(vcf, tmp_path / f"out{kind}")
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]


def test_contigs_are_declared_by_the_names_that_records_have(loaded, write, contigs, tmp_path, capfd):
    (tmp_path / "ref.fa").write_text(f">22\n{contigs['chr1']}\n>MT\n{contigs['chr2']}\n>absent\nACGT\n")
    build_genome(fasta=[tmp_path / "ref.fa"], output=tmp_path / "22.genome")
    base, mitochondrial = contigs["chr1"][49], contigs["chr2"][9]
    lines = [
        f"chr22\t50\t.\t{base}\t{'A' if base != 'A' else 'C'}\t.\t.\t.",
        "chrUn_1\t7\t.\tA\tC\t.\t.\t.",
        f"chrM\t10\t.\t{mitochondrial}\t{'A' if mitochondrial != 'A' else 'C'}\t.\t.\t.",
    ]
    vcf = write(tmp_path / "in.vcf", lines, header="##fileformat=VCFv4.2\n")
    how = {"context": 30, "strands": "forward", "flank": 2}
    for name in ("out.vcf.gz", "out.bcf"):
        report = score_variants(loaded, tmp_path / "22.genome", vcf, tmp_path / name, **how)
        assert report.scored == {"snv": 2}
        header = pysam.bcftools.view("-h", "--no-version", str(report.output))
        assert re.findall("##contig=.*", header) == [
            "##contig=<ID=chr22,length=600>", "##contig=<ID=chrUn_1>", "##contig=<ID=chrM,length=300>",
        ]  # fmt: skip
        assert pysam.bcftools.view("-H", str(report.output), "chr22:1-100").startswith("chr22\t50")
        pysam.bcftools.stats(str(report.output))
    assert capfd.readouterr().err == ""


def compared(contigs, good, bad):
    """SNVs of which so many have REF as the genome has it, and so many have not."""
    lines = []
    for position in range(1, good + bad + 1):
        base = contigs["chr1"][position - 1]
        ref = base if position <= good else "ACGT"["ACGT".index(base) - 1]
        lines.append(f"chr1\t{position}\t.\t{ref}\t{'ACGT'['ACGT'.index(ref) - 1]},<DEL>\t.\t.\t.")
    return [*lines, *["chr9\t5\t.\tA\tC\t.\t.\t."] * 300]


@pytest.mark.parametrize(
    ("good", "bad", "outcome"),
    [
        (18, 2, None),
        (17, 3, "warned"),
        (0, 19, None),
        (1, 98, "warned"),
        (50, 50, "warned"),
        (49, 51, "refused"),
        (0, 150, "refused"),
    ],
)
def test_a_file_of_another_assembly_is_told_by_its_ref(
    score, write, contigs, tmp_path, monkeypatch, capsys, small_parts, good, bad, outcome
):
    vcf = write(tmp_path / "in.vcf", compared(contigs, good, bad))
    said = f"in.vcf: of {good + bad} records, {bad} have another REF than small.genome ({bad / (good + bad):.0%})"
    if outcome == "refused":
        monkeypatch.setattr("mutbert.effects.scores.Scorer.score", lambda *_: pytest.fail("scored"))
        with pytest.raises(InputError, match=re.escape(said) + ", so it is of another assembly; give the genome that"):
            score(vcf, tmp_path / "out.vcf.gz", force=True)
        assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]
        return
    report = score(vcf, tmp_path / "out.vcf.gz", progress=True)
    assert report.missing.get("reference_mismatch", 0) == bad
    err = [line for line in capsys.readouterr().err.splitlines() if "another REF" in line]
    assert len(report.warnings) == len(err) == (outcome == "warned")
    if outcome == "warned":
        assert said in report.warnings[0]
        assert err == [f"mutbert: {report.warnings[0]}"]
    # Without progress, nothing is printed.
    shards = [score(vcf, tmp_path / "two.vcf.gz", shard=(part, 2)).output for part in (1, 2)]
    assert merge_scores(shards, tmp_path / "two.vcf.gz").warnings == report.warnings
    assert capsys.readouterr().err == ""


def test_what_is_not_a_number_is_said_to_be_none(loaded, genome, write, lines, tmp_path):
    broken = copy.deepcopy(loaded)
    with torch.no_grad():
        broken.bert.embeddings.word_embeddings.weight[5] = math.nan
    vcf = write(tmp_path / "in.vcf", lines(30))
    how = {"context": 30, "strands": "forward", "flank": 2}
    for scores, kinds in ((("llr",), 0), (("unmasked",), 1)):
        report = score_variants(broken, genome, vcf, tmp_path / "out.tsv", scores=scores, force=True, **how)
        assert report.scored == {}
        assert set(report.missing) == {"symbolic", "not_a_number", "no_score_of_its_kind"}.difference(
            [] if kinds else ["no_score_of_its_kind"]
        )
        for row in records(report.output)[1:]:
            expected = {"none": "symbolic", "snv": "not_a_number"}.get(
                row[5], "no_score_of_its_kind" if kinds else "not_a_number"
            )
            assert row[-1] == expected


def test_a_file_is_read_once_for_its_checksum(score, write, contigs, tmp_path, monkeypatch, capsys):
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tann"
    vcf = write(tmp_path / "in.vcf", ["chr1\t120\t.\tN\t<DEL>\t.\t.\t.\tGT\t0|1"], columns=columns)
    read = []
    monkeypatch.setattr(
        "mutbert.effects.fingerprint.sha256_of", lambda path, advance: read.append(path) or sha256_of(path, advance)
    )
    (tmp_path / "folder").mkdir()
    again = tmp_path / "folder" / ".." / "in.vcf"
    for settings in ({}, {"person_vcf": again}):
        score(vcf, tmp_path / "out.tsv", surroundings="person", sample="ann", force=True, progress=True, **settings)
        assert len(read) == 1
        read.clear()
    assert f"checking files: {vcf.stat().st_size} B of" in capsys.readouterr().err


def test_bcf_comes_in_too(score, write, lines, tmp_path, records_of):
    from_text = score(write(tmp_path / "in.vcf", lines(20)), tmp_path / "text.vcf")
    vcf = write(tmp_path / "packed.bcf", lines(20))
    report = score(vcf, tmp_path / "out.bcf")
    assert records_of(report.output) == records_of(from_text.output)


def test_three_thousand_samples_are_not_touched(score, write, lines, tmp_path):
    generator = np.random.default_rng(0)
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t" + "\t".join(f"s{n}" for n in range(3000))
    wide = [line + "\tGT\t" + "\t".join(generator.choice(["0|0", "0|1", "./."], 3000)) for line in lines(12)]
    vcf = write(tmp_path / "in.vcf", wide, columns=columns)
    report = score(vcf, tmp_path / "out.vcf.gz")
    assert [columns[8:] for columns in records(report.output)] == [columns[8:] for columns in records(vcf)]
    assert report.index is not None


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
        (first, "AF=.", None),
        (first, ".", None),
        (f"{base}TT", "AF=0.5", None),
    ]
    vcf = write(tmp_path / "in.vcf", [f"chr1\t100\t.\t{base}\t{alt}\t.\t.\t{info}" for alt, info, _ in cases])
    report = score(vcf, tmp_path / "out.vcf", frequency_field="AF")
    for columns, (_, _, frequencies) in zip(records(report.output), cases, strict=True):
        found = info(columns)
        assert ("MUTBERT_AFLLR" in found) == (frequencies is not None)
        if frequencies is not None:
            rest = max(1 - sum(frequencies), 0)
            for ratio, adjusted, frequency in zip(
                found["MUTBERT_LLR"].split(","), found["MUTBERT_AFLLR"].split(","), frequencies, strict=True
            ):
                expected = float(ratio) + math.log((frequency + 1e-4) / (rest + 1e-4))
                assert float(adjusted) == pytest.approx(expected, abs=1e-5)
    assert report.without_frequency == 4


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        (
            "chr1\t5\t.\tA\tC\t.\t.\tAF=1.5",
            "AF",
            r"line 9 \(chr1:5\): INFO field AF is 1.5, but a frequency is from 0 to 1",
        ),
        ("chr1\t5\t.\tA\tC\t.\t.\tAF=-0.1", "AF", "a frequency is from 0 to 1"),
        ("chr1\t5\t.\tA\tC\t.\t.\tAF=0.1,0.2", "AF", "2 values for 1 alternate"),
        ("chr1\t5\t.\tA\tC\t.\t.\tAF=x", "AF", "no number"),
        ("chr1\t5\t.\tA\tC\t.\t.\t.", "EUR_AF", "declares no INFO field EUR_AF; of frequencies it has AF"),
        ("chr1\t5\t.\tA\tC\t.\t.\t.", "DB", "frequencies are Number=A, Type=Float"),
    ],
)
def test_what_is_no_frequency_is_refused(score, write, lines, tmp_path, line, field, message):
    # Behind many good records, and yet before the first is scored.
    vcf = write(tmp_path / "in.vcf", [line, *lines(5)])
    with pytest.raises(InputError, match=message):
        score(vcf, tmp_path / "out.vcf", frequency_field=field)
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]


def test_the_last_record_is_looked_at_before_the_first_is_scored(
    score, write, lines, tmp_path, monkeypatch, small_parts
):
    monkeypatch.setattr("mutbert.effects.scores.Scorer.score", lambda *_: pytest.fail("scored"))
    vcf = write(tmp_path / "in.vcf", [*lines(30), "chr1\tx\t.\tA\tC\t.\t.\t."])
    with pytest.raises(InputError, match="POS 'x'"):
        score(vcf, tmp_path / "out.vcf")


def test_chunks_are_read_as_they_are_scored(score, write, lines, tmp_path, monkeypatch, small_parts):
    from mutbert.effects.parts import Parts
    from mutbert.effects.records import RecordFile

    given, written = [], []
    read, put = RecordFile.chunks, Parts.write

    def chunks(self, *arguments):
        for chunk in read(self, *arguments):
            given.append(chunk.number)
            yield chunk

    def write_part(self, number, *arguments):
        # The first reading is the check of the whole file, which keeps nothing; in the second, one is scored meanwhile.
        assert number + 1 <= len(given) - 9 <= number + 2
        written.append(number)
        put(self, number, *arguments)

    monkeypatch.setattr(RecordFile, "chunks", chunks)
    monkeypatch.setattr(Parts, "write", write_part)
    report = score(write(tmp_path / "in.vcf", lines(60)), tmp_path / "out.vcf")
    assert written == list(range(9))
    assert report.records == 60


def test_batches_and_parts_change_rounding_alone(scored, score, tmp_path, small_parts):
    vcf, first = scored
    other = score(vcf, tmp_path / "other.vcf.gz", batch_size=3)
    for one, two in zip(records(first.output), records(other.output), strict=True):
        assert list(info(one)) == list(info(two))
        for name in FIELDS:
            for left, right in zip(info(one).get(name, "").split(","), info(two).get(name, "").split(","), strict=True):
                assert left == right if left in {"", "."} else float(left) == pytest.approx(float(right), abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"scores": ("unmasked",)}, ("ULLR",)),
        ({"scores": ("distance", "llr")}, ("LLR", "ENT", "PLLR", "L2", "COS", "L2_WINDOW", "COS_WINDOW")),
        ({"windows": "shared"}, ("LLR", "ENT", "PLLR")),
        ({"surroundings": "population", "strands": "both"}, ("LLR", "ENT", "PLLR")),
        ({"context": 100, "rope_scaling": {"type": "dynamic", "factor": 2}}, ("LLR", "ENT", "PLLR")),
    ],
)
def test_settings_reach_the_scorer(score, write, lines, tmp_path, settings, fields):
    vcf = write(tmp_path / "in.vcf", lines(15))
    report = score(vcf, tmp_path / "out.tsv", **settings)
    assert report.fields == fields
    assert sum(report.scored.values()) + sum(report.missing.values()) == report.alleles
    if fields == ("ULLR",):
        assert report.missing["no_score_of_its_kind"] > 0
        assert set(report.scored) == {"snv"}
    else:
        assert set(report.missing) == {"symbolic"}


def test_a_person_is_looked_up_in_the_scored_file_unless_another_is_given(score, write, contigs, tmp_path):
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tann\tbob"
    bases = {position: contigs["chr1"][position - 1] for position in (100, 104)}
    other = {position: "ACGT"["ACGT".index(base) - 1] for position, base in bases.items()}
    own = [
        f"chr1\t{position}\t.\t{bases[position]}\t{other[position]}\t.\t.\t.\tGT\t{genotypes}"
        for position, genotypes in ((100, "0|0\t0|0"), (104, "1|1\t0|0"))
    ]
    vcf = write(tmp_path / "in.vcf", [*own, "chr1\t120\t.\tNN\tN\t.\t.\t.\tGT\t0|1\t0|0"], columns=columns)
    person = {"surroundings": "person", "sample": "ann"}
    ann = score(vcf, tmp_path / "ann.tsv", **person)
    bob = score(vcf, tmp_path / "bob.tsv", surroundings="person", sample="bob")
    nobody = score(vcf, tmp_path / "nobody.tsv")
    again = score(
        vcf, tmp_path / "again.tsv", person_vcf=write(tmp_path / "person.vcf", own, columns=columns), **person
    )
    assert ann.output.read_bytes() == again.output.read_bytes()
    assert bob.output.read_bytes() == nobody.output.read_bytes()
    first, second = (records(one.output)[1] for one in (ann, nobody))
    assert first[:6] == second[:6]
    assert first[6] != second[6]
    assert ann.person_not_used is not None
    assert nobody.person_not_used is None
    with pytest.raises(InputError, match="eve"):
        score(vcf, tmp_path / "eve.tsv", surroundings="person", sample="eve")


def test_a_scored_file_is_scored_again_under_another_prefix(scored, score, tmp_path, records_of, capfd):
    _, first = scored
    with pytest.raises(InputError, match=r"MUTBERT_LLR already.*--prefix"):
        score(first.output, tmp_path / "again.vcf.gz")
    again = score(first.output, tmp_path / "again.vcf.gz", prefix="SECOND.one", context=20)
    assert records_of(again.output, without=[name.replace("MUTBERT", "SECOND.one") for name in ADDED]) == records_of(
        first.output
    )
    assert len(re.findall("^##mutbert_score=", read_text(again.output), re.MULTILINE)) == 2
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("output", "settings", "message"),
    [
        ("out.txt", {}, r"must be one of \.vcf\.gz, \.vcf"),
        (".vcf.gz", {}, "must be one of"),
        ("out.json", {}, r"\.json is for --calibrate"),
        ("out.vcf", {"calibrate": True}, r"must be one of \.json$"),
        ("out.vcf", {"table": "out.vcf"}, r"must be one of \.tsv, \.tsv\.gz, \.parquet$"),
        ("out.json", {"calibrate": True, "table": "x.tsv"}, "has no table"),
        ("out.json", {"calibrate": True, "frequency_field": "AF"}, "leave out"),
        ("out.json", {"calibrate": True, "windows": "shared"}, "windows are shared, .*; choose centred"),
        ("out.vcf", {"calibration": "absent.json", "windows": "shared"}, "windows are shared, .*; choose centred"),
        ("absent/out.vcf", {}, "the folder .*absent does not exist"),
        ("there.vcf", {}, "exists already"),
        ("out.vcf", {"table": "there.tsv"}, "exists already"),
        ("in.vcf", {"force": True}, "is an input too"),
        ("folder.vcf", {"force": True}, "is a folder"),
        ("out.tsv", {"table": "out.tsv"}, "is another output too"),
        ("out.vcf", {"prefix": "1st"}, "prefix is '1st'"),
        ("out.vcf", {"prefix": "a b"}, "prefix is 'a b'"),
        ("out.vcf", {"prefix": ""}, "prefix is ''"),
        ("out.vcf", {"frequency_field": "FREQ"}, "declares no INFO field FREQ"),
        ("out.vcf", {"frequency_field": "AF", "scores": ("unmasked",)}, "add llr to scores"),
        ("out.vcf", {"shard": (3, 2)}, "shard 3/2"),
        ("out.vcf", {"calibration": "absent.json"}, r"absent\.json: cannot be read"),
        ("out.vcf", {"calibration": "in.vcf.text"}, r"in\.vcf\.text: is no file of a background; make one by --calib"),
        ("out.vcf", {"surroundings": "person", "sample": "eve"}, r"no sample eve \(its samples: none\).*--person-vcf"),
        ("out.vcf", {"person_vcf": "in.vcf"}, "--person-vcf is given.*--surroundings person"),
        ("out.vcf", {"scores": ("best",)}, "best"),
        ("out.vcf", {"windows": "wide"}, "windows is 'wide'"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_the_model_is_loaded(genome, write, lines, tmp_path, output, settings, message):
    vcf = write(tmp_path / "in.vcf", lines(5))
    (tmp_path / "there.vcf").touch()
    (tmp_path / "there.tsv").touch()
    (tmp_path / "in.vcf.text").write_text("no JSON")
    (tmp_path / "folder.vcf").mkdir()
    for name in ("table", "calibration", "person_vcf"):
        if name in settings:
            settings = settings | {name: tmp_path / settings[name]}
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message) as caught:
        score_variants("no/model", genome, vcf, tmp_path / output, **settings)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_cannot_be_written_into_is_said(score, write, lines, tmp_path, monkeypatch):
    vcf = write(tmp_path / "in.vcf", lines(5))
    (tmp_path / "out.vcf.parts").write_text("a file")
    with pytest.raises(InputError, match=r"out\.vcf\.parts: cannot be made \(File exists\); choose another output$"):
        score(vcf, tmp_path / "out.vcf")


def test_nothing_at_all_comes_out_as_nothing(score, write, tmp_path, capfd):
    vcf = write(tmp_path / "in.vcf", [])
    for suffix in (".vcf.gz", ".bcf", ".tsv", ".parquet"):
        report = score(vcf, tmp_path / f"out{suffix}")
        assert (report.records, report.alleles, dict(report.scored), dict(report.missing)) == (0, 0, {}, {})
    assert pysam.bcftools.view("-H", str(tmp_path / "out.bcf")) == ""
    assert capfd.readouterr().err == ""


def test_the_command_line(model, genome, write, lines, tmp_path, monkeypatch, capsys):
    from mutbert.cli.main import run

    vcf = write(tmp_path / "in.vcf", lines(12))

    def mutbert(*words):
        monkeypatch.setattr("sys.argv", ["mutbert", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            run()
        return caught.value.code

    common = ["score", "--model", model, "--genome", genome, "--vcf", vcf, "--context", 30, "--strands", "forward"]
    assert (
        mutbert(*common, "-o", tmp_path / "out.vcf.gz", "--table", tmp_path / "out.tsv", "--frequency-field", "AF") == 0
    )
    told = capsys.readouterr()
    assert "out.vcf.gz: 12 records, 14 alternate alleles; scored: " in told.out
    assert "not scored: " in told.out
    assert "fields: LLR, ENT, PLLR, AFLLR" in told.out
    assert "variants/s" in told.err
    for part in (1, 2):
        assert mutbert(*common, "-o", tmp_path / "two.vcf.gz", "--shard", f"{part}/2", "--json") == 0
        assert json.loads(capsys.readouterr().out)["output"] == str(tmp_path / f"two.vcf.gz.shard-{part}-of-2")
    shards = sorted(tmp_path.glob("two.vcf.gz.shard-*"))
    assert mutbert("score", "merge", *shards, "-o", tmp_path / "two.vcf.gz", "--json") == 0
    merged = json.loads(capsys.readouterr().out)
    assert merged["records"] == 12
    assert merged["index"] == str(tmp_path / "two.vcf.gz.tbi")
    for words in (
        ["score", "--model", model],
        [*common, "-o", tmp_path / "out.vcf.gz"],
        [*common, "-o", tmp_path / "x.vcf", "--shard", "2"],
        [*common, "-o", tmp_path / "x.vcf", "--scores", "llr,best"],
        [*common, "-o", tmp_path / "x.vcf", "--rope-scaling", "dynamic"],
        ["score", "merge", tmp_path, "-o", tmp_path / "x.vcf"],
    ):
        assert mutbert(*words) == 2
        assert re.fullmatch("mutbert: .*\n", capsys.readouterr().err)


def test_where_the_genome_and_the_file_name_contigs_otherwise(score, write, contigs, tmp_path):
    header = "##fileformat=VCFv4.2\n##contig=<ID=1,length=600>\n"
    line = f"\t50\t.\t{contigs['chr1'][49]}\t{'A' if contigs['chr1'][49] != 'A' else 'C'}\t.\t.\t."
    one = score(write(tmp_path / "one.vcf", ["1" + line], header=header), tmp_path / "one.out.vcf")
    two = score(write(tmp_path / "two.vcf", ["chr1" + line]), tmp_path / "two.out.vcf")
    assert info(records(one.output)[0]) == info(records(two.output)[0]) != {}
    assert records(one.output)[0][0] == "1"


def test_a_genome_that_knows_a_population_changes_its_surroundings_alone(loaded, score, contigs, write, tmp_path):
    fasta = tmp_path / "ref.fa"
    fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in contigs.items()))
    base = contigs["chr1"][54]
    other = "ACGT"["ACGT".index(base) - 1]
    population = write(tmp_path / "population.vcf", [f"chr1\t55\t.\t{base}\t{other}\t.\tPASS\tAF=0.4"])
    build_genome(fasta=[fasta], vcf=[population], output=tmp_path / "known.genome")
    alternate = "A" if contigs["chr1"][49] != "A" else "C"
    vcf = write(tmp_path / "in.vcf", [f"chr1\t50\t.\t{contigs['chr1'][49]}\t{alternate}\t.\t.\t."])
    found = {}
    for surroundings in ("reference", "population"):
        output = tmp_path / f"{surroundings}.tsv"
        score_variants(
            loaded,
            tmp_path / "known.genome",
            vcf,
            output,
            context=30,
            strands="forward",
            flank=2,
            surroundings=surroundings,
        )
        found[surroundings] = records(output)[1]
    plain = score(vcf, tmp_path / "plain.tsv")
    assert found["reference"] == records(plain.output)[1]
    assert found["population"] != found["reference"]
