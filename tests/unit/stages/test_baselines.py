"""Arms that need no generator are trained while generators are fitted, and their results join those of the others."""

from phaseb.config.load import load_config
from phaseb.runtime.storage import Store
from phaseb.stages.policy_results import METRICS, REPLAY, join_results, write_results
from phaseb.stages.registry import build_graph

STORED = ["arms.names=[real_only,fixed_weight,gated]", "arms.gated.generator=gru", "arms.gated.rollouts=stored"]


def books(name: str, waited: float) -> dict:
    return {
        "streams": {name: {"sampled_real": 3}},
        "insert_s": 1.0,
        "wait_fraction": waited,
        "queue_depth": 0.0,
        "sampled_per_s": 10.0,
    }


def test_they_wait_for_no_generator_and_policies_wait_for_them():
    stages = {stage.name: stage for stage in build_graph(load_config(None, []))}
    assert stages["baselines"].inputs == ("encode",)
    assert "baselines" in stages["policy"].inputs
    assert stages["baselines"].command == "policy"


def test_a_placebo_waits_where_it_draws_as_much_as_the_gate_lets_its_arm_draw():
    arms = load_config(None, STORED).arms
    assert "placebo_fixed_weight" in arms.baselines
    assert {arm.name for arm in arms.trained} - set(arms.baselines) == {"fixed_weight", "gated", "placebo_gated"}


def test_results_of_two_trainings_join(tmp_path):
    config, store = load_config(None, ["arms.names=[real_only]", "arms.num_seeds=2"]), Store.at(tmp_path)
    first, second = store.folder("baselines"), store.folder("policy")
    rows = [[{"step": float(step), "seconds": 2.0 * step, "policy/a": 1.0 * step} for step in (1, 5)]]
    write_results(config, first, rows, [books("a/0", 0.1)])
    more = [[{"step": float(step), "seconds": 1.0 * step, "policy/b": 3.0} for step in (1, 5)]]
    write_results(config, second, more, [books("b/0", 0.4)])
    for _ in range(2):  # a stage that is killed after it has written them joins them once more
        write_results(config, second, more, [books("b/0", 0.4)])
        told = join_results(config, [first, second], second)
        assert told["policy/a"] == 5.0
        assert told["policy/b"] == 3.0
        assert told["updates_per_s"] == config.policy.num_steps * 2 / 15.0
        joint = second.read_json(REPLAY)
        assert set(joint["streams"]) == {"a/0", "b/0"}
        assert joint["wait_fraction"] == 0.4
        assert joint["sampled_per_s"] == 20.0
    assert second.exists(METRICS)
