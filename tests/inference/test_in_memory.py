"""Functions on sequences in memory, against files of the same sequences and the model run base by base."""

import csv

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import mutbert
from mutbert import alphabet, embed, embed_sequences, predict_sequences, predict_table, score_sequences
from mutbert.cli.main import app
from mutbert.errors import InputError
from mutbert.examples.table import Columns
from mutbert.model import MutBertForMaskedLM, MutBertForSequenceClassification, MutBertModel, MutBertTokenizer


@pytest.fixture
def fasta(tmp_path, sequences):
    path = tmp_path / "some.fa"
    path.write_text("".join(f">r{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
    return path


@pytest.mark.parametrize("pooling", ["mean", "none"])
@pytest.mark.parametrize("layers", [-1, [2, 0]], ids=str)
def test_embeddings_are_those_of_a_file(build, sequences, fasta, tmp_path, layers, pooling):
    model, how = build(MutBertModel), {"layers": layers, "pooling": pooling, "strands": "both"}
    embed(model, fasta=fasta, output=tmp_path / "out.parquet", **how)
    columns = pl.read_parquet(tmp_path / "out.parquet").select("^embedding.*$").get_columns()
    found = embed_sequences(model, sequences, **how)
    for row, (array, *of_layers) in enumerate(zip(found, *columns, strict=True)):
        wanted = np.stack([np.array(one, np.float32) for one in of_layers], axis=-2)
        np.testing.assert_array_equal(array.reshape(wanted.shape), wanted, str(row))
        assert array.dtype == np.float32
        assert array.shape == ((len(sequences[row]),) * (pooling == "none") + (2,) * (layers != -1) + (32,))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_npy_and_csv_hold_the_embeddings(build, sequences, fasta, tmp_path, pooling):
    model = build(MutBertModel)
    for layers, shape in ((-1, (20, 32)), ("all", (20, 3, 32))):
        how = {"layers": layers, "pooling": pooling}
        wanted = embed_sequences(model, sequences, **how)
        for kind in ("npy", "csv"):
            embed(model, fasta=fasta, output=tmp_path / f"out.{kind}", force=True, **how)
        assert wanted.shape == shape
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), wanted)
        with (tmp_path / "out.csv").open() as file:
            header, *rows = csv.reader(file)
        first = header.index("embedding.0" if layers == -1 else "embedding_0.0")
        assert header[0] == "name"
        assert header[-1] == ("embedding.31" if layers == -1 else "embedding_2.31")
        assert [row[0] for row in rows] == [f"r{number}" for number in range(20)]
        numbers = np.array([row[first:] for row in rows], np.float32)
        np.testing.assert_allclose(numbers, wanted.reshape(20, -1), rtol=1e-6)


def test_sequences_are_one_or_several_or_a_frame_or_a_file(build, sequences, fasta):
    model, few = build(MutBertModel), ["ACGT", "GATTACA"]
    wanted = embed_sequences(model, few)
    frames = pl.DataFrame({"sequence": few, "x": [1, 2]}), pd.DataFrame({"sequence": few, "x": [1, 2]})
    for given in (tuple(few), iter(few), pl.Series(few), np.array(few), dict(zip("xy", few, strict=True)), *frames):
        np.testing.assert_array_equal(embed_sequences(model, given), wanted)
    np.testing.assert_allclose(embed_sequences(model, "gattaca"), wanted[1:], atol=1e-5)
    np.testing.assert_array_equal(embed_sequences(model, str(fasta)), embed_sequences(model, sequences))
    for given, message in (
        (["ACGT", "AXT"], "table, row 2: sequence has 'X' at position 1"),
        (["ACGT", ""], "row 2: sequence is missing"),
        (["ACGT", None], "row 2: sequence is missing"),
        ([], "holds no rows"),
        (pl.DataFrame({"dna": few}), "no column 'sequence'; there are dna"),
        (["A" * 63], "the model reads 64"),
        ("nowhere.fa", "nowhere.fa: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            embed_sequences(model, given)


@pytest.mark.parametrize("context", [None, 12])
def test_a_likelihood_is_the_sum_over_bases_masked_in_turn(build, sequences, fasta, tmp_path, context):
    """Of a long sequence each base is in the middle of a window; of both strands logits are averaged."""
    model = build(MutBertForMaskedLM)

    def logits(text, at):
        probs = MutBertTokenizer().encode_probabilities(text)["input_probs"]
        probs[0, at + 1] = torch.eye(9)[alphabet.MASK_ID]
        with torch.no_grad():
            return model(input_probs=probs).logits[0, at + 1, 5:].double()

    wanted = []
    for sequence in sequences:
        text, total = sequence.upper(), 0.0
        size = min(context or 62, len(text))
        for at in (at for at, base in enumerate(text) if base in "ACGT"):
            start = min(max(at - size // 2, 0), len(text) - size)
            window = text[start : start + size]
            other = alphabet.decode(alphabet.reverse_complement(alphabet.encode(window)))
            both = logits(window, at - start) + logits(other, size - 1 - at + start).flip(0)
            total += float((both / 2).log_softmax(0)["ACGT".index(text[at])])
        wanted.append(total)
    table = score_sequences(model, sequences, settings=mutbert.PredictionSettings(context=context, bases_at_once=500))
    assert table["name"].to_list() == [str(number) for number in range(20)]
    assert table["bases"].to_list() == [sum(map(text.upper().count, "ACGT")) for text in sequences]
    np.testing.assert_allclose(table["log_likelihood"], wanted, rtol=1e-5, atol=1e-5)
    if context is None:
        assert score_sequences(model, ["NNRN"]).rows() == [("0", 0, None)]
        model.save_pretrained(tmp_path / "model")
        from typer.testing import CliRunner

        done = CliRunner().invoke(app, ["likelihood", str(fasta), "--model", str(tmp_path / "model")])
        printed = pl.read_csv(done.stdout.encode(), separator="\t")
        assert printed["name"].to_list() == [f"r{number}" for number in range(20)]
        np.testing.assert_allclose(printed["log_likelihood"], wanted, rtol=1e-5, atol=1e-5)


def test_predictions_are_those_of_a_file(build, sequences, tmp_path):
    build(MutBertForSequenceClassification, num_labels=3).save_pretrained(tmp_path / "model")
    frame = pl.DataFrame({"sequence": sequences, "name": [f"r{number}" for number in range(20)]})
    frame.write_csv(tmp_path / "some.csv")
    columns = Columns(name="name", label=())
    predict_table(tmp_path / "model", tmp_path / "some.csv", tmp_path / "out.parquet", columns=columns)
    wanted = pl.read_parquet(tmp_path / "out.parquet")
    assert predict_sequences(tmp_path / "model", frame, columns=columns).equals(wanted)
    numbered = predict_sequences(tmp_path / "model", sequences)
    assert numbered["name"].to_list() == [str(number) for number in range(20)]
    assert numbered.drop("name").equals(wanted.drop("name"))
