from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from recorded_sums import check_sums

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.sources import lengths_of_source, open_source
from phaseb.errors import DataError

RNG = np.random.default_rng(2)


def config(path: Path, **columns: Any) -> EpisodesConfig:
    return EpisodesConfig(source="hdf5", path=str(path), columns=columns, max_bytes=10**6)


def read(path: Path, **columns: Any) -> list[Episode]:
    source = open_source(config(path, **columns))
    return list(source.read(range(len(source.entries()))))


def write_flat(path: Path, following: bool) -> dict[str, Any]:
    """D4RL's layout: episodes of 4 (terminal), 3 (timeout) and 5 (cut off) rows."""
    content = {
        "observations": RNG.standard_normal((12, 3)).astype(np.float32),
        "actions": RNG.standard_normal((12, 2)).astype(np.float32),
        "rewards": RNG.standard_normal(12).astype(np.float32),
        "terminals": np.arange(12) == 3,
        "timeouts": np.arange(12) == 6,
    }
    if following:
        content["next_observations"] = content["observations"] + 10
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file.create_dataset(name, data=values, compression="gzip")
        file.create_dataset("infos/qpos", data=np.zeros((12, 9)))
    return content


def write_demos(path: Path, following: bool) -> None:
    """robomimic's layout, with demonstrations whose order is not that of their names' letters."""
    with h5py.File(path, "w") as file:
        for i in (0, 1, 2, 10):
            demo = file.create_group(f"data/demo_{i}")
            demo.attrs["num_samples"] = 4
            demo["actions"], demo["rewards"] = np.full((4, 2), i / 10, np.float32), np.array([0, 0, 0, 1.0])
            demo["dones"], demo["states"] = np.array([0, 0, 0, 1]), np.zeros((4, 40))
            for group in ("obs", "next_obs")[: 1 + following]:
                shift = i + (group == "next_obs")
                demo[f"{group}/eef_pos"] = (np.arange(12).reshape(4, 3) + shift).astype(np.float64)
                demo[f"{group}/gripper"] = np.full((4, 1), -shift)
                demo[f"{group}/front_image"] = np.full((4, 6, 6, 3), i, np.uint8)
        file["mask/train"] = np.array([b"demo_0"])


def test_d4rl_is_cut_at_terminals_and_timeouts(tmp_path: Path) -> None:
    content = write_flat(tmp_path / "d.hdf5", following=True)
    episodes = read(tmp_path / "d.hdf5")
    assert [(len(e), e.terminated) for e in episodes] == [(4, True), (3, False), (5, False)]
    np.testing.assert_array_equal(episodes[1].state[:3], content["observations"][4:7])
    np.testing.assert_array_equal(episodes[1].state[3], content["next_observations"][6])
    np.testing.assert_array_equal(episodes[2].actions, content["actions"][7:])


def test_without_next_observations_the_last_reward_is_kept(tmp_path: Path) -> None:
    content = write_flat(tmp_path / "d.hdf5", following=False)
    episodes = read(tmp_path / "d.hdf5")
    assert [(len(e), e.terminated) for e in episodes] == [(3, True), (2, False), (4, False)]
    np.testing.assert_array_equal(episodes[0].state, content["observations"][:4])
    for episode, rows in zip(episodes, (slice(0, 4), slice(4, 7), slice(7, 12)), strict=True):
        np.testing.assert_allclose(episode.rewards.sum(), content["rewards"][rows].sum(), rtol=1e-5)


def test_robomimic_demonstrations_are_read_in_order(tmp_path: Path) -> None:
    write_demos(tmp_path / "r.hdf5", following=True)
    episodes = read(tmp_path / "r.hdf5", images="obs/front_image", success="rewards", step_s=3.6)
    assert [e.id for e in episodes] == ["demo_0", "demo_1", "demo_2", "demo_10"]
    assert [len(e) for e in episodes] == [3] * 4  # frames have no successor of the last one
    last = episodes[-1]
    np.testing.assert_array_equal(last.state, np.c_[np.arange(10, 22).reshape(4, 3), np.full(4, -10)])
    assert last.frames is not None
    assert last.frames.shape == (4, 6, 6, 3)
    assert (last.terminated, last.metrics["good_units"]) == (True, 1.0)
    assert last.metrics["mpl"] == pytest.approx(1 / (3 * 3.6 / 3600))
    states_only = read(tmp_path / "r.hdf5")[3]
    assert len(states_only) == 4
    np.testing.assert_array_equal(states_only.state[-1], [20, 21, 22, -11])


@pytest.mark.parametrize("following", [False, True])
def test_chosen_columns_replace_the_layouts_own(tmp_path: Path, following: bool) -> None:
    write_demos(tmp_path / "r.hdf5", following)
    episode = read(tmp_path / "r.hdf5", observation="obs/gripper")[1]
    np.testing.assert_array_equal(episode.state, np.full((4, 1), -1))
    assert len(episode) == 3


def test_nothing_outside_the_file_is_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.hdf5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones((4, 3))
    (tmp_path / "raw.bin").write_bytes(bytes(96))
    virtual = h5py.VirtualLayout((4, 3), float)
    virtual[:] = h5py.VirtualSource(str(secret), "x", (4, 3))
    makers = {
        "links to another file": lambda f: f.__setitem__("observations", h5py.ExternalLink(str(secret), "x")),
        "keeps its data in another file": lambda f: f.create_dataset(
            "observations", (4, 3), "f8", external=[(str(tmp_path / "raw.bin"), 0, 96)]
        ),
        "its data in another file": lambda f: f.create_virtual_dataset("observations", virtual),
    }
    for i, (message, make) in enumerate(makers.items()):
        path = tmp_path / f"{i}.hdf5"
        with h5py.File(path, "w") as file:
            file["actions"], file["rewards"], file["timeouts"] = np.ones((4, 2)), np.ones(4), np.arange(4) == 3
            make(file)
        with pytest.raises(DataError, match=message):
            read(path)


def test_an_unwritten_array_of_any_size_takes_no_memory(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("observations", (1 << 40, 3), "f4", chunks=(1024, 3))
        file.create_dataset("actions", (1 << 40, 2), "f4", chunks=(1024, 2))
        file.create_dataset("rewards", (1 << 40,), "f4", chunks=(1024,))
    assert (tmp_path / "x.hdf5").stat().st_size < 10_000
    with pytest.raises(DataError, match="'rewards' unpacks to 4398046511104 bytes"):
        read(tmp_path / "x.hdf5")


def test_other_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none.hdf5")
    (tmp_path / "text.hdf5").write_text("hello")
    with pytest.raises(DataError, match="damaged"):
        read(tmp_path / "text.hdf5")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match=r"neither of D4RL's layout nor of robomimic's; it holds \['x'\]"):
        read(tmp_path / "other.hdf5")
    with h5py.File(tmp_path / "empty.hdf5", "w") as file:
        file.create_group("data")
    with pytest.raises(DataError, match="holds no episodes"):
        read(tmp_path / "empty.hdf5")


def test_bad_values_are_named(tmp_path: Path) -> None:
    write_flat(tmp_path / "d.hdf5", following=True)
    with h5py.File(tmp_path / "d.hdf5", "a") as file:
        file["actions"][5, 1] = np.nan
    with pytest.raises(DataError, match=r"d\.hdf5: episode episode-000001: actions has NaN or Inf, first at \(1, 1\)"):
        read(tmp_path / "d.hdf5")


FIXTURES = Path(__file__).parents[3] / "fixtures"


def expected() -> list[dict[str, Any]]:
    """What tests/fixtures/write_hdf5.py gave to the two libraries."""
    names = ("observations", "actions", "rewards", "terminals")
    with np.load(FIXTURES / "hdf5-expected.npz", allow_pickle=False) as file:
        return [{name: file[f"{name}-{i}"].astype(np.float32) for name in names} for i in range(len(file.files) // 4)]


def test_what_d4rls_own_writer_wrote_is_read() -> None:
    """It keeps no successor of an episode's last row, so that the last action goes and its reward moves up."""
    episodes, wanted = read(FIXTURES / "d4rl.hdf5"), expected()
    assert [len(e) for e in episodes] == [len(w["rewards"]) - 1 for w in wanted]
    assert all(e.terminated for e in episodes)
    for episode, truth in zip(episodes, wanted, strict=True):
        np.testing.assert_array_equal(episode.state, truth["observations"])
        np.testing.assert_array_equal(episode.actions, truth["actions"][:-1])
        np.testing.assert_array_equal(episode.rewards[:-1], truth["rewards"][:-2])
        assert episode.rewards[-1] == pytest.approx(truth["rewards"][-2:].sum())


def test_what_robomimics_own_converter_wrote_is_read() -> None:
    """It repeats an episode's last observation where there is no successor."""
    episodes, wanted = read(FIXTURES / "robomimic.hdf5"), expected()
    assert [e.id for e in episodes] == [f"demo_{i}" for i in range(len(wanted))]
    assert all(e.terminated for e in episodes)
    for episode, truth in zip(episodes, wanted, strict=True):
        np.testing.assert_array_equal(episode.state[:-1], truth["observations"])
        np.testing.assert_array_equal(episode.state[-1], truth["observations"][-1])
        np.testing.assert_array_equal(episode.actions, truth["actions"])
        np.testing.assert_array_equal(episode.rewards, truth["rewards"])


def test_demonstrations_that_observe_other_columns_are_told_apart(tmp_path: Path) -> None:
    """Sizes agree, and a column of one would be read as another's."""
    write_demos(tmp_path / "d.hdf5", following=False)
    with h5py.File(tmp_path / "d.hdf5", "a") as file:
        file.move("data/demo_2/obs/gripper", "data/demo_2/obs/hand")
    with pytest.raises(DataError, match=r"demo_2 observes obs/eef_pos, obs/hand, demo_0 obs/eef_pos, obs/gripper: set"):
        read(tmp_path / "d.hdf5")
    assert len(read(tmp_path / "d.hdf5", observation=["obs/eef_pos"])) == 4


def test_demonstrations_without_rewards_among_others_are_counted(tmp_path: Path) -> None:
    write_demos(tmp_path / "d.hdf5", following=False)
    with h5py.File(tmp_path / "d.hdf5", "a") as file:
        del file["data/demo_1/rewards"]
    said = check_sums(config(tmp_path / "d.hdf5"), 4, 16, 3.0)
    assert said.endswith("; 1 of 4 demonstrations have no rewards, so theirs are 0")


@pytest.mark.parametrize("resets", [False, True])
def test_observations_show_whether_a_single_terminal_resets(tmp_path: Path, resets: bool) -> None:
    """A goal that is marked in one row, without next observations: the row after it is near, or a new start."""
    starts = RNG.uniform(-9, 9, (8, 2))
    seen = np.concatenate([start + RNG.uniform(0, 0.1, (12, 2)).cumsum(axis=0) for start in starts])
    rows = np.arange(96)
    goal = (rows // 12 % 2 == 0) & (rows % 12 == 5)
    if resets:
        for at in np.flatnonzero(goal):
            seen[at + 1 : at + 7] = RNG.uniform(-9, 9, 2) + RNG.uniform(0, 0.1, (6, 2)).cumsum(axis=0)
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["observations"], file["actions"], file["rewards"] = seen, RNG.standard_normal((96, 1)), goal * 1.0
        file["terminals"], file["timeouts"] = goal, (rows % 12 == 11) & (rows != 23)
    said = check_sums(config(tmp_path / "d.hdf5"), 11 if resets else 7, 96, 4.0)
    assert ("4 terminals do not end their trajectory" in said) == (not resets)


def test_a_time_limit_that_counts_on_shows_that_a_terminal_resets_nothing(tmp_path: Path) -> None:
    rows = np.arange(96)
    goal = (rows // 12 % 2 == 0) & (rows % 12 == 5)
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["observations"], file["actions"] = RNG.standard_normal((96, 2)), RNG.standard_normal((96, 1))
        file["rewards"], file["terminals"], file["timeouts"] = goal * 1.0, goal, rows % 12 == 11
    said = check_sums(config(tmp_path / "d.hdf5"), 8, 96, 4.0)
    assert "4 terminals do not end their trajectory" in said


def test_what_is_no_column_is_not_taken_for_absent(tmp_path: Path) -> None:
    write_demos(tmp_path / "d.hdf5", following=False)
    with h5py.File(tmp_path / "d.hdf5", "a") as file:
        del file["data/demo_1/rewards"]
        file["data/demo_1/rewards"] = np.dtype(np.float32)
    with pytest.raises(DataError, match="'rewards' is neither a column nor a group: copy or write the file again"):
        read(tmp_path / "d.hdf5")


def test_rows_are_known_before_reading(tmp_path: Path) -> None:
    write_demos(tmp_path / "r.hdf5", following=True)
    write_flat(tmp_path / "d.hdf5", following=True)
    demos, flat = (open_source(config(tmp_path / name)) for name in ("r.hdf5", "d.hdf5"))
    assert (lengths_of_source(demos), lengths_of_source(flat)) == ([4] * 4, [4, 3, 5])
