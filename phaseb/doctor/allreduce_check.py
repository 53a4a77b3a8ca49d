"""One sum over several processes, a device each: what `phaseb doctor` runs to see whether training workers could.

`python -m phaseb.doctor.allreduce_check BACKEND NUM_WORKERS FOLDER`; processes meet in FOLDER, which must be empty.
"""

import sys

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn


def main(backend: str, num_workers: int, folder: str) -> None:
    """Raises where a process fails or the sum is wrong."""
    spawn(_add, (num_workers, backend, folder), nprocs=num_workers)  # type: ignore[no-untyped-call]


def _add(rank: int, num_workers: int, backend: str, folder: str) -> None:
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    distributed.init_process_group(
        backend,
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=num_workers,
        device_id=device if backend == "nccl" else None,
    )
    x = torch.full((1024,), float(rank + 1), device=device)
    distributed.all_reduce(x)
    expected = num_workers * (num_workers + 1) / 2
    if not bool((x == expected).all()):
        raise RuntimeError(f"the sum over {num_workers} workers is wrong: {float(x[0])} instead of {expected}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
