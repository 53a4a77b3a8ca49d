"""The reader of the real UR3 cycles: gaps and unknown values part episodes, and other files are refused."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phaseb.errors import DataError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ur3_episodes.py"


@pytest.fixture(scope="module")
def reader():
    spec = importlib.util.spec_from_file_location("ur3_episodes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(count):
    """One row a second of cycle 1, then 2 from row 20 on."""
    return pd.DataFrame(
        {
            "Num": np.arange(count),
            "Timestamp": pd.Timestamp("2022-10-26") + pd.to_timedelta(np.arange(count), unit="s"),
            "Current_J0": np.arange(count, dtype=float),
            "Speed_J0": 0.5,
            "cycle": np.where(np.arange(count) < 20, 1, 2),
            "Robot_ProtectiveStop": 0.0,
            "grip_lost": False,
        }
    )


def test_cycles_gaps_and_unknown_values_part_episodes(reader, tmp_path):
    table = rows(60)
    table.loc[30:, "Timestamp"] += pd.Timedelta(seconds=5)
    table.loc[40, "Speed_J0"] = np.nan  # one row: bridged
    table.loc[45:46, "Speed_J0"] = np.nan
    table.sample(frac=1, random_state=0).to_parquet(tmp_path / "ur3.parquet")
    found = reader.read_cycles(str(tmp_path / "ur3.parquet"), 8)
    assert [(int(e.state[0, 0]), len(e)) for e in found] == [(0, 19), (20, 9), (30, 13), (47, 12)]
    assert all(e.actions is None and not e.rewards.any() for e in found)
    assert found[0].state.shape == (20, 4)
    assert [len(e) for e in reader.read_cycles(str(tmp_path / "ur3.parquet"), 13)] == [19, 13]


def test_what_are_no_cycles_is_refused(reader, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        reader.read_cycles(str(tmp_path / "absent.parquet"), 8)
    rows(30).drop(columns="cycle").to_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="lacks the column 'cycle'"):
        reader.read_cycles(str(tmp_path / "other.parquet"), 8)


@pytest.mark.skipif(
    "PHASEB_UR3" not in os.environ, reason="needs data that is not public: set PHASEB_UR3 to ur3-cobotops.parquet"
)
def test_the_real_cycles(reader):
    found = reader.read_cycles(os.environ["PHASEB_UR3"], 20)
    assert len(found) == 247
    assert {e.state.shape[1] for e in found} == {21}
