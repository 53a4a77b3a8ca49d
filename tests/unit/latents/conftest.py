"""A cart with a swinging load in NumPy, drawn as blobs: enough of a cell to learn latents from, and no other code."""

from dataclasses import replace

import numpy as np
import pytest

from phaseb.config.encoder import LatentActionsConfig, LatentsConfig
from phaseb.episodes.episode import Episode

STEPS, SIDE, DT = 40, 32, 0.25


def simulate(index: int, steps: int = STEPS, frames: bool = True) -> tuple[Episode, dict[str, np.ndarray]]:
    """One episode and the truth that no sensor noise hides: cart, hook, swing, loaded, mass."""
    rng = np.random.default_rng(1000 + index)
    mass, goal, gain = rng.uniform(0.2, 1.0), rng.uniform(-1.2, 1.2), rng.uniform(1.0, 4.0)
    x, v, angle, rate, loaded = rng.uniform(-1.2, 1.2), 0.0, 0.0, 0.0, -1.0
    truth, states, actions = [], [], []
    for t in range(steps + 1):
        truth.append((x, x + np.sin(angle), angle, loaded, mass))
        states.append((x, v, angle, rate, loaded, goal - x, mass))
        if t == steps:
            break
        action = np.clip(gain * (goal - x) - 1.5 * v + 0.5 * rng.standard_normal(), -1, 1)
        if abs(goal - x) < 0.1:
            goal, loaded = rng.uniform(-1.2, 1.2), -loaded
        for _ in range(10):
            force = 4.0 * action - 0.5 * v
            v += DT / 10 * force
            rate += DT / 10 * (-9.81 * np.sin(angle) - force * np.cos(angle) - 0.3 * rate)
            x, angle = np.clip(x + DT / 10 * v, -1.8, 1.8), angle + DT / 10 * rate
        actions.append((action,))
    state = np.array(states) + 0.005 * rng.standard_normal((steps + 1, 7))
    columns = dict(zip(("cart", "hook", "swing", "loaded", "mass"), np.array(truth).T, strict=True))
    episode = Episode(
        id=f"sim-{index:03d}",
        rewards=rng.standard_normal(steps).astype(np.float32),
        state=state.astype(np.float32),
        frames=draw(columns) if frames else None,
        actions=np.array(actions, dtype=np.float32),
        split="train",
        metrics={"mpl": 10.0 * gain},
        tags={"operator": "x"},
    )
    return episode, columns


def draw(truth: dict[str, np.ndarray]) -> np.ndarray:
    """(T+1, 32, 32, 3) frames: the cart in red, the hook in green, the load in blue and as large as it is heavy."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(float)
    scale = SIDE / 5.6

    def blob(x: np.ndarray, y: np.ndarray, width: np.ndarray) -> np.ndarray:
        px, py = SIDE / 2 + scale * x, SIDE * 0.3 + scale * y
        return np.exp(
            -0.5 * ((columns - px[:, None, None]) ** 2 + (rows - py[:, None, None]) ** 2) / width[:, None, None] ** 2
        )

    one = np.ones_like(truth["cart"])
    hook_y = np.cos(truth["swing"]) * 2
    red = blob(truth["cart"], 0 * one, 1.5 * one)
    green = blob(truth["cart"] + 2 * np.sin(truth["swing"]), hook_y, 1.2 * one)
    blue = blob(truth["cart"] + 2 * np.sin(truth["swing"]), hook_y, 1.0 + truth["mass"])
    blue = blue * (truth["loaded"] > 0)[:, None, None]
    return (255 * np.stack([red, green, blue], axis=-1)).astype(np.uint8)


@pytest.fixture(scope="session")
def simulated() -> list[tuple[Episode, dict[str, np.ndarray]]]:
    """40 episodes with their truth; the last ten are not for training."""
    pairs = [simulate(i) for i in range(40)]
    return [(replace(e, split="train" if i < 30 else "test"), truth) for i, (e, truth) in enumerate(pairs)]


@pytest.fixture(scope="session")
def episodes(simulated: list[tuple[Episode, dict[str, np.ndarray]]]) -> list[Episode]:
    return [e for e, _ in simulated]


@pytest.fixture(scope="session")
def small_config() -> LatentsConfig:
    """A few steps of a small encoder: for tests of plumbing, not of quality."""
    return LatentsConfig(
        num_dims=6,
        hidden=16,
        num_steps=4,
        num_groups=2,
        num_segments=3,
        segment_steps=10,
        decoder_steps=5,
        latent_actions=LatentActionsConfig(num_steps=10),
    )
