"""Episodes of two of Gymnasium's MuJoCo tasks as NPZ files, acted by controllers whose skill varies.

    python benchmarks/gymnasium_episodes.py --task half_cheetah --seed 0 --episodes 250 --out half-cheetah.npz

HalfCheetah-v5 runs on a gait of sines that was found by random search; Reacher-v5 reaches by the transposed Jacobian.
Amplitude, pace and gains are drawn once an episode, and smooth noise is added to every action, so no two episodes are
alike. Needs imageio, which Gymnasium's MuJoCo tasks import.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.npz import write_npz
from phaseb.runtime.seeding import derive_seed, numpy_generator
from phaseb.runtime.storage import Store

Floats = NDArray[np.floating]
Controller = Callable[[int], Floats]
NOISE, CORRELATION = 0.1, 0.8
CHEETAH_STEP_S = 0.05
# Amplitude, phase and offset of hip, knee and foot of the hind and the fore leg; found by random search on reward.
AMPLITUDE = np.array([0.69, 0.33, 0.61, 0.45, 0.40, 0.45])
PHASE = np.array([4.76, 5.80, 4.16, 5.75, 0.67, 0.52])
OFFSET = np.array([-0.01, -0.10, -0.07, -0.04, -0.12, 0.14])


def half_cheetah(model: Any, data: Any, rng: np.random.Generator) -> Controller:
    """A trot: each joint follows a sine, by a spring and a little damping."""
    pace, size, gain = 3.33 * rng.uniform(0.8, 1.2), rng.uniform(0.7, 1.2), rng.uniform(1.5, 2.5)

    def act(step: int) -> Floats:
        wanted = OFFSET + size * AMPLITUDE * np.sin(2 * np.pi * pace * CHEETAH_STEP_S * step + PHASE)
        return np.asarray(gain * (wanted - data.qpos[3:9]) - 0.03 * data.qvel[3:9])

    return act


def reacher(model: Any, data: Any, rng: np.random.Generator) -> Controller:
    """A damped spring from the fingertip to the target, through the transposed Jacobian."""
    spring, damping = rng.uniform(3, 10), rng.uniform(0.1, 0.4)
    tip, target = (mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name) for name in ("fingertip", "target"))
    jacobian = np.zeros((3, model.nv))

    def act(step: int) -> Floats:
        mujoco.mj_jacBody(model, data, jacobian, None, tip)
        pull = spring * (data.xpos[target] - data.xpos[tip])
        return np.asarray(jacobian[:, :2].T @ pull * 10 - damping * data.qvel[:2])

    return act


TASKS: dict[str, tuple[str, Callable[[Any, Any, np.random.Generator], Controller]]] = {
    "half_cheetah": ("HalfCheetah-v5", half_cheetah),
    "reacher": ("Reacher-v5", reacher),
}


def collect(task: str, seed: int, count: int, steps: int) -> list[Episode]:
    """Episodes of exactly `steps` steps; everything random in one follows from (seed, its number)."""
    name, controller = TASKS[task]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        environment = gymnasium.make(name, max_episode_steps=steps)
        episodes = [_episode(environment, task, controller, seed, i, steps) for i in range(count)]
    environment.close()
    return episodes


def _episode(environment: Any, task: str, controller: Any, seed: int, index: int, steps: int) -> Episode:
    rng = numpy_generator(seed, task, index)
    inside, space = environment.unwrapped, environment.action_space
    state, _ = environment.reset(seed=derive_seed(seed, task, index) % 2**31)
    act, noise = controller(inside.model, inside.data, rng), np.zeros(space.shape)
    states, actions, rewards = [state], [], []
    for step in range(steps):
        noise = CORRELATION * noise + np.sqrt(1 - CORRELATION**2) * NOISE * rng.standard_normal(space.shape)
        action = np.clip(act(step) + noise, space.low, space.high).astype(np.float32)
        state, reward, *_ = environment.step(action)
        states.append(state)
        actions.append(action)
        rewards.append(reward)
    arrays = [np.asarray(x, np.float32) for x in (states, actions, rewards)]
    return Episode(id=f"{task}-{seed}-{index:05d}", state=arrays[0], actions=arrays[1], rewards=arrays[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=250)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    episodes = collect(options.task, options.seed, options.episodes, options.steps)
    write_npz(Store.at(str(options.out.resolve().parent)), options.out.name, episodes)
    returns = [float(e.rewards.sum()) for e in episodes]
    print(f"{len(episodes)} episodes of {options.steps} steps; return {np.mean(returns):.1f} ± {np.std(returns):.1f}")


if __name__ == "__main__":
    main()
