"""Flags that are turned into other directions are found, and nothing is found where there is none."""

import numpy as np
import pytest

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.binary_directions import complement, find_binary_directions
from phaseb.dynamics.discrete_levels import find_levels
from phaseb.dynamics.structure import find_structure


def white(x):
    centred = x - x.mean(axis=0)
    variance, directions = np.linalg.eigh(np.cov(centred.T))
    return centred @ (directions / np.sqrt(variance))


def sources(count=2000, flags=1, seed=0):
    rng = np.random.default_rng(seed)
    smooth = np.stack([np.sin(np.arange(count) * 0.1), rng.normal(size=count), rng.uniform(-1, 1, count)], axis=1)
    return np.concatenate([smooth, np.sign(rng.normal(0.3, 1, size=(count, flags)))], axis=1)


@pytest.mark.parametrize("flags", [1, 2])
def test_turned_flags_are_found_to_the_last_digit(flags):
    x = sources(flags=flags)
    y = white(x @ np.random.default_rng(1).normal(size=(x.shape[1], x.shape[1])))
    found = find_binary_directions(y)
    assert found.shape == (3 + flags, flags)
    assert found.T @ found == pytest.approx(np.eye(flags), abs=1e-9)
    span = np.abs(np.corrcoef((y @ found).T, x[:, 3:].T)[:flags, flags:])
    assert span.max(axis=0) == pytest.approx(np.ones(flags), abs=0.1)
    first = y @ found[:, 0]
    assert min(np.ptp(first[first > 0]), np.ptp(first[first < 0])) < 1e-6


def test_where_nothing_jumps_nothing_is_found():
    x = sources()[:, :3] @ np.random.default_rng(1).normal(size=(3, 3))
    assert find_binary_directions(white(x)).shape == (3, 0)


def test_few_rows_prove_nothing():
    x = np.random.default_rng(0).normal(size=(30, 8))
    assert find_binary_directions(x).shape == (8, 0)


def test_complement_is_orthogonal():
    direction = np.array([[0.6], [0.8], [0.0]])
    rest = complement(direction)
    assert rest.shape == (3, 2)
    assert direction.T @ rest == pytest.approx(np.zeros((1, 2)), abs=1e-12)


def test_structure_gives_turned_flags_and_constants_dimensions_of_their_own():
    rng = np.random.default_rng(0)
    x = sources(40 * 31, seed=3).reshape(40, 31, 4)
    x[..., 1] = rng.normal(size=(40, 1))  # constant within an episode
    z = (x @ rng.normal(size=(4, 4))).astype(np.float32)
    mask, rewards = np.ones((40, 30), dtype=bool), np.zeros((40, 30), np.float32)
    assert not find_levels(z, mask)
    structure = find_structure(z, rewards, mask, GRUConfig())
    assert len(structure.event_dims) == 1
    assert structure.varying.sum() == 3
    inner = (z - structure.mean) @ structure.whiten
    assert inner @ structure.unwhiten + structure.mean == pytest.approx(z, abs=1e-3)
    event = inner[..., structure.event_dims[0]]
    nearest = np.abs(event[..., None] - structure.levels[0, :2]).min(-1)
    assert nearest.max() < 1e-3
    off = find_structure(z, rewards, mask, GRUConfig(find_events=False))
    assert not len(off.event_dims)
