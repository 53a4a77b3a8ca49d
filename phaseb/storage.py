"""One way to reach files: a folder on any pyarrow filesystem (local disk, S3, GCS, HDFS), written atomically.

A write goes to a temporary name and is renamed when it is whole, so a reader never sees half a file.
"""

import errno
import json
import math
import os
import uuid
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from phaseb.errors import DataError, PhasebError


@dataclass(frozen=True)
class Store:
    """A folder on a pyarrow filesystem; every path given to its methods is relative to that folder."""

    filesystem: pafs.FileSystem
    root: str

    @classmethod
    def at(cls, uri: str | os.PathLike[str]) -> "Store":
        """The store at a local path or at the URI of a pyarrow filesystem (`s3://bucket/prefix?endpoint_override=…`)."""
        text = os.fspath(uri)
        if "://" in text:
            try:
                filesystem, path = pafs.FileSystem.from_uri(text)
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"cannot open storage {redact(text)}: {error}") from error
            return cls(filesystem, path.rstrip("/"))
        return cls(pafs.LocalFileSystem(), os.path.abspath(text))

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def path(self, *parts: str) -> str:
        """The full path of a file of this store, as its filesystem knows it."""
        if any(part.startswith("/") or ".." in part.split("/") for part in parts):
            raise DataError(f"path {'/'.join(parts)!r} leaves its folder {self.root}")
        return "/".join([self.root, *parts])

    def folder(self, *parts: str) -> "Store":
        return Store(self.filesystem, self.path(*parts))

    def exists(self, *parts: str) -> bool:
        return self.filesystem.get_file_info(self.path(*parts)).type != pafs.FileType.NotFound

    def is_file(self, *parts: str) -> bool:
        return self.filesystem.get_file_info(self.path(*parts)).type == pafs.FileType.File

    def names(self, *parts: str, suffix: str = "") -> list[str]:
        """Sorted names of the files directly in a folder; empty where the folder is absent."""
        selector = pafs.FileSelector(self.path(*parts), allow_not_found=True)
        files = self.filesystem.get_file_info(selector)
        return sorted(f.base_name for f in files if f.type == pafs.FileType.File and f.base_name.endswith(suffix))

    def folders(self, *parts: str) -> list[str]:
        """Sorted names of the folders directly in a folder."""
        selector = pafs.FileSelector(self.path(*parts), allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return sorted(f.base_name for f in found if f.type == pafs.FileType.Directory)

    def read_bytes(self, *parts: str) -> bytes:
        path = self.path(*parts)
        try:
            with self.filesystem.open_input_stream(path) as stream:
                return bytes(stream.readall())
        except FileNotFoundError as error:
            raise DataError(f"no such file: {path}") from error

    def write_bytes(self, data: bytes, *parts: str) -> None:
        """Write a whole file atomically.

        Raises:
            PhasebError: where the disk is full or not writable; nothing half-written stays behind.
        """
        path = self.path(*parts)
        folder, name = path.rsplit("/", 1)
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            self.filesystem.create_dir(folder, recursive=True)
            with self.filesystem.open_output_stream(temporary) as stream:
                stream.write(data)
            self.filesystem.move(temporary, path)
        except OSError as error:
            self._discard(temporary)
            raise PhasebError(f"cannot write {path}: {_reason(error)}") from error

    def read_json(self, *parts: str) -> Any:
        try:
            return json.loads(self.read_bytes(*parts))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path(*parts)} is not JSON: {error}") from error

    def write_json(self, value: Any, *parts: str) -> None:
        """Write strict JSON: NaN and Inf become null, NumPy values plain ones."""
        self.write_bytes((json.dumps(strict(value), indent=2, allow_nan=False) + "\n").encode(), *parts)

    def read_text(self, *parts: str) -> str:
        return self.read_bytes(*parts).decode()

    def write_text(self, text: str, *parts: str) -> None:
        self.write_bytes(text.encode(), *parts)

    def delete(self, *parts: str) -> None:
        """Remove a file or a folder with all it holds; nothing where it is absent."""
        info = self.filesystem.get_file_info(self.path(*parts))
        if info.type == pafs.FileType.Directory:
            self.filesystem.delete_dir(info.path)
        elif info.type != pafs.FileType.NotFound:
            self.filesystem.delete_file(info.path)

    def move(self, source: str, target: str) -> None:
        """Rename a file or folder within the store."""
        self.filesystem.move(self.path(source), self.path(target))

    def _discard(self, path: str) -> None:
        try:
            self.filesystem.delete_file(path)
        except OSError:
            return  # it was never made


def redact(uri: str) -> str:
    """A URI without the user name and password that it may carry."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rsplit('@', 1)[-1]}" if rest else uri


def _reason(error: OSError) -> str:
    fixes = {
        errno.ENOSPC: "the disk is full; free space or set run.dir to another disk",
        errno.EACCES: "no permission; choose a folder that you may write",
        errno.EROFS: "the filesystem is read-only; choose another folder",
        errno.ENOTDIR: "a file stands where a folder is needed",
    }
    return fixes.get(error.errno or 0, str(error))


def strict(value: Any) -> Any:
    """A value as strict JSON can hold it: NaN and Inf become None, NumPy scalars and arrays plain values."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if hasattr(value, "tolist"):
        return strict(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
