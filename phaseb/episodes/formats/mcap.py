"""MCAP files of ROS 2 messages: one file an episode, topics as columns, read by their names.

    episodes.columns.observation=[/joint_states]  action=[/commands]  images=/camera/compressed

| message | what is read |
| --- | --- |
| `sensor_msgs/JointState` | positions by the joints' names; velocities too where it is no action |
| `sensor_msgs/CompressedImage` | the picture (JPEG, PNG) |
| any other | its numbers in their order, without header and layout |

The messages of the first action topic are the steps. Each other topic gives its newest message at that time; of the
reward's topic, those since the step before are added up. Joints are in the order of the first file's first message.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from numpy.typing import NDArray

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.episode_builder import Layout, read_columns
from phaseb.episodes.formats.success import reward_notes
from phaseb.episodes.inventory import Inventory, LeftOut
from phaseb.episodes.recorded import RecordedEpisode
from phaseb.episodes.sources import Entry
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.storage import Store

NO_SUCCESSOR = "the last action of each file: no observation follows it, so its reward is added to the step before"
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
        action = config.columns.action[0]
        self._counts = {name: count_messages(self._store, name) for name in self._names}
        self._short = [name for name in self._names if self._counts[name].get(action, 2) < 2]
        self._long = [name for name in self._names if name not in self._short]
        if not self._long:
            raise DataError(f"{config.path} holds no recordings of two actions or more; record some")
        self._joints: dict[str, list[str]] | None = None

    def entries(self) -> Sequence[Entry]:
        return [(name.removesuffix(".mcap"), "") for name in self._long]

    def lengths(self) -> Sequence[int]:
        return [max(self._counts[name].get(self._config.columns.action[0], 0) - 1, 0) for name in self._long]

    def read(self, indices: Sequence[int]) -> Iterator[Episode]:
        return (recorded.episode() for recorded in self.recorded(indices))

    def recorded(self, indices: Sequence[int]) -> Iterator[RecordedEpisode]:
        """The same, row by row, with pictures decoded on demand."""
        for index in indices:
            name = self._long[index]
            context = partial(_naming, self._store, name)
            with context():
                found = self._episode(name)
            yield replace(found, context=context)

    def inventory(self) -> Inventory:
        """What the files hold, and what of it is left out."""
        wanted, left = self._config.columns, list[LeftOut]()
        action = wanted.action[0]
        for name in self._short:
            rows = self._counts[name][action]
            what = f"{name}, of one action that no observation follows" if rows else f"{name}, of no actions"
            left.append(LeftOut(what, 1, rows, self._lost_reward(name)))
        left.append(LeftOut(NO_SUCCESSOR, rows=len(self._long)))
        there = {topic for count in self._counts.values() for topic in count}
        rows = sum(count.get(action, 0) for count in self._counts.values())
        unread = tuple(sorted(there - set(self._topics)))
        notes = reward_notes(there, wanted, "", "")
        return Inventory(len(self._names), rows, tuple(left), unread, (*notes, *self._other_rate()))

    def _other_rate(self) -> tuple[str, ...]:
        """A sentence where rewards are not recorded once an action."""
        wanted = self._config.columns
        found, steps = (sum(self._counts[n].get(t, 0) for n in self._long) for t in (wanted.reward, wanted.action[0]))
        if not wanted.reward or found == steps:
            return ()
        return (
            f"{wanted.reward} has {found} messages for {steps} actions: those since the action before are added up",
        )

    def _episode(self, name: str) -> RecordedEpisode:
        recorded = read_topics(self._store, name, self._topics, self._config.max_bytes)
        wanted, order = self._config.columns, self._joint_order()
        steps = recorded[wanted.action[0]].times
        columns = {topic: one.at(steps, topic in wanted.action, order[topic]) for topic, one in recorded.items()}
        if wanted.reward and columns[wanted.reward].size == len(steps):
            columns[wanted.reward] = recorded[wanted.reward].added_up(steps)
        interval_s = float(np.median(np.diff(steps))) / 1e9 if len(steps) > 1 else 0.0
        layout = Layout(wanted.observation, wanted.action, "", step_s=interval_s)
        return read_columns(name.removesuffix(".mcap"), columns, layout, self._config, name)

    def _joint_order(self) -> dict[str, list[str]]:
        """The joints' names by topic, in the order of the first file."""
        if self._joints is None:
            with _naming(self._store, self._long[0]):
                first = read_topics(self._store, self._long[0], self._topics, self._config.max_bytes, least=1)
            self._joints = {topic: joint_names(one.messages[0]) for topic, one in first.items()}
        return self._joints

    def _lost_reward(self, name: str) -> float:
        """The sum of the rewards in a file that is left out."""
        reward = self._config.columns.reward
        if not self._counts[name].get(reward):
            return 0.0
        with _naming(self._store, name):
            found = read_topics(self._store, name, (reward,), self._config.max_bytes)[reward]
            return float(sum(sum(_flat(message)) for message in found.messages))


@contextmanager
def _naming(store: Store, name: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{store.path(name)}: {error}") from error


@contextmanager
def _reading(store: Store, name: str) -> Iterator[Any]:
    """A file opened; what MCAP's library says of it becomes a line."""
    try:
        with store.filesystem.open_input_file(store.path(name)) as stream:
            yield stream
    except (McapError, EOFError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot be read as MCAP ({reason}); record it again, or run `mcap recover`") from error


def count_messages(store: Store, name: str) -> dict[str, int]:
    """The messages of each topic of a file: its summary counts them; without one, all of it is read.

    Raises:
        DataError: naming a file that cannot be read.
    """
    with _naming(store, name), _reading(store, name) as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        if summary is None or summary.statistics is None:
            return dict(Counter(channel.topic for _, channel, _ in reader.iter_messages(log_time_order=False)))
        counted = summary.statistics.channel_message_counts
        found = dict.fromkeys(sorted(channel.topic for channel in summary.channels.values()), 0)
        for number, channel in summary.channels.items():
            found[channel.topic] += counted.get(number, 0)
        return found


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

    def at(self, steps: Times, is_action: bool, joints: Sequence[str] = ()) -> NDArray[Any]:
        """The newest message at each of some times, as rows: numbers, or pictures as bytes.

        Args:
            steps: (T,) the times.
            is_action: whether only positions are read of joints.
            joints: the names of the joints in the order wanted; empty where the topic has none.

        Raises:
            DataError: where the topic begins late, ends early or was interrupted, or its messages do not fit.
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
        self._check_joints(joint_names(first), joints)
        rows = [self._numbers(int(i), joints, is_action) for i in place]
        sizes = np.array([len(row) for row in rows])
        if (sizes != sizes[0]).any():
            other = int(np.argmax(sizes != sizes[0]))
            raise DataError(
                f"topic {self.topic} has {sizes[other]} numbers at message {place[other]} and {sizes[0]} before: "
                "record messages of one size, or choose another topic"
            )
        return np.stack(rows)

    def added_up(self, steps: Times) -> NDArray[np.float64]:
        """(T,) sums of single numbers: of the messages since the step before each, and of all after the last."""
        sums = np.zeros(len(steps))
        place = np.minimum(np.searchsorted(steps, self.times, side="left"), len(steps) - 1)
        np.add.at(sums, place, [_flat(message)[0] for message in self.messages])
        return sums

    def _check_joints(self, found: Sequence[str], wanted: Sequence[str]) -> None:
        if sorted(found) != sorted(wanted):
            shown = [", ".join(names) or "none" for names in (found, wanted)]
            raise DataError(
                f"topic {self.topic} has the joints {shown[0]}, in the first file {shown[1]}: record the same joints "
                "in every file"
            )

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


def read_topics(
    store: Store, name: str, topics: Sequence[str], max_bytes: int, least: int | None = None
) -> dict[str, Recorded]:
    """The messages of some topics of a file, by topic: all of them, or until there are `least` of each.

    Raises:
        DataError: for a broken file, topics that are absent or empty, and times that do not increase.
    """
    found = {topic: Recorded(topic) for topic in topics}
    size = 0
    with _reading(store, name) as stream:
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
            if least is not None and all(len(one.messages) >= least for one in found.values()):
                break
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


def joint_names(message: Any) -> list[str]:
    """The joints that a message tells of, in its order; none where it is of another kind."""
    return list(message.name) if hasattr(message, "name") and hasattr(message, "position") else []


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
