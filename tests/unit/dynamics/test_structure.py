"""Constants, events, scales and clamps are read off the data."""

import numpy as np
import pytest

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.structure import find_basis, find_constants, find_levels, find_structure, step_bound


def test_constant_and_event_dimensions_are_found(world):
    structure = find_structure(world.z, world.rewards, world.mask, GRUConfig())
    assert structure.varying.tolist() == [1, 1, 0, 1]
    assert structure.event_dims.tolist() == [3]
    assert structure.levels[0, :2].tolist() == pytest.approx([-1, 1])
    assert structure.reward_mean == pytest.approx(world.rewards.mean(), rel=1e-4)


def test_options_switch_them_off(world):
    config = GRUConfig(find_events=False)
    structure = find_structure(world.z, world.rewards, world.mask, config)
    assert structure.varying.all()
    assert not len(structure.event_dims)


def test_a_gaussian_has_no_levels_and_a_noisy_flag_has():
    rng = np.random.default_rng(0)
    flag = np.sign(rng.normal(size=(20, 31)))
    z = np.stack([rng.normal(size=(20, 31)), flag + 0.001 * rng.normal(size=(20, 31))], axis=-1).astype(np.float32)
    assert list(find_levels(z, np.ones((20, 30), dtype=bool))) == [1]


def test_padding_beyond_the_end_is_not_looked_at(world):
    z = world.z.copy()
    z[:, 11:, 2] += np.arange(1, 11)
    mask = np.zeros((24, 20), dtype=bool)
    mask[:, :10] = True
    assert find_constants(z, mask)[2]
    assert not find_constants(z, np.ones_like(mask))[2]


def test_clamp_is_a_quantile_of_real_steps():
    steps = np.linspace(-1, 1, 2001)[:, None].astype(np.float32) * np.array([1, 10], dtype=np.float32)
    bound = step_bound(steps, GRUConfig(clamp_quantile=0.9))
    assert bound == pytest.approx([0.9, 9.0], rel=1e-3)
    assert np.isinf(step_bound(steps, GRUConfig(clamp_quantile=0))).all()


def test_rewards_that_never_vary_keep_a_unit_scale(world):
    structure = find_structure(world.z, np.zeros_like(world.rewards), world.mask, GRUConfig())
    assert structure.reward_scale == 1


def test_rewards_in_a_small_unit_are_scaled_too(world):
    rewards = (1e-9 * world.rewards).astype(np.float32)
    structure = find_structure(world.z, rewards, world.mask, GRUConfig())
    assert structure.reward_scale == pytest.approx(rewards[world.mask].std(), rel=1e-4)


def test_inner_coordinates_are_white_and_lead_back(world):
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(3, 5))
    z = (rng.normal(size=(40, 21, 3)) @ mix + 0.05 * rng.normal(size=(40, 21, 5)) + 2).astype(np.float32)
    mask = np.ones((40, 20), dtype=bool)
    mean, whiten, unwhiten = find_basis(z, mask, np.ones(5, dtype=bool))
    inner = (z - mean) @ whiten
    assert np.cov(inner.reshape(-1, 5).T) == pytest.approx(np.eye(5), abs=1e-3)
    assert inner @ unwhiten + mean == pytest.approx(z, abs=1e-4)


def test_constants_and_events_stay_out_of_the_blend(world):
    structure = find_structure(world.z, world.rewards, world.mask, GRUConfig())
    inner = (world.z - structure.mean) @ structure.whiten
    assert np.array_equal(inner[..., 2:], world.z[..., 2:])


def test_repeated_dimensions_do_not_blow_up():
    one = np.random.default_rng(0).normal(size=(30, 11, 1)).astype(np.float32)
    z = np.repeat(one, 3, axis=-1)
    mean, whiten, unwhiten = find_basis(z, np.ones((30, 10), dtype=bool), np.ones(3, dtype=bool))
    inner = (z - mean) @ whiten
    assert np.abs(inner).max() < 10
    assert inner @ unwhiten + mean == pytest.approx(z, abs=1e-3)


def test_bounds_are_the_range_seen_and_leave_constants_and_events_free(world):
    structure = find_structure(world.z, world.rewards, world.mask, GRUConfig(decorrelate=False))
    assert structure.high[:2] == pytest.approx(
        world.z.max(axis=(0, 1))[:2] + 0.05 * np.ptp(world.z, axis=(0, 1))[:2], rel=1e-4
    )
    assert np.isinf(structure.low[2:]).all()
    free = find_structure(world.z, world.rewards, world.mask, GRUConfig(bound_latents=False))
    assert np.isinf(free.high).all()


def test_slow_directions_come_first_and_their_errors_count_more():
    rng = np.random.default_rng(0)
    slow = rng.normal(size=(40, 1, 2)) + 0.1 * rng.normal(size=(40, 31, 2))
    fast = rng.normal(size=(40, 31, 2))
    z = (np.concatenate([slow, fast], axis=-1) @ rng.normal(size=(4, 4))).astype(np.float32)
    structure = find_structure(z, np.zeros((40, 30), np.float32), np.ones((40, 30), dtype=bool), GRUConfig())
    assert structure.spread[:2] == pytest.approx([0.1, 0.1], abs=0.04)
    assert structure.spread[2:] == pytest.approx([1, 1], abs=0.1)
    assert structure.step_scale[0] < 0.3 < structure.step_scale[3]
