"""The limiter's law, whatever learners and writers try."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phaseb.replay.limiter import LimitedError, Limiter


@given(
    ratio=st.floats(0.1, 10), tolerance=st.floats(1, 200), calls=st.lists(st.tuples(st.booleans(), st.integers(1, 50)))
)
def test_the_balance_stays_within_the_tolerance(ratio, tolerance, calls):
    limiter = Limiter(ratio, tolerance, min_size=10)
    for is_sample, count in calls:
        try:
            if is_sample:
                limiter.before_sample(count)
            else:
                limiter.before_insert(count)
                limiter.after_insert(count)
        except LimitedError:
            continue
        balance = ratio * limiter.inserted - limiter.sampled
        largest = max(50 * max(ratio, 1) - tolerance, 0)  # one call may be larger than the tolerance
        start = ratio * 60  # what goes in before min_size
        assert -tolerance - largest <= balance <= max(tolerance + largest, start)


def test_neither_side_can_be_stuck_while_the_other_waits():
    limiter = Limiter(ratio=2.0, tolerance=5.0, min_size=0)
    waiting = 0
    for _ in range(500):
        blocked = []
        for side in (limiter.before_sample, limiter.before_insert):
            try:
                side(30)
                if side == limiter.before_insert:
                    limiter.after_insert(30)
            except LimitedError:
                blocked.append(side)
        assert len(blocked) < 2
        waiting += len(blocked)
    assert waiting > 100
    assert limiter.sampled / limiter.inserted == pytest.approx(2.0, rel=0.05)


def test_no_ratio_means_no_limit():
    free, limited = Limiter(0.0, 1.0, 0), Limiter(1.0, 1.0, 0)
    for _ in range(3):
        free.before_sample(10**9)
        free.before_insert(10**9)
        free.after_insert(10**9)
    limited.before_insert(10**9)
    limited.after_insert(10**9)
    with pytest.raises(LimitedError):
        limited.before_insert(10**9)
    limited.before_sample(10**9)
    limited.before_sample(10**9)  # one call may go beyond the tolerance
    with pytest.raises(LimitedError):
        limited.before_sample(10**9)
