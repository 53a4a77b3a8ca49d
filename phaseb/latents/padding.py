"""Episodes as padded arrays: what the encoder trains on and encodes.

N episodes, T the longest number of steps, S state size, A action size, frames of H x W x C.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.actions import ActionScale
from phaseb.episodes.episode import METRICS, Episode
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError

Arrays = dict[str, NDArray[np.generic]]
Observation = Literal["auto", "state", "frames", "both"]


def resolve_observation(episodes: Sequence[Episode], wanted: Observation) -> Literal["state", "frames", "both"]:
    """What the encoder is to see: as configured, or by `auto` everything that all episodes have.

    Raises:
        DataError: where there is no episode, or an episode lacks what is asked for.
    """
    if not episodes:
        raise DataError("no episodes to encode; collect or import some first")
    lacks_state = next((e.id for e in episodes if e.state is None), None)
    lacks_frames = next((e.id for e in episodes if e.frames is None), None)
    if wanted == "auto":
        if lacks_state is not None and lacks_frames is not None:
            raise DataError(f"{lacks_state} has no state and {lacks_frames} no frames; import them apart")
        return "frames" if lacks_state is not None else "state" if lacks_frames is not None else "both"
    if wanted in ("state", "both") and lacks_state is not None:
        raise DataError(f"episode {lacks_state} has no state; set latents.observation=frames or auto")
    if wanted in ("frames", "both") and lacks_frames is not None:
        raise DataError(f"episode {lacks_frames} has no frames; set latents.observation=state or auto")
    return wanted


def episode_arrays(
    episodes: Sequence[Episode], action_scale: ActionScale | None = None, observation: Observation = "auto"
) -> Arrays:
    """Episodes padded to one length, for `make_learner` (and cheap to ship to workers).

    Returns:
        `lengths` (N,) int64; `validation` (N,) bool, true for the dev split, which is never trained on; `has_actions`
        (N,) bool; `actions` (N, T, A) in [-1, 1], zero where unknown; and by `observation` `state` (N, T+1, S) float32
        and `frames` (N, T+1, H, W, C) uint8, padded by repeating the last.

    Raises:
        DataError: where episodes differ in shape or lack what is asked for.
    """
    seen = resolve_observation(episodes, observation)
    steps = max(len(e) for e in episodes)
    arrays: Arrays = {
        "lengths": np.array([len(e) for e in episodes], dtype=np.int64),
        "validation": np.array([e.split == "dev" for e in episodes], dtype=bool),
        "has_actions": np.array([e.actions is not None for e in episodes], dtype=bool),
        "actions": pad_actions(episodes, action_scale, steps),
    }
    if seen in ("state", "both"):
        arrays["state"] = _pad(episodes, "state", steps + 1)
    if seen in ("frames", "both"):
        arrays["frames"] = _pad(episodes, "frames", steps + 1)
    return arrays


def pad_actions(episodes: Sequence[Episode], scale: ActionScale | None, steps: int) -> NDArray[np.float32]:
    """(N, steps, A) scaled actions; zeros in padding and where an episode has none. A = 0 where no episode has any."""
    sizes = {e.actions.shape[1] for e in episodes if e.actions is not None}
    if len(sizes) > 1:
        raise DataError(f"episodes have actions of different sizes: {sorted(sizes)}; import them as separate data sets")
    out = np.zeros((len(episodes), steps, sizes.pop() if sizes else 0), dtype=np.float32)
    for i, episode in enumerate(episodes):
        if episode.actions is not None:
            out[i, : len(episode)] = scale.normalise(episode.actions) if scale is not None else episode.actions
    return out


def to_trajectories(episodes: Sequence[Episode], z: NDArray[np.float32], actions: NDArray[np.float32]) -> Trajectories:
    """Episodes with their padded latents (N, T+1, D) and scaled actions (N, T, A); tags become lineage `tag/NAME`."""
    count, steps = actions.shape[:2]
    rewards, terminals = np.zeros((2, count, steps), dtype=np.float32)
    for i, episode in enumerate(episodes):
        rewards[i, : len(episode)] = episode.rewards
        terminals[i, len(episode) - 1] = float(episode.terminated)
    tags = sorted({name for e in episodes for name in e.tags})
    return Trajectories(
        z=z,
        actions=actions,
        rewards=rewards,
        terminals=terminals,
        lengths=np.array([len(e) for e in episodes], dtype=np.int64),
        ids=tuple(e.id for e in episodes),
        splits=tuple(e.split for e in episodes),
        metrics={n: np.array([e.metrics.get(n, np.nan) for e in episodes], dtype=np.float64) for n in METRICS},
        lineage={f"tag/{n}": tuple(e.tags.get(n, "") for e in episodes) for n in tags},
        start_step=np.zeros(count, dtype=np.int64),
    )


def _pad(episodes: Sequence[Episode], name: str, rows: int) -> NDArray[np.generic]:
    parts: list[NDArray[np.generic]] = [getattr(e, name) for e in episodes]
    for episode, part in zip(episodes, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise DataError(
                f"episode {episode.id}: {name} has shape {part.shape[1:]} a step, {episodes[0].id} has "
                f"{parts[0].shape[1:]}; import them as separate data sets"
            )
    out = np.empty((len(parts), rows, *parts[0].shape[1:]), dtype=np.result_type(*{part.dtype for part in parts}))
    for i, part in enumerate(parts):
        out[i, : len(part)] = part
        out[i, len(part) :] = part[-1]
    return out
