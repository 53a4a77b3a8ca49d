"""Who shares a batch, and that those who do not are left out of its sums."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from phaseb.nn.data_parallel import WorkerContext, num_active_workers


@pytest.mark.parametrize(
    ("wanted", "there", "sharing"), [(4, 4, 4), (4, 3, 2), (4, 1, 1), (8, 7, 4), (6, 5, 3), (5, 4, 1), (1, 1, 1)]
)
def test_as_many_share_as_divide_what_was_wanted(wanted, there, sharing):
    assert num_active_workers(wanted, there) == sharing


def share(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=3)
    group = distributed.new_group([0, 1])
    if rank != 2:  # the third stands by: it takes part in no sum
        average(WorkerContext(0, rank, 2, group=group), Path(folder, f"{rank}.json"))
    distributed.barrier()  # until all are connected: who leaves earlier breaks the connections of the others
    distributed.destroy_process_group()  # a thread of gloo's that outlives the interpreter aborts the process


def average(context, path):
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.full((3,), float(context.rank))
    context.average_gradients([parameter])
    found = {
        "gradient": parameter.grad.tolist(),
        "mean": float(context.all_reduce_mean(torch.tensor(float(context.rank)))),
        "shard": context.shard(torch.arange(4).numpy()).tolist(),
    }
    path.write_text(json.dumps(found))


def test_two_of_three_workers_average_among_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # workers start from this module alone
    spawn(share, (str(tmp_path),), nprocs=3)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [one["gradient"] for one in found] == [[0.5] * 3] * 2
    assert [one["mean"] for one in found] == [0.5, 0.5]
    assert [one["shard"] for one in found] == [[0, 1], [2, 3]]
    assert not (tmp_path / "2.json").exists()
