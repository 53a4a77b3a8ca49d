import re
import signal
import time

import numpy as np
import pytest

from phaseb.config.data import ValuationConfig
from phaseb.episodes.environment import VectorEnvironment
from phaseb.errors import ConfigError, DataError
from phaseb.policy.checked_environment import check_spaces
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
            "good_units": self.steps.copy(),
            "errors": (self.seeds % 2).astype(float),
            "duration_h": 0.1 * self.steps,
            "energy_wh": 3.0 * self.steps,
            "return": np.zeros(self.num_envs),
        }

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
    return evaluate(
        lambda z, step: np.full((len(z), 1), 0.2, np.float32), Identity(), environment, seeds, lambda a: 5 * a
    )


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


def test_an_interval_ends_where_the_quantity_does():
    rows = [dict.fromkeys(("mpl", "energy_wh_per_unit", "return", "net_value_per_hour"), v) for v in (0.0, 0.0, 9.0)]
    for rates in ((0.0, 0.0, 0.01), (1.0, 1.0, 0.99)):
        table = summarise([row | {"error_rate": rate} for row, rate in zip(rows, rates, strict=True)])
        assert 0 <= table["error_rate"]["low"] < table["error_rate"]["mean"] < table["error_rate"]["high"] <= 1
    assert table["mpl"]["low"] == 0 == table["energy_wh_per_unit"]["low"]
    assert table["net_value_per_hour"]["low"] < 0 > table["return"]["low"]  # these may be lost


def test_bad_environments_are_named():
    with pytest.raises(DataError, match="environment Counting gave NaN or Inf in rewards of episode 1 at step 2"):
        run([3, 4, 5, 6], nan_at=2)
    with pytest.raises(ConfigError, match=r"acts \(3,\), but Counting wants \(1,\)"):
        evaluate(lambda z, step: np.zeros((len(z), 3), np.float32), Identity(), Counting(2), [1, 2])
    with pytest.raises(DataError, match="the policy acts NaN or Inf in environment Counting at step 0"):
        evaluate(lambda z, step: np.full((len(z), 1), np.nan, np.float32), Identity(), Counting(2), [1, 2])


class Bad(Counting):
    """Does one thing wrong at step 2."""

    def __init__(self, wrong):
        super().__init__(4)
        self.wrong = wrong

    def step(self, actions):
        answer = super().step(actions)
        if self.clock - 1 == 2:
            if self.wrong == "raises":
                raise RuntimeError("the hoist is stuck\nsecond line")
            if self.wrong == "hangs":
                try:
                    while True:
                        time.sleep(0.01)
                except Exception:  # noqa: BLE001 (an environment that swallows whatever it is told)
                    pass
            if self.wrong == "shrinks":
                return answer[0], answer[1][:2], *answer[2:]
            if self.wrong == "forgets":
                return {"state": answer[0]["state"][:, :1]}, *answer[1:]
        if self.wrong == "never ends":
            return answer[0], answer[1], np.zeros(4, bool), np.zeros(4, bool), {}
        return answer


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("raises", "environment Counting failed at step 2: RuntimeError: the hoist is stuck$"),
        ("hangs", "environment Counting did not answer for 0.2 s (evaluation.step_limit_s) at step 2"),
        ("shrinks", "environment Counting gave rewards of shape (2,), wanted (4,) at step 2"),
        ("forgets", "environment Counting gave a state of shape (1,), its own spaces say 2 at step 2"),
        ("never ends", "environment Counting has 4 episodes that did not end, though 10 steps are the most at step 9"),
    ],
)
def test_whatever_an_environment_does_wrong_is_one_line(wrong, line):
    pattern = re.escape(line).replace(r"\$", "$")
    handler, left_s = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    with pytest.raises(DataError, match=pattern):
        evaluate(
            lambda z, step: np.zeros((len(z), 1), np.float32), Identity(), Bad(wrong), [6, 13, 20, 27], step_limit_s=0.2
        )
    assert signal.getsignal(signal.SIGALRM) == handler, "nothing is left behind"
    assert bool(signal.getitimer(signal.ITIMER_REAL)[0]) == bool(left_s), "somebody else's alarm goes on"


def test_spaces_that_do_not_fit_the_policy_are_named():
    check_spaces(Counting(1), 2, None, 1)
    check_spaces(Counting(1), 0, None, 1)
    for sizes, line in (
        ((3, None, 1), "environment Counting has a state of size 2, the policy was trained with 3"),
        ((2, (64, 64, 3), 1), r"has frames of shape none, the policy was trained with \(64, 64, 3\)"),
        ((2, None, 2), "has actions of size 1, the policy was trained with 2"),
    ):
        with pytest.raises(ConfigError, match=line):
            check_spaces(Counting(1), *sizes)
