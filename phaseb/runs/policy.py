"""Train the policies: every arm and seed at once, on real and trusted transitions out of the replay shards."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.arms import ArmsConfig
from phaseb.config.policy import PolicyConfig
from phaseb.config.root import Config
from phaseb.data_parallel import LearnerContext
from phaseb.episodes.shards import read_trajectories
from phaseb.episodes.trajectories import Trajectories
from phaseb.metrics import write_metrics
from phaseb.policy.batches import RunSpec
from phaseb.policy.learner import SACLearner
from phaseb.replay.client import ReplayClient
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.runs.result import Callback, RunResult
from phaseb.runs.stage import Stage, StageContext
from phaseb.seeding import derive_seed
from phaseb.training.fit import fit
from phaseb.world_model.statistics import within_bounds

Replay = LocalReplay | ReplayClient


@dataclass(frozen=True)
class PolicyData:
    """What a learner's worker is given: where the batches come from, and held-out episodes."""

    replay: Replay
    arms: tuple[RunSpec, ...]
    streams: tuple[SampleSpec, ...]
    held_out: Trajectories


class ArmsLearner(SACLearner):
    """The learner of all runs; its held-out look also says what share of the weight was synthetic."""

    def validate(self, step: int) -> dict[str, float]:
        books = self.source.accounting.to_json()  # type: ignore[attr-defined]
        used = {f"policy/effective_contribution/{name}": b["effective_contribution"] for name, b in books.items()}
        return super().validate(step) | used


def work(context: StageContext) -> dict[str, Any]:
    config, store = context.config, context.store
    latents = read_trajectories(store.folder("latents"), ("train", "dev"))
    real, synthetic = latents.split("train"), read_trajectories(store.folder("synthetic"))
    replay = fill_replay(real, synthetic, config)
    arms, streams = runs_of(config.arms, config.run.seed)
    data = PolicyData(replay, arms, streams, latents.split("dev"))
    try:
        result = fit(
            functools.partial(make_learner, config.policy), data, seed=config.run.seed, key=context.key,
            store=store.folder("policy", "progress"), training=config.training, resources=config.resources,
            name="policy", on_progress=context.progress,
        )  # fmt: skip
        learner = make_learner(config.policy, data, LearnerContext(config.run.seed))
        learner.load_state_dict(result.state)
        for spec, actor in zip(arms, learner.actors(), strict=True):
            actor.save(store.folder("policy", spec.arm, str(spec.seed)), {"arm": spec.arm, "seed": spec.seed})
    finally:
        if isinstance(replay, ReplayClient):
            replay.close()
    write_metrics(store.folder("policy"), "metrics.parquet", result.rows)
    last = {k: v for k, v in result.last.items() if k.startswith("policy/")}
    return {"runs": len(arms), "updates_per_s": config.policy.num_steps * len(arms) / max(result.seconds, 1e-9), **last}


def fill_replay(real: Trajectories, synthetic: Trajectories, config: Config) -> Replay:
    """A buffer with all real and synthetic transitions: on Ray shards, or here where training is in this process."""
    schema = TransitionSchema(real.z.shape[-1], real.actions.shape[-1], ("weight", "bounds"))
    replay: Replay
    if config.resources.num_workers == 0:
        replay = LocalReplay(schema, config.replay)
    else:
        replay = ReplayClient.start(schema, config.replay)
    replay.insert(real, "real", {"weight": np.ones_like(real.rewards), "bounds": np.ones_like(real.rewards)})
    weights = synthetic.weights if synthetic.weights is not None else np.zeros_like(synthetic.rewards)
    replay.insert(synthetic, "synthetic", {"weight": weights, "bounds": _in_bounds(real, synthetic)})
    return replay


def runs_of(config: ArmsConfig, seed: int) -> tuple[tuple[RunSpec, ...], tuple[SampleSpec, ...]]:
    """The runs, arm by arm, and the stream of batches of each. Arms of one seed share weights, noise and real rows."""
    laws: dict[str, dict[str, Any]] = {
        "real_only": {},
        "fixed_weight": {"synthetic_share": config.fixed_share},
        "bounds_filter": {"synthetic_share": config.bounds_share, "weight_column": "bounds", "weighting": "sampling"},
        "trust_weighted": {"synthetic_share": config.trusted_share, "weight_column": "weight",
                           "weighting": config.weighting, "share_follows_weight": config.share_follows_trust},
    }  # fmt: skip
    runs, streams = [], []
    for arm in config.names:
        for number in range(config.num_seeds):
            own = derive_seed(seed, "policy", number) % 2**31
            runs.append(RunSpec(arm, number))
            streams.append(SampleSpec(name=f"{arm}/{number}", seed=own, **laws[arm]))
    return tuple(runs), tuple(streams)


def make_learner(config: PolicyConfig, data: PolicyData, context: LearnerContext) -> ArmsLearner:
    source = data.replay.source(data.streams, config.batch_size, config.discount)
    return ArmsLearner(config, source, data.arms, context, held_out=data.held_out)


def _in_bounds(real: Trajectories, synthetic: Trajectories) -> NDArray[np.float32]:
    """(N, T) 1 on the transitions of synthetic episodes that pass the report's distribution filter."""
    steps = synthetic.rewards.shape[1]
    passed = within_bounds(real.at_least(steps).z[:, 1:], synthetic.z[:, 1:])
    return np.repeat(passed[:, None], steps, 1).astype(np.float32)


STAGE = Stage("policy", ("arms", "policy", "replay"), ("encode", "trust"), ("policy",), work)


def run(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    return STAGE.run_alone(config, callbacks)
