"""What the bricks of data are worth, as a table and a sentence: read from worth.json."""

from collections.abc import Mapping
from typing import Any

from phaseb.report.html import paragraph, section, table
from phaseb.runtime.formatting import interval, number, signed
from phaseb.runtime.storage import Store

FILE = ("worth", "worth.json")


def read_worth(store: Store) -> dict[str, Any] | None:
    """What `phaseb worth` found in a run; None where it was not asked."""
    return store.read_json(*FILE) if store.exists(*FILE) else None


def worth_section(told: Mapping[str, Any] | None) -> str:
    """The part of a page that tells it; nothing where it was not asked."""
    if told is None:
        return ""
    rows = [
        [
            row["brick"],
            number(row["episodes"]),
            _people(row["operators"]),
            number(row["economics"].get("value_per_hour")),
            f"{row['estimate']:.0%}",
            *_loss(row.get("loss")),
        ]
        for row in told["bricks"]
    ]
    header = [
        "brick",
        "episodes",
        "by",
        "its own value ($ / h)",
        "share of the policy's steps",
        "lost without it",
        "interval",
    ]
    return section("What the data is worth", paragraph(worth_sentence(told)), table(header, rows), *_curve(told))


def worth_sentence(told: Mapping[str, Any]) -> str:
    """What to collect next, and how far the estimate is to be believed."""
    nearest = told["next"]
    who = f" ({_people(nearest['operators'])})" if nearest["operators"] else ""
    said = f"Collect more like {nearest['brick']}{who}: its episodes are worth most to {told['arm']}, each."
    if told["rank_correlation"] is not None and told["rank_correlation"] == told["rank_correlation"]:
        said += f" The estimate ranks bricks as leaving them out does, with correlation {told['rank_correlation']:.2f}."
    starts = nearest.get("starts")
    if starts:
        said += (
            f" A quarter of new starts would teach the world model most: its members disagree about them by"
            f" {number(starts['doubt'])}, about all by {number(starts['doubt_of_all'])}."
        )
    return said


def _curve(told: Mapping[str, Any]) -> list[str]:
    """How many real episodes synthetic data is worth, where the curve was asked for."""
    curve = told.get("episodes_worth")
    if curve is None:
        return []
    gated, last = curve["candidate"], curve["control"][-1]["episodes"]
    said = f"Synthetic data is worth {curve['told']} times its real episodes at {gated['episodes']}"
    said += f": more than {last} would be needed, all there are." if curve["beyond"] else "."
    rows = [[curve["control_arm"], number(p["episodes"]), interval(p)] for p in curve["control"]]
    rows.append([curve["candidate_arm"], number(gated["episodes"]), interval(gated)])
    return [paragraph(said), table(["arm", "training episodes", f"earns ({curve['unit']})"], rows)]


def _people(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {who}" for who, count in operators.items()) or "–"


def _loss(loss: Mapping[str, Any] | None) -> list[str]:
    if loss is None:
        return ["–", "–"]
    return [signed(loss["difference"]), f"[{number(loss['low'])}, {number(loss['high'])}]"]
