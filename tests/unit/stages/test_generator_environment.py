"""A generator as a Gymnasium environment."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from phaseb.config.dynamics import GPConfig
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.episodes.shards import write_trajectories
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.storage import Store
from phaseb.stages.generator_environment import GENERATOR_ID
from tests.unit.dynamics.conftest import make_world


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with what the environment reads of a run."""
    folder, world = tmp_path_factory.mktemp("run"), make_world()
    store = Store.at(str(folder))
    config = GPConfig(max_transitions=60, num_hyperparameter_points=40, steps=5, num_directions=0)
    model = GPDynamics.fit(config, world, 0)
    model.uncertainty_scale = 0.5
    model.save(store.folder("dynamics", "gp"))
    write_trajectories(store.folder("latents"), world)
    return str(folder)


def make(run, **more):
    return gymnasium.make(GENERATOR_ID, run=run, **{"generator": "gp", "trust": False, "max_steps": 7, **more})


def test_it_passes_gymnasium_s_own_check(run):
    env = make(run)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_episodes_follow_their_seed_and_start_at_recorded_states(run):
    def episode(seed):
        env = make(run)
        z = [env.reset(seed=seed)[0]]
        total, over = 0.0, False
        while not over:
            state, reward, terminated, truncated, info = env.step(np.full(2, 0.3, np.float32))
            z.append(state)
            total, over = total + reward, terminated or truncated
            assert info["uncertainty"] >= 0
        return np.stack(z), total

    one, again, other = episode(1), episode(1), episode(2)
    np.testing.assert_array_equal(one[0], again[0])
    assert one[1] == again[1]
    assert len(one[0]) == 8
    assert (one[0][0] != other[0][0]).any()
    recorded = make_world().z[:, :-1].reshape(-1, 4)
    assert np.abs(recorded - one[0][0]).max(1).min() == 0


def test_it_ends_where_the_generator_knows_too_little(run):
    env = make(run, max_uncertainty=0.0)
    env.reset(seed=0)
    *_, truncated, info = env.step(np.zeros(2, np.float32))
    assert truncated == (info["uncertainty"] > 0)


def test_many_side_by_side(run):
    envs = gymnasium.make_vec(GENERATOR_ID, num_envs=3, vectorization_mode="sync", run=run, generator="gp", trust=False)
    z, _ = envs.reset(seed=0)
    assert z.shape == (3, 4)
    z, reward, *_ = envs.step(np.zeros((3, 2), np.float32))
    assert (z.shape, reward.shape) == ((3, 4), (3,))
    envs.close()


def test_a_start_of_one_s_own(run):
    env = make(run)
    z, _ = env.reset(options={"start": np.ones(4)})
    np.testing.assert_array_equal(z, 1)
    with pytest.raises(ValueError, match="wanted"):
        env.reset(options={"start": np.ones(3)})


def test_what_is_not_there_is_one_clear_line(run):
    with pytest.raises(ConfigError, match="has no generator 'lstm'; it has gp"):
        make(run, generator="lstm")
    with pytest.raises(DataError, match="no chosen generator"):
        make(run, generator="chosen")
    with pytest.raises(DataError, match="no dev episodes"):
        make(run, split="dev")
