"""Workflows, templates, citation, hooks, lock and changelog, each checked by the schema or the tool that reads it."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HOOKS = ROOT / ".pre-commit-config.yaml"
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.github-issue-forms": [ROOT / ".github/ISSUE_TEMPLATE" / f"{name}.yml" for name in ("bug", "feature")],
    "vendor.github-issue-config": [ROOT / ".github/ISSUE_TEMPLATE/config.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}


def check_schema(schema: str, *files: Path) -> "subprocess.CompletedProcess[str]":
    """Validate YAML files against a schema that check-jsonschema ships; no network is used."""
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--default-filetype", "yaml", "--builtin-schema", schema]
    return subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)


def workflow(name: str) -> dict:
    return yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())


def steps() -> list[dict]:
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values()]
    return [step for job in jobs for step in job.get("steps", [])]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_pass_the_schema_of_their_reader(schema, tmp_path):
    done = check_schema(schema, *SCHEMAS[schema])
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(SCHEMAS[schema][0].read_text() + "misspelt_key: 1\n")
    assert check_schema(schema, wrong).returncode == 1


def test_workflows_run_targets_that_exist():
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {name for step in steps() for name in re.findall(r"\bmake ([a-z0-9-]+)", step.get("run", ""))}
    assert used == {"test", "test-nightly"}
    assert used <= targets


def test_the_matrix_is_the_supported_pythons():
    matrix = workflow("test")["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    supported = SpecifierSet(PROJECT["requires-python"])
    assert matrix == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in supported]


def test_workflows_have_the_least_rights_and_pinned_actions():
    for path in WORKFLOWS:
        document = yaml.safe_load(path.read_text())
        assert document["permissions"] == {"contents": "read"}, path.name
        granted = {name: job["permissions"] for name, job in document["jobs"].items() if "permissions" in job}
        assert granted == ({"publish": {"id-token": "write"}} if path.stem == "release" else {})
    for step in steps():
        if "uses" in step:
            assert re.search(r"@(v\d+|release/v\d+|[0-9a-f]{40})$", step["uses"]), step["uses"]
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_nothing_is_published_before_it_is_tested_and_built():
    jobs = workflow("release")["jobs"]
    assert jobs["publish"]["needs"] == "build"
    assert jobs["build"]["needs"] == "test"
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"
    assert "workflow_call" in workflow("test")[True]  # YAML 1.1 reads the key `on` as true


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_lock_has_one_allowed_version_of_every_requirement():
    """`make lock` remakes it. Plain `name==version` lines: no hosts, paths or builds of one machine."""
    lines = (ROOT / "requirements-dev.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)] == []
    names = [canonicalize_name(line.partition("==")[0]) for line in pins]
    assert sorted(set(names)) == sorted(names)
    locked = dict(zip(names, (line.partition("==")[2] for line in pins), strict=True))
    for wanted in map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]):
        name = canonicalize_name(wanted.name)
        assert name in locked, f"{wanted}: run `make lock`"
        assert wanted.specifier.contains(locked[name]), f"{wanted}: run `make lock`"


def test_hooks_are_valid_and_run_tools_of_the_environment(tmp_path):
    pytest.importorskip("pre_commit")
    command = [sys.executable, "-m", "pre_commit", "validate-config"]
    assert subprocess.run([*command, str(HOOKS)], check=False).returncode == 0
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(HOOKS.read_text().replace("entry: ", "entri: "))
    assert subprocess.run([*command, str(wrong)], capture_output=True, check=False).returncode != 0
    dev = {Requirement(line).name for line in PROJECT["optional-dependencies"]["dev"]}
    tools = {"ruff": "ruff", "mypy": "mypy", "lint-imports": "import-linter", "detect-secrets-hook": "detect-secrets"}
    repositories = {entry["repo"]: entry for entry in yaml.safe_load(HOOKS.read_text())["repos"]}
    programs = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repositories["local"]["hooks"]}
    assert programs == set(tools)
    assert {tools[name] for name in programs} <= dev


def test_the_changelog_has_the_sections_of_keep_a_changelog():
    sections = re.findall(r"^### (.*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    order = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    assert set(sections) <= set(order)


def test_the_table_of_contents_names_pages_that_exist():
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs/pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    named = {name for names in pages.CONTENTS.values() for name in names}
    assert {name for name in named - {pages.GENERATED} if not (ROOT / "docs" / f"{name}.md").exists()} == set()
