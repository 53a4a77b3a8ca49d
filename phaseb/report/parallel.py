"""Parallel coordinates: every trial a line across one axis a setting, coloured by what it came to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from phaseb.runtime.formatting import number

WIDTH, HEIGHT = 1120, 330
LEFT, RIGHT, TOP, BOTTOM = 70, 70, 46, 28
# Viridis (van der Walt and Smith 2015), worst to best: grows evenly in lightness, so it survives grey and colour blindness.
RAMP = ("#fde725", "#b5de2b", "#6ece58", "#35b779", "#1f9e89", "#26828e", "#31688e", "#3e4989", "#482878", "#440154")


@dataclass(frozen=True)
class Axis:
    """One setting: numbers in proportion or by ratio, or categories in their order."""

    name: str
    values: Sequence[Any]
    by_ratio: bool = False
    categories: Sequence[Any] = ()

    def at(self, value: Any) -> float | None:
        """Where a value lies, 0 at the bottom and 1 at the top; None where the trial has none."""
        if self.categories:
            return self.categories.index(value) / max(1, len(self.categories) - 1) if value in self.categories else None
        known = [self._scaled(v) for v in self.values if v is not None]
        if value is None or not known:
            return None
        low, high = min(known), max(known)
        return (self._scaled(value) - low) / (high - low) if high > low else 0.5

    def ends(self) -> tuple[str, str]:
        """What is written at the bottom and at the top."""
        known = list(self.categories) or sorted(v for v in self.values if v is not None)
        return (number(known[0]), number(known[-1])) if known else ("", "")

    def _scaled(self, value: Any) -> float:
        return math.log(value) if self.by_ratio else float(value)


def parallel_coordinates(axes: Sequence[Axis], points: Sequence[Mapping[str, Any]], order: Sequence[int],
                         labels: Sequence[str]) -> str:  # fmt: skip
    """The figure as an `<svg>` element.

    Args:
        axes: left to right.
        points: of each trial its value by the axis's name.
        order: trials from the worst to the best; later ones are drawn above, and darker.
        labels: what each trial says when it is pointed at.
    """
    xs = [LEFT + i * (WIDTH - LEFT - RIGHT) / max(1, len(axes) - 1) for i in range(len(axes))]
    anchors = ["start", *["middle"] * (len(axes) - 2), "end"]
    drawn = [_axis(axis, x, i, anchors[i]) for i, (axis, x) in enumerate(zip(axes, xs, strict=True))]
    for rank, trial in enumerate(order):
        color = RAMP[round(rank / max(1, len(order) - 1) * (len(RAMP) - 1))]
        places = [axis.at(points[trial].get(axis.name)) for axis in axes]
        path = " ".join(f"{x:.1f},{_y(p):.1f}" for x, p in zip(xs, places, strict=True) if p is not None)
        drawn.append(
            f'<polyline class="path" points="{path}" stroke="{color}"><title>{escape(labels[trial])}</title></polyline>'
        )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="parallel coordinates">{"".join(drawn)}</svg>'


def _axis(axis: Axis, x: float, index: int, anchor: str) -> str:
    low, high = axis.ends()
    ticks = ""
    if 2 < len(axis.categories) <= 8:
        middle = axis.categories[1:-1]
        ticks = "".join(
            f'<text x="{x + 5:.1f}" y="{_y(axis.at(c) or 0.0) + 4:.1f}">{escape(number(c))}</text>' for c in middle
        )
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#5a6572"/>'
        f'<text class="label" x="{x:.1f}" y="{14 if index % 2 else 28}" text-anchor="{anchor}">{escape(axis.name)}</text>'
        f'<text x="{x:.1f}" y="{TOP - 5}" text-anchor="middle">{escape(high)}</text>{ticks}'
        f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{escape(low)}</text>'
    )


def _y(place: float) -> float:
    return HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)
