from types import SimpleNamespace

import numpy as np
import pytest
import torch

from phaseb.config.policy import AugmentationConfig, ReplayConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.policy.actor import Actor
from phaseb.policy.augmentation import RecordedSegments, accepted_steps
from phaseb.policy.batches import RunSpec
from phaseb.policy.networks import ActorStack, make_mlp
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.runtime.checkpoint import flatten, load_checkpoint, save_checkpoint, unflatten
from phaseb.runtime.storage import Store
from phaseb.stages.augmentation import validated_rollouts

SPECS = (RunSpec("real_only", 0), RunSpec("trust_weighted", 0), RunSpec("trust_weighted", 1))
ANY_MODEL = {"min_skill": -1e9, "min_reward_skill": -1e9}
CONFIG = AugmentationConfig(starts=40, horizon=4, cut_quantile=0.9, penalty=2.0, **ANY_MODEL)


def real(steps=12, count=6):
    g = np.random.default_rng(0)
    f = np.float32
    return Trajectories(
        z=g.uniform(-1, 1, (count, steps + 1, 3)).astype(f),
        actions=g.uniform(-1, 1, (count, steps, 2)).astype(f),
        rewards=g.standard_normal((count, steps)).astype(f),
        terminals=np.zeros((count, steps), f),
        lengths=np.full(count, steps),
        ids=tuple(f"e{i}" for i in range(count)),
        splits=("train",) * count,
    )


def imagine(z0, actions, horizon, generator):
    """Adds the action to the first two dimensions; it is surer the smaller the action, and ends where z[2] > 0.9."""
    z, taken, doubt = [z0], [], []
    for t in range(horizon):
        action = actions(z[-1], t)
        z.append(z[-1] + torch.nn.functional.pad(action, (0, 1)))
        taken.append(action)
        doubt.append(action.norm(dim=1))
    z, taken = torch.stack(z, 1), torch.stack(taken, 1)
    ends = (z[:, 1:, 2] > 0.9).float()
    return SimpleNamespace(
        z=z, actions=taken, rewards=z[:, 1:, 0], terminals=ends, uncertainty=torch.stack(doubt, 1), reward_std=None
    )


class Sink:
    def __init__(self):
        self.held = {}

    def add(self, run, rollouts):
        self.held.setdefault(run, []).append(rollouts)

    def drop(self, run, rollouts):
        self.held[run] = [r for r in self.held[run] if r is not rollouts]


def actors():
    stack = ActorStack(make_mlp([3, 16, 4], [5, 6, 7], "actor", 1, False))
    return [Actor.of_run(stack, r) for r in range(3)]


def branched(sink, weigh=None, config=CONFIG):
    return validated_rollouts(config, imagine, real(), SPECS, ("trust_weighted",), weigh, sink, seed=3, model="abc")


def test_rollouts_end_before_what_nothing_is_known_of_and_enter_a_replay():

    def lost(z0, actions, horizon, generator):
        rolled = imagine(z0, actions, horizon, generator)
        rolled.uncertainty[::3, 2:] = torch.inf
        return rolled

    plan, sink = CONFIG.model_copy(update={"cut_quantile": 1.0}), Sink()
    validated_rollouts(plan, lost, real(), SPECS, ("trust_weighted",), None, sink, seed=3).generate(0, actors())
    (made,) = sink.held[1]
    assert len(made) == CONFIG.starts
    assert (made.lengths[::3] <= 2).all()
    assert np.isinf(made.uncertainty).any(), "beyond their ends"
    replay = LocalReplay(TransitionSchema(3, 2), ReplayConfig())
    replay.insert(made, "synthetic")
    assert replay.num_transitions == made.lengths.sum()


def test_rollouts_branch_from_real_states_under_each_run_s_own_policy():
    sink = Sink()
    branched(sink).generate(500, actors())
    assert sorted(sink.held) == [1, 2], "only the arm that asked for it"
    data = real()
    for rollouts in (sink.held[1][0], sink.held[2][0]):
        for i in range(0, len(rollouts), 7):
            episode = int(rollouts.lineage["start_episode"][i][1:])
            np.testing.assert_array_equal(rollouts.z[i, 0], data.z[episode, rollouts.start_step[i]])
        np.testing.assert_allclose(rollouts.z[:, 1, :2], rollouts.z[:, 0, :2] + rollouts.actions[:, 0], rtol=1e-5)
    assert not np.array_equal(sink.held[1][0].actions[:5], sink.held[2][0].actions[:5])
    assert len(set(sink.held[1][0].ids) | set(sink.held[2][0].ids)) == len(sink.held[1][0]) + len(sink.held[2][0])


def test_a_rollout_is_cut_where_the_model_does_not_know():
    uncertainty = np.array([[0.1, 0.9, 0.1], [0.1, 0.1, 0.1], [0.9, 0.1, 0.1], [0.1, 0.1, 0.9]])
    terminals = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(accepted_steps(uncertainty, terminals, np.full(3, 0.5)), [1, 2, 0, 2])


def test_rewards_pay_for_disagreement():
    sink = Sink()
    hook = branched(sink)
    hook.generate(0, actors())
    rollouts = sink.held[1][0]
    spread = real().rewards.std()
    expected = rollouts.z[:, 1:, 0] - 2.0 * spread * rollouts.uncertainty
    np.testing.assert_allclose(rollouts.rewards, expected, rtol=1e-4, atol=1e-5)


def test_rewards_pay_for_a_model_s_own_doubt_and_never_below_what_was_ever_paid():
    def doubting(*args):
        rolled = imagine(*args)
        rolled.reward_std = 0.5 + rolled.z[:, 1:, 1].abs()
        return rolled

    sink, config = Sink(), CONFIG.model_copy(update={"penalty": 0.0, "reward_pessimism": 1.5})
    hook = validated_rollouts(config, doubting, real(), SPECS, ("trust_weighted",), None, sink, seed=3)
    hook.generate(0, actors())
    rollouts = sink.held[1][0]
    doubt = 0.5 + np.abs(rollouts.z[:, 1:, 1])
    expected = np.maximum(rollouts.z[:, 1:, 0] - 1.5 * doubt, real().rewards.min())
    np.testing.assert_allclose(rollouts.rewards, expected, rtol=1e-4, atol=1e-5)


def test_a_gate_that_takes_nothing_of_a_rehearsal_is_asked_no_further():
    assert branched(Sink()).horizon == CONFIG.horizon
    sink = Sink()
    hook = branched(sink, weigh=lambda r: np.zeros(r.rewards.shape))
    assert hook.generate(0, actors()) == {"horizon/trust_weighted/0": 0.0, "horizon/trust_weighted/1": 0.0}
    assert not sink.held


def test_the_gate_weighs_every_transition_and_an_empty_gate_lets_nothing_pass():
    sink = Sink()
    metrics = branched(sink, weigh=lambda r: np.full(r.rewards.shape, 0.25)).generate(0, actors())
    assert (sink.held[1][0].weights[sink.held[1][0].mask] == 0.25).all()
    assert (sink.held[1][0].weights[~sink.held[1][0].mask] == 0).all()
    assert metrics["mean_weight/trust_weighted/0"] == pytest.approx(0.25)


def test_old_generations_go(monkeypatch):
    monkeypatch.setattr("phaseb.policy.augmentation.KEEP_GENERATIONS", 2)
    sink, hook = Sink(), None
    hook = branched(sink)
    for step in (0, 10, 20):
        hook.generate(step, actors())
    assert len(sink.held[1]) == 2
    assert sink.held[1][0].ids[0].startswith("trust_weighted/0/10/")


def test_a_resumed_learner_finds_its_rollouts_again(tmp_path):
    sink, fresh = Sink(), Sink()
    hook = branched(sink)
    hook.generate(0, actors())
    hook.generate(10, actors())
    store = Store.at(tmp_path)
    save_checkpoint(store, *flatten(hook.state_dict()))
    again = branched(fresh)
    again.load_state_dict(unflatten(*load_checkpoint(store)))
    for run in (1, 2):
        for a, b in zip(sink.held[run], fresh.held[run], strict=True):
            assert a.ids == b.ids
            assert a.lineage == b.lineage
            for name in ("z", "actions", "rewards", "terminals", "lengths", "weights", "uncertainty", "start_step"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    hook.generate(20, actors())
    again.generate(20, actors())
    np.testing.assert_array_equal(sink.held[1][-1].z, fresh.held[1][-1].z)


def test_a_model_without_skill_makes_no_rollouts():
    """It foresees nothing (the toy's truth is random), so nothing reaches the sink and batches stay all real."""
    sink = Sink()
    hook = branched(sink, config=CONFIG.model_copy(update={"min_skill": 0.5}))
    assert set(hook.generate(0, actors()).values()) == {0.0}
    assert not sink.held


def test_it_makes_nothing_for_runs_that_are_not_due():
    sink = Sink()
    assert branched(sink).generate(0, actors(), due=(0,)) == {}
    assert not sink.held
    branched(sink).generate(0, actors(), due=(2,))
    assert sorted(sink.held) == [1, 2]


def recorded_segments(sink, config=CONFIG):
    return RecordedSegments(config, real(), SPECS, ("trust_weighted",), sink, seed=3)


def test_a_placebo_is_recorded_rows_from_the_very_starts_of_the_rollouts():
    sink, rollouts, data = Sink(), Sink(), real()
    recorded_segments(sink).generate(500, actors())
    branched(rollouts, config=CONFIG.model_copy(update={"cut_quantile": 1.0})).generate(500, actors())
    placebo, made = sink.held[1][0], rollouts.held[1][0]
    assert len(placebo) == CONFIG.starts
    assert set(zip(made.lineage["start_episode"], made.start_step, strict=True)) <= set(
        zip(placebo.lineage["start_episode"], placebo.start_step, strict=True)
    )
    assert set(placebo.lineage["model"]) == {"recorded"}
    for i in range(len(placebo)):
        episode, t, n = int(placebo.lineage["start_episode"][i][1:]), placebo.start_step[i], placebo.lengths[i]
        assert n == min(CONFIG.horizon, 12 - t)
        np.testing.assert_array_equal(placebo.z[i, : n + 1], data.z[episode, t : t + n + 1])
        np.testing.assert_array_equal(placebo.actions[i, :n], data.actions[episode, t : t + n])
        np.testing.assert_array_equal(placebo.rewards[i, :n], data.rewards[episode, t : t + n])
    assert (placebo.weights[placebo.mask] == 1).all()
    assert (placebo.weights[~placebo.mask] == 0).all()


def test_a_resumed_placebo_draws_its_rows_again(tmp_path):
    sink, fresh = Sink(), Sink()
    hook = recorded_segments(sink)
    hook.generate(0, actors())
    save_checkpoint(Store.at(tmp_path), *flatten(hook.state_dict()))
    recorded_segments(fresh).load_state_dict(unflatten(*load_checkpoint(Store.at(tmp_path))))
    np.testing.assert_array_equal(sink.held[2][0].z, fresh.held[2][0].z)
