"""Real episodes: operators at the cell, and recorded actions played again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.data import EnvironmentConfig
from phaseb.episodes.environment import record
from phaseb.episodes.episode import Episode
from phaseb.errors import DataError
from phaseb.runtime.seeding import derive_seed
from phaseb.workcell.batch import BatchedCell
from phaseb.workcell.operators import OperatorCrew, draw_operator


def collect_episodes(config: EnvironmentConfig, seed: int, indices: Sequence[int]) -> list[Episode]:
    """The episodes number `indices` of the data set `seed`.

    Episode i depends on (config, seed, i) alone, whoever collects it and beside which others. Its tags say the
    operator's kind, habits (`operator_pace`, …) and the cell's seed, with which it can be played again.
    """
    if not indices:
        return []
    seeds = [derive_seed(seed, "episode", i) for i in indices]
    kinds, operators = zip(*(draw_operator(s) for s in seeds), strict=True)
    # Operators read the instruments even where the recording keeps the camera alone.
    shown = "both" if config.observation == "frames" else config.observation
    cell = BatchedCell(len(seeds), shown, config.max_steps)
    tags = [
        {"operator": kind, "seed": str(s)} | {f"operator_{name}": f"{value:.6g}" for name, value in asdict(who).items()}
        for kind, who, s in zip(kinds, operators, seeds, strict=True)
    ]
    episodes = record(cell, OperatorCrew(operators), seeds, [f"real-{i:06d}" for i in indices], tags)
    return [replace(e, state=None) for e in episodes] if config.observation == "frames" else episodes


def replay_episodes(config: EnvironmentConfig, episodes: Sequence[Episode], noise_seed: int) -> list[Episode]:
    """The same starts and the same actions once more, with sensor noise redrawn: the simulator against itself.

    Raises:
        DataError: an episode that was not collected here (no `seed` tag), or of another length than the first.
    """
    if not episodes:
        return []
    for episode in episodes:
        if episode.actions is None or "seed" not in episode.tags or len(episode) != len(episodes[0]):
            wanted = "it needs actions, a seed tag and the others' length"
            raise DataError(f"episode {episode.id} cannot be played again: {wanted}")
    actions = np.stack([e.actions for e in episodes if e.actions is not None])
    seeds = [int(e.tags["seed"]) for e in episodes]
    cell = _RenoisedCell(config, actions.shape[1], noise_seed, len(episodes))
    ids, tags = [f"{e.id}-replay" for e in episodes], [e.tags for e in episodes]
    replayed = record(cell, _Recording(actions), seeds, ids, tags)
    return [replace(new, split=old.split) for new, old in zip(replayed, episodes, strict=True)]


class _RenoisedCell(BatchedCell):
    def __init__(self, config: EnvironmentConfig, num_steps: int, noise_seed: int, num_envs: int) -> None:
        super().__init__(num_envs, config.observation, num_steps)
        self._noise_seed = noise_seed

    def reset(self, seeds: Sequence[int], noise_seeds: Sequence[int] | None = None) -> dict[str, NDArray[Any]]:
        return super().reset(seeds, [derive_seed(self._noise_seed, "replay", s) for s in seeds])


class _Recording:
    """A `Controller` that plays (N, T, A) recorded actions."""

    def __init__(self, actions_NTA: NDArray[np.float32]) -> None:
        self._actions, self._step = actions_NTA, 0

    def reset(self, seeds: Sequence[int]) -> None:
        self._step = 0

    def act(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        self._step += 1
        return self._actions[:, self._step - 1]
