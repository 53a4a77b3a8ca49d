"""The probe of cameras: one that shows what the actions follow is missed, one that shows a wall is not."""

import numpy as np
import torch

from phaseb.config.encoder import LatentsConfig
from phaseb.episodes.actions import ActionScale
from phaseb.episodes.cameras import to_tag
from phaseb.episodes.episode import Episode
from phaseb.latents.fit import fit_encoder_model
from phaseb.latents.learner import make_learner
from phaseb.latents.padding import episode_arrays
from phaseb.nn.data_parallel import WorkerContext
from phaseb.stages.camera_probe import camera_probe

STEPS, SIDE = 30, 16


def make(number: int, cameras: int = 2) -> Episode:
    """A spot that wanders in the first camera, and is the action; the others always show the same."""
    rng = np.random.default_rng(number)
    place = np.cumsum(rng.normal(0, 0.15, (STEPS + 1, 2)), axis=0)
    place = np.abs((place + 1) % 4 - 2) - 1  # reflected into ±1
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) * 2 - 1
    spot = np.exp(-((x - place[:, :1, None]) ** 2 + (y - place[:, 1:, None]) ** 2) / 0.1)
    frames = np.repeat((255 * spot)[..., None], 3, axis=3).astype(np.uint8)
    still = np.random.default_rng(0).integers(0, 255, (cameras - 1, SIDE, SIDE, 3), np.uint8)
    others = [np.tile(picture, (STEPS + 1, 1, 1, 1)) for picture in still]
    return Episode(
        id=f"e{number}",
        rewards=np.zeros(STEPS, np.float32),
        actions=place[:-1].astype(np.float32),
        frames=np.concatenate([frames, *others], axis=3),
        split="train" if number < 10 else "dev",
        tags=to_tag([f"observation.images.{name}" for name in ("front", "wall", "floor")[:cameras]]),
    )


def probe(cameras: int) -> dict[str, float]:
    episodes = [make(i, cameras) for i in range(14)]
    config = LatentsConfig(num_dims=6, hidden=32, num_steps=60, stack=1, segment_steps=8)
    scale = ActionScale(np.full(2, -1.0), np.full(2, 1.0))
    learner = make_learner(config, episode_arrays(episodes, scale, "auto"), WorkerContext(0))
    for step in range(config.num_steps):
        learner.step(step)
    train = [e for e in episodes if e.split == "train"]
    return camera_probe(fit_encoder_model(config, learner.encoder, train, scale, 0), episodes, scale)


def test_what_each_camera_adds_is_what_the_actions_lose_without_it() -> None:
    torch.set_num_threads(1)
    found = probe(2)
    assert set(found) == {"probe_action_r2", "camera_front_adds", "camera_wall_adds"}
    assert found["probe_action_r2"] > 0.2, found
    assert found["camera_front_adds"] > 0.2, found
    assert abs(found["camera_wall_adds"]) < 0.15, found


def test_one_camera_is_not_compared() -> None:
    assert probe(1) == {}
