"""Storage that is far away, away for a while, or full."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from linear import problem
from nodes import Machines, wait_for
from program import STAGES, phaseb, strict_json, tiny
from s3 import S3, s3_server
from strikes import NUM_STEPS, TRAINING, same, train

from phaseb.runtime.storage import Store
from phaseb.training.fit import FitResult

AWAY_S, STEP_S = 30.0, 0.4


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


def test_s3_that_is_away_for_half_a_minute(
    s3: S3, machines: Machines, tmp_path: Path, alone: FitResult, measured
) -> None:
    """Training goes on meanwhile; checkpoints are left out, and written again when the server is back."""
    machines.scale(2)
    store, log = Store.at(s3.uri("away")), tmp_path / "steps"
    seen: dict[str, float] = {}

    def made() -> int:
        return sum(line.startswith("0 ") for line in log.read_text().splitlines())

    def unplug() -> None:
        def written() -> int:
            # The header alone: the tensors that it names are deleted as soon as there are newer ones.
            return int(store.read_json("meta.json")["meta"]["next_step"]) if store.exists("meta.json") else 0

        wait_for(lambda: written() > 5, "a checkpoint")
        seen["before"] = made()
        s3.stop()
        time.sleep(AWAY_S)  # the fault itself
        seen["after"] = made()
        s3.start()
        begin = time.monotonic()
        wait_for(lambda: written() >= seen["after"], "a checkpoint after it")
        seen["seconds"] = time.monotonic() - begin

    thread = threading.Thread(target=unplug, daemon=True)
    thread.start()
    often = TRAINING.model_copy(update={"checkpoint_every_s": 0.5})
    result = train(store, 2, training=often, data=problem(NUM_STEPS, sleep_s=STEP_S, steps_log=str(log)))
    thread.join()
    same(result, alone)
    assert made() == NUM_STEPS  # nobody had to start again
    measured(
        f"steps {seen['before']:.0f} to {seen['after']:.0f} of {NUM_STEPS} made while it was away, "
        f"a checkpoint {seen['seconds']:.1f} s after it was back"
    )
    assert (seen["after"] - seen["before"]) * STEP_S > AWAY_S / 2


def test_a_whole_run_on_s3_is_the_run_on_a_disk(s3: S3, calm: dict[str, Any], tmp_path: Path) -> None:
    """With workers of Ray Train and replay shards that journal there, against one process and a disk."""
    config = tmp_path / "tiny.yaml"
    config.write_text(json.dumps(tiny(training={"checkpoint_every_s": 1.0}, resources={"num_workers": 1})))
    done = phaseb("run", "--config", config, "--json", f"run.dir={s3.uri('pipeline')}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = strict_json(done.stdout)
    assert found["arms"] == calm["arms"]
    assert found["numbers"] == calm["numbers"]
    store = Store.at(s3.uri("pipeline"))
    assert store.exists("report", "index.html")
    again = phaseb("run", "--config", config, f"run.dir={s3.uri('pipeline')}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("up to date") == len(STAGES) + 1  # and the report
    found = store.filesystem.get_file_info(pafs.FileSelector(store.root, recursive=True))
    assert not [file.path for file in found if file.path.endswith(".tmp")]
