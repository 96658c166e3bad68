"""Sequences from files of every format, and the mistakes in them."""

import gzip

import polars as pl
import pytest

from mutbert import Region, alphabet, embed, predict_table
from mutbert.errors import InputError
from mutbert.examples.table import Columns
from mutbert.inference.embeddings import open_source
from mutbert.model import MutBertForSequenceClassification, MutBertModel

NAMES = [f"s{number}" for number in range(20)]


def texts(sequences):
    pairs = list(zip(NAMES, sequences, strict=True))
    table = ["name\tsequence\tscore\n", *(f"{name}\t{row}\t1\n" for name, row in pairs)]
    return {
        "x.fa": "".join(f">{name} more\n{row[:7]}\n{row[7:]}\n" for name, row in pairs),
        # Qualities may begin with '@' or '+'.
        "x.fastq": "".join(f"@{name} more\n{row}\n+{name}\n{('@+I' * len(row))[: len(row)]}\n" for name, row in pairs),
        "x.csv": "".join(table).replace("\t", ","),
        "x.txt": "".join(table),
    }


def read(path, sequence=None, name=None):
    found = list(open_source(path, sequence_column=sequence, name_column=name).read())
    assert all(region == Region(region.name, 0, len(code_L), region.name) for region, code_L in found)
    return [(region.name, alphabet.decode(code_L)) for region, code_L in found]


def upper(sequences):
    return [row.upper().replace("U", "T") for row in sequences]


@pytest.mark.parametrize(("ends", "packed"), [("\n", False), ("\r\n", True)])
@pytest.mark.parametrize("name", ["x.fa", "x.fastq", "x.csv", "x.txt"])
def test_every_format_is_read_alike(tmp_path, sequences, name, ends, packed):
    data = texts(sequences)[name].replace("\n", ends).removesuffix(ends).encode()
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    assert read(path) == list(zip(NAMES, upper(sequences), strict=True))


def test_tables_choose_columns_and_number_rows(tmp_path, sequences):
    path = tmp_path / "x.csv"
    path.write_text('\ufeffid,"dna, both",name\n\na,ACGU,\n"b ""2""",nry,n1\n\n', encoding="utf-8")
    assert read(path, "dna, both") == [("0", "ACGT"), ("n1", "NRY")]
    assert read(path, "dna, both", "id") == [("a", "ACGT"), ('b "2"', "NRY")]
    path = tmp_path / "x.parquet"
    pl.DataFrame({"score": range(20), "sequence": sequences, "id": NAMES}).write_parquet(path, row_group_size=7)
    assert read(path, None, "id") == list(zip(NAMES, upper(sequences), strict=True))
    assert read(path) == read(path, None, "score") == list(zip(map(str, range(20)), upper(sequences), strict=True))


BAD = [
    ("x.fa", "ACGT\n", "holds no FASTA records"),
    ("x.fa", ">a\nAC\n>b\nGT\nAXT\n>c\nA\n", "record 2: 'X' at position 3"),
    ("x.fa", ">a\n>b\nA\n", "record 1: the sequence is empty"),
    ("x.fa", ">a\nA\n> b\nA\n", "record 2: the header has no name"),
    ("x.fq", "@a\nAC\n+\nII\n@b\nAC\n+\nI\n", "record 2: truncated quality"),
    ("x.fq", "@a\nAC\n+\nII\n@b\n", "record 2: the sequence is empty"),
    ("x.fa.gz", gzip.compress(b">a\nACGT\n" * 99, mtime=0)[:-9], "problem parsing"),
    ("x.csv", "name,sequence\na,AC\nb,\n", "line 3: sequence is missing"),
    ("x.doc", ">a\nA\n", r"names no format; it should be one of \.fa, .*\.fastq, .*\.parquet, \.bed"),
    ("x.bed", "chr1\t0\t5\n", "embedded from a genome; give it with --genome"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_files_are_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        list(open_source(path).read())
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_does_not_go_together(tmp_path):
    path = tmp_path / "x.fa"
    path.write_text(">a\nA\n")
    (tmp_path / "x.csv").write_text("dna\nA\n")
    for words, message in (
        ({}, "nothing or too much"),
        ({"input": path, "genome": path}, "has sequences of its own"),
        ({"bed": path}, "--genome"),
        ({"fasta": path, "name_column": "name"}, "has no columns to choose"),
        ({"fasta": path, "surroundings": "reference"}, "are embedded as they are"),
        ({"input": tmp_path / "x.csv", "sequence_column": "dna", "name_column": "id"}, "no column 'id'"),
        ({"input": tmp_path / "nowhere.csv"}, "nowhere.csv: no such table file"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(**words)


@pytest.mark.parametrize(
    ("file", "content", "names"),
    [
        ("x.csv", "name,sequence\ngeneA,ACGTACGT\n,GGG\ngeneB,NNN\n", ["geneA", "1", "geneB"]),
        ("x.tsv", "id\tsequence\ngeneA\tACGTACGT\n", ["0"]),
        ("x.fa", ">seq1 some description\nACGTACGT\n>seq1 other\nACGGT\n>s|1\nA\n", ["seq1", "seq1", "s|1"]),
        ("x.fq", "@r1 of 2\nAC\n+\nII\n", ["r1"]),
        ("x.parquet", {"name": [7, 0], "sequence": ["AC", "GT"]}, ["7", "0"]),
    ],
)
def test_predictions_and_embeddings_have_the_same_names(build, tmp_path, file, content, names):
    path = tmp_path / file
    pl.DataFrame(content).write_parquet(path) if isinstance(content, dict) else path.write_text(content)
    build(MutBertForSequenceClassification).save_pretrained(tmp_path / "model")
    embed(build(MutBertModel), input=path, output=tmp_path / "embedded.parquet")
    found = predict_table(tmp_path / "model", path, tmp_path / "predicted.parquet", columns=Columns())
    tables = [pl.read_parquet(tmp_path / f"{kind}.parquet")["name"].to_list() for kind in ("embedded", "predicted")]
    assert tables == [names, names]
    assert found["only_N"] == str(content).count("NNN")


def test_predictions_have_the_regions_that_are_known(build, tmp_path):
    (tmp_path / "x.csv").write_text("sequence,at\nACGT,chr3:10-14\nAC,elsewhere\n")
    build(MutBertForSequenceClassification).save_pretrained(tmp_path / "model")
    predict_table(tmp_path / "model", tmp_path / "x.csv", tmp_path / "x.tsv", columns=Columns(region="at"))
    rows = pl.read_csv(tmp_path / "x.tsv", separator="\t").select("name", "chrom", "start", "end").rows()
    assert rows == [(0, "chr3", 10, 14), (1, None, None, None)]
