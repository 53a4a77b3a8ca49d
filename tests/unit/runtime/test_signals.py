"""Requests to stop, and heads that are gone."""

import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from phaseb.config.run import TrainingConfig
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.head_watchdog import wait_until_lost
from phaseb.runtime.storage import Store
from phaseb.training.loop import read_progress, train


def in_fresh_process(code: str) -> subprocess.CompletedProcess[str]:
    """A request stays for the life of a process."""
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)


def test_a_request_interrupts_work_but_not_a_training() -> None:
    done = in_fresh_process("""
        import os, signal
        from phaseb.runtime import signals
        with signals.handle_sigterm():
            with signals.defer_shutdown() as requested:
                assert not requested()
                os.kill(os.getpid(), signal.SIGTERM)
                assert requested()  # nothing was raised
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                except KeyboardInterrupt:
                    print("a second one is not put off")
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt:
                print("work is left at once")
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    """)
    assert done.stdout.splitlines() == ["a second one is not put off", "work is left at once"], done.stderr


def test_an_interrupted_task_is_asked_and_the_next_one_starts_afresh() -> None:
    done = in_fresh_process("""
        import signal, time
        from phaseb.runtime import signals
        before = signal.getsignal(signal.SIGINT)
        for task in range(2):
            with signals.handle_interrupt(), signals.defer_shutdown() as requested:
                assert not requested()
                signals.interrupt()
                time.sleep(0.01)
                assert requested()
        assert signal.getsignal(signal.SIGINT) is before
        print("twice")
    """)
    assert done.stdout.split() == ["twice"], done.stderr


def test_a_training_that_leaves_has_written_this_very_step(tmp_path) -> None:
    from linear import LinearLearner, problem

    store, told = Store.at(tmp_path), threading.Event()
    learner = LinearLearner(problem(), WorkerContext(1))
    step = learner.step

    def until_told(number: int) -> dict[str, float]:
        if number == 22:
            told.set()
        return step(number)

    learner.step = until_told  # type: ignore[method-assign]
    rare = TrainingConfig(checkpoint_every_s=3600.0)
    with pytest.raises(KeyboardInterrupt):
        train(learner, WorkerContext(1), rare, store, "k", lambda metrics: None, stop=told.is_set)
    found = read_progress(store, "k")
    assert found is not None
    assert found[1].next_step == 23


def test_once_time_is_short_a_checkpoint_comes_at_once(tmp_path) -> None:
    from linear import LinearLearner, problem

    store, written = Store.at(tmp_path), []
    learner = LinearLearner(problem(), WorkerContext(1))
    step = learner.step

    def look(number: int) -> dict[str, float]:
        time.sleep(0.005)
        written.append((tmp_path / "meta.json").exists())
        return step(number)

    learner.step = look  # type: ignore[method-assign]
    rare = TrainingConfig(checkpoint_every_s=3600.0)
    train(learner, WorkerContext(1), rare, store, "k", lambda metrics: None, preempted=lambda: len(written) > 20)
    assert not any(written[:20])
    assert written[-1]


def test_a_head_that_refuses_is_lost_and_one_that_answers_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, end = f"127.0.0.1:{server.getsockname()[1]}", threading.Event()
        threading.Timer(1.2, end.set).start()
        assert not wait_until_lost(address, end)
    begin = time.monotonic()
    assert wait_until_lost(address, threading.Event())
    assert time.monotonic() - begin < 10
