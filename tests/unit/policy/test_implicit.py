"""Implicit Q-learning's three losses against their equations, written out for each run."""

import copy

import numpy as np
import torch

from phaseb.config.policy import OfflineConfig, PolicyConfig
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import NoiseStream, RunSpec, to_batches
from phaseb.policy.iql import ImplicitQ

CONTEXT = WorkerContext(0)
SPECS = [
    RunSpec("a", 3),
    RunSpec("b", 5, {"iql_expectile": 0.9, "iql_beta": 1.5}),
]
CONFIG = PolicyConfig(
    width=16,
    num_critics=3,
    batch_size=32,
    num_steps=10,
    offline=OfflineConfig(algorithm="iql", bc_fraction=0, critic_warmup_fraction=0, truncation_pessimism=0.7),
)


def step(random_source, synthetic_share=0.4):
    learner = ImplicitQ(CONFIG, SPECS, 5, 2, CONTEXT)
    with torch.no_grad():  # values that differ enough for every term to count
        for parameter in [*learner.critics.parameters(), *learner.targets.parameters(), *learner.value.parameters()]:
            parameter.mul_(3)
    before = copy.deepcopy(learner)
    source = random_source([3, 5], synthetic_share=synthetic_share, weight=0.3)
    batch = to_batches(source.sample(0, 1), CONTEXT)[0]
    metrics = learner.update(batch, NoiseStream([3, 5], 32, 2, 3, 0).at(0, CONTEXT), 0)
    return before, learner, batch, metrics


def test_the_three_losses_are_the_paper_s(random_source):
    before, after, batch, metrics = step(random_source)
    with torch.no_grad():
        q = before.targets(batch.z, batch.action).amin(1)
        advantage = q - before.value(batch.z)[..., 0]
        mean = torch.tanh(before.actor(batch.z)[0])
        next_v = after.value(batch.next_z)[..., 0]
        next_mean = torch.tanh(before.actor(batch.next_z)[0])
        spread = before.targets(batch.next_z, next_mean).std(1, correction=0)
        online = before.critics(batch.z, batch.action)
    for run, (expectile, temperature) in enumerate([(0.7, 3.0), (0.9, 1.5)]):
        u, w = advantage[run].numpy(), batch.weight[run].numpy()
        value_loss = np.mean(w * np.where(u < 0, 1 - expectile, expectile) * u**2)
        np.testing.assert_allclose(metrics["value_loss"][run], value_loss, rtol=1e-4)
        factor = np.minimum(np.exp(temperature * u), 100.0)
        distance = ((mean[run] - batch.action[run]) ** 2).mean(-1).numpy()
        actor_loss = np.mean(w * factor * distance) / factor.mean()
        np.testing.assert_allclose(metrics["actor_loss"][run], actor_loss, rtol=1e-4)
        target = batch.reward[run] + batch.discount[run] * (next_v[run] - 0.7 * batch.cut[run] * spread[run])
        critic_loss = (batch.weight[run] * (online[run] - target) ** 2).mean(-1).sum()
        np.testing.assert_allclose(metrics["critic_loss"][run], critic_loss, rtol=1e-4)
