"""Every benchmark script from end to end at a tiny size, so that it keeps working; no test looks at a time."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from mutbert import build_genome

pytestmark = pytest.mark.nightly

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ENVIRONMENT = os.environ | {"SMALL": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
TINY = ("--layers", 1, "--hidden", 64, "--repeats", 1)


def run_benchmark(name, *words, status=0):
    command = [sys.executable, BENCHMARKS / f"{name}.py", *words]
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def result(folder, name):
    """Return the JSON that a script wrote."""
    return json.loads((folder / f"{name}.json").read_text())


def test_explorer():
    pytest.importorskip("playwright", reason="playwright is not installed")
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("there is no Chromium")
    done = run_benchmark("explorer", "--bases", 2_000, "--variants", 20, "--runs", 1)
    assert json.loads(done.stdout)["found"][0]["ready_ms"] > 0


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    words = ("--bases", 200_000, "--records", 4_000)
    run_benchmark("synthetic_genome", "-o", folder, *words)
    run_benchmark("synthetic_genome", "-o", folder.with_name("apart"), *words, "--per-contig", "--bgzip")
    assert (folder.with_name("apart") / "truth.json").read_bytes() == (folder / "truth.json").read_bytes()
    return folder


@pytest.fixture(scope="module")
def built(synthetic, tmp_path_factory):
    """The report of the store of the synthetic genome."""
    folder = tmp_path_factory.mktemp("built") / "x.genome"
    return build_genome(synthetic / "ref.fa", folder, synthetic / "sites.vcf.gz", min_frequency=0), folder


def test_the_synthetic_genome_has_the_sites_of_its_truth(synthetic, built):
    truth, (report, _) = result(synthetic, "truth"), built
    counts = report["records"][0]
    # Nothing else is unused, so that every REF is that of the FASTA and no allele overlaps another.
    assert sum(report["lengths"].values()) == truth["bases"] == 200_000
    assert counts["read"] == truth["records"] == 4_000
    assert counts["not_used"] == {"insertion or deletion": truth["insertion"] + truth["deletion"]}
    assert counts["decomposed"] == truth["several_nucleotides"]
    assert counts["used"] == truth["single_nucleotide"] + truth["several_nucleotides"]
    assert all(truth[kind] for kind in ("two_alternates", "several_nucleotides", "above_0.02"))


def test_the_workflow_scores_next_to_the_single_command():
    assert "times the single command" in run_benchmark("workflow", "--variants", 40, "--hidden", 16).stdout


def test_genomes_are_built_and_read(synthetic, built, tmp_path):
    run_benchmark("whole_genome", synthetic, "-o", tmp_path / "out")
    found = result(tmp_path / "out", "whole_genome")
    assert found["contenders"][1]["final_disk"] == found["contenders"][2]["final_disk"] > 50_000

    words = ("--windows", 300, "--batch", 64, 100, "--repeats", 2, "--seconds", 1, "-o", tmp_path / "access.json")
    run_benchmark("random_access", built[1], *words)
    warm = result(tmp_path, "access")["warm"]
    assert list(warm) == ["one by one", "in batches of 64", "in batches of 100"]
    assert all(len(each) == 2 and min(each) > 0 for each in warm.values())

    run_benchmark("genome", "-o", tmp_path, "--length", 20_000, "--samples", 20, "--repeats", 1)
    found = result(tmp_path, "genome")
    rows = {row["name"]: row for row in found["contenders"]}
    assert rows["htslib loop"]["times_loop"] == rows["mutbert"]["times_build"] == 1
    assert rows["mutbert"]["peak_disk"] >= rows["mutbert"]["final_disk"] > 20_000 / 4
    if shutil.which("bcftools"):
        assert rows["bcftools + NumPy"]["final_disk"] > 20_000 * 16
        assert found["comparison"]["equal"] > 0
        assert found["comparison"]["only_published"] == 0
    assert not list(tmp_path.glob("work-*"))


def test_what_a_gpu_does_in_its_minutes_is_done_once(built, tmp_path):
    contig = next(iter(built[0]["lengths"]))
    script, folder = BENCHMARKS.parent / "experiments" / "gpu" / "run.sh", tmp_path / "out"
    command = ["bash", script, built[1], f"{contig}:1-9000", folder]
    for minutes in (0, 10, 10):
        done = subprocess.run([*command, str(minutes)], env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == (0 if minutes else 75), done.stderr
    header, *rows = (folder / "losses.tsv").read_text().splitlines()
    assert [row.split("\t")[:2] for row in rows] == [
        [f"mutbert-{name}", "20"] for name in ("corrected", "ref", "modern")
    ]
    assert done.stdout == "\n".join([header, *rows, ""])


@pytest.mark.parametrize(
    "words", ["random_access absent.genome", "synthetic_genome -o absent/folder", "pretrain absent.genome"]
)
def test_a_mistake_is_one_line_and_status_2(words):
    error = run_benchmark(*words.split(), status=2).stderr
    assert "absent" in error
    assert error.count("\n") == 1


def test_the_model_and_its_training(built, tmp_path):
    run_benchmark("model", "--lengths", 32, "--tokens", 64, "--no-compile", *TINY, "-o", tmp_path)
    results = result(tmp_path, "model")["results"]
    ladder = ["published way", "+ no mask", "+ head at targets", "+ bf16"]
    assert [each["way"] for each in results if each["what"] == "step"] == ladder
    assert [each["way"] for each in results if each["what"] == "forward"] == [ladder[0], ladder[1], ladder[3]]
    assert all(each["seconds"] > 0 and each["share_of_ceiling"] > 0 for each in results)

    size = ("--windows", 256, "--workers", 1, "--length", 62, "--batch", 2)
    run_benchmark("pretrain", built[1], *size, *TINY, "-o", tmp_path)
    found = result(tmp_path, "pretrain")
    loader = {row["way"]: row for row in found["loader"] if row["rate"] > 0}
    assert {"published way", "1 worker, batches of 128"} <= loader.keys()
    assert 20 * loader["batches of 128"]["bytes"] < loader["batches of 128, dense"]["bytes"]
    assert [row["way"] for row in found["step"]] == ["published way", "ours"]
    assert all(row["tokens_per_second"] == pytest.approx(64 * row["windows_per_second"]) for row in found["step"])

    run_benchmark("finetune", "--length", 110, "--batch", 2, "--steps", 2, *TINY, "-o", tmp_path)
    for case in result(tmp_path, "finetune")["cases"]:
        assert [row["way"] for row in case["ways"] if row["seconds"] > 0] == ["published way", "ours"]


def test_changes_are_compared_by_the_time_to_a_loss(tmp_path):
    base = "".join(random.Random(1).choices("ACGTacgt", k=3000))
    (tmp_path / "ref.fa").write_text(f">chr1\n{base[:2000]}\n>chr2\n{base[2000:]}\n")
    build_genome(tmp_path / "ref.fa", tmp_path / "x.genome")
    small = ("model.hidden_size=16", "windows_a_step=4", "window_length=30", "evaluation.windows=8")
    words = (tmp_path / "x.genome", "--train", "chr1", "--held-out", "chr2", "--steps", 8, "--seeds", 1, "-o", tmp_path)
    printed = run_benchmark("time_to_loss", *words, "--set", *small).stdout
    found = pl.read_csv(tmp_path / "runs.tsv", separator="\t")
    assert found.filter(name="mutbert-corrected")["steps"].to_list() == [1.0]
    assert len(found) == (tmp_path / "time_to_loss.svg").read_text().count("no dropout of features") * 12
    # What is there is not done again.
    assert printed.endswith(run_benchmark("time_to_loss", *words).stdout)


def test_scoring(synthetic, built, tmp_path):
    real = ("--genome", built[1], "--vcf", synthetic / "sites.vcf.gz")
    run_benchmark("score", "--spread", 3, "--dense", 12, "--context", 62, *TINY, *real, "-o", tmp_path)
    spread, dense = result(tmp_path, "score")["cases"]
    assert [row["way"] for row in dense["ways"]] == ["published way", "ours", "ours, shared windows"]
    assert all(row["variants_per_second"] > 0 for row in spread["ways"] + dense["ways"])

    run_benchmark("score_memory", "--variants", 40, 80, "-o", tmp_path)
    rows = result(tmp_path, "score_memory")["rows"]
    assert [row["variants"] for row in rows if row["peak_memory"] > 2**20] == [40, 80]

    assert "2,000 bases" in run_benchmark("all_snvs", "--bases", 2_000, "--memory", 1_000).stdout


def test_a_command_is_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from measure import CommandError, measure_command

    # Both hold memory at once.
    child = "import time; held = bytearray(b'x') * 60_000_000; time.sleep(1)"
    words = [sys.executable, "-c", child]
    program = f"import subprocess; held = bytearray(b'x') * 80_000_000; subprocess.run({words!r})"
    taken = measure_command([sys.executable, "-c", program], tmp_path)
    assert 140_000_000 < taken.peak_memory < 240_000_000
    with pytest.raises(CommandError, match="ended with status 3: no luck"):
        measure_command([sys.executable, "-c", "import sys; print('no luck', file=sys.stderr); sys.exit(3)"], tmp_path)


def test_the_peers(tmp_path):
    run_benchmark("peers", "--size", "tiny", "--length", 60, "--batch", 2, "--repeats", 1, "-o", tmp_path)
    rows = result(tmp_path, "peers")["rows"]
    found = {(row["what"], row["precision"], row["model"]) for row in rows}
    kinds = [(what, precision) for what in ("forward", "training step") for precision in ("fp32", "bf16")]
    assert found == {(*kind, name) for kind in kinds for name in ("mutbert", "dnabert2", "ntv2-50m", "caduceus-ph")}
    assert "caduceus-ps" in run_benchmark("peers", "--size", "tiny", "--loading").stdout
    # The table of the guide is what each command does on each layout.
    assert run_benchmark("peers_table").stdout in (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text()


def test_small_tables():
    model = BENCHMARKS.parent / "experiments" / "gue_tf" / "model"
    lines = run_benchmark("small_tables", "--model", model, "--tables", 1).stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["table", "100 rows, 2 classes, 50%", "mean"]
