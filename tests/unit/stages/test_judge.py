"""A generator that cannot be judged is named, and the others are judged all the same."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from episode_strategies import make_trajectories

from phaseb.config.root import Config
from phaseb.errors import DataError
from phaseb.report.results import _of_generator
from phaseb.stages.judge import _branched, _headline
from phaseb.stages.synthesize import rollout_failure
from phaseb.trust.ladder import judge_rung
from phaseb.trust.windows import plan_windows


def generator(factor):
    """A generator whose latents are multiplied by `factor` in every step."""

    def rollout(start, actions, horizon, draws, known):
        powers = float(factor) ** torch.arange(horizon + 1)
        return SimpleNamespace(z=start[:, None] * powers[:, None], rewards=torch.zeros(len(start), horizon))

    return SimpleNamespace(rollout=rollout)


def refusing(*_):
    raise DataError("it was fitted to 3 dimensions, not 4")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (generator(1), ""),
        (generator(1e3), "its rollouts diverge"),
        (generator(np.nan), "NaN or Inf"),
        (SimpleNamespace(rollout=refusing), "fitted to 3 dimensions"),
    ],
)
def test_what_diverges_or_refuses_is_said(model, said):
    found = rollout_failure(model, make_trajectories([10] * 4), 10, 0)
    assert said in found
    assert bool(found) == bool(said)


def test_results_hold_what_is_known_of_a_generator_that_failed():
    found = {"digest": "d", "failed": "its rollouts diverge"}
    assert _headline(found) == {"failed": "its rollouts diverge"}
    stages = {"dynamics/own": {"metrics": {"rmse": 1.0}}, "trust": {"metrics": {}}}
    assert _of_generator("own", stages, found) == {"rmse": 1.0, "digest": "d"}


@pytest.mark.parametrize("lengths", [[1000, 1000], [589, 480, 189, 400, 300]])
def test_branched_rollouts_are_judged_on_few_long_episodes(monkeypatch, lengths):
    """Fewer episodes than the folds need: windows of them are judged, as the ladder's are."""
    monkeypatch.setattr("phaseb.stages.judge.latent_actions", lambda store: None)
    judge = {"families": ["episode_trees"], "sigmas": [0.0], "num_permutations": 19, "episode_rounds": 4}
    config = Config.model_validate({"judge": judge | {"num_pairs": 20}})
    whole = make_trajectories(lengths)
    plan = plan_windows(whole.lengths, config.synthesis.horizon, config.judge.num_folds, config.judge.num_pairs)

    def begin(name, pairs, judge_config, seed):
        return functools.partial(judge_rung, name, pairs, judge_config, seed)

    found = _branched(config, None, generator(1), make_trajectories([30] * 4), plan.cut(whole), plan, begin)
    assert found["results"]["cloned"]["num_pairs"] >= 20
    assert 0.5 <= found["numbers"]["judge_auc"] <= 1
