"""The policy table as a picture: every seed with its arms, beside the oracle.

python benchmarks/policy_figure.py docs/data/policy-15.json docs/data/policy-50.json --out docs/images/policy.svg
"""

import argparse
import json
from pathlib import Path
from typing import Any

ARMS = ("real_only", "noise", "mix", "trust_weighted")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, TALLEST = 380, 300, 52, 12, 30, 40, 1000.0
GREEN, RED, GREY = "#009E73", "#D55E00", "#777777"
STYLE = "text{font:12px sans-serif;fill:#333} .grid{stroke:#ddd} .oracle{stroke:#777;stroke-dasharray:5 4}"


def panel(study: dict[str, Any], shift: int) -> str:
    """One number of episodes: a line a seed from arm to arm, green where it ends higher than real_only."""
    seeds = [scores for scores in study["seeds"].values() if {"real_only", "trust_weighted"} <= set(scores)]
    arms = [arm for arm in ARMS if any(arm in scores for scores in seeds)]
    step = (WIDTH - LEFT - RIGHT) / len(arms)

    def x(arm: str) -> float:
        return shift + LEFT + (arms.index(arm) + 0.5) * step

    def y(net: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * net / TALLEST

    right = shift + WIDTH - RIGHT
    parts = [f'<text x="{(shift + LEFT + right) / 2}" y="16" text-anchor="middle">{study["episodes"]} episodes</text>']
    for tick in range(0, 1001, 250):
        parts.append(
            f'<line class="grid" x1="{shift + LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
            f'<text x="{shift + LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick}</text>'
        )
    best = y(study["oracle"]["net_value_per_hour"])
    parts.append(
        f'<line class="oracle" x1="{shift + LEFT}" x2="{right}" y1="{best:.1f}" y2="{best:.1f}"/>'
        f'<text x="{right}" y="{best - 5:.1f}" text-anchor="end">oracle</text>'
    )
    for scores in seeds:
        nets = {arm: scores[arm]["net_value_per_hour"] for arm in arms if arm in scores}
        color = GREEN if nets["trust_weighted"] > nets["real_only"] else RED
        path = " ".join(f"{x(arm):.1f},{y(net):.1f}" for arm, net in nets.items())
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" opacity="0.55"/>')
        parts += [f'<circle cx="{x(a):.1f}" cy="{y(n):.1f}" r="3" fill="{color}"/>' for a, n in nets.items()]
    for arm in arms:
        parts.append(f'<text x="{x(arm):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{arm}</text>')
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    panels = [panel(json.loads(path.read_text()), i * WIDTH) for i, path in enumerate(args.studies)]
    size = f'viewBox="0 0 {WIDTH * len(panels)} {HEIGHT}"'
    args.out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>Net value in $ an hour, a line a seed'
        f"</title><style>{STYLE}</style>{''.join(panels)}</svg>\n"
    )


if __name__ == "__main__":
    main()
