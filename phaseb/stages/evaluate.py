"""Measure the policies and decide which arm is shipped.

In physics where there is an environment, else by estimates, or by held-out actions where values cannot be learned
either.
"""

import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from phaseb.config.arms import CHOSEN, Arm
from phaseb.config.root import Config
from phaseb.episodes.tasks import read_tasks
from phaseb.errors import PhasebError
from phaseb.pipeline.stage import StageContext
from phaseb.policy.behavior_metrics import action_mse
from phaseb.policy.checked_environment import check_spaces
from phaseb.policy.evaluation import Row, aggregate, evaluate, summarise
from phaseb.policy.trained_policy import load_policy
from phaseb.runtime.metrics import mean_interval, read_metrics, write_metrics
from phaseb.runtime.ray_tasks import get_result
from phaseb.runtime.storage import Store
from phaseb.stages.arm_generator import choice_of
from phaseb.stages.held_out import CONFIDENCE, Runs, write_held_out
from phaseb.stages.physics import Physics
from phaseb.stages.promotion import decide_in_physics, values_known, without_physics
from phaseb.stages.sample import fit_sample
from phaseb.stages.task_results import results_by_task

ROWS = "episodes.parquet"


def execute(context: StageContext) -> dict[str, Any]:
    """Measure and decide.

    Raises:
        ConfigError, DataError: where a policy could not be measured; what was measured is kept, and not measured again.
    """
    config, store = context.config, context.store
    runs: Runs = [(arm.name, seed) for arm in config.arms.trained for seed in range(config.arms.num_seeds)]
    if config.environment.id == "none":
        failure = None
        measured, promotion = without_physics(context, runs)
    else:
        measured, failure = _in_physics(context, runs)
        promotion = {} if failure else decide_in_physics(context, functools.partial(play, config, store))
    known = [(arm, seed) for arm, seed in runs if seed in measured.get(arm, {})]
    write_held_out(config, store, known)
    summary = _summary(context, known, measured)
    store.write_json(summary, "evaluation", "summary.json")
    if failure is not None:
        kept = f"{len(known)} of {len(runs)} policies are measured and kept; mend it and run `phaseb evaluate` again"
        raise type(failure)(f"{failure}; {kept}") from failure
    store.write_json(promotion, "promotion.json")
    episodes = summary["num_episodes"] * len(runs)
    return {"shipped": promotion["shipped"], "policies": len(runs), "episodes": episodes}


def play(
    config: Config,
    store: Store,
    arm: str,
    seed: int,
    episodes: Sequence[int],
    frames: bool = False,
    home: Store | None = None,
) -> list[Row]:
    """Run one trained policy in the environment, one episode a seed; `frames` keeps the first's pictures.

    Policies lie in `home`, the run's own where it is None.

    Raises:
        ConfigError, DataError: where environment and policy do not fit, or the environment misbehaves.
    """
    torch.set_num_threads(1)
    size = min(config.evaluation.num_envs, len(episodes))
    with Physics(config, store, size) as physics:
        film, spec = _Film(physics.environment), physics.bundle.spec
        actor = load_policy((home or store.folder("policy")).folder(arm, str(seed)))
        check_spaces(physics.environment, spec.state_size, spec.frame_shape, actor.action_size)
        rows = evaluate(
            actor.closed_loop(),
            physics.encoder,
            physics.environment,
            episodes,
            physics.denormalise,
            film.watch if frames else None,
            config.evaluation.step_limit_s,
        )
    if frames and film.frames:
        film.save(store.folder("evaluation", arm, str(seed)))
    return rows


def _in_physics(context: StageContext, runs: Runs) -> tuple[dict[str, dict[int, dict[str, float]]], PhasebError | None]:
    """Every policy in a Ray task of its own; rows of every episode are kept, and what failed first is told."""
    config, store = context.config, context.store
    first = config.evaluation.first_seed
    episodes = list(range(first, first + config.evaluation.num_episodes))
    task = ray.remote(num_cpus=config.resources.cpus_per_task)(play)
    missing = [run for run in runs if not store.exists("evaluation", run[0], str(run[1]), ROWS)]
    waiting = {run: task.remote(config, store, *run, episodes, run[1] == 0) for run in missing}
    measured: dict[str, dict[int, dict[str, float]]] = {}
    failure: PhasebError | None = None
    for arm, seed, rows in keep_rows(store, runs, lambda run: get_result(waiting[run])):
        if isinstance(rows, PhasebError):
            failure = failure or rows
            continue
        measured.setdefault(arm, {})[seed] = aggregate(rows, config.valuation)
        context.progress({"policies": float(sum(map(len, measured.values()))), "of": float(len(runs))})
    return measured, failure


def keep_rows(
    store: Store, runs: Runs, rows_of: Callable[[tuple[str, int]], list[Row]]
) -> Iterator[tuple[str, int, list[Row] | PhasebError]]:
    """The rows of every policy, written as they come: what one cannot have, the others keep.

    A stage that goes on after a failure or a kill finds what it had measured under the same config and policies.

    Args:
        rows_of: measures a policy, asked only for those whose rows are not there yet.

    Yields:
        arm, seed, and its rows or what went wrong, told with its name.
    """
    for arm, seed in runs:
        folder = store.folder("evaluation", arm, str(seed))
        if folder.exists(ROWS):
            yield arm, seed, read_metrics(folder, ROWS)
            continue
        try:
            rows = rows_of((arm, seed))
        except PhasebError as error:
            yield arm, seed, type(error)(f"{arm}, seed {seed}: {error}")
            continue
        write_metrics(folder, ROWS, rows)
        yield arm, seed, rows


def _summary(
    context: StageContext, runs: Runs, measured: Mapping[str, Mapping[int, Mapping[str, float]]]
) -> dict[str, Any]:
    """What the report tells of the arms: every seed's numbers, and means with intervals over seeds."""
    config, store = context.config, context.store
    test = fit_sample(config, store, "test")
    training = read_metrics(store.folder("policy"), "metrics.parquet")
    arms: dict[str, Any] = {}
    for arm, seed in runs:
        actor = load_policy(store.folder("policy", arm, str(seed)))
        extra = {
            "action_mse": action_mse(actor.act, test),
            "actor_loss": _last(training, f"policy/actor_loss/{arm}/{seed}", f"policy/loss/actor/{arm}/{seed}"),
            "effective_contribution": _last(training, f"policy/effective_contribution/{arm}/{seed}"),
        }
        arms.setdefault(arm, {"seeds": {}})["seeds"][str(seed)] = {**measured[arm][seed], **extra}
    for told in arms.values():
        per_seed = list(told["seeds"].values())
        told["summary"] = summarise(per_seed, CONFIDENCE)
        for name in ("action_mse", "actor_loss", "effective_contribution"):
            mean, low, high = mean_interval([row[name] for row in per_seed], CONFIDENCE)
            told["summary"][name] = {"mean": mean, "low": low, "high": high}
    physics, tasks = config.environment.id != "none", read_tasks(store)
    for arm, told in arms.items() if physics and tasks else ():
        rows = {s: read_metrics(store.folder("evaluation", arm, str(s)), ROWS) for name, s in runs if name == arm}
        told["tasks"] = results_by_task(tasks, rows, config.valuation, CONFIDENCE)
    served = choice_of(store).get("generator")
    return {
        "environment": config.environment.id,
        "num_episodes": config.evaluation.num_episodes if physics else 0,
        "values_known": values_known(store),
        "seeds": list(range(config.arms.num_seeds)),
        "shared_data": True,
        "arms": arms,
        "settings": {arm.name: settings_of(arm, served) for arm in config.arms.trained if arm.name in arms},
    }


def settings_of(arm: Arm, served: str | None = None) -> dict[str, Any]:
    """What an arm learned from, for whoever reads its numbers.

    A placebo names the generator `recorded`: its rows are recorded ones, drawn again.

    Args:
        served: the generator that the evidence chose; None where none serves.
    """
    config = arm.config
    named = served if config.generator == CHOSEN else config.generator
    generator = "recorded" if arm.placebo_of else named
    known: dict[str, Any] = {"learner": config.learner, "rollouts": config.rollouts, "generator": generator}
    if config.uses_rollouts:
        known |= {"share": config.share, "weight": "uniform" if arm.placebo_of else config.weight}
    return known | {"control": arm.control, "placebo": arm.placebo, "placebo_of": arm.placebo_of}


def _last(rows: Sequence[Mapping[str, Any]], *names: str) -> float:
    for row in reversed(rows):
        for name in names:
            if row.get(name) is not None:
                return float(row[name])
    return float("nan")


class _Film:
    """Pictures of the first episode, one after each step, while it runs."""

    def __init__(self, environment: Any) -> None:
        self._environment, self._over = environment, False
        self.frames: list[NDArray[np.uint8]] = []

    def watch(self, step: int, running: NDArray[np.bool_]) -> None:
        if step == 0 and self.frames:  # the next batch of episodes begins
            self._over = True
        pictures = None if self._over else self._environment.render()
        if pictures is not None:
            self.frames.append(pictures[0])
        self._over = self._over or not running[0]

    def save(self, store: Store) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, frames=np.stack(self.frames), seconds=np.float64(0.12 * len(self.frames)))
        store.write_bytes(buffer.getvalue(), "frames.npz")
