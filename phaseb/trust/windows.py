"""What the judges judge: windows of the sealed test episodes, and which of them may be told apart from which.

Episodes are independent, windows of one episode are not. So the windows of an episode stay in one fold, as long as
there are enough episodes. Of a few long ones, blocks with a gap between them stand in for episodes, and it is said so.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.trajectories import Trajectories
from phaseb.episodes.windows import cut, gap_of, in_rounds, window_counts

MIN_FOLDS = 2
PAIRS_A_FOLD = 2
MIN_UNITS = MIN_FOLDS * PAIRS_A_FOLD
"""Episodes, or blocks, without which nothing can be judged."""
MIN_FLOOR_UNITS = 2 * MIN_UNITS
"""The same for the rung `real`, which pairs one half of them with the other."""


@dataclass(frozen=True)
class WindowPlan:
    """Windows of one length, by the episodes that they lie in.

    Attributes:
        steps: length of each.
        gap: steps between two windows of an episode.
        rows: (W,) number of the episode of each window, in rounds: a first window of each episode, then a second one.
        starts: (W,) first step of each.
        blocks: whether windows count as episodes, because there are too few of those.
        num_folds: folds of the cross-fit that there are units enough for.
        floor: whether there are units enough for the rung `real`.
    """

    steps: int
    gap: int
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    blocks: bool
    num_folds: int
    floor: bool

    @property
    def num_episodes(self) -> int:
        return len(np.unique(self.rows))

    @property
    def num_units(self) -> int:
        """Episodes, or the blocks that stand in for them."""
        return len(self.rows) if self.blocks else self.num_episodes

    @property
    def groups(self) -> NDArray[np.int64]:
        """(W,) unit of each window; a unit is never split between folds."""
        return np.arange(len(self.rows)) if self.blocks else self.rows

    def cut(self, data: Trajectories) -> Trajectories:
        """The windows of the episodes that the plan was made for, as trajectories (W, steps) in its order."""
        return cut(data, self.rows, self.starts, self.steps)

    def to_json(self) -> dict[str, Any]:
        """What is told of it: how many windows of how many episodes, and whether blocks were used."""
        return {
            "steps": self.steps,
            "windows": len(self.rows),
            "episodes": self.num_episodes,
            "blocks": self.blocks,
            "gap": self.gap,
            "num_folds": self.num_folds,
            "floor": self.floor,
        }

    def sentence(self) -> str:
        """What a reader must know of blocks; empty where episodes are judged."""
        if not self.blocks:
            return ""
        return (
            f"Judged on {len(self.rows)} blocks of {self.steps} steps, {self.gap} steps apart, of {self.num_episodes} "
            "test episodes: blocks of one episode are not independent, so intervals are too narrow."
        )


def plan_windows(lengths: NDArray[np.integer], steps: int, num_folds: int, most: int | None = None) -> WindowPlan:
    """Windows of `steps` steps of episodes with these lengths (N,), as many as fit with a gap between them.

    Args:
        lengths: steps of each episode; shorter ones than `steps` give no window.
        steps: of a window.
        num_folds: folds that are wanted; fewer are planned where there are too few units.
        most: windows at most; a first one of each episode comes before any second one.
    """
    gap = gap_of(steps)
    rows, turns = in_rounds(window_counts(lengths, steps))
    rows, starts = rows[:most], (turns * (steps + gap))[:most]
    long_enough = len(np.unique(rows))
    blocks = long_enough < MIN_FLOOR_UNITS and len(rows) > long_enough
    units = len(rows) if blocks else long_enough
    floor = units >= MIN_FLOOR_UNITS
    fitting = units // (2 * PAIRS_A_FOLD) if floor else units // PAIRS_A_FOLD
    return WindowPlan(steps, gap, rows, starts, blocks, max(MIN_FOLDS, min(num_folds, fitting)), floor)
