"""Any damage to any file of any format ends as one DataError, or does not matter; never as a crash or another error."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from phaseb.config.episodes import EpisodesConfig
from phaseb.episodes.sources import open_source
from phaseb.errors import DataError

FIXTURES = Path(__file__).parents[3] / "fixtures"
CAMERAS = {"lerobot": "observation.images.top", "minari": "observations/camera"}
SOURCES = ("minari-hdf5", "minari-arrow", "minari-parquet", "lerobot-v3", "lerobot-v21", "hdf5-flat")


def prepare(source: str, folder: Path) -> tuple[EpisodesConfig, list[Path]]:
    kind = source.split("-")[0]
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
    for _ in range(40):
        file = files[rng.integers(len(files))]
        whole = file.read_bytes()
        file.write_bytes(damage(rng, whole))
        refused += _is_refused(lambda: open_source(config))
        file.write_bytes(whole)
    assert refused >= 8
    assert not _is_refused(lambda: open_source(config))


def _is_refused(make: Callable[[], object]) -> bool:
    try:
        source = make()
        list(source.read(range(len(source.entries()))))  # type: ignore[attr-defined]
    except DataError as error:
        text = str(error)
        if "\n" in text or not text:
            raise AssertionError(f"not one clear line: {text!r}") from error
        return True
    return False
