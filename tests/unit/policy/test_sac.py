"""One update against the paper's steps written out for one run with ordinary modules and optimisers."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from phaseb.config.policy import OfflineConfig, PolicyConfig
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import NoiseStream, RunSpec, to_batches
from phaseb.policy.iql import ImplicitQ
from phaseb.policy.learner import SACLearner
from phaseb.policy.sac import INITIAL_TEMPERATURE, TEMPERATURE_LR, SoftActorCritic

CONTEXT = WorkerContext(0)
CQL_ACTIONS, MAX_GRAD_NORM = 2, 0.7
SPECS = [RunSpec("a", 3), RunSpec("b", 5, {"bc_weight": 1.1, "spread_weight": 0.4})]


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    monkeypatch.setattr("phaseb.policy.sac.MAX_GRAD_NORM", MAX_GRAD_NORM)
    monkeypatch.setattr("phaseb.policy.sac.CQL_ACTIONS", CQL_ACTIONS)


def config(**offline):
    settings = OfflineConfig(**{"algorithm": "sac", "bc_fraction": 0, "critic_warmup_fraction": 0, **offline})
    return PolicyConfig(width=16, num_critics=3, batch_size=32, num_steps=10, offline=settings)


def inputs(random_source, specs, steps, settings):
    seeds = [s.seed for s in specs]
    source = random_source(seeds, synthetic_share=0.4, weight=0.3)
    batches = to_batches(source.sample(0, steps), CONTEXT)
    stream = NoiseStream(seeds, 32, 2, settings.num_critics, CQL_ACTIONS)
    return [(batch, stream.at(i, CONTEXT)) for i, batch in enumerate(batches)]


class Member(nn.Module):
    """An ordinary perceptron with the weights of member g of a stack."""

    def __init__(self, stack, g):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(w.shape[1], w.shape[2]) for w in stack.weights)
        for layer, w, b in zip(self.layers, stack.weights, stack.biases, strict=True):
            layer.weight.data, layer.bias.data = w[g].detach().T.clone(), b[g, 0].detach().clone()
        self.norm = stack.norm

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = layer(x)
            x = torch.relu(nn.functional.layer_norm(x, x.shape[-1:]) if self.norm else x)
        return self.layers[-1](x)


class Alone:
    """Soft actor-critic of one run, step by step."""

    def __init__(self, learner, run):
        c = learner.config
        self.c, self.o, self.run = c, c.offline, run
        self.scalars = {n: float(getattr(learner.scalars, n)[run]) for n in learner.scalars._fields}
        self.actor = Member(learner.actor.stack, run)
        members = range(run * c.num_critics, (run + 1) * c.num_critics)
        self.critics = [Member(learner.critics.stack, g) for g in members]
        self.targets = copy.deepcopy(self.critics)
        self.log_alpha = torch.tensor(math.log(INITIAL_TEMPERATURE), requires_grad=True)
        self.critic_params = [p for m in self.critics for p in m.parameters()]
        self.critic_adam = torch.optim.Adam(self.critic_params, lr=c.critic_lr)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=c.actor_lr)
        self.alpha_adam = torch.optim.Adam([self.log_alpha], lr=TEMPERATURE_LR)

    def policy(self, z, noise):
        mean, raw = self.actor(z).chunk(2, -1)
        log_std = -5 + 0.5 * 7 * (torch.tanh(raw) + 1)
        u = mean + log_std.exp() * noise
        normal = torch.distributions.Normal(mean, log_std.exp())
        log_prob = normal.log_prob(u).sum(-1)
        return torch.tanh(u), log_prob, torch.tanh(mean)

    def value(self, members, z, a):
        return torch.stack([m(torch.cat([z, a], -1))[:, 0] for m in members])

    def pessimism(self, q, pair):
        if self.o.pessimism == "min":
            return q.min(0).values
        if self.o.pessimism == "pair":
            return torch.minimum(q[pair[0]], q[pair[1]])
        return q.mean(0) - self.scalars["spread_weight"] * q.std(0, unbiased=False)

    def update(self, batch, noise):
        r = self.run
        z, a, rew, z2, disc, real, w, cut = (column[r] for column in batch[:8])
        with torch.no_grad():
            a2, logp2, _ = self.policy(z2, noise.target[r])
            q2 = self.value(self.targets, z2, a2)
            v2 = self.pessimism(q2, noise.pair[r]) - self.log_alpha.exp() * logp2
            v2 = v2 - cut * self.scalars["truncation_pessimism"] * q2.std(0, unbiased=False)
            y = rew + disc * v2
        q = self.value(self.critics, z, a)
        loss = (w * (q - y) ** 2).mean(1).sum()
        if self.o.cql_weight:
            loss = loss + self.o.cql_weight * self.conservative(z, q, w, noise.other[r])
        if self.o.diversity_weight:
            loss = loss + self.o.diversity_weight * (w * self.diversity(z, a)).mean()
        self.critic_adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.critic_params, MAX_GRAD_NORM)
        self.critic_adam.step()
        self.update_actor(z, a, real, w, noise)
        for slow, online in zip(self.targets, self.critics, strict=True):
            for p, q in zip(slow.parameters(), online.parameters(), strict=True):
                p.data.copy_((1 - self.c.tau) * p.data + self.c.tau * q.data)

    def update_actor(self, z, a, real, w, noise):
        action, logp, mean = self.policy(z, noise.policy[self.run])
        q = self.pessimism(self.value(self.critics, z, action), noise.pair[self.run])
        soft = self.log_alpha.exp().detach() * logp - q
        if self.o.normalise_value:
            soft = soft / (q.detach() - q.detach().mean()).abs().mean()
        distance = real * ((mean - a) ** 2).mean(-1)
        loss = (w * (soft + self.scalars["bc_weight"] * distance)).mean()
        self.actor_adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.actor.parameters(), MAX_GRAD_NORM)
        self.actor_adam.step()
        alpha_loss = -(self.log_alpha.exp() * (w * (logp.detach()) - 2.0).mean())  # target entropy is -2
        self.alpha_adam.zero_grad()
        alpha_loss.backward()
        nn.utils.clip_grad_norm_([self.log_alpha], MAX_GRAD_NORM)
        self.alpha_adam.step()

    def conservative(self, z, q, w, other):
        total = 0.0
        for i, member in enumerate(self.critics):
            terms = []
            for k in range(CQL_ACTIONS):
                uniform = other[0, k]
                terms.append(self.value([member], z, uniform)[0] + 2 * math.log(2.0))
                with torch.no_grad():
                    act, logp, _ = self.policy(z, other[1, k])
                    logp = logp - torch.log(1 - act**2 + 1e-12).sum(-1)  # of the action, as the uniform's is
                terms.append(self.value([member], z, act)[0] - logp)
            total = total + (w * (torch.stack(terms).exp().mean(0).log() - q[i])).mean()
        return total

    def diversity(self, z, a):
        gradients = []
        for member in self.critics:
            x = a.clone().requires_grad_(True)
            gradients.append(torch.autograd.grad(member(torch.cat([z, x], -1)).sum(), x, create_graph=True)[0])
        pairs = [
            nn.functional.cosine_similarity(gradients[i], gradients[j], dim=-1)
            for i in range(3)
            for j in range(3)
            if i != j
        ]
        return torch.stack(pairs).mean(0)


VARIANTS = [
    {},
    {"pessimism": "spread"},
    {"pessimism": "pair", "normalise_value": False},
    {"cql_weight": 0.8},
    {"diversity_weight": 0.5},
]


@pytest.mark.parametrize("offline", VARIANTS, ids=str)
def test_an_update_is_the_paper_s_for_every_run(random_source, offline):
    settings = config(**dict(offline))
    learner = SoftActorCritic(settings, SPECS, 5, 2, CONTEXT)
    references = [Alone(learner, r) for r in range(2)]
    for step, (batch, noise) in enumerate(inputs(random_source, SPECS, 4, settings)):
        learner.update(batch, noise, step)
        for reference in references:
            reference.update(batch, noise)
    for r, reference in enumerate(references):
        assert_same(learner.actor.stack, r, reference.actor)
        for c in range(3):
            assert_same(learner.critics.stack, 3 * r + c, reference.critics[c])
            assert_same(learner.targets.stack, 3 * r + c, reference.targets[c])
        torch.testing.assert_close(learner.log_temperature[r], reference.log_alpha, rtol=1e-4, atol=1e-5)


def assert_same(stack, g, member):
    for layer, w, b in zip(member.layers, stack.weights, stack.biases, strict=True):
        torch.testing.assert_close(w[g].T, layer.weight, rtol=1e-3, atol=2e-5)
        torch.testing.assert_close(b[g, 0], layer.bias, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("kind", [SoftActorCritic, ImplicitQ])
def test_a_run_among_others_is_the_run_alone(random_source, kind):
    settings = config(algorithm="iql" if kind is ImplicitQ else "sac")
    specs = [*SPECS, RunSpec("a", 8)]
    together = kind(settings, specs, 5, 2, CONTEXT)
    for step, (batch, noise) in enumerate(inputs(random_source, specs, 6, settings)):
        together.update(batch, noise, step)
    for r, spec in enumerate(specs):
        single = kind(settings, [spec], 5, 2, CONTEXT)
        for step, (batch, noise) in enumerate(inputs(random_source, [spec], 6, settings)):
            single.update(batch, noise, step)
        pairs = [(together.actor, single.actor, 1), (together.critics, single.critics, 3)]
        pairs += [(together.value, single.value, 1)] if kind is ImplicitQ else []
        for many, one, members in pairs:
            for p, q in zip(many.parameters(), one.parameters(), strict=True):
                torch.testing.assert_close(p[r * members : (r + 1) * members], q, rtol=1e-4, atol=1e-6)


def test_runs_that_start_and_read_alike_stay_alike(random_source):
    """But for rounding: what a batched product rounds depends on the place of a run in it."""
    settings, specs = config(), [RunSpec("real_only", 4), RunSpec("other", 9), RunSpec("trust_weighted", 4)]
    learner = SoftActorCritic(settings, specs, 5, 2, CONTEXT)
    for step, (batch, noise) in enumerate(inputs(random_source, specs, 6, settings)):
        learner.update(batch, noise, step)
    for parameter in learner.actor.parameters():
        torch.testing.assert_close(parameter[0], parameter[2], rtol=1e-5, atol=1e-7)
        assert not torch.allclose(parameter[0], parameter[1], rtol=1e-2, atol=1e-3)


def test_a_weight_of_zero_teaches_nothing(random_source):
    """Rows of weight zero change no parameter: the rest counts as if they were not there."""
    settings = config()
    arrays = random_source([3], synthetic_share=0.5, weight=0.0).sample(0, 1)
    broken = {k: v.copy() for k, v in arrays.items()}
    broken["reward"][arrays["is_synthetic"]] = 1e3
    results = []
    for rows in (arrays, broken):
        learner = SoftActorCritic(settings, SPECS[:1], 5, 2, CONTEXT)
        noise = NoiseStream([3], 32, 2, 3, 2).at(0, CONTEXT)
        learner.update(to_batches(rows, CONTEXT)[0], noise, 0)
        results.append([p.detach().clone() for p in learner.critics.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_cut_rollout_s_value_is_lowered(random_source):
    settings = config(truncation_pessimism=2.0)
    learner = SoftActorCritic(settings, SPECS[:1], 5, 2, CONTEXT)
    batch, noise = inputs(random_source, SPECS[:1], 1, settings)[0]
    whole = learner._target(batch._replace(cut=torch.zeros_like(batch.cut)), noise)
    with torch.no_grad():
        action, _, _ = learner.actor.sample(batch.next_z, noise.target)
        spread = learner.targets(batch.next_z, action).std(1, correction=0)
    expected = whole - 2.0 * batch.cut * batch.discount * spread
    torch.testing.assert_close(learner._target(batch, noise), expected)
    assert (expected < whole).any()


def test_noise_is_shared_among_workers(random_source):
    stream = NoiseStream([1, 2], 8, 2, 5, 3)
    whole = stream.at(70, CONTEXT)
    halves = [stream.at(70, WorkerContext(0, rank, 2)) for rank in range(2)]
    assert torch.equal(torch.cat([h.target for h in halves], 1), whole.target)
    assert torch.equal(torch.cat([h.other for h in halves], 3), whole.other)
    assert (whole.pair[:, 0] != whole.pair[:, 1]).all()
    np.testing.assert_array_equal(stream.at(3, CONTEXT).policy, NoiseStream([1, 2], 8, 2, 5, 3).at(3, CONTEXT).policy)


def test_the_first_steps_only_clone(random_source, monkeypatch):
    monkeypatch.setattr("phaseb.policy.sac.CLONE_LR", 0.01)
    settings = config(bc_fraction=0.6)
    learner = SoftActorCritic(settings, SPECS, 5, 2, CONTEXT)
    before = [p.detach().clone() for p in learner.critics.parameters()]
    distances = []
    batch, noise = inputs(random_source, SPECS, 1, settings)[0]
    for step in range(6):
        distances.append(learner.update(batch, noise, step)["behaviour"])
    assert (distances[-1] < distances[0]).all()
    assert all(torch.equal(a, b) for a, b in zip(before, learner.critics.parameters(), strict=True))
    learner.update(batch, noise, 6)
    assert not torch.equal(before[0], next(learner.critics.parameters()))


def test_the_policy_waits_for_its_values(random_source):
    learner = SoftActorCritic(config(bc_fraction=0.2, critic_warmup_fraction=0.4), SPECS, 5, 2, CONTEXT)
    batch, noise = inputs(random_source, SPECS, 1, learner.config)[0]
    learned = ["entropy" in learner.update(batch, noise, step) for step in range(9)]
    assert learned == [False] * 6 + [True] * 3


class Bandit:
    """One step a task: the switch should be up where the first latent is positive; recorded up in one of ten."""

    def sample(self, step, num_batches):
        g = np.random.default_rng(step)
        shape = (num_batches, 1, 64)
        z = g.standard_normal((*shape, 2)).astype(np.float32)
        switch = np.where(g.random(shape) < 0.1, 1.0, -1.0).astype(np.float32)
        action = np.stack([g.uniform(-1, 1, shape).astype(np.float32), switch], -1)
        reward = (switch * np.sign(z[..., 0])).astype(np.float32)
        zeros, ones = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        return {
            "z": z,
            "action": action,
            "reward": reward,
            "next_z": z,
            "discount": zeros,
            "is_synthetic": zeros > 0,
            "weight": ones,
        }


def test_switches_follow_values_that_a_slope_would_not_find():
    """Cloning leaves the switch surely down; soft actor-critic lifts it where that pays."""
    offline = OfflineConfig(algorithm="sac", bc_weight=0.0, bc_fraction=0.3, critic_warmup_fraction=0.2)
    config = PolicyConfig(
        num_steps=600,
        num_critics=2,
        width=32,
        batch_size=64,
        actor_lr=3e-3,
        binary_actions=True,
        offline=offline,
    )
    levels = np.array([[0, 0], [-1, 1]], np.float32)
    learner = SACLearner(config, Bandit(), [RunSpec("real_only", 0)], CONTEXT, levels=levels)
    z = np.random.default_rng(9).standard_normal((400, 2)).astype(np.float32)
    wanted = np.sign(z[:, 0])
    for step in range(600):
        learner.step(step)
        if step == 179:
            assert (learner.updates[0].actor(torch.from_numpy(z)[None])[0][0, :, 1] < 0).all(), "cloned: never up"
    assert (learner.actors()[0].act(z)[:, 1] == wanted).mean() > 0.93
