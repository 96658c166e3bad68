"""Embeddings of every kind and in every format, against the model run on one sequence at a time."""

import json
import random

import anndata
import numpy as np
import pyarrow.parquet
import pytest
import torch
from safetensors import safe_open

import mutbert
from mutbert import ProbabilisticGenome, alphabet, build_genome, embed, embed_sequences
from mutbert.encoders.adapter import open_encoder
from mutbert.encoders.inputs import PaddedWindows
from mutbert.errors import InputError
from mutbert.model import MutBertForMaskedLM, MutBertModel

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
def genome(tmp_path):
    """Two contigs with ambiguous codes, unknown bases and variants."""
    (tmp_path / "ref.fa").write_text(f">chr1\n{'ACGTACGTNNRYACGT' * 4}\n>chr2\n{'GATTACA' * 8}\n")
    (tmp_path / "sites.vcf").write_text(
        "##fileformat=VCFv4.2\n##contig=<ID=1>\n"
        '##INFO=<ID=AF,Number=A,Type=Float,Description="frequency">\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n'
        "1\t5\t.\tA\tG\t.\t.\tAF=0.2\n1\t14\t.\tC\tA,G,T\t.\t.\tAF=0.1,0.3,0.4\n"
    )
    build_genome(tmp_path / "ref.fa", tmp_path / "small.genome", tmp_path / "sites.vcf")
    return ProbabilisticGenome.open(tmp_path / "small.genome")


@pytest.fixture
def bed(tmp_path):
    path = tmp_path / "some.bed"
    path.write_text("1\t0\t20\tfirst\t0\t+\nchr2\t3\t10\nchr1\t7\t64\nchr1\t7\t64\t.\t0\t-\n")
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
    codes = alphabet.encode(sequence)
    found = POOLINGS[pooling](states_of(model, alphabet.TOKEN_PROBABILITIES[codes], layer))
    if strands == "forward":
        return found
    turned = alphabet.TOKEN_PROBABILITIES[alphabet.reverse_complement(codes)]
    other = POOLINGS[pooling](states_of(model, turned, layer))
    return (found + (other[::-1] if pooling == "none" else other)) / 2


def read(path, column="embedding"):
    return [np.array(row, np.float32) for row in pyarrow.parquet.read_table(path)[column].to_pylist()]


def assert_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("strands", ["forward", "both"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", [-1, [2, 0], "all"], ids=str)
def test_layers_poolings_and_strands_in_every_format(build, sequences, fasta, tmp_path, layers, pooling, strands):
    model = build(MutBertModel, name_or_path="a/model")
    given = {"fasta": fasta, "layers": layers, "pooling": pooling, "strands": strands, "batch_size": 3}
    report = embed(model, output=tmp_path / "out.parquet", **given)
    chosen = {"-1": (2,), "[2, 0]": (2, 0), "all": (0, 1, 2)}[str(layers)]
    bases = sum(map(len, sequences))
    assert (report["records"], report["bases"], report["layers"], report["hidden_size"]) == (20, bases, chosen, 32)
    table = pyarrow.parquet.read_table(report["output"])
    columns = [f"embedding_{layer}" for layer in chosen] if len(chosen) > 1 else ["embedding"]
    assert table.column_names == ["name", "chrom", "start", "end", "strand", *columns]
    assert table["end"].to_pylist() == [len(sequence) for sequence in sequences]
    wanted = {}
    for layer, column in zip(chosen, columns, strict=True):
        wanted[layer] = [embedding_of(model, sequence, layer, pooling, strands) for sequence in sequences]
        assert_same(read(report["output"], column), wanted[layer])
    held = {"pooling": pooling, "layers": json.dumps(chosen), "strands": strands, "model": "a/model"}
    held |= {"surroundings": "sequence", "version": mutbert.__version__}
    assert held.items() <= {key.decode(): value.decode() for key, value in table.schema.metadata.items()}.items()

    embed(model, output=tmp_path / "out.safetensors", **given)
    with safe_open(tmp_path / "out.safetensors", "numpy") as file:
        assert held.items() <= file.metadata().items()
        names = json.loads(file.metadata()["names"])
        for layer in chosen:
            of_layer = f"_{layer}" if len(chosen) > 1 else ""
            if pooling == "none":
                found = [file.get_tensor(f"{name}{of_layer}") for name in names]
            else:
                found = file.get_tensor(f"embeddings{of_layer}")
            assert_same(found, wanted[layer])
        assert len(file.keys()) == len(chosen) * (len(names) if pooling == "none" else 1)
    if pooling != "none":
        embed(model, output=tmp_path / "out.h5ad", **given)
        data = anndata.read_h5ad(tmp_path / "out.h5ad")
        assert_same(data.X, wanted[chosen[0]])
        assert data.obs["end"].tolist() == table["end"].to_pylist()
        assert data.uns["layers"].tolist() == list(chosen)
        assert set(data.obsm) == ({f"X_layer_{layer}" for layer in chosen} if len(chosen) > 1 else set())
        for layer in data.obsm:
            assert_same(data.obsm[layer], wanted[int(layer[8:])])


def test_regions_of_a_genome(build, genome, bed, calls, tmp_path):
    model = build(MutBertModel)
    # By position, what my two chromosomes have.
    mine = {"chr1": {2: "GT", 20: "CC"}, "chr2": {4: "AG"}}
    for kind, more in (("population", {}), ("reference", {}), ("person", {"person_vcf": calls, "sample": "me"})):
        output = tmp_path / f"{kind}.parquet"
        given = genome if kind == "person" else genome.path
        report = embed(model, genome=given, bed=bed, output=output, surroundings=kind, **more)
        assert report["differing"] == (4 if kind == "person" else None)
        assert report["not_used"] == ({"as the reference": 1} if kind == "person" else {})
        table = pyarrow.parquet.read_table(output)
        assert table.schema.metadata[b"surroundings"] == kind.encode()
        places = [tuple(row.values())[:5] for row in table.to_pylist()]
        assert places == [
            ("first", "chr1", 0, 20, "+"), ("chr2:4-10", "chr2", 3, 10, "."), ("chr1:8-64", "chr1", 7, 64, "."),
            ("chr1:8-64(-)", "chr1", 7, 64, "-"),
        ]  # fmt: skip
        wanted = []
        for _, contig, start, end, strand in places:
            probs = alphabet.TOKEN_PROBABILITIES[genome.bases(contig, start, end)]
            if kind == "population":
                variants = genome.variants(contig, start, end)
                probs[variants.position - start, 5:] = variants.frequency
            for position, two in (mine[contig] if kind == "person" else {}).items():
                if start <= position < end:
                    probs[position - start, 5:] = [two.count(base) / 2 for base in "ACGT"]
            if strand == "-":
                probs = np.concatenate([probs[:, :5], probs[:, :4:-1]], axis=1)[::-1]  # A, C, G, T backwards
            wanted.append(POOLINGS["mean"](states_of(model, probs)))
        assert_same(read(output), wanted)


def test_what_is_nothing_but_n_is_counted(build, genome, tmp_path):
    (tmp_path / "x.bed").write_text("chr1\t8\t10\nchr1\t8\t11\nchr1\t24\t25\tx\t0\t-\n")
    (tmp_path / "x.fa").write_text(">a\nNNN\n>b\nNNA\n>c\nRY\n")
    model, output = build(MutBertModel), tmp_path / "x.parquet"
    assert embed(model, genome=genome, bed=tmp_path / "x.bed", output=output)["only_N"] == 2
    assert embed(model, fasta=tmp_path / "x.fa", output=output, force=True)["only_N"] == 1


def test_a_path_a_head_and_a_loaded_model_agree(build, fasta, tmp_path):
    """And a model of first-token pooling without its pooler can embed, since that is not used."""
    model = build(MutBertForMaskedLM, pooler_type="cls")
    model.save_pretrained(tmp_path / "model")
    given = {"fasta": fasta, "output": tmp_path / "out.parquet", "force": True}
    head, body, path, half = (
        read(embed(one, **given, precision=precision)["output"])
        for one, precision in ((model, "fp32"), (model.bert, "fp32"), (tmp_path / "model", "fp32"), (model, "bf16"))
    )
    assert_same(body, head)
    assert_same(path, head)
    np.testing.assert_allclose(np.stack(half), np.stack(head), atol=0.1)


def test_longer_than_trained_needs_a_scaling_that_covers_it(build, tmp_path):
    model, path, output = build(MutBertModel), tmp_path / "long.fa", tmp_path / "out.parquet"
    path.write_text(">fits\n" + "A" * 62 + "\n>long\n" + "ACGT" * 32 + "\n")
    with pytest.raises(InputError, match=r"long: 128 bases are 130 tokens .* reads 64; .*dynamic:3"):
        embed(model, fasta=path, output=output)
    with pytest.raises(InputError, match=r"the model reads 128; .*linear:3"):
        embed(model, fasta=path, output=output, rope_scaling={"type": "linear", "factor": 2})
    assert not list(tmp_path.glob("*parquet*")), "nothing half-written"
    embed(model, fasta=path, output=output, rope_scaling={"type": "dynamic", "factor": 3})
    assert model.config.rope_scaling is None, "the model is left as it was found"
    scaled = build(MutBertModel, rope_scaling={"type": "dynamic", "factor": 3})
    assert_same([read(output)[1]], [embedding_of(scaled, "ACGT" * 32, -1, "mean", "forward")])


@pytest.mark.parametrize("kind", ["mutbert", "bert"])
@pytest.mark.parametrize("pooling", ["mean", "max", "none"])
def test_windows_of_long_sequences_are_pooled_by_their_bases(model_folders, genome, tmp_path, kind, pooling):
    """They are the fewest equal ones that the model reads; those of the minus strand are of its reverse complement."""
    letters = "".join(random.Random(1).choices("ACGT", k=500))
    contig = genome.bases("chr1", 0, 64)
    model, encoder, wanted = model_folders[kind], open_encoder(model_folders[kind]), []

    def windows(code_L, number):
        return [code_L[at * len(code_L) // number : (at + 1) * len(code_L) // number] for at in range(number)]

    def fits(parts):
        return (encoder.inputs(PaddedWindows.of(parts)).length_N <= 64).all()

    for code_L in (alphabet.encode(letters), contig, alphabet.reverse_complement(contig)):
        parts = next(parts for number in range(1, 99) if fits(parts := windows(code_L, number)))
        alone = embed_sequences(model, [alphabet.decode(part) for part in parts], pooling=pooling)
        if pooling == "mean":
            wanted.append(np.average(alone, axis=0, weights=list(map(len, parts))))
        else:
            wanted.append(np.concatenate(alone) if pooling == "none" else alone.max(axis=0))
    (tmp_path / "x.fa").write_text(f">x\n{letters}\n>y\nGATTACA\n")
    (tmp_path / "x.bed").write_text("chr1\t0\t64\nchr1\t0\t64\t.\t0\t-\n")
    how = {"pooling": pooling, "long": "window", "output": tmp_path / "x.parquet", "force": True}
    counts = embed(model, fasta=tmp_path / "x.fa", **how)["long"]
    found = [read(tmp_path / "x.parquet")[0]]
    embed(model, genome=genome, bed=tmp_path / "x.bed", surroundings="reference", **how)
    found += read(tmp_path / "x.parquet")
    assert_same(found, wanted)
    assert counts == {"read in windows": 1}
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert (table["start"].to_pylist(), table["end"].to_pylist()) == ([0, 0], [64, 64])


def test_mistakes_are_found_before_the_model_runs(build, fasta, genome, bed, calls, tmp_path):
    model, out = build(MutBertModel), tmp_path / "out.parquet"
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    wrong, twice = tmp_path / "wrong.fa", tmp_path / "twice.bed"
    wrong.write_text(">a\nACGT\n" * 100 + ">b\nAZ\n")
    twice.write_text("chr1\t0\t10\tgene\nchr1\t20\t30\tgene\n")
    regions = {"genome": genome, "bed": bed}
    refused = [
        ({"fasta": wrong}, "record 101: sequence has 'Z'"),
        ({"fasta": fasta, "pooling": "median"}, "pooling"),
        ({"fasta": fasta, "output": tmp_path / "out.txt"}, "suffix"),
        ({"fasta": fasta, "output": fasta, "force": True}, "the input .* would be lost"),
        ({"fasta": fasta, "strands": "reverse"}, "strands is"),
        ({"fasta": fasta, "layers": 3}, r"layers is 3; the model has 2 layers: give .* 0 .* to 2, or -1 .* to -3"),
        ({"fasta": fasta, "layers": [1, 2, -1]}, r"layers is \[1, 2, -1\]; .*, each once; or all"),
        ({"fasta": fasta, "output": tmp_path / "out.h5ad", "pooling": "none"}, "one a base; choose another pooling"),
        ({"fasta": fasta, "output": tmp_path / "out.npy", "pooling": "none"}, "one a base; choose another pooling"),
        ({**regions, "bed": twice, "output": tmp_path / "out.safetensors", "pooling": "none"}, "names two tensors"),
        ({"genome": tmp_path / "nowhere.genome", "bed": bed}, "no such genome"),
        ({**regions, "surroundings": "family"}, "one of reference, population, person"),
        ({**regions, "person_vcf": calls}, "is given, but .* population; choose person"),
        ({**regions, "surroundings": "person", "sample": "me"}, "give --person-vcf FILE"),
        ({**regions, "surroundings": "person", "person_vcf": calls, "sample": "stranger"}, "stranger"),
        ({"fasta": fasta, "model": tmp_path / "nowhere"}, "no such model folder"),
        ({"fasta": fasta, "rope_scaling": {"type": "yarn", "factor": 2}}, "rope_scaling is"),
        ({"fasta": fasta, "long": "window", "pooling": "cls"}, r"each window has a \[CLS\] of its own; use --long"),
        ({"fasta": fasta, "long": "cut"}, "long is 'cut'; it must be one of refuse, truncate, window, skip"),
    ]
    for changes, message in refused:
        with pytest.raises(InputError, match=message):
            embed(**{"model": model, "output": out, **changes})
    assert not list(tmp_path.glob("*out*"))
