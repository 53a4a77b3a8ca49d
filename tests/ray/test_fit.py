"""Training on Ray Train workers: the same as in this process for any number of them, whatever dies on the way."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import descendants

from phaseb.config.run import ResourcesConfig, TrainingConfig
from phaseb.errors import DivergenceError
from phaseb.runtime.storage import Store
from phaseb.training.fit import fit
from phaseb.training.loop import read_progress

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "training"))
os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])  # workers import it too

from linear import LinearLearner, problem

TRAINING = TrainingConfig(checkpoint_every_s=1e-6, validate_every=10, log_every=5)


def trained(store: Path, workers: int, data=None, report=None, **resources):
    return fit(
        LinearLearner,
        problem() if data is None else data,
        seed=1,
        key="k",
        store=Store.at(store),
        training=TRAINING,
        resources=ResourcesConfig(**{"num_workers": workers, "cpus_per_worker": 0.5, **resources}),
        name="linear",
        on_progress=report,
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What training in this process, without Ray, comes to."""
    return trained(tmp_path_factory.mktemp("alone"), 0)


def test_one_worker_does_the_same(tmp_path, alone):
    result = trained(tmp_path, 1)
    torch.testing.assert_close(result.state["weight"], alone.state["weight"], rtol=1e-6, atol=1e-7)
    assert [row["step"] for row in result.rows] == [row["step"] for row in alone.rows]
    assert result.last["loss"] == pytest.approx(alone.last["loss"], rel=1e-5)
    assert not (tmp_path / "train").exists()  # Train's own bookkeeping is gone


def test_two_workers_do_the_same_but_for_rounding(tmp_path, alone):
    result = trained(tmp_path, 2)
    np.testing.assert_allclose(result.state["weight"].numpy(), alone.state["weight"].numpy(), rtol=1e-5)
    np.testing.assert_allclose([r["loss"] for r in result.rows], [r["loss"] for r in alone.rows], rtol=1e-3)


@pytest.mark.nightly
def test_of_three_workers_where_four_were_wanted_two_share_and_do_the_same(tmp_path, alone):
    """The cluster has room for three: a batch cut for four divides by two, and the third stands by."""
    result = trained(tmp_path, 4, min_workers=1, cpus_per_worker=0.6)
    np.testing.assert_allclose(result.state["weight"].numpy(), alone.state["weight"].numpy(), rtol=1e-5)
    assert [row["step"] for row in result.rows] == [row["step"] for row in alone.rows]


@pytest.mark.nightly
def test_a_worker_killed_with_kill_9_is_replaced_and_goes_on(tmp_path, alone):
    data, killed = problem(sleep_s=0.05), []

    def kill_once() -> None:
        """Kill a worker that has come some way, from outside."""
        deadline = time.monotonic() + 300
        while not killed and time.monotonic() < deadline:
            done = read_progress(Store.at(tmp_path), "k")
            if done is not None and done[1].next_step >= 5:
                workers = descendants("RayTrainWorker")
                if workers:
                    os.kill(min(workers), signal.SIGKILL)
                    killed.append(done[1].next_step)
            time.sleep(0.02)

    watcher = threading.Thread(target=kill_once, daemon=True)
    watcher.start()
    result = trained(tmp_path, 1, data)
    watcher.join()
    assert killed
    assert killed[0] < 60
    torch.testing.assert_close(result.state["weight"], alone.state["weight"], rtol=1e-6, atol=1e-7)
    assert [row["step"] for row in result.rows] == [row["step"] for row in alone.rows]


def test_an_end_is_told_by_name_and_at_once(tmp_path):
    with pytest.raises(DivergenceError, match=r"not finite at step 7; last good checkpoint: step 7 in "):
        trained(tmp_path, 1, problem(diverge_at=7))


def test_progress_reaches_the_driver(tmp_path):
    seen = []
    trained(tmp_path, 1, report=lambda metrics: seen.append(dict(metrics)))
    assert seen[-1]["step"] == seen[-1]["num_steps"] == 60
    assert seen[-1]["mse"] < 5
    assert not (tmp_path / "announced.json").exists()
