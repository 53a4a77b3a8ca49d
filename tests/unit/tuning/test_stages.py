"""The stages that a search makes before its trials: what they read, and nothing that reads what trials make."""

import pytest

from phaseb.config.load import load_config
from phaseb.pipeline.stage import needed_for
from phaseb.stages.registry import build_graph
from phaseb.tuning.policy import stages_before_policies

MADE_BY_TRIALS = {"baselines", "policy", "closed_loop/baselines", "closed_loop", "evaluate"}


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["arms.names=[real_only]"],
        ["arms.names=[real_only,fixed_weight]"],
        ["arms.names=[real_only,trust_weighted]"],
    ],
    ids=["default", "no rollouts", "stored", "branched"],
)
def test_a_search_of_policies_makes_what_they_read(settings):
    config = load_config(None, settings)
    stages = {stage.name: stage for stage in stages_before_policies(config)}
    assert all(set(stage.inputs) <= stages.keys() for stage in stages.values()), "no input is left to nobody"
    assert not stages.keys() & MADE_BY_TRIALS
    assert not stages.keys() & {"judge", "bricks"}
    reads = next(stage.inputs for stage in build_graph(config) if stage.name == "policy")
    assert set(reads) - stages.keys() == {"baselines"}


def test_what_a_stage_needs_is_in_the_graph_s_order_and_no_more():
    graph = build_graph(load_config(None, []))
    assert [stage.name for stage in needed_for(graph, ["encode"])] == ["collect", "encode"]
    assert needed_for(graph, []) == ()
    assert needed_for(graph, [stage.name for stage in graph]) == graph
