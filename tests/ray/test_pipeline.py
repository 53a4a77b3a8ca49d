import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import ray
from episode_strategies import make_episode

from phaseb.config.data import EpisodesConfig
from phaseb.config.run import ResourcesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.npz import write_npz
from phaseb.episodes.importer import import_episodes
from phaseb.episodes.pipeline import dataset, map_shards, windows
from phaseb.episodes.shards import digest, read_episodes, read_trajectories, shard_names, write_episodes, write_shard
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.runtime.storage import Store


class Embed:
    """Episodes to trajectories by a fixed linear map."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, shard: list[Episode]) -> Trajectories:
        z = np.stack([e.state for e in shard if e.state is not None]) * np.float32(self.factor)
        rewards = np.stack([e.rewards for e in shard])
        actions = np.stack([e.actions for e in shard if e.actions is not None])
        lengths = np.full(len(shard), rewards.shape[1])
        ids = tuple(e.id for e in shard)
        return Trajectories(z, actions, rewards, 0 * rewards, lengths, ids, ("train",) * len(ids))


class Fussy:
    """Refuses one episode by name, and drops odd ones."""

    def __init__(self, bad: str) -> None:
        self.bad = bad

    def __call__(self, shard: list[Episode]) -> list[Episode]:
        if any(episode.id == self.bad for episode in shard):
            raise DataError(f"episode {self.bad} is bad")
        return [dataclasses.replace(episode, tags={"seen": "yes"}) for episode in shard if int(episode.id) % 2 == 0]


class Broken:
    def __init__(self) -> None:
        raise DataError("the model is missing")

    def __call__(self, shard: list[Episode]) -> list[Episode]:
        return shard


@pytest.fixture
def episodes(tmp_path: Path) -> Store:
    store = Store.at(tmp_path / "episodes")
    write_episodes(store, [make_episode(f"{i}", 6, seed=i) for i in range(7)], rows_per_shard=2)
    return store


def actors(number: int) -> ResourcesConfig:
    return ResourcesConfig(num_workers=min(number, 1), num_tasks=max(number, 1), cpus_per_task=0.5)


def contents(store: Store) -> dict[str, bytes]:
    return {name: store.read_bytes(name) for name in shard_names(store)}


def test_outputs_are_the_same_bytes_for_any_number_of_actors(episodes: Store, tmp_path: Path) -> None:
    made, seen = [], []
    for num_actors in (0, 1, 2):
        target = Store.at(tmp_path / f"latents-{num_actors}")
        names = map_shards(episodes, target, Embed, (2.0,), actors(num_actors), progress=lambda *n: seen.append(n))
        assert names == shard_names(episodes) == shard_names(target)
        made.append(contents(target))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)] * 3
    assert made[0] == made[1] == made[2]
    before, after = read_episodes(episodes), read_trajectories(Store.at(tmp_path / "latents-2"))
    assert after.ids == tuple(e.id for e in before)
    np.testing.assert_array_equal(after.z[4], 2 * before[4].state)


def test_a_worker_error_is_one_data_error_and_what_is_done_stays(episodes: Store, tmp_path: Path) -> None:
    target = Store.at(tmp_path / "out")
    with pytest.raises(DataError, match=r"^episode 5 is bad$"):
        map_shards(episodes, target, Fussy, ("5",), actors(1))
    done = target.names(suffix=".parquet")
    assert "part-00002-of-00004.parquet" not in done
    assert done
    stamps = {name: Path(target.path(name)).stat().st_mtime_ns for name in done}
    map_shards(episodes, target, Fussy, ("",), actors(1))
    assert [(e.id, e.tags) for e in read_episodes(target)] == [(i, {"seen": "yes"}) for i in ("0", "2", "4", "6")]
    assert stamps == {name: Path(target.path(name)).stat().st_mtime_ns for name in done}


def test_a_worker_that_cannot_be_made_says_why(episodes: Store, tmp_path: Path) -> None:
    for num_actors in (0, 1):
        with pytest.raises(DataError, match=r"^the model is missing$"):
            map_shards(episodes, Store.at(tmp_path / "out"), Broken, (), actors(num_actors))


def test_a_resumed_job_does_only_what_is_left_or_stale(episodes: Store, tmp_path: Path) -> None:
    target, calls = Store.at(tmp_path / "out"), []

    class Spy(Embed):
        def __call__(self, shard: list[Episode]) -> Trajectories:
            calls.append(shard[0].id)
            return super().__call__(shard)

    def embed(stamp: str) -> list[str]:
        calls.clear()
        map_shards(episodes, target, Spy, (1.0,), stamp=stamp)
        return list(calls)

    assert embed("model-a") == ["0", "2", "4", "6"]
    whole = contents(target)
    assert embed("model-a") == []
    target.delete("part-00001-of-00004.parquet")
    target.write_bytes(whole["part-00003-of-00004.parquet"][:99], "part-00003-of-00004.parquet")
    assert embed("model-a") == ["2", "6"]
    assert contents(target) == whole
    assert embed("model-b") == ["0", "2", "4", "6"]
    write_shard(episodes, "part-00000-of-00004.parquet", [make_episode("0", 6, seed=99), make_episode("1", 6)])
    assert embed("model-b") == ["0"]


def test_fewer_input_shards_leave_no_stale_outputs(episodes: Store, tmp_path: Path) -> None:
    target = Store.at(tmp_path / "out")
    map_shards(episodes, target, Embed, (1.0,))
    write_episodes(episodes, [make_episode("new", 6)])
    map_shards(episodes, target, Embed, (1.0,))
    assert read_trajectories(target).ids == ("new",)


def test_a_dataset_has_one_row_an_episode(episodes: Store) -> None:
    rows = dataset(episodes).take_all()
    expected = {e.id: e.actions for e in read_episodes(episodes)}
    assert {row["id"] for row in rows} == set(expected)
    for row in rows:
        np.testing.assert_array_equal(np.stack(row["actions"]), expected[row["id"]])


def test_windows_are_every_stretch_of_an_episode(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    before = [make_episode("a", 6), make_episode("b", 3), make_episode("c", 4)]
    write_episodes(store, before, rows_per_shard=1)
    ds = windows(store, length=4, stride=2)
    batch = ds.take_batch(9, batch_format="numpy")
    found = {(str(i), int(s)) for i, s in zip(batch["id"], batch["start"], strict=True)}
    assert found == {("a", 0), ("a", 2), ("c", 0)}
    assert batch["state"].shape == (3, 5, 3)
    assert batch["actions"].shape == (3, 4, 2)
    at = [(str(i), int(s)) for i, s in zip(batch["id"], batch["start"], strict=True)].index(("a", 2))
    assert before[0].state is not None
    np.testing.assert_array_equal(batch["state"][at], before[0].state[2:7])
    np.testing.assert_array_equal(batch["rewards"][at], before[0].rewards[2:6])


def test_mapping_on_ray_leaves_the_same_digest_when_nothing_changes(episodes: Store, tmp_path: Path) -> None:
    class Keep:
        def __call__(self, shard: list[Episode]) -> list[Episode]:
            return shard

    target = Store.at(tmp_path / "copy")
    map_shards(episodes, target, Keep, (), actors(2))
    assert digest(target) == digest(episodes)
    assert ray.is_initialized()


class Mortal(Embed):
    """Kills its own process in the middle of the first shard that it is given, once."""

    def __init__(self, marker: str) -> None:
        super().__init__(1.0)
        self.marker = Path(marker)

    def __call__(self, shard: list[Episode]) -> Trajectories:
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(shard)


def test_a_killed_actor_is_replaced_and_nothing_is_lost(episodes: Store, tmp_path: Path) -> None:
    map_shards(episodes, Store.at(tmp_path / "calm"), Embed, (1.0,))
    marker = tmp_path / "killed"
    map_shards(episodes, Store.at(tmp_path / "out"), Mortal, (str(marker),), actors(2))
    assert marker.exists()
    assert contents(Store.at(tmp_path / "out")) == contents(Store.at(tmp_path / "calm"))


def test_a_single_shard_is_done_by_a_task_whose_process_is_there_for_the_next(tmp_path: Path) -> None:
    single = Store.at(tmp_path / "single")
    write_episodes(single, [make_episode(f"{i}", 6, seed=i) for i in range(3)], rows_per_shard=3)
    map_shards(single, Store.at(tmp_path / "calm"), Embed, (1.0,))
    marker = tmp_path / "killed"
    map_shards(single, Store.at(tmp_path / "out"), Mortal, (str(marker),), actors(2))
    assert marker.exists()
    assert contents(Store.at(tmp_path / "out")) == contents(Store.at(tmp_path / "calm"))
    with pytest.raises(DataError, match=r"^the model is missing$"):
        map_shards(single, Store.at(tmp_path / "none"), Broken, (), actors(2))
    for name in ("first", "second"):
        map_shards(single, Store.at(tmp_path / name), Signed, (str(tmp_path / "signed"),), actors(2))
    assert len(set((tmp_path / "signed").read_text().split())) == 1


class Signed(Embed):
    """Notes the process that it works in."""

    def __init__(self, path: str) -> None:
        super().__init__(1.0)
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} ")


def test_import_writes_the_same_bytes_in_process_and_on_actors(tmp_path: Path) -> None:
    write_npz(Store.at(tmp_path), "x.npz", [make_episode(f"e{i}", 4, seed=i) for i in range(7)])
    config = EpisodesConfig(source="npz", path=str(tmp_path / "x.npz"), rows_per_shard=2)
    made = []
    for number in (0, 2):
        target = Store.at(tmp_path / f"episodes-{number}")
        import_episodes(config, target, 3, actors(number))
        made.append(contents(target))
    assert made[0] == made[1]
