"""A step of control that is several recorded rows: what it shows, earns and does.

T recorded rows of actions, K rows a step, S steps, A action dimensions.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.episode import Episode, check_finite
from phaseb.episodes.recorded import RecordedEpisode, Rows
from phaseb.runtime.storage import Store

TAG = "control"
"""The tag of an episode whose steps are of several recorded rows, as JSON."""
FILE = ("control.json",)
"""Where a run directory holds how its steps were made of rows; stages that are done again leave it."""


@dataclass(frozen=True)
class Control:
    """How steps are made of recorded rows.

    Attributes:
        asked_hz: `episodes.control_hz`.
        recorded_hz: rows a second.
        rows: K, recorded rows (and an environment's steps) in a step.
        action: `repeat`: one action (A,), which is taken K times; `chunk`: K actions one after another, (K A,).
    """

    asked_hz: float
    recorded_hz: float
    rows: int
    action: Literal["repeat", "chunk"]

    @property
    def hz(self) -> float:
        """Steps a second."""
        return self.recorded_hz / self.rows

    def num_steps(self, num_rows: int, terminated: bool) -> int:
        """S of an episode of T rows: whole windows of K rows, and the rest where the task ended in it."""
        whole, rest = divmod(num_rows, self.rows)
        return whole + (1 if rest and terminated else 0)

    def num_rows_taken(self, num_rows: int, terminated: bool) -> int:
        """Rows of an episode of T rows that its steps hold."""
        return min(num_rows, self.num_steps(num_rows, terminated) * self.rows)

    def played(self, actions: NDArray[Any], row: int) -> NDArray[Any]:
        """The actions (N, A) that a machine takes in row `row` of a step, of a policy's actions (N, A) or (N, K A)."""
        if self.action == "repeat":
            return actions
        size = actions.shape[1] // self.rows
        return actions[:, row * size : (row + 1) * size]

    def steps_of(self, recorded: RecordedEpisode) -> Episode:
        """A recorded episode as S steps.

        A step shows what its first row shows, earns what all its rows earn, and ends the task where its last row does.
        Its chunk of actions repeats the last one where an end leaves fewer than K rows.

        Raises:
            DataError: for frames that cannot be read, or values that are not finite.
            ValueError: for an episode of no step.
        """
        steps = self.num_steps(len(recorded), recorded.terminated)
        if not steps:
            raise ValueError(f"{recorded.id} has {len(recorded)} rows, fewer than a step of {self.rows}")
        taken = self.num_rows_taken(len(recorded), recorded.terminated)
        starts = np.arange(steps, dtype=np.int64) * self.rows
        seen: Rows = np.append(starts, taken)
        actions, state, frames_at = recorded.actions, recorded.state, recorded.frames_at
        with recorded.context():
            for name, rows in (("state", state), ("actions", actions), ("rewards", recorded.rewards)):
                check_finite(recorded.id, name, rows)
            made = {
                "rewards": np.add.reduceat(recorded.rewards[:taken].astype(np.float64), starts).astype(np.float32),
                "state": None if state is None else state[seen],
                "actions": None if actions is None else self.joined(actions[:taken]),
                "tags": {**recorded.tags, **self.to_tag()},
            }
            frames = None if frames_at is None else frames_at(seen)
            return Episode(**recorded.rows() | made, frames=frames)

    def joined(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """The actions of steps, (S, A) or (S, K A), of those of their rows (T, A); the last step may be short."""
        steps = -(-len(actions) // self.rows)
        at = np.minimum(np.arange(steps * self.rows), len(actions) - 1)
        chunks = actions[at].reshape(steps, self.rows, actions.shape[1])
        if self.action == "chunk":
            return chunks.reshape(steps, -1)
        return most_usual(chunks, (np.arange(steps * self.rows) < len(actions)).reshape(steps, self.rows))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> "Control":
        return cls(float(tree["asked_hz"]), float(tree["recorded_hz"]), int(tree["rows"]), tree["action"])

    def to_tag(self) -> dict[str, str]:
        """The tag of episodes that have such steps."""
        return {TAG: json.dumps(self.to_json())}


def control_of_tags(tags: Mapping[str, str]) -> Control | None:
    """How the steps of an episode were made; None where they are rows as recorded."""
    return Control.from_json(json.loads(tags[TAG])) if TAG in tags else None


def read_control(store: Store) -> Control | None:
    """How the steps of a run were made; None where they are rows as recorded."""
    tree = store.read_json(*FILE) if store.exists(*FILE) else None
    return None if tree is None else Control.from_json(tree)


def most_usual(chunks: NDArray[np.float32], inside: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """One action (S, A) for each chunk (S, K, A): in every dimension the recorded value nearest to the mean.

    A recorded value, so that a switch stays at one of its levels, a whole number whole, and bounds hold. Of two that
    are as near, the later one.

    Args:
        chunks: the actions.
        inside: (S, K) which of them were taken; None: all.
    """
    counted = np.ones(chunks.shape[:2], bool) if inside is None else inside
    values = chunks.astype(np.float64)
    mean = (values * counted[..., None]).sum(axis=1) / counted.sum(axis=1)[:, None]
    away = np.where(counted[..., None], np.abs(values - mean[:, None]), np.inf)
    at = chunks.shape[1] - 1 - np.argmin(away[:, ::-1], axis=1)
    return np.take_along_axis(chunks, at[:, None], axis=1)[:, 0]
