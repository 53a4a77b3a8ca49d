"""Whatever is wrong, the user reads one clear line, the exit code says of which kind it is, nothing is half-written."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from program import leftovers, lineage, phaseb, write_config


def test_an_unknown_key(command, tmp_path):
    told = command("run", f"run.dir={tmp_path / 'run'}", "wrld_model.num_steps=3")
    assert (told.code, told.out) == (2, "")
    (line,) = told.err.splitlines()
    assert line.startswith("phaseb: command line (wrld_model.num_steps=3): unknown key wrld_model;")
    assert line.endswith("; did you mean 'dynamics.gru.num_steps'?")
    assert not (tmp_path / "run").exists()


def test_a_value_out_of_range(command, tmp_path):
    told = command("run", f"run.dir={tmp_path / 'run'}", "policy.discount=7")
    assert told.code == 2
    assert told.err.splitlines() == [
        "phaseb: command line (policy.discount=7): policy.discount = 7: Input should be less than 1"
    ]
    assert not (tmp_path / "run").exists()


def test_all_faults_of_a_config_at_once(command, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("policy: {discount: 7, num_stps: 3}\nenvironment: {observation: smell}\n", encoding="utf-8")
    told = command("run", "--config", path, "run.seed=-1", "nonsense")
    assert told.code == 2
    assert len(told.complaint) == 5
    for word in ("policy.discount", "policy.num_steps", "environment.observation", "run.seed", "nonsense"):
        assert any(word in line for line in told.complaint), word


@pytest.mark.parametrize("words", [("nope",), ("run", "--confi", "x"), ("run", "--nope"), ("tune",)])
def test_a_command_that_is_none(command, words):
    told = command(*words)
    assert told.code == 2
    assert "error:" in told.err.splitlines()[-1]


def arrays(num: int = 12, steps: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "observations": rng.normal(size=(num, steps + 1, 4)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(num, steps, 2)).astype(np.float32),
        "rewards": rng.normal(size=(num, steps)).astype(np.float32),
    }


def missing(content):
    del content["actions"]


def not_a_number(content):
    content["observations"][1, 2, 3] = np.nan


def infinite(content):
    content["rewards"][1, 2] = np.inf


def wrong_shape(content):
    content["actions"] = content["actions"][:, :-1]


def objects(content):
    content["actions"] = np.array([[None] * 20] * 12, dtype=object)


def none_at_all(content):
    content.update({name: array[:0] for name, array in content.items()})


def only_one(content):
    content.update({name: array[:1] for name, array in content.items()})


NPZ = [
    (missing, "lacks the array 'actions'"),
    (not_a_number, "state has NaN or Inf"),
    (infinite, "rewards has NaN or Inf"),
    (wrong_shape, "'actions' has shape (12, 19, 2)"),
    (objects, "pickle"),
    (none_at_all, "holds no episodes"),
    (only_one, "too few episodes"),
]


def importing(path: Path, run: Path, *more: str) -> tuple[str, ...]:
    return (
        "run",
        "--config",
        str(write_config(path.parent)),
        "episodes.source=npz",
        f"episodes.path={path}",
        "environment.id=none",
        f"run.dir={run}",
        *more,
    )


@pytest.mark.parametrize(("spoil", "message"), NPZ, ids=[spoil.__name__ for spoil, _ in NPZ])
def test_an_npz_that_is_wrong(command, ray_up, tmp_path, spoil, message):
    content = arrays()
    spoil(content)
    np.savez(tmp_path / "bad.npz", **content)
    assert_refused(command(*importing(tmp_path / "bad.npz", tmp_path / "run")), message, tmp_path / "run")


def test_an_npz_that_is_cut_short(command, ray_up, tmp_path):
    np.savez(tmp_path / "whole.npz", **arrays())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-300])
    assert_refused(
        command(*importing(tmp_path / "cut.npz", tmp_path / "run")), "damaged or no NPZ file", tmp_path / "run"
    )


def test_an_npz_that_is_not_there(command, ray_up, tmp_path):
    assert_refused(command(*importing(tmp_path / "none.npz", tmp_path / "run")), "no such file", tmp_path / "run")


def test_episodes_that_later_stages_cannot_use_are_refused_before_anything_is_trained(command, ray_up, tmp_path):
    """The horizon follows short episodes; the three that are left for the sealed test are too few."""
    np.savez(tmp_path / "short.npz", **arrays(steps=9))
    told = command(*importing(tmp_path / "short.npz", tmp_path / "run"))
    assert told.code == 3, told.err
    (line,) = told.complaint
    assert "judge needs 4 windows of 9 steps in the sealed test (synthesis.horizon) and finds 3" in line
    assert "note: synthesis.horizon is 9, not 20: 0 of 7 training and 0 of 3 test episodes have 20 steps" in told.err
    assert [name for name, stage in lineage(tmp_path / "run")["stages"].items()] == ["collect"]


def assert_refused(told, message: str, run: Path) -> None:
    assert told.code == 3, told.err
    (line,) = told.complaint
    assert message in line
    assert told.out == ""
    assert "Traceback" not in told.err
    stages = lineage(run)["stages"]
    assert [name for name, stage in stages.items() if stage["state"] == "done"] == []
    assert leftovers(run) == []


def test_a_run_directory_of_another_config(finished, copied, command):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    told = command("run", "--config", finished.config, f"run.dir={copied}", "episodes.num_train=11", "policy.width=9")
    assert told.code == 2
    (line,) = told.complaint
    assert "another config (different: episodes, policy)" in line
    assert "run.on_change=redo" in line
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_a_run_directory_of_another_version(finished, copied, command):
    told_by = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(told_by | {"format": 99}))
    told = command("run", "--config", finished.config, f"run.dir={copied}")
    assert told.code == 3
    (line,) = told.complaint
    assert "has run format 99, this version of phaseb reads format 2; choose another run.dir" in line
    assert json.loads((copied / "run.json").read_text())["format"] == 99


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', "\x00"])
def test_a_lineage_that_cannot_be_read(finished, copied, command, text):
    (copied / "run.json").write_text(text)
    told = command("run", "--config", finished.config, f"run.dir={copied}")
    assert told.code == 3, told.err
    (line,) = told.complaint
    assert "run.json" in line or "has run format 1" in line
    assert (copied / "run.json").read_text() == text


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 120 kB: enough for the episodes, not for the checkpoints that follow."""
    with Mounted(tmp_path / "disk", "size=120k") as folder:
        yield folder


class Mounted:
    """A filesystem in memory; needs the right to mount."""

    def __init__(self, folder: Path, options: str) -> None:
        folder.mkdir()
        self.folder, self.options = folder, options

    def __enter__(self) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", self.options, "tmpfs", str(self.folder)]
        if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("needs root: it mounts a small disk")
        return self.folder

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


def test_a_full_disk(small_disk, tmp_path, command, ray_up):
    config = write_config(tmp_path)
    told = command("run", "--config", config, f"run.dir={small_disk / 'run'}")
    assert told.code == 4
    (line,) = told.complaint  # said before anything is trained
    assert "of disk for the whole run (synthesis.num_episodes) and finds " in line
    assert "free space, set run.dir to another disk, or lower synthesis.num_episodes" in line
    told = command("encode", "--config", config, f"run.dir={small_disk / 'run'}")
    assert told.code == 1
    (line,) = told.complaint
    assert line.startswith(f"phaseb: cannot write {small_disk}/run/")
    assert line.endswith("the disk is full; free space or set run.dir to another disk")
    assert leftovers(small_disk) == []
    assert lineage(small_disk / "run")["stages"]["collect"]["state"] == "done"
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    again = command("encode", "--config", config, f"run.dir={small_disk / 'run'}")  # space was made: it goes on
    assert again.code == 0, again.err


def test_a_disk_that_only_reads(tmp_path, command):
    with Mounted(tmp_path / "disk", "size=100k,ro") as disk:
        told = command("run", "--config", write_config(tmp_path), f"run.dir={disk / 'run'}")
    assert told.code == 1
    assert told.complaint == [
        f"phaseb: cannot write {disk}/run/config.yaml: the filesystem is read-only; choose another folder"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user other than root, who may write everywhere")
def test_a_folder_without_permission(tmp_path, command):
    (tmp_path / "closed").mkdir(mode=0o500)
    told = command("run", "--config", write_config(tmp_path), f"run.dir={tmp_path / 'closed' / 'run'}")
    assert told.code == 1
    assert "no permission; choose a folder that you may write" in told.complaint[0]


def test_a_file_where_the_run_directory_should_be(tmp_path, command):
    (tmp_path / "file").write_text("mine")
    told = command("run", "--config", write_config(tmp_path), f"run.dir={tmp_path / 'file' / 'run'}")
    assert told.code == 1
    assert told.complaint == [
        f"phaseb: cannot write {tmp_path}/file/run/config.yaml: a file stands where a folder is needed"
    ]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("resources.cpus_per_worker=64", "64 CPUs are asked for, this machine has"),
        ("resources.address=127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
    ],
)
def test_ray_cannot_give_what_is_asked_for(tmp_path, word, message):
    config = write_config(tmp_path, resources={"num_workers": 1})
    told = phaseb("run", "--config", config, word, cwd=tmp_path)
    assert (told.returncode, told.stdout) == (4, "")
    (line,) = told.stderr.splitlines()
    assert message in line
    assert lineage(tmp_path / "runs" / "tiny")["stages"] == {}


def test_a_cluster_without_a_gpu(tmp_path, command, ray_up):
    config = write_config(tmp_path, resources={"num_workers": 1, "gpus_per_worker": 1})
    told = command("run", "--config", config, f"run.dir={tmp_path / 'run'}")
    assert told.code == 4
    (line,) = told.complaint
    assert "the cluster lacks resources: 1 GPU asked for, 0 free of 0" in line


def test_an_interrupted_run_says_how_to_go_on(tmp_path, command, monkeypatch):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("phaseb.stages.run.run", stopped)
    told = command("run", "--config", write_config(tmp_path), f"run.dir={tmp_path / 'run'}")
    assert told.code == 130
    assert told.complaint == ["phaseb: interrupted; run the same command again to go on"]


def test_a_defect_of_the_program_says_so_and_debug_shows_where(tmp_path, command, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr("phaseb.stages.run.run", broken)
    words = ("run", "--config", write_config(tmp_path), f"run.dir={tmp_path / 'run'}")
    told = command(*words)
    assert told.code == 1
    assert told.err.splitlines() == ["phaseb: RuntimeError: oh (this is a defect of phaseb; --debug shows where)"]
    assert "Traceback" in command(*words, "--debug").err
