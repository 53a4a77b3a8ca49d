"""A state is made of what was recorded, in the order in which the environment shows it: none left out, none moved."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from minari_writer import write_minari

from phaseb.config.data import EpisodesConfig
from phaseb.config.root import Config
from phaseb.episodes.episode import Episode
from phaseb.episodes.inventory import summarise
from phaseb.episodes.sources import inventory_of, open_source
from phaseb.episodes.state_columns import check_order, from_tag
from phaseb.errors import ConfigError, DataError
from phaseb.pipeline.dataset_stats import DatasetStats
from phaseb.policy.gym_observation import ObservationLayout
from phaseb.stages.collect import environment_spec

FIXTURES = Path(__file__).parents[3] / "fixtures"
FORMATS = ("hdf5", "arrow", "parquet")


def read(path: Path, source: str = "minari", **columns: Any) -> list[Episode]:
    opened = open_source(EpisodesConfig(source=source, path=str(path), columns=columns))
    return list(opened.read(range(len(opened.entries()))))


def box(*shape: int, dtype: Any = np.float32) -> spaces.Box:
    return spaces.Box(0, 9, shape, dtype)


def ordered_space() -> spaces.Dict:
    """As tests/fixtures/write_minari.py gave it to Minari."""
    inner = spaces.Dict(OrderedDict(z=box(2, 3), a=spaces.Discrete(4, start=1)))
    tips, rest = spaces.Tuple([box(2)] * 12), {"goal": box(1), "switches": spaces.MultiDiscrete([2, 3])}
    return spaces.Dict(OrderedDict(velocity=box(2), position=box(2), tips=tips, arm=inner, **rest))


@pytest.mark.parametrize("data_format", FORMATS)
def test_minaris_own_sets_are_read_in_the_order_of_their_space(data_format: str) -> None:
    expected = np.load(FIXTURES / "minari-ordered-expected.npz")
    episodes = read(FIXTURES / f"minari-ordered-{data_format}")
    assert len(episodes) == 5
    for i, episode in enumerate(episodes):
        np.testing.assert_array_equal(episode.state, expected[f"state-{i}"])
        assert tuple(from_tag(episode.tags)) == ObservationLayout("cell", ordered_space()).state_names


LEAVES = st.one_of(
    st.builds(lambda shape: box(*shape), st.lists(st.integers(1, 3), max_size=2)),
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 4), st.integers(-2, 2)),
    st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 3), min_size=1, max_size=3)),
    st.builds(spaces.MultiBinary, st.integers(1, 3)),
)
KEYS = st.lists(st.sampled_from(["b", "a", "vel", "Pos", "z_9", "0"]), min_size=1, max_size=4, unique=True)


def nested(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def keyed(keys: list[str]) -> st.SearchStrategy[Any]:
        return st.tuples(*[parts] * len(keys)).map(lambda made: spaces.Dict(OrderedDict(zip(keys, made, strict=True))))

    unsorted = KEYS.flatmap(
        lambda keys: st.tuples(*[parts] * len(keys)).map(
            lambda made: spaces.Dict(dict(zip(keys, made, strict=True)), sort_keys=False)
        )
    )
    return st.one_of(KEYS.flatmap(keyed), unsorted, st.lists(parts, min_size=1, max_size=12).map(spaces.Tuple))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(space=nested(st.recursive(LEAVES, nested, max_leaves=6)), seed=st.integers(0, 99))
def test_any_space_is_read_as_the_environment_shows_it(tmp_path: Path, space: spaces.Space[Any], seed: int) -> None:
    space.seed(seed)
    rows = [space.sample() for _ in range(3)]
    layout = ObservationLayout("cell", space)
    shown = np.stack([layout.split(row, 0)[0] for row in rows])
    for data_format in ("hdf5", "parquet"):
        write_minari(tmp_path / data_format, data_format, space, rows)
        (episode,) = read(tmp_path / data_format)
        np.testing.assert_array_equal(episode.state, shown)
        assert tuple(from_tag(episode.tags)) in (layout.state_names, ())


def test_the_rest_beside_a_picture_keeps_its_order() -> None:
    picture = spaces.Box(0, 255, (4, 4, 3), np.uint8)
    space = spaces.Dict(OrderedDict(velocity=box(1), eye=picture, position=box(1)))
    state, _ = ObservationLayout("cell", space).split({"velocity": [1.0], "eye": picture.sample(), "position": [2]}, 0)
    assert state is not None
    assert state.tolist() == [1.0, 2.0]


def test_what_is_no_vector_and_no_picture_is_refused(tmp_path: Path) -> None:
    for shape, dtype in (((4, 4, 3), np.float32), ((3, 8, 8), np.uint8), ((2, 2, 2, 2), np.float32)):
        volume = spaces.Box(0, 1, shape, dtype)
        space = spaces.Dict(OrderedDict(pose=box(2), volume=volume))
        with pytest.raises(ConfigError, match=r"observation volume is .* no vector and no picture"):
            ObservationLayout("cell", space)
        for data_format in ("hdf5", "parquet"):
            write_minari(tmp_path, data_format, space, [space.sample() for _ in range(3)])
            with pytest.raises(DataError, match=r"'observations/volume' is a Box of shape .*episodes\.columns"):
                read(tmp_path)
            (episode,) = read(tmp_path, observation="observations/pose")
            assert episode.state is not None
            assert episode.state.shape == (3, 2)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (spaces.Discrete(4), "Discrete.* discrete, which is not supported"),
        (spaces.MultiDiscrete([3, 3]), "MultiDiscrete.* discrete, which is not supported"),
        (spaces.MultiBinary(2), "MultiBinary.* discrete, which is not supported"),
        (spaces.Box(0, 5, (1,), np.int64), "Box.* int64, so they are discrete"),
        (spaces.Box(0, 5, (2, 2), np.float32), "Box of one dimension"),
        (spaces.Dict({"arm": box(1), "grip": box(1)}), "several spaces, wanted one Box"),
    ],
)
def test_actions_that_are_not_one_continuous_vector_are_refused(tmp_path: Path, action: Any, message: str) -> None:
    for data_format in ("hdf5", "parquet"):
        write_minari(tmp_path, data_format, box(2), [np.ones(2, np.float32)] * 3, action)
        with pytest.raises(DataError, match=message):
            open_source(EpisodesConfig(source="minari", path=str(tmp_path)))


def test_a_picture_that_is_not_read_is_listed(tmp_path: Path) -> None:
    space = spaces.Dict(OrderedDict(pose=box(2), eye=spaces.Box(0, 255, (8, 8, 3), np.uint8)))
    write_minari(tmp_path, "hdf5", space, [space.sample() for _ in range(3)])
    line = summarise(inventory_of(open_source(EpisodesConfig(source="minari", path=str(tmp_path)))), 1, 2)
    assert line == (
        "imported 1 of 1 episodes, 2 of 2 rows; left out: columns observations/eye (a picture: episodes.columns.images "
        "reads it)"
    )


class Ordered:
    """An environment that names the parts of its state."""

    name, num_envs, max_steps, frame_shape, state_size = "ordered", 1, 5, None, 4
    action_low, action_high = -np.ones(1, np.float32), np.ones(1, np.float32)
    state_names = (("velocity", 2), ("position", 2))

    def __init__(self, config: Any, num_envs: int) -> None: ...

    def reset(self, seeds: Any) -> Any: ...

    def step(self, actions: Any) -> Any: ...

    def economics(self) -> Any: ...

    def render(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("source", ["minari", "hdf5", "npz"])
def test_columns_in_another_order_than_the_environments_are_refused(tmp_path: Path, source: str) -> None:
    """robomimic keeps no order, and columns may be chosen in any: sizes agree, names tell."""
    config = Config.model_validate({"environment": {"id": f"{__name__}:Ordered"}})
    prefix, path = {
        "minari": ("observations/", tmp_path),
        "hdf5": ("obs/", tmp_path / "d.hdf5"),
        "npz": ("", tmp_path / "d.npz"),
    }[source]
    pose = {"velocity": np.ones((5, 2), np.float32), "position": np.zeros((5, 2), np.float32)}
    actions, rewards = np.full((4, 1), 0.5, np.float32), np.ones(4, np.float32)
    if source == "minari":
        space = spaces.Dict(OrderedDict(velocity=box(2), position=box(2)))
        write_minari(path, "hdf5", space, [{"velocity": v, "position": p} for v, p in zip(*pose.values(), strict=True)])
    elif source == "hdf5":
        with h5py.File(path, "w") as file:
            for name, values in pose.items():
                file[f"data/demo_0/obs/{name}"] = values
            file["data/demo_0/actions"], file["data/demo_0/rewards"] = actions, rewards
            file["data/demo_0/dones"] = np.arange(4) == 3
    else:
        np.savez(path, actions=actions[None], rewards=rewards[None], **{n: v[None] for n, v in pose.items()})
    spec, name = environment_spec(config, None), f"environment {config.environment.id}"
    assert spec is not None
    offered = spec.state_names
    right, wrong = ([f"{prefix}{name}" for name in names] for names in (pose, reversed(pose)))
    for names in (right, wrong):
        episodes = [Episode(**vars(e) | {"split": "train"}) for e in read(path, source, observation=names)]
        seen = DatasetStats.of(episodes)
        if names == right:
            check_order(seen.state_columns, offered, name)
        else:
            with pytest.raises(DataError, match=r"that of environment .*'position' lies elsewhere; list the"):
                check_order(seen.state_columns, offered, name)
