"""The one way in which users and other rooms reach a trained model.

Shape suffixes: B batch, L length in tokens, V vocabulary (9).
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers.modeling_outputs import MaskedLMOutput

from mutbert import alphabet
from mutbert.model.strands import complement_columns, mirrored_positions, reverse_complement, turn
from mutbert.model.tokenization_mutbert import pad, with_special_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from mutbert.arrays import Float32
    from mutbert.model import MutBertPreTrainedModel
    from mutbert.progress import Advance

    Read = Callable[[Any, torch.Tensor], torch.Tensor | Sequence[torch.Tensor]]

PRECISIONS: Final = ("fp32", "bf16")
STRANDS: Final = ("forward", "both")
# Inputs are sorted by length within so many batches: enough to leave little padding, and a bounded memory.
_BATCHES_SORTED: Final = 32


def logits(outputs: Any, mask_BL: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
    """Read a model's logits: of each sequence, or of each of its tokens (special ones included)."""
    values: torch.Tensor = outputs.logits
    return values if values.dim() == 2 else _without_padding(values, mask_BL)


def last_hidden_states(outputs: Any, mask_BL: torch.Tensor) -> list[torch.Tensor]:
    """Read the features of each token (special ones included) behind the last layer of a `MutBertModel`."""
    return _without_padding(outputs.last_hidden_state, mask_BL)


def predict(
    model: MutBertPreTrainedModel,
    inputs: Iterable[str | Float32],
    read: Read = logits,
    *,
    batch_size: int = 32,
    precision: str = "fp32",
    strands: str = "forward",
    advance: Advance | None = None,
) -> Iterator[Float32]:
    """Run a model over sequences, in batches of similar length.

    The model runs where it is, in evaluation mode and without gradients, and is left as it was found, between
    results too. An output depends on its own input alone: batch size and order change it by rounding at most.

    Parameters
    ----------
    model : MutBertPreTrainedModel
        Any model of `mutbert.model`.
    inputs : iterable of str or ndarray of float32
        Sequences: DNA in IUPAC codes, which get ``[CLS]`` and ``[SEP]`` around them as in training; or
        distributions over the tokens, of shape (its length, 9), taken as they are. They are consumed as results
        are asked for.
    read : callable
        ``read(outputs, mask_BL)`` gives what is wanted of a batch: a tensor with a row a sequence, or a sequence
        of one tensor each. `logits` and `last_hidden_states` are such.
    batch_size : int
        Sequences a batch.
    precision : str
        ``"fp32"`` runs the model in the precision of its weights, ``"bf16"`` under bfloat16 autocast.
    strands : str
        ``"forward"``, or ``"both"`` for the mean of what `read` gives of a sequence and of its reverse complement.
        The latter's outputs are brought back first: to the order of the sequence, and a masked model's logits to its
        bases. The mean of logits is that of log-probabilities up to a constant.
    advance : Advance, optional
        Told of the sequences done since its last call.

    Yields
    ------
    ndarray of float32
        What `read` gave, one for each input, in the order of the inputs.

    Raises
    ------
    ValueError
        When an argument is out of range, or an input is no sequence.
    TypeError
        When `inputs` is a single string.
    """
    if isinstance(inputs, str):
        raise TypeError("inputs is one sequence, which would be taken for one a base; give a list of sequences")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
    if strands not in STRANDS:
        raise ValueError(f"strands is {strands!r}; it must be one of {', '.join(STRANDS)}")
    return _predict(model, iter(inputs), read, batch_size, precision, strands, advance)


def _predict(
    model: MutBertPreTrainedModel,
    inputs: Iterator[str | Float32],
    read: Read,
    batch_size: int,
    precision: str,
    strands: str,
    advance: Advance | None,
) -> Iterator[Float32]:
    while rows := [_checked(value) for value in islice(inputs, batch_size * _BATCHES_SORTED)]:
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        results: dict[int, Float32] = {}
        # Inside the loop, so that the caller has its model back as it was whenever it holds a result.
        with evaluating(model):
            for first in range(0, len(order), batch_size):
                batch = order[first : first + batch_size]
                outputs = _run(model, [rows[number] for number in batch], read, precision, strands)
                results.update(zip(batch, outputs, strict=True))
                if advance is not None:
                    advance(len(batch))
        for number in range(len(rows)):
            yield results.pop(number)


def _checked(value: str | Float32) -> Float32:
    if isinstance(value, str):
        return with_special_tokens(alphabet.TOKEN_PROBABILITIES[alphabet.encode(value)])
    if value.ndim != 2 or not len(value) or value.shape[1] != alphabet.VOCABULARY_SIZE:
        raise ValueError(f"an input has shape {value.shape}; it must be (length, {alphabet.VOCABULARY_SIZE})")
    return value


def _run(model: MutBertPreTrainedModel, rows: list[Float32], read: Read, precision: str, strands: str) -> list[Float32]:
    device: torch.device = model.device
    probs_BLV, mask_BL = (torch.from_numpy(array).to(device, non_blocking=True) for array in pad(rows))
    padded = mask_BL if any(len(row) != len(rows[0]) for row in rows) else None
    with torch.inference_mode(), autocast(device, precision):
        values = read(model(input_probs=probs_BLV, attention_mask=padded), mask_BL)
        if strands == "both":
            position_BL = mirrored_positions(probs_BLV, mask_BL)
            outputs = model(input_probs=reverse_complement(probs_BLV, mask_BL), attention_mask=padded)
            values = _mean(values, read(_brought_back(outputs, position_BL), mask_BL))
        if isinstance(values, torch.Tensor):
            # One transfer a batch, where it can be.
            return list(values.float().cpu().numpy())
        return [value.float().cpu().numpy() for value in values]


def _brought_back(outputs: Any, position_BL: torch.Tensor) -> Any:
    """Turn the outputs for the other strand into those for this one, place by place and base by base."""
    for name, value in outputs.items():
        if name == "hidden_states":
            outputs[name] = tuple(turn(state_BLD, position_BL) for state_BLD in value)
        elif name == "attentions":
            # Of shape (B, H, L, L): who attends turns, and whom.
            outputs[name] = tuple(
                turn(turn(weight_BHLL.permute(0, 2, 3, 1), position_BL).transpose(1, 2), position_BL).permute(
                    0, 3, 2, 1
                )
                for weight_BHLL in value
            )
        elif isinstance(value, torch.Tensor) and value.dim() == 3:
            outputs[name] = turn(value, position_BL)
    if isinstance(outputs, MaskedLMOutput):
        outputs.logits = outputs.logits[..., complement_columns(outputs.logits.shape[-1])]
    return outputs


def _mean(
    values: torch.Tensor | Sequence[torch.Tensor], others: torch.Tensor | Sequence[torch.Tensor]
) -> torch.Tensor | list[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        return (values.float() + others.float()) / 2  # type: ignore[union-attr]
    return [(value.float() + other.float()) / 2 for value, other in zip(values, others, strict=True)]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Give the context in which a model runs in a precision of `PRECISIONS`."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def evaluating(model: MutBertPreTrainedModel) -> Iterator[None]:
    """Put every module into evaluation mode, and each back into the mode it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _without_padding(values_BLX: torch.Tensor, mask_BL: torch.Tensor) -> list[torch.Tensor]:
    lengths = mask_BL.sum(dim=1).tolist()
    return [value_LX[:length] for value_LX, length in zip(values_BLX, lengths, strict=True)]
