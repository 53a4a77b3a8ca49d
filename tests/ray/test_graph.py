"""Stages as a graph: skipped when up to date, redone when an input changed, beside each other, stopped and resumed."""

import functools
import os
import signal
import threading
import time

import numpy as np
import pytest

from phaseb.config.load import load_config
from phaseb.errors import ClusterError, DataError
from phaseb.pipeline.dataset_stats import DataFacts
from phaseb.pipeline.graph import run_graph
from phaseb.pipeline.run_directory import RunDirectory
from phaseb.pipeline.sizes import FACTS
from phaseb.pipeline.stage import Stage
from phaseb.runtime import signals


def config(folder, *words):
    return load_config(None, [f"run.dir={folder / 'run'}", "resources.num_tasks=2", *words])


def note(folder, text):
    with (folder / "notes").open("a") as file:
        file.write(f"{text}\n")


def notes(folder):
    return (folder / "notes").read_text().split()


def work(folder, output, context):
    """Leaves a note and its output."""
    note(folder, context.name)
    context.store.write_text(f"{context.name} {context.config.episodes.num_train}", *output.split("/"), "x")
    return {"n": len(notes(folder))}


def stage(folder, name, sections=(), inputs=(), execute=work, **options):
    return Stage(name, sections, inputs, (f"out/{name}",), functools.partial(execute, folder, f"out/{name}"), **options)


def chain(folder, execute=work):
    return (
        stage(folder, "first", ("episodes",), execute=execute),
        stage(folder, "second", ("policy",), ("first",), job="first"),
    )


class Seen:
    """A callback that keeps what it is called with."""

    def __init__(self):
        self.calls = []

    def on_stage_start(self, stage):
        self.calls.append(("start", stage))

    def on_progress(self, stage, metrics):
        self.calls.append(("progress", stage, dict(metrics)))

    def on_stage_end(self, stage, metrics, seconds, skipped):
        self.calls.append(("skipped" if skipped else "end", stage))


def collected(folder, output, context):
    """Leaves what is known of 40 episodes."""
    note(folder, context.name)
    lengths = {split: np.full(count, 60) for split, count in (("train", 40), ("dev", 20), ("test", 20))}
    facts = DataFacts(lengths, action_size=2, state_size=4, reward_low=0.0, reward_high=1.0)
    context.store.write_json(facts.to_json(), *FACTS)
    return {}


def test_a_resumed_run_follows_the_plan_that_its_episodes_make(tmp_path):
    def plan(config):
        first = Stage("collect", (), (), ("episodes",), functools.partial(collected, tmp_path, ""))
        fresh = {"external_inputs": lambda config: None}  # no two plans have equal stages
        names = ("left", "right")[: config.arms.num_seeds]
        return (first, *(stage(tmp_path, name, ("policy",), ("collect",), **fresh) for name in names))

    run_graph(plan(config(tmp_path)), config(tmp_path), replan=plan)
    words = ("policy.num_steps=7", "run.on_change=redo")
    again = run_graph(plan(config(tmp_path, *words)), config(tmp_path, *words), replan=plan)
    assert set(again) == {"collect", "left", "right"}
    assert sorted(notes(tmp_path)) == ["collect", "left", "left", "right", "right"]


def test_what_is_up_to_date_is_skipped_with_its_old_metrics(tmp_path):
    stages, seen = chain(tmp_path), Seen()
    done = run_graph(stages, config(tmp_path))
    again = run_graph(stages, config(tmp_path), [seen])
    assert notes(tmp_path) == ["first", "second"]
    assert {name: result.metrics for name, result in done.items()} == {"first": {"n": 1}, "second": {"n": 2}}
    assert {name: result.metrics for name, result in again.items()} == {"first": {"n": 1}, "second": {"n": 2}}
    assert seen.calls == [("start", "first"), ("skipped", "first"), ("start", "second"), ("skipped", "second")]
    lineage = RunDirectory.existing(str(tmp_path / "run")).lineage()["stages"]
    assert lineage["second"]["inputs"] == {"first": lineage["first"]["outputs"]}


def test_a_change_redoes_the_stage_and_what_depends_on_its_output(tmp_path):
    stages = chain(tmp_path)
    run_graph(stages, config(tmp_path))
    run_graph(stages, config(tmp_path, "evaluation.num_episodes=7", "resources.num_tasks=1", "run.on_change=redo"))
    assert notes(tmp_path) == ["first", "second"]
    run_graph(stages, config(tmp_path, "episodes.num_train=7", "run.on_change=redo"))
    assert notes(tmp_path) == ["first", "second"] * 2
    assert (tmp_path / "run" / "out" / "first" / "x").read_text() == "first 7"


def test_one_command_runs_its_own_stages_on_inputs_that_are_there(tmp_path):
    stages = (*chain(tmp_path), stage(tmp_path, "third", inputs=("second",)))
    with pytest.raises(DataError, match=r"^third needs second first: run `phaseb first` with this config$"):
        run_graph(stages, config(tmp_path), job="third")
    assert set(run_graph(stages, config(tmp_path), job="first")) == {"first", "second"}
    assert set(run_graph(stages, config(tmp_path), job="third")) == {"third"}
    assert notes(tmp_path) == ["first", "second", "third"]


def test_stages_before_their_inputs_are_a_mistake(tmp_path):
    with pytest.raises(ValueError, match=r"second.*first"):
        run_graph(tuple(reversed(chain(tmp_path))), config(tmp_path))


def meet(folder, output, context):
    """Waits for the other stage: both must be at work at once."""
    note(folder, context.name)
    deadline = time.monotonic() + 60
    while len(set(notes(folder))) < 2:
        if time.monotonic() > deadline:
            raise DataError("alone")
        time.sleep(0.02)
    return work(folder, output, context) | {"pid": os.getpid()}


def test_independent_stages_run_beside_each_other(tmp_path):
    stages = [stage(tmp_path, name, execute=meet, computes=True) for name in ("left", "right")]
    done = run_graph(stages, config(tmp_path))
    assert len({os.getpid(), done["left"].metrics["pid"], done["right"].metrics["pid"]}) == 3


def alone(folder, output, context):
    """Fails where another stage is at work."""
    if (folder / "busy").exists():
        raise DataError("not alone")
    (folder / "busy").touch()
    time.sleep(0.3)
    (folder / "busy").unlink()
    return work(folder, output, context)


@pytest.mark.parametrize("word", ["resources.num_tasks=1", "resources.cpus_per_task=1.5"])
def test_no_more_stages_run_than_there_are_tasks_and_cpus_for(tmp_path, word):
    run_graph([stage(tmp_path, name, execute=alone) for name in ("left", "right")], config(tmp_path, word))
    assert sorted(notes(tmp_path)) == ["left", "right"]


def slow(folder, output, context):
    for step in range(8):
        context.progress({"step": float(step), "num_steps": 8.0})
        time.sleep(0.5)
    return work(folder, output, context)


def test_progress_reaches_the_driver(tmp_path):
    seen = Seen()
    run_graph([stage(tmp_path, "slow", execute=slow)], config(tmp_path), [seen])
    steps = [call[2]["step"] for call in seen.calls if call[0] == "progress"]
    assert len(steps) >= 2
    assert steps == sorted(set(steps))
    assert not (tmp_path / "run" / "progress" / "slow.json").exists()


def broken(folder, output, context):
    if context.config.policy.num_steps == 7:
        raise DataError("the data are bad")
    raise KeyError("a mistake")


def waiting(folder, output, context):
    """Runs until it is stopped, as a training does: at a moment of its own choice, after writing what it has."""
    with signals.defer_shutdown() as requested:
        note(folder, context.name)
        while not requested():
            time.sleep(0.05)
        context.store.write_text("so far", *output.split("/"), "x")
        raise KeyboardInterrupt


def test_an_error_ends_the_run_as_itself_and_stops_what_is_beside(tmp_path):
    stages = [
        stage(tmp_path, "waiting", execute=waiting),
        stage(tmp_path, "broken", execute=broken),
        stage(tmp_path, "after", inputs=("broken",)),
    ]
    with pytest.raises(DataError, match=r"^the data are bad$"):
        run_graph(stages, config(tmp_path, "policy.num_steps=7"))
    stages_done = RunDirectory.existing(str(tmp_path / "run")).lineage()["stages"]
    assert {name: entry["state"] for name, entry in stages_done.items()} == dict.fromkeys(
        ("waiting", "broken"), "started"
    )
    if (tmp_path / "notes").exists():  # it had begun, so it was given the time to write
        assert (tmp_path / "run" / "out" / "waiting" / "x").read_text() == "so far"
    with pytest.raises(KeyError, match="a mistake"):
        run_graph(stages[1:], config(tmp_path, "policy.num_steps=8"))


def quick(folder, output, context):
    raise DataError(f"{context.name} is bad")


def test_a_stage_that_ends_while_the_run_is_stopped_does_no_harm(tmp_path):
    """Ray aborts this process where it is told to cancel a task that is just ending."""
    for number in range(15):
        stages = [stage(tmp_path, name, execute=quick) for name in ("left", "right")]
        with pytest.raises(DataError, match=r"^(left|right) is bad$"):
            run_graph(stages, config(tmp_path / str(number)))


def mortal(folder, output, context):
    """Kills its process at its first call, after half of its work."""
    note(folder, context.name)
    if len(notes(folder)) == 1:
        context.store.write_text("half", *output.split("/"), "half")
        os.kill(os.getpid(), signal.SIGKILL)
    return {"found": float(context.store.exists(*output.split("/"), "half"))}


def test_a_killed_stage_goes_on_from_what_it_left(tmp_path):
    done = run_graph([stage(tmp_path, "mortal", execute=mortal)], config(tmp_path))
    assert done["mortal"].metrics == {"found": 1.0}
    assert notes(tmp_path) == ["mortal", "mortal"]


def dying(folder, output, context):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_stage_that_is_killed_again_and_again_is_the_clusters_failure(tmp_path):
    with pytest.raises(ClusterError, match=r"^stage dying lost its process: .*run the same command again to go on$"):
        run_graph([stage(tmp_path, "dying", execute=dying)], config(tmp_path, "resources.max_failures=0"))


def terminate(folder):
    """SIGTERM for this process once the stage is at work."""
    while not (folder / "notes").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_stopped_run_lets_its_stages_write_and_goes_on_from_there(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "_requested", threading.Event())
    threading.Thread(target=terminate, args=(tmp_path,), daemon=True).start()
    with signals.handle_sigterm(), pytest.raises(KeyboardInterrupt):
        run_graph([stage(tmp_path, "waiting", execute=waiting)], config(tmp_path))
    assert (tmp_path / "run" / "out" / "waiting" / "x").read_text() == "so far"


def test_a_request_whose_interrupt_was_swallowed_stops_the_run_too(tmp_path, monkeypatch):
    """As where the signal comes within a callback of Ray, whose errors are printed and forgotten."""
    monkeypatch.setattr(signals, "_requested", threading.Event())

    def request() -> None:
        while not (tmp_path / "notes").exists():
            time.sleep(0.05)
        signals._requested.set()

    threading.Thread(target=request, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_graph([stage(tmp_path, "waiting", execute=waiting)], config(tmp_path))
    assert (tmp_path / "run" / "out" / "waiting" / "x").read_text() == "so far"


def warned(folder, output, context):
    from phaseb.runtime import logs

    logs.event("storage is slow", 30, step=3)
    return work(folder, output, context)


def test_warnings_of_a_stage_reach_the_driver(tmp_path, caplog):
    from phaseb.runtime import logs

    logs.LOGGER.propagate = True
    run_graph([stage(tmp_path, "warned", execute=warned)], config(tmp_path))
    assert "storage is slow" in caplog.text
