"""Play policies in closed loop in physics and in every generator, and judge the generators as policies use them.

`closed_loop.json` holds by generator: judges at every rung, returns and event rates beside physics, the ranking of the
pool, branch tests. Without physics a cloned operator is compared with held-out recorded episodes. Policies that need no
generator are played as soon as they are trained (`closed_loop/baselines.json`), while the others still learn.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from phaseb.config.root import Config
from phaseb.dynamics.ranking import ranking
from phaseb.pipeline.stage import StageContext
from phaseb.runtime.ray_tasks import get_result
from phaseb.runtime.storage import Store
from phaseb.stages.arm_generator import generator_of
from phaseb.stages.branch_test import KINDS, branch_test
from phaseb.stages.closed_loop_plays import PHYSICS, held_out_windows, horizon_of, play_and_judge
from phaseb.stages.policy_pool import PoolPolicy, pool_of

BASELINES = ("closed_loop", "baselines.json")
"""File of the part of the pool that needs no generator."""


def execute_baselines(context: StageContext) -> dict[str, Any]:
    """Play and judge the policies that need no generator."""
    config, store = context.config, context.store
    pool = [policy for policy in pool_of(config) if _is_baseline(config, policy)]
    progress = _progress(context, 0, len(pool))
    store.write_json(play_and_judge(config, store, "baselines", pool, floors_of(config), progress), *BASELINES)
    return {"policies": len(pool)}


def execute(context: StageContext) -> dict[str, Any]:
    """Play and judge the other policies, branch, rank, and put all together."""
    config, store = context.config, context.store
    pool, physics = pool_of(config), config.environment.id != "none"
    rest = [policy for policy in pool if not _is_baseline(config, policy)]
    branch = ray.remote(num_cpus=config.resources.cpus_per_task)(branch_test)
    branching = {kind: branch.remote(config, store, kind, config.judged_generators) for kind in KINDS if physics}
    progress = _progress(context, len(pool) - len(rest), len(pool))
    parts = [store.read_json(*BASELINES), play_and_judge(config, store, "policy", rest, (), progress)]
    branches: dict[str, Any] = {kind: get_result(reference) for kind, reference in branching.items()}
    found = {name: _of_generator(config, store, name, parts, branches) for name in config.judged_generators}
    if not physics:
        recorded_returns = held_out_windows(config, store).rewards.sum(1, dtype=np.float64)
        for one in found.values():
            one |= return_error(recorded_returns, one)
    floors = parts[0]["floors"]
    report = {"physics": physics, "horizon": horizon_of(config), "floors": floors, "generators": found}
    store.write_json(report, "closed_loop.json")
    return {name: headline(one) for name, one in found.items()}


def _is_baseline(config: Config, policy: PoolPolicy) -> bool:
    return policy.kind != "trained" or policy.arm in config.arms.baselines


def _progress(context: StageContext, before: int, total: int) -> Any:
    """A listener that tells how many policies of the pool have been played, and how many comparisons judged."""
    return lambda played, judged: context.progress(
        {"policies": float(before + played), "of": float(total), "judged": float(judged)}
    )


def floors_of(config: Config) -> tuple[str, ...]:
    """Comparisons of physics with itself: other seeds, and where the environment can, sensor noise drawn again."""
    known = {"none": (), "workcell": ("seeds", "noise")}
    return known.get(config.environment.id, ("seeds",))


def _of_generator(
    config: Config, store: Store, name: str, parts: list[dict[str, Any]], branches: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that is known of one generator in closed loop, out of the parts of the pool."""
    failed = [part["failed"][name] for part in parts if name in part["failed"]]
    failed += [numbers[name]["failed"] for numbers in branches.values() if "failed" in numbers[name]]
    if failed:
        return {"failed": failed[0]}
    users = {arm.name for arm in config.arms.trained if generator_of(arm, store) == name}
    numbers = {policy: row for part in parts for policy, row in part["policies"][name].items()}
    rows = [
        {"policy": p.name, "arm": p.arm, "noise": p.noise, "trained_in": p.arm in users, **numbers[p.name]}
        for p in pool_of(config)
    ]
    found: dict[str, Any] = {"judges": _judges(config, name, parts), "policies": rows}
    found["branches"] = {kind: numbers[name] for kind, numbers in branches.items()}
    if all(PHYSICS in row for row in rows):
        estimated, true = (np.array([row[where]["return"] for row in rows]) for where in ("generator", PHYSICS))
        scale = max(float(np.abs(true).mean()), 1e-12)
        found["ranking"] = ranking(estimated, true) | {"num_policies": len(rows)}
        found["return_bias"] = float((estimated - true).mean() / scale)
        found["exploitability"] = {
            row["arm"]: row["generator"]["return"] - row[PHYSICS]["return"]
            for row in reversed(rows)
            if row["trained_in"] and not row["noise"]
        }
    return found


def _judges(config: Config, name: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The judges of a generator, by arm in the order of the pool."""
    known = {arm: judged for part in parts for arm, judged in part["judges"][name].items()}
    order = dict.fromkeys(policy.arm or policy.kind for policy in pool_of(config))
    return {arm: known[arm] for arm in order if arm in known}


def return_error(recorded_returns: NDArray[np.float64], found: Mapping[str, Any]) -> dict[str, float]:
    """How far returns in a generator may be off, by the clone's against those of the held-out episodes (N,).

    Returns:
        `return_error`: the difference of the means, and 1.96 standard errors of it. It holds for policies that act like
        the operators; others may be farther off. Nothing where the generator failed.
    """
    clone = next((row["generator"] for row in found.get("policies", ()) if row["policy"] == "clone"), None)
    if clone is None:
        return {}
    spread = float(np.hypot(recorded_returns.std() / np.sqrt(len(recorded_returns)), clone["return_se"]))
    return {"return_error": abs(clone["return"] - float(recorded_returns.mean())) + 1.96 * spread}


def headline(found: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a generator that the report shows first; the worst judge is that of the worst policy."""
    if "failed" in found:
        return {"failed": found["failed"]}
    numbers: dict[str, Any] = {}
    for steps in next(iter(found["judges"].values())) if found["judges"] else ():
        levels = [(arm, judged[steps]) for arm, judged in found["judges"].items()]
        for sigma in levels[0][1]:
            worst = max(level[sigma]["auc"] for _, level in levels)
            numbers[f"auc_{steps}_{sigma}"] = worst
    numbers |= {name: found[name] for name in ("return_bias", "return_error") if name in found}
    numbers |= {name: value for name, value in found.get("ranking", {}).items() if name != "num_policies"}
    for name in ("nrmse", "reward_nrmse", "coverage_50", "coverage_90"):
        values = [branch[name][-1] for branch in found["branches"].values()]
        if values:
            numbers[f"branch_{name}"] = float(np.nanmean(values))
    return numbers
