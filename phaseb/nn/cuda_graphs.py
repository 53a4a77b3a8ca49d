"""Work on a GPU as a CUDA graph: its thousands of small kernels are launched as one, for launches are what it costs.

A graph replays fixed addresses, so inputs are copied into its own and what it made is there until the next replay.
"""

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from phaseb.runtime import logs

Made = TypeVar("Made")

WARMUP_CALLS = 3
"""Times that something is done as it is before it is captured: they warm libraries up, which must not happen within a
capture; what is not done more often gains nothing from one."""


class CudaGraph(Generic[Made]):
    """`step(*tensors)` on a GPU, captured on the tensors given here; called, it replays on others of these shapes."""

    def __init__(self, step: Callable[..., Made], tensors: tuple[Tensor | None, ...]) -> None:
        self._inputs = tuple(None if x is None else x.clone() for x in tensors)
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph):
            self._made = step(*self._inputs)

    def __call__(self, *tensors: Tensor | None) -> Made:
        """What the step makes of the tensors; overwritten by the next call."""
        for mine, given in zip(self._inputs, tensors, strict=True):
            if mine is not None and given is not None:
                mine.copy_(given)
        self._graph.replay()
        return self._made


class GraphedFunction(Generic[Made]):
    """`step(*tensors)`, replayed as a graph once it has been done a few times: anew for every set of shapes.

    The step must not wait for the device, and whatever it changes in place must already be where it will stay. What it
    makes is to be read before it is called again. Where it cannot be captured, a line in the log says why, and it is
    done as it is.

    Args:
        step: what is repeated.
        on: false does it as it is.
    """

    def __init__(self, step: Callable[..., Made], on: bool) -> None:
        self._step, self._eager_left = step, WARMUP_CALLS if on else -1
        self._captured: CudaGraph[Made] | None = None
        self._shapes: list[torch.Size | None] = []

    def __call__(self, *tensors: Tensor | None) -> Made:
        if self._eager_left:
            self._eager_left = max(self._eager_left - 1, -1)
            return self._step(*tensors)
        shapes = [None if x is None else x.shape for x in tensors]
        if shapes != self._shapes:
            self._captured, self._shapes = None, shapes  # its memory goes before the next one takes some
            self._captured = self._capture(tensors)
        return (self._captured or self._step)(*tensors)

    def _capture(self, tensors: tuple[Tensor | None, ...]) -> CudaGraph[Made] | None:
        try:
            return CudaGraph(self._step, tensors)
        except RuntimeError as error:
            logs.event("a step cannot be captured", logging.WARNING, reason=str(error).strip().splitlines()[0])
            return None
