"""Play policies in closed loop in physics and in every generator, and judge the generators as policies use them.

`closed_loop.json` holds by generator: judges at every rung, returns and event rates beside physics, the ranking of the
pool, branch tests. Without physics a cloned operator is compared with held-out recorded episodes.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from phaseb.config.root import Config
from phaseb.config.trust import JudgeConfig
from phaseb.dynamics.events import EventDetector
from phaseb.dynamics.evidence import divergence
from phaseb.dynamics.protocol import DynamicsModel, load_generator
from phaseb.dynamics.ranking import ranking
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.pipeline.stage import StageContext
from phaseb.policy.closed_loop import play, to_trajectories
from phaseb.runtime.ray_tasks import get_result
from phaseb.runtime.seeding import derive_seed, torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.arm_generator import generator_of
from phaseb.stages.branch_test import KINDS, branch_test
from phaseb.stages.judge import NOISE_SIGMA, windows_of
from phaseb.stages.physics import Physics
from phaseb.stages.policy_pool import Maker, PolicyMaker, PoolPolicy, pool_of
from phaseb.stages.sample import fit_sample
from phaseb.trust.ladder import Pairs, judge_rung
from phaseb.trust.two_sample import JudgeResult

FIRST_SEED = 3_000_000
"""Seed of the first episode in physics, apart from those of evaluation and promotion."""
PHYSICS = "physics"
POLICIES_IN_TASK = 6

Plays = dict[str, Trajectories | str]
"""Episodes of one policy, by `physics` or the generator's name; in place of them why there are none."""


def execute(context: StageContext) -> dict[str, Any]:
    """Play, judge, rank and branch; a few policies, or a kind of branches, are a Ray task."""
    config, store = context.config, context.store
    task = functools.partial(ray.remote, num_cpus=config.resources.cpus_per_task)
    pool, physics = pool_of(config), config.environment.id != "none"
    groups = [pool[first : first + POLICIES_IN_TASK] for first in range(0, len(pool), POLICIES_IN_TASK)]
    waiting = [task()(play_policies).remote(config, store, group) for group in groups]
    branching = {kind: task()(branch_test).remote(config, store, kind, _names(config)) for kind in KINDS if physics}
    floors = {kind: task()(floor_plays).remote(config, store, kind) for kind in floors_of(config)}
    plays: dict[PoolPolicy, Plays] = {}
    for reference in waiting:
        plays |= get_result(reference)
        context.progress({"policies": float(len(plays)), "of": float(len(pool))})
    judging = _judged(config, store, plays, {kind: get_result(found) for kind, found in floors.items()}, task()(_judge))
    branches: dict[str, Any] = {kind: get_result(reference) for kind, reference in branching.items()}
    found = {
        name: _of_generator(config, store, name, plays, branches, {k: get_result(r) for k, r in refs.items()})
        for name, refs in judging.items()
        if name != PHYSICS
    }
    if not physics:
        recorded_returns = held_out_windows(config, store).rewards.sum(1, dtype=np.float64)
        for one in found.values():
            one |= return_error(recorded_returns, one)
    floor = {kind: get_result(reference) for kind, reference in judging.get(PHYSICS, {}).items()}
    report = {"physics": physics, "horizon": horizon_of(config), "floors": floor, "generators": found}
    store.write_json(report, "closed_loop.json")
    return {name: headline(one) for name, one in found.items()}


def horizon_of(config: Config) -> int:
    """Steps that policies are played for."""
    return min(config.synthesis.horizon, config.environment.max_steps)


def rungs_of(config: Config) -> tuple[int, ...]:
    """Steps at which the judges look: those of the ladder, the horizon of branched rollouts, and the whole."""
    whole = horizon_of(config)
    asked = {int(name) for name in config.judge.rungs if name.isdigit()} | {config.policy.augmentation.horizon}
    return (*sorted(steps for steps in asked if steps < whole), whole)


def floors_of(config: Config) -> tuple[str, ...]:
    """Comparisons of physics with itself: other seeds, and where the environment can, sensor noise drawn again."""
    known = {"none": (), "workcell": ("seeds", "noise")}
    return known.get(config.environment.id, ("seeds",))


def play_policies(config: Config, store: Store, policies: Sequence[PoolPolicy]) -> dict[PoolPolicy, Plays]:
    """Play policies from the same starts in physics and in every generator."""
    torch.set_num_threads(1)
    make, plays = _maker(config, store), {policy: Plays() for policy in policies}
    if config.environment.id != "none":
        for policy, own in plays.items():
            own[PHYSICS] = _in_physics(config, store, make, policy, FIRST_SEED)
    held_out = held_out_windows(config, store) if config.environment.id == "none" else None
    for name in _names(config):
        model = load_generator(store.folder("dynamics", name))
        for policy, own in plays.items():
            real = own.get(PHYSICS, held_out)
            assert isinstance(real, Trajectories)
            own[name] = play_in_generator(model, real.z[:, 0], make, policy, horizon_of(config), config.run.seed)
    return plays


def play_in_generator(
    model: DynamicsModel, starts: NDArray[np.float32], make: Maker, policy: PoolPolicy, horizon: int, seed: int
) -> Trajectories | str:
    """Episodes of a policy in a generator from latents (N, D), or why there are none."""
    act = make(policy, model.name)

    def driven(z: torch.Tensor, step: int) -> torch.Tensor:
        return torch.from_numpy(act(z.detach().cpu().numpy(), step)).to(z)

    try:
        made = model.rollout(torch.from_numpy(starts), driven, horizon, torch_generator(seed, "closed loop"))
    except DataError as error:
        return str(error)
    z, actions, rewards, ends = (x.detach().cpu().numpy() for x in (made.z, made.actions, made.rewards, made.terminals))
    if diverged := divergence(z, rewards):
        return diverged
    return to_trajectories(z, actions, rewards, ends, made.lengths)


def floor_plays(config: Config, store: Store, kind: str) -> Trajectories:
    """The clone in physics once more, from other seeds or through other sensor noise."""
    torch.set_num_threads(1)
    make, clone = _maker(config, store), PoolPolicy("clone")
    if kind == "seeds":
        return _in_physics(config, store, make, clone, FIRST_SEED + config.closed_loop.num_episodes)
    return _in_physics(config, store, make, clone, FIRST_SEED, renoised=True)


def _in_physics(
    config: Config, store: Store, make: Maker, policy: PoolPolicy, first: int, renoised: bool = False
) -> Trajectories:
    seeds = list(range(first, first + config.closed_loop.num_episodes))
    noise = [seed + 1_000_000 for seed in seeds] if renoised else None
    with Physics(config, store, len(seeds)) as physics:
        return play(
            make(policy, PHYSICS),
            physics.encoder,
            physics.environment,
            seeds,
            horizon_of(config),
            physics.denormalise,
            config.evaluation.step_limit_s,
            noise,
        )


def held_out_windows(config: Config, store: Store) -> Trajectories:
    """Windows of the sealed test episodes, as long as policies are played."""
    test = fit_sample(config, store, "test")
    fitted = config.model_copy(
        update={"synthesis": config.synthesis.model_copy(update={"horizon": horizon_of(config)})}
    )
    return windows_of(fitted, test.lengths).cut(test)


def _maker(config: Config, store: Store) -> PolicyMaker:
    return PolicyMaker(store, fit_sample(config, store, "train"), config.judge.clone_steps, config.run.seed)


def _names(config: Config) -> tuple[str, ...]:
    return config.judged_generators


def _judged(
    config: Config, store: Store, plays: Mapping[PoolPolicy, Plays], floors: Mapping[str, Trajectories], task: Any
) -> dict[str, dict[str, Any]]:
    """Judges at work, by generator (or `physics`) and by arm (or floor)."""
    clone = PoolPolicy("clone")
    waiting: dict[str, dict[str, Any]] = {PHYSICS: {}}
    real = plays[clone].get(PHYSICS, None)
    held_out = [held_out_windows(config, store)] if real is None else []
    for kind, other in floors.items():
        waiting[PHYSICS][kind] = task.remote(config, kind, [real], [other], kind == "seeds")
    for name in _names(config):
        waiting[name] = {}
        for arm, members in _arms(plays).items():
            made = [plays[policy][name] for policy in members]
            truth: list[Any] = list(held_out) or [plays[policy][PHYSICS] for policy in members]
            known = not any(isinstance(one, str) for one in made)
            if known and (real is not None or arm == "clone"):
                waiting[name][arm] = task.remote(config, f"{name}/{arm}", truth, made, real is None)
    return waiting


def _arms(plays: Mapping[PoolPolicy, Plays]) -> dict[str, list[PoolPolicy]]:
    """The clone, and each arm with its seeds."""
    arms: dict[str, list[PoolPolicy]] = {}
    for policy in plays:
        if not policy.noise and policy.kind != "random":
            arms.setdefault(policy.arm or policy.kind, []).append(policy)
    return arms


def _judge(
    config: Config, name: str, real: Sequence[Trajectories], made: Sequence[Trajectories], blind: bool
) -> dict[str, Any]:
    """Fresh judges of episodes (N, T) against episodes of the same starts, at every rung.

    Args:
        name: of the comparison: it draws the judges' random numbers.
        real, made: of each seed of an arm.
        blind: show no actions: they are not of the same policy, or not from the same starts.
    """
    torch.set_num_threads(1)
    results = {}
    for steps in rungs_of(config):
        z, other = (np.concatenate([one.z[:, : steps + 1] for one in side]) for side in (real, made))
        actions, others = (np.concatenate([one.actions[:, :steps] for one in side]) for side in (real, made))
        if blind:
            actions = others = np.zeros_like(actions)
        groups = np.concatenate([np.arange(len(one)) for one in real])
        pairs = Pairs(z, other, actions, others, groups)
        found = judge_rung(name, pairs, _judge_config(config, groups), derive_seed(config.run.seed, "closed loop"))
        results[str(steps)] = found
    return {steps: _summary(found) for steps, found in results.items()}


def _judge_config(config: Config, groups: NDArray[np.integer]) -> JudgeConfig:
    """Judges without noise and at the noise that headlines have, in folds that the starts allow."""
    own = config.judge
    noise = NOISE_SIGMA if NOISE_SIGMA in own.sigmas else own.sigmas[-1]
    folds = max(2, min(own.num_folds, len(np.unique(groups)) // 2))
    sigmas = tuple(dict.fromkeys((own.sigmas[0], noise)))
    return own.model_copy(update={"sigmas": sigmas, "num_folds": folds, "num_pairs": len(groups)})


def _summary(found: JudgeResult) -> dict[str, dict[str, Any]]:
    """By noise level: the worst judge, its interval, and what chance reaches."""
    told = {}
    for sigma, null in found.null_95.items():
        worst = found.worst(sigma)
        told[f"{sigma:g}"] = {
            "auc": worst.auc,
            "low": worst.low,
            "high": worst.high,
            "family": worst.family,
            "null_95": null,
        }
    return told


def _of_generator(
    config: Config,
    store: Store,
    name: str,
    plays: Mapping[PoolPolicy, Plays],
    branches: Mapping[str, Any],
    judges: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that is known of one generator in closed loop."""
    failed = [made for own in plays.values() if isinstance(made := own[name], str)]
    failed += [numbers[name]["failed"] for numbers in branches.values() if "failed" in numbers[name]]
    if failed:
        return {"failed": failed[0]}
    events = EventDetector.fit(fit_sample(config, store, "train"))
    users = {arm.name for arm in config.arms.trained if generator_of(arm, store) == name}
    rows = [_row(name, policy, own, events, policy.arm in users) for policy, own in plays.items()]
    found: dict[str, Any] = {"judges": dict(judges), "policies": rows}
    found["branches"] = {kind: numbers[name] for kind, numbers in branches.items()}
    if all("physics" in row for row in rows):
        estimated, true = (np.array([row[where]["return"] for row in rows]) for where in ("generator", "physics"))
        scale = max(float(np.abs(true).mean()), 1e-12)
        found["ranking"] = ranking(estimated, true) | {"num_policies": len(rows)}
        found["return_bias"] = float((estimated - true).mean() / scale)
        found["exploitability"] = {
            row["arm"]: row["generator"]["return"] - row["physics"]["return"]
            for row in reversed(rows)
            if row["trained_in"] and not row["noise"]
        }
    return found


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


def _row(name: str, policy: PoolPolicy, own: Plays, events: EventDetector, user: bool) -> dict[str, Any]:
    """One policy's return and event rate in the generator, and in physics where there is any."""
    row: dict[str, Any] = {"policy": policy.name, "arm": policy.arm, "noise": policy.noise, "trained_in": user}
    for where in ("generator", PHYSICS):
        played = own.get(name if where == "generator" else PHYSICS)
        if isinstance(played, Trajectories):
            returns, inside = played.rewards.sum(1, dtype=np.float64), played.mask
            row[where] = {
                "return": float(returns.mean()),
                "return_se": float(returns.std() / np.sqrt(len(returns))),
                "steps": float(played.lengths.mean()),
                "events_per_step": float(events(played.z, played.terminals)[inside].mean()),
            }
    return row


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
