"""What befalls the actors that make and move data: none of it is lost, none of it is there twice."""

import signal
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import ray
from episode_strategies import make_episode
from nodes import Machines, strike, wait_for, workers
from strikes import NUM_STEPS, same, train

from phaseb.config.run import ResourcesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.pipeline import map_shards
from phaseb.episodes.shards import read_trajectories, shard_names, write_episodes
from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.storage import Store
from phaseb.training.fit import FitResult

NUM_EPISODES = 24


class SlowEmbed:
    """Episodes to trajectories, slowly enough to be struck meanwhile."""

    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s

    def __call__(self, shard: list[Episode]) -> Trajectories:
        time.sleep(self.pause_s)
        z = np.stack([e.state for e in shard if e.state is not None])
        rewards = np.stack([e.rewards for e in shard])
        actions = np.stack([e.actions for e in shard if e.actions is not None])
        ids = tuple(e.id for e in shard)
        lengths = np.full(len(ids), rewards.shape[1])
        return Trajectories(z, actions, rewards, 0 * rewards, lengths, ids, ("train",) * len(ids))


def test_rollout_workers_that_are_killed_or_stand_still(machines: Machines, tmp_path: Path, measured) -> None:
    """Two actors on two nodes: one is killed in the middle of a shard, the other made to wait."""
    nodes = machines.scale(2)
    source, calm, struck = (Store.at(tmp_path / name) for name in ("source", "calm", "struck"))
    write_episodes(source, [make_episode(f"e{i}", 6, seed=i) for i in range(NUM_EPISODES)], rows_per_shard=2)
    map_shards(source, calm, SlowEmbed, (0.0,))
    done: list[float] = []

    def strike_twice() -> None:
        wait_for(lambda: done, "the first shard")
        first, second = (next(p for p in workers(node, "MapWorker")) for node in nodes)
        strike([second], signal.SIGSTOP)
        strike([first], signal.SIGKILL)
        threading.Timer(4.0, strike, [[second], signal.SIGCONT]).start()

    thread = threading.Thread(target=strike_twice, daemon=True)
    thread.start()
    config = ResourcesConfig(num_workers=1, num_tasks=2, cpus_per_task=1.0)
    begin = time.monotonic()
    map_shards(source, struck, SlowEmbed, (0.5,), config, progress=lambda *_: done.append(time.monotonic()))
    thread.join()
    measured(f"longest time without a shard {np.max(np.diff([begin, *done])):.1f} s")
    assert Counter(read_trajectories(struck).ids) == Counter(f"e{i}" for i in range(NUM_EPISODES))
    assert [struck.read_bytes(n) for n in shard_names(struck)] == [calm.read_bytes(n) for n in shard_names(calm)]


def test_an_object_store_that_is_full(machines: Machines, tmp_path: Path, alone: FitResult, measured) -> None:
    """Three times as much as fits: Ray moves it to the disk, and training and data go on."""
    machines.scale(2)
    held = [ray.put(np.full(5_000_000, i, np.float64)) for i in range(6)]  # 240 MB; a node's store has 80
    result = train(tmp_path, 2, sleep_s=0.0)
    same(result, alone)
    assert result.rows[-1]["step"] == NUM_STEPS
    assert [int(ray.get(one)[-1]) for one in held] == list(range(6))
    measured("240 MB of objects in stores of 80 MB")
