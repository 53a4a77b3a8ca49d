"""Runs read in one piece against plain indexing, around the ends of both rings."""

import numpy as np
import pytest

from phaseb.replay.runs import Runs
from phaseb.replay.schema import TransitionSchema

SCHEMA = TransitionSchema(latent_size=3, action_size=2)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_run_is_its_rows_and_the_observation_behind_them(length):
    capacity = 13
    rows = np.random.default_rng(0).random((2, capacity + 1, SCHEMA.width), dtype=np.float32)
    rows[:, capacity] = rows[:, 0]
    runs = Runs(SCHEMA, rows.reshape(-1, SCHEMA.width), 2)
    begins = np.array([slot + ring * (capacity + 1) for ring in (1, 0) for slot in range(capacity)])
    found = runs.read(begins, length)
    assert found.shape == (26, length * SCHEMA.width + 3)
    for k, run in enumerate(found):
        ring, slot = 1 - k // capacity, k % capacity
        wanted = rows[ring, (slot + np.arange(length + 1)) % capacity]
        np.testing.assert_array_equal(run, wanted.ravel()[: len(run)])
        at = runs.rows(begins[k : k + 1], length)[0]
        np.testing.assert_array_equal(runs._rows[at], wanted)
    assert runs.read(np.array([], dtype=np.int64), length).shape == (0, found.shape[1])
