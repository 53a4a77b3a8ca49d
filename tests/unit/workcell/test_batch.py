"""The cell's rules, rewards, economics and noise."""

import numpy as np
import pytest

from phaseb.config.data import EnvironmentConfig
from phaseb.episodes.environment import VectorEnvironment
from phaseb.episodes.episode import METRICS
from phaseb.workcell import BatchedCell, make
from phaseb.workcell.physics import CellParameters
from phaseb.workcell.sensors import NOISE_STD, STATE_NAMES

QUIET = CellParameters(sensor_noise=0)
GRIP, HOLD = 1.0, -1.0


def actions_for(num_envs, num_steps=60, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (num_steps, num_envs, 2))


def run(cell, seeds, actions, noise_seeds=None):
    """All observations, rewards and the economics of one round."""
    observations, rewards = [cell.reset(seeds, noise_seeds)], []
    for action in actions:
        observation, reward, *_ = cell.step(action)
        observations.append(observation)
        rewards.append(reward)
    stacked = {name: np.stack([o[name] for o in observations], axis=1) for name in observations[0]}
    return stacked, np.stack(rewards, axis=1), cell.economics()


def at(cell, *, hook, speed=0.0, loaded=False):
    """Put the cell's cranes where a test wants them, hanging straight."""
    num = cell.num_envs
    position = np.stack([np.broadcast_to(hook, num), np.zeros(num)], axis=1).astype(float)
    cell._cranes.place(position, np.zeros((num, 2)))
    if loaded:
        cell._cranes.attach(np.ones(num, dtype=bool), cell._part)
    cell._cranes.velocity = np.stack([np.broadcast_to(speed, num), np.zeros(num)], axis=1).astype(float)


def grip(cell, command=GRIP):
    return cell.step(np.tile([0.0, command], (cell.num_envs, 1)))


def test_is_a_vector_environment():
    cell = make(EnvironmentConfig(observation="both", max_steps=7), 3)
    assert isinstance(cell, VectorEnvironment)
    assert (cell.num_envs, cell.max_steps, cell.state_size, cell.frame_shape) == (3, 7, 8, (64, 64, 3))
    observation = cell.reset([1, 2, 3])
    assert observation["state"].shape == (3, 8)
    assert observation["state"].dtype == np.float32
    assert observation["frames"].shape == (3, 64, 64, 3)
    assert observation["frames"].dtype == np.uint8
    assert len(STATE_NAMES) == 8
    assert set(METRICS) <= set(cell.economics())


def test_many_cells_are_many_single_cells():
    seeds, actions = [11, 5, 8, 3], actions_for(4)
    together, rewards, economics = run(BatchedCell(4, "both"), seeds, actions)
    for i, seed in enumerate(seeds):
        alone, reward, economy = run(BatchedCell(1, "both"), [seed], actions[:, i : i + 1])
        np.testing.assert_allclose(alone["state"][0], together["state"][i], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(alone["frames"][0], together["frames"][i], atol=1)  # one level of 255
        np.testing.assert_allclose(reward[0], rewards[i], rtol=1e-6, atol=1e-6)
        for name, values in economy.items():
            np.testing.assert_allclose(values[0], economics[name][i], rtol=1e-6, atol=1e-9)


def test_a_cell_forgets_its_last_episode():
    cell, actions = BatchedCell(2, "state"), actions_for(2)
    first, rewards, economics = run(cell, [1, 2], actions)
    run(cell, [3, 4], actions_for(2, seed=9))
    again, rewards_again, economics_again = run(cell, [1, 2], actions)
    np.testing.assert_array_equal(first["state"], again["state"])
    np.testing.assert_array_equal(rewards, rewards_again)
    for name in economics:
        np.testing.assert_array_equal(economics[name], economics_again[name])


def test_other_seeds_are_other_episodes():
    states, _, _ = run(BatchedCell(3, "state"), [1, 2, 3], np.tile(actions_for(1), (1, 3, 1)))
    assert len(np.unique(states["state"][:, 0, 7])) == 3
    assert len(np.unique(states["state"][:, 0, 0])) == 3


def test_noise_seeds_redraw_the_noise_and_nothing_else():
    actions, seeds = actions_for(64), list(range(64))
    cell = BatchedCell(64, "state")
    one, rewards_one, _ = run(cell, seeds, actions)
    true_end = cell.true_state()
    two, rewards_two, _ = run(cell, seeds, actions, noise_seeds=list(range(1000, 1064)))
    quiet, rewards_quiet, _ = run(BatchedCell(64, "state", config=QUIET), seeds, actions)
    np.testing.assert_array_equal(rewards_one, rewards_two)
    np.testing.assert_array_equal(rewards_one, rewards_quiet)
    for name, values in cell.true_state().items():
        np.testing.assert_array_equal(values, true_end[name])
    for noise in (one["state"] - quiet["state"], two["state"] - quiet["state"]):
        np.testing.assert_allclose(noise.reshape(-1, 8).std(axis=0), NOISE_STD, rtol=0.08, atol=1e-6)
    difference = (one["state"] - two["state"]).reshape(-1, 8).std(axis=0)
    np.testing.assert_allclose(difference, np.sqrt(2) * NOISE_STD, rtol=0.08, atol=1e-6)


def test_a_quiet_state_is_the_true_state():
    cell = BatchedCell(8, "state", config=QUIET)
    cell.reset(list(range(8)))
    for action in actions_for(8, 20):
        observation, *_ = cell.step(action)
    true = cell.true_state()
    state = observation["state"]
    for column, name in enumerate(("cart_position", "cart_speed", "swing", "swing_rate")):
        np.testing.assert_allclose(state[:, column], true[name], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(state[:, 4] > 0, true["loaded"] > 0)
    np.testing.assert_allclose(state[:, 5] + true["hook_position"], true["infeed"], atol=1e-5)
    np.testing.assert_allclose(state[:, 6] + true["hook_position"], true["outfeed"], atol=1e-5)
    np.testing.assert_allclose(true["hook_position"], true["cart_position"] + np.sin(true["swing"]))


@pytest.mark.parametrize(
    ("offset", "speed", "command", "picks"),
    [
        (0.14, 0.0, GRIP, True),
        (-0.14, 0.55, GRIP, True),
        (0.16, 0.0, GRIP, False),
        (0.0, 0.65, GRIP, False),
        (0.0, 0.0, HOLD, False),
        (0.0, 0.0, 0.0, False),
    ],
)
def test_picking(offset, speed, command, picks):
    cell = BatchedCell(2, "state", config=QUIET)
    cell.reset([0, 1])
    at(cell, hook=cell._infeed + offset, speed=speed)
    observation, _, _, _, infos = grip(cell, command)
    assert (infos["picked"] == picks).all()
    assert (observation["state"][:, 4] == (1 if picks else -1)).all()
    np.testing.assert_allclose(cell._cranes.load, cell._part if picks else 0)
    assert np.isnan(cell.economics()["error_rate"]).all()


@pytest.mark.parametrize(
    ("offset", "speed", "good"),
    [(0.11, 0.0, True), (-0.11, 0.38, True), (0.13, 0.0, False), (0.0, 0.45, False), (-1.0, 0.0, False)],
)
def test_placing(offset, speed, good):
    cell = BatchedCell(2, "state", config=QUIET)
    cell.reset([0, 1])
    at(cell, hook=cell._outfeed + offset, speed=speed, loaded=True)
    observation, rewards, _, _, infos = grip(cell)
    assert (infos["good"] == good).all()
    assert (infos["error"] == (not good)).all()
    assert (observation["state"][:, 4] == -1).all()
    np.testing.assert_allclose(rewards, 1.0 if good else -1.0)  # nothing was driven, and potentials are left out
    economics = cell.economics()
    np.testing.assert_array_equal(economics["error_rate"], 0 if good else 1)
    np.testing.assert_array_equal(economics["good_units"], 1 if good else 0)
    if not good:
        assert np.isnan(economics["energy_wh_per_unit"]).all()


def test_rewards_are_the_designs():
    """Recomputed from the true states and events of driven episodes."""
    cell = BatchedCell(16, "state", config=QUIET)
    cell.reset(list(range(16)))
    events = 0
    for action in actions_for(16):
        before = cell.true_state()
        _, rewards, _, _, infos = cell.step(action)
        after = cell.true_state()
        event = infos["picked"] | infos["good"] | infos["error"]
        events += int(event.sum())

        def potential(true):
            target = np.where(true["loaded"] > 0, true["outfeed"], true["infeed"])
            return -np.abs(target - true["hook_position"]) - 0.3 * np.abs(true["hook_speed"])

        expected = 1.0 * infos["good"] - 1.0 * infos["error"] + 0.5 * infos["picked"] - 0.004 * infos["energy_j"]
        expected = expected + 0.5 * np.where(event, 0, potential(after) - potential(before))
        np.testing.assert_allclose(rewards, expected, atol=1e-6)
    assert events > 5


def test_economics_are_sums_of_what_happened():
    cell = BatchedCell(32, "state")
    cell.reset(list(range(32)))
    good, errors, energy_j, returns = np.zeros((4, 32))
    for action in actions_for(32, seed=3):
        _, rewards, terminated, truncated, infos = cell.step(action)
        good, errors, energy_j = good + infos["good"], errors + infos["error"], energy_j + infos["energy_j"]
        returns = returns + rewards
    assert truncated.all()
    assert not terminated.any()
    assert errors.sum() > 0
    economics = cell.economics()
    hours = 60 * 0.25 / 3600
    np.testing.assert_allclose(economics["duration_h"], hours)
    np.testing.assert_allclose(economics["mpl"], good / hours)
    np.testing.assert_allclose(economics["energy_wh"], energy_j / 3600)
    np.testing.assert_allclose(economics["return"], returns, atol=1e-5)
    tried = good + errors > 0
    np.testing.assert_allclose(economics["error_rate"][tried], (errors / np.maximum(good + errors, 1))[tried])
    assert np.isnan(economics["error_rate"][~tried]).all()
    assert (~tried).any()


def test_standing_still_costs_nothing():
    cell = BatchedCell(1, "state")
    cell.reset([4])
    for _ in range(60):
        grip(cell, HOLD)
    assert cell.economics()["energy_wh"][0] == 0
    assert cell.economics()["mpl"][0] == 0


def test_actions_outside_are_clipped():
    one, _, _ = run(BatchedCell(1, "state"), [0], 5 * np.sign(actions_for(1)))
    two, _, _ = run(BatchedCell(1, "state"), [0], np.sign(actions_for(1)))
    np.testing.assert_array_equal(one["state"], two["state"])


def test_misuse_is_refused():
    cell = BatchedCell(2, "state", max_steps=1)
    with pytest.raises(ValueError, match="reset"):
        cell.step(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="seeds"):
        cell.reset([1])
    cell.reset([1, 2])
    for wrong in (np.zeros((2, 3)), np.zeros(2), np.array([[0, np.nan], [0, 0]])):
        with pytest.raises(ValueError, match="finite actions"):
            cell.step(wrong)
    cell.step(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="over"):
        cell.step(np.zeros((2, 2)))


def test_another_cell_behaves_otherwise():
    actions = actions_for(1)
    usual, _, _ = run(BatchedCell(1, "state"), [0], actions)
    for changed in ({"rope_length_m": 0.7}, {"cart_mass_kg": 1.5}, {"max_force_n": 8.0}):
        other, _, _ = run(BatchedCell(1, "state", config=CellParameters(**changed)), [0], actions)
        assert np.abs(other["state"] - usual["state"]).max() > 0.1
