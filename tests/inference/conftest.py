"""A tiny model with random weights, and sequences for it."""

import random

import pytest
import torch

from mutbert.model import MutBertConfig


@pytest.fixture
def build():
    """Build a model of a class with seeded weights, dropout on, in evaluation mode."""

    def build(model_class, **changes):
        torch.manual_seed(0)
        sizes = {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
            "max_position_embeddings": 64, "initializer_range": 0.2,
        }  # fmt: skip
        return model_class(MutBertConfig(**{**sizes, **changes})).eval()

    return build


@pytest.fixture
def sequences():
    """Twenty sequences of 1 to 60 bases, in no order of length, ambiguous codes among them."""
    generator = random.Random(0)
    lengths = [generator.randint(1, 60) for _ in range(18)] + [1, 60]
    return ["".join(generator.choices("ACGTNRYacgt", k=length)) for length in lengths]
