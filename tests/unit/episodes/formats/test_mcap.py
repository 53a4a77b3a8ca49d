"""MCAP files as `mcap-ros2-support` writes them: joint states, commands and compressed pictures by topic."""

import io

import numpy as np
import pytest

mcap_writer = pytest.importorskip("mcap_ros2.writer")

from mcap.reader import make_reader  # noqa: E402
from mcap_ros2.decoder import DecoderFactory  # noqa: E402
from PIL import Image  # noqa: E402
from recorded_sums import check_sums  # noqa: E402

from phaseb.config.data import EpisodesConfig  # noqa: E402
from phaseb.episodes.control_source import open_recordings  # noqa: E402
from phaseb.episodes.sources import open_source, recognise  # noqa: E402
from phaseb.errors import ConfigError, DataError  # noqa: E402

HEADER = """
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""
JOINTS = "std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n" + HEADER
IMAGE = "std_msgs/Header header\nstring format\nuint8[] data\n" + HEADER
ARRAY = "float64[] data\n"
NUMBER = "float32 data\n"
NAMES = ["shoulder", "elbow"]
START_NS = 1_700_000_000_000_000_000


def stamp(time_ns):
    return {"stamp": {"sec": time_ns // 10**9, "nanosec": time_ns % 10**9}, "frame_id": ""}


def picture(shade):
    blob = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(blob, "PNG")
    return blob.getvalue()


class Recording:
    """Writes one file; every topic's messages as (seconds, content)."""

    def __init__(self, path):
        self._file = path.open("wb")
        self._writer = mcap_writer.Writer(self._file)
        kinds = (("JointState", JOINTS), ("CompressedImage", IMAGE), ("Float64MultiArray", ARRAY), ("Float32", NUMBER))
        self._schemas = {kind: self._writer.register_msgdef(f"sensor_msgs/msg/{kind}", text) for kind, text in kinds}

    def write(self, topic, kind, seconds, message):
        at = START_NS + round(seconds * 1e9)
        full = {"header": stamp(at), **message} if kind in ("JointState", "CompressedImage") else message
        self._writer.write_message(topic, self._schemas[kind], full, at, at)

    def close(self):
        self._writer.finish()
        self._file.close()


def joints(t, order=(0, 1)):
    position, velocity = [np.sin(t), np.cos(t)], [10 + t, 20 + t]
    return {
        "name": [NAMES[i] for i in order],
        "position": [position[i] for i in order],
        "velocity": [velocity[i] for i in order],
        "effort": [],
    }


def record(path, steps=20, camera_hz=5, edit=lambda topic, times: times, rename=False):
    """Joint states at 20 Hz, commands and rewards at 10 Hz, a camera."""
    one = Recording(path)
    for i, t in enumerate(edit("/joint_states", np.arange(2 * steps) / 20)):
        one.write("/joint_states", "JointState", t, joints(t, (1, 0) if rename and i % 2 else (0, 1)))
    for t in edit("/commands", 0.001 + np.arange(steps) / 10):
        one.write("/commands", "Float64MultiArray", t, {"data": [t, -t]})
    for t in edit("/reward", np.arange(steps) / 10):
        one.write("/reward", "Float32", t, {"data": t})
    for t in edit("/camera", np.arange(round(steps / 10 * camera_hz)) / camera_hz):
        one.write("/camera", "CompressedImage", t, {"format": "png", "data": picture(round(50 * t))})
    one.close()


def config(path, **columns):
    wanted = {"observation": ["/joint_states"], "action": ["/commands"], "reward": "/reward"} | columns
    return EpisodesConfig.model_validate({"source": "mcap", "path": str(path), "columns": wanted})


def read(path, **columns):
    source = open_source(config(path, **columns))
    return list(source.read(range(len(source.entries()))))


def test_topics_are_read_at_the_times_of_the_actions(tmp_path):
    for name in ("b", "a"):
        record(tmp_path / f"{name}.mcap", rename=name == "b")
    first, second = read(tmp_path, images="/camera")
    assert [first.id, second.id] == ["a", "b"]
    times = np.arange(20) / 10
    np.testing.assert_allclose(first.actions[:, 0], times[:-1] + 0.001, rtol=1e-5)
    wanted = np.stack([np.sin(times), np.cos(times), 10 + times, 20 + times], 1)
    np.testing.assert_allclose(first.state, wanted, rtol=1e-5)
    np.testing.assert_allclose(second.state, wanted, rtol=1e-5, err_msg="joints are told apart by name, not by place")
    assert first.frames.shape == (20, 6, 8, 3)
    shades = np.round(50 * np.floor(times * 5 + 1e-6) / 5)
    np.testing.assert_array_equal(first.frames[:, 0, 0, 0], shades)
    np.testing.assert_allclose(first.rewards[:-1], times[:-2], atol=1e-6)


def test_the_times_of_the_actions_are_the_rate_that_control_starts_from(tmp_path):
    for i in range(6):
        record(tmp_path / f"{i}.mcap")
    asked = config(tmp_path).model_copy(update={"control_hz": 5.0})
    opened = open_recordings(asked, 0)
    assert (opened.control.rows, opened.control.recorded_hz) == (2, pytest.approx(10))
    (made,) = opened.source.read([0])
    np.testing.assert_allclose(made.actions[:, 0], 0.001 + np.arange(18)[::2] / 10, rtol=1e-4)
    np.testing.assert_allclose(made.actions[:, 2], 0.001 + np.arange(18)[1::2] / 10, rtol=1e-4)
    np.testing.assert_allclose(made.state[:, 0], np.sin(np.arange(0, 19, 2) / 10), atol=1e-6)

    def without(name, times):
        return np.delete(times, [7, 8, 9]) if name == "/commands" else times

    record(tmp_path / "6.mcap", edit=without)
    assert len(read(tmp_path / "6.mcap")[0]) == 16, "at the recorded rate such a gap is not refused"
    line = (
        r"6\.mcap: topic /commands has no message from 0.600 s to 1.000 s, longer than a step of episodes.control_hz=5"
    )
    with pytest.raises(DataError, match=line):
        open_recordings(asked, 0)


def flagged(path, messages, kind="Float32"):
    """A file whose topic /done has some messages, (seconds, value) each."""
    one = Recording(path)
    for i in range(10):
        one.write("/commands", "Float64MultiArray", i / 10, {"data": [i, -i]})
        one.write("/joint_states", "JointState", i / 10, joints(i / 10))
    for seconds, value in messages:
        one.write("/done", kind, seconds, {"data": value})
    one.close()


@pytest.mark.parametrize(
    ("messages", "rewards"),
    [
        ([(0.95, 1.0)], [0] * 8 + [1]),  # behind the last action, whose row joins the one before
        ([(0.42, 1.0)], [0] * 5 + [1] + [0] * 3),
        ([(i / 10, float(i >= 3)) for i in range(10)], [0] * 3 + [1] + [0] * 5),
        ([(0.32, 1.0), (0.38, 0.0)], [0] * 4 + [1] + [0] * 4),
    ],
)
def test_a_flag_that_is_published_when_it_changes_counts_where_it_is(tmp_path, messages, rewards):
    flagged(tmp_path / "one.mcap", messages)
    (episode,) = read(tmp_path, reward="", success="/done")
    np.testing.assert_array_equal(episode.rewards, rewards)
    (ended,) = read(tmp_path, reward="", terminal="/done")
    assert ended.terminated == (messages[-1][1] == 1)


def test_flags_of_ends_are_0_and_1(tmp_path):
    flagged(tmp_path / "one.mcap", [(0.2, 0.5)])
    with pytest.raises(DataError, match="'/done' holds other values than 0 and 1, so no flags of ends"):
        read(tmp_path, reward="", terminal="/done")
    flagged(tmp_path / "one.mcap", [(0.2, [1.0, 0.0])], "Float64MultiArray")
    with pytest.raises(DataError, match="topic /done has 2 numbers at message 0, wanted one flag"):
        read(tmp_path, reward="", terminal="/done")


def test_one_picture_for_many_actions_is_refused(tmp_path):
    record(tmp_path / "one.mcap", edit=lambda topic, times: times[:1] if topic == "/camera" else times)
    with pytest.raises(DataError, match=r"topic /camera has one picture, at 0.000 s, for 20 actions"):
        read(tmp_path, images="/camera")


def test_a_topic_of_joint_states_as_actions_gives_positions(tmp_path):
    record(tmp_path / "one.mcap")
    (episode,) = read(tmp_path / "one.mcap", action=["/joint_states"], observation=["/joint_states"])
    assert (episode.actions.shape[1], episode.state.shape[1]) == (2, 2)


def test_files_and_folders_are_recognised(tmp_path):
    record(tmp_path / "one.mcap")
    assert recognise(str(tmp_path / "one.mcap"))[0] == "mcap"
    assert recognise(str(tmp_path))[0] == "mcap"


def swap(topic, at=5):
    def edit(name, times):
        if name == topic:
            times = times.copy()
            times[at] = times[at - 1] - 0.01
        return times

    return edit


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda name, t: t[:0] if name == "/camera" else t, "has no topic /camera; it has /commands, /joint_states"),
        (swap("/joint_states"), r"topic /joint_states goes from 0.200 s to 0.190 s at message 5: timestamps must"),
        (lambda name, t: t[:5] if name == "/joint_states" else t, "topic /joint_states has no message from 0.200 s to"),
        (lambda name, t: t[8:] if name == "/joint_states" else t, "topic /joint_states begins at 0.399 s, after"),
    ],
)
def test_what_is_wrong_with_a_topic_is_said_with_its_time(tmp_path, edit, line):
    record(tmp_path / "one.mcap", edit=edit)
    with pytest.raises(DataError, match=line) as caught:
        read(tmp_path, images="/camera")
    assert str(tmp_path / "one.mcap") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_topic_without_messages_is_empty(tmp_path):
    path = tmp_path / "one.mcap"
    one = Recording(path)
    for i in range(5):
        one.write("/commands", "Float64MultiArray", i / 10, {"data": [0.0]})
        one.write("/reward", "Float32", i / 10, {"data": 0.0})
    one._writer._writer.register_channel("/joint_states", "cdr", one._schemas["JointState"].id)
    one.close()
    with pytest.raises(DataError, match=r"topic /joint_states is empty from its start at 0.000 s"):
        read(path)


def test_a_file_that_was_cut_or_is_none_is_refused(tmp_path):
    record(tmp_path / "one.mcap")
    blob = (tmp_path / "one.mcap").read_bytes()
    for cut in (blob[: len(blob) // 2], b"no file of that kind", b""):
        (tmp_path / "one.mcap").write_bytes(cut)
        with pytest.raises(DataError, match="cannot be read as MCAP"):
            read(tmp_path)
    with pytest.raises(DataError, match=r"holds no \.mcap files"):
        open_source(config(tmp_path / "nothing"))


def test_topics_have_to_be_named(tmp_path):
    record(tmp_path / "one.mcap")
    with pytest.raises(ConfigError, match=r"set episodes\.columns\.action"):
        open_source(EpisodesConfig.model_validate({"source": "mcap", "path": str(tmp_path)}))


def test_without_the_package_it_says_how_to_get_it(tmp_path, monkeypatch):
    import sys

    for module in ("mcap", "mcap_topics"):
        monkeypatch.delitem(sys.modules, f"phaseb.episodes.formats.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "mcap.reader", None)
    with pytest.raises(ConfigError, match=r"phaseb\[mcap\]"):
        open_source(config(tmp_path))


def reward_of(path):
    with path.open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        return sum(decoded.data for *_, decoded in reader.iter_decoded_messages(topics=["/reward"]))


def rewards_at(hz):
    return lambda topic, times: np.arange(2 * hz) / hz if topic == "/reward" else times


@pytest.mark.parametrize("hz", [5, 10, 30])
def test_rewards_and_rows_add_up_at_any_rate(tmp_path, hz):
    for name in "ab":
        record(tmp_path / f"{name}.mcap", edit=rewards_at(hz))
    wanted = sum(reward_of(tmp_path / f"{name}.mcap") for name in "ab")
    said = check_sums(config(tmp_path), 2, 40, wanted)
    assert said.startswith("imported 2 of 2 episodes, 38 of 40 rows; left out: the last action of each file: ")
    assert "columns /camera" in said
    assert (f"/reward has {4 * hz} messages for 40 actions" in said) == (hz != 10)


def test_aborted_recordings_are_left_out_and_counted(tmp_path):
    record(tmp_path / "a.mcap")
    record(tmp_path / "b.mcap", 1, edit=lambda topic, times: np.ones(1) if topic == "/reward" else times)
    one = Recording(tmp_path / "c.mcap")
    one._writer._writer.register_channel("/commands", "cdr", one._schemas["Float64MultiArray"].id)
    one.close()
    said = check_sums(config(tmp_path), 3, 21, reward_of(tmp_path / "a.mcap") + 1)
    assert "b.mcap, of one action that no observation follows (1 episodes, 1 rows, reward 1)" in said
    assert "c.mcap, of no actions (1 episodes)" in said
    (tmp_path / "a.mcap").unlink()
    with pytest.raises(DataError, match="holds no recordings of two actions or more; record some"):
        read(tmp_path)


def test_joints_are_in_the_order_of_the_first_file(tmp_path):
    for name, order in (("a", (0, 1)), ("b", (1, 0)), ("c", (0,))):
        one = Recording(tmp_path / f"{name}.mcap")
        for t in np.arange(6) / 10:
            one.write("/joint_states", "JointState", t, joints(t, order))
            one.write("/commands", "Float64MultiArray", t + 0.01, {"data": [t]})
        one.close()
    source = open_source(config(tmp_path, reward=""))
    (second,) = source.read([1])
    (first,) = source.read([0])
    np.testing.assert_array_equal(first.state, second.state)
    with pytest.raises(
        DataError, match=r"c\.mcap: topic /joint_states has the joints shoulder, in the first file shou"
    ):
        list(source.read([2]))


def test_messages_of_another_size_are_said(tmp_path):
    one = Recording(tmp_path / "a.mcap")
    for i in range(6):
        one.write("/joint_states", "JointState", i / 10, joints(i))
        one.write("/commands", "Float64MultiArray", i / 10 + 0.01, {"data": [0.5] * (1 + (i > 3))})
    one.close()
    with pytest.raises(DataError, match=r"a\.mcap: topic /commands has 2 numbers at message 4 and 1 before: record"):
        read(tmp_path, reward="")
