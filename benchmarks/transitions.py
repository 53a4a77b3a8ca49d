"""How much the short-range model knows of steps that nobody took, against the true physics.

    python benchmarks/transitions.py --episodes 15 50 --seeds 100 101 102

Rows: with and without directions that frequent rewards point to. `skill` is 1 - MSE / MSE of "nothing moves" over the
latent, on held-out operators' steps, on the same under drives they did not choose, and on steps of a noisy oracle.
`placing`: loaded states within 0.4 m of the out-feed, of held-out operators and of the oracle, the gripper let go in
each; of those that the model says will be good, the share that is (precision), and of those that are, the share that it
says (recall), by its expected reward and by its lower bound.
"""

import argparse
import json
import time
from dataclasses import dataclass

import numpy as np
import torch
from broken_models import Standard
from cheap_seeds import CELL, recorded

from phaseb.config.dynamics import GPConfig
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.workcell import make
from phaseb.workcell.batch import BatchedCell
from phaseb.workcell.oracle import Oracle

LOADED, TO_OUTFEED = 4, 6
NEAR_M = 0.4


def truth(z: np.ndarray, actions: np.ndarray, standard: Standard) -> tuple[np.ndarray, np.ndarray]:
    """What the cell makes of standardised states (N, 8) under actions (N, 2), without sensor noise: states, rewards."""
    states = z * standard.std + standard.mean
    cell = BatchedCell(len(z), "state")
    cell.reset(range(len(z)))
    cranes = cell._cranes
    cranes.place(states[:, [0, 2]].astype(float), states[:, [1, 3]].astype(float))
    hook = cranes.hook_position
    cell._infeed, cell._outfeed, cell._part = states[:, 5] + hook, states[:, 6] + hook, states[:, 7].astype(float)
    loaded = np.flatnonzero(states[:, LOADED] > 0)
    cranes._hang(loaded, cell._part[loaded])
    cell._noise[:] = 0
    observation, rewards, *_ = cell.step(actions)
    return standard(observation["state"]), rewards


def oracle_steps(seed: int, standard: Standard, count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Standardised states and actions of the oracle with noise on its drive."""
    environment, g = make(CELL, count), np.random.default_rng(seed)
    observation = environment.reset(range(5_000_000 + 1000 * seed, 5_000_000 + 1000 * seed + count))
    controller, states, actions = Oracle(environment), [], []
    controller.reset([])
    for _ in range(environment.max_steps):
        action = controller.act(observation)
        action[:, 0] = np.clip(action[:, 0] + 0.4 * g.standard_normal(count), -1, 1)
        states.append(standard(observation["state"]))
        actions.append(action.astype(np.float32))
        observation, *_ = environment.step(action)
    return np.concatenate(states), np.concatenate(actions)


@dataclass
class Study:
    """One seed's model beside the truth."""

    seed: int
    episodes: int
    num_directions: int

    def __post_init__(self) -> None:
        self.real, self.standard = recorded(self.seed, self.episodes)
        held, _ = recorded(self.seed, 40, 20_000, self.standard)
        self.held = held.z[:, :-1].reshape(-1, 8), held.actions.reshape(-1, 2)
        start = time.process_time()
        config = GPConfig(num_directions=self.num_directions)
        self.model = GPDynamics.fit(config, self.real, self.seed)
        self.seconds = time.process_time() - start

    def rows(self) -> dict[str, float]:
        z, actions = self.held
        other = actions.copy()
        other[:, 0] = np.random.default_rng(self.seed).uniform(-1, 1, len(z))
        driven = oracle_steps(self.seed, self.standard)
        skills = {"held out": self.held, "other drives": (z, other), "oracle": driven}
        told = {f"skill, {name}": self.skill(*steps) for name, steps in skills.items()}
        return told | self.placing(np.concatenate([z, driven[0]])) | {"fit, s": self.seconds}

    def skill(self, z: np.ndarray, actions: np.ndarray) -> float:
        after, _ = truth(z, actions, self.standard)
        told = self.model.step(z, actions, np.full(len(z), 0.5)).z
        return float(1 - np.square(told - after).mean() / np.square(after - z).mean())

    def placing(self, z: np.ndarray) -> dict[str, float]:
        states = z * self.standard.std + self.standard.mean
        z = z[(states[:, LOADED] > 0) & (np.abs(states[:, TO_OUTFEED]) < NEAR_M)]
        let_go = np.tile(np.array([[0, 1]], np.float32), (len(z), 1))
        good = truth(z, let_go, self.standard)[1] > 0
        told = self.model.step(z, let_go, np.full(len(z), 0.5))
        cells = {}
        for name, value in (("expected", told.reward), ("lower", told.reward - told.reward_std)):
            said = value > 0
            cells[f"precision, {name}"] = float(good[said].mean()) if said.any() else float("nan")
            cells[f"recall, {name}"] = float((said & good).sum() / good.sum())
        return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, nargs="+", default=[15, 50])
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for episodes in args.episodes:
        for directions in (0, 3):
            rows = [Study(seed, episodes, directions).rows() for seed in args.seeds]
            mean = {name: round(float(np.nanmean([r[name] for r in rows])), 4) for name in rows[0]}
            print(json.dumps({"episodes": episodes, "directions": directions, **mean}), flush=True)


if __name__ == "__main__":
    main()
