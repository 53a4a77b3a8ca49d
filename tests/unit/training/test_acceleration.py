"""Products in bfloat16 and compiled steps: every learner trains with them as it does without, to their precision.

Run on CPUs, which know bfloat16 too; what is compiled is captured and differentiated ahead of time as for a GPU, and
only the last step, making kernels of it, is left out (`aot_eager`).
"""

import numpy as np
import pytest
import torch
from episode_strategies import make_episode

from phaseb.config.dynamics import GRUConfig
from phaseb.config.encoder import LatentsConfig
from phaseb.config.policy import PolicyConfig, ReplayConfig
from phaseb.config.run import TrainingConfig
from phaseb.config.trust import TrustConfig
from phaseb.dynamics.gru_ensemble import learner as world_model
from phaseb.episodes.trajectories import Trajectories
from phaseb.latents import learner as latents
from phaseb.latents.padding import episode_arrays
from phaseb.nn.data_parallel import WorkerContext
from phaseb.nn.precision import bf16_enabled
from phaseb.policy import learner as policy
from phaseb.policy.batches import RunSpec
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.training.compile import compile_steps, compiles, precision
from phaseb.trust import learner as trust

CPU = torch.device("cpu")
CONTEXT = WorkerContext(3)
NUM_STEPS = 4


def trajectories(num=12, steps=12, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(num, steps + 1, 4)).cumsum(1).astype(np.float32) / 4
    flat = np.zeros((num, steps), np.float32)
    return Trajectories(
        z,
        rng.uniform(-1, 1, (num, steps, 2)).astype(np.float32),
        z[:, 1:, 0],
        flat,
        np.full(num, steps),
        tuple(f"e{i}" for i in range(num)),
        ("train",) * num,
    )


def of_the_world_model():
    config = GRUConfig.model_validate(
        {
            "num_members": 2,
            "hidden_size": 16,
            "head_size": 16,
            "num_steps": NUM_STEPS,
            "batch_size": 16,
            "one_step_window": 4,
            "horizon": {"steps": 6, "start": 3},
        }
    )
    return world_model.make_learner(config, trajectories(), CONTEXT)


def of_a_policy(algorithm):
    config = PolicyConfig.model_validate(
        {
            "num_steps": NUM_STEPS,
            "batch_size": 16,
            "width": 16,
            "offline": {"algorithm": algorithm, "bc_fraction": 0.0, "critic_warmup_fraction": 0.0},
        }
    )
    replay = LocalReplay(TransitionSchema(4, 2), ReplayConfig(capacity=1000))
    replay.insert(trajectories(), "real")
    source = replay.source([SampleSpec("a", 0)], config.batch_size, 0.99)
    return policy.SACLearner(config, source, [RunSpec("a", 0)], CONTEXT)


def of_the_encoder():
    config = LatentsConfig(num_dims=4, hidden=16, num_steps=NUM_STEPS, num_groups=2, num_segments=3, segment_steps=10)
    episodes = [make_episode(f"e{i}", 12, seed=i, frames=True) for i in range(6)]
    return latents.make_learner(config, episode_arrays(episodes, None, "frames"), CONTEXT)


def of_the_gate():
    config = TrustConfig(num_folds=2, num_steps=NUM_STEPS, batch_size=8, num_corruptions=8)
    return trust.make_learner(config, trajectories(), trajectories(4, seed=1), CONTEXT)


LEARNERS = {
    "world model": of_the_world_model,
    "iql": lambda: of_a_policy("iql"),
    "sac": lambda: of_a_policy("sac"),
    "encoder": of_the_encoder,
    "gate": of_the_gate,
}


@pytest.fixture(autouse=True)
def every_step_has_metrics(monkeypatch):
    for learner in ("latents.learner", "trust.learner", "policy.learner"):
        monkeypatch.setattr(f"phaseb.{learner}.LOG_EVERY", 1)


def losses(make, **settings):
    config, learner = TrainingConfig(**settings), make()
    compile_steps(learner, config, CPU, backend="aot_eager")
    rows = []
    for step in range(NUM_STEPS):
        with precision(config):
            rows.append(learner.step(step))
    kept = {name: tensor for name, tensor in tensors(learner.state_dict()).items() if tensor.is_floating_point()}
    assert kept
    rounded = (torch.bfloat16, torch.float16)
    assert not any(tensor.dtype in rounded for tensor in kept.values()), "what is stored is never rounded"
    return {name: np.array([row[name] for row in rows]) for name in rows[0] if "loss" in name}


def tensors(tree, prefix=""):
    found = {}
    for name, value in tree.items():
        if isinstance(value, torch.Tensor):
            found[f"{prefix}{name}"] = value
        elif isinstance(value, dict):
            found |= tensors(value, f"{prefix}{name}/")
    return found


@pytest.mark.parametrize("name", LEARNERS)
def test_bfloat16_is_close_to_float32_and_not_the_same(name):
    exact, half = losses(LEARNERS[name]), losses(LEARNERS[name], precision="bfloat16")
    assert exact.keys() == half.keys()
    for key, values in exact.items():
        np.testing.assert_allclose(half[key], values, rtol=0.05, atol=0.02, err_msg=key)
    assert any(not np.array_equal(exact[key], half[key]) for key in exact)


@pytest.mark.parametrize("name", LEARNERS)
def test_compiled_steps_are_the_same_steps(name):
    assert compile_steps(LEARNERS[name](), TrainingConfig(compile="always"), CPU, "aot_eager") > 0
    plain, compiled = losses(LEARNERS[name]), losses(LEARNERS[name], compile="always")
    for key, values in plain.items():
        np.testing.assert_allclose(compiled[key], values, rtol=1e-4, atol=1e-6, err_msg=key)


def test_left_to_the_defaults_a_processor_does_neither():
    assert not compiles(TrainingConfig(), CPU)
    with precision(TrainingConfig()):
        assert not bf16_enabled()
    with precision(TrainingConfig(precision="bfloat16")):
        assert bf16_enabled()
