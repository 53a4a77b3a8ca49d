"""ALOHA's transfer of a cube, as far as it goes without the simulator: the script, the wrapper and the results."""

import importlib
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from phaseb.config.data import ColumnsConfig, EnvironmentConfig, EpisodesConfig
from phaseb.episodes.control import Control
from phaseb.episodes.environment import VectorEnvironment
from phaseb.episodes.formats.hdf5 import Source
from phaseb.policy.checked_environment import GuardedEnvironment

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FIXTURE = Path(__file__).parents[1] / "fixtures" / "aloha.hdf5"


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(BENCHMARKS))
    yield {name: importlib.import_module(name) for name in ("aloha", "aloha_environment", "aloha_episodes")}
    sys.path.remove(str(BENCHMARKS))


DIVERGES = 13


class FakeSimulation:
    """The cube moves by the first action; the reward is the number of steps, up to the seed."""

    drawn = 0

    def reset(self, seed):
        self.seed, self.steps, self.moved = seed, 0, 0.0

    def step(self, action):
        self.steps, self.moved = self.steps + 1, self.moved + float(action[0])
        return None if self.seed == DIVERGES else float(min(self.steps, self.seed))

    def state(self):
        return np.full(21, self.moved, np.float32)

    def frame(self, camera):
        FakeSimulation.drawn += 1
        return np.full((64, 64, 3), self.steps + 100 * (camera == "angle"), np.uint8)

    def bounds(self):
        return np.full(14, -1, np.float32), np.full(14, 1, np.float32)

    def close(self):
        pass


@pytest.fixture
def environment(modules, monkeypatch):
    monkeypatch.setattr(modules["aloha_environment"], "Simulation", FakeSimulation)
    return lambda shows, n: modules["aloha_environment"].TransferCubes(
        EnvironmentConfig(id="aloha_environment:TransferCubes", max_steps=6, observation=shows), n
    )


def test_an_episode_ends_at_success_or_at_the_limit(environment):
    made = environment("state", 2)
    assert isinstance(made, VectorEnvironment)
    guarded = GuardedEnvironment(made, 10.0)
    guarded.reset([4, 3])
    earned = np.zeros(2)
    for step in range(6):
        observation, rewards, terminated, truncated, _ = guarded.step(step, np.full((2, 14), 5.0))
        earned += rewards
    assert (terminated.tolist(), truncated.tolist()) == ([True, False], [False, True])
    assert earned.tolist() == made.economics()["good_units"].tolist() == [1, 0]
    assert made.economics()["stage"].tolist() == [4, 3]
    assert observation["state"][:, 0].tolist() == [4, 6]  # clipped actions; nothing moves after the end
    assert made.economics()["duration_h"] * 50 * 3600 == pytest.approx([4, 6])


def test_cameras_stand_in_for_the_pose_of_the_cube(environment):
    shapes = {}
    for shows in ("state", "both", "frames"):
        made = environment(shows, 1)
        shapes[shows] = {name: seen.shape for name, seen in made.reset([0]).items()}
        assert shapes[shows].get("state", (1, 0))[1] == made.state_size == sum(width for _, width in made.state_names)
    frames = (1, 64, 64, 6)
    assert shapes == {
        "state": {"state": (1, 21)},
        "both": {"state": (1, 14), "frames": frames},
        "frames": {"frames": frames},
    }


def test_an_episode_that_diverges_is_cut_off(environment):
    made = environment("state", 2)
    made.reset([DIVERGES, 3])
    observation, _, terminated, truncated, _ = made.step(np.ones((2, 14)))
    assert (terminated.tolist(), truncated.tolist()) == ([False, False], [True, False])
    assert observation["state"][:, 0].tolist() == [0, 1]
    assert made.economics()["errors"].tolist() == [1, 1]


def test_frames_are_drawn_at_every_fourth_step(environment):
    made = environment("frames", 1)
    FakeSimulation.drawn = 0
    seen = [made.reset([0])["frames"]] + [made.step(np.zeros((1, 14)))[0]["frames"] for _ in range(6)]
    assert made.frame_shape == seen[0].shape[1:] == (64, 64, 6)
    assert [int(frames[0, 0, 0, 0]) for frames in seen] == [0, 0, 0, 0, 4, 4, 4]
    assert [int(frames[0, 0, 0, 5]) for frames in seen] == [100, 100, 100, 100, 104, 104, 104]
    assert FakeSimulation.drawn == 4


@pytest.mark.parametrize("arm", ["left", "right"])
def test_inverse_kinematics_undo_the_links(modules, arm):
    episodes, rng = modules["aloha_episodes"], np.random.default_rng(0)
    for _ in range(100):
        x, y, z = rng.uniform([0.0, 0.4, 0.0], [0.2, 0.6, 0.2])
        wanted = np.array([x if arm == "right" else -x, y, z])
        pose = episodes.Pose(0, wanted, rng.uniform(0.8, 1.5), 0.3, 1.0)
        joints = episodes.joints_of(arm, pose)
        place, pitch = episodes.place_of(arm, joints)
        np.testing.assert_allclose([*place, pitch], [*wanted, pose.pitch], atol=1e-9)
        assert (joints[3], joints[5]) == (0, 0.3)
    with pytest.raises(ValueError, match=f"the {arm} gripper cannot reach"):
        episodes.joints_of(arm, pose._replace(place=np.array([0.0, 0.5, 2.0])))


def test_links_are_those_of_the_simulator(modules):
    start = np.array([0, -0.96, 1.16, 0, -0.3, 0])  # gym-aloha's pose at the start, and where MuJoCo has the grippers
    for arm, x in (("left", -0.31718881), ("right", 0.31718881)):
        place, pitch = modules["aloha_episodes"].place_of(arm, start)
        ahead = 0.13 * np.cos(pitch) * (1 if arm == "left" else -1)
        np.testing.assert_allclose(place, [x + ahead, 0.5, 0.29525084 - 0.13 * np.sin(pitch)], atol=1e-5)


def test_grippers_move_evenly_from_pose_to_pose(modules):
    episodes = modules["aloha_episodes"]
    poses = [
        episodes.Pose(0, np.zeros(3), 0.0, 0.0, 0.0),
        episodes.Pose(10, np.ones(3), 1.0, 0.0, 0.0),
        episodes.Pose(20, np.ones(3), 1.0, 0.0, 1.0),
    ]
    found = episodes.along(poses, 30)
    assert [pose.step for pose in found] == list(range(30))
    assert found[3].place == pytest.approx([0.3, 0.3, 0.3])
    assert (found[10].opening, found[15].opening, found[29].opening) == (0, 0.5, 1)


def test_the_script_brings_both_grippers_to_one_place(modules):
    cube, episodes = np.array([0.1, 0.5, 0.02]), modules["aloha_episodes"]
    poses = episodes.script(cube)
    given = next(pose for pose in reversed(poses["right"]) if pose.opening == 0)
    taken = next(pose for pose in poses["left"] if pose.opening == 0)
    np.testing.assert_allclose(given.place, taken.place)
    assert taken.step < given.step < episodes.STEPS  # the left holds before the right lets go
    assert any((pose.place == cube).all() and pose.opening == 0 for pose in poses["right"])
    state = np.array([*[0, -0.96, 1.16, 0, -0.3, 0, 0.1] * 2, *cube, 1, 0, 0, 0])
    actions = episodes.plan(state)
    assert actions.shape == (400, 14)
    np.testing.assert_allclose(actions[0], state[:14], atol=1e-9)  # from where the arms are
    assert np.abs(np.diff(actions, axis=0)).max() < 0.1


def test_recorded_episodes_become_chunks_of_decisions(modules):
    columns = ColumnsConfig(
        observation=("obs/joints", "obs/cube"), images=("obs/top", "obs/angle"), image_size=64, step_s=0.02
    )
    config = EpisodesConfig(source="hdf5", path=str(FIXTURE), columns=columns)
    recorded = list(Source(config).recorded([0, 1]))
    episode = Control(12.5, 50, 4, "chunk").steps_of(recorded[0])
    rows = len(recorded[0])
    assert episode.actions.shape == (rows // 4, 56)
    assert episode.frames.shape == (rows // 4 + 1, 64, 64, 6)
    with h5py.File(FIXTURE) as file:
        demo = file["data/demo_0"]
        np.testing.assert_array_equal(episode.state[3, :14], demo["obs/joints"][12])
        np.testing.assert_array_equal(episode.state[3, 14:], demo["obs/cube"][12])
        np.testing.assert_array_equal(episode.frames[3, ..., 3:], demo["obs/angle"][12])
        np.testing.assert_array_equal(episode.actions[3].reshape(4, 14), demo["actions"][12:16])


def test_outcomes_count_stages_and_successes(modules):
    rows = [{"stage": stage, "steps": steps} for stage, steps in ((4, 70), (4, 80), (2, 100), (0, 100))]
    told = modules["aloha"].outcomes(rows)
    assert (told["successes"], told["episodes"]) == (2, 4)
    assert told["stages"] == [1, 0, 1, 0, 2]
    assert told["decisions_to_success"] == [70, 75, 80]
    assert modules["aloha"].outcomes(rows[2:])["decisions_to_success"] is None
    low, high = modules["aloha"].interval(27, 50)
    assert (low, high) == pytest.approx((0.404, 0.670), abs=1e-3)  # Wilson 1927, by hand
