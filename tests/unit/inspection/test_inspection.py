"""`phaseb inspect` finds faults that are planted one at a time, and is silent on clean recordings."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from faulty_recordings import IN_ONE, arm_episodes, moving_frames, write_npz, write_video
from lerobot_writer import write_lerobot

from phaseb.cli.main import main
from phaseb.config.data import EnvironmentConfig
from phaseb.config.load import load_config
from phaseb.episodes.formats.npz import write_npz as write_episodes
from phaseb.episodes.sources import recognise
from phaseb.inspection.inspection import Inspection, inspect
from phaseb.inspection.page import page
from phaseb.runtime.storage import Store
from phaseb.workcell.collect import collect_episodes

FAULTY = 7
TOP = "observation.images.top"


def look(path: Path, *settings: str) -> Inspection:
    source, place = recognise(str(path))
    return inspect(
        load_config(None, [f"episodes.source={source}", f"episodes.path={place}", "environment.id=none", *settings])
    )


def alarms(found: Inspection) -> list[str]:
    return [f"{one.kind}: {one}" for one in found.findings if one.severity != "note"]


def kinds(found: Inspection, episode: str) -> set[str]:
    return {one.kind for one in found.findings if episode in one.episodes}


@pytest.mark.parametrize("fault", IN_ONE)
def test_a_planted_fault_is_found_in_its_episode_alone(tmp_path: Path, fault: str) -> None:
    kind, plant = IN_ONE[fault]
    episodes = arm_episodes()
    plant(episodes[FAULTY])
    found = look(write_npz(tmp_path / "arm.npz", episodes))
    assert kind in kinds(found, f"arm-{FAULTY:06d}"), alarms(found)
    assert {name for one in found.findings for name in one.episodes} == {f"arm-{FAULTY:06d}"}
    assert found.refused == (fault == "NaN")


def test_episodes_that_are_refused_alike_are_one_line(tmp_path: Path) -> None:
    episodes = arm_episodes()
    for i in range(3, 15):
        IN_ONE["NaN"][1](episodes[i])
    (one,) = [one for one in look(write_npz(tmp_path / "arm.npz", episodes)).findings if one.kind == "refused"]
    assert one.episodes == tuple(f"arm-{i:06d}" for i in range(3, 15))
    assert "episode arm-000003: state has NaN or Inf" in one.text
    assert one.text.endswith("(11 more alike)")
    assert str(one).startswith("arm-000003, ")


def test_copies_are_found_whole_and_in_part(tmp_path: Path) -> None:
    episodes = arm_episodes()
    episodes[3] = episodes[11]
    episodes[5] = {name: array[20:] for name, array in episodes[18].items()}
    found = look(write_npz(tmp_path / "arm.npz", episodes))
    pairs = [one.episodes for one in found.findings if one.kind == "duplicate"]
    assert pairs == [("arm-000003", "arm-000011"), ("arm-000005", "arm-000018")]


def test_a_column_that_never_changes_is_named(tmp_path: Path) -> None:
    episodes = arm_episodes()
    for one in episodes:
        one["state"][:, 6] = 0.25
    found = look(write_npz(tmp_path / "arm.npz", episodes))
    assert alarms(found) == ["constant: state[6] never changes: no information"]


@pytest.mark.parametrize("seed", range(4))
def test_clean_arms_raise_no_alarm(tmp_path: Path, seed: int) -> None:
    assert alarms(look(write_npz(tmp_path / "arm.npz", arm_episodes(seed=100 + seed)))) == []


def test_the_cell_raises_no_alarm(tmp_path: Path) -> None:
    episodes = collect_episodes(EnvironmentConfig(observation="state"), 0, range(40))
    write_episodes(Store.at(tmp_path), "cell.npz", episodes)
    assert alarms(look(tmp_path / "cell.npz")) == []


def arm_of_lerobot(folder: Path, fps: int = 20, **changes: dict[str, np.ndarray]) -> Path:
    """A LeRobot set of 12 episodes of the arm with one camera; `changes` overwrite columns of episode FAULTY."""
    rows = [
        {"observation.state": e["state"][:-1], "action": e["action"], "next.reward": e["reward"]}
        for e in arm_episodes(12)
    ]
    rows[FAULTY] |= changes
    write_lerobot(folder, rows, fps, video_path="videos/{video_key}/episode_{episode_index:06d}.mp4")
    info = json.loads((folder / "meta" / "info.json").read_text())
    info["features"]["observation.images.top"] = {
        "dtype": "video",
        "shape": [64, 96, 3],
        "names": ["height", "width", "channel"],
    }
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    for i in range(12):
        write_video(video(folder, i), moving_frames(120, i), fps)
    return folder


def video(folder: Path, episode: int) -> Path:
    return folder / "videos" / "observation.images.top" / f"episode_{episode:06d}.mp4"


def test_a_camera_raises_no_alarm_and_is_shown(tmp_path: Path) -> None:
    pytest.importorskip("av")
    found = look(arm_of_lerobot(tmp_path / "arm"))
    assert alarms(found) == []
    assert dict(found.cameras) == {"observation.images.top": "video 64x96x3 at 20 Hz"}
    assert sum(track.still is not None for track in found.tracks) == 6
    assert page(found).count("data:image/png") == 1
    assert found.survey.step_s == pytest.approx(0.05)


def test_a_frozen_a_blank_and_a_short_video_are_found(tmp_path: Path) -> None:
    pytest.importorskip("av")
    folder = arm_of_lerobot(tmp_path / "arm")
    frozen = moving_frames(120, 1)
    frozen[40:85] = frozen[40]
    write_video(video(folder, 1), frozen, 20)
    write_video(video(folder, 2), np.full((120, 64, 96, 3), 3, np.uint8), 20)
    write_video(video(folder, 3), moving_frames(101, 3), 20)
    video(folder, 4).write_bytes(b"no video")
    found = look(folder)
    seen = [kinds(found, f"episode-{i:06d}") for i in range(5)]
    assert seen == [set(), {"frozen"}, {"frozen", "blank"}, {"video"}, {"video"}]
    texts = [str(one) for one in found.findings if one.kind == "video"]
    assert "no frame at 5.050 s" in texts[0]
    assert "19 of 120 rows" in texts[0]
    assert "cannot be decoded" in texts[1]
    assert not found.refused, "a run does not read the camera"
    read = look(folder, f"episodes.columns.images={TOP}")
    assert {name for one in read.findings if one.severity == "error" for name in one.episodes} == {
        "episode-000003",
        "episode-000004",
    }
    assert "video" not in kinds(read, "episode-000003"), "its refusal says so already"


def test_a_camera_slower_than_the_rows_is_no_fault_and_a_frozen_one_is(tmp_path: Path) -> None:
    pytest.importorskip("av")
    folder = arm_of_lerobot(tmp_path / "arm")
    for i in range(12):
        frames = moving_frames(60, i)
        if i == FAULTY:
            frames[20:50] = frames[20]
        write_video(video(folder, i), frames, 10)
    found = look(folder, f"episodes.columns.images={TOP}")
    (one,) = [one for one in found.findings if one.severity != "note"]
    assert (one.kind, one.episodes) == ("frozen", (f"episode-{FAULTY:06d}",))
    rows = int(re.search(r"repeats one frame for (\d+) of 120", one.text)[1])
    assert 40 <= rows <= 60, "of 30 frames, each of two rows"


def test_a_camera_that_stops_early_everywhere_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("av")
    folder = arm_of_lerobot(tmp_path / "arm")
    for i in range(12):
        write_video(video(folder, i), moving_frames(100 + i % 3, i), 20)
    (one,) = [one for one in look(folder).findings if one.kind == "video"]
    assert len(one.episodes) == 12
    assert one.text.endswith("(11 more alike)")


def test_a_frozen_camera_is_found_in_frames_that_are_no_video(tmp_path: Path) -> None:
    frames = np.stack([moving_frames(121, i, 16, 16) for i in range(12)])
    frames[FAULTY, 50:90] = frames[FAULTY, 50]
    found = look(write_npz(tmp_path / "arm.npz", arm_episodes(12), frames=frames))
    assert [(one.kind, one.episodes) for one in found.findings] == [("frozen", (f"arm-{FAULTY:06d}",))]


def test_one_frozen_camera_of_two_is_found_by_its_name(tmp_path: Path) -> None:
    top, wrist = (np.stack([moving_frames(121, i + seed, 16, 16) for i in range(12)]) for seed in (0, 50))
    wrist[FAULTY, 50:90] = wrist[FAULTY, 50]
    wrist[2] = 3
    path = write_npz(tmp_path / "arm.npz", arm_episodes(12), top=top, wrist=wrist)
    found = look(path, "episodes.columns.images=[top,wrist]", "episodes.columns.image_size=16")
    seen = {(one.kind, one.episodes): one.text for one in found.findings}
    assert set(seen) == {
        ("frozen", ("arm-000002",)),
        ("frozen", (f"arm-{FAULTY:06d}",)),
        ("blank", ("arm-000002",)),
    }
    assert all("camera wrist" in text for text in seen.values())


@pytest.mark.parametrize("times", ["a gap", "another rate"])
def test_times_that_are_not_a_step_apart_are_refused(tmp_path: Path, times: str) -> None:
    seconds = np.arange(120) / 20
    seconds = seconds + 0.7 * (seconds > 2) if times == "a gap" else seconds * 20 / 30
    rows = [
        {"observation.state": e["state"][:-1], "action": e["action"], "next.reward": e["reward"]}
        for e in arm_episodes(12)
    ]
    rows[FAULTY] |= {"timestamp": seconds.astype(np.float32)}
    found = look(write_lerobot(tmp_path / "arm", rows, 20))
    (one,) = [one for one in found.findings if one.severity == "error"]
    assert one.episodes == (f"episode-{FAULTY:06d}",)
    assert f"has row {41 if times == 'a gap' else 1} at" in one.text


def test_the_command_prints_writes_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = arm_episodes()
    good, bad = write_npz(tmp_path / "good.npz", episodes), tmp_path / "bad.npz"
    IN_ONE["glitch"][1](episodes[FAULTY])
    IN_ONE["NaN"][1](episodes[3])
    write_npz(bad, episodes)
    assert main(["inspect", str(good)]) == 0
    assert "24 episodes, 2880 steps" in capsys.readouterr().out
    assert main(["inspect", str(bad), "--json", "--html", str(tmp_path / "page.html")]) == 3
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert [one["kind"] for one in told["findings"]] == ["refused", "jump"]
    assert (told["refused"], told["schema"]["episodes"], len(told["schema"]["columns"])) == (True, 23, 14)
    assert "would be refused: 1 error\n" in err
    html = (tmp_path / "page.html").read_text()
    assert "jump: bad-000007" in html
    assert "A run would be refused" in html
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.npz", "good.npz", "page.html"]


def test_what_a_run_would_lack_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(write_npz(tmp_path / "few.npz", arm_episodes(4, steps=6)))]) == 3
    assert "error    requirement judge needs" in capsys.readouterr().out
    assert main(["inspect", str(write_npz(tmp_path / "two.npz", arm_episodes(2)))]) == 3
    assert "too few episodes: 2 split" in capsys.readouterr().out


def test_what_is_no_recording_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PK")
    assert main(["inspect", str(tmp_path / "broken.npz")]) == 3
    assert "damaged or no NPZ file" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path)]) == 2
    assert "no format that can be recognised; it holds broken.npz" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "gone")]) == 3
    assert "no such file or folder" in capsys.readouterr().err
