"""One row of the arena out of a finished run: scores of every arm, what ships, harm, gain and cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from arena_material import training_episodes
from arena_tasks import Task
from closed_loop import rows_of
from numpy.typing import NDArray

from phaseb.config.data import ValuationConfig
from phaseb.policy.evaluation import aggregate
from phaseb.runtime.metrics import read_metrics
from phaseb.runtime.storage import Store

CLONE, CANDIDATE, PLACEBO = "behaviour_cloning", "trust_weighted", "placebo_"
Floats = NDArray[np.floating]


def make_row(task: Task, run: Path) -> dict[str, Any]:
    """The row of a run.

    It holds task, seed, episode counts, `data` (the behaviour's score), by arm the score of each evaluation episode and
    the share of synthetic data, what shipped and why, the generators beside physics (see `closed_loop.rows_of`; absent
    in older rows), and the judges. The minutes follow. A row of a peer holds task, seed, peer, its scores and minutes.
    """
    store = Store.at(str(run))
    results = store.read_json("results.json")
    counts = results["stages"]["collect"]["metrics"]
    row: dict[str, Any] = {"task": task.name, "seed": results["seed"], "version": results["version"]}
    row |= {split: counts[split] for split in ("num_train", "num_dev", "num_test")}
    row |= {"data": _behaviour(task, run), "arms": {}, "shipped": results["shipped"]}
    for arm in results["arms"]:
        earned = _earned(task, store, arm)
        used = results["arms"][arm].get("effective_contribution") or {}
        row["arms"][arm] = {"scores": np.round(earned, 2).tolist(), "synthetic": used.get("mean")}
    promotion = results["promotion"]
    row |= {name: promotion[name] for name in ("promoted", "helped", "reason")}
    row["generators"] = rows_of(run) if task.world != "none" else []
    row["judges"] = {name: _judge_auc(found) for name, found in results["judges"].items()}
    return row | {"notes": results["notes"]}


def _earned(task: Task, store: Store, arm: str) -> Floats:
    """(E,) scores of an arm's evaluation episodes; empty where there is no physics."""
    folder = store.folder("evaluation", arm, "0")
    if not folder.exists("episodes.parquet"):
        return np.zeros(0)
    rows = read_metrics(folder, "episodes.parquet")
    return np.asarray(task.score(np.array([aggregate([row], ValuationConfig())[task.measure] for row in rows])))


def _behaviour(task: Task, run: Path) -> float | None:
    """The score of the recorded training episodes."""
    episodes = training_episodes(run)
    if task.world == "none":
        return None
    if task.measure != "return":
        earned = aggregate([dict(episode.metrics) for episode in episodes], ValuationConfig())
        return float(task.score(earned[task.measure]))
    total, steps = sum(float(e.rewards.sum()) for e in episodes), sum(map(len, episodes))
    return float(task.score(total / steps * task.max_steps if task.endless else total / len(episodes)))


def _judge_auc(found: Mapping[str, Any]) -> float | None:
    numbers = found["branched"]["numbers"] if "branched" in found else found["numbers"]
    return numbers.get("judge_auc")
