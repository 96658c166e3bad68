"""Tables of every format, and what is wrong with a file in one line with its place."""

import gzip
import hashlib

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.errors
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mutbert.errors import InputError
from mutbert.tables import LINE, NoSuchFileError, SourceFile, find_file, numbers, positions, read_table, reject, truths


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def refused(call, *arguments, **named):
    with pytest.raises(InputError) as error:
        call(*arguments, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t"), (".txt", "\t"), (".csv.gz", ",")])
def test_text_comes_back_with_its_lines(tmp_path, suffix, separator, ends):
    text = '\ufeffa,b b,a,c\n\n1, x ,,"q,""r"\n\n"s\n\nt",,u,é\n,"",,\n'.replace(",", separator).replace("\n", ends)
    path = write(tmp_path / f"t{suffix}", text)
    frame, source = read_table(path, ["c", "b b"])
    assert frame.select(LINE, "c", "b b").rows() == [
        (3, f'q{separator}"r', "x"), (5, "é", None), (8, None, None),
    ]  # fmt: skip
    assert (source.place, source.bytes, source.revision) == (str(path), path.stat().st_size, None)
    assert read_table(path, lambda header: [header[3]])[0].columns == [LINE, "c"]
    assert read_table(path, ["c"], where={"b b": "x"})[0].rows() == [(3, f'q{separator}"r', "x")]


def test_semicolons_and_decimal_commas_are_recognised_and_said(tmp_path, capsys):
    path = write(tmp_path / "t.csv", "a;b;c;d\nx,y;0,5;1,5;1,2\n;-3;NA;3,4,5\n")
    frame, _ = read_table(path, ["a", "b", "c", "d"])
    assert frame.select("a", "b", "c", "d").rows() == [("x,y", "0.5", "1.5", "1,2"), (None, "-3", "NA", "3,4,5")]
    assert capsys.readouterr().err == f"{path}: columns are separated by semicolons; decimal commas in b, c\n"
    assert "separate columns by semicolons" in refused(read_table, write(path, "a;b\n1\n"), ["a"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n \n", ": is empty"),
        ("a,b\n", ": holds no rows"),
        ("a,b\n1,2\n\n3\n", ", line 4: has 1 columns where the header has 2"),
        ('a,b\n1,2\n3,"4\n5,6\n', ", line 3: a quotation mark is not closed"),
        ('a,b\n"x\ny",2\n1,2,3\n', ", line 4: has 3 columns"),
        ("A ,c\n1,2\n", ": no column 'a'; there are A, c; did you mean 'A '?"),
        ("a,a,b\n1,2,3\n", ": column 'a' comes 2 times"),
        (b"a,b\n1,2\n\xff,3\n", ", line 3: is not UTF-8"),
    ],
)
def test_wrong_text_is_refused_with_its_line(tmp_path, text, message):
    path = write(tmp_path / "a.csv.gz", text)
    assert refused(read_table, path, ["a"]).startswith(f"{path}{message}")


def test_parquet_is_text_and_lists(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {"i": [1, None], "d": [0.5, float("nan")], "b": [True, None], "t": pa.DictionaryArray.from_arrays([0, 1],
               [" x", ""]), "l": [[1, None], []], "s": [{"x": 1}, None], "f": [[0.5], []]}  # fmt: skip
    pq.write_table(pa.table(columns), path)
    frame, _ = read_table(path, ["t", "i", "d", "b", "l"])
    assert frame.select(LINE, "i", "d", "b", "t", "l").rows() == [
        (1, "1", "0.5", "1", "x", [1, None]), (2, None, "NaN", None, None, []),
    ]  # fmt: skip
    for name in "sf":
        assert f"column {name} holds" in refused(read_table, path, [name])
    assert "holds lists" in refused(read_table, path, ["i"], where={"l": "1"})
    path.write_bytes(path.read_bytes()[:-9])
    assert "is not Parquet or damaged" in refused(read_table, path, ["i"])


@pytest.mark.parametrize("suffix", [".fa", ".fasta.gz"])
def test_fasta_has_three_columns(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", ">x y|z|1\nAC\nGT\n\n>|0\r\nA\r\n>\n")
    frame, _ = read_table(path, ["label", "sequence", "name"])
    assert frame.select(LINE, "name", "label", "sequence").rows() == [
        (1, "x", "1", "ACGT"), (2, None, "0", "A"), (3, None, None, None),
    ]  # fmt: skip
    assert read_table(path, ["name"])[0]["name"].to_list() == ["x", "|0", None]
    assert "no column 'x'; there are sequence, name, label" in refused(read_table, path, ["x"])
    reject_all = refused(reject, frame, str(path), "name", pl.col("label").is_null(), "add one")
    assert reject_all == f"{path}, record 3: name is missing; add one"
    write(path, "ACGT\n>a\nAC\n")
    assert "is not FASTA or FASTQ, it starts with 'ACGT" in refused(read_table, path, ["name"])


def test_fastq_is_read_and_cut_files_are_refused(tmp_path):
    path = write(tmp_path / "a.fastq", "@a b\nACGT\n+\n@III\n")
    assert read_table(path, ["name", "sequence"])[0].rows() == [(1, "a", "ACGT")]
    rng = np.random.default_rng(0)
    fasta = ">a\n" + "".join(rng.choice(list("ACGT"), 5000)) + "\n"
    for name, text in (("a.fa.gz", fasta), ("a.csv.gz", fasta.replace(">a", "sequence"))):
        path = write(tmp_path / name, text)
        data = path.read_bytes()
        for cut in (data[:-12], data[: len(data) // 2], data[:12]):
            path.write_bytes(cut)
            assert "damaged or cut short" in refused(read_table, path, ["sequence"])


def test_numbers_positions_and_truths_have_one_grammar(tmp_path):
    text = "n,p,t\n+.5,1,TRUE\n1e3,007.0,0\n-2.,4294967295,1.0\nNA,5,false\n,6,\n"
    path = write(tmp_path / "a.csv", text)
    frame, _ = read_table(path, ["n", "p", "t"])
    assert numbers(frame, str(path), "n").to_list() == [0.5, 1000, -2, None, None]
    assert positions(frame, str(path), "p").to_list() == [1, 7, 4294967295, 5, 6]
    assert truths(frame, str(path), "t").to_list() == [True, False, True, False, None]
    frame, _ = read_table(write(path, "n,p,t\n1,1,1\n1e999,1.5,yes\n"), ["n", "p", "t"])
    assert refused(numbers, frame, "x.csv", "n") == "x.csv, line 3: n is '1e999'; expected a number"
    assert "expected a number from 0 to 1" in refused(numbers, frame, "x.csv", "n", low=0, high=1)
    assert refused(positions, frame, "x", "p") == "x, line 3: p is '1.5'; positions are whole numbers from 1 on"
    assert refused(truths, frame, "x.parquet", "t") == "x.parquet, row 3: t is 'yes'; expected 0 or 1"


def test_files_that_are_none_are_refused(tmp_path):
    assert refused(read_table, tmp_path / "a.csv", ["a"]).endswith("a.csv: no such file; check the path")
    assert "is a directory" in refused(read_table, tmp_path, ["a"])
    assert "does not tell the format" in refused(read_table, write(tmp_path / "a.xlsx", "a\n1\n"), ["a"])


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that cannot be reached, and its cache with one commit of a data set."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub" / "datasets--owner--name"
    files = folder / "snapshots" / COMMIT
    (files / "sub").mkdir(parents=True)
    write(files / "sub/a.csv.gz", "a,b\n1,2\n")
    for name in ("main", "v1", "refs/convert/parquet"):
        (folder / "refs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / name).write_text(COMMIT)
    return files


@pytest.mark.parametrize("at", ["", "@v1", "@main", f"@{COMMIT}", "@refs/convert/parquet", "@refs%2Fconvert%2Fparquet"])
def test_a_file_of_the_hub_has_its_commit(hub, at):
    place = f"hf://datasets/owner/name{at}/sub/a.csv.gz"
    frame, source = read_table(place, ["a"])
    assert frame.rows() == [(2, "1")]
    data = (hub / "sub/a.csv.gz").read_bytes()
    assert source == SourceFile(place, len(data), hashlib.sha256(data).hexdigest(), COMMIT)


def test_what_the_hub_does_not_have_is_refused(hub, monkeypatch):
    assert "the Hub cannot be reached" in refused(find_file, "hf://datasets/owner/name/none.csv")
    assert "write hf://datasets/OWNER/NAME[@REVISION]/FILE" in refused(find_file, "hf://datasets/owner/name")

    def fail(*_, **__):
        raise huggingface_hub.errors.EntryNotFoundError("404\nEntry Not Found")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(NoSuchFileError, match="the data set has no file sub/a"):
        find_file("hf://datasets/owner/name/sub/a.csv")
