"""What is begun beside a training: in one process, one after another, and only where a processor is left."""

import os

import pytest

from phaseb.config.load import load_config
from phaseb.errors import DataError
from phaseb.pipeline.ahead import Ahead, HeadStart, made

pytestmark = pytest.mark.nightly


def process(config, store):
    return os.getpid(), str(store.root), config.run.seed


def broken(config, store):
    raise DataError("not that way")


@pytest.fixture
def config(tmp_path):
    return load_config(None, [f"run.dir={tmp_path}", "run.seed=7", "resources.cpus_per_task=0.5"])


def test_what_was_begun_is_made_in_one_other_process(config, tmp_path):
    ahead = Ahead()
    ahead.begin([HeadStart("a", "policy", process), HeadStart("b", "policy", process)], config)
    first, second = ahead.result("a"), ahead.result("b")
    assert first == second == (first[0], str(tmp_path), 7)
    assert first[0] != os.getpid()
    assert made(ahead.reference("a")) == first
    assert ahead.result("c") is None


def test_what_fails_is_left_to_its_stage_and_holds_nothing_up(config):
    ahead = Ahead()
    ahead.begin([HeadStart("a", "policy", broken), HeadStart("b", "policy", process)], config)
    assert ahead.result("a") is None
    assert ahead.result("b") is not None


@pytest.mark.parametrize("change", [{"num_workers": 2}, {"num_tasks": 1}, {"cpus_per_worker": 1.6}])
def test_nothing_is_begun_where_trainings_take_all(config, change):
    config = config.model_copy(update={"resources": config.resources.model_copy(update=change)})
    ahead = Ahead()
    ahead.begin([HeadStart("a", "policy", process)], config)
    assert ahead.reference("a") is None


def test_nothing_is_begun_that_no_stage_will_ask_for(config):
    ahead = Ahead()
    ahead.begin([HeadStart("a", "policy", process, lambda asked: asked.run.seed != 7)], config)
    assert ahead.reference("a") is None
