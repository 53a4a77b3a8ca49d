"""MCAP files of ROS 2 messages: one file an episode, topics as columns, read by their names.

    episodes.columns.observation=[/joint_states]  action=[/commands]  images=/camera/compressed

| message | what is read |
| --- | --- |
| `sensor_msgs/JointState` | positions by the joints' names; velocities too where it is no action |
| `sensor_msgs/CompressedImage` | the picture (JPEG, PNG) |
| any other | its numbers in their order, without header and layout |

The messages of the first action topic are the steps. Each other topic gives its newest message at that time; of the
reward's topic, those since the step before are added up. Flags (success, terminal) are 0 before their first message,
and what comes after the last action counts there. Joints are in the order of the first file's first message.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.episode_builder import Layout, read_columns
from phaseb.episodes.formats.mcap_topics import Times, count_messages, flat_numbers, joint_names, read_topics
from phaseb.episodes.formats.success import reward_notes
from phaseb.episodes.inventory import Inventory, LeftOut
from phaseb.episodes.parquet_file import naming
from phaseb.episodes.recorded import RecordedEpisode
from phaseb.episodes.sources import Entry
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.storage import Store

NO_SUCCESSOR = "the last action of each file: no observation follows it, so its reward is added to the step before"


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
            context = partial(naming, self._store, name)
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
        flags = {wanted.success, wanted.terminal} - {*wanted.observation, *wanted.action, *wanted.images}
        columns = {
            topic: one.flags_at(steps) if topic in flags else one.at(steps, topic in wanted.action, order[topic])
            for topic, one in recorded.items()
        }
        if wanted.reward and columns[wanted.reward].size == len(steps):
            columns[wanted.reward] = recorded[wanted.reward].sums_at(steps)
        interval_s = float(np.median(np.diff(steps))) / 1e9 if len(steps) > 1 else 0.0
        if self._config.control_hz is not None:
            _check_gaps(wanted.action[0], steps, interval_s, self._config.control_hz)
        layout = Layout(wanted.observation, wanted.action, "", step_s=interval_s)
        return read_columns(name.removesuffix(".mcap"), columns, layout, self._config, name)

    def _joint_order(self) -> dict[str, list[str]]:
        """The joints' names by topic, in the order of the first file."""
        if self._joints is None:
            with naming(self._store, self._long[0]):
                first = read_topics(self._store, self._long[0], self._topics, self._config.max_bytes, least=1)
            self._joints = {topic: joint_names(one.messages[0]) for topic, one in first.items()}
        return self._joints

    def _lost_reward(self, name: str) -> float:
        """The sum of the rewards in a file that is left out."""
        reward = self._config.columns.reward
        if not self._counts[name].get(reward):
            return 0.0
        with naming(self._store, name):
            found = read_topics(self._store, name, (reward,), self._config.max_bytes)[reward]
            return float(sum(sum(flat_numbers(message)) for message in found.messages))


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


def _check_gaps(topic: str, steps: Times, interval_s: float, control_hz: float) -> None:
    """Refuse actions between which a whole step of control passes: its rows would not be a step apart."""
    gaps = np.diff(steps) / 1e9
    if len(gaps) and gaps.max() > 1 / control_hz + interval_s:
        at = int(gaps.argmax())
        began, ended = ((int(steps[i]) - int(steps[0])) / 1e9 for i in (at, at + 1))
        raise DataError(
            f"topic {topic} has no message from {began:.3f} s to {ended:.3f} s, longer than a step of "
            f"episodes.control_hz={control_hz:g}: cut the recording there, or leave the episode out"
        )
