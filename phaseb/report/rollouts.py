"""Single rollouts under the gate: their trust step by step, and where each was cut."""

import numpy as np

from phaseb.episodes.trajectories import Trajectories
from phaseb.report.html import Figure
from phaseb.report.svg import GREEN, GREY, RED, Chart

NUM_SHOWN = 12


def rollout_trust(made: Trajectories) -> Figure | None:
    """One rollout at a time, from the first cut to those left whole; a slider chooses; None before the gate."""
    if made.trust is None or made.weights is None:
        return None
    kept = kept_steps(made)
    order = np.argsort(kept, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, NUM_SHOWN).round().astype(int))]
    chart = Chart("trust along a rollout", "step", "transition trust", y_from_zero=True)
    names = []
    for row in chosen:
        steps = int(made.lengths[row])
        name = f"{made.ids[row]}: {_fate(int(kept[row]), steps)}"
        names.append(name)
        at, trust = list(range(1, steps + 1)), made.trust[row, :steps].tolist()
        labels = [f"step {t}, weight {w:.2f}, trust" for t, w in zip(at, made.weights[row], strict=False)]
        chart.line(at, trust, "trust", GREEN, group=name, dots=False)
        chart.points(at, trust, "trust", GREEN, labels, group=name)
        if kept[row] < steps:
            chart.mark(float(kept[row]) + 0.5, f"cut: only {kept[row]} steps are used", RED, group=name)
    chart.level(0.5, "as likely real as not", GREY)
    caption = "What lies behind the red line is not used; point at a step for its weight."
    return Figure("Trust along one rollout, and its cut", chart.svg(), caption, slider=names, shown=len(names) // 2)


def kept_steps(made: Trajectories) -> np.ndarray:
    """(N,) steps up to the last one that has weight; 0 where the gate drops the whole rollout."""
    assert made.weights is not None
    used = (made.weights > 0) & made.mask
    last = used.shape[1] - used[:, ::-1].argmax(1)
    return np.where(used.any(1), last, 0)


def _fate(kept: int, steps: int) -> str:
    if kept == 0:
        return "dropped whole"
    return "used whole" if kept >= steps else f"cut after step {kept} of {steps}"
