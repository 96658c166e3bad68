"""Run any model over prepared sequences, in batches of similar length: logits of a classifier, or embeddings.

Shape suffixes: N sequences, B batch, L length in tokens, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mutbert.inference.predict import autocast, evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mutbert.arrays import Float32, Int64
    from mutbert.encoders.inputs import BaseInputs, Inputs
    from mutbert.progress import Advance

    Run = Callable[[Mapping[str, torch.Tensor]], torch.Tensor]


def sequence_outputs(
    model: Any,
    run: Run,
    inputs: Inputs,
    rows: Int64 | None = None,
    *,
    batch_size: int = 64,
    precision: str = "fp32",
    strands: str = "forward",
    advance: Advance | None = None,
) -> Float32:
    """Give what a model says of each of some sequences.

    The model runs where it is, in evaluation mode and without gradients, and is left as it was found.

    Parameters
    ----------
    model : nn.Module
        What is put into evaluation mode.
    run : callable
        From a batch, on the model's device, to a tensor (B, D).
    inputs : Inputs
        The sequences.
    rows : ndarray of int64, optional
        Which of them; all where left out.
    batch_size : int
        Sequences at once.
    precision : {"fp32", "bf16"}
        As for `mutbert.inference.predict.predict`.
    strands : {"forward", "both"}
        Where both, the mean over a sequence and its reverse complement.
    advance : Advance, optional
        Told of the sequences done since its last call.

    Returns
    -------
    ndarray of float32, shape (n, D)
        In the order of `rows`.
    """
    rows = np.arange(len(inputs.length_N)) if rows is None else rows
    order = np.argsort(inputs.length_N[rows], kind="stable")
    found: list[Float32] = []
    device = next(model.parameters()).device
    with evaluating(model), torch.inference_mode(), autocast(device, precision):
        for first in range(0, len(order), batch_size):
            chosen = rows[order[first : first + batch_size]]
            output_BD = _output(run, inputs, chosen, None, device)
            if strands == "both":
                turned_BD = _output(run, inputs, chosen, np.ones(len(chosen), dtype=np.bool_), device)
                output_BD = (output_BD + turned_BD) / 2
            found.append(output_BD.cpu().numpy())
            if advance is not None:
                advance(len(chosen))
    if not found:
        return np.zeros((0, 0), dtype=np.float32)
    output_ND = np.concatenate(found)
    in_order_ND = np.empty_like(output_ND)
    in_order_ND[order] = output_ND
    return in_order_ND


def base_outputs(
    model: Any,
    run: Run,
    inputs: BaseInputs,
    rows: Int64 | None = None,
    *,
    batch_size: int = 64,
    precision: str = "fp32",
    strands: str = "forward",
    advance: Advance | None = None,
) -> list[Float32]:
    """Give what a model that reads single bases says of each base of some sequences.

    Parameters
    ----------
    model, run, inputs, rows, batch_size, precision, strands, advance
        As for `sequence_outputs`; `run` gives a tensor (B, L, D).

    Returns
    -------
    list of ndarray of float32, shape (bases, D)
        In the order of `rows`; of the other strand, bases are in the order of this one. Bases that the other strand
        was cut before have their output on this one alone.
    """
    rows = np.arange(len(inputs.length_N)) if rows is None else rows
    order = np.argsort(inputs.length_N[rows], kind="stable")
    found: dict[int, Float32] = {}
    device = next(model.parameters()).device
    with evaluating(model), torch.inference_mode(), autocast(device, precision):
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            forward_BLD = _output(run, inputs, rows[batch], None, device).cpu().numpy()
            turned_BLD = None
            if strands == "both":
                turned = np.ones(len(batch), dtype=np.bool_)
                turned_BLD = _output(run, inputs, rows[batch], turned, device).cpu().numpy()
            for place, number in enumerate(batch):
                bases = int(inputs.length_N[rows[number]]) - 2
                output_TD = forward_BLD[place, 1 : bases + 1].copy()
                if turned_BLD is not None:
                    # Of a sequence that was cut, the other strand lacks the first bases instead of the last.
                    cut = inputs.cut(int(rows[number]))
                    output_TD[cut:] = (output_TD[cut:] + turned_BLD[place, bases:cut:-1]) / 2
                found[int(number)] = output_TD
            if advance is not None:
                advance(len(batch))
    return [found[number] for number in range(len(rows))]


def on_device(batch: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Bring a batch to where the model is."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _output(run: Run, inputs: Inputs, rows: Int64, reverse: Any, device: torch.device) -> torch.Tensor:
    return run(on_device(inputs.batch(rows, reverse), device)).float()
