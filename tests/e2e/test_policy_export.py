"""The shipped policy as files of its own: they act as phaseb does, they are refused once altered, and nothing runs."""

import hashlib
import json
import pickle
import shutil
import sys
import zipfile

import numpy as np
import pytest
from program import strict_json

from phaseb.episodes.shards import read_episodes
from phaseb.export.loader import ExportedAgent, ExportedPolicy
from phaseb.export.onnx import export_policy
from phaseb.runtime.storage import Store

MEASURES = ("mpl", "error_rate", "return", "net_value_per_hour")


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    target = tmp_path_factory.mktemp("exported") / "policy"
    return target, export_policy(str(finished.folder), str(target), seed=1)


@pytest.fixture
def altered(exported, tmp_path):
    return shutil.copytree(exported[0], tmp_path / "altered")


def test_both_files_say_that_they_act_alike(exported):
    _, told = exported
    assert set(told["difference"]) == {"onnx", "torch.export"}
    assert max(told["difference"].values()) <= 1e-5
    assert told["checked_rows"] > 50


@pytest.mark.parametrize("file", ["policy.onnx", "policy.pt2"])
def test_a_file_earns_what_the_run_measured(exported, finished, command, file):
    summary = json.loads((finished.folder / "evaluation" / "summary.json").read_text())
    told = command("evaluate", "--policy", exported[0] / file, "--json")
    assert told.code == 0, told.err
    said = strict_json(told.out)
    wanted = summary["arms"][exported[1]["arm"]]["seeds"]["1"]
    for name in MEASURES:
        assert said["card"][name] == wanted[name]
        if wanted[name] is None:  # nothing was attempted
            assert said["measured"][name] is None
        else:
            assert said["measured"][name] == pytest.approx(wanted[name], rel=1e-4), name


def test_it_acts_on_any_number_of_machines_at_once(exported, finished):
    episodes = read_episodes(Store.at(finished.folder / "episodes"), ("test",))[:3]
    state = np.stack([e.state[0] for e in episodes])
    pt2, onnx = (ExportedAgent(ExportedPolicy.load(str(exported[0] / f))) for f in ("policy.pt2", "policy.onnx"))
    together = pt2.reset({"state": state})
    np.testing.assert_allclose(together, onnx.reset({"state": state}), atol=1e-5)
    np.testing.assert_allclose(together[1:2], pt2.reset({"state": state[1:2]}), atol=1e-5)
    assert together.shape == (3, 2)


def test_the_card_says_where_it_comes_from(exported, finished):
    card = json.loads((exported[0] / "model_card.json").read_text())
    lineage = json.loads((finished.folder / "run.json").read_text())
    assert card["data"]["digests"]["collect"] == lineage["stages"]["collect"]["outputs"]
    assert card["data"]["episodes"]["num_train"] == 10
    assert card["trust"]["roc_auc"] == lineage["stages"]["trust"]["metrics"]["roc_auc"]
    assert len(card["limits"]) > 3
    text = (exported[0] / "MODEL_CARD.md").read_text()
    assert card["promotion"]["reason"] in text
    assert lineage["config_digest"][:16] in text


@pytest.mark.parametrize("name", ["policy.pt2", "policy.onnx", "model_card.json"])
def test_altered_files_are_refused(altered, command, name):
    path = altered / name
    if name.endswith(".json"):
        path.write_text(path.read_text().replace('"workcell"', '"other"', 1))
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    target = altered if name.endswith(".json") else path
    told = command("evaluate", "--policy", target)
    assert (told.code, len(told.complaint)) == (3, 1)
    assert f"{name} was altered" in told.complaint[0]


def test_an_archive_that_could_run_code_is_refused_unread(altered, monkeypatch):
    """Even where a forger made the digests match."""
    from phaseb.export import loader as module

    monkeypatch.setattr(module, "digest_of", lambda value: value and said["digest"])
    path = altered / "policy.pt2"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(n for n in parts if "sample_inputs" in n)
    with zipfile.ZipFile(path, "w") as archive:
        for entry, blob in parts.items():
            archive.writestr(entry, pickle.dumps(print) if entry == name else blob)
    said = json.loads((altered / "model_card.json").read_text())
    said["files"]["policy.pt2"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (altered / "model_card.json").write_text(json.dumps(said))
    with pytest.raises(module.DataError, match="no archive of tensors alone"):
        ExportedPolicy.load(str(altered))


def test_what_does_not_fit_is_said(exported, finished, command, tmp_path):
    for words, code, message in (
        (("evaluate", "--policy", exported[0], "environment.id=Pendulum-v1"), 2, "sees state of shape [8]"),
        (("evaluate", "--policy", exported[0], "environment.id=none"), 2, "has no physics"),
        (("evaluate", "--policy", tmp_path), 3, "is no exported policy"),
        (("export", finished.folder, exported[0], "--format", "policy"), 2, "is not empty"),
        (("export", finished.folder, tmp_path / "x", "--format", "policy", "--seed", 7), 2, "no policy of seed 7"),
        (("export", tmp_path, tmp_path / "x", "--format", "policy"), 3, "is not a run directory"),
    ):
        told = command(*words)
        assert (told.code, len(told.complaint)) == (code, 1), told.err
        assert message in told.complaint[0]
    assert not (tmp_path / "x").exists()


def test_without_the_packages_it_says_how_to_get_them(finished, command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    told = command("export", finished.folder, tmp_path / "x", "--format", "policy")
    assert told.code == 2
    assert 'pip install "phaseb[export]"' in told.complaint[0]
