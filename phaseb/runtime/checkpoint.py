"""Checkpoints: named tensors in safetensors with JSON beside them and a digest over both. Never pickle.

A checkpoint is one folder of two files, `tensors.safetensors` and `meta.json`; `meta.json` is written last, holds
the digest of the tensors, and is what makes the checkpoint exist.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from phaseb.errors import DataError
from phaseb.runtime.storage import Store, to_jsonable


def save_checkpoint(store: Store, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> str:
    """Write a checkpoint into a folder and return its digest (hex).

    Args:
        store: the folder.
        tensors: a flat dictionary of tensors, of any shapes and devices.
        meta: anything that JSON can hold: specifications, metrics, step counts.
    """
    return write_checkpoint(store, *pack_checkpoint(tensors, meta))


def pack_checkpoint(tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """A copy of tensors and metadata as they are now, for `write_checkpoint`, which may take its time."""
    blob = save_tensors({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    return blob, to_jsonable(dict(meta))


def write_checkpoint(store: Store, blob: bytes, meta: Mapping[str, Any]) -> str:
    """Write what `pack_checkpoint` made into a folder, in place of the checkpoint there; returns its digest (hex).

    What earlier writers left, old tensors and files half-written when they were killed, is removed at the end.
    """
    digest = _digest(blob, meta)
    name = f"tensors-{digest[:16]}.safetensors"
    store.write_bytes(blob, name)
    store.write_json({"digest": digest, "tensors": name, "meta": meta}, "meta.json")
    for old in store.names():
        stale = old.endswith(".safetensors") or (old.startswith((".tensors-", ".meta.json.")) and old.endswith(".tmp"))
        if stale and old != name:
            store.delete(old)
    return digest


def load_checkpoint(store: Store) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the metadata of a checkpoint.

    Raises:
        DataError: where it is absent, truncated, altered or no safetensors file.
    """
    try:
        header, blob = _read(store)
        if _digest(blob, header["meta"]) != header["digest"]:
            raise DataError(f"checkpoint {store.root} was altered: its digest does not match; train it again")
        return load_tensors(blob), dict(header["meta"])
    except (SafetensorError, KeyError, TypeError) as error:
        raise DataError(f"checkpoint {store.root} cannot be read: {error}; train it again") from error


def _read(store: Store) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors that it names.

    They are read again where a writer replaced both in between: the workers of a program that was killed may write a
    last checkpoint while the next program reads.
    """
    header = store.read_json("meta.json")
    while True:
        try:
            return header, store.read_bytes(header["tensors"])
        except DataError:
            latest = store.read_json("meta.json")
            if latest == header:
                raise
            header = latest


def copy_checkpoint(source: Store, target: Store) -> str:
    """Take a checkpoint over into another folder; returns its digest, which stays the same.

    Raises:
        DataError: as `load_checkpoint`.
    """
    return save_checkpoint(target, *load_checkpoint(source))


def checkpoint_digest(store: Store) -> str:
    """The digest that a checkpoint carries, without reading its tensors."""
    return str(store.read_json("meta.json")["digest"])


def flatten(tree: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Split nested dictionaries and lists of a state dict into tensors by dotted name, and the plain rest."""
    tensors: dict[str, torch.Tensor] = {}
    rest: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        elif isinstance(value, Mapping):
            inner_tensors, inner_rest = flatten(value, f"{name}/")
            tensors.update(inner_tensors)
            rest.update(inner_rest if value else {f"{name}/": None})
        else:
            rest[name] = value
    return tensors, rest


def unflatten(tensors: Mapping[str, torch.Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`; keys that are all digits come back as integers, as an optimizer's state has them."""
    tree: dict[str, Any] = {}
    for name, value in [*tensors.items(), *rest.items()]:
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        if leaf:
            node[leaf] = value
    return _with_integer_keys(tree)


def _with_integer_keys(tree: dict[Any, Any]) -> dict[Any, Any]:
    return {
        (int(key) if key.isdigit() else key): _with_integer_keys(value) if isinstance(value, dict) else value
        for key, value in tree.items()
    }


def _digest(blob: bytes, meta: Mapping[str, Any]) -> str:
    canonical = json.dumps(meta, sort_keys=True)
    return hashlib.sha256(blob + canonical.encode()).hexdigest()
