"""The ring against a plain list that does the same, and its bookkeeping under any order of inserts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.errors import DataError
from phaseb.replay.ring import Ring
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import Segments, join

SCHEMA = TransitionSchema(latent_size=2, action_size=1)


def segment(code: int, first: int, length: int, source: int = 0) -> Segments:
    """z = (code, step), so that every row tells where it comes from."""
    rows = np.zeros((length + 1, SCHEMA.width), dtype=np.float32)
    rows[:, 0], rows[:, 1] = code, first + np.arange(length + 1)
    return Segments(
        SCHEMA, rows, np.array([length]), np.array([code]), np.array([first]), np.array([source], dtype=np.uint8)
    )


def new_ring(capacity: int, schema: TransitionSchema = SCHEMA) -> Ring:
    return Ring(schema, np.zeros((capacity + 1, schema.width), dtype=np.float32), 0)


def held_slots(ring: Ring) -> np.ndarray:
    return ring.queue.at(np.arange(len(ring.queue)))


class ListOfRows:
    """The same law in plain Python: rows newest last, a transition wherever a row's successor is of its segment."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: list[tuple[int, int, bool]] = []  # code, step, is a transition

    def transitions(self) -> list[tuple[int, int]]:
        return [(code, step) for code, step, is_transition in self.rows if is_transition]

    def insert(self, code: int, first: int, length: int) -> None:
        held = set(self.transitions())
        steps = [s for s in range(first, first + length) if (code, s) not in held]
        for k, step in enumerate(steps):
            self.rows.append((code, step, True))
            if k + 1 == len(steps) or steps[k + 1] != step + 1:
                self.rows.append((code, step + 1, False))
        self.rows = self.rows[-self.capacity :]


inserts = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(1, 9)), max_size=40)


@settings(max_examples=200, deadline=None)
@given(inserts=inserts, capacity=st.integers(12, 40))
def test_the_ring_does_what_a_list_does(inserts, capacity):
    ring, plain = new_ring(capacity), ListOfRows(capacity)
    for code, first, length in inserts:
        held = len(plain.transitions())
        done = ring.insert(segment(code, first, length))
        plain.insert(code, first, length)
        assert done.inserted + done.duplicates == length
        assert done.inserted - done.evicted == len(plain.transitions()) - held
    expected = plain.transitions()
    assert ring.num_transitions == len(expected)
    rows = held_slots(ring)
    here, after = ring.rows[rows], ring.rows[rows + 1]
    assert list(map(tuple, here[:, :2].astype(int).tolist())) == expected
    np.testing.assert_array_equal(after[:, 0], here[:, 0])  # the successor is of the same episode
    np.testing.assert_array_equal(after[:, 1], here[:, 1] + 1)  # and one step on
    codes, steps = np.array(expected, dtype=np.int64).reshape(-1, 2).T
    slots, there = ring.find(codes, steps)
    assert there.all()
    np.testing.assert_array_equal(ring.rows[slots, 0], codes)
    np.testing.assert_array_equal(ring.rows[slots, 1], steps)
    assert not ring.find(np.array([99, 0]), np.array([0, 99]))[1].any()


@settings(max_examples=100, deadline=None)
@given(inserts=inserts, capacity=st.integers(12, 40))
def test_what_is_exported_makes_the_same_ring_again(inserts, capacity):
    ring = new_ring(capacity)
    for code, first, length in inserts:
        ring.insert(segment(code, first, length))
    again = new_ring(capacity)
    held = ring.export()
    if len(held):
        again.insert(held)
    for ahead in (0, 1):
        np.testing.assert_array_equal(ring.rows[held_slots(ring) + ahead], again.rows[held_slots(again) + ahead])


@settings(max_examples=50, deadline=None)
@given(inserts=inserts, num_steps=st.integers(1, 5))
def test_n_steps_never_leave_the_segment(inserts, num_steps):
    ring = new_ring(30)
    for code, first, length in inserts:
        ring.insert(segment(code, first, length))
    rows = held_slots(ring)
    _, _, last = ring.returns(rows, num_steps, 0.9)
    np.testing.assert_array_equal(ring.rows[last, 0], ring.rows[rows, 0])
    ahead = ring.rows[last, 1] - ring.rows[rows, 1]
    np.testing.assert_array_equal(ahead, np.minimum(num_steps, ring.left[rows]))


def test_ages_and_numbers_survive_the_turn_of_the_ring():
    ring = new_ring(10)
    for code in range(5):
        ring.insert(segment(code, 0, 3))
    rows = held_slots(ring)
    ages = ring.ages(rows)
    np.testing.assert_array_equal(ages, [9, 7, 6, 5, 3, 2, 1])  # of 20 rows written the last 10 are held
    slots, there = ring.slots(ring.numbers(rows))
    assert there.all()
    np.testing.assert_array_equal(slots, rows)
    assert not ring.slots(np.array([9, 20]))[1].any()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda s: s.rows.__setitem__((3, 1), np.inf), "NaN or Inf, first in row 3, column 1"),
        (lambda s: s.rows.__setitem__((0, SCHEMA.weight("weight")), -1), "must not be negative"),
        (lambda s: s.lengths.__setitem__(0, 7), "do not add up"),
        (lambda s: s.sources.__setitem__(0, 2), "unknown source"),
    ],
)
def test_bad_segments_change_nothing(spoil, told):
    ring = new_ring(20)
    ring.insert(segment(1, 0, 4))
    before = ring.rows.copy()
    bad = segment(2, 0, 5)
    spoil(bad)
    with pytest.raises(DataError, match=told):
        ring.insert(bad)
    np.testing.assert_array_equal(ring.rows, before)
    assert ring.num_transitions == 4
    assert ring.insert(segment(2, 0, 5)).inserted == 5


def test_another_schema_and_too_long_an_episode_are_refused():
    ring = new_ring(20)
    other = TransitionSchema(latent_size=2, action_size=1, weights=("weight", "more"))
    numbers = (np.array([k]) for k in (1, 0, 0))
    foreign = Segments(other, np.zeros((2, other.width), "f4"), *numbers, np.zeros(1, "u1"))  # type: ignore[call-arg]
    with pytest.raises(DataError, match="weights"):
        ring.insert(foreign)
    with pytest.raises(DataError, match="20 steps is larger than a shard of 20 rows"):
        ring.insert(segment(0, 0, 20))


def test_an_insert_larger_than_the_ring_leaves_its_newest_episodes():
    ring = new_ring(20)
    done = ring.insert(join([segment(code, 0, 4) for code in range(9)]))
    assert (done.inserted, done.evicted, ring.num_transitions) == (36, 20, 16)
    np.testing.assert_array_equal(np.unique(ring.export().codes), [5, 6, 7, 8])


def test_frames_are_kept_once_and_follow_their_rows():
    schema = TransitionSchema(latent_size=2, action_size=1, frame_shape=(2, 2, 1))
    frames = np.zeros((8, 2, 2, 1), dtype=np.uint8)
    ring = Ring(schema, np.zeros((8, schema.width), dtype=np.float32), 0, frames)
    for code in range(3):
        part = segment(code, 0, 3)
        drawn = np.broadcast_to(np.arange(4, dtype=np.uint8)[:, None, None, None] + 10 * code, (4, 2, 2, 1))
        ring.insert(Segments(schema, part.rows, part.lengths, part.codes, part.first_steps, part.sources, drawn))
    rows = held_slots(ring)
    here, after = frames[rows, 0, 0, 0], frames[rows + 1, 0, 0, 0]
    np.testing.assert_array_equal(here, 10 * ring.rows[rows, 0] + ring.rows[rows, 1])
    np.testing.assert_array_equal(after, here + 1)
