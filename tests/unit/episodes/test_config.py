import pytest
from pydantic import ValidationError

from phaseb.config.data import EpisodesConfig


def test_the_defaults_collect_in_the_built_in_cell() -> None:
    config = EpisodesConfig()
    assert (config.source, config.num_train, config.num_dev, config.num_test) == ("workcell", 50, 50, 200)


@pytest.mark.parametrize("source", ["npz", "parquet", "minari", "hdf5", "lerobot"])
def test_a_file_source_needs_a_path(source: str) -> None:
    with pytest.raises(ValidationError, match=rf"source={source} needs episodes\.path=FILE"):
        EpisodesConfig(source=source)
    assert EpisodesConfig(source=source, path="a/b").path == "a/b"


@pytest.mark.parametrize("source", ["nzp", "module:", ":Class", "a b:C", "os.system('x'):C"])
def test_unknown_sources_are_refused(source: str) -> None:
    with pytest.raises(ValidationError, match="is none of workcell, gymnasium, npz, parquet"):
        EpisodesConfig(source=source)
    assert EpisodesConfig(source="my.module:Class").source == "my.module:Class"


def test_splits_must_leave_something_to_train_on() -> None:
    with pytest.raises(ValidationError, match="leave something to train on"):
        EpisodesConfig(dev_fraction=0.5, test_fraction=0.5)


def test_one_column_may_be_given_without_brackets() -> None:
    config = EpisodesConfig(columns={"observation": "state", "action": ["a", "b"]})
    assert (config.columns.observation, config.columns.action) == (("state",), ("a", "b"))
    assert EpisodesConfig(columns={"observation": ""}).columns.observation == ()
