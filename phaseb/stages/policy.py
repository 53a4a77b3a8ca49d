"""Train the policies: every arm and seed at once, on real and trusted transitions out of the replay shards.

Arms that need no generator are trained by a stage of their own, `baselines`, while generators are fitted.
"""

import functools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.arms import Arm
from phaseb.config.policy import PolicyConfig
from phaseb.config.root import Config
from phaseb.dynamics.protocol import load_generator
from phaseb.episodes.streaming import batches, lengths_of
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import WorkerContext
from phaseb.pipeline.result import Report
from phaseb.pipeline.stage import StageContext
from phaseb.policy.batches import RunSpec
from phaseb.policy.behavior_metrics import action_levels
from phaseb.policy.learner import SACLearner, trained_actors
from phaseb.policy.learner_group import group_runs
from phaseb.policy.rewards import RewardNormalizer
from phaseb.replay.accounting import SamplingStats
from phaseb.replay.client import ReplayClient
from phaseb.replay.segments import rows_per_shard
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.checkpoint import copy_checkpoint
from phaseb.runtime.storage import Store
from phaseb.stages.augmentation import make_augmenter, trusted_steps, weight_column
from phaseb.stages.policy_results import books_of, join_results, write_results
from phaseb.stages.replay_streams import (
    PLACEBO_COLUMN,
    Replay,
    insert_all,
    runs_of,
    start_replay,
    streams_of,
)
from phaseb.stages.sample import fit_sample
from phaseb.stages.synthesize import made_generators
from phaseb.training.fit import fit, fit_groups

BASELINES = "baselines"
"""Folder of the policies that need no generator, as they were trained."""


@dataclass(frozen=True)
class PolicyData:
    """What a learner's worker is given: where the batches come from, held-out episodes, and what it may use."""

    replay: Replay
    runs: tuple[RunSpec, ...]
    streams: tuple[SampleSpec, ...]
    real: Trajectories
    held_out: Trajectories
    store: Store
    generators: Store
    arms: tuple[Arm, ...] = ()


class ArmsLearner(SACLearner):
    """The learner of all runs; it keeps the books of the batches it has used, and says what share was synthetic."""

    _used_until = 0

    def step(self, step: int) -> dict[str, float]:
        metrics = super().step(step)
        self._used_until = step + 1
        return metrics

    def validate(self, step: int) -> dict[str, float]:
        books = self._accounting.to_json(self._accounting.as_of(self._used_until))
        used = {f"policy/effective_contribution/{name}": b["effective_contribution"] for name, b in books.items()}
        source: Any = self.source
        fed = {
            "policy/replay/wait_fraction": source.wait_fraction,
            "policy/replay/queue_depth": float(source.queue_depth),
        }
        return super().validate(step) | used | fed

    def state_dict(self) -> dict[str, Any]:
        """With the books as they are at this step (not with batches that were fetched and are still to be used), so
        that a resumed run's tell of each batch once."""
        return super().state_dict() | {"books": torch.from_numpy(self._accounting.as_of(self._used_until))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._accounting.start_from(state["books"].numpy())

    @property
    def _accounting(self) -> SamplingStats:
        accounting: SamplingStats = self.source.accounting  # type: ignore[attr-defined]
        return accounting


def execute(context: StageContext) -> dict[str, Any]:
    """Train the arms that learn from a generator's rollouts, and put the policies of all arms together."""
    config, home = context.config, context.store.folder("policy")
    names = [arm.name for arm in config.arms.trained if arm.needs_rollouts]
    baselines = context.store.folder(BASELINES)
    if names:
        _train_named(context, home, names)
    for arm in config.arms.baselines:
        for seed in map(str, range(config.arms.num_seeds)):
            copy_checkpoint(baselines.folder(arm, seed), home.folder(arm, seed))
    return join_results(config, [baselines, *([home] if names else [])], home)


def execute_baselines(context: StageContext) -> dict[str, Any]:
    """Train the arms that need no generator, on half of the CPUs: what the other arms wait for takes the rest."""
    half = max(1, context.config.resources.num_tasks // 2)
    return _train_named(context, context.store.folder(BASELINES), context.config.arms.baselines, half)


def _train_named(
    context: StageContext, home: Store, names: Sequence[str], max_concurrent: int | None = None
) -> dict[str, Any]:
    """Train some arms on all episodes of the run."""
    own = context.config.model_copy(update={"arms": context.config.arms.only(*names)})
    real = fit_sample(own, context.store, "train")
    every_real, every_synthetic = every_episode(own, context.store)
    alone = replace(context, config=own)
    return train_arms(alone, home, real, every_real, every_synthetic, max_concurrent=max_concurrent)


def every_episode(config: Config, store: Store) -> tuple[Iterable[Trajectories], dict[str, Iterable[Trajectories]]]:
    """All real training episodes, and by generator all stored rollouts that arms draw, batch by batch.

    Of more than the replay shards have room for, an even share: whatever were inserted last would push the rest out.
    """
    latents = store.folder("latents")
    made = {
        name: store.folder("synthetic", name) for name in made_generators(store, "synthetic", config.drawn_generators)
    }
    recorded = int((lengths_of(latents, ("train",)) + 1).sum())
    stored = sum(int((lengths_of(folder, ()) + 1).sum()) for folder in made.values())
    stored += recorded * any(weight_column(arm, "") == PLACEBO_COLUMN for arm in config.arms.trained)
    room = rows_per_shard(config.replay) * config.replay.num_shards
    seed = config.run.seed
    synthetic: dict[str, Iterable[Trajectories]] = {
        name: batches(folder, (), share=min(1.0, room / stored), seed=seed) for name, folder in made.items()
    }
    return batches(latents, ("train",), share=min(1.0, room / recorded), seed=seed), synthetic


@dataclass(frozen=True)
class ArmsJob:
    """The training of a config's runs.

    Attributes:
        config: says which.
        store: the run directory.
        home: the folder of the policies.
        real: real episodes (a sample of them) that rollouts branch from, bounds and levels of actions are taken from.
        held_out: dev episodes.
        every_real: all real episodes, in parts; they go into the replay.
        every_synthetic: likewise the stored rollouts, by generator.
        trusted: steps of each generator's stored rollouts that may have a weight by trust.
        generators: folder of the generators that policies branch in.
        key: of the stage.
    """

    config: Config
    store: Store
    home: Store
    real: Trajectories
    held_out: Trajectories
    every_real: Iterable[Trajectories]
    every_synthetic: Mapping[str, Iterable[Trajectories]]
    trusted: Mapping[str, int]
    generators: Store
    key: str


@dataclass(frozen=True)
class TrainedRuns:
    """The end of a training of some runs: rows of metrics, and what was drawn from the replay."""

    rows: list[dict[str, float]]
    seconds: float
    replay: dict[str, Any]


def train_arms(
    context: StageContext,
    home: Store,
    real: Trajectories,
    every_real: Iterable[Trajectories],
    every_synthetic: Mapping[str, Iterable[Trajectories]],
    generators: Store | None = None,
    max_concurrent: int | None = None,
) -> dict[str, Any]:
    """Train the config's arms and seeds into `home` on some real and synthetic episodes of the run.

    Without Ray Train workers every group of runs is a Ray task; with them, the workers train all runs together.

    Args:
        context: of the stage.
        home, real, every_real, every_synthetic: see `ArmsJob`.
        generators: folder of the generators that policies branch in; the run's own where None.
        max_concurrent: groups of runs that are trained at a time, where fewer than `resources.num_tasks`.

    Returns:
        metrics of the end of the training.
    """
    config, store = context.config, context.store
    held_out = fit_sample(config, store, "dev")
    runs = runs_of(config)
    trusted = trusted_horizons(config, store, held_out if len(held_out) else real)
    generators = generators or store.folder("dynamics")
    job = ArmsJob(config, store, home, real, held_out, every_real, every_synthetic, trusted, generators, context.key)
    if config.resources.num_workers:
        trained = [train_runs(job, range(len(runs)), home.folder("progress"), context.progress)]
    else:
        stored = {name: list(parts) for name, parts in every_synthetic.items()}
        job = replace(job, every_real=list(every_real), every_synthetic=stored)
        groups = group_runs(runs, config.policy.runs_per_batch)
        groups.sort(key=lambda group: runs[group[0]].learner in ("iql", "bc"))  # the longest first
        stores = [home.folder("progress", runs[group[0]].name.replace("/", "-")) for group in groups]
        train = functools.partial(_train_group, job, groups, stores)
        trained = fit_groups(train, stores, config.resources, context.progress, max_concurrent)
    return write_results(config, home, [part.rows for part in trained], [part.replay for part in trained])


def _train_group(
    job: ArmsJob, groups: Sequence[Sequence[int]], stores: Sequence[Store], group: int, report: Report
) -> TrainedRuns:
    return train_runs(job, groups[group], stores[group], report)


def train_runs(job: ArmsJob, numbers: Sequence[int], progress: Store, report: Report) -> TrainedRuns:
    """Train some of the config's runs and save their policies.

    Args:
        job: of all runs.
        numbers: of the runs to train.
        progress: folder of the checkpoint.
        report: receives metrics.
    """
    config, real = job.config, job.real
    every_run = runs_of(config)
    runs = tuple(every_run[number] for number in numbers)
    arms = tuple(arm for arm in config.arms.trained if arm.name in {run.arm for run in runs})
    # Shards write down what they are given, so that one that is killed comes back whole. What a killed run left is
    # dropped: a resumed one fills its buffer anew, and so draws what an uninterrupted one would.
    shards = progress.folder("replay")
    shards.delete()
    replay = start_replay(real, config, shards)
    begin_s = time.monotonic()
    means = insert_all(replay, config, real, job.every_real, job.every_synthetic, job.trusted)
    filled = {"inserted": replay.num_transitions, "insert_s": time.monotonic() - begin_s}
    streams = streams_of(config, runs, means)
    data = PolicyData(replay, runs, streams, real, job.held_out, job.store, job.generators, arms)
    try:
        result = fit(
            functools.partial(make_learner, config.policy),
            data,
            seed=config.run.seed,
            key=job.key,
            store=progress,
            training=config.training,
            resources=config.resources,
            name="policy",
            on_progress=report,
        )
        sizes = real.z.shape[-1], real.actions.shape[-1]
        actors = trained_actors(config.policy, runs, sizes, result.state, config.run.seed, action_levels(real))
        for spec, actor in zip(runs, actors, strict=True):
            actor.save(job.home.folder(spec.arm, str(spec.seed)), {"arm": spec.arm, "seed": spec.seed})
        books = books_of(streams, result) | filled | {"shards": replay.status()}
    finally:
        if isinstance(replay, ReplayClient):
            replay.close()
        shards.delete()
    return TrainedRuns(result.rows, result.seconds, books)


def trusted_horizons(config: Config, store: Store, held_out: Trajectories) -> dict[str, int]:
    """Steps that each generator is trusted for whose stored rollouts are drawn by their trust."""
    drawn = {a.config.generator for a in config.arms.trained if a.is_synthetic and a.config.draws_by_trust}
    steps, seed = config.synthesis.horizon, config.run.seed
    return {
        name: trusted_steps(
            config.policy.augmentation, load_generator(store.folder("dynamics", name)).rollout, held_out, steps, seed
        )
        for name in made_generators(store, "synthetic", config.drawn_generators)
        if name in drawn
    }


def make_learner(config: PolicyConfig, data: PolicyData, context: WorkerContext) -> ArmsLearner:
    source = data.replay.source(
        data.streams,
        config.batch_size,
        config.discount,
        context.rank,
        context.world_size,
        config.chunk_steps_of(run.learner for run in data.runs),
    )
    hook = make_augmenter(
        config.augmentation,
        data.arms,
        data.generators,
        data.store,
        data.replay,
        data.runs,
        data.real,
        data.held_out,
        source,
        context,
    )
    levels = action_levels(data.real)
    rewards = RewardNormalizer.fit(data.real, config.discount)
    learner = ArmsLearner(config, source, data.runs, context, hook, data.held_out, levels, rewards)
    source.accounting.start_from(np.zeros_like(source.accounting.stats))  # a look at the shapes is no training
    if context.world_size > 1:
        source.accounting.sum_over_workers = functools.partial(_sum, context)
    return learner


def _sum(context: WorkerContext, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return context.all_reduce_sum(torch.from_numpy(values).to(context.device)).cpu().numpy()
