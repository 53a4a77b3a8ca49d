"""A world model broken on purpose, followed by a policy: what the gate and the look at its skill leave of it.

The task is a driven oscillator whose truth is known, so that the model can be right in all but what is broken.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from phaseb.config.policy import PolicyConfig, ReplayConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import RunSpec
from phaseb.policy.learner import SACLearner
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.seeding import numpy_generator
from phaseb.stages.augmentation import ReplayWriter, trusted_steps, validated_rollouts

TURN = np.array([[0.9, 0.3, 0.0], [-0.3, 0.9, 0.0], [0.0, 0.0, 1.0]], np.float32)
PUSH = np.array([[0.0, 0.4, 0.0]], np.float32)
OTHER_TURN = np.array([[0.5, 0.8, 0.0], [-0.8, 0.5, 0.0], [0.0, 0.0, 1.0]], np.float32)
CONFIG = PolicyConfig(
    num_steps=30,
    batch_size=16,
    width=16,
    runs_per_batch=2,
    offline={"bc_fraction": 0.0, "critic_warmup_fraction": 0.0},
    augmentation={"refresh_steps": 10, "starts": 50, "horizon": 4},
)
SPECS = (RunSpec("real_only_sac", 0), RunSpec("trust_weighted", 0))
COLUMN = "rollouts:trust_weighted/0"


def recorded(name, count=30, steps=20):
    """Episodes of the oscillator beside a constant; the reward is the position after the step."""
    g, f = numpy_generator(0, name), np.float32
    z = np.zeros((count, steps + 1, 3), f)
    z[:, 0] = g.standard_normal((count, 3))
    actions = g.uniform(-1, 1, (count, steps, 1)).astype(f)
    for t in range(steps):
        z[:, t + 1] = z[:, t] @ TURN.T + actions[:, t] @ PUSH
    return Trajectories(
        z=z,
        actions=actions,
        rewards=z[:, 1:, 0].copy(),
        terminals=np.zeros((count, steps), f),
        lengths=np.full(count, steps),
        ids=tuple(f"{name}{i}" for i in range(count)),
        splits=("train",) * count,
    )


def model(turn=TURN, push=PUSH, sign=1.0, bend=lambda z0, z, t: z):
    """A model that never disagrees with itself, bent after every step; the policy acts on what it is told."""

    def imagine(z0, actions, horizon, generator):
        z, taken = [z0], []
        for t in range(horizon):
            taken.append(actions(z[-1], t))
            z.append(bend(z0, z[-1] @ torch.from_numpy(turn).T + taken[-1] @ torch.from_numpy(push), t + 1))
        z = torch.stack(z, 1)
        nothing = torch.zeros(len(z0), horizon)
        return SimpleNamespace(
            z=z,
            actions=torch.stack(taken, 1),
            rewards=sign * z[:, 1:, 0],
            terminals=nothing,
            uncertainty=nothing,
            reward_std=None,
        )

    return imagine


def frozen(z0, z, t):
    still = z.clone()
    still[:, 1] = z0[:, 1]
    return still


BROKEN = {
    "untrained": model(turn=0.1 * numpy_generator(0, "untrained").standard_normal((3, 3)).astype(np.float32)),
    "blown up, as the report's": model(bend=lambda z0, z, t: 1.6 * z),
    "rewards flipped": model(sign=-1.0),
    "latents x 2": model(bend=lambda z0, z, t: 2 * z),
    "one dimension frozen": model(bend=frozen),
    "bias growing with the step": model(bend=lambda z0, z, t: z + 0.5 * t),
    "of another oscillator": model(turn=OTHER_TURN),
}


def trained(imagine, weigh=None, config=CONFIG, learner="sac"):
    """The steps that the model is trusted for, and the policies of control and arm, trained out of one replay."""
    real, specs = recorded("train"), tuple(replace(spec, learner=learner) for spec in SPECS)
    replay = LocalReplay(TransitionSchema(3, 1, (COLUMN,)), ReplayConfig())
    replay.insert(real, "real")
    hook = validated_rollouts(
        config.augmentation,
        imagine,
        real,
        specs,
        ("trust_weighted",),
        weigh,
        ReplayWriter(replay, specs),
        0,
        held_out=recorded("held out"),
    )
    own = {"synthetic_share": 0.5, "weight_column": COLUMN, "weighting": "sampling"}
    streams = [SampleSpec("real_only/0", 5), SampleSpec("trust_weighted/0", 5, when_short="real", **own)]
    trainee = SACLearner(config, replay.source(streams, 16, 0.9), specs, WorkerContext(0), hook)
    for step in range(trainee.num_steps):
        trainee.step(step)
    return hook.horizon, trainee.actors()


def bit_identical(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_good_model_is_followed_and_changes_the_policy():
    horizon, (real_only, trust_weighted) = trained(model())
    assert horizon == 4
    assert not bit_identical(real_only, trust_weighted)


@pytest.mark.parametrize("kind", BROKEN)
def test_of_a_broken_model_nothing_is_taken_and_the_policy_is_real_only_s_bit_for_bit(kind):
    horizon, (real_only, trust_weighted) = trained(BROKEN[kind])
    assert horizon == 0
    assert bit_identical(real_only, trust_weighted)


def test_a_bias_below_what_sensors_see_is_followed_only_as_long():
    horizon, _ = trained(model(bend=lambda z0, z, t: z + 0.05 * t))
    assert 0 < horizon < 4


def test_with_no_weight_accepted_the_policy_is_real_only_s_bit_for_bit():
    """A good model, and a gate that takes nothing of its rehearsal: the policy learns as if there were none."""
    horizon, (real_only, trust_weighted) = trained(model(), weigh=lambda r: np.zeros_like(r.rewards))
    assert horizon == 0
    assert bit_identical(real_only, trust_weighted)


@pytest.mark.parametrize("learner", ["iql", "sac", "edac"])
def test_so_it_is_for_every_learner(learner):
    _, (control, arm) = trained(model(), lambda r: np.zeros_like(r.rewards), learner=learner)
    assert bit_identical(control, arm)


@pytest.mark.parametrize("kind", BROKEN)
def test_stored_rollouts_of_a_broken_model_weigh_nothing(kind):
    """The way without rollouts that follow the policy: what is stored is held against the same look at skill."""
    assert trusted_steps(CONFIG.augmentation, BROKEN[kind], recorded("held out"), 20, 0) == 0
    assert trusted_steps(CONFIG.augmentation, model(), recorded("held out"), 20, 0) == 20
