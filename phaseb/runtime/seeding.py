"""Random numbers by name: every draw follows from (seed, names), never from who asked first.

A stream is named by integers and strings, so the same batch, noise or episode is drawn whatever the number of
workers and wherever a run resumes. No global generator is touched.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: int | str) -> int:
    """A 63-bit seed for the stream called `names` under `seed` (stable across machines and versions)."""
    text = "\x1f".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(seed: int, *names: int | str) -> np.random.Generator:
    """An independent NumPy generator for the stream called `names` under `seed`."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *names)))


def torch_generator(seed: int, *names: int | str) -> "torch.Generator":
    """An independent torch CPU generator for the stream called `names` under `seed`."""
    import torch  # here, so that processes that only shuffle rows need not hold it in memory

    return torch.Generator().manual_seed(derive_seed(seed, *names))
