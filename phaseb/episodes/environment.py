"""What evaluation and collection need of an environment: many episodes stepped at once.

N episodes, A action dimensions, S state dimensions, H × W × C a frame.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.control import Control
from phaseb.episodes.episode import METRICS, TASK_TAG, Episode
from phaseb.episodes.resolution import compact
from phaseb.episodes.state_columns import check_order, from_tag
from phaseb.episodes.tasks import Tasks, condition_tags
from phaseb.errors import DataError

Observation = dict[str, NDArray[Any]]
"""One observation of every episode: "state" (N, S) float32 or float64, and / or "frames" (N, H, W, C) uint8."""

Step = tuple[Observation, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, NDArray[Any]]]
"""Observation, rewards (N,), terminated (N,), truncated (N,), infos by name (each (N, …))."""


@runtime_checkable
class VectorEnvironment(Protocol):
    """N episodes side by side, started together and stepped together.

    An episode that ended before the others stands still: its observation repeats, its rewards are 0, its flags stay
    up. What happens in one episode never depends on the others, nor on N.

    Attributes:
        name: what to call it in messages.
        num_envs: N.
        max_steps: steps after which every episode is truncated.
        action_low, action_high: (A,) float32, the actions' own units; actions outside are clipped.
        state_size: S, or 0 where there is no state.
        frame_shape: (H, W, C), or None where there are no frames.

    An environment may also have `state_names`, ((name, width), …) of the parts of its state in order: recorded columns
    of the same names are then compared. Where recorded episodes have several tasks, it must have `episode_tasks`, the N
    names of its episodes' tasks after a reset. `reset_to(seeds, tasks)` may ask it for the task of each episode.
    """

    name: str
    num_envs: int
    max_steps: int
    action_low: NDArray[np.float32]
    action_high: NDArray[np.float32]
    state_size: int
    frame_shape: tuple[int, int, int] | None

    def reset(self, seeds: Sequence[int]) -> Observation:
        """Start N new episodes, one for each seed; everything random in an episode follows from its seed."""
        ...

    def step(self, actions: NDArray[np.floating]) -> Step:
        """Apply actions (N, A) in the environment's own units."""
        ...

    def economics(self) -> dict[str, NDArray[np.float64]]:
        """What each episode earned so far, (N,) by the names in `episode.METRICS` and `return`; NaN where unknown."""
        ...

    def render(self) -> NDArray[np.uint8] | None:
        """One picture of every episode as it stands, (N, H, W, 3), or None where it cannot be drawn."""
        ...

    def close(self) -> None:
        """Give back what the environment holds."""
        ...


class Controller(Protocol):
    """Whoever chooses actions: an operator, an oracle, a policy."""

    def reset(self, seeds: Sequence[int]) -> None:
        """Forget the last episodes; N new ones begin."""
        ...

    def act(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Actions (N, A), in the environment's own units, for the observation of every episode."""
        ...


def record(
    environment: VectorEnvironment,
    controller: Controller,
    seeds: Sequence[int],
    ids: Sequence[str],
    tags: Sequence[Mapping[str, str]] | None = None,
) -> list[Episode]:
    """N episodes as `controller` acts them out from `seeds`, each cut at its own end."""
    observations, actions, rewards = [environment.reset(seeds)], [], []
    task_tags = task_tags_of(environment)
    controller.reset(seeds)
    lengths = np.zeros(environment.num_envs, dtype=int)
    running, terminated = np.ones(environment.num_envs, dtype=bool), np.zeros(environment.num_envs, dtype=bool)
    while running.any():
        chosen = np.clip(controller.act(observations[-1]), environment.action_low, environment.action_high)
        observation, reward, terminated, truncated, _ = environment.step(chosen)
        observations.append(observation)
        actions.append(np.asarray(chosen, dtype=np.float32))
        rewards.append(reward)
        lengths += running
        running &= ~(terminated | truncated)
    economics = environment.economics()
    control: Control | None = getattr(environment, "control", None)
    made = control.to_tag() if control else {}
    columns = {name: np.stack([o[name] for o in observations], axis=1) for name in observations[0]}
    chosen_NTA, rewards_NT = np.stack(actions, axis=1), np.stack(rewards, axis=1)
    return [
        Episode(
            id=ids[i],
            rewards=rewards_NT[i, :steps],
            actions=chosen_NTA[i, :steps],
            terminated=bool(terminated[i]),
            metrics={name: float(economics[name][i]) for name in METRICS if name in economics},
            tags={**(tags[i] if tags else {}), **made, **task_tags[i]},
            state=compact(columns["state"][i, : steps + 1]) if "state" in columns else None,
            frames=columns["frames"][i, : steps + 1] if "frames" in columns else None,
        )
        for i, steps in enumerate(lengths.tolist())
    ]


def task_tags_of(environment: VectorEnvironment) -> list[dict[str, str]]:
    """Of each of N episodes that began, the tags of its task, and of the condition where its state holds one."""
    names = getattr(environment, "episode_tasks", None) or [""] * environment.num_envs
    tasks: Tasks = getattr(environment, "condition", ())
    condition = condition_tags(getattr(environment, "state_names", ()), tasks) if tasks else {}
    return [{**({TASK_TAG: name} if name else {}), **condition} for name in names]


def check_fit(environment: VectorEnvironment, episode: Episode) -> None:
    """See that a policy made from episodes like this one can act in the environment: sizes, and order of named parts.

    Raises:
        DataError: naming what differs.
    """
    recorded = {
        "actions": None if episode.actions is None else (episode.actions.shape[1],),
        "state": None if episode.state is None else (episode.state.shape[1],),
        "frames": None if episode.frames is None else episode.frames.shape[1:],
    }
    offered = {
        "actions": environment.action_low.shape,
        "state": (environment.state_size,) if environment.state_size else None,
        "frames": environment.frame_shape,
    }
    for name, shape in recorded.items():
        if shape is not None and shape != offered[name]:
            there = f"{name} of shape {offered[name]}" if offered[name] else f"no {name}"
            raise DataError(
                f"episode {episode.id} has {name} of shape {shape}, environment {environment.name} has {there}: "
                f"give the environment that the episodes come from, or environment.id=none"
            )
    check_order(from_tag(episode.tags), getattr(environment, "state_names", ()), f"environment {environment.name}")
