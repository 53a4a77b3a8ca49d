"""Settings that change on the way: the same as going on by hand, the same after a kill, refused where they cannot."""

import pytest
import torch

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.gru_ensemble.learner import make_learner
from phaseb.dynamics.gru_ensemble.scheduled_learner import ScheduledLearner
from phaseb.runtime.checkpoint import flatten, unflatten

CHANGES = [
    {"at": 0.4, "set": {"learning_rate": 0.02, "teacher_forcing.start": 0.5}},
    {"at": 0.7, "set": {"weights.var": 0.5, "recon.rollout": 1.0}},
]


@pytest.fixture
def short(config):
    tree = config.model_dump() | {"num_steps": 10, "changes": CHANGES}
    return GRUConfig.model_validate(tree)


def weights(learner):
    return torch.cat([p.flatten() for p in learner.bundle().model.parameters()])


def test_stages_lay_changes_over_each_other(short):
    (a, first), (b, second), (c, third) = short.stages()
    assert (a, b, c) == (0.0, 0.4, 0.7)
    assert first.changes == second.changes == third.changes == ()
    assert (first.learning_rate, second.learning_rate, third.learning_rate) == (5e-3, 0.02, 0.02)
    assert (second.weights.var, third.weights.var, third.teacher_forcing.start) == (0.0, 0.5, 0.5)


def test_a_change_is_going_on_by_hand_under_other_settings(short, world, context):
    whole = ScheduledLearner(short, lambda stage: make_learner(stage, world, context))
    for step in range(10):
        whole.step(step)
    by_hand = None
    for stage, steps in zip([s for _, s in short.stages()], [range(4), range(4, 7), range(7, 10)], strict=True):
        state = by_hand.state_dict() if by_hand else None
        by_hand = make_learner(stage, world, context)
        if state:
            by_hand.load_state_dict(state)
        for step in steps:
            by_hand.step(step)
    assert torch.equal(weights(whole), weights(by_hand))


@pytest.mark.parametrize("at", [2, 4, 6, 9])
def test_resuming_across_a_change_gives_the_same_bits(short, world, context, at):
    def make():
        return ScheduledLearner(short, lambda stage: make_learner(stage, world, context))

    whole, first, second = make(), make(), make()
    for step in range(10):
        whole.step(step)
    for step in range(at):
        first.step(step)
    second.load_state_dict(unflatten(*flatten(first.state_dict())))
    for step in range(at, 10):
        second.step(step)
    assert torch.equal(weights(whole), weights(second))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{"at": 0.5, "set": {"hidden_size": 8}}], "hidden_size cannot change while a model trains"),
        ([{"at": 0.5, "set": {"learning_rat": 8}}], "learning_rat cannot change"),
        ([{"at": 0.5, "set": {"weights.trust": -1}}], "greater than or equal to 0"),
        ([{"at": 0.5, "set": {"weights.trusty": 1}}], "Extra inputs"),
        ([{"at": 0.5, "set": {}}, {"at": 0.5, "set": {}}], "must come after 0.5"),
        ([{"at": 0.0, "set": {}}], "greater than 0"),
    ],
)
def test_changes_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GRUConfig.model_validate({"changes": changes})
