"""Whatever is typed or set wrong, a user reads a line: what is wrong, where, and what to do; nothing is started."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from phaseb.cli.main import main
from phaseb.runtime.run_lock import FOLDER, Owner

STUDY = "job: dynamics\nmetrics: [{name: rmse_end}]\nspace: {dynamics.gru.hidden_size: {integer: [8, 16]}}\n"
JOB = {"name": "mine", "job": "run"}
RECORDED = "episodes.source=npz episodes.path=rec.npz environment.id=none"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """A folder with the files that the lines below name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    Path("good.yaml").write_text("run: {dir: runs/good}\n")
    Path("list.yaml").write_text("- 1\n")
    Path("broken.yaml").write_text("a: [1\n")
    Path("based.yaml").write_text("base: gone.yaml\n")
    Path("round.yaml").write_text("base: taken/../turn.yaml\n")
    Path("turn.yaml").write_text("base: ./round.yaml\n")
    Path("study.yaml").write_text(STUDY)
    Path("started.yaml").write_text(STUDY)
    Path("runs/default/studies/started").mkdir(parents=True)
    Path("runs/default/studies/started/study.json").write_text("{}")
    Path("badstudy.yaml").write_text(STUDY.replace("dynamics", "nosuch:Job"))
    for name, change in {"secret": {"environment": {"MY_TOKEN": "x"}}, "nojob": {"job": "rum"}}.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(JOB | change))
    Path("broken_module.py").write_text("raise RuntimeError('no licence')\n")
    Path("mine.py").write_text("x = 1\n")
    Path("taken/configs").mkdir(parents=True)
    Path("taken/configs/dev.yaml").write_text("mine")
    record("rec.npz", 40, 60)
    record("few.npz", 8, 60)
    record("dots.npz", 40, 1)
    record("still.npz", 40, 60, scale=0.0)
    Path("busy").mkdir()
    claim = dataclasses.asdict(Owner.this_process()) | {"entering": False, "number": 1, "beat": 0}
    Path("busy", FOLDER).mkdir()
    Path("busy", FOLDER, "other.json").write_text(json.dumps(claim))


def record(name: str, episodes: int, steps: int, scale: float = 1.0) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        name,
        observations=3 + scale * rng.normal(size=(episodes, steps + 1, 3)).astype(np.float32),
        actions=rng.uniform(-1, 1, (episodes, steps, 2)).astype(np.float32),
        rewards=rng.normal(size=(episodes, steps)).astype(np.float32),
    )


LINES = [
    # words typed, exit code, what the line must say: what is wrong, where, and what to do
    ("run good.yaml", 2, ["'good.yaml'", "did you mean --config good.yaml?"]),
    ("run --json good.yaml", 2, ["'good.yaml'", "did you mean --config good.yaml?"]),
    ("run nonsense", 2, ["'nonsense' is not of the form key.path=value"]),
    ("run policy.discount=7", 2, ["(policy.discount=7)", "less than 1"]),
    ("run policy.num_steps=ten", 2, ["(policy.num_steps=ten)", "valid integer"]),
    ("run arms.num_seeds=2.5", 2, ["(arms.num_seeds=2.5)", "valid integer"]),
    ("run run.seed=-1", 2, ["(run.seed=-1)", "greater than or equal to 0"]),
    ("run policy.num_step=3", 2, ["unknown key policy.num_step", "did you mean 'policy.num_steps'?"]),
    ("run wrld_model.num_steps=3", 2, ["unknown key wrld_model", "did you mean 'dynamics.gru.num_steps'?"]),
    ("run policy=3", 2, ["(policy=3)", "policy = 3"]),
    ("run run.seed.x=3", 2, ["(run.seed.x=3)", "run.seed"]),
    ("run run.seed=3 run.seed.x=3", 2, ["run.seed.x", "'seed' is a value, not a section"]),
    ("run policy.num_steps=[1", 2, ["policy.num_steps: the value '[1' cannot be read; quote it"]),
    ("run arms.names=real_onl", 2, ["(arms.names=real_onl)", "did you mean 'real_only'?"]),
    ("run arms.names=real_only,trust_weighted", 2, ["write several as [real_only,trust_weighted]"]),
    ("run arms.names=[]", 2, ["arms.names", "at least 1 item"]),
    ("run judge.families=nosuch", 2, ["judge.families", "is none of episode_trees, window_trees, gru nor module:fu"]),
    ("run dynamics.plugins.own.model=nosuch", 2, ["dynamics.plugins.own.model", "is not of the form module:Class"]),
    ("run run.dir=hf://datasets/a/b", 2, ["run.dir", "hf:// paths are not opened; run `hf download a/b"]),
    ("run episodes.source=npz episodes.path=hf://datasets/a/b", 2, ["episodes.path", "--local-dir FOLDER"]),
    ("run episodes.source=npz episodes.path=https://x.org/a.npz", 2, ["episodes.path", "download the file first"]),
    ("run run.dir=smb://host/a", 2, ["run.dir", "smb:// is no storage that can be opened; give a path"]),
    ("run run.dir=~nobody-here/a", 2, ["run.dir", "no home folder is known for ~nobody-here"]),
    ("run run.dir=s3://key:word@bucket/a", 2, ["s3://bucket/a", "a password in it", "AWS_ACCESS_KEY_ID"]),
    ("run episodes.source=npz", 2, ["source=npz needs episodes.path=FILE"]),
    ("run episodes.source=csv", 2, ["episodes.source", "is none of workcell, gymnasium, npz"]),
    ("run episodes.source=mixed", 2, ["episodes.parts=[{source: …, path: …, weight: …}, …]"]),
    ("run episodes.policy=nosuch", 2, ["episodes.policy", "is neither random nor module:Class"]),
    ("run episodes.dev_fraction=0.6 episodes.test_fraction=0.6", 2, ["dev_fraction + test_fraction must leave"]),
    ("run flywheel.source=folder", 2, ["flywheel.source=folder needs flywheel.folder"]),
    ("run resources.min_workers=3", 2, ["min_workers (3) is above num_workers (0)"]),
    ("run resources.gpus_per_worker=1.5", 2, ["gpus_per_worker above 1 must be whole, not 1.5"]),
    ("run worth.curve=[0.5,0.2]", 2, ["must be two or more shares that ascend"]),
    ("run policy.offline.cql_weight=1", 2, ["offline.algorithm=iql asks no unseen action", "need sac"]),
    ("run --config gone.yaml", 2, ["cannot read config gone.yaml: No such file"]),
    ("run --config taken", 2, ["cannot read config taken: Is a directory"]),
    ("run --config list.yaml", 2, ["list.yaml must hold `section: …` mappings, not a list"]),
    ("run --config broken.yaml", 2, ["broken.yaml is not YAML"]),
    ("run --config based.yaml", 2, ["cannot read config gone.yaml"]),
    ("run --config round.yaml", 2, ["round.yaml is its own base, by way of turn.yaml", "take `base` out"]),
    ("inspect rec.npz --html taken", 2, ["--html=taken cannot be written", "name a file in a folder"]),
    ("inspect rec.npz --html gone/page.html", 2, ["--html=gone/page.html cannot be written", "name a file"]),
    ("inspect rec.npz --html hf://a/b", 2, ["--html=hf://a/b: hf:// paths are not opened"]),
    ("run --config s3://bucket/a.yaml", 2, ["s3://bucket/a.yaml is a storage URI", "copy it here first"]),
    ("run run.dir=busy", 2, ["busy is in use by process ", "wait for it to end, stop it, or choose another run.dir"]),
    ("import", 2, ["import reads files", "episodes.source=FORMAT episodes.path=PATH", "`phaseb collect`"]),
    ("import episodes.source=gymnasium", 2, ["episodes.source=gymnasium records new episodes"]),
    ("tune gone.yaml", 2, ["cannot read config gone.yaml"]),
    ("tune study.yaml --resume", 2, ["there is no study study in ", "start it without --resume"]),
    ("tune started.yaml", 2, ["study started is in ", "go on with --resume, or give this one another name"]),
    ("tune badstudy.yaml", 2, ["job=nosuch:Job: there is no module nosuch", "current folder or on PYTHONPATH"]),
    ("tune study.yaml run.seed=1", 2, ["tune takes no settings: run.seed=1"]),
    ("submit gone.yaml", 2, ["cannot read config gone.yaml"]),
    ("submit secret.yaml", 2, ["MY_TOKEN looks like a secret", "set it on the cluster instead"]),
    ("submit nojob.yaml", 2, ["nojob.yaml: job = 'rum': no such job", "did you mean 'run'?"]),
    ("export nowhere out", 3, ["nowhere is not a run directory: it has no run.json"]),
    ("export nowhere out --format csv", 2, ["--format is one of npz, minari, lerobot"]),
    ("report nowhere", 3, ["nowhere"]),
    ("report a b c", 2, ["one folder is told, two runs are compared; 3 were given"]),
    ("evaluate --policy nowhere", 3, ["nowhere is no exported policy: there is no model_card.json"]),
    ("settings nosuchword", 2, ["no setting has nosuchword in its name"]),
    ("init taken", 2, ["taken/configs/dev.yaml exists and differs; choose another folder"]),
    (
        "run resources.num_workers=1 resources.cpus_per_worker=4096",
        4,
        ["4096 CPUs are asked for, this machine has", "lower resources."],
    ),
    ("run resources.address=http://10.0.0.1:8265", 4, ["resources.address=http", "job server", "host:port"]),
    ("run resources.address=somewhere", 4, ["resources.address=somewhere is no address", "host:port (often 6379)"]),
    ("run judge.families=nosuch:judge", 2, ["judge.families=nosuch:judge: there is no module nosuch", "PYTHONPATH"]),
    (
        "run dynamics.plugins.own.model=mine:Model arms.trust_weighted.generator=own",
        2,
        ["module mine has no Model; name a class or function of it"],
    ),
    ("run environment.id=broken_module:Env", 2, ["broken_module cannot be imported (RuntimeError: no licence)"]),
    ("run reuse.trust=nowhere", 3, ["trust/meta.json in ", "nowhere", "in which `phaseb trust` is done"]),
    (
        "run resources.num_workers=5",
        2,
        ["a multiple of 5 for 5 workers (policy.batch_size)", "or lower resources."],
    ),
    ("run --dry-run episodes.source=npz episodes.path=gone.npz", 3, ["gone.npz"]),
    ("run --dry-run environment.id=NoSuch-v0", 2, ["environment.id=NoSuch-v0 cannot be made", "check the name"]),
    ("run --dry-run environment.id=gone:Env", 2, ["environment.id=gone:Env: there is no module gone", "PYTHONPATH"]),
    ("run --dry-run episodes.source=gone:Own", 2, ["episodes.source=gone:Own: there is no module gone", "PYTHONPATH"]),
    ("run --dry-run episodes.source=broken_module:Own", 2, ["cannot be imported (RuntimeError: no licence)"]),
    (f"run --dry-run {RECORDED} episodes.path=.", 3, [". is a folder, wanted an NPZ file; set episodes.path"]),
    (f"run --dry-run {RECORDED} episodes.source=hdf5 episodes.path=taken", 3, ["taken is a folder, wanted an HDF5"]),
    (f"run --dry-run {RECORDED} episodes.source=parquet", 3, ["rec.npz is a file, wanted a folder"]),
    (f"run --dry-run {RECORDED} episodes.source=lerobot episodes.path=.", 3, ["meta/info.json"]),
    ("init s3://bucket/mine", 2, ["s3://bucket/mine is a storage URI", "give a folder"]),
    ("run --dry-run promotion.first_seed=1000100", 2, ["seeds that are not among 1000000 to 1000199", "move prom"]),
    (f"run --dry-run {RECORDED} replay.capacity=50", 3, ["room for 61 rows", "finds 50", "raise replay.capacity"]),
    (f"run --dry-run {RECORDED} latents.observation=frames", 3, ["frames (latents.observation) and finds state"]),
    (f"run --dry-run {RECORDED} episodes.path=still.npz", 3, ["changes in", "columns 0, 1, 2 constant", "choose"]),
    (f"run --dry-run {RECORDED} episodes.path=few.npz", 3, ["4 windows of 60 steps in the", "finds 2", "raise"]),
    (f"run --dry-run {RECORDED} episodes.path=dots.npz", 3, ["2 training episodes of 60 steps", "the longest has 1"]),
    (f"run --dry-run {RECORDED} run.dir=few.npz", 2, ["a folder to write to (run.dir)", "few.npz", "set run.dir to"]),
    (f"run --dry-run {RECORDED} run.dir=few.npz/sub", 2, ["a folder to write to (run.dir)", "few.npz"]),
    ("run rec.npz", 2, ["'rec.npz' is not of the form", "did you mean episodes.source=npz episodes.path=rec.npz?"]),
    (f"run --dry-run {RECORDED} environment.id=workcell", 2, ["an environment that shows a state of 3", "set env"]),
]


@pytest.mark.parametrize(("typed", "code", "said"), LINES, ids=[line[0] for line in LINES])
def test_a_line_says_what_where_and_what_to_do(typed, code, said, capsys):
    assert main(typed.split()) == code
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if line.startswith("phaseb: ")]
    assert any(all(part in line for part in said) for line in lines), told.err
    assert "Traceback" not in told.err
    assert "defect of phaseb" not in told.err
    assert all(not line.rstrip().endswith((":", ";", ",", "(")) for line in lines)  # whole sentences


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://10.0.0.1:8265", "RAY_ADDRESS=http://10.0.0.1:8265 is the address of a job server"),
        ("ray://10.0.0.1:10001", "RAY_ADDRESS=ray://10.0.0.1:10001 is a ray:// address, which a run cannot join"),
        ("10.0.0.1", "RAY_ADDRESS=10.0.0.1 is no address of a cluster"),
    ],
)
def test_so_does_one_about_a_variable(address, said, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert main(["run", "--config", "good.yaml"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"phaseb: {said}")
    assert "give the head's host:port (often 6379), auto, or local to start a Ray here" in line


def test_a_module_of_the_current_folder_is_found(capsys):
    Path("own_judge.py").write_text("def judge(evidence, config, seed):\n    return None\n")
    assert main(["run", "--dry-run", *RECORDED.split(), "judge.families=own_judge:judge"]) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_wrong_item_is_said_once(capsys):
    assert main(["run", "arms.names=real_only,trust_weighted"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("write several as [real_only,trust_weighted]")


def test_home_is_not_a_folder_called_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["init", "~/mine"]) == 0
    assert (tmp_path / "home" / "mine" / "configs" / "dev.yaml").is_file()
    assert not (tmp_path / "~").exists()


def test_a_page_is_written_to_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    assert main(["inspect", "rec.npz", "--html", "~/page.html"]) == 0
    assert (tmp_path / "home" / "page.html").stat().st_size > 1000


def test_a_folder_that_was_deleted_meanwhile_is_no_defect(tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["settings", "policy.num_steps"]) == 0
    assert main(["run", "policy.num_steps=ten"]) == 2
    assert "defect" not in capsys.readouterr().err


def test_the_built_in_cell_may_record_for_no_environment(capsys):
    assert main(["run", "--dry-run", "environment.id=none"]) == 0
    assert "not known before collecting" in capsys.readouterr().out


def test_one_value_is_a_list_of_one(capsys):
    assert main(["run", "--dry-run", *RECORDED.split(), "arms.names=real_only", "judge.rungs=60"]) == 0


def test_a_dry_run_says_what_an_import_leaves_out(capsys):
    with np.load("rec.npz") as whole:
        np.savez("rec.npz", **whole, lengths=np.r_[np.zeros(1, np.int64), np.full(39, 60)], clock=np.zeros((40, 60)))
    assert main(["run", "--dry-run", *RECORDED.split()]) == 0
    assert "note: imported 39 of 40 episodes, 2340 of 2400 rows; left out: " in capsys.readouterr().out


def test_a_dry_run_counts_actions_beyond_the_environments_bounds(capsys):
    with np.load("rec.npz") as whole:
        one = {
            name: np.repeat(array[..., :1], 3 if name == "observations" else 1, axis=-1) if array.ndim > 2 else array
            for name, array in whole.items()
        }
    np.savez("rec.npz", **one | {"actions": 5 * one["actions"]})
    assert main(["run", "--dry-run", *RECORDED.split(), "environment.id=Pendulum-v1"]) == 0
    assert "recorded actions lie beyond the bounds of environment Pendulum-v1 (-2 to 2" in capsys.readouterr().out


def test_a_dry_run_says_what_was_chosen_and_leaves_nothing(tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    record("short.npz", 60, 30)
    assert main(["run", "--dry-run", *RECORDED.split(), "episodes.path=short.npz", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {name: value for name, value in told["choices"][0].items() if name != "why"} == {
        "setting": "synthesis.horizon",
        "given": 60,
        "chosen": 30,
    }
    assert all(need["met"] for need in told["requirements"])
    assert {need["stage"] for need in told["requirements"]} >= {"encode", "dynamics", "trust", "judge", "policy"}
    Path("short.npz").unlink()
    assert sorted(tmp_path.rglob("*")) == before
