"""MCAP files of ROS 2 messages: one file an episode, topics as columns, read by their names.

    episodes.columns.observation=[/joint_states]  action=[/commands]  images=/camera/compressed

| message | what is read |
| --- | --- |
| `sensor_msgs/JointState` | positions by the joints' names; velocities too where it is no action |
| `sensor_msgs/CompressedImage` | the picture (JPEG, PNG) |
| any other | its numbers in their order, without header and layout |

The messages of the first action topic are the steps. Each other topic gives its newest message at that time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from numpy.typing import NDArray

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.episode_builder import Layout, make_episode
from phaseb.episodes.sources import Entry
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.storage import Store

MAX_SILENCE = 10
"""Median intervals of a topic without a message after which it counts as interrupted."""
_BESIDE = ("header", "layout")
Times = NDArray[np.int64]


class Source:
    """The files of a folder, or one file."""

    def __init__(self, config: EpisodesConfig) -> None:
        self._config, self._topics = config, topics_of(config)
        place = Store.at(config.path)
        if place.is_file():
            folder, _, name = place.root.rpartition("/")
            self._store, self._names = Store(place.filesystem, folder), [name]
        else:
            self._store, self._names = place, place.names(suffix=".mcap")
        if not self._names:
            raise DataError(f"{config.path} holds no .mcap files; set episodes.path")

    def entries(self) -> Sequence[Entry]:
        return [(name.removesuffix(".mcap"), "") for name in self._names]

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        for index in indices:
            name = self._names[index]
            try:
                yield self._episode(name)
            except DataError as error:
                raise DataError(f"{self._store.path(name)}: {error}") from error

    def _episode(self, name: str) -> Episode:
        recorded = read_topics(self._store, name, self._topics, self._config.max_bytes)
        action = self._config.columns.action[0]
        steps = recorded[action].times
        columns = {topic: one.at(steps, topic in self._config.columns.action) for topic, one in recorded.items()}
        interval_s = float(np.median(np.diff(steps))) / 1e9 if len(steps) > 1 else 0.0
        layout = Layout(self._config.columns.observation, self._config.columns.action, "", step_s=interval_s)
        return make_episode(name.removesuffix(".mcap"), columns, layout, self._config, name)


def topics_of(config: EpisodesConfig) -> tuple[str, ...]:
    """The topics that the columns name, the first action's first.

    Raises:
        ConfigError: where there are no topics for actions or none to observe.
    """
    wanted = config.columns
    if not wanted.action or not (wanted.observation or wanted.images):
        raise ConfigError(
            "episodes.source=mcap needs topics: set episodes.columns.action, and observation or images, "
            "such as [/joint_states]"
        )
    single = (wanted.reward, wanted.terminal, wanted.success, wanted.power_w)
    return tuple(dict.fromkeys([*wanted.action, *wanted.observation, *wanted.images, *filter(None, single)]))


@dataclass
class Recorded:
    """The messages of one topic.

    Attributes:
        topic: its name.
        times: (M,) nanoseconds, increasing.
        messages: M of them, decoded.
    """

    topic: str
    times: Any = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)

    def at(self, steps: Times, is_action: bool) -> NDArray[Any]:
        """The newest message at each of some times, as rows: numbers, or pictures as bytes.

        Raises:
            DataError: where the topic begins late, ends early or was interrupted.
        """
        place = np.searchsorted(self.times, steps, side="right") - 1
        usual = float(np.median(np.diff(self.times))) if len(self.times) > 1 else np.inf
        start = min(int(steps[0]), int(self.times[0]))
        if (place < 0).any():
            late = int(self.times[0]) - start
            raise DataError(
                f"topic {self.topic} begins at {late / 1e9:.3f} s, after the first action: cut the recording there, or "
                "record all topics from the start"
            )
        age = steps - np.asarray(self.times)[place]
        if (age > MAX_SILENCE * usual).any():
            step = int(np.argmax(age > MAX_SILENCE * usual))
            last, then = (int(at) - start for at in (self.times[place[step]], steps[step]))
            raise DataError(
                f"topic {self.topic} has no message from {last / 1e9:.3f} s to {then / 1e9:.3f} s "
                f"({len(self.times)} messages for {len(steps)} actions); cut the recording, or leave the episode out"
            )
        first = self.messages[0]
        if _is_picture(first):
            found = np.empty(len(steps), object)
            found[:] = [bytes(self.messages[i].data) for i in place]
            return found
        joints = list(first.name) if hasattr(first, "name") and hasattr(first, "position") else []
        return np.stack([self._numbers(int(i), joints, is_action) for i in place])

    def _numbers(self, index: int, joints: Sequence[str], is_action: bool) -> NDArray[np.float64]:
        message = self.messages[index]
        if not joints:
            return np.array(_flat(message), np.float64)
        try:
            order = [list(message.name).index(name) for name in joints]
            parts = [message.position, *([] if is_action else [message.velocity])]
            return np.array([part[i] for part in parts if len(part) for i in order], np.float64)
        except (ValueError, IndexError) as error:
            raise DataError(
                f"topic {self.topic} lacks a joint of {', '.join(joints)} at message {index}; "
                "record all joints together"
            ) from error


def read_topics(store: Store, name: str, topics: Sequence[str], max_bytes: int) -> dict[str, Recorded]:
    """The messages of some topics of a file, by topic.

    Raises:
        DataError: for a broken file, topics that are absent or empty, and times that do not increase.
    """
    found = {topic: Recorded(topic) for topic in topics}
    size = 0
    with store.filesystem.open_input_file(store.path(name)) as stream:
        try:
            reader = make_reader(stream, decoder_factories=[DecoderFactory()])
            summary = reader.get_summary()
            there = sorted({channel.topic for channel in summary.channels.values()} if summary else ())
            rows = reader.iter_decoded_messages(topics=list(topics), log_time_order=False)
            for _, channel, message, decoded in rows:
                size += len(message.data)
                if size > max_bytes:
                    raise DataError(f"its topics have more than episodes.max_bytes={max_bytes}; raise it, or cut it")
                found[channel.topic].times.append(_time(message, decoded))
                found[channel.topic].messages.append(decoded)
        except (McapError, EOFError, OSError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"cannot be read as MCAP ({reason}); record it again, or run `mcap recover`") from error
    for topic, one in found.items():
        if topic not in there and not one.messages:
            raise DataError(f"has no topic {topic}; it has {', '.join(there) or 'none'}; set episodes.columns")
        if not one.messages:
            raise DataError(f"topic {topic} is empty from its start at 0.000 s: record it, or leave the episode out")
        _check_times(one, min(int(other.times[0]) for other in found.values() if len(other.times)))
        one.times = np.array(one.times, np.int64)
    return found


def _check_times(one: Recorded, start: int) -> None:
    for number, (before, after) in enumerate(pairwise(one.times), 1):
        if after <= before:
            was, now = (before - start) / 1e9, (after - start) / 1e9
            raise DataError(
                f"topic {one.topic} goes from {was:.3f} s to {now:.3f} s at message {number}: timestamps must "
                "increase; sort or drop its messages"
            )


def _time(message: Any, decoded: Any) -> int:
    """Nanoseconds: the stamp of the message's own header, else when it was published."""
    stamp = getattr(getattr(decoded, "header", None), "stamp", None)
    if stamp is not None and (stamp.sec or stamp.nanosec):
        return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
    return int(message.publish_time)


def _is_picture(message: Any) -> bool:
    return hasattr(message, "format") and hasattr(message, "data")


def _flat(value: Any) -> list[float]:
    """The numbers of a message in the order of its fields."""
    if isinstance(value, bool | int | float | np.number):
        return [float(value)]
    if isinstance(value, str | bytes):
        return []
    if hasattr(value, "__slots__"):
        return [n for name in value.__slots__ if name not in _BESIDE for n in _flat(getattr(value, name))]
    if isinstance(value, Sequence | np.ndarray):
        return [n for item in value for n in _flat(item)]
    return []
