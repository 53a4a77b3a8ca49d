"""What a shard writes down so that a crash does not lose it: snapshots of all it holds, and every insert since.

    snapshots/000000000042/part-0000.bin … manifest.json     all that was held after journal entry 42
    journal/000000000043.bin …                                one file an insert or a change of weights

A file is a SHA-256 digest and, behind it, arrays in safetensors. Files appear whole or not at all (`Store`); a snapshot
exists once its manifest does.

Why it stays: a killed shard has to come back with the very rows, in the very order, that its learners drew from, or a
run that goes on ends otherwise than one that was never struck. Rollouts and changes of weights that a policy made while
it trained are on no other storage, and the order of inserts decides which slots a draw falls on.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from phaseb.errors import DataError
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.segments import Segments
from phaseb.runtime.storage import Store

Arrays = dict[str, NDArray[Any]]
ROWS_PER_PART = 65_536
NUM_SNAPSHOTS = 2
"""How many snapshots are kept, with the journal since the oldest of them."""
_DIGEST_SIZE = 32
COLUMNS = ("rows", "lengths", "codes", "first_steps", "sources")


@dataclass(frozen=True)
class WeightChange:
    """A bulk change of one weight column."""

    column: str
    codes: NDArray[np.int64]
    steps: NDArray[np.int64]
    values: NDArray[np.float32]


Entry = Segments | WeightChange


@dataclass
class Restored:
    """What was found on storage.

    Attributes:
        entries: all that is to be inserted again, in order.
        counters: the shard's counts at the time of the snapshot.
        num_snapshot: transitions among the entries that came from the snapshot.
        damaged: what could not be read, one line each.
    """

    entries: list[Entry] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    num_snapshot: int = 0
    damaged: list[str] = field(default_factory=list)


class Journal:
    """The files of one shard.

    Args:
        store: its folder.
        schema: of the buffer; files of another one are refused.
    """

    def __init__(self, store: Store, schema: TransitionSchema) -> None:
        self._store, self._schema = store, schema
        self.last = max([*self._entries(), *self._snapshots()], default=0)

    def append(self, entry: Entry) -> None:
        """Write an entry; when this returns, a crash of the process cannot lose it."""
        self._store.write_bytes(_encode(*_pack(entry)), "journal", _name(self.last + 1))
        self.last += 1

    def snapshot(self, segments: Segments, counters: Mapping[str, int], last: int) -> None:
        """Write all that is held after entry `last`, then drop older snapshots and the entries they made needless."""
        folder = self._store.folder("snapshots", f"{last:012d}")
        if folder.exists("manifest.json"):
            return
        parts = []
        for k, part in enumerate(_parts(segments)):
            blob = _encode(*_pack(part))
            name = f"part-{k:04d}.bin"
            folder.write_bytes(blob, name)
            parts.append({"name": name, "digest": blob[:_DIGEST_SIZE].hex()})
        manifest = {"schema": self._schema.to_json(), "parts": parts, "counters": dict(counters), "entries": last}
        folder.write_json({"manifest": manifest, "digest": _manifest_digest(manifest)}, "manifest.json")
        self._drop_old()

    def restore(self) -> Restored:
        """The newest snapshot that can be read, and the entries after it.

        Damage is told in `damaged`, and an older snapshot stands in for a damaged one.

        Raises:
            DataError: files of another schema.
        """
        restored, after = Restored(), 0
        for number in reversed(self._snapshots()):
            try:
                segments, restored.counters = self._read_snapshot(number)
            except _DamagedError as error:
                restored.damaged.append(str(error))
                continue
            restored.entries.extend(segments)
            restored.num_snapshot = sum(s.num_transitions for s in segments)
            after = number
            break
        for number in self._entries():
            if number > after:
                try:
                    restored.entries.append(self._read("journal", _name(number)))
                except _DamagedError as error:
                    restored.damaged.append(str(error))
        return restored

    def _read_snapshot(self, number: int) -> tuple[list[Segments], dict[str, int]]:
        where = ("snapshots", f"{number:012d}")
        path = self._store.path(*where, "manifest.json")
        try:
            header = json.loads(self._store.read_bytes(*where, "manifest.json"))
            manifest = header["manifest"]
            intact = header["digest"] == _manifest_digest(manifest)
        except (ValueError, KeyError, TypeError, DataError):
            intact = False
        if not intact:
            raise _DamagedError(f"snapshot {path} is truncated or was altered")
        self._schema.require(TransitionSchema.from_json(manifest["schema"]), f"snapshot {path}")
        segments = []
        for part in manifest["parts"]:
            entry = self._read(*where, part["name"], digest=part["digest"])
            assert isinstance(entry, Segments)
            segments.append(entry)
        return segments, {str(k): int(v) for k, v in manifest["counters"].items()}

    def _read(self, *parts: str, digest: str | None = None) -> Entry:
        path = self._store.path(*parts)
        try:
            arrays, meta = _decode(self._store.read_bytes(*parts), path, digest)
        except DataError as error:
            raise _DamagedError(str(error)) from error
        return _unpack(arrays, meta, self._schema, path)

    def _entries(self) -> list[int]:
        return [int(name.split(".")[0]) for name in self._store.names("journal", suffix=".bin")]

    def _snapshots(self) -> list[int]:
        found = [name for name in self._store.folders("snapshots") if name.isdigit()]
        return [int(name) for name in found if self._store.exists("snapshots", name, "manifest.json")]

    def _drop_old(self) -> None:
        snapshots = self._snapshots()
        kept = snapshots[-NUM_SNAPSHOTS:]
        for number in snapshots[:-NUM_SNAPSHOTS]:
            self._store.delete("snapshots", f"{number:012d}")
        for number in self._entries():
            if len(kept) >= NUM_SNAPSHOTS and number <= kept[0]:
                self._store.delete("journal", _name(number))


def shard_folder(shard: int) -> str:
    """The name of a shard's folder."""
    return f"shard-{shard:03d}"


class _DamagedError(DataError):
    """A file that is truncated or altered."""


def _name(number: int) -> str:
    return f"{number:012d}.bin"


def _parts(segments: Segments) -> Iterator[Segments]:
    """Segments in portions of about ROWS_PER_PART rows; one empty portion where there are none."""
    portion = (np.cumsum(segments.lengths + 1) - 1) // ROWS_PER_PART
    for k in np.unique(portion):
        yield segments.select(portion == k)


def _pack(entry: Entry) -> tuple[Arrays, dict[str, Any]]:
    if isinstance(entry, WeightChange):
        return {"codes": entry.codes, "steps": entry.steps, "values": entry.values}, {"column": entry.column}
    return {name: getattr(entry, name) for name in COLUMNS}, {"schema": entry.schema.to_json()}


def _unpack(arrays: Arrays, meta: dict[str, Any], schema: TransitionSchema, path: str) -> Entry:
    if "column" in meta:
        return WeightChange(meta["column"], arrays["codes"], arrays["steps"], arrays["values"])
    schema.require(TransitionSchema.from_json(meta["schema"]), path)
    columns: dict[str, Any] = {name: arrays[name] for name in COLUMNS}
    return Segments(schema=schema, **columns)


def _encode(arrays: Arrays, meta: Mapping[str, Any]) -> bytes:
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    blob = save_arrays(whole, metadata={"meta": json.dumps(meta)})
    return hashlib.sha256(blob).digest() + blob


def _decode(data: bytes, path: str, digest: str | None) -> tuple[Arrays, dict[str, Any]]:
    told, blob = data[:_DIGEST_SIZE], data[_DIGEST_SIZE:]
    if hashlib.sha256(blob).digest() != told or (digest is not None and told.hex() != digest):
        raise DataError(f"{path} is truncated or was altered: its digest does not match")
    try:
        size = int.from_bytes(blob[:8], "little")
        meta = json.loads(json.loads(blob[8 : 8 + size])["__metadata__"]["meta"])
        return load_arrays(blob), meta
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
