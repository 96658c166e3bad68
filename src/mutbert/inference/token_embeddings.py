"""Embeddings by models that read tokens: 6-mers, byte pairs, single letters.

As their papers have it, an embedding is pooled over every token that is not padding, special ones included. Shape
suffixes: B batch, K layers, L tokens, D hidden size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mutbert.encoders.inputs import Sequences
from mutbert.encoders.probe import mean_over_tokens
from mutbert.encoders.token_encoders import most_tokens
from mutbert.errors import InputError
from mutbert.inference.embedding_sources import grouped
from mutbert.inference.outputs import on_device, sequence_outputs
from mutbert.inference.predict import autocast, evaluating

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from mutbert.arrays import Float32
    from mutbert.encoders.inputs import TokenInputs
    from mutbert.encoders.token_encoders import AutoEncoder
    from mutbert.inference.embedding_sources import Record
    from mutbert.progress import Advance

    Named = tuple[Record, npt.NDArray[np.uint8]]


class TokenEmbedder:
    """A model that reads tokens, on a GPU where there is one."""

    def __init__(self, encoder: AutoEncoder, pooling: str, strands: str) -> None:
        if pooling == "none" and strands == "both":
            raise InputError(
                f"{encoder.name}: tokens of one strand do not cover the bases that those of the other do; give "
                "--strands forward for an embedding of each token"
            )
        if pooling == "cls" and (not encoder.special_tokens or encoder.tokenizer.cls_token_id is None):
            raise InputError(f"{encoder.name}: puts no class token before a sequence; give --pooling mean")
        self._encoder = encoder
        self._pooling = pooling
        self._strands = strands
        # How long sequences are is known only when they are read, and checked then.
        self.body = encoder.body(0).to("cuda" if torch.cuda.is_available() else "cpu")

    def checked(self, sequences: Iterable[Named]) -> Iterator[Record]:
        """Yield the records of sequences, and refuse one that has more tokens than the model has positions for."""
        most = most_tokens(self.body)
        for record, base_L in sequences:
            # No token is less than a base, but for special ones before and behind.
            if most is not None and len(base_L) > most - 2:
                found = int(self._inputs([base_L]).length_N[0])
                if found > most:
                    raise InputError(
                        f"{record.name}: {len(base_L):,} bases are {found:,} tokens, and {self._encoder.name} has "
                        f"positions for {most:,}; give shorter sequences"
                    )
            yield record

    def embed(
        self,
        sequences: Iterable[Named],
        *,
        layers: Sequence[int],
        batch_size: int,
        precision: str,
        advance: Advance | None = None,
    ) -> Iterator[tuple[Record, Float32]]:
        """Yield each record with its embedding, (K, D), or where nothing is pooled (K, its tokens, D)."""
        bytes_a_vector: int = 4 * len(layers) * self.body.config.hidden_size

        def size(one: Named) -> int:
            return (len(one[1]) if self._pooling == "none" else 1) * bytes_a_vector

        def run(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            states = self._encoder.layer_states(self.body, batch, layers)
            return torch.cat([self._pooled(state_BLD, batch) for state_BLD in states], dim=1)

        for group in grouped(sequences, size, batch_size):
            inputs = self._inputs([base_L for _, base_L in group])
            if self._pooling == "none":
                found = self._every(inputs, layers, batch_size, precision, advance)
            else:
                pooled = sequence_outputs(
                    self.body,
                    run,  # type: ignore[arg-type]
                    inputs,
                    batch_size=batch_size,
                    precision=precision,
                    strands=self._strands,
                    advance=advance,
                )
                found = list(pooled.reshape(len(group), len(layers), -1))
            yield from ((record, embedding) for (record, _), embedding in zip(group, found, strict=True))

    def _inputs(self, codes: Sequence[npt.NDArray[np.uint8]]) -> TokenInputs:
        return self._encoder.inputs(Sequences.of(codes))

    def _pooled(self, state_BLD: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if self._pooling == "cls":
            return state_BLD[:, 0].float()
        if self._pooling == "mean":
            return mean_over_tokens(state_BLD, batch)
        mask_BL = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
        return state_BLD.float().masked_fill(mask_BL[..., None] == 0, -torch.inf).amax(dim=1)

    def _every(
        self, inputs: TokenInputs, layers: Sequence[int], batch_size: int, precision: str, advance: Advance | None
    ) -> list[Float32]:
        tokenizer = self._encoder.tokenizer
        frame = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
        order = np.argsort(inputs.length_N, kind="stable")
        found: dict[int, Float32] = {}
        device: Any = self.body.device
        with evaluating(self.body), torch.inference_mode(), autocast(device, precision):
            for first in range(0, len(order), batch_size):
                rows = order[first : first + batch_size]
                batch = inputs.batch(rows)
                inside_BL = ~np.isin(batch["input_ids"].numpy(), [number for number in frame if number is not None])
                states = self._encoder.layer_states(self.body, on_device(batch, device), layers)
                state_BKLD = torch.stack(states, dim=1).float().cpu().numpy()
                found |= {int(row): state_BKLD[place][:, inside_BL[place]] for place, row in enumerate(rows)}
                if advance is not None:
                    advance(len(rows))
        return [found[row] for row in range(len(order))]
