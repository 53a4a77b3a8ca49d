"""Closed-loop episodes in the cell, recorded as latents."""

import numpy as np

from phaseb.policy.closed_loop import play, to_trajectories
from phaseb.workcell.batch import BatchedCell


class Raw:
    """An encoder whose latents are the cell's sensors."""

    def reset(self, observation):
        return observation["state"]

    step = reset


def drive(z, step):
    """Towards the in-feed, then towards the out-feed with what was picked."""
    target = np.where(z[:, 4] > 0, z[:, 6], z[:, 5])
    return np.stack([np.clip(target - 0.8 * z[:, 1], -1, 1), np.ones(len(z))], 1).astype(np.float32)


def run(seeds, steps, noise=None, max_steps=60):
    cell = BatchedCell(len(seeds), "state", max_steps)
    return play(drive, Raw(), cell, seeds, steps, lambda a: a, 30.0, noise), cell


def test_an_episode_holds_what_the_cell_did():
    made, cell = run([1, 2, 3], 60)
    np.testing.assert_allclose(made.rewards.sum(1), cell.economics()["return"], rtol=1e-4)
    assert made.z.shape == (3, 61, 8)
    assert (made.lengths == 60).all()
    again = BatchedCell(3, "state")
    np.testing.assert_array_equal(again.reset([1, 2, 3])["state"], made.z[:, 0])
    for t in range(60):
        observation, *_ = again.step(made.actions[:, t])
        np.testing.assert_array_equal(observation["state"], made.z[:, t + 1])


def test_it_stops_where_the_environment_or_the_horizon_ends():
    assert run([1], 7)[0].z.shape == (1, 8, 8)
    assert run([1], 60, max_steps=5)[0].z.shape == (1, 6, 8)


def test_other_noise_is_the_same_start_seen_otherwise():
    made, other = run([4, 5], 10)[0], run([4, 5], 10, noise=[9, 10])[0]
    assert np.abs(made.z[:, 0] - other.z[:, 0]).max() < 0.1
    assert (made.z[:, 0] != other.z[:, 0]).any()


def test_what_ended_stands_still():
    z = np.arange(12, dtype=np.float32).reshape(2, 6, 1)
    ones = np.ones((2, 5), np.float32)
    made = to_trajectories(z, ones[..., None], ones, ones, np.array([2, 5]))
    np.testing.assert_array_equal(made.z[0, :, 0], [0, 1, 2, 2, 2, 2])
    np.testing.assert_array_equal(made.rewards.sum(1), [2, 5])
    np.testing.assert_array_equal(made.actions[0, 2:], 0)
