"""Damaged files of recorded episodes, and whether all their rows and rewards come in or are said not to.

python tests/damaged.py SEED FILES    # damages so many files of every format, and counts what became of them
"""

import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from episode_strategies import make_episode

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.formats.npz import write_npz
from phaseb.episodes.shards import write_episodes
from phaseb.episodes.sources import inventory_of, open_source
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

FIXTURES = Path(__file__).parent / "fixtures"
CAMERAS = {"lerobot": "observation.images.top", "minari": "observations/camera"}
SOURCES = (
    "minari-hdf5",
    "minari-arrow",
    "minari-parquet",
    "lerobot-v3",
    "lerobot-v21",
    "hdf5-flat",
    "hdf5-demos",
    "npz",
    "parquet",
)
RETRY_S = 20


def prepare(source: str, folder: Path) -> tuple[EpisodesConfig, list[Path]]:
    kind = source.split("-")[0]
    if kind in ("npz", "parquet"):
        episodes = [make_episode(f"e{i}", 5, seed=i, frames=True) for i in range(6)]
        if kind == "npz":
            write_npz(Store.at(folder), "d.npz", episodes)
            return EpisodesConfig(source="npz", path=str(folder / "d.npz"), max_bytes=10**8), [folder / "d.npz"]
        write_episodes(Store.at(folder / "d"), episodes, rows_per_shard=3)
        return EpisodesConfig(source=kind, path=str(folder / "d"), max_bytes=10**8), sorted((folder / "d").iterdir())
    if source == "hdf5-demos":
        path = folder / "d.hdf5"
        with h5py.File(path, "w") as file:
            for i in range(3):
                widths = {"obs/pose": [3], "next_obs/pose": [3], "actions": [2], "rewards": [], "dones": []}
                for name, width in widths.items():
                    values = np.random.default_rng(i).standard_normal([9, *width])
                    values = (np.arange(9) == 8).astype(float) if name == "dones" else values
                    file.create_dataset(f"data/demo_{i}/{name}", data=values, compression="gzip", fletcher32=True)
        return EpisodesConfig(source="hdf5", path=str(path), max_bytes=10**8), [path]
    if kind == "hdf5":
        path = folder / "d.hdf5"
        with h5py.File(path, "w") as file:
            for name, shape in {"observations": (30, 3), "actions": (30, 2), "rewards": (30,)}.items():
                values = np.random.default_rng(0).standard_normal(shape)
                file.create_dataset(name, data=values, compression="gzip", fletcher32=True)
            file["terminals"] = np.arange(30) % 10 == 9
        return EpisodesConfig(source="hdf5", path=str(path), max_bytes=10**8), [path]
    shutil.copytree(FIXTURES / source, folder / "d")
    columns = {"images": CAMERAS[kind]} if source != "minari-parquet" else {}
    files = sorted(p for p in (folder / "d").rglob("*") if p.is_file() and "stats" not in p.name)
    return EpisodesConfig(source=kind, path=str(folder / "d"), columns=columns, max_bytes=10**8), files


def damage(rng: np.random.Generator, whole: bytes) -> bytes:
    broken = bytearray(whole)
    kind = rng.integers(4)
    if kind == 0:
        return bytes(broken[: rng.integers(0, len(whole))])
    near = len(whole) if kind == 1 else min(len(whole), 2048)  # structures lie at the start and the end
    for at in rng.integers(0, near, rng.integers(1, 12)):
        broken[at if kind != 3 else len(whole) - 1 - at] = int(rng.integers(256))
    return bytes(broken)


def recorded(config: EpisodesConfig) -> np.ndarray:
    """The rewards of all rows that plain libraries find in the files, whatever metadata say."""
    return np.concatenate([np.asarray(part, np.float64).reshape(-1) for part in _rewards(config)])


def _rewards(config: EpisodesConfig) -> Iterator[Any]:
    path = Path(config.path)
    if config.source == "npz":
        yield np.load(path, allow_pickle=False)["rewards"]
    elif path.suffix == ".hdf5" or (path / "data" / "main_data.hdf5").exists():
        file = path if path.suffix else path / "data" / "main_data.hdf5"
        with h5py.File(file) as content:
            episodes = content["data"].values() if "data" in content else content.values()
            found = [content] if "rewards" in content else [one for one in episodes if "rewards" in one]
            yield from [one["rewards"][:] for one in found]
    elif config.source == "minari":
        for file in sorted(path.glob("data/*/*")):
            if file.suffix == ".parquet":
                yield pq.read_table(file)["rewards"].to_numpy()[:-1]
            elif file.suffix == ".arrow":
                with pa.memory_map(str(file)) as source:
                    yield pa.ipc.open_file(source).read_all()["rewards"].to_numpy()[:-1]
    else:
        column = "next.reward" if config.source == "lerobot" else "rewards"
        for file in sorted((path / "data" if config.source == "lerobot" else path).rglob("*.parquet")):
            values = pq.read_table(file, columns=[column])[column].combine_chunks()
            yield (values if config.source == "lerobot" else values.flatten()).to_numpy(zero_copy_only=False)


def outcome(config: EpisodesConfig, whole: np.ndarray) -> str:
    """What becomes of data: "refused" in one clear line, "whole", "said" (less comes in, and it is counted).

    Args:
        config: the data.
        whole: (R,) rewards before the damage.

    Raises:
        AssertionError: rows or rewards are lost and nothing says so; no clear line; or it takes too long.
    """
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(RETRY_S)
    try:
        source = open_source(config)
        episodes = list(source.read(range(len(source.entries()))))
        inventory = inventory_of(source)
    except DataError as error:
        text = str(error)
        if "\n" in text or not text:
            raise AssertionError(f"not one clear line: {text!r}") from error
        return "refused"
    finally:
        signal.alarm(0)
    try:
        there = recorded(config)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, pa.ArrowException):
        there = whole
    rows = sum(map(len, episodes)) + sum(part.rows for part in inventory.left_out)
    number = len(episodes) + sum(part.episodes for part in inventory.left_out)
    earned = sum(float(e.rewards.astype(np.float64).sum()) for e in episodes)
    earned += sum(part.reward for part in inventory.left_out)
    counted = inventory.episodes > number or (inventory.rows or 0) > rows
    other = any(part.what.startswith("groups data/") for part in inventory.left_out)
    unrewarded = earned == 0 and any("every reward is 0" in note for note in inventory.notes)
    lost = len(there) - rows, float(there.sum()) - earned
    if lost[0] > 0 or abs(lost[1]) > 1e-4 + 1e-5 * float(np.abs(there).sum()):
        if not (counted or other or (unrewarded and lost[0] <= 0)):
            raise AssertionError(f"{config.path} loses {lost[0]} rows and {lost[1]:g} of reward, and nothing says so")
        return "said"
    return "said" if counted or other else "whole"


def _give_up(number: int, frame: object) -> None:
    raise AssertionError(f"still reading after {RETRY_S} s")


def damage_some(source: str, folder: Path, seed: int, files: int) -> Counter[str]:
    """Damage one file of a data set after another, and count the outcomes.

    Raises:
        AssertionError: as `outcome`.
    """
    config, paths = prepare(source, folder)
    rng, counts = np.random.default_rng([seed, SOURCES.index(source)]), Counter[str]()
    whole = recorded(config)
    for _ in range(files):
        file = paths[rng.integers(len(paths))]
        content = file.read_bytes()
        file.write_bytes(damage(rng, content))
        counts[outcome(config, whole)] += 1
        file.write_bytes(content)
    assert outcome(config, whole) == "whole"
    return counts


if __name__ == "__main__":
    for name in SOURCES:
        with tempfile.TemporaryDirectory() as place:
            print(name, dict(damage_some(name, Path(place), int(sys.argv[1]), int(sys.argv[2]))), flush=True)
