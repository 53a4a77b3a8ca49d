"""Batches in torch share the memory they came in."""

import numpy as np
import pytest
import torch

from phaseb.config.policy import ReplayConfig
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.replay.tensors import to_tensors


@pytest.fixture
def batch(make_trajectories):
    replay = LocalReplay(TransitionSchema(3, 2), ReplayConfig(capacity=500))
    replay.insert(make_trajectories([20] * 5), "real")
    return replay.source([SampleSpec("a", 0)], 8, 0.9).sample(0, 3)


def test_nothing_is_copied_on_the_cpu(batch, recwarn):
    for array in batch.values():
        array.flags.writeable = False  # as it comes from Ray's object store
    tensors = to_tensors(batch, torch.device("cpu"), ReplayConfig())
    for name, array in batch.items():
        assert tensors[name].data_ptr() == array.__array_interface__["data"][0]
        np.testing.assert_array_equal(tensors[name].numpy(), array)
    assert not recwarn.list


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("pin_memory", ["auto", "never"])
def test_batches_arrive_on_the_gpu(batch, pin_memory):
    tensors = to_tensors(batch, torch.device("cuda"), ReplayConfig(pin_memory=pin_memory))
    torch.cuda.synchronize()
    for name, array in batch.items():
        assert tensors[name].is_cuda
        np.testing.assert_array_equal(tensors[name].cpu().numpy(), array)
