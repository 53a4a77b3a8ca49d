"""Fill the replay buffer for the arms of a run: the rows, their weights, and the stream of batches of each run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.root import Config
from phaseb.dynamics.statistics import within_bounds
from phaseb.episodes.trajectories import Trajectories
from phaseb.policy.batches import RunSpec
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.storage import Store
from phaseb.stages.augmentation import RECORDED, weight_column

Replay = LocalReplay | ReplayClient
PLACEBO_COLUMN = f"stored:{RECORDED}"


def fill_replay(
    real: Trajectories,
    synthetic: Mapping[str, Trajectories],
    config: Config,
    folder: Store | None,
    trusted: Mapping[str, int],
) -> tuple[Replay, dict[str, float]]:
    """A buffer with all transitions that the arms draw: on Ray shards that write into `folder`, or in this process.

    The rest as of `insert_all`.
    """
    replay = start_replay(real, config, folder)
    parts = {name: [part] for name, part in synthetic.items()}
    return replay, insert_all(replay, config, real, [real], parts, trusted)


def start_replay(real: Trajectories, config: Config, folder: Store | None) -> Replay:
    """The same, still empty."""
    schema = schema_of(real, config)
    if config.resources.num_workers == 0:
        return LocalReplay(schema, config.replay)
    return ReplayClient.start(schema, config.replay, folder)


def schema_of(real: Trajectories, config: Config) -> TransitionSchema:
    """What a transition of these episodes holds: a weight column for each way that an arm draws synthetic ones."""
    columns = (weight_column(config.arms.arm(spec.arm), spec.name) for spec in runs_of(config))
    known = tuple(dict.fromkeys(column for column in columns if column is not None))
    return TransitionSchema(real.z.shape[-1], real.actions.shape[-1], known)


def insert_all(
    replay: Replay,
    config: Config,
    real: Trajectories,
    every_real: Iterable[Trajectories],
    every_synthetic: Mapping[str, Iterable[Trajectories]],
    trusted: Mapping[str, int],
) -> dict[str, float]:
    """Insert all transitions, the stored rollouts with the weights by which the arms draw them.

    Args:
        trusted: by generator, steps of its rollouts that may have a weight by trust.

    Returns:
        by column, the mean weight of the stored rollouts.
    """
    columns, sums = replay.schema.weights, dict[str, float]()
    for part in every_real:
        if len(part):
            replay.insert(part, "real")
            if PLACEBO_COLUMN in columns:
                again = replace(part, ids=tuple(f"{RECORDED}/{name}" for name in part.ids), weights=None)
                replay.insert(again, "synthetic", {PLACEBO_COLUMN: part.mask})
    num_steps: dict[str, int] = {}
    for generator, parts in every_synthetic.items():
        for part in (part for part in parts if len(part)):
            wanted = {f"stored:{generator}:{weight}": weight for weight in ("trust", "uniform", "bounds")}
            horizon = trusted.get(generator, 0)
            own = {c: _stored_weights(w, real, part, horizon) for c, w in wanted.items() if c in columns}
            replay.insert(part, "synthetic", own)
            for column, weights in own.items():
                sums[column] = sums.get(column, 0.0) + float(weights[part.mask].sum())
                num_steps[column] = num_steps.get(column, 0) + int(part.mask.sum())
    return {column: total / max(1, num_steps[column]) for column, total in sums.items()}


def _stored_weights(weight: str, real: Trajectories, part: Trajectories, trusted: int) -> NDArray[np.floating]:
    """(N, T) weights of stored rollouts, in one of the ways that an arm draws them."""
    if weight == "uniform":
        return np.ones_like(part.rewards)
    if weight == "bounds":
        return _in_bounds(real, part)
    weights = np.zeros_like(part.rewards) if part.weights is None else part.weights
    return np.where(np.arange(weights.shape[1]) < trusted, weights, 0.0)


def runs_of(config: Config) -> tuple[RunSpec, ...]:
    """The runs, arm by arm. Those of one seed share initial weights, noise and real rows."""
    seeds = range(config.arms.num_seeds)
    return tuple(
        RunSpec(
            arm.name,
            seed,
            learner=arm.config.learner,
            clones=not config.policy.of_learner(arm.config.learner).learns_values,
            state_noise=arm.state_noise,
        )
        for arm in config.arms.trained
        for seed in seeds
    )


def streams_of(
    config: Config, runs: Sequence[RunSpec], means: Mapping[str, float] | None = None
) -> tuple[SampleSpec, ...]:
    """The stream of batches of each run.

    Args:
        means: by column, the mean weight of the stored rollouts (see `insert_all`); none of a generator that made none.
    """
    streams = []
    for run in runs:
        arm = config.arms.arm(run.arm)
        law: dict[str, Any] = {}
        if (column := weight_column(arm, run.name)) is not None:
            share = arm.config.share
            if arm.config.draws_by_trust:
                own = f"stored:{arm.config.generator}:trust"
                share *= 1.0 if means is None else min(1.0, means.get(own, 0.0))
            law = {"synthetic_share": share, "weight_column": column, "weighting": arm.config.weighting}
        # A gate that trusts little or nothing leaves the places to real data: it must not end the run.
        streams.append(SampleSpec(run.name, run.drawn(config.run.seed), when_short="real", **law))
    return tuple(streams)


def _in_bounds(real: Trajectories, synthetic: Trajectories) -> NDArray[np.float32]:
    """(N, T) 1 on the transitions of synthetic episodes that pass the report's distribution filter."""
    steps = synthetic.rewards.shape[1]
    passed = within_bounds(real.at_least(steps).z[:, 1:], synthetic.z[:, 1:])
    return np.repeat(passed[:, None], steps, 1).astype(np.float32)
