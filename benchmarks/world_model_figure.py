"""The ablation table as a figure: the worst judge of every row at σ = 0, its mean as a bar and each seed as a dot.

python benchmarks/world_model_figure.py docs/data/world-model.jsonl docs/images/world-model.svg
"""

import argparse
import json
from html import escape
from pathlib import Path

import numpy as np

ROW, LABEL, WIDTH, TOP = 20, 250, 360, 26
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#777777"
BAR = 0.60


def draw(rows: dict[str, list[float]]) -> str:
    """SVG of one bar a row, AUC from 0.5 (chance) to 1."""
    height = TOP + ROW * len(rows) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LABEL + WIDTH + 60} {height}" font-size="12" '
        'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
    ]
    for tick in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        parts.append(
            f'<line x1="{_x(tick)}" x2="{_x(tick)}" y1="{TOP}" y2="{height - 28}" stroke="#ddd"/>'
            f'<text x="{_x(tick)}" y="{height - 12}" text-anchor="middle">{tick}</text>'
        )
    for i, (name, values) in enumerate(rows.items()):
        y, mean = TOP + ROW * i, float(np.mean(values))
        color = ORANGE if name == "defaults" else BLUE
        parts.append(
            f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{_x(0.5)}" y="{y + 4}" width="{_x(mean) - _x(0.5):.1f}" '
            f'height="{ROW - 8}" fill="{color}"/>'
            f'<text x="{LABEL + WIDTH + 8}" y="{y + 14}">{mean:.2f}</text>'
        )
        parts += [f'<circle cx="{_x(v):.1f}" cy="{y + ROW / 2}" r="2.5" fill="black"/>' for v in values]
    parts.append(
        f'<line x1="{_x(BAR)}" x2="{_x(BAR)}" y1="{TOP - 4}" y2="{height - 28}" stroke="{GREY}" '
        f'stroke-dasharray="4 3"/><text x="{_x(BAR)}" y="{TOP - 8}" text-anchor="middle">wanted</text>'
        "</svg>"
    )
    return "".join(parts)


def _x(auc: float) -> float:
    return LABEL + (auc - 0.5) / 0.5 * WIDTH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    rows: dict[str, list[float]] = {}
    for line in options.results.read_text().splitlines():
        result = json.loads(line)
        if not result["quick"]:
            name = result["row"] if result["source"] == "cell" else f"{result['source']}: {result['row']}"
            name += "" if result["train"] == 50 else f", {result['train']} episodes"
            rows.setdefault(name, []).append(result["judge_0.0"])
    options.out.write_text(draw(rows))
    print(f"{len(rows)} rows -> {options.out}")


if __name__ == "__main__":
    main()
