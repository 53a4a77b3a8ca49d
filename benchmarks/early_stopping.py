"""What do TPE and early stopping save? Optimiser steps to the same metric, against random search without stopping.

    OMP_NUM_THREADS=1 python benchmarks/early_stopping.py [--repeats 5] [--json FILE]

Compute is counted in optimiser steps, so a busy machine changes nothing. The learner is real and small: a two-layer
network on scikit-learn's digits, SGD with momentum, 243 steps; searched are learning rate, momentum, weight decay,
width, batch size and the scale of the first weights. The metric is the cross-entropy on held-out digits. The target is
what one random trial in fifty reaches (quantile of an independent pool). A study's own searcher and scheduler decide,
driven here one trial after the other; a search has reached the target when a trial that came to its end has.
"""

import argparse
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import TrialScheduler
from sklearn.datasets import load_digits

from phaseb.config.tuning import StudyConfig
from phaseb.tuning.early_stopping import make_scheduler
from phaseb.tuning.search import OptunaPoints

STEPS, REPORTS = 243, 27
SPACE = {
    "rate": {"loguniform": [1e-4, 10.0]},
    "momentum": {"uniform": [0.0, 0.99]},
    "decay": {"loguniform": [1e-6, 0.1]},
    "width": {"integer": [4, 128], "log": True},
    "batch": {"choice": [8, 16, 32, 64]},
    "scale": {"loguniform": [0.01, 3.0]},
}
WORST = 1e3


class Network:
    """Two layers, ReLU, cross-entropy; written out, so that a step costs microseconds."""

    def __init__(self, point: dict[str, Any], seed: int) -> None:
        self.point, self.rng = point, np.random.default_rng(seed)
        sizes = [(64, point["width"]), (point["width"], 10)]
        self.w = [self.rng.normal(size=s) * point["scale"] / np.sqrt(s[0]) for s in sizes]
        self.v = [np.zeros(s) for s in sizes]

    def train(self, x: np.ndarray, y: np.ndarray, steps: int) -> None:
        for _ in range(steps):
            rows = self.rng.integers(len(x), size=self.point["batch"])
            hidden, wrong = self._forward(x[rows])
            wrong[np.arange(len(rows)), y[rows]] -= 1
            wrong /= len(rows)
            back = (wrong @ self.w[1].T) * (hidden > 0)
            for i, gradient in enumerate((x[rows].T @ back, hidden.T @ wrong)):
                self.v[i] = self.point["momentum"] * self.v[i] - self.point["rate"] * (
                    gradient + self.point["decay"] * self.w[i]
                )
                self.w[i] += self.v[i]

    def loss(self, x: np.ndarray, y: np.ndarray) -> float:
        p = self._forward(x)[1][np.arange(len(x)), y]
        value = float(-np.log(np.maximum(p, 1e-30)).mean())
        return min(value, WORST) if np.isfinite(value) else WORST

    def _forward(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):
            hidden = np.maximum(x @ self.w[0], 0)
            logits = hidden @ self.w[1]
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            return hidden, odds / odds.sum(axis=1, keepdims=True)


def study(algorithm: str, scheduler: str, seed: int) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "metrics": {"name": "loss"},
            "space": SPACE,
            "search": {"algorithm": algorithm, "seed": seed},
            "scheduler": {"kind": scheduler, "grace": 1 / REPORTS, "reduction": 3},
            "reports": REPORTS,
        }
    )


def steps_to(target: float, config: StudyConfig, seed: int, data: Any, most: int = 2000) -> int:
    """Optimiser steps of all trials until one that came to its end is at the target."""
    searcher = OptunaPoints(config, seed, [], [], [], None)
    scheduler, spent = make_scheduler(config, STEPS, []), 0
    for number in range(most):
        name = str(number)
        point = searcher.suggest(name)
        trial, network = SimpleNamespace(trial_id=name), Network(point, seed * 100_003 + number)
        scheduler.on_trial_add(None, trial)
        for at in range(STEPS // REPORTS, STEPS + 1, STEPS // REPORTS):
            network.train(*data[0], STEPS // REPORTS)  # type: ignore[call-arg]
            spent += STEPS // REPORTS
            result = {"steps": at, "loss": network.loss(*data[1])}
            searcher.on_trial_result(name, result)
            if at < STEPS and scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
                break
        scheduler.on_trial_complete(None, trial, result)
        searcher.on_trial_complete(name, result)
        if at == STEPS and result["loss"] <= target:
            return spent
    raise RuntimeError(f"nothing reached {target} in {most} trials")


def pool(size: int, data: Any) -> np.ndarray:
    """Losses of random points, fully trained."""
    searcher, losses = OptunaPoints(study("random", "none", 99), 99, [], [], [], None), []
    for number in range(size):
        network = Network(searcher.suggest(str(number)), 7_000_000 + number)
        network.train(*data[0], STEPS)  # type: ignore[call-arg]
        losses.append(network.loss(*data[1]))
        searcher.on_trial_complete(str(number), {"loss": losses[-1], "steps": STEPS})
    return np.array(losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pool", type=int, default=300)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order] / 16.0, y[order]
    data = ((x[:900], y[:900]), (x[900:], y[900:]))
    target = float(np.quantile(pool(arguments.pool, data), 0.02))
    print(f"target: {target:.4f}, reached by one random trial in fifty")
    ways = {
        "random": ("random", "none"),
        "random + asha": ("random", "asha"),
        "tpe": ("tpe", "none"),
        "tpe + asha": ("tpe", "asha"),
        "tpe + hyperband": ("tpe", "hyperband"),
    }
    spent = {
        name: [steps_to(target, study(*way, seed), seed, data) for seed in range(arguments.repeats)]
        for name, way in ways.items()
    }
    base = float(np.mean(spent["random"]))
    for name, steps in spent.items():
        print(f"{name:<16} {np.mean(steps):>9.0f} steps, mean of {steps}: {np.mean(steps) / base:.2f} of random's")
    text = json.dumps(
        {
            "benchmark": "early_stopping",
            "target": target,
            "steps": spent,
            "ratio": float(np.mean(spent["tpe + asha"])) / base,
        }
    )
    print(text)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
