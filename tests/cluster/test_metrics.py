"""What Prometheus scrapes of real work, and that the dashboard asks for nothing else."""

import json
import re
import threading
import urllib.request
from pathlib import Path

import numpy as np
from episode_strategies import make_episode
from nodes import Machines, wait_for
from strikes import TRAINING, train

from phaseb.config.policy import ReplayConfig
from phaseb.config.run import ResourcesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.pipeline import map_shards
from phaseb.episodes.shards import write_episodes
from phaseb.episodes.trajectories import Trajectories
from phaseb.replay.client import ReplayClient
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.storage import Store
from phaseb.stages.map_shards import SingleThreadWorker

DASHBOARD = Path(__file__).parents[2] / "cluster/grafana/phaseb.json"


def asked_for() -> set[str]:
    """The metrics that the dashboard's panels name."""
    exprs = [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]
    assert len(exprs) > 10
    return {name for expr in exprs for name in re.findall(r"ray_[a-z0-9_]+", expr)}


class Scraper(threading.Thread):
    """Reads the metrics ports of all nodes, over and over, as Prometheus does."""

    def __init__(self, machines: Machines) -> None:
        super().__init__(daemon=True)
        nodes = [machines.cluster.head_node, *machines.nodes]
        self._urls = [f"http://{node.node_ip_address}:{node.metrics_export_port}/metrics" for node in nodes]
        self.end = threading.Event()
        self.text = ""
        self.names: set[str] = set()

    def run(self) -> None:
        while not self.end.wait(0.5):
            for url in self._urls:
                try:
                    with urllib.request.urlopen(url, timeout=5) as reply:
                        text = reply.read().decode()
                except OSError:
                    continue
                self.names |= set(re.findall(r"^(ray_[a-z0-9_]+)", text, re.M))
                self.text += "".join(line + "\n" for line in text.splitlines() if "phaseb" in line)


class Shift:
    def __call__(self, shard: list[Episode]) -> Trajectories:
        z = np.stack([e.state for e in shard if e.state is not None])
        rewards = np.stack([e.rewards for e in shard])
        actions = np.stack([e.actions for e in shard if e.actions is not None])
        ids = tuple(e.id for e in shard)
        return Trajectories(z, actions, rewards, 0 * rewards, np.full(len(ids), 6), ids, ("train",) * len(ids))


def test_every_panel_asks_for_what_there_is(machines: Machines, tmp_path: Path, measured) -> None:
    machines.scale(2)
    scraper = Scraper(machines)
    scraper.start()
    replay = ReplayClient.start(TransitionSchema(3, 2), ReplayConfig(capacity=1000, num_shards=1, shard_cpus=0.1))
    generator = np.random.default_rng(0)
    shape = (20, 10)
    made = Trajectories(
        generator.normal(size=(20, 11, 3)).astype("f4"),
        np.zeros((*shape, 2), "f4"),
        np.zeros(shape, "f4"),
        np.zeros(shape, "f4"),
        np.full(20, 10),
        tuple(f"e{i}" for i in range(20)),
        ("train",) * 20,
    )
    replay.insert(made, "real")
    source = replay.source([SampleSpec("a", 0)], 16, 0.99)
    source_store, target = Store.at(tmp_path / "episodes"), Store.at(tmp_path / "mapped")
    write_episodes(source_store, [make_episode(f"e{i}", 6, seed=i) for i in range(4)], rows_per_shard=1)
    training = TRAINING.model_copy(update={"checkpoint_every_s": 1.0})
    steps = iter(range(0, 100_000, 4))

    def work() -> bool:
        """Something of everything, until all of it was seen (a meter is told every few seconds)."""
        source.sample(next(steps), 4)
        return asked_for() <= scraper.names

    try:
        wide = ResourcesConfig(num_tasks=2, cpus_per_task=0.5)
        stamps = iter(range(1000))

        def map_again() -> bool:
            map_shards(source_store, target, SingleThreadWorker, ("synthesize", Shift), wide, stamp=str(next(stamps)))
            return "ray_phaseb_data_rows_total" in scraper.names

        wait_for(map_again, "the meters of data work")
        train(tmp_path / "training", 1, sleep_s=0.15, training=training, cpus_per_worker=0.5)
        wait_for(work, f"{sorted(asked_for() - scraper.names)}", 60)
    finally:
        scraper.end.set()
        replay.close()
    assert re.search(r'ray_phaseb_training_num_steps\{[^}]*stage="linear"[^}]*\} 120', scraper.text)
    measured(f"{len(asked_for())} metrics named by the dashboard, all there")
