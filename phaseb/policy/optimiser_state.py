"""An optimiser's moments as plain tensors by parameter number, for checkpoints."""

from collections.abc import Mapping

import torch
from torch import Tensor


def moments_of(optimiser: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Adam's state by parameter number; empty before its first step."""
    return {f"parameter{i}": dict(state) for i, state in optimiser.state_dict()["state"].items()}


def set_moments(optimiser: torch.optim.Optimizer, moments: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Put saved moments back."""
    state = {
        int(name.removeprefix("parameter")): {key: value.clone() for key, value in values.items()}
        for name, values in moments.items()
    }
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
