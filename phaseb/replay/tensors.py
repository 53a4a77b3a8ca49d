"""Batches as torch tensors: without a copy on the CPU, through pinned memory to a GPU."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.config.policy import ReplayConfig


def to_tensors(batch: Mapping[str, NDArray[Any]], device: torch.device, config: ReplayConfig) -> dict[str, Tensor]:
    """The arrays of a batch as tensors on a device.

    On the CPU they share the batch's memory, which must not be written to. To a GPU they travel asynchronously from
    pinned memory, unless `replay.pin_memory` is `never`; whoever reads them on the current stream reads them whole.
    """
    pinned = config.pin_memory == "always" or (config.pin_memory == "auto" and device.type == "cuda")
    tensors = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        for name, array in batch.items():
            tensor = torch.from_numpy(array if device.type == "cpu" else np.ascontiguousarray(array))
            tensors[name] = (tensor.contiguous().pin_memory() if pinned else tensor).to(device, non_blocking=pinned)
    return tensors
