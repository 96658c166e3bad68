"""Caduceus: bidirectional Mamba over single bases, with or without equivariance to the reverse complement.

Schiff et al. 2024, arXiv 2403.03234; Mamba: Gu and Dao 2023, arXiv 2312.00752. Caduceus-Ph reads one strand,
Caduceus-PS both at once with the same weights. Shape suffixes: B batch, L tokens, D model width, E inner width
(expand * D), N state size, V vocabulary.
"""

import math
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from mutbert.encoders.token_encoders import mean_over_tokens

# The scan holds two arrays (B, E, L, N); it runs over so few rows at once that they stay below this.
_SCAN_BYTES: Final = 1 << 28


class CaduceusConfig(PreTrainedConfig):
    """Configuration of Caduceus; the defaults are the published Caduceus-PS."""

    model_type = "caduceus"
    attribute_map = {"hidden_size": "d_model", "num_hidden_layers": "n_layer"}

    def __init__(
        self, d_model: int = 256, n_layer: int = 16, vocab_size: int = 16, rcps: bool = True,
        complement_map: Mapping[str, int] | None = None, ssm_cfg: Mapping[str, Any] | None = None,
        norm_epsilon: float = 1e-5, initializer_cfg: Mapping[str, Any] | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.d_model, self.n_layer, self.vocab_size, self.rcps = d_model, n_layer, vocab_size, rcps
        # Saved configurations have their keys as text, in the order of text: 0, 1, 10, 11, 2...
        own = {str(number): number for number in range(vocab_size)} | {"7": 10, "8": 9, "9": 8, "10": 7}
        self.complement_map = dict(sorted((complement_map or own).items(), key=lambda pair: int(pair[0])))
        known = {"d_state": 16, "d_conv": 4, "expand": 2, "dt_rank": "auto", "bias": False, "conv_bias": True}
        self.ssm_cfg = {**known, **(ssm_cfg or {})}
        self.norm_epsilon = norm_epsilon
        self.initializer_cfg = {"initializer_range": 0.02, **(initializer_cfg or {})}


class Mamba(nn.Module):
    """One direction of a bidirectional Mamba block, between projections that both directions share."""

    def __init__(self, config: CaduceusConfig, *, projections: bool) -> None:
        super().__init__()
        width, settings = config.d_model, config.ssm_cfg
        inner, states, kernel = settings["expand"] * width, settings["d_state"], settings["d_conv"]
        rank = math.ceil(width / 16) if settings["dt_rank"] == "auto" else settings["dt_rank"]
        self.sizes = (rank, states, states)
        if projections:
            self.in_proj = nn.Linear(width, 2 * inner, bias=settings["bias"])
            self.out_proj = nn.Linear(inner, width, bias=settings["bias"])
        self.conv1d = nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1, bias=settings["conv_bias"])
        self.x_proj = nn.Linear(inner, rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, states))
        self.D = nn.Parameter(torch.empty(inner))

    def forward(self, input_BLE: Tensor, gate_BLE: Tensor) -> Tensor:
        """Return the gated scan, (B, L, E); a position depends on none after it."""
        u_BEL = F.silu(self.conv1d(input_BLE.transpose(1, 2))[..., : input_BLE.shape[1]])
        step, b_BLN, c_BLN = self.x_proj(u_BEL.transpose(1, 2)).split(self.sizes, dim=-1)
        step_BEL = F.linear(step, self.dt_proj.weight).transpose(1, 2)
        rows = max(_SCAN_BYTES // (8 * self.A_log.numel() * u_BEL.shape[2]), 1)
        whole = (u_BEL, step_BEL, b_BLN.transpose(1, 2), c_BLN.transpose(1, 2), gate_BLE.transpose(1, 2))
        if len(u_BEL) <= rows:
            return self._scan(*whole).transpose(1, 2)
        # Run again for the gradients, so that what a scan holds is held of one part at a time.
        scan = partial(checkpoint, self._scan, use_reentrant=False) if torch.is_grad_enabled() else self._scan
        parts = zip(*(value.split(rows) for value in whole), strict=True)
        return torch.cat([scan(*part) for part in parts]).transpose(1, 2)

    def _scan(self, u_BEL: Tensor, step_BEL: Tensor, b_BNL: Tensor, c_BNL: Tensor, gate_BEL: Tensor) -> Tensor:
        """Return the gated selective scan (Gu and Dao 2023, algorithm 2), (B, E, L)."""
        # Not by the library's own loop, whose gradients take time quadratic in the length, but for its CUDA kernel.
        decay_EN, skip_E, bias_E = -self.A_log.float().exp(), self.D.float(), self.dt_proj.bias.float()
        if u_BEL.is_cuda and find_spec("mamba_ssm"):
            from transformers.models.mamba.modeling_mamba import mamba_selective_scan

            whole = (u_BEL, step_BEL, decay_EN, b_BNL.contiguous(), c_BNL.contiguous(), skip_E)
            scanned = mamba_selective_scan(*whole, z=gate_BEL, delta_bias=bias_E, delta_softplus=True)
            return scanned.to(u_BEL.dtype)  # type: ignore[no-any-return]
        step_BEL = F.softplus(step_BEL + bias_E[:, None])
        keep_BELN = torch.exp(decay_EN[:, None] * step_BEL[..., None])
        add_BELN = (step_BEL * u_BEL)[..., None] * b_BNL.transpose(1, 2)[:, None]
        state_BEN, outputs = torch.zeros_like(add_BELN[:, :, 0]), []
        for keep_BEN, add_BEN, c_BN in zip(keep_BELN.unbind(2), add_BELN.unbind(2), c_BNL.unbind(2), strict=True):
            state_BEN = torch.addcmul(add_BEN, keep_BEN, state_BEN)
            outputs.append(torch.matmul(state_BEN, c_BN[:, :, None].to(state_BEN.dtype))[..., 0])
        return ((torch.stack(outputs, dim=-1) + u_BEL * skip_E[:, None]) * F.silu(gate_BEL)).to(u_BEL.dtype)


class CaduceusBlock(nn.Module):
    """Normalises the residual stream, and adds what Mamba in both directions makes of it."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_epsilon)
        both = {f"mamba_{name}": Mamba(config, projections=name == "fwd") for name in ("fwd", "rev")}
        self.mixer = nn.ModuleDict(both)

    def forward(self, residual: Tensor, order_BL: Tensor | None) -> Tensor:
        """Return the residual stream after the block, shape (strands, B, L, D); both strands in the first's order."""
        if len(residual) == 1:
            return residual + self._mixed(self.norm(residual[0]), order_BL)
        # Both strands are swapped in every block, channels reversed, as the published models' fused norm does.
        residual = residual.flip(0, -1)
        x = self.norm(residual)
        both = torch.cat([x[0], _reversed(x[1], order_BL)])
        one, other = self._mixed(both, None if order_BL is None else order_BL.repeat(2, 1)).chunk(2)
        return residual + torch.stack([one, _reversed(other, order_BL)])

    def _mixed(self, x_BLD: Tensor, order_BL: Tensor | None) -> Tensor:
        ahead: Any = self.mixer["mamba_fwd"]
        input_BLE, gate_BLE = ahead.in_proj(x_BLD).chunk(2, dim=-1)
        ahead_BLE = ahead(input_BLE, gate_BLE)
        back_BLE = self.mixer["mamba_rev"](_reversed(input_BLE, order_BL), _reversed(gate_BLE, order_BL))
        mixed_BLD: Tensor = ahead.out_proj(ahead_BLE) + ahead.out_proj(_reversed(back_BLE, order_BL))
        return mixed_BLD


class CaduceusPreTrainedModel(PreTrainedModel):
    """What transformers knows of all Caduceus models."""

    config: CaduceusConfig
    base_model_prefix = "caduceus"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Set fresh weights as Mamba does: steps between 0.001 and 0.1, and outputs the smaller the deeper."""
        deviation = self.config.initializer_cfg["initializer_range"]
        if isinstance(module, Mamba):
            scale = module.sizes[0] ** -0.5
            init.uniform_(module.dt_proj.weight, -scale, scale)
            step = torch.empty_like(module.dt_proj.bias).uniform_(math.log(1e-3), math.log(0.1)).exp()
            init.copy_(module.dt_proj.bias, step + torch.log(-torch.expm1(-step)))
            states = torch.arange(1, module.A_log.shape[1] + 1, device=step.device)
            init.copy_(module.A_log, states.log().expand_as(module.A_log))
            init.ones_(module.D)
            if hasattr(module, "out_proj"):
                scale = (module.out_proj.in_features * self.config.n_layer) ** -0.5
                init.uniform_(module.out_proj.weight, -scale, scale)
        elif isinstance(module, nn.Embedding) or module is getattr(self, "score", None):
            init.normal_(module.weight, std=deviation)


class CaduceusModel(CaduceusPreTrainedModel):
    """The backbone, whose embedding is the decoder too; of Caduceus-PS, states have 2 D channels, of both strands."""

    backbone: Any

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__(config)
        words = nn.ModuleDict({"word_embeddings": nn.Embedding(config.vocab_size, config.d_model)})
        layers = nn.ModuleList(CaduceusBlock(config) for _ in range(config.n_layer))
        norm = nn.RMSNorm(config.d_model, eps=config.norm_epsilon)
        self.backbone = nn.ModuleDict({"embeddings": words, "layers": layers, "norm_f": norm})
        self.post_init()

    def get_input_embeddings(self) -> Any:
        """Return the token embedding."""
        return self.backbone["embeddings"]["word_embeddings"]

    def complements(self, device: torch.device) -> Tensor:
        """Return the complement of each token, (V,)."""
        return torch.tensor(list(self.config.complement_map.values()), device=device)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = False, **_: Any
    ) -> BaseModelOutput:
        """Return hidden states of tokens; without a mask padding, which is on the right, is read too."""
        order_BL = None if attention_mask is None else _order(attention_mask)
        strands = [input_ids, self.complements(input_ids.device)[input_ids]][: 1 + self.config.rcps]
        states = [self.get_input_embeddings()(torch.stack(strands))]
        for layer in self.backbone["layers"]:
            states.append(layer(states[-1], order_BL))
            if not output_hidden_states:
                del states[0]
        states[-1] = self.backbone["norm_f"](states[-1])
        # The second strand's channels are in reverse order, as in the reference.
        merged = [state[0] if len(state) == 1 else torch.cat([state[0], state[1].flip(-1)], -1) for state in states]
        return BaseModelOutput(merged[-1], tuple(merged) if output_hidden_states else None)

    def logits(self, states: Tensor) -> Tensor:
        """Return logits of any hidden states, (..., V): of Caduceus-PS, the sum of both strands'."""
        weight_VD = self.get_input_embeddings().weight
        if not self.config.rcps:
            return F.linear(states, weight_VD)
        one, other = states.chunk(2, dim=-1)
        complement_V = self.complements(states.device)
        return F.linear(one, weight_VD) + F.linear(other.flip(-1), weight_VD[complement_V])


class CaduceusForSequenceClassification(CaduceusPreTrainedModel):
    """The paper's classifier: a linear layer without bias on the mean over tokens; of Caduceus-PS, over strands too."""

    def __init__(self, config: CaduceusConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.caduceus = CaduceusModel(config)
        self.score = nn.Linear(config.d_model, config.num_labels, bias=False)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """Return logits, (B, number of labels)."""
        states_BLD = fold_strands(self.caduceus(input_ids, attention_mask, **kwargs).last_hidden_state, self.config)
        return SequenceClassifierOutput(logits=self.score(mean_over_tokens(states_BLD, attention_mask)))


def fold_strands(states: Tensor, config: CaduceusConfig) -> Tensor:
    """Return hidden states with D channels: of Caduceus-PS the mean of both strands' at each base."""
    if not config.rcps:
        return states
    one, other = states.chunk(2, dim=-1)
    return (one + other.flip(-1)) / 2


def _order(mask_BL: Tensor) -> Tensor | None:
    """Return where each position goes when rows are reversed within their own lengths; None where all are full."""
    if mask_BL.all():
        return None
    if (mask_BL[:, 1:] > mask_BL[:, :-1]).any():
        raise ValueError("attention_mask has padding on the left; Caduceus takes it on the right")
    position_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
    last_B1 = mask_BL.sum(dim=1, keepdim=True) - 1
    return torch.where(position_L <= last_B1, last_B1 - position_L, position_L)


def _reversed(x_BLD: Tensor, order_BL: Tensor | None) -> Tensor:
    """Return every row reversed: all of it, or its own length alone."""
    return x_BLD.flip(1) if order_BL is None else x_BLD.gather(1, order_BL[..., None].expand_as(x_BLD))
