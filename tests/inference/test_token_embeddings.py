"""Embeddings by models that read tokens, against the model run on one sequence at a time."""

import numpy as np
import pyarrow.parquet
import pytest
import torch

from mutbert import build_genome, embed
from mutbert.encoders.adapter import open_encoder
from mutbert.errors import InputError

PEERS = ("dnabert2", "nt-500m-1000g", "caduceus-ps")
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


def states_of(folder, text, layer):
    """A layer's states of every token of one sequence, and the ids."""
    encoder = open_encoder(folder)
    ids = encoder.tokenizer(text, add_special_tokens=encoder.special_tokens, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        (state_1LD,) = encoder.layer_states(encoder.body(len(text)), {"input_ids": ids}, [layer])
    return state_1LD[0].numpy(), ids[0].tolist(), encoder.tokenizer


def columns_of(path, column="embedding"):
    return pyarrow.parquet.read_table(path)[column].to_pylist()


@pytest.mark.parametrize("strands", ["forward", "both"])
@pytest.mark.parametrize("pooling", ["mean", "max", "cls", "none"])
@pytest.mark.parametrize("name", PEERS)
def test_every_token_but_padding_is_pooled(peer_folders, fasta, tmp_path, name, pooling, strands):
    """Without pooling, every token that stands for bases has an embedding."""
    given = {"fasta": fasta, "output": tmp_path / "out.parquet", "pooling": pooling, "strands": strands}
    refused = {"cls": "has no class token" if name.startswith("caduceus") else None,
               "none": "give --strands forward" if strands == "both" else None}.get(pooling)  # fmt: skip
    if refused:
        with pytest.raises(InputError, match=rf"\A[^\n]*{refused}[^\n]*\Z"):
            embed(peer_folders[name], **given)
        assert not list(tmp_path.iterdir())
        return
    report = embed(peer_folders[name], **given, layers=[0, -1], batch_size=2)
    assert (report["records"], report["bases"]) == (len(SEQUENCES), sum(map(len, SEQUENCES.values())))
    for layer in report["layers"]:
        found = columns_of(report["output"], f"embedding_{layer}")
        for row, text in enumerate(SEQUENCES.values()):
            wanted = []
            for strand in (text, text.translate(COMPLEMENT)[::-1])[: 1 + (strands == "both")]:
                states, ids, tokenizer = states_of(peer_folders[name], strand, layer)
                if pooling == "cls":
                    wanted.append(states[0])
                elif pooling == "none":
                    tokens = tokenizer.convert_ids_to_tokens(ids)
                    wanted.append(states[[token not in {"<cls>", "[CLS]", "[SEP]"} for token in tokens]])
                else:
                    wanted.append(getattr(states, pooling)(axis=0))
            np.testing.assert_allclose(found[row], np.mean(wanted, axis=0), atol=2e-5)


def test_regions_of_a_genome_are_its_reference(peer_folders, tmp_path):
    sequence = SEQUENCES["long"] * 3
    (tmp_path / "ref.fa").write_text(f">chr1\n{sequence}\n")
    (tmp_path / "some.bed").write_text("chr1\t5\t41\nchr1\t60\t90\n")
    build_genome(tmp_path / "ref.fa", tmp_path / "ref.genome")
    where = {"genome": tmp_path / "ref.genome", "bed": tmp_path / "some.bed", "output": tmp_path / "out.parquet"}
    scaling = {"type": "dynamic", "factor": 2}
    for model, more, message in (
        (peer_folders["ntv2-50m"], {}, "reads tokens, not allele frequencies; give --surroundings reference"),
        (peer_folders["ntv2-50m"], {"rope_scaling": scaling}, "rope_scaling is for MutBERT"),
        ("cnn", {}, "has no weights before it is trained"),
    ):
        with pytest.raises(InputError, match=message):
            embed(model, **where, **more)
    embed(peer_folders["ntv2-50m"], **where, surroundings="reference")
    for row, text in enumerate((sequence[5:41], sequence[60:90])):
        states, _, _ = states_of(peer_folders["ntv2-50m"], text, 2)
        np.testing.assert_allclose(columns_of(where["output"])[row], states.mean(axis=0), atol=2e-5)


def test_a_sequence_longer_than_the_model_takes_is_named_before_anything_runs(peer_folders, tmp_path):
    most = open_encoder(peer_folders["nt-500m-1000g"]).body(0).config.max_position_embeddings - 2
    bases = 6 * most - 6
    (tmp_path / "long.fa").write_text(f">fits\n{'ACGTAC' * (most - 1)}\n>longer\n{'A' * bases}N\n")
    with pytest.raises(InputError, match=rf"sequence longer: {bases + 1:,} bases are {most + 1:,} tokens, [^\n]+\Z"):
        embed(peer_folders["nt-500m-1000g"], fasta=tmp_path / "long.fa", output=tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["long.fa"]
