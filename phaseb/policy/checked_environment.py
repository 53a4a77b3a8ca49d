"""An environment that is not trusted: whatever it does wrong becomes one line that names it, the step and the cure.

N episodes.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.environment import Observation, Step, VectorEnvironment
from phaseb.errors import ConfigError, DataError, PhasebError


class GuardedEnvironment:
    """Resets and steps another environment, and looks at what comes back.

    Args:
        environment: the one that is not trusted.
        limit_s: seconds that it may take for one answer.

    Raises:
        DataError: from `reset` and `step`, where the environment raises, does not answer, or answers with NaN, Inf or
            other shapes than N rewards and flags.
    """

    def __init__(self, environment: VectorEnvironment, limit_s: float) -> None:
        self._environment, self._limit_s = environment, limit_s
        self._where = "on reset"

    def reset(self, seeds: Sequence[int]) -> Observation:
        self._where = "on reset"
        with self._asked():
            observation = self._environment.reset(seeds)
        self._check_observation(observation)
        return observation

    def step(self, number: int, actions: NDArray[np.floating]) -> Step:
        """Step number `number`, from 0."""
        self._where = f"at step {number}"
        with self._asked():
            observation, rewards, terminated, truncated, infos = self._environment.step(actions)
        size = (self._environment.num_envs,)
        for name, flat in (("rewards", rewards), ("terminated", terminated), ("truncated", truncated)):
            if np.shape(flat) != size:
                self._refuse(f"gave {name} of shape {np.shape(flat)}, wanted {size}")
        self._check_finite("rewards", np.asarray(rewards))
        self._check_observation(observation)
        return observation, rewards, terminated, truncated, infos

    def not_ended(self, running: NDArray[np.bool_], steps: int) -> NoReturn:
        """Episodes go on after the last step that they may have."""
        self._where = f"at step {steps - 1}"
        self._refuse(f"has {int(running.sum())} episodes that did not end, though {steps} steps are the most")

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            with _no_longer_than(self._limit_s):
                yield
        except PhasebError:
            raise
        except _TooLongError:
            self._refuse(f"did not answer for {self._limit_s:g} s (evaluation.step_limit_s)")
        except Exception as error:  # foreign code may raise anything
            lines = str(error).strip().splitlines()
            said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
            raise DataError(f"environment {self._environment.name} failed {self._where}: {said}") from error

    def _check_observation(self, observation: Observation) -> None:
        state = observation.get("state")
        if state is None:
            return
        if self._environment.state_size and state.shape[1:] != (self._environment.state_size,):
            self._refuse(f"gave a state of shape {state.shape[1:]}, its own spaces say {self._environment.state_size}")
        self._check_finite("state", state)

    def _check_finite(self, name: str, values: NDArray[Any]) -> None:
        if not np.isfinite(values).all():
            self._refuse(f"gave NaN or Inf in {name} of episode {int(np.argwhere(~np.isfinite(values))[0][0])}")

    def _refuse(self, what: str) -> NoReturn:
        raise DataError(f"environment {self._environment.name} {what} {self._where}: mend the environment")


def check_spaces(
    environment: VectorEnvironment, state_size: int, frame_shape: tuple[int, int, int] | None, action_size: int
) -> None:
    """See that an environment shows what a policy's encoder was trained on, and takes the policy's actions.

    Raises:
        ConfigError: naming the environment and what differs.
    """
    offered = (environment.state_size, environment.frame_shape, len(environment.action_low))
    names = ("a state of size", "frames of shape", "actions of size")
    for name, has, wanted in zip(names, offered, (state_size, frame_shape, action_size), strict=True):
        if wanted and has != wanted:
            raise ConfigError(
                f"environment {environment.name} has {name} {has or 'none'}, the policy was trained with {wanted}: set "
                "environment.id to the one that the episodes come from, or to none"
            )


class _TooLongError(BaseException):
    """Not an `Exception`, so that an environment's own broad handlers let it pass."""


@contextlib.contextmanager
def _no_longer_than(limit_s: float) -> Iterator[None]:
    """Interrupt what runs longer. By a timer signal, so only in a main thread on Unix; elsewhere nothing is limited."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: FrameType | None) -> NoReturn:
        raise _TooLongError

    handler, started = signal.signal(signal.SIGALRM, ring), time.monotonic()
    left_s, interval_s = signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left_s:  # somebody else's alarm was set: it goes on
            signal.setitimer(signal.ITIMER_REAL, max(left_s - (time.monotonic() - started), 1e-3), interval_s)
