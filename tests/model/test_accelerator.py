"""On a GPU: the numbers of the CPU, in half precision too, and no waiting in between. Skipped without one."""

import pytest
import torch

from mutbert.model import MutBertForMaskedLM, MutBertForSequenceClassification

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

SCALINGS = [None, {"type": "dynamic", "factor": 2.0}]


def padded(probs, rows=4, length=40):
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[1, length - 9 :] = 0
    return {
        "input_probs": probs(rows, length),
        "attention_mask": mask,
        "labels": probs(rows, 6, seed=3),
        "target_places": torch.arange(2, 8).repeat(rows, 1),
    }


def on_gpu(inputs):
    return {name: value.cuda() for name, value in inputs.items()}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_float32_gives_the_numbers_of_the_cpu(build, probs, attention, scaling):
    inputs = padded(probs)
    model = build(MutBertForMaskedLM, attention=attention, rope_scaling=scaling)
    wanted = model(**inputs)
    wanted.loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    found = model.cuda()(**on_gpu(inputs))
    found.loss.backward()
    torch.testing.assert_close(found.loss.cpu(), wanted.loss, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.logits.cpu(), wanted.logits, atol=1e-3, rtol=1e-3)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad.cpu(), gradient, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision(build, probs, dtype, autocast):
    inputs = on_gpu(padded(probs))
    model = build(MutBertForMaskedLM).cuda()
    with torch.no_grad():
        wanted = model(**inputs).logits.softmax(dim=-1)
        if not autocast:
            model.to(dtype)
        with torch.autocast("cuda", dtype=dtype, enabled=autocast):
            found = model(**inputs).logits.float().softmax(dim=-1)
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0)


@pytest.mark.parametrize("model_class", [MutBertForMaskedLM, MutBertForSequenceClassification])
def test_the_host_does_not_wait(build, probs, model_class):
    inputs = on_gpu(padded(probs))
    model = build(model_class, rope_scaling=SCALINGS[1], hidden_dropout_prob=0.1).cuda().train()
    if model_class is MutBertForSequenceClassification:
        inputs = {name: inputs[name] for name in ("input_probs", "attention_mask")} | {
            "labels": torch.zeros(4, dtype=torch.long, device="cuda")
        }
    model(**inputs).loss.backward()  # once, for what is set up at first
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(**inputs).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
