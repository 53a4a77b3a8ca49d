"""Returns of policies in Gaussian processes that are fitted for this alone, each to episodes drawn with replacement.

The processes are fitted to other draws than the generator that policies were trained in. Their spread shows what the
recorded episodes leave open. What they have wrong in common shows in replays: REPLAY_STEPS recorded actions from states
of episodes that a process was not fitted to. (Longer replays show another thing: recorded actions do not answer what
the process does. On the cell, whole episodes replay at a third of their return, and policies play at all of it.)

Legend: W starts, H steps, D latent dimensions, A action dimensions, P policies, M processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.dynamics import GPConfig
from phaseb.dynamics.evidence import divergence
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.dynamics.rollout import Policy, Rollout
from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.seeding import derive_seed, numpy_generator, torch_generator

NUM_STARTS = 100
"""Most starts that each policy is played from."""
REPLAY_STEPS = 8
"""Steps of a replay."""
LEAST_STATE_SKILL, LEAST_REWARD_SKILL = 0.75, 0.4
"""Least share of the squared change of the latents, and of the variance of the rewards, that replays must explain."""
NUM_REPLAYS = 300
"""Most replays in a process."""
MIN_HELD_OUT = 20
"""Fewest held-out replays that this can be said of."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Replays:
    """Short replays of held-out recorded actions in one process.

    Attributes:
        promised, recorded: (W,) sums of rewards.
        error: (W,) squared distance of the last latent from the recorded one.
        change: (W,) squared distance of the last recorded latent from the first.
    """

    promised: Array
    recorded: Array
    error: Array
    change: Array


@dataclass(frozen=True)
class ModelReturns:
    """Returns of policies by all processes.

    Attributes:
        values: (P, M) mean return over the starts; NaN where a rollout diverged.
        replays: of each process.
        horizon: steps that a return sums.
    """

    values: Array
    replays: tuple[Replays, ...]
    horizon: int

    @property
    def bias(self) -> float:
        """How far returns may be off by what all processes have wrong: the mean error of replays, for H steps."""
        off = [abs(np.mean(one.promised - one.recorded)) for one in self.replays if len(one.recorded)]
        return float(np.mean(off)) * self.horizon / min(REPLAY_STEPS, self.horizon) if off else float("nan")

    @property
    def skills(self) -> tuple[float, float]:
        """Shares that replays explain of the change of latents and of the variance of rewards; NaN of none."""
        joined = {
            name: np.concatenate([getattr(one, name) for one in self.replays])
            for name in ("promised", "recorded", "error", "change")
        }
        missed = np.square(joined["promised"] - joined["recorded"]).sum()
        spread = np.square(joined["recorded"] - joined["recorded"].mean()).sum() if len(joined["recorded"]) else 0.0
        return _share(joined["error"].sum(), joined["change"].sum()), _share(missed, spread)

    @property
    def refused(self) -> str:
        """Why decisions cannot take these returns; empty where they can."""
        held_out = sum(len(one.recorded) for one in self.replays)
        if held_out < MIN_HELD_OUT:
            return f"{held_out} held-out replays are too few, {MIN_HELD_OUT} are needed"
        if not np.isfinite(self.values).all():
            return "rollouts of a policy diverge"
        for name, skill, least in zip(
            ("states", "rewards"), self.skills, (LEAST_STATE_SKILL, LEAST_REWARD_SKILL), strict=True
        ):
            if not skill >= least:
                return f"replays explain {skill:.0%} of held-out {name}, {least:.0%} are needed"
        return ""

    def to_json(self) -> dict[str, float | str]:
        """What a decision records."""
        state, reward = self.skills
        return {
            "state_skill": state,
            "reward_skill": reward,
            "bias": self.bias,
            "horizon": self.horizon,
            "refused": self.refused,
        }


def play_in_process(
    config: GPConfig, recorded: Trajectories, policies: Sequence[Policy], horizon: int, seed: int, member: int
) -> tuple[Array, Replays]:
    """Mean returns (P,) of policies in one process, and its replays.

    Args:
        recorded: N episodes. A process is fitted to N of them drawn with replacement; the rest are held out.
        policies: each acts on latents (W, D).
        horizon: H.
        member: number of the process.
    """
    own = derive_seed(seed, "model returns", member)
    drawn = numpy_generator(own, "episodes").integers(0, len(recorded), len(recorded))
    model = GPDynamics.fit(config, recorded.select(drawn), own)
    starts = torch.from_numpy(chunks(recorded, horizon, NUM_STARTS, derive_seed(seed, "model returns")).z[:, 0])
    values = []
    for policy in policies:
        made = model.rollout(starts, policy, horizon, torch_generator(own, "play"))
        lost = divergence(made.z.numpy(), made.rewards.numpy())
        values.append(float("nan") if lost else float(_returns(made, made.lengths).mean()))
    left = np.setdiff1d(np.arange(len(recorded)), drawn)
    return np.array(values), _replays(model, recorded.select(left), min(REPLAY_STEPS, horizon), own)


def chunks(recorded: Trajectories, steps: int, most: int, seed: int) -> Trajectories:
    """At most `most` pieces of at most `steps` steps, evenly drawn from all that episodes are cut into."""
    counts = -(-recorded.lengths // steps)
    rows = np.repeat(np.arange(len(recorded)), counts)
    first = np.concatenate([steps * np.arange(count) for count in counts])
    order = numpy_generator(seed, "chunks").permutation(len(rows))[:most]
    rows, first = rows[order], first[order]
    after, at = first[:, None] + np.arange(steps + 1), rows[:, None]
    taken = np.minimum(after[:, :-1], recorded.rewards.shape[1] - 1)
    return replace(
        recorded.select(rows),
        z=recorded.z[at, np.minimum(after, recorded.lengths[rows][:, None])],
        actions=recorded.actions[at, taken],
        rewards=recorded.rewards[at, taken],
        terminals=recorded.terminals[at, taken],
        lengths=np.minimum(recorded.lengths[rows] - first, steps),
        start_step=None,
        uncertainty=None,
        trust=None,
        weights=None,
        episode_trust=None,
    )


def _replays(model: GPDynamics, held_out: Trajectories, steps: int, seed: int) -> Replays:
    """Recorded actions in a process that was not fitted to their episodes."""
    if not len(held_out):
        return Replays(*np.zeros((4, 0)))
    pieces = chunks(held_out, steps, NUM_REPLAYS, seed)
    actions = torch.from_numpy(pieces.actions)
    made = model.rollout(torch.from_numpy(pieces.z[:, 0]), actions, steps, torch_generator(seed, "replay"))
    earned = (pieces.rewards * pieces.mask).sum(1, dtype=np.float64)
    last = pieces.lengths, np.arange(len(pieces))
    reached, true = (z[last[1], last[0]].astype(np.float64) for z in (made.z.numpy(), pieces.z))
    error, change = (np.square(z - true).sum(1) for z in (reached, pieces.z[:, 0]))
    return Replays(_returns(made, np.minimum(made.lengths, pieces.lengths)), earned, error, change)


def _returns(made: Rollout, lengths: NDArray[np.int64]) -> Array:
    """(W,) sums of the first `lengths` (W,) rewards."""
    inside = np.arange(made.rewards.shape[1])[None] < lengths[:, None]
    return np.where(inside, made.rewards.numpy(), 0.0).sum(1, dtype=np.float64)


def _share(missed: float, whole: float) -> float:
    return float(1 - missed / whole) if whole > 0 else float("nan")
