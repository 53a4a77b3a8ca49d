"""Recordings that are not the built-in cell's: judged without physics, or in an environment that Gymnasium has."""

import gymnasium
import numpy as np
import pytest
from program import STAGES, lineage, strict_json, write_config

from phaseb.episodes.formats.npz import read_npz

STEPS = 20
JUDGE = {"num_pairs": 10, "rungs": ["5"]}


@pytest.fixture(scope="module")
def swings(tmp_path_factory):
    """Episodes of Gymnasium's pendulum under random torques, as someone else would record them."""
    env, rng = gymnasium.make("Pendulum-v1", max_episode_steps=STEPS), np.random.default_rng(0)
    observations, rewards = np.zeros((14, STEPS + 1, 3)), np.zeros((14, STEPS))
    actions = rng.uniform(-2, 2, (14, STEPS, 1))
    for i in range(14):
        observations[i, 0], _ = env.reset(seed=i)
        for t in range(STEPS):
            observations[i, t + 1], rewards[i, t], *_ = env.step(actions[i, t].astype(np.float32))
    path = tmp_path_factory.mktemp("swings") / "swings.npz"
    np.savez(path, observations=observations, actions=actions, rewards=rewards)
    assert len(read_npz(str(path), 10**8)) == 14
    return path


def run(command, tmp_path, swings, environment):
    sections = {
        "environment": {"id": environment, "max_steps": STEPS},
        "arms": {"num_seeds": 1},
        "judge": JUDGE,
    }
    config = write_config(tmp_path, **sections)
    told = command(
        "run",
        "--config",
        config,
        "episodes.source=npz",
        f"episodes.path={swings}",
        f"run.dir={tmp_path / 'run'}",
        "--json",
    )
    assert told.code == 0, told.err
    stages = lineage(tmp_path / "run")["stages"]
    assert {name: stages[name]["state"] for name in STAGES} == dict.fromkeys(STAGES, "done")
    return strict_json(told.out), (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")


def test_without_an_environment_policies_are_judged_by_estimates(command, ray_up, tmp_path, swings):
    results, page = run(command, tmp_path, swings, "none")
    assert results["evaluation"]["environment"] == "none"
    assert results["arms"]["real_only"]["return"]["mean"] is not None
    for measure in ("mpl", "error_rate", "energy_wh_per_unit"):  # nobody measured these, so nobody may say them
        assert results["arms"]["real_only"][measure]["mean"] is None
        assert measure not in results["arm_columns"]
    promotion = results["promotion"]
    used, named = promotion["method"], {"fqe": "off-policy evaluation", "model": "in generators"}
    assert (used == "model") == (promotion["model_returns"]["refused"] == "")
    assert named[used] in results["arms_title"]
    means = {arm: results["arms"][arm]["return"]["mean"] for arm in results["arms"]}
    assert means == pytest.approx(promotion["estimates"][used])
    assert "In the cell" not in page
    assert "value unknown" in page


def test_attempts_that_all_failed_are_said_to_teach_no_values(command, tmp_path, swings):
    arrays = dict(np.load(swings))
    arrays["success"] = np.zeros(len(arrays.pop("rewards")))
    path = tmp_path / "failures.npz"
    np.savez(path, **arrays)
    words = ("episodes.source=npz", f"episodes.path={path}", "environment.id=none", f"run.dir={tmp_path / 'run'}")
    told = command("run", "--dry-run", *words)
    assert told.code == 0, told.err
    assert "rewards are made from success: 1 at an episode's first step that is flagged" in told.out
    assert "every training reward is 0 and no return differs, so values cannot be learned" in told.out
    assert "a multiple of" not in told.out, "there are no workers to share a batch"


def test_without_rewards_the_clones_are_trained_and_judged_by_held_out_actions(command, ray_up, tmp_path, swings):
    arrays = dict(np.load(swings))
    del arrays["rewards"]
    path = tmp_path / "silent.npz"
    np.savez(path, **arrays)
    config = write_config(tmp_path, environment={"id": "none", "max_steps": STEPS}, judge=JUDGE)
    words = ("run", "--config", config, "episodes.source=npz", f"episodes.path={path}", f"run.dir={tmp_path / 'run'}")
    told = command(*words, "--json")
    assert told.code == 0, told.err
    results = strict_json(told.out)
    assert set(results["arms"]) == {"behaviour_cloning"}
    (note,) = [note for note in results["notes"] if "values cannot be learned" in note]
    assert "only policies that clone are trained, and held-out actions judge them" in note
    assert note in told.err, "it is said before anything is trained"
    assert "misses the recorded action by" in results["verdict"]
    assert results["arms"]["behaviour_cloning"]["return"]["mean"] is None
    assert results["held_out"]["arms"]["behaviour_cloning"]["error"]["mean"] > 0
    stages = lineage(tmp_path / "run")["stages"]
    assert set(stages) == set(STAGES) - {"dynamics/gp", "choice"}, "nothing is fitted that no arm uses"
    again = command(*words)
    assert again.code == 0, again.err
    assert lineage(tmp_path / "run")["stages"] == stages
    worth = command("worth", *words[1:])
    assert worth.code == 3
    assert "no recorded return differs from another, so no brick is worth more" in worth.complaint[-1]


def test_any_gymnasium_environment_judges(command, ray_up, tmp_path, swings):
    results, _ = run(command, tmp_path, swings, "Pendulum-v1")
    value = results["arms"]["real_only"]["return"]["mean"]
    assert -17 * STEPS < value < 0  # a step of the pendulum costs 0 to 16.3
    assert results["arms"]["real_only"]["mpl"]["mean"] is None
    assert "in Pendulum-v1" in results["arms_title"]


def test_an_environment_that_does_not_fit_the_data_is_refused(command, ray_up, tmp_path, swings):
    config = write_config(tmp_path, environment={"id": "workcell", "observation": "state", "max_steps": STEPS})
    told = command(
        "run", "--config", config, "episodes.source=npz", f"episodes.path={swings}", f"run.dir={tmp_path / 'run'}"
    )
    assert told.code == 3
    (line,) = told.complaint
    assert "the episodes' actions have [1] dimensions, environment workcell takes 2" in line


@pytest.mark.parametrize("name", ["Nowhere-v0", "no_such_module:Cell"])
def test_an_environment_that_does_not_exist(command, ray_up, tmp_path, swings, name):
    config = write_config(tmp_path, environment={"id": name, "max_steps": STEPS})
    told = command(
        "run", "--config", config, "episodes.source=npz", f"episodes.path={swings}", f"run.dir={tmp_path / 'run'}"
    )
    assert told.code == 2
    (line,) = told.complaint
    assert name.split(":")[0] in line
