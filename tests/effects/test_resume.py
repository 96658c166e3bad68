"""Runs in parts, killed and resumed, shared by processes, or region by region, end as one unbroken run does."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pysam
import pytest

from mutbert.errors import InputError


@pytest.fixture(scope="module")
def vcf(write, lines, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("parts") / "in.vcf.gz", lines(400))
    pysam.tabix_index(str(path), preset="vcf")
    return path


@pytest.fixture(scope="module")
def command(model_folders, genome, vcf):
    """The arguments of a run of more than 80 parts that does what `score` does here."""
    words = ["-m", "mutbert", "score", "--model", model_folders["mutbert"], "--genome", genome, "--vcf", vcf]
    return [*words, "--context", "30", "--strands", "forward", "--flank", "2", "--part-records", "5", "-o"]


@pytest.fixture(scope="module")
def stopped(command, tmp_path_factory):
    """The folder of a run that was killed when ten parts were there."""
    output = tmp_path_factory.mktemp("killed") / "out.tsv"
    words = [sys.executable, "-P", *map(str, [*command, output])]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        folder = output.with_name("out.tsv.parts")
        while process.poll() is None and len(list(folder.glob("[0-9]*.parquet"))) < 10:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return folder


@pytest.fixture
def again(stopped, score, vcf, tmp_path):
    """Score again where a copy of a stopped run lies."""
    shutil.copytree(stopped, tmp_path / "out.tsv.parts")
    return lambda **settings: score(vcf, tmp_path / "out.tsv", **{"part_records": 5, **settings})


@pytest.fixture(scope="module")
def whole(score, vcf, tmp_path_factory):
    report = score(vcf, tmp_path_factory.mktemp("whole") / "whole.tsv", part_records=5)
    return report, read(report.output)


def read(path):
    return pl.read_csv(path, separator="\t", infer_schema_length=None)


def assert_same(one, other):
    assert one.columns == other.columns
    for name in one.columns:
        if one[name].dtype == pl.Float64:
            np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), atol=1e-5)
        else:
            assert one[name].to_list() == other[name].to_list()


def test_a_killed_run_goes_on_and_ends_the_same(stopped, score, vcf, whole, tmp_path):
    folder, output = tmp_path / "out.tsv.parts", tmp_path / "out.tsv"
    shutil.copytree(stopped, folder)
    finished = sorted(folder.glob("[0-9]*.parquet"))
    # A part that was scored again would lose what is written into it here.
    first = pl.read_parquet(finished[0])
    first.with_columns(pl.lit("kept").alias("id")).write_parquet(finished[0])
    report = score(vcf, output, resume=True, part_records=5)
    found = read(output)
    assert found["id"].to_list()[: len(first)] == ["kept"] * len(first)
    assert_same(found.drop("id"), whole[1].drop("id"))
    assert (report.records, report.scored, report.missing) == (whole[0].records, whole[0].scored, whole[0].missing)
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"region": "chr3"}, "region 'chr3': no such contig"),
        ({}, r"out\.tsv\.parts: has a stopped run; use --resume to go on from part \d+, or choose another output$"),
        ({"resume": True, "context": 20, "part_records": 6}, "context was 30 and is 20; .*part_records was 5 and is 6"),
    ],
)
def test_a_stopped_run_is_neither_lost_nor_taken_for_another(again, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        again(**change)
    assert len(list((tmp_path / "out.tsv.parts").glob("[0-9]*.parquet"))) >= 5


@pytest.mark.nightly
def test_processes_of_torchrun_share_one_output(command, whole, tmp_path):
    words = ["-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, *command, tmp_path / "out.tsv"]
    environment = {name: value for name, value in os.environ.items() if name not in {"RANK", "WORLD_SIZE"}}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        check=True, capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout.count("records: 399\n") == 1
    assert_same(read(tmp_path / "out.tsv"), whole[1])
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


def test_shared_windows_are_not_cut_by_parts(score, write, contigs, tmp_path):
    # At a contig's end, windows of two cells of the grid are one: its SNVs are every second base.
    places = [
        (name, at) for name in ("chr1", "chr2") for at in range(len(contigs[name]) - 80, len(contigs[name]) + 1, 2)
    ]
    snvs = [(name, at, contigs[name][at - 1], "AC"[contigs[name][at - 1] == "A"]) for name, at in places]
    lines = [f"{name}\t{at}\t.\t{ref}\t{alt}\t.\t.\t." for name, at, ref, alt in snvs]
    vcf = write(tmp_path / "in.vcf", lines)
    for context in (48, 60, 62):
        found = [
            read(score(vcf, tmp_path / f"{context}-{n}.tsv", windows="shared", context=context, part_records=n).output)
            for n in (3, 1000)
        ]
        assert_same(*found)
        assert len(found[0]) == len(lines)
    unsorted = write(tmp_path / "unsorted.vcf", lines[::-1])
    with pytest.raises(InputError, match=r"unsorted\.vcf: chr2:298 comes too late, and shared windows need a sorted"):
        score(unsorted, tmp_path / "out.tsv", windows="shared")


@pytest.mark.parametrize(
    "regions",
    [
        [("chr2", 1, 150)],
        [("chr2", 10, 200), ("chr1", 100, 300), ("chr1", 250, 260), ("1", 301, 310)],
        [("chr1", at, at) for at in range(1, 601, 2)],
    ],
)
def test_regions_have_the_records_whose_pos_is_in_one(score, write, lines, tmp_path, regions):
    vcf = write(tmp_path / "in.vcf.gz", lines(60))
    pysam.tabix_index(str(vcf), preset="vcf", force=True)
    (tmp_path / "some.bed").write_text("".join(f"{name}\t{first - 1}\t{last}\n" for name, first, last in regions))
    whole = score(vcf, tmp_path / "whole.tsv").output
    places = [(f"chr{name.removeprefix('chr')}", first, last) for name, first, last in regions]
    inside = [pl.col("chrom").eq(name) & pl.col("pos").is_between(first, last) for name, first, last in places]
    wanted = read(whole).filter(pl.any_horizontal(inside))
    texts = [f"{name}:{first}-{last}" for name, first, last in regions]
    for number, where in enumerate([{"region": texts}, {"bed": tmp_path / "some.bed"}]):
        found = score(vcf, tmp_path / f"{number}.vcf.gz", table=tmp_path / f"{number}.tsv", **where)
        assert_same(read(tmp_path / f"{number}.tsv"), wanted)
        assert (found.alleles, found.index is not None) == (len(wanted), True)
