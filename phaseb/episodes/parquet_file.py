"""One Parquet file: written whole or not at all, read with its checksums verified.

Whatever is wrong with a file ends as a DataError that names it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from phaseb.errors import DataError
from phaseb.runtime.storage import Store

BROKEN = (
    pa.ArrowException,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    OverflowError,
    MemoryError,
    AttributeError,
    RuntimeError,
)
"""What pyarrow, h5py and our own reading of what they give raise on damaged bytes."""
_STAMP = b"phaseb.stamp"
_COMPRESSED = ("frames",)


def write_table(store: Store, name: str, table: pa.Table, stamp: str = "") -> None:
    """Write a table atomically; the same table gives the same bytes.

    Args:
        stamp: a text to find again with `read_stamp`, such as a digest of what the table was made from.
    """
    if stamp:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _STAMP: stamp.encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression={c: "none" if c in _COMPRESSED else "zstd" for c in table.column_names},
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        row_group_size=max(table.num_rows, 1),
    )
    store.write_bytes(sink.getvalue().to_pybytes(), name)


def read_table(
    store: Store, name: str, wanted: Callable[[str], bool] = lambda column: True, max_bytes: int | None = None
) -> pa.Table:
    """The columns of a file that are wanted.

    Raises:
        DataError: where it is absent, damaged, or would unpack to more than `max_bytes`.
    """
    with naming(store, name), _open(store, name) as parquet:
        groups = range(parquet.metadata.num_row_groups)
        size = sum(parquet.metadata.row_group(i).total_byte_size for i in groups)
        if max_bytes is not None and size > max_bytes:
            raise DataError(f"unpacks to {size} bytes, more than episodes.max_bytes={max_bytes}: raise it")
        return parquet.read([column for column in parquet.schema_arrow.names if wanted(column)])


def read_stamp(store: Store, name: str) -> str | None:
    """The stamp that a file was written with; None where the file is absent or damaged."""
    if not store.exists(name):
        return None
    try:
        with naming(store, name), _open(store, name) as parquet:
            return bytes((parquet.schema_arrow.metadata or {}).get(_STAMP, b"")).decode()
    except DataError:
        return None


@contextmanager
def naming(store: Store, name: str) -> Iterator[None]:
    """Turn errors of reading a file into DataErrors that name it."""
    path = store.path(name)
    try:
        yield
    except DataError as error:
        if path in str(error):
            raise
        raise DataError(f"{path}: {error}") from error
    except BROKEN as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{path} is damaged or of another layout ({reason}): copy or write it again, or set another episodes.source"
        ) from error


@contextmanager
def _open(store: Store, name: str) -> Iterator[pq.ParquetFile]:
    source = pa.BufferReader(store.read_bytes(name))
    with pq.ParquetFile(source, page_checksum_verification=True) as parquet:
        yield parquet
