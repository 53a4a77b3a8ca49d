"""The same on a GPU as on a CPU: losses of every learner, rollouts as graphs, batches through pinned memory.

Needs a GPU; what is done there is otherwise tested on CPUs (test_acceleration.py), which know no graphs and no pinning.
"""

import numpy as np
import pytest
import torch
from test_acceleration import LEARNERS, trajectories

from phaseb.config.dynamics import GRUConfig
from phaseb.config.run import TrainingConfig
from phaseb.dynamics.gru_ensemble import learner as world_model
from phaseb.nn.data_parallel import WorkerContext
from phaseb.training import compile

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = torch.device("cuda")
NUM_STEPS = 8  # of which some are captured, at more than one horizon


def losses(make, device, monkeypatch, **training):
    """The learner's losses, name → (steps,)."""
    config, rows = TrainingConfig(**training), []
    context = WorkerContext(3, device=device, graphs=config.graphs == "auto")
    monkeypatch.setattr("test_acceleration.CONTEXT", context)
    monkeypatch.setattr("test_acceleration.NUM_STEPS", NUM_STEPS)
    learner = make()
    compile.compile_steps(learner, config, device)
    for step in range(NUM_STEPS):
        with compile.precision(config):
            rows.append(learner.step(step))
    return {name: np.array([row[name] for row in rows]) for name in rows[0] if "loss" in name}


@pytest.mark.parametrize("graphs", ["never", "auto"])
@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_takes_the_same_steps_on_a_gpu(name, graphs, monkeypatch, caplog):
    plain = {"precision": "float32", "compile": "never", "graphs": graphs}
    here, there = (losses(LEARNERS[name], device, monkeypatch, **plain) for device in (torch.device("cpu"), GPU))
    for key, values in here.items():
        np.testing.assert_allclose(there[key], values, rtol=5e-3, atol=2e-4, err_msg=key)
    assert "cannot be captured" not in caplog.text


@pytest.mark.parametrize("fast", [{"graphs": "auto"}, {"graphs": "never", "compile": "always"}])
@pytest.mark.parametrize("name", LEARNERS)
def test_in_bfloat16_by_graphs_or_compiled_it_stays_close(name, fast, monkeypatch):
    exact = losses(LEARNERS[name], GPU, monkeypatch, precision="float32", compile="never", graphs="never")
    close = losses(LEARNERS[name], GPU, monkeypatch, precision="bfloat16", **{"compile": "never"} | fast)
    for key, values in exact.items():
        np.testing.assert_allclose(close[key], values, rtol=0.05, atol=0.02, err_msg=key)


def bundle(device, **changes):
    config = {
        "num_members": 3,
        "hidden_size": 32,
        "head_size": 32,
        "one_step_window": 4,
        "num_modes": 2,
        "horizon": {"steps": 6, "start": 6},
    } | changes
    learner = world_model.make_learner(GRUConfig.model_validate(config), trajectories(), WorkerContext(0))
    return learner.bundle().to(device)


@pytest.mark.parametrize("changes", [{}, {"noise": "heteroscedastic"}, {"noise": "bootstrap"}])
def test_rollouts_by_graphs_are_those_of_the_processor(changes):
    rng = np.random.default_rng(1)
    z, actions = torch.tensor(rng.normal(size=(50, 4))).float(), torch.tensor(rng.uniform(-1, 1, (50, 20, 2))).float()
    for split in (False, True):
        here, there = (
            bundle(device, **changes).rollout(z, actions, 20, torch.Generator().manual_seed(5), split=split)
            for device in ("cpu", "cuda")
        )
        assert there.z.device.type == "cuda"
        # A draw that falls on the edge between two alternatives may go the other way: of a few rollouts at most.
        close = [
            torch.isclose(a, b.cpu(), rtol=1e-3, atol=1e-3).flatten(1).all(1)
            for a, b in ((here.z, there.z), (here.rewards, there.rewards), (here.uncertainty, there.uncertainty))
        ]
        assert (torch.stack(close).all(0)).float().mean() >= 0.95
