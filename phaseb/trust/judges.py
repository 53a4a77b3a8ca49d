"""The families of judges: each scores every pair with classifiers that saw neither member of it.

n pairs, T steps, D latent dimensions, A action dimensions, F folds. A judge is fresh: it is made, trained and
forgotten inside one call, and shares no weight with the discriminator or the gate.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn

from phaseb.config.trust import Family, JudgeConfig
from phaseb.errors import DataError
from phaseb.runtime.plugins import load_plugin
from phaseb.runtime.seeding import derive_seed, torch_generator
from phaseb.trust.batched import BatchedGRU, BatchedLinear
from phaseb.trust.features import judge_features, windows

WINDOW_ROUNDS = 50
"""Boosting rounds on windows."""
MAX_LEAVES = 15
"""Leaves a tree."""
TREE_LEARNING_RATE = 0.12
"""Shrinkage of the boosted trees."""
FEATURE_SHARE = 0.3
"""Share of the features that a split may choose from."""
WINDOW_STEPS = 8
"""Observations in a window."""
WINDOW_STRIDE = 4
"""Steps between the starts of neighbouring windows."""
GRU_STEPS = 100
"""Optimiser steps of the recurrent judge."""
GRU_UNITS = 24
"""Hidden units of the recurrent judge."""
GRU_PAIRS = 32
"""Pairs in a batch of the recurrent judge."""
GRU_LEARNING_RATE = 0.01
"""Peak learning rate of the recurrent judge (one cycle)."""
GRU_WEIGHT_DECAY = 0.01
"""Weight decay of the recurrent judge."""

Scores = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class JudgeInputs:
    """What a judge is shown: z (n, T+1, D) and actions (n, T, A) of both sides, and the fold (n,) of each pair."""

    real: NDArray[np.float32]
    synthetic: NDArray[np.float32]
    real_actions: NDArray[np.float32]
    synthetic_actions: NDArray[np.float32]
    folds: NDArray[np.int64]


Judge = Callable[[JudgeInputs, JudgeConfig, int], Scores]
"""What `judge.families: [module:function]` names: called with the evidence, the settings and a seed."""


def cross_fit(family: Family, evidence: JudgeInputs, config: JudgeConfig, seed: int) -> Scores:
    """Scores (n,) of the real and of the synthetic member of every pair; higher is more real.

    Each pair is scored by a classifier fitted on the pairs of the other folds.

    Raises:
        ConfigError: where `module:function` cannot be imported.
        DataError: where it gives something else than a finite score for every pair.
    """
    real, synthetic = (np.asarray(side, np.float64) for side in _judge(family)(evidence, config, seed))
    for side in (real, synthetic):
        if side.shape != (len(evidence.folds),) or not np.isfinite(side).all():
            raise DataError(f"judge {family} gave {side.shape}, wanted ({len(evidence.folds)},) finite scores a side")
    return real, synthetic


def _judge(family: Family) -> Judge:
    if family in FAMILIES:
        return FAMILIES[family]
    judge: Judge = load_plugin(family, "judge.families")
    return judge


def _episode_trees(evidence: JudgeInputs, config: JudgeConfig, seed: int) -> Scores:
    real, synthetic = judge_features(evidence.real)[:, None], judge_features(evidence.synthetic)[:, None]
    return _trees(real, synthetic, evidence.folds, config.episode_rounds, config, derive_seed(seed, "episode_trees"))


def _window_trees(evidence: JudgeInputs, config: JudgeConfig, seed: int) -> Scores:
    real = windows(evidence.real, WINDOW_STEPS, WINDOW_STRIDE)
    synthetic = windows(evidence.synthetic, WINDOW_STEPS, WINDOW_STRIDE)
    return _trees(real, synthetic, evidence.folds, WINDOW_ROUNDS, config, derive_seed(seed, "window_trees"))


def _trees(
    real: NDArray[np.floating],
    synthetic: NDArray[np.floating],
    folds: NDArray[np.int64],
    rounds: int,
    config: JudgeConfig,
    seed: int,
) -> Scores:
    """Boosted trees on rows (n, W, K); an episode's score is the mean log-odds of its W rows."""
    scores = np.zeros((2, len(real)))
    for fold in np.unique(folds):
        inside = folds != fold
        rows = [side[inside].reshape(-1, side.shape[-1]) for side in (real, synthetic)]
        model = HistGradientBoostingClassifier(
            max_iter=rounds,
            learning_rate=TREE_LEARNING_RATE,
            max_leaf_nodes=MAX_LEAVES,
            max_features=FEATURE_SHARE,
            max_bins=63,
            min_samples_leaf=10,
            early_stopping=False,
            random_state=derive_seed(seed, int(fold)) % 2**32,
        )
        model.fit(np.concatenate(rows), np.repeat([1, 0], [len(rows[0]), len(rows[1])]))
        for k, side in enumerate((real, synthetic)):
            unseen = side[~inside]
            odds = model.decision_function(unseen.reshape(-1, side.shape[-1]))
            scores[k, ~inside] = odds.reshape(unseen.shape[:2]).mean(1)
    return scores[0], scores[1]


class _RecurrentJudges(nn.Module):
    """One GRU a fold over (z, Δz, a), read out from the mean and the maximum of its states over time."""

    def __init__(self, num_folds: int, num_inputs: int, num_units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.recurrent = BatchedGRU(num_folds, num_inputs, num_units, generator)
        self.readout = BatchedLinear(num_folds, 2 * num_units, 1, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(F, B, T, I) → log-odds (F, B)."""
        hidden = self.recurrent(x)
        pooled = torch.cat([hidden.mean(2), hidden.max(2).values], dim=-1)
        return torch.as_tensor(self.readout(pooled)[..., 0])


def _gru(evidence: JudgeInputs, config: JudgeConfig, seed: int) -> Scores:
    sides = torch.stack(
        [_sequence(evidence.real, evidence.real_actions), _sequence(evidence.synthetic, evidence.synthetic_actions)]
    )
    sides = (sides - sides.mean((0, 1, 2))) / sides.std((0, 1, 2)).clamp(min=1e-6)
    labels, folds = np.unique(evidence.folds, return_inverse=True)
    generator = torch_generator(seed, "gru")
    judges = _RecurrentJudges(len(labels), sides.shape[-1], GRU_UNITS, generator)
    _train(judges, sides, [np.flatnonzero(folds != f) for f in range(len(labels))], generator)
    scores = np.zeros((2, len(folds)))
    with torch.no_grad():
        for k in range(2):
            odds = judges(sides[k].expand(len(labels), *sides[k].shape)).double().numpy()
            scores[k] = odds[folds, np.arange(len(folds))]
    return scores[0], scores[1]


def _train(
    judges: _RecurrentJudges,
    sides: Tensor,
    training: list[NDArray[np.int64]],
    generator: torch.Generator,
) -> None:
    batch = min(GRU_PAIRS, *(len(rows) for rows in training))
    pools = [torch.from_numpy(rows) for rows in training]
    target = torch.cat([torch.ones(batch), torch.zeros(batch)]).expand(len(pools), -1)
    optimizer = torch.optim.AdamW(judges.parameters(), GRU_LEARNING_RATE, weight_decay=GRU_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, GRU_LEARNING_RATE, total_steps=GRU_STEPS + 1, pct_start=0.2
    )
    for _ in range(GRU_STEPS):
        rows = torch.stack([pool[torch.randperm(len(pool), generator=generator)[:batch]] for pool in pools])
        odds = judges(torch.cat([sides[0][rows], sides[1][rows]], dim=1))
        # Each fold is its own problem: the sum over folds gives each the gradient of its own mean.
        loss = nn.functional.binary_cross_entropy_with_logits(odds, target, reduction="sum") / target.shape[1]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(judges.parameters(), 5.0)
        optimizer.step()
        schedule.step()


def _sequence(z: NDArray[np.float32], actions: NDArray[np.float32]) -> Tensor:
    """(n, T, D + D + A): the observation after the step, the step, the action that made it."""
    parts = [z[:, 1:], np.diff(z, axis=1), actions]
    return torch.from_numpy(np.concatenate(parts, axis=2).astype(np.float32))


FAMILIES: dict[Family, Judge] = {
    "episode_trees": _episode_trees,
    "window_trees": _window_trees,
    "gru": _gru,
}
