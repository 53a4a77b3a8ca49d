"""Any damage to any file of any format ends as one DataError, or does not matter: no crash, no other error, no hang,
no row and no reward that is lost in silence; and an import that failed leaves nothing behind."""

from pathlib import Path

import pytest
from damaged import SOURCES, damage_some, prepare

from phaseb.episodes.importer import import_episodes
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

FILES_EACH = 30


@pytest.mark.parametrize("source", SOURCES)
def test_damaged_data_are_refused_or_all_there_or_counted(tmp_path: Path, source: str) -> None:
    counts = damage_some(source, tmp_path, 7, FILES_EACH)
    assert counts["refused"] >= FILES_EACH // 5


def test_a_failed_import_leaves_nothing_behind(tmp_path: Path) -> None:
    config, (_, last) = prepare("parquet", tmp_path)
    config, target = config.model_copy(update={"rows_per_shard": 3}), Store.at(tmp_path / "target")
    whole = last.read_bytes()
    last.write_bytes(whole[:-20])
    with pytest.raises(DataError):
        import_episodes(config, target, seed=0)
    assert target.names() == []
    last.write_bytes(whole)
    assert len(import_episodes(config, target, seed=0)) == 2
