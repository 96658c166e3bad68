"""On a GPU: the numbers of the CPU, in half precision too, and no waiting in between. Skipped without one."""

import pytest
import torch

from mutbert.model import MutBertForMaskedLM

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

DYNAMIC = {"type": "dynamic", "factor": 2.0}


@pytest.fixture
def inputs(probs):
    mask = torch.ones(4, 40, dtype=torch.long)
    mask[1, 31:] = 0
    places = torch.arange(2, 8).repeat(4, 1)
    return {
        "input_probs": probs(4, 40), "attention_mask": mask, "labels": probs(4, 6, seed=3), "target_places": places
    }  # fmt: skip


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_numbers_are_those_of_the_cpu(build, inputs, attention, dtype):
    model = build(MutBertForMaskedLM, attention=attention, rope_scaling=DYNAMIC)
    wanted = model(**inputs)
    wanted.loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        found = model.cuda()(**{name: value.cuda() for name, value in inputs.items()})
    exact = dtype == torch.float32
    torch.testing.assert_close(found.logits.float().cpu(), wanted.logits, atol=1e-3 if exact else 0.2, rtol=1e-3)
    if exact:
        found.loss.backward()
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad.cpu(), gradient, atol=1e-3, rtol=1e-2)


def test_the_host_does_not_wait(build, inputs):
    inputs = {name: value.cuda() for name, value in inputs.items()}
    model = build(MutBertForMaskedLM, rope_scaling=DYNAMIC, hidden_dropout_prob=0.1).cuda().train()
    model(**inputs).loss.backward()  # once, for what is set up at first
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(**inputs).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
