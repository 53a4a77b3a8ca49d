"""Write a Minari data set (its Parquet storage), which Minari's own library loads.

Observations are the state vector, or a dictionary of `state`, `frames` and `z` where there is more. What the gate
said of each step is in `infos`, padded by one row as Minari pads actions; lineage is in each episode's metadata.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phaseb.episodes.formats.export import Exported
from phaseb.episodes.parquet_file import write_table
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

MINARI_VERSION = "0.5.4"


def write_minari(
    store: Store, dataset_id: str, episodes: Iterable[Exported], low: NDArray[np.float32], high: NDArray[np.float32]
) -> int:
    """Write episodes, one in memory at a time, and return their number.

    Args:
        store: the folder of the data set: `<Minari's root>/<dataset_id>`.
        dataset_id: its name, `namespace/name-v0`.
        episodes: all with the same kinds of observation.
        low, high: (A,) bounds of the actions.

    Raises:
        DataError: for no episodes, episodes without actions, or observations that differ in kind or size.
    """
    space: dict[str, Any] = {}
    number = steps = 0
    for number, exported in enumerate(episodes, start=1):
        observations = _observations(exported)
        found = {name: _box(array) for name, array in observations.items()}
        if number == 1:
            space = found
        if found != space or exported.episode.actions is None:
            raise DataError(f"episode {exported.episode.id} differs from the first in observations, or lacks actions")
        write_table(store, f"data/{number - 1}/part-0.parquet", _table(exported, observations))
        meta = {"id": number - 1, "total_steps": len(exported.episode), **_describe(exported)}
        store.write_text(json.dumps(meta), "data", str(number - 1), "metadata.json")
        steps += len(exported.episode)
    if not number:
        raise DataError("no episodes to export")
    bounds = {"low": [float(x) for x in low], "high": [float(x) for x in high]}
    actions = {"type": "Box", "dtype": "float32", "shape": [len(low)], **bounds}
    whole = space["state"] if set(space) == {"state"} else {"type": "Dict", "subspaces": space}
    meta = {
        "total_episodes": number,
        "total_steps": steps,
        "data_format": "parquet",
        "jpeg_encoding": False,
        "observation_space": json.dumps(whole),
        "action_space": json.dumps(actions),
        "dataset_id": dataset_id,
        "minari_version": MINARI_VERSION,
        "algorithm_name": "phaseb",
        "author": ["phaseb"],
        "dataset_size": 0.0,
    }
    store.write_text(json.dumps(meta), "data", "metadata.json")
    return number


def _observations(exported: Exported) -> dict[str, NDArray[Any]]:
    arrays = {"state": exported.episode.state, "frames": exported.episode.frames, "z": exported.z}
    return {name: array for name, array in arrays.items() if array is not None}


def _box(array: NDArray[Any]) -> dict[str, Any]:
    """The JSON of a Gymnasium box that holds the rows of an array."""
    shape = array.shape[1:]
    low, high = (0, 255) if array.dtype == np.uint8 else (-np.inf, np.inf)
    bounds = {"low": np.full(shape, low).tolist(), "high": np.full(shape, high).tolist()}
    return {"type": "Box", "dtype": array.dtype.name, "shape": list(shape), **bounds}


def _table(exported: Exported, observations: Mapping[str, NDArray[Any]]) -> pa.Table:
    episode, steps = exported.episode, len(exported.episode)
    assert episode.actions is not None
    ends = np.arange(steps) == steps - 1
    columns = {name: _rows(array) for name, array in observations.items()}
    infos = {name: pa.array(_padded(values)) for name, values in exported.step_columns().items()}
    return pa.table(
        {
            "observations": columns["state"] if set(columns) == {"state"} else _struct(columns),
            "actions": _rows(_padded(episode.actions)),
            "rewards": pa.array(_padded(episode.rewards)),
            "terminations": pa.array(_padded(ends & episode.terminated)),
            "truncations": pa.array(_padded(ends & (not episode.terminated))),
            "infos": _struct(infos),
        }
    )


def _struct(columns: Mapping[str, pa.Array]) -> pa.Array:
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))


def _rows(array: NDArray[Any]) -> pa.Array:
    flat = np.ascontiguousarray(array).reshape(len(array), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def _padded(values: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([values, np.zeros_like(values[:1])])


def _describe(exported: Exported) -> dict[str, Any]:
    episode = exported.episode
    metrics = {name: value for name, value in episode.metrics.items() if np.isfinite(value)}
    return {"name": episode.id, "source": episode.source, "lineage": dict(exported.lineage), "metrics": metrics}
