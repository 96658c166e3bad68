import numpy as np
import pytest
import torch

from mutbert import alphabet
from mutbert.inference import predict as module
from mutbert.inference.predict import last_hidden_states, logits, predict
from mutbert.model import (
    MutBertForMaskedLM,
    MutBertForSequenceClassification,
    MutBertForTokenClassification,
    MutBertModel,
    MutBertTokenizer,
)


def one_at_a_time(model, sequences, read):
    tokenizer = MutBertTokenizer()
    with torch.no_grad():
        for sequence in sequences:
            yield read(model(input_probs=tokenizer.encode_probabilities(sequence)["input_probs"]))[0].numpy()


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("sorted_batches", [1, 32])
def test_results_are_those_of_one_at_a_time_in_the_order_given(
    build, sequences, batch_size, sorted_batches, monkeypatch
):
    monkeypatch.setattr(module, "_BATCHES_SORTED", sorted_batches)
    model = build(MutBertForMaskedLM)
    wanted = list(one_at_a_time(model, sequences, lambda outputs: outputs.logits))
    assert_same(list(predict(model, sequences, batch_size=batch_size)), wanted)
    assert_same(list(predict(model, sequences[::-1], batch_size=batch_size)), wanted[::-1])


def test_dynamic_scaling_does_not_depend_on_the_batch(build, sequences):
    model = build(MutBertModel, max_position_embeddings=16, rope_scaling={"type": "dynamic", "factor": 2.0})
    wanted = list(one_at_a_time(model, sequences, lambda outputs: outputs.last_hidden_state))
    assert_same(list(predict(model, sequences, last_hidden_states, batch_size=7)), wanted)


def test_one_row_a_sequence(build, sequences):
    model = build(MutBertForSequenceClassification, num_labels=3)
    wanted = list(one_at_a_time(model, sequences, lambda outputs: outputs.logits))
    assert_same(list(predict(model, sequences, logits, batch_size=4)), wanted)


def test_distributions_are_taken_as_they_are(build):
    model = build(MutBertForMaskedLM)
    rows = alphabet.TOKEN_PROBABILITIES[alphabet.encode("ACGTR")]
    with torch.no_grad():
        wanted = model(input_probs=torch.tensor(rows)[None]).logits[0].numpy()
    assert_same(list(predict(model, [rows])), [wanted])


def test_sequences_of_similar_length_go_together(build, sequences):
    model = build(MutBertModel)
    shapes = []
    model.register_forward_pre_hook(
        lambda _module, _args, given: shapes.append((given["input_probs"].shape[1], given["attention_mask"])),
        with_kwargs=True,
    )
    list(predict(model, [*sequences, *["A" * 30] * 5], last_hidden_states, batch_size=5))
    lengths = [length for length, _ in shapes]
    assert lengths == sorted(lengths)
    shapes.clear()
    list(predict(model, ["A" * 30] * 5, last_hidden_states))
    assert shapes == [(32, None)], "no mask where nothing is padded"


def test_the_model_is_left_as_it_was_found(build, sequences):
    model = build(MutBertForMaskedLM).train()
    model.bert.encoder.layer[0].eval()
    modes = [each.training for each in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = list(one_at_a_time(build(MutBertForMaskedLM), sequences, lambda outputs: outputs.logits))
    results = predict(model, sequences, batch_size=2)
    first = next(results)
    assert [each.training for each in model.modules()] == modes, "between results too"
    assert not torch.is_inference_mode_enabled()
    assert_same([first, *results], wanted)
    assert [each.training for each in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert model.device.type == "cpu"


def test_the_model_is_left_as_it_was_found_after_an_error(build):
    model = build(MutBertForMaskedLM).train()

    def fail(_outputs, _mask):
        raise RuntimeError("read")

    with pytest.raises(RuntimeError, match="read"):
        list(predict(model, ["ACGT"], fail))
    assert model.training
    assert model.bert.training


def test_autocast(build, sequences):
    model = build(MutBertForMaskedLM)
    for found, wanted in zip(predict(model, sequences, precision="bf16"), predict(model, sequences), strict=True):
        assert found.dtype == np.float32
        assert not np.array_equal(found, wanted)
        np.testing.assert_allclose(_softmax(found), _softmax(wanted), atol=0.05)


def _softmax(values):
    return torch.from_numpy(values).softmax(dim=-1).numpy()


def test_inputs_are_consumed_as_results_are_asked_for(build):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield "ACGT"

    results = predict(build(MutBertForMaskedLM), endless(), batch_size=2)
    assert not taken
    next(results)
    assert len(taken) == 2 * module._BATCHES_SORTED


def test_progress_is_told(build, sequences):
    told = []
    list(predict(build(MutBertForMaskedLM), sequences, batch_size=8, advance=told.append))
    assert told == [8, 8, 4]


def test_no_inputs(build):
    assert list(predict(build(MutBertForMaskedLM), [])) == []


@pytest.mark.parametrize(
    ("inputs", "settings", "message"),
    [
        (["ACGT"], {"batch_size": 0}, "batch_size"),
        (["ACGT"], {"precision": "fp8"}, "precision"),
        (["ACXT"], {}, "'X' at position 2"),
        ([np.zeros((4, 4), np.float32)], {}, "shape"),
        ([np.zeros((0, 9), np.float32)], {}, "shape"),
    ],
)
def test_wrong_arguments_are_refused(build, inputs, settings, message):
    with pytest.raises(ValueError, match=message):
        list(predict(build(MutBertForMaskedLM), inputs, **settings))


# Both strands


def turned(sequence):
    return alphabet.decode(alphabet.reverse_complement(alphabet.encode(sequence)))


def test_both_strands_are_the_mean_of_two_runs(build, sequences):
    model = build(MutBertForMaskedLM)
    found = list(predict(model, sequences, batch_size=3, strands="both"))
    here = list(predict(model, sequences))
    there = list(predict(model, [turned(sequence) for sequence in sequences]))
    wanted = []
    for one, other in zip(here, there, strict=True):
        back = other.copy()
        back[1:-1] = other[1:-1][::-1]
        wanted.append((one + back[:, alphabet.COMPLEMENT_OF_ID]) / 2)
    assert_same(found, wanted)


@pytest.mark.parametrize(
    ("model_class", "read"), [(MutBertModel, last_hidden_states), (MutBertForTokenClassification, logits)]
)
def test_of_both_strands_positions_turn_with_the_sequence(build, sequences, model_class, read):
    model = build(model_class)
    here = list(predict(model, sequences, read, strands="both", batch_size=4))
    there = list(predict(model, [turned(sequence) for sequence in sequences], read, strands="both"))
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(one[1:-1], other[1:-1][::-1], atol=1e-5, rtol=1e-4)


def test_of_both_strands_a_sequence_has_one_answer(build, sequences):
    model = build(MutBertForSequenceClassification, num_labels=3)
    here = list(predict(model, sequences, strands="both"))
    there = list(predict(model, [turned(sequence) for sequence in sequences], strands="both", batch_size=2))
    assert_same(here, there)
    assert not np.allclose(np.stack(here), np.stack(list(predict(model, sequences))))


def test_hidden_states_are_brought_back_too(build, sequences):
    model = build(MutBertModel)
    model.config.output_hidden_states = True

    def read(outputs, mask_BL):
        lengths = mask_BL.sum(dim=1).tolist()
        return [state[:length] for state, length in zip(outputs.hidden_states[-1], lengths, strict=True)]

    found = list(predict(model, sequences, read, strands="both"))
    assert_same(found, list(predict(model, sequences, last_hidden_states, strands="both")))


def test_attention_weights_are_brought_back_too(build):
    model = build(MutBertModel)
    model.set_attn_implementation("eager")
    model.config.output_attentions = True
    sequences = ["ACGTTAC", "GGCAT"]

    def read(outputs, mask_BL):
        return outputs.attentions[0].flatten(1)

    for sequence in sequences:
        (found,) = predict(model, [sequence], read, strands="both")
        (here,) = predict(model, [sequence], read)
        (there,) = predict(model, [turned(sequence)], read)
        length = len(sequence) + 2
        place = [0, *range(length - 2, 0, -1), length - 1]
        back = there.reshape(4, length, length)[:, place][:, :, place]
        np.testing.assert_allclose(found, (here + back.reshape(-1)) / 2, atol=1e-5)


def test_one_string_is_not_taken_for_many(build):
    with pytest.raises(TypeError, match="give a list of sequences"):
        predict(build(MutBertModel), "ACGT")
