"""The models compile whole, for any length at once; export to ONNX; and never make the host wait for a device.

On a GPU, where there is one, they have the numbers of the CPU, in half precision too.
"""

import onnxruntime
import pytest
import torch
from torch.export import Dim

from mutbert.model import MutBertForMaskedLM

DYNAMIC = {"type": "dynamic", "factor": 2.0}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def batch(probs, rows, length, *, labels=True):
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[1:, length - 2 :] = 0
    inputs = {"input_probs": probs(rows, length), "attention_mask": mask}
    if labels:
        inputs |= {"labels": probs(rows, 3, seed=9), "target_places": torch.arange(1, 4).repeat(rows, 1)}
    return inputs


@pytest.mark.nightly
@pytest.mark.parametrize("scaling", [None, DYNAMIC])
def test_one_graph_serves_every_length_with_the_same_numbers(build, probs, scaling):
    model = build(MutBertForMaskedLM, rope_scaling=scaling).train()
    graphs = []

    def count(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    # A graph break is an error.
    compiled = torch.compile(model, backend=count, fullgraph=True, dynamic=True)
    for rows, length in ((2, 10), (3, 24), (5, 40), (4, 11)):
        wanted, found = (one(**batch(probs, rows, length)) for one in (model, compiled))
        torch.testing.assert_close([found.logits, found.loss], [wanted.logits, wanted.loss], atol=1e-5, rtol=1e-4)
    assert len(graphs) == 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_host_never_waits(build, probs, attention):
    """On the meta device there are no values, so that whatever needs one on the host is an error there."""
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model = build(MutBertForMaskedLM, attention=attention, rope_scaling=DYNAMIC, **dropout).to("meta").train()
    loss = model(**{name: value.to("meta") for name, value in batch(probs, 3, 20).items()}).loss
    loss.backward()
    assert loss.device.type == "meta"


@pytest.mark.nightly
# torch's exporter uses what torch has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_has_the_same_numbers(build, probs, tmp_path):
    model = build(MutBertForMaskedLM, rope_scaling=DYNAMIC)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_probs, attention_mask):
            return self.model(input_probs=input_probs, attention_mask=attention_mask).logits

    example = batch(probs, 2, 12, labels=False)
    shape = {0: Dim("rows", min=1, max=64), 1: Dim("length", min=2, max=4096)}
    torch.onnx.export(
        Logits(), (), str(tmp_path / "model.onnx"), kwargs=example, dynamo=True, verbose=False,
        dynamic_shapes=dict.fromkeys(example, shape), input_names=list(example), output_names=["output"],
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for rows, length in ((2, 12), (1, 40), (5, 7)):
        inputs = batch(probs, rows, length, labels=False)
        (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        with torch.no_grad():
            wanted = model(**inputs).logits
        keep = inputs["attention_mask"].bool()
        torch.testing.assert_close(torch.from_numpy(found)[keep], wanted[keep], atol=1e-4, rtol=1e-3)


@needs_gpu
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_numbers_of_a_gpu_are_those_of_the_cpu(build, probs, attention, dtype):
    model, inputs = build(MutBertForMaskedLM, attention=attention, rope_scaling=DYNAMIC), batch(probs, 4, 40)
    wanted = model(**inputs)
    wanted.loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    exact = dtype == torch.float32
    with torch.autocast("cuda", dtype=dtype, enabled=not exact):
        found = model.cuda()(**{name: value.cuda() for name, value in inputs.items()})
    torch.testing.assert_close(found.logits.float().cpu(), wanted.logits, atol=1e-3 if exact else 0.2, rtol=1e-3)
    if exact:
        found.loss.backward()
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad.cpu(), gradient, atol=1e-3, rtol=1e-2)
