"""What befalls training workers and their nodes, on a cluster of several: it ends as if nothing had happened."""

import json
import signal
import threading
from pathlib import Path

import pytest
from linear import problem
from nodes import Machines, strike, wait_for, workers
from strikes import NUM_STEPS, TRAINING, Strike, same, train

from phaseb.training.fit import FitResult

AGAIN_S = 15.0
"""Bar: from `kill -9` of a worker to training again, on a machine that has the time."""
BUSY = 4.0
"""How much slower a machine may be that does other things too."""
TITLE = "RayTrainWorker"
NOTICE_S, STEP_S = 8.0, 0.2


def test_a_killed_worker(machines: Machines, tmp_path: Path, alone: FitResult, measured) -> None:
    nodes = machines.scale(2)
    fault = Strike(tmp_path, lambda: strike(workers(nodes[1], TITLE), signal.SIGKILL))
    fault.start()
    result = train(tmp_path, 2)
    fault.conclude()
    same(result, alone)
    measured(f"training again after {fault.pause_s:.1f} s")
    assert fault.pause_s < AGAIN_S * BUSY
    assert fault.steps_lost <= 1  # a checkpoint a step: no more than the one in progress


def test_a_killed_node(machines: Machines, tmp_path: Path, alone: FitResult, measured) -> None:
    """Its worker goes on elsewhere: on a node that stands by."""
    nodes = machines.scale(3)
    fault = Strike(tmp_path, lambda: machines.kill(next(n for n in nodes if workers(n, TITLE))))
    fault.start()
    result = train(tmp_path, 2)
    fault.conclude()
    same(result, alone)
    measured(f"training again after {fault.pause_s:.1f} s")
    assert len(machines.nodes) == 2


def test_a_killed_node_that_nobody_replaces(machines: Machines, tmp_path: Path, alone: FitResult, measured) -> None:
    """Elastic training goes on with the worker that is left, and makes the same updates."""
    nodes, log = machines.scale(2), tmp_path / "steps"
    fault = Strike(tmp_path, lambda: machines.kill(next(n for n in nodes if workers(n, TITLE))))
    fault.start()
    result = train(tmp_path, 2, min_workers=1, data=problem(NUM_STEPS, sleep_s=0.05, steps_log=str(log)))
    fault.conclude()
    same(result, alone)
    measured(f"training again after {fault.pause_s:.1f} s")
    assert len(machines.nodes) == 1
    last = [line.split()[0] for line in log.read_text().splitlines() if line.endswith(f" {NUM_STEPS - 1}")]
    assert last == ["0"]  # one worker made the last step


def test_a_node_that_says_it_will_go(machines: Machines, tmp_path: Path, alone: FitResult, measured) -> None:
    """A spot machine's notice: a checkpoint is written at once, long before one was due, and little work is lost."""
    nodes, log, moved = machines.scale(3), tmp_path / "steps", list[object]()

    def take_away() -> None:
        wait_for(lambda: log.exists() and len(log.read_text().splitlines()) > 20, "some steps")
        node = next(n for n in nodes if workers(n, TITLE))
        machines.drain(node, NOTICE_S)
        wait_for((tmp_path / "meta.json").exists, "a checkpoint before the node goes", NOTICE_S)
        gone = threading.Timer(NOTICE_S, machines.kill, [node])
        gone.start()
        gone.join()
        moved.append(node)

    thread = threading.Thread(target=take_away, daemon=True)
    thread.start()
    rare = TRAINING.model_copy(update={"checkpoint_every_s": 3600.0})
    result = train(tmp_path, 2, training=rare, data=problem(NUM_STEPS, sleep_s=STEP_S, steps_log=str(log)))
    thread.join()
    same(result, alone)
    made = [line for line in log.read_text().splitlines() if line.startswith("0 ")]
    again = len(made) - NUM_STEPS
    measured(f"{again} of {NUM_STEPS} steps of {STEP_S} s made again")
    assert moved  # the checkpoint came within the notice, and the node is gone
    assert 0 <= again < 5.0 / STEP_S  # checkpoints two seconds apart from the notice on, and where they were is gone on


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_straggler(goes_on: bool, machines: Machines, tmp_path: Path, alone: FitResult, measured) -> None:
    """A worker that stands still for a while is waited for; one that stands still for good is replaced."""
    nodes = machines.scale(2)

    def stand_still() -> None:
        stopped = workers(nodes[1], TITLE)
        strike(stopped, signal.SIGSTOP)
        if goes_on:
            threading.Timer(6.0, strike, [stopped, signal.SIGCONT]).start()

    fault = Strike(tmp_path, stand_still)
    fault.start()
    result = train(tmp_path, 2, collective_timeout_s=60.0 if goes_on else 6.0)
    fault.conclude()
    same(result, alone)
    measured(f"training again after {fault.pause_s:.1f} s")
    starts = json.loads((tmp_path / "meta.json").read_text())["meta"]
    assert starts["next_step"] == NUM_STEPS
    if goes_on:
        assert fault.pause_s > 5.0
        assert fault.steps_lost == 0
