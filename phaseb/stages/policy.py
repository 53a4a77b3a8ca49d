"""Train the policies: every arm and seed at once, on real and trusted transitions out of the replay shards."""

import functools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.policy import PolicyConfig
from phaseb.config.root import Config
from phaseb.dynamics.protocol import load_generator
from phaseb.dynamics.statistics import within_bounds
from phaseb.episodes.streaming import batches, lengths_of
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import LearnerContext
from phaseb.pipeline.result import Report
from phaseb.pipeline.stage import StageContext
from phaseb.policy.actor import Actor
from phaseb.policy.batches import RunSpec
from phaseb.policy.behavior_metrics import action_levels
from phaseb.policy.learner import SACLearner
from phaseb.policy.learner_group import group_runs
from phaseb.policy.rewards import RewardNormalizer
from phaseb.replay.accounting import Accounting
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import rows_per_shard
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.metrics import write_metrics
from phaseb.runtime.storage import Store
from phaseb.stages.augmentation import FOLLOWING_ARM, following, foreseen, own_column
from phaseb.stages.sample import fit_sample
from phaseb.training.fit import FitResult, fit, fit_groups, merge_rows

Replay = LocalReplay | ReplayClient


@dataclass(frozen=True)
class PolicyData:
    """What a learner's worker is given: where the batches come from, held-out episodes, and what it may use."""

    replay: Replay
    arms: tuple[RunSpec, ...]
    streams: tuple[SampleSpec, ...]
    real: Trajectories
    held_out: Trajectories
    store: Store
    generators: Store


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
        fed = {"policy/replay/wait_share": source.wait_share, "policy/replay/queue_depth": float(source.queue_depth)}
        return super().validate(step) | used | fed

    def state_dict(self) -> dict[str, Any]:
        """With the books as they are at this step (not with batches that were fetched and are still to be used), so
        that a resumed run's tell of each batch once, and which runs had rollouts."""
        books = torch.from_numpy(self._accounting.as_of(self._used_until))
        return super().state_dict() | {"books": books, "follows": torch.tensor([s.follows for s in self.specs])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._accounting.start_from(state["books"].numpy())

    @property
    def _accounting(self) -> Accounting:
        accounting: Accounting = self.source.accounting  # type: ignore[attr-defined]
        return accounting


def execute(context: StageContext) -> dict[str, Any]:
    """Train every arm and seed on all episodes of the run."""
    config, store = context.config, context.store
    real = fit_sample(config, store, "train")
    return train_arms(context, store.folder("policy"), real, *every_episode(config, store))


def every_episode(config: Config, store: Store) -> tuple[Iterable[Trajectories], Iterable[Trajectories]]:
    """All real training episodes and all synthetic ones of a run, batch by batch; of more than the replay shards have
    room for, an even share: whatever were inserted last would push the rest out."""
    room = rows_per_shard(config.replay) * config.replay.num_shards
    found = []
    made = store.folder("synthetic", config.synthesis.generator)
    for folder, splits in ((store.folder("latents"), ("train",)), (made, ())):
        rows = int((lengths_of(folder, splits) + 1).sum())
        found.append(batches(folder, splits, share=min(1.0, room / rows), seed=config.run.seed))
    return found[0], found[1]


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
        every_synthetic: likewise the synthetic ones.
        generators: folder of the generators that policies branch in.
        key: of the stage.
    """

    config: Config
    store: Store
    home: Store
    real: Trajectories
    held_out: Trajectories
    every_real: Iterable[Trajectories]
    every_synthetic: Iterable[Trajectories]
    generators: Store
    key: str


@dataclass(frozen=True)
class TrainedRuns:
    """The end of a training of some runs: rows of metrics, and what was drawn from the replay."""

    rows: list[dict[str, float]]
    seconds: float
    replay: dict[str, Any]


def train_arms(
    context: StageContext, home: Store, real: Trajectories, every_real: Iterable[Trajectories],
    every_synthetic: Iterable[Trajectories], generators: Store | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train the config's arms and seeds into `home` on some real and synthetic episodes of the run.

    Without Ray Train workers every group of runs is a Ray task; with them, the workers train all runs together.

    Args:
        context: of the stage.
        home, real, every_real, every_synthetic: see `ArmsJob`.
        generators: folder of the generators that policies branch in; the run's own where None.

    Returns:
        metrics of the end of the training.
    """
    config, store = context.config, context.store
    held_out = fit_sample(config, store, "dev")
    arms, _ = runs_of(config)
    if FOLLOWING_ARM in config.arms.names and not config.policy.augmentation.enabled:
        known = held_out if len(held_out) else real
        every_synthetic = (_foretold(config, store, known, part) for part in every_synthetic if len(part))
    generators = generators or store.folder("dynamics")
    job = ArmsJob(config, store, home, real, held_out, every_real, every_synthetic, generators, context.key)
    if config.resources.num_workers:
        trained = [train_runs(job, range(len(arms)), home.folder("progress"), context.progress)]
    else:
        job = replace(job, every_real=list(every_real), every_synthetic=list(every_synthetic))
        groups = group_runs(arms, config.policy.runs_together)
        groups.sort(key=lambda group: arms[group[0]].arm != FOLLOWING_ARM)  # the longest first
        stores = [home.folder("progress", arms[group[0]].name.replace("/", "-")) for group in groups]
        train = functools.partial(_train_group, job, groups, stores)
        trained = fit_groups(train, stores, config.resources, context.progress)
    rows = merge_rows([part.rows for part in trained])
    write_metrics(home, "metrics.parquet", rows)
    home.write_json(_replay_statistics(trained), "replay.json")
    last = {k: v for k, v in rows[-1].items() if k.startswith("policy/")}
    seconds = sum(part.seconds for part in trained)
    return {"runs": len(arms), "updates_per_s": config.policy.num_steps * len(arms) / max(seconds, 1e-9), **last}


def _train_group(
    job: ArmsJob, groups: Sequence[Sequence[int]], stores: Sequence[Store], group: int, report: Report
) -> TrainedRuns:
    return train_runs(job, groups[group], stores[group], report)


def train_runs(job: ArmsJob, runs: Sequence[int], progress: Store, report: Report) -> TrainedRuns:
    """Train some of the config's runs and save their policies.

    Args:
        job: of all runs.
        runs: numbers of those to train.
        progress: folder of the checkpoint.
        report: receives metrics.
    """
    config = job.config
    every_arm, every_stream = runs_of(config)
    arms, streams = tuple(every_arm[run] for run in runs), tuple(every_stream[run] for run in runs)
    # Shards write down what they are given, so that one that is killed comes back whole. What a killed run left is
    # dropped: a resumed one fills its buffer anew, and so draws what an uninterrupted one would.
    shards = progress.folder("replay")
    shards.delete()
    replay = start_replay(job.real, arms, config, shards)
    begin_s = time.monotonic()
    insert_all(replay, job.real, job.every_real, job.every_synthetic)
    filled = {"inserted": replay.num_transitions, "insert_s": time.monotonic() - begin_s}
    data = PolicyData(replay, arms, streams, job.real, job.held_out, job.store, job.generators)
    try:
        result = fit(
            functools.partial(make_learner, config.policy), data, seed=config.run.seed, key=job.key, store=progress,
            training=config.training, resources=config.resources, name="policy", on_progress=report,
        )  # fmt: skip
        for spec, actor in zip(arms, _actors(config.policy, data, result.state, config.run.seed), strict=True):
            actor.save(job.home.folder(spec.arm, str(spec.seed)), {"arm": spec.arm, "seed": spec.seed})
        books = _books(streams, result) | filled | {"shards": replay.status()}
    finally:
        if isinstance(replay, ReplayClient):
            replay.close()
        shards.delete()
    return TrainedRuns(result.rows, result.seconds, books)


def _replay_statistics(trained: Sequence[TrainedRuns]) -> dict[str, Any]:
    """What was drawn for every run and how the learners were fed. Buffers of several groups are alike: one is shown."""
    parts = [part.replay for part in trained]
    streams = {name: books for part in parts for name, books in part["streams"].items()}
    worst = {name: max(part[name] for part in parts) for name in ("insert_s", "wait_share", "queue_depth")}
    return parts[0] | worst | {"streams": streams, "sampled_per_s": sum(part["sampled_per_s"] for part in parts)}


def _foretold(config: Config, store: Store, held_out: Trajectories, synthetic: Trajectories) -> Trajectories:
    """Stored rollouts without the weights of steps beyond those that the run's model is known to foretell."""
    assert synthetic.weights is not None
    imagine = load_generator(store.folder("dynamics", config.synthesis.generator)).rollout
    known = foreseen(config.policy.augmentation, imagine, held_out, synthetic, config.run.seed)
    return replace(synthetic, weights=synthetic.weights * known)


def _books(streams: Sequence[SampleSpec], result: FitResult) -> dict[str, Any]:
    """What was drawn for every run, how fast, and how the first worker was fed."""
    told = Accounting(streams).to_json(result.state["books"].numpy())
    drawn = sum(book["sampled_real"] + book["sampled_synthetic"] for book in told.values())
    fed = {name: result.last[f"policy/replay/{name}"] for name in ("wait_share", "queue_depth")}
    return {"streams": told, "sampled_per_s": drawn / max(result.seconds, 1e-9), **fed}


def fill_replay(real: Trajectories, synthetic: Trajectories, arms: Sequence[RunSpec], config: Config,
                folder: Store | None) -> Replay:  # fmt: skip
    """A buffer with all real and synthetic transitions: on Ray shards that write into `folder`, or in this process."""
    replay = start_replay(real, arms, config, folder)
    insert_all(replay, real, [real], [synthetic])
    return replay


def start_replay(real: Trajectories, arms: Sequence[RunSpec], config: Config, folder: Store | None) -> Replay:
    """The same, still empty."""
    schema = schema_of(real, arms)
    if config.resources.num_workers == 0:
        return LocalReplay(schema, config.replay)
    return ReplayClient.start(schema, config.replay, folder)


def schema_of(real: Trajectories, arms: Sequence[RunSpec]) -> TransitionSchema:
    """What a transition of these episodes holds: a weight column for each way that an arm draws synthetic ones."""
    own = tuple(own_column(spec.name) for spec in arms if spec.arm == FOLLOWING_ARM)
    return TransitionSchema(real.z.shape[-1], real.actions.shape[-1], ("weight", "stored", "bounds", *own))


def insert_all(
    replay: Replay, real: Trajectories, every_real: Iterable[Trajectories], every_synthetic: Iterable[Trajectories]
) -> None:
    """Insert all transitions, the synthetic ones with the weights by which the arms draw them (see `train_arms`)."""
    for part in every_real:
        if len(part):
            replay.insert(part, "real")
    for part in (part for part in every_synthetic if len(part)):
        weights = part.weights if part.weights is not None else np.zeros_like(part.rewards)
        columns = {"weight": weights, "stored": np.ones_like(weights), "bounds": _in_bounds(real, part)}
        replay.insert(part, "synthetic", columns)


def runs_of(config: Config) -> tuple[tuple[RunSpec, ...], tuple[SampleSpec, ...]]:
    """The runs, arm by arm, and the stream of batches of each. Arms of one seed share weights, noise and real rows."""
    arms = config.arms
    laws: dict[str, dict[str, Any]] = {
        "real_only": {},
        "fixed_weight": {"synthetic_share": arms.fixed_share, "weight_column": "stored", "weighting": "sampling"},
        "bounds_filter": {"synthetic_share": arms.fixed_share, "weight_column": "bounds", "weighting": "sampling"},
        "trust_weighted": {"synthetic_share": arms.trusted_share, "weight_column": "weight",
                           "weighting": arms.weighting, "share_follows_weight": True},
    }  # fmt: skip
    runs, streams = [], []
    for arm in arms.names:
        for number in range(arms.num_seeds):
            run = RunSpec(arm, number)
            law = laws[arm]
            if arm == FOLLOWING_ARM and config.policy.augmentation.enabled:
                law = law | {"weight_column": own_column(run.name), "share_follows_weight": False}
            runs.append(run)
            # A gate that trusts little or nothing leaves the places to real data: it must not end the run.
            streams.append(SampleSpec(run.name, run.drawn(config.run.seed), when_short="real", **law))
    return tuple(runs), tuple(streams)


def make_learner(config: PolicyConfig, data: PolicyData, context: LearnerContext) -> ArmsLearner:
    source = data.replay.source(data.streams, config.batch_size, config.discount, context.rank, context.world_size)
    hook, arms = None, data.arms
    if config.augmentation.enabled and any(spec.arm == FOLLOWING_ARM for spec in data.arms):
        hook = following(
            config.augmentation, data.generators, data.store, data.replay, data.arms, data.real, data.held_out,
            source, context,
        )  # fmt: skip
        arms = tuple(replace(spec, follows=run in hook.followed) for run, spec in enumerate(data.arms))
    rewards = RewardNormalizer.fit(data.real, config.discount, config.reward_std)
    levels = action_levels(data.real)
    learner = ArmsLearner(config, source, arms, context, hook, data.held_out, levels, rewards)
    source.accounting.start_from(np.zeros_like(source.accounting.books))  # a look at the shapes is no training
    if context.world_size > 1:
        source.accounting.sum_over_workers = functools.partial(_sum, context)
    return learner


def _sum(context: LearnerContext, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return context.total(torch.from_numpy(values).to(context.device)).cpu().numpy()


def _actors(config: PolicyConfig, data: PolicyData, state: dict[str, Any], seed: int) -> list[Actor]:
    """The trained policies, out of the learner's last state."""
    source = data.replay.source(data.streams, config.batch_size, config.discount)
    follows = state["follows"].tolist()
    arms = [replace(spec, follows=bool(own)) for spec, own in zip(data.arms, follows, strict=True)]
    learner = ArmsLearner(config, source, arms, LearnerContext(seed), levels=action_levels(data.real))
    learner.load_state_dict(state)
    return learner.actors()


def _in_bounds(real: Trajectories, synthetic: Trajectories) -> NDArray[np.float32]:
    """(N, T) 1 on the transitions of synthetic episodes that pass the report's distribution filter."""
    steps = synthetic.rewards.shape[1]
    passed = within_bounds(real.at_least(steps).z[:, 1:], synthetic.z[:, 1:])
    return np.repeat(passed[:, None], steps, 1).astype(np.float32)
