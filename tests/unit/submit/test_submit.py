"""Job files are checked whole, and what is shipped is this code, one config, and nothing of the shell's."""

import sys
import types
from pathlib import Path

import pytest
import yaml

from phaseb.config.cluster import JobConfig, load_job
from phaseb.config.load import load_config
from phaseb.errors import ClusterError, ConfigError
from phaseb.submit import retry_entrypoint
from phaseb.submit.client import exit_code, is_loopback, read_token
from phaseb.submit.send import entry_point, package, placed, prepare, study_text

ROOT = Path(__file__).parents[3]


def write(folder, text):
    path = folder / "job.yaml"
    path.write_text(text)
    return str(path)


def test_all_faults_of_a_job_file_at_once(tmp_path):
    path = write(tmp_path, "name: Bad Name\njob: polcy\nretry: 3\nretries: -1\ncluster: {nodes: 1, min_nodes: 2}")
    with pytest.raises(ConfigError) as caught:
        load_job(path)
    told = str(caught.value)
    for wanted in (
        "name = 'Bad Name'",
        "no such job; did you mean 'policy'?",
        "unknown key retry; did you mean",
        "retries = -1",
        "min_nodes (2) is above nodes (1)",
    ):
        assert wanted in told
    assert len(told.splitlines()) == 5


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "MY_TOKEN", "db_password", "OPENAI_API_KEY"])
def test_secrets_are_refused_and_not_repeated(tmp_path, name):
    path = write(tmp_path, f"name: a\nenvironment: {{{name}: hunter2}}")
    with pytest.raises(ConfigError, match="looks like a secret") as caught:
        load_job(path)
    assert "hunter2" not in str(caught.value)


def test_job_overrides_then_storage_then_words(tmp_path):
    path = write(tmp_path, "name: a\noverrides: {run.seed: 3, policy.num_steps: 5}\nstorage: s3://b/x/")
    _, config = prepare(path, ["policy.num_steps=6"])
    assert (config.run.seed, config.policy.num_steps, config.run.dir) == (3, 6, "s3://b/x/a")
    with pytest.raises(ConfigError, match=r"run.sed.*did you mean"):
        prepare(write(tmp_path, "name: a\noverrides: {run.sed: 3}"))


def test_a_relative_run_directory_stays_here_or_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(None, ["run.dir=runs/a"])
    assert placed(config, "http://127.0.0.1:8265").run.dir == str(tmp_path / "runs/a")
    with pytest.raises(ConfigError, match="folder of this machine"):
        placed(config, "https://cluster.example:8265")
    away = load_config(None, ["run.dir=s3://b/a"])
    assert placed(away, "https://cluster.example:8265") is away


def test_what_is_shipped(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "do-not-ship-this")
    job, config = prepare(write(tmp_path, "name: a\nretries: 2\nenvironment: {MODE: fast}"))
    request = package(job, config, None, tmp_path / "out")
    shipped = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert all(p.suffix in (".py", ".typed", ".yaml", ".html", ".css", ".js") for p in shipped)
    assert {p.name for p in (tmp_path / "out/work").iterdir()} == {"config.yaml"}
    assert load_config(tmp_path / "out/work/config.yaml") == config
    ours = {str(p.relative_to(ROOT)) for p in (ROOT / "phaseb").rglob("*.py")}
    assert ours <= {str(p.relative_to(tmp_path / "out/code")) for p in shipped if "code" in p.parts}
    assert not any("do-not-ship-this" in p.read_text() for p in shipped)
    assert "do-not-ship-this" not in str(request)
    assert request["entrypoint"] == "python -m phaseb.submit.retry_entrypoint 2 run --config config.yaml"
    assert request["runtime_env"]["env_vars"]["MODE"] == "fast"
    assert request["submission_id"].startswith("a-")


def test_a_search_is_shipped_with_its_own_base_config(tmp_path):
    (tmp_path / "base.yaml").write_text("run: {seed: 5}")
    (tmp_path / "hunt.yaml").write_text(
        "config: base.yaml\nmetrics: {name: lag_match}\nspace: {dynamics.gru.weights.var: {uniform: [0, 1]}}"
    )
    path = write(tmp_path, "name: a\njob: tune\nstudy: hunt.yaml")
    job, config = prepare(path)
    assert config.run.seed == 5
    study = yaml.safe_load(study_text(job, path) or "")
    assert (study["config"], study["name"]) == ("config.yaml", "hunt")
    assert entry_point(job).endswith("tune study.yaml --auto-resume")
    hunt = (tmp_path / "hunt.yaml").read_text()
    (tmp_path / "hunt.yaml").write_text(hunt.replace("lag_match", "nonsense"))
    with pytest.raises(ConfigError, match="does not report 'nonsense'"):  # before anything is sent
        prepare(path)
    with pytest.raises(ConfigError, match="go together"):
        load_job(write(tmp_path, "name: a\njob: tune"))


def test_a_search_finds_its_base_config_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "jobs").mkdir()
    (tmp_path / "base.yaml").write_text("run: {seed: 5}")
    (tmp_path / "jobs" / "hunt.yaml").write_text(
        "config: ~/base.yaml\nmetrics: {name: lag_match}\nspace: {dynamics.gru.weights.var: {uniform: [0, 1]}}"
    )
    write(tmp_path / "jobs", "name: a\njob: tune\nstudy: hunt.yaml")
    for path in ("~/jobs/job.yaml", str(tmp_path / "jobs" / "job.yaml")):
        assert prepare(path)[1].run.seed == 5


@pytest.mark.parametrize(
    ("codes", "retries", "wanted", "starts"),
    [([0], 3, 0, 1), ([1, 1, 0], 3, 0, 3), ([1, 1, 1], 2, 1, 3), ([2, 0], 3, 2, 1), ([3], 3, 3, 1), ([4, 0], 1, 0, 2)],
)
def test_only_failures_that_are_not_the_users_are_tried_again(tmp_path, codes, retries, wanted, starts):
    log = tmp_path / "log"
    code = (
        f"import os; n = os.path.exists({str(log)!r}) and len(open({str(log)!r}).read()) or 0; "
        f"open({str(log)!r}, 'a').write('x'); raise SystemExit({codes}[n])"
    )
    assert retry_entrypoint.attempt([sys.executable, "-c", code], retries, pause_s=0) == wanted
    assert len(log.read_text()) == starts


def test_the_token_is_found_where_ray_finds_it(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_token() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("home\n")
    assert read_token() == "home"
    (tmp_path / "file").write_text("file")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file"))
    assert read_token() == "file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "variable")
    assert read_token() == "variable"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(ClusterError, match="no such file"):
        read_token()


def test_exit_codes_and_addresses():
    def info(status, code=None):
        return types.SimpleNamespace(status=types.SimpleNamespace(value=status), driver_exit_code=code)

    assert [exit_code(info(s)) for s in ("PENDING", "RUNNING", "SUCCEEDED", "STOPPED")] == [0, 0, 0, 1]
    assert [exit_code(info("FAILED", c)) for c in (2, 3, 4, 1, 137, None)] == [2, 3, 4, 1, 1, 1]
    assert is_loopback("http://127.0.0.1:8265")
    assert is_loopback("http://localhost:8265")
    assert not is_loopback("http://127.0.0.1.evil.example:8265")


def test_names_fit_kubernetes():
    for good in ("a", "pipeline-2", "a" * 40):
        JobConfig(name=good)
    for bad in ("", "A", "-a", "a-", "a_b", "a" * 41, "1a"):
        with pytest.raises(ValueError):
            JobConfig(name=bad)
