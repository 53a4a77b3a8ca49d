"""Cloning of chunks: what is learned from which steps and by what weights, alone, together, and after a break."""

import dataclasses

import numpy as np
import pytest
import torch

from phaseb.config.policy import OfflineConfig, PolicyConfig
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import RunSpec, to_batches
from phaseb.policy.chunk_cloning import ChunkCloning
from phaseb.policy.chunk_networks import NETWORKS
from phaseb.policy.chunk_policy import ChunkPolicy
from phaseb.policy.learner import SACLearner, trained_actors
from phaseb.policy.trained_policy import load_policy
from phaseb.runtime.checkpoint import flatten, load_checkpoint, save_checkpoint, unflatten
from phaseb.runtime.storage import Store

ALGORITHMS = ["act", "flow"]
STEPS = 4


@pytest.fixture(autouse=True)
def few_batches(monkeypatch):
    monkeypatch.setattr("phaseb.policy.learner.PREFETCH", 5)


def config(algorithm, **settings):
    base = PolicyConfig(
        offline=OfflineConfig(algorithm=algorithm),
        width=16,
        batch_size=32,
        num_steps=12,
        runs_per_batch=2,
        chunk_steps=STEPS,
    )
    return base.model_copy(update=settings)


class Chunks:
    """Batches with chunks around those of another source; some steps are padding."""

    def __init__(self, inner, edit=lambda rows, step: rows):
        self.inner, self.edit = inner, edit

    def sample(self, step, num_batches):
        rows = self.inner.sample(step, num_batches)
        shape = rows["reward"].shape
        g = np.random.default_rng(step)
        ramp = np.linspace(1, 0.2, STEPS, dtype=np.float32)[:, None]
        rows["chunk"] = np.tanh(rows["action"][..., None, :] * ramp + rows["z"][..., :1, None])
        lengths = np.broadcast_to(g.integers(1, STEPS + 1, (num_batches, 1, shape[-1])), shape)
        rows["chunk_share"] = (np.arange(STEPS) < lengths[..., None]).astype(np.float32)
        rows["chunk"] = rows["chunk"] * rows["chunk_share"][..., None]
        return self.edit(rows, step)


SPECS = [RunSpec("a", 3), RunSpec("b", 3), RunSpec("a", 5)]


def learner(random_source, algorithm, specs=SPECS, edit=lambda rows, step: rows, context=None, part=slice(None)):
    source = Chunks(random_source([s.seed for s in specs], part=part), edit)
    return SACLearner(config(algorithm), source, specs, context or WorkerContext(0))


def trained(one, steps=12):
    for step in range(steps):
        one.step(step)
    return one


def assert_same(one, other, **tolerance):
    for a, b in zip(one.actors(), other.actors(), strict=True):
        for name, value in a.state_dict().items():
            torch.testing.assert_close(value, b.state_dict()[name], **tolerance)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_resumed_is_uninterrupted(random_source, algorithm, tmp_path):
    whole, first, second = (learner(random_source, algorithm) for _ in range(3))
    trained(whole)
    trained(first, 5)
    save_checkpoint(Store.at(tmp_path), *flatten(first.state_dict()))
    second.load_state_dict(unflatten(*load_checkpoint(Store.at(tmp_path))))
    for step in range(5, 12):
        second.step(step)
    assert_same(whole, second, rtol=0, atol=0)
    found = trained_actors(config(algorithm), SPECS, (5, 2), whole.state_dict(), 0)
    z = np.ones((3, 5), np.float32)
    for actor, again in zip(whole.actors(), found, strict=True):
        np.testing.assert_array_equal(actor.act(z), again.act(z))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_run_ends_as_alone_and_paired_runs_end_alike(random_source, algorithm):
    together = trained(learner(random_source, algorithm))
    one, paired, other = (actor.state_dict() for actor in together.actors())
    assert all(torch.equal(one[name], paired[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    alone = trained(learner(random_source, algorithm, specs=SPECS[2:])).actors()[0].state_dict()
    assert all(torch.equal(other[name], alone[name]) for name in alone)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_padding_and_rows_of_no_weight_change_nothing(random_source, algorithm):
    """Whatever stands beyond an end, and in rows of weight 0, the policy is the same."""

    def weightless(rows, step):
        rows["weight"] = np.where(np.arange(32) % 3 == 0, 0.0, rows["weight"]).astype(np.float32)
        return rows

    def spoiled(rows, step):
        rows = weightless(rows, step)
        none = rows["weight"][..., None, None] == 0
        outside = (rows["chunk_share"] == 0)[..., None]
        rows["chunk"] = np.where(none | outside, 0.9, rows["chunk"]).astype(np.float32)
        rows["z"] = np.where(none[..., 0], 0.3, rows["z"]).astype(np.float32)
        return rows

    one = trained(learner(random_source, algorithm, edit=weightless))
    other = trained(learner(random_source, algorithm, edit=spoiled))
    assert_same(one, other, rtol=1e-4, atol=1e-5)
    whole = trained(learner(random_source, algorithm))
    assert not np.allclose(whole.actors()[0].act(np.ones((1, 5))), one.actors()[0].act(np.ones((1, 5))), atol=1e-4)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_weights_of_zero_are_rows_left_out(algorithm):
    """The gradient of a batch with weightless rows is that of the batch without them."""
    g = np.random.default_rng(0)
    update = ChunkCloning(config(algorithm), SPECS[:1], 5, 2, WorkerContext(0))
    noise = update.noise_stream().at(0, WorkerContext(0))
    rows = {
        "z": g.standard_normal((1, 1, 32, 5)).astype(np.float32),
        "chunk": g.uniform(-1, 1, (1, 1, 32, STEPS, 2)).astype(np.float32),
        "chunk_share": np.ones((1, 1, 32, STEPS), np.float32),
        "weight": g.uniform(0.1, 1, (1, 1, 32)).astype(np.float32),
        "reward": np.zeros((1, 1, 32), np.float32),
        "discount": np.zeros((1, 1, 32), np.float32),
        "is_synthetic": np.zeros((1, 1, 32), bool),
    }
    rows["next_z"], rows["action"] = rows["z"], rows["chunk"][..., 0, :]
    keep = np.arange(32) % 3 != 0
    rows["weight"][..., ~keep] = 0
    rows["chunk_share"][..., 0, 2:] = 0.25

    def loss(arrays, drawn):
        (batch,) = to_batches(arrays, WorkerContext(0))
        network = update.actors[0]
        own = update._act_loss if algorithm == "act" else update._flow_loss
        value = own(network, type(batch)(*(c[0] for c in batch)), type(drawn)(*(c[0] for c in drawn)))
        return torch.autograd.grad(value, list(network.parameters()), allow_unused=True)

    full = loss(rows, noise)
    left = {name: column[:, :, keep] for name, column in rows.items()}
    part = loss(left, type(noise)(*(column[:, torch.from_numpy(keep)] for column in noise)))
    for a, b in zip(full, part, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_workers_make_the_update_of_one(random_source, algorithm, monkeypatch):
    gathered = []

    def gather(self, parameters):
        gathered.append([p.grad.clone() for p in parameters])

    monkeypatch.setattr(WorkerContext, "average_gradients", gather)
    monkeypatch.setattr(WorkerContext, "all_reduce_mean", lambda self, value: torch.full_like(value, 0.6))

    class Whole:
        """The same rows for all workers, each takes its part."""

        def __init__(self, rank, size):
            self.part, self.source = slice(rank * 32 // size, (rank + 1) * 32 // size), Chunks(random_source([3]))

        def sample(self, step, num_batches):
            return {name: column[:, :, self.part] for name, column in self.source.sample(step, num_batches).items()}

    for rank, size in ((0, 1), (0, 2), (1, 2)):
        SACLearner(config(algorithm), Whole(rank, size), SPECS[:1], WorkerContext(0, rank, size)).step(1)
    whole, left, right = gathered
    for a, b, c in zip(whole, left, right, strict=True):
        torch.testing.assert_close(a, (b + c) / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_order_of_observations_and_actions_is_no_matter(random_source, algorithm):
    """With the first layer's inputs and the last layer's outputs in the same other order, the policy is the same."""
    z_order, a_order = np.array([3, 0, 4, 1, 2]), np.array([1, 0])

    def reordered(rows, step):
        return rows | {
            "z": rows["z"][..., z_order],
            "action": rows["action"][..., a_order],
            "chunk": rows["chunk"][..., a_order],
        }

    one = learner(random_source, algorithm, specs=SPECS[:1])
    other = learner(random_source, algorithm, specs=SPECS[:1], edit=reordered)
    for network in (other.updates[0].actors[0], other.updates[0].average[0]):
        reorder(network, z_order, a_order)
    if algorithm == "flow":  # the noise of an action moves with it
        inner = other._noises[0]
        drawn = inner.at
        inner.at = lambda step, context: (n := drawn(step, context))._replace(chunk=n.chunk[..., a_order.tolist()])
    trained(one)
    trained(other)
    z = np.random.default_rng(1).standard_normal((20, 5)).astype(np.float32)
    wanted = one.actors()[0].act(z)
    np.testing.assert_allclose(other.actors()[0].act(z[:, z_order]), wanted[:, a_order], atol=2e-4)


def reorder(network, z_order, a_order):
    """Permute what touches latents and actions."""
    with torch.no_grad():
        network.state[0].weight.copy_(network.state[0].weight[:, z_order])
        head = network.head[1]
        head.weight.copy_(head.weight[a_order])
        head.bias.copy_(head.bias[a_order])
        if hasattr(network, "action"):
            network.action.weight.copy_(network.action.weight[:, a_order])
        else:
            size = len(z_order)
            per_step = np.concatenate([a_order, [2]])
            columns = np.concatenate([z_order, *(size + 3 * k + per_step for k in range(STEPS))])
            network.encoder[0].weight.copy_(network.encoder[0].weight[:, columns])


def test_noise_on_states_moves_only_the_run_that_asks_for_it(random_source):
    noisy = [SPECS[0], dataclasses.replace(SPECS[1], state_noise=0.1)]
    plain, other = (trained(learner(random_source, "act", specs=specs)).actors() for specs in (SPECS[:2], noisy))
    z = np.ones((1, 5), np.float32)
    np.testing.assert_array_equal(plain[0].act(z), other[0].act(z))
    assert not np.array_equal(plain[1].act(z), other[1].act(z))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_saved_and_loaded_acts_alike(algorithm, random_source, tmp_path):
    actor = trained(learner(random_source, algorithm), 3).actors()[1]
    assert isinstance(actor, ChunkPolicy)
    actor.save(Store.at(tmp_path), {"arm": "a"})
    again = load_policy(Store.at(tmp_path))
    assert (again.z_size, again.action_size, again.kind) == (5, 2, algorithm)
    z = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    one, other = actor.closed_loop(), again.closed_loop()
    for step in range(7):
        np.testing.assert_array_equal(one(z + step, step), other(z + step, step))


# Two experts: in the first step one of them steers left and the other right, seven times of ten, and both stay on their
# side. The mean of both drives straight on.


class TwoExperts:
    def __init__(self, rows=32):
        self.rows = rows

    def sample(self, step, num_batches):
        g = np.random.default_rng(step)
        shape = (num_batches, 1, self.rows)
        side = np.where(g.random(shape) < 0.7, 0.8, -0.8)
        chunk = np.broadcast_to(side[..., None, None], (*shape, STEPS, 1)) + 0.02 * g.standard_normal(
            (*shape, STEPS, 1)
        )
        z = 0.1 * g.standard_normal((*shape, 2))
        columns = {
            "z": z,
            "next_z": z,
            "chunk": chunk,
            "action": chunk[..., 0, :],
            "chunk_share": np.ones((*shape, STEPS)),
        }
        columns |= {"reward": np.zeros(shape), "discount": np.zeros(shape), "weight": np.ones(shape)}
        return {n: c.astype(np.float32) for n, c in columns.items()} | {"is_synthetic": np.zeros(shape, bool)}


@pytest.mark.parametrize("algorithm", ["bc", *ALGORITHMS])
def test_of_two_experts_a_mean_copies_neither_and_plans_copy_one(algorithm):
    settings = config(algorithm, num_steps=700, width=64, batch_size=64, actor_ema=0.02)
    one = trained(SACLearner(settings, TwoExperts(64), [RunSpec("a", 0)], WorkerContext(0)), 700)
    acts = one.actors()[0].closed_loop()(np.zeros((400, 2), np.float32), 0)[:, 0]
    near = np.abs(np.abs(acts) - 0.8) < 0.2
    if algorithm == "bc":
        assert not near.any(), "the mean of both experts"
    else:
        assert near.mean() > 0.85, np.quantile(acts, [0.05, 0.25, 0.5, 0.75, 0.95])
    if algorithm == "flow":
        assert 0.55 < (acts[near] > 0).mean() < 0.85, "each expert as often as recorded"
    if algorithm == "act":
        assert (acts[near] > 0).all(), "the one who was recorded more often"


def test_every_network_has_a_policy():
    assert set(NETWORKS) == set(ALGORITHMS)
