"""Learners do not mind units: rewards times k plus c, observations and actions in another order, end in one policy."""

from dataclasses import replace

import numpy as np
import pytest

from phaseb.config.policy import OfflineConfig, PolicyConfig, ReplayConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import Noise, RunSpec
from phaseb.policy.rewards import RewardNormalizer, mean_value
from phaseb.replay.local import LocalReplay
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.storage import Store
from phaseb.stages.policy import PolicyData, make_learner

RUN = RunSpec("real_only", 0)
ALGORITHMS = {
    "bc": {"algorithm": "bc"},
    "cloning": {"algorithm": "iql", "bc_fraction": 0.99, "critic_warmup_fraction": 0.0},
    "sac_behaviour": {"algorithm": "sac", "bc_fraction": 0.2, "critic_warmup_fraction": 0.2},
    "edac": {"algorithm": "sac", "diversity_weight": 1.0, "bc_fraction": 0.2, "critic_warmup_fraction": 0.2},
    "cql": {"algorithm": "sac", "cql_weight": 1.0, "bc_fraction": 0.2, "critic_warmup_fraction": 0.2},
    "iql": {"algorithm": "iql", "bc_fraction": 0.2, "critic_warmup_fraction": 0.2},
}


def recorded(ends: bool = False, count: int = 40, steps: int = 20) -> Trajectories:
    """Two point masses, each pushed by its own action towards zero, badly; the third latent is noise."""
    g = np.random.default_rng(0)
    z, actions = np.empty((count, steps + 1, 3)), np.empty((count, steps, 2))
    z[:, 0] = g.uniform(-1.5, 1.5, (count, 3))
    for t in range(steps):
        actions[:, t] = np.clip(-0.3 * z[:, t, :2] + 0.5 * g.standard_normal((count, 2)), -1, 1)
        z[:, t + 1, :2] = z[:, t, :2] + 0.5 * actions[:, t]
        z[:, t + 1, 2] = g.standard_normal(count)
    terminals = np.zeros((count, steps), np.float32)
    terminals[:, -1] = ends
    return Trajectories(
        z=z.astype(np.float32),
        actions=actions.astype(np.float32),
        terminals=terminals,
        rewards=-np.square(z[:, 1:, :2]).sum(-1).astype(np.float32),
        lengths=np.full(count, steps),
        ids=tuple(f"e{i}" for i in range(count)),
        splits=("train",) * count,
    )


def learned(real: Trajectories, algorithm: str, prepare=lambda learner: None, num_steps: int = 40):
    """The policy that a run's own learner ends in; `prepare` is called with it before its first step."""
    config = PolicyConfig(
        num_steps=num_steps,
        width=16,
        batch_size=64,
        actor_lr=1e-3,
        actor_ema=0.05,
        discount=0.9,
        offline=OfflineConfig(**ALGORITHMS[algorithm]),
    )
    replay = LocalReplay(TransitionSchema(real.z.shape[-1], real.actions.shape[-1], ("weight",)), ReplayConfig())
    replay.insert(real, "real")
    data = PolicyData(replay, (RUN,), (SampleSpec(RUN.name, 3),), real, real, Store.at("memory"), None)
    learner = make_learner(config, data, WorkerContext(0))
    prepare(learner)
    for step in range(num_steps):
        learner.step(step)
    return learner.actors()[0].act


def probes() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (200, 3)).astype(np.float32)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_neither_the_unit_of_rewards_nor_a_constant_changes_a_policy(algorithm):
    real = recorded()
    base = learned(real, algorithm)(probes())
    for k, c in ((1.0, 5.0), (1e-7, 0.0), (1000.0, -3000.0)):
        other = learned(replace(real, rewards=(k * real.rewards + c).astype(np.float32)), algorithm)(probes())
        np.testing.assert_allclose(other, base, atol=0.02, err_msg=f"{k} r + {c}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_unit_of_rewards_does_not_matter_where_episodes_end(algorithm):
    real = recorded(ends=True)
    base = learned(real, algorithm)(probes())
    other = learned(replace(real, rewards=(0.003 * real.rewards).astype(np.float32)), algorithm)(probes())
    np.testing.assert_allclose(other, base, atol=0.02)


def reorder(learner, turn, swap) -> None:
    """Give a learner of reordered latents and actions the weights and the noise of one that sees them in order."""
    (update,), (noise,), sizes = learner.updates, learner._noises, (len(turn), len(swap))
    pairs = [*turn, *(sizes[0] + i for i in swap)]
    actors, critics = (update.actor, update.average), (update.critics, update.targets)
    stacks = [(a.stack, turn) for a in actors] + [(c.stack, pairs) for c in critics]
    stacks += [(update.value, turn)] if hasattr(update, "value") else []
    for stack, order in stacks:
        stack.weights[0].data = stack.weights[0].data[:, order].contiguous()
    outputs = [*swap, *(sizes[1] + i for i in swap)]
    for actor in actors:
        for last in (actor.stack.weights[-1], actor.stack.biases[-1]):
            last.data = last.data[..., outputs].contiguous()
    drawn = noise.at
    noise.at = lambda step, context: Noise(
        *(part if name == "pair" else part[..., swap] for name, part in drawn(step, context)._asdict().items())
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_order_of_observations_and_of_actions_does_not_matter(algorithm):
    """No dimension is treated in a way of its own: the same weights and noise, reordered, end in the same policy."""
    real, turn, swap = recorded(), [2, 0, 1], [1, 0]
    base = learned(real, algorithm)(probes())
    other = replace(real, z=real.z[..., turn], actions=real.actions[..., swap])
    found = learned(other, algorithm, lambda learner: reorder(learner, turn, swap))(probes()[:, turn])
    np.testing.assert_allclose(found[:, swap], base, atol=0.02)


def test_values_are_learned_less_their_mean_and_the_task_stays_the_same():
    """Q − b solves Bellman's equation of the normalised rewards, across a terminal step too."""
    g, discount = np.random.default_rng(0), 0.9
    rewards, discounts = g.standard_normal(6), np.full(6, discount)
    discounts[-1] = 0.0
    value = np.zeros(7)
    for t in reversed(range(6)):
        value[t] = rewards[t] + discounts[t] * value[t + 1]
    units = RewardNormalizer(scale=3.0, baseline=7.0)
    told = units(rewards, discounts)
    centred = 3.0 * (value - 7.0)
    np.testing.assert_allclose(centred[:6], told + discounts * np.append(centred[1:6], 0.0), rtol=1e-5)


def test_a_constant_in_the_rewards_moves_the_baseline_by_its_value_for_ever():
    real = recorded()
    moved = replace(real, rewards=real.rewards + 5)
    assert mean_value(moved, 0.9) == pytest.approx(mean_value(real, 0.9) + 50, rel=1e-5)
    a, b = (RewardNormalizer.fit(r, 0.9, 0.23) for r in (real, moved))
    discounts = np.full(real.rewards.shape, 0.9)
    np.testing.assert_allclose(a(real.rewards, discounts), b(moved.rewards, discounts), atol=1e-5)
    assert a(real.rewards, discounts).std() == pytest.approx(0.23, rel=1e-5)


@pytest.mark.parametrize(("value", "ends", "wanted"), [(0.0, False, 0.0), (5.0, False, 0.0), (-1.0, True, None)])
def test_rewards_that_never_change_stay_finite(value, ends, wanted):
    real = replace(recorded(ends), rewards=np.full((40, 20), value, np.float32))
    discounts = 0.9 * (1 - real.terminals)
    told = RewardNormalizer.fit(real, 0.9, 0.23)(real.rewards, discounts)
    assert np.isfinite(told).all()
    if wanted is not None:
        np.testing.assert_allclose(told, wanted, atol=1e-5)
    else:
        assert np.ptp(told[:, -1]) == 0
        assert told[0, -1] > told[0, 0], "an end to a price a step is worth more than another step"
