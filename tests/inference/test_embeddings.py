import json
import sys
import weakref

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
from mutbert.genome.store import ProbabilisticGenome
from mutbert.inference import embedding_files, embedding_sources, embeddings
from mutbert.inference.embedding_sources import Input, Record, open_source
from mutbert.inference.embeddings import EmbeddingReport, embed, embed_inputs
from mutbert.model import MutBertForMaskedLM, MutBertModel
from mutbert.model.tokenization_mutbert import with_special_tokens

# Of the states of one sequence, those at [CLS] and [SEP] among them.
POOLINGS = {
    "mean": lambda state: state[1:-1].mean(axis=0),
    "max": lambda state: state[1:-1].max(axis=0),
    "cls": lambda state: state[0],
    "none": lambda state: state[1:-1],
}


@pytest.fixture
def fasta(tmp_path, sequences):
    path = tmp_path / "some.fa"
    path.write_text("".join(f">r{number} of some\n{sequence}\n" for number, sequence in enumerate(sequences)))
    return path


@pytest.fixture
def genome(tmp_path, write_genome):
    """Two contigs with ambiguous codes, unknown bases and variants."""
    contigs = {"chr1": "ACGTACGTNNRYACGT" * 4, "chr2": "GATTACA" * 8}
    variants = {"chr1": {4: [0.8, 0, 0.2, 0], 13: [0.1, 0.2, 0.3, 0.4]}}
    return ProbabilisticGenome.open(write_genome(tmp_path / "small.genome", contigs, variants))


@pytest.fixture
def bed(tmp_path):
    path = tmp_path / "some.bed"
    path.write_text("1\t0\t20\tfirst\nchr2\t3\t10\nchr1\t7\t64\n")
    return path


@pytest.fixture
def calls(tmp_path):
    """Genotypes of two people."""
    path = tmp_path / "calls.vcf"
    path.write_text(
        "##fileformat=VCFv4.2\n##contig=<ID=1>\n##contig=<ID=2>\n"
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">\n'
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tyou\tme\n"
        "1\t3\t.\tG\tT\t.\t.\t.\tGT\t0|0\t0|1\n1\t13\t.\tA\tC\t.\t.\t.\tGT\t1|1\t0|0\n"
        "1\t21\t.\tA\tC\t.\t.\t.\tGT\t0|0\t1|1\n2\t5\t.\tA\tG\t.\t.\t.\tGT\t./.\t1/0\n"
    )
    return path


def states_of(model, probs_LV, layer=-1):
    """Hidden states of one sequence, at [CLS] and [SEP] too, the plain way."""
    framed = np.zeros((len(probs_LV) + 2, 9), np.float32)
    framed[0, 1] = framed[-1, 2] = 1
    framed[1:-1] = probs_LV
    with torch.no_grad():
        outputs = model(input_probs=torch.from_numpy(framed)[None], output_hidden_states=True)
    return outputs.hidden_states[layer][0].numpy()


def embedding_of(model, sequence, layer, pooling, strands):
    """The embedding of one sequence, the plain way."""
    codes = alphabet.encode(sequence)
    found = POOLINGS[pooling](states_of(model, alphabet.TOKEN_PROBABILITIES[codes], layer))
    if strands == "forward":
        return found
    turned = alphabet.TOKEN_PROBABILITIES[alphabet.reverse_complement(codes)]
    other = POOLINGS[pooling](states_of(model, turned, layer))
    return (found + (other[::-1] if pooling == "none" else other)) / 2


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
    assert report == EmbeddingReport(output, len(sequences), bases, 32, pooling, (2,), "forward", None, {})
    rows, embeddings, table = read_parquet(output)
    assert [(row["name"], row["contig"], row["start"], row["end"]) for row in rows] == [
        (f"r{number}", f"r{number}", 0, len(sequence)) for number, sequence in enumerate(sequences)
    ]
    assert_same(embeddings, [embedding_of(model, sequence, -1, pooling, "forward") for sequence in sequences])
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


LAYERS = [-1, 0, 1, [1], [2, 0], "all"]


@pytest.mark.parametrize("strands", ["forward", "both"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", LAYERS, ids=str)
def test_layers_poolings_and_strands(build, sequences, fasta, tmp_path, layers, pooling, strands):
    model = build(MutBertModel)
    output = tmp_path / "out.parquet"
    report = embed(model, fasta=fasta, output=output, layers=layers, pooling=pooling, strands=strands, batch_size=3)
    resolved = {-1: (2,), 0: (0,), 1: (1,), "[1]": (1,), "[2, 0]": (2, 0), "all": (0, 1, 2)}
    assert report.layers == resolved[str(layers) if isinstance(layers, list) else layers]
    assert report.strands == strands
    rows = pyarrow.parquet.read_table(output).to_pylist()
    names = [f"embedding_{layer}" for layer in report.layers] if len(report.layers) > 1 else ["embedding"]
    assert list(rows[0]) == ["name", "contig", "start", "end", *names]
    for layer, name in zip(report.layers, names, strict=True):
        wanted = [embedding_of(model, sequence, layer, pooling, strands) for sequence in sequences]
        assert_same([np.array(row[name], np.float32) for row in rows], wanted)


def test_pooling_of_every_base_is_that_of_the_sequence(build, fasta, tmp_path):
    model = build(MutBertModel)
    every, pooled = (
        embed(model, fasta=fasta, output=tmp_path / f"{pooling}.parquet", pooling=pooling, strands="both").output
        for pooling in ("none", "mean")
    )
    assert_same([rows.mean(axis=0) for rows in read_parquet(every)[1]], read_parquet(pooled)[1])


def test_the_model_is_left_as_it_was_found(build, fasta, tmp_path):
    model = build(MutBertModel, output_hidden_states=True).train()
    layers = model.encoder.layer
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for one in open_source(fasta).inputs():
        found = embed_inputs(model, [one, one], layers=[0, 1], batch_size=1)
        next(found)
        assert model.encoder.layer is layers, "between results too"
        assert model.config.output_hidden_states
        assert all(module.training for module in model.modules())
    with pytest.raises(RuntimeError, match="stop"):
        next(embed_inputs(Failing(model.config), [one], layers=[0]))
    embed(model, fasta=fasta, output=tmp_path / "out.parquet", layers=1)
    assert model.encoder.layer is layers
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Failing(MutBertModel):
    def forward(self, **_):
        raise RuntimeError("stop")


def test_layers_behind_the_last_one_wanted_are_not_run(build, fasta, tmp_path):
    model = build(MutBertModel, num_hidden_layers=3)
    ran = []
    for number, layer in enumerate(model.encoder.layer, start=1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    embed(model, fasta=fasta, output=tmp_path / "out.parquet", layers=[0, 2])
    assert set(ran) == {1, 2}


# Memory


@pytest.mark.parametrize(
    ("pooling", "layers", "limit", "most"),
    [("mean", [2], 1 << 30, 64), ("none", [2], 50 * 32 * 4, 2), ("none", [0, 1, 2], 50 * 32 * 4, 2)],
)
def test_input_is_read_only_a_little_ahead(build, monkeypatch, pooling, layers, limit, most):
    """By a number of sequences that does not depend on how many there are; by a batch where embeddings are large."""
    model = build(MutBertModel)
    monkeypatch.setattr(embedding_sources, "_BYTES_AT_ONCE", limit)
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            probs = with_special_tokens(alphabet.TOKEN_PROBABILITIES[alphabet.encode("ACGT" * 10)])
            yield Input(Record(f"r{read}", "c", 0, 40), probs)

    found = embed_inputs(model, endless(), layers=layers, pooling=pooling, batch_size=2)
    for given in range(1, 200):
        record, _ = next(found)
        assert record.name == f"r{given}"
        assert read - given < most


def test_no_record_is_kept_for_parquet(build, fasta, tmp_path, monkeypatch):
    """Each record, its input and its embedding are gone once its row group is written."""
    alive, most = weakref.WeakSet(), 0

    class Kept(np.ndarray):
        pass

    def watched(inputs):
        nonlocal most
        for one in inputs:
            probs = one.probs_LV.view(Kept)
            alive.add(Watch(probs))
            most = max(most, len(alive))
            yield one._replace(probs_LV=probs)

    class Watch:
        def __init__(self, probs):
            probs.watch = self

    fasta.write_text("".join(f">r{number}\nACGTACGT\n" for number in range(300)))
    monkeypatch.setattr(embedding_sources, "_BATCHES_AT_ONCE", 2)
    real = embeddings.embed_inputs
    monkeypatch.setattr(embeddings, "embed_inputs", lambda model, inputs, **rest: real(model, watched(inputs), **rest))
    embed(build(MutBertModel), fasta=fasta, output=tmp_path / "out.parquet", batch_size=4)
    assert len(read_parquet(tmp_path / "out.parquet")[0]) == 300
    assert most <= 2 * 8 + 1


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
        wanted.append(POOLINGS["mean"](states_of(model, probs)))
    assert_same(embeddings, wanted)


def test_genome_regions_may_be_the_reference_s_or_a_person_s(build, genome, bed, calls, tmp_path):
    model = build(MutBertModel)
    person = {"person_vcf": calls, "sample": "me"}
    # By position, what my two chromosomes have.
    mine = {"chr1": {2: "GT", 20: "CC"}, "chr2": {4: "AG"}}
    for kind, more, bases_of in (("reference", {}, {}), ("person", person, mine)):
        output = tmp_path / f"{kind}.parquet"
        report = embed(model, genome=genome, bed=bed, output=output, surroundings=kind, **more)
        assert report.differing == (3 if kind == "person" else None)
        assert report.not_used == ({"as the reference": 1} if kind == "person" else {})
        rows, embeddings, table = read_parquet(output)
        assert table.schema.metadata[b"surroundings"] == kind.encode()
        wanted = []
        for row in rows:
            probs = alphabet.TOKEN_PROBABILITIES[genome.bases(row["contig"], row["start"], row["end"])]
            for position, two in bases_of.get(row["contig"], {}).items():
                if row["start"] <= position < row["end"]:
                    probs[position - row["start"]] = [0, 0, 0, 0, 0, *(two.count(base) / 2 for base in "ACGT")]
            wanted.append(POOLINGS["mean"](states_of(model, probs)))
        assert_same(embeddings, wanted)


def test_row_groups_are_written_as_they_come(build, fasta, tmp_path, monkeypatch):
    model = build(MutBertModel)
    wanted = {"mean": [0, 2], "none": [2]}
    for pooling, layers in wanted.items():
        embed(model, fasta=fasta, output=tmp_path / f"{pooling}-one.parquet", pooling=pooling, layers=layers)
    monkeypatch.setattr(embedding_files, "_BYTES_A_ROW_GROUP", 3 * 32 * 4)
    for pooling, layers in wanted.items():
        embed(model, fasta=fasta, output=tmp_path / f"{pooling}-many.parquet", pooling=pooling, layers=layers)
        one, many = (pyarrow.parquet.read_table(tmp_path / f"{pooling}-{name}.parquet") for name in ("one", "many"))
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
    wanted = states_of(scaled, alphabet.TOKEN_PROBABILITIES[alphabet.encode("ACGT" * 32)])[1:-1].mean(axis=0)
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
        ({"fasta": fasta, "strands": "reverse"}, "strands is"),
        ({"fasta": fasta, "batch_size": 0}, "batch_size is"),
        ({"fasta": fasta, "layers": 3}, r"layer 3: the model has 2 layers; give 0 .* to 2, or .* to -3"),
        ({"fasta": fasta, "layers": [0, -4]}, r"layer -4: the model has 2 layers"),
        ({"fasta": fasta, "layers": [1, 2, -1]}, r"layer 2 is given twice, as 2 and as -1"),
        ({"fasta": fasta, "layers": [1, 1]}, r"layer 1 is given twice; give"),
        ({"fasta": fasta, "layers": []}, "at least one"),
        ({"fasta": fasta, "layers": "last"}, "give numbers, or all"),
        ({"fasta": fasta, "output": tmp_path / "out.h5ad", "pooling": "none"}, r"one a base; choose mean, max or cls"),
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


def test_command(run, sequences, fasta, genome, bed, calls, tmp_path):
    done = run("--fasta", fasta, "-o", tmp_path / "out.safetensors", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "output": str(tmp_path / "out.safetensors"),
        "records": 20,
        "bases": sum(map(len, sequences)),
        "hidden_size": 32,
        "pooling": "mean",
        "layers": [2],
        "strands": "forward",
        "differing": None,
        "not_used": {},
    }
    assert "20 sequences" in done.stderr
    done = run("--genome", genome.path, "--bed", bed, "-o", tmp_path / "out.parquet", "--pooling", "none")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'out.parquet'}: 3 sequences, 84 bases, 32 numbers a token\n"
    done = run("--genome", genome.path, "--bed", bed, "-o", tmp_path / "me.parquet", "--surroundings", "person",
               "--person-vcf", calls, "--sample", "me")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1:] == [
        "3 positions of the person in the regions differ",
        "1 record of the person changes nothing: as the reference",
    ]


def test_command_chooses_layers_strands_and_columns(run, sequences, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("".join(["id,dna\n", *(f"s{number},{row}\n" for number, row in enumerate(sequences))]))
    words = "--input", path, "--sequence-column", "dna", "--name-column", "id", "--strands", "both", "--pooling", "cls"
    done = run(*words, "--layers", "0,-1", "-o", tmp_path / "out.parquet")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("32 numbers a sequence in each of layers 0, 2\n")
    model = MutBertModel.from_pretrained(tmp_path / "model", pooler_type="mean")
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table["name"].to_pylist() == [f"s{number}" for number in range(20)]
    for layer in (0, 2):
        wanted = [embedding_of(model, sequence, layer, "cls", "both") for sequence in sequences]
        assert_same(np.stack(table[f"embedding_{layer}"].to_numpy()), wanted)
    for layers in ("all", "-1"):
        assert run(*words, "--layers", layers, "-o", tmp_path / f"{layers}.parquet").exit_code == 0
    with pytest.raises(InputError, match="--layers 1;2: give numbers with commas"):
        raise run(*words, "--layers", "1;2", "-o", tmp_path / "other.parquet").exception


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
