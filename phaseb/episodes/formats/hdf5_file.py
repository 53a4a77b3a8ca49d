"""HDF5 files opened with suspicion: no links out of the file, no external data, nothing larger than allowed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from phaseb.errors import DataError
from phaseb.storage import Store

BROKEN = (OSError, RuntimeError, LookupError, ValueError, TypeError, OverflowError, MemoryError, AttributeError)
"""What h5py raises on damaged files."""


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Turn errors of reading an HDF5 file into DataErrors that name it."""
    try:
        yield
    except DataError as error:
        raise error if path in str(error) else DataError(f"{path}: {error}") from error
    except BROKEN as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is damaged or not of this layout: {reason}") from error


def open_file(path: str) -> h5py.File:
    """An HDF5 file at a local path or storage URI, for reading."""
    folder, _, name = path.rpartition("/")
    store = Store.at(folder or ".")
    if not store.exists(name):
        raise DataError(f"no such file: {path}")
    full = store.path(name)
    return h5py.File(full if store.is_local else store.filesystem.open_input_file(full), "r", locking=False)


def child(group: h5py.Group, name: str) -> Any:
    """A member of a group by its path, or None; links to other files are refused."""
    node: Any = group
    for part in name.split("/"):
        if not isinstance(node, h5py.Group) or part not in node:
            return None
        if isinstance(node.get(part, getlink=True), h5py.ExternalLink):
            raise DataError(f"{name!r} links to another file, which is not followed")
        node = node[part]
    return node


class GroupColumns(Mapping[str, NDArray[Any]]):
    """The datasets below a group by path, rows `first` to `last` of them, read when they are asked for."""

    def __init__(self, group: h5py.Group, max_bytes: int, first: int = 0, last: int | None = None) -> None:
        self._group, self._max_bytes, self._rows = group, max_bytes, slice(first, last)
        self._names = list(_datasets(group))

    def __getitem__(self, name: str) -> NDArray[Any]:
        dataset = child(self._group, name)
        if not isinstance(dataset, h5py.Dataset):
            raise KeyError(name)
        if dataset.external is not None or dataset.is_virtual:
            raise DataError(f"{name!r} keeps its data in another file, which is not followed")
        if dataset.dtype.hasobject and h5py.check_vlen_dtype(dataset.dtype) != np.dtype("uint8"):
            raise DataError(f"{name!r} is of type {dataset.dtype}, wanted numbers")
        rows = len(range(*self._rows.indices(dataset.shape[0]))) if dataset.shape else 1
        size = rows * int(np.prod(dataset.shape[1:], dtype=object)) * dataset.dtype.itemsize
        if size > self._max_bytes:
            raise DataError(f"{name!r} unpacks to {size} bytes, more than episodes.max_bytes={self._max_bytes}")
        if not dataset.dtype.hasobject:
            return np.asarray(dataset[self._rows] if dataset.shape else dataset[()])
        blobs = np.empty(rows, object)
        blobs[:] = [np.asarray(blob, np.uint8).tobytes() for blob in dataset[self._rows]]
        return blobs

    def vectors(self) -> list[str]:
        """The columns of at most one value or vector of numbers a row."""
        found = [(name, child(self._group, name)) for name in self._names]
        return [name for name, dataset in found if 1 <= dataset.ndim <= 2 and dataset.dtype.kind in "fiub"]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and isinstance(child(self._group, name), h5py.Dataset)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _datasets(group: h5py.Group, prefix: str = "", depth: int = 0) -> Iterator[str]:
    if depth > 8:
        raise DataError("groups are nested too deeply")
    for name in sorted(group):
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            continue
        node = group.get(name)
        if isinstance(node, h5py.Group):
            yield from _datasets(node, f"{prefix}{name}/", depth + 1)
        elif isinstance(node, h5py.Dataset):
            yield prefix + name
