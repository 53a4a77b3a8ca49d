"""What the gate's networks learn from: real episodes and segments of them, corrupted copies, other models' rollouts.

P entries in the pool, T steps, I inputs. Every entry carries the fold of the real episode that it came from, so that
each of the K networks is asked only about episodes that it never saw in any shape.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from phaseb.config.trust import TrustConfig
from phaseb.episodes.trajectories import Trajectories, concatenate
from phaseb.errors import DataError
from phaseb.runtime.seeding import derive_seed, numpy_generator
from phaseb.trust.corruptions import Kind, graded
from phaseb.trust.gate_features import episode_inputs, transition_inputs
from phaseb.trust.one_step_residuals import RidgeDynamics, fit_ridge_dynamics

NUM_CROPS = 3
"""Random segments of each real episode to learn from, beside the whole."""
MIN_SEGMENT_STEPS = 8
"""Fewest steps of a segment."""
NUM_PREDICTOR_FEATURES = 512
"""Random features of the local one-step predictor."""

REAL, CORRUPTED, ROLLOUT = 0, 1, 2
_Part = tuple[Trajectories, int, NDArray[np.float32] | None, bool]


@dataclass(frozen=True)
class GateDataset:
    """The pool.

    Attributes:
        episodes: (P, I) inputs of the episode network.
        transitions: (P, T, I) inputs of the temporal network.
        mask: (P, T).
        labels: (P, T) float32: 1 real, 0 not, NaN where unknown.
        group: (P,) REAL, CORRUPTED or ROLLOUT.
        folds: (P,).
        whole: (P,) true where the entry was not cut out of a longer episode.
        kinds: (P,) kind of corruption, or "".
    """

    episodes: NDArray[np.float32]
    transitions: NDArray[np.float32]
    mask: NDArray[np.bool_]
    labels: NDArray[np.float32]
    group: NDArray[np.int64]
    folds: NDArray[np.int64]
    whole: NDArray[np.bool_]
    kinds: tuple[Kind | str, ...]


def check_finite(data: Trajectories, what: str) -> None:
    """Refuse NaN and Inf, which a network would turn into some trust or other.

    Raises:
        DataError: naming the episode and the array.
    """
    for name, array in (("z", data.z), ("actions", data.actions), ("rewards", data.rewards)):
        if not np.isfinite(array).all():
            episode = int(np.argwhere(~np.isfinite(array))[0][0])
            raise DataError(f"{what} {data.ids[episode]}: {name} has NaN or Inf; it cannot be trusted or weighed")


def build_dataset(
    config: TrustConfig, real: Trajectories, negatives: Trajectories, seed: int
) -> tuple[GateDataset, RidgeDynamics]:
    """Deal the folds by episode, fit the local predictor, and make the pool.

    Raises:
        DataError: where there are fewer real episodes than folds, sizes differ, or values are not finite.
    """
    names = list(dict.fromkeys(_origins(real)))
    if len(names) < config.num_folds:
        raise DataError(f"{len(names)} real episodes are fewer than trust.num_folds={config.num_folds}; lower it")
    if len(negatives) and negatives.z.shape[2] != real.z.shape[2]:
        raise DataError(f"rollouts have {negatives.z.shape[2]} latent dimensions, real episodes {real.z.shape[2]}")
    check_finite(real, "real episode")
    check_finite(negatives, "rollout")
    rng = numpy_generator(seed, "trust", "folds")
    by_name = dict(zip(names, (rng.permutation(len(names)) % config.num_folds).tolist(), strict=True))
    folds = np.array([by_name[name] for name in _origins(real)])
    predictor = fit_ridge_dynamics(real, folds, NUM_PREDICTOR_FEATURES, derive_seed(seed, "trust"))
    parts = _parts(config, real, negatives, seed)
    everything = concatenate([part for part, *_ in parts])
    group = np.concatenate([np.full(len(part), kind) for part, kind, *_ in parts])
    stranger = rng.integers(0, config.num_folds, len(everything))
    entry_folds = np.array([by_name.get(n, int(f)) for n, f in zip(_origins(everything), stranger, strict=True)])
    labels = _labels(parts, everything.mask)
    whole = np.concatenate([np.full(len(part), uncut) for part, _, _, uncut in parts])
    kinds = tuple(
        name.rpartition("~")[2].partition("-")[0] if g == CORRUPTED else ""
        for name, g in zip(everything.ids, group, strict=True)
    )
    transitions = _inputs_by_fold(everything, predictor, entry_folds)
    material = GateDataset(
        episode_inputs(everything), transitions, everything.mask, labels, group, entry_folds, whole, kinds
    )
    return material, predictor


def crop(data: Trajectories, starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> Trajectories:
    """Segments of `lengths` steps from `starts` on, padded as trajectories are."""
    steps = np.arange(data.rewards.shape[1])[None]
    rows, inside = np.arange(len(data))[:, None], steps < lengths[:, None]
    at = np.where(inside, starts[:, None] + steps, 0)
    states = starts[:, None] + np.minimum(np.arange(data.z.shape[1])[None], lengths[:, None])
    return replace(
        data,
        z=data.z[rows, states],
        actions=data.actions[rows, at] * inside[..., None],
        rewards=data.rewards[rows, at] * inside,
        terminals=data.terminals[rows, at] * inside,
        lengths=np.asarray(lengths, dtype=np.int64),
        lineage={"start_episode": _origins(data)},
        start_step=None,
        uncertainty=None,
        trust=None,
        weights=None,
        episode_trust=None,
        metrics={},
    )


def random_crops(data: Trajectories, min_steps: int, rng: np.random.Generator) -> Trajectories:
    """One segment of each episode: length uniform from `min_steps` to all of it, at a uniform place."""
    shortest = np.minimum(min_steps, data.lengths)
    lengths = rng.integers(shortest, data.lengths + 1)
    return crop(data, rng.integers(0, data.lengths - lengths + 1), lengths)


def _parts(config: TrustConfig, real: Trajectories, negatives: Trajectories, seed: int) -> list[_Part]:
    """Sets with their group, labels where they are not the same at every step, and whether they are uncut."""
    rng = numpy_generator(seed, "trust", "crops")
    whole = crop(real, np.zeros(len(real), dtype=np.int64), real.lengths)
    segments = [random_crops(real, MIN_SEGMENT_STEPS, rng) for _ in range(NUM_CROPS)]
    parts: list[_Part] = [(whole, REAL, None, True)]
    parts += [(segment, REAL, None, False) for segment in segments]
    # Half of the faults lie in whole episodes, half in segments: neither length nor place may give them away.
    half = config.num_corruptions // 2
    for i, source in enumerate((whole, concatenate(segments or [whole]))):
        wrong = graded(source, half, derive_seed(seed, "trust", "corruptions", i))
        parts.append((wrong.trajectories, CORRUPTED, wrong.labels, i == 0))
    if len(negatives):
        rollouts = crop(negatives, np.zeros(len(negatives), dtype=np.int64), negatives.lengths)
        parts += [(rollouts, ROLLOUT, None, True)]
        parts += [(random_crops(negatives, MIN_SEGMENT_STEPS, rng), ROLLOUT, None, False)]
    return parts


def _origins(data: Trajectories) -> tuple[str, ...]:
    return data.lineage.get("start_episode", data.ids)


def _labels(parts: list[_Part], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(P, T) of all parts: those given, elsewhere whether the part is real; NaN beyond the end."""
    labels = np.full(mask.shape, np.nan, dtype=np.float32)
    row = 0
    for data, group, given, _ in parts:
        here = slice(row, row + len(data))
        labels[here] = float(group == REAL)
        if given is not None:
            labels[here, : given.shape[1]] = given
        row += len(data)
    return np.where(mask, labels, np.nan).astype(np.float32)


def _inputs_by_fold(data: Trajectories, predictor: RidgeDynamics, folds: NDArray[np.int64]) -> NDArray[np.float32]:
    parts = [(np.flatnonzero(folds == k), k) for k in range(predictor.num_folds)]
    found = [(rows, transition_inputs(data.select(rows), predictor, k)) for rows, k in parts if len(rows)]
    inputs = np.zeros((len(data), *found[0][1].shape[1:]), dtype=np.float32)
    for rows, values in found:
        inputs[rows] = values
    return inputs
