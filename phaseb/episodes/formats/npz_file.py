"""NPZ files, opened with suspicion (no pickle, no memory before what is declared is checked), and written."""

import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from phaseb.errors import DataError
from phaseb.runtime.storage import Store

BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    OSError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    AttributeError,
)
"""What zipfile, zlib and NumPy raise on damaged bytes."""


def read_arrays(archive: zipfile.ZipFile, names: Sequence[str], max_bytes: int) -> dict[str, NDArray[Any]]:
    """Those of the named arrays that a file holds.

    Raises:
        DataError: where they would unpack to more than `max_bytes`, or hold anything but numbers and text.
    """
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    wanted = {name: members[name] for name in names if name in members}
    size = sum(info.file_size for info in wanted.values())
    if size > max_bytes:
        raise DataError(f"unpacks to {size} bytes, more than episodes.max_bytes={max_bytes}: raise it")
    arrays = {}
    for name, info in wanted.items():
        with archive.open(info) as member:
            arrays[name] = _read_array(name, member, info.file_size)
    return arrays


def _read_array(name: str, member: IO[bytes], size: int) -> NDArray[Any]:
    """One `.npy` stream, its declared shape checked against the bytes there are before memory is asked for."""
    version = npy.read_magic(member)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read_header is None:
        raise DataError(f"array {name!r} is of npy version {version}, which is not read: save it with numpy.savez")
    shape, fortran, dtype = read_header(member)
    if dtype.hasobject:
        raise DataError(
            f"array {name!r} holds Python objects (pickle), which are never loaded: save plain numbers, or text by "
            "np.array(texts, dtype=str)"
        )
    if dtype.kind not in "fiubU" or dtype.names is not None:
        raise DataError(
            f"array {name!r} is of type {dtype}, wanted numbers or text: save it as such (bytes by .astype(str))"
        )
    if math.prod(shape) * dtype.itemsize != size - member.tell():
        raise DataError(
            f"array {name!r} is truncated: {shape} {dtype} does not fit its {size} bytes; copy or write the file again"
        )
    flat = np.frombuffer(member.read(), dtype)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def save_arrays(store: Store, name: str, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays as one compressed file, whole or not at all."""
    sink = io.BytesIO()
    np.savez_compressed(sink, allow_pickle=False, **arrays)
    store.write_bytes(sink.getvalue(), name)


def padded(name: str, rows: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Rows of different lengths as one array, zeros behind the shorter ones; None where no row is there."""
    present = [row for row in rows if row is not None]
    if not present:
        return None
    if len(present) < len(rows) or len({row.shape[1:] for row in present}) > 1:
        raise DataError(f"an NPZ file needs {name} of one shape in every episode")
    whole = np.zeros((len(rows), max(map(len, present)), *present[0].shape[1:]), present[0].dtype)
    for target, row in zip(whole, present, strict=True):
        target[: len(row)] = row
    return whole
