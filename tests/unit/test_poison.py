"""Files that a stranger wrote run nothing, whatever they pass for: pickles stay closed, altered bytes are seen."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from phaseb.dynamics.protocol import load_generator
from phaseb.episodes.shards import read_episodes, read_trajectories
from phaseb.errors import DataError
from phaseb.latents.model import EncoderModel
from phaseb.policy.actor import Actor
from phaseb.runtime.checkpoint import load_checkpoint, save_checkpoint
from phaseb.runtime.storage import Store
from phaseb.training.loop import read_progress
from phaseb.trust.model import TrustModel

RAN = Path("ran")


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (RAN,)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def poisons() -> dict[str, bytes]:
    torch.save({"weight": Payload()}, "torch.pt")
    np.save("array.npy", np.array([Payload()], object))
    return {
        "pickle": pickle.dumps(Payload()),
        "torch": Path("torch.pt").read_bytes(),
        "numpy": Path("array.npy").read_bytes(),
    }


def test_the_payload_is_live() -> None:
    pickle.loads(poisons()["pickle"])  # noqa: S301
    assert RAN.exists()


@pytest.mark.parametrize("kind", ["pickle", "torch", "numpy"])
def test_a_poisoned_checkpoint_runs_nothing(kind: str) -> None:
    """Its digest is right: whoever can write the tensors can write the digest too."""
    store, poison = Store.at("folder"), poisons()[kind]
    meta = {"key": "k", "next_step": 1, "num_steps": 2, "seconds": 0.0, "rows": [], "rest": {}}
    digest = hashlib.sha256(poison + json.dumps(meta, sort_keys=True).encode()).hexdigest()
    store.write_bytes(poison, "tensors-x.safetensors")
    store.write_json({"digest": digest, "tensors": "tensors-x.safetensors", "meta": meta}, "meta.json")
    loaders = [
        load_checkpoint,
        lambda s: read_progress(s, "k"),
        EncoderModel.load,
        load_generator,
        TrustModel.load,
        Actor.load,
    ]
    for load in loaders:
        with pytest.raises(DataError):
            load(store)
    assert not RAN.exists()


@pytest.mark.parametrize("kind", ["pickle", "torch", "numpy"])
def test_poisoned_shards_run_nothing(kind: str) -> None:
    store = Store.at("shards")
    store.write_bytes(poisons()[kind], "part-00000-of-00001.parquet")
    for read in (read_episodes, read_trajectories):
        with pytest.raises(DataError, match="damaged"):
            read(store)
    assert not RAN.exists()


def test_a_checkpoint_cannot_name_a_file_outside_its_folder() -> None:
    store = Store.at("folder")
    save_checkpoint(store, {"a": torch.zeros(2)}, {})
    header = store.read_json("meta.json")
    Store.at("elsewhere").write_bytes(store.read_bytes(header["tensors"]), "stolen.safetensors")
    store.write_json({**header, "tensors": "../elsewhere/stolen.safetensors"}, "meta.json")
    with pytest.raises(DataError, match="leaves its folder"):
        load_checkpoint(store)


def test_one_flipped_bit_is_seen() -> None:
    store = Store.at("folder")
    save_checkpoint(store, {"a": torch.zeros(2)}, {"weight": 1})
    header = store.read_json("meta.json")
    store.write_json({**header, "meta": {"weight": 2}}, "meta.json")
    with pytest.raises(DataError, match="altered"):
        load_checkpoint(store)
