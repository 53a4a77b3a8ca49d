"""Sources of recorded episodes: each lists what it has, then reads any of it, so that import streams in parallel."""

import hashlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import pyarrow.fs as pafs

from phaseb.config.data import ENDINGS, IMPORTED, MIXED, EpisodesConfig
from phaseb.episodes.episode import TASK_TAG, Episode, Split
from phaseb.episodes.inventory import Inventory, listed
from phaseb.episodes.recorded import RecordedEpisode
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.plugins import load_plugin
from phaseb.runtime.storage import Store

Entry = tuple[str, Split]
"""An episode's id, and the split it has already ("" for none)."""


class EpisodeSource(Protocol):
    """What `module:Class` names; made with the `EpisodesConfig` of the run, on every actor that reads.

    It may also have `inventory()`, an `Inventory` of what it leaves out, which an import then says; `cameras()`, how
    each of its cameras is kept by name; `lengths()`, the steps of each entry, which decide how many episodes are held
    out where there are few; and `tasks()`, the task of each entry (see `tasks`).
    """

    def entries(self) -> Sequence[Entry]:
        """Every episode there is, always in the same order."""
        ...

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        """The episodes at some positions of `entries`, in that order, one in memory at a time."""
        ...


class Listed:
    """A source out of episodes that are in memory."""

    def __init__(self, episodes: Iterable[Episode]) -> None:
        self._episodes = list(episodes)

    def entries(self) -> Sequence[Entry]:
        return [(episode.id, episode.split) for episode in self._episodes]

    def lengths(self) -> Sequence[int]:
        return [len(episode) for episode in self._episodes]

    def tasks(self) -> Sequence[str]:
        return [episode.tags.get(TASK_TAG, "") for episode in self._episodes]

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        return (self._episodes[i] for i in indices)


def open_source(config: EpisodesConfig) -> EpisodeSource:
    """The source that a configuration names; a class whose objects just yield episodes will do.

    Raises:
        ConfigError: where a module:Class cannot be imported, or a format needs a package that is not installed.
        DataError: where its files cannot be read.
    """
    if config.source in (*IMPORTED, MIXED):
        return _format(config.source)(config)
    source = load_plugin(config.source, "episodes.source")(config)
    return source if hasattr(source, "entries") else Listed(source)


def _format(name: str) -> Callable[[EpisodesConfig], EpisodeSource]:
    """The class that reads a format."""
    try:
        return importlib.import_module(f"phaseb.episodes.formats.{name}").Source
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = {"h5py": "hdf5", "av": "video", "mcap": "mcap", "mcap_ros2": "mcap"}.get(package)
        fix = f'pip install "phaseb[{extra}]"' if extra else "install it"
        raise ConfigError(f"episodes.source={name} needs the module {error.name}: {fix}") from error


def recognise(path: str) -> tuple[str, str]:
    """The format of what lies at a path, and the path to read it from.

    Raises:
        ConfigError: where it is none that is read.
        DataError: where nothing lies there.
    """
    store = Store.at(path)
    if not path or not store.exists():
        raise DataError(f"no such file or folder: {path or '(none given)'}; give the path of recordings")
    for ending, source in ENDINGS.items():
        if path.partition("?")[0].endswith(ending) and not store.exists("data"):
            return source, path
    marks = {"lerobot": ("meta", "info.json"), "minari": ("data", "metadata.json")}
    for source, parts in marks.items():
        if store.exists(*parts):
            return source, path
    for place in () if store.is_file() else (store, store.folder("episodes")):
        if any(name.startswith("part-") for name in place.names(suffix=".parquet")):
            return "parquet", path if place is store else f"{path.rstrip('/')}/episodes"
    if not store.is_file() and store.names(suffix=".mcap"):
        return "mcap", path
    files = [] if store.is_file() else [name for name in store.names() if name.endswith(tuple(ENDINGS))]
    remedy = f"set the source (episodes.source) to one of {', '.join(IMPORTED)}"
    if files:
        remedy = f"it holds {listed(files)}: give one of them, or several by episodes.source=mixed"
    raise ConfigError(f"{path} is of no format that can be recognised; {remedy}")


def inventory_of(source: EpisodeSource) -> Inventory:
    """What a source holds by its own count; all that it lists where it does not count."""
    counted: Callable[[], Inventory] | None = getattr(source, "inventory", None)
    return Inventory(len(source.entries()), None) if counted is None else counted()


def lengths_of_source(source: EpisodeSource) -> Sequence[int] | None:
    """Steps of each entry of a source, up to a row; None where it does not know them before reading."""
    known: Callable[[], Sequence[int] | None] | None = getattr(source, "lengths", None)
    return None if known is None else known()


def tasks_of_source(source: EpisodeSource) -> Sequence[str] | None:
    """The task of each entry of a source, "" where one has none; None where the source names no tasks.

    Raises:
        DataError: for another number of tasks than of entries, or names that are no text.
    """
    known: Callable[[], Sequence[str | None] | None] | None = getattr(source, "tasks", None)
    found = known() if callable(known) else None
    if found is None:
        return None
    named, number = ["" if task is None else task for task in found], len(source.entries())
    odd = next((task for task in named if not isinstance(task, str)), None)
    if odd is not None or len(named) != number:
        said = f"{len(named)} tasks for {number} entries" if odd is None else f"the task {odd!r}, which is no text"
        raise DataError(f"the source names {said}: give a text for each episode, or '' for none")
    return named


def recorded_of(source: EpisodeSource, indices: Sequence[int], step_s: float = 0.0) -> Iterator[RecordedEpisode]:
    """The episodes at some positions of a source's entries; those of a source of one's own are read whole.

    Args:
        source: to read.
        indices: positions in `source.entries()`.
        step_s: length of a row where the configuration names it, s.
    """
    own: Callable[[Sequence[int]], Iterator[RecordedEpisode]] | None = getattr(source, "recorded", None)
    if own is not None:
        return own(indices)
    return (RecordedEpisode.of(episode, step_s) for episode in source.read(indices))


def fingerprints(config: EpisodesConfig) -> str:
    """The digests of all that a configuration reads; "" where it reads no files.

    Raises:
        DataError: where there is nothing at a path.
    """
    paths = [config.path, *(part.path for part in config.parts)]
    return "-".join(fingerprint(path) for path in paths if path)


def fingerprint(path: str) -> str:
    """A digest that changes when a file or folder of data does: names, sizes and times of all that it holds.

    Raises:
        DataError: where there is nothing at the path.
    """
    store = Store.at(path)
    info = store.filesystem.get_file_info(store.root)
    if info.type == pafs.FileType.NotFound:
        raise DataError(f"no such file or folder: {path}; set episodes.path")
    files = [info]
    if info.type == pafs.FileType.Directory:
        files = store.filesystem.get_file_info(pafs.FileSelector(store.root, recursive=True))
    seen = sorted((f.path.removeprefix(store.root), f.size, f.mtime_ns) for f in files if f.type == pafs.FileType.File)
    return hashlib.blake2b(repr(seen).encode(), digest_size=16).hexdigest()
