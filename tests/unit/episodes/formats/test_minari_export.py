import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from episode_strategies import make_episode

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.formats.export import Exported
from phaseb.episodes.formats.minari_export import write_minari
from phaseb.episodes.sources import open_source
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

LOW, HIGH = np.array([-1, -1], np.float32), np.array([1, 1], np.float32)


def some(frames: bool) -> list[Exported]:
    metrics = {"mpl": 3.0, "x": np.nan}
    real = Exported(make_episode("real-1", 4, seed=1, frames=frames, terminated=True, metrics=metrics))
    made = Exported(
        make_episode("synthetic-1", 6, seed=2, frames=frames, source="synthetic"),
        None,
        np.linspace(0, 1, 6, dtype=np.float32),
        np.linspace(1, 0, 6, dtype=np.float32),
        {"start_episode": "real-1"},
    )
    return [real, made]


@pytest.mark.parametrize("frames", [False, True])
def test_minaris_own_library_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: bool) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    exported = some(frames)
    assert write_minari(Store.at(tmp_path / "cell" / "mixed-v0"), "cell/mixed-v0", exported, LOW, HIGH) == 2
    data = minari.load_dataset("cell/mixed-v0")
    assert (data.total_episodes, data.total_steps) == (2, 10)
    for source, found in zip(exported, data.iterate_episodes(), strict=True):
        episode = source.episode
        state = found.observations["state"] if frames else found.observations
        np.testing.assert_array_equal(state, episode.state)
        np.testing.assert_array_equal(found.actions, episode.actions)
        np.testing.assert_array_equal(found.rewards, episode.rewards)
        assert (found.terminations[-1], found.truncations[-1]) == (episode.terminated, not episode.terminated)
        if frames:
            np.testing.assert_array_equal(found.observations["frames"], episode.frames)
        for name, values in source.step_columns().items():
            np.testing.assert_array_equal(found.infos[name][:-1], values)


def test_it_comes_back_equal_to_the_bit(tmp_path: Path) -> None:
    latents = np.ones((5, 3), np.float32)
    exported = [dataclasses.replace(e, z=latents[: len(e.episode) + 1]) for e in some(frames=True)[:1]] * 4
    write_minari(Store.at(tmp_path), "cell/x-v0", exported, LOW, HIGH)
    columns = {"observation": "observations/state", "images": "observations/frames"}
    config = EpisodesConfig(source="minari", path=str(tmp_path), columns=columns)
    for before, after in zip(exported, open_source(config).read(range(4)), strict=True):
        for field in ("state", "frames", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(before.episode, field), getattr(after, field))
        assert after.terminated
    made = [dataclasses.replace(e, episode=dataclasses.replace(e.episode, source="synthetic")) for e in exported[:1]]
    write_minari(Store.at(tmp_path / "made"), "cell/y-v0", made, LOW, HIGH)
    (one,) = open_source(config.model_copy(update={"path": str(tmp_path / "made")})).read([0])
    assert (one.source, after.source) == ("synthetic", "real")


def test_lineage_and_source_are_in_the_metadata(tmp_path: Path) -> None:
    write_minari(Store.at(tmp_path), "cell/x-v0", some(frames=False), LOW, HIGH)
    real, made = (json.loads((tmp_path / "data" / str(i) / "metadata.json").read_text()) for i in range(2))
    assert (real["source"], real["metrics"]) == ("real", {"mpl": 3.0})
    assert (made["source"], made["lineage"]) == ("synthetic", {"start_episode": "real-1"})


def test_a_real_step_weighs_one_and_an_unscored_synthetic_one_is_unknown() -> None:
    real, made = some(frames=False)
    assert real.step_columns()["weight"].tolist() == [1] * 4
    unscored = dataclasses.replace(made, trust=None, weight=None).step_columns()
    assert np.isnan(unscored["weight"]).all()
    assert np.isnan(unscored["trust"]).all()
    assert unscored["is_synthetic"].all()


def test_what_minari_cannot_hold_is_said(tmp_path: Path) -> None:
    for episodes, message in (
        ([], "no episodes"),
        ([Exported(make_episode("a", 3, actions=0))], "episode a .* lacks actions"),
        ([Exported(make_episode("a", 3)), Exported(make_episode("b", 3, state=4))], "episode b differs"),
    ):
        with pytest.raises(DataError, match=message):
            write_minari(Store.at(tmp_path), "cell/x-v0", episodes, LOW, HIGH)
        assert not (tmp_path / "data" / "metadata.json").exists()
