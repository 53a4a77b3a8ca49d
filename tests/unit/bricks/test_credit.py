"""Whose transitions a policy lives by: the same places under the same actions, not the same places alone."""

import numpy as np
import pytest

from phaseb.bricks.attribution import Recorded, attribution, rank_correlation


def recorded(rng, num=300):
    """Three bricks: here acting up, here acting down, far away acting up."""
    z = rng.normal(size=(3, num, 4)) * 0.3
    z[2] += 3.0
    actions = np.stack([np.full((num, 2), 0.8), np.full((num, 2), -0.8), np.full((num, 2), 0.8)])
    return Recorded(z.reshape(-1, 4), actions.reshape(-1, 2), np.repeat([0, 1, 2], num))


@pytest.mark.parametrize(("place", "action", "brick"), [(0.0, 0.7, 0), (0.0, -0.9, 1), (3.0, 0.8, 2)])
def test_a_step_leans_on_those_who_did_the_same_in_the_same_place(place, action, brick):
    rng = np.random.default_rng(0)
    steps = place + 0.3 * rng.normal(size=(50, 4)), np.full((50, 2), action)
    share = attribution(steps, recorded(rng), 3, 5)
    assert share[brick] > 0.98
    assert share.sum() == pytest.approx(1)


def test_a_mixed_life_is_shared():
    rng = np.random.default_rng(1)
    z = np.concatenate([0.3 * rng.normal(size=(60, 4)), 3 + 0.3 * rng.normal(size=(20, 4))])
    share = attribution((z, np.full((80, 2), 0.8)), recorded(rng), 3, 5)
    assert share == pytest.approx([0.75, 0, 0.25], abs=0.02)


def test_a_brick_that_nobody_needs_is_told_with_zero():
    rng = np.random.default_rng(2)
    assert len(attribution((np.zeros((4, 4)), np.zeros((4, 2))), recorded(rng), 5, 5)) == 5


def test_agreement_is_of_ranks():
    assert rank_correlation(np.array([0.1, 0.2, 0.7]), np.array([-5.0, 1.0, 900.0])) == pytest.approx(1)
    assert rank_correlation(np.array([0.1, 0.2, 0.7]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1)
    assert np.isnan(rank_correlation(np.array([0.1, 0.9]), np.array([1.0, 2.0])))
