"""A population's memory is its records: turns, replacements and schedules are the same however often it is killed."""

import json

import pytest
from ramp import make
from ray.tune.search import Searcher

from phaseb.config.root import Config
from phaseb.config.tuning import StudyConfig
from phaseb.errors import DivergenceError
from phaseb.runtime.storage import Store
from phaseb.tuning.population import Population
from phaseb.tuning.space import apply_point
from phaseb.tuning.trial import FROM, SEED, UNTIL, point_of
from phaseb.tuning.trial_store import TrialStore, best_trials, trial_key

STEPS, LR, VAR, PATH = 60, "dynamics.gru.learning_rate", "dynamics.gru.weights.var", "dynamics.gru.changes"
BASE = apply_point(Config(), {"dynamics.gru.num_steps": STEPS})


def study(**parts: object) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "metrics": {"name": "error"},
            "space": {LR: {"loguniform": [1e-4, 1.0]}},
            "search": {"algorithm": "random"},
            "scheduler": {"kind": "pbt"},
            "budget": {"trials": 8},
            "reports": 6,
            **parts,
        }
    )


class Session:
    """A driver's life: opens the records that are there, trains what is proposed, is killed after some stretches."""

    def __init__(self, folder: Store, one: StudyConfig) -> None:
        self.records, self.ended = TrialStore(folder), []
        self.population = Population(one, BASE, PATH, STEPS, self.records, lambda r: self.ended.append(r.key))
        self.origins: list[tuple[str, list]] = []

    def live(self, stretches: int = 10_000, at_once: int = 3) -> int:
        """Train at most so many stretches, a few at a time; returns how many ended."""
        running, ended = {}, 0
        for name in map(str, range(10_000)):
            settings = None
            if len(running) < at_once:
                settings = self.population.suggest(name)
            if isinstance(settings, dict):
                running[name] = settings
                continue
            if not running:
                assert settings == Searcher.FINISHED
                return ended
            if ended == stretches:
                return ended  # killed, with stretches in progress
            first = next(iter(running))
            self._train(running.pop(first))
            early = None if at_once == 1 else self.population.suggest(f"{name}-early")  # before the end is told
            if isinstance(early, dict):
                running[f"{name}-early"] = early
            self.population.on_trial_complete(first)
            ended += 1
        raise AssertionError("it never ends")

    def _train(self, settings: dict) -> None:
        record = self.records.get(trial_key(point_of(settings), settings[SEED]))
        until = settings[UNTIL][1]
        self.origins.append((record.key, settings[FROM]))
        learner = make(apply_point(BASE, point_of(settings)).dynamics.gru)
        try:
            for step in range(until):
                learner.step(step)
        except DivergenceError as error:
            record.state, record.reason = "failed", str(error)
        else:
            record.rows.append({"steps": float(until), "error": float(learner.bundle().error)})
            record.state = "done" if until == STEPS else "running"
        self.records.put(record)


def told(records: TrialStore) -> list[tuple]:
    return [(r.key, r.state, r.steps, r.parent, r.replaces, json.dumps(r.point)) for r in records.all()]


def test_a_schedule_is_found_that_beats_every_fixed_setting(tmp_path):
    session = Session(Store.at(tmp_path), study(reports=12))
    stretches = session.live()
    assert stretches == 8 * 12  # the population's size never changes
    best = best_trials(session.records.phase("search"), study().metrics[0])[0]
    fixed = min(_error(apply_point(BASE, {LR: 10 ** (-4 + i / 10)})) for i in range(41))
    assert best.last["error"] < 0.7 * fixed
    assert best.point[PATH]
    assert _error(apply_point(BASE, best.point)) == best.last["error"]  # its config trains to the very same
    assert [r.state for r in session.records.all()].count("done") == 8
    assert sorted(session.ended) == sorted(r.key for r in session.records.all() if r.state == "stopped")
    for key, origin in session.origins:  # weights are a member's own, or those of the parent at the turn it began
        record = session.records.get(key)
        assert not origin or origin[0] == key or "@".join(map(str, origin)) == record.parent


def test_killed_after_every_stretch_it_comes_to_the_same_end(tmp_path):
    whole = Session(Store.at(tmp_path / "whole"), study())
    whole.live(at_once=1)
    stretches = 0
    while ended := Session(Store.at(tmp_path / "killed"), study()).live(1, at_once=1):
        stretches += ended
    assert stretches == 48  # nothing was trained twice
    assert told(TrialStore(Store.at(tmp_path / "killed"))) == told(whole.records)


def test_a_kill_within_a_turn_leaves_no_member_twice(tmp_path):
    session = Session(Store.at(tmp_path), study())
    session.live(8, at_once=1)
    replaced = session.records.get(session.ended[0])
    replaced.state = "running"  # as if the kill had come after its follower was written, before it was stopped
    session.records.put(replaced)
    again = Session(Store.at(tmp_path), study())
    assert again.ended == [replaced.key]
    again.live()
    assert [r.state for r in again.records.all()].count("done") == 8


def test_members_that_fail_are_followed_by_copies_of_the_best(tmp_path):
    space = {LR: {"loguniform": [1e-4, 1.0]}, VAR: {"choice": [0.0, 10.0]}}
    session = Session(Store.at(tmp_path), study(space=space))
    session.live()
    states = [r.state for r in session.records.all()]
    assert states.count("failed") >= 2
    assert states.count("done") + states.count("running") <= 8
    assert states.count("done") >= 4
    assert all("ramp diverged" in r.reason for r in session.records.all() if r.state == "failed")


def test_a_population_of_which_nothing_is_left_ends(tmp_path):
    session = Session(
        Store.at(tmp_path),
        study(space={VAR: {"choice": [9.0, 10.0]}}, search={"algorithm": "random", "try_defaults": False}),
    )
    session.live()
    assert {r.state for r in session.records.all()} == {"failed"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"search": {"algorithm": "tpe"}}, "set search.algorithm to random"),
        ({"budget": {"trials": 3}}, "budget.trials of 4 or more"),
        ({"metrics": [{"name": "a"}, {"name": "b"}]}, "no single order"),
    ],
)
def test_a_population_that_cannot_be_is_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        study(**parts)


def _error(config: Config) -> float:
    learner = make(config.dynamics.gru)
    for step in range(STEPS):
        learner.step(step)
    return float(learner.bundle().error)
