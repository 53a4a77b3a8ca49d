import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episode_strategies import make_episode, same
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.config.data import ColumnsConfig, EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.npz import read_npz, write_npz
from phaseb.episodes.sources import inventory_of, lengths_of_source, open_source
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

LIMIT = 10**8
Arrays = dict[str, Any]


def arrays(num: int = 4, steps: int = 6) -> Arrays:
    rng = np.random.default_rng(1)
    return {
        "observations": rng.standard_normal((num, steps + 1, 3)),
        "actions": rng.standard_normal((num, steps, 2)),
        "rewards": rng.standard_normal((num, steps)),
    }


def save(path: Path, content: Arrays, **options: Any) -> str:
    np.savez(path, **options, **content)
    return str(path)


def test_the_reports_format_is_read(tmp_path: Path) -> None:
    content = arrays() | {"mpl": np.array([1.0, 2, np.nan, 4]), "lengths": np.array([6, 1, 3, 6])}
    content["terminals"] = np.zeros((4, 6))
    content["terminals"][2, 2] = 1
    content["observations"][1, 2:] = np.nan  # beyond the episode's end: padding
    episodes = read_npz(save(tmp_path / "report.npz", content), LIMIT)
    assert [e.id for e in episodes] == [f"report-{i:06d}" for i in range(4)]
    assert [len(e) for e in episodes] == [6, 1, 3, 6]
    assert [e.terminated for e in episodes] == [False, False, True, False]
    assert [e.metrics["mpl"] for e in episodes[:2]] == [1.0, 2.0]
    np.testing.assert_array_equal(episodes[2].state, content["observations"][2, :4].astype(np.float32))
    np.testing.assert_array_equal(episodes[2].actions, content["actions"][2, :3].astype(np.float32))
    np.testing.assert_array_equal(episodes[2].rewards, content["rewards"][2, :3].astype(np.float32))


def test_terminals_give_lengths_where_none_are_given(tmp_path: Path) -> None:
    ends = np.zeros((4, 6), bool)
    ends[1, 2] = ends[3, 5] = True
    episodes = read_npz(save(tmp_path / "x.npz", arrays() | {"terminals": ends}), LIMIT)
    assert [(len(e), e.terminated) for e in episodes] == [(6, False), (3, True), (6, False), (6, True)]


def test_fortran_order_integers_and_compression_are_read(tmp_path: Path) -> None:
    content = arrays() | {"rewards": np.arange(24).reshape(4, 6)}
    content["observations"] = np.asfortranarray(content["observations"])
    np.savez_compressed(tmp_path / "x.npz", **content)
    episodes = read_npz(str(tmp_path / "x.npz"), LIMIT)
    np.testing.assert_array_equal(episodes[3].state, content["observations"][3].astype(np.float32))
    assert episodes[3].rewards.tolist() == [18, 19, 20, 21, 22, 23]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.booleans(), st.booleans(), st.booleans())
def test_episodes_come_back_equal_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], frames: bool, ended: bool, known: bool
) -> None:
    folder = tmp_path_factory.mktemp("npz")
    metrics = {"mpl": 3.5, "energy_wh": float("nan")} if known else {}
    before = [
        make_episode(f"é{i}", steps, seed=i, frames=frames, terminated=ended, metrics=metrics)
        for i, steps in enumerate(lengths)
    ]
    write_npz(Store.at(folder), "x.npz", before)
    for one, other in zip(before, read_npz(str(folder / "x.npz"), LIMIT), strict=True):
        for field in ("id", "state", "actions", "rewards", "frames", "terminated", "metrics"):
            assert same(getattr(one, field), getattr(other, field)), field


def test_arrays_of_other_names_are_mapped_and_economics_worked_out(tmp_path: Path) -> None:
    content = {"pos": np.ones((4, 7, 2)), "vel": np.full((4, 7, 1), 5.0), "u": np.zeros((4, 6, 2))}
    content |= {"gain": np.eye(4, 6), "won": np.eye(4, 6) * [[1], [0], [1], [0]], "watts": np.full((4, 6), 30.0)}
    content["film"] = np.zeros((4, 7, 8, 8, 3), np.uint8)
    columns = ColumnsConfig(
        observation=("pos", "vel"),
        action="u",
        reward="gain",
        success="won",
        power_w="watts",
        step_s=60,
        images="film",
        image_size=4,
    )
    episodes = read_npz(save(tmp_path / "x.npz", content), LIMIT, columns)
    assert episodes[0].state is not None
    assert episodes[0].state[0].tolist() == [1, 1, 5]
    assert episodes[1].rewards.tolist() == [0, 1, 0, 0, 0, 0]
    assert episodes[0].frames is not None
    assert episodes[0].frames.shape == (7, 4, 4, 3)
    good, bad = episodes[0].metrics, episodes[1].metrics
    assert (good["good_units"], good["mpl"], good["error_rate"]) == (1, pytest.approx(10), 0)  # one in six minutes
    assert (good["energy_wh"], good["energy_wh_per_unit"]) == (pytest.approx(3), pytest.approx(3))
    assert (bad["errors"], bad["mpl"], bad["error_rate"]) == (1, 0, 1)
    assert np.isnan(bad["energy_wh_per_unit"])
    with pytest.raises(DataError, match=r"lacks the array 'payoff' that episodes\.columns names"):
        read_npz(str(tmp_path / "x.npz"), LIMIT, ColumnsConfig(reward="payoff"))


def test_episodes_of_no_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", arrays() | {"lengths": np.array([1, 2, 0, 3])})
    source = open_source(EpisodesConfig(source="npz", path=path))
    assert [len(e) for e in source.read(range(len(source.entries())))] == [1, 2, 3]
    inventory = inventory_of(source)
    assert inventory.episodes == 4
    assert (inventory.left_out[0].what, inventory.left_out[0].episodes) == ("episodes of no rows", 1)
    with pytest.raises(DataError, match="holds no episodes: all 'lengths' are 0"):
        read_npz(save(tmp_path / "x.npz", arrays() | {"lengths": np.zeros(4)}), LIMIT)


def test_what_was_not_recorded_is_marked(tmp_path: Path) -> None:
    content = arrays() | {"is_synthetic": np.arange(len(arrays()["rewards"])) == 1}
    np.savez(tmp_path / "made.npz", **content)
    assert [e.source for e in read_npz(str(tmp_path / "made.npz"), 10**8)][:3] == ["real", "synthetic", "real"]


def test_a_storage_address_is_read(tmp_path: Path) -> None:
    save(tmp_path / "x.npz", arrays())
    assert len(read_npz(f"file://{tmp_path}/x.npz", LIMIT)) == 4


BAD: dict[str, tuple[Callable[[Arrays], Any], str]] = {
    "no observations": (lambda a: a.pop("observations"), "lacks the array 'observations'"),
    "no actions": (lambda a: a.pop("actions"), "lacks the array 'actions'"),
    "nothing of ours": (lambda a: [a.clear(), a.update(x=np.ones(3))], "none of ours"),
    "NaN": (lambda a: a["observations"].__setitem__((2, 3, 1), np.nan), r"state has NaN or Inf, first at \(3, 1\)"),
    "Inf": (lambda a: a["rewards"].__setitem__((1, 2), -np.inf), "rewards has NaN or Inf"),
    "too large for float32": (lambda a: a["actions"].__setitem__((1, 2, 0), 1e300), "actions has NaN or Inf"),
    "Inf metric": (lambda a: a.update(mpl=np.full(4, np.inf)), "'mpl' has Inf"),
    "flat observations": (lambda a: a.update(observations=np.ones((4, 7))), r"'observations' has shape \(4, 7\)"),
    "no last observation": (lambda a: a.update(observations=np.ones((4, 6, 3))), r"wanted \(4, 7\) first"),
    "no dimensions": (lambda a: a.update(observations=np.ones((4, 7, 0))), r"shape \(4, 7, 0\)"),
    "other number of actions": (lambda a: a.update(actions=np.ones((3, 6, 2))), r"'actions' has shape \(3, 6, 2\)"),
    "rewards of one episode": (lambda a: a.update(rewards=np.ones(6)), r"'rewards' has shape \(6,\), wanted \(N, T\)"),
    "zero episodes": (lambda a: [a.update({k: v[:0]}) for k, v in list(a.items())], "holds no episodes"),
    "zero steps": (lambda a: a.update(rewards=np.ones((4, 0))), "holds no episodes"),
    "lengths beyond": (lambda a: a.update(lengths=np.array([1, 2, 3, 7])), "'lengths' must hold whole numbers"),
    "broken lengths": (lambda a: a.update(lengths=np.array([1, 2, 3, np.nan])), "'lengths' must hold whole numbers"),
    "shape of lengths": (lambda a: a.update(lengths=np.ones(3)), r"'lengths' has shape \(3,\)"),
    "shape of terminals": (lambda a: a.update(terminals=np.ones((4, 7))), r"'terminals' has shape \(4, 7\)"),
    "terminals of any value": (lambda a: a.update(terminals=np.full((4, 6), 0.5)), "of 0 and 1"),
    "on after the end": (
        lambda a: a.update(terminals=np.eye(4, 6), lengths=np.full(4, 6)),
        "episode 0 goes on after its terminal",
    ),
    "text": (lambda a: a.update(actions=np.full((4, 6, 2), "x")), "'actions' is of type <U1, wanted numbers"),
    "complex": (lambda a: a.update(actions=np.ones((4, 6, 2), complex)), "complex128, wanted numbers"),
    "dates": (lambda a: a.update(rewards=np.zeros((4, 6), "datetime64[s]")), "wanted numbers"),
    "records": (lambda a: a.update(rewards=np.zeros((4, 6), [("a", float)])), "wanted numbers"),
    "objects": (lambda a: a.update(actions=np.array([[None] * 6] * 4)), "holds Python objects"),
    "float frames": (lambda a: a.update(frames=np.ones((4, 7, 2, 2, 3))), "'frames' is float64, wanted uint8"),
    "flat frames": (lambda a: a.update(frames=np.ones((4, 7, 2, 2), np.uint8)), "'frames' has shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arrays_are_named(tmp_path: Path, name: str) -> None:
    content = arrays()
    spoil, message = BAD[name]
    spoil(content)
    path = save(tmp_path / "bad.npz", content)
    with pytest.raises(DataError, match=message) as caught:
        read_npz(path, LIMIT)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


class Bomb:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    content = arrays() | {"actions": np.array([[Bomb(tmp_path / "ran")]], object)}
    with pytest.raises(DataError, match="pickle"):
        read_npz(save(tmp_path / "x.npz", content), LIMIT)
    assert not (tmp_path / "ran").exists()


def test_a_decompression_bomb_is_refused_unread(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", **arrays() | {"observations": np.zeros((4, 7, 200_000), np.float32)})
    assert (tmp_path / "x.npz").stat().st_size < 100_000
    with pytest.raises(DataError, match=r"unpacks to 224\d* bytes, more than episodes.max_bytes=1000000"):
        read_npz(str(tmp_path / "x.npz"), 10**6)


def test_a_header_that_promises_more_than_there_is_asks_for_no_memory(tmp_path: Path) -> None:
    blob = io.BytesIO()
    np.lib.format.write_array_header_1_0(blob, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1 << 10)})
    save(tmp_path / "x.npz", {k: v for k, v in arrays().items() if k != "actions"})
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("actions.npy", blob.getvalue())
    with pytest.raises(DataError, match="'actions' is truncated"):
        read_npz(str(tmp_path / "x.npz"), LIMIT)


def test_absent_empty_and_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("episode,reward\n1,2\n")
    for name, message in (("none.npz", "no such file"), ("empty.npz", "no NPZ"), ("text.npz", "no NPZ")):
        with pytest.raises(DataError, match=message):
            read_npz(str(tmp_path / name), LIMIT)


@pytest.mark.parametrize("compressed", [False, True])
def test_every_mutated_file_is_a_data_error(tmp_path: Path, compressed: bool) -> None:
    rng = np.random.default_rng(5)
    path = tmp_path / "x.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays())
    whole, refused = path.read_bytes(), 0
    headers = [i for i in range(len(whole)) if whole[i : i + 6] == b"\x93NUMPY"] or [0]
    for trial in range(60):
        broken = bytearray(whole)
        if trial % 3 == 0:
            broken = broken[: rng.integers(0, len(whole))]
        elif trial % 3 == 1:
            broken[rng.choice(headers) + rng.integers(0, 128)] ^= int(rng.integers(1, 256))
        else:
            for at in rng.integers(0, len(whole), rng.integers(1, 30)):
                broken[at] = int(rng.integers(0, 256))
        path.write_bytes(bytes(broken))
        refused += isinstance(_outcome(path), str)
    assert refused >= 55  # the rest hit bytes without meaning, such as a time stamp


def _outcome(path: Path) -> list[Episode] | str:
    try:
        return read_npz(str(path), LIMIT)
    except DataError as error:
        return str(error)


def test_what_npz_cannot_hold_is_said(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    with pytest.raises(DataError, match="no episodes"):
        write_npz(store, "x.npz", [])
    with pytest.raises(DataError, match="actions of one shape"):
        write_npz(store, "x.npz", [make_episode("a", 3), make_episode("b", 3, actions=0)])
    assert store.names() == []


def test_lengths_are_known_before_reading(tmp_path: Path) -> None:
    """Splits need them: of few long episodes fewer are held out, whatever the format."""
    content = arrays(5) | {"lengths": np.array([6, 0, 3, 2, 6])}
    path = save(tmp_path / "few.npz", content)
    source = open_source(EpisodesConfig(source="npz", path=path))
    assert lengths_of_source(source) == (6, 3, 2, 6)
    assert [len(e) for e in source.read(range(4))] == [6, 3, 2, 6]
