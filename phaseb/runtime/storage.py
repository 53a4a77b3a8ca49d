"""One way to reach files: a folder on any pyarrow filesystem (local disk, S3, GCS, HDFS), written atomically.

A write goes to a temporary name and is renamed when it is whole, so a reader never sees half a file. A server that does
not answer for a while is waited for (`patience`).
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

from phaseb.config.paths import expanded
from phaseb.errors import ConfigError, DataError, PhasebError
from phaseb.runtime.retry import retry_transient


@dataclass(frozen=True)
class Store:
    """A folder on a pyarrow filesystem; every path given to its methods is relative to that folder."""

    filesystem: pafs.FileSystem
    root: str

    @classmethod
    def at(cls, uri: str | os.PathLike[str]) -> "Store":
        """The store at a local path or at the URI of a pyarrow filesystem (`s3://bucket/prefix?endpoint_override=…`).

        Raises:
            ConfigError: where the URI carries a password, which would end in configs and logs, or no storage opens it.
            DataError: where there is no such filesystem.
        """
        try:
            text = expanded(os.fspath(uri))
        except ValueError as error:
            raise ConfigError(f"{redact(os.fspath(uri))}: {error}") from error
        if "://" in text:
            if ":" in text.partition("://")[2].partition("/")[0].rpartition("@")[0]:
                raise ConfigError(
                    f"{redact(text)} was given with a password in it, which would be written into configs and logs; "
                    "give it by the environment (AWS_ACCESS_KEY_ID …) or by the machine's role"
                )
            try:
                filesystem, path = pafs.FileSystem.from_uri(text)
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"cannot open storage {redact(text)}: {error}") from error
            return cls(filesystem, path.rstrip("/"))
        return cls(pafs.LocalFileSystem(), os.path.abspath(text))

    @classmethod
    def of(cls, place: "str | os.PathLike[str] | Store") -> "Store":
        """The store at a path or URI, or the one that is given."""
        return place if isinstance(place, Store) else cls.at(place)

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
        return bool(self._info(*parts).type != pafs.FileType.NotFound)

    def is_file(self, *parts: str) -> bool:
        return bool(self._info(*parts).type == pafs.FileType.File)

    def names(self, *parts: str, suffix: str = "") -> list[str]:
        """Sorted names of the files directly in a folder; empty where the folder is absent."""
        files = [f.base_name for f in self._list(*parts) if f.type == pafs.FileType.File]
        return sorted(name for name in files if name.endswith(suffix))

    def folders(self, *parts: str) -> list[str]:
        """Sorted names of the folders directly in a folder."""
        return sorted(f.base_name for f in self._list(*parts) if f.type == pafs.FileType.Directory)

    def read_bytes(self, *parts: str) -> bytes:
        path = self.path(*parts)
        try:
            return retry_transient(lambda: self._read(path), path)
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

        def write() -> None:
            self.filesystem.create_dir(folder, recursive=True)
            with self.filesystem.open_output_stream(temporary) as stream:
                stream.write(data)
            self.filesystem.move(temporary, path)

        try:
            retry_transient(write, path)
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
        self.write_bytes((json.dumps(to_jsonable(value), indent=2, allow_nan=False) + "\n").encode(), *parts)

    def read_text(self, *parts: str) -> str:
        return self.read_bytes(*parts).decode()

    def write_text(self, text: str, *parts: str) -> None:
        self.write_bytes(text.encode(), *parts)

    def delete(self, *parts: str) -> None:
        """Remove a file or a folder with all it holds; nothing where it is absent."""
        path = self.path(*parts)
        retry_transient(lambda: self._delete(path), path)

    def move(self, source: str, target: str) -> None:
        """Rename a file or folder within the store."""
        self.filesystem.move(self.path(source), self.path(target))

    def _info(self, *parts: str) -> Any:
        path = self.path(*parts)
        return retry_transient(lambda: self.filesystem.get_file_info(path), path)

    def _list(self, *parts: str) -> list[Any]:
        selector = pafs.FileSelector(self.path(*parts), allow_not_found=True)
        try:
            return list(retry_transient(lambda: self.filesystem.get_file_info(selector), selector.base_dir))
        except NotADirectoryError as error:
            raise DataError(f"{selector.base_dir} is a file, wanted a folder; give the path of one") from error

    def _read(self, path: str) -> bytes:
        with self.filesystem.open_input_stream(path) as stream:
            return bytes(stream.readall())

    def _delete(self, path: str) -> None:
        kind = self.filesystem.get_file_info(path).type
        if kind == pafs.FileType.Directory:
            self.filesystem.delete_dir(path)
        elif kind != pafs.FileType.NotFound:
            self.filesystem.delete_file(path)

    def _discard(self, path: str) -> None:
        try:
            self.filesystem.delete_file(path)
        except OSError:
            return  # it was never made


def redact(uri: str) -> str:
    """A URI without the user name and password that it may carry before its host."""
    scheme, _, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rsplit('@', 1)[-1]}{slash}{path}" if rest else uri


def _reason(error: OSError) -> str:
    fixes = {
        errno.ENOSPC: "the disk is full; free space or set run.dir to another disk",
        errno.EACCES: "no permission; choose a folder that you may write",
        errno.EROFS: "the filesystem is read-only; choose another folder",
        errno.ENOTDIR: "a file stands where a folder is needed",
    }
    return fixes.get(error.errno or 0, str(error))


def to_jsonable(value: Any) -> Any:
    """A value as strict JSON can hold it: NaN and Inf become None, NumPy scalars and arrays plain values."""
    if isinstance(value, dict):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return to_jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
