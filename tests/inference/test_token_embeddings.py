"""Embeddings by models that read tokens, against the model run on one sequence at a time."""

import numpy as np
import pyarrow.parquet
import pytest
import torch

from mutbert import build_genome, embed
from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError

PEERS = ("dnabert2", "nt-500m-1000g", "ntv2-50m", "caduceus-ph", "caduceus-ps")
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
SEQUENCES = {
    "long": "ACGTTGCATGCCTAGGATCCATTAGACATTGACCAGTAGGT",
    "with N": "TTGACGTNNACGGTACCA",
    "short": "GAT",
    "other": "CCATGACTGATTACAGGACTA",
}


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    path = tmp_path_factory.mktemp("fasta") / "some.fa"
    path.write_text("".join(f">{name.replace(' ', '_')}\n{text}\n" for name, text in SEQUENCES.items()))
    return path


@pytest.fixture(params=PEERS)
def name(request):
    return request.param


def states_of(folder, text, layer):
    """A layer's states of every token of one sequence, and the ids."""
    encoder = open_encoder(folder)
    ids = encoder.tokenizer(text, add_special_tokens=encoder.special_tokens, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        (state_1LD,) = encoder.layer_states(encoder.body(len(text)), {"input_ids": ids}, [layer])
    return state_1LD[0].numpy(), ids[0].tolist(), encoder.tokenizer


def columns_of(path, column="embedding"):
    return pyarrow.parquet.read_table(path)[column].to_pylist()


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_every_token_is_pooled(peer_folders, fasta, tmp_path, name, pooling):
    report = embed(peer_folders[name], fasta=fasta, output=tmp_path / "out.parquet", pooling=pooling, batch_size=2)
    assert (report.records, report.bases) == (len(SEQUENCES), sum(map(len, SEQUENCES.values())))
    found = columns_of(report.output)
    last = open_encoder(peer_folders[name]).body(0).config.num_hidden_layers
    for row, text in enumerate(SEQUENCES.values()):
        states, _, _ = states_of(peer_folders[name], text, last)
        np.testing.assert_allclose(found[row], getattr(states, pooling)(axis=0), atol=2e-5)
        assert len(found[row]) == report.hidden_size


def test_layers_and_both_strands(peer_folders, fasta, tmp_path, name):
    embed(peer_folders[name], fasta=fasta, output=tmp_path / "out.parquet", layers=[0, 1], strands="both")
    for layer in (0, 1):
        found = columns_of(tmp_path / "out.parquet", f"embedding_{layer}")
        for row, text in enumerate(SEQUENCES.values()):
            both = [
                states_of(peer_folders[name], strand, layer)[0].mean(axis=0)
                for strand in (text, text.translate(COMPLEMENT)[::-1])
            ]
            np.testing.assert_allclose(found[row], np.mean(both, axis=0), atol=2e-5)


def test_without_pooling_there_is_one_for_each_token_that_stands_for_bases(peer_folders, fasta, tmp_path, name):
    embed(peer_folders[name], fasta=fasta, output=tmp_path / "out.parquet", pooling="none", batch_size=3)
    found = columns_of(tmp_path / "out.parquet")
    last = open_encoder(peer_folders[name]).body(0).config.num_hidden_layers
    for row, text in enumerate(SEQUENCES.values()):
        states, ids, tokenizer = states_of(peer_folders[name], text, last)
        frame = {"<cls>", "[CLS]", "[SEP]"}
        kept = [number for number, one in enumerate(tokenizer.convert_ids_to_tokens(ids)) if one not in frame]
        np.testing.assert_allclose(found[row], states[kept], atol=2e-5)


def test_the_class_token(peer_folders, fasta, tmp_path, name):
    if name.startswith("caduceus"):
        with pytest.raises(InputError, match=r"\A[^\n]+puts no class token before a sequence; [^\n]+\Z"):
            embed(peer_folders[name], fasta=fasta, output=tmp_path / "out.parquet", pooling="cls")
        assert not list(tmp_path.iterdir())
        return
    embed(peer_folders[name], fasta=fasta, output=tmp_path / "out.parquet", pooling="cls", layers=1)
    for row, text in enumerate(SEQUENCES.values()):
        np.testing.assert_allclose(
            columns_of(tmp_path / "out.parquet")[row], states_of(peer_folders[name], text, 1)[0][0], atol=2e-5
        )


def test_regions_of_a_genome_are_its_reference(peer_folders, tmp_path):
    sequence = SEQUENCES["long"] * 3
    (tmp_path / "ref.fa").write_text(f">chr1\n{sequence}\n")
    (tmp_path / "some.bed").write_text("chr1\t5\t41\nchr1\t60\t90\n")
    build_genome(tmp_path / "ref.fa", tmp_path / "ref.genome")
    where = {"genome": tmp_path / "ref.genome", "bed": tmp_path / "some.bed", "output": tmp_path / "out.parquet"}
    with pytest.raises(InputError, match="reads tokens, not allele frequencies; give --surroundings reference"):
        embed(peer_folders["ntv2-50m"], **where)
    embed(peer_folders["ntv2-50m"], **where, surroundings="reference")
    for row, text in enumerate((sequence[5:41], sequence[60:90])):
        states, _, _ = states_of(peer_folders["ntv2-50m"], text, 2)
        np.testing.assert_allclose(columns_of(where["output"])[row], states.mean(axis=0), atol=2e-5)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("ntv2-50m", {"pooling": "none", "strands": "both"}, "give --strands forward"),
        ("ntv2-50m", {"rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_scaling is for MutBERT"),
        ("ntv2-50m", {"layers": 3}, "the model has 2 layers"),
        ("dnabert2", {"layers": [0, 0]}, "given twice"),
    ],
)
def test_options_that_a_model_has_not(peer_folders, fasta, tmp_path, name, options, words):
    with pytest.raises(InputError, match=rf"\A[^\n]*{words}[^\n]*\Z"):
        embed(peer_folders[name], fasta=fasta, output=tmp_path / "out.parquet", **options)
    assert not list(tmp_path.iterdir())


def test_a_sequence_longer_than_the_model_takes_is_named_before_anything_runs(peer_folders, tmp_path):
    most = open_encoder(peer_folders["nt-500m-1000g"]).body(0).config.max_position_embeddings - 2
    bases = 6 * most - 6
    (tmp_path / "long.fa").write_text(f">fits\n{'ACGTAC' * (most - 1)}\n>longer\n{'A' * bases}N\n")
    with pytest.raises(InputError, match=rf"\Alonger: {bases + 1:,} bases are {most + 1:,} tokens, [^\n]+\Z"):
        embed(peer_folders["nt-500m-1000g"], fasta=tmp_path / "long.fa", output=tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["long.fa"]


def test_the_plain_network_has_nothing_to_embed_by(fasta, tmp_path):
    with pytest.raises(InputError, match="has no weights before it is trained"):
        embed("cnn", fasta=fasta, output=tmp_path / "out.parquet")
