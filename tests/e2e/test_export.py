"""What leaves for other trainers: read back by their own libraries, equal to what the gate said, and trained on."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from program import strict_json

import phaseb
from phaseb.episodes.actions import read_action_scale
from phaseb.episodes.parquet_file import read_table
from phaseb.episodes.shards import read_episodes, read_shard, read_trajectories, shard_names, write_shard
from phaseb.runtime.storage import Store

NUM_REAL, STEPS = 10, 20


@pytest.fixture(scope="module")
def made(finished):
    return read_trajectories(Store.at(finished.folder / "synthetic" / "gru"))


@pytest.fixture(scope="module")
def real(finished):
    return read_episodes(Store.at(finished.folder / "episodes"), ("train",))


def export(command, finished, target, *words):
    told = command("export", finished.folder, target, *words, "--json")
    assert told.code == 0, told.err
    return strict_json(told.out)


def test_numpy_alone_reads_it(command, finished, made, real, tmp_path):
    said = export(command, finished, tmp_path / "out")
    assert said == {"path": str(tmp_path / "out"), "episodes": NUM_REAL + len(made), "synthetic": len(made)}
    arrays = np.load(tmp_path / "out" / "episodes.npz", allow_pickle=False)
    assert set(arrays["ids"][:NUM_REAL]) == {e.id for e in real}
    np.testing.assert_array_equal(arrays["is_synthetic"][:NUM_REAL], False)
    np.testing.assert_array_equal(arrays["weight"][:NUM_REAL], 1)
    assert np.isnan(arrays["trust"][:NUM_REAL]).all()
    rows = slice(NUM_REAL, None)
    np.testing.assert_array_equal(arrays["weight"][rows], made.weights)
    np.testing.assert_array_equal(arrays["trust"][rows], made.trust)
    np.testing.assert_array_equal(arrays["lengths"][rows], made.lengths)
    np.testing.assert_array_equal(arrays["z"][rows][:, 1:][made.mask], made.z[:, 1:][made.mask])
    scale = read_action_scale(Store.at(finished.folder))
    np.testing.assert_array_equal(arrays["actions"][rows][made.mask], scale.denormalise(made.actions)[made.mask])
    lineage = [json.loads(text) for text in arrays["lineage"]]
    assert lineage[:NUM_REAL] == [{}] * NUM_REAL
    assert [one["start_episode"] for one in lineage[NUM_REAL:]] == list(made.lineage["start_episode"])
    assert all(len(one["model"]) > 8 for one in lineage[NUM_REAL:])
    back = list(phaseb.load_episodes(tmp_path / "out" / "episodes.npz"))
    np.testing.assert_array_equal(back[0].state, real[0].state)


def test_the_sealed_test_and_dev_episodes_stay_in_the_run(command, finished, tmp_path):
    export(command, finished, tmp_path / "out")
    ids = set(np.load(tmp_path / "out" / "episodes.npz")["ids"])
    kept = {e.id for e in read_episodes(Store.at(finished.folder / "episodes"), ("dev", "test"))}
    assert not ids & kept


def test_minari_reads_it_and_torch_trains_on_it(command, finished, made, tmp_path, monkeypatch, pytestconfig):
    minari = pytest.importorskip("minari")
    export(command, finished, tmp_path / "mixed-v0", "--format", "minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    found = list(minari.load_dataset("mixed-v0").iterate_episodes())
    assert len(found) == NUM_REAL + len(made)
    for i, episode in enumerate(found[NUM_REAL:]):
        steps = int(made.lengths[i])
        np.testing.assert_array_equal(episode.infos["weight"][:steps], made.weights[i, :steps])
        np.testing.assert_array_equal(episode.infos["trust"][:steps], made.trust[i, :steps])
        np.testing.assert_array_equal(episode.observations["z"], made.z[i, : steps + 1])
        assert episode.infos["is_synthetic"][:steps].all()
    monkeypatch.syspath_prepend(pytestconfig.rootpath / "docs" / "examples")
    import train_on_export

    losses = train_on_export.main(str(tmp_path), "mixed-v0")
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
    sys.modules.pop("train_on_export")


def test_lerobots_columns_carry_it(command, finished, made, tmp_path):
    """LeRobot's own library, which needs an environment of its own, was run on such an export by hand."""
    export(command, finished, tmp_path / "out", "--format", "lerobot")
    store = Store.at(tmp_path / "out")
    table = read_table(store, f"data/chunk-000/file-{NUM_REAL + 2:03d}.parquet")
    steps = int(made.lengths[2])
    assert table["is_synthetic"].to_pylist() == [True] * steps
    np.testing.assert_array_equal(table["weight"].to_numpy(), made.weights[2, :steps])
    meta = read_table(store, "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert json.loads(meta[NUM_REAL + 2]["phaseb/lineage"])["start_episode"] == made.lineage["start_episode"][2]
    assert store.read_json("meta", "info.json")["fps"] == 4  # the cell acts every 0.25 s
    back = list(phaseb.load_episodes(tmp_path / "out"))
    assert len(back) == NUM_REAL + len(made)


def test_synthetic_episodes_are_of_the_one_task_that_all_recorded_ones_name(command, copied, tmp_path):
    for folder in ("episodes", "latents"):
        store = Store.at(copied / folder)
        for name in shard_names(store):
            content = read_shard(store, name)
            if isinstance(content, list):
                named = [replace(one, tags={**one.tags, "task": "pick"}) for one in content]
            else:
                named = replace(content, lineage={**content.lineage, "tag/task": ("pick",) * len(content)})
            write_shard(store, name, named)
    assert command("export", copied, tmp_path / "out", "--format", "lerobot").code == 0
    meta = read_table(Store.at(tmp_path / "out"), "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert {tuple(row["tasks"]) for row in meta} == {("pick",)}
    assert {row["phaseb/source"] for row in meta} == {"real", "synthetic"}
    assert command("export", copied, tmp_path / "npz").code == 0
    assert set(np.load(tmp_path / "npz" / "episodes.npz")["tasks"]) == {"pick"}


def test_only_what_is_trusted_or_real_or_made(command, finished, made, tmp_path):
    kept = int((made.weights * made.mask).any(1).sum())
    for only, real, synthetic in (("trusted", NUM_REAL, kept), ("synthetic", 0, len(made)), ("real", NUM_REAL, 0)):
        said = export(command, finished, tmp_path / only, "--only", only)
        assert (said["episodes"], said["synthetic"]) == (real + synthetic, synthetic), only
    arrays = np.load(tmp_path / "trusted" / "episodes.npz")
    last = arrays["lengths"] - 1
    assert (arrays["weight"][np.arange(len(last)), last] > 0).all()


def test_what_cannot_be_exported_is_said(command, finished, copied, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    for words, code, message in (
        ((finished.folder, tmp_path / "full"), 2, "is not empty"),
        ((finished.folder, tmp_path / "x", "--format", "zip"), 2, "npz, minari, lerobot"),
        ((tmp_path, tmp_path / "x"), 3, "is not a run directory"),
    ):
        told = command("export", *words)
        assert (told.code, len(told.complaint)) == (code, 1)
        assert message in told.complaint[0]
    lineage = json.loads((copied / "run.json").read_text())
    lineage["stages"].pop("trust")
    (copied / "run.json").write_text(json.dumps(lineage))
    told = command("export", copied, tmp_path / "x")
    assert (told.code, "run `phaseb trust` first" in told.complaint[0]) == (3, True)
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
    assert not (tmp_path / "x").exists()


def test_settings_are_told_with_their_defaults(command):
    told = command("settings", "policy", "num_steps")
    assert told.code == 0
    assert "policy.num_steps=" in told.out
    found = strict_json(command("settings", "--json").out)
    assert len(found) > 150
    assert all(one["description"] and one["default"] for one in found)
    assert command("settings", "no_such_thing").code == 2
