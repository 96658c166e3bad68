"""How a model is asked is checked in one place."""

import pytest

from mutbert.errors import InputError
from mutbert.inference.opening import resolve_context
from mutbert.model import MutBertConfig

DYNAMIC = {"type": "dynamic", "factor": 2}


@pytest.mark.parametrize(
    ("context", "scaling", "found"),
    [
        (None, None, 62), (1, None, 1), (62, None, 62), (None, DYNAMIC, 62), (126, DYNAMIC, 126),
        (0, None, "context is 0; it must be at least 1"),
        (63, None, "context: 63 bases are 65 tokens .*--rope-scaling dynamic:2"),
        (127, DYNAMIC, "rope_scaling takes it to 128"),
        (10, {"type": "round", "factor": 2}, "round"),
    ],
)  # fmt: skip
def test_a_context_is_what_is_asked_for_or_what_the_model_is_trained_for(context, scaling, found):
    config = MutBertConfig(max_position_embeddings=64)
    if isinstance(found, int):
        assert resolve_context(config, context, scaling) == found
    else:
        with pytest.raises(InputError, match=found):
            resolve_context(config, context, scaling)
    assert config.rope_scaling is None
