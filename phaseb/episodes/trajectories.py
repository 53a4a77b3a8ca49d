"""Many episodes in latent space as padded arrays: what the domains below `episodes` hand to each other.

N episodes, T the longest number of steps, D latent dimensions, A action dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Trajectories:
    """Latent episodes, padded by repeating the last observation and by zeros elsewhere.

    Attributes:
        z: (N, T+1, D) standardised latents.
        actions: (N, T, A) actions scaled to [-1, 1].
        rewards: (N, T).
        terminals: (N, T), 1 where the task ended after the step (its successor has no value), else 0.
        lengths: (N,) int64, number of steps of each.
        ids: N names.
        splits: N of "train", "dev", "test" or "".
        metrics: economics by name, each (N,) float64 with NaN where unknown.
        lineage: text by name, each N long; for synthetic ones `start_episode`, `model`, `action_source`.
        start_step: (N,) step of the start episode that a synthetic one branched from; zeros for real ones.
        uncertainty: (N, T) the world model's epistemic estimate a step, or None.
        trust: (N, T) transition trust in [0, 1], or None where unscored.
        weights: (N, T) the gate's weights, or None where ungated.
        episode_trust: (N,) or None.

    Raises:
        ValueError: for columns whose shapes do not fit each other.
    """

    z: Floats
    actions: Floats
    rewards: Floats
    terminals: Floats
    lengths: NDArray[np.int64]
    ids: tuple[str, ...]
    splits: tuple[str, ...]
    metrics: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    lineage: dict[str, tuple[str, ...]] = field(default_factory=dict)
    start_step: NDArray[np.int64] | None = None
    uncertainty: Floats | None = None
    trust: Floats | None = None
    weights: Floats | None = None
    episode_trust: Floats | None = None

    def __post_init__(self) -> None:
        rows, steps = self.rewards.shape
        shapes: dict[str, tuple[int, ...]] = {"z": (rows, steps + 1)}
        shapes |= dict.fromkeys(("actions", "terminals", "uncertainty", "trust", "weights"), (rows, steps))
        shapes |= dict.fromkeys(("lengths", "start_step", "episode_trust"), (rows,))
        for name, wanted in shapes.items():
            found = getattr(self, name)
            if found is not None and found.shape[: len(wanted)] != wanted:
                raise ValueError(f"{name} has shape {found.shape}, wanted {wanted} first: rewards are {(rows, steps)}")
        named = {"ids": self.ids, "splits": self.splits, **self.metrics, **self.lineage}
        for name, values in named.items():
            if len(values) != rows:
                raise ValueError(f"{name} has {len(values)} values for {rows} trajectories")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(N, T) true at real steps."""
        return np.arange(self.rewards.shape[1])[None] < self.lengths[:, None]

    def select(self, index: NDArray[np.integer] | NDArray[np.bool_] | Sequence[int]) -> "Trajectories":
        """The episodes at `index` (integers or a mask), in that order. Neighbours are views: write into neither."""
        rows = np.asarray(index)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        # What processes share stays shared: a copy of a large set for every one of them would not fit.
        beside = len(rows) > 0 and rows[0] >= 0 and bool((np.diff(rows) == 1).all())
        chosen = slice(int(rows[0]), int(rows[-1]) + 1) if beside else rows

        def take(array: NDArray | None) -> NDArray | None:  # type: ignore[type-arg]
            return None if array is None else array[chosen]

        def pick(texts: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(texts[i] for i in rows)

        return replace(
            self,
            z=self.z[chosen],
            actions=self.actions[chosen],
            rewards=self.rewards[chosen],
            terminals=self.terminals[chosen],
            lengths=self.lengths[chosen],
            ids=pick(self.ids),
            splits=pick(self.splits),
            metrics={name: values[chosen] for name, values in self.metrics.items()},
            lineage={name: pick(values) for name, values in self.lineage.items()},
            start_step=take(self.start_step),
            uncertainty=take(self.uncertainty),
            trust=take(self.trust),
            weights=take(self.weights),
            episode_trust=take(self.episode_trust),
        )

    def by_split(self, *names: str) -> "Trajectories":
        """The episodes of the named splits, one split after the other, so that each of them is a view of the whole."""
        return self.select([i for name in names for i, s in enumerate(self.splits) if s == name])

    def split(self, *names: str) -> "Trajectories":
        """The episodes of the named splits."""
        return self.select(np.array([s in names for s in self.splits], dtype=bool))

    def at_least(self, steps: int) -> "Trajectories":
        """The episodes of at least `steps` steps, cut to exactly that many columns."""
        chosen = self.select(self.lengths >= steps)

        def cut(array: NDArray | None) -> NDArray | None:  # type: ignore[type-arg]
            return None if array is None else array[:, :steps]

        return replace(
            chosen,
            z=chosen.z[:, : steps + 1],
            actions=chosen.actions[:, :steps],
            rewards=chosen.rewards[:, :steps],
            terminals=chosen.terminals[:, :steps],
            lengths=np.minimum(chosen.lengths, steps),
            uncertainty=cut(chosen.uncertainty),
            trust=cut(chosen.trust),
            weights=cut(chosen.weights),
        )


def concatenate(parts: Sequence[Trajectories]) -> Trajectories:
    """Several sets as one; shorter ones are padded, optional columns are kept where every part has them."""
    steps = max(part.rewards.shape[1] for part in parts)

    def join(arrays: Sequence[NDArray | None], extra: int = 0, edge: bool = False) -> NDArray | None:  # type: ignore[type-arg]
        if any(a is None for a in arrays):
            return None
        padded = []
        for a in arrays:
            assert a is not None
            width = [(0, 0), (0, steps + extra - a.shape[1])] + [(0, 0)] * (a.ndim - 2)
            padded.append(np.pad(a, width, mode="edge" if edge else "constant"))
        return np.concatenate(padded)

    def chain(arrays: Sequence[NDArray | None]) -> NDArray | None:  # type: ignore[type-arg]
        return None if any(a is None for a in arrays) else np.concatenate([a for a in arrays if a is not None])

    z = join([p.z for p in parts], 1, edge=True)
    actions, rewards = join([p.actions for p in parts]), join([p.rewards for p in parts])
    terminals = join([p.terminals for p in parts])
    assert z is not None
    assert actions is not None
    assert rewards is not None
    assert terminals is not None
    names = set.intersection(*(set(p.metrics) for p in parts))
    lineage = set.intersection(*(set(p.lineage) for p in parts))
    return Trajectories(
        z=z,
        actions=actions,
        rewards=rewards,
        terminals=terminals,
        lengths=np.concatenate([p.lengths for p in parts]),
        ids=tuple(i for p in parts for i in p.ids),
        splits=tuple(s for p in parts for s in p.splits),
        metrics={n: np.concatenate([p.metrics[n] for p in parts]) for n in sorted(names)},
        lineage={n: tuple(v for p in parts for v in p.lineage[n]) for n in sorted(lineage)},
        start_step=chain([p.start_step for p in parts]),
        uncertainty=join([p.uncertainty for p in parts]),
        trust=join([p.trust for p in parts]),
        weights=join([p.weights for p in parts]),
        episode_trust=chain([p.episode_trust for p in parts]),
    )
