"""The weights of an exported LeRobot data set, by the interface of LeRobot's `SampleWeighter`.

LeRobot's training loop (0.6) multiplies each sample's loss by its weight and divides by the sum of the weights. It
makes only the weighters that it knows, so a script of yours passes this one in their place.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from phaseb.episodes.parquet_file import naming, read_table
from phaseb.errors import DataError
from phaseb.runtime.storage import Store


class TrustWeighter:
    """Weights of frames by their `index` in the data set.

    Args:
        root: the folder that `phaseb export --format lerobot` wrote.
        device: of the weights; the batch's own by default.

    Raises:
        DataError: where the folder holds no weights, or its indices are not 0 to N - 1.
    """

    def __init__(self, root: str, device: torch.device | str | None = None) -> None:
        store, parts = Store.at(root), list[pa.Table]()
        for folder in store.folders("data"):
            for name in store.names("data", folder, suffix=".parquet"):
                path = f"data/{folder}/{name}"
                with naming(store, path):
                    table = read_table(store, path, lambda column: column in ("index", "weight"))
                    if table.num_columns != 2:
                        raise DataError("has no columns `index` and `weight`: export it with phaseb")
                    parts.append(table)
        if not parts:
            raise DataError(f"{root} holds no data/*/*.parquet; name the folder that phaseb exported")
        index, weight = (np.concatenate([part[name].to_numpy() for part in parts]) for name in ("index", "weight"))
        order = np.argsort(index)
        if not np.array_equal(index[order], np.arange(len(index))):
            raise DataError(f"{root} does not number its frames from 0 to {len(index) - 1}; export it again")
        self.weights = torch.from_numpy(np.nan_to_num(weight[order]).astype(np.float32))
        self._device = device

    def compute_batch_weights(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, float]]:
        """The weights (B,) of a batch by its `index` (B,), and their mean and the share of frames without weight."""
        index = batch["index"]
        weights = self.weights[index.reshape(-1).long().cpu()]
        stats = {"mean_weight": float(weights.mean()), "zero_share": float((weights == 0).float().mean())}
        return weights.to(self._device or index.device), stats

    def get_stats(self) -> dict[str, float | str]:
        """Of the whole data set."""
        share = float((self.weights == 0).float().mean())
        return {"type": "trust", "mean_weight": float(self.weights.mean()), "zero_share": share}
