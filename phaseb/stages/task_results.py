"""What the policies earned in each of several tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from phaseb.config.data import ValuationConfig
from phaseb.policy.evaluation import TASK, aggregate, summarise


def results_by_task(
    tasks: Sequence[str], rows: Mapping[int, Sequence[Mapping[str, Any]]], valuation: ValuationConfig, confidence: float
) -> dict[str, Any]:
    """By task, the episodes of one arm's policies and what they earned: means with intervals over seeds.

    Args:
        tasks: of the run.
        rows: of every seed's policy, one an episode (see `policy.evaluation`).
        valuation: prices.
        confidence: of the intervals.
    """
    found: dict[str, Any] = {}
    for number, task in enumerate(tasks):
        own = [[row for row in episodes if row[TASK] == number] for episodes in rows.values()]
        per_seed = [aggregate(episodes, valuation) for episodes in own if episodes]
        found[task] = {"num_episodes": sum(map(len, own)), **(summarise(per_seed, confidence) if per_seed else {})}
    return found
