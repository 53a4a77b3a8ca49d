"""A run directory: what its digests see, and what it says where it is another version's or another config's."""

import json

import pytest

from phaseb.config.load import load_config
from phaseb.config.registry import JOBS
from phaseb.errors import ConfigError, DataError
from phaseb.pipeline.run_directory import FORMAT, RunDirectory, folder_digest, section_digests
from phaseb.pipeline.stage import Stage, StageContext
from phaseb.runtime.storage import Store
from phaseb.stages.registry import build_graph


def config(tmp_path, *words):
    return load_config(None, [f"run.dir={tmp_path}", *words])


def test_another_seed_is_another_run(tmp_path):
    one, other = section_digests(config(tmp_path)), section_digests(config(tmp_path, "run.seed=1"))
    assert {name for name in one if one[name] != other[name]} == {"run"}


def test_where_a_run_lies_is_no_part_of_it(tmp_path):
    assert section_digests(config(tmp_path)) == section_digests(config(tmp_path / "elsewhere"))


def test_a_folders_digest_sees_names_and_bytes_but_not_progress(tmp_path):
    store = Store.at(tmp_path)
    store.write_text("a", "out", "x")
    before = folder_digest(store, "out")
    store.write_text("anything", "out", "progress", "y")
    assert folder_digest(store, "out") == before
    store.write_text("b", "out", "x")
    changed = folder_digest(store, "out")
    store.move("out/x", "out/z")
    assert len({before, changed, folder_digest(store, "out")}) == 3


def test_a_run_of_format_1_is_refused_with_what_to_do(tmp_path, format_1):
    said = rf"^{tmp_path}\S* has run format 1, this version of phaseb reads format {FORMAT}; choose another run\.dir, "
    with pytest.raises(DataError, match=said + r"or use phaseb 0\.1\.0 for this one$"):
        RunDirectory.open(config(format_1))
    with pytest.raises(DataError, match=said):
        RunDirectory.existing(str(format_1)).lineage()
    assert json.loads((format_1 / "run.json").read_text())["format"] == 1


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": "x"}', '{"format": 2, "stages": {}}'])
def test_a_damaged_lineage_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match="damaged"):
        RunDirectory.open(config(tmp_path))


def test_a_change_is_refused_unless_it_is_asked_for(tmp_path):
    directory = RunDirectory.open(config(tmp_path))
    directory.record("collect", {"state": "started"})
    RunDirectory.open(config(tmp_path, "episodes.num_train=7"))  # nothing is done: any config will do
    directory.record("collect", {"state": "done"})
    with pytest.raises(ConfigError, match=r"another config \(different: episodes\).*run.on_change=redo"):
        RunDirectory.open(config(tmp_path, "episodes.num_train=8"))
    RunDirectory.open(config(tmp_path, "episodes.num_train=8", "run.on_change=redo"))


def work(context: StageContext) -> dict[str, int]:
    return {}


def test_the_key_of_a_stage_changes_with_what_it_depends_on_alone(tmp_path):
    second = Stage("second", ("policy",), ("first",), ("two",), work)
    done = {"first": {"state": "done", "outputs": {"one": "a"}}}

    def key(*words, lineage=done):
        return second.key(config(tmp_path, *words), lineage)

    same = {key(), key("episodes.num_train=7"), key("resources.num_tasks=5"), key("report.title=x")}
    changed = {key("policy.num_steps=7"), key("run.seed=1"), key(lineage={"first": done["first"] | {"outputs": {}}})}
    assert len(same) == 1
    assert len(changed) == 3
    assert not same & changed


def test_the_graph_is_sound():
    """Each stage stands after its inputs, writes what no other writes, and reads sections that exist."""
    stages = build_graph(load_config(None, []), attribution=True)
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    outputs = [output for stage in stages for output in stage.outputs]
    assert not [(a, b) for a in outputs for b in outputs if a != b and f"{b}/".startswith(f"{a}/")]
    assert len(set(outputs)) == len(outputs)
    for place, stage in enumerate(stages):
        assert set(stage.inputs) <= set(names[:place]), stage.name
        assert set(stage.sections) <= set(section_digests(load_config(None, []))), stage.name
        assert stage.command in JOBS


def test_every_generator_of_a_run_is_a_stage_with_settings_of_its_own(tmp_path):
    def keys(*words):
        found = config(tmp_path, *words)
        lineage = {"encode": {"outputs": {}}}
        return {s.name: s.key(found, lineage) for s in build_graph(found) if s.name.startswith("dynamics/")}

    before, after = keys(), keys("dynamics.gp.max_transitions=77")
    assert set(before) == {"dynamics/gru", "dynamics/gp"}
    assert [name for name in before if before[name] != after[name]] == ["dynamics/gp"]
    assert set(keys("arms.names=[real_only]")) == {"dynamics/gru"}
    assert set(keys("arms.trust_weighted.generator=gru")) == {"dynamics/gru"}


def test_of_a_stage_that_the_graph_has_no_more_nothing_is_left(tmp_path):
    directory = RunDirectory.open(config(tmp_path))
    for name in ("kept", "gone"):
        directory.store.write_text("x", "out", name)
        directory.record(name, {"state": "done", "outputs": {f"out/{name}": "a"}})
    directory.retire(["kept"])
    assert set(directory.lineage()["stages"]) == {"kept"}
    assert directory.store.names("out") == ["kept"]
