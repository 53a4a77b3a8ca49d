"""Checkpoints that others write at the same time."""

import pytest
import torch

from phaseb.errors import DataError
from phaseb.runtime.checkpoint import load_checkpoint, save_checkpoint
from phaseb.runtime.storage import Store


def test_one_that_is_replaced_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    store, read = Store.at(tmp_path), Store.read_json
    save_checkpoint(store, {"x": torch.zeros(2)}, {"step": 1})
    headers = [store.read_json("meta.json")]
    save_checkpoint(store, {"x": torch.ones(2)}, {"step": 2})  # takes the first one's tensors away
    monkeypatch.setattr(Store, "read_json", lambda self, *parts: headers.pop() if headers else read(self, *parts))
    tensors, meta = load_checkpoint(store)
    assert torch.equal(tensors["x"], torch.ones(2))
    assert meta == {"step": 2}


def test_one_without_its_tensors_is_refused(tmp_path):
    store = Store.at(tmp_path)
    save_checkpoint(store, {"x": torch.zeros(2)}, {})
    store.delete(store.read_json("meta.json")["tensors"])
    with pytest.raises(DataError, match="no such file"):
        load_checkpoint(store)
