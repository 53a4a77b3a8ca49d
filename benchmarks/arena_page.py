"""The tables of the arena out of its rows: scores with intervals, harm, gains and costs, beside peers.

python benchmarks/arena_page.py        writes the tables into docs/benchmarks.md
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from arena_rows import CANDIDATE, CLONE, PLACEBO
from arena_tasks import TASKS
from json_rows import read_rows
from numpy.typing import NDArray

from phaseb.runtime.metrics import mean_interval

DOCS = Path(__file__).parents[1] / "docs"
GENERATOR_NUMBERS = {
    "auc": ".2f",
    "auc_noise": ".2f",
    "return_bias": "+.0%",
    "pearson": ".2f",
    "nrmse": ".2f",
    "reward_nrmse": ".2f",
    "coverage_90": ".2f",
}
BEGIN, END = "<!-- begin: benchmarks/arena_page.py -->", "<!-- end -->"
Rows = Sequence[Mapping[str, Any]]
Scores = dict[int, NDArray[np.floating]]
Interval = tuple[float, float, float]


def over_seeds(values: Sequence[float], scores: NDArray[np.floating] | None = None) -> Interval:
    """Mean and interval over seeds; of one seed, over its evaluation episodes (E,), where they are given."""
    if len(values) == 1 and scores is not None:
        return mean_interval(scores)
    return mean_interval(values)


def model_free(rows: Rows) -> dict[str, Scores]:
    """Scores by learner that uses no synthetic data, ours and peers', and by seed: (E,) a seed."""
    found: dict[str, Scores] = {}
    for row in rows:
        if "peer" in row:
            found.setdefault(f"d3rlpy {row['peer']}", {})[row["seed"]] = np.array(row["scores"])
            continue
        for arm, of_arm in row["arms"].items():
            if arm != CANDIDATE and not arm.startswith(PLACEBO):
                found.setdefault(arm, {})[row["seed"]] = np.array(of_arm["scores"])
    return found


def gain(rows: Rows) -> tuple[str, Interval]:
    """The best learner without synthetic data, and what the gated arm scores beyond it, paired by seed and episode."""
    candidate = {row["seed"]: np.array(row["arms"][CANDIDATE]["scores"]) for row in ours(rows)}
    others = {name: scores for name, scores in model_free(rows).items() if candidate.keys() <= scores.keys()}
    best = max(others, key=lambda name: np.mean([others[name][seed].mean() for seed in candidate]))
    apart = {seed: scores - others[best][seed] for seed, scores in candidate.items()}
    return best, over_seeds([float(a.mean()) for a in apart.values()], next(iter(apart.values())))


def harm(rows: Rows) -> Interval:
    """What ships, less the better of the clone and the behaviour, over seeds."""
    return over_seeds([_shipped(row).mean() - max(_mean(row, CLONE), row["data"]) for row in ours(rows)])


def ours(rows: Rows) -> list[Mapping[str, Any]]:
    return [row for row in rows if "peer" not in row]


def _mean(row: Mapping[str, Any], arm: str) -> float:
    return float(np.mean(row["arms"][arm]["scores"]))


def _shipped(row: Mapping[str, Any]) -> NDArray[np.floating]:
    return np.array(row["arms"][row["shipped"]]["scores"])


def table(rows: Rows) -> str:
    """Every task on a line: episodes, the behaviour, each learner, what ships, harm, gain and cost."""
    lines = [
        "| task | seeds | train, dev, test | behaviour | clone | real only: IQL | EDAC | SAC | placebo "
        "| trust-weighted | ships | less the better of clone and behaviour "
        "| gain on the best without synthetic data | core-minutes |",
        "|" + " --- |" * 14,
    ]
    by_task = {name: [row for row in rows if row["task"] == name] for name in TASKS}
    return "\n".join(lines + [_line(name, found) for name, found in by_task.items() if ours(found)])


def _line(name: str, rows: Rows) -> str:
    own = ours(rows)
    counts = ", ".join(f"{np.mean([row[f'num_{split}'] for row in own]):.0f}" for split in ("train", "dev", "test"))
    cells = [name, str(len(own)), counts]
    minutes = f"{np.mean([row['core_minutes'] for row in own]):.0f}"
    if TASKS[name].world == "none":
        shipped = ", ".join(sorted({row["shipped"] for row in own}))
        return "| " + " | ".join([*cells, *["–"] * 7, f"{shipped} (by estimate)", "–", "–", minutes]) + " |"
    cells.append(f"{np.mean([row['data'] for row in own]):.1f}")
    placebo = next((arm for arm in own[0]["arms"] if arm.startswith(PLACEBO)), "")
    for arm in (CLONE, "real_only", "real_only_edac", "real_only_sac", placebo, CANDIDATE):
        found = [np.array(row["arms"][arm]["scores"]) for row in own if arm in row["arms"]]
        cells.append(_shown(over_seeds([s.mean() for s in found], found[0])) if found else "–")
    cells.append(_shown(over_seeds([_shipped(row).mean() for row in own], _shipped(own[0]))))
    best, apart = gain(rows)
    return "| " + " | ".join([*cells, _shown(harm(rows), "+"), f"{_shown(apart, '+')} on {best}", minutes]) + " |"


def _shown(found: Interval, sign: str = "") -> str:
    mean, low, high = (f"{value:{sign}.1f}" for value in found)
    return f"{mean} [{low}, {high}]" if np.isfinite(found[1]) else mean


def peers_table(rows: Rows) -> str:
    """Every task on a line: learners of other libraries, on the same training and evaluation episodes."""
    names = sorted({row["peer"] for row in rows if "peer" in row})
    if not names:
        return "Peers were not run yet."
    lines = [
        "| task | seeds | " + " | ".join(f"d3rlpy {name}" for name in names) + " | published, whole data set |",
        "|" + " --- |" * (len(names) + 3),
    ]
    for task in TASKS.values():
        found = [row for row in rows if row["task"] == task.name and "peer" in row]
        if not found:
            continue
        by_peer = {name: [np.array(row["scores"]) for row in found if row["peer"] == name] for name in names}
        shown = [_shown(over_seeds([s.mean() for s in of], of[0])) if of else "–" for of in by_peer.values()]
        published = ", ".join(f"{name} {score:g}" for name, score in task.published.items()) or "–"
        lines.append("| " + " | ".join([task.name, str(len({row["seed"] for row in found})), *shown, published]) + " |")
    return "\n".join(lines)


def generators_table(rows: Rows) -> str:
    """Every task and generator on a line: closed loops and branches beside physics, and how often the better serves.

    Rows of `--lean` and `--quick` are left out: they play too few episodes.
    """
    rows = [row for row in ours(rows) if row.get("generators") and row["form"] in ("whole", "judged")]
    if not rows:
        return "Generators were not judged yet."
    lines = [
        "| task | generator | seeds | serves | better in physics | worst judge | the same, noise 0.2 σ "
        "| return less physics' | correlation of returns | branch error: latents | rewards | 90 % intervals cover |",
        "|" + " --- |" * 12,
    ]
    for task in TASKS:
        of_task = [row for row in rows if row["task"] == task]
        for name in dict.fromkeys(one["generator"] for row in of_task for one in row["generators"]):
            found = [one for row in of_task for one in row["generators"] if one["generator"] == name]
            numbers = [one for one in found if "failed" not in one]
            means = {key: np.mean([one[key] for one in numbers]) for key in GENERATOR_NUMBERS if numbers}
            shown = [f"{means[key]:{form}}" if means else "–" for key, form in GENERATOR_NUMBERS.items()]
            serves, better = (sum(one.get(key, False) for one in found) for key in ("chosen", "better"))
            cells = [task, name, str(len(found)), str(serves), str(better), *shown]
            lines.append("| " + " | ".join(cells) + " |")
    served = [one for row in rows for one in row["generators"] if one["chosen"]]
    right = sum(one.get("better", False) for one in served)
    said = f"The generator that serves is physics' better one in {right} of {len(served)} runs."
    return "\n".join([*lines, "", said])


def page(rows: Rows, text: str) -> str:
    """A page with the tables between its marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table(rows)}\n\n{peers_table(rows)}\n\n{generators_table(rows)}\n{END}{after}"


def main() -> None:
    path = DOCS / "benchmarks.md"
    path.write_text(page(read_rows(DOCS / "data" / "arena.jsonl"), path.read_text()))


if __name__ == "__main__":
    main()
