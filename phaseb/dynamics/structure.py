"""What the training latents themselves say: the basis to model them in, scale of a step, constants, jumping dimensions.

Nothing here knows what a dimension means: constants and events are found in the data, also where they are directions
that no single dimension shows. The dynamics work on *inner* coordinates y = (z − mean) · whiten: directions of unit
variance, those of continuous motion from the slowest to the fastest (slow feature analysis, Wiskott & Sejnowski 2002).
A latent that a network spread over more dimensions than the system has degrees of freedom holds directions of little
variance, and directions that an episode hardly moves along; errors there are small in z and yet leave the manifold of
real latents, which any judge sees at once.
Legend: N episodes, T steps, D latent dimensions, E event dimensions, L levels of an event dimension.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.binary_directions import complement, find_binary_directions
from phaseb.dynamics.discrete_levels import MAX_LEVELS, find_levels
from phaseb.episodes.resolution import is_constant

Floats = NDArray[np.float32]
Array = NDArray[np.float64]
MAX_LATENTS = 200_000
STILL = 1e-3  # a dimension that moves less than this share of its spread within every episode is constant
STILL_STEPS = 1e-8  # variance of the steps of a direction of unit variance below which it is constant
VARIANCE_FLOOR = 1e-5  # least variance of an inner direction, relative to the largest
MARGIN = 0.05  # share of its range by which a latent may leave what was seen
SLOWEST = 0.05  # errors along a direction count at most 1 / SLOWEST times


@dataclass(frozen=True)
class LatentStructure:
    """Frozen facts about the training latents; all but the basis are in inner coordinates.

    Attributes:
        mean: (D,) origin of the inner coordinates.
        whiten: (D, D) from z to inner coordinates.
        unwhiten: (D, D) its inverse.
        spread: (D,) std within an episode: the unit in which errors are counted.
        low, high: (D,) bounds of the latents seen, widened by a margin.
        step_scale: (D,) std of real one-step differences, floored.
        step_bound: (D,) largest predicted step allowed; inf where there is no clamp.
        moving: (D,) 1 where the dimension moves, 0 where it is held constant.
        event_dims: (E,) dimensions that jump between levels.
        levels: (E, L) their levels; NaN pads.
        reward_mean, reward_scale: () of the training rewards; a scale of one where they never vary.
    """

    mean: Floats
    whiten: Floats
    unwhiten: Floats
    spread: Floats
    low: Floats
    high: Floats
    step_scale: Floats
    step_bound: Floats
    varying: Floats
    event_dims: NDArray[np.int64]
    levels: Floats
    reward_mean: Floats
    reward_scale: Floats


def find_structure(z: Floats, rewards: Floats, mask: NDArray[np.bool_], config: GRUConfig) -> LatentStructure:
    """Look at real latents z (N, T+1, D) and rewards (N, T), of which the steps in mask (N, T) were taken.

    Of a large set evenly spaced episodes are looked at, about MAX_LATENTS: what is found holds for all.
    """
    every = max(1, z.shape[0] * z.shape[1] // MAX_LATENTS)
    z, rewards, mask = z[::every], rewards[::every], mask[::every]
    varying, events = find_discrete(z, mask, config)
    blended = varying & ~np.isin(np.arange(z.shape[-1]), list(events))
    basis = find_basis(z, mask, blended, config.find_events) if config.decorrelate else identity_basis(z.shape[-1])
    inner = ((z - basis[0]) @ basis[1]).astype(np.float32)
    varying, events = find_discrete(inner, mask, config)
    blended = varying & ~np.isin(np.arange(z.shape[-1]), list(events))
    steps = (inner[:, 1:] - inner[:, :-1])[mask]
    scale = np.maximum(steps.std(axis=0), 1e-3)
    reward_std = 1.0 if is_constant(rewards[mask][:, None])[0] else rewards[mask].std()
    padded = [np.pad(v, (0, MAX_LEVELS - len(v)), constant_values=np.nan) for v in events.values()]
    return LatentStructure(
        *basis,
        spread=find_spread(inner, mask) if config.decorrelate else np.ones(z.shape[-1], np.float32),
        **latent_bounds(inner, mask, blended & config.bound_latents),
        step_scale=scale.astype(np.float32),
        step_bound=step_bound(steps, config),
        varying=varying.astype(np.float32),
        event_dims=np.array(list(events), dtype=np.int64),
        levels=np.array(padded, dtype=np.float32).reshape(-1, MAX_LEVELS),
        reward_mean=np.array(rewards[mask].mean(), dtype=np.float32),
        reward_scale=np.array(reward_std, dtype=np.float32),
    )


def find_discrete(z: Floats, mask: NDArray[np.bool_], config: GRUConfig) -> tuple[NDArray[np.bool_], dict[int, Floats]]:
    """Which dimensions move (D,), and the levels of those among them that jump between a few."""
    if not config.find_events:
        return np.ones(z.shape[-1], dtype=bool), {}
    varying, events = ~find_constants(z, mask), find_levels(z, mask)
    return varying, {d: levels for d, levels in events.items() if varying[d]}


def find_basis(
    z: Floats, mask: NDArray[np.bool_], blended: NDArray[np.bool_], find_events: bool = True
) -> tuple[Floats, Floats, Floats]:
    """Mean (D,), map into the inner coordinates (D, D) and back; dimensions that are not `blended` stay as they are.

    Whitening first; then directions that are constant or have two values apart, and the others sorted by the variance
    of their steps. None is stretched by more than 1 / √VARIANCE_FLOOR: below that there is nothing to model.
    """
    mean, whiten, unwhiten = identity_basis(z.shape[-1])
    seen = np.concatenate([mask[:, :1], mask], axis=1)
    dims = np.flatnonzero(blended)
    if len(dims) < 2 or seen.sum() < 2:
        return mean, whiten, unwhiten
    rows = z[seen][:, dims].astype(np.float64)
    variance, directions = np.linalg.eigh(np.cov(rows.T))
    spread = np.sqrt(np.maximum(variance, VARIANCE_FLOOR * variance.max()))
    whitening = directions / spread
    steps = (z[:, 1:] - z[:, :-1])[mask][:, dims].astype(np.float64) @ whitening
    turn = _apart((rows - rows.mean(axis=0)) @ whitening, steps - steps.mean(axis=0), find_events)
    mean[dims] = rows.mean(axis=0)
    whiten[np.ix_(dims, dims)] = whitening @ turn
    unwhiten[np.ix_(dims, dims)] = np.linalg.inv(turn) @ (directions * spread).T
    return mean, whiten, unwhiten


def _apart(y: Array, steps: Array, find_events: bool) -> Array:
    """Columns (D, D): directions that never move, then from slow to fast what moves, then those of two values.

    All are of unit variance in white rows y (M, D), with steps (M', D). What is constant and what jumps may be
    correlated over episodes; the others are uncorrelated with both and with each other.
    """
    speed, slow_first = np.linalg.eigh(steps.T @ steps / len(steps))
    still = slow_first[:, speed < STILL_STEPS]
    binary = find_binary_directions(y) if find_events else np.zeros((y.shape[1], 0))
    binary = binary[:, np.square(steps @ binary).mean(axis=0) > STILL_STEPS]
    others = complement(np.linalg.qr(np.concatenate([still, binary], axis=1))[0])
    _, order = np.linalg.eigh(others.T @ steps.T @ steps @ others)
    return np.concatenate([still, others @ order, binary], axis=1)


def latent_bounds(inner: Floats, mask: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> dict[str, Floats]:
    """`low` and `high` (D,) of the latents seen, MARGIN of their range wider; infinite where not wanted (D,)."""
    rows = inner[np.concatenate([mask[:, :1], mask], axis=1)]
    low, high = rows.min(axis=0), rows.max(axis=0)
    margin = np.where(wanted, MARGIN * (high - low), np.inf)
    return {"low": (low - margin).astype(np.float32), "high": (high + margin).astype(np.float32)}


def find_spread(inner: Floats, mask: NDArray[np.bool_]) -> Floats:
    """(D,) std of inner coordinates (N, T+1, D) around their episode's mean, at least SLOWEST of the whole std."""
    seen = np.concatenate([mask[:, :1], mask], axis=1)[..., None]
    mean = (inner * seen).sum(axis=1, keepdims=True) / seen.sum(axis=1, keepdims=True)
    within = np.sqrt((np.square(inner - mean) * seen).sum(axis=(0, 1)) / seen.sum())
    return np.clip(within, SLOWEST, 1.0).astype(np.float32)


def identity_basis(size: int) -> tuple[Floats, Floats, Floats]:
    """The basis in which inner coordinates are the latents themselves."""
    return np.zeros(size, np.float32), np.eye(size, dtype=np.float32), np.eye(size, dtype=np.float32)


def step_bound(steps: Floats, config: GRUConfig) -> Floats:
    """Per-dimension clamp (D,): a quantile of real |Δz| over steps (M, D), times a margin; inf where it is off."""
    if config.clamp_quantile == 0:
        return np.full(steps.shape[-1], np.inf, dtype=np.float32)
    bound = np.quantile(np.abs(steps), config.clamp_quantile, axis=0)
    return np.maximum(bound, 1e-6).astype(np.float32)


def find_constants(z: Floats, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(D,) true where no episode moves the dimension by more than a thousandth of its spread over all episodes."""
    seen = np.concatenate([mask[:, :1], mask], axis=1)[..., None]
    moved = np.abs(np.where(seen, z - z[:, :1], 0)).max(axis=(0, 1))
    return np.asarray((moved <= STILL * z.std(axis=(0, 1))) | is_constant(z[seen[..., 0]]))


def empty_structure(latent_size: int, num_events: int) -> LatentStructure:
    """A structure of the right shapes whose values are still to be loaded."""
    ones, dims = np.ones(latent_size, dtype=np.float32), np.zeros(num_events, dtype=np.int64)
    levels = np.zeros((num_events, MAX_LEVELS), dtype=np.float32)
    unit = np.array(1.0, dtype=np.float32)
    return LatentStructure(*identity_basis(latent_size), ones, -ones, ones, ones, ones, ones, dims, levels, unit, unit)
