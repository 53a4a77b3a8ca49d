"""Policies of every quality for one seed, and what each earns in physics: what decisions about policies are tried on.

Learned ones at three moments of their training, with no synthetic data, with rollouts of the physics, and with half of
each batch from broken models; and controllers, from the oracle's gains to gains far off.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from broken_models import BREAKS, OTHER_CELL, PhysicsModel, Standard
from cheap_seeds import CheapSeed, Way, imagined, play, recorded, train
from numpy.typing import NDArray
from torch import Tensor

from phaseb.config.policy import PolicyConfig
from phaseb.episodes.trajectories import Trajectories, concatenate
from phaseb.policy.actor import Actor
from phaseb.policy.evaluation import Row
from phaseb.policy.trained_policy import ClosedLoopAct
from phaseb.workcell.batch import PICK_DISTANCE_M, PICK_SPEED_M_S, PLACE_DISTANCE_M, PLACE_SPEED_M_S
from phaseb.workcell.oracle import GAINS, REACH_M, REFERENCE_MASS_KG

STEPS, LOOKS = 2200, (1000, 1600)
SMALL = PolicyConfig.model_validate(
    {
        "num_steps": STEPS,
        "width": 64,
        "batch_size": 64,
        "runs_per_batch": 6,
        "augmentation": {"refresh_steps": 300, "starts": 300},
        "offline": {"bc_fraction": 0.3, "critic_warmup_fraction": 0.1},
    }
)
NUM_TRAIN, NUM_DEV, DEV_FIRST = 50, 50, 10_000
FIRST_EPISODE, NUM_EPISODES = 1_000_000, 200
SPREADS = (0.0, 0.3, 0.6, 1.0, 1.5)


class Player(Protocol):
    """A policy: on tensors for off-policy evaluation, on arrays to play."""

    def __call__(self, z: Tensor, /) -> Tensor: ...

    def closed_loop(self) -> ClosedLoopAct: ...


@dataclass(frozen=True)
class Pool:
    """Attributes:
    players: by name.
    rows: what each earned, episode by episode, all from the same starts.
    episodes: that off-policy evaluation may read, training and dev.
    train: those of them that the policies were trained on.
    """

    players: Mapping[str, Player]
    rows: Mapping[str, list[Row]]
    episodes: Trajectories
    train: Trajectories


class Controller(torch.nn.Module):
    """The oracle's law (phaseb/workcell/oracle.py) on what the sensors tell; `slack` lets the gripper act too early."""

    def __init__(self, standard: Standard, gains: NDArray[np.float64], slack: float) -> None:
        super().__init__()
        self.mean, self.std, self.gains = (
            torch.as_tensor(np.asarray(x), dtype=torch.float32) for x in (standard.mean, standard.std, gains)
        )
        self.slack = slack

    def forward(self, z: Tensor) -> Tensor:
        _, speed, swing, rate, load, to_infeed, to_outfeed, mass = (z * self.std + self.mean).unbind(-1)
        loaded = load > 0
        ahead = torch.where(loaded, to_outfeed, to_infeed)
        gains = self.gains[1] + (mass - REFERENCE_MASS_KG)[:, None] * self.gains[2]
        gains = torch.where(loaded[:, None], gains, self.gains[0])
        way = (ahead + torch.sin(swing)).clamp(-REACH_M, REACH_M)
        drive = (gains * torch.stack([way, -speed, swing, rate], -1)).sum(-1).clamp(-1, 1)
        near = ahead.abs() <= torch.where(loaded, PLACE_DISTANCE_M, PICK_DISTANCE_M) + self.slack
        hook_speed = (speed + torch.cos(swing) * rate).abs()
        calm = hook_speed <= torch.where(loaded, PLACE_SPEED_M_S, PICK_SPEED_M_S) + self.slack
        return torch.stack([drive, torch.where(near & calm, 1.0, -1.0)], -1)

    def closed_loop(self) -> ClosedLoopAct:
        return lambda z, step: np.asarray(self(torch.from_numpy(z)).numpy(), np.float32)


def make_pool(number: int) -> Pool:
    """The pool of one seed."""
    seed = CheapSeed(number, NUM_TRAIN)
    dev, _ = recorded(number, NUM_DEV, DEV_FIRST, seed.standard)
    seed.held_out = dev
    players: dict[str, Player] = {}

    def look(step: int, actors: dict[int, dict[str, Actor]]) -> None:
        for arm, actor in actors[number].items():
            if step > LOOKS[0] or arm == "real_only":  # so early all arms still clone the same rows
                players[f"{arm}@{step}"] = actor

    seed.prepare(_ways(seed), SMALL)
    look(STEPS, train([seed], SMALL, LOOKS, look))
    g = np.random.default_rng(number)
    for i, spread in enumerate(SPREADS):
        gains = GAINS * (1 + spread * g.standard_normal(GAINS.shape))
        players[f"controller{i}"] = Controller(seed.standard, gains, 0.3 * spread * abs(g.standard_normal()))
    episodes = range(FIRST_EPISODE, FIRST_EPISODE + NUM_EPISODES)
    rows = {name: play(player, seed.standard, episodes) for name, player in players.items()}
    return Pool(players, rows, concatenate([_named(seed.real, "train"), _named(dev, "dev")]), seed.real)


def _ways(seed: CheapSeed) -> dict[str, Way]:
    physics = PhysicsModel(seed.standard)
    broken = {
        "flipped": BREAKS["rewards flipped"](physics),
        "doubled": BREAKS["latents x 2"](physics),
        "other": PhysicsModel(seed.standard, OTHER_CELL),
    }
    stored = {
        arm: Way(0.5, stored=imagined(model, seed.real, 60, 0.3, seed.seed, arm[0])) for arm, model in broken.items()
    }
    return {"real_only": Way(), "good": Way(0.5, follow=physics), **stored}


def _named(part: Trajectories, split: str) -> Trajectories:
    return replace(part, ids=tuple(f"{split}-{i}" for i in part.ids))
