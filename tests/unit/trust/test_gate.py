import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.trust.gate import (
    LOOK_BACK,
    density_ratio,
    effective_contribution,
    gate_weights,
    pass_rate,
    truncation_step,
    uncertainty_discount,
)


def weigh(trust, episode, cuts, left=None, segment=0.2):  # type: ignore[no-untyped-def]
    trust = np.asarray(trust, dtype=float)
    lengths = np.full(len(trust), trust.shape[1])
    left = np.ones(trust.shape) if left is None else left
    return gate_weights(trust, np.asarray(episode), lengths, np.asarray(cuts), left, segment)


def test_the_ratio_of_two_known_densities_is_recovered_whatever_the_prior() -> None:
    x = np.linspace(-2, 2, 9)
    real, synthetic = np.exp(-((x - 0.5) ** 2) / 2), np.exp(-(x**2) / 2)
    for prior in (0.5, 0.1, 0.9):
        p = prior * real / (prior * real + (1 - prior) * synthetic)
        assert density_ratio(p, prior) == pytest.approx(real / synthetic)


def test_the_cut_is_at_the_alarm_or_where_doubt_began() -> None:
    lengths = np.full(5, 8)
    trust = np.full((5, 8), 0.9)
    trust[1, 5] = 0.01  # out of the blue
    trust[2, 3:6] = [0.4, 0.3, 0.01]  # doubt, then the alarm
    trust[3, :7], trust[3, 7] = 0.4, 0.01  # doubt all along: back by no more than the limit
    trust[4, 2:4] = 0.3  # doubt without an alarm
    assert truncation_step(trust, lengths, 0.1).tolist() == [8, 5, 3, 7 - LOOK_BACK, 8]
    assert truncation_step(trust, np.full(5, 5), 0.1).tolist() == [5] * 5  # beyond the end nothing counts


def test_nothing_weighs_after_the_cut_and_the_part_before_is_kept() -> None:
    weights = weigh(np.full((2, 10), 0.6), [0.8, 0.8], [10, 6])
    assert (weights[0] == 1).all()
    assert weights[1].tolist() == [1.0] * 6 + [0.0] * 4


def test_the_smaller_of_both_ratios_counts_and_is_clipped() -> None:
    weights = weigh([[0.9, 0.25, 0.5]], [0.6], [3])
    assert weights[0] == pytest.approx([1.0, 1 / 3, 1.0])
    assert weigh([[0.9] * 3], [0.4], [3])[0] == pytest.approx([2 / 3] * 3)
    assert weigh([[0.9] * 3], [0.9], [3])[0] == pytest.approx([1.0] * 3)
    assert weigh([[0.01] * 3], [0.9], [3])[0].tolist() == [0.0] * 3  # below the least weight


def test_a_short_remainder_or_a_doubtful_one_is_dropped_whole_but_a_short_rollout_is_not() -> None:
    trust = np.full((3, 10), 0.9)
    assert weigh(trust, [0.9, 0.1, 0.9], [4, 10, 5]).sum(1).tolist() == [0.0, 0.0, 5.0]
    short = gate_weights(trust, np.full(3, 0.9), np.full(3, 2), np.full(3, 2), np.ones((3, 10)), 0.2)
    assert short.sum(1).tolist() == [2.0] * 3


def test_uncertainty_costs_nothing_below_the_reference_and_is_not_forgotten() -> None:
    mask = np.ones((1, 4), dtype=bool)
    left = uncertainty_discount(np.array([[0.5, 1.0, 2.0, 0.1]]), mask, scale=1.0)
    assert left[0] == pytest.approx([1, 1, np.exp(-1), np.exp(-1)])
    assert (uncertainty_discount(None, mask, 1.0) == 1).all()


def test_a_scale_of_zero_discounts_nothing_but_what_is_not_known_at_all() -> None:
    mask = np.ones((2, 3), dtype=bool)
    found = uncertainty_discount(np.array([[0.0, 0.0, 0.0], [0.3, np.inf, 0.0]]), mask, scale=0.0)
    assert found.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_the_unit_of_uncertainty_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    uncertainty, mask = rng.random((5, 7)), np.ones((5, 7), dtype=bool)
    one, other = (uncertainty_discount(factor * uncertainty, mask, factor * 0.4) for factor in (1.0, 250.0))
    np.testing.assert_allclose(one, other)
    assert 0 < one.min() < one.max() == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_less_trust_never_weighs_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trust, episode = rng.random((4, 8)), rng.random(4)
    cuts, left = rng.integers(0, 9, 4), rng.random((4, 8))
    more = weigh(trust, episode, cuts, left)
    less = weigh(trust * rng.random((4, 8)), episode * rng.random(4), cuts, left)
    assert (less <= more + 1e-7).all()
    assert (more >= 0).all()
    assert (more <= 1).all()


def test_contribution_and_pass_rate() -> None:
    assert effective_contribution(np.array([[0.5, 0.5], [0.0, 0.0]]), num_real=9) == pytest.approx(0.1)
    assert effective_contribution(np.zeros((3, 2)), num_real=9) == 0
    assert pass_rate(np.array([0.1, 0.5, 0.9, 0.5]), 0.5) == 0.75
