"""A world model of one's own, held against the built-in one: ridge regression of the next latent.

python ridge_model.py runs/dev
"""

import sys

import numpy as np

import phaseb
from phaseb.episodes.trajectories import Trajectories


class RidgeModel:
    """z' = z + W [z, a, 1], fitted in closed form."""

    def __init__(self, train: Trajectories, penalty: float = 1.0) -> None:
        mask = train.mask
        x = _inputs(train.z[:, :-1][mask], train.actions[mask])
        change, reward = np.diff(train.z, axis=1)[mask], train.rewards[mask][:, None]
        gram = x.T @ x + penalty * np.eye(x.shape[1])
        self._weights = np.linalg.solve(gram, x.T @ np.concatenate([change, reward], axis=1))

    def rollout(self, starts: np.ndarray, actions: np.ndarray) -> Trajectories:
        """Imagine from starts (N, D) under actions (N, T, A)."""
        z, rewards = [starts], []
        for t in range(actions.shape[1]):
            out = _inputs(z[-1], actions[:, t]) @ self._weights
            z.append(z[-1] + out[:, :-1])
            rewards.append(out[:, -1])
        num, steps = actions.shape[:2]
        return Trajectories(
            z=np.stack(z, axis=1).astype(np.float32), actions=actions, rewards=np.stack(rewards, 1).astype(np.float32),
            terminals=np.zeros((num, steps), np.float32), lengths=np.full(num, steps), splits=("",) * num,
            ids=tuple(f"ridge-{i}" for i in range(num)),
        )  # fmt: skip


def _inputs(z: np.ndarray, actions: np.ndarray) -> np.ndarray:
    return np.concatenate([z, actions, np.ones((len(z), 1))], axis=1)


def main(run: str) -> dict[str, dict[str, float]]:
    """Error after the whole horizon on dev episodes, and what the gate thinks, for both models."""
    train, dev = phaseb.load_latents(run, "train"), phaseb.load_latents(run, "dev")
    gate, start = phaseb.TrustGate.load(run), dev.z[:, 0]
    made = {
        "built in": phaseb.WorldModel.load(run).rollout(start, dev.actions, recorded=True),
        "ridge": RidgeModel(train).rollout(start, dev.actions),
    }
    found = {}
    for name, rollouts in made.items():
        scored = gate.score(rollouts)
        found[name] = {
            "rmse": float(np.sqrt(np.mean((rollouts.z[:, -1] - dev.z[:, -1]) ** 2))),
            "trust": float(np.mean(scored.episode_trust)),
            "weight": float(np.mean(scored.weights)),
        }
        print(name, {key: round(value, 3) for key, value in found[name].items()})
    return found


if __name__ == "__main__":
    main(sys.argv[1])
