"""Charts as inline SVG: axes, lines, bands, points, bars. Every mark says its value when pointed at (`<title>`).

Written here because nothing else gives hoverable, printable figures of a few kilobytes without a script: the smallest
JavaScript chart bundle is 1.2 MB.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, isfinite, log10

from phaseb.runtime.formatting import number

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 14, 14, 48
MAX_LABEL_CHARS = 64  # that fit in one row under the plot
CHAR_WIDTH = 6.8  # of a label, at most on average
# Okabe and Ito (2008), "Color Universal Design": told apart by colour-blind readers, and in grey.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#777777",
)
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY)
ARM_COLORS = {
    "behaviour_cloning": GREY,
    "real_only": BLUE,
    "real_only_sac": SKY,
    "fixed_weight": RED,
    "bounds_filter": PURPLE,
    "trust_weighted": GREEN,
    "placebo_trust_weighted": ORANGE,
}

Numbers = Sequence[float]


@dataclass
class Chart:
    """A figure that grows mark by mark; `svg()` fits the axes to all of them."""

    title: str
    x_label: str = ""
    y_label: str = ""
    y_from_zero: bool = False
    categories: Sequence[str] = ()
    _marks: list[tuple[str, list[float], list[float], dict[str, object]]] = field(default_factory=list)

    def line(
        self, x: Numbers, y: Numbers, name: str, color: str, dashed: bool = False, group: str = "", dots: bool = True
    ) -> "Chart":
        """A polyline with a dot at every point (dots carry the values); `group` as for points."""
        return self._add("line", x, y, name=name, color=color, dashed=dashed, group=group, dots=dots)

    def band(self, x: Numbers, low: Numbers, high: Numbers, name: str, color: str) -> "Chart":
        """A shaded interval around a line."""
        return self._add("band", [*x, *reversed(list(x))], [*low, *reversed(list(high))], name=name, color=color)

    def points(
        self,
        x: Numbers,
        y: Numbers,
        name: str,
        color: str,
        labels: Sequence[str] = (),
        radius: float = 2.2,
        group: str = "",
    ) -> "Chart":
        """A cloud; `group` names the set that a slider shows and hides."""
        return self._add("points", x, y, name=name, color=color, labels=labels, radius=radius, group=group)

    def bars(self, y: Numbers, low: Numbers, high: Numbers, colors: Sequence[str]) -> "Chart":
        """One bar a category, with its interval as a whisker (NaN where there is none)."""
        x = list(range(len(y)))
        self._add("bars", x, y, colors=colors)
        return self._add("whiskers", [*x, *x], [*low, *high])

    def mark(self, x: float, name: str, color: str = GREY, group: str = "") -> "Chart":
        """A vertical line at one place."""
        return self._add("mark", [x], [], name=name, color=color, group=group)

    def text(self, x: float, y: float, words: str) -> "Chart":
        """Words centred at a point."""
        return self._add("text", [x], [y], words=words)

    def level(self, y: float, name: str, color: str = GREY) -> "Chart":
        """A horizontal reference line."""
        return self._add("level", [], [y], name=name, color=color)

    def svg(self) -> str:
        """The figure as an `<svg>` element, under its legend (which is HTML, so that it wraps)."""
        frame = self._frame()
        body = "".join(_grouped(_draw(kind, x, y, options, frame), options) for kind, x, y, options in self._marks)
        return (
            f'{self._legend()}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title)}">'
            f"{self._axes(frame)}{body}</svg>"
        )

    def _add(self, kind: str, x: Numbers, y: Numbers, **options: object) -> "Chart":
        self._marks.append((kind, [float(v) for v in x], [float(v) for v in y], options))
        return self

    def _frame(self) -> "_Frame":
        xs = [v for _, x, _, _ in self._marks for v in x if isfinite(v)] or [0.0, 1.0]
        ys = [v for _, _, y, _ in self._marks for v in y if isfinite(v)] or [0.0, 1.0]
        if self.categories:
            xs = [-0.6, len(self.categories) - 0.4]
        if self.y_from_zero:
            ys = [*ys, 0.0]
        pad_x = 0.0 if self.categories else 0.02 * ((max(xs) - min(xs)) or 1.0)
        pad_y = 0.06 * ((max(ys) - min(ys)) or 1.0)
        low = min(ys) if self.y_from_zero and min(ys) == 0 else min(ys) - pad_y
        return _Frame(min(xs) - pad_x, max(xs) + pad_x, low, max(ys) + pad_y)

    def _axes(self, frame: "_Frame") -> str:
        parts = [
            f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" class="box"/>'
        ]
        for value in _ticks(frame.y0, frame.y1):
            y = frame.y(value)
            parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>'
            )
        labels: list[tuple[float, str]] = [(float(i), name) for i, name in enumerate(self.categories)] or [
            (v, number(v)) for v in _ticks(frame.x0, frame.x1)
        ]
        crowded = sum(len(text) + 2 for text in self.categories) > MAX_LABEL_CHARS
        for i, (value, text) in enumerate(labels):
            y = HEIGHT - BOTTOM + (28 if crowded and i % 2 else 15)  # neighbours that would touch stand in two rows
            x = min(frame.x(value), WIDTH - CHAR_WIDTH * len(text) / 2)  # a long name ends within the figure
            parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(text)}</text>')
        parts.append(
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle" class="label">'
            f"{escape(self.x_label)}</text>"
        )
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle" class="label">'
            f"{escape(self.y_label)}</text>"
        )
        return "".join(parts)

    def _legend(self) -> str:
        named: dict[str, str] = {}
        for kind, _, _, options in self._marks:
            if options.get("name") and kind not in ("band", "mark"):
                named.setdefault(str(options["name"]), str(options["color"]))
        if not named:
            return ""
        keys = (f'<span><i style="background:{color}"></i>{escape(name)}</span>' for name, color in named.items())
        return f'<div class="legend">{"".join(keys)}</div>'


@dataclass(frozen=True)
class _Frame:
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)


def _grouped(drawn: str, options: dict[str, object]) -> str:
    group = options.get("group")
    return f'<g class="cloud" data-group="{escape(str(group))}">{drawn}</g>' if group else drawn


def _draw(kind: str, x: list[float], y: list[float], options: dict[str, object], frame: _Frame) -> str:
    color = options.get("color", GREY)
    if kind == "level":
        at = frame.y(y[0])
        return (
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{color}" '
            f'stroke-dasharray="5 4"><title>{escape(str(options["name"]))}: {number(y[0])}</title></line>'
        )
    if kind == "mark":
        at = frame.x(x[0])
        return (
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{color}" '
            f'stroke-width="2" stroke-dasharray="5 4"><title>{escape(str(options["name"]))}</title></line>'
        )
    if kind == "text":
        return (
            f'<text class="name" x="{frame.x(x[0]):.1f}" y="{frame.y(y[0]):.1f}" text-anchor="middle">'
            f"{escape(str(options['words']))}</text>"
        )
    if kind == "bars":
        return _bars(x, y, options, frame)
    if kind == "whiskers":
        return _whiskers(x, y, frame)
    seen = [(a, b) for a, b in zip(x, y, strict=True) if isfinite(a) and isfinite(b)]
    path = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in seen)
    if kind == "band":
        return f'<polygon points="{path}" fill="{color}" opacity="0.18"/>'
    if kind == "line":
        dash = ' stroke-dasharray="6 4"' if options["dashed"] else ""
        dots = "" if len(seen) > 80 or not options["dots"] else _dots(seen, options, frame, 2.4)
        return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>{dots}'
    return _dots(seen, options, frame, float(str(options["radius"])))


def _dots(seen: list[tuple[float, float]], options: dict[str, object], frame: _Frame, radius: float) -> str:
    labels = options.get("labels") or ()
    assert isinstance(labels, Sequence)
    return "".join(
        f'<circle cx="{frame.x(a):.1f}" cy="{frame.y(b):.1f}" r="{radius}" fill="{options["color"]}" opacity="0.75">'
        f"<title>{escape(str(labels[i]) if i < len(labels) else str(options['name']))}: {number(a)}, {number(b)}</title></circle>"
        for i, (a, b) in enumerate(seen)
    )


def _bars(x: list[float], y: list[float], options: dict[str, object], frame: _Frame) -> str:
    colors = options["colors"]
    assert isinstance(colors, Sequence)
    zero, parts = frame.y(max(0.0, frame.y0)), []
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        if isfinite(b):
            top, left, right = frame.y(b), frame.x(a - 0.3), frame.x(a + 0.3)
            parts.append(
                f'<rect x="{left:.1f}" y="{min(top, zero):.1f}" width="{right - left:.1f}" '
                f'height="{abs(zero - top):.1f}" fill="{colors[i]}"><title>{number(b)}</title></rect>'
            )
    return "".join(parts)


def _whiskers(x: list[float], y: list[float], frame: _Frame) -> str:
    half, parts = len(x) // 2, []
    for i in range(half):
        low, high = y[i], y[i + half]
        if isfinite(low) and isfinite(high):
            at = frame.x(x[i])
            parts.append(
                f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{frame.y(low):.1f}" y2="{frame.y(high):.1f}" '
                f'stroke="#222" stroke-width="2"><title>95 % interval {number(low)} to {number(high)}</title></line>'
            )
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    size = 10 ** floor(log10(raw))
    step = next(m * size for m in (1, 2, 5, 10) if m * size >= raw)
    first = ceil(low / step)
    return [round((first + i) * step, 12) for i in range(int((high - first * step) / step) + 1)]
