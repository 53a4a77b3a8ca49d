"""What each camera adds: a linear probe of recorded actions from the latents, with all cameras and without each."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.actions import ActionScale
from phaseb.episodes.cameras import COLOURS, camera_names, short_camera
from phaseb.episodes.episode import Episode
from phaseb.latents.model import EncoderModel
from phaseb.latents.probe import linear_probe

MOST_EPISODES = 16
"""Episodes of each split that the probe looks at."""


def camera_probe(bundle: EncoderModel, episodes: Sequence[Episode], scale: ActionScale | None) -> dict[str, float]:
    """R² of recorded actions on dev episodes, and by how much it falls without each camera.

    A camera that is left out shows its mean training picture in every frame, to the probe's training too.

    Args:
        bundle: the trained encoder.
        episodes: of the splits train and dev, with frames.
        scale: of the actions.

    Returns:
        `probe_action_r2` and `camera_NAME_adds`; nothing where there are not several cameras, actions and both splits.
    """
    shape = bundle.spec.frame_shape
    train, dev = ([e for e in episodes if e.split == split][:MOST_EPISODES] for split in ("train", "dev"))
    known = scale is not None and all(e.actions is not None and e.frames is not None for e in (*train, *dev))
    if shape is None or shape[2] <= COLOURS + 1 or not (train and dev and known):
        return {}
    names = camera_names(train[0].tags, shape[2])
    mean = _mean_picture(train)
    whole = _score(bundle, train, dev, None, mean)
    told = {"probe_action_r2": whole}
    for i, name in enumerate(names):
        told[f"camera_{short_camera(name)}_adds"] = whole - _score(bundle, train, dev, i, mean)
    return told


def _mean_picture(episodes: Sequence[Episode]) -> NDArray[np.uint8]:
    """(H, W, C) the mean of the frames of some episodes."""
    means = [e.frames.mean(axis=0, dtype=np.float64) for e in episodes if e.frames is not None]
    weights = [len(e) + 1 for e in episodes if e.frames is not None]
    return np.asarray(np.average(means, axis=0, weights=weights).round(), np.uint8)


def _score(
    bundle: EncoderModel, train: Sequence[Episode], dev: Sequence[Episode], without: int | None, mean: NDArray[np.uint8]
) -> float:
    """Mean R² over the actions that move, of a probe fitted to training episodes."""
    rows = [_rows(bundle, part, without, mean) for part in (train, dev)]
    scores = np.array(list(linear_probe(*rows[0], *rows[1]).values()))
    return float(scores[np.isfinite(scores)].mean()) if np.isfinite(scores).any() else float("nan")


def _rows(
    bundle: EncoderModel, episodes: Sequence[Episode], without: int | None, mean: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    z = np.concatenate([bundle.encode_episode(_blanked(e, without, mean))[:-1] for e in episodes])
    actions = np.concatenate([e.actions for e in episodes if e.actions is not None])
    return z, {f"action_{i}": column for i, column in enumerate(actions.T)}


def _blanked(episode: Episode, without: int | None, mean: NDArray[np.uint8]) -> Episode:
    """The episode with one camera showing its mean picture."""
    if without is None or episode.frames is None:
        return episode
    channels = slice(COLOURS * without, COLOURS * (without + 1))
    frames = episode.frames.copy()
    frames[..., channels] = mean[..., channels]
    return replace(episode, frames=frames)
