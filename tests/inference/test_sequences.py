"""What is embedded and predicted: files that go together, and names and places that their outputs share."""

import polars as pl
import pytest

from mutbert import embed, predict_table
from mutbert.errors import InputError
from mutbert.examples.table import Columns
from mutbert.inference.reading import open_source
from mutbert.model import MutBertForSequenceClassification, MutBertModel


def test_what_does_not_go_together(tmp_path):
    path = tmp_path / "x.fa"
    path.write_text(">a\nA\n")
    (tmp_path / "x.csv").write_text("dna\nA\n")
    for words, message in (
        ({}, "nothing or too much"),
        ({"input": path, "genome": path}, "has sequences of its own"),
        ({"bed": path}, "--genome"),
        ({"input": tmp_path / "x.bed", "genome": path, "name_column": "name"}, "x.bed: has no columns to choose"),
        ({"fasta": path, "name_column": "gene"}, "no column 'gene'"),
        ({"fasta": path, "surroundings": "reference"}, "are embedded as they are"),
        ({"input": tmp_path / "x.csv", "sequence_column": "dna", "name_column": "id"}, "no column 'id'"),
        ({"input": tmp_path / "nowhere.csv"}, "nowhere.csv: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(**words)


@pytest.mark.parametrize(
    ("file", "content", "names"),
    [
        ("x.csv", "name,sequence\ngeneA,ACGTACGT\n,GGG\ngeneB,NNN\n", ["geneA", "1", "geneB"]),
        ("x.tsv", "id\tsequence\ngeneA\tACGTACGT\n", ["0"]),
        ("x.fa", ">seq1 some description\nACGTACGT\n>seq1 other\nACGGT\n>s|1\nA\n", ["seq1", "seq1", "s|1"]),
        ("sequences", ">seq1 more\nACGT\n", ["seq1"]),
        ("x.fq", "@r1 of 2\nAC\n+\nII\n", ["r1"]),
        ("x.parquet", {"name": [7, 0], "sequence": ["AC", "GT"]}, ["7", "0"]),
    ],
)
def test_predictions_and_embeddings_have_the_same_names(build, tmp_path, file, content, names):
    path = tmp_path / file
    pl.DataFrame(content).write_parquet(path) if isinstance(content, dict) else path.write_text(content)
    build(MutBertForSequenceClassification).save_pretrained(tmp_path / "model")
    given = {"input" if path.suffix else "fasta": path}
    embed(build(MutBertModel), **given, output=tmp_path / "embedded.parquet")
    if not path.suffix:
        path = path.rename(tmp_path / "x.fa")
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
