"""Optimisers: AdamW, or Muon for matrices and AdamW for the rest, with a guarded step and a state of named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from arena import AgentError

__all__ = ["Optimiser"]


class Optimiser:
    """Moves parameters along their gradients.

    Muon replaces a matrix's momentum by a matrix that is nearly orthogonal, so that all directions are learned at one
    speed (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982, from which the scale is that makes AdamW's step sizes
    its own). It is for the matrices within a network: embeddings and output layers are AdamW's, as vectors are.

    Args:
        parameters: What learns.
        learning_rate: Step size.
        weight_decay: Decoupled, times the step size.
        kind: What moves matrices.
        tables: Embeddings and output layers among the parameters, which Muon leaves to AdamW.
        betas: How slowly AdamW forgets gradients and their squares.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        learning_rate: float,
        weight_decay: float,
        kind: Literal["adamw", "muon"] = "adamw",
        tables: Sequence[nn.Parameter] = (),
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self._parameters = list(parameters)
        others = {id(one) for one in tables}
        matrices, rest = list[nn.Parameter](), list[nn.Parameter]()
        for one in self._parameters:
            (matrices if kind == "muon" and one.ndim == 2 and id(one) not in others else rest).append(one)
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            muon = torch.optim.Muon(
                matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
            )
            self._parts.append(muon)
        if rest:
            self._parts.append(torch.optim.AdamW(rest, lr=learning_rate, weight_decay=weight_decay, betas=betas))

    def set_rate(self, learning_rate: float) -> None:
        """Change the step size."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate

    def clear(self) -> None:
        """Forget the gradients."""
        for one in self._parameters:
            one.grad = None

    def step(self, max_norm: float) -> float:
        """Take a step along gradients of at most this norm, and return the norm that they had.

        Raises:
            AgentError: The gradient is not finite; no weight has changed.
        """
        norm = float(nn.utils.clip_grad_norm_(self._parameters, max_norm))
        if not math.isfinite(norm):
            raise AgentError(f"the gradient is not finite (its norm is {norm}); a smaller learning rate may help")
        if norm > 0:  # where nothing was to be learned, momentum must not move the weights either
            for part in self._parts:
                part.step()
        return norm

    def state(self, name: str) -> dict[str, Tensor]:
        """Return the state as tensors that are called ``<name>.<part>.<parameter>.<what>``."""
        return {
            f"{name}.{number}.{index}.{key}": value
            for number, part in enumerate(self._parts)
            for index, state in part.state_dict()["state"].items()
            for key, value in state.items()
        }

    def restore(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Take the state from named tensors, as copies: those of a file lie at addresses of their own."""
        for number, part in enumerate(self._parts):
            state: dict[int, dict[str, Tensor]] = {}
            for path, value in tensors.items():
                if path.startswith(f"{name}.{number}."):
                    index, _, key = path.removeprefix(f"{name}.{number}.").partition(".")
                    state.setdefault(int(index), {})[key] = value.clone()
            part.load_state_dict({**part.state_dict(), "state": state})
