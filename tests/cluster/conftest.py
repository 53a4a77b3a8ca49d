"""One cluster of several nodes for the tests of its faults: its own address, token and folder."""

import json
import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
FOLDERS = [str(folder) for folder in (TESTS, TESTS / "unit" / "training", TESTS / "cluster")]
sys.path[:0] = FOLDERS

from phaseb.runtime.ray_session import QUIET  # noqa: E402

# Ray reads these when it is imported; nodes and workers that are started here inherit them.
os.environ.setdefault("RAY_AUTH_TOKEN", uuid.uuid4().hex)
os.environ.update({**QUIET, "RAY_AUTH_MODE": "token", "OMP_NUM_THREADS": "1", "RAY_metrics_report_interval_ms": "1000"})
os.environ.pop("RAY_ADDRESS", None)
os.environ["PYTHONPATH"] = os.pathsep.join([*FOLDERS, os.environ.get("PYTHONPATH", "")])

from s3 import CREDENTIALS  # noqa: E402

os.environ.update(CREDENTIALS)  # of the S3 server on loopback: nodes must have them before they start

import ray  # noqa: E402  (makes the psutil that it brings importable)
from nodes import Machines  # noqa: E402
from program import phaseb, strict_json, tiny  # noqa: E402
from strikes import train  # noqa: E402

from phaseb.training.fit import FitResult  # noqa: E402


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes down a figure, to be told at the end."""
    return lambda figure: record_property("measured", figure)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, figure in report.user_properties if report.when == "call" else ():
            if name == "measured":
                terminalreporter.write_line(f"{report.nodeid.split('::')[-1]}: {figure}")


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """The cluster, this process connected to it."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Machines(temp_dir=folder)
        ray.init(address=made.cluster.address, log_to_driver=False, logging_level="ERROR")
        for name in ("ray.data", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)
        yield made
        ray.shutdown()
        made.cluster.shutdown()


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """What the training comes to where nothing happens to it."""
    return train(tmp_path_factory.mktemp("alone"), 0, sleep_s=0.0)


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a whole small run comes to where nothing happens to it: on a disk, in one process."""
    folder = tmp_path_factory.mktemp("calm")
    (folder / "tiny.yaml").write_text(json.dumps(tiny()))
    done = phaseb("run", "--config", "tiny.yaml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return dict(strict_json(done.stdout))
