"""When a step is replayed: the counting alone. The graph needs a GPU (training/test_gpu.py)."""

from typing import ClassVar

import pytest
import torch

from phaseb.nn import cuda_graphs
from phaseb.nn.cuda_graphs import WARMUP_CALLS, GraphedFunction


class Graph:
    """Tells that it was made, and does the step."""

    made: ClassVar[list[tuple[int, ...]]] = []

    def __init__(self, step, tensors):
        if tensors[0].shape[0] == 13:
            raise RuntimeError("operation not permitted when stream is capturing")
        Graph.made.append(tuple(tensors[0].shape))
        self.step = step

    def __call__(self, *tensors):
        return "replayed", self.step(*tensors)


@pytest.fixture(autouse=True)
def graphs(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "CudaGraph", Graph)
    monkeypatch.setattr(Graph, "made", [])


def test_off_it_is_always_the_step_itself():
    replayed = GraphedFunction(lambda x, y: float(x.sum()), on=False)
    assert [replayed(torch.ones(2), None) for _ in range(3 * WARMUP_CALLS)] == [2.0] * 3 * WARMUP_CALLS
    assert Graph.made == []


def test_on_it_is_captured_after_a_few_and_anew_for_other_shapes():
    replayed = GraphedFunction(lambda x: float(x.sum()), on=True)
    assert [replayed(torch.ones(2)) for _ in range(WARMUP_CALLS)] == [2.0] * WARMUP_CALLS
    assert [replayed(torch.ones(n)) for n in (2, 2, 5, 5, 2)] == [("replayed", float(n)) for n in (2, 2, 5, 5, 2)]
    assert Graph.made == [(2,), (5,), (2,)]


def test_what_cannot_be_captured_is_done_as_it_is_and_not_tried_again(caplog):
    replayed = GraphedFunction(lambda x: float(x.sum()), on=True)
    for _ in range(WARMUP_CALLS + 3):
        assert replayed(torch.ones(13)) == 13.0
    assert sum("cannot be captured" in record.getMessage() for record in caplog.records) == 1
    assert replayed(torch.ones(4)) == ("replayed", 4.0)
