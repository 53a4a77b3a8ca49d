"""Write a fitted GP model as tensors and JSON, and read it back to the bit.

Products of matrices depend, in their last digits, on how a matrix lies in memory. So strides are kept beside tensors.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from phaseb.config.dynamics import GPConfig
from phaseb.dynamics.gp.discrete_states import DiscreteStates
from phaseb.dynamics.gp.gaussian_process import GaussianProcess
from phaseb.dynamics.gp.outcomes import InputProjection, OutcomeGP, RewardGP
from phaseb.runtime.checkpoint import save_checkpoint
from phaseb.runtime.storage import Store

if TYPE_CHECKING:
    from phaseb.dynamics.gp.model import GPDynamics


def save(model: "GPDynamics", store: Store) -> str:
    """Write a model into a folder; returns the digest."""
    tensors = _tensors(model)
    meta = {
        "kind": "gp",
        "name": model.name,
        "config": model.config.model_dump(mode="json"),
        "latent_size": model.latent_size,
        "action_size": model.action_size,
        "uncertainty_scale": model.uncertainty_scale,
        "lineage": model.lineage,
        "least_reward": model.least_reward,
        "continuous": model.states.continuous.tolist(),
        "binary_actions": [[a, middle] for a, middle in model.states.binary_actions.items()],
        "continuous_actions": model.states.continuous_actions.tolist(),
        "levels": list(model.states.levels),
        "directions": list(model.directions),
        "outcomes": [[code, m.kinds.tolist(), len(m.members)] for code, m in model.outcomes.items()],
        "rewards": [[*key, m.low, m.high, m.rare] for key, m in model.rewards.items()],
        "strides": {name: list(tensor.stride()) for name, tensor in tensors.items()},
    }
    return save_checkpoint(store, tensors, meta)


def parts(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `GPDynamics`, of a checkpoint's content."""
    laid = {name: _with_strides(tensor, meta["strides"][name]) for name, tensor in tensors.items()}
    arrays = {name: tensor.numpy() for name, tensor in laid.items()}
    states = DiscreteStates(
        {d: arrays[f"levels/{d}"] for d in meta["levels"]},
        np.array(meta["continuous"], np.int64),
        dict(meta["binary_actions"]),
        np.array(meta["continuous_actions"], np.int64),
    )
    directions = {level: arrays[f"directions/{level}"] for level in meta["directions"]}
    return {
        "config": GPConfig.model_validate(meta["config"]),
        "basis": tuple(arrays[f"basis/{name}"] for name in ("mean", "whiten", "unwhiten")),
        "states": states,
        "bounds": (arrays["bounds/low"], arrays["bounds/high"]),
        "least_reward": float(meta["least_reward"]),
        "moves": _process(laid, "moves") if meta["continuous"] else None,
        "directions": directions,
        "outcomes": _outcomes(laid, meta, states, directions),
        "rewards": _rewards(laid, meta, states, directions),
        "latent_size": meta["latent_size"],
        "action_size": meta["action_size"],
        "uncertainty_scale": float(meta["uncertainty_scale"]),
        "lineage": dict(meta["lineage"]),
    }


def _tensors(model: "GPDynamics") -> dict[str, Tensor]:
    arrays = dict(zip(("basis/mean", "basis/whiten", "basis/unwhiten"), model.basis, strict=True))
    arrays |= dict(zip(("bounds/low", "bounds/high"), model.bounds, strict=True))
    arrays |= {f"levels/{d}": levels for d, levels in model.states.levels.items()}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    tensors |= {f"directions/{level}": torch.from_numpy(found) for level, found in model.directions.items()}
    processes = {} if model.moves is None else {"moves": model.moves}
    for code, outcome in model.outcomes.items():
        processes |= {f"outcomes/{code}/{i}": member for i, member in enumerate(outcome.members)}
    for (code, happened), reward in model.rewards.items():
        processes |= {f"rewards/{code}/{happened}/{i}": member for i, member in enumerate(reward.members)}
    for prefix, process in processes.items():
        tensors |= {f"{prefix}/{name}": tensor for name, tensor in process.tensors().items()}
    return tensors


def _outcomes(
    tensors: Mapping[str, Tensor], meta: Mapping[str, Any], states: DiscreteStates, directions: Mapping[int, Any]
) -> dict[int, OutcomeGP]:
    found = {}
    for code, kinds, count in meta["outcomes"]:
        members = [_process(tensors, f"outcomes/{code}/{i}") for i in range(count)]
        found[code] = OutcomeGP(np.array(kinds, np.int64), _projections(code, states, directions), members)
    return found


def _rewards(
    tensors: Mapping[str, Tensor], meta: Mapping[str, Any], states: DiscreteStates, directions: Mapping[int, Any]
) -> dict[tuple[int, int], RewardGP]:
    found = {}
    for code, outcome, low, high, rare in meta["rewards"]:
        inputs = RewardGP.inputs_of(_projections(code, states, directions), rare)
        members = [_process(tensors, f"rewards/{code}/{outcome}/{i}") for i in range(len(inputs))]
        found[code, outcome] = RewardGP(low, high, rare, inputs, members)
    return found


def _projections(code: int, states: DiscreteStates, directions: Mapping[int, Any]) -> list[InputProjection]:
    level = int(states.level(np.array([code]))[0])
    return InputProjection.of_situation(directions[level], states.continuous_actions)


def _process(tensors: Mapping[str, Tensor], prefix: str) -> GaussianProcess:
    start = f"{prefix}/"
    return GaussianProcess.of({n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)})


def _with_strides(tensor: Tensor, strides: list[int]) -> Tensor:
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)
