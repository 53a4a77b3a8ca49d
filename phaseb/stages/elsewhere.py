"""Shares of the policies in processes of their own, so that runs train on every core that is free."""

import functools
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from phaseb.config.policy import PolicyConfig
from phaseb.config.run import ResourcesConfig
from phaseb.nn.data_parallel import LearnerContext
from phaseb.nn.precision import bfloat16_products, is_half
from phaseb.pipeline.ahead import FEW_STEPS
from phaseb.policy.actor import Actor
from phaseb.policy.batches import Batch, RunSpec
from phaseb.policy.learner_group import Levels, Share, Start, Trained
from phaseb.policy.sac import Metrics
from phaseb.runtime import logs
from phaseb.runtime.ray_session import spare_cpus
from phaseb.runtime.ray_tasks import get_result

START_S = 60.0
"""How long a process may take to be there; what finds no room is trained by the learner itself."""
MAX_AHEAD = 100
"""Calls that a process may lag behind the learner: batches wait for it in memory."""


class ShareActor:
    """A share, told what to do by the learner; calls come in the learner's order."""

    def __init__(self, threads: int, *made_of: Any) -> None:
        torch.set_num_threads(threads)
        self._share = Share(*made_of)

    def feed(self, step: int, batches: Sequence[Sequence[np.ndarray[Any, Any]]]) -> None:
        """Batches by group; an array (K, R, B, ...) for each column of K steps."""
        columns = [[torch.from_numpy(np.array(column)) for column in group] for group in batches]
        self._share.feed(step, [[Batch(*row) for row in zip(*group, strict=True)] for group in columns])

    def step(self, step: int, half: bool) -> None:
        with bfloat16_products(half):
            self._share.step(step)

    def ask(self, name: str, *arguments: Any) -> Any:
        """What another method of `Share` gives."""
        return getattr(self._share, name)(*arguments)


class ShareElsewhere:
    """The learner's end: steps are sent and not waited for, until something is asked.

    Since calls are done in their order, a state is that of the step it is asked at.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._begun: deque[Any] = deque()

    def feed(self, step: int, batches: Sequence[Sequence[Batch]]) -> None:
        columns = [[np.stack(column) for column in zip(*group, strict=True)] for group in batches]
        self._begin(self._actor.feed.remote(step, columns))

    def step(self, step: int) -> None:
        self._begin(self._actor.step.remote(step, is_half()))

    def metrics(self) -> list[Metrics]:
        return self._ask("metrics")

    def actors(self) -> list[list[Actor]]:
        return self._ask("actors")

    def state_dicts(self) -> list[dict[str, Any]]:
        return self._ask("state_dicts")

    def load_state_dicts(self, states: Sequence[Mapping[str, Any]]) -> None:
        self._ask("load_state_dicts", states)

    def _begin(self, call: Any) -> None:
        self._begun.append(call)
        while len(self._begun) > MAX_AHEAD:
            get_result(self._begun.popleft())

    def _ask(self, name: str, *arguments: Any) -> Any:
        answer = self._actor.ask.remote(name, *arguments)
        while self._begun:  # whatever failed first is what is told
            get_result(self._begun.popleft())
        return get_result(answer)


def places(resources: ResourcesConfig | None, context: LearnerContext, num_steps: int) -> list[Start]:
    """Where further shares may train: a process for each CPU that is left beside the learner's, up to
    `resources.num_tasks` processes together. None beside several workers, which share the batches, with a GPU, or for
    so few steps that they are over before another process has come."""
    if resources is None or context.world_size > 1 or context.device.type != "cpu" or num_steps < FEW_STEPS:
        return []
    count = min(resources.num_tasks - 1, int(spare_cpus(resources) / resources.cpus_per_task))
    return [functools.partial(_start, resources.cpus_per_task)] * max(0, count)


def _start(
    num_cpus: float, config: PolicyConfig, groups: Sequence[Sequence[RunSpec]], sizes: tuple[int, int],
    context: LearnerContext, levels: Levels | None,
) -> Trained:  # fmt: skip
    """A share on this node, or in this very process where the node has no room for another."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(ShareActor).options(num_cpus=num_cpus, scheduling_strategy=here).remote(
        torch.get_num_threads(), config, groups, sizes, context, levels
    )  # fmt: skip
    try:
        ray.get(actor.ask.remote("metrics"), timeout=START_S)
    except GetTimeoutError:
        ray.kill(actor)
        logs.event("no room for another process: policies share this one", logging.WARNING)
        return Share(config, groups, sizes, context, levels)
    return ShareElsewhere(actor)
