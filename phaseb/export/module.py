"""A policy that leaves phaseb: encoder and actor as one stateless network, from observations to the machine's actions.

N observations, K frames stacked (newest first), H x W x C a frame, S state size, A action dimensions; a policy of
chunks plans P actions at once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phaseb.episodes.actions import ActionScale
from phaseb.latents.model import EncoderModel
from phaseb.policy.actor import Actor
from phaseb.policy.chunk_policy import ChunkPolicy


class DeployedPolicy(nn.Module):
    """Observations to actions in the environment's own units; nothing is remembered from call to call.

    `inputs` names what `forward` takes, in order: `state` (N, S) float32, `frames` (N, K, H, W, C) uint8, and for a
    flow `noise` (N, P, A), standard normal. `output` names what it returns: `action` (N, A), or `plan` (N, P, A).
    """

    low: Tensor
    span: Tensor

    def __init__(self, bundle: EncoderModel, actor: Actor | ChunkPolicy, scale: ActionScale) -> None:
        super().__init__()
        self.encoder, self.readout, self.standardizer = bundle.encoder, bundle.readout, bundle.standardizer
        self.actor = actor
        self.register_buffer("low", torch.from_numpy(scale.low.copy()))
        self.register_buffer("span", torch.from_numpy(scale.high - scale.low))
        self.observed = tuple(
            name for name, seen in (("state", bundle.spec.state_size), ("frames", bundle.spec.frame_shape)) if seen
        )
        self.plans = actor.kind if isinstance(actor, ChunkPolicy) else ""
        self.inputs = (*self.observed, *(("noise",) if self.plans == "flow" else ()))
        self.output = "plan" if self.plans else "action"

    def forward(self, *observation: Tensor) -> Tensor:
        """Actions (N, A) or plans (N, P, A)."""
        return self.low + (self.scaled(*observation) + 1) / 2 * self.span

    def scaled(self, *observation: Tensor) -> Tensor:
        """The same in [-1, 1], before the environment's units."""
        z = self.latents(*observation)
        if not isinstance(self.actor, ChunkPolicy):
            return cast(Tensor, self.actor(z))
        shape = z.shape[0], self.actor.chunk_steps, self.actor.action_size
        return self.actor.plan(z, observation[-1] if "noise" in self.inputs else z.new_zeros(shape))

    def latents(self, *observation: Tensor) -> Tensor:
        """z_V (N, D): what the encoder says of observations one at a time (see `OnlineEncoder`)."""
        seen = dict(zip(self.inputs, observation, strict=True))
        parts: list[Tensor] = []
        if "state" in seen:
            parts.append(self.encoder.normalise(seen["state"]))
        if "frames" in seen:
            frames = seen["frames"]
            features = self.encoder.features(frames.flatten(0, 1))
            parts.append(self.encoder.fuse(features.reshape(-1, frames.shape[1], features.shape[-1])))
        return cast(Tensor, self.standardizer(self.readout(torch.cat(parts, dim=-1))))

    def near_decision_boundary(self, *observation: Tensor) -> Tensor:
        """(N,) whether a binary action (a gripper) is so near its threshold that rounding alone may turn it."""
        if isinstance(self.actor, ChunkPolicy):
            z = self.latents(*observation)
            shape = z.shape[0], self.actor.chunk_steps, self.actor.action_size
            chunk = self.actor.predict(z, observation[-1] if "noise" in self.inputs else z.new_zeros(shape))
            beyond = (chunk - self.actor.levels.mean(-1)).abs()[..., self.actor.binary_actions]
            return (beyond < 1e-4).flatten(1).any(dim=1)
        mean = self.actor.policy(self.latents(*observation)[None])[0][0]
        near = mean[:, self.actor.policy.binary_actions].abs() < 1e-4
        return near.any(dim=1)


class FrameStack:
    """Observations as they come, in the form that a `DeployedPolicy` takes: the last frames stacked, newest first."""

    def __init__(self, inputs: Sequence[str], stack: int) -> None:
        self._inputs, self._stack = inputs, stack
        self._frames: NDArray[np.uint8] | None = None

    def reset(self) -> None:
        """New episodes begin: the next observation is their first."""
        self._frames = None

    def add(self, observation: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The next observation of every episode as arrays by input name."""
        made: dict[str, NDArray[Any]] = {}
        for name in self._inputs:
            if name == "state":
                made[name] = np.asarray(observation["state"], np.float32)
                continue
            newest = observation["frames"][:, None]
            older = np.repeat(newest, self._stack - 1, 1) if self._frames is None else self._frames[:, :-1]
            made[name] = self._frames = np.ascontiguousarray(np.concatenate([newest, older], axis=1))
        return made
