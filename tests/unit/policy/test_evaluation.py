import numpy as np
import pytest

from phaseb.config.valuation import ValuationConfig
from phaseb.episodes.environment import VectorEnvironment
from phaseb.errors import ConfigError, DataError
from phaseb.policy.evaluation import aggregate, evaluate, summarise


class Counting:
    """An episode of seed s ends after s % 7 + 1 steps and makes a unit a step, an error on odd seeds."""

    name = "Counting"

    def __init__(self, num_envs, max_steps=10, nan_at=None):
        self.num_envs, self.max_steps, self.nan_at = num_envs, max_steps, nan_at
        self.action_low, self.action_high = np.array([0.0], np.float32), np.array([10.0], np.float32)
        self.state_size, self.frame_shape = 2, None

    def _observe(self):
        return {"state": np.stack([self.seeds, self.steps], 1).astype(np.float32)}

    def reset(self, seeds):
        assert len(seeds) == self.num_envs
        self.seeds, self.steps, self.clock = np.array(seeds), np.zeros(len(seeds)), 0
        return self._observe()

    def step(self, actions):
        going = self.steps < self.seeds % 7 + 1
        self.steps += going
        self.clock += 1
        rewards = np.where(going, actions[:, 0], 0).astype(np.float32)
        if self.nan_at == self.clock - 1:
            rewards[1] = np.nan
        done = self.steps >= self.seeds % 7 + 1
        return self._observe(), rewards, done, np.full(self.num_envs, self.clock >= self.max_steps), {}

    def economics(self):
        return {
            "good_units": self.steps.copy(), "errors": (self.seeds % 2).astype(float), "duration_h": 0.1 * self.steps,
            "energy_wh": 3.0 * self.steps, "return": np.zeros(self.num_envs),
        }  # fmt: skip

    def render(self):
        return None

    def close(self):
        pass


class Identity:
    def reset(self, observation):
        return observation["state"]

    def step(self, observation):
        return observation["state"]


def run(seeds, num_envs=4, **kwargs):
    environment = Counting(num_envs, **kwargs)
    assert isinstance(environment, VectorEnvironment)
    return evaluate(lambda z: np.full((len(z), 1), 0.2, np.float32), Identity(), environment, seeds, lambda a: 5 * a)


def test_one_row_a_seed_in_order_with_what_it_earned():
    seeds = list(range(10, 21))
    rows = run(seeds)
    assert [r["seed"] for r in rows] == seeds
    assert [r["steps"] for r in rows] == [s % 7 + 1 for s in seeds]
    np.testing.assert_allclose([r["return"] for r in rows], [s % 7 + 1 for s in seeds], rtol=1e-6)
    assert all(r["terminated"] == 1 for r in rows)


def test_rows_do_not_depend_on_how_many_run_side_by_side():
    assert run(range(9), num_envs=3) == run(range(9), num_envs=8)


def test_a_time_limit_is_no_end():
    rows = run([6, 13], max_steps=3)
    assert [r["steps"] for r in rows] == [3, 3]
    assert not any(r["terminated"] for r in rows)


def test_rates_are_ratios_of_sums():
    rows = [
        {"good_units": 3, "errors": 1, "duration_h": 0.5, "energy_wh": 30.0, "return": 2.0},
        {"good_units": 1, "errors": 0, "duration_h": 1.5, "energy_wh": 10.0, "return": 0.0},
    ]
    earned = aggregate(rows, ValuationConfig(price_per_unit=2, cost_per_error=3, price_per_kwh=50))
    assert earned["mpl"] == pytest.approx(2.0)
    assert earned["error_rate"] == pytest.approx(0.2)
    assert earned["energy_wh_per_unit"] == pytest.approx(10.0)
    assert earned["return"] == pytest.approx(1.0)
    assert earned["net_value_per_hour"] == pytest.approx((8 - 3 - 2) / 2)


def test_no_attempt_has_no_error_rate():
    earned = aggregate([{"good_units": 0, "errors": 0, "duration_h": 1.0, "energy_wh": 1.0}], ValuationConfig())
    assert np.isnan(earned["error_rate"])
    assert np.isnan(earned["energy_wh_per_unit"])
    assert earned["mpl"] == 0
    unknown = aggregate([{"return": 3.0, "good_units": np.nan}], ValuationConfig())
    assert np.isnan(unknown["mpl"])
    assert unknown["return"] == 3.0


def test_intervals_are_over_seeds():
    names = ("mpl", "error_rate", "energy_wh_per_unit", "return", "net_value_per_hour")
    table = summarise([dict.fromkeys(names, v) for v in (1.0, 2.0, 3.0)])
    assert table["mpl"]["mean"] == pytest.approx(2.0)
    assert table["mpl"]["high"] == pytest.approx(2 + 4.302653 / 3**0.5, rel=1e-5)


def test_bad_environments_are_named():
    with pytest.raises(DataError, match="Counting gave NaN or Inf in rewards of episode 1 at step 2"):
        run([3, 4, 5, 6], nan_at=2)
    with pytest.raises(ConfigError, match=r"acts \(3,\), but Counting wants \(1,\)"):
        evaluate(lambda z: np.zeros((len(z), 3), np.float32), Identity(), Counting(2), [1, 2])
