"""What failures cost: random kills over one run, two nodes against one, the first log line, fifty nodes.

    python benchmarks/reliability.py [kills] [nodes] [submit] [fifty]

Prints a table and one JSON line for each. It starts clusters of its own on this machine and takes about half an hour.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
for folder in ("tests", "tests/unit/training", "tests/cluster", "tests/e2e"):
    sys.path.insert(0, str(ROOT / folder))

from phaseb.runtime.ray_session import QUIET  # noqa: E402

os.environ.update({**QUIET, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32, "OMP_NUM_THREADS": "1"})
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:4], os.environ.get("PYTHONPATH", "")])

import ray  # noqa: E402

NUM_KILLS, PAUSE_S = 24, (0.0, 20.0)  # between them, not counting the time that Ray needs to be up again
NUM_NODES, NUM_PAIRS, NUM_STEPS = 50, 5, 2000


def kills() -> dict[str, Any]:
    """Kill a random process of one run, its driver or anything that Ray runs for it, again and again; same results?"""
    from program import tiny
    from test_kill import same

    with tempfile.TemporaryDirectory(prefix="kills") as name:
        folder = Path(name)
        tree = tiny(
            training={"checkpoint_every_s": 0.5},
            resources={"num_workers": 1, "max_failures": 10},
            policy={"num_steps": 2000},
            latents={"num_steps": 999},
            dynamics={"gru": {"num_steps": 999}},
        )
        (folder / "c.yaml").write_text(json.dumps(tree))
        struck: list[tuple[str, str]] = []
        whole, calm_s = _run(folder, "calm", lambda process: None)
        found, struck_s = _run(folder, "struck", lambda process: _strike(process, folder / "struck", struck))
        assert len(struck) == NUM_KILLS, f"the run ended after {len(struck)} kills"
        attempts = (folder / "struck.log").read_text().count("phaseb: failed with exit code")
    for part in ("shipped", "numbers", "arms"):
        same(found[part], whole[part], part)  # raises where they differ by more than float tolerance
    return {
        "kills": len(struck),
        "same_results": True,
        "exactly": found["numbers"] == whole["numbers"],
        "new_attempts": attempts,
        "calm_s": calm_s,
        "struck_s": struck_s,
        "of": dict(Counter(kind for kind, _ in struck)),
        "in": dict(Counter(stage for _, stage in struck)),
    }


def _run(folder: Path, where: str, meanwhile: Callable[[subprocess.Popen[str]], None]) -> tuple[Any, float]:
    """The whole pipeline as a submitted job runs it; its results and seconds."""
    from program import environment, strict_json

    begin = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "phaseb.submit.retry_entrypoint",
        "100",
        "run",
        "--config",
        "c.yaml",
        "--json",
        f"run.dir={where}",
    ]
    with (folder / f"{where}.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True
        )
        meanwhile(process)
        out, _ = process.communicate()
    assert process.returncode == 0, (folder / f"{where}.log").read_text()[-4000:]
    return strict_json(out), time.monotonic() - begin


def _strike(process: subprocess.Popen[str], run: Path, struck: list[tuple[str, str]]) -> None:
    """`kill -9` of a process below the supervisor, now and then, until enough are struck: any kind as likely as any."""
    import psutil

    chance = random.Random(0)
    while len(struck) < NUM_KILLS:
        while process.poll() is None and not any(_kind(_title(p)) == "raylet" for p in _below(process)):
            time.sleep(0.2)  # it is starting again
        time.sleep(chance.uniform(*PAUSE_S))
        if process.poll() is not None:
            return
        kinds: dict[str, list[Any]] = {}
        for below in _below(process):
            kinds.setdefault(_kind(_title(below)), []).append(below)
        try:
            victim = chance.choice(kinds[chance.choice(sorted(kinds))])
            title = _title(victim)
            victim.send_signal(signal.SIGKILL)
        except (psutil.NoSuchProcess, IndexError):
            continue
        struck.append((_kind(title), _stage(run)))
        sys.stderr.write(f"kill {len(struck)}: {struck[-1][0]} in {struck[-1][1]}\n")


def _below(process: subprocess.Popen[str]) -> list[Any]:
    """All that a process started, and what that started, oldest first."""
    import psutil

    try:
        return sorted(psutil.Process(process.pid).children(recursive=True), key=lambda p: p.pid)
    except psutil.NoSuchProcess:
        return []


def _title(process: Any) -> str:
    import psutil

    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _stage(run: Path) -> str:
    """The stage that a run is in."""
    try:
        stages = json.loads((run / "run.json").read_text())["stages"]
    except (FileNotFoundError, json.JSONDecodeError):
        return "start"
    return next((name for name, stage in stages.items() if stage["state"] == "started"), "start")


def _kind(title: str) -> str:
    for word, kind in (
        ("phaseb.cli", "driver"),
        ("raylet/raylet", "raylet"),
        ("gcs_server", "head"),
        ("RayTrainWorker", "training worker"),
        ("TrainController", "controller"),
        ("ReplayShard", "replay shard"),
        ("MapWorker", "data actor"),
        ("Agent", "agent"),
        ("ray::", "other worker"),
    ):
        if word in title:
            return kind
    return "daemon"


@contextmanager
def cluster(num_nodes: int, cpus: float) -> Iterator[Any]:
    from nodes import Machines

    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        machines = Machines(temp_dir=folder)
        try:
            ray.init(address=machines.cluster.address, log_to_driver=False, logging_level="ERROR")
            machines.scale(num_nodes, cpus)
            yield machines
        finally:
            ray.shutdown()
            machines.cluster.shutdown()


def nodes() -> dict[str, Any]:
    """Two workers on one node and on two, in turns: results, and speed (the median of pairs)."""
    import numpy as np
    import torch
    from linear import LinearLearner, problem

    from phaseb.config.run import ResourcesConfig, TrainingConfig
    from phaseb.runtime.storage import Store
    from phaseb.training.fit import fit

    data = problem(NUM_STEPS)
    found: dict[str, list[Any]] = {"STRICT_PACK": [], "STRICT_SPREAD": []}
    with cluster(2, 2) as machines:
        for pair in range(NUM_PAIRS):
            for strategy in sorted(found, reverse=bool(pair % 2)):
                with tempfile.TemporaryDirectory(prefix="nodes") as folder:
                    found[strategy].append(
                        fit(
                            LinearLearner,
                            data,
                            seed=1,
                            key="k",
                            store=Store.at(folder),
                            name="linear",
                            training=TrainingConfig(checkpoint_every_s=5.0, validate_every=500),
                            resources=ResourcesConfig(num_workers=2, cpus_per_worker=1, placement_strategy=strategy),
                        )
                    )
        assert len(machines.nodes) == 2
    pairs = list(zip(found["STRICT_PACK"], found["STRICT_SPREAD"], strict=True))
    same = all(torch.allclose(a.state["weight"], b.state["weight"], rtol=1e-5) for a, b in pairs)
    ratios = [a.seconds / b.seconds for a, b in pairs]
    return {
        "same_results": same,
        "speed_ratio": float(np.median(ratios)),
        "ratios": [round(r, 3) for r in ratios],
        **{
            f"{name}_ms_a_step": 1e3 * float(np.median([r.seconds for r in results])) / NUM_STEPS
            for name, results in found.items()
        },
    }


def submit() -> dict[str, Any]:
    """From `phaseb submit` to the first line of the job's log, on a local head that has run a job before."""
    folder = Path(tempfile.mkdtemp(prefix="sb", dir="/tmp"))
    ports = _free_ports(4)
    (folder / "token").write_text("cd" * 32)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    names = ("PHASEB_RAY_PORT", "PHASEB_DASHBOARD_PORT", "PHASEB_AGENT_PORT", "PHASEB_CLIENT_PORT")
    environment = {
        **clean,
        **dict(zip(names, map(str, ports), strict=True)),
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "PATH": f"{Path(sys.executable).parent}:{clean['PATH']}",
    }
    head = subprocess.Popen(
        [
            str(ROOT / "cluster/local/start-head.sh"),
            "--num-cpus=2",
            "--object-store-memory=150000000",
            f"--temp-dir={folder / 'ray'}",
        ],
        env=environment,
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
    )
    (folder / "job.yaml").write_text(
        "name: try\njob: collect\noverrides: {episodes.num_train: 2, episodes.num_dev: 1, "
        "episodes.num_test: 1, environment.observation: state, resources.num_tasks: 1}\n"
    )
    times = []
    try:
        while "Ray runtime started" not in (folder / "log").read_text():
            time.sleep(0.2)
        for number in range(4):
            begin = time.monotonic()
            command = [
                str(Path(sys.executable).with_name("phaseb")),
                "submit",
                str(folder / "job.yaml"),
                "--address",
                f"http://127.0.0.1:{ports[1]}",
                f"run.dir={folder}/run{number}",
            ]
            job = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            assert job.stdout is not None
            job.stdout.readline()
            times.append(time.monotonic() - begin)
            job.communicate()
            assert job.returncode == 0
    finally:
        head.terminate()
        head.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
    return {"first_s": times[0], "warm_s": sorted(times[1:])[1]}


def _free_ports(num: int) -> list[int]:
    found = []
    for port in range(8300, 9900):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        found.append(port)
        if len(found) == num:
            return found
    raise RuntimeError("no free ports")


def fifty() -> dict[str, Any]:
    """Fifty nodes on this machine, each of one CPU in name (Ray takes no less): start, map 100 shards on all, end."""
    import numpy as np
    import psutil
    from episode_strategies import make_episode
    from nodes import processes_of

    from phaseb.episodes.shards import shard_names, write_episodes
    from phaseb.runtime.storage import Store

    free = psutil.virtual_memory().available
    begin = time.monotonic()
    with cluster(NUM_NODES, 1) as machines, tempfile.TemporaryDirectory() as folder:
        started_s = time.monotonic() - begin
        used = free - psutil.virtual_memory().available
        rss = [sum(p.memory_info().rss for p in processes_of(node)) for node in machines.nodes]
        store = Store.at(folder)
        write_episodes(store, [make_episode(f"e{i}", 4, seed=i) for i in range(2 * NUM_NODES)], rows_per_shard=1)
        names, begin = shard_names(store), time.monotonic()
        task = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_where)
        done = ray.get([task.remote(folder, name) for name in names])
        worked_s = time.monotonic() - begin
    assert sorted(name for name, _ in done) == sorted(names)
    return {
        "nodes": NUM_NODES,
        "start_s_a_node": started_s / NUM_NODES,
        "memory_mb_a_node": used / NUM_NODES / 1e6,
        "rss_mb_a_node": float(np.mean(rss)) / 1e6,
        "shards": len(names),
        "nodes_that_worked": len({node for _, node in done}),
        "shards_s": worked_s,
    }


def _where(folder: str, name: str) -> tuple[str, str]:
    from phaseb.episodes.shards import read_shard
    from phaseb.runtime.storage import Store

    assert len(read_shard(Store.at(folder), name)) == 1
    return name, ray.get_runtime_context().get_node_id()


def main(chosen: list[str]) -> None:
    for part in (kills, nodes, submit, fifty):
        if not chosen or part.__name__ in chosen:
            begin, load = time.monotonic(), os.getloadavg()[0]
            found = part() | {"part": part.__name__, "load_before": load}
            for name, value in found.items():
                shown = f"{value:.2f}" if isinstance(value, float) else value
                print(f"{part.__name__:<8} {name:<20} {shown}")
            print(json.dumps(found | {"took_s": time.monotonic() - begin}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
