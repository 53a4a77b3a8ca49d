"""A generator that cannot be judged is named, and the others are judged all the same."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from episode_strategies import make_trajectories

from phaseb.errors import DataError
from phaseb.report.results import _of_generator
from phaseb.stages.judge import _headline, divergence


def generator(factor):
    """A generator whose latents are multiplied by `factor` in every step."""

    def rollout(start, actions, horizon, draws, known):
        powers = float(factor) ** torch.arange(horizon + 1)
        return SimpleNamespace(z=start[:, None] * powers[:, None])

    return SimpleNamespace(rollout=rollout)


def refusing(*_):
    raise DataError("it was fitted to 3 dimensions, not 4")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (generator(1), ""),
        (generator(1e3), "its rollouts diverge"),
        (generator(np.nan), "its rollouts diverge"),
        (SimpleNamespace(rollout=refusing), "fitted to 3 dimensions"),
    ],
)
def test_what_diverges_or_refuses_is_said(model, said):
    found = divergence(model, make_trajectories([10] * 4), 10, 0)
    assert said in found
    assert bool(found) == bool(said)


def test_results_hold_what_is_known_of_a_generator_that_failed():
    found = {"digest": "d", "failed": "its rollouts diverge"}
    assert _headline(found) == {"failed": "its rollouts diverge"}
    stages = {"dynamics/own": {"metrics": {"rmse": 1.0}}, "trust": {"metrics": {}}}
    assert _of_generator("own", stages, found) == {"rmse": 1.0, "digest": "d"}
