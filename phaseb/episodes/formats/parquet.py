"""phaseb's own Parquet files: a folder of shards that another run wrote, one file, or a list of folders (JSON)."""

from collections.abc import Iterator, Sequence

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import TASK_TAG, Episode
from phaseb.episodes.inventory import Inventory
from phaseb.episodes.parquet_file import naming, read_table
from phaseb.episodes.schema import EPISODES, check_kind, table_to_episodes
from phaseb.episodes.shards import shard_names
from phaseb.episodes.sources import Entry
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

LISTED = ("id", "split", "num_steps", "tags")


class Source:
    """Episodes of a folder of shards or of one file, with the splits they carry."""

    def __init__(self, config: EpisodesConfig) -> None:
        self._max_bytes = config.max_bytes
        self._lengths, self._entries, self._tasks = list[int](), list[Entry](), list[str]()
        self._where: list[tuple[Store, str, int]] = []
        for store, name in _files(config.path):
            self._list(store, name)

    def entries(self) -> Sequence[Entry]:
        return self._entries

    def lengths(self) -> Sequence[int]:
        return self._lengths

    def tasks(self) -> Sequence[str]:
        return self._tasks

    def inventory(self) -> Inventory:
        """What the files hold, all of which is read."""
        return Inventory(len(self._entries), sum(self._lengths))

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        loaded, episodes = "", list[Episode]()
        for index in indices:
            store, name, row = self._where[index]
            if store.path(name) != loaded:
                with naming(store, name):
                    table = read_table(store, name, max_bytes=self._max_bytes)
                    loaded, episodes = store.path(name), table_to_episodes(table, self._max_bytes)
            yield episodes[row]

    def _list(self, store: Store, name: str) -> None:
        with naming(store, name):
            table = read_table(store, name, lambda column: column in LISTED, self._max_bytes)
            check_kind(table.schema, EPISODES)
            rows = table.to_pylist()
            self._entries += [(row["id"], row["split"]) for row in rows]
            self._lengths += [row["num_steps"] for row in rows]
            self._tasks += [dict(row["tags"]).get(TASK_TAG, "") for row in rows]
            self._where += [(store, name, i) for i in range(len(rows))]


def _files(path: str) -> list[tuple[Store, str]]:
    """The shards at a path, in order: the file itself, a folder's, or those of all folders that a list names."""
    folder, _, name = path.rpartition("/")
    if path.endswith(".parquet"):
        return [(Store.at(folder or "."), name)]
    if not path.endswith(".json"):
        store = Store.at(path)
        return [(store, shard) for shard in shard_names(store)]
    folders = Store.at(folder or ".").read_json(name)
    if not isinstance(folders, list) or not all(isinstance(one, str) for one in folders):
        raise DataError(f"{path} must hold a JSON list of folders of shards; list them")
    return [found for one in folders for found in _files(one)]
