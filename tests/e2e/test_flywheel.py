"""The flywheel: generations that learn from what the last one did, fail without harm, stop, and survive `kill -9`."""

import json
import shutil
import signal
import subprocess
import time
from html import unescape

import numpy as np
import pytest
import yaml
from moody_cell import BROKEN
from program import PROGRAM, RETRY_S, environment, leftovers, strict_json, tiny

from phaseb.collection.deployed_policy import DeployedPolicySpec, collect_by_policy
from phaseb.config.data import EnvironmentConfig
from phaseb.episodes.shards import read_episodes, read_trajectories, write_episodes
from phaseb.runtime.storage import Store
from phaseb.workcell.collect import collect_episodes

pytestmark = pytest.mark.nightly

SMALL = {
    "episodes": {"num_test": 10},
    "judge": {"num_pairs": 10, "rungs": ["20"], "num_permutations": 19},
    "arms": {"names": ["real_only", "trust_weighted"], "num_seeds": 2},
    "promotion": {"max_episodes": 8, "rule": "not_worse", "margin": 0.99},
}
WHEEL = {"num_episodes": 8, "max_generations": 3, "dev_fraction": 0.25, "test_fraction": 0.125}


def write(folder, name="wheel", **sections):
    tree = tiny(**{**SMALL, **sections})
    tree["flywheel"] = {**WHEEL, **sections.get("flywheel", {})}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def turn(command, folder, config, *words, name="wheel"):
    told = command("flywheel", "--config", config, f"run.dir={folder / name}", *words, "--json")
    assert told.code == 0, told.err
    return strict_json(told.out)


def ledger(root):
    return json.loads((root / "flywheel.json").read_text())


@pytest.fixture(scope="module")
def turned(ray_up, tmp_path_factory):
    """Three generations, as a whole; tests only read them."""
    from phaseb.config.load import load_config
    from phaseb.flywheel.loop import run

    folder = tmp_path_factory.mktemp("turned")
    config = write(folder)
    result = run(load_config(config, [f"run.dir={folder / 'wheel'}"]))
    return config, folder / "wheel", result.metrics


@pytest.fixture
def copied(turned, tmp_path):
    return shutil.copytree(turned[1], tmp_path / "wheel")


def test_every_generation_learns_from_all_before_it(turned):
    _, root, told = turned
    assert [g["state"] for g in told["generations"]] == ["done"] * 3
    sizes = [g["episodes"]["real"] for g in told["generations"]]
    assert sizes == [24, 32, 40]
    last = read_episodes(Store.at(root / "generations" / "002" / "episodes"))
    collected = [e for e in last if e.id.startswith("g")]
    assert {e.id[:4] for e in collected} == {"g001", "g002"}
    assert {e.split for e in collected} == {"train", "dev", "test"}
    assert len({e.tags["seed"] for e in last}) == len(last)  # no start twice
    first = {e.id: e.split for e in read_episodes(Store.at(root / "generations" / "000" / "episodes"))}
    assert {e.id: e.split for e in last if e.id in first} == first  # nobody changes sides


def test_only_what_drifted_is_trained_again(turned):
    _, root, told = turned
    assert told["generations"][0]["retrained"] == ["encoder", "dynamics", "trust"]
    for generation in ledger(root)["generations"][1:]:
        assert {t["part"] for t in generation["plan"]["tests"]} == {"encoder", "dynamics", "trust"}
        run = root / "generations" / f"{generation['number']:03d}"
        for part in ("encoder", "dynamics", "trust"):
            home = root / "generations" / f"{generation['plan']['homes'][part]:03d}"
            models = ["dynamics/gru", "dynamics/gp"] if part == "dynamics" else [part]
            for model in models:
                same = [json.loads((r / model / "meta.json").read_text())["digest"] for r in (run, home)]
                assert same[0] == same[1], model
            assert (part in generation["retrained"]) == (home == run)
        assert json.loads((run / "run.json").read_text())["stages"]["policy"]["state"] == "done"


def test_the_shipped_policy_collects(turned):
    """The very actions: the policy of the ledger, asked again, does what lies in the batch."""
    _, root, _ = turned
    shipped = ledger(root)["generations"][0]["shipped"]
    batch = read_episodes(Store.at(root / "batches" / "001"))
    assert {e.tags["policy"].split("/")[0] for e in batch} == {shipped["arm"]}
    grips = np.concatenate([e.actions[:, 1] for e in batch])
    assert set(np.unique(grips)) <= {-1.0, 1.0}, "the gripper stays a switch, whatever is explored"
    crew = DeployedPolicySpec(Store.at(root / "generations" / "000"), shipped["arm"], 2, 0.1)
    wanted = [(e.id, int(e.tags["seed"]), int(e.tags["policy"].split("/")[1])) for e in batch[:3]]
    cell = EnvironmentConfig(observation="state", max_steps=20)
    for one, other in zip(collect_by_policy(cell, crew, wanted), batch, strict=False):
        assert one.actions == pytest.approx(other.actions, abs=1e-6)
        assert one.state == pytest.approx(other.state, abs=1e-6)


def test_decisions_spend_episodes_of_their_own_and_say_so(turned):
    _, root, told = turned
    for generation in ledger(root)["generations"][1:]:
        assert generation["decision"]["method"] == "physics"
        assert generation["decision"]["budget"]["spent_episodes"] <= 8
        assert generation["promoted"] == (generation["shipped"]["generation"] == generation["number"])
    spent = sum(g["episodes"]["spent"] for g in told["generations"])
    assert told["real_episodes"] == 40 + spent


def test_the_page_draws_the_generations(turned, command):
    _, root, told = turned
    page = unescape((root / "report" / "index.html").read_text())
    for word in ("MPL (good units / h)", "energy (Wh / good unit)", "error rate", "Trust", told["verdict"]):
        assert word in page
    assert page.count("<svg") >= 4
    again = command("report", root, "--json")
    assert strict_json(again.out)["verdict"] == told["verdict"]
    assert command("report", root, root / "generations" / "000").code == 2


def test_again_there_is_nothing_to_do_and_a_larger_budget_goes_on(turned, copied, command):
    config, _, told = turned
    before = ledger(copied)
    again = turn(command, copied.parent, config)
    assert again["generations"] == told["generations"]
    assert ledger(copied)["generations"] == before["generations"]
    stopped = turn(command, copied.parent, config, "flywheel.max_generations=9", "flywheel.max_real_episodes=44")
    assert len(stopped["generations"]) == 3
    assert "real episodes are spent" in stopped["ended_by"]


def test_without_gain_it_stops(turned, copied, command):
    config, _, _ = turned
    tree = ledger(copied)
    for generation in tree["generations"][1:]:
        generation["promoted"] = False
    (copied / "flywheel.json").write_text(json.dumps(tree))
    told = turn(command, copied.parent, config, "flywheel.max_generations=9")
    assert "2 generations in a row brought no gain" in told["ended_by"]


def test_what_was_altered_or_is_something_else_is_refused(turned, copied, finished, command):
    config, _, _ = turned
    other = command("flywheel", "--config", config, f"run.dir={copied}", "policy.num_steps=13")
    assert (other.code, "of another config (different: policy)" in other.complaint[0]) == (2, True)
    taken = command("flywheel", "--config", config, f"run.dir={finished.folder}")
    assert (taken.code, "holds a run" in taken.complaint[0]) == (2, True)
    shipped = ledger(copied)["shipped"]
    target = copied / "generations" / f"{shipped['generation']:03d}" / "policy" / shipped["arm"] / "0" / "meta.json"
    target.write_text(target.read_text() + " ")
    spoilt = command("flywheel", "--config", config, f"run.dir={copied}")
    assert (spoilt.code, len(spoilt.complaint)) == (3, 1)
    assert "policy was altered after it ended" in spoilt.complaint[0]


def test_a_failed_generation_leaves_the_last_good_one_shipped(ray_up, tmp_path):
    from phaseb.config.load import load_config
    from phaseb.flywheel.loop import run

    BROKEN.unlink(missing_ok=True)

    class Trouble:
        def on_stage_start(self, stage):
            if stage == "1 gather":
                BROKEN.touch()
            elif stage == "2 gather":
                BROKEN.unlink()

        def on_progress(self, stage, metrics): ...

        def on_stage_end(self, stage, metrics, seconds, skipped): ...

    config = write(tmp_path, environment={"id": "moody_cell:Cell"}, episodes={"num_test": 10, "source": "workcell"})
    words = [f"run.dir={tmp_path / 'wheel'}", "resources.num_tasks=1"]
    told = run(load_config(config, words), [Trouble()]).metrics
    states = [(g["state"], g["promoted"]) for g in told["generations"]]
    assert states[:2] == [("done", True), ("failed", False)]
    assert states[2][0] == "done"
    assert "the drive is hot" in told["generations"][1]["reason"]
    records = ledger(tmp_path / "wheel")["generations"]
    assert records[1]["shipped"] == records[0]["shipped"] == {"generation": 0, "arm": records[0]["arm"]}
    assert "1 failed" in told["verdict"]


def test_new_files_in_a_folder_begin_a_generation(ray_up, tmp_path, command):
    drop, cell = tmp_path / "drop", EnvironmentConfig(observation="state", max_steps=20)
    write_episodes(Store.at(drop / "monday"), collect_episodes(cell, 0, range(24)))
    narrow = collect_episodes(EnvironmentConfig(max_steps=20), 2, range(3))  # with frames: other shapes
    config = write(
        tmp_path,
        environment={"id": "none"},
        episodes={"source": "parquet", "path": str(drop)},
        flywheel={"source": "folder", "folder": str(drop), "poll_s": 0.02, "wait_s": 0.0},
    )
    first = turn(command, tmp_path, config)
    assert [g["state"] for g in first["generations"]] == ["done"]
    assert first["ended_by"] == "no new files came"
    write_episodes(Store.at(drop / "tuesday"), collect_episodes(cell, 1, range(8)))
    write_episodes(Store.at(drop / "camera"), narrow)
    (drop / "notes.parquet").write_text("no data")
    told = turn(command, tmp_path, config)
    assert [g["episodes"]["real"] for g in told["generations"]] == [24, 32]
    tree = ledger(tmp_path / "wheel")
    assert tree["generations"][1]["decision"]["method"] == "fqe"
    assert {r["name"] for r in tree["rejected"]} == {"notes.parquet", "camera"}
    latents = read_trajectories(Store.at(tmp_path / "wheel" / "generations" / "001" / "latents"))
    assert sum(name.startswith("tuesday/") for name in latents.ids) == 8
    assert turn(command, tmp_path, config)["generations"] == told["generations"]
    gone = command("flywheel", "--config", config, f"run.dir={tmp_path / 'x'}", "flywheel.folder=/nowhere/at/all")
    assert (gone.code, "no such folder" in gone.complaint[0]) == (3, True)


@pytest.mark.timeout(900)
def test_killed_in_the_middle_of_a_generation_it_goes_on(turned, copied, command):
    """From the first generation on, which the copy keeps."""
    config, whole, _ = turned
    for name in ("generations/001", "generations/002", "batches"):
        shutil.rmtree(copied / name)
    tree = ledger(copied)
    shipped = tree["generations"][0]["shipped"]
    (copied / "flywheel.json").write_text(
        json.dumps(tree | {"generations": tree["generations"][:1], "shipped": shipped, "ended_by": None})
    )
    kill_in_training(config, copied)
    assert len(ledger(copied)["generations"]) == 1
    turn(command, copied.parent, config)
    assert leftovers(copied) == []
    for one, other in zip(ledger(copied)["generations"], ledger(whole)["generations"], strict=True):
        assert one["shipped"] == other["shipped"]
        for name in ("mpl", "return"):
            wanted = other["metrics"][name]["mean"]
            assert one["metrics"][name]["mean"] == (wanted if wanted is None else pytest.approx(wanted, rel=1e-4))


def kill_in_training(config, root):
    """Let a program of its own turn the flywheel, and kill it while its next policies are trained."""
    log = root.parent / "log"
    words = [PROGRAM, "flywheel", "--config", config, f"run.dir={root}"]
    with (
        log.open("w") as told,
        subprocess.Popen(words, cwd=root.parent, env=environment(), stdout=subprocess.DEVNULL, stderr=told) as process,
    ):
        try:
            deadline = time.monotonic() + RETRY_S
            while not any((root / "generations" / "001" / "policy" / "progress").rglob("meta.json")):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.005)
        finally:
            process.send_signal(signal.SIGKILL)
