"""Any damage to any file of any format ends as one DataError, or does not matter: no crash, no other error, no hang,
and an import that failed leaves nothing behind."""

import shutil
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
from episode_strategies import make_episode

from phaseb.config.episodes import EpisodesConfig
from phaseb.episodes.formats.npz import write_npz
from phaseb.episodes.importer import import_episodes
from phaseb.episodes.shards import write_episodes
from phaseb.episodes.sources import open_source
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

FIXTURES = Path(__file__).parents[3] / "fixtures"
CAMERAS = {"lerobot": "observation.images.top", "minari": "observations/camera"}
SOURCES = ("minari-hdf5", "minari-arrow", "minari-parquet", "lerobot-v3", "lerobot-v21", "hdf5-flat", "hdf5-demos",
           "npz", "parquet")  # fmt: skip
FILES_EACH, PATIENCE_S = 30, 20


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
    columns = {"image": CAMERAS[kind]} if source != "minari-parquet" else {}
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


@pytest.mark.parametrize("source", SOURCES)
def test_damaged_data_are_data_errors(tmp_path: Path, source: str) -> None:
    config, files = prepare(source, tmp_path)
    rng = np.random.default_rng([7, SOURCES.index(source)])
    refused = 0
    for _ in range(FILES_EACH):
        file = files[rng.integers(len(files))]
        whole = file.read_bytes()
        file.write_bytes(damage(rng, whole))
        refused += _is_refused(config)
        file.write_bytes(whole)
    assert refused >= FILES_EACH // 5
    assert not _is_refused(config)


def test_a_failed_import_leaves_nothing_behind(tmp_path: Path) -> None:
    config, (_, last) = prepare("parquet", tmp_path)
    config, target = config.model_copy(update={"rows_per_shard": 3}), Store.at(tmp_path / "target")
    whole = last.read_bytes()
    last.write_bytes(whole[:-20])
    with pytest.raises(DataError):
        import_episodes(config, target, seed=0)
    assert target.names() == []
    last.write_bytes(whole)
    assert len(import_episodes(config, target, seed=0)) == 2


def _is_refused(config: EpisodesConfig) -> bool:
    """Whether the data are refused, in one clear line; anything that takes long is stopped."""
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(PATIENCE_S)
    try:
        source = open_source(config)
        list(source.read(range(len(source.entries()))))
    except DataError as error:
        text = str(error)
        if "\n" in text or not text:
            raise AssertionError(f"not one clear line: {text!r}") from error
        return True
    finally:
        signal.alarm(0)
    return False


def _give_up(number: int, frame: object) -> None:
    raise AssertionError(f"still reading after {PATIENCE_S} s")
