"""Files that lie: each mutation is read, or is one line and status 2; in bounded time and memory."""

import gzip
import json
import os
import re
import shutil
import struct
from pathlib import Path

import pysam
import pysam.bcftools
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

VALUES = [
    None, True, -1, 0, 1.5, 1e308, float("nan"), 2**31, 2**63, 10**30, "", "x" * 20000, "\0", "é\n|`<b>", "\ud800",
    "../../x", "/dev/zero", [], {}, [[]], {"a": 1}, ["a", 1], "1e999", "2020-13-45",
]  # fmt: skip
BYTES = [b"", b"\0", b"\xff\xff\xff\x7f", b"\xef\xbb\xbf", b"\n", b"\xe9", b"\t", b'"', b"-1", b"\0" * 100, b"9" * 20]
TYPES = [b"'|O'", b"'<f8'", b"'|V100000000000'", b"[('a', '|O')]", b"'x'", b"'<U0'"]
SHAPES = [b"(-1,)", b"(1000000000000,)", b"()", b"(1, 1)", b"('a',)", b"(0, 4)", b"(9,"]
WINDOWS = "--model model --genome small.genome --context 20"
BUILD, SCORE = "genome build --fasta small.fa -o out --vcf", f"score {WINDOWS} -o out.parquet --vcf"
PERSON = f"{SCORE} asked.vcf --surroundings person --sample S1"
GRID = "--suite own.yaml --data tasks --model tiny=model --task first --protocol published --no-baselines --seeds 1"
RUN = "pretrain recipe.yaml output=run training.max_steps=2 training.save_steps=1 training.save_total_limit=2"
TUNE = "finetune finetune.yaml train=table.csv test=table.csv finetune.max_steps=1 output=out"
# What is made of the inputs first, with a run that seems to have been stopped.
MADE = [f"score {WINDOWS} --vcf background.vcf --calibrate -o c.json", RUN, f"bench run {GRID} -o grid"]
# By the file that is changed, or the folder of which one is: commands that read it.
READ = {
    "small.genome": ["genome inspect small.genome", f"{SCORE} asked.vcf",
                     "genome export small.genome -o o.fa --as reference",
                     "genome verify small.genome --fasta small.fa", "genome merge small.genome second.genome -o out"],
    "model": ["embed --model model --fasta sequences.fa -o out.npy", "convert model out", "export model -o out"],
    "classifier": ["predict table.csv --model classifier -o out.tsv"],
    **{name: [f"embed --model {name} --fasta sequences.fa -o out.npy", f"{TUNE} model={name}"]
       for name in ("dnabert2", "ntv2-50m", "caduceus-ph")},
    "recipe.yaml": ["pretrain recipe.yaml output=out training.max_steps=1"], "finetune.yaml": [TUNE],
    "own.yaml": [f"bench run {GRID} --set finetune.max_steps=1 -o out", "bench list --suite own.yaml"],
    **{name: [f"{order} {name}" for order in (BUILD, SCORE, f"{PERSON} --person-vcf")]
       for name in ("small.vcf", "small.vcf.gz", "small.bcf")},
    "small.bcf.csi": [f"{BUILD} small.bcf", f"{SCORE} small.bcf --region chr1"],
    "small.vcf.gz.tbi": [f"{BUILD} small.vcf.gz", f"{SCORE} small.vcf.gz --region chr1"],
    "small.fa": ["genome build --fasta small.fa -o out", "embed --model model --fasta small.fa -o o.npy"],
    "regions.bed": [f"tracks {WINDOWS} --bed regions.bed -o out.bedgraph"],
    "table.csv": ["predict table.csv --model classifier -o out.tsv"],
    "c.json": [f"{SCORE} asked.vcf --calibration c.json"],
    "run": ["report run"], "run/checkpoints/checkpoint-2": [f"{RUN} --resume"], "grid": ["bench report grid"],
}  # fmt: skip


def change_tree(data, random):
    """Change one value of JSON or YAML: another type, size or name; dropped, doubled or deeply nested."""
    import yaml

    tree, places = yaml.safe_load(data), []
    stack = [tree]
    while stack:
        node = stack.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        places += [(node, key) for key in keys]
        stack += [node[key] for key in keys]
    node, key = random.choice(places)
    old, kind = node[key], random.randrange(8)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[f"{key}_"] = node.pop(key)
    elif kind == 2 and isinstance(node, list):
        node.insert(key, old)
    elif kind == 3 and isinstance(old, int | float):
        node[key] = random.choice([old + 1, -old, old * 2, old * 10**9, old - 1, str(old), float(old)])
    else:
        node[key] = random.choice(VALUES)
    text = json.dumps(tree)
    return (text if kind != 4 else text.replace(json.dumps(old), "[" * 3000 + "]" * 3000, 1)).encode()


def change_bytes(data, random):
    """Cut, insert, overwrite or double bytes, drop a line, or write in another encoding."""
    place, some = random.randrange(min(len(data), random.choice([16, 256, 1 << 30])) + 1), random.choice(BYTES)
    after = place + random.choice([0, 1, 4, len(some)])
    lines = data.splitlines(keepends=True)
    line = random.randrange(len(lines) + 1)
    return random.choice([
        data[:place], data[:place] + some + data[after:], data + data[place:],
        b"".join(lines[:line] + lines[line + 1 :]), data[:place] + bytes([random.randrange(256)]) + data[place + 1 :],
        data.decode("latin-1").encode("utf-16"),
    ])  # fmt: skip


def change_array(data, random):
    """Change an array's header, whose type, shape or order lies."""
    header = data[10 : 10 + struct.unpack("<H", data[8:10])[0]]
    new = random.choice([
        re.sub(rb"'descr': .*(?=, 'fortran)", lambda _: b"'descr': " + random.choice(TYPES), header),
        re.sub(rb"\([\d, ]*\), }", lambda _: random.choice(SHAPES) + b", }", header), header.replace(b"False", b"None"),
    ])  # fmt: skip
    return data[:8] + struct.pack("<H", len(new)) + new + data[10 + len(header) :]


def change_weights(data, random):
    """Change a safetensors header, its length, or the types in it."""
    size = struct.unpack("<Q", data[:8])[0]
    header, kind = data[8 : 8 + size], random.choice([b"F64", b"F16", b"I32", b"BOOL", b"x"])
    new = random.choice([header.replace(b"F32", kind), header.replace(b"F32", kind, 1), change_tree(header, random)])
    length = random.choice([len(new)] * 4 + [0, 2**63, 10**12, size + 1])
    return struct.pack("<Q", length) + new + data[8 + size :]


def change_packed(data, random):
    """Change what BGZF holds: bytes, or a number of an index or a record."""
    data, place = gzip.decompress(data), random.randrange(4, 200)
    number = struct.pack("<I", random.choice([0, 1, 2**20, 2**28, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]))
    return pack(random.choice([data[:place] + number + data[place + 4 :], change_bytes(data, random)]))


def pack(data):
    with pysam.BGZFile("packed", "wb") as file:
        file.write(data)
    return Path("packed").read_bytes()


CHANGES = {
    **dict.fromkeys((".json", ".yaml"), change_tree), ".npy": change_array, ".safetensors": change_weights,
    **dict.fromkeys((".gz", ".bcf", ".csi", ".tbi"), change_packed),
}  # fmt: skip


BOUND = """
import resource
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), -1))
"""


@pytest.fixture(scope="module")
def run(fork):
    """Run a command in a folder, with 1 GiB more of memory at most; return its status and its errors' lines."""

    def run(folder, command, before=BOUND):
        status, _, said = fork(command, folder, before)
        return status, said.strip().splitlines() or [""]

    return run


@pytest.fixture(scope="module")
def folder(inputs, peer_folders, tmp_path_factory, run):
    """Return the inputs and what is made of them."""
    folder = tmp_path_factory.mktemp("lies") / "files"
    shutil.copytree(inputs, folder)
    for name in ("dnabert2", "ntv2-50m", "caduceus-ph"):
        shutil.copytree(peer_folders[name], folder / name)
    pysam.tabix_compress(str(folder / "small.vcf"), str(folder / "small.vcf.gz"))
    pysam.tabix_index(str(folder / "small.vcf.gz"), preset="vcf")
    words = ("-Ob", "--write-index", "-o", str(folder / "small.bcf"), str(folder / "small.vcf"))
    pysam.bcftools.view(*words, catch_stdout=False)
    for words in MADE:
        status, lines = run(folder, words, before="")
        assert status == 0, lines
    return folder


@pytest.mark.parametrize("examples", [40, pytest.param(500, marks=pytest.mark.nightly)])
def test_a_file_that_lies_is_read_or_is_one_line(examples, folder, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    how = {"suppress_health_check": list(HealthCheck), "phases": [Phase.generate], "report_multiple_bugs": False}

    @settings(max_examples=examples, deadline=None, derandomize=True, **how)
    @given(st.sampled_from(list(READ)), st.randoms(use_true_random=False))
    def check(name, random):
        shutil.rmtree(work := tmp_path / "work", ignore_errors=True)
        shutil.copytree(folder, work, copy_function=os.link)
        every = [one for one in sorted((work / name).rglob("*")) if one.is_file()] or [work / name]
        path = random.choice([one for one in every if one.suffix not in {"", ".html", ".lock", ".0"}])
        change = random.choice([CHANGES.get(path.suffix, change_bytes), change_bytes])
        new = change(path.read_bytes(), random)
        path.unlink()  # and not what it is a link to
        path.write_bytes(new)
        if name == "run/checkpoints/checkpoint-2":
            (work / "run" / "metrics.json").unlink()
        status, lines = run(work, command := random.choice(READ[name]))
        said = f"{path.relative_to(work)}: {command}\n" + "\n".join(lines)
        assert status in (0, 2) or (status == 1 and ("verify" in command or "bench" in command)), said
        assert "Traceback" not in said, said
        if status == 2:
            assert lines[-1].startswith("mutbert: "), said
            # A recipe's own values are named by their keys.
            assert path.suffix in (".yaml", ".fa") or any(
                one in lines[-1] for one in (*path.parts, path.stem, "memory")
            ), said

    check()


@pytest.mark.parametrize(("name", "words"), [
    ("small.bcf", {145: 2**32 - 2, 206: 2**31 - 1}), ("small.vcf.gz", {36: 2**31, 76: 2**31 - 1}),
])  # fmt: skip
def test_an_index_that_ends_htslib_is_as_none(name, words, folder, run, tmp_path):
    shutil.copytree(folder, work := tmp_path / "work")
    (index,) = work.glob(f"{name}.*i")
    data = bytearray(gzip.decompress(index.read_bytes()))
    for place, number in words.items():
        data[place : place + 4] = struct.pack("<I", number)
    index.write_bytes(gzip.compress(bytes(data)))
    status, lines = run(work, f"genome build --fasta small.fa --vcf {name} -o out")
    assert status == 0, lines
    assert run(work, "genome verify out --fasta small.fa --vcf small.vcf")[0] == 0
