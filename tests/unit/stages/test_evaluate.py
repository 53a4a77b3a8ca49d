from phaseb.errors import DataError, PhasebError
from phaseb.runtime.storage import Store
from phaseb.stages.evaluate import keep_rows

RUNS = [("real_only", 0), ("real_only", 1), ("trust_weighted", 0), ("trust_weighted", 1)]


def test_what_one_policy_cannot_have_the_others_keep_and_nothing_is_measured_twice(tmp_path):
    store, asked = Store.at(tmp_path), []

    def rows_of(run):
        asked.append(run)
        if run == ("real_only", 1) and asked.count(run) == 1:
            raise DataError("environment Cell failed at step 3: RuntimeError: stuck")
        return [{"seed": 7.0, "return": float(run[1])}]

    first = {(arm, seed): rows for arm, seed, rows in keep_rows(store, RUNS, rows_of)}
    error = first.pop(("real_only", 1))
    assert isinstance(error, DataError)
    assert str(error) == "real_only, seed 1: environment Cell failed at step 3: RuntimeError: stuck"
    assert len(first) == 3
    again = {(arm, seed): rows for arm, seed, rows in keep_rows(store, RUNS, rows_of)}
    assert asked == [*RUNS, ("real_only", 1)]
    assert not any(isinstance(rows, PhasebError) for rows in again.values())
    assert {run: again[run] for run in first} == first, "what is kept is what was measured"
