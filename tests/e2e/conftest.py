"""One finished run that many tests look at, and one Ray for the commands that tests call within their own process."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from program import phaseb, write_config

from phaseb.cli.main import main
from phaseb.config.run import ResourcesConfig
from phaseb.runtime.ray_session import ray_session


@dataclass(frozen=True)
class Finished:
    """A run that came to its end."""

    config: Path
    folder: Path
    process: subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def complaint(self) -> list[str]:
        """What the program says on stderr about an error."""
        return [line for line in self.err.splitlines() if line.startswith("phaseb: ")]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`phaseb run --json` of the tiny config, as a process of its own. Tests only read it."""
    folder = tmp_path_factory.mktemp("finished")
    config = write_config(folder)
    process = phaseb("run", "--config", config, "--json", cwd=folder)
    assert process.returncode == 0, process.stderr
    return Finished(config, folder / "runs" / "tiny", process)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished.folder, tmp_path / "copied"))


@pytest.fixture(scope="session")
def ray_up() -> Iterator[None]:
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]  # where workers find what tests wrote
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        with ray_session(ResourcesConfig(num_cpus=2, object_store_gb=0.1), wanted={}):
            yield


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """A command line, run within this process (and with Ray already up, where `ray_up` is asked for)."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # how argparse ends
            code = int(stop.code or 0)
        told = capsys.readouterr()
        return Outcome(code, told.out, told.err)

    return run
