"""Train the gate on other generators' rollouts, then trust, weigh and cut every synthetic transition."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from phaseb.config.root import Config
from phaseb.config.trust import TrustConfig
from phaseb.dynamics.protocol import load_generator
from phaseb.dynamics.statistics import within_bounds
from phaseb.episodes.shards import read_trajectories
from phaseb.episodes.streaming import batches, lengths_of, subsample
from phaseb.episodes.trajectories import Trajectories
from phaseb.episodes.windows import windows
from phaseb.nn.data_parallel import WorkerContext
from phaseb.pipeline.stage import StageContext
from phaseb.runtime.metrics import write_metrics
from phaseb.runtime.seeding import derive_seed, torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.latent_actions import latent_action_policy
from phaseb.stages.map_shards import map_stage_shards
from phaseb.stages.negatives import FOLDER
from phaseb.stages.reuse import take_trust
from phaseb.stages.sample import fit_sample
from phaseb.stages.splits import gate_episodes
from phaseb.stages.synthesize import made_generators, make_plan, roll_out
from phaseb.training.fit import fit
from phaseb.trust.gate import effective_contribution, pass_rate
from phaseb.trust.learner import TrustLearner, make_learner
from phaseb.trust.model import TrustModel

NUM_PASSING = 200
PASSING = (("pass_rate", "train", 1.0), ("pass_rate_held_out", "dev", 1.0), ("pass_rate_perturbed", "train", 0.0))


@dataclass(frozen=True)
class TrustData:
    """What the gate learns from."""

    real: Trajectories
    negatives: Trajectories


class ScoreShard:
    """Fills in trust and weights of one shard of rollouts; made once in each actor."""

    def __init__(self, store: Store, uncertainty_scale: float) -> None:
        self._bundle, self._scale = TrustModel.load(store), uncertainty_scale

    def __call__(self, made: Trajectories) -> Trajectories:
        return self._bundle.score(made, self._scale)


def execute(context: StageContext) -> dict[str, Any]:
    config, store = context.config, context.store
    latents = fit_sample(config, store, "train", "dev")
    train = windows(latents.split("train"), config.synthesis.horizon, config.run.seed)
    negatives = read_trajectories(store.folder(FOLDER))
    if config.reuse.trust:
        take_trust(config, store)
        bundle = TrustModel.load(store.folder("trust"))
    else:
        bundle = _trained(context, TrustData(gate_side(config, latents.split("train")), negatives))
    numbers: dict[str, Any] = _numbers(bundle, negatives, config)
    for name in made_generators(store, "rollouts/made", config.stored_generators):
        scale = load_generator(store.folder("dynamics", name)).uncertainty_scale
        map_stage_shards(
            context, f"rollouts/made/{name}", f"synthetic/{name}", ScoreShard, (store.folder("trust"), scale)
        )
        passed = synthetic_numbers(store, name, train, config) | pass_rates(bundle, store, name, latents, config)
        numbers[name] = passed
    return numbers


def gate_side(config: Config, train: Trajectories) -> Trajectories:
    """The gate's real side: windows of those training episodes that the discriminator did not see.

    There are no more of them than the pool of the gate's material may hold.
    """
    # Dealt before the short ones go: the critic's side was dealt out of all of them.
    own = windows(gate_episodes(config, train), config.synthesis.horizon, config.run.seed)
    return subsample(own, config.memory.gate_episodes, config.run.seed)


def _trained(context: StageContext, data: TrustData) -> TrustModel:
    config, store = context.config, context.store
    seed = derive_seed(config.run.seed, "trust")
    factory = functools.partial(_make_learner, config.trust)
    result = fit(
        factory,
        data,
        seed=seed,
        key=context.key,
        store=store.folder("trust", "progress"),
        training=config.training,
        resources=config.resources,
        name="trust",
        on_progress=context.progress,
    )
    learner = factory(data, WorkerContext(seed))
    learner.load_state_dict(result.state)
    bundle = learner.bundle()
    bundle.save(store.folder("trust"))
    store.write_json(bundle.analysis, "trust", "analysis.json")
    write_metrics(store.folder("trust"), "metrics.parquet", result.rows)
    return bundle


def pass_rates(bundle: TrustModel, store: Store, name: str, latents: Trajectories, config: Config) -> dict[str, float]:
    """Share of NUM_PASSING rollouts that the gate passes: from training starts, as the synthetic data have them.

    Beside it the same from held-out (dev) starts, and under perturbed actions: those are nobody's answers to what
    happens, which a gate that has seen answers alone notices, whatever the model.
    """
    model = load_generator(store.folder("dynamics", name))
    seed = derive_seed(config.run.seed, "pass_rate")
    rates = {}
    for rate, split, recorded in PASSING:
        real = latents.split(split)
        if len(real.at_least(config.synthesis.horizon)) == 0:
            continue
        wanted = config.synthesis.model_copy(update={"num_episodes": NUM_PASSING})
        codes = latent_action_policy(store, torch_generator(seed, rate, "codes"))
        made = roll_out(model, make_plan(real, wanted, seed, recorded=recorded), "", torch_generator(seed, rate), codes)
        rates[rate] = pass_rate(bundle.levels(made).fused, bundle.thresholds.passing)
    return rates


def _make_learner(config: TrustConfig, data: TrustData, context: WorkerContext) -> TrustLearner:
    return make_learner(config, data.real, data.negatives, context)


def _numbers(bundle: TrustModel, negatives: Trajectories, config: Config) -> dict[str, Any]:
    analysis, passing = bundle.analysis, bundle.thresholds.passing
    report = bundle.score(negatives.select([m == f"report-{config.negatives.num_steps}" for m in _models(negatives)]))
    assert report.episode_trust is not None
    return {
        "roc_auc": analysis["roc_auc"],
        "val_accuracy": analysis["val_accuracy"],
        "ece": analysis["ece"]["fused"],
        "ece_transition": analysis["ece"]["transition"],
        "trust_gap": analysis["trust_gap"],
        "report_model_fail_rate": 1 - pass_rate(report.episode_trust, passing),
    }


def synthetic_numbers(store: Store, name: str, train: Trajectories, config: Config) -> dict[str, float]:
    """What the gate left of all rollouts, which pass batch by batch.

    Args:
        name: of the generator.
        train: real episodes (a sample of them) that bounds are taken from.
    """
    folder, horizon = store.folder("synthetic", name), config.synthesis.horizon
    total, recorded = len(lengths_of(folder)), lengths_of(store.folder("latents"), ("train",))
    passed, weight = 0, 0.0
    for made in batches(folder):
        assert made.weights is not None
        passed += int(within_bounds(train.z[: min(len(train), total), 1:], made.z[:, 1:]).sum())
        weight += float(np.sum(made.weights[made.mask]))
    num_real = len(recorded[recorded >= horizon]) * horizon
    contribution = effective_contribution(np.array([weight]), num_real)
    return {"bounds_pass_synthetic": passed / total, "effective_contribution": contribution}


def _models(made: Trajectories) -> tuple[str, ...]:
    return made.lineage["model"]
