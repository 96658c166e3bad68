"""Labelled sequences against the standard library's readers, and what is wrong with them."""

import csv
import gzip
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mutbert.errors import InputError
from mutbert.examples.table import Columns, read_examples
from mutbert.regions import Region

PLAIN = Columns()
LETTERS = "ACGTRYSWKMBDHVNacgtryswkmbdhvnUu"
# NA and NaN are words for a sequence that is missing.
BASES = st.text(LETTERS, min_size=1, max_size=30).filter(lambda text: text.lower() not in ("na", "nan"))
SEQUENCES = st.lists(BASES, min_size=1, max_size=12)
modest = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(sequence):
    """The upper-case DNA of a sequence."""
    return sequence.upper().replace("U", "T")


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def said(path, columns=PLAIN, **settings):
    """The message of an error: one line that begins with the file."""
    with pytest.raises(InputError) as error:
        read_examples(path, columns, **settings)
    text = str(error.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(str(path))


@modest
@given(data=st.data(), sequences=SEQUENCES, ends=st.sampled_from(["\n", "\r\n"]), zipped=st.booleans())
@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_tables_come_back(tmp_path, suffix, separator, data, sequences, ends, zipped):
    count, words = len(sequences), st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
    names = data.draw(st.lists(words.map(str.strip), min_size=count, max_size=count))
    classes = ["pos", "neg", "NA", "a,b", 'c"d', "e\nf"]
    labels = data.draw(st.lists(st.sampled_from(classes), min_size=count, max_size=count))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=ends)
    writer.writerows(
        [("other", "name", "label", "sequence"), *zip(range(count), names, labels, sequences, strict=True)]
    )
    path = write(tmp_path / f"table{suffix}{'.gz' * zipped}", text.getvalue())
    examples = read_examples(path, Columns(name="name"), classes=classes)[0]
    assert [examples.sequence(row) for row in range(count)] == [written(text) for text in sequences]
    assert [classes[number] for number in examples.labels] == labels
    assert examples.names == tuple(names)
    assert (examples.problem, examples.classes) == ("multiclass", tuple(classes))


@modest
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_parquet_comes_back_bit_by_bit(tmp_path, kind, labels):
    sequences = ["ACGU"[: 1 + row % 4] for row in range(len(labels))]
    table = pa.table({"sequence": pa.array(sequences).cast(kind), "label": pa.array(labels, pa.float32())})
    pq.write_table(table, tmp_path / "some.parquet", row_group_size=2)
    # Of 0 and 1 alone it would be binary.
    examples = read_examples(tmp_path / "some.parquet", PLAIN, problem="regression")[0]
    assert [examples.sequence(row) for row in range(len(examples))] == [written(text) for text in sequences]
    assert (examples.problem, examples.classes, examples.labels.dtype) == ("regression", ("label",), np.float32)
    assert examples.labels.tolist() == labels


@pytest.mark.parametrize(
    ("labels", "settings", "problem", "classes", "values"),
    [
        (["0", "1", "1"], {}, "binary", ("0", "1"), [0, 1, 1]),
        (["1", "1", "1"], {}, "binary", ("0", "1"), [1, 1, 1]),
        (["10", "9", "-1"], {}, "multiclass", ("-1", "9", "10"), [2, 1, 0]),
        (["10", "9", "+09"], {}, "binary", ("9", "10"), [1, 0, 0]),
        (["b", " a ", "b"], {}, "binary", ("a", "b"), [1, 0, 1]),
        (["none", "a", "."], {}, "multiclass", (".", "a", "none"), [2, 1, 0]),
        (["NA", "NA", "NA"], {"classes": ["EU", "NA"]}, "binary", ("EU", "NA"), [1, 1, 1]),
        (["b", "b", "b"], {"classes": ["c", "b", "a"]}, "multiclass", ("c", "b", "a"), [1, 1, 1]),
        (["0", "1", "0"], {"classes": ["no", "yes"]}, "binary", ("no", "yes"), [0, 1, 0]),
        *(
            (["0.0", "1.0", "0.0"], {"problem": problem}, "binary", ("0", "1"), [0, 1, 0])
            for problem in ("binary", None)
        ),
        (["0", "1.", "2.0"], {}, "regression", ("label",), [0, 1, 2]),
        (["0.5", "-1e-3", "3"], {}, "regression", ("label",), [0.5, -1e-3, 3]),
        (["+.5", "1.", "3E2"], {}, "regression", ("label",), [0.5, 1, 300]),
        (["0", "1", "1"], {"problem": "regression", "classes": ["height"]}, "regression", ("height",), [0, 1, 1]),
        (["0", "1", "1"], {"problem": "multilabel"}, "multilabel", ("label",), [[0], [1], [1]]),
    ],
)
def test_labels_mean_what_they_look_like(tmp_path, labels, settings, problem, classes, values):
    path = write(tmp_path / "a.csv", "label,sequence\n" + "".join(f"{label},ACG\n" for label in labels))
    examples = read_examples(path, PLAIN, **settings)[0]
    assert (examples.problem, examples.classes) == (problem, classes)
    kinds = {"binary": np.int64, "multiclass": np.int64, "multilabel": np.uint8, "regression": np.float32}
    assert examples.labels.dtype == kinds[problem]
    assert examples.labels.tolist() == np.array(values, dtype=kinds[problem]).tolist()


def test_several_columns_are_several_labels(tmp_path):
    path = write(tmp_path / "a.csv", "sequence,x,y,z\nA,0,1,0.5\nC,1.0,1,2\nG,1,0,-3\n")
    examples = read_examples(path, Columns(label=("y", "x")))[0]
    assert (examples.problem, examples.classes, examples.labels.dtype) == ("multilabel", ("y", "x"), np.uint8)
    assert examples.labels.tolist() == [[1, 0], [1, 1], [0, 1]]
    examples = read_examples(path, Columns(label=("x", "z")))[0]
    assert (examples.problem, examples.classes, examples.labels.dtype) == ("regression", ("x", "z"), np.float32)
    assert examples.labels.tolist() == [[0, 0.5], [1, 2], [1, -3]]
    for problem in ("binary", "token"):
        assert "is one column, not 2" in said(path, Columns(label=("x", "y")), problem=problem)
    write(path, "sequence,x,y\nA,0,NA\nC,nan,1\nG,1,\n")
    examples = read_examples(path, Columns(label=("x", "y")))[0]
    assert (examples.problem, examples.labels.dtype) == ("multilabel", np.float32)
    np.testing.assert_array_equal(examples.labels, np.float32([[0, np.nan], [np.nan, 1], [1, np.nan]]))


ROWS = ["ACG,a", "NA,b", "nan,a", ",a", "A,NA", "C,nan", "G,", "N/A,NaN", "T,b"]


def test_rows_without_a_sequence_or_label_are_left_out_and_counted_where_asked_for(tmp_path):
    path, left_out = write(tmp_path / "a.csv", "\n".join(["sequence,label", *ROWS])), {}
    examples = read_examples(path, PLAIN, left_out=left_out)[0]
    assert [examples.sequence(row) for row in range(2)] == ["ACG", "T"]
    assert (examples.problem, examples.classes) == ("binary", ("a", "b"))
    assert left_out == {"a sequence": 4, "a label": 3}
    write(path, "sequence,label\nACG,NA\nNA,1\n")
    assert said(path, left_out={}).startswith(": no row has a sequence and a label")
    # In a FASTA, NA is two bases.
    fasta = write(tmp_path / "a.fa", ">x|1\nNA\n>y|0\nNAN\n")
    assert read_examples(fasta, PLAIN)[0].sequence(0) == "NA"


@pytest.mark.parametrize(
    ("labels", "message"),
    [(range(100, 192), "92 different labels in 120 rows; set problem=regression"),
     (map("name{}".format, range(92)), "92 different labels in 120 rows; set problem=multiclass")],
)  # fmt: skip
def test_nearly_as_many_classes_as_rows_are_asked_about(tmp_path, labels, message):
    every = [*labels] * 2
    path = write(tmp_path / "a.csv", "\n".join(["label,sequence", *(f"{label},ACG" for label in every[:120])]))
    assert message in said(path)
    assert len(read_examples(path, PLAIN, problem="multiclass")[0].classes) == 92


def test_labels_of_bases_are_lists_in_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {"whole": [0, 1, 0], "list": [[1, 0], [2], [0, -100, 3]], "sequence": ["AC", "G", "TTT"]}
    pq.write_table(pa.table(columns), path)
    bases = read_examples(path, Columns(label="list"), problem="token")[0]
    assert bases.labels.tolist() == [1, 0, 2, 0, -100, 3]
    assert bases.classes == ("0", "1", "2", "3")
    chosen = read_examples(path, Columns(label="list", where={"whole": "0"}), problem="token")[0]
    assert chosen.labels.tolist() == [1, 0, 0, -100, 3]
    pq.write_table(pa.table(columns | {"list": [[1, 0], [2], [0, None, 3]]}), path)
    text = said(path, Columns(label="list"), problem="token")
    assert text.startswith(", row 3: the label of base 1 (the first is 0) is -101")
    assert "column list holds lists" in said(path, Columns(label="list"))
    assert "column list holds lists" in said(path, Columns(sequence="list", label=None))


@given(
    st.lists(st.lists(st.integers(-1, 11), min_size=1, max_size=9), min_size=1, max_size=8),
    st.sampled_from([",", " ", ", ", "\t", "digits"]),
    st.booleans(),
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_labels_of_bases_come_back(tmp_path, lists, separator, brackets):
    lists = [[-100 if value < 0 else value for value in values] for values in lists]
    texts = []
    for values in lists:
        as_digits = separator == "digits" and all(0 <= value < 10 for value in values)
        text = ("" if as_digits else "," if separator == "digits" else separator).join(map(str, values))
        texts.append(text if as_digits or not brackets else f"[{text}]")
    file = io.StringIO()
    csv.writer(file).writerows([("sequence", "label"), *(("A" * len(v), t) for v, t in zip(lists, texts, strict=True))])
    path = write(tmp_path / "a.csv", file.getvalue())
    examples = read_examples(path, PLAIN, problem="token")[0]
    assert examples.labels.dtype == np.int64
    assert examples.labels.tolist() == [value for values in lists for value in values]
    assert examples.classes == tuple(map(str, range(max(2, 1 + max(examples.labels.tolist())))))


def test_regions_that_do_not_agree_are_none(tmp_path):
    rows = ["chr1:5-8|x|y", "HLA:A*01:2-5", "chr1:5-9|1", "chr1:1,000-1,003", "", "chr2", "chr3:8-5"]
    file = io.StringIO()
    csv.writer(file).writerows([("sequence", "label", "where"), *(("ACG", "1", row) for row in rows)])
    path = write(tmp_path / "a.csv", file.getvalue())
    examples = read_examples(path, Columns(region="where"))[0]
    assert examples.regions == (Region("chr1", 5, 8), Region("HLA:A*01", 2, 5), *[None] * 5)
    fasta = write(tmp_path / "a.fa", ">chr3:10-14|0\nAC\nGT\n>chr3:10-14|1\nACG\n")
    examples = read_examples(fasta, Columns(region="name"))[0]
    assert examples.regions == (Region("chr3", 10, 14), None)
    assert examples.names == ("chr3:10-14",) * 2


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ("ACG,1\n,0", {}, ", line 3: sequence is missing; remove the row"),
        ("\nACG,1\n\nACXT,0", {}, ", line 5: sequence has 'X' at position 2"),
        ("ACGé,1", {}, ", line 2: sequence has 'é' at position 3"),
        ("A,1\nNA,0", {}, ", line 3: sequence is 'NA'; remove the row"),
        ("A,1\nnan,0", {"problem": "token"}, ", line 3: sequence is 'nan'; remove the row"),
        ("A,1\nC,", {}, ", line 3: label is missing; fill it in"),
        ("A,1\nC,NaN", {}, ", line 3: label is 'NaN'; fill it in"),
        ("A,a\nC,b\nG,NA", {}, ", line 4: label is 'NA'; fill it in"),
        ("A,a\nC,a", {}, ": every label in column label is 'a'"),
        ("A,a\nC,b\nA,d", {"classes": ["a", "b", "c"]}, ", line 4: label 'd' is not one of the classes a, b, c"),
        ("A,0\nC,3", {"classes": ["a", "b", "c"]}, ", line 3: label '3' is not one of the classes 0, 1, 2"),
        ("A,a\nC,b\nA,c", {"problem": "binary"}, ": column label has 3 classes (a, b, c) where a binary label has 2"),
        ("A,1\nC,1e39", {"problem": "regression"}, ", line 3: label is '1e39'; expected a number"),
        ("A,1\nC,2", {"problem": "multilabel"}, ", line 3: label is '2'; where a sequence has several labels"),
        ("A,1\nC,2", {"problem": "regression", "classes": ["a", "b"]}, ": 2 classes for 1 columns"),
        ("ACG,012\nACG,01", {"problem": "token"}, ", line 3: column label has 1 labels for 3 bases"),
        ("ACG,012\nACG,0;1;2", {"problem": "token"}, ", line 3: label is '0;1;2'; expected digits"),
        ("ACG,012\nACG,0 -1 2", {"problem": "token"}, ", line 3: the label of base 1 (the first is 0) is -1"),
        ("ACG,012\nACG,103", {"problem": "token", "classes": "abc"}, ", line 3: the label of base 2 (the first is 0)"),
        (">a|1\nAC\n>b\nGG\n", {}, ", record 2: label is missing; write it after a '|'"),
        (">a|1\nAC\n\n>b|0\n>c|1\nA\n", {}, ", record 2: sequence is missing"),
    ],
)  # fmt: skip
def test_wrong_rows_are_refused_with_their_place(tmp_path, rows, settings, message):
    text, fasta = f"sequence,label\n{rows}\n", rows.startswith(">")
    path = write(tmp_path / ("a.fa" if fasta else "a.csv"), rows if fasta else text)
    assert said(path, **settings).startswith(message)


@modest
@given(
    text=st.text(st.sampled_from('ACGTN01,\t\n\r" >|.-é'), max_size=40),
    header=st.sampled_from(["", "sequence,label\n", "sequence\tlabel\n", '"sequence",label\nA,0\n', ">a|1\n"]),
    problem=st.sampled_from([None, "binary", "regression", "token"]),
)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.fa", "a.parquet", "a.csv.gz"])
def test_whatever_a_file_holds_is_read_or_refused_in_one_line(tmp_path, name, text, header, problem):
    path = write(tmp_path / name, header + text)
    try:
        examples = read_examples(path, PLAIN, problem=problem)[0]
    except InputError:
        said(path, problem=problem)
    else:
        assert len(examples) > 0
        assert (examples.lengths > 0).all()
