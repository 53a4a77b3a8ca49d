"""HDF5 files opened with suspicion: no links out of the file, no external data, nothing larger than allowed."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from phaseb.errors import DataError
from phaseb.runtime.storage import Store

BROKEN = (OSError, RuntimeError, LookupError, ValueError, TypeError, OverflowError, MemoryError, AttributeError)
"""What h5py raises on damaged files."""
MAX_DEPTH = 8


@contextmanager
def naming(path: str, episode: str = "") -> Iterator[None]:
    """Turn errors of reading an HDF5 file, or an episode of it, into DataErrors that name it."""
    try:
        yield
    except DataError as error:
        where = f"{path}: {episode}: " if episode and episode not in str(error) else f"{path}: "
        raise error if path in str(error) else DataError(f"{where}{error}") from error
    except BROKEN as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} is damaged or of another layout ({reason}): copy or write it again, or set another episodes.source"
        ) from error


def open_file(path: str) -> h5py.File:
    """An HDF5 file at a local path or storage URI, for reading."""
    folder, _, name = path.rpartition("/")
    store = Store.at(folder or ".")
    if not store.exists(name):
        raise DataError(f"no such file: {path}; set episodes.path")
    if not store.is_file(name):
        raise DataError(f"{path} is a folder, wanted an HDF5 file; set episodes.path to the file")
    full = store.path(name)
    return h5py.File(full if store.is_local else store.filesystem.open_input_file(full), "r")


def child(group: h5py.Group, path: str) -> Any:
    """A member of a group by its path, or None; links to other files are refused."""
    node = _open(group.id, path)
    if isinstance(node, h5py.h5g.GroupID):
        return h5py.Group(node)
    return h5py.Dataset(node) if isinstance(node, h5py.h5d.DatasetID) else None


class _Stored(NamedTuple):
    """A dataset, asked once for what the library makes an object of at every question."""

    dataset: Any
    shape: tuple[int, ...]
    kind: Any
    dtype: np.dtype[Any]


class GroupColumns(Mapping[str, NDArray[Any]]):
    """The datasets below a group by path, rows `first` to `last` of them, read when they are asked for.

    It speaks HDF5's low-level API, whose calls cost a tenth of the high-level one's.
    """

    def __init__(self, group: h5py.Group, max_bytes: int, first: int = 0, last: int | None = None) -> None:
        self._group, self._max_bytes, self._rows = group.id, max_bytes, slice(first, last)
        self._found: dict[str, _Stored | None] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        stored = self._stored(name)
        if stored is None:
            raise KeyError(name)
        dataset, shape, kind, dtype = stored
        if _elsewhere(dataset, shape):
            raise DataError(
                f"{name!r} keeps its data in another file, which is not followed: copy them into one file (h5repack)"
            )
        if dtype.hasobject and h5py.check_vlen_dtype(dtype) != np.dtype("uint8"):
            raise DataError(f"{name!r} is of type {dtype}, wanted numbers; choose another in episodes.columns")
        rows = len(range(*self._rows.indices(shape[0]))) if shape else 1
        size = rows * math.prod(shape[1:]) * dtype.itemsize
        if size > self._max_bytes:
            raise DataError(
                f"{name!r} unpacks to {size} bytes, more than episodes.max_bytes={self._max_bytes}: "
                "raise it, or write smaller files"
            )
        if dtype.hasobject:
            blobs = np.empty(rows, object)
            blobs[:] = [np.asarray(blob, np.uint8).tobytes() for blob in h5py.Dataset(dataset)[self._rows]]
            return blobs
        if shape and rows < shape[0]:
            return np.asarray(h5py.Dataset(dataset)[self._rows])
        values = np.empty(shape, dtype)
        if values.size:
            dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, values, kind)
        return values

    def rows(self, name: str) -> int:
        """The rows of a column, of which nothing is read; 0 where it is absent."""
        stored = self._stored(name)
        return len(range(*self._rows.indices(stored.shape[0]))) if stored is not None and stored.shape else 0

    def vectors(self, below: str) -> list[str]:
        """The columns that are, or lie below, a name: a number, vector or matrix (but no picture) a row."""
        node = _open(self._group, below)
        if isinstance(node, h5py.h5d.DatasetID):
            self._found[below] = _look(node)
        names = [f"{below}/{n}" for n in _datasets(node)] if isinstance(node, h5py.h5g.GroupID) else [below]
        found = [(name, self._stored(name)) for name in names]
        numbers = [(n, s) for n, s in found if s is not None and s.dtype.kind in "fiub"]
        return [n for n, s in numbers if len(s.shape) in (1, 2) or (len(s.shape) == 3 and s.dtype != np.uint8)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._stored(name) is not None

    def __iter__(self) -> Iterator[str]:
        return _datasets(self._group)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _stored(self, name: str) -> _Stored | None:
        if name not in self._found:
            node = _open(self._group, name)
            if node is not None and not isinstance(node, h5py.h5d.DatasetID | h5py.h5g.GroupID):
                raise DataError(f"{name!r} is neither a column nor a group: copy or write the file again")
            self._found[name] = _look(node) if isinstance(node, h5py.h5d.DatasetID) else None
        return self._found[name]


def _look(dataset: Any) -> _Stored:
    kind = dataset.get_type()
    return _Stored(dataset, dataset.get_space().get_simple_extent_dims(), kind, _dtype(kind.encode()))


@lru_cache(maxsize=256)
def _dtype(encoded: bytes) -> np.dtype[Any]:
    """NumPy's type of an HDF5 type in HDF5's own encoding: a file has few, and each takes long to work out."""
    dtype: np.dtype[Any] = h5py.h5t.decode(encoded).dtype
    return dtype


def _elsewhere(dataset: Any, shape: tuple[int, ...]) -> bool:
    """Whether a dataset's values lie in another file. Chunks and a place of its own in the file say no at once; only
    then are its creation properties asked, which costs as much as opening it."""
    if dataset.get_offset() is not None:
        return False
    try:
        if dataset.get_chunk_info_by_coord((0,) * len(shape)).byte_offset is not None:
            return False
    except BROKEN:
        pass  # it has no chunks
    creation = dataset.get_create_plist()
    return bool(creation.get_external_count()) or creation.get_layout() == h5py.h5d.VIRTUAL


def _open(node: Any, path: str) -> Any:
    for part in path.encode().split(b"/"):
        if not isinstance(node, h5py.h5g.GroupID) or not part:
            return None
        try:
            link = node.links.get_info(part)
        except (KeyError, RuntimeError):
            if part in node:
                raise
            return None
        if link.type == h5py.h5l.TYPE_EXTERNAL:
            raise DataError(f"{path!r} links to another file, which is not followed: copy its data into this one")
        node = h5py.h5o.open(node, part)
    return node


def _datasets(group: Any, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """The paths of the datasets below a group, sorted; links to other files are passed over."""
    if depth > MAX_DEPTH:
        raise DataError(f"groups are nested more than {MAX_DEPTH} deep; write the data flat")
    for name in sorted(group):
        if group.links.get_info(name).type == h5py.h5l.TYPE_EXTERNAL:
            continue
        node, path = h5py.h5o.open(group, name), prefix + name.decode()
        if isinstance(node, h5py.h5g.GroupID):
            yield from _datasets(node, f"{path}/", depth + 1)
        elif isinstance(node, h5py.h5d.DatasetID):
            yield path
