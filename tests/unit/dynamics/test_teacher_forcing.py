"""Schedules hit their ends, fall in between, and have the shapes they are named for."""

import itertools
import math

import pytest

from phaseb.config.dynamics import HorizonConfig, TeacherForcingConfig
from phaseb.dynamics.gru_ensemble.teacher_forcing import forcing_probability, training_horizon

FALLING = ("linear", "exponential", "inverse_sigmoid")


@pytest.mark.parametrize("schedule", FALLING)
def test_schedules_go_from_start_to_end(schedule):
    config = TeacherForcingConfig(schedule=schedule, start=0.9, end=0.1, until=0.5)
    values = [forcing_probability(config, p / 100) for p in range(101)]
    assert values[0] == pytest.approx(0.9)
    assert values[50:] == pytest.approx([0.1] * 51)
    assert all(a >= b for a, b in itertools.pairwise(values))


def test_shapes():
    def at(schedule, share):
        return forcing_probability(TeacherForcingConfig(schedule=schedule, start=1.0, end=0.0, until=1.0), share)

    assert at("linear", 0.25) == pytest.approx(0.75)
    assert at("exponential", 0.3) == pytest.approx((math.exp(-3) - math.exp(-10)) / (1 - math.exp(-10)))
    assert at("inverse_sigmoid", 0.5) == pytest.approx(0.5)
    assert at("inverse_sigmoid", 0.1) > 0.95
    assert forcing_probability(TeacherForcingConfig(schedule="constant", start=0.3), 0.7) == 0.3


def test_horizon_grows_to_the_sampling_horizon():
    config = HorizonConfig(steps=60, start=10)
    assert [training_horizon(config, p) for p in (0, 0.4, 0.65, 0.9, 1.0)] == [10, 10, 35, 60, 60]
    assert training_horizon(HorizonConfig(steps=5, start=10), 0.0) == 5
