"""A tiny model with random weights, as this room's tests need it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mutbert.model import MutBertConfig


@pytest.fixture
def config():
    """Small enough to be quick, with every part in place; dropout off."""
    return MutBertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=16,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )  # fmt: skip


@pytest.fixture
def build(config):
    """Build a model of a class with seeded weights, in evaluation mode; keyword arguments change the configuration."""

    def build(model_class, *, attention="sdpa", **changes):
        torch.manual_seed(0)
        changed = MutBertConfig.from_dict(config.to_dict(), **changes)
        return model_class._from_config(changed, attn_implementation=attention).eval()

    return build


@pytest.fixture
def probs():
    """Draw distributions over the nine tokens."""

    def probs(batch, length, columns=9, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return torch.softmax(2 * torch.randn(batch, length, columns, generator=generator), dim=-1)

    return probs


@pytest.fixture
def published(build, tmp_path):
    """Save a model in the published layout: `edit` changes its weights, `values` its file, others its configuration."""

    def published(model_class, edit=None, values=None, **changes):
        model, folder = build(model_class, **changes), tmp_path / "published"
        model.save_pretrained(folder)
        old = json.loads((folder / "config.json").read_text())
        del old["architectures"]
        layout = {"model_type": "bert", "auto_map": {"AutoModel": "modeling_mutbert.RoPEBertModel"}}
        (folder / "config.json").write_text(json.dumps(old | layout | (values or {})))
        if edit is not None:
            weights = load_file(folder / "model.safetensors")
            edit(weights)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder, model

    return published
