"""Results of Ray tasks: in their order, a bounded number at a time, and a user's error as itself."""

import functools

import pytest
import ray

from phaseb.errors import DataError
from phaseb.runtime.ray_tasks import results_of


@ray.remote(num_cpus=0)
def work(place):
    if place < 0:
        raise DataError(f"task {place} has no data")
    return 10 * place


def test_results_come_in_order_and_no_more_tasks_are_begun_than_asked_for():
    begun, ended, most = [], [], []

    def begin(place):
        begun.append(place)
        most.append(len(begun) - len(ended))
        return work.remote(place)

    found = results_of([functools.partial(begin, place) for place in range(7)], 3, lambda *one: ended.append(one))
    assert found == [0, 10, 20, 30, 40, 50, 60]
    assert begun == list(range(7))
    assert sorted(ended) == [(place, 10 * place) for place in begun]
    assert max(most) == 3


def test_no_tasks_have_no_results():
    assert results_of([], 2) == []


def test_a_user_s_error_comes_back_as_itself():
    with pytest.raises(DataError, match="task -1 has no data"):
        results_of([functools.partial(work.remote, place) for place in (1, -1, 2)], 2)
