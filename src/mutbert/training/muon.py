"""Muon for hidden matrices, with another optimizer for all other parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


class MuonWith(torch.optim.Optimizer):
    """torch's Muon for `matrices`, and `other` for the rest of its parameters, in one optimizer with one state.

    A matrix's update is its averaged gradient with all singular values near 1 (Jordan et al. 2024,
    kellerjordan.github.io/posts/muon), scaled to the root mean square of AdamW's (Liu et al. 2025, arXiv 2502.16982),
    so that one learning rate and weight decay serve both.
    """

    def __init__(self, matrices: Sequence[torch.Tensor], other: torch.optim.Optimizer, **settings: Any) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"optimizer muon needs torch 2.9 or later, and this is {torch.__version__}; use adamw")
        muon = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **settings)
        taken = {id(matrix) for matrix in matrices}
        for group in other.param_groups:
            group["params"] = [one for one in group["params"] if id(one) not in taken]
        self._parts: list[torch.optim.Optimizer] = [muon, other]
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step of each part, on its groups and its parameters' state."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        # Bound here, as a state that is loaded replaces both.
        muon, other = self._parts
        muon.param_groups, other.param_groups = self.param_groups[:1], self.param_groups[1:]
        for part in self._parts:
            part.state = self.state
            part.step()
        return loss
