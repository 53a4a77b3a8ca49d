"""Work on a GPU as a CUDA graph: its thousands of small kernels are launched as one, for launches are what it costs.

A graph replays fixed addresses, so inputs are copied into its own and what it made is there until the next replay.
"""

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from phaseb import logs

Made = TypeVar("Made")

EAGER_STEPS = 3
"""Steps before one is captured: they warm libraries up, which must not happen within a capture; what is not done more
often gains nothing from one."""


class CapturedStep(Generic[Made]):
    """`step(*tensors)` on a GPU, captured on the tensors given here; called, it replays on others of the same shapes.

    The step must not wait for the device, and whatever it changes in place must already be where it will stay.
    """

    def __init__(self, step: Callable[..., Made], tensors: tuple[Tensor | None, ...]) -> None:
        self._inputs = tuple(None if x is None else x.clone() for x in tensors)
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph):
            self._made = step(*self._inputs)

    @classmethod
    def attempt(cls, step: Callable[..., Made], tensors: tuple[Tensor | None, ...]) -> "CapturedStep[Made] | None":
        """None where the step cannot be captured: a line in the log says why, and it is to be done as it was."""
        try:
            return cls(step, tensors)
        except RuntimeError as error:
            logs.event("a step cannot be captured", logging.WARNING, reason=str(error).strip().splitlines()[0])
            return None

    def __call__(self, *tensors: Tensor | None) -> Made:
        """What the step makes of the tensors; overwritten by the next call."""
        for mine, given in zip(self._inputs, tensors, strict=True):
            if mine is not None and given is not None:
                mine.copy_(given)
        self._graph.replay()
        return self._made
