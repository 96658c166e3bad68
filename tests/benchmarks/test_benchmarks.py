"""Every benchmark from end to end at a tiny size, so that none of them rots; what they measure is not looked at."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pysam
import pytest

from mutbert import build_genome

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run_benchmark(name, *words):
    command = [sys.executable, BENCHMARKS / f"{name}.py", *words]
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    run_benchmark("synthetic_genome", "-o", folder, "--bases", 200_000, "--records", 4_000)
    return folder


def test_the_synthetic_genome_is_what_it_says(synthetic, tmp_path):
    truth = json.loads((synthetic / "truth.json").read_text())
    report = build_genome(synthetic / "ref.fa", tmp_path / "x.genome", synthetic / "sites.vcf.gz", min_frequency=0)
    counts = report.records[0]
    assert sum(report.lengths.values()) == truth["bases"] == 200_000
    assert counts.read == truth["records"] == 4_000
    assert counts.not_used.pop("insertion or deletion") == truth["insertion"] + truth["deletion"]
    assert not counts.not_used
    assert counts.decomposed == truth["several_nucleotides"]
    assert counts.used == truth["single_nucleotide"] + truth["several_nucleotides"]
    assert all(truth[kind] for kind in ("two_alternates", "several_nucleotides", "above_0.02"))


def test_a_whole_genome_is_built_by_one_and_by_two(synthetic, tmp_path):
    text = run_benchmark("whole_genome", synthetic, "-o", tmp_path / "out")
    assert [line.split("  ")[0] for line in text.splitlines()[-3:]] == ["htslib loop", "one worker", "two workers"]
    found = json.loads((tmp_path / "out" / "whole_genome.json").read_text())
    assert found["contenders"][1]["final_disk"] == found["contenders"][2]["final_disk"] > 50_000


def test_the_synthetic_sites_are_single_and_consistent(synthetic):
    """Against htslib: alleles at a place overlap no other's, and AF is AC over AN."""
    last = ("", 0)
    with (
        pysam.VariantFile(str(synthetic / "sites.vcf.gz")) as file,
        pysam.FastaFile(str(synthetic / "ref.fa")) as fasta,
    ):
        assert {"N", "a", "A"} <= set(fasta.fetch("chr1"))
        for record in file:
            assert fasta.fetch(record.contig, record.start, record.stop).upper() == record.ref
            assert record.ref not in record.alts
            assert len(set(record.alts)) == len(record.alts)
            changes = 1 if len(record.ref) != len(record.alts[0]) else len(record.ref)
            assert record.contig != last[0] or record.start >= last[1]
            last = (record.contig, record.start + changes)
            assert sum(record.info["AC"]) <= record.info["AN"]
            assert record.info["AF"] == pytest.approx(
                [count / record.info["AN"] for count in record.info["AC"]], rel=1e-5
            )


def test_the_synthetic_genome_is_the_same_however_it_is_written(synthetic, tmp_path):
    words = ("--bases", 200_000, "--records", 4_000, "--per-contig", "--bgzip")
    run_benchmark("synthetic_genome", "-o", tmp_path / "apart", *words)
    assert (tmp_path / "apart" / "truth.json").read_bytes() == (synthetic / "truth.json").read_bytes()
    with pysam.BGZFile(str(tmp_path / "apart" / "ref.fa.gz")) as file:
        assert file.read() == (synthetic / "ref.fa").read_bytes()
    with pysam.VariantFile(str(synthetic / "sites.vcf.gz")) as whole:
        for contig in whole.header.contigs:
            with pysam.VariantFile(str(tmp_path / "apart" / f"sites.{contig}.vcf.gz")) as part:
                assert [str(record) for record in part] == [str(record) for record in whole.fetch(contig)]


def test_random_access(synthetic, tmp_path):
    build_genome(synthetic / "ref.fa", tmp_path / "x.genome", synthetic / "sites.vcf.gz", min_frequency=0)
    words = ("--windows", 300, "--batch", 64, 100, "--repeats", 2, "--seconds", 1, "-o", tmp_path / "x.json")
    assert "in batches of 100" in run_benchmark("random_access", tmp_path / "x.genome", *words)
    warm = json.loads((tmp_path / "x.json").read_text())["warm"]
    assert list(warm) == ["one by one", "in batches of 64", "in batches of 100"]
    assert all(len(each) == 2 and min(each) > 0 for each in warm.values())


def test_what_can_be_mended_is_said_in_one_line(tmp_path):
    for words in (
        ("random_access", "absent.genome"),
        ("synthetic_genome", "-o", tmp_path / "absent" / "folder"),
        ("pretrain", "absent.genome"),
        ("pretrain", "absent.genome", "--batch", 0),
    ):
        command = [sys.executable, BENCHMARKS / f"{words[0]}.py", *words[1:]]
        ended = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
        assert ("--batch" if "--batch" in words else "absent") in ended.stderr


def test_building(tmp_path):
    text = run_benchmark("genome", "-o", tmp_path, "--length", 20_000, "--samples", 20, "--repeats", 1)
    result = json.loads((tmp_path / "genome.json").read_text())
    rows = {row["name"]: row for row in result["contenders"]}
    assert rows["htslib loop"]["times_loop"] == rows["mutbert"]["times_build"] == 1
    assert rows["mutbert"]["peak_disk"] >= rows["mutbert"]["final_disk"] > 20_000 / 4
    if shutil.which("bcftools"):
        assert rows["bcftools + NumPy"]["final_disk"] > 20_000 * 16
        assert result["comparison"]["equal"] > 0
        assert result["comparison"]["only_published"] == 0
    else:
        assert "bcftools is not installed" in text
    assert (tmp_path / "genome.svg").read_text().count("<svg") == 1
    assert (tmp_path / "genome.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("work-*"))


def test_the_model(tmp_path):
    size = ("--lengths", 32, "--tokens", 64, "--layers", 1, "--hidden", 64, "--repeats", 1, "--no-compile")
    text = run_benchmark("model", *size, "-o", tmp_path)
    assert "step, 2 × 32 tokens" in text
    results = json.loads((tmp_path / "model.json").read_text())["results"]
    ladder = ["published way", "+ no mask", "+ head at targets", "+ bf16"]
    assert [each["way"] for each in results if each["what"] == "step"] == ladder
    assert [each["way"] for each in results if each["what"] == "forward"] == [ladder[0], ladder[1], ladder[3]]
    assert all(each["seconds"] > 0 and each["share_of_ceiling"] > 0 for each in results)
    assert (tmp_path / "model.svg").read_text().count("<svg") == 1
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")
    text = run_benchmark("model", *size, "--what", "step", "--precision", "bf16", "--head", "targets")
    assert "head targets, precision bf16" in text


def test_pre_training(synthetic, tmp_path):
    build_genome(synthetic / "ref.fa", tmp_path / "x.genome", synthetic / "sites.vcf.gz", min_frequency=0)
    size = ("--windows", 256, "--workers", 1, "--length", 62, "--batch", 2, "--layers", 1, "--hidden", 64)
    text = run_benchmark("pretrain", tmp_path / "x.genome", *size, "--repeats", 1, "-o", tmp_path)
    assert "step, 2 × 64 tokens" in text
    found = json.loads((tmp_path / "pretrain.json").read_text())
    loader = {row["way"]: row for row in found["loader"]}
    assert next(iter(loader)) == "published way"
    assert list(loader)[-1] == "1 worker, batches of 128"
    assert all(row["rate"] > 0 for row in loader.values())
    assert 20 * loader["batches of 128"]["bytes"] < loader["batches of 128, dense"]["bytes"]
    assert [row["way"] for row in found["step"]] == ["published way", "ours"]
    assert all(row["seconds"] > 0 and row["share_of_ceiling"] > 0 for row in found["step"])
    assert all(row["tokens_per_second"] == pytest.approx(64 * row["windows_per_second"]) for row in found["step"])
    assert (tmp_path / "pretrain.svg").read_text().count("<svg") == 1
    assert (tmp_path / "pretrain.png").read_bytes().startswith(b"\x89PNG")


def test_fine_tuning(tmp_path):
    size = ("--length", 110, "--batch", 2, "--steps", 2, "--layers", 1, "--hidden", 64, "--repeats", 1)
    text = run_benchmark("finetune", *size, "-o", tmp_path)
    assert "mixed: 2 sequences of 100 to 110 bases a step" in text
    found = json.loads((tmp_path / "finetune.json").read_text())
    assert [case["case"] for case in found["cases"]] == ["equal", "mixed"]
    for case in found["cases"]:
        assert [row["way"] for row in case["ways"]] == ["published way", "ours"]
        assert all(row["seconds"] > 0 for row in case["ways"])
    assert (tmp_path / "finetune.svg").read_text().count("<svg") == 1
    assert (tmp_path / "finetune.png").read_bytes().startswith(b"\x89PNG")


def test_scoring(synthetic, tmp_path):
    build_genome(synthetic / "ref.fa", tmp_path / "x.genome")
    size = ("--spread", 3, "--dense", 12, "--context", 62, "--layers", 1, "--hidden", 64, "--repeats", 1)
    real = ("--genome", tmp_path / "x.genome", "--vcf", synthetic / "sites.vcf.gz")
    text = run_benchmark("score", *size, *real, "-o", tmp_path)
    assert "dense: 12 SNVs, 62 bases around each" in text
    found = json.loads((tmp_path / "score.json").read_text())
    assert [case["case"] for case in found["cases"]] == ["spread", "dense"]
    assert [row["way"] for row in found["cases"][1]["ways"]] == ["published way", "ours", "ours, shared windows"]
    assert all(row["variants_per_second"] > 0 for case in found["cases"] for row in case["ways"])
    assert (tmp_path / "score.svg").read_text().count("<svg") == 1
    assert (tmp_path / "score.png").read_bytes().startswith(b"\x89PNG")


def test_the_memory_of_scoring(tmp_path):
    text = run_benchmark("score_memory", "--variants", 40, 80, "-o", tmp_path)
    assert "peak MiB" in text
    found = json.loads((tmp_path / "score_memory.json").read_text())
    assert [row["variants"] for row in found["rows"]] == [40, 80]
    assert all(row["peak_memory"] > 2**20 for row in found["rows"])


def test_a_command_is_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from measure import CommandError, measure_command

    # Both hold memory at once, and the file shrinks at the end.
    child = "import time; held = bytearray(b'x') * 60_000_000; time.sleep(1)"
    program = (
        "import os, subprocess, sys, time; held = bytearray(b'x') * 80_000_000; file = open(sys.argv[1], 'wb'); "
        f"file.write(bytes(5_000_000)); file.flush(); subprocess.run([sys.executable, '-c', {child!r}]); "
        "os.truncate(sys.argv[1], 1000)"
    )
    taken = measure_command([sys.executable, "-c", program, tmp_path / "file"], tmp_path)
    assert 140_000_000 < taken.peak_memory < 240_000_000
    assert (taken.peak_disk, taken.final_disk) == (5_000_000, 1000)
    assert taken.cpu_seconds > 0
    with pytest.raises(CommandError, match="ended with status 3: no luck"):
        measure_command([sys.executable, "-c", "import sys; print('no luck', file=sys.stderr); sys.exit(3)"], tmp_path)


def test_peers_are_measured_beside_mutbert(tmp_path):
    run_benchmark("peers", "--size", "tiny", "--length", 60, "--batch", 2, "--repeats", 1, "-o", tmp_path)
    rows = json.loads((tmp_path / "peers.json").read_text())["rows"]
    assert {(row["what"], row["precision"], row["model"]) for row in rows} == {
        (what, precision, model)
        for what in ("forward", "training step")
        for precision in ("fp32", "bf16")
        for model in ("mutbert", "dnabert2", "ntv2-50m", "caduceus-ph")
    }
    assert "caduceus-ps" in run_benchmark("peers", "--size", "tiny", "--loading")


@pytest.mark.slow
def test_the_page_says_what_each_known_model_can_do():
    page = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert run_benchmark("peers_table") in page
