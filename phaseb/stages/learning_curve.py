"""What synthetic data is worth in real episodes: the best control of the run on growing parts of the training
episodes, the candidate on the smallest, and where its earnings stand on the curve of the first.

S seeds, L sizes. Encoder, world model and gate are the run's and have seen all training episodes; what learns from the
part alone are the policies and the short-range model in which they branch.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.pipeline.stage import StageContext
from phaseb.policy.evaluation import aggregate
from phaseb.policy.fqe import fitted_q_evaluation
from phaseb.policy.trained_policy import load_policy
from phaseb.promotion.sample_efficiency import episodes_worth
from phaseb.runtime.metrics import mean_interval
from phaseb.runtime.ray_tasks import get_result
from phaseb.runtime.seeding import numpy_generator
from phaseb.runtime.storage import Store
from phaseb.stages.dynamics import refit_branched
from phaseb.stages.evaluate import play
from phaseb.stages.policy import every_episode, train_arms
from phaseb.stages.sample import fit_sample

NET, RETURN = "$/h", "return"
MEASURES = {NET: "net_value_per_hour", RETURN: "return"}
Floats = NDArray[np.floating]


def learning_curve(context: StageContext, home: Store) -> dict[str, Any]:
    """Train and measure what is missing, and read `episodes_worth` off the curve.

    Args:
        home: folder of the curve's policies.

    Raises:
        DataError: where two shares are the same number of episodes.
    """
    config, store = context.config, context.store
    train = fit_sample(config, store, "train")
    promotion = store.read_json("promotion.json")
    control, candidate = str(promotion["control"]), str(promotion["candidate"] or config.promotion.candidates[0])
    sizes = [max(1, round(share * len(train))) for share in config.worth.curve]
    if len(set(sizes)) < len(sizes):
        raise DataError(f"worth.curve makes parts of {sizes} of {len(train)} episodes: set shares further apart")
    # Parts are nested: each adds episodes to the one before it.
    order = numpy_generator(config.run.seed, "learning curve").permutation(len(train))
    earned = []
    for size in sizes:
        arms = (control, candidate) if size == sizes[0] else (control,)
        folder = home.folder(str(size))
        _train(context, folder, train, order[:size], arms)
        earned += [_earned(context, folder, arm) for arm in reversed(arms)]
        context.progress({"step": float(size), "num_steps": float(sizes[-1])})
    unit = NET if all(np.isfinite(one[NET]).all() for one in earned) else RETURN
    gated, *curve = [one[unit] for one in earned]
    return {"control_arm": control, "candidate_arm": candidate} | worth_of(
        sizes, np.array(curve), gated, unit, config.run.seed
    )


def worth_of(sizes: list[int], real_only: Floats, gated: Floats, unit: str, seed: int) -> dict[str, Any]:
    """The curve and what it says, as JSON: earnings of the control (L, S), of the candidate at the first size (S,)."""
    worth = episodes_worth(sizes, real_only, gated, seed)

    def point(size: int, values: Floats) -> dict[str, Any]:
        mean, low, high = mean_interval(list(values))
        return {"episodes": size, "mean": mean, "low": low, "high": high}

    return {
        "unit": unit,
        "control": [point(size, values) for size, values in zip(sizes, real_only, strict=True)],
        "candidate": point(sizes[0], gated),
        "value": worth.value,
        "low": worth.low,
        "high": worth.high,
        "beyond": worth.beyond,
        "told": str(worth),
    }


def _train(
    context: StageContext, folder: Store, train: Trajectories, rows: NDArray[np.int64], arms: tuple[str, ...]
) -> None:
    part = train.select(np.sort(rows))
    known = set(part.ids)
    alone = context.config.model_copy(update={"arms": context.config.arms.only(*arms)})
    _, made = every_episode(alone, context.store)

    def kept(some: Trajectories) -> Trajectories:
        return some.select(np.array([start in known for start in some.lineage["start_episode"]]))

    stored = {name: map(kept, parts) for name, parts in made.items()}
    generators = refit_branched(alone, context.store, part, folder)
    train_arms(replace(context, config=alone), folder, part, [part], stored, generators)


def _earned(context: StageContext, folder: Store, arm: str) -> dict[str, Floats]:
    """By unit, (S,): net value an hour and returns over the evaluation's episodes; returns as estimated, and no net
    value, where there is no environment."""
    config, store = context.config, context.store
    seeds = range(config.arms.num_seeds)
    if config.environment.id == "none":
        held_out = fit_sample(config, store, "dev")
        actors = [load_policy(folder.folder(arm, str(s))) for s in seeds]
        values = fitted_q_evaluation(config.evaluation.fqe, actors, held_out, config.run.seed).values.mean(1)
        return {RETURN: values, NET: np.full(len(values), np.nan)}
    first, count = config.evaluation.first_seed, config.evaluation.num_episodes
    task = ray.remote(num_cpus=config.resources.cpus_per_task)(play)
    waiting = [task.remote(config, store, arm, s, list(range(first, first + count)), False, folder) for s in seeds]
    scores = [aggregate(get_result(rows), config.valuation) for rows in waiting]
    return {unit: np.array([score[name] for score in scores]) for unit, name in MEASURES.items()}
