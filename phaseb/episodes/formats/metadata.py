"""The JSON file that says what a data set holds."""

import json
from typing import Any

from phaseb.errors import DataError
from phaseb.runtime.storage import Store


def read_metadata(store: Store, kind: str, *parts: str) -> Any:
    """The content of a JSON file that every data set of a kind has.

    Args:
        store: the folder of the data set.
        kind: its library, for messages.
        parts: of the file's path below it.

    Raises:
        DataError: where the file is absent or not JSON.
    """
    if not store.exists(*parts):
        raise DataError(
            f"no such file: {store.path(*parts)}, which every {kind} data set has; set episodes.path to "
            "the folder of one"
        )
    try:
        return json.loads(store.read_bytes(*parts))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{store.path(*parts)} is not JSON: copy the data set again") from error
