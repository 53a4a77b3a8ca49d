"""What a GPU may be given beside the data: products in bfloat16 and compiled steps. On CPUs nothing is different.

Neither is on by default where steps are replayed as CUDA graphs (`phaseb.nn.cuda_graphs`), which gain more: on an H100
the default world model makes 62 steps a second by graphs, 36 in bfloat16 besides, 12 without; compiling took half a
minute.
"""

import importlib.util
import logging
from contextlib import AbstractContextManager

import torch

from phaseb.config.run import TrainingConfig
from phaseb.nn.precision import bf16_matmul
from phaseb.runtime import logs
from phaseb.training.learner import Compilable, Learner


def precision(config: TrainingConfig) -> AbstractContextManager[None]:
    """Around a step: its layers multiply in what the config asks for."""
    return bf16_matmul(config.precision == "bfloat16")


def compiles(config: TrainingConfig, device: torch.device) -> bool:
    """Whether steps on a device are compiled: where asked for, or there are no graphs and the compiler is there."""
    if config.compile != "auto":
        return config.compile == "always"
    return config.graphs == "never" and device.type == "cuda" and importlib.util.find_spec("triton") is not None


def compile_steps(learner: Learner, config: TrainingConfig, device: torch.device, backend: str = "inductor") -> int:
    """Compile what the learner's steps repeat; returns how many paths. Where the compiler fails on one, that one runs
    as it was, and a line in the log says so (with `compile: always` it is an error)."""
    if not compiles(config, device) or not isinstance(learner, Compilable):
        return 0
    torch._dynamo.config.suppress_errors = config.compile == "auto"
    paths = learner.compile_targets()
    for owner, name in paths:
        if name == "forward" and isinstance(owner, torch.nn.Module):
            owner.compile(backend=backend)  # in place: names in checkpoints stay
        else:
            setattr(owner, name, torch.compile(getattr(owner, name), backend=backend))
    logs.event("steps are compiled", logging.INFO, paths=len(paths), device=str(device))
    return len(paths)
