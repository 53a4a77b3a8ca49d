"""Ask fresh classifiers, on the sealed test episodes, whether rollouts can be told from what really happened."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from phaseb.config.root import Config
from phaseb.config.trust import JudgeConfig
from phaseb.dynamics.protocol import DynamicsModel, load_generator
from phaseb.dynamics.rollout import Policy, Rollout
from phaseb.dynamics.statistics import (
    break_even_horizon,
    latent_statistics,
    nearest_distance,
    open_loop_rmse,
    survival,
    uncertainty_correlation,
)
from phaseb.episodes.actions import read_action_scale
from phaseb.episodes.episode import Episode
from phaseb.episodes.shards import iter_episodes
from phaseb.episodes.streaming import sample_trajectories
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.latents.model import EncoderModel
from phaseb.pipeline.result import Report
from phaseb.pipeline.stage import StageContext
from phaseb.policy.cloning import clone_operator
from phaseb.runtime.checkpoint import checkpoint_digest
from phaseb.runtime.ray_tasks import get_result
from phaseb.runtime.seeding import torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.latent_actions import latent_action_policy, latent_actions
from phaseb.stages.synthesize import rollout_failure
from phaseb.trust.ladder import Ladder, Pairs, floor_pairs, judge_rung, open_loop_pairs, summarise
from phaseb.trust.two_sample import JudgeResult
from phaseb.trust.windows import MIN_UNITS, WindowPlan, plan_windows

NOISE_SIGMA = 0.2
"""The noise level that judge_auc_noise is reported at; the last of judge.sigmas where it is not among them."""

Floats = NDArray[np.floating]


Begin = Callable[[str, Pairs, JudgeConfig, int], Callable[[], JudgeResult]]
"""Begins to judge a rung; the returned function waits for the result."""


def execute(context: StageContext) -> dict[str, Any]:
    """Judge every generator the way it is used, every rung in a Ray task of its own.

    `judges.json` holds by generator: the ladder of stored rollouts, and under `branched` the judges of branched ones.
    A generator that no arm uses, and that `judge.generators` asks for, is judged both ways. One whose rollouts diverge
    has `failed` instead, with the reason.

    Raises:
        DataError: where there are too few sealed test episodes.
    """
    found = _judged(context.config, context.store, functools.partial(_begin, context.config), context.progress)
    context.store.write_json(found, "judges.json")
    return {name: _headline(of_generator) for name, of_generator in found.items()}


def _headline(found: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a generator, at the way that it is used; of stored rollouts where it is used both ways."""
    if "failed" in found:
        return {"failed": found["failed"]}
    return dict(found["numbers"] if "numbers" in found else found["branched"]["numbers"])


def _judged(config: Config, store: Store, begin: Begin, progress: Report) -> dict[str, Any]:
    seed = config.run.seed
    most = max(config.memory.fit_episodes, config.judge.num_pairs)
    latents = sample_trajectories(store.folder("latents"), ("train", "test"), most, seed)
    whole, train = latents.split("test"), latents.split("train")
    plan = windows_of(config, whole.lengths)
    test, judge_config = plan.cut(whole), _rungs_of(config.judge, plan)
    rungs = _encoder_rungs(config, store, whole.ids, plan, test)
    rungs = {name: pairs for name, pairs in rungs.items() if name in judge_config.rungs}
    floors = {name: begin(name, pairs, judge_config, seed) for name, pairs in rungs.items()}
    train_windows = plan_windows(train.lengths, plan.steps, config.judge.num_folds, most).cut(train)
    found: dict[str, Any] = {}
    for name in config.judged_generators:
        model = load_generator(store.folder("dynamics", name))
        used = name in (*config.stored_generators, *config.branched_generators)
        found[name] = {"digest": checkpoint_digest(store.folder("dynamics", name))}
        if reason := rollout_failure(model, test, config.synthesis.horizon, seed):
            found[name]["failed"] = reason
            continue
        if name in config.stored_generators or not used:
            found[name] |= _stored(config, store, model, train_windows, test, plan, floors, begin)
        if name in config.branched_generators or not used:
            found[name]["branched"] = _branched(config, store, model, train, test, plan, begin)
        progress({"rungs": float(len(found)), "of": float(len(config.judged_generators))})
    return found


def _stored(
    config: Config,
    store: Store,
    model: DynamicsModel,
    train: Trajectories,
    test: Trajectories,
    plan: WindowPlan,
    floors: Mapping[str, Callable[[], JudgeResult]],
    begin: Begin,
) -> dict[str, Any]:
    """The ladder of stored rollouts on windows of the test episodes, and their statistics."""
    horizon, seed = config.synthesis.horizon, config.run.seed
    codes = latent_action_policy(store, torch_generator(seed, "judge", "codes"))
    judge_config = _rungs_of(config.judge, plan)
    rungs = model_rungs(model, test, judge_config, horizon, seed, codes, plan.groups)
    waiting = dict(floors) | {n: begin(n, pairs, judge_config, seed) for n, pairs in rungs.items()}
    numbers = open_loop_numbers(model, test, train, horizon, seed, codes)  # meanwhile
    results = {name: waiting[name]() for name in judge_config.rungs if name in waiting}
    ladder = summarise(results, judge_config)
    return {
        "numbers": _auc(ladder.results[str(horizon)], judge_config) | numbers["numbers"],
        "ladder": _told(ladder, plan),
        "num_pairs": len(test),
        "windows": plan.to_json(),
        "horizon": horizon,
        "rmse_by_step": numbers["rmse_by_step"],
        "survival": numbers["survival"],
    }


def _branched(
    config: Config,
    store: Store,
    model: DynamicsModel,
    train: Trajectories,
    test: Trajectories,
    plan: WindowPlan,
    begin: Begin,
) -> dict[str, Any]:
    """Judges of short rollouts from held-out states, against recorded segments of the same length.

    `cloned`: a cloned operator acts on what the generator answers; the judges see latents alone, for a clone acts
    otherwise than its operators. `recorded`: under the recorded actions, which the judges see; left out where actions
    are latent, for those were recovered from what followed.

    Args:
        train: whole training episodes.
        test: windows of the test episodes, as `plan` cuts them.
    """
    judge_config, seed = _rungs_of(config.judge, plan), config.run.seed
    horizon = min(config.policy.augmentation.horizon, int(test.lengths.max()))
    clone = clone_operator(train.z[:, :-1][train.mask], train.actions[train.mask], config.judge.clone_steps, seed)

    def under_clone(start: Floats, actions: Floats) -> Floats:
        draws = torch_generator(seed, "judge", "clone")
        made = _rollout(model, start, lambda z, t: clone.sample(z.cpu(), draws), horizon, seed)
        return made.z.cpu().numpy()

    def under_recorded(start: Floats, actions: Floats) -> Floats:
        return _rollout(model, start, torch.from_numpy(actions), horizon, seed).z.cpu().numpy()

    rungs = {"cloned": (np.zeros_like(test.actions), under_clone), "recorded": (test.actions, under_recorded)}
    if latent_actions(store) is not None:
        del rungs["recorded"]
    waiting = {
        name: begin(
            name,
            open_loop_pairs(test.z, shown, test.lengths, horizon, roll, judge_config, seed, plan.groups),
            judge_config,
            seed,
        )
        for name, (shown, roll) in rungs.items()
    }
    results = {name: wait() for name, wait in waiting.items()}
    return {
        "numbers": _auc(results["cloned"], judge_config),
        "horizon": horizon,
        "results": {name: result.as_dict() for name, result in results.items()},
    }


def _rollout(model: DynamicsModel, start: Floats, actions: torch.Tensor | Policy, horizon: int, seed: int) -> Rollout:
    """Rollouts that read no action ahead."""
    blind = torch.zeros(len(start), dtype=torch.bool)
    return model.rollout(torch.from_numpy(start), actions, horizon, torch_generator(seed, "judge", "branched"), blind)


def _auc(result: JudgeResult, config: JudgeConfig) -> dict[str, Any]:
    """The worst judge's AUC, without noise and with."""
    sigmas = config.sigmas
    noise = NOISE_SIGMA if NOISE_SIGMA in sigmas else sigmas[-1]
    worst = result.worst(sigmas[0])
    return {
        "judge_auc": worst.auc,
        "judge_auc_noise": result.worst(noise).auc,
        "judge_family": worst.family,
        "judge_null_95": result.null_95[sigmas[0]],
        "judge_noise_sigma": noise,
    }


def windows_of(config: Config, lengths: NDArray[np.integer]) -> WindowPlan:
    """The windows of the sealed test episodes, of these lengths, that are judged.

    Raises:
        DataError: where there are too few.
    """
    plan = plan_windows(lengths, config.synthesis.horizon, config.judge.num_folds, config.judge.num_pairs)
    if plan.num_units < MIN_UNITS:
        raise DataError(
            f"the sealed test has {plan.num_units} windows of synthesis.horizon={plan.steps} steps, {MIN_UNITS} are "
            "needed to judge; lower synthesis.horizon, raise episodes.test_fraction or episodes.num_test, or give more "
            "episodes"
        )
    return plan


def model_rungs(
    bundle: DynamicsModel,
    test: Trajectories,
    config: JudgeConfig,
    horizon: int,
    seed: int,
    codes: Policy | None = None,
    groups: NDArray[np.integer] | None = None,
) -> dict[str, Pairs]:
    """The rungs that ask about a generator: one step along real latents, then open-loop segments.

    Where actions are latent, segments are rolled out under `codes`, and shown without actions: recovered ones have
    seen the future.
    """
    rungs = {}
    if "one_step" in config.rungs:
        member = 0 if bundle.num_members > 1 else None
        one = bundle.teacher_forced(torch.from_numpy(test.z), torch.from_numpy(test.actions), member).cpu().numpy()
        rungs["one_step"] = Pairs(test.z, np.concatenate([test.z[:, :1], one], 1), test.actions, groups=groups)

    def roll(start: Floats, actions: Floats) -> Floats:
        generator = torch_generator(seed, "judge", str(actions.shape[1]))
        taken = codes or torch.from_numpy(actions)
        rolled = bundle.rollout(torch.from_numpy(start), taken, actions.shape[1], generator)
        return rolled.z.cpu().numpy()

    shown = test.actions if codes is None else np.zeros_like(test.actions)
    for steps in sorted(int(name) for name in config.rungs if name.isdigit() and int(name) <= horizon):
        rungs[str(steps)] = open_loop_pairs(test.z, shown, test.lengths, steps, roll, config, seed, groups)
    return rungs


def open_loop_numbers(
    bundle: DynamicsModel, test: Trajectories, train: Trajectories, horizon: int, seed: int, codes: Policy | None = None
) -> dict[str, Any]:
    """Statistics of full-horizon rollouts on windows of the test episodes, and whether the model memorised its
    training, of which `train` are windows."""
    start, actions = torch.from_numpy(test.z[:, 0]), torch.from_numpy(test.actions)
    rollout = bundle.rollout(start, codes or actions, horizon, torch_generator(seed, "judge", str(horizon)))
    made, mean = rollout.z.cpu().numpy()[:, 1:], bundle.mean_rollout(start, actions).cpu().numpy()[:, 1:]
    real, trained = test.z[:, 1:], train.z[:, 1:]
    rmse = open_loop_rmse(real, mean)
    numbers = latent_statistics(real, made) | {
        "rmse": float(rmse[-1]),
        "break_even_horizon": break_even_horizon(test.z[:, 0], real, mean),
        "uncertainty_correlation": uncertainty_correlation(rollout.uncertainty.cpu().numpy(), real, mean),
        "nearest_training_real": float(np.median(nearest_distance(real, trained))),
        "nearest_training_synthetic": float(np.median(nearest_distance(made, trained))),
    }
    return {"numbers": numbers, "rmse_by_step": rmse.tolist(), "survival": survival(real, mean).tolist()}


def _encoder_rungs(
    config: Config, store: Store, ids: Sequence[str], plan: WindowPlan, test: Trajectories
) -> dict[str, Pairs]:
    """The floors and the encoder's own rung: the simulator against itself, real against real, encode and decode."""
    rungs = {"real": floor_pairs(test.z, test.actions, config.run.seed, plan.groups)} if plan.floor else {}
    bundle = EncoderModel.load(store.folder("encoder"))
    chosen, rows = np.unique(plan.rows, return_inverse=True)
    names = [ids[i] for i in chosen]
    episodes = {e.id: e for e in iter_episodes(store.folder("episodes"), ("test",)) if e.id in set(names)}
    ordered, own = [episodes[name] for name in names], replace(plan, rows=rows)
    again, scale = _repeated(ordered, config), read_action_scale(store)

    def paired(other: Sequence[Episode]) -> Pairs:
        encoded = bundle.encode(other, scale, config.run.seed)
        there = own.starts + own.steps <= encoded.lengths[own.rows]
        made = replace(own, rows=own.rows[there], starts=own.starts[there]).cut(encoded)
        return Pairs(test.z[there], made.z, test.actions[there], groups=plan.groups[there])

    if again is not None and "simulator" in config.judge.rungs:
        rungs["simulator"] = paired(again)
    if bundle.decoder is not None and bundle.spec.state_size and "encode_decode" in config.judge.rungs:
        decode = bundle.decode
        rungs["encode_decode"] = paired(
            [replace(e, state=decode(bundle.encode_episode(e)).astype(np.float32)) for e in ordered]
        )
    return rungs


def _repeated(episodes: Sequence[Episode], config: Config) -> list[Episode] | None:
    """The same starts and actions in the simulator once more, noise redrawn; None where there is no such simulator."""
    if config.episodes.source != "workcell":
        return None
    from phaseb.workcell.collect import replay_episodes

    return replay_episodes(config.environment, episodes, config.run.seed)


def _begin(config: Config, name: str, pairs: Pairs, judge: JudgeConfig, seed: int) -> Callable[[], JudgeResult]:
    """A rung in a Ray task of its own."""
    task = ray.remote(num_cpus=config.resources.cpus_per_task)(_judge_one)
    return functools.partial(get_result, task.remote(name, pairs, judge, seed))


def _judge_one(name: str, pairs: Pairs, config: JudgeConfig, seed: int) -> JudgeResult:
    torch.set_num_threads(1)
    return judge_rung(name, pairs, config, seed)


def _rungs_of(config: JudgeConfig, plan: WindowPlan) -> JudgeConfig:
    """The ladder for these windows: no rung beyond their length, which itself is always judged; folds that fit."""
    kept = [name for name in config.rungs if not name.isdigit() or int(name) < plan.steps]
    return config.model_copy(update={"rungs": (*kept, str(plan.steps)), "num_folds": plan.num_folds})


def _told(ladder: Ladder, plan: WindowPlan) -> dict[str, Any]:
    told = ladder.as_dict()
    return told | {"sentence": " ".join(filter(None, [told["sentence"], plan.sentence()]))}
