"""The loop over batches, against the model run on one sequence at a time; what a model is asked."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutbert import alphabet, embed, mutate_region, predict_table, write_tracks
from mutbert.cli.main import run
from mutbert.encoders.inputs import BaseInputs, PaddedWindows
from mutbert.errors import InputError
from mutbert.examples.table import Columns
from mutbert.inference.run import base_outputs, sequence_outputs
from mutbert.model import MutBertForMaskedLM, MutBertForSequenceClassification, MutBertForTokenClassification

CLOSE = {"atol": 2e-5, "rtol": 1e-5}


def inputs_of(sequences, **settings):
    return BaseInputs(PaddedWindows.of([alphabet.encode(sequence) for sequence in sequences]), **settings)


def turned(sequence):
    return alphabet.decode(alphabet.reverse_complement(alphabet.encode(sequence)))


def logits_of(model):
    return lambda batch: model(**batch).logits


def logits_alone(model, sequence, **settings):
    with torch.inference_mode():
        return model(**inputs_of([sequence], **settings).batch(np.array([0]))).logits[0].numpy()


@pytest.mark.parametrize("strands", ["forward", "both"])
@pytest.mark.parametrize("max_tokens", [None, 40, 20])
def test_outputs_of_bases_of_both_strands(build, sequences, strands, max_tokens):
    model = build(MutBertForTokenClassification, num_labels=2)
    inputs, rows = inputs_of(sequences, max_tokens=max_tokens), np.arange(len(sequences))[::-2]
    found = base_outputs(model, logits_of(model), inputs, rows, batch_size=4, strands=strands)
    for output, sequence in zip(found, [sequences[row] for row in rows], strict=True):
        wanted = logits_alone(model, sequence, max_tokens=max_tokens)[1:-1].copy()
        backward = logits_alone(model, turned(sequence), max_tokens=max_tokens)[1:-1]
        for base in range(len(wanted)):
            other = len(sequence) - 1 - base
            if strands == "both" and other < len(backward):
                wanted[base] = (wanted[base] + backward[other]) / 2
        np.testing.assert_allclose(output, wanted, **CLOSE)


def widths(lengths, batch_size=32, model=None):
    """The sizes, with padding, of the batches in which sequences are run, and what each sequence has as its output."""
    shapes, model = [], model or torch.nn.Bilinear(1, 1, 1)

    def forward(batch):
        (ids, *mask) = batch.values()
        shapes.append(tuple(ids.shape))
        return (mask[0] if mask else torch.ones_like(ids)).sum(dim=1, keepdim=True)

    found = sequence_outputs(model, forward, inputs_of(["A" * length for length in lengths]), batch_size=batch_size)
    assert found.ravel().tolist() == [length + 2 for length in lengths]
    return shapes


class Masked(torch.nn.Module):
    """Two parameters, and a forward with a mask."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask=None): ...


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 20))
def test_batches_are_half_padding_at_most_and_keep_the_order(lengths, batch_size):
    shapes = widths(lengths, batch_size, Masked())
    assert sum(rows for rows, _ in shapes) == len(lengths)
    assert all(rows <= batch_size for rows, _ in shapes)
    assert sum(rows * width for rows, width in shapes) <= 2 * sum(length + 2 for length in lengths)
    # Of one length each, where a model cannot be told what is padding.
    assert len(widths(lengths, 60)) == len(set(lengths))


def test_one_long_sequence_does_not_pad_the_others():
    assert widths([*[30] * 63, 8000], model=Masked()) == [(32, 32), (31, 32), (1, 8002)]
    assert widths([4094] * 40, 64, Masked()) == [(16, 4096), (16, 4096), (8, 4096)]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: not enough memory: you tried ..."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: ..."),
    ],
)  # fmt: skip
def test_too_little_memory_is_one_line_with_what_helps(monkeypatch, capsys, error):
    def fail(*_, **__):
        raise error

    for lengths, remedy in (([3, 9], "lower --batch-size"), ([9], "use shorter sequences")):
        with pytest.raises(
            InputError, match=rf"\Aout of memory in a batch of {len(lengths)} [^\n]*11 tok[^\n]*{remedy}"
        ):
            sequence_outputs(Masked().eval(), fail, inputs_of(["A" * length for length in lengths]))
    monkeypatch.setattr("mutbert.cli.main.app", fail)
    with pytest.raises(SystemExit, match="2"):
        run()
    assert capsys.readouterr().err.startswith("mutbert: out of memory (")


def test_what_is_no_number_is_refused_by_the_name_of_its_sequence(build, tmp_path, write_genome, monkeypatch):
    """In every table but those of scores, where an allele without a number has that as its reason."""

    def spoilt(self, ids):
        return self.weight[ids] + torch.where((ids == alphabet.MASK_ID) | (ids.shape[-1] == 9), torch.nan, 0)[..., None]

    for model_class in (MutBertForMaskedLM, MutBertForSequenceClassification):
        model = build(model_class, problem_type="single_label_classification")
        model.save_pretrained(tmp_path / model_class.__name__)
    monkeypatch.setattr(torch.nn.Embedding, "forward", spoilt)
    (tmp_path / "in.fa").write_text(">good\nACGT\n>bad\nACGTACG\n>fine\nACGTA\n")
    store = write_genome(tmp_path / "small.genome", {"chr1": "ACGTTGCA" * 20})
    model = tmp_path / "MutBertForMaskedLM"
    for call, named in (
        (lambda out: embed(model, fasta=tmp_path / "in.fa", output=out.with_suffix(".parquet")), "bad"),
        (lambda out: predict_table(tmp_path / "MutBertForSequenceClassification", tmp_path / "in.fa",
                                   out.with_suffix(".tsv"), columns=Columns(name="name")), "bad"),
        (lambda out: write_tracks(model, store, out.with_suffix(".bedgraph"), mask_every=8), "chr1, window"),
        (lambda out: mutate_region(model, out.with_suffix(".parquet"), genome=store, region="chr1:9-12"), "chr1"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=rf"{named}[^\n]*: the model's output is not a finite number; [^\n]*\Z"):
            call(tmp_path / "out")
        assert not list(tmp_path.glob("out*"))
