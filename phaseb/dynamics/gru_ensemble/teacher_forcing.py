"""Schedules over the course of training: how often the real latent is put back, how long the rollout is."""

import math

from phaseb.config.dynamics import HorizonConfig, TeacherForcingConfig

STEEPNESS = 10.0
"""Of the exponential and inverse-sigmoid schedules: how fast the probability falls."""
GROWTH = (0.4, 0.9)
"""Shares of training between which the horizon grows."""


def forcing_probability(config: TeacherForcingConfig, progress: float) -> float:
    """Probability that a step of the training rollout starts from the real latent (Bengio et al. 2015).

    Args:
        config: start, end and shape. Exponential and inverse sigmoid are rescaled to hit start and end exactly.
        progress: share of training done, in [0, 1].
    """
    share = min(max(progress / config.until, 0.0), 1.0)
    if config.schedule == "constant":
        return config.start
    return config.end + (config.start - config.end) * _falling(config.schedule, share)


def _falling(schedule: str, share: float) -> float:
    """A curve from 1 at share 0 to 0 at share 1."""
    if schedule == "linear":
        return 1.0 - share
    if schedule == "exponential":
        low = math.exp(-STEEPNESS)
        return (math.exp(-STEEPNESS * share) - low) / (1.0 - low)

    def sigmoid(x: float) -> float:
        return 1.0 / (1.0 + math.exp(STEEPNESS * (x - 0.5)))

    return (sigmoid(share) - sigmoid(1.0)) / (sigmoid(0.0) - sigmoid(1.0))


def training_horizon(config: HorizonConfig, progress: float) -> int:
    """Length of the training rollout when `progress` of training, in [0, 1], is done."""
    start = min(config.start, config.steps)
    first, last = GROWTH
    if progress >= last:
        return config.steps
    if progress <= first:
        return start
    share = (progress - first) / (last - first)
    return start + round(share * (config.steps - start))
