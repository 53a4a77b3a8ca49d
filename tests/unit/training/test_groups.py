"""Groups of runs: their metrics and progress are those of one training."""

from phaseb.config.run import ResourcesConfig
from phaseb.runtime.storage import Store
from phaseb.training.fit import fit_groups, merge_rows


def test_the_rows_of_groups_are_those_of_one_training():
    one = [{"step": 2.0, "seconds": 1.0, "a": 1.0}, {"step": 4.0, "seconds": 2.0, "a": 2.0}]
    other = [{"step": 2.0, "seconds": 0.5, "b": 3.0}, {"step": 4.0, "seconds": 1.5, "b": 4.0}]
    assert merge_rows([one, other]) == [
        {"step": 2.0, "seconds": 1.5, "a": 1.0, "b": 3.0},
        {"step": 4.0, "seconds": 3.5, "a": 2.0, "b": 4.0},
    ]
    assert merge_rows([one]) == one
    assert merge_rows([]) == []


def test_in_one_process_groups_train_in_turn_and_their_steps_add_up(tmp_path):
    seen, order = [], []

    def train(group, report):
        for step in (1.0, 2.0):
            report({"step": step, "num_steps": 2.0, "group": float(group)})
        order.append(group)
        return group * 10

    stores = [Store.at(tmp_path / str(group)) for group in range(2)]
    assert fit_groups(train, stores, ResourcesConfig(num_tasks=1), seen.append) == [0, 10]
    assert order == [0, 1]
    assert [metrics["step"] for metrics in seen] == [0.0, 1.0, 1.0, 2.0]
    assert all(metrics["num_steps"] == 2.0 for metrics in seen)
