"""How many real episodes synthetic data is worth: read off a monotone learning curve, with what is not known said."""

import numpy as np
import pytest

from phaseb.promotion.sample_efficiency import episodes_worth

SIZES = (15, 30, 60, 120)


def curve(*means, seeds=6, noise=0.0):
    rng = np.random.default_rng(0)
    return np.array(means, float)[:, None] + noise * rng.normal(size=(len(means), seeds))


def test_what_twice_the_episodes_earn_is_worth_two():
    worth = episodes_worth(SIZES, curve(100, 200, 300, 400), np.full(6, 200.0))
    assert worth.value == pytest.approx(2)
    assert (worth.low, worth.high) == pytest.approx((2, 2))
    assert not worth.beyond


def test_between_two_sizes_it_is_read_over_the_logarithm():
    worth = episodes_worth(SIZES, curve(100, 200, 300, 400), np.full(6, 250.0))
    assert worth.value == pytest.approx(np.sqrt(8))


def test_no_gain_is_worth_one_and_harm_no_less():
    assert episodes_worth(SIZES, curve(100, 200, 300, 400), np.full(6, 100.0)).value == 1
    assert episodes_worth(SIZES, curve(100, 200, 300, 400), np.full(6, -50.0)).value == 1


def test_what_no_size_earns_is_more_than_all():
    worth = episodes_worth(SIZES, curve(100, 200, 300, 400), np.full(6, 500.0))
    assert worth.beyond
    assert str(worth) == "> 8"


def test_a_curve_that_dips_is_made_monotone():
    worth = episodes_worth(SIZES, curve(100, 300, 200, 400), np.full(6, 249.0))
    assert 1 < worth.value < 2  # 300 and 200 are one level, 250


def test_the_interval_holds_the_seeds_spread():
    told, other = curve(100, 200, 300, 400, noise=30), 250 + 30 * np.random.default_rng(1).normal(size=6)
    worth = episodes_worth(SIZES, told, other)
    assert worth.low < worth.value < worth.high
    wide = episodes_worth(SIZES, told, other + np.linspace(-150, 150, 6))
    assert wide.high - wide.low > worth.high - worth.low


def test_what_makes_no_curve_is_refused():
    with pytest.raises(ValueError, match="ascending"):
        episodes_worth((30, 15), curve(1, 2), np.ones(6))
    with pytest.raises(ValueError, match=r"wanted \(sizes, seeds\)"):
        episodes_worth(SIZES, curve(1, 2, 3, 4), np.ones(5))
