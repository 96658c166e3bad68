import json
import sys

import anndata
import numpy as np
import pyarrow.parquet
import pytest
from safetensors import safe_open

import mutbert
from mutbert.errors import InputError, MissingExtraError
from mutbert.inference.embedding_files import Making, open_writer, refuse_clashes
from mutbert.inference.embedding_sources import Record
from mutbert.inference.embeddings import embed
from mutbert.model import MutBertModel


@pytest.fixture
def fasta(tmp_path, sequences):
    path = tmp_path / "some.fa"
    path.write_text("".join(f">r{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
    return path


@pytest.fixture
def write(build, fasta, tmp_path):
    """Embed the same records into files of the formats, and give these."""
    model = build(MutBertModel, name_or_path="a/model")

    def write(*suffixes, **settings):
        paths = [tmp_path / f"out{suffix}" for suffix in suffixes]
        for path in paths:
            embed(model, fasta=fasta, output=path, **settings)
        return paths

    return write


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_anndata_of_one_layer_is_the_parquet(write, pooling):
    parquet, h5ad = write(".parquet", ".h5ad", pooling=pooling, layers=1, strands="both")
    table, data = pyarrow.parquet.read_table(parquet), anndata.read_h5ad(h5ad)
    np.testing.assert_array_equal(data.X, np.stack(table["embedding"].to_numpy()))
    assert data.X.dtype == np.float32
    for column in ("name", "contig", "start", "end"):
        assert data.obs[column].tolist() == table[column].to_pylist()
    assert list(data.obs) == ["name", "contig", "start", "end"]
    assert data.obs_names.tolist() == table["name"].to_pylist()
    assert not data.obsm
    assert data.uns["layers"].tolist() == [1]
    said = {"model": "a/model", "pooling": pooling, "strands": "both", "version": mutbert.__version__}
    assert {name: data.uns[name] for name in said} == said


def test_anndata_of_several_layers(write, tmp_path):
    parquet, h5ad = write(".parquet", ".h5ad", layers=[2, 0])
    table, data = pyarrow.parquet.read_table(parquet), anndata.read_h5ad(h5ad)
    assert set(data.obsm) == {"X_layer_2", "X_layer_0"}
    for layer in (2, 0):
        wanted = np.stack(table[f"embedding_{layer}"].to_numpy())
        np.testing.assert_array_equal(data.obsm[f"X_layer_{layer}"], wanted)
    np.testing.assert_array_equal(data.X, data.obsm["X_layer_2"])
    assert data.uns["layers"].tolist() == [2, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5ad", "out.parquet", "some.fa"]


def test_anndata_s_names_are_told_apart(tmp_path):
    names = ["a", "b", "a", "a-1", "a", "b"]
    making = Making("m", 2, "mean", (1,), "forward", "sequence")
    with open_writer(tmp_path / "out.h5ad", making) as writer:
        for number, name in enumerate(names):
            writer.add(Record(name, "c", number, number + 1), np.full((1, 2), number, np.float32))
    data = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert data.obs_names.tolist() == ["a", "b", "a-2", "a-1", "a-3", "b-1"]
    assert data.obs["name"].tolist() == names
    np.testing.assert_array_equal(data.X[:, 0], range(6))


@pytest.mark.parametrize("pooling", ["mean", "none"])
def test_safetensors_of_several_layers(write, pooling):
    parquet, safetensors = write(".parquet", ".safetensors", pooling=pooling, layers=[2, 0])
    table = pyarrow.parquet.read_table(parquet)
    with safe_open(safetensors, "numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    names = table["name"].to_pylist()
    assert json.loads(metadata["names"]) == names
    assert json.loads(metadata["layers"]) == [2, 0]
    assert metadata["strands"] == "forward"
    for layer in (2, 0):
        rows = [np.array(row, np.float32) for row in table[f"embedding_{layer}"].to_pylist()]
        found = tensors[f"embeddings_{layer}"] if pooling == "mean" else [tensors[f"{name}_{layer}"] for name in names]
        for one, other in zip(found, rows, strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(tensors) == (2 if pooling == "mean" else 2 * len(names))


def test_parquet_says_how_it_was_made(write):
    (parquet,) = write(".parquet", layers="all", strands="both")
    metadata = pyarrow.parquet.read_schema(parquet).metadata
    said = {"pooling": "mean", "layers": "[0, 1, 2]", "strands": "both", "model": "a/model"}
    said["surroundings"] = "sequence"
    assert {name: metadata[name.encode()].decode() for name in said} == said


def test_names_clash_only_where_they_are_keys(tmp_path):
    records = [Record(name, name, 0, 1) for name in ("a", "b", "a")]
    for suffix, pooling in ((".parquet", "none"), (".safetensors", "mean"), (".h5ad", "cls")):
        assert list(refuse_clashes(iter(records), tmp_path / f"x{suffix}", pooling)) == records
    with pytest.raises(InputError, match="a comes twice"):
        list(refuse_clashes(iter(records), tmp_path / "x.safetensors", "none"))


def test_missing_anndata_is_said_with_its_extra(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(MissingExtraError, match=r"anndata is not installed.*mutbert\[h5ad\]"):
        write(".h5ad")


def test_nothing_is_left_of_a_run_that_failed(write, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(anndata.AnnData, "write_h5ad", fail)
    with pytest.raises(OSError, match="disk full"):
        write(".h5ad")
    assert [path.name for path in tmp_path.iterdir()] == ["some.fa"]
