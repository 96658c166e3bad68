"""Files against the standard library's readers, and every way in which they can be wrong."""

import csv
import gzip
import hashlib
import io
import re
import subprocess
import sys
from collections import Counter

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.errors
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mutbert import alphabet
from mutbert.errors import InputError, MissingExtraError
from mutbert.examples.columns import Columns
from mutbert.examples.files import read_examples
from mutbert.examples.places import SourceFile, find_file
from mutbert.regions import Region

LETTERS = "ACGTRYSWKMBDHVNacgtryswkmbdhvnUu"
SEQUENCES = st.lists(st.one_of(st.text(LETTERS, min_size=1, max_size=30), st.just("NA")), min_size=1, max_size=12)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=8)


def written(sequence):
    """What an upper-case string of DNA is made of a sequence."""
    return sequence.upper().replace("U", "T")


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def read_rows(path, separator):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="") as file:
        return list(csv.DictReader(file, delimiter=separator))


def said(path, columns=None, **settings):
    """The message of a refusal: one line that begins with the file."""
    with pytest.raises(InputError) as error:
        read_examples(path, columns, **settings)
    text = str(error.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(str(path))


@pytest.mark.parametrize("part", ["train", "dev", "test"])
def test_a_published_csv_is_what_the_csv_module_reads(shared, part):
    path = shared / f"data/gue/tf/0/{part}.csv.gz"
    rows = read_rows(path, ",")
    examples, source = read_examples(path)
    assert [examples.sequence(row) for row in range(len(examples))] == [row["sequence"] for row in rows]
    assert examples.labels.dtype == np.int64
    assert examples.labels.tolist() == [int(row["label"]) for row in rows]
    assert (examples.problem, examples.classes, set(examples.names)) == ("binary", ("0", "1"), {""})
    assert examples.regions == (None,) * len(rows)
    data = path.read_bytes()
    assert source == SourceFile(str(path), len(data), hashlib.sha256(data).hexdigest(), None)


def test_tasks_of_a_published_tsv_are_chosen_by_a_column(shared):
    path = shared / "data/nucleotide_transformer/revised_sample_1500.tsv.gz"
    rows = read_rows(path, "\t")
    tasks = Counter(row["task"] for row in rows)
    assert len(tasks) == 18
    for task, count in tasks.items():
        columns = Columns(name="name", region="name", where={"task": task})
        examples = read_examples(path, columns).examples
        mine = [row for row in rows if row["task"] == task]
        assert len(examples) == count
        assert [examples.sequence(row) for row in range(count)] == [row["sequence"] for row in mine]
        assert examples.labels.tolist() == [int(row["label"]) for row in mine]
        assert examples.names == tuple(row["name"] for row in mine)
        three = task in ("enhancers_types", "splice_sites_all")
        assert examples.problem == ("multiclass" if three else "binary")
        assert examples.unplaced == {}
        for row, region in zip(mine, examples.regions, strict=True):
            contig, start, end = re.fullmatch(r"(\w+):(\d+)-(\d+)\|\d", row["name"]).groups()
            assert region == Region(contig, int(start), int(end))
            assert len(region) == len(row["sequence"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), sequences=SEQUENCES, ends=st.sampled_from(["\n", "\r\n"]), zipped=st.booleans())
@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".tsv", "\t"), (".txt", "\t")])
def test_tables_come_back(tmp_path, suffix, separator, data, sequences, ends, zipped):
    count = len(sequences)
    names = data.draw(st.lists(NAMES, min_size=count, max_size=count))
    labels = data.draw(st.lists(st.sampled_from(["pos", "neg", "NA", "a,b", 'c"d']), min_size=count, max_size=count))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=ends)
    writer.writerow(["other", "name", "label", "sequence"])
    writer.writerows(zip(range(count), names, labels, sequences, strict=True))
    classes = ["pos", "neg", "NA", "a,b", 'c"d']
    path = write(tmp_path / f"table{suffix}{'.gz' * zipped}", text.getvalue())
    examples = read_examples(path, Columns(name="name"), classes=classes).examples
    assert [examples.sequence(row) for row in range(count)] == [written(text) for text in sequences]
    assert [classes[number] for number in examples.labels] == labels
    assert examples.names == tuple(names)
    assert (examples.problem, examples.classes) == ("multiclass", tuple(classes))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), sequences=SEQUENCES, width=st.integers(1, 40), zipped=st.booleans())
def test_fasta_comes_back(tmp_path, data, sequences, width, zipped):
    count = len(sequences)
    names = data.draw(st.lists(NAMES, min_size=count, max_size=count))
    labels = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    lines = []
    for name, label, text in zip(names, labels, sequences, strict=True):
        lines += [f">{name}|{label}", *(text[start : start + width] for start in range(0, len(text), width)), ""]
    path = write(tmp_path / f"some.fasta{'.gz' * zipped}", "\n".join(lines))
    examples = read_examples(path, classes=["0", "1", "2", "3"]).examples
    assert [examples.sequence(row) for row in range(count)] == [written(text) for text in sequences]
    assert examples.labels.tolist() == labels
    assert examples.names == tuple(names)
    without = read_examples(path, Columns(label=None)).examples
    assert without.names == tuple(f"{name}|{label}" for name, label in zip(names, labels, strict=True))
    assert (without.labels, without.problem, without.classes) == (None, "", ())
    assert (without.base_codes == examples.base_codes).all()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), sequences=SEQUENCES, group=st.integers(1, 5))
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_parquet_comes_back(tmp_path, kind, data, sequences, group):
    labels = data.draw(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=len(sequences),
                                max_size=len(sequences)))  # fmt: skip
    table = pa.table({"sequence": pa.array(sequences).cast(kind), "label": pa.array(labels, pa.float32())})
    pq.write_table(table, tmp_path / "some.parquet", row_group_size=group)
    examples = read_examples(tmp_path / "some.parquet").examples
    assert [examples.sequence(row) for row in range(len(examples))] == [written(text) for text in sequences]
    assert (examples.problem, examples.classes) == ("regression", ("label",))
    assert examples.labels.dtype == np.float32
    assert examples.labels.tolist() == labels


def test_bgzip_is_read_and_one_cut_between_blocks_is_refused(tmp_path):
    text = "sequence,label\n" + "".join(f"{'ACGT' * 200},{number % 2}\n" for number in range(500))
    path = tmp_path / "a.csv.gz"
    with pysam.BGZFile(str(path), "w") as file:
        file.write(text.encode())
    assert len(read_examples(path).examples) == 500
    path.write_bytes(path.read_bytes()[:-28])
    assert "cut short" in said(path)


def test_sequences_longer_than_any_buffer_are_read(tmp_path):
    codes = np.random.default_rng(0).integers(0, 4, 3_000_000).astype(np.uint8)
    long = alphabet.decode(codes)
    path = write(tmp_path / "a.csv", f"sequence,label\nA,0\n{long},1\nG,0\n")
    examples = read_examples(path).examples
    assert examples.lengths.tolist() == [1, 3_000_000, 1]
    assert (examples.base_codes[1:-1] == codes).all()
    write(path, f"sequence,label\nA,0\n{long},1\nX,0\n")
    assert said(path).startswith(", line 4: 'X' at position 0")


@pytest.mark.parametrize(
    ("labels", "settings", "problem", "classes", "values"),
    [
        (["0", "1", "1"], {}, "binary", ("0", "1"), [0, 1, 1]),
        (["1", "1", "1"], {}, "binary", ("0", "1"), [1, 1, 1]),
        (["2", "0", "1"], {}, "multiclass", ("0", "1", "2"), [2, 0, 1]),
        (["1", "2", "2"], {}, "binary", ("1", "2"), [0, 1, 1]),
        (["10", "9", "-1"], {}, "multiclass", ("-1", "9", "10"), [2, 1, 0]),
        (["10", "9", "+09"], {}, "binary", ("9", "10"), [1, 0, 0]),
        (["b", "a", "c"], {}, "multiclass", ("a", "b", "c"), [1, 0, 2]),
        (["b", " a ", "b"], {}, "binary", ("a", "b"), [1, 0, 1]),
        (["nan", "a", "na"], {}, "multiclass", ("a", "na", "nan"), [2, 0, 1]),
        (["NA", "NA", "NA"], {"classes": ["EU", "NA"]}, "binary", ("EU", "NA"), [1, 1, 1]),
        (["True", "False", "True"], {}, "binary", ("False", "True"), [1, 0, 1]),
        (["b", "a", "b"], {"problem": "multiclass"}, "multiclass", ("a", "b"), [1, 0, 1]),
        (["b", "a", "b"], {"classes": ["b", "a"]}, "binary", ("b", "a"), [0, 1, 0]),
        (["b", "b", "b"], {"classes": ["c", "b", "a"]}, "multiclass", ("c", "b", "a"), [1, 1, 1]),
        (["0", "1", "0"], {"classes": ["no", "yes"]}, "binary", ("no", "yes"), [0, 1, 0]),
        (["0", "2", "0"], {"classes": ["0", "1", "2"]}, "multiclass", ("0", "1", "2"), [0, 2, 0]),
        (["1", "2", "1"], {"classes": ["2", "1"]}, "binary", ("2", "1"), [1, 0, 1]),
        (["0.0", "1.0", "0.0"], {"problem": "binary"}, "binary", ("0.0", "1.0"), [0, 1, 0]),
        (["0.5", "-1e-3", "3"], {}, "regression", ("label",), [0.5, -1e-3, 3]),
        (["+.5", "1.", "3E2"], {}, "regression", ("label",), [0.5, 1, 300]),
        (["0", "1", "1"], {"problem": "regression", "classes": ["height"]}, "regression", ("height",), [0, 1, 1]),
        (["0", "1", "1"], {"problem": "multilabel"}, "multilabel", ("label",), [[0], [1], [1]]),
    ],
)
def test_labels_mean_what_they_look_like(tmp_path, labels, settings, problem, classes, values):
    path = write(tmp_path / "a.csv", "label,sequence\n" + "".join(f"{label},ACG\n" for label in labels))
    examples = read_examples(path, **settings).examples
    assert (examples.problem, examples.classes) == (problem, classes)
    kinds = {"binary": np.int64, "multiclass": np.int64, "multilabel": np.uint8, "regression": np.float32}
    assert examples.labels.dtype == kinds[problem]
    assert examples.labels.tolist() == np.array(values, dtype=kinds[problem]).tolist()


def test_several_columns_are_several_labels(tmp_path):
    path = write(tmp_path / "a.csv", "sequence,x,y,z\nA,0,1,0.5\nC,1.0,1,2\nG,1,0,-3\n")
    examples = read_examples(path, Columns(label=("y", "x"))).examples
    assert (examples.problem, examples.classes, examples.labels.dtype) == ("multilabel", ("y", "x"), np.uint8)
    assert examples.labels.tolist() == [[1, 0], [1, 1], [0, 1]]
    examples = read_examples(path, Columns(label=("x", "z"))).examples
    assert (examples.problem, examples.classes, examples.labels.dtype) == ("regression", ("x", "z"), np.float32)
    assert examples.labels.tolist() == [[0, 0.5], [1, 2], [1, -3]]
    examples = read_examples(path, Columns(label=("z",)), classes=("height",)).examples
    assert (examples.labels.shape, examples.classes) == ((3, 1), ("height",))


def test_kinds_of_parquet_columns(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {"whole": [0, 1, 0], "double": [0.0, 1.0, 0.0], "truth": [True, False, True], "word": ["b", "a", "b"]}
    columns |= {"list": [[1, 0], [2], [0, -100, 3]], "sequence": ["AC", "G", "TTT"]}
    pq.write_table(pa.table(columns), path)
    assert read_examples(path, Columns(label="whole")).examples.problem == "binary"
    assert read_examples(path, Columns(label="double")).examples.problem == "regression"
    assert read_examples(path, Columns(label="double"), problem="binary").examples.labels.tolist() == [0, 1, 0]
    truth = read_examples(path, Columns(label="truth")).examples
    assert (truth.classes, truth.labels.tolist()) == (("0", "1"), [1, 0, 1])
    assert read_examples(path, Columns(label=("truth", "double"))).examples.problem == "multilabel"
    bases = read_examples(path, Columns(label="list"), problem="token").examples
    assert bases.labels.tolist() == [1, 0, 2, 0, -100, 3]
    assert bases.classes == ("0", "1", "2", "3")
    chosen = read_examples(path, Columns(label="list", where={"whole": "0", "word": "b"}), problem="token").examples
    assert chosen.labels.tolist() == [1, 0, 0, -100, 3]
    pq.write_table(pa.table(columns | {"list": [[1, 0], [2], [0, None, 3]]}), path)
    text = said(path, Columns(label="list"), problem="token")
    assert text.startswith(", row 3: the label of base 1 (the first is 0) is -101")
    assert "column list holds lists" in said(path, Columns(label="list"))
    assert "column list holds lists" in said(path, Columns(sequence="list", label=None))
    assert "column list holds lists" in said(path, Columns(label=None, where={"list": "1"}))


@given(
    st.lists(st.lists(st.integers(-1, 11), min_size=1, max_size=9), min_size=1, max_size=8),
    st.sampled_from([",", " ", ", ", "\t", "digits"]),
    st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    examples = read_examples(path, problem="token").examples
    assert examples.labels.dtype == np.int64
    assert examples.labels.tolist() == [value for values in lists for value in values]
    assert examples.classes == tuple(map(str, range(max(2, 1 + max(examples.labels.tolist())))))


def test_places_that_do_not_agree_are_none_and_counted(tmp_path):
    rows = ["chr1:5-8|x|y", "HLA:A*01:2-5", "chr1:5-9|1", "chr1:1,000-1,003", "", "chr2", "chr3:8-5"]
    file = io.StringIO()
    csv.writer(file).writerows([("sequence", "label", "where"), *(("ACG", "1", row) for row in rows)])
    path = write(tmp_path / "a.csv", file.getvalue())
    examples = read_examples(path, Columns(region="where")).examples
    assert examples.regions == (Region("chr1", 5, 8), Region("HLA:A*01", 2, 5), *[None] * 5)
    assert examples.unplaced == {
        "no region is given": 1,
        "the region is not written as CONTIG:START-END": 2,
        "the region's length is not the sequence's": 2,
    }
    fasta = write(tmp_path / "a.fa", ">chr3:10-14|0\nAC\nGT\n>chr3:10-14|1\nACG\n")
    examples = read_examples(fasta, Columns(region="name")).examples
    assert examples.regions == (Region("chr3", 10, 14), None)
    assert examples.names == ("chr3:10-14",) * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": is empty"),
        ("\n \n", ": is empty"),
        ("sequence,label\n", ": holds no rows"),
        ("sequence,label", ": holds no rows"),
        ("sequence,label\nACGT,1\n,0\n", ", line 3: the sequence is empty"),
        ("sequence,label\n\nACGT,1\n\n\nACXT,0\n,1\n", ", line 6: 'X' at position 2 of the sequence"),
        ("sequence,label\nACGT,1\n,0\nACXT,0\n", ", line 3: the sequence is empty"),
        ("sequence,label\nACGT,1\nAC T,0\n", ", line 3: ' ' at position 2"),
        ("sequence,label\nACGé,1\nA,0\n", ", line 2: 'é' at position 3"),
        ("sequence,label\nACGT,1\nAC,\n", ", line 3: the label in column label is missing"),
        ("sequence,label\nACGT,1\nAC,NaN\n", ", line 3: the label in column label is missing"),
        ("sequence,label\nACGT,0.5\nAC,null\n", ", line 3: the label in column label is missing"),
        ("sequence,label\nACGT,1\nAC,0,3\nG,1\n", ", line 3: has 3 columns where the header has 2"),
        ("\nsequence,label\n\nACGT,1\n\nAC\n", ", line 6: has 1 columns where the header has 2"),
        ("sequence,lable\nACGT,1\n", ": no column 'label'; there are sequence, lable; did you mean 'lable'?"),
        ("Sequence,label\nACGT,1\n", ": no column 'sequence'; there are Sequence, label; did you mean 'Sequence'?"),
        ("x,label\nACGT,1\n", ": no column 'sequence'; there are x, label; say which"),
        ("sequence,label,label\nACGT,1,0\n", ": column 'label' comes 2 times"),
        ('sequence,label\nACGT,1\nAC,"0\nG,1\nT,0\n', ", line 3: a value in quotation marks goes on over"),
        ('sequence,note,label\nACGT,,1\nAC,"a\nb",1\nT,"x",0\n', ", line 3: a value in quotation marks goes on over"),
        ('sequence,label\nA,"0\n1"\nC,1\nG,0,1\n', ", line 2: a value in quotation marks goes on over"),
        ('sequence,label\nA,0\nC,1,2\nG,"0\n1"\n', ", line 3: has 3 columns where the header has 2"),
        ('sequence,note,label\nA,"0,1\nC,x,0\n', ", line 2: has 2 columns where the header has 3"),
        ("sequence,label\nA,a\nC,a\n", ": every label in column label is 'a'"),
        ("sequence,label\nA,7\nC,7\n", ": every label in column label is '7'"),
    ],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_wrong_tables_are_refused(tmp_path, text, message, ends):
    path = write(tmp_path / "a.csv", text.replace("\n", ends))
    assert said(path).startswith(message)
    path = write(tmp_path / "a.tsv.gz", text.replace(",", "\t"))
    assert said(path).startswith(message)


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (["a", "b", "d"], {"classes": ["a", "b", "c"]}, ", line 4: the label 'd' is not one of the classes a, b, c"),
        (["0", "3"], {"classes": ["a", "b", "c"]}, ", line 3: the label '3' is not one of the classes 0, 1, 2"),
        (["0", "1"], {"classes": ["1", "2"]}, ", line 2: the label '0' is not one of the classes 1, 2"),
        (["a", "b"], {"classes": ["a"]}, ": the classes a are not two or more different ones"),
        (["a", "b"], {"classes": ["a", "a"]}, ": the classes a, a are not two"),
        (["a", "b", "c"], {"problem": "binary"}, ": column label has 3 classes (a, b, c) where a binary label has 2"),
        (["1", "x"], {"problem": "regression"}, ", line 3: the label 'x' in column label is not a number"),
        (["1", "1e39"], {"problem": "regression"}, ", line 3: the label '1e39' in column label is not a number"),
        (["1", "inf"], {"problem": "regression"}, ", line 3: the label 'inf' in column label is not a number"),
        (["1", "2"], {"problem": "multilabel"}, ", line 3: label is '2'; where a sequence has several labels"),
        (["1", "2"], {"problem": "regression", "classes": ["a", "b"]}, ": 2 classes for 1 columns"),
        (["012", "01"], {"problem": "token"}, ", line 3: column label has 1 labels for 3 bases"),
        (["012", "0;1;2"], {"problem": "token"}, ", line 3: the labels in column label are neither digits nor"),
        (["012", ""], {"problem": "token"}, ", line 3: the labels in column label are neither digits nor"),
        (["012", "0 -1 2"], {"problem": "token"}, ", line 3: the label of base 1 (the first is 0) is -1"),
        (["012", "103"], {"problem": "token", "classes": "abc"}, ", line 3: the label of base 2 (the first is 0) is 3"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, settings, message):
    path = write(tmp_path / "a.csv", "sequence,label\n" + "".join(f"ACG,{label}\n" for label in labels))
    assert said(path, **settings).startswith(message)


def test_several_columns_for_one_label_are_refused(tmp_path):
    path = write(tmp_path / "a.csv", "sequence,x,y\nA,0,1\nC,1,\n")
    assert said(path, Columns(label=("x", "y"))).startswith(", line 3: the label in column y is missing")
    write(path, "sequence,x,y\nA,0,1\nC,1,b\n")
    assert said(path, Columns(label=("x", "y"))).startswith(", line 3: the label 'b' in column y is not a number")
    write(path, "sequence,x,y\nA,0,1\nC,1,1\n")
    assert "a binary label is one column, not 2" in said(path, Columns(label=("x", "y")), problem="binary")
    assert "is one column, not 2" in said(path, Columns(label=("x", "y")), problem="token")


def test_rows_are_chosen_and_keep_their_lines(tmp_path):
    path = write(tmp_path / "a.tsv", "sequence\ttask\tlabel\nXX\tb\t0\nAC\ta\t1\n\nGG\tb\tx\nNA\ta\t0\nA!\ta\t1\n")
    assert said(path, Columns(where={"task": "c"})) == ": no row has 'task' = 'c'; there are a, b"
    assert said(path, Columns(where={"task": "a"})).startswith(", line 7: '!' at position 1")
    assert said(path, Columns(where={"tusk": "a"})).startswith(
        ": no column 'tusk'; there are sequence, task, label; did"
    )
    examples = read_examples(path, Columns(where={"task": "a", "label": "0"})).examples
    assert (examples.sequence(0), len(examples)) == ("NA", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ACGT\n>a|1\nAC\n", ": is not FASTA, it starts with 'ACGT\\n>a|1\\n'"),
        (">a|1\nAC\n>b\nGG\n", ", line 3: the header has no label"),
        (">a|1\nAC\n>b|\nGG\n", ", line 3: the label in column label is missing"),
        (">a|1\nAC\n\n>b|0\n>c|1\nA\n", ", line 4: the sequence is empty"),
        (">a|1\nAC\n>b|0\nACG\nTE\n", ", line 3: 'E' at position 4"),
        (">a|1\nAC\n>b|0\nACG\nT>\n", ", line 3: '>' at position 4"),
        (">a|1\nAC\n>b|0", ", line 3: the sequence is empty"),
    ],
)
def test_wrong_fasta_is_refused(tmp_path, text, message):
    assert said(write(tmp_path / "a.fa", text)).startswith(message)
    assert said(write(tmp_path / "a.fas.gz", text)).startswith(message)


def test_a_fasta_has_three_columns(tmp_path):
    path = write(tmp_path / "a.fna", ">x|y|1\nAC\n>|0\nG\n")
    assert read_examples(path).examples.names == ("x|y", "")
    assert read_examples(path, Columns(where={"label": "0"})).examples.sequence(0) == "G"
    assert said(path, Columns(label="y")).startswith(": no column 'y'; there are sequence, name, label")


def test_wrong_parquet_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"")
    assert said(path).startswith(": is empty")
    path.write_bytes(b"sequence,label\nACGT,1\n")
    assert said(path).startswith(": is no Parquet or is damaged")
    long = ["".join(row) for row in np.random.default_rng(0).choice(list("ACGT"), (500, 100))]
    pq.write_table(pa.table({"sequence": long, "label": [0, 1] * 250}), path, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2])
    assert said(path).startswith(": is no Parquet or is damaged")
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert said(path).startswith(": is no Parquet or is damaged")

    def refuse(columns, **settings):
        pq.write_table(pa.table(columns), path)
        return said(path, **settings)

    assert refuse({"sequence": ["A", None], "label": [0, 1]}).startswith(", row 2: the sequence is empty")
    assert refuse({"sequence": ["A", "AJ"], "label": [0, 1]}).startswith(", row 2: 'J' at position 1")
    assert refuse({"sequence": ["A", "C"], "label": [0, None]}).startswith(", row 2: the label in column label is miss")
    assert refuse({"sequence": ["A", "C"], "label": [0.5, np.nan]}).startswith(", row 2: the label in column label is")
    assert refuse({"sequence": ["A", "C"], "lab": [0, 1]}).startswith(
        ": no column 'label'; there are sequence, lab; did"
    )
    assert refuse({"sequence": pa.array([], pa.string()), "label": pa.array([], pa.int8())}).startswith(
        ": holds no rows"
    )
    assert refuse({"sequence": ["A"], "label": [{"x": 1}]}).startswith(": column label holds struct")
    table = {"sequence": ["A", "C"], "label": ["a\nb", "c"], "x\ny": ["a", "b\nc"]}
    assert refuse(table, classes=["c", "d\ne"]).startswith(
        ", row 1: the label 'a\\nb' is not one of the classes c, d e"
    )
    assert said(path, Columns(where={"x\ny": "\n"})) == ": no row has 'x\\ny' = '\\n'; there are a, b c"
    assert said(path, Columns(name="name")).startswith(": no column 'name'; there are sequence, label, x y")
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe"))
    assert refuse({"sequence": broken, "label": [1]}).startswith(": is no Parquet or is damaged")


def test_files_that_are_none_are_refused(tmp_path):
    good = "sequence,label\n" + "ACGT,1\nAC,0\n" * 50
    assert said(tmp_path / "none.csv") == ": no such file; check the path"
    assert said(tmp_path) == ": is a folder; give the file itself"
    assert said(write(tmp_path / "a.xlsx", good)).startswith(
        ": its name does not tell the format; it should end in .csv"
    )
    assert "does not tell the format" in said(write(tmp_path / "a.parquet.gz", good))
    assert said(write(tmp_path / "a.csv", "séquence,label\nA,1\nC,0".encode("latin-1"))).startswith(
        ", line 1: is not UTF-8"
    )
    assert said(write(tmp_path / "b.csv", b"sequence,label\nA,1\nC,\xff\n")).startswith(", line 3: is not UTF-8")
    assert "is not UTF-8" in said(write(tmp_path / "c.csv", good.encode("utf-16")))
    path = write(tmp_path / "a.csv.gz", good)
    data = path.read_bytes()
    for damaged in (data[:-12], data[:40], data[:12], data[:30] + b"\0\0\0" + data[33:]):
        path.write_bytes(damaged)
        assert "damaged or cut short" in said(path)
    assert read_examples(write(tmp_path / "d.csv", b"\xef\xbb\xbf" + good.encode())).examples.problem == "binary"
    assert len(read_examples(write(tmp_path / "e.csv", good.replace("\n", "\r"))).examples) == 100


def test_heavy_libraries_are_imported_where_they_are_needed():
    code = "import sys, mutbert.examples.files, mutbert.examples.splits; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "mutbert.examples.files" in loaded
    assert not {"pyarrow", "huggingface_hub", "torch", "pysam"} & set(loaded)


def test_wrong_calls(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", "sequence,label\nA,1\n")
    with pytest.raises(ValueError, match="problem 'ternary'"):
        read_examples(path, problem="ternary")
    with pytest.raises(ValueError, match="needs a column of labels"):
        read_examples(path, Columns(label=None), problem="binary")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pyarrow .*mutbert\[embed\]"):
        read_examples(path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"huggingface_hub .*mutbert\[bench\]"):
        find_file("hf://datasets/owner/name/a.csv")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that cannot be reached, and its cache with one commit of a data set."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = cache / "datasets--owner--name"
    files = folder / "snapshots" / COMMIT
    (files / "sub/more").mkdir(parents=True)
    write(files / "sub/more/a.csv.gz", "sequence,label\nACGT,1\nAC,0\n")
    write(files / "b.csv", "sequence,label\nAXGT,1\n")
    for name in ("main", "v1", "refs/convert/parquet"):
        (folder / "refs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / name).write_text(COMMIT)
    return files


@pytest.mark.parametrize("at", ["", "@v1", "@main", f"@{COMMIT}", "@refs/convert/parquet", "@refs%2Fconvert%2Fparquet"])
def test_a_file_from_the_hub_bears_its_commit(hub, at):
    place = f"hf://datasets/owner/name{at}/sub/more/a.csv.gz"
    examples, source = read_examples(place)
    assert [examples.sequence(0), examples.sequence(1)] == ["ACGT", "AC"]
    data = (hub / "sub/more/a.csv.gz").read_bytes()
    assert source == SourceFile(place, len(data), hashlib.sha256(data).hexdigest(), COMMIT)
    assert find_file(place).path == hub / "sub/more/a.csv.gz"


def test_what_the_hub_does_not_have_is_refused(hub, monkeypatch):
    assert said("hf://datasets/owner/name/b.csv").startswith(", line 2: 'X' at position 1")
    assert "is not in the cache and the Hub cannot be reached" in said("hf://datasets/owner/name/none.csv")
    assert "is not in the cache and the Hub cannot be reached" in said("hf://datasets/owner/other/a.csv")
    assert "is a script, and none is ever run" in said("hf://datasets/owner/name/name.py")
    for wrong in (
        "hf://owner/name/a.csv",
        "hf://datasets/name/a.csv",
        "hf://datasets/owner/name",
        "hf://models/a/b/c.csv",
    ):
        assert "write hf://datasets/OWNER/NAME/FILE" in said(wrong)
    assert "cannot be fetched" in said("hf://datasets/own er/name/a.csv")

    def fail(*_, **__):
        raise huggingface_hub.errors.EntryNotFoundError("404\nEntry Not Found")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    assert "the data set has no file sub/a.csv" in said("hf://datasets/owner/name/sub/a.csv")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.sampled_from('ACGTN01,\t\n\r" >|.-é'), max_size=40),
    header=st.sampled_from(["", "sequence,label\n", "sequence\tlabel\n", '"sequence",label\nA,0\n', ">a|1\n"]),
    problem=st.sampled_from([None, "binary", "regression", "token"]),
)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.fa", "a.parquet", "a.csv.gz"])
def test_whatever_a_file_holds_is_read_or_refused_in_one_line(tmp_path, name, text, header, problem):
    path = write(tmp_path / name, header + text)
    try:
        examples = read_examples(path, problem=problem).examples
    except InputError:
        said(path, problem=problem)
    else:
        assert len(examples) > 0
        assert (examples.lengths > 0).all()
