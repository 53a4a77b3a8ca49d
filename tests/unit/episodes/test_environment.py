"""Recording episodes in an environment, and seeing that episodes and environment fit."""

import numpy as np
import pytest

from phaseb.episodes.environment import check_fit, record
from phaseb.episodes.episode import Episode
from phaseb.errors import DataError


class Countdown:
    """State (2,): steps left and the last action. Episode i ends by itself after `seed` steps."""

    name, num_envs, max_steps = "countdown", 3, 6
    action_low, action_high = np.array([-1], dtype=np.float32), np.array([1], dtype=np.float32)
    state_size, frame_shape = 2, None

    def reset(self, seeds):
        self.left, self.last, self.steps = np.array(seeds, dtype=np.float32), np.zeros(3, dtype=np.float32), 0
        return self._see()

    def step(self, actions):
        running = (self.left > 0) & (self.steps < self.max_steps)
        self.last = np.where(running, actions[:, 0], self.last).astype(np.float32)
        self.left, self.steps = self.left - running, self.steps + 1
        reward = np.where(running, self.last, 0).astype(np.float32)
        return self._see(), reward, self.left == 0, np.full(3, self.steps == self.max_steps), {}

    def economics(self):
        return {"mpl": self.left.astype(float), "return": np.zeros(3)}

    def _see(self):
        return {"state": np.stack([self.left, self.last], axis=1)}


class Ramp:
    def reset(self, seeds):
        self.step = 0

    def act(self, observation):
        self.step += 1
        return np.full((3, 1), 0.3 * self.step, dtype=np.float32)


def test_episodes_are_cut_at_their_own_ends():
    episodes = record(Countdown(), Ramp(), [2, 9, 4], ["a", "b", "c"], [{"who": "x"}, {}, {}])
    assert [len(e) for e in episodes] == [2, 6, 4]
    assert [e.terminated for e in episodes] == [True, False, True]
    assert episodes[0].tags == {"who": "x"}
    assert episodes[1].metrics == {"mpl": 3.0}
    # Actions are recorded as the environment took them: within its bounds.
    np.testing.assert_allclose(episodes[1].actions[:, 0], [0.3, 0.6, 0.9, 1, 1, 1], rtol=1e-6)
    np.testing.assert_array_equal(episodes[2].rewards, episodes[2].actions[:, 0])
    np.testing.assert_array_equal(episodes[2].state[:, 0], [4, 3, 2, 1, 0])
    np.testing.assert_array_equal(episodes[2].state[1:, 1], episodes[2].actions[:, 0])


def episode(**columns):
    return Episode(id="e1", rewards=np.zeros(2, dtype=np.float32), **columns)


def test_what_fits_passes():
    state, actions = np.zeros((3, 2), dtype=np.float32), np.zeros((2, 1), dtype=np.float32)
    check_fit(Countdown(), episode(state=state, actions=actions))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"state": np.zeros((3, 4), dtype=np.float32)}, r"state of shape \(4,\), environment countdown has state of"),
        ({"frames": np.zeros((3, 8, 8, 3), dtype=np.uint8)}, "environment countdown has no frames"),
        (
            {"state": np.zeros((3, 2), dtype=np.float32), "actions": np.zeros((2, 5), dtype=np.float32)},
            r"episode e1 has actions of shape \(5,\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(columns, message):
    with pytest.raises(DataError, match=message):
        check_fit(Countdown(), episode(**columns))


def test_named_parts_in_another_order_are_refused():
    environment = Countdown()
    environment.state_names = (("x", 1), ("v", 1))
    columns = {"state": np.zeros((3, 2), dtype=np.float32), "actions": np.zeros((2, 1), dtype=np.float32)}
    check_fit(environment, episode(**columns, tags={"state_columns": '[["x", 1], ["v", 1]]'}))
    with pytest.raises(DataError, match=r"that of environment countdown is x \(1\), v \(1\): 'v' lies elsewhere"):
        check_fit(environment, episode(**columns, tags={"state_columns": '[["v", 1], ["x", 1]]'}))
