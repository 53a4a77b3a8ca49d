"""How many recorded rows a step of `episodes.control_hz` is, and what its action is: decided once, from the data."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.control import Control, most_usual
from phaseb.errors import ConfigError

NEAR = 0.1
"""Share by which a rate may differ from another and still count as the same."""
REPEAT_LIMIT = 0.01
"""Most that repeating may lose, of the mean square change from one step's action to the next. With more, a stiff
position controller ends a step elsewhere than recorded by over 5 % of what the step moved (measured on a simulated arm;
a smooth movement loses 8 %, however slow it is)."""
SWITCH_LIMIT = 0.05
"""The same for a switch (two values), of its variance: repeating moves its flips by half a step at most."""


def rows_of_step(asked_hz: float, recorded_hz: float) -> int:
    """K: recorded rows in a step.

    Raises:
        ConfigError: where the rate asked for is above the recorded one.
    """
    if asked_hz > recorded_hz * (1 + NEAR):
        raise ConfigError(
            f"episodes.control_hz={asked_hz:g} is above the {recorded_hz:.4g} Hz that were recorded: set at most that, "
            "or leave it out"
        )
    return max(1, round(recorded_hz / asked_hz))


def lost_by_repeating(actions: Iterable[NDArray[np.float32]], rows: int) -> NDArray[np.float64]:
    """(A,) what is lost where one action is taken in all rows of a step, as a share of what is allowed.

    It is the mean square difference from the recorded actions, divided by the limit of the dimension: REPEAT_LIMIT of
    the mean square change between neighbouring steps, or SWITCH_LIMIT of the variance of two values.

    Args:
        actions: (T, A) of each episode; rows behind its last whole step are left aside.
        rows: K.

    Returns:
        0 in dimensions that never move; no dimension where no episode is as long as a step.
    """
    cut = [one[: len(one) // rows * rows].reshape(-1, rows, one.shape[1]) for one in actions if len(one) >= rows]
    if not cut:
        return np.zeros(0)
    kept = [most_usual(chunks) for chunks in cut]
    error = _mean(
        [((c.astype(np.float64) - one[:, None]) ** 2).reshape(-1, c.shape[2]) for c, one in zip(cut, kept, strict=True)]
    )
    change = _mean([np.diff(one.astype(np.float64), axis=0) ** 2 for one in kept])
    every = np.concatenate(cut).reshape(-1, cut[0].shape[2])
    low, high = every.min(axis=0), every.max(axis=0)
    is_switch = ((every == low) | (every == high)).all(axis=0)
    allowed = np.where(is_switch, SWITCH_LIMIT * every.astype(np.float64).var(axis=0), REPEAT_LIMIT * change)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, error / allowed, 0.0)


def _mean(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean of rows (T, A) of several episodes; 0 of none."""
    count = sum(len(part) for part in parts)
    return np.asarray(sum(part.sum(axis=0) for part in parts) / max(count, 1), np.float64)


def choose_action(asked_hz: float, recorded_hz: float, actions: Iterable[NDArray[np.float32]]) -> Control:
    """The steps of some episodes.

    Args:
        asked_hz: `episodes.control_hz`.
        recorded_hz: rows a second.
        actions: (T, A) of training episodes.

    Raises:
        ConfigError: where the rate asked for is above the recorded one.
    """
    rows = rows_of_step(asked_hz, recorded_hz)
    lost = lost_by_repeating(actions, rows)
    return Control(asked_hz, recorded_hz, rows, "repeat" if (lost <= 1).all() else "chunk")


def describe(control: Control, is_new: bool = True) -> str:
    """What was decided, in a sentence; `is_new` where this import decided it."""
    recorded = f"{control.recorded_hz:.4g} Hz"
    if control.rows == 1 and abs(control.hz / control.asked_hz - 1) <= NEAR:
        return f"episodes.control_hz={control.asked_hz:g} is the recorded rate, {recorded}"
    if control.rows == 1:
        return (
            f"a step is one row of the recorded {recorded}: episodes.control_hz={control.asked_hz:g} does not divide it"
        )
    rate = f"a step is {control.rows} rows of the recorded {recorded}, so {control.hz:.4g} Hz"
    if abs(control.hz / control.asked_hz - 1) > NEAR:
        rate += f" (episodes.control_hz={control.asked_hz:g} does not divide it)"
    what = {
        "repeat": "one action is repeated, as the recorded ones are held through a step",
        "chunk": "its action is the chunk of all recorded ones, as they change within a step",
    }[control.action]
    return f"{rate}: {what}{'' if is_new else ' (chosen by an earlier import of this run)'}"
