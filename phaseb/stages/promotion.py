"""Decide which arm is shipped: by a test in physics where there is an environment, by off-policy evaluation else."""

from collections.abc import Sequence
from typing import Any

import torch

from phaseb.config.evaluation import PromotionConfig
from phaseb.config.root import Config
from phaseb.episodes.streaming import lengths_of
from phaseb.pipeline.sizes import read_facts
from phaseb.pipeline.stage import StageContext
from phaseb.policy.actor import Actor
from phaseb.policy.fqe import FqeResult, fitted_q_evaluation
from phaseb.promotion.decision import Estimate, Measure, decide, decide_by_estimate, decide_without_candidate
from phaseb.promotion.paired import ECONOMICS, Scale, scale_of
from phaseb.runtime.storage import Store
from phaseb.stages.sample import fit_sample

Runs = Sequence[tuple[str, int]]
NO_VALUES = "no recorded return differs from another, so values cannot be learned and arms cannot be compared"


def decide_in_physics(context: StageContext, measure: Measure) -> dict[str, Any]:
    """The decision by paired episodes, none of which evaluation reports."""
    config, num_train = context.config, _num_train(context.store)
    if refused := _nothing_to_test(config.promotion, config, context.store):
        return decide_without_candidate(config.promotion, refused, num_train)
    scale = recorded_scale(config, context.store)
    return decide(config.promotion, config.valuation, measure, range(config.arms.num_seeds), num_train, scale)


def by_estimate(context: StageContext, runs: Runs) -> tuple[dict[str, dict[int, dict[str, float]]], dict[str, Any]]:
    """Fitted Q evaluation of every policy, and the decision that follows from it.

    On dev and training episodes: twice the data tells policies apart better than data that none was trained on.
    """
    config, store = context.config, context.store
    recorded, facts = fit_sample(config, store, "train", "dev"), read_facts(store)
    known = facts is None or facts.values_can_be_learned
    actors = [Actor.load(store.folder("policy", arm, str(seed))) for arm, seed in runs]
    result = fitted_q_evaluation(config.evaluation.fqe, actors, recorded, config.run.seed)
    measured: dict[str, dict[int, dict[str, float]]] = {}
    for i, (arm, seed) in enumerate(runs):
        nothing = dict.fromkeys(("mpl", "error_rate", "energy_wh_per_unit", "net_value_per_hour"), float("nan"))
        value = result.interval(i)[0] if known else float("nan")
        measured.setdefault(arm, {})[seed] = nothing | {"return": value, "num_episodes": 0.0}
    num_train = _num_train(store)
    if refused := ("" if known else NO_VALUES) or _nothing_to_test(config.promotion, config, store):
        return measured, decide_without_candidate(config.promotion, refused, num_train)
    estimates = []
    for seed in range(config.arms.num_seeds):
        old, new = (runs.index((arm, seed)) for arm in (config.promotion.baseline, config.promotion.candidate))
        estimates.append(estimate_of(result, old, new, seed))
    return measured, decide_by_estimate(config.promotion, estimates, num_train, recorded_scale(config, store))


def estimate_of(result: FqeResult, baseline: int, candidate: int, seed: int = 0) -> Estimate:
    """What fitted Q evaluation says of one policy against another, by their places in the result."""
    old, new = result.values[baseline], result.values[candidate]
    departure = float(result.support[candidate] / max(result.support[baseline], 1e-6))
    return Estimate(seed, float(old.mean()), tuple((new - old).tolist()), departure)


def _nothing_to_test(promotion: PromotionConfig, config: Config, store: Store) -> str:
    """Why there is nothing to test, or an empty text."""
    missing = [arm for arm in (promotion.baseline, promotion.candidate) if arm not in config.arms.names]
    if missing:
        return f"arms.names lacks {' and '.join(missing)}"
    if all(_same(store, promotion, seed) for seed in range(config.arms.num_seeds)):
        return f"{promotion.candidate} took nothing of the synthetic data, and is the same policy to the last bit"
    return ""


def _same(store: Store, promotion: PromotionConfig, seed: int) -> bool:
    one, other = (Actor.load(store.folder("policy", arm, str(seed))).state_dict()
                  for arm in (promotion.baseline, promotion.candidate))  # fmt: skip
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def recorded_scale(config: Config, store: Store) -> Scale:
    """What the training episodes earned or lost, one by one."""
    real = fit_sample(config, store, "train")
    returns = {"return": real.rewards.sum(1).astype(float)}
    columns = {name: values for name, values in real.metrics.items() if name in ECONOMICS} | returns
    rows = [{name: float(values[i]) for name, values in columns.items()} for i in range(len(real))]
    return scale_of(rows, config.valuation)


def _num_train(store: Store) -> int:
    return len(lengths_of(store.folder("latents"), ("train",)))
