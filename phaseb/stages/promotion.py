"""Decide which arm is shipped: by a test in physics, or without an environment by estimates.

Estimates are returns in generators where these predict held-out episodes, and off-policy evaluation elsewhere. Where
values cannot be learned, there is nothing to estimate: paired dev episodes decide, by the distance of the policies'
actions from the recorded ones.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.arms import CHOSEN, Arm
from phaseb.config.root import Config
from phaseb.episodes.streaming import lengths_of
from phaseb.pipeline.sizes import read_facts
from phaseb.pipeline.stage import StageContext
from phaseb.policy.behavior_metrics import episode_errors
from phaseb.policy.fqe import fitted_q_evaluation
from phaseb.policy.trained_policy import load_policy
from phaseb.promotion.contest import Contest
from phaseb.promotion.decision import Measure, decide, decide_by_error, decide_by_estimate
from phaseb.promotion.paired import ECONOMICS, Scale, scale_of
from phaseb.runtime.storage import Store
from phaseb.stages.arm_generator import choice_of
from phaseb.stages.held_out import Runs, errors_by_arm
from phaseb.stages.model_returns import begin_model_returns
from phaseb.stages.sample import fit_sample


def decide_in_physics(context: StageContext, measure: Measure) -> dict[str, Any]:
    """The decision by paired episodes, none of which evaluation reports."""
    config, store = context.config, context.store
    contest, refused = contest_of(config, store)
    seeds, scale = range(config.arms.num_seeds), recorded_scale(config, store)
    decision = decide(config.promotion, contest, config.valuation, measure, seeds, _num_train(store), scale, refused)
    return decision | {"candidate": decision["candidate"] or _first_candidate(config)}


def _first_candidate(config: Config) -> str:
    """The first trained candidate, which the report shows where none could be tested; empty where there is none."""
    trained = {arm.name for arm in config.arms.trained}
    return next((name for name in config.promotion.candidates if name in trained), "")


def values_known(store: Store) -> bool:
    """Whether the run's episodes have returns that differ."""
    facts = read_facts(store)
    return facts is None or facts.values_can_be_learned


def without_physics(context: StageContext, runs: Runs) -> tuple[dict[str, dict[int, dict[str, float]]], dict[str, Any]]:
    """What each policy would return, NaN where nothing says it, and the decision."""
    returns, decision = (by_estimate if values_known(context.store) else by_action_error)(context, runs)
    nothing = dict.fromkeys(("mpl", "error_rate", "energy_wh_per_unit", "net_value_per_hour"), float("nan"))
    measured: dict[str, dict[int, dict[str, float]]] = {}
    for (arm, seed), value in zip(runs, returns, strict=True):
        measured.setdefault(arm, {})[seed] = nothing | {"return": value, "num_episodes": 0.0}
    return measured, decision | {"candidate": decision["candidate"] or _first_candidate(context.config)}


def by_estimate(context: StageContext, runs: Runs) -> tuple[list[float], dict[str, Any]]:
    """Estimates of every policy, and the decision that follows from them.

    On dev and training episodes: twice the data tells policies apart better than data that none was trained on.
    """
    config, store = context.config, context.store
    recorded = fit_sample(config, store, "train", "dev")
    playing = begin_model_returns(config, store, runs, recorded)
    actors = [load_policy(store.folder("policy", arm, str(seed))) for arm, seed in runs]
    result = fitted_q_evaluation(config.evaluation.fqe, actors, recorded, config.run.seed)
    in_model = playing()
    method: Literal["fqe", "model"] = "fqe" if in_model.refused else "model"
    values, bias = (result.values, 0.0) if in_model.refused else (in_model.values, in_model.bias)
    contest, refused = contest_of(config, store)
    decision = decide_by_estimate(
        config.promotion,
        contest,
        *estimates_by_arm(values, result.support, runs),
        _num_train(store),
        recorded_scale(config, store),
        refused,
        method,
        bias,
    )
    estimates = {"fqe": _mean_by_arm(result.values, runs), "model": _mean_by_arm(in_model.values, runs)}
    return values.mean(1).tolist(), decision | {"estimates": estimates, "model_returns": in_model.to_json()}


def by_action_error(context: StageContext, runs: Runs) -> tuple[list[float], dict[str, Any]]:
    """The decision by the distance from recorded actions on dev episodes, paired by episode; no return is known."""
    config, store = context.config, context.store
    errors = {arm: episode_errors(own) for arm, own in errors_by_arm(config, store, runs, "dev").items()}
    contest, refused = contest_of(config, store)
    decision = decide_by_error(config.promotion, contest, errors, _num_train(store), refused)
    return [float("nan")] * len(runs), decision


def _mean_by_arm(values: NDArray[np.floating], runs: Runs) -> Mapping[str, float]:
    """Mean over seeds and estimators of values (P, M)."""
    return {
        arm: float(np.mean([v.mean() for v, run in zip(values, runs, strict=True) if run[0] == arm])) for arm, _ in runs
    }


def estimates_by_arm(
    values: NDArray[np.floating], support: NDArray[np.floating], runs: Runs
) -> tuple[dict[str, NDArray[np.floating]], dict[str, NDArray[np.floating]]]:
    """By arm, values (S, M) and support (S,) of its policies, out of (P, M) and (P,) in the order of `runs`."""
    places: dict[str, list[int]] = {}
    for i, (arm, _) in enumerate(runs):
        places.setdefault(arm, []).append(i)
    return (
        {arm: values[own] for arm, own in places.items()},
        {arm: support[own] for arm, own in places.items()},
    )


def contest_of(config: Config, store: Store) -> tuple[Contest, str]:
    """Who is compared, and why there is no candidate where there is none.

    A candidate that took nothing of the synthetic data is the same policy as its control: there is nothing to test.
    """
    trained = {arm.name: arm for arm in config.arms.trained}
    known = [trained[name] for name in config.promotion.candidates if name in trained]
    placebos = {arm.name: arm.placebo for arm in known if arm.placebo in trained}
    contest = Contest(tuple(arm.name for arm in known), config.arms.real_arms, placebos)
    alike = [arm for arm in known if _took_nothing(config, store, arm)]
    if not known:
        missing = " and ".join(config.promotion.candidates)
        if not values_known(store):
            return contest, f"values cannot be learned from these episodes, so {missing} was not trained"
        return contest, f"arms.names lacks {missing}"
    refused = "; ".join(took_nothing(arm) for arm in alike) if len(alike) == len(known) else ""
    choice = choice_of(store)
    if refused and any(arm.config.generator == CHOSEN for arm in alike) and choice.get("generator") is None:
        refused += f"; {choice['reason']}" if choice else ""
    return contest.without(*(arm.name for arm in alike)), refused


def took_nothing(arm: Arm) -> str:
    """What is said of an arm whose rollouts were all refused."""
    return f"{arm.name} took nothing of the synthetic data, and is the same policy as {arm.control} to the last bit"


def _took_nothing(config: Config, store: Store, arm: Arm) -> bool:
    """Whether all policies of an arm are those of its control."""
    control = next((one.name for one in config.arms.trained if one.name == arm.control), None)
    return control is not None and all(_same(store, arm.name, control, s) for s in range(config.arms.num_seeds))


def _same(store: Store, arm: str, control: str, seed: int) -> bool:
    one, other = (load_policy(store.folder("policy", name, str(seed))).state_dict() for name in (arm, control))
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
