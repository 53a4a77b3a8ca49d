"""Trials' records: kept on disk, ranked fairly, and the Pareto front is the one by definition."""

from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.config.tuning import Metric
from phaseb.runtime.storage import Store
from phaseb.tuning.trial_store import TrialRecord, TrialStore, best_trials, pareto_front, trial_key


def record(key: str, state: str = "done", steps: int = 10, **metrics: float) -> TrialRecord:
    return TrialRecord(key, {"a": key}, 0, state=state, rows=[{"steps": steps, **metrics}])


def test_records_survive_the_driver(tmp_path):
    records = TrialStore(Store.at(tmp_path))
    records.put(record("one", loss=1.0))
    records.put(record("two", "running", loss=float("nan")))
    again = TrialStore(Store.at(tmp_path))
    assert [(r.key, r.state, r.number) for r in again.phase("search")] == [("one", "done", 0), ("two", "running", 1)]
    assert again.get("one").last["loss"] == 1.0
    assert again.get("two").last["loss"] is None  # strict JSON has no NaN
    assert again.phase("confirm") == []


def test_only_whole_trials_are_compared():
    early_luck = record("luck", "stopped", steps=3, loss=0.1)
    failed = [record("failed", "failed", loss=0.0), record("nan", loss=None)]
    whole = [record("b", loss=0.5), record("a", loss=0.4), *failed]
    assert [r.key for r in best_trials([early_luck, *whole], Metric(name="loss"))] == ["a", "b"]
    assert [r.key for r in best_trials(whole, Metric(name="loss", mode="max"))] == ["b", "a"]
    assert [r.key for r in best_trials([early_luck], Metric(name="loss"))] == ["luck"]
    assert best_trials([], Metric(name="loss")) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(pairs):
    records = [record(str(i), a=float(a), b=float(b)) for i, (a, b) in enumerate(pairs)]
    front = pareto_front(records, [Metric(name="a"), Metric(name="b", mode="max")])
    wanted = {
        str(i) for i, (a, b) in enumerate(pairs) if not any(c <= a and d >= b and (c, d) != (a, b) for c, d in pairs)
    }
    assert {r.key for r in front} == wanted


def test_a_point_has_one_name_whatever_its_order():
    assert trial_key({"a": 1, "b": 2.0}, 3) == trial_key({"b": 2.0, "a": 1}, 3)
    assert trial_key({"a": 1}, 3) != trial_key({"a": 1}, 4) != trial_key({"a": 2}, 4)
