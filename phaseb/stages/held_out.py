"""Held-out episodes beside the policies: how far each is from the recorded actions, paired by episode and dimension.

`evaluation/held_out.json` holds, for the sealed test, each arm's error and its difference from the first control, with
intervals over episodes. Where values cannot be learned and there is no environment, dev episodes decide by it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.root import Config
from phaseb.episodes.episode import TASK_TAG
from phaseb.episodes.tasks import read_tasks
from phaseb.episodes.trajectories import Trajectories
from phaseb.policy.behavior_metrics import action_errors, episode_errors
from phaseb.policy.trained_policy import load_policy
from phaseb.runtime.metrics import mean_interval
from phaseb.runtime.storage import Store
from phaseb.stages.sample import fit_sample

CONFIDENCE = 0.95
FILE = ("evaluation", "held_out.json")

Runs = Sequence[tuple[str, int]]
Errors = Mapping[str, NDArray[np.float64]]
"""By arm, (S, N, A) error of each seed's policy, in recorded standard deviations."""


def errors_by_arm(config: Config, store: Store, runs: Runs, split: str) -> dict[str, NDArray[np.float64]]:
    """By arm, the errors (S, N, A) of its policies on the episodes of a split."""
    held_out, recorded = fit_sample(config, store, split), fit_sample(config, store, "train")
    found: dict[str, list[NDArray[np.float64]]] = {}
    for arm, seed in runs:
        actor = load_policy(store.folder("policy", arm, str(seed)))
        found.setdefault(arm, []).append(action_errors(actor.act, held_out, recorded))
    return {arm: np.stack(errors) for arm, errors in found.items()}


def write_held_out(config: Config, store: Store, runs: Runs) -> None:
    """Write `evaluation/held_out.json` of the sealed test."""
    errors = errors_by_arm(config, store, runs, "test")
    recorded, held_out = fit_sample(config, store, "train"), fit_sample(config, store, "test")
    told = compare(errors, config.arms.real_arms[0])
    tasks = np.array(held_out.lineage.get(f"tag/{TASK_TAG}", ()))
    told["tasks"] = {
        task: {
            "num_episodes": int((tasks == task).sum()),
            "arms": {arm: _interval(episode_errors(own[:, tasks == task]).mean(0)) for arm, own in errors.items()},
        }
        for task in read_tasks(store)
        if (tasks == task).any()
    }
    floor = episode_errors(action_errors(_mean_action(recorded), held_out, recorded))
    store.write_json(told | {"mean_action": _interval(floor), "steps": int(held_out.lengths.sum())}, *FILE)


def compare(errors: Errors, control: str) -> dict[str, Any]:
    """Each arm's error and its difference from the control's, over all dimensions and by dimension.

    Args:
        errors: by arm.
        control: the arm to compare with; a negative difference is closer to the recorded actions.
    """
    base = errors.get(control)
    arms: dict[str, Any] = {}
    for arm, own in errors.items():
        arms[arm] = {"error": _interval(episode_errors(own).mean(0)), "by_dimension": _by_dimension(own.mean(0))}
        if base is not None and arm != control:
            whole = episode_errors(own).mean(0) - episode_errors(base).mean(0)
            parts = own.mean(0) - base.mean(0)
            arms[arm] |= {"difference": _interval(whole), "difference_by_dimension": _by_dimension(parts)}
    num_episodes = next(iter(errors.values())).shape[1] if errors else 0
    return {"unit": "recorded standard deviations", "control": control, "num_episodes": num_episodes, "arms": arms}


def _mean_action(recorded: Trajectories) -> Any:
    mean = recorded.actions[recorded.mask].mean(0)
    return lambda z: np.broadcast_to(mean, (len(z), len(mean)))


def _interval(values: NDArray[np.floating]) -> dict[str, float]:
    return dict(zip(("mean", "low", "high"), mean_interval(values, CONFIDENCE), strict=True))


def _by_dimension(errors: NDArray[np.floating]) -> list[dict[str, float]]:
    return [_interval(column) for column in errors.T]
