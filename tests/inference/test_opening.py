"""How a model is asked is checked in one place."""

import pytest

from mutbert.errors import InputError
from mutbert.inference.opening import check_run, resolve_context
from mutbert.model import MutBertConfig

DYNAMIC = {"type": "dynamic", "factor": 2}


@pytest.mark.parametrize(
    ("context", "scaling", "bases"),
    [(None, None, 62), (1, None, 1), (62, None, 62), (None, DYNAMIC, 62), (126, DYNAMIC, 126)],
)
def test_a_context_is_what_is_asked_for_or_what_the_model_is_trained_for(context, scaling, bases):
    config = MutBertConfig(max_position_embeddings=64)
    before = config.rope_scaling
    assert resolve_context(config, context, scaling) == bases
    assert config.rope_scaling == before


@pytest.mark.parametrize(
    ("context", "scaling", "message"),
    [
        (0, None, "context is 0; it must be at least 1"),
        (63, None, "context: 63 bases are 65 tokens .*--rope-scaling dynamic:2"),
        (127, DYNAMIC, "rope_scaling takes it to 128"),
        (10, {"type": "round", "factor": 2}, "round"),
    ],
)
def test_a_context_that_cannot_be_is_refused(context, scaling, message):
    with pytest.raises(InputError, match=message):
        resolve_context(MutBertConfig(max_position_embeddings=64), context, scaling)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("reverse", "fp32", 1), "strands is 'reverse'; it must be one of forward, both"),
        (("both", "fp8", 1), "precision is 'fp8'; it must be one of fp32, bf16"),
        (("both", "bf16", 0), "batch_size is 0; it must be at least 1"),
    ],
)
def test_runs_that_cannot_be_are_refused(given, message):
    check_run("forward", "fp32", 1)
    with pytest.raises(InputError, match=message):
        check_run(*given)
