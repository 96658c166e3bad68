"""Runs that are stopped, spread over shards or shared by processes: what comes out does not show it."""

import os
import signal
import time
from pathlib import Path

import pytest

from mutbert import merge_scores
from mutbert.effects import score_run
from mutbert.effects.parts import Counts, Parts, differences
from mutbert.effects.survey import survey
from mutbert.errors import InputError
from mutbert.files import sha256_of

NAMES = ("out.vcf.gz", "out.vcf.gz.tbi", "out.tsv")


@pytest.fixture(autouse=True)
def _small(small_parts):
    """Parts of seven records."""


@pytest.fixture
def vcf(write, lines, tmp_path):
    """Four parts: three of seven records, and one of three."""
    return write(tmp_path / "in.vcf.gz", lines(24))


@pytest.fixture
def whole(score, vcf, tmp_path):
    """What a run that nothing stops writes: the content of each file by its name."""
    folder = tmp_path / "whole"
    folder.mkdir()
    score(vcf, folder / "out.vcf.gz", table=folder / "out.tsv")
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    return {name: (folder / name).read_bytes() for name in NAMES}


@pytest.fixture
def place(tmp_path):
    """A folder to write into."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def killed_before(monkeypatch, count):
    """Have this process killed before so many renames are done, as if power went."""
    left = [count]

    def counted(method):
        def call(self, *arguments):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(self, *arguments)

        return call

    for name in ("replace", "rename"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))


def watched(monkeypatch):
    """Put down which parts are written from now on, and what the folder has just before it goes."""
    written, states = [], {}
    write, remove = Parts.write, score_run.remove_directory

    def write_part(self, number, *arguments):
        written.append(number)
        write(self, number, *arguments)

    def remove_directory(folder):
        states.update(state(folder))
        remove(folder)

    monkeypatch.setattr(Parts, "write", write_part)
    monkeypatch.setattr(score_run, "remove_directory", remove_directory)
    return written, states


def state(folder):
    """Inode and time of each file of finished parts."""
    done = {path.stem for path in folder.glob("[0-9]*.json")}
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.glob("[0-9]*")
        if path.name.partition(".")[0] in done
    }


def test_killed_anywhere_a_run_goes_on_and_ends_the_same(score, vcf, whole, place, fork, monkeypatch):
    output, table = place / "out.vcf.gz", place / "out.tsv"
    parts = place / "out.vcf.gz.parts"
    seen = set()
    for moment in range(1, 100):

        def run(moment=moment):
            killed_before(monkeypatch, moment)
            score(vcf, output, table=table)

        _, status = os.waitpid(fork(run), 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        # What bears its name is whole.
        for name in NAMES:
            assert not (place / name).exists() or (place / name).read_bytes() == whole[name]
        before = state(parts)
        numbers = sorted({int(name.partition(".")[0]) for name in before})
        seen.add(len(numbers))
        with monkeypatch.context() as patch:
            written, after = watched(patch)
            score(vcf, output, table=table, resume=True)
        # What was finished is not touched again, and all else is done.
        assert sorted([*numbers, *written]) == [0, 1, 2, 3]
        assert before.items() <= after.items()
        assert contents(place) == whole
        for name in NAMES:
            (place / name).unlink()
    # Three for each of four parts, and headers, descriptions, outputs.
    assert moment > 16
    assert seen == {0, 1, 2, 3, 4}
    assert contents(place) == whole


def test_a_run_may_be_killed_again_and_again(score, vcf, whole, place, fork, monkeypatch):
    output, table = place / "out.vcf.gz", place / "out.tsv"
    kills = 0
    while True:

        def run():
            killed_before(monkeypatch, 6)
            score(vcf, output, table=table, resume=True)

        _, status = os.waitpid(fork(run), 0)
        if os.WIFEXITED(status):
            break
        kills += 1
    assert kills > 2
    assert contents(place) == whole


def stopped(score, vcf, output, monkeypatch, *, after, **settings):
    """Stop a run when so many parts are done."""
    write = Parts.write

    def write_part(self, number, *arguments):
        if len(list(self.folder.glob("[0-9]*.json"))) == after:
            raise KeyboardInterrupt
        write(self, number, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write", write_part)
        with pytest.raises(KeyboardInterrupt):
            score(vcf, output, **settings)
    return output.with_name(output.name + ".parts")


def test_a_run_that_has_finished_no_part_is_not_taken_for_another(score, vcf, write, lines, place, fork, monkeypatch):
    output = place / "out.vcf.gz"

    def run():
        monkeypatch.setattr("mutbert.effects.scores.Scorer.score", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        score(vcf, output, table=place / "out.tsv")

    os.waitpid(fork(run), 0)
    other = write(place / "other.vcf", lines(20, seed=1))
    for _ in range(2):
        with pytest.raises(InputError, match="cannot go on: the VCF is another"):
            score(other, output, table=place / "out.tsv", resume=True)
    assert score(vcf, output, table=place / "out.tsv", resume=True).records == 24


def test_that_there_is_nothing_to_go_on_with_is_said(score, vcf, whole, place, monkeypatch, capsys):
    output, table = place / "out.vcf.gz", place / "out.tsv"
    score(vcf, output, table=table, resume=True, progress=True)
    assert "out.vcf.gz.parts: no run is there to go on with, so one is started\n" in capsys.readouterr().err
    assert contents(place) == whole
    stopped(score, vcf, output, monkeypatch, after=1, force=True)
    score(vcf, output, resume=True, force=True, progress=True)
    assert "no run is there" not in capsys.readouterr().err


def test_a_short_file_has_parts_enough_to_share(score, write, lines, place, monkeypatch):
    monkeypatch.setattr("mutbert.effects.chunk_scores.RECORDS_A_PART", 1000)
    sizes = []
    monkeypatch.setattr(
        Parts, "write", lambda self, number, *rest: sizes.append(rest[-1].records) or WRITE(self, number, *rest)
    )
    for wanted in (15, 18, 100, 600):
        given = lines(wanted)
        vcf = write(place / "in.vcf", given)
        score(vcf, place / "out.tsv", force=True, scores=("unmasked",))
        count = len(given)
        size = max(16, -(-count // 32))
        assert sizes == [size] * (count // size) + [count % size] * (count % size > 0)
        sizes.clear()


def test_an_unfinished_run_is_neither_lost_nor_taken_for_another(score, vcf, whole, place, monkeypatch):
    output, table = place / "out.vcf.gz", place / "out.tsv"
    parts = stopped(score, vcf, output, monkeypatch, after=2, table=table)
    before = state(parts)
    assert len(before) == 6
    with pytest.raises(
        InputError, match="an unfinished run is there; give --resume to go on with it, or --force"
    ) as caught:
        score(vcf, output, table=table)
    assert "\n" not in str(caught.value)
    assert state(parts) == before
    # Anew: nothing of it is kept.
    written, _ = watched(monkeypatch)
    score(vcf, output, table=table, force=True)
    assert written == [0, 1, 2, 3]
    assert contents(place) == whole


def test_what_has_finished_no_part_leaves_nothing(score, vcf, place, monkeypatch):
    stopped(score, vcf, place / "out.vcf.gz", monkeypatch, after=0)
    assert contents(place) == {}
    report = score(vcf, place / "out.vcf.gz", resume=True)
    assert report.records == 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": 20}, "context was 30 and is 20"),
        ({"strands": "both"}, 'strands was "forward" and is "both"'),
        ({"flank": 4, "longest": 10}, "flank was 2 and is 4; longest was 26 and is 10"),
        ({"scores": ("unmasked",)}, "scores was"),
        ({"precision": "bf16"}, "precision was"),
        ({"surroundings": "population"}, "surroundings was"),
        ({"prefix": "OTHER"}, "prefix was"),
        ({"frequency_field": "AF"}, 'frequency_field was not given and is "AF"'),
        ({"table": "out.tsv"}, "kinds was"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_scaling was not given"),
    ],
)
def test_other_settings_are_refused_with_what_changed(score, vcf, place, monkeypatch, change, message):
    output = place / "out.vcf.gz"
    parts = stopped(score, vcf, output, monkeypatch, after=1)
    before = state(parts)
    if "table" in change:
        change = {"table": place / change["table"]}
    with pytest.raises(InputError, match=f"cannot go on: .*{message}"):
        score(vcf, output, resume=True, **change)
    assert state(parts) == before
    # What results do not depend on may change.
    assert score(vcf, output, resume=True, batch_size=5).records == 24


def test_another_file_model_or_genome_is_refused(score, vcf, write, lines, loaded, genome, place, monkeypatch, contigs):
    import copy

    import torch

    from mutbert import build_genome, score_variants

    output = place / "out.vcf.gz"
    stopped(score, vcf, output, monkeypatch, after=1)
    settings = {"context": 30, "strands": "forward", "flank": 2, "resume": True}
    other = copy.deepcopy(loaded)
    with torch.no_grad():
        other.bert.embeddings.word_embeddings.weight[5, 3] += 1e-3
    with pytest.raises(InputError, match="the model is another; give the same"):
        score_variants(other, genome, vcf, output, **settings)
    (place / "ref.fa").write_text("".join(f">{name}\n{sequence[:-1]}\n" for name, sequence in contigs.items()))
    build_genome(fasta=[place / "ref.fa"], output=place / "other.genome")
    with pytest.raises(InputError, match="the genome is another"):
        score_variants(loaded, place / "other.genome", vcf, output, **settings)
    before = vcf.read_bytes()
    changed = lines(24)
    changed[-1] = changed[-1].replace("PASS", "low")
    write(vcf, changed)
    with pytest.raises(InputError, match="the VCF is another"):
        score(vcf, output, resume=True)
    # A copy of the same content is the same file, whatever its time and name.
    vcf.unlink()
    (copied := vcf.with_name("copy.vcf.gz")).write_bytes(before)
    assert score(copied, output, resume=True).records == 24


@pytest.mark.parametrize("harm", ["note cut", "part cut", "part gone"])
def test_a_part_that_is_not_whole_is_done_again(score, vcf, whole, place, monkeypatch, harm):
    output, table = place / "out.vcf.gz", place / "out.tsv"
    parts = stopped(score, vcf, output, monkeypatch, after=3, table=table)
    path = parts / ("000001.json" if harm == "note cut" else "000001.vcf.gz")
    if harm == "part gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    written, _ = watched(monkeypatch)
    score(vcf, output, table=table, resume=True)
    assert written == [1, 3]
    assert contents(place) == whole


def test_a_part_whose_bytes_have_changed_is_named(score, vcf, whole, place, monkeypatch):
    output, table = place / "out.vcf.gz", place / "out.tsv"
    parts = stopped(score, vcf, output, monkeypatch, after=3, table=table)
    path = parts / "000001.vcf.gz"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"000001\.vcf\.gz: is missing or damaged; remove 000001\.json"):
        score(vcf, output, table=table, resume=True)
    assert not output.exists()
    (parts / "000001.json").unlink()
    score(vcf, output, table=table, resume=True)
    assert contents(place) == whole


def test_a_folder_that_is_not_of_a_run_is_not_cleared(score, vcf, place):
    parts = place / "out.vcf.gz.parts"
    parts.mkdir()
    (parts / "thesis.doc").touch()
    with pytest.raises(InputError, match=r"holds thesis\.doc; move it away"):
        score(vcf, place / "out.vcf.gz", force=True)
    assert (parts / "thesis.doc").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ('{"version": 99}', "is of version 99.*update mutbert"),
        ('{"version": 1}', "cannot be read"),
    ],
)
def test_a_description_that_cannot_be_read_is_refused(score, vcf, place, text, message):
    (place / "out.vcf.gz.parts").mkdir()
    (place / "out.vcf.gz.parts" / "run.json").write_text(text)
    with pytest.raises(InputError, match=rf"run\.json: {message}"):
        score(vcf, place / "out.vcf.gz", resume=True)


def test_two_runs_do_not_write_one_output(score, vcf, place, monkeypatch):
    from mutbert.files import locked

    (place / "out.vcf.gz.parts").mkdir()
    with locked(place / "out.vcf.gz.parts"), pytest.raises(InputError, match="another process is writing it"):
        score(vcf, place / "out.vcf.gz", resume=True)


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_shards_put_together_are_the_whole(score, vcf, whole, place, shards):
    if shards == 1:
        score(vcf, place / "out.vcf.gz", table=place / "out.tsv", shard=(1, 1))
        assert contents(place) == whole
        return
    folders = []
    for part in range(shards, 0, -1):
        report = score(vcf, place / "out.vcf.gz", table=place / "out.tsv", shard=(part, shards))
        assert report.output == place / f"out.vcf.gz.shard-{part}-of-{shards}"
        folders.append(report.output)
    report = merge_scores(folders, place / "out.vcf.gz", table=place / "out.tsv")
    assert {name: (place / name).read_bytes() for name in NAMES} == whole
    assert sorted(path.name for path in place.iterdir()) == sorted([*NAMES, *(folder.name for folder in folders)])
    assert report.records == 24
    assert sum(report.scored.values()) + sum(report.missing.values()) == report.alleles


def test_a_shard_goes_on_too(score, vcf, whole, place, monkeypatch):
    first = score(vcf, place / "out.vcf.gz", table=place / "out.tsv", shard=(1, 2)).output
    write = Parts.write

    def once(self, number, *arguments):
        if number == 3:
            raise KeyboardInterrupt
        write(self, number, *arguments)

    settings = {"table": place / "out.tsv", "shard": (2, 2)}
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write", once)
        with pytest.raises(KeyboardInterrupt):
            score(vcf, place / "out.vcf.gz", **settings)
    unfinished = place / "out.vcf.gz.shard-2-of-2.parts"
    with pytest.raises(InputError, match="is not complete; go on with it"):
        merge_scores([first, unfinished], place / "out.vcf.gz")
    written, _ = watched(monkeypatch)
    second = score(vcf, place / "out.vcf.gz", resume=True, **settings).output
    assert written == [3]
    assert not unfinished.exists()
    with pytest.raises(InputError, match="exists already"):
        score(vcf, place / "out.vcf.gz", **settings)
    merge_scores([first, second], place / "out.vcf.gz", table=place / "out.tsv")
    assert {name: (place / name).read_bytes() for name in NAMES} == whole


def test_shards_that_are_not_all_of_one_run_are_refused(score, vcf, place):
    output = place / "out.vcf.gz"
    one, two = (score(vcf, output, shard=(part, 2)).output for part in (1, 2))
    third = score(vcf, output, shard=(3, 3)).output
    other = score(vcf, place / "other.vcf.gz", shard=(2, 2), context=20).output
    for shards, message in (
        ([one], "shard 2/2 is not given"),
        ([], "no shard was given"),
        ([one, one], "shard 1/2, which .* is too"),
        ([one, third], "is one of 3 shards"),
        ([one, other], "of another run than .*: context was 30 and is 20"),
        ([one, place], "is no shard"),
        ([one, place / "absent"], "is no shard"),
    ):
        with pytest.raises(InputError, match=message):
            merge_scores(shards, output)
    assert merge_scores([one, two], output).warnings == ()
    output.unlink()
    both = [score(vcf, place / "both.vcf.gz", shard=(part, 2), table=place / "both.tsv") for part in (1, 2)]
    # The table comes when they are merged.
    assert {report.table for report in both} == {None}
    (said,) = merge_scores([report.output for report in both], place / "both.vcf.gz").warnings
    assert said.endswith(
        "both.vcf.gz: the shards have parts for tsv.gz too, of which nothing is written; give --table for a table"
    )
    with pytest.raises(InputError, match="have no parts for it, but of vcf"):
        merge_scores([one, two], place / "out.parquet")
    with pytest.raises(InputError, match="does not exist"):
        merge_scores([one, two], place / "absent" / "out.vcf")
    (two / "000001.vcf.gz").unlink()
    with pytest.raises(InputError, match=r"000001\.json: is missing, or a file of its part is"):
        merge_scores([one, two], output)
    assert not output.exists()


def as_process(rank, size):
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}


@pytest.mark.parametrize("size", [2, 3])
def test_processes_of_one_call_share_its_parts(score, vcf, whole, place, fork, monkeypatch, size):
    output, table = place / "out.vcf.gz", place / "out.tsv"

    def run():
        report = score(vcf, output, table=table)
        (place / f"report-{os.environ['RANK']}").write_text(str(report.records))

    others = [fork(run, **as_process(rank, size)) for rank in range(1, size)]
    for name, value in as_process(0, size).items():
        monkeypatch.setenv(name, value)
    written, states = watched(monkeypatch)
    report = score(vcf, output, table=table)
    for number in others:
        assert os.waitpid(number, 0)[1] == 0
    # This one did its part alone, and has the total.
    assert written == list(range(0, 4, size))
    assert len(states) == 12
    assert report.records == 24
    own = [int((place / f"report-{rank}").read_text()) for rank in range(1, size)]
    assert sum(own) == {2: 7 + 3, 3: 7 + 7}[size]
    for rank in range(1, size):
        (place / f"report-{rank}").unlink()
    assert contents(place) == whole


def test_processes_that_have_nothing_to_do_are_no_trouble(score, vcf, whole, place, fork, monkeypatch):
    output, table = place / "out.vcf.gz", place / "out.tsv"
    # All parts are there, and only the results are not in place.
    with monkeypatch.context() as patch:
        patch.setattr(score_run, "put_together", lambda *_: pytest.fail("not yet"))
        with pytest.raises(pytest.fail.Exception):
            score(vcf, output, table=table)
    number = fork(lambda: score(vcf, output, table=table, resume=True), **as_process(1, 2))
    for name, value in as_process(0, 2).items():
        monkeypatch.setenv(name, value)
    score(vcf, output, table=table, resume=True)
    assert os.waitpid(number, 0)[1] == 0
    assert contents(place) == whole


def test_shards_and_processes_go_together(score, vcf, whole, place, fork, monkeypatch):
    output, table = place / "out.vcf.gz", place / "out.tsv"
    folders = []
    for part in (1, 2):
        settings = {"table": table, "shard": (part, 2)}
        number = fork(lambda settings=settings: score(vcf, output, **settings), **as_process(1, 2))
        with monkeypatch.context() as patch:
            for name, value in as_process(0, 2).items():
                patch.setenv(name, value)
            folders.append(score(vcf, output, **settings).output)
        assert os.waitpid(number, 0)[1] == 0
    assert not list(place.glob("*/process-*"))
    merge_scores(folders, output, table=table)
    assert {name: (place / name).read_bytes() for name in NAMES} == whole


def test_a_process_that_dies_is_not_waited_for(score, vcf, whole, place, fork, monkeypatch):
    output, table = place / "out.vcf.gz", place / "out.tsv"

    def die():
        write = Parts.write

        def once(self, number, *arguments):
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            write(self, number, *arguments)

        monkeypatch.setattr(Parts, "write", once)
        score(vcf, output, table=table)

    number = fork(die, **as_process(1, 2))
    with monkeypatch.context() as patch:
        for name, value in as_process(0, 2).items():
            patch.setenv(name, value)
        with pytest.raises(InputError, match="process 1 of this call has ended before its part was done"):
            score(vcf, output, table=table)
    assert os.WTERMSIG(os.waitpid(number, 0)[1]) == signal.SIGKILL
    # Any other number of processes goes on with it.
    written, _ = watched(monkeypatch)
    score(vcf, output, table=table, resume=True)
    assert written == [3]
    assert contents(place) == whole


def test_the_others_stop_where_the_first_has_died(score, vcf, place, fork, monkeypatch):
    output = place / "out.vcf.gz"

    def die():
        monkeypatch.setattr(score_run.ScoreRun, "_score", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        score(vcf, output)

    first = fork(die, **as_process(0, 2))
    for name, value in as_process(1, 2).items():
        monkeypatch.setenv(name, value)
    score_parts = score_run.ScoreRun._score

    def score_when_dead(self, *arguments):
        os.waitpid(first, 0)
        return score_parts(self, *arguments)

    monkeypatch.setattr(score_run.ScoreRun, "_score", score_when_dead)
    with pytest.raises(InputError, match="the first process of this call has ended"):
        score(vcf, output)
    assert not output.exists()


@pytest.mark.parametrize("words", [("1", "1"), ("x", "2"), ("-1", "2")])
def test_a_process_that_cannot_be_is_refused(score, vcf, place, monkeypatch, words):
    monkeypatch.setenv("RANK", words[0])
    monkeypatch.setenv("WORLD_SIZE", words[1])
    with pytest.raises(InputError, match="are no process of several"):
        score(vcf, place / "out.vcf")


def test_shared_windows_are_not_cut_by_parts(score, write, contigs, place, monkeypatch):
    # At a contig's end, windows of two cells of the grid are one: its SNVs are every second base.
    lines = [
        f"{name}\t{position}\t.\t{contigs[name][position - 1]}\t{'A' if contigs[name][position - 1] != 'A' else 'C'}"
        "\t.\t.\t."
        for name in ("chr1", "chr2")
        for position in range(len(contigs[name]) - 80, len(contigs[name]) + 1, 2)
    ]
    vcf = write(place / "in.vcf", lines)
    # There are several parts, though a window is in one of them.
    stopped(score, vcf, place / "out.tsv", monkeypatch, after=2, windows="shared", context=48)
    for context in (48, 60, 62):
        shared = {"windows": "shared", "context": context, "force": True}
        small = score(vcf, place / "small.tsv", **shared)
        with monkeypatch.context() as patch:
            patch.setattr("mutbert.effects.chunk_scores.RECORDS_A_PART", 1000)
            patch.setattr("mutbert.effects.survey._PARTS", 1)
            large = score(vcf, place / "large.tsv", **shared)
        one, two = ([line.split("\t") for line in report.output.read_text().splitlines()] for report in (small, large))
        assert len(one) == len(lines) + 1
        for left, right in zip(one[1:], two[1:], strict=True):
            assert left[:6] == right[:6]
            for a, b in zip(left[6:9], right[6:9], strict=True):
                assert a == b == "" or float(a) == pytest.approx(float(b), abs=1e-5)


WRITE = Parts.write


def test_parts_are_bounded_by_what_they_take(score, write, contigs, place, monkeypatch):
    monkeypatch.setattr("mutbert.effects.chunk_scores.RECORDS_A_PART", 1000)
    monkeypatch.setattr("mutbert.effects.chunk_scores.PASSES_A_PART", 100)
    monkeypatch.setattr("mutbert.effects.survey._PARTS", 1)
    base = contigs["chr1"]
    snvs = [
        f"chr1\t{position}\t.\t{base[position - 1]}\t{'A' if base[position - 1] != 'A' else 'C'}\t.\t.\t."
        for position in range(100, 140)
    ]
    indels = [
        f"chr1\t{position}\t.\t{base[position - 1]}\t{base[position - 1]}TTG\t.\t.\t." for position in range(200, 220)
    ]
    vcf = write(place / "in.vcf", [*snvs, *indels, "chr1\t230\t.\tN\t<DEL>\t.\t.\t."])
    seen = []
    monkeypatch.setattr(
        Parts, "write", lambda self, number, *rest: seen.append(rest[-1].records) or WRITE(self, number, *rest)
    )
    # An SNV is one pass, and an insertion of three bases behind one 4 · 2 + 1 + 4.
    score(vcf, place / "one.tsv")
    assert seen == [40 + 4, 7, 7, 2 + 1]
    seen.clear()
    # Both strands, and with distances two more of each.
    score(vcf, place / "two.tsv", strands="both", scores=("llr", "distance"))
    assert seen == [16, 16, 8 + 1, *[3] * 6, 1 + 1]


def test_others_wait_as_long_as_the_first_prepares(score, vcf, whole, place, fork, monkeypatch):
    output, table = place / "out.vcf.gz", place / "out.tsv"
    monkeypatch.setattr("mutbert.effects.processes._PATIENCE", 0.5)

    def slowly(work):
        def slow(*arguments, **settings):
            time.sleep(0.8)
            return work(*arguments, **settings)

        return slow

    monkeypatch.setattr(score_run, "survey", slowly(survey))
    monkeypatch.setattr("mutbert.effects.fingerprint.sha256_of", slowly(sha256_of))
    number = fork(lambda: score(vcf, output, table=table), **as_process(1, 2))
    for name, value in as_process(0, 2).items():
        monkeypatch.setenv(name, value)
    score(vcf, output, table=table)
    assert os.waitpid(number, 0)[1] == 0
    assert contents(place) == whole


def test_others_need_not_wait_for_a_first_that_has_ended(score, vcf, place, fork, monkeypatch):
    # Within the test's time, thus not as long as their patience is.
    output = place / "out.vcf.gz"

    def die():
        def killed(*_, **__):
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(score_run, "survey", killed)
        score(vcf, output)

    fork(die, **as_process(0, 2))
    for name, value in as_process(1, 2).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="the first process of this call has ended; see what it said"):
        score(vcf, output)


def test_a_first_that_does_not_come_is_not_waited_for(score, vcf, place, monkeypatch):
    monkeypatch.setattr("mutbert.effects.processes._PATIENCE", 0.2)
    for name, value in as_process(1, 2).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="does not answer; start all with torchrun"):
        score(vcf, place / "out.vcf.gz")


def test_large_files_are_read_by_the_first_alone(score, vcf, place, fork, monkeypatch):
    output = place / "out.vcf.gz"

    def run():
        monkeypatch.setattr("mutbert.effects.fingerprint.sha256_of", lambda *_: pytest.fail("read"))
        score(vcf, output)

    number = fork(run, **as_process(1, 3))

    # Another file there than here is seen.
    def other():
        longer = place / "longer.vcf.gz"
        longer.write_bytes(vcf.read_bytes() + vcf.read_bytes()[-28:])
        with pytest.raises(InputError, match=r"longer\.vcf\.gz: has .* bytes, and .* where the first process"):
            score(longer, output)

    another = fork(other, **as_process(2, 3))
    for name, value in as_process(0, 3).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="process 2 of this call has ended before its part was done"):
        score(vcf, output)
    assert [os.waitpid(one, 0)[1] for one in (another, number)] == [0, 0]


def test_counts_add_up():
    one = Counts(2, 3, {"snv": 2}, {"symbolic": 1}, 1, 0)
    two = Counts(1, 1, {"indel": 1}, {}, 0, 2)
    assert one + two == Counts(3, 4, {"snv": 2, "indel": 1}, {"symbolic": 1}, 1, 2)


def test_differences_are_said_in_words():
    before = {"vcf": "a", "model": "b", "genome": "c", "mutbert": "1", "settings": {"context": 1, "kinds": ["a"]}}
    assert differences(before, before | {"settings": {"kinds": ("a",), "context": 1}}) == []
    now = before | {"vcf": "x", "mutbert": "2", "settings": {"context": None, "kinds": ["a"]}}
    assert differences(before, now) == [
        "the VCF is another",
        "mutbert was 1 and is 2",
        "context was 1 and is not given",
    ]
