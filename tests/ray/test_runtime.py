"""Ray as this program starts it: closed to strangers, quiet, bounded, gone afterwards; and honest about shortages."""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import torch

from phaseb.config.run import ResourcesConfig
from phaseb.errors import ClusterError
from phaseb.runtime.ray_session import (
    _session_folder,
    joins_cluster,
    machine_cpus,
    ray_session,
    scaling_config,
    training_request,
)


def in_fresh_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Ray caches its token for the life of a process, so each of these looks at a fresh one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_session_has_the_gpus_that_are_asked_for_and_shows_no_prints_of_workers():
    code = """
        import time, ray
        from phaseb.config.run import ResourcesConfig
        from phaseb.runtime.ray_session import ray_session
        with ray_session(ResourcesConfig(num_cpus=1, num_gpus=2)):
            assert ray.cluster_resources()["GPU"] == 2
            ray.get(ray.remote(lambda: print("a worker's word", flush=True)).remote())
            time.sleep(3)  # the driver reads its workers' logs a few times a second
        """
    done = in_fresh_process(code)
    assert done.returncode == 0, done.stderr
    assert "a worker's word" not in done.stderr + done.stdout


def test_a_session_is_quiet_closed_to_strangers_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "home").mkdir()
    short = tempfile.mkdtemp(dir="/tmp")
    done = in_fresh_process(
        """
        import os, subprocess, sys, tempfile
        from phaseb.config.run import ResourcesConfig
        from phaseb.runtime.ray_session import ray_session
        with ray_session(ResourcesConfig(num_cpus=1)):
            print("not a result")
            import ray
            worker = ray.remote(lambda: (os.environ["OMP_NUM_THREADS"], len(os.environ["RAY_AUTH_TOKEN"])))
            assert ray.get(worker.remote()) == ("1", 64)
            assert ray.cluster_resources()["object_store_memory"] == 5e8
            (folder,) = os.listdir(tempfile.gettempdir())
            assert os.stat(os.path.join(tempfile.gettempdir(), folder)).st_mode & 0o077 == 0, "open to everyone"
            stranger = "import ray; ray.init(address=%r, logging_level='FATAL')" % ray.get_runtime_context().gcs_address
            env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
                "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "wrong"}
            with subprocess.Popen([sys.executable, "-c", stranger], env=env, stderr=subprocess.PIPE) as refused:
                assert any(b"InvalidAuthToken" in line for line in refused.stderr), "let in"
                refused.kill()  # Ray tries again for 20 s
            with ray_session(ResourcesConfig(num_cpus=1)):  # a session within a session shares it and leaves it up
                pass
            assert ray.is_initialized()
        assert not ray.is_initialized()
        print(os.listdir(tempfile.gettempdir()), os.listdir(os.path.expanduser("~")))
        """,
        HOME=str(tmp_path / "home"),
        TMPDIR=short,
    )
    os.rmdir(short)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[] []\n"  # no session folder, and no token file in the home folder
    assert done.stderr == "not a result\n"


def test_too_much_for_this_machine_is_said_before_ray_starts():
    wanted = machine_cpus() + 1
    done = in_fresh_process(
        f"""
        from phaseb.config.run import ResourcesConfig
        from phaseb.runtime.ray_session import ray_session
        with ray_session(ResourcesConfig(num_workers={wanted})):
            pass
        """
    )
    assert f"ClusterError: {wanted} CPUs are asked for, this machine has {wanted - 1}; lower" in done.stderr


def test_too_much_for_a_cluster_that_is_there_is_said_or_waited_for():
    session = ray_session(ResourcesConfig(num_workers=64))
    with pytest.raises(ClusterError, match=r"64 CPU asked for, .* free of .*; lower resources"), session:
        pass
    session = ray_session(ResourcesConfig(num_workers=64, wait_s=1))
    with pytest.raises(ClusterError, match="after 1 s"), session:
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_for_rollouts_that_is_not_there_is_said_before_any_work():
    session = ray_session(ResourcesConfig(gpus_per_actor=0.5))
    with pytest.raises(ClusterError, match=r"0.5 GPU asked for, 0 free of 0"), session:
        pass


def test_an_address_where_no_cluster_listens_is_one_clear_error():
    done = in_fresh_process(
        """
        from phaseb.config.run import ResourcesConfig
        from phaseb.runtime.ray_session import ray_session
        with ray_session(ResourcesConfig(address="127.0.0.1:9")):
            pass
        """
    )
    assert "phaseb.errors.ClusterError: no Ray cluster answers at 127.0.0.1:9" in done.stderr


def test_what_workers_reserve():
    assert training_request(ResourcesConfig(num_workers=3, cpus_per_worker=0.5)) == {"CPU": 1.5}
    elastic = ResourcesConfig(num_workers=8, min_workers=2, gpus_per_worker=1, accelerator_type="H100")
    assert training_request(elastic) == {"CPU": 2.0, "GPU": 2.0, "accelerator_type:H100": 0.002}
    assert scaling_config(elastic).num_workers == (2, 8)
    assert scaling_config(ResourcesConfig(num_workers=2)).num_workers == 2


def test_a_submitted_job_joins_its_cluster(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    assert not joins_cluster(ResourcesConfig())
    assert joins_cluster(ResourcesConfig(address="auto"))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert joins_cluster(ResourcesConfig())
    assert not joins_cluster(ResourcesConfig(address="local"))


@pytest.mark.parametrize(
    "wrong", [{"min_workers": 3, "num_workers": 2}, {"gpus_per_worker": 1.5}, {"accelerator_type": "H100"}]
)
def test_resources_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError):
        ResourcesConfig(**wrong)


def test_what_a_killed_process_left_behind_is_cleared_away(monkeypatch):
    short = tempfile.mkdtemp(dir="/tmp", prefix="t")
    monkeypatch.setattr(tempfile, "tempdir", short)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, alive = Path(short, f"phaseb-{gone.pid}-abc"), Path(short, f"phaseb-{os.getpid()}-abc")
    for folder in (left, alive):
        folder.mkdir()
        (folder / "session").write_text("x")
    new = _session_folder()
    assert not left.exists()
    assert alive.exists()
    assert os.stat(new).st_mode & 0o077 == 0
    shutil.rmtree(short)


def test_memory_of_a_cluster_that_is_joined_is_its_largest_nodes(tmp_path):
    done = in_fresh_process(
        """
        import numpy as np
        from phaseb.config.load import load_config
        from phaseb.config.run import ResourcesConfig
        from phaseb.errors import ClusterError
        from phaseb.pipeline.dataset_stats import DataFacts
        from phaseb.pipeline.requirements import preflight
        from phaseb.runtime.ray_session import ray_session
        config = load_config(None, ["run.dir=FOLDER", "environment.id=none", "resources.address=auto"])
        long = {split: np.full(500, 500) for split in ("train", "dev", "test")}
        facts = DataFacts(long, 2, 4, (2000, 2000, 3))
        preflight(config, facts).require("encode")  # nothing is known before it is joined
        with ray_session(ResourcesConfig(num_cpus=1, object_store_gb=0.1)):
            try:
                preflight(config, facts).require("encode")
            except ClusterError as error:
                said = str(error)
        print(said)
        """.replace("FOLDER", str(tmp_path))
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert "of memory at 512 (memory.encoder_episodes) and finds " in line
    assert "on the largest node of the cluster; lower memory.encoder_episodes, or free memory" in line
