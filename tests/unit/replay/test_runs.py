"""Runs read in one piece against plain indexing, around the ends of both rings."""

import numpy as np

from phaseb.replay.partition import Runs
from phaseb.replay.schema import TransitionSchema

SCHEMA = TransitionSchema(latent_size=3, action_size=2)


def test_a_run_is_its_row_and_the_observation_behind_it():
    capacity = 13
    rows = np.random.default_rng(0).random((2, capacity + 1, SCHEMA.width), dtype=np.float32)
    rows[:, capacity] = rows[:, 0]
    runs = Runs(SCHEMA, rows.reshape(-1, SCHEMA.width))
    begins = np.array([slot + ring * (capacity + 1) for ring in (1, 0) for slot in range(capacity)])
    found = runs.read(begins)
    assert found.shape == (26, SCHEMA.width + 3)
    for k, run in enumerate(found):
        ring, slot = 1 - k // capacity, k % capacity
        np.testing.assert_array_equal(run[: SCHEMA.width], rows[ring, slot])
        np.testing.assert_array_equal(run[SCHEMA.width :], rows[ring, (slot + 1) % capacity, :3])
    assert runs.read(np.array([], dtype=np.int64)).shape == (0, found.shape[1])
