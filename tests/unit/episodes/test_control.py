"""Steps of several recorded rows against loops over the rows, and against environments that play them."""

from dataclasses import replace

import numpy as np
import pytest
from episode_strategies import make_episode
from hypothesis import given
from hypothesis import strategies as st

from phaseb.episodes.control import Control, control_of_tags
from phaseb.episodes.control_choice import REPEAT_LIMIT, choose_action, describe, lost_by_repeating, rows_of_step
from phaseb.episodes.control_environment import ControlEnvironment
from phaseb.episodes.environment import VectorEnvironment, record
from phaseb.episodes.recorded import RecordedEpisode
from phaseb.errors import ConfigError, DataError
from phaseb.policy.gym_environment import GymVector


def control(rows, action="chunk"):
    return Control(asked_hz=50 / rows, recorded_hz=50, rows=rows, action=action)


@given(
    rows=st.integers(1, 7),
    length=st.integers(1, 40),
    terminated=st.booleans(),
    action=st.sampled_from(["repeat", "chunk"]),
    seed=st.integers(0, 99),
)
def test_every_row_is_part_of_one_step_or_behind_the_last(rows, length, terminated, action, seed):
    steps = control(rows, action)
    fine = make_episode("a", length, seed=seed, frames=True, terminated=terminated)
    windows = [range(first, min(first + rows, length)) for first in range(0, length, rows)]
    if len(windows[-1]) < rows and not terminated:
        windows.pop()
    recorded = RecordedEpisode.of(fine, 0.02)
    assert steps.num_steps(length, terminated) == len(windows)
    assert steps.num_rows_taken(length, terminated) == sum(map(len, windows))
    if not windows:
        with pytest.raises(ValueError, match="fewer than a step"):
            steps.steps_of(recorded)
        return
    made = steps.steps_of(recorded)
    assert (len(made), made.terminated) == (len(windows), terminated)
    seen = [window[0] for window in windows] + [windows[-1][-1] + 1]
    np.testing.assert_array_equal(made.state, [fine.state[row] for row in seen])
    np.testing.assert_array_equal(made.frames, [fine.frames[row] for row in seen])
    earned = [sum(float(fine.rewards[row]) for row in window) for window in windows]
    np.testing.assert_allclose(made.rewards, earned, rtol=1e-6, atol=1e-6)
    for step, window in enumerate(windows):
        taken = [fine.actions[row] for row in window]
        if action == "chunk":
            padded = taken + [taken[-1]] * (rows - len(taken))
            np.testing.assert_array_equal(made.actions[step], np.concatenate(padded))
        else:
            mean = np.mean(np.array(taken, np.float64), axis=0)
            nearest = [min(reversed(taken), key=lambda one: abs(one[d] - mean[d]))[d] for d in range(2)]
            np.testing.assert_array_equal(made.actions[step], nearest)
    assert control_of_tags(made.tags) == steps
    assert control_of_tags(fine.tags) is None


def test_nan_between_two_steps_is_refused_as_in_any_row():
    fine = make_episode("a", 10)
    for name in ("state", "actions", "rewards"):
        spoilt = getattr(fine, name).copy()
        spoilt[3] = np.nan
        with pytest.raises(DataError, match=f"episode a: {name} has NaN or Inf, first at \\(3"):
            control(5).steps_of(replace(RecordedEpisode.of(fine), **{name: spoilt}))


@pytest.mark.parametrize(("action", "hold"), [("chunk", 1), ("repeat", 4)])
def test_recorded_steps_replay_in_an_environment_to_the_recorded_states(action, hold):
    """The same torques, in the pendulum itself: states to the bit, rewards summed."""
    fine, rng = GymVector("Pendulum-v1", 2, 40), np.random.default_rng(0)

    class Wiggle:
        def reset(self, seeds):
            self.step = 0

        def act(self, observation):
            if self.step % hold == 0:
                self.torque = rng.uniform(-2, 2, (2, 1)).astype(np.float32)
            self.step += 1
            return self.torque

    episodes = record(fine, Wiggle(), [3, 4], ["a", "b"])
    steps = control(4, action)
    made = [steps.steps_of(RecordedEpisode.of(one)) for one in episodes]
    coarse = ControlEnvironment(GymVector("Pendulum-v1", 2, 40), steps)
    assert isinstance(coarse, VectorEnvironment)
    assert coarse.max_steps == 10
    assert coarse.action_high.tolist() == [2.0] * (4 if action == "chunk" else 1)
    seen = coarse.reset([3, 4])
    for t in range(10):
        for i, one in enumerate(made):
            np.testing.assert_array_equal(seen["state"][i], one.state[t])
        seen, rewards, terminated, truncated, _ = coarse.step(np.stack([one.actions[t] for one in made]))
        np.testing.assert_allclose(rewards, [one.rewards[t] for one in made], rtol=1e-5)
    assert truncated.all()
    assert not terminated.any()
    np.testing.assert_allclose(coarse.economics()["return"], [one.rewards.sum() for one in episodes], rtol=1e-5)


class Three:
    """Episodes that end with step 3 + i; a reward of 1 a step."""

    name, num_envs, max_steps, state_size, frame_shape = "three", 2, 20, 1, None
    action_low, action_high = -np.ones(1, np.float32), np.ones(1, np.float32)
    state_names = (("x", 1),)

    def reset(self, seeds, noise=None):
        self.noise, self.at, self.taken = noise, 0, []
        return {"state": np.zeros((2, 1), np.float32)}

    def step(self, actions):
        self.at += 1
        self.taken.append(actions.copy())
        over = self.at >= np.array([3, 4])
        rewards = (self.at <= np.array([3, 4])).astype(np.float32)
        return {"state": np.full((2, 1), self.at, np.float32)}, rewards, over, np.zeros(2, bool), {}

    def economics(self):
        return {}

    def render(self):
        return None

    def close(self):
        self.closed = True


def test_an_end_inside_a_decision_stops_it():
    inner = Three()
    coarse = ControlEnvironment(inner, control(5))
    coarse.reset([0, 1], [7, 8])
    assert (inner.noise, coarse.state_names) == ([7, 8], (("x", 1),))
    chunk = np.linspace(-1, 1, 10).reshape(2, 5).astype(np.float32)
    _, rewards, terminated, _, _ = coarse.step(chunk)
    assert rewards.tolist() == [3, 4]
    assert terminated.all()
    assert np.array_equal(np.concatenate(inner.taken, axis=1), chunk[:, :4]), "step 5 is not taken"
    with pytest.raises(ValueError, match=r"wanted actions \(2, 5\)"):
        coarse.step(chunk[:, :1])


def test_a_policy_that_collects_in_steps_marks_its_episodes():
    class Still:
        def reset(self, seeds):
            pass

        def act(self, observation):
            return np.zeros((2, 5), np.float32)

    steps = control(5)
    made = record(ControlEnvironment(Three(), steps), Still(), [0, 1], ["a", "b"], [{"by": "me"}, {}])
    assert [control_of_tags(one.tags) for one in made] == [steps, steps]
    assert made[0].tags["by"] == "me"
    assert [one.rewards.sum() for one in made] == [3, 4]


def held(rng, rows=5, noise=0.0):
    base = np.repeat(rng.standard_normal(60).astype(np.float32), rows)[:, None]
    return base + noise * rng.standard_normal(base.shape).astype(np.float32)


def test_actions_that_are_held_are_repeated_and_others_are_chunks():
    rng = np.random.default_rng(0)
    slow = np.sin(np.arange(300) / 40)[:, None].astype(np.float32)
    switch = (np.arange(300)[:, None] // 110 % 2).astype(np.float32)
    fast_switch = (np.arange(300)[:, None] // 7 % 2).astype(np.float32)
    still = np.ones((300, 1), np.float32)
    for actions, action in [
        (held(rng), "repeat"),
        (held(rng, noise=0.05), "repeat"),
        (held(rng, noise=0.3), "chunk"),
        (held(rng, rows=3), "chunk"),
        (slow, "chunk"),
        (np.concatenate([held(rng), switch, still], axis=1), "repeat"),
        (np.concatenate([held(rng), fast_switch], axis=1), "chunk"),
    ]:
        assert choose_action(10, 50, [actions, actions]).action == action
    assert choose_action(50, 50, [slow]).action == "repeat", "one row a step loses nothing"
    assert lost_by_repeating([slow[:3]], 5).size == 0


def test_what_may_be_repeated_ends_steps_where_they_ended():
    """A stiff position controller: under the limit a step ends within 5 % of its own movement, a slow ramp does not."""
    rng, rows, rate = np.random.default_rng(1), 5, 0.02

    def moved(state, target):
        for _ in range(4):
            acceleration = 400 * (target - state[..., 0]) - 40 * state[..., 1]
            state = state + rate / 4 * np.stack([state[..., 1], acceleration], -1)
        return state

    def ends_off(targets):
        state = [np.zeros(2)]
        for target in targets:
            state.append(moved(state[-1], target))
        states = np.array(state)
        steps = Control(10, 50, rows, "repeat")
        kept = steps.joined(targets[:, None].astype(np.float32))[:, 0]
        begins, ends = states[:-1:rows][: len(kept)], states[rows::rows]
        at = begins
        for _ in range(rows):
            at = moved(at, kept)
        return (((at - ends) ** 2).mean(0) / (ends - begins).var(0)).max()

    smooth = np.convolve(rng.standard_normal(3000), np.ones(25) / 25, "same")
    noise = np.repeat(smooth[::rows], rows)
    noise = noise + 0.08 * np.diff(smooth[::rows]).std() * rng.standard_normal(3000)
    allowed = float(lost_by_repeating([noise[:, None].astype(np.float32)], rows)[0])
    assert 0.3 < allowed < 1
    assert ends_off(noise) < 0.05
    ramp = np.sin(np.arange(3000) / 60)
    lost = float(lost_by_repeating([ramp[:, None].astype(np.float32)], rows)[0]) * REPEAT_LIMIT
    assert lost == pytest.approx((rows**2 - 1) / (12 * rows**2), rel=0.05), "8 % of a constant velocity"
    inside = np.var(ramp.reshape(-1, rows) - ramp.reshape(-1, rows).mean(1, keepdims=True)) / np.var(ramp)
    assert inside < REPEAT_LIMIT, "of the variance it would be little"
    assert ends_off(ramp) > 0.1


@pytest.mark.parametrize(
    ("asked", "recorded", "rows", "told"),
    [(10, 50, 5, "5 rows of the recorded 50 Hz, so 10 Hz:"), (12, 30, 2, "so 15 Hz (episodes.control_hz=12 does not")],
)
def test_the_rate_taken_is_said(asked, recorded, rows, told):
    made = choose_action(asked, recorded, [])
    assert rows_of_step(asked, recorded) == made.rows == rows
    assert told in describe(made)
    assert "earlier import" in describe(made, is_new=False)


def test_a_rate_near_the_recorded_one_is_it_and_a_higher_one_is_refused():
    assert "is the recorded rate, 29.97 Hz" in describe(choose_action(30, 29.97, []))
    assert describe(choose_action(7, 10, [])) == (
        "a step is one row of the recorded 10 Hz: episodes.control_hz=7 does not divide it"
    )
    with pytest.raises(ConfigError, match=r"episodes.control_hz=60 is above the 50 Hz that were recorded: set at most"):
        rows_of_step(60, 50)
