"""Operators of mixed skill: what their habits do to output, errors and energy is the physics' doing."""

import numpy as np
import pytest

from phaseb.config.data import EnvironmentConfig, ValuationConfig
from phaseb.episodes.environment import record
from phaseb.runtime.seeding import derive_seed
from phaseb.workcell import BatchedCell
from phaseb.workcell.collect import collect_episodes
from phaseb.workcell.operators import KINDS, Operator, OperatorCrew, draw_operator
from phaseb.workcell.oracle import Oracle

NUM_EPISODES = 192


def shift(operator):
    """Economics over many shifts of one operator: units an hour, error rate, energy."""
    cell = BatchedCell(NUM_EPISODES // 2, "state")
    seeds = [derive_seed(1, i) for i in range(cell.num_envs)]
    record(cell, OperatorCrew([operator] * cell.num_envs), seeds, [str(s) for s in seeds])
    return totals(cell.economics())


def totals(columns):
    good, errors = columns["good_units"].sum(), columns["errors"].sum()
    return good / columns["duration_h"].sum(), errors / (good + errors), columns["energy_wh"].mean()


@pytest.fixture(scope="module")
def recorded():
    return collect_episodes(EnvironmentConfig(observation="state"), 3, range(2 * NUM_EPISODES))


def columns_of(episodes):
    return {name: np.array([e.metrics[name] for e in episodes]) for name in episodes[0].metrics}


def test_harder_driving_raises_output_errors_and_energy():
    """The ground truth of the valuation: same hands, same judgement, only the pace differs."""
    shifts = [shift(Operator(pace, 0.9, 0.1, 9.0, 60.0, 0.05)) for pace in (0.45, 0.6, 0.8)]
    mpl, error_rate, energy_wh = np.array(shifts).T
    assert (np.diff(mpl) > 50).all()
    assert (np.diff(error_rate) > 0.01).all()
    assert (np.diff(energy_wh) > 0.001).all()


def test_haste_spoils_parts():
    calm = shift(Operator(0.65, 0.85, 0.11, 0.36, 60.0, 0.1))
    hasty = shift(Operator(0.65, 0.85, 0.16, 0.8, 4.0, 0.1))
    assert calm[1] < 0.02
    assert hasty[1] > 0.4
    assert hasty[0] < calm[0]


def test_the_population_errs_as_the_founding_reports_did(recorded):
    mpl, error_rate, _ = totals(columns_of(recorded))
    assert 270 < mpl < 420
    assert 0.26 < error_rate < 0.42


def test_skill_is_worth_money(recorded):
    prices, values = ValuationConfig(), {}
    for kind in KINDS:
        columns = columns_of([e for e in recorded if e.tags["operator"] == kind])
        earned = columns["good_units"] * prices.price_per_unit - columns["errors"] * prices.cost_per_error
        earned = earned - columns["energy_wh"] / 1000 * prices.price_per_kwh
        values[kind] = earned.sum() / columns["duration_h"].sum()
    assert values["skilled"] > values["average"] + 100
    assert values["average"] > values["hasty"] + 100


def test_kinds_come_in_their_shares():
    kinds = [draw_operator(seed)[0] for seed in range(2000)]
    assert kinds.count("skilled") / 2000 == pytest.approx(0.3, abs=0.04)
    assert kinds.count("hasty") / 2000 == pytest.approx(0.3, abs=0.04)


def test_habits_vary_within_a_kind():
    paces = [o.pace for kind, o in (draw_operator(s) for s in range(600)) if kind == "hasty"]
    assert np.std(np.log(paces)) == pytest.approx(0.15, rel=0.2)
    assert np.exp(np.mean(np.log(paces))) == pytest.approx(KINDS["hasty"].pace, rel=0.05)


def test_the_oracle_outdoes_everyone(recorded):
    cell = BatchedCell(128, "state")
    seeds = [derive_seed(77, i) for i in range(128)]
    record(cell, Oracle(cell), seeds, [str(s) for s in seeds])
    mpl, error_rate, _ = totals(cell.economics())
    assert mpl > 800
    assert error_rate < 0.01
    skilled = columns_of([e for e in recorded if e.tags["operator"] == "skilled"])
    assert mpl > 1.5 * totals(skilled)[0]
