import dataclasses

import numpy as np
import pytest
from episode_strategies import make_episode

from phaseb.episodes.episode import Episode
from phaseb.errors import DataError


def test_its_length_is_the_number_of_actions() -> None:
    assert len(make_episode("a", 7)) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": np.zeros(0, np.float32)}, "has no steps"),
        ({"state": None}, "neither state nor frames"),
        ({"state": np.zeros((3, 3), np.float32)}, r"state is float32\(3, 3\), wanted 4 rows"),
        ({"state": np.zeros((4, 0), np.float32)}, r"state is float32\(4, 0\)"),
        ({"state": np.zeros((4, 3), np.int64)}, "state is int64"),
        ({"actions": np.zeros((4, 2), np.float32)}, r"actions is float32\(4, 2\), wanted 3 rows"),
        ({"actions": np.array([[0, 1], [np.nan, 0], [0, 0]], np.float32)}, r"NaN or Inf, first at \(1, 0\)"),
        ({"rewards": np.array([0, 0, np.inf], np.float32)}, r"rewards has NaN or Inf, first at \(2,\); .*3\.4e38"),
        ({"frames": np.zeros((4, 5, 5), np.uint8)}, "wanted 4 rows, 4 dimensions, uint8"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=f"episode a.*{message}"):
        dataclasses.replace(make_episode("a", 3), **change)


def test_frames_alone_and_no_actions_are_enough() -> None:
    episode = Episode("v", np.zeros(2, np.float32), frames=np.zeros((3, 4, 4, 3), np.uint8))
    assert (episode.actions, episode.state, len(episode)) == (None, None, 2)
