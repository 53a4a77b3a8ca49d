"""Where each feature of a picture is seen (deep spatial autoencoders, Finn et al. 2016), with gradients written out.

Shapes: M pictures, N pixels, P features.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

CHUNK = 4
"""Pictures taken at a time on a CPU, so that all that is computed of them stays in its cache."""


def spatial_softmax(seen: Tensor, sharpness: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Expected coordinates and expected strength of each feature under softmax(sharpness * seen) over the pixels.

    Args:
        seen: features (M, N, P), float32.
        sharpness: of each (P,).
        place: coordinates of the pixels (2, N); no gradient.

    Returns:
        coordinates (M, 2, P) and strength (M, P).
    """
    apply = cast(Callable[..., tuple[Tensor, Tensor]], _SpatialSoftmax.apply)
    return apply(seen, sharpness, place)


class _SpatialSoftmax(torch.autograd.Function):
    """By hand because autograd goes through main memory ten times for each picture on a CPU."""

    @staticmethod
    def forward(ctx: Any, seen: Tensor, sharpness: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        weight = torch.empty_like(seen)
        located, strength = seen.new_empty(len(seen), 2, seen.shape[2]), seen.new_empty(len(seen), seen.shape[2])
        for rows in _chunks(seen):
            torch.softmax(seen[rows] * sharpness, dim=1, out=weight[rows])
            torch.matmul(place, weight[rows], out=located[rows])
            torch.sum(weight[rows] * seen[rows], dim=1, out=strength[rows])
        ctx.save_for_backward(seen, sharpness, place, weight, located, strength)
        return located, strength

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        seen, sharpness, place, weight, located, strength = ctx.saved_tensors
        grad_located, grad_strength = grad_outputs[0], grad_outputs[1][:, None]
        # The gradient of softmax takes off the mean of what comes from above; that mean is known.
        mean = (located * grad_located).sum(1, keepdim=True) + strength[:, None] * grad_strength
        grad_seen, grad_sharpness = torch.empty_like(seen), torch.zeros_like(sharpness)
        for rows in _chunks(seen):
            above = torch.matmul(place.T, grad_located[rows]).sub_(mean[rows])
            scores = above.addcmul_(seen[rows], grad_strength[rows]).mul_(weight[rows])
            grad_sharpness += (scores * seen[rows]).sum((0, 1))
            torch.mul(scores, sharpness, out=grad_seen[rows])
            grad_seen[rows].addcmul_(weight[rows], grad_strength[rows])
        return grad_seen, grad_sharpness, None


def _chunks(seen: Tensor) -> list[slice]:
    size = CHUNK if seen.device.type == "cpu" else max(1, len(seen))
    return [slice(i, i + size) for i in range(0, len(seen), size)]
