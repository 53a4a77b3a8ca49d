"""Play policies of the pool in physics and in every generator, and judge what the generators made of them.

Every play draws random numbers of its own, so that the result does not depend on who is played with whom.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
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
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.policy.closed_loop import play, to_trajectories
from phaseb.runtime.ray_tasks import results_of
from phaseb.runtime.seeding import derive_seed, torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.judge import NOISE_SIGMA, windows_of
from phaseb.stages.physics import Physics
from phaseb.stages.policy_pool import Maker, PolicyMaker, PoolPolicy
from phaseb.stages.sample import fit_sample
from phaseb.trust.ladder import Pairs, judge_rung
from phaseb.trust.two_sample import JudgeResult

FIRST_SEED = 3_000_000
"""Seed of the first episode in physics, apart from those of evaluation and promotion."""
PHYSICS = "physics"
POLICIES_IN_TASK = 6

Plays = dict[str, Trajectories | str]
"""Episodes of one policy, by `physics` or the generator's name; in place of them why there are none."""
Report = Callable[[int, int], None]
"""Told how many policies have been played, and how many comparisons judged."""


def play_and_judge(
    config: Config,
    store: Store,
    home: str,
    pool: Sequence[PoolPolicy],
    floors: Sequence[str],
    report: Report,
) -> dict[str, Any]:
    """Play a part of the pool and judge it; a few policies, or a judged arm, are a Ray task.

    Args:
        home: folder of the trained policies.
        pool: the part.
        floors: comparisons of physics with itself, for which the clone must be in the part.

    Returns:
        `judges` by generator and arm; `floors`; `policies` by generator and name: return and event rate in the
        generator and in physics; `failed`: why a generator gave no episodes of some policy.
    """
    task = functools.partial(ray.remote, num_cpus=config.resources.cpus_per_task)
    groups = [pool[first : first + POLICIES_IN_TASK] for first in range(0, len(pool), POLICIES_IN_TASK)]
    begin = [functools.partial(task()(play_policies).remote, config, store, home, group) for group in groups]
    begin += [functools.partial(task()(floor_plays).remote, config, store, home, kind) for kind in floors]
    num_played = num_judged = 0

    def on_played(place: int, made: Any) -> None:
        nonlocal num_played
        num_played += len(made) if place < len(groups) else 0
        report(num_played, num_judged)

    def on_judged(place: int, made: Any) -> None:
        nonlocal num_judged
        num_judged += 1
        report(num_played, num_judged)

    made = results_of(begin, config.resources.num_tasks, on_played)
    plays: dict[PoolPolicy, Plays] = {policy: own for part in made[: len(groups)] for policy, own in part.items()}
    asked = _judged(config, store, plays, dict(zip(floors, made[len(groups) :], strict=True)))
    judges = [functools.partial(task()(judge_arm).remote, config, *one) for one in asked.values()]
    judged = dict(zip(asked, results_of(judges, config.resources.num_tasks, on_judged), strict=True))
    return {
        "judges": {name: _of(judged, name) for name in config.judged_generators},
        "floors": _of(judged, PHYSICS),
        **_numbers(config, store, plays),
    }


def _of(judged: Mapping[tuple[str, str], Any], name: str) -> dict[str, Any]:
    return {arm: found for (where, arm), found in judged.items() if where == name}


def _numbers(config: Config, store: Store, plays: Mapping[PoolPolicy, Plays]) -> dict[str, Any]:
    """Returns and event rates of every policy, by generator, and why a generator has none."""
    events = EventDetector.fit(fit_sample(config, store, "train"))
    policies: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name in config.judged_generators:
        policies[name] = {policy.name: _row(name, own, events) for policy, own in plays.items()}
        reasons = [made for own in plays.values() if isinstance(made := own[name], str)]
        failed |= {name: reasons[0]} if reasons else {}
    return {"policies": policies, "failed": failed}


def horizon_of(config: Config) -> int:
    """Steps that policies are played for."""
    return min(config.synthesis.horizon, config.environment.max_steps)


def rungs_of(config: Config) -> tuple[int, ...]:
    """Steps at which the judges look: those of the ladder, the horizon of branched rollouts, and the whole."""
    whole = horizon_of(config)
    asked = {int(name) for name in config.judge.rungs if name.isdigit()} | {config.policy.augmentation.horizon}
    return (*sorted(steps for steps in asked if steps < whole), whole)


def play_policies(config: Config, store: Store, home: str, policies: Sequence[PoolPolicy]) -> dict[PoolPolicy, Plays]:
    """Play policies from the same starts in physics and in every generator."""
    torch.set_num_threads(1)
    make, plays = _maker(config, store, home), {policy: Plays() for policy in policies}
    if config.environment.id != "none":
        for policy, own in plays.items():
            own[PHYSICS] = _in_physics(config, store, make, policy, FIRST_SEED)
    held_out = held_out_windows(config, store) if config.environment.id == "none" else None
    for name in config.judged_generators:
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


def floor_plays(config: Config, store: Store, home: str, kind: str) -> Trajectories:
    """The clone in physics once more, from other seeds or through other sensor noise."""
    torch.set_num_threads(1)
    make, clone = _maker(config, store, home), PoolPolicy("clone")
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


def _maker(config: Config, store: Store, home: str) -> PolicyMaker:
    return PolicyMaker(
        store.folder(home), fit_sample(config, store, "train"), config.judge.clone_steps, config.run.seed
    )


Judged = tuple[str, Sequence[Trajectories], Sequence[Trajectories], bool]
"""What judges are given: see `judge_arm`."""


def _judged(
    config: Config, store: Store, plays: Mapping[PoolPolicy, Plays], floors: Mapping[str, Trajectories]
) -> dict[tuple[str, str], Judged]:
    """What is to be judged, by generator (or `physics`) and arm (or floor)."""
    asked: dict[tuple[str, str], Judged] = {}
    for kind, other in floors.items():
        real: Any = plays[PoolPolicy("clone")][PHYSICS]
        asked[PHYSICS, kind] = (kind, [real], [other], kind == "seeds")
    has_physics = config.environment.id != "none"
    held_out = [] if has_physics else [held_out_windows(config, store)]
    for name in config.judged_generators:
        for arm, members in _arms(plays).items():
            made: list[Any] = [plays[policy][name] for policy in members]
            truth: list[Any] = held_out or [plays[policy][PHYSICS] for policy in members]
            known = not any(isinstance(one, str) for one in made)
            if known and (has_physics or arm == "clone"):
                asked[name, arm] = (f"{name}/{arm}", truth, made, not has_physics)
    return asked


def _arms(plays: Mapping[PoolPolicy, Plays]) -> dict[str, list[PoolPolicy]]:
    """The clone, and each arm with its seeds."""
    arms: dict[str, list[PoolPolicy]] = {}
    for policy in plays:
        if not policy.noise and policy.kind != "random":
            arms.setdefault(policy.arm or policy.kind, []).append(policy)
    return arms


def judge_arm(
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


def _row(name: str, own: Plays, events: EventDetector) -> dict[str, Any]:
    """One policy's return and event rate in the generator, and in physics where there is any."""
    row: dict[str, Any] = {}
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
