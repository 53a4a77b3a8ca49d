"""phaseb's own Parquet files: a folder of shards that another run wrote, or one file."""

from collections.abc import Iterator, Sequence

from phaseb.config.episodes import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.parquet_file import naming, read_table
from phaseb.episodes.schema import EPISODES, check_kind, table_to_episodes
from phaseb.episodes.shards import shard_names
from phaseb.episodes.sources import Entry
from phaseb.storage import Store


class Source:
    """Episodes of a folder of shards or of one file, with the splits they carry."""

    def __init__(self, config: EpisodesConfig) -> None:
        self._max_bytes = config.max_bytes
        if config.path.endswith(".parquet"):
            folder, _, name = config.path.rpartition("/")
            self._store, self._files = Store.at(folder or "."), [name]
        else:
            self._store = Store.at(config.path)
            self._files = shard_names(self._store)
        self._entries: list[Entry] = []
        self._where: list[tuple[str, int]] = []
        for name in self._files:
            self._list(name)

    def entries(self) -> Sequence[Entry]:
        return self._entries

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        loaded, episodes = "", list[Episode]()
        for index in indices:
            name, row = self._where[index]
            if name != loaded:
                with naming(self._store, name):
                    table = read_table(self._store, name, max_bytes=self._max_bytes)
                    loaded, episodes = name, table_to_episodes(table, self._max_bytes)
            yield episodes[row]

    def _list(self, name: str) -> None:
        with naming(self._store, name):
            table = read_table(self._store, name, lambda column: column in ("id", "split"), self._max_bytes)
            check_kind(table.schema, EPISODES)
            rows = table.to_pylist()
            self._entries += [(row["id"], row["split"]) for row in rows]
            self._where += [(name, i) for i in range(len(rows))]
