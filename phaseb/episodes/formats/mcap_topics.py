"""Messages of MCAP files, topic by topic: their times, and what they say as rows of numbers or pictures."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from numpy.typing import NDArray

from phaseb.episodes.parquet_file import naming
from phaseb.errors import DataError
from phaseb.runtime.storage import Store

MAX_SILENCE = 10
"""Median intervals of a topic without a message after which it counts as interrupted."""
_BESIDE = ("header", "layout")
Times = NDArray[np.int64]


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
    with naming(store, name), _reading(store, name) as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        if summary is None or summary.statistics is None:
            return dict(Counter(channel.topic for _, channel, _ in reader.iter_messages(log_time_order=False)))
        counted = summary.statistics.channel_message_counts
        found = dict.fromkeys(sorted(channel.topic for channel in summary.channels.values()), 0)
        for number, channel in summary.channels.items():
            found[channel.topic] += counted.get(number, 0)
        return found


@dataclass
class TopicMessages:
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
            if len(self.messages) < min(2, len(steps)):
                at = (int(self.times[0]) - start) / 1e9
                raise DataError(
                    f"topic {self.topic} has one picture, at {at:.3f} s, for {len(steps)} actions: record it again, or "
                    "leave the episode out"
                )
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

    def sums_at(self, steps: Times) -> NDArray[np.float64]:
        """(T,) sums of single numbers: of the messages since the step before each, and of all after the last."""
        sums = np.zeros(len(steps))
        place = np.minimum(np.searchsorted(steps, self.times, side="left"), len(steps) - 1)
        np.add.at(sums, place, [flat_numbers(message)[0] for message in self.messages])
        return sums

    def flags_at(self, steps: Times) -> NDArray[np.float64]:
        """(T,) single numbers: the greatest since the step before each, else the newest; 0 before the first message.

        What comes after the last step counts there, as with rewards.
        """
        numbers = [flat_numbers(message) for message in self.messages]
        odd = next((i for i, found in enumerate(numbers) if len(found) != 1), None)
        if odd is not None:
            raise DataError(
                f"topic {self.topic} has {len(numbers[odd])} numbers at message {odd}, wanted one flag of 0 or 1: "
                "choose another topic"
            )
        values = np.array(numbers).reshape(-1)
        newest = np.searchsorted(self.times, steps, side="right") - 1
        flags = np.where(newest >= 0, values[np.maximum(newest, 0)], 0.0)
        place = np.minimum(np.searchsorted(steps, self.times, side="left"), len(steps) - 1)
        np.maximum.at(flags, place, values)
        return flags

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
            return np.array(flat_numbers(message), np.float64)
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
) -> dict[str, TopicMessages]:
    """The messages of some topics of a file, by topic: all of them, or until there are `least` of each.

    Raises:
        DataError: for a broken file, topics that are absent or empty, and times that do not increase.
    """
    found = {topic: TopicMessages(topic) for topic in topics}
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
            known = ", ".join(there) or "none"
            raise DataError(f"has no topic {topic}; it has {known}; set episodes.columns, or leave the episode out")
        if not one.messages:
            raise DataError(f"topic {topic} is empty from its start at 0.000 s: record it, or leave the episode out")
        _check_times(one, min(int(other.times[0]) for other in found.values() if len(other.times)))
        one.times = np.array(one.times, np.int64)
    return found


def _check_times(one: TopicMessages, start: int) -> None:
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
    """The names of a message's joints, in its order; none where it is of another kind."""
    return list(message.name) if hasattr(message, "name") and hasattr(message, "position") else []


def _is_picture(message: Any) -> bool:
    return hasattr(message, "format") and hasattr(message, "data")


def flat_numbers(value: Any) -> list[float]:
    """The numbers of a message in the order of its fields."""
    if isinstance(value, bool | int | float | np.number):
        return [float(value)]
    if isinstance(value, str | bytes):
        return []
    if hasattr(value, "__slots__"):
        return [n for name in value.__slots__ if name not in _BESIDE for n in flat_numbers(getattr(value, name))]
    if isinstance(value, Sequence | np.ndarray):
        return [n for item in value for n in flat_numbers(item)]
    return []
