"""Bricks: clusters of episodes, what each is worth, and the manifest that tells it."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.bricks.clusters import Clusters, fit_clusters
from phaseb.bricks.economics import EconomicTable, Estimate, economic_table
from phaseb.bricks.features import episode_features
from phaseb.config.data import ValuationConfig
from phaseb.config.encoder import BricksConfig
from phaseb.episodes.episode import TASK_TAG
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.runtime.seeding import numpy_generator

TASK_LINEAGE = f"tag/{TASK_TAG}"
NUM_BOOTSTRAP = 1000
"""Resamples of a brick's episodes for its intervals."""

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Brick:
    """One cluster: its name, its members (all splits), and the economics of those it was fitted on."""

    id: str
    members: tuple[str, ...]
    economics: dict[str, Estimate]


@dataclass(frozen=True)
class Bricks:
    """The bricks of a data set, the most valuable first.

    Attributes:
        labels: (N,) brick number of each episode of `trajectories`.
        map: (N, 2) coordinates of each episode on the first two principal components.
        tasks: (N,) the task of each episode, "" where it has none.
        by_task: of each of several tasks its episodes, and what those that were fitted on earned.
    """

    config: BricksConfig
    valuation: ValuationConfig
    clusters: Clusters
    bricks: tuple[Brick, ...]
    labels: NDArray[np.int64]
    map: NDArray[np.float64]
    trajectories: Trajectories
    energy_counted: bool
    tasks: tuple[str, ...]
    by_task: tuple[Brick, ...]

    def assign(self, trajectories: Trajectories) -> NDArray[np.int64]:
        """(N,) brick number of other episodes, synthetic ones say: the nearest centre."""
        return self.clusters.assign(episode_features(trajectories))

    def manifest(self) -> dict[str, Any]:
        """The manifest as strict JSON: unknown numbers are null."""
        return {
            "version": MANIFEST_VERSION,
            "num_bricks": len(self.bricks),
            "silhouette": _plain(self.clusters.silhouette),
            "features": ["std", "step"],
            "valuation": {**self.valuation.model_dump(), "energy_counted": self.energy_counted},
            "bricks": [self._brick(number) for number in range(len(self.bricks))],
            "tasks": [
                {"task": one.id, "num_episodes": len(one.members), "economics": _told(one.economics)}
                for one in self.by_task
            ],
            "episodes": [self._episode(row) for row in range(len(self.trajectories))],
        }

    def _brick(self, number: int) -> dict[str, Any]:
        brick, points = self.bricks[number], self.map[self.labels == number]
        counts = Counter(task for task, label in zip(self.tasks, self.labels, strict=True) if label == number)
        centre = [float(x) for x in points.mean(0)] if len(points) else None
        return {
            "id": brick.id,
            "num_episodes": len(brick.members),
            "economics": _told(brick.economics),
            "tasks": dict(sorted(counts.items())) if self.by_task else {},
            "map": centre,
            "members": list(brick.members),
        }

    def _episode(self, row: int) -> dict[str, Any]:
        data = self.trajectories
        return {
            "id": data.ids[row],
            "brick": self.bricks[self.labels[row]].id,
            "split": data.splits[row],
            "num_steps": int(data.lengths[row]),
            "return": float(data.rewards[row].sum()),
            "map": [float(x) for x in self.map[row]],
            "metrics": {name: _plain(values[row]) for name, values in data.metrics.items()},
            "lineage": {name: values[row] for name, values in data.lineage.items()},
        }


def fit_bricks(config: BricksConfig, valuation: ValuationConfig, trajectories: Trajectories, seed: int = 0) -> Bricks:
    """Cluster episodes and value each cluster.

    Where some episodes are of the train split, only those shape and value the bricks; the others are sorted in.

    Raises:
        DataError: where there is no episode.
    """
    if len(trajectories) == 0:
        raise DataError("no episodes to make bricks of")
    features = episode_features(trajectories)
    fitted = np.array([split == "train" for split in trajectories.splits])
    fitted = fitted if fitted.any() else np.ones(len(fitted), dtype=bool)
    clusters = fit_clusters(config, features[fitted], seed)
    table = economic_table(trajectories.metrics, len(trajectories), valuation)
    labels = clusters.assign(features)

    def profile(rows: NDArray[np.intp], number: int) -> dict[str, Estimate]:
        return _profile(table, rows[fitted[rows]], NUM_BOOTSTRAP, seed, number)

    profiles = [profile(np.flatnonzero(labels == k), k) for k in range(len(clusters.centres))]
    order = np.array(sorted(range(len(profiles)), key=lambda k: _rank(profiles[k], int((labels == k).sum()))))
    clusters, labels = clusters.reorder(order), np.argsort(order)[labels]
    bricks = tuple(
        Brick(f"brick-{i:02d}", tuple(trajectories.ids[r] for r in np.flatnonzero(labels == i)), profiles[k])
        for i, k in enumerate(order)
    )
    points = clusters.project(features)
    points = np.pad(points, ((0, 0), (0, max(0, 2 - points.shape[1]))))[:, :2]
    tasks = trajectories.lineage.get(TASK_LINEAGE, ("",) * len(trajectories))
    found = sorted(set(tasks) - {""})
    rows_of = {task: np.flatnonzero(np.array(tasks) == task) for task in found if len(found) > 1}
    by_task = tuple(
        Brick(task, tuple(trajectories.ids[r] for r in rows), profile(rows, k))
        for k, (task, rows) in enumerate(rows_of.items())
    )
    return Bricks(
        config, valuation, clusters, bricks, labels, points, trajectories, table.energy_counted, tasks, by_task
    )


def _profile(
    table: EconomicTable, rows: NDArray[np.intp], num_bootstrap: int, seed: int, number: int
) -> dict[str, Estimate]:
    return table.profile(rows, num_bootstrap, numpy_generator(seed, "bricks", "bootstrap", number))


def _rank(profile: dict[str, Estimate], size: int) -> tuple[bool, float, int]:
    value = profile["value_per_hour"].value
    return (not np.isfinite(value), -value if np.isfinite(value) else 0.0, -size)


def _told(economics: dict[str, Estimate]) -> dict[str, Any]:
    return {
        name: {"value": _plain(e.value), "low": _plain(e.low), "high": _plain(e.high)} for name, e in economics.items()
    }


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
