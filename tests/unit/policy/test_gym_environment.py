"""Any Gymnasium environment as a vector of episodes, and one line for what does not fit."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from phaseb.config.data import EnvironmentConfig
from phaseb.episodes.environment import VectorEnvironment
from phaseb.errors import ConfigError, DataError
from phaseb.policy.gym_environment import GymVector, make


class Counter(gymnasium.Env):
    """State (2,): seed of the start and steps done. Ends after `ends_after` steps. Faults on demand."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-2, 2, (1,), np.float32)
    ends_after = 5
    fault = ""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start, self.steps, self.over = float(self.np_random.uniform()), 0, False
        return np.array([self.start, 0.0]), {}

    def step(self, action):
        assert not self.over, "stepped after its end"
        assert self.action_space.contains(action)
        self.steps += 1
        observation, reward = np.array([self.start, float(self.steps)]), float(action[0])
        if self.steps == 3:
            if self.fault == "raise":
                raise RuntimeError("motor\nburnt")
            if self.fault == "nan":
                observation[1] = np.nan
            if self.fault == "reward":
                reward = float("inf")
            if self.fault == "shape":
                observation = np.zeros(3)
            if self.fault == "text":
                observation = "broken"
        self.over = self.steps >= self.ends_after + round(10 * self.start)
        return observation, reward, self.over, False, {"economics": {"mpl": 2.0 * self.steps}}


class BadAtStart(Counter):
    def reset(self, *, seed=None, options=None):
        raise OSError("no licence")


class Camera(Counter):
    observation_space = spaces.Dict(
        {
            "z": spaces.Discrete(3),
            "eye": spaces.Box(0, 255, (4, 5, 3), np.uint8),
            "arm": spaces.Box(-1, 1, (2,), np.float32),
        }
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._look(), {}

    def step(self, action):
        _, reward, over, cut, info = super().step(action)
        return self._look(), reward, over, cut, info

    def _look(self):
        eye = np.full((4, 5, 3), self.steps, dtype=np.uint8)
        return {"z": 1, "eye": eye, "arm": np.array([0.25, -0.5], dtype=np.float32)}


class Faulty(Counter):
    fault = "raise"


class Words(Counter):
    observation_space = spaces.Sequence(spaces.Discrete(2))


class Matrix(Counter):
    action_space = spaces.Box(-1, 1, (2, 2), np.float32)


class TwoCameras(Counter):
    observation_space = spaces.Dict({name: spaces.Box(0, 255, (4, 4, 3), np.uint8) for name in ("left", "right")})


def build_vector(config, num_envs):
    return GymVector("counter", num_envs, config.max_steps, make_one=Counter)


def build_nothing(config, num_envs):
    return {}


@pytest.fixture
def here(monkeypatch):
    """This test module under a name that can be imported."""
    monkeypatch.setitem(sys.modules, "phaseb_test_environments", sys.modules[__name__])
    return "phaseb_test_environments"


def test_pendulum_runs_and_repeats():
    environment = GymVector("Pendulum-v1", 3, 60)
    assert isinstance(environment, VectorEnvironment)
    assert (environment.state_size, environment.frame_shape) == (3, None)
    np.testing.assert_array_equal(environment.action_low, [-2])
    np.testing.assert_array_equal(environment.action_high, [2])
    actions = np.random.default_rng(0).uniform(-2, 2, (60, 3, 1))

    def run():
        states, rewards = [environment.reset([1, 2, 3])["state"]], []
        for action in actions:
            observation, reward, terminated, truncated, _ = environment.step(action)
            states.append(observation["state"])
            rewards.append(reward)
        assert truncated.all()
        assert not terminated.any()
        return np.stack(states), np.stack(rewards), environment.economics()

    states, rewards, economics = run()
    again, _, _ = run()
    np.testing.assert_array_equal(states, again)
    np.testing.assert_allclose(economics["return"], rewards.sum(axis=0), rtol=1e-5)
    assert np.isnan(economics["mpl"]).all()
    # By hand, on the environment itself.
    single = gymnasium.make("Pendulum-v1")
    observation, _ = single.reset(seed=2)
    np.testing.assert_array_equal(observation, states[0, 1])
    observation, reward, *_ = single.step(actions[0, 1].astype(np.float32))
    np.testing.assert_array_equal(observation, states[1, 1])
    assert reward == pytest.approx(rewards[0, 1])
    environment.close()


def test_who_ended_stands_still():
    environment = GymVector("counter", 4, 50, make_one=Counter)
    first = environment.reset([0, 1, 2, 3])["state"]
    ends = 5 + np.round(10 * first[:, 0]).astype(int)
    assert len(set(ends)) > 1
    for step in range(1, 20):
        observation, rewards, terminated, truncated, _ = environment.step(np.ones((4, 1)))
        np.testing.assert_array_equal(terminated, step >= ends)
        np.testing.assert_array_equal(rewards, step <= ends)
        np.testing.assert_array_equal(observation["state"][:, 1], np.minimum(step, ends))
    assert not truncated.any()
    np.testing.assert_array_equal(environment.economics()["return"], ends)
    np.testing.assert_array_equal(environment.economics()["mpl"], 2 * ends)


def test_the_time_limit_truncates():
    environment = GymVector("counter", 2, 3, make_one=Counter)
    environment.reset([0, 1])
    for step in range(1, 4):
        _, _, terminated, truncated, _ = environment.step(np.zeros((2, 1)))
        assert (truncated == (step == 3)).all()
    assert not terminated.any()


def test_actions_are_clipped_and_cast():
    environment = GymVector("counter", 1, 9, make_one=Counter)
    environment.reset([0])
    _, rewards, *_ = environment.step(np.array([[7.0]]))
    assert rewards[0] == 2
    with pytest.raises(ValueError, match="finite actions"):
        environment.step(np.array([[np.nan]]))
    with pytest.raises(ValueError, match="finite actions"):
        environment.step(np.zeros((1, 2)))


def test_a_dict_becomes_state_and_frames():
    environment = GymVector("camera", 2, 9, make_one=Camera)
    assert (environment.state_size, environment.frame_shape) == (5, (4, 5, 3))
    observation = environment.reset([0, 1])
    np.testing.assert_array_equal(observation["state"], [[0.25, -0.5, 0, 1, 0]] * 2)
    observation, *_ = environment.step(np.zeros((2, 1)))
    assert observation["frames"].shape == (2, 4, 5, 3)
    assert (observation["frames"] == 1).all()


def test_frames_are_kept_apart_from_a_reused_buffer():
    """An environment that hands out the same array again and again must not change what was seen before."""

    class Reuser(Camera):
        eye = np.zeros((4, 5, 3), dtype=np.uint8)

        def _look(self):
            self.eye[:] = self.steps
            return {"z": 1, "eye": self.eye, "arm": np.zeros(2, dtype=np.float32)}

    environment = GymVector("reuser", 1, 9, make_one=Reuser)
    first = environment.reset([0])["frames"]
    environment.step(np.zeros((1, 1)))
    assert (first == 0).all()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "environment faulty failed at step 3: RuntimeError: motor$"),
        ("nan", "environment faulty at step 3: NaN or Inf in the observation, number 1"),
        ("reward", "environment faulty gave reward inf at step 3"),
        ("shape", "environment faulty at step 3: state of shape"),
        ("text", "environment faulty at step 3"),
    ],
)
def test_faults_name_environment_and_step(fault, message):
    environment = GymVector("faulty", 1, 9, make_one=Counter)
    environment._envs[0].fault = fault
    environment.reset([0])
    for _ in range(2):
        environment.step(np.zeros((1, 1)))
    with pytest.raises(DataError, match=message):
        environment.step(np.zeros((1, 1)))


def test_a_failing_reset_is_told():
    with pytest.raises(DataError, match="environment bad failed on reset: OSError: no licence"):
        GymVector("bad", 1, 9, make_one=BadAtStart).reset([0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CartPole-v1", "actions are Discrete"),
        ("Nope-v0", r"cannot be made \(NameNotFound: .*check the name, or install what it needs"),
        ("no_such_module:Env", "there is no module no_such_module; put it into the current folder or on PYTHONPATH"),
        ("gymnasium:NoSuchClass", "module gymnasium has no NoSuchClass; name a class or function of it"),
    ],
)
def test_what_cannot_be_used_is_a_config_error(name, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make(EnvironmentConfig(id=name), 1)
    assert f"environment.id={name}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("one", [Words, Matrix, TwoCameras])
def test_spaces_that_do_not_fit_are_config_errors(one):
    with pytest.raises(ConfigError, match=r"environment\.id=odd"):
        GymVector("odd", 1, 9, make_one=one)


def test_a_class_of_your_own(here):
    environment = make(EnvironmentConfig(id=f"{here}:Counter", max_steps=9), 2)
    assert environment.num_envs == 2
    assert environment.reset([0, 1])["state"].shape == (2, 2)
    assert make(EnvironmentConfig(id=f"{here}:build_vector", max_steps=7), 3).max_steps == 7
    with pytest.raises(ConfigError, match="neither"):
        make(EnvironmentConfig(id=f"{here}:build_nothing"), 1)


def test_pictures_alone_are_frames():
    class Eye(Camera):
        observation_space = spaces.Box(0, 255, (4, 5, 3), np.uint8)

        def _look(self):
            return np.full((4, 5, 3), self.steps, dtype=np.uint8)

    environment = GymVector("eye", 1, 9, make_one=Eye)
    assert (environment.state_size, environment.frame_shape) == (0, (4, 5, 3))
    assert set(environment.reset([0])) == {"frames"}


class Fine(Counter):
    """Bounds that single precision rounds to the outside."""

    action_space = spaces.Box(-0.1, 0.1, (1,), np.float64)


class Whole(Counter):
    action_space = spaces.Box(-3, 3, (1,), np.int32)


@pytest.mark.parametrize(
    ("kind", "given", "wanted"), [(Fine, 7.0, 0.1), (Fine, -7.0, -0.1), (Whole, 1.7, 2), (Whole, 9.0, 3)]
)
def test_actions_are_clipped_last_in_the_type_of_the_space(kind, given, wanted):
    """`Counter` asserts that its space contains every action."""
    environment = GymVector("test", 1, 10, make_one=kind)
    environment.reset([0])
    given = np.clip(np.float32([[given]]), environment.action_low, environment.action_high)
    _, rewards, *_ = environment.step(given)
    assert rewards[0] == np.float32(wanted)


def test_a_state_in_double_precision_stays_so():
    class Clock(Counter):
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.array([1.7e9 + 0.25, 0.0]), {}

    environment = GymVector("test", 1, 10, make_one=Clock)
    assert environment.reset([0])["state"][0, 0] == 1.7e9 + 0.25
