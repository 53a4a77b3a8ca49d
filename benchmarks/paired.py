"""Ways of doing one thing, timed one after the other in the same process, again and again; ratios are of neighbours.

Other work on a machine stretches the clock for whoever runs at that moment. So each repeat runs every way once, a ratio
is taken within a repeat, and the median over repeats is told; by default of processor time, which waiting does not
count.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

Ways = Mapping[str, Callable[[], Any]]


def timed(ways: Ways, repeats: int, clock: Callable[[], float] = time.process_time) -> dict[str, list[float]]:
    """Seconds of every way in every repeat, after one repeat that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            started = clock()
            way()
            if repeat:
                seconds[name].append(clock() - started)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], slow: str, fast: str) -> dict[str, float]:
    """How many times faster `fast` is than `slow`: median, least and most over repeats."""
    ratios = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def gemm_rate(members: int, rows: int, inputs: int, outputs: int, repeats: int = 7) -> float:
    """GFLOP/s of this machine's batched product of these shapes: the median over repeats of processor time."""
    x, w = torch.randn(members, rows, inputs), torch.randn(members, inputs, outputs)
    times = max(1, int(2e9 / (2 * members * rows * inputs * outputs)))
    seconds = timed({"product": lambda: [torch.bmm(x, w) for _ in range(times)]}, repeats)["product"]
    return 2e-9 * members * rows * inputs * outputs * times / statistics.median(seconds)


def copy_rate(mb: int = 256, repeats: int = 7) -> float:
    """GB/s of memory read and written by a copy too large for the caches."""
    x, y = torch.ones(mb * 250_000), torch.empty(mb * 250_000)
    seconds = timed({"copy": lambda: y.copy_(x)}, repeats)["copy"]
    return 2e-3 * mb / statistics.median(seconds)


def told(ratio_of: Mapping[str, float]) -> str:
    return f"{ratio_of['median']:.2f} [{ratio_of['least']:.2f} … {ratio_of['most']:.2f}]"


def show(title: str, rows: Sequence[tuple[str, str, str]], result: Mapping[str, Any], out: str | None) -> None:
    """A table of (what, measured, bar), then the result as one JSON line, also written to `out`."""
    print(f"\n{title}\n| | measured | bar |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {row[0]} | {row[1]} | {row[2]} |")
    line = json.dumps(result)
    print(line)
    if out:
        Path(out).write_text(line + "\n")
