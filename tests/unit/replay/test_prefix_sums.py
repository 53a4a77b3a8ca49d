"""Weighted draws against NumPy's own prefix sums, through any sequence of changes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.replay.stratum import PrefixSums

change = st.tuples(st.integers(0, 2000), st.integers(1, 400), st.sampled_from([0.0, 0.25, 1.0, 3.0]))


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 1500), changes=st.lists(change, max_size=12), seed=st.integers(0, 2**32))
def test_draws_are_those_of_a_plain_cumulative_sum(size, changes, seed):
    """Weights are multiples of 1/4, so that sums are exact and rows must agree, whatever the order of adding."""
    g = np.random.default_rng(seed)
    weights = np.zeros(size)
    sums = PrefixSums(size, lambda begin, stop: weights[begin:stop])
    for begin, count, value in changes:
        begin %= size
        weights[begin : begin + count] = value * g.integers(0, 3, len(weights[begin : begin + count]))
        sums.mark(begin, min(begin + count, size))
        assert sums.total == weights.sum()
        assert sums.num_positive == (weights > 0).sum()
        if weights.sum():
            targets = g.random(50) * weights.sum()
            expected = np.searchsorted(np.cumsum(weights), targets, side="right")
            np.testing.assert_array_equal(sums.find(targets), expected)
            start = int(g.integers(size))
            turned = np.roll(weights, -start)
            expected = (np.searchsorted(np.cumsum(turned), targets, side="right") + start) % size
            np.testing.assert_array_equal(sums.find(targets, start), expected)


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.one_of(st.just(0.0), st.floats(1e-30, 1e30)), min_size=1, max_size=600))
def test_no_row_of_weight_zero_is_ever_drawn(weights):
    values = np.array(weights)
    if values.sum() == 0:
        return
    sums = PrefixSums(len(values), lambda begin, stop: values[begin:stop])
    edges = np.linspace(0, np.nextafter(sums.total, 0), 300)
    assert (values[sums.find(edges)] > 0).all()
    assert (values[sums.find(np.array([sums.total, sums.total * 2]))] > 0).all()


@settings(max_examples=40, deadline=None)
@given(
    weights=st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e9)), min_size=1, max_size=900).filter(any),
    seed=st.integers(0, 2**32),
)
def test_a_guide_changes_no_draw(weights, seed):
    values = np.array(weights)
    plain, guided = (PrefixSums(len(values), lambda begin, stop: values[begin:stop]) for _ in range(2))
    guided.find(np.zeros(len(values)))  # as many draws as it takes to have one
    assert guided._guide is not None
    sums = np.array([plain.total * k / 97 for k in range(97)])
    edges = plain._sum_to(np.arange(len(values)))
    drawn = np.random.default_rng(seed).random(50) * plain.total
    targets = np.concatenate([sums, edges, np.nextafter(edges, 0), drawn])
    targets = np.minimum(targets, np.nextafter(plain.total, 0))
    np.testing.assert_array_equal(guided.find(targets), plain._bisect(targets))


def test_single_rows_can_be_marked():
    weights = np.ones(1000)
    sums = PrefixSums(1000, lambda begin, stop: weights[begin:stop])
    assert sums.total == 1000
    weights[[3, 700]] = 0
    sums.mark_rows(np.array([3, 700]))
    assert sums.total == 998
    assert sums.find(np.array([2.5, 3.0])).tolist() == [2, 4]
