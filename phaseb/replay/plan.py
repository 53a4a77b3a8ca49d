"""Which shard gives which draw: the strata of all shards laid end to end, and batches cut from them.

Every draw is a number u in [0, 1) of its stratum's mass over all shards. A shard owns the window [low, high) of that
line that its own mass takes, so frequencies follow the law exactly whatever the fill of the shards; shards draw no
random numbers and need to be told only their windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.errors import DataError
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import SOURCES
from phaseb.replay.spec import REAL, SYNTHETIC, BatchShape, SampleSpec, draw

Doubles = NDArray[np.float64]
# What a shard tells of a stratum, for one spec: mass to draw from, rows of positive mass, rows, sum of the weights.
MASS, DRAWABLE, COUNT, WEIGHT = 0, 1, 2, 3
NUM_TOTALS = 4


@dataclass(frozen=True)
class Plan:
    """Attributes:
    windows: (S, R, 2, 2): of each shard, spec and stratum the window [low, high).
    num_synthetic: (R,) synthetic transitions in a batch.
    totals: (R, 2, 4): of each spec and stratum, mass, drawable rows, rows and weights over all shards.
    """

    windows: Doubles
    num_synthetic: NDArray[np.int64]
    totals: Doubles


@dataclass(frozen=True)
class SampleRequest:
    """What a shard needs to know to give its part of some batches: a few numbers, whatever the size of the batches.

    `window` is (R, 2, 2).
    """

    specs: tuple[SampleSpec, ...]
    step: int
    num_batches: int
    shape: BatchShape
    num_synthetic: tuple[int, ...]
    window: Doubles
    gamma: float

    @property
    def num_draws(self) -> int:
        """Draws in the batches of this worker, over all shards."""
        return self.num_batches * len(self.specs) * self.shape.share


def check_specs(specs: Sequence[SampleSpec], schema: TransitionSchema) -> None:
    """Raises DataError or ValueError for specs that cannot be drawn together from such a buffer."""
    if not specs:
        raise ValueError("no stream of batches was asked for")
    for spec in specs:
        if spec.weight_column is not None:
            schema.weight(spec.weight_column)


def make_plan(specs: Sequence[SampleSpec], masses: Doubles, batch_size: int) -> Plan:
    """Windows and strata for the masses (S, R, 2, 4) that the shards report.

    Raises:
        DataError: where a stratum holds fewer transitions that can be drawn than a batch takes of it.
    """
    totals = masses.sum(0)
    num_synthetic = np.array([_num_synthetic(s, t, batch_size) for s, t in zip(specs, totals, strict=True)])
    for spec, total, synthetic in zip(specs, totals, num_synthetic, strict=True):
        _require(spec, total, REAL, batch_size - int(synthetic))
        if spec.when_short == "refuse":
            _require(spec, total, SYNTHETIC, int(synthetic))
    mass = masses[..., MASS]
    edges = np.cumsum(mass, axis=0) / np.where(totals[..., MASS] > 0, totals[..., MASS], 1.0)
    behind = np.cumsum(mass[::-1], axis=0)[::-1]
    edges[:-1] = np.where(behind[1:] > 0, edges[:-1], 1.0)  # the last shard that has mass ends the line, exactly
    edges[-1] = 1.0
    lows = np.concatenate([np.zeros((1, *edges.shape[1:])), edges[:-1]])
    return Plan(np.stack([lows, edges], -1), num_synthetic, totals)


def make_requests(
    plan: Plan, specs: tuple[SampleSpec, ...], shape: BatchShape, step: int, num_batches: int, gamma: float
) -> dict[int, SampleRequest]:
    """What each shard is to be asked for; shards on which no draw can fall are left out."""
    num_synthetic = tuple(int(n) for n in plan.num_synthetic)
    asked = np.array([[n < shape.batch_size, n > 0] for n in num_synthetic])
    busy = ((plan.windows[..., 1] > plan.windows[..., 0]) & asked).any((1, 2))
    return {
        int(k): SampleRequest(specs, step, num_batches, shape, num_synthetic, plan.windows[k], gamma)
        for k in np.flatnonzero(busy)
    }


def places(request: SampleRequest) -> tuple[Doubles, NDArray[np.bool_]]:
    """The draws of all specs as (num_batches, R, share), and (R, share): which places are synthetic."""
    shape = request.shape
    numbers = np.empty((request.num_batches, len(request.specs), shape.share))
    for r, spec in enumerate(request.specs):
        numbers[:, r] = draw(spec, request.num_synthetic[r], shape, request.step, request.num_batches)
    column = shape.begin + np.arange(shape.share)
    return numbers, column[None] >= shape.batch_size - np.array(request.num_synthetic)[:, None]


def owned(numbers: Doubles, synthetic: NDArray[np.bool_], window: Doubles) -> NDArray[np.bool_]:
    """(num_batches, R, share): the draws that fall into a shard's window (R, 2, 2)."""
    bounds = np.where(synthetic[..., None], window[:, None, SYNTHETIC], window[:, None, REAL])
    return (numbers >= bounds[..., 0]) & (numbers < bounds[..., 1])


def _num_synthetic(spec: SampleSpec, totals: Doubles, batch_size: int) -> int:
    _, _, count, weight = totals[SYNTHETIC]
    share = spec.synthetic_share
    if spec.share_follows_weight:
        share *= min(1.0, weight / max(count, 1.0))
    wanted = round(share * batch_size)
    return min(wanted, _num_drawable(spec, totals, SYNTHETIC)) if spec.when_short == "real" else wanted


def _num_drawable(spec: SampleSpec, totals: Doubles, source: int) -> int:
    mass, drawable, _, weight = totals[source]
    worthless = source == SYNTHETIC and spec.weighting == "loss" and weight <= 0
    return 0 if mass <= 0 or worthless else int(drawable)


def _require(spec: SampleSpec, totals: Doubles, source: int, needed: int) -> None:
    """Raises DataError where a stratum has fewer transitions to draw than a batch needs."""
    there = _num_drawable(spec, totals, source)
    if needed <= there:
        return
    kind, held = SOURCES[source], int(totals[source, COUNT])
    told = f"{spec.name}: a batch takes {needed} {kind} transitions and the replay buffer holds {there}"
    if there < held:
        told += f" of positive weight {spec.weight_column!r} ({held} in all)"
    hint = " or set when_short='real'" if source == SYNTHETIC else ""
    raise DataError(f"{told}; insert more or make the batch smaller{hint}")
