"""A build that was stopped goes on where it was, and ends with the bytes of one that was not."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pysam
import pytest

from mutbert.errors import InputError
from mutbert.genome import build as build_room
from mutbert.genome import messages
from mutbert.genome.build import build_genome
from mutbert.genome.format import ARRAYS
from mutbert.genome.store import ProbabilisticGenome

CONTIGS = ["chr1", "chr2", "chr3", "chr4", "chr5"]
NEXT = dict(zip("ACGT", "CGTA", strict=True))
HEADER = """##fileformat=VCFv4.2
##INFO=<ID=AF,Number=A,Type=Float,Description="">
##FORMAT=<ID=GT,Number=1,Type=String,Description="">
##FILTER=<ID=low,Description="">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts\tt
"""


@pytest.fixture(scope="module")
def sequences():
    generator = np.random.default_rng(0)
    return {name: "".join(generator.choice(list("ACGT"), 2000)) for name in CONTIGS}


def soft_masked(sequence):
    """Put stretches into lower case, both ends among them."""
    return sequence[:77].lower() + sequence[77:500] + sequence[500:901].lower() + sequence[901:1999] + "a"


class Stopped(BaseException):
    """Stands for whatever ends a process."""


@pytest.fixture
def world(tmp_path, sequences, write_fasta, monkeypatch):
    """A reference of five contigs, and what makes files and builds of it."""

    class World:
        output = tmp_path / "x.genome"
        partial = tmp_path / "x.genome.partial"
        journal = partial / "resume.jsonl"
        fasta = write_fasta(
            tmp_path / "x.fa", {name: soft_masked(sequence) for name, sequence in sequences.items()}, width=60
        )

        def vcf(self, name, contigs, value=0.25, *, indexed=True):
            """Write a VCF with a hundred records of each contig."""
            lines = [
                f"{contig}\t{place + 1}\t.\t{sequences[contig][place]}\t{NEXT[sequences[contig][place]]}\t.\tPASS\t"
                f"AF={value}\tGT\t0|1\t0|0\n"
                for contig in contigs
                for place in range(0, 2000, 20)
            ]
            path = tmp_path / name
            path.write_text(HEADER + "".join(lines))
            if indexed:
                packed = tmp_path / f"{name}.gz"
                pysam.tabix_compress(str(path), str(packed), force=True)
                path = packed
                pysam.tabix_index(str(path), preset="vcf", force=True)
            return path

        def stop_after(self, number, vcfs, **options):
            """Build until so many contigs are finished."""
            with monkeypatch.context() as patch:
                add = build_room.Journal.add

                def stopping(journal, *words):
                    nonlocal number
                    add(journal, *words)
                    number -= 1
                    if not number:
                        raise Stopped

                patch.setattr(build_room.Journal, "add", stopping)
                with pytest.raises(Stopped):
                    build_genome(self.fasta, self.output, vcfs, **options)
            assert self.journal.exists()

        def go_on(self, vcfs, **options):
            return build_genome(self.fasta, self.output, vcfs, resume=True, **options)

        def try_to_go_on(self, vcfs):
            """Go on, or give the line that refuses it."""
            try:
                return self.go_on(vcfs), ""
            except InputError as error:
                assert "\n" not in str(error)  # noqa: PT017
                return None, str(error)

        def whole(self, vcfs, **options):
            """Build at one go, elsewhere; gives the files' bytes and the report."""
            path = tmp_path / "whole.genome"
            report = build_genome(self.fasta, path, vcfs, force=True, **options)
            return bytes_of(path), dataclasses.replace(report, path=self.output)

        def assert_whole(self, report, vcfs, **options):
            assert (bytes_of(self.output), report) == self.whole(vcfs, **options)
            assert not self.partial.exists()

    return World()


def bytes_of(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


@pytest.fixture
def read(monkeypatch):
    """A list that gets (contig, alleles) of every piece that is read in this process."""
    pieces = []
    whole = messages.read_alleles

    def spy(*words):
        for piece in whole(*words):
            pieces.append((piece.contig, len(piece.alleles.position_A)))
            yield piece

    monkeypatch.setattr(messages, "read_alleles", spy)
    return pieces


# ---- going on


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("indexed", [True, False])
def test_finished_contigs_are_not_read_again(world, read, indexed, number):
    vcf = world.vcf("x.vcf", CONTIGS, indexed=indexed)
    world.stop_after(number, [vcf])
    read.clear()
    report = world.go_on([vcf])
    if indexed:
        assert [contig for contig, _ in read] == CONTIGS[number:]
    # Without an index the file is read through, but nothing is made of their records.
    assert [contig for contig, rows in read if rows] == CONTIGS[number:]
    world.assert_whole(report, [vcf])


def test_without_resume_it_begins_anew(world, read):
    vcf = world.vcf("x.vcf", CONTIGS)
    world.stop_after(3, [vcf])
    read.clear()
    report = build_genome(world.fasta, world.output, [vcf])
    assert [contig for contig, _ in read] == CONTIGS
    world.assert_whole(report, [vcf])


def test_what_lay_there_before_the_reference_was_written_is_no_part_of_the_store(world):
    vcf = world.vcf("x.vcf", CONTIGS)
    world.partial.mkdir()
    for name in ("sequence.npy", "resume.renewed"):
        (world.partial / name).write_bytes(b"cut")
    report = world.go_on([vcf])
    assert len(list(report.path.iterdir())) == 6
    world.assert_whole(report, [vcf])


def test_it_may_be_stopped_again_and_again(world):
    vcfs = [world.vcf("a.vcf", CONTIGS), world.vcf("b.vcf", CONTIGS[::-1], 0.5, indexed=False)]
    world.stop_after(1, vcfs)
    for number in (1, 2):
        world.stop_after(1, vcfs, resume=True, workers=number)
    world.assert_whole(world.go_on(vcfs, workers=2), vcfs)


def test_contigs_that_were_left_out_stay_counted(world):
    vcf = world.vcf("x.vcf", CONTIGS, indexed=False)
    world.stop_after(1, [vcf], contigs=["2", "4", "5"])
    report = world.go_on([vcf], contigs=["2", "4", "5"])
    assert report.records[0].not_used == {"contig not selected": 200}
    world.assert_whole(report, [vcf], contigs=["2", "4", "5"])


def test_a_finished_genome_is_left_as_it_is(world, read):
    vcf = world.vcf("x.vcf", CONTIGS)
    first = build_genome(world.fasta, world.output, [vcf])
    before = {path: path.stat().st_mtime_ns for path in [world.output, *world.output.iterdir()]}
    read.clear()
    assert world.go_on([vcf]) == first
    assert read == []
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(InputError, match="exists already"):
        world.go_on([vcf], min_frequency=0.3)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_soft_mask_is_kept(world, sequences, read):
    vcf = world.vcf("x.vcf", CONTIGS)
    world.stop_after(3, [vcf])
    read.clear()
    genome = ProbabilisticGenome.open(world.go_on([vcf]).path, check=True)
    assert [contig for contig, _ in read] == CONTIGS[3:]
    for name, sequence in sequences.items():
        expected = [letter.islower() for letter in soft_masked(sequence)]
        assert genome.soft_masked(name, 0, 2000).tolist() == expected


def test_what_a_builder_of_version_1_had_begun_is_begun_anew(world, read):
    """Its journal knows of no soft mask, and neither do its arrays."""
    vcf = world.vcf("x.vcf", CONTIGS)
    world.stop_after(3, [vcf])
    first, *lines = world.journal.read_text().splitlines()
    begun = json.loads(first)
    begun["contigs"] = [[*contig[:4]] for contig in begun["contigs"]]
    world.journal.write_text("".join(f"{line}\n" for line in (json.dumps(begun), *lines)))
    (world.partial / "soft_mask.npy").unlink()
    read.clear()
    report = world.go_on([vcf])
    assert [contig for contig, _ in read] == CONTIGS
    world.assert_whole(report, [vcf])


def test_a_finished_genome_of_version_1_is_not_taken_for_a_new_one(world, as_version_1):
    vcf = world.vcf("x.vcf", CONTIGS)
    as_version_1(build_genome(world.fasta, world.output, [vcf]).path)
    with pytest.raises(InputError, match="exists already"):
        world.go_on([vcf])
    world.assert_whole(world.go_on([vcf], force=True), [vcf])


# ---- what may have changed meanwhile


CHANGES = [
    {"min_frequency": 0.1},
    {"filters": ["PASS", "low"]},
    {"frequency_field": "GT"},
    {"samples": ["s"]},
    {"sample": "t"},
    {"contigs": ["chr1", "chr2", "chr3", "chr4"]},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_other_settings_are_refused_and_lose_nothing(world, change):
    vcf = world.vcf("x.vcf", CONTIGS)
    world.stop_after(2, [vcf])
    with pytest.raises(InputError, match=r"x\.genome: cannot go on, as its settings were") as refusal:
        world.go_on([vcf], **change)
    assert "\n" not in str(refusal.value)
    assert len(world.journal.read_text().splitlines()) == 3
    world.assert_whole(world.go_on([vcf]), [vcf])


def test_a_changed_source_is_refused_and_loses_nothing(world):
    vcfs = [world.vcf("a.vcf", CONTIGS[:2]), world.vcf("b.vcf", CONTIGS[2:])]
    world.stop_after(1, vcfs)
    for path in (world.fasta, vcfs[0]):
        before = path.read_bytes()
        if path == world.fasta:
            path.write_bytes(before.replace(b"some", b"same"))
        else:
            world.vcf("a.vcf", CONTIGS[:2], 0.3)
        with pytest.raises(InputError, match=f"^{path.name}: has changed since .*; give the same as before") as refusal:
            world.go_on(vcfs)
        assert "\n" not in str(refusal.value)
        path.write_bytes(before)
    with pytest.raises(InputError, match="begun with other files"):
        world.go_on(vcfs[::-1])
    pysam.tabix_index(str(vcfs[0]), preset="vcf", force=True)
    world.assert_whole(world.go_on(vcfs), vcfs)


def test_a_file_that_gave_nothing_yet_may_change(world):
    """A download that was cut short is downloaded again."""
    vcfs = [world.vcf("a.vcf", CONTIGS[:2]), world.vcf("b.vcf", CONTIGS[2:])]
    content = vcfs[1].read_bytes()
    world.stop_after(1, vcfs)
    vcfs[1].write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"b\.vcf\.gz: .*cut short"):
        world.go_on(vcfs)
    assert vcfs[1] == world.vcf("b.vcf", CONTIGS[2:], 0.5)
    world.stop_after(2, vcfs, resume=True)
    # From here on it has given something, and what counts is the file as it is now.
    world.vcf("b.vcf", CONTIGS[2:])
    with pytest.raises(InputError, match=r"b\.vcf\.gz: has changed"):
        world.go_on(vcfs)
    world.vcf("b.vcf", CONTIGS[2:], 0.5)
    world.assert_whole(world.go_on(vcfs), vcfs)


@pytest.mark.parametrize("indexed", [True, False])
def test_records_of_a_finished_contig_do_not_get_lost(world, indexed):
    """A file that gave nothing to a contig has some of it now: refused, or the genome has them."""
    vcfs = [world.vcf(f"{name}.vcf", some, indexed=indexed) for name, some in (("a", CONTIGS[:2]), ("b", CONTIGS[2:]))]
    world.stop_after(1, vcfs)
    assert '["chr1", ' in world.journal.read_text()
    world.vcf("b.vcf", CONTIGS, indexed=indexed)
    report, refusal = world.try_to_go_on(vcfs)
    if refusal:
        assert "b.vcf" in refusal
        assert world.journal.exists()
    else:
        world.assert_whole(report, vcfs)


# ---- what may be damaged


def test_a_torn_journal_is_believed_as_far_as_it_goes(world):
    vcf = world.vcf("x.vcf", CONTIGS)
    world.stop_after(3, [vcf])
    whole = world.journal.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    folder = world.partial.with_name("kept")
    shutil.copytree(world.partial, folder)
    expected = world.whole([vcf])
    # Its last line, then of the one before, and of the first.
    for cut in [1, 2, *range(3, last, 23), last, last + 1, last + 9, len(whole) - 20, len(whole)]:
        shutil.copytree(folder, world.partial, dirs_exist_ok=True)
        world.journal.write_bytes(whole[: len(whole) - cut])
        if cut < 30:
            world.stop_after(1, [vcf], resume=True)
            # What was added behind the tear counts as well.
            assert len(world.journal.read_bytes().splitlines()) == 4 + (cut == 1)
        report = world.go_on([vcf])
        assert (bytes_of(world.output), report) == expected
        shutil.rmtree(world.output)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("fault", ["cut", "empty", "gone", "longer"])
def test_arrays_that_were_cut_are_noticed(world, name, fault):
    """Rows are made anew; without its sequences a build cannot go on."""
    vcf = world.vcf("x.vcf", CONTIGS)
    world.stop_after(3, [vcf])
    file = world.partial / name
    content = file.read_bytes()
    file.write_bytes({"cut": content[:-3], "empty": b"", "gone": b"", "longer": content + b"12345678"}[fault])
    if fault == "gone":
        file.unlink()
    report, refusal = world.try_to_go_on([vcf])
    if refusal:
        assert name in refusal
        report = build_genome(world.fasta, world.output, [vcf])
    world.assert_whole(report, [vcf])


def test_rows_that_were_changed_are_made_anew(world, read):
    vcf = world.vcf("x.vcf", CONTIGS)
    world.stop_after(3, [vcf])
    file = world.partial / "variant_frequency.npy"
    content = bytearray(file.read_bytes())
    content[-100 * 8 - 5] ^= 1
    file.write_bytes(content)
    read.clear()
    report = world.go_on([vcf])
    assert [contig for contig, _ in read] == CONTIGS[1:]
    world.assert_whole(report, [vcf])


def test_a_soft_mask_that_was_changed_is_refused(world):
    vcf = world.vcf("x.vcf", CONTIGS)
    world.stop_after(3, [vcf])
    file = world.partial / "soft_mask.npy"
    content = bytearray(file.read_bytes())
    content[-4] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.genome\.partial: its sequences are damaged; build anew") as refusal:
        world.go_on([vcf])
    assert "\n" not in str(refusal.value)


# ---- processes that are killed

PROGRAM = """
import sys
from mutbert.genome import population
population._SHORTEST_REGION = population._LONGEST_REGION = 300
from mutbert.genome.build import build_genome
build_genome(sys.argv[1], sys.argv[2], [sys.argv[3]], workers=int(sys.argv[4]), resume=True)
"""


def children_of(process):
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not listed.exists():
        pytest.skip("only Linux lists the children of a process")
    return [int(child) for child in listed.read_text().split()]


def wait_for_end(children):
    """Wait until processes have ended; zombies, which nobody collects in a container, have."""

    def lives(child):
        try:
            return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + 60
    while any(map(lives, children)):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [1, 2])
def test_kills_at_any_moment_change_nothing(world, number):
    """SIGKILL at random moments, again and again until a build ends before it is killed."""
    vcf = world.vcf("x.vcf", CONTIGS)
    # Slow, so that moments fall into every part of the build.
    slow = "import time\nfrom mutbert.genome import build\nadd = build.Journal.add\n"
    slow += (
        "def slowly(*words):\n    time.sleep(0.06)\n    add(*words)\n    time.sleep(0.06)\nbuild.Journal.add = slowly\n"
    )
    command = [sys.executable, "-c", slow + PROGRAM, *map(str, (world.fasta, world.output, vcf, number))]
    moments, kills = random.Random(number), 0
    while True:
        process = subprocess.Popen(command)
        try:
            # The start takes about as long as a contig; later ones get more time, so that it ends.
            process.wait(timeout=moments.uniform(0.25, 0.6) + 0.1 * kills)
            break
        except subprocess.TimeoutExpired:
            children = children_of(process) if number > 1 else []
            process.send_signal(signal.SIGKILL)
            process.wait()
            wait_for_end(children)
            kills += 1
        if world.output.exists():
            # It had ended but for its last moments.
            break
    assert process.returncode in (0, -signal.SIGKILL)
    assert bytes_of(world.output) == world.whole([vcf])[0]
    assert not world.partial.exists()
    assert kills


def test_workers_end_with_their_parent(world):
    """The parent dies in the middle of a file, with a worker that waits for it."""
    vcf = world.vcf("x.vcf", CONTIGS)
    hold = "import time\nfrom mutbert.genome import build\n"
    hold += "def forever(*words):\n    print('here', flush=True)\n    time.sleep(60)\nbuild.Journal.add = forever\n"
    command = [sys.executable, "-c", hold + PROGRAM, *map(str, (world.fasta, world.output, vcf, 3))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"here\n"
        children = children_of(process)
        assert len(children) == 2
        os.kill(process.pid, signal.SIGKILL)
        wait_for_end(children)
    world.assert_whole(world.go_on([vcf]), [vcf])
