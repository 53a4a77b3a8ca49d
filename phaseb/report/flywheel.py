"""The page of a flywheel: what ships now, what every generation earned, why it was promoted or kept, what drifted.

Read from `flywheel.json` alone, so it can be written again at any time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from phaseb.report.attribution import worth_section, worth_sentence
from phaseb.report.html import Figure, document, gallery, paragraph, section, table
from phaseb.report.run_page import HEADINGS
from phaseb.report.svg import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Chart
from phaseb.runtime.formatting import duration, interval, number

MEASURES = ("mpl", "error_rate", "energy_wh_per_unit", "net_value_per_hour", "return")
TRUST = {
    "pass_rate": ("rollouts that pass the gate", GREEN),
    "roc_auc": ("gate's ROC AUC", BLUE),
    "judge_auc": ("worst judge's AUC", RED),
    "effective_contribution": ("synthetic share of the training weight", ORANGE),
}
"""What is drawn of trust: all are shares of one."""


def flywheel_page(tree: Mapping[str, Any]) -> str:
    """The whole page."""
    summary = flywheel_summary(tree)
    kept = summary["promotions"] < 2
    return document(
        f"{tree['title']}: flywheel",
        [
            paragraph(summary["verdict"], "verdict kept" if kept else "verdict"),
            section("Over the generations", gallery(_figures(tree["generations"]))),
            section("Generations", _generations(tree["generations"])),
            worth_section(next((g["worth"] for g in reversed(tree["generations"]) if g.get("worth")), None)),
            section(
                "Drift",
                paragraph("new episodes beside held-out ones of the time when a part was trained"),
                _drift(tree["generations"]),
            ),
            section("Files that were not taken", _rejected(tree.get("rejected") or [])),
        ],
    )


def flywheel_summary(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says, as plain data."""
    generations = tree["generations"]
    return {
        "verdict": _verdict(tree),
        "shipped": tree["shipped"],
        "ended_by": tree["ended_by"],
        "promotions": sum(bool(g["promoted"]) for g in generations),
        "generations": [_told(g) for g in generations],
        "real_episodes": _real(generations),
        "seconds": tree["seconds"],
    }


def _told(generation: Mapping[str, Any]) -> dict[str, Any]:
    names = ("number", "state", "promoted", "arm", "retrained", "episodes", "trust", "seconds", "reason")
    told = {name: generation.get(name) for name in names if generation.get(name) is not None}
    if generation.get("worth"):
        told["collect_next"] = worth_sentence(generation["worth"])
    if "metrics" in generation:
        told["metrics"] = {name: generation["metrics"].get(name) for name in MEASURES}
        told["reason"] = generation["decision"]["reason"]
    return told


def _verdict(tree: Mapping[str, Any]) -> str:
    done = [g for g in tree["generations"] if g["state"] == "done"]
    if not done:
        return "No generation has ended yet."
    promoted = [g for g in done if g["promoted"]]
    first, last = promoted[0], promoted[-1]
    told = f"Generation {last['number']}'s policy is shipped"
    for name in MEASURES:
        pair = [g["metrics"].get(name) or {} for g in (first, last)]
        if all(p.get("mean") is not None for p in pair) and first is not last:
            told += f"; {HEADINGS[name]} went from {number(pair[0]['mean'])} to {number(pair[1]['mean'])}"
    failed = sum(g["state"] == "failed" for g in tree["generations"])
    counts = f"{len(promoted)} of {len(tree['generations'])} generations were promoted"
    counts += f", {failed} failed" if failed else ""
    ended = f" It stopped because {tree['ended_by']}." if tree["ended_by"] else ""
    return f"{told}. {counts}, {_real(tree['generations'])} real episodes were spent.{ended}"


def _real(generations: Sequence[Mapping[str, Any]]) -> int:
    done = [g for g in generations if g["state"] == "done"]
    return done[-1]["episodes"]["real"] + sum(g["episodes"]["spent"] for g in done) if done else 0


def _figures(generations: Sequence[Mapping[str, Any]]) -> list[Figure]:
    done = [g for g in generations if g["state"] == "done"]
    drawn = [_measure(done, name) for name in MEASURES]
    return [figure for figure in (*drawn, _trust(done)) if figure is not None]


def _measure(done: Sequence[Mapping[str, Any]], name: str) -> Figure | None:
    """Every generation's own policy with its interval, and the one that was shipped after it."""
    values = {g["number"]: g["metrics"].get(name) or {} for g in done}
    known = [n for n, v in values.items() if v.get("mean") is not None]
    if not known:
        return None
    chart = Chart(HEADINGS[name], "generation", HEADINGS[name])
    banded = [n for n in known if values[n].get("low") is not None]
    if len(banded) > 1:
        chart.band(banded, [values[n]["low"] for n in banded], [values[n]["high"] for n in banded], "95 %", PURPLE)
    chart.line(known, [values[n]["mean"] for n in known], "the generation's own policy", PURPLE, dashed=True)
    after = [(g["number"], values[g["shipped"]["generation"]].get("mean")) for g in done if g.get("shipped")]
    shipped = [(n, float(v)) for n, v in after if v is not None]
    chart.line([n for n, _ in shipped], [v for _, v in shipped], "what is shipped after it", GREEN)
    caption = "Measured on the same episodes in every generation, which no decision saw."
    return Figure(HEADINGS[name], chart.svg(), caption)


def _trust(done: Sequence[Mapping[str, Any]]) -> Figure | None:
    chart, drawn = Chart("trust", "generation", "share"), False
    for name, (label, color) in TRUST.items():
        seen = [(g["number"], float(v)) for g in done if isinstance(v := g["trust"].get(name), (int, float))]
        if seen:
            chart.line([n for n, _ in seen], [v for _, v in seen], label, color)
            drawn = True
    chart.level(0.5, "a coin", GREY)
    return Figure("Trust", chart.svg(), "Of the synthetic data of each generation.") if drawn else None


def _generations(generations: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for g in generations:
        if g["state"] == "failed":
            rows.append([str(g["number"]), "failed", *["–"] * (len(MEASURES) + 4), g["reason"]])
            continue
        episodes = g["episodes"]
        rows.append(
            [
                str(g["number"]),
                f"{'promoted' if g['promoted'] else 'kept'} ({g['arm']})",
                *(interval(g["metrics"].get(name)) for name in MEASURES),
                number(episodes["train"]),
                f"{number(episodes['new'])} + {number(episodes['spent'])}",
                ", ".join(g["retrained"]) or "policy alone",
                duration(g["seconds"]),
                g["decision"]["reason"],
            ]
        )
    header = [
        "generation",
        "",
        *(HEADINGS[m] for m in MEASURES),
        "training episodes",
        "new + for decisions",
        "trained again",
        "time",
        "why",
    ]
    return table(header, rows, told=True)


def _drift(generations: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            str(g["number"]),
            t["part"],
            t["name"],
            number(t["held_out"]),
            number(t["new"]),
            f"{t['p']:.2g}",
            number(t["num_new"]),
            "drifted" if t["drifted"] else "as before",
        ]
        for g in generations
        if g["state"] == "done"
        for t in g["plan"]["tests"]
    ]
    header = ["generation", "part", "test", "held out", "new", "p", "new episodes", ""]
    return table(header, rows) if rows else paragraph("nothing was tested")


def _rejected(files: Sequence[Mapping[str, str]]) -> str:
    return table(["file", "why"], [[f["name"], f["reason"]] for f in files], told=True) if files else ""
