"""Codes for new data follow near training episodes, and change over to others: by hand on a few rows."""

import pytest
import torch

from phaseb.config.encoder import LatentActionsConfig
from phaseb.latents import latent_action_bank, latent_actions
from phaseb.latents.latent_action_bank import LatentActionBank, RetrievalPolicy
from phaseb.latents.latent_actions import fit_latent_actions, unexplained_dims
from phaseb.runtime.seeding import torch_generator

# Two episodes on a line, the second ten further on; a code names its episode and step.
Z = [torch.arange(6.0)[:, None], 10 + torch.arange(4.0)[:, None]]
CODES = [torch.tensor([[0.1 * t] for t in range(5)]), torch.tensor([[-0.1 - 0.1 * t] for t in range(3)])]
FOR_EVER = 1e9


@pytest.fixture
def bank():
    return LatentActionBank.of(Z, CODES)


def test_a_bank_holds_every_transition_with_what_came_before_and_where_episodes_end(bank):
    assert bank.z[:, 0].tolist() == [0, 1, 2, 3, 4, 10, 11, 12]
    assert bank.before[:, 0].tolist() == [0, 0, 1, 2, 3, 10, 10, 11]
    assert bank.age.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert bank.last.tolist() == [False] * 4 + [True, False, False, True]


def test_nearness_counts_latents_half_the_latents_before_and_age(bank):
    z, before, age = torch.tensor([[2.4], [9.0]]), torch.tensor([[0.0], [9.0]]), 4
    found = bank.near(z, before, age, 8)
    for row in range(2):
        squared = [
            (bank.z[i, 0] - z[row, 0]) ** 2
            + (0.5 * (bank.before[i, 0] - before[row, 0])) ** 2
            + (0.3 * (bank.age[i] - age)) ** 2
            for i in range(8)
        ]
        assert found[row].tolist() == sorted(range(8), key=lambda i: float(squared[i]))
    assert bank.near(z, before, age, 100).shape == (2, 8)


def test_a_stretch_is_followed_to_its_end_and_then_another_that_is_near(bank):
    follow = RetrievalPolicy(bank, 1, FOR_EVER, torch_generator(0))
    z = torch.tensor([[10.2], [0.2]])
    made = [follow(z + t, t) for t in range(2)] + [follow(torch.tensor([[2.0], [2.2]]), 2)]
    assert torch.allclose(torch.stack(made)[:, 0, 0], torch.tensor([-0.1, -0.2, -0.3]))
    assert torch.allclose(torch.stack(made)[:, 1, 0], torch.tensor([0.0, 0.1, 0.2]))
    # The first rollout's episode is over; by now it is where the other episode was at that age.
    moved = follow(torch.tensor([[3.0], [99.0]]), 3)
    assert torch.allclose(moved[:, 0], torch.tensor([0.3, 0.3]))  # the second goes on, wherever it is


def test_stretches_have_the_mean_length_asked_for():
    steps, mean = 4000, 4.0
    bank = LatentActionBank.of([torch.zeros(steps + 1, 1)], [torch.arange(float(steps))[:, None]])
    bank.age.zero_()
    follow = RetrievalPolicy(bank, steps, mean, torch_generator(0))
    codes = torch.stack([follow(torch.zeros(50, 1), t) for t in range(200)])[..., 0]
    jumped = (codes.diff(dim=0) != 1).float().mean()
    assert abs(float(jumped) - 1 / mean) < 0.02  # 9950 draws: 5 standard errors


def test_each_of_the_nearest_is_followed_as_often():
    bank = LatentActionBank.of(
        [torch.tensor([[float(i)], [0.0]]) for i in range(4)], [torch.tensor([[float(i)]]) for i in range(4)]
    )
    drawn = RetrievalPolicy(bank, 3, FOR_EVER, torch_generator(0))(torch.zeros(3000, 1), 0)[:, 0]
    shares = torch.tensor([(drawn == i).float().mean() for i in range(4)])
    torch.testing.assert_close(shares, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0]), atol=0.05, rtol=0)


def test_codes_have_a_dimension_for_each_thing_that_is_not_told():
    g = torch_generator(3)
    z = torch.randn(2000, 6, generator=g)
    for unknown in (3, 5):
        noise = torch.zeros(2000, 6)
        noise[:, :unknown] = torch.randn(2000, unknown, generator=g)
        turn = torch.linalg.qr(torch.randn(6, 6, generator=g)).Q
        assert unexplained_dims(z, 0.5 * z + noise @ turn) == unknown
    assert unexplained_dims(z, 0.5 * z) >= 2
    assert unexplained_dims(torch.zeros(10, 3), torch.zeros(10, 3)) == 2


def test_new_episodes_of_a_switching_plan_are_alike_and_no_copies():
    """Moves come in runs of five that no latent tells: codes drawn afresh at every step cannot keep a run up."""
    g = torch_generator(5)
    z = []
    for _ in range(40):
        moves = torch.randint(0, 2, (8,), generator=g).repeat_interleave(5).float() * 2 - 1
        walk = torch.zeros(41, 3)
        for t in range(40):
            push = torch.stack([moves[t], -moves[t], moves[t]]) + 0.1 * torch.randn(3, generator=g)
            walk[t + 1] = 0.5 * walk[t] + push
        z.append(walk)
    config = LatentActionsConfig(num_dims=2, num_steps=600)
    model = fit_latent_actions(config, z, [None] * 40, seed=0)

    def runs(act):
        now, made = torch.stack(z)[:, 0], []
        with torch.no_grad():
            for t in range(40):
                after = model.predict(now, act(now, t))
                made.append(torch.sign(after - 0.5 * now)[:, 0])
                now = after
        return float((torch.stack(made).diff(dim=0) == 0).float().mean())

    real = torch.stack(z)[..., 0]
    truth = float((torch.sign(real[:, 1:] - 0.5 * real[:, :-1]).diff(dim=1) == 0).float().mean())
    drawn = torch_generator(0, "prior")

    def afresh(x, t):
        mean, log_std = model.prior_of(x)
        return torch.tanh(mean + log_std.exp() * torch.randn(mean.shape, generator=drawn))

    followed = runs(model.follow(torch_generator(0)))
    assert abs(followed - truth) < 0.1
    assert abs(followed - truth) < 0.5 * abs(runs(afresh) - truth)


def test_of_more_transitions_than_it_holds_it_keeps_episodes_of_all(monkeypatch):
    for module in (latent_action_bank, latent_actions):
        monkeypatch.setattr(module, "MOST", 100)
    z = [i + 0.1 * torch.randn(11, 2, generator=torch_generator(i)) for i in range(40)]
    model = fit_latent_actions(LatentActionsConfig(num_steps=2), z, [None] * 40, seed=0)
    episodes = model.bank.z[::10, 0].round().int().tolist()
    assert len(model.bank.z) == 100
    assert len(set(episodes)) == 10
    assert max(episodes) > 20, "not the first ten alone"
