"""One episode over any Gymnasium space, written with h5py or pyarrow as Minari 0.5.4 lays it out."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from gymnasium import spaces


def serialised(space: spaces.Space[Any]) -> dict[str, Any]:
    """A space as Minari 0.5.4 writes it."""
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "subspaces": {key: serialised(part) for key, part in space.items()}}
    if isinstance(space, spaces.Tuple):
        return {"type": "Tuple", "subspaces": [serialised(part) for part in space]}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "dtype": "int64", "start": int(space.start), "n": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        known = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
        return {"type": "MultiDiscrete", "dtype": str(space.dtype), **known}
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    assert isinstance(space, spaces.Box)
    return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape)}


def put_hdf5(group: h5py.Group, name: str, space: spaces.Space[Any], rows: list[Any]) -> None:
    if isinstance(space, spaces.Dict):
        for key, part in space.items():
            put_hdf5(group.require_group(name), key, part, [row[key] for row in rows])
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space):
            put_hdf5(group.require_group(name), f"_index_{i}", part, [row[i] for row in rows])
    else:
        group[name] = np.stack(rows)


def arrow_of(space: spaces.Space[Any], rows: list[Any]) -> pa.Array:
    if isinstance(space, spaces.Dict):
        parts = [arrow_of(part, [row[key] for row in rows]) for key, part in space.items()]
        return pa.StructArray.from_arrays(parts, names=list(space.spaces))
    if isinstance(space, spaces.Tuple):
        parts = [arrow_of(part, [row[i] for row in rows]) for i, part in enumerate(space)]
        return pa.StructArray.from_arrays(parts, names=[str(i) for i in range(len(space))])
    values = np.stack(rows)
    if isinstance(space, spaces.Discrete):
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values[0].size)


def write_minari(folder: Path, data_format: str, space: spaces.Space[Any], rows: list[Any], action: Any = None) -> None:
    """One episode as Minari lays it out."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data" / "0").mkdir(parents=True)
    steps = len(rows) - 1
    actions, ones = np.full((steps, 1), 0.5, np.float32), np.ones(steps)
    meta = {
        "total_episodes": 1,
        "total_steps": steps,
        "data_format": data_format,
        "observation_space": json.dumps(serialised(space)),
        "action_space": json.dumps(serialised(action or spaces.Box(-1, 1, (1,)))),
    }
    (folder / "data" / "metadata.json").write_text(json.dumps(meta))
    if data_format == "hdf5":
        with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
            group = file.create_group("episode_0")
            put_hdf5(group, "observations", space, rows)
            group["actions"], group["rewards"], group["terminations"] = actions, ones, ones > 2
        return
    pad = np.zeros(1)
    table = pa.table(
        {
            "observations": arrow_of(space, rows),
            "actions": pa.FixedSizeListArray.from_arrays(pa.array(np.append(actions, np.float32(0))), 1),
            "rewards": pa.array(np.append(ones, pad)),
            "terminations": pa.array(np.append(ones > 2, [False])),
        }
    )
    pq.write_table(table, folder / "data" / "0" / "part-0.parquet")
