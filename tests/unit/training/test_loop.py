"""The loop: what it computes, how it resumes, how it stops."""

import numpy as np
import pytest
import torch
from linear import LinearLearner, problem

from phaseb.config.run import ResourcesConfig, TrainingConfig
from phaseb.errors import DataError, DivergenceError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.storage import Store
from phaseb.training.fit import fit
from phaseb.training.loop import read_progress, train


def fast(**change):
    return TrainingConfig(checkpoint_every_s=1e-6, validate_every=10, log_every=5).model_copy(update=change)


def here(data, store, key="k", seed=1, cpus=1, **change):
    return fit(
        LinearLearner,
        data,
        seed=seed,
        key=key,
        store=store,
        training=fast(**change),
        resources=ResourcesConfig(num_workers=0, cpus_per_task=cpus),
        name="linear",
    )


def test_it_finds_the_least_squares_solution(tmp_path):
    data = problem(400)
    result = here(data, Store.at(tmp_path))
    solution = np.linalg.lstsq(data["x"], data["y"], rcond=None)[0]
    np.testing.assert_allclose(result.state["weight"].numpy(), solution, atol=1e-3)
    assert result.last["step"] == 400


def test_it_computes_with_the_threads_that_are_asked_for(tmp_path):
    before = torch.get_num_threads()
    try:
        here(problem(2), Store.at(tmp_path), cpus=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_killed_training_goes_on_to_the_same_end_to_the_bit(tmp_path):
    whole = here(problem(), Store.at(tmp_path / "whole"))
    store = Store.at(tmp_path / "killed")
    learner = LinearLearner(problem(), WorkerContext(1))
    learner.num_steps = 60

    class KilledError(Exception):
        pass

    def killed_at(step):
        original = LinearLearner.step

        def run(s):
            if s == step:
                raise KilledError
            return original(learner, s)

        return run

    learner.step = killed_at(37)
    with pytest.raises(KilledError):
        train(learner, WorkerContext(1), fast(), store, "k", lambda m: None)
    assert read_progress(store, "k")[1].next_step == 37
    resumed = here(problem(), store)
    assert torch.equal(whole.state["weight"], resumed.state["weight"])
    assert [row["step"] for row in whole.rows] == [row["step"] for row in resumed.rows]


def test_a_finished_training_is_not_run_again(tmp_path):
    first = here(problem(), Store.at(tmp_path))
    again = here({**problem(), "diverge_at": 0}, Store.at(tmp_path))
    assert torch.equal(first.state["weight"], again.state["weight"])


def test_a_checkpoint_of_another_config_is_ignored(tmp_path):
    here(problem(), Store.at(tmp_path), key="old")
    with pytest.raises(DivergenceError):
        here({**problem(), "diverge_at": 3}, Store.at(tmp_path), key="new")


def test_divergence_names_the_step_and_the_last_good_checkpoint(tmp_path):
    with pytest.raises(DivergenceError, match=r"step 41; last good checkpoint: step 41 in .*lower the learning rate"):
        here({**problem(), "diverge_at": 41}, Store.at(tmp_path))


def test_an_altered_checkpoint_is_refused(tmp_path):
    here(problem(), Store.at(tmp_path))
    blob = next(tmp_path.glob("*.safetensors"))
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(bytes(data))
    with pytest.raises(DataError, match="altered"):
        here(problem(), Store.at(tmp_path))
