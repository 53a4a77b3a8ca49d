"""The weights of an exported LeRobot data set, by the interface of LeRobot's `SampleWeighter`.

LeRobot's training loop (0.6) multiplies each sample's loss by its weight and divides by the sum of the weights. It
makes only the weighters that it knows: `phaseb.integrations.lerobot_train` runs it with this one.

Shapes: B samples of a batch, K actions of a chunk.
"""

from collections.abc import Sequence
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
        offsets: (K,) where the actions of a chunk lie, in frames from the sample's own. A batch's actions behind a
            frame without weight are then marked as padding (`action_is_pad`), which ACT, SmolVLA and EVO1 leave out.

    Raises:
        DataError: where the folder holds no weights, or its indices are not 0 to N - 1.
    """

    def __init__(
        self, root: str, device: torch.device | str | None = None, offsets: Sequence[int] | None = None
    ) -> None:
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
        self._device, self._offsets = device, offsets

    def compute_batch_weights(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, float]]:
        """The weights (B,) of a batch by its `index` (B,), and their mean and the share of frames without weight."""
        index = batch["index"]
        weights = self.weights[index.reshape(-1).long().cpu()]
        stats = {"mean_weight": float(weights.mean()), "zero_share": float((weights == 0).float().mean())}
        if self._offsets is not None and "action_is_pad" in batch:
            behind = self.chunk_shares(index) == 0
            behind[weights == 0] = False  # such a sample counts nowhere, and a policy may need an action
            batch["action_is_pad"] = batch["action_is_pad"] | behind.to(batch["action_is_pad"].device)
        return weights.to(self._device or index.device), stats

    def chunk_shares(self, index: torch.Tensor) -> torch.Tensor:
        """(B, K) the shares of a sample's weight that the actions of its chunk have.

        An action has the least weight of the chunk up to it, so none counts behind a frame without weight. Actions
        beyond the episode's end have a share too: LeRobot marks these as padding.

        Args:
            index: (B,) the samples' frames.
        """
        first = index.reshape(-1, 1).long().cpu()
        rows = (first + torch.as_tensor(self._offsets or (0,))).clamp(0, len(self.weights) - 1)
        least = torch.minimum(self.weights[rows], self.weights[first]).cummin(1).values
        return torch.where(self.weights[first] > 0, least / self.weights[first], 0.0)

    def get_stats(self) -> dict[str, float | str]:
        """Of the whole data set."""
        share = float((self.weights == 0).float().mean())
        return {"type": "trust", "mean_weight": float(self.weights.mean()), "zero_share": share}


def chunk_losses(error: torch.Tensor, shares: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(B,) losses whose weighted mean over the samples is the weighted mean error of all actions.

    Equal weights give the plain mean over the actions that are no padding, as LeRobot's ACT takes it.

    Args:
        error: (B, K) of each action.
        shares: (B, K) of the sample's weight, 0 for padding.
        weights: (B,) of the samples.
    """
    actions = (weights[:, None] * shares).sum() / weights.sum().clamp(min=1e-9)
    return (shares * error).sum(1) / actions.clamp(min=1e-9)
