"""What the learners drew from the replay buffer, by source, by trust, how old it was, and how well they were fed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from phaseb.report.html import Figure
from phaseb.report.svg import ARM_COLORS, GREY, PALETTE, Chart
from phaseb.runtime.storage import Store


def drawn_figure(store: Store) -> Figure | None:
    """Synthetic transitions that were drawn, by their trust, a line an arm; None before policies are trained."""
    if not store.exists("policy", "replay.json"):
        return None
    books = store.read_json("policy", "replay.json")
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for name, book in books["streams"].items():
        arms.setdefault(name.rsplit("/", 1)[0], []).append(book)
    chart = Chart("what was drawn", "trust of a synthetic transition", "share of all transitions drawn", True)
    told = []
    for i, (arm, seeds) in enumerate(arms.items()):
        drawn = sum(s["sampled_real"] + s["sampled_synthetic"] for s in seeds)
        trust = np.sum([s["trust_synthetic"] for s in seeds], axis=0)
        share = float(trust.sum()) / max(1, drawn)
        age = float(np.mean([s["mean_age"] for s in seeds]))
        told.append(f"{arm} {drawn:,} transitions, {share:.0%} synthetic, {age:,.0f} inserts old on average")
        if share > 0:
            centres = (np.arange(len(trust)) + 0.5) / len(trust)
            color = ARM_COLORS.get(arm, PALETTE[i] if i < len(PALETTE) else GREY)
            chart.line(centres.tolist(), (trust / max(1, drawn)).tolist(), arm, color)
    return Figure("What the policies were trained on", chart.svg(), f"{'; '.join(told)}. {_fed(books)}")


def _fed(books: Mapping[str, Any]) -> str:
    """Rates, waiting and losses in words."""
    waited = f"the learner waited for data {books['wait_fraction']:.1%} of its time"
    if "shards" not in books:  # a run from before these were written down
        return f"{waited.capitalize()}."
    shards = books["shards"]
    rate = books["inserted"] / max(books["insert_s"], 1e-9)
    lost, evicted = (sum(shard.get(name, 0) for shard in shards) for name in ("lost", "evicted"))
    where = f"{len(shards)} shard{'s' * (len(shards) > 1)}"
    return (
        f"{where} took {books['inserted']:,} transitions in at {rate:,.0f} a second and gave {books['sampled_per_s']:,.0f} "
        f"a second, {books['queue_depth']:.0f} calls ahead; {waited}. "
        f"{lost:,} were lost to crashes, {evicted:,} pushed out by newer ones."
    )
