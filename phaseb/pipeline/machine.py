"""What this machine has left for a run, and how much of it the stages of a run will need."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from phaseb.config.root import Config
from phaseb.latents.projection import MAX_SENSOR_DIMS
from phaseb.pipeline.dataset_stats import DataFacts
from phaseb.pipeline.sizes import total_steps
from phaseb.runtime.storage import Store
from phaseb.trust.dataset import NUM_CROPS
from phaseb.trust.gate_features import num_transition_inputs

GB = 1e9
BASE_BYTES = 1_000_000_000
"""Of this process, Ray and one worker, before they hold data."""
FLOAT, COPIES = 4, 2
"""Bytes of a number; what is handed to a worker is there twice."""


@dataclass(frozen=True)
class Machine:
    """Bytes that are free; None where they are not known, or not this machine's to count.

    Attributes:
        memory: what one process may take.
        disk: where the run directory is.
        shared, scratch: `/dev/shm` and the temporary folder, of a Ray that is started here.
        place: where the memory is, in words.
    """

    memory: int | None
    disk: int | None
    shared: int | None
    scratch: int | None
    place: str = "free"

    @classmethod
    def here(cls, run_dir: str) -> "Machine":
        """This machine, with the disk that a run directory is on."""
        store = Store.at(run_dir)
        shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else None
        scratch = shutil.disk_usage(tempfile.gettempdir()).free
        return cls(_free_memory(), _free_disk(store.root) if store.is_local else None, shared, scratch)

    @classmethod
    def of_cluster(cls, run_dir: str) -> "Machine":
        """The largest node of the cluster that is joined, with the disk that a local run directory is on.

        Memory is what Ray counts of it, and not known before the cluster is joined.
        """
        import ray

        store = Store.at(run_dir)
        memory = None
        if ray.is_initialized():
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            memory = max((int(node["memory"]) for node in nodes if "memory" in node), default=None)
        disk = _free_disk(store.root) if store.is_local else None
        return cls(memory, disk, None, None, "on the largest node of the cluster")


@dataclass(frozen=True)
class Need:
    """Bytes of memory that a stage holds at once, and the setting that lowers them."""

    stage: str
    setting: str
    given: object
    bytes: int


def memory_needs(config: Config, facts: DataFacts) -> Iterator[Need]:
    """The large arrays of each stage. Estimates from below: what they leave out is small, or not known yet."""
    dims, actions, steps = _latent_dims(config, facts), facts.action_size, facts.longest() + 1
    pixels = 1
    for side in facts.frame_shape or (0,):
        pixels *= side
    seen = pixels + FLOAT * (facts.state_size + actions)
    held = sum(min(config.memory.encoder_episodes, facts.count(split)) for split in ("train", "dev"))
    yield Need("encode", "memory.encoder_episodes", config.memory.encoder_episodes, COPIES * held * steps * seen)
    held = sum(min(config.memory.fit_episodes, facts.count(split)) for split in ("train", "dev"))
    latent = FLOAT * (dims + actions + 2)
    yield Need("dynamics", "memory.fit_episodes", config.memory.fit_episodes, COPIES * held * steps * latent)
    own = min(config.memory.gate_episodes, facts.count("train"))
    entries = own * (1 + NUM_CROPS) + config.trust.num_corruptions + 2 * config.negatives.num_episodes
    entry = FLOAT * (num_transition_inputs(dims, actions) + dims + actions + 2) * config.synthesis.horizon
    yield Need("trust", "memory.gate_episodes", config.memory.gate_episodes, COPIES * entries * entry)
    yield Need("policy", "replay.capacity", config.replay.capacity, replay_bytes(config, facts))


def replay_bytes(config: Config, facts: DataFacts) -> int:
    """Bytes of the transitions that the replay buffer will hold."""
    row = FLOAT * (_latent_dims(config, facts) + facts.action_size + 5 + 3 + config.arms.num_seeds)
    synthetic = config.synthesis.num_episodes * (config.synthesis.horizon + 1)
    rows = sum(min(n, config.replay.capacity) for n in (total_steps(facts, "train") + facts.count("train"), synthetic))
    return rows * row


def disk_need(config: Config, facts: DataFacts) -> int:
    """Bytes that a run will write once its episodes are there: latents, rollouts three times, the replay's journal."""
    row = FLOAT * (_latent_dims(config, facts) + facts.action_size + 3)
    rollouts = config.synthesis.num_episodes * (config.synthesis.horizon + 1)
    journal = replay_bytes(config, facts) if config.resources.num_workers else 0
    return total_steps(facts, "train", "dev", "test") * row + 3 * rollouts * row + journal + 1_000_000


def _latent_dims(config: Config, facts: DataFacts) -> int:
    return max(config.latents.num_dims, min(facts.state_size, MAX_SENSOR_DIMS))


def _free_memory() -> int | None:
    """What a process may still take: of the machine, or of the container that it is in."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit, used = (_read_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    except (OSError, ValueError):
        return free
    return min(free, max(0, limit - used))


def _read_number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def _free_disk(path: str) -> int | None:
    while path and not os.path.isdir(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path or "/").free
