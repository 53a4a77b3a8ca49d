"""What data is worth: which bricks the shipped policy's earnings came from, and what to collect next.

Leave one brick out: train the shipped arm without the brick (encoder, world model and gate as they are) and measure
what is lost. A cheaper estimate, whose transitions the policy lives by, stands beside it with their rank correlation.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from phaseb.bricks.attribution import Recorded, attribution, rank_correlation
from phaseb.collection.active_selection import disagreement, initial_latents
from phaseb.collection.deployed_policy import DeployedPolicySpec, collect_by_policy
from phaseb.config.root import Config
from phaseb.episodes.actions import read_action_scale
from phaseb.episodes.resolution import spread_of
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.latents.model import EncoderModel
from phaseb.pipeline.stage import StageContext
from phaseb.policy.evaluation import Row, aggregate
from phaseb.policy.fqe import fitted_q_evaluation
from phaseb.policy.trained_policy import load_policy
from phaseb.promotion.paired import rate, unit_of
from phaseb.report.attribution import FILE
from phaseb.runtime.metrics import mean_interval, read_metrics
from phaseb.runtime.ray_tasks import get_result
from phaseb.runtime.seeding import derive_seed
from phaseb.runtime.storage import Store
from phaseb.stages.bricks import brick_of_episodes
from phaseb.stages.dynamics import refit_branched
from phaseb.stages.evaluate import play
from phaseb.stages.held_out import CONFIDENCE
from phaseb.stages.learning_curve import learning_curve
from phaseb.stages.policy import every_episode, train_arms
from phaseb.stages.promotion import values_known
from phaseb.stages.sample import fit_sample

NUM_EPISODES = 20
"""Episodes that the policy plays for the estimate."""
NUM_CANDIDATES = 64
"""Starts that the recommendation chooses from."""
FIRST_SEED = 3_000_000
"""Seed of the first episode of the policy at work that credit is given by."""
NUM_NEIGHBOURS = 5
"""Recorded transitions that each step of the policy is attributed to."""

FOLDER = "worth"


def execute(context: StageContext) -> dict[str, Any]:
    config, store = context.config, context.store
    if config.environment.id == "none" and not values_known(store):
        raise DataError(
            "no recorded return differs from another, so no brick is worth more than another: set environment.id, or "
            "name rewards in episodes.columns and import again"
        )
    manifest = store.read_json("bricks", "manifest.json")
    arm = str(store.read_json("promotion.json")["shipped"])
    train = fit_sample(config, store, "train")
    brick_of = brick_of_episodes(store)
    labels = np.array([brick_of[name] for name in train.ids])
    counts = Counter(brick_of.values())
    names = [brick["id"] for brick in manifest["bricks"] if (labels == brick["id"]).any()]
    share = _estimate(context, arm, train, labels, names)
    rows: list[dict[str, Any]] = [
        {
            "brick": name,
            "episodes": counts[name],
            "estimate": float(share[i]),
            "operators": _operators(train, labels == name),
            "economics": _economics(manifest, name),
        }
        for i, name in enumerate(names)
    ]
    if config.worth.method == "leave_out":
        if len(names) < 2:
            raise DataError("one brick alone cannot be left out; set bricks.num_bricks, or worth.method=estimate")
        for i, row in enumerate(rows):
            row |= _left_out(context, arm, train, brick_of, str(row["brick"]))
            context.progress({"step": float(i + 1), "num_steps": float(len(rows))})
    ranks = (
        rank_correlation(share, np.array([row["loss"]["difference"] for row in rows])) if "loss" in rows[0] else None
    )
    told: dict[str, Any] = {
        "arm": arm,
        "method": config.worth.method,
        "bricks": rows,
        "rank_correlation": ranks,
        "next": recommendation(config, store, rows, train),
        "episodes_worth": learning_curve(context, store.folder(FOLDER, "curve")) if config.worth.curve else None,
    }
    store.write_json(told, *FILE)
    metrics = {"bricks": len(rows), "rank_correlation": ranks, "collect_next": told["next"]["brick"]}
    return metrics | ({"episodes_worth": told["episodes_worth"]["told"]} if config.worth.curve else {})


def recommendation(
    config: Config, store: Store, rows: Sequence[Mapping[str, Any]], train: Trajectories
) -> dict[str, Any]:
    """What to collect next: more like the brick whose episodes earned most each, from starts that teach the model."""
    value = [(row["loss"]["difference"] if "loss" in row else row["estimate"]) / row["episodes"] for row in rows]
    best = rows[int(np.argmax(value))]
    told: dict[str, Any] = {"brick": best["brick"], "operators": best["operators"], "worth_an_episode": max(value)}
    if config.environment.id == "none":
        return told
    seeds = [derive_seed(config.run.seed, "worth", "start", i) for i in range(NUM_CANDIDATES)]
    z = initial_latents(config, store, seeds)
    doubt = disagreement(config, store, z)
    most = np.argsort(-doubt)[: max(1, len(seeds) // 4)]
    known = train.z[:, 0]
    bundle = EncoderModel.load(store.folder("encoder"))
    told["starts"] = {"doubt": float(doubt[most].mean()), "doubt_of_all": float(doubt.mean())}
    if bundle.decoder is not None:
        wanted, so_far = bundle.decode(z[most]), bundle.decode(known)
        spread = spread_of(so_far)
        told["starts"]["shift"] = ((wanted.mean(0) - so_far.mean(0)) / spread).tolist()  # of each sensor, in spreads
    return told


def _estimate(
    context: StageContext, arm: str, train: Trajectories, labels: NDArray[np.str_], names: Sequence[str]
) -> NDArray[np.float64]:
    """(K,) share of the policy's steps that lean on each brick: at work in the environment, else on dev episodes."""
    config, store = context.config, context.store
    mask = train.mask
    brick = np.repeat([names.index(label) for label in labels], train.lengths)
    recorded = Recorded(train.z[:, :-1][mask], train.actions[mask], brick)
    if config.environment.id == "none":
        lived = fit_sample(config, store, "dev")
        z = lived.z[:, :-1][lived.mask]
        actors = [load_policy(store.folder("policy", arm, str(s))) for s in range(config.arms.num_seeds)]
        parts = [attribution((z, actor.act(z)), recorded, len(names), NUM_NEIGHBOURS) for actor in actors]
        return np.asarray(np.mean(parts, axis=0))
    crew = DeployedPolicySpec(store, arm, config.arms.num_seeds)
    wanted = [(f"worth-{i}", FIRST_SEED + i, i % crew.num_seeds) for i in range(NUM_EPISODES)]
    task = ray.remote(num_cpus=config.resources.cpus_per_task)(collect_by_policy)
    episodes = get_result(task.remote(config.environment, crew, wanted))
    lived = EncoderModel.load(store.folder("encoder")).encode(episodes, read_action_scale(store), config.run.seed)
    steps = (lived.z[:, :-1][lived.mask], lived.actions[lived.mask])
    return attribution(steps, recorded, len(names), NUM_NEIGHBOURS)


def _left_out(
    context: StageContext, arm: str, train: Trajectories, brick_of: Mapping[str, str], name: str
) -> dict[str, Any]:
    """What the shipped arm loses without the brick's episodes and the rollouts that start in them."""
    config, store = context.config, context.store

    def kept(data: Trajectories, origins: Sequence[str]) -> Trajectories:
        return data.select(np.array([brick_of.get(origin) != name for origin in origins], dtype=bool))

    every_real, made = every_episode(config, store)
    every_made = {n: (kept(part, part.lineage["start_episode"]) for part in parts) for n, parts in made.items()}
    left = kept(train, train.ids)
    alone = config.model_copy(update={"arms": config.arms.only(arm)})
    folder = store.folder(FOLDER, name)
    train_arms(
        replace(context, config=alone),
        folder,
        left,
        (kept(part, part.ids) for part in every_real),
        every_made,
        refit_branched(alone, store, left, folder),
    )
    measure = _by_estimate if config.environment.id == "none" else _in_physics
    return {"loss": measure(context, arm, folder), "left": sum(brick != name for brick in brick_of.values())}


def _in_physics(context: StageContext, arm: str, folder: Store) -> dict[str, Any]:
    """Net value an hour, whole less without, over the evaluation's episodes.

    The interval is over policy seeds, paired: training anew without a brick has luck of its own, which no number of
    episodes shows. One seed has an interval over its episodes only.
    """
    config, store = context.config, context.store
    first, count = config.evaluation.first_seed, config.evaluation.num_episodes
    task = ray.remote(num_cpus=config.resources.cpus_per_task)(play)
    seeds = range(config.arms.num_seeds)
    waiting = [task.remote(config, store, arm, s, list(range(first, first + count)), False, folder) for s in seeds]
    without: list[list[Row]] = [get_result(part) for part in waiting]
    whole = [read_metrics(store.folder("evaluation", arm, str(s)), "episodes.parquet") for s in seeds]
    unit = unit_of([row for rows in (*whole, *without) for row in rows])
    rates = [[rate(rows, config.valuation, unit) for rows in side] for side in (whole, without)]
    lost = [value - rest for (value, _), (rest, _) in zip(*rates, strict=True)]
    difference, low, high = mean_interval(lost, CONFIDENCE)
    if len(lost) == 1:
        ((_, influence),), ((_, other),) = rates
        _, low, high = mean_interval(difference + influence - other, CONFIDENCE)
    told = aggregate([row for rows in without for row in rows], config.valuation)
    return {"difference": difference, "low": low, "high": high, "unit": unit, "by_seed": lost, "without": told}


def _by_estimate(context: StageContext, arm: str, folder: Store) -> dict[str, Any]:
    """The same by fitted Q evaluation, in returns."""
    config, store = context.config, context.store
    held_out = fit_sample(config, store, "dev")
    seeds = range(config.arms.num_seeds)
    homes = [store.folder("policy"), folder]
    actors = [load_policy(home.folder(arm, str(s))) for home in homes for s in seeds]
    values = fitted_q_evaluation(config.evaluation.fqe, actors, held_out, config.run.seed).values
    members = (values[: len(seeds)] - values[len(seeds) :]).mean(0)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(members, [tail, 1 - tail])
    return {
        "difference": float(members.mean()),
        "low": float(low),
        "high": float(high),
        "unit": "return",
        "without": None,
    }


def _operators(train: Trajectories, rows: NDArray[np.bool_]) -> dict[str, int]:
    """Who recorded a brick's episodes, where their tags say it."""
    for tag in ("tag/operator", "tag/policy", "tag/file"):
        if tag in train.lineage:
            named = [who for who, mine in zip(train.lineage[tag], rows, strict=True) if mine and who]
            if named:
                return dict(Counter(named).most_common())
    return {}


def _economics(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    brick = next(b for b in manifest["bricks"] if b["id"] == name)
    return {key: value["value"] for key, value in brick["economics"].items()}
