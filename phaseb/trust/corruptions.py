"""Real episodes made wrong on purpose, with known kind, place and severity: what trust learns from and is tested on.

N episodes, T steps, D latent dimensions. A fault that begins at step k leaves the transitions 0 … k − 1 as they
were; k is the first transition (z_k → z_{k+1}) that is wrong. Severity is in (0, 1]; at 1 the faults are plain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.resolution import is_constant, spread_of
from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.seeding import numpy_generator

Kind = Literal["jump", "splice", "noise", "scale", "drift", "frozen", "reward", "action", "smooth", "warp"]
KINDS: tuple[Kind, ...] = (
    "jump",
    "splice",
    "noise",
    "scale",
    "drift",
    "frozen",
    "reward",
    "action",
    "smooth",
    "warp",
)
MOMENTARY: tuple[Kind, ...] = ("jump", "splice")
WHOLE: tuple[Kind, ...] = ("smooth", "warp")


@dataclass(frozen=True)
class Corrupted:
    """Corrupted episodes and the truth about them.

    Attributes:
        trajectories: the episodes; `lineage["start_episode"]` names the real one that each was made from.
        kinds: N kinds.
        severity: (N,).
        onset: (N,) first wrong transition; 0 for kinds that spoil the whole episode.
        labels: (N, T) float32: 1 where the transition is as recorded, 0 where it is wrong, NaN where neither is
            certain (after a jump, and beyond the end).
    """

    trajectories: Trajectories
    kinds: tuple[Kind, ...]
    severity: NDArray[np.float64]
    onset: NDArray[np.int64]
    labels: NDArray[np.float32]


@dataclass
class _Draft:
    """One episode being corrupted, without padding, and the set it comes from."""

    z: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    others: Trajectories
    reward_scale: float


def applicable_kinds(real: Trajectories) -> tuple[Kind, ...]:
    """The kinds that change anything here: no wrong reward where there is none, no splice from a single episode."""
    unfit = set()
    if is_constant(real.rewards[real.mask][:, None])[0]:
        unfit.add("reward")
    if is_constant(real.actions[real.mask]).all():
        unfit.add("action")
    if len(real) < 2:
        unfit |= {"splice", "action"}
    return tuple(kind for kind in KINDS if kind not in unfit)


def corrupt(
    real: Trajectories,
    kinds: Sequence[Kind],
    severity: NDArray[np.floating],
    seed: int,
    onset: NDArray[np.integer] | None = None,
) -> Corrupted:
    """Corrupt each episode once, in its own kind and severity.

    Args:
        real: the episodes, at least two steps each.
        kinds: N kinds.
        severity: (N,) in (0, 1].
        seed: of the places, directions and noise.
        onset: (N,) first wrong transition; drawn in the middle three fifths of the episode where it is None.
    """
    z, actions, rewards = real.z.copy(), real.actions.copy(), real.rewards.copy()
    labels = np.where(real.mask, 1.0, np.nan).astype(np.float32)
    begins = np.zeros(len(real), dtype=np.int64)
    scale = float(spread_of(real.rewards[real.mask][:, None])[0])
    for i, kind in enumerate(kinds):
        rng, length = numpy_generator(seed, "corrupt", i), int(real.lengths[i])
        drawn = int(rng.integers(length // 5, max(length * 4 // 5, length // 5 + 1)))
        k = 0 if kind in WHOLE else min(drawn if onset is None else int(onset[i]), length - 1)
        draft = _Draft(z[i, : length + 1], actions[i, :length], rewards[i, :length], real, scale)
        _FAULTS[kind](draft, k, float(severity[i]), rng)
        z[i, length + 1 :] = z[i, length]
        labels[i, k:length] = np.nan if kind in MOMENTARY else 0
        labels[i, k] = 0
        begins[i] = k
    ids = tuple(f"{name}~{kind}-{i}" for i, (name, kind) in enumerate(zip(real.ids, kinds, strict=True)))
    lineage = {"start_episode": tuple(real.lineage.get("start_episode", real.ids))}
    made = replace(
        real,
        z=z,
        actions=actions,
        rewards=rewards,
        ids=ids,
        lineage=lineage,
        trust=None,
        weights=None,
        episode_trust=None,
        uncertainty=None,
    )
    return Corrupted(made, tuple(kinds), np.asarray(severity, dtype=np.float64), begins, labels)


def graded(real: Trajectories, num_copies: int, seed: int, kinds: Sequence[Kind] = ()) -> Corrupted:
    """`num_copies` corrupted episodes: sources and kinds in turn, severities evenly over (0, 1]."""
    rng = numpy_generator(seed, "graded")
    chosen = tuple(kinds) or applicable_kinds(real)
    rows = np.concatenate([rng.permutation(len(real)) for _ in range(-(-num_copies // len(real)))])[:num_copies]
    dealt = [chosen[i % len(chosen)] for i in rng.permutation(num_copies)]
    severity = (rng.permutation(num_copies) + rng.random(num_copies)).clip(1e-3) / num_copies
    return corrupt(real.select(rows), dealt, severity, seed)


def _direction(d: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random signs on a random half or fewer of the dimensions, at least one."""
    chosen = rng.permutation(d) < rng.integers(1, max(d // 2, 1) + 1)
    return np.asarray(chosen * rng.choice([-1.0, 1.0], d))


def _jump(draft: _Draft, k: int, severity: float, rng: np.random.Generator) -> None:
    """From k on the state is displaced by up to 2 σ."""
    draft.z[k + 1 :] += (2 * severity * _direction(draft.z.shape[1], rng)).astype(np.float32)


def _splice(draft: _Draft, k: int, severity: float, rng: np.random.Generator) -> None:
    """From k on another episode goes on, from a state the farther away the more severe."""
    others, length = draft.others, len(draft.rewards)
    rows = rng.permutation(len(others))[:8]
    candidates = [(i, t) for i in rows for t in range(1, int(others.lengths[i]) + 1)]
    distance = np.array([np.abs(others.z[i, t] - draft.z[k + 1]).mean() for i, t in candidates])
    distance[distance < 1e-9] = np.inf  # the episode itself
    rank = min(int(severity * (np.isfinite(distance).sum() - 1)), len(candidates) - 1)
    i, t = candidates[int(np.argsort(distance)[rank])]
    count = min(length - k, int(others.lengths[i]) + 1 - t)
    draft.z[k + 1 : k + 1 + count] = others.z[i, t : t + count]
    draft.actions[k + 1 : k + count] = others.actions[i, t : t + count - 1]
    draft.rewards[k + 1 : k + count] = others.rewards[i, t : t + count - 1]
    draft.z[k + 1 + count :] = draft.z[k + count]


def _noise(draft: _Draft, k: int, severity: float, rng: np.random.Generator) -> None:
    """From k on the variance blows up: noise of up to 1 σ."""
    chosen = np.abs(_direction(draft.z.shape[1], rng))
    draft.z[k + 1 :] += (severity * chosen * rng.standard_normal(draft.z[k + 1 :].shape)).astype(np.float32)


def _scale(draft: _Draft, k: int, severity: float, rng: np.random.Generator) -> None:
    """From k on excursions from z_k are up to 2 times as large, or up to 2 times smaller."""
    factor = (1 + severity) ** rng.choice([-1.0, 1.0])
    draft.z[k + 1 :] = (draft.z[k] + factor * (draft.z[k + 1 :] - draft.z[k])).astype(np.float32)


def _drift(draft: _Draft, k: int, severity: float, rng: np.random.Generator) -> None:
    """From k on the state drifts away by up to 0.5 σ a step."""
    away = np.arange(1, len(draft.z) - k)[:, None] * _direction(draft.z.shape[1], rng)
    draft.z[k + 1 :] += (0.5 * severity * away).astype(np.float32)


def _frozen(draft: _Draft, k: int, severity: float, rng: np.random.Generator) -> None:
    """From k on a share of the dimensions stands still."""
    d = draft.z.shape[1]
    still = rng.permutation(d) < max(1, round(severity * d))
    draft.z[k + 1 :, still] = draft.z[k, still]


def _reward(draft: _Draft, k: int, severity: float, rng: np.random.Generator) -> None:
    """From k on every reward is off by up to 3 standard deviations of the reward, to one side."""
    draft.rewards[k:] += np.float32(3 * severity * draft.reward_scale * rng.choice([-1.0, 1.0]))


def _action(draft: _Draft, k: int, severity: float, rng: np.random.Generator) -> None:
    """From k on the recorded actions are mixed with those of another episode: the state does not follow them."""
    other = draft.others.actions[rng.integers(len(draft.others))]
    taken = other[np.arange(k, len(draft.actions)) % len(other)]
    draft.actions[k:] = ((1 - severity) * draft.actions[k:] + severity * taken).astype(np.float32)


def _smooth(draft: _Draft, k: int, severity: float, rng: np.random.Generator) -> None:
    """The whole episode is mixed with its own moving average over 5 steps, as a blurred prediction is."""
    padded = np.pad(draft.z.astype(np.float64), ((2, 2), (0, 0)), mode="edge")
    average = np.stack([padded[i : i + len(draft.z)] for i in range(5)]).mean(0)
    start = draft.z[0].copy()
    draft.z[:] = ((1 - severity) * draft.z + severity * average).astype(np.float32)
    draft.z[0] = start


def _warp(draft: _Draft, k: int, severity: float, rng: np.random.Generator) -> None:
    """The whole episode runs at up to twice, or down to half, the speed under the actions as recorded."""
    pace = (1 + severity) ** rng.choice([-1.0, 1.0])
    at = np.minimum(np.arange(len(draft.z)) * pace, len(draft.z) - 1)
    low = np.minimum(at.astype(np.int64), len(draft.z) - 2)
    part = (at - low)[:, None].astype(np.float32)
    draft.z[:] = (1 - part) * draft.z[low] + part * draft.z[low + 1]


_FAULTS: dict[Kind, Callable[[_Draft, int, float, np.random.Generator], None]] = {
    "jump": _jump,
    "splice": _splice,
    "noise": _noise,
    "scale": _scale,
    "drift": _drift,
    "frozen": _frozen,
    "reward": _reward,
    "action": _action,
    "smooth": _smooth,
    "warp": _warp,
}
