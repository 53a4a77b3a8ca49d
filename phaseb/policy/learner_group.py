"""Groups of runs that are updated as one batch of networks.

Groups never exchange a number, so that they end in the same policies to the bit wherever they train.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.policy import CHUNKED, PolicyConfig
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import RunSpec
from phaseb.policy.chunk_cloning import ChunkCloning
from phaseb.policy.iql import ImplicitQ
from phaseb.policy.run_group import RunGroup
from phaseb.policy.sac import SoftActorCritic

Levels = NDArray[np.floating]


def make_update(
    config: PolicyConfig,
    specs: Sequence[RunSpec],
    sizes: tuple[int, int],
    context: WorkerContext,
    levels: Levels | None,
) -> RunGroup[Any]:
    """The networks of a group of runs, which all learn in the same way."""
    config = config.of_learner(specs[0].learner)
    if config.offline.algorithm in CHUNKED:
        return ChunkCloning(config, specs, *sizes, context, _tensor(levels))
    kind = ImplicitQ if config.offline.algorithm == "iql" else SoftActorCritic
    return kind(config, specs, *sizes, context, _tensor(levels if config.binary_actions else None))


def _tensor(levels: Levels | None) -> torch.Tensor | None:
    return None if levels is None else torch.as_tensor(levels, dtype=torch.float32)


def group_runs(specs: Sequence[RunSpec], size: int) -> list[list[int]]:
    """Runs of an arm that learn in the same way, at most `size` together, in their order.

    An arm's runs never share a group with another's: what a batched product rounds hangs on a run's place in it, so
    that paired runs of two arms, fed the same batches, end in one policy only at the same place of groups alike.
    """
    groups: list[list[int]] = []
    for kind in dict.fromkeys((spec.learner, spec.arm) for spec in specs):
        alike = [run for run, spec in enumerate(specs) if (spec.learner, spec.arm) == kind]
        groups += [alike[i : i + size] for i in range(0, len(alike), size)]
    return groups


def group_rows(group: Sequence[int]) -> slice | list[int]:
    """The group's rows of a batch: a view where they lie side by side."""
    first, last = group[0], group[-1]
    return slice(first, last + 1) if last - first + 1 == len(group) else list(group)
