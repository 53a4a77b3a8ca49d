"""What would 10 million episodes on 64 nodes of 8 GPUs take, what is each stage's bottleneck, and what breaks first?

    python benchmarks/scale_model.py [--costs scale.json rollout.json] [--nodes 20] [--out FILE]

A model: costs a unit (assumed ones, those in docs/scale.md, unless `scale.py --out` and `rollout.py --out` measured
them on this machine) are multiplied out and set against what disks, networks and Ray's own published envelope give.
`--nodes N` starts a simulated cluster of N Ray nodes here (one CPU each, in name only) and measures what the model
assumes of the head: tasks a second over all nodes, actors made a second, an object for every node.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Ray's scalability envelope: release/benchmarks/README.md of ray-project/ray. Nodes, actors, tasks at once, broadcast.
ENVELOPE = {"nodes": 250, "actors": 10_000, "tasks at once": 10_000, "nodes of a 1 GiB broadcast": 50}
ROWS_PER_SHARD = 64


@dataclass(frozen=True)
class Cluster:
    """Assumed machines. Rates a node in GB/s; price in $ an hour a node."""

    nodes: int = 64
    gpus: int = 8
    cpus: int = 96
    network_gb_s: float = 12.5
    storage_gb_s: float = 100.0  # of the object storage, for all nodes together
    gpu_over_core: float = 60.0  # batched small networks, one GPU against one core of here: an assumption
    price_h: float = 40.0


@dataclass(frozen=True)
class Costs:
    """Processor seconds an episode of 60 steps on one core, and bytes an episode.

    Those of import, sample, batches, bricks, rollouts, scores and replay are what `scale.py` measured from 500 to
    50,000 episodes, rounded up; the others are assumptions. `--costs` puts those of the machine at hand in.
    """

    import_s: float = 0.4e-3
    sample_s: float = 0.13e-3  # a look at every id and shard, for a bounded sample
    batch_s: float = 0.035e-3  # of a pass over rollouts
    encode_s: float = 20e-3  # 61 frames of 64 x 64 through the convolutions: an assumption
    bricks_s: float = 0.5e-3
    rollout_s: float = 2e-3
    score_s: float = 5e-3
    replay_s: float = 0.3e-3  # with the rollout that goes with it
    latents_b: float = 61 * 16 * 4 + 60 * 4 * 4
    video_b: float = 1e15 / 10e6  # 1 PB over 10 M episodes
    decode_b_s: float = 10e6  # video that one core decodes, compressed bytes a second: an assumption
    task_s: float = 2e-3  # of the driver, a shard
    metadata_b: float = 400.0  # of run lineage and shard names, a shard, on the driver
    listed_b: float = 400.0  # of an import's list of ids and splits, an episode, on the driver: an assumption
    counted_b: float = 40.0  # of lengths and economics, an episode, on the driver
    update_s: float = 15e-3  # a learner's step of four arms by three seeds, all on one core


@dataclass(frozen=True)
class Line:
    stage: str
    hours: float
    bottleneck: str
    limits: dict[str, float]


def lines(episodes: float, cluster: Cluster, costs: Costs) -> list[Line]:
    """Every stage: hours by each thing that may limit it; the longest is its bottleneck."""
    cores, gpus = cluster.nodes * cluster.cpus, cluster.nodes * cluster.gpus
    shards = episodes / ROWS_PER_SHARD
    network = cluster.nodes * cluster.network_gb_s * 1e9
    storage = cluster.storage_gb_s * 1e9
    driver = shards * costs.task_s
    table = {
        "import": {
            "cores": episodes * costs.import_s / cores,
            "storage": 2 * episodes * costs.video_b / storage,
            "driver's count": episodes * costs.batch_s,
            "network": episodes * costs.video_b / network,
            "driver": driver,
        },
        "encode": {
            "GPUs": episodes * costs.encode_s / (gpus * cluster.gpu_over_core),
            "cores that decode video": episodes * costs.video_b / costs.decode_b_s / cores,
            "storage": episodes * costs.video_b / storage,
            "network": episodes * costs.video_b / network,
            "driver": driver,
        },
        "bricks": {"driver's core": episodes * costs.bricks_s, "driver": driver},
        "world model": {"one worker group": 1500 * 0.1, "the driver's sample": episodes * costs.sample_s},
        "synthesize": {
            "GPUs": episodes * costs.rollout_s / (gpus * cluster.gpu_over_core),
            "driver": driver,
            "storage": episodes * costs.latents_b / storage,
        },
        "trust": {
            "GPUs": episodes * costs.score_s / (gpus * cluster.gpu_over_core),
            "driver": driver,
            "driver's count": episodes * costs.batch_s,
        },
        "policy": {
            "learners": 100_000 * costs.update_s / cluster.gpu_over_core * 10,
            "the driver, filling the replay": episodes * costs.replay_s,
        },
    }
    found = []
    for stage, limits in table.items():
        worst = max(limits, key=lambda name: limits[name])
        found.append(Line(stage, limits[worst] / 3600, worst, {k: v / 3600 for k, v in limits.items()}))
    return found


def breaks(cluster: Cluster, costs: Costs) -> list[tuple[str, float, str]]:
    """What breaks, at how many episodes, and why; the first one first."""
    head_memory = 64e9
    shard_memory = costs.metadata_b / ROWS_PER_SHARD
    found = [
        ("an import's list of ids and splits", head_memory / costs.listed_b, "memory of the head node"),
        ("lengths and economics on the driver", head_memory / costs.counted_b, "memory of the head node"),
        ("a day of filling the replay", 86_400 / costs.replay_s, "one driver reads and sends all transitions"),
        ("a day of sorting episodes into bricks", 86_400 / costs.bricks_s, "one driver reads all latents"),
        ("shard names and digests on the driver", head_memory / shard_memory, "one task's record a shard"),
        ("a day of the driver's task submissions", 86_400 / costs.task_s * ROWS_PER_SHARD, "one driver a job"),
        ("a day of reading video", cluster.storage_gb_s * 1e9 * 86_400 / costs.video_b, "object storage"),
    ]
    return sorted(found, key=lambda line: line[1])


def simulated(nodes: int) -> dict[str, Any]:
    """Tasks, actors and a broadcast over that many Ray nodes on this machine."""
    import ray
    from ray.cluster_utils import Cluster as RayCluster

    started = time.perf_counter()
    folder = tempfile.mkdtemp(prefix="model-", dir="/tmp")
    Path("/tmp/ray").mkdir(exist_ok=True)  # Ray notes the address there, whatever its temp dir, and does not make it
    size = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "temp_dir": folder}
    cluster = RayCluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    for _ in range(nodes - 1):
        _add_node(cluster, size)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        cluster.wait_for_nodes(timeout=900)
        up_s = time.perf_counter() - started

        @ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
        def where(block: Any = None) -> str:
            return str(ray.get_runtime_context().get_node_id())

        @ray.remote(num_cpus=1)
        class Member:
            def node(self) -> str:
                return str(ray.get_runtime_context().get_node_id())

        seen: set[str] = set()
        deadline = time.perf_counter() + 300
        while len(seen) < nodes and time.perf_counter() < deadline:  # until every node has a worker up
            seen |= set(ray.get([where.remote() for _ in range(2 * nodes)]))
        count = 20 * nodes
        started = time.perf_counter()
        ray.get([where.remote() for _ in range(count)])
        tasks_s = count / (time.perf_counter() - started)
        block = ray.put(b"x" * (8 * 2**20))
        started = time.perf_counter()
        reached = set(ray.get([where.remote(block) for _ in range(3 * nodes)]))
        broadcast_s = time.perf_counter() - started
        started = time.perf_counter()
        members = [Member.remote() for _ in range(nodes)]  # type: ignore[attr-defined]
        placed = set(ray.get([m.node.remote() for m in members]))
        actors_s = nodes / (time.perf_counter() - started)
        return {
            "nodes": nodes,
            "up_s": up_s,
            "nodes_with_tasks": len(seen),
            "tasks_per_s": tasks_s,
            "broadcast_8mb_s": broadcast_s,
            "broadcast_nodes": len(reached),
            "actors_per_s": actors_s,
            "actor_nodes": len(placed),
        }
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _add_node(cluster: Any, size: dict[str, Any]) -> None:
    """Ray gives a node 30 s to start, whatever else the machine does: ask again."""
    for attempt in range(6):
        try:
            cluster.add_node(wait=False, **size)
        except Exception:  # Ray raises no narrower one
            if attempt == 5:
                raise
        else:
            return


def measured(paths: list[str]) -> Costs:
    """Costs out of what benchmarks wrote."""
    changes: dict[str, float] = {}
    for path in paths:
        found = json.loads(Path(path).read_text())
        if found["benchmark"] == "scale":
            names = {
                "import_s": "import",
                "sample_s": "sample",
                "batch_s": "batches",
                "bricks_s": "bricks",
                "rollout_s": "synthesize",
                "score_s": "trust",
                "replay_s": "replay",
            }
            changes |= {cost: found["compared"][stage]["ms"] / 1e3 for cost, stage in names.items()}
        elif found["benchmark"] == "rollout":
            changes["rollout_s"] = 60 / found["steps_per_s"]
        else:
            raise SystemExit(f"{path} is of neither scale.py nor rollout.py")
    return Costs(**{**asdict(Costs()), **changes})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=float, default=10e6)
    parser.add_argument("--costs", nargs="*", default=[])
    parser.add_argument("--nodes", type=int, default=0, help="simulate a cluster of so many Ray nodes here")
    parser.add_argument("--quick", action="store_true", help="the model alone")
    parser.add_argument("--out")
    options = parser.parse_args()
    cluster, costs = Cluster(), measured(options.costs)
    found = lines(options.episodes, cluster, costs)
    hours = sum(line.hours for line in found)
    print(
        f"{options.episodes:,.0f} episodes, {cluster.nodes} nodes x {cluster.gpus} GPUs: {hours:.1f} h, "
        f"{hours * cluster.nodes * cluster.price_h:,.0f} $\n"
    )
    print("| stage | hours | bottleneck | next |\n| --- | --- | --- | --- |")
    for line in found:
        following = sorted(line.limits.items(), key=lambda limit: -limit[1])[1:2]
        second = "".join(f"{name} {value:.2f} h" for name, value in following)
        print(f"| {line.stage} | {line.hours:.2f} | {line.bottleneck} | {second} |")
    print("\n| what breaks | at episodes | why |\n| --- | --- | --- |")
    for what, at, why in breaks(cluster, costs):
        print(f"| {what} | {at:,.0f} | {why} |")
    result: dict[str, Any] = {
        "benchmark": "scale_model",
        "hours": hours,
        "costs": asdict(costs),
        "stages": [asdict(line) for line in found],
    }
    if options.nodes and not options.quick:
        result["simulated"] = simulated(options.nodes)
        print(f"\nsimulated: {result['simulated']}")
    line = json.dumps(result)
    print(line)
    if options.out:
        Path(options.out).write_text(line + "\n")


if __name__ == "__main__":
    main()
