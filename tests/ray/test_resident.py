"""One group of workers for several trainings: each is what it would be alone, whatever befalls the ones before."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import torch
from processes import descendants

from phaseb.config.resources import ResourcesConfig
from phaseb.config.run import TrainingConfig
from phaseb.errors import ClusterError, DivergenceError
from phaseb.runtime.storage import Store
from phaseb.training.fit import FitResult, fit
from phaseb.training.loop import read_progress
from phaseb.training.resident import may_stay, resident_group, staying, training_session

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "training"))
os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])  # workers import it too

from linear import LinearLearner, problem

pytestmark = pytest.mark.nightly

TRAINING = TrainingConfig(checkpoint_every_s=1e-6, validate_every=10, log_every=5)
ONE = ResourcesConfig(num_workers=1, max_failures=1)
SLOW_S = 0.05


def trained(store: Path, resources: ResourcesConfig, data=None, report=None) -> FitResult:
    return fit(
        LinearLearner, problem() if data is None else data, seed=1, key="k", store=Store.at(store), training=TRAINING,
        resources=resources, name="linear", on_progress=report,
    )  # fmt: skip


def kill_during(store: Path, title: str, times: int = 1) -> Callable[[], list[int]]:
    """Kill the processes of that title once the training in `store` has come some way, as often as they come back and
    go on; the function returned waits for the end of that and tells the steps at which it happened."""
    struck: list[int] = []

    def strike() -> None:
        gone = set[int]()
        deadline = time.monotonic() + 300
        while len(struck) < times and time.monotonic() < deadline:
            done = read_progress(Store.at(store), "k")
            found = descendants(title) - gone
            if found and done is not None and done[1].next_step > (struck or [4])[-1]:
                for process in found:
                    os.kill(process, signal.SIGKILL)
                gone |= found
                struck.append(done[1].next_step)
            time.sleep(0.02)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()

    def told() -> list[int]:
        thread.join()
        return struck

    return told


def same(one: FitResult, other: FitResult) -> None:
    torch.testing.assert_close(one.state["weight"], other.state["weight"], rtol=1e-6, atol=1e-7)
    assert [row["step"] for row in one.rows] == [row["step"] for row in other.rows]
    assert [row["loss"] for row in one.rows] == pytest.approx([row["loss"] for row in other.rows], rel=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> FitResult:
    """What training in this process, without Ray, comes to."""
    return trained(tmp_path_factory.mktemp("alone"), ONE.model_copy(update={"num_workers": 0}))


@pytest.fixture(scope="module")
def group() -> Iterator[None]:
    """One worker that stays for the tests that share it."""
    with staying(ONE):
        yield
    deadline = time.monotonic() + 60
    while descendants("RayTrainWorker"):
        assert time.monotonic() < deadline, "the workers were let go and did not"
        time.sleep(0.2)


def test_trainings_share_a_worker_and_come_to_the_same(group, tmp_path, alone):
    seen: list[dict[str, float]] = []
    same(trained(tmp_path / "1", ONE), alone)
    worker = descendants("RayTrainWorker")
    same(trained(tmp_path / "2", ONE, report=lambda metrics: seen.append(dict(metrics))), alone)
    assert len(worker) == 1
    assert descendants("RayTrainWorker") == worker
    assert seen[-1]["step"] == seen[-1]["num_steps"] == 60
    assert not (tmp_path / "2" / "train").exists()  # Train's own bookkeeping is elsewhere


def test_a_users_error_leaves_the_worker_to_the_next_training(group, tmp_path, alone):
    trained(tmp_path / "1", ONE)
    worker = descendants("RayTrainWorker")
    with pytest.raises(DivergenceError, match=r"not finite at step 7; last good checkpoint: step 7 in "):
        trained(tmp_path / "2", ONE, problem(diverge_at=7))
    same(trained(tmp_path / "3", ONE), alone)
    assert descendants("RayTrainWorker") == worker


def test_a_killed_worker_is_replaced_in_one_training_after_another(group, tmp_path, alone):
    """Each may lose it once (`max_failures`), and goes on where it was."""
    for name in ("1", "2"):
        struck = kill_during(tmp_path / name, "RayTrainWorker")
        log = tmp_path / f"{name}.steps"
        same(trained(tmp_path / name, ONE, problem(sleep_s=SLOW_S, steps_log=str(log))), alone)
        (step,) = struck()
        assert 5 <= step < 60
        assert len(log.read_text().splitlines()) <= 60 + 2  # from its checkpoint on, not from the beginning


def test_a_killed_mailbox_comes_back(group, tmp_path, alone):
    struck = kill_during(tmp_path / "1", "ray::Mailbox")
    same(trained(tmp_path / "1", ONE, problem(sleep_s=SLOW_S)), alone)
    (step,) = struck()
    assert 5 <= step < 60
    same(trained(tmp_path / "2", ONE), alone)


def test_a_training_that_loses_its_worker_too_often_is_the_clusters_failure(group, tmp_path, alone):
    struck = kill_during(tmp_path / "1", "RayTrainWorker", times=2)
    with pytest.raises(ClusterError, match="training linear failed on its workers: "):
        trained(tmp_path / "1", ONE, problem(sleep_s=2 * SLOW_S))
    assert len(struck()) == 2
    same(trained(tmp_path / "1", ONE, problem(sleep_s=SLOW_S)), alone)  # a new group goes on from the checkpoint


def test_two_workers_leave_the_machine_to_data_work_and_end_with_a_users_error(tmp_path, alone):
    """Both CPUs of this cluster are theirs by the config, and free for two tasks that wait for one another."""
    resources, before = ResourcesConfig(num_workers=2), descendants("RayTrainWorker")
    with staying(resources):
        two = trained(tmp_path / "1", resources)
        torch.testing.assert_close(two.state["weight"], alone.state["weight"], rtol=1e-5, atol=1e-6)
        workers = descendants("RayTrainWorker") - before
        assert len(workers) == 2
        assert sorted(ray.get([meet.remote(str(tmp_path), me) for me in range(2)], timeout=60)) == [0, 1]
        with pytest.raises(DivergenceError):
            trained(tmp_path / "2", resources, problem(diverge_at=7))
        three = trained(tmp_path / "3", resources)
        torch.testing.assert_close(three.state["weight"], two.state["weight"], rtol=1e-6, atol=1e-7)
        assert not descendants("RayTrainWorker") & workers


@ray.remote(num_cpus=1)
def meet(folder: str, me: int) -> int:
    Path(folder, f"here-{me}").touch()
    while not Path(folder, f"here-{1 - me}").exists():
        time.sleep(0.02)
    return me


def test_who_stays_and_where():
    assert may_stay(ONE)
    assert not may_stay(ResourcesConfig(num_workers=0))
    assert not may_stay(ResourcesConfig(num_workers=1, gpus_per_worker=0.5))
    assert not may_stay(ResourcesConfig(num_workers=4, min_workers=1))
    other = ResourcesConfig(num_workers=1, max_failures=2)
    with training_session(other):  # on a Ray that was there before
        assert resident_group(other) is None
    with staying(other):
        assert resident_group(other) is not None
