import json
import sys

import numpy as np
import pyarrow.parquet
import pytest
import torch
import typer
from safetensors import safe_open
from typer.testing import CliRunner

from mutbert import alphabet
from mutbert.cli import embed as command
from mutbert.errors import InputError, MissingExtraError
from mutbert.genome.store import ProbabilisticGenome, StoreWriter, float_to_fixed
from mutbert.inference import embedding_files
from mutbert.inference.embeddings import EmbeddingReport, embed
from mutbert.model import MutBertForMaskedLM, MutBertModel, MutBertTokenizer

POOLINGS = {"mean": lambda states: states.mean(axis=0), "max": lambda states: states.max(axis=0), "none": lambda s: s}


@pytest.fixture
def fasta(tmp_path, sequences):
    path = tmp_path / "some.fa"
    path.write_text("".join(f">r{number} of some\n{sequence}\n" for number, sequence in enumerate(sequences)))
    return path


@pytest.fixture
def genome(tmp_path):
    """Two contigs with ambiguous codes, unknown bases and variants."""
    path = tmp_path / "small.genome"
    path.mkdir()
    with StoreWriter(path) as writer:
        frequencies = float_to_fixed(np.array([[0.8, 0, 0.2, 0], [0.1, 0.2, 0.3, 0.4]]))
        writer.add_contig("chr1", alphabet.encode("ACGTACGTNNRYACGT" * 4), np.array([4, 13], np.uint32), frequencies)
        writer.add_contig("chr2", alphabet.encode("GATTACA" * 8), np.zeros(0, np.uint32), frequencies[:0])
        writer.finish()
    return ProbabilisticGenome.open(path)


@pytest.fixture
def bed(tmp_path):
    path = tmp_path / "some.bed"
    path.write_text("1\t0\t20\tfirst\nchr2\t3\t10\nchr1\t7\t64\n")
    return path


def states_of(model, probs_LV):
    """Hidden states at the bases of one sequence, the plain way."""
    framed = np.zeros((len(probs_LV) + 2, 9), np.float32)
    framed[0, 1] = framed[-1, 2] = 1
    framed[1:-1] = probs_LV
    with torch.no_grad():
        return model(input_probs=torch.from_numpy(framed)[None]).last_hidden_state[0, 1:-1].numpy()


def read_parquet(path):
    table = pyarrow.parquet.read_table(path)
    rows = table.to_pylist()
    return rows, [np.array(row["embedding"], np.float32) for row in rows], table


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("batch_size", [1, 6])
def test_fasta_records(build, sequences, fasta, tmp_path, pooling, batch_size):
    model = build(MutBertModel)
    output = tmp_path / "out.parquet"
    report = embed(model, fasta=fasta, output=output, pooling=pooling, batch_size=batch_size)
    bases = sum(map(len, sequences))
    assert report == EmbeddingReport(output, len(sequences), bases, 32, pooling)
    rows, embeddings, table = read_parquet(output)
    assert [(row["name"], row["contig"], row["start"], row["end"]) for row in rows] == [
        (f"r{number}", f"r{number}", 0, len(sequence)) for number, sequence in enumerate(sequences)
    ]
    tokenizer = MutBertTokenizer()
    wanted = []
    for sequence in sequences:
        probs = tokenizer.encode_probabilities(sequence, add_special_tokens=False)["input_probs"][0].numpy()
        wanted.append(POOLINGS[pooling](states_of(model, probs)))
    assert_same(embeddings, wanted)
    kind = table.schema.field("embedding").type
    assert str(kind if pooling != "none" else kind.value_type).startswith("fixed_size_list")


def test_order_of_the_records_changes_nothing(build, sequences, fasta, tmp_path):
    model = build(MutBertModel)
    embed(model, fasta=fasta, output=tmp_path / "one.parquet", batch_size=4)
    order = np.random.default_rng(0).permutation(len(sequences))
    fasta.write_text("".join(f">r{number}\n{sequences[number]}\n" for number in order))
    embed(model, fasta=fasta, output=tmp_path / "two.parquet", batch_size=7)
    one, two = (read_parquet(tmp_path / f"{name}.parquet")[1] for name in ("one", "two"))
    assert_same(two, [one[number] for number in order])


@pytest.mark.parametrize("opened", [True, False])
def test_genome_regions_are_the_population_s(build, genome, bed, tmp_path, opened):
    model = build(MutBertModel)
    embed(model, genome=genome if opened else genome.path, bed=bed, output=tmp_path / "out.parquet")
    rows, embeddings, _ = read_parquet(tmp_path / "out.parquet")
    assert [tuple(row.values())[:4] for row in rows] == [
        ("first", "chr1", 0, 20),
        ("chr2:4-10", "chr2", 3, 10),
        ("chr1:8-64", "chr1", 7, 64),
    ]
    wanted = []
    for row in rows:
        probs = alphabet.TOKEN_PROBABILITIES[genome.bases(row["contig"], row["start"], row["end"])]
        variants = genome.variants(row["contig"], row["start"], row["end"])
        for position, frequency in zip(variants.position, variants.frequency, strict=True):
            probs[position - row["start"]] = [0, 0, 0, 0, 0, *frequency]
        wanted.append(states_of(model, probs).mean(axis=0))
    assert_same(embeddings, wanted)


def test_row_groups_are_written_as_they_come(build, fasta, tmp_path, monkeypatch):
    model = build(MutBertModel)
    for pooling in ("mean", "none"):
        embed(model, fasta=fasta, output=tmp_path / f"{pooling}-one.parquet", pooling=pooling)
    monkeypatch.setattr(embedding_files, "_BYTES_A_ROW_GROUP", 3 * 32 * 4)
    for pooling in ("mean", "none"):
        embed(model, fasta=fasta, output=tmp_path / f"{pooling}-many.parquet", pooling=pooling)
        one, many = (read_parquet(tmp_path / f"{pooling}-{name}.parquet")[2] for name in ("one", "many"))
        assert one == many
        assert pyarrow.parquet.ParquetFile(tmp_path / f"{pooling}-many.parquet").num_row_groups > 5


@pytest.mark.parametrize("pooling", POOLINGS)
def test_safetensors(build, fasta, tmp_path, pooling):
    model = build(MutBertModel)
    embed(model, fasta=fasta, output=tmp_path / "out.parquet", pooling=pooling)
    embed(model, fasta=fasta, output=tmp_path / "out.safetensors", pooling=pooling)
    rows, wanted, _ = read_parquet(tmp_path / "out.parquet")
    with safe_open(tmp_path / "out.safetensors", "numpy") as file:
        metadata = file.metadata()
        names = json.loads(metadata["names"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert names == [row["name"] for row in rows]
    assert json.loads(metadata["ends"]) == [row["end"] for row in rows]
    assert metadata["pooling"] == pooling
    assert_same([tensors[name] for name in names] if pooling == "none" else tensors["embeddings"], wanted)


def test_a_path_a_head_and_a_loaded_model_give_the_same(build, fasta, tmp_path):
    """And a model of first-token pooling without its pooler can embed, since that is not used."""
    model = build(MutBertForMaskedLM, pooler_type="cls")
    model.save_pretrained(tmp_path / "model")
    found = []
    for number, given in enumerate((model, model.bert, tmp_path / "model", str(tmp_path / "model"))):
        embed(given, fasta=fasta, output=tmp_path / f"{number}.parquet")
        found.append(read_parquet(tmp_path / f"{number}.parquet")[1])
    for other in found[1:]:
        assert_same(other, found[0])


@pytest.mark.shared
def test_published_checkpoint(shared, fasta, tmp_path):
    report = embed(shared / "golden", fasta=fasta, output=tmp_path / "out.safetensors")
    assert report.hidden_size == 48


def test_half_precision(build, fasta, tmp_path):
    model = build(MutBertModel)
    embed(model, fasta=fasta, output=tmp_path / "fp32.parquet")
    embed(model, fasta=fasta, output=tmp_path / "bf16.parquet", precision="bf16")
    full, half = (read_parquet(tmp_path / f"{name}.parquet")[1] for name in ("fp32", "bf16"))
    np.testing.assert_allclose(np.stack(half), np.stack(full), atol=0.1)


# Lengths


def test_longer_than_trained_needs_a_scaling_that_covers_it(build, tmp_path):
    model = build(MutBertModel)
    path = tmp_path / "long.fa"
    path.write_text(">fits\n" + "A" * 62 + "\n>long\n" + "ACGT" * 32 + "\n")
    output = tmp_path / "out.parquet"
    with pytest.raises(InputError, match=r"long: 128 bases are 130 tokens .* trained for 64; .*dynamic:3"):
        embed(model, fasta=path, output=output)
    with pytest.raises(InputError, match=r"rope_scaling takes it to 128; .*linear:3"):
        embed(model, fasta=path, output=output, rope_scaling={"type": "linear", "factor": 2})
    assert not list(tmp_path.glob("*parquet*")), "nothing half-written"
    embed(model, fasta=path, output=output, rope_scaling={"type": "dynamic", "factor": 3})
    assert model.config.rope_scaling is None, "the model is left as it was found"
    scaled = build(MutBertModel, rope_scaling={"type": "dynamic", "factor": 3})
    wanted = states_of(scaled, alphabet.TOKEN_PROBABILITIES[alphabet.encode("ACGT" * 32)]).mean(axis=0)
    assert_same([read_parquet(output)[1][1]], [wanted])
    embed(scaled, fasta=path, output=output, force=True)
    assert_same([read_parquet(output)[1][1]], [wanted])


# What cannot be used


def test_wrong_arguments_are_refused(build, fasta, genome, bed, tmp_path):
    model = build(MutBertModel)
    out = tmp_path / "out.parquet"
    refused = [
        ({"fasta": fasta, "pooling": "median"}, "pooling"),
        ({"fasta": fasta, "output": tmp_path / "out.csv"}, "suffix"),
        ({"fasta": fasta, "output": tmp_path / "nowhere" / "out.parquet"}, "does not exist"),
        ({}, "either a FASTA, or a genome and a BED"),
        ({"fasta": fasta, "genome": genome, "bed": bed}, "either a FASTA, or a genome and a BED"),
        ({"genome": genome}, "either a FASTA, or a genome and a BED"),
        ({"fasta": tmp_path / "nowhere.fa"}, "nowhere.fa"),
        ({"genome": tmp_path / "nowhere.genome", "bed": bed}, "no such genome"),
        ({"fasta": fasta, "model": tmp_path / "nowhere"}, "no such model folder"),
        ({"fasta": fasta, "rope_scaling": {"type": "yarn", "factor": 2}}, "rope_scaling is"),
        ({"fasta": fasta, "precision": "int8"}, "precision is"),
    ]
    for changes, message in refused:
        with pytest.raises(InputError, match=message):
            embed(**{"model": model, "output": out, **changes})
    assert not list(tmp_path.glob("*out*"))


def test_an_output_that_exists_is_kept_unless_forced(build, fasta, tmp_path):
    model, output = build(MutBertModel), tmp_path / "out.parquet"
    output.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        embed(model, fasta=fasta, output=output)
    assert output.read_text() == "mine"
    embed(model, fasta=fasta, output=output, force=True)
    assert len(read_parquet(output)[0]) == 20


def test_names_that_come_twice_have_no_place_in_safetensors(build, genome, tmp_path):
    path = tmp_path / "twice.bed"
    path.write_text("chr1\t0\t10\tgene\nchr1\t20\t30\tgene\n")
    model = build(MutBertModel)
    with pytest.raises(InputError, match="gene comes twice"):
        embed(model, genome=genome, bed=path, output=tmp_path / "out.safetensors", pooling="none")
    embed(model, genome=genome, bed=path, output=tmp_path / "out.safetensors")
    embed(model, genome=genome, bed=path, output=tmp_path / "out.parquet", pooling="none")


def test_missing_pyarrow_is_said_with_its_extra(build, fasta, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"pyarrow is not installed.*mutbert\[embed\]"):
        embed(build(MutBertModel), fasta=fasta, output=tmp_path / "out.parquet")
    embed(build(MutBertModel), fasta=fasta, output=tmp_path / "out.safetensors")


# The command line


@pytest.fixture
def run(build, tmp_path):
    app = typer.Typer()
    app.command("embed")(command.embed)
    build(MutBertForMaskedLM).save_pretrained(tmp_path / "model")
    return lambda *words: CliRunner().invoke(app, ["--model", str(tmp_path / "model"), *map(str, words)])


def test_command(run, sequences, fasta, genome, bed, tmp_path):
    done = run("--fasta", fasta, "-o", tmp_path / "out.safetensors", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "output": str(tmp_path / "out.safetensors"),
        "records": 20,
        "bases": sum(map(len, sequences)),
        "hidden_size": 32,
        "pooling": "mean",
    }
    assert "20 sequences" in done.stderr
    done = run("--genome", genome.path, "--bed", bed, "-o", tmp_path / "out.parquet", "--pooling", "none")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'out.parquet'}: 3 sequences, 84 bases, 32 numbers a base\n"


def test_command_scales_and_refuses(run, tmp_path):
    path = tmp_path / "long.fa"
    path.write_text(">long\n" + "ACGT" * 32 + "\n")
    done = run("--fasta", path, "-o", tmp_path / "out.parquet", "--rope-scaling", "dynamic:2.5", "--precision", "bf16")
    assert done.exit_code == 0, done.output
    for words, message in (
        (("--rope-scaling", "dynamic"), "give TYPE:FACTOR"),
        (("--rope-scaling", "yarn:2"), "rope_scaling is"),
        ((), "trained for 64"),
    ):
        refused = run("--fasta", path, "-o", tmp_path / "other.parquet", *words)
        assert isinstance(refused.exception, InputError)
        assert message in str(refused.exception)
