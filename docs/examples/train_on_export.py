"""Train a policy on what phaseb exported, with Minari's own library and plain torch: behaviour cloning by weight.

phaseb export runs/dev exported/mixed-v0 --format minari
python train_on_export.py exported mixed-v0
"""

import os
import sys

import numpy as np
import torch
from torch import nn


def load(root: str, name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States (M, S), actions (M, A) and weights (M,) of every step, real steps at weight 1."""
    os.environ["MINARI_DATASETS_PATH"] = root
    import minari

    states, actions, weights = [], [], []
    for episode in minari.load_dataset(name).iterate_episodes():
        steps = len(episode.actions)
        states.append(episode.observations["state"][:steps])
        actions.append(episode.actions)
        weights.append(np.nan_to_num(episode.infos["weight"][:steps]))  # what nobody scored counts for nothing
    columns = (np.concatenate(part).astype(np.float32) for part in (states, actions, weights))
    states_MS, actions_MA, weights_M = map(torch.from_numpy, columns)
    return states_MS, actions_MA, weights_M


def train(states: torch.Tensor, actions: torch.Tensor, weights: torch.Tensor, num_steps: int = 300) -> list[float]:
    """The loss at every step: weighted squared distance from the recorded actions, in units of their spread."""
    torch.manual_seed(0)
    mean, spread = states.mean(0), states.std(0).clamp(min=1e-6)
    policy = nn.Sequential(nn.Linear(states.shape[1], 64), nn.ReLU(), nn.Linear(64, actions.shape[1]))
    optimizer = torch.optim.Adam(policy.parameters(), 3e-3)
    losses = []
    for _ in range(num_steps):
        rows = torch.multinomial(weights, 256, replacement=True)  # drawn in proportion to their weight
        error = (policy((states[rows] - mean) / spread) - actions[rows]) / actions.std(0).clamp(min=1e-6)
        loss = error.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def main(root: str, name: str) -> list[float]:
    """Load, train, and say how the loss went."""
    states, actions, weights = load(root, name)
    losses = train(states, actions, weights)
    used = int((weights > 0).sum())
    print(f"{len(states)} steps, {used} with weight; loss {np.mean(losses[:20]):.3f} -> {np.mean(losses[-20:]):.3f}")
    return losses


if __name__ == "__main__":
    main(*sys.argv[1:])
