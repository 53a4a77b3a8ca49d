from pathlib import Path

import numpy as np
import pytest
from episode_strategies import make_episode
from pydantic import ValidationError
from recorded_sums import read

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.formats.npz import write_npz
from phaseb.episodes.inventory import summarise
from phaseb.episodes.shards import read_episodes, write_episodes
from phaseb.episodes.sources import fingerprints, open_source
from phaseb.errors import DataError
from phaseb.runtime.storage import Store


def mixed(folder: Path, weights: tuple[float, float], second: str = "b.npz", **fields: object) -> EpisodesConfig:
    store = Store.at(folder)
    write_npz(store, "a.npz", [make_episode(f"a{i}", 4 + i % 3, seed=i) for i in range(12)])
    write_npz(store, "b.npz", [make_episode(f"b{i}", 5, seed=50 + i) for i in range(4)])
    write_npz(store, "odd.npz", [make_episode(f"o{i}", 5, seed=90 + i, state=7) for i in range(4)])
    parts = [
        {"source": "npz", "path": str(folder / name), "weight": weight}
        for name, weight in zip(("a.npz", second), weights, strict=True)
    ]
    return EpisodesConfig(source="mixed", parts=parts, **fields)


@pytest.mark.parametrize(
    ("weights", "taken"),
    [((1, 1), (4, 4)), ((2, 1), (8, 4)), ((3, 1), (12, 4)), ((9, 1), (12, 1)), ((1, 0.1), (12, 1))],
)
def test_episodes_are_taken_by_weight_none_twice(tmp_path: Path, weights, taken) -> None:
    source = open_source(mixed(tmp_path, weights))
    ids = [name for name, _ in source.entries()]
    assert len(set(ids)) == len(ids)
    assert (sum(i.startswith("0-a") for i in ids), sum(i.startswith("1-b") for i in ids)) == taken
    assert ids == [name for name, _ in open_source(mixed(tmp_path, weights)).entries()]


def test_each_episode_is_its_parts_own_whatever_is_asked_for(tmp_path: Path) -> None:
    source = open_source(mixed(tmp_path, (2, 1)))
    order = [9, 0, 11, 3, 4]
    for index, episode in zip(order, source.read(order), strict=True):
        name = source.entries()[index][0]
        assert episode.id == name
        number = int(name[3:])
        seed, steps = (number, 4 + number % 3) if name.startswith("0-a") else (50 + number, 5)
        np.testing.assert_array_equal(episode.state, make_episode("x", steps, seed=seed).state)
        assert episode.tags["part"].endswith("a.npz" if name.startswith("0-a") else "b.npz")


def test_parts_that_do_not_fit_each_other_are_named(tmp_path: Path) -> None:
    source = open_source(mixed(tmp_path, (1, 1), "odd.npz"))
    with pytest.raises(DataError, match=r"odd\.npz: episode o\d has state of size \(7,\), .*a\.npz has \(3,\)"):
        list(source.read(range(len(source.entries()))))
    with pytest.raises(DataError, match="no such file"):
        open_source(mixed(tmp_path, (1, 1), "absent.npz"))


def test_splits_are_kept_where_every_part_has_them(tmp_path: Path) -> None:
    for name in ("one", "two"):
        episodes = [make_episode(f"e{i}", 4, split=s) for i, s in enumerate(["train", "train", "dev", "test"])]
        write_episodes(Store.at(tmp_path / name), episodes)
    parts = [{"source": "parquet", "path": str(tmp_path / name)} for name in ("one", "two")]
    source = open_source(EpisodesConfig(source="mixed", parts=parts))
    assert [split for _, split in source.entries()] == ["train", "train", "dev", "test"] * 2
    write_npz(Store.at(tmp_path), "c.npz", read_episodes(Store.at(tmp_path / "one")))
    parts[1] = {"source": "npz", "path": str(tmp_path / "c.npz")}
    assert {split for _, split in open_source(EpisodesConfig(source="mixed", parts=parts)).entries()} == {""}


def test_a_changed_part_changes_the_fingerprint(tmp_path: Path) -> None:
    config = mixed(tmp_path, (1, 1))
    before = fingerprints(config)
    write_npz(Store.at(tmp_path), "b.npz", [make_episode("b0", 9)])
    assert fingerprints(config) != before


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "mixed"},
        {"source": "npz", "path": "a.npz", "parts": [{"source": "npz", "path": "b.npz"}]},
        {"source": "mixed", "parts": [{"source": "mixed", "path": "a"}]},
        {"source": "mixed", "parts": [{"source": "npz"}]},
        {"source": "mixed", "parts": [{"source": "npz", "path": "a", "weight": 0}]},
        {"policy": "clever"},
    ],
)
def test_what_makes_no_sense_is_refused(fields) -> None:
    with pytest.raises(ValidationError):
        EpisodesConfig(**fields)


def test_rewards_that_a_part_leaves_out_are_said(tmp_path: Path) -> None:
    content = {"observations": np.ones((4, 7, 3)), "actions": np.full((4, 6, 2), 0.5), "rewards": np.ones((4, 6))}
    np.savez(tmp_path / "a.npz", **content)
    np.savez(tmp_path / "b.npz", **content, lengths=np.full(4, 4))
    parts = [{"source": "npz", "path": str(tmp_path / f"{name}.npz")} for name in "ab"]
    found, inventory = read(EpisodesConfig(source="mixed", parts=parts))
    assert sum(float(e.rewards.sum()) for e in found) + sum(part.reward for part in inventory.left_out) == 48
    said = summarise(inventory, len(found), sum(map(len, found)))
    assert "b.npz: rows behind an episode's end ('lengths', or its first terminal) that are not 0 (8 rows, rew" in said
