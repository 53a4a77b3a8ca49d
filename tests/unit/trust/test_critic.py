import numpy as np
import pytest
import torch

from phaseb.config.trust import CriticConfig
from phaseb.errors import DataError, DivergenceError
from phaseb.nn.data_parallel import LearnerContext
from phaseb.runtime.checkpoint import flatten, unflatten
from phaseb.trust.discriminator import Critic, WindowNetwork


def batches(oscillators, noise: float, seed: int) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return torch.from_numpy(oscillators(32, seed=seed, num_dimensions=4, noise=noise)[:, 1:])


@pytest.mark.parametrize("form", ["windows", "report"])
def test_the_critic_learns_and_its_loss_falls_where_rollouts_look_real(oscillators, form, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("phaseb.trust.discriminator.LEARNING_RATE", 5e-3)
    critic = Critic(CriticConfig(form=form), 4, LearnerContext(0))
    for i in range(60):
        metrics = critic.update(batches(oscillators, 0.02, i), batches(oscillators, 0.5, 10_000 + i))
    assert metrics["trust_real"] > 0.6 > 0.4 > metrics["trust_syn"]
    good, bad = batches(oscillators, 0.02, 999), batches(oscillators, 0.5, 998)
    assert critic.loss(good) < critic.loss(bad)
    bad.requires_grad_()
    (gradient,) = torch.autograd.grad(critic.loss(bad), bad)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    assert critic.loss((bad - 0.1 * len(bad) * gradient).detach()) < critic.loss(bad)


def test_features_of_equals_match_and_of_a_wider_rollout_do_not(oscillators) -> None:  # type: ignore[no-untyped-def]
    critic = Critic(CriticConfig(), 4, LearnerContext(0))
    real, other = (torch.from_numpy(oscillators(400, seed=s, num_dimensions=4)[:, 1:]) for s in (1, 2))
    mean = critic.features(real).mean(0)
    same = (critic.features(other).mean(0) - mean).square().sum()
    wide = (critic.features(1.9 * other).mean(0) - mean).square().sum()
    assert wide > 20 * same


def test_every_layer_of_the_window_critic_is_bounded() -> None:
    critic = Critic(CriticConfig(), 3, LearnerContext(0))
    assert isinstance(critic.network, WindowNetwork)
    for i in range(60):
        generator = torch.Generator().manual_seed(i)
        critic.update(*(torch.randn(8, 30, 3, generator=generator) * s for s in (1, 3)))
    critic.network.eval()
    for module in critic.network.modules():
        if isinstance(module, torch.nn.Linear):
            assert torch.linalg.matrix_norm(module.weight, ord=2) < 1.1


def test_a_resumed_critic_goes_on_as_if_never_stopped(oscillators) -> None:  # type: ignore[no-untyped-def]
    def run(critic: Critic, start: int, stop: int) -> None:
        for i in range(start, stop):
            critic.update(batches(oscillators, 0.02, i), batches(oscillators, 0.5, 100 + i))

    whole, first = (Critic(CriticConfig(), 4, LearnerContext(3)) for _ in range(2))
    run(whole, 0, 6)
    run(first, 0, 3)
    resumed = Critic(CriticConfig(), 4, LearnerContext(3))
    resumed.load_state_dict(unflatten(*flatten(first.state_dict())))
    run(resumed, 3, 6)
    for a, b in zip(whole.network.state_dict().values(), resumed.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    fresh = Critic(CriticConfig(), 4, LearnerContext(3))
    fresh.load_state_dict(unflatten(*flatten(fresh.state_dict())))  # before its first update
    assert fresh.num_updates == 0


def test_scoring_leaves_the_critic_as_it_was(oscillators) -> None:  # type: ignore[no-untyped-def]
    critic = Critic(CriticConfig(), 4, LearnerContext(0))
    before = {name: value.clone() for name, value in critic.network.state_dict().items()}
    critic.loss(batches(oscillators, 0.1, 0))
    critic.features(batches(oscillators, 0.1, 0))
    for name, value in critic.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_critic_with_episodes_of_its_own_never_learns_from_others(trajectories) -> None:  # type: ignore[no-untyped-def]
    own = trajectories(6, seed=0, num_steps=20)
    own.z[:] = np.arange(6)[:, None, None] + np.arange(21)[None, :, None] / 100  # each value names episode and step
    critic = Critic(CriticConfig(), 4, LearnerContext(0), own)
    drawn = critic._own_episodes(own, 200, 15).numpy()
    assert drawn.shape == (200, 15, 4)
    assert np.allclose(np.diff(drawn, axis=1), 0.01, atol=1e-5)
    assert set(np.floor(drawn[:, 0, 0] + 1e-4)) == set(range(6))
    assert (drawn[:, 0, 0] % 1 > 0.005).all()  # never the start state
    others = [Critic(CriticConfig(), 4, LearnerContext(0), own) for _ in range(2)]
    syn = torch.zeros(4, 15, 4)
    for other, real in zip(others, (torch.zeros(4, 15, 4), torch.full((4, 15, 4), 7.0)), strict=True):
        other.update(real, syn)
    for a, b in zip(*(other.network.parameters() for other in others), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(DataError, match="none of the critic's 6 episodes has 21 steps"):
        critic.update(torch.zeros(4, 21, 4), torch.zeros(4, 21, 4))


def test_short_rollouts_use_the_lags_that_fit_and_divergence_is_named() -> None:
    critic = Critic(CriticConfig(), 2, LearnerContext(0))
    assert torch.isfinite(critic.loss(torch.zeros(3, 4, 2)))
    with pytest.raises(ValueError, match="shorter than the critic's shortest window"):
        critic.loss(torch.zeros(3, 3, 2))
    with pytest.raises(DivergenceError, match="update 0"):
        critic.update(torch.zeros(3, 10, 2), torch.full((3, 10, 2), np.nan))
