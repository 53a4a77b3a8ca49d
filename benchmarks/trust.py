"""What trust is worth: calibration on graded corruptions, faults found where they were planted, judges with power.

    python benchmarks/trust.py                       # oscillators and the cell's latents, 3 seeds (about 10 minutes)
    python benchmarks/trust.py --quick               # oscillators, 1 seed, smaller (about a minute)
    python benchmarks/trust.py --data cell --seeds 0

50 training episodes; everything is measured on 200 others. The gate learns from corrupted copies of the training
episodes and from rollouts of one naive generator (a linear model); it is asked about rollouts of another one (ridge
on random features). The last line printed is one JSON object with every row.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.data import EnvironmentConfig
from phaseb.config.encoder import LatentsConfig
from phaseb.config.trust import JudgeConfig, TrustConfig
from phaseb.episodes.actions import ActionScale
from phaseb.episodes.trajectories import Trajectories, concatenate
from phaseb.latents.fit import fit_encoder_model
from phaseb.latents.learner import make_learner as make_encoder
from phaseb.latents.padding import episode_arrays
from phaseb.nn.data_parallel import WorkerContext
from phaseb.trust.calibration import balanced_weights, expected_calibration_error
from phaseb.trust.corruptions import Kind, corrupt, graded
from phaseb.trust.gate import pass_rate
from phaseb.trust.learner import make_learner
from phaseb.trust.metrics import roc_auc
from phaseb.trust.model import TrustModel
from phaseb.trust.two_sample import judge
from phaseb.workcell.collect import collect_episodes

NUM_TRAIN, NUM_TEST = 50, 200
# Name of the fault, kind, severity (see corruptions.py for what 1 means), share of dimensions where it is named.
FAULTS: tuple[tuple[str, Kind, float], ...] = (
    ("jump, 1 σ", "jump", 0.5),
    ("jump, 2 σ", "jump", 1.0),
    ("variance blow-up, 0.5 σ", "noise", 0.5),
    ("variance blow-up, 1 σ", "noise", 1.0),
    ("one dimension frozen", "frozen", 1e-3),
    ("half of them frozen", "frozen", 0.5),
    ("reward off by 1.5 sd", "reward", 0.5),
    ("reward off by 3 sd", "reward", 1.0),
)


def oscillators(num_episodes: int, seed: int, num_dims: int = 16, num_steps: int = 60) -> Trajectories:
    """Eight damped oscillators pushed by smooth actions, squashed and mixed into D dimensions, with sensor noise."""
    rng, system = np.random.default_rng(seed), np.random.default_rng(5)
    pace, mixing = system.uniform(0.15, 0.5, 8), system.normal(size=(16, num_dims)) / 3
    push = system.normal(size=(2, 8)) * 0.4
    times = np.arange(num_steps)[None, :, None]
    actions = np.sin(rng.uniform(0.1, 0.6, (num_episodes, 1, 2)) * times + rng.uniform(0, 6, (num_episodes, 1, 2)))
    x, v = rng.normal(size=(2, num_episodes, 8))
    z = np.zeros((num_episodes, num_steps + 1, num_dims))
    z[:, 0] = np.tanh(np.concatenate([x, v], 1) @ mixing)
    for t in range(num_steps):
        v = 0.97 * v - pace * np.sin(x) + actions[:, t] @ push
        x = x + pace * v
        z[:, t + 1] = np.tanh(np.concatenate([np.sin(x), v], 1) @ mixing)
    z += 0.01 * rng.normal(size=z.shape)
    z = (z - z.mean((0, 1))) / z.std((0, 1))
    rewards = np.tanh(z[:, 1:, 0]) - 0.1 * np.square(actions).sum(2)
    return trajectories(z, actions, rewards, f"osc-{seed}")


def trajectories(z: NDArray[Any], actions: NDArray[Any], rewards: NDArray[Any], name: str) -> Trajectories:
    count, steps = rewards.shape
    return Trajectories(
        z=z.astype(np.float32),
        actions=actions.astype(np.float32),
        rewards=rewards.astype(np.float32),
        terminals=np.zeros((count, steps), np.float32),
        lengths=np.full(count, steps),
        ids=tuple(f"{name}-{i:06d}" for i in range(count)),
        splits=("",) * count,
    )


def cell(seed: int) -> tuple[Trajectories, Trajectories]:
    """Latents of the built-in cell: training and held-out episodes, encoded from the state."""
    episodes = collect_episodes(EnvironmentConfig(observation="state"), seed, range(NUM_TRAIN + NUM_TEST))
    train, config = episodes[:NUM_TRAIN], LatentsConfig(observation="state")
    scale = ActionScale.fit(train)
    encoder = make_encoder(config, episode_arrays(train, scale), WorkerContext(seed))
    for step in range(encoder.num_steps):
        encoder.step(step)
    latents = fit_encoder_model(config, encoder.encoder, train, scale, seed).encode(episodes, scale)
    return latents.select(range(NUM_TRAIN)), latents.select(range(NUM_TRAIN, NUM_TRAIN + NUM_TEST))


def pushed(seed: int) -> tuple[Trajectories, Trajectories]:
    both = oscillators(NUM_TRAIN + NUM_TEST, seed)
    return both.select(range(NUM_TRAIN)), both.select(range(NUM_TRAIN, NUM_TRAIN + NUM_TEST))


SOURCES: dict[str, Callable[[int], tuple[Trajectories, Trajectories]]] = {"oscillators": pushed, "cell": cell}


def naive_rollouts(train: Trajectories, starts: Trajectories, num_features: int, name: str) -> Trajectories:
    """Free-running least squares from z and a to the next z (num_features 0: linear), rewards as recorded."""
    random = np.random.default_rng(0).normal(size=(train.z.shape[2] + train.actions.shape[2] + 1, num_features)) / 3

    def expand(z: NDArray[Any], a: NDArray[Any]) -> NDArray[Any]:
        x = np.concatenate([z, a, np.ones((*z.shape[:-1], 1))], axis=-1)
        return np.concatenate([x, np.tanh(x @ random)], axis=-1)

    features, target = expand(train.z[:, :-1], train.actions), np.diff(train.z, axis=1)
    f = features.reshape(-1, features.shape[-1])
    weights = np.linalg.solve(f.T @ f + np.eye(f.shape[1]), f.T @ target.reshape(len(f), -1))
    z = starts.z.astype(np.float64)
    for t in range(starts.actions.shape[1]):
        z[:, t + 1] = np.clip(z[:, t] + expand(z[:, t], starts.actions[:, t]) @ weights, -20, 20)
    ids = tuple(f"{name}-{i}" for i in starts.ids)
    return replace(starts, z=z.astype(np.float32), ids=ids, lineage={"start_episode": starts.ids})


def fit_gate(train: Trajectories, config: TrustConfig, seed: int) -> tuple[TrustModel, float]:
    """The gate, and the seconds of processor time that it took."""
    start = time.process_time()
    negatives = concatenate([naive_rollouts(train, train, 0, "linear"), naive_rollouts(train, train, 32, "blurred")])
    learner = make_learner(config, train, negatives, WorkerContext(seed))
    for step in range(learner.num_steps):
        learner.step(step)
    return learner.bundle(), time.process_time() - start


def calibration(bundle: TrustModel, test: Trajectories, seed: int) -> dict[str, float]:
    """ECE and AUC by level: held-out episodes as recorded, and four corrupted copies of each, severities evenly spread.

    Both sides count alike, whatever their numbers.
    """
    wrong = graded(test, 4 * len(test), seed + 100)
    real, fake = bundle.levels(test), bundle.levels(wrong.trajectories)
    row = {}
    for name in ("episode", "temporal", "fused"):
        a, b = getattr(real, name), getattr(fake, name)
        labels = np.repeat([1.0, 0.0], [len(a), len(b)])
        row[f"ece_{name}"] = expected_calibration_error(np.append(a, b), labels, balanced_weights(labels))
        row[f"auc_{name}"] = roc_auc(a, b)
    p = np.concatenate([real.transition.ravel(), fake.transition.ravel()])
    labels = np.concatenate([np.ones(real.transition.size), wrong.labels.ravel()])
    p, labels = p[np.isfinite(labels)], labels[np.isfinite(labels)]
    row["ece_transition"] = expected_calibration_error(p, labels, balanced_weights(labels))
    row["auc_transition"] = roc_auc(p[labels == 1], p[labels == 0])
    return row


def localisation(bundle: TrustModel, test: Trajectories, seed: int) -> dict[str, float]:
    """Share of planted faults that the gate cuts within two steps, and of real episodes that it leaves whole."""
    onset = np.random.default_rng(seed).integers(10, 50, len(test))
    row = {"real left whole": float((bundle.cuts(test) == test.lengths).mean())}
    for name, kind, severity in FAULTS:
        wrong = corrupt(test, [kind] * len(test), np.full(len(test), severity), seed + 200, onset)
        row[name] = float((np.abs(bundle.cuts(wrong.trajectories) - wrong.onset) <= 2).mean())
    return row


def gating(bundle: TrustModel, train: Trajectories, test: Trajectories) -> dict[str, float]:
    """Pass rates and mean weights of held-out real episodes and of a generator that the gate never saw."""
    real, other = bundle.score(test), bundle.score(naive_rollouts(train, test, 300, "other"))
    assert real.episode_trust is not None
    assert other.episode_trust is not None
    assert real.weights is not None
    assert other.weights is not None
    passing = bundle.thresholds.passing
    return {
        "pass real": pass_rate(real.episode_trust, passing),
        "pass other": pass_rate(other.episode_trust, passing),
        "weight real": float(real.weights.mean()),
        "weight other": float(other.weights.mean()),
    }


def power(test: Trajectories, config: JudgeConfig, seed: int) -> dict[str, float]:
    """The worst judge on equals and on a fault of 0.3 σ in one dimension, as texture and as a lasting displacement."""
    rng = np.random.default_rng(seed)
    half = len(test) // 2
    row, texture, displaced = {}, test.z.copy(), test.z.copy()
    texture[:, 1:, 3] += 0.3 * rng.normal(size=texture[:, 1:, 3].shape)
    displaced[:, 1:, 3] += 0.3
    start = time.process_time()
    one, other = test.select(range(half)), test.select(range(half, 2 * half))
    row["null"] = judge(one.z, other.z, one.actions, config, seed, other.actions).worst().auc
    for name, z in (("texture 0.3 σ", texture), ("displaced 0.3 σ", displaced)):
        result = judge(test.z, z, test.actions, config, seed)
        row |= {name: result.worst().auc} | {f"{name}: {score.family}": score.auc for score in result.scores}
    return row | {"seconds": (time.process_time() - start) / 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", nargs="+", choices=list(SOURCES), default=None)
    parser.add_argument("--seeds", nargs="+", type=int, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = arguments.data or (["oscillators"] if arguments.quick else list(SOURCES))
    seeds = arguments.seeds or ([0] if arguments.quick else [0, 1, 2])
    config = TrustConfig(num_steps=150, num_corruptions=300) if arguments.quick else TrustConfig()
    judges = JudgeConfig(sigmas=(0.0,))
    rows = []
    for name in names:
        for seed in seeds:
            train, test = SOURCES[name](seed)
            bundle, seconds = fit_gate(train, config, seed)
            parts = {
                "calibration": calibration(bundle, test, seed),
                "localisation": localisation(bundle, test, seed),
                "gate": gating(bundle, train, test) | {"seconds": seconds},
                "judges": power(test, judges, seed),
            }
            rows.append({"data": name, "seed": seed, **parts})
            print(f"{name}, seed {seed}")
            for title, part in parts.items():
                print(f"  {title}")
                print("".join(f"    {key:<32} {value:8.3f}\n" for key, value in part.items()), end="", flush=True)
    print(json.dumps({"benchmark": "trust", "rows": rows}, ensure_ascii=False))


if __name__ == "__main__":
    main()
