"""Groups of runs as Ray tasks: as many as there is room for, stopped together, resumed."""

import functools
import os
import time

import pytest

from phaseb.config.run import ResourcesConfig
from phaseb.errors import DivergenceError
from phaseb.runtime import signals
from phaseb.runtime.storage import Store
from phaseb.training.fit import fit_groups

TWO = ResourcesConfig(num_tasks=2)


def stores(folder, number):
    return [Store.at(folder / str(group)) for group in range(number)]


def meet(folder, group, report):
    """Waits for the other group, then reports."""
    (folder / f"there-{group}").touch()
    deadline = time.monotonic() + 60
    while group < 2 and not (folder / f"there-{1 - group}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    report({"step": 4.0, "num_steps": 4.0})
    return group, os.getpid()


def test_groups_train_beside_each_other_and_come_back_in_order(tmp_path):
    seen = []
    found = fit_groups(functools.partial(meet, tmp_path), stores(tmp_path, 3), TWO, seen.append)
    assert [group for group, _ in found] == [0, 1, 2]
    assert len({process for _, process in found[:2]}) == 2
    assert os.getpid() not in {process for _, process in found}
    assert seen[-1] == {"step": 4.0, "num_steps": 4.0}


def alone(folder, group, report):
    """Fails where another group is at work."""
    (folder / "at-work").mkdir()
    time.sleep(0.2)
    (folder / "at-work").rmdir()
    return group, os.getpid()


def test_fewer_at_a_time_are_tasks_too(tmp_path):
    train = functools.partial(alone, tmp_path)
    found = fit_groups(train, stores(tmp_path, 3), TWO, lambda metrics: None, max_concurrent=1)
    assert [group for group, _ in found] == [0, 1, 2]
    assert os.getpid() not in {process for _, process in found}


def diverge(folder, group, report):
    """The first fails when the second is at work, which goes on until it is stopped and then writes a checkpoint."""
    if group:
        with signals.defer_shutdown() as requested:
            (folder / "at-work").touch()
            while not requested():
                time.sleep(0.02)
            (folder / "checkpoint").touch()
            raise KeyboardInterrupt
    while not (folder / "at-work").exists():
        time.sleep(0.02)
    raise DivergenceError("loss is inf at step 3")


def test_the_error_of_one_stops_the_others_which_write_a_checkpoint(tmp_path):
    with pytest.raises(DivergenceError, match=r"^loss is inf at step 3$"):
        fit_groups(functools.partial(diverge, tmp_path), stores(tmp_path, 2), TWO, lambda metrics: None)
    assert (tmp_path / "checkpoint").exists()
