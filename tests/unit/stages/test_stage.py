"""A stage: skipped when up to date, done again when anything it depends on changed, never trusted half-done."""

import pytest

from phaseb.config.load import load_config
from phaseb.errors import ConfigError, DataError
from phaseb.pipeline.run_directory import RunDirectory, folder_digest, section_digests
from phaseb.pipeline.stage import Stage
from phaseb.runtime.storage import Store


def config(tmp_path, *words):
    return load_config(None, [f"run.dir={tmp_path}", *words])


class Kitchen:
    """Two stages that count how often they worked."""

    def __init__(self):
        self.calls = []
        self.fail = False
        self.first = Stage("first", ("episodes",), (), ("one",), self.work("first", "one"))
        self.second = Stage("second", ("policy",), ("first",), ("two/deep",), self.work("second", "two/deep"))

    def work(self, name, folder):
        def work(context):
            self.calls.append(name)
            context.store.write_text(f"{name} {context.config.episodes.num_train}", *folder.split("/"), "x")
            if self.fail:
                raise DataError("broke")
            return {"n": len(self.calls)}

        return work


@pytest.fixture
def kitchen():
    return Kitchen()


def test_what_is_up_to_date_is_skipped_with_its_old_metrics(kitchen, tmp_path):
    first = kitchen.first.run(config(tmp_path))
    again = kitchen.first.run(config(tmp_path))
    assert kitchen.calls == ["first"]
    assert again.metrics == first.metrics == {"n": 1}
    assert kitchen.first.is_done(config(tmp_path))


def test_a_change_redoes_the_stage_and_what_depends_on_its_output(kitchen, tmp_path):
    for stage in (kitchen.first, kitchen.second):
        stage.run(config(tmp_path))
    changed = config(tmp_path, "episodes.num_train=7", "run.on_change=redo")
    for stage in (kitchen.first, kitchen.second):
        stage.run(changed)
    assert kitchen.calls == ["first", "second"] * 2


def test_a_change_elsewhere_redoes_nothing(kitchen, tmp_path):
    kitchen.first.run(config(tmp_path))
    kitchen.first.run(config(tmp_path, "policy.num_steps=7", "run.on_change=redo"))
    kitchen.first.run(config(tmp_path, "policy.num_steps=7", "resources.num_workers=0", "report.title=x"))
    assert kitchen.calls == ["first"]


def test_a_change_is_refused_unless_it_is_asked_for(kitchen, tmp_path):
    kitchen.first.run(config(tmp_path))
    with pytest.raises(ConfigError, match=r"another config \(different: episodes\).*run.on_change=redo"):
        kitchen.first.run(config(tmp_path, "episodes.num_train=7"))
    assert kitchen.calls == ["first"]


def test_a_directory_without_results_takes_any_config(kitchen, tmp_path):
    kitchen.fail = True
    with pytest.raises(DataError, match="broke"):
        kitchen.first.run(config(tmp_path))
    kitchen.fail = False
    kitchen.first.run(config(tmp_path, "episodes.num_train=7"))
    assert (tmp_path / "one" / "x").read_text() == "first 7"


def test_a_stage_that_broke_is_not_done_and_nothing_builds_on_it(kitchen, tmp_path):
    kitchen.fail = True
    with pytest.raises(DataError, match="broke"):
        kitchen.first.run(config(tmp_path))
    assert RunDirectory.existing(str(tmp_path)).stage("first")["state"] == "started"
    assert not kitchen.first.is_done(config(tmp_path))
    with pytest.raises(DataError, match="second needs first first"):
        kitchen.second.run(config(tmp_path))


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
