"""A whole run whose arms clone chunks of actions: trained, measured, judged, and exported as what was measured."""

import json

import numpy as np
import pytest
from program import TINY, phaseb, strict_json, write_config

from phaseb.export.loader import ExportedPolicy, evaluate_exported
from phaseb.export.onnx import export_policy
from phaseb.policy.chunk_policy import ChunkPolicy
from phaseb.policy.trained_policy import load_policy
from phaseb.runtime.storage import Store

CHANGES = {
    "arms": {
        "names": ["real_only", "trust_weighted", "flowing"],
        "num_seeds": 1,
        "trust_weighted": {"learner": "act", "generator": "gp"},
        "flowing": {"learner": "flow", "rollouts": "stored", "generator": "gru", "weight": "uniform"},
    },
    "policy": TINY["policy"] | {"chunk_steps": 4},
}
CHUNKED = {
    "trust_weighted": "act",
    "real_only_act": "act",
    "placebo_trust_weighted": "act",
    "state_noise_act": "act",
    "flowing": "flow",
    "real_only_flow": "flow",
    "placebo_flowing": "flow",
    "state_noise_flow": "flow",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cloning")
    config = write_config(folder, **CHANGES)
    process = phaseb("run", "--config", config, "--json", cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder / "runs" / "tiny", strict_json(process.stdout)


def test_every_arm_is_a_policy_of_its_kind_and_was_measured_and_played(run):
    store = Store.at(run[0])
    for arm, kind in CHUNKED.items():
        policy = load_policy(store.folder("policy", arm, "0"))
        assert isinstance(policy, ChunkPolicy)
        assert (policy.kind, policy.chunk_steps) == (kind, 4)
    measured = store.read_json("evaluation", "summary.json")["arms"]
    assert set(CHUNKED) < set(measured)
    assert all(np.isfinite(measured[arm]["seeds"]["0"]["return"]) for arm in CHUNKED)
    played = store.read_json("closed_loop.json")["generators"]
    names = {row["policy"] for row in next(iter(played.values()))["policies"]}
    assert {f"{arm}/0" for arm in CHUNKED} <= names


def test_rollouts_had_their_share_in_what_the_clones_learned(run):
    streams = Store.at(run[0]).read_json("policy", "replay.json")["streams"]
    assert streams["flowing/0"]["sampled_synthetic"] > 0
    assert streams["placebo_trust_weighted/0"]["sampled_synthetic"] > 0
    assert streams["state_noise_act/0"]["sampled_synthetic"] == 0


@pytest.mark.parametrize(("arm", "file"), [("real_only_act", "policy.onnx"), ("flowing", "policy.pt2")])
def test_an_exported_plan_earns_what_the_run_measured(run, tmp_path, monkeypatch, arm, file):
    from phaseb.config.load import load_config
    from phaseb.export import onnx as module

    monkeypatch.setattr(module, "read_decision", lambda store: {"shipped": arm})
    told = export_policy(str(run[0]), str(tmp_path / "out"))
    assert max(told["difference"].values()) <= 1e-5
    card = json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert card["interface"]["outputs"] == {"plan": ["batch", 4, 2]}
    assert ("noise" in card["interface"]["inputs"]) == (arm == "flowing")
    policy = ExportedPolicy.load(str(tmp_path / "out" / file))
    own = [f"{name}={json.dumps(value)}" for name, value in policy.card["config"].items()]
    earned = evaluate_exported(str(tmp_path / "out"), load_config(None, own), policy)
    assert earned["measured"]["return"] == pytest.approx(earned["card"]["return"], rel=1e-4)
