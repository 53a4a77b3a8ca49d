"""Branch tests, ranking and events against closed forms and definitions."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from phaseb.dynamics.branches import NUM_DRAWS, Branches, Draws, branch_numbers, crps, draw, event_numbers
from phaseb.dynamics.events import EventDetector
from phaseb.dynamics.ranking import rank_violation, ranking
from phaseb.runtime.seeding import numpy_generator

DRIFT, SPREAD = 0.3, 0.5


def walk(count=2000, steps=4, seed=0):
    """Branches of a random walk with drift, whose actions are its steps' drift."""
    g = numpy_generator(seed, "walk")
    actions = np.full((count, steps, 2), DRIFT, np.float32)
    noise = SPREAD * g.standard_normal((count, steps, 2))
    z = np.concatenate([np.zeros((count, 1, 2)), np.cumsum(actions + noise, 1)], 1).astype(np.float32)
    valid = np.ones((count, steps), bool)
    return Branches(z, actions, z[:, 1:, 0].copy(), np.zeros((count, steps), np.float32), valid)


def walker(spread):
    """A generator of the same walk, with a noise of its own."""

    def rollout(z0, actions, horizon, generator):
        z, rewards = [z0], []
        for t in range(horizon):
            noise = spread * torch.randn(z0.shape, generator=generator)
            z.append(z[-1] + actions(z[-1], t) + noise)
            rewards.append(z[-1][:, 0])
        shape = (len(z0), horizon)
        return SimpleNamespace(z=torch.stack(z, 1), rewards=torch.stack(rewards, 1), terminals=torch.zeros(shape))

    return rollout


def test_the_intervals_of_a_true_generator_cover_what_they_say():
    branches = walk()
    numbers = branch_numbers(branches, draw(walker(SPREAD), branches, 1))
    np.testing.assert_allclose(numbers["coverage_50"], 0.5, atol=0.03)
    np.testing.assert_allclose(numbers["coverage_90"], 0.9, atol=0.03)
    steps = np.arange(1, 5)
    np.testing.assert_allclose(numbers["nrmse"], SPREAD * np.sqrt(steps * (1 + 1 / NUM_DRAWS)), rtol=0.05)
    np.testing.assert_allclose(numbers["persistence"], np.sqrt(SPREAD**2 * steps + (DRIFT * steps) ** 2), rtol=0.05)


@pytest.mark.parametrize(("spread", "least", "most"), [(0.0, 0.0, 0.0), (0.2, 0.3, 0.7), (2.0, 0.95, 1.0)])
def test_a_generator_too_sure_or_too_unsure_covers_too_little_or_too_much(spread, least, most):
    covered = branch_numbers(walk(), draw(walker(spread), walk(), 1))["coverage_90"]
    assert least <= min(covered) <= max(covered) <= most


def test_steps_behind_the_end_do_not_count():
    branches = walk(50)
    valid = branches.valid.copy()
    valid[:, 2:] = False
    z = branches.z.copy()
    z[:, 3:] = 1e6
    cut = Branches(z, branches.actions, branches.rewards, branches.ends, valid)
    numbers = branch_numbers(cut, draw(walker(SPREAD), branches, 1))
    assert max(numbers["nrmse"][:2]) < 2
    assert all(math.isnan(x) for x in numbers["nrmse"][2:])


def test_crps_is_its_definition_and_that_of_a_normal():
    g = numpy_generator(3, "crps")
    truth, draws = g.standard_normal(5), g.standard_normal((7, 5))
    pairs = np.abs(draws[:, None] - draws[None]).sum((0, 1)) / (7 * 6)
    np.testing.assert_allclose(crps(truth, draws), np.abs(draws - truth).mean(0) - pairs / 2)
    # CRPS of N(0, 1) at y: y (2 Φ(y) - 1) + 2 φ(y) - 1/√π
    y = 0.7
    many = crps(np.full(1, y), g.standard_normal((20_000, 1)))[0]
    phi, cdf = math.exp(-(y**2) / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(y / math.sqrt(2)))
    assert many == pytest.approx(y * (2 * cdf - 1) + 2 * phi - 1 / math.sqrt(math.pi), abs=0.01)


def test_precision_and_recall_of_events():
    true = np.array([[0, 1], [0, 0], [1, 0], [0, 0]], bool)
    drawn = np.array([[[1, 0], [1, 0], [0, 0], [0, 0]], [[0, 1], [0, 0], [0, 1], [0, 0]]], bool)
    numbers = event_numbers(true, drawn, np.ones((4, 2), bool))
    # draws forecast 1 + 0.5 + 0.5 + 0; hits 1 + 0.5
    assert numbers == {"event_precision": 1.5 / 2, "event_recall": 1.5 / 2, "events": 2.0}
    nothing = event_numbers(np.zeros((4, 2), bool), drawn, np.ones((4, 2), bool))
    assert nothing["event_precision"] == 0
    assert math.isnan(nothing["event_recall"])


def test_a_flip_of_a_flag_and_an_end_are_events(world):
    found = EventDetector.fit(world)(world.z, world.terminals)
    np.testing.assert_array_equal(found, np.diff(world.z[..., 3], axis=1) != 0)
    ends = world.terminals.copy()
    ends[:, 5] = 1
    assert EventDetector.fit(world)(world.z, ends)[:, 5].all()


def test_rank_violation_is_its_definition():
    estimated, true = np.array([3.0, 1.0, 2.0, 0.0]), np.array([10.0, 8.0, 5.0, 1.0])
    # policies 1 and 2 are ranked the wrong way round, 3 apart; nothing else is
    assert rank_violation(estimated, true) == pytest.approx((3 + 3) / 4)
    assert ranking(true, true)["mmrv"] == 0
    assert ranking(np.exp(true), true)["spearman"] == pytest.approx(1) == ranking(2 * true + 1, true)["pearson"]
    assert math.isnan(ranking(np.ones(4), true)["pearson"])


def test_draws_are_of_each_branch():
    branches = walk(3)
    drawn = draw(walker(0.0), branches, 1, num_draws=2)
    assert isinstance(drawn, Draws)
    assert drawn.z.shape == (2, 3, 5, 2)
    np.testing.assert_allclose(drawn.z[:, :, 1:, 0], DRIFT * np.broadcast_to(np.arange(1, 5), (2, 3, 4)), rtol=1e-5)
