"""A simple local predictor: what should come next, and with what reward? Its error is the evidence of a transition.

One ridge regression a fold on linear and random tanh features (Rahimi and Recht 2007), solved in closed form.
Every real training episode is predicted by the regression that did not see it; a predictor fitted on the very
episodes it explains would make real look more regular than anything new can be.

N episodes, T steps, D latent dimensions, A action dimensions, K folds, R features, O = D + 1 outputs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.episodes.resolution import is_constant
from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.seeding import numpy_generator

RIDGES = (0.1, 1.0, 10.0, 100.0)


@dataclass(frozen=True)
class RidgeFeatures:
    """Of episodes: their steps (N, T, D), and the inputs of the regressions to the step and to the reward (N, T, F)."""

    step: NDArray[np.float64]
    of_step: NDArray[np.float64]
    of_reward: NDArray[np.float64]


@dataclass(frozen=True)
class RidgeDynamics:
    """K cross-fitted regressions to the next step and the reward.

    Attributes:
        mean: (I,) of the inputs.
        scale: (I,) of the inputs.
        random: (I, R) random directions, (R,) offsets in the last row: (I + 1, R).
        step_weights: (K, I + R + 1, D), to the step z_{t+1} − z_t.
        reward_weights: (K, I + D + R' + 1, 1), to the reward, which may look at z_{t+1} too.
        reward_random: (I + D + 1, R').
        error_scale: (D + 1,) root mean square of the held-out error on real episodes; infinite for a silent reward.
        pace: (D,) root mean square of the real step.
        reward_scale: standard deviation of the real reward; 1 where it is silent.
    """

    mean: Tensor
    scale: Tensor
    random: Tensor
    step_weights: Tensor
    reward_weights: Tensor
    reward_random: Tensor
    error_scale: Tensor
    pace: Tensor
    reward_scale: Tensor

    @property
    def num_folds(self) -> int:
        return len(self.step_weights)

    def features(self, data: Trajectories) -> "RidgeFeatures":
        """What all folds' regressions multiply; most of what an error costs."""
        tensors = self.tensors()
        inputs = (_inputs(data) - tensors["mean"]) / tensors["scale"]
        step = np.diff(data.z.astype(np.float64), axis=1)
        wide = np.concatenate([inputs, step / tensors["pace"]], axis=2)
        return RidgeFeatures(step, _expand(inputs, tensors["random"]), _expand(wide, tensors["reward_random"]))

    def errors(self, data: Trajectories, fold: int, features: "RidgeFeatures | None" = None) -> NDArray[np.float32]:
        """Errors (N, T, D + 1) of one fold's regression, in units of its typical held-out error; padding is zero.

        Args:
            data: N episodes.
            fold: of the regression.
            features: of the same data, where they are known already.
        """
        tensors, known = self.tensors(), self.features(data) if features is None else features
        step_error = known.step - known.of_step @ tensors["step_weights"][fold]
        guess = known.of_reward @ tensors["reward_weights"][fold]
        errors = np.concatenate([step_error, data.rewards[..., None] - guess], axis=2) / tensors["error_scale"]
        return np.asarray(errors * data.mask[..., None], dtype=np.float32)

    def tensors(self) -> dict[str, NDArray[np.float64]]:
        return {name: value.double().numpy() for name, value in self.__dict__.items()}


def fit_ridge_dynamics(real: Trajectories, folds: NDArray[np.int64], num_features: int, seed: int) -> RidgeDynamics:
    """Cross-fit the predictor on real training episodes; `folds` (N,) numbers the fold of each, 0 … K − 1."""
    inputs, mask, num_folds = _inputs(real), real.mask, int(folds.max()) + 1
    step, reward = np.diff(real.z.astype(np.float64), axis=1), real.rewards.astype(np.float64)[..., None]
    pace = np.sqrt((step[mask] ** 2).mean(0)).clip(min=1e-3)
    mean, scale = inputs[mask].mean(0), inputs[mask].std(0).clip(min=1e-3)
    inputs = (inputs - mean) / scale
    wide = np.concatenate([inputs, step / pace], axis=2)
    rng = numpy_generator(seed, "local_predictor")
    random, reward_random = (_directions(x.shape[-1], num_features, rng) for x in (inputs, wide))
    step_weights, step_error = _cross_fit(_expand(inputs, random), step, mask, folds, num_folds)
    reward_weights, reward_error = _cross_fit(_expand(wide, reward_random), reward, mask, folds, num_folds)
    spread = float(reward[mask].std())
    silent = bool(is_constant(real.rewards[mask][:, None])[0])  # a reward that never changes carries no evidence
    error_scale = np.append(step_error.clip(min=1e-3 * pace), np.inf if silent else max(reward_error[0], 1e-3 * spread))
    scales = (error_scale, pace, np.array(1.0 if silent else spread))
    arrays = (mean, scale, random, step_weights, reward_weights, reward_random, *scales)
    return RidgeDynamics(*(torch.from_numpy(np.ascontiguousarray(array)).float() for array in arrays))


def _inputs(data: Trajectories) -> NDArray[np.float64]:
    """(N, T, I): state, action, the step and action before (zero at the start), and whether this is the start."""
    z, actions = data.z.astype(np.float64), data.actions.astype(np.float64)
    before = np.diff(z, axis=1, prepend=z[:, :1])[:, :-1]
    acted = np.concatenate([np.zeros_like(actions[:, :1]), actions[:, :-1]], axis=1)
    start = np.zeros((*actions.shape[:2], 1))
    start[:, 0] = 1
    return np.concatenate([z[:, :-1], actions, before, acted, start], axis=2)


def _directions(num_inputs: int, num_features: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random directions of about unit length, and one more row of offsets."""
    directions = rng.standard_normal((num_inputs, num_features)) / np.sqrt(num_inputs)
    return np.concatenate([directions, rng.uniform(-1, 1, (1, num_features))])


def _expand(x: NDArray[np.float64], random: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear, random tanh and constant features: (N, T, I) → (N, T, I + R + 1)."""
    # Far outside the data the linear part alone would extrapolate; the clip keeps the evidence finite there.
    x = x.clip(-20, 20)
    return np.concatenate([x, np.tanh(x @ random[:-1] + random[-1]), np.ones((*x.shape[:2], 1))], axis=2)


def _cross_fit(
    features: NDArray[np.float64],
    target: NDArray[np.float64],
    mask: NDArray[np.bool_],
    folds: NDArray[np.int64],
    num_folds: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (K, F, O) by the ridge with the least held-out error, and that error's root mean square (O,)."""
    rows = [(features[folds == k][mask[folds == k]], target[folds == k][mask[folds == k]]) for k in range(num_folds)]
    grams = np.stack([f.T @ f for f, _ in rows])
    moments = np.stack([f.T @ y for f, y in rows])
    size, best = features.shape[-1], (np.inf, np.zeros(0), np.zeros(0))
    for ridge in RIDGES:
        left = grams.sum(0) - grams + ridge * np.eye(size)
        weights = np.linalg.solve(left, moments.sum(0) - moments)
        errors = np.concatenate([y - f @ w for (f, y), w in zip(rows, weights, strict=True)])
        score = float((errors**2).mean())
        if score < best[0]:
            best = (score, weights, np.sqrt((errors**2).mean(0)))
    return best[1], best[2]
