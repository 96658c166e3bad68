"""Runs that are killed and continued: nothing finished is computed again, and numbers are the unbroken run's."""

import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from mutbert import build_genome
from mutbert.errors import InputError
from mutbert.inference.parts import parts_folder, run_parts


def run(output, plan, items=(), log=None, **settings):
    def compute(item, path):
        if item == "fail":
            raise RuntimeError("of the device")
        log.append(item)
        pl.DataFrame({"item": item}).write_parquet(path)

    with parts_folder(output, plan, **settings) as folder:
        paths = run_parts(folder, enumerate(items), compute, skipped=lambda one: log.append(f"({one})"))
        output.write_text("".join(pl.read_parquet(path).item() for path in paths))


def test_finished_parts_are_kept_by_a_run_that_fails(tmp_path):
    output, log = tmp_path / "out", []
    with pytest.raises(RuntimeError) as failed:
        run(output, {"a": 1}, ["x", "y", "fail"], log)
    assert failed.value.__notes__ == ["--resume goes on from part 3"]
    assert not output.exists()
    with pytest.raises(
        InputError, match=r"out.parts: has a stopped run; use --resume to go on from part 3, or choose another output$"
    ):
        run(output, {"a": 1}, ["x"], log)
    with pytest.raises(InputError, match=r'a was 1 and is 2; b was null and is "c"; use the same'):
        run(output, {"a": 2, "b": "c"}, ["x"], log, resume=True)
    part = tmp_path / "out.parts" / "00000001.parquet"
    part.write_bytes(part.read_bytes()[:-9])  # damaged, it is made again
    run(output, {"a": 1}, ["x", "y", "z"], log, resume=True)
    assert log == ["x", "y", "(x)", "y", "z"]
    assert output.read_text() == "xyz"
    with pytest.raises(RuntimeError):
        run(output, {}, ["x", "fail"], log, force=True)
    run(output, {"a": 1}, ["x"], log, force=True)
    assert log[5:] == ["x", "x"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# The command has no option for the size of parts.
TRACKS = """
import sys, mutbert
from mutbert.inference.bases import PredictionSettings
model, genome, output, *words = sys.argv[1:]
settings = PredictionSettings(batch_size=256, strands="forward", bases_at_once=1 << 16)
mutbert.write_tracks(model, genome, output, mask_every=0, settings=settings, resume=bool(words))
"""


def kill(words, folder, parts):
    """Start a program, kill it when so many parts are there, and return these with the times they were written."""
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(folder.glob("0*"))) < parts:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it was too quick"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("0*")}


@pytest.mark.parametrize("verb", ["tracks", pytest.param("embed", marks=pytest.mark.nightly)])
def test_runs_survive_sigkill(model_folders, tmp_path, verb):
    sequence = "ACGTTGCATGCCTAGGATCCATTAGACATTGACCAGTAGGTCAATG" * 4000
    (tmp_path / "ref.fa").write_text(f">chr1\n{sequence}\n")
    (tmp_path / "some.fa").write_text("".join(f">r{at}\n{sequence[at : at + 60]}\n" for at in range(6_000)))
    model, genome = model_folders["mutbert"], tmp_path / "ref.genome"
    if verb == "embed":
        words = [sys.executable, "-P", "-m", "mutbert", "embed", "--model", model]
        words += ["--fasta", tmp_path / "some.fa", "-o"]
    else:
        build_genome(tmp_path / "ref.fa", genome)
        words = [sys.executable, "-P", "-c", TRACKS, model, genome]
    whole, output = (tmp_path / f"{name}.{'parquet' if verb == 'embed' else 'bedgraph'}" for name in ("whole", "out"))
    subprocess.run([*words, whole], check=True)
    folder, done = output.with_name(f"{output.name}.parts"), {}
    for parts in (1, 3):
        found = kill([*words, output, *(["--resume"] if done else [])], folder, parts)
        assert done.items() <= found.items(), "a part was computed again"
        done = found
    subprocess.run([*words, output, "--resume"], check=True)
    assert output.read_bytes() == whole.read_bytes()
    assert not folder.exists()


def test_signals_end_the_program_with_a_line_on_how_to_go_on(model_folders, tmp_path):
    (tmp_path / "some.fa").write_text("".join(f">r{at}\n{'ACGTTGCATG' * 6}\n" for at in range(5_000)))
    output = tmp_path / "out.parquet"
    words = [sys.executable, "-P", "-m", "mutbert", "embed", "--model", model_folders["mutbert"], "--fasta"]
    words += [tmp_path / "some.fa", "-o", output, "--batch-size", "8"]
    folder, resume = tmp_path / "out.parquet.parts", []
    for number, status, parts in ((signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 2)):
        with subprocess.Popen([*words, *resume], stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None and len(list(folder.glob("0*"))) < parts:
                time.sleep(0.005)
            process.send_signal(number)
            said = process.stderr.read()
        goes_on = f"--resume goes on from part {len(list(folder.glob('0*'))) + 1}"
        assert (process.returncode, said.splitlines()[-1]) == (status, f"mutbert: stopped; {goes_on}")
        assert "Traceback" not in said
        resume = ["--resume"]
    assert not output.exists()
