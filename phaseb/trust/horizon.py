"""How far an open-loop rollout stays useful: error by step, break-even against persistence, survival.

N episodes, T steps, D latent dimensions; predictions start from the real start state under the real actions.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def error_by_step(real: Floats, predicted: Floats) -> NDArray[np.float64]:
    """RMSE over dimensions of each episode at each step: (N, T+1, D) twice → (N, T), the start state excluded."""
    difference = predicted[:, 1:].astype(np.float64) - real[:, 1:]
    return np.asarray(np.sqrt((difference**2).mean(2)))


def break_even_horizon(real: Floats, predicted: Floats) -> int:
    """The last step up to which the prediction beats persistence (z_0 repeated) at every step, in RMSE over episodes.

    0 where it loses at once; T where it never loses.
    """
    ours = _pooled(error_by_step(real, predicted))
    persistence = _pooled(error_by_step(real, np.repeat(real[:, :1], real.shape[1], axis=1)))
    lost = np.flatnonzero(ours >= persistence)
    return int(lost[0]) if len(lost) else len(ours)


def survival(error: Floats, limit: float) -> NDArray[np.float64]:
    """Share of rollouts whose error has stayed below `limit` at every step so far: (N, T) → (T,), never rising."""
    alive = np.logical_and.accumulate(error < limit, axis=1)
    return np.asarray(alive.mean(0), dtype=np.float64)


def _pooled(error: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt((error**2).mean(0)))
