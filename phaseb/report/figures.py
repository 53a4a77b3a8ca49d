"""The figures of a run, drawn from its files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.streaming import sample_trajectories
from phaseb.report.html import Figure
from phaseb.report.replay import drawn_figure
from phaseb.report.rollouts import rollout_trust
from phaseb.report.svg import ARM_COLORS, BLUE, GREEN, GREY, ORANGE, PALETTE, PURPLE, RED, SKY, Chart
from phaseb.runtime.metrics import read_metrics
from phaseb.runtime.storage import Store

REAL, SYNTHETIC = BLUE, ORANGE
DRAWN = 4096  # episodes of a kind that figures are drawn from; of more, an even sample


def figures(store: Store, results: Mapping[str, Any], num_plotted: int) -> list[Figure]:
    """All figures, in the order of the page."""
    stored = [_stored(store, name, num_plotted) for name in store.folders("synthetic")]
    drawn = [
        _arms(results),
        *(found[0] for found in stored),
        *(_drift(found) for found in results["judges"].values() if "numbers" in found),
        *(_ladder(name, found) for name, found in results["judges"].items()),
        *(figure for found in stored for figure in found[1:]),
        _bricks(store.read_json("bricks", "manifest.json")),
        drawn_figure(store),
        *_curves(store),
    ]
    return [figure for figure in drawn if figure is not None]


def _stored(store: Store, generator: str, num_plotted: int) -> list[Figure | None]:
    """Figures of a generator's stored rollouts: beside real latents, and under the gate."""
    real = sample_trajectories(store.folder("latents"), ("test",), DRAWN, seed=0)
    made = sample_trajectories(store.folder("synthetic", generator), (), DRAWN, seed=0)
    steps = min(real.z.shape[1], made.z.shape[1])
    chosen = real.select(real.lengths >= steps - 1).select(
        range(min(num_plotted, int((real.lengths >= steps - 1).sum())))
    )
    return [
        _cloud(chosen.z, made.z[:num_plotted], steps),
        rollout_trust(made),
        _trust_along(made.trust, made.weights, made.ids),
        _trust_histogram(made),
    ]


def _arms(results: Mapping[str, Any]) -> Figure | None:
    metric = next((m for m in ("net_value_per_hour", "return") if m in results["arm_columns"]), None)
    if metric is None:
        return None
    arms = results["arms"]
    mean, low, high = ([_finite(arm[metric][key]) for arm in arms.values()] for key in ("mean", "low", "high"))
    chart = Chart("arms", "", metric.replace("_", " "), y_from_zero=True, categories=list(arms))
    chart.bars(mean, low, high, [ARM_COLORS.get(name, GREY) for name in arms])
    return Figure(
        "What the policies earn",
        chart.svg(),
        "Mean over seeds with its 95 % interval, measured in physics where there is an environment.",
    )


def _cloud(real: NDArray[np.float32], made: NDArray[np.float32], steps: int) -> Figure | None:
    """Latents on the two main axes of the real ones, one cloud a step; a slider chooses the step."""
    if len(real) < 2 or real.shape[-1] < 2:
        return None
    flat = real.reshape(-1, real.shape[-1]).astype(np.float64)
    mean = flat.mean(0)
    axes = np.linalg.svd(flat - mean, full_matrices=False)[2][:2]
    chart = Chart("latent clouds", "first principal axis of real z_V", "second")
    shown = [t for t in (1, 5, 10, 20, 30, 40, 50, 60) if t < steps]
    for t in shown:
        for cloud, name, color in ((real, "real", REAL), (made, "synthetic", SYNTHETIC)):
            at = (cloud[:, t] - mean) @ axes.T
            chart.points(at[:, 0].tolist(), at[:, 1].tolist(), name, color, radius=3.0, group=f"step {t}")
    return Figure(
        "Real and synthetic latents, step by step",
        chart.svg(),
        "Where the synthetic cloud leaves the real one, the world model has left the distribution.",
        slider=[f"step {t}" for t in shown],
    )


def _drift(judges: Mapping[str, Any]) -> Figure | None:
    drift = {int(k.split("_")[1]): v for k, v in judges["numbers"].items() if k.startswith("drift_")}
    rmse = judges.get("rmse_by_step") or []
    if not drift:
        return None
    chart = Chart("drift", "step of the rollout", "σ units", y_from_zero=True)
    chart.line(sorted(drift), [drift[t] for t in sorted(drift)], "drift (Wasserstein-1 of marginals)", ORANGE)
    if rmse:
        chart.line(range(1, len(rmse) + 1), [_finite(v) for v in rmse], "open-loop RMSE", BLUE, dashed=True)
    return Figure(
        "How far rollouts drift", chart.svg(), "On the sealed test, from its first states and under its actions."
    )


def _ladder(generator: str, judges: Mapping[str, Any]) -> Figure | None:
    """The judges of a generator: the ladder of its stored rollouts, and its branched ones."""
    rungs = dict(judges["ladder"]["rungs"]) if "ladder" in judges else {}
    if "branched" in judges:
        steps = judges["branched"]["horizon"]
        rungs |= {f"{steps}, {name}": found for name, found in judges["branched"]["results"].items()}
    if not rungs:
        return None
    names = list(rungs)
    chart = Chart("judge ladder", "rung", "AUC of the worst judge", categories=names)
    for level, color in zip(rungs[names[0]]["levels"], (RED, SKY, GREY, PURPLE), strict=False):
        sigma = level["sigma"]
        values = [
            next((_finite(x["judge_auc"]) for x in rungs[n]["levels"] if x["sigma"] == sigma), float("nan"))
            for n in names
        ]
        chart.line(range(len(names)), values, f"noise σ = {sigma:g}", color)
    chart.level(0.5, "chance")
    said = judges["ladder"]["sentence"] if "ladder" in judges else ""
    if "branched" in judges:
        said += f" Branched rollouts of {steps} steps: under a cloned operator, and under recorded actions."
    return Figure(f"Can a fresh judge tell the rollouts of {generator} from recorded ones?", chart.svg(), said.strip())


def _trust_along(
    trust: NDArray[np.float32] | None, weights: NDArray[np.float32] | None, ids: Sequence[str]
) -> Figure | None:
    if trust is None or weights is None:
        return None
    chart = Chart("trust along rollouts", "step", "transition trust", y_from_zero=True)
    steps = range(1, trust.shape[1] + 1)
    low, middle, high = np.quantile(trust, [0.05, 0.5, 0.95], axis=0)
    chart.band(steps, low.tolist(), high.tolist(), "5–95 %", GREEN).line(steps, middle.tolist(), "median trust", GREEN)
    chart.line(steps, (weights > 0).mean(0).tolist(), "share of rollouts not cut", GREY, dashed=True)
    return Figure(
        "Trust along the rollouts",
        chart.svg(),
        "The gate cuts a rollout where its trust falls; what lies behind the cut is not used.",
    )


def _trust_histogram(made: Any) -> Figure | None:
    if made.episode_trust is None:
        return None
    counts, edges = np.histogram(made.episode_trust, bins=20, range=(0, 1))
    chart = Chart(
        "episode trust",
        "episode trust",
        "synthetic episodes",
        y_from_zero=True,
        categories=[f"{e:.2f}" if i % 4 == 0 else "" for i, e in enumerate(edges[:-1])],
    )
    nothing = [float("nan")] * len(counts)
    chart.bars(counts.tolist(), nothing, nothing, [GREEN] * len(counts))
    return Figure("Trust of whole rollouts", chart.svg(), "Calibrated p(real) of every synthetic episode.")


def _bricks(manifest: Mapping[str, Any]) -> Figure | None:
    bricks = manifest.get("bricks", [])
    if not bricks or "episodes" not in manifest or not manifest["episodes"]:
        return None
    chart = Chart("bricks", "first axis of episode features", "second")
    for i, brick in enumerate(bricks):
        members = [e for e in manifest["episodes"] if e["brick"] == brick["id"]]
        value = brick["economics"].get("value_per_hour", {}).get("value")
        told = "value unknown" if _finite(value) != _finite(value) else f"{value:,.0f} $ an hour"
        xy = [e["map"] for e in members]
        labels = [f"{e['id']} ({told})" for e in members]
        chart.points(
            [p[0] for p in xy],
            [p[1] for p in xy],
            f"{brick['id']}: {told}",
            PALETTE[i % len(PALETTE)],
            labels,
            radius=5,
        )
        middle = np.median(xy, axis=0)
        chart.text(float(middle[0]), float(middle[1]), brick["id"] if told == "value unknown" else told)
    return Figure(
        "Bricks and what they are worth", chart.svg(), "Episodes that look alike, valued by what they earned."
    )


def _curves(store: Store) -> list[Figure]:
    drawn = []
    for title, folder, keys in (
        ("Training of the encoder", "encoder", ("latents/loss/contrast", "latents/validation/contrast")),
        ("Training of the ensemble", "dynamics/gru", ("dynamics/gru/loss/recon", "dynamics/gru/validation/rmse")),
        ("Training of the trust networks", "trust", ("trust/loss",)),
        ("Training of the policies", "policy", ("policy/loss/actor",)),
    ):
        if store.exists(folder, "metrics.parquet"):
            figure = _curve(title, read_metrics(store.folder(folder), "metrics.parquet"), keys)
            if figure is not None:
                drawn.append(figure)
    return drawn


def _curve(title: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Figure | None:
    names = [n for n in (rows[0] if rows else {}) if any(n.startswith(k) for k in keys)]
    if not names:
        names = [n for n in (rows[0] if rows else {}) if "loss" in n]
    lines: dict[str, list[str]] = {}
    for name in names:  # the seeds of an arm are one line, their mean
        lines.setdefault(name.rsplit("/", 1)[0] if name.rsplit("/", 1)[-1].isdigit() else name, []).append(name)
    chart = Chart(title, "optimiser step", "loss")
    drawn = False
    for i, (label, members) in enumerate(list(lines.items())[: len(PALETTE)]):
        seen = [(row["step"], [row[m] for m in members if row.get(m) is not None]) for row in rows]
        seen = [(step, values) for step, values in seen if values]
        if len(seen) > 1:
            color = ARM_COLORS.get(label.rsplit("/", 1)[-1], PALETTE[i])
            chart.line([s for s, _ in seen], [float(np.mean(v)) for _, v in seen], label.split("/", 1)[-1], color)
            drawn = True
    caption = "Mean over seeds." if any(len(members) > 1 for members in lines.values()) else ""
    return Figure(title, chart.svg(), caption) if drawn else None


def _finite(value: Any) -> float:
    return float("nan") if value is None else float(value)
