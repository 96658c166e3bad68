import gzip
import random
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet, files
from mutbert.errors import InputError, MissingExtraError
from mutbert.inference.embedding_sources import Record, open_source, survey
from mutbert.inference.embeddings import embed
from mutbert.inference.sequence_files import format_of, read_sequences
from mutbert.model import MutBertModel

NAMES = [f"s{number}" for number in range(20)]


def as_fasta(names, sequences):
    return "".join(f">{name} more\n{row[:7]}\n{row[7:]}\n" for name, row in zip(names, sequences, strict=True))


def as_fastq(names, sequences):
    # Qualities may begin with '@' or '+'.
    return "".join(
        f"@{name} more\n{row}\n+{name}\n{('@+I' * len(row))[: len(row)]}\n"
        for name, row in zip(names, sequences, strict=True)
    )


def as_table(names, sequences, separator):
    rows = [("name", "sequence", "score"), *((name, row, "1") for name, row in zip(names, sequences, strict=True))]
    return "".join(separator.join(row) + "\n" for row in rows)


def texts(sequences):
    return {
        "x.fa": as_fasta(NAMES, sequences),
        "x.fastq": as_fastq(NAMES, sequences),
        "x.csv": as_table(NAMES, sequences, ","),
        "x.tsv": as_table(NAMES, sequences, "\t"),
    }


def read(path, **columns):
    return [(name, alphabet.decode(base_L)) for name, base_L in read_sequences(path, format_of(path), **columns)]


def upper(sequences):
    return [row.upper().replace("U", "T") for row in sequences]


@pytest.mark.parametrize("packed", ["plain", "gzip", "bgzip"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["x.fa", "x.fastq", "x.csv", "x.tsv"])
def test_every_format_gives_the_same(tmp_path, sequences, name, ends, packed):
    data = texts(sequences)[name].replace("\n", ends).removesuffix(ends).encode()
    path = tmp_path / (name if packed == "plain" else f"{name}.gz")
    if packed == "bgzip":
        with pysam.BGZFile(str(path), "wb") as file:
            file.write(data)
    else:
        path.write_bytes(data if packed == "plain" else gzip.compress(data))
    assert read(path) == list(zip(NAMES, upper(sequences), strict=True))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_parquet_gives_the_same(tmp_path, sequences, kind):
    table = pa.table({"score": range(20), "sequence": pa.array(sequences).cast(kind), "id": NAMES})
    pa.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=7)
    assert read(tmp_path / "x.parquet", name_column="id") == list(zip(NAMES, upper(sequences), strict=True))
    numbered = list(zip(map(str, range(20)), upper(sequences), strict=True))
    assert read(tmp_path / "x.parquet") == numbered
    assert read(tmp_path / "x.parquet", name_column="score") == numbered
    same = [(row, row.upper()) for row in sequences]
    assert read(tmp_path / "x.parquet", name_column="sequence") == same


def test_tables_choose_columns_and_number_rows(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('\ufeffid,"dna, both",name\n\na,ACGU,\n"b ""2""",nry,n1\n\n', encoding="utf-8")
    assert read(path, sequence_column="dna, both") == [("0", "ACGT"), ("n1", "NRY")]
    assert read(path, sequence_column="dna, both", name_column="id") == [("a", "ACGT"), ('b "2"', "NRY")]


@given(
    st.lists(st.text("ACGTUNacgtnRYSWKMBDHV", min_size=1, max_size=30), min_size=1, max_size=8),
    st.integers(1, 40),
)
def test_blocks_may_end_anywhere(tmp_path_factory, sequences, block):
    path = tmp_path_factory.mktemp("blocks") / "x.fa"
    names = NAMES[: len(sequences)]
    wanted = list(zip(names, upper(sequences), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_BLOCK_BYTES", block)
        path.write_text(as_fasta(names, sequences))
        assert read(path) == wanted
        path = path.with_suffix(".fq")
        path.write_text(as_fastq(names, sequences).replace("\n", "\r\n"))
        assert read(path) == wanted


def test_a_name_may_come_twice(tmp_path):
    path = tmp_path / "x.fa"
    path.write_text(">a\nA\n>a\nC\n")
    assert read(path) == [("a", "A"), ("a", "C")]


def test_survey_counts_and_finds_the_first_of_the_longest():
    records = [Record(f"r{number}", "c", 5, 5 + length) for number, length in enumerate([3, 9, 1, 9])]
    assert survey(iter(records)) == (4, 22, records[1])


def test_survey_reads_one_record_at_a_time(capsys):
    """Of as many as there may be, none is kept."""
    read_so_far = []

    def records():
        for number in range(2500):
            read_so_far.append(number)
            yield Record(str(number), "c", 0, 1)

    assert survey(records(), progress=True).records == len(read_so_far) == 2500
    assert "checking: 2,500 sequences" in capsys.readouterr().err


def test_fastq_embeds_as_the_fasta_of_the_same_sequences(build, tmp_path, sequences):
    model = build(MutBertModel)
    found = []
    for name, text in texts(sequences).items():
        (tmp_path / name).write_text(text)
        embed(model, input=tmp_path / name, output=tmp_path / f"{name}.parquet", batch_size=6)
        found.append(pyarrow.parquet.read_table(tmp_path / f"{name}.parquet"))
    assert all(table == found[0] for table in found)


def test_order_and_batch_size_change_nothing(build, tmp_path, sequences):
    model = build(MutBertModel)
    order = random.Random(1).sample(range(20), 20)
    found = {}
    for size, numbers in ((1, range(20)), (5, order), (20, order[::-1])):
        path = tmp_path / f"{size}.fq"
        path.write_text(as_fastq([NAMES[at] for at in numbers], [sequences[at] for at in numbers]))
        out = tmp_path / f"{size}.parquet"
        embed(model, input=path, output=out, batch_size=size, layers="all", strands="both")
        rows = pyarrow.parquet.read_table(out).to_pylist()
        assert [row["name"] for row in rows] == [NAMES[at] for at in numbers]
        by_name = {row["name"]: row for row in rows}
        found[size] = np.array([[by_name[name][f"embedding_{layer}"] for name in NAMES] for layer in range(3)])
    np.testing.assert_allclose(found[5], found[1], atol=1e-5)
    np.testing.assert_allclose(found[20], found[1], atol=1e-5)


# What cannot be used


BAD = [
    ("x.fa", "", "x.fa: is empty"),
    ("x.fa", "\n\n", "x.fa: holds no sequence"),
    ("x.fa", "ACGT\n", r"is not FASTA, it starts with 'ACGT'"),
    ("x.fa", "@r\nA\n+\nI\n", r"is not FASTA, it starts with '@r' and not with '>'"),
    ("x.fa", ">a\nAC\n>b\nGT\nAXT\n>c\nA\n", r"x.fa, record 2 \(b\): base 4 is 'X'"),
    ("x.fa", ">a\n>b\nA\n", r"record 1 \(a\): the sequence is empty"),
    ("x.fa", ">a\nA\n>b\n", r"record 2 \(b\): the sequence is empty"),
    ("x.fa", ">a\nA\n> b\nA\n", r"record 2: the header has no name"),
    ("x.fq", "\n\n", "x.fq: holds no sequence"),
    ("x.fq", ">a\nA\n", r"is not FASTQ, it starts with '>a'"),
    ("x.fq", "@a\nAC\n+\nII\n@b\nAC\n+\nI\n", r"record 2 \(b\): has 2 bases and 1 qualities"),
    ("x.fq", "@a\nAC\n+\nII\n@b\nAC\n+\n", r"record 2 \(b\): the file ends within it"),
    ("x.fq", "@a\nAC\n+\nII\n@b\n", r"record 2 \(b\): the file ends within it"),
    ("x.fq", "@a\nAC\nGT\n+\nIIII\n", r"record 1 \(a\): its third line does not start with '\+'"),
    ("x.fq", "@a\nAC\n+\nII\nIII\n@b\n", r"record 2: starts with 'III' and not with '@'"),
    ("x.fq", "@a\nA\n+\nI\n\n@b\nA\n+\nI\n", r"record 2: starts with '' and not with '@'"),
    ("x.fq", "@a\nA\n+\nI\n@b\nA.\n+\nII\n", r"record 2 \(b\): base 2 is '\.'"),
    ("x.fq", "@\nA\n+\nI\n", r"record 1: the header has no name"),
    ("x.csv", "", "x.csv: is empty"),
    ("x.csv", "\n", "x.csv: is empty"),
    ("x.csv", "name,sequence\n", "holds no rows"),
    ("x.csv", "name,dna\na,ACGT\n", r"no column 'sequence'; there are name, dna: choose one with --sequence-column"),
    ("x.csv", "sequence,sequence\nA,A\n", "column 'sequence' comes 2 times"),
    ("x.csv", "sequence\nACGT\n\nAJ\n", r"x.csv, line 4: base 2 is 'J'"),
    ("x.csv", "sequence\nACGT\nAé\n", r"x.csv, line 3: base 2 is 'é'"),
    ("x.csv", 'id,sequence\n"a\nb",ACGT\nc,A-\n', r"x.csv, line 4: base 2 is '-'"),
    ("x.csv", "id,sequence\na,\n", r"x.csv, line 2: the sequence is empty"),
    ("x.csv", "id,sequence\na,A,b\n", r"line 2: has 3 columns where the header has 2; separate columns by commas"),
    ("x.tsv", "id\tsequence\na\n", r"line 2: has 1 columns where the header has 2; separate columns by tabs"),
    ("x.csv", 'sequence\nA\n"ACGT\n', r"cannot be read as a table .*quotation"),
    ("x.csv", b"sequence\nA\n\xff\n", r"x.csv, line 3: is not UTF-8"),
    ("x.csv.gz", gzip.compress(b"sequence\nACGT\n", mtime=0)[:-9], "cut short"),
    ("x.fa.gz", gzip.compress(b">a\nACGT\n", mtime=0)[:-9], "cut short"),
    ("x.parquet", b"PAR1", "is no Parquet or is damaged"),
    ("x.parquet", "", "is empty"),
    ("x.doc", ">a\nA\n", r"does not tell the format; it should end in \.fa, .*\.fastq, .*\.parquet, \.bed"),
    ("x.parquet.gz", "", "does not tell the format"),
    ("x.bed", "chr1\t0\t5\n", "embedded from a genome; give it with --genome"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_files_are_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        list(open_source(path).records())
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_bad_parquets(tmp_path):
    path = tmp_path / "x.parquet"
    for columns, message in (
        ({"sequence": ["A", None]}, "row 2: the sequence is empty"),
        ({"sequence": ["A", "AX"]}, "row 2: base 2 is 'X'"),
        ({"sequence": [[1], [2]]}, "column sequence holds list.*should hold text"),
        ({"dna": ["A"]}, "no column 'sequence'; there are dna"),
        ({"sequence": pa.array([], pa.string())}, "holds no rows"),
    ):
        pa.parquet.write_table(pa.table(columns), path)
        with pytest.raises(InputError, match=message):
            list(open_source(path).records())


def test_damaged_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    pa.parquet.write_table(
        pa.table({"sequence": ["ACGT" * 50] * 5}), path, write_page_checksum=True, compression="none"
    )
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is no Parquet or is damaged"):
        list(open_source(path).records())


def test_mistakes_are_found_before_the_model_runs(build, tmp_path, monkeypatch):
    model = build(MutBertModel)
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: pytest.fail("the model ran"))
    path = tmp_path / "x.fq"
    path.write_text("@a\nA\n+\nI\n" * 100 + "@b\nAZ\n+\nII\n")
    with pytest.raises(InputError, match=r"record 101 \(b\): base 2 is 'Z'"):
        embed(model, input=path, output=tmp_path / "out.parquet")
    path.write_text("@a\nA\n+\nI\n" + f"@long\n{'A' * 63}\n+\n{'I' * 63}\n")
    with pytest.raises(InputError, match=r"long: 63 bases are 65 tokens"):
        embed(model, input=path, output=tmp_path / "out.parquet")
    path.write_text("@a\nA\n+\nI\n" * 2)
    with pytest.raises(InputError, match=r"a comes twice"):
        embed(model, input=path, output=tmp_path / "out.safetensors", pooling="none")
    assert [found.name for found in tmp_path.iterdir()] == ["x.fq"]


def test_what_does_not_go_together(tmp_path):
    path = tmp_path / "x.fa"
    path.write_text(">a\nA\n")
    for words, message in (
        ({}, "nothing or too much"),
        ({"input": path, "fasta": path}, "nothing or too much"),
        ({"input": path, "bed": path}, "nothing or too much"),
        ({"genome": path}, "nothing or too much"),
        ({"input": path, "genome": path}, "has sequences of its own"),
        ({"bed": path}, "--genome"),
        ({"fasta": path, "name_column": "name"}, "has no columns to choose"),
        ({"input": path, "sequence_column": "sequence"}, "has no columns to choose"),
        ({"fasta": path, "surroundings": "reference"}, "are embedded as they are"),
        ({"input": path, "sample": "me"}, "are embedded as they are"),
        ({"input": path, "person_vcf": "calls.vcf"}, "are embedded as they are"),
        ({"input": tmp_path / "nowhere.csv"}, "nowhere.csv: no such CSV file"),
        ({"input": tmp_path / "nowhere.fq"}, "nowhere.fq: no such FASTQ file"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(**words)


def test_parquet_input_needs_pyarrow(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    pa.parquet.write_table(pa.table({"sequence": ["A"]}), path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"mutbert\[embed\]"):
        list(open_source(path).records())
