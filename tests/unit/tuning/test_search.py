"""What a resumed search knows is what it knew: points, failures, rungs and budgets, all out of the records."""

import math
from types import SimpleNamespace

import optuna
import pytest
from ray.tune.schedulers import TrialScheduler

from phaseb.config.tuning import StudyConfig
from phaseb.runtime.storage import Store
from phaseb.tuning.early_stopping import HOPELESS, Budget, make_scheduler
from phaseb.tuning.search import ListSearch, OptunaPoints, importances, new_database
from phaseb.tuning.trial import SEED
from phaseb.tuning.trial_store import TrialRecord, trial_key

LR, KIND = "dynamics.gru.learning_rate", "dynamics.gru.teacher_forcing.schedule"
START = "dynamics.gru.teacher_forcing.start"


def study(**parts: object) -> StudyConfig:
    space = {
        LR: {"loguniform": [1e-4, 1.0]},
        KIND: {"choice": ["constant", "linear"]},
        START: {"uniform": [0, 1], "when": {KIND: ["linear"]}},
    }
    return StudyConfig.model_validate({"metrics": {"name": "loss"}, "space": space, **parts})


def record(i: int, lr: float, loss: float | None, kind: str = "constant", state: str = "done") -> TrialRecord:
    point = {LR: lr, KIND: kind, **({START: 0.5} if kind == "linear" else {})}
    rows = [{"steps": 27, "loss": loss}] if loss is not None else []
    return TrialRecord(str(i), point, 0, number=i, state=state, rows=rows)


def tried(search: OptunaPoints, name: str) -> float:
    """A point asked for and told."""
    lr = float(search.suggest(name)[LR])
    search.on_trial_complete(name, {"loss": abs(-2 - math.log10(lr)), "steps": 27})
    return lr


def test_points_asked_for_come_first_then_the_sampler(tmp_path):
    first = {LR: 0.5, KIND: "linear", START: 0.25}
    search = OptunaPoints(study(), 7, [], [], [first], new_database(Store.at(tmp_path)))
    assert search.suggest("a") == {**first, SEED: 7}
    second = search.suggest("b")
    assert second[LR] != 0.5
    search.on_trial_complete("a", {"loss": 1.0, "steps": 3})
    search.on_trial_complete("b", {"failed": "diverged", "steps": 0})
    told = optuna.load_study(study_name="phaseb", storage=f"sqlite:///{tmp_path}/study.db")
    assert [t.state.name for t in told.trials] == ["COMPLETE", "PRUNED"]
    assert told.trials[1].user_attrs == {"failed": "diverged"}
    assert told.best_value == 1.0


def fails_when_linear(search: OptunaPoints, num: int) -> list[bool]:
    """Points asked for and told, where one choice always diverges; which of them did."""
    failed = []
    for i in range(num):
        point = search.suggest(str(i))
        failed.append(point[KIND] == "linear")
        good = {"loss": abs(-2 - math.log10(point[LR])), "steps": 27}
        search.on_trial_complete(str(i), {"failed": "diverged", "steps": 3} if failed[-1] else good)
    return failed


def test_a_choice_that_always_fails_is_left_alone():
    failed = fails_when_linear(OptunaPoints(study(search={"num_startup": 10}), 0, [], [], [], None), 50)
    assert sum(failed[:10]) >= 3
    assert sum(failed[20:]) <= 8  # of 30: now and then it looks again
    past = [
        record(
            i,
            10 ** (-4 + i / 5),
            None if i % 2 else 1.0 + i,
            "linear" if i % 2 else "constant",
            "failed" if i % 2 else "done",
        )
        for i in range(20)
    ]
    assert sum(fails_when_linear(OptunaPoints(study(), 0, past, [], [], None), 20)) <= 5  # and remembers after a resume


def test_while_all_fail_points_are_drawn_everywhere():
    search = OptunaPoints(study(search={"num_startup": 2}), 0, [], [], [], None)
    drawn = []
    for i in range(30):
        drawn.append(search.suggest(str(i))[LR])
        search.on_trial_complete(str(i), {"failed": "diverged", "steps": 0})
    assert min(drawn) < 1e-3 < 1e-1 < max(drawn)
    assert len({round(math.log10(lr)) for lr in drawn}) == 5


def test_no_point_is_tried_twice_and_a_space_searched_whole_ends():
    space = {KIND: {"choice": ["constant", "linear"]}, "dynamics.gru.num_members": {"integer": [1, 3]}}
    one = StudyConfig.model_validate({"metrics": {"name": "loss"}, "space": space, "search": {"num_startup": 2}})
    tried = {KIND: "linear", "dynamics.gru.num_members": 1}
    past = [TrialRecord(trial_key(tried, 0), tried, 0, state="done", rows=[{"steps": 1, "loss": 1.0}])]
    search, points = OptunaPoints(one, 0, past, [], [], None), []
    while (point := search.suggest(str(len(points)))) != OptunaPoints.FINISHED:
        points.append(tuple(point.values()))
        search.on_trial_complete(str(len(points) - 1), {"loss": float(len(points)), "steps": 1})
    assert len(points) == len(set(points)) == 5


def test_the_sampler_goes_on_from_the_records_of_trials_that_ended():
    past = [record(i, 10 ** (-4 + 4 * i / 29), abs(-2 - (-4 + 4 * i / 29))) for i in range(30)]
    past.append(record(30, 0.5, None, "linear", "failed"))
    search = OptunaPoints(study(search={"num_startup": 10}), 0, past, [], [], None)
    blind = OptunaPoints(study(search={"num_startup": 10}), 0, [], [], [], None)
    near = {}
    for name, one in (("knows", search), ("blind", blind)):
        asked = [tried(one, str(i)) for i in range(9)]
        near[name] = sum(1e-3 < lr < 1e-1 for lr in asked)  # the best was 1e-2
    assert near["knows"] >= 7 > near["blind"]


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_killed_anywhere_a_search_draws_what_it_would_have_drawn(algorithm):
    one = study(search={"algorithm": algorithm, "num_startup": 4})

    def search(past: list[TrialRecord], again: list[TrialRecord], num: int) -> list[TrialRecord]:
        """One trial after the other up to `num` in all; the last is left in progress."""
        points, ended = OptunaPoints(one, 0, past, [r.point for r in again], [], None), list(past)
        while len(ended) < num:
            point = {n: v for n, v in points.suggest("t").items() if n != SEED}
            loss = abs(-2 - math.log10(point[LR]))
            ended.append(TrialRecord(trial_key(point, 0), point, 0, state="done", rows=[{"steps": 27, "loss": loss}]))
            if len(ended) < num:
                points.on_trial_complete("t", {"loss": loss, "steps": 27})
        return ended

    whole = search([], [], 15)
    for killed_at in (1, 3, 8):
        before = search([], [], killed_at)
        assert search(before[:-1], before[-1:], 15) == whole
        assert search(before, [], 15) == whole


def test_nsga2_goes_on_from_the_generations_of_before():
    metrics = [{"name": "loss"}, {"name": "other"}]
    past = []
    for i in range(30):  # three generations, ever nearer to 1e-2
        lr = 10 ** (-2 + (-1) ** i * (2 - i / 15))
        past.append(record(i, lr, abs(-2 - math.log10(lr))))
        past[-1].rows[-1]["other"] = past[-1].last["loss"]
        past[-1].key = trial_key(past[-1].point, 0)
    last, inherited = {round(math.log10(r.point[LR]), 6) for r in past[20:]}, []
    for seed in range(16):
        one = study(
            metrics=metrics, search={"algorithm": "nsga2", "num_startup": 10, "seed": seed}, scheduler={"kind": "none"}
        )
        lr = OptunaPoints(one, 0, past, [], [], None).suggest("a")[LR]
        inherited.append(round(math.log10(lr), 6) in last)
    assert sum(inherited) >= 4  # the others were mutated


def test_a_new_database_replaces_the_old(tmp_path):
    for _ in range(2):
        OptunaPoints(study(), 0, [record(0, 0.1, 1.0)], [], [], new_database(Store.at(tmp_path)))
    assert len(optuna.load_study(study_name="phaseb", storage=f"sqlite:///{tmp_path}/study.db").trials) == 1


def test_a_list_ends():
    search = ListSearch([{"a": 1}, {"a": 2}])
    assert [search.suggest(str(i)) for i in range(3)] == [{"a": 1}, {"a": 2}, ListSearch.FINISHED]


def test_halving_after_a_resume_decides_as_if_it_had_not_been_killed():
    losses = {"a": [5, 4, 3], "b": [6, 5, 4], "c": [1, 1, 1], "d": [9, 9, 9], "e": [2, 2, 2]}
    steps = [3, 9, 27]
    one = study(reports=9, scheduler={"kind": "asha", "grace": 0.1, "reduction": 3})

    def decide(scheduler: TrialScheduler, name: str) -> list[str]:
        trial = SimpleNamespace(trial_id=name)
        scheduler.on_trial_add(None, trial)
        told = []
        for at, loss in zip(steps, losses[name], strict=True):
            told.append(scheduler.on_trial_result(None, trial, {"steps": at, "loss": loss}))
            if told[-1] == TrialScheduler.STOP:
                break
        return told

    whole = make_scheduler(one, 27, [])
    wanted = {name: decide(whole, name) for name in "abcde"}
    reached = {name: zip(steps, losses[name], wanted[name], strict=False) for name in "abc"}
    past = [TrialRecord(n, {}, 0, rows=[{"steps": s, "loss": v} for s, v, _ in rows]) for n, rows in reached.items()]
    resumed = make_scheduler(one, 27, past)
    assert {name: decide(resumed, name) for name in "de"} == {name: wanted[name] for name in "de"}
    assert wanted["d"] == [TrialScheduler.STOP]
    assert decide(make_scheduler(one, 27, []), "d") != wanted["d"]  # without the past it would have let it pass


@pytest.mark.parametrize(
    ("budget", "reason"),
    [({"patience": 3}, "patience"), ({"cpu_hours": 0.001}, "cpu_hours"), ({"time_s": 1e-9}, "time_s"), ({}, "")],
)
def test_budgets(budget, reason):
    ends = Budget(study(budget={"trials": 100, **budget}), [])
    for i in range(4):
        ends(f"t{i}", {"time_total_s": 2.0})
        ends.ended({"loss": float(i)})
    assert ends.stop_all() == bool(reason)
    assert reason in ends.reason


def test_a_study_whose_first_trials_all_fail_is_ended():
    ends = Budget(study(), [])
    for _ in range(HOPELESS - 1):
        ends.ended({})
    assert not ends.stop_all()
    ends.ended({})
    assert ends.stop_all()
    assert "all failed" in ends.reason
    hopeful = Budget(study(), [record(0, 0.1, 1.0)])
    for _ in range(HOPELESS):
        hopeful.ended({})
    assert not hopeful.stop_all()


def test_importance_finds_the_setting_that_matters():
    past = [record(i, 10 ** (-4 + 4 * i / 39), float(i), "linear" if i % 2 else "constant") for i in range(40)]
    found = importances(study(), past)
    assert found[LR] > 0.8
    assert START not in found  # it does not exist everywhere
    assert importances(study(), past[:3]) == {}
