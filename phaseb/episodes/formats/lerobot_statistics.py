"""The statistics that LeRobot keeps of each column, `meta/stats.json`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def column_statistics(values: NDArray[Any]) -> dict[str, list[float]]:
    """Of a column (R, …), for each of its values; NaN counts as 0."""
    rows = np.nan_to_num(values.reshape(len(values), -1).astype(np.float64))
    spread = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    spread |= {name: np.quantile(rows, share, axis=0) for name, share in QUANTILES.items()}
    return {name: value.tolist() for name, value in spread.items()} | {"count": [len(rows)]}


class ImageStatistics:
    """Of a camera's three channels in [0, 1], shaped (3, 1, 1) as LeRobot wants them; exact, in bounded memory."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), np.int64)
        self._frames = 0

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Count in some frames (R, H, W, 3)."""
        self._frames += len(frames)
        for channel in range(3):
            self._counts[channel] += np.bincount(frames[..., channel].reshape(-1), minlength=256)

    def summary(self) -> dict[str, Any]:
        """The statistics of all frames so far; empty where there were none."""
        if not self._frames:
            return {}
        levels, share = np.arange(256) / 255, self._counts / self._counts.sum(1, keepdims=True)
        mean, below = share @ levels, share.cumsum(1)
        spread = {
            "mean": mean,
            "std": np.sqrt(share @ levels**2 - mean**2),
            "min": levels[(share > 0).argmax(1)],
            "max": levels[255 - (share[:, ::-1] > 0).argmax(1)],
        }
        spread |= {name: levels[(below >= at).argmax(1)] for name, at in QUANTILES.items()}
        shaped = {name: value.reshape(3, 1, 1).tolist() for name, value in spread.items()}
        return shaped | {"count": [self._frames]}
