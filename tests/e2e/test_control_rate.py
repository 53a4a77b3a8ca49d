"""Recordings at 20 Hz, controlled at 5 Hz: imported, learned from, measured in their environment, exported, played."""

import json

import gymnasium
import numpy as np
import pytest
from lerobot_writer import write_lerobot
from program import STAGES, lineage, strict_json, write_config

from phaseb.episodes.shards import read_episodes
from phaseb.export.loader import ExportedPolicy
from phaseb.runtime.storage import Store

ROWS, STEPS = 80, 20
JUDGE = {"num_pairs": 10, "rungs": ["5"]}


@pytest.fixture(scope="module")
def swings(tmp_path_factory):
    """Gymnasium's pendulum, 20 times a second, under torques that change at every row; the last row has no action."""
    env, rng = gymnasium.make("Pendulum-v1"), np.random.default_rng(0)
    episodes = []
    for i in range(14):
        seen, rewards, torques = [env.reset(seed=i)[0]], [], rng.uniform(-2, 2, (ROWS + 1, 1)).astype(np.float32)
        for torque in torques[:-1]:
            observation, reward, *_ = env.step(torque)
            seen.append(observation)
            rewards.append(reward)
        columns = {"observation.state": np.array(seen, np.float32), "action": torques}
        episodes.append(columns | {"next.reward": np.array([*rewards, 0.0], np.float32)})
    folder = write_lerobot(tmp_path_factory.mktemp("swings") / "d", episodes, fps=20)
    return folder, episodes


@pytest.mark.timeout(300)
def test_a_run_decides_and_measures_at_the_rate_of_control(command, ray_up, tmp_path, swings):
    folder, recorded = swings
    config = write_config(
        tmp_path,
        environment={"id": "Pendulum-v1", "max_steps": STEPS},
        arms={"num_seeds": 1, "names": ["real_only"]},
        judge=JUDGE,
    )
    run = tmp_path / "run"
    words = ("--config", config, "episodes.source=lerobot", f"episodes.path={folder}", f"run.dir={run}")
    words = (*words, "episodes.control_hz=5", "--json")
    told = command("run", *words)
    assert told.code == 0, told.err
    stages = lineage(run)["stages"]
    assert {name: stages[name]["state"] for name in STAGES if name in stages} == dict.fromkeys(stages, "done")
    made = read_episodes(Store.at(str(run / "episodes")))
    assert {(len(one), one.actions.shape) for one in made} == {(STEPS, (STEPS, 4))}
    for one in made:
        rows = recorded[int(one.id.removeprefix("episode-"))]
        np.testing.assert_array_equal(one.actions.reshape(-1, 1), rows["action"][:-1])
        np.testing.assert_array_equal(one.state, rows["observation.state"][::4])
        assert one.rewards.sum() == pytest.approx(rows["next.reward"].sum(), rel=1e-5)
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    earned = summary["arms"]["real_only"]["seeds"]["0"]["return"]
    usual = np.mean([rows["next.reward"].sum() for rows in recorded])
    assert 2 * usual < earned < 0, "80 steps of the environment are 20 of control, and all of them are paid"
    _play_exported(command, run, tmp_path / "out", earned)


def _play_exported(command, run, out, earned):
    exported = command("export", run, out, "--format", "policy")
    assert exported.code == 0, exported.err
    said = ExportedPolicy.load(str(out)).card["interface"]
    assert said["control"] == {"asked_hz": 5.0, "recorded_hz": 20.0, "rows": 4, "action": "chunk", "hz": 5.0}
    assert said["outputs"] == {"action": ["batch", 4]}
    assert "It decides 5 times a second: an action is 4 of the machine's" in (out / "MODEL_CARD.md").read_text()
    measured = command("evaluate", "--policy", out, "--json")
    assert measured.code == 0, measured.err
    assert strict_json(measured.out)["measured"]["return"] == pytest.approx(earned, rel=1e-4)


@pytest.mark.parametrize(
    ("setting", "code", "line"),
    [
        ("episodes.control_hz=0", 2, "control_hz"),
        ("episodes.control_hz=nan", 2, "control_hz"),
        ("episodes.control_hz=40", 2, "episodes.control_hz=40 is above the 20 Hz that were recorded: set at most that"),
        (
            "episodes.control_hz=0.1",
            3,
            "holds no episode of 200 rows, a step of episodes.control_hz=0.1: set it higher",
        ),
    ],
)
def test_a_rate_that_cannot_be_is_one_line_before_anything_is_trained(command, tmp_path, swings, setting, code, line):
    config = write_config(tmp_path, environment={"id": "none"})
    words = ("--config", config, "episodes.source=lerobot", f"episodes.path={swings[0]}", setting)
    told = command("run", "--dry-run", *words, f"run.dir={tmp_path / 'run'}")
    assert told.code == code
    assert len(told.complaint) == 1
    assert line in told.complaint[0]
    assert not (tmp_path / "run").exists()


def test_inspect_says_the_rate_and_what_another_would_do(command, swings):
    told = command("inspect", swings[0], "--json")
    plan = strict_json(told.out)["plan"]
    assert "recorded at 20 Hz: episodes.control_hz=10 would make 560 steps of 2 rows, their action a chunk of 2" in plan
    told = command("inspect", swings[0], "--json", "episodes.control_hz=5")
    found = strict_json(told.out)
    assert any("1120 of 1134 rows as 280 steps" in line for line in found["plan"])
    assert any("a step is 4 rows of the recorded 20 Hz, so 5 Hz: its action is the chunk" in x for x in found["plan"])
    assert not any("would make" in line for line in found["plan"])
    told = command("inspect", swings[0], "--json", "episodes.control_hz=40")
    assert told.code == 3
    assert "above the 20 Hz" in strict_json(told.out)["findings"][0]["text"]
