"""In what precision the layers of networks multiply: float32, or bfloat16 where it is asked for.

Only the products of layers, which is where the time goes: weights, sums, losses, coordinates and what a network says
stay float32, and so does everything that is done with a trained network. By hand, because most layers here multiply
for many networks at once, beside arithmetic (distances, changes of coordinates) that must not lose digits.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

_half = False


@contextmanager
def bf16_matmul(on: bool = True) -> Iterator[None]:
    """Within it, `product` and `layers` of this process multiply in bfloat16."""
    global _half
    before, _half = _half, on
    try:
        yield
    finally:
        _half = before


def bf16_enabled() -> bool:
    """Whether layers multiply in bfloat16 now."""
    return _half


def batched_linear(bias: Tensor | None, x: Tensor, weight: Tensor) -> Tensor:
    """bias + x weight for a stack of layers: (G, 1 or B, O), (G, B, I), (G, I, O) -> (G, B, O), in x's type."""
    if not _half:
        return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)
    multiplied = torch.bmm(x.bfloat16(), weight.bfloat16()).to(x.dtype)
    return multiplied if bias is None else bias + multiplied


def layers(device: torch.device) -> AbstractContextManager[object]:
    """Around torch's own layers (`Linear`, `Conv2d`): the same for them. What they give is bfloat16 then."""
    return torch.autocast(device.type, torch.bfloat16) if _half else nullcontext()
