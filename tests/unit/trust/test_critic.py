import numpy as np
import pytest
import torch

from phaseb.config.trust import DiscriminatorConfig
from phaseb.errors import DataError, DivergenceError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.checkpoint import flatten, unflatten
from phaseb.trust.discriminator import Discriminator, WindowNetwork


def batches(oscillators, noise: float, seed: int) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return torch.from_numpy(oscillators(32, seed=seed, num_dimensions=4, noise=noise)[:, 1:])


@pytest.mark.parametrize("form", ["windows", "report"])
def test_the_critic_learns_and_its_loss_falls_where_rollouts_look_real(oscillators, form, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("phaseb.trust.discriminator.LEARNING_RATE", 5e-3)
    discriminator = Discriminator(DiscriminatorConfig(form=form), 4, WorkerContext(0))
    for i in range(60):
        metrics = discriminator.update(batches(oscillators, 0.02, i), batches(oscillators, 0.5, 10_000 + i))
    assert metrics["trust_real"] > 0.6 > 0.4 > metrics["trust_syn"]
    good, bad = batches(oscillators, 0.02, 999), batches(oscillators, 0.5, 998)
    assert discriminator.loss(good) < discriminator.loss(bad)
    bad.requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator.loss(bad), bad)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    assert discriminator.loss((bad - 0.1 * len(bad) * gradient).detach()) < discriminator.loss(bad)


def test_features_of_equals_match_and_of_a_wider_rollout_do_not(oscillators) -> None:  # type: ignore[no-untyped-def]
    discriminator = Discriminator(DiscriminatorConfig(), 4, WorkerContext(0))
    real, other = (torch.from_numpy(oscillators(400, seed=s, num_dimensions=4)[:, 1:]) for s in (1, 2))
    mean = discriminator.features(real).mean(0)
    same = (discriminator.features(other).mean(0) - mean).square().sum()
    wide = (discriminator.features(1.9 * other).mean(0) - mean).square().sum()
    assert wide > 20 * same


def test_every_layer_of_the_window_critic_is_bounded() -> None:
    discriminator = Discriminator(DiscriminatorConfig(), 3, WorkerContext(0))
    assert isinstance(discriminator.network, WindowNetwork)
    for i in range(60):
        generator = torch.Generator().manual_seed(i)
        discriminator.update(*(torch.randn(8, 30, 3, generator=generator) * s for s in (1, 3)))
    discriminator.network.eval()
    for module in discriminator.network.modules():
        if isinstance(module, torch.nn.Linear):
            assert torch.linalg.matrix_norm(module.weight, ord=2) < 1.1


def test_a_resumed_critic_goes_on_as_if_never_stopped(oscillators) -> None:  # type: ignore[no-untyped-def]
    def run(discriminator: Discriminator, start: int, stop: int) -> None:
        for i in range(start, stop):
            discriminator.update(batches(oscillators, 0.02, i), batches(oscillators, 0.5, 100 + i))

    whole, first = (Discriminator(DiscriminatorConfig(), 4, WorkerContext(3)) for _ in range(2))
    run(whole, 0, 6)
    run(first, 0, 3)
    resumed = Discriminator(DiscriminatorConfig(), 4, WorkerContext(3))
    resumed.load_state_dict(unflatten(*flatten(first.state_dict())))
    run(resumed, 3, 6)
    for a, b in zip(whole.network.state_dict().values(), resumed.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    fresh = Discriminator(DiscriminatorConfig(), 4, WorkerContext(3))
    fresh.load_state_dict(unflatten(*flatten(fresh.state_dict())))  # before its first update
    assert fresh.num_updates == 0


def test_scoring_leaves_the_critic_as_it_was(oscillators) -> None:  # type: ignore[no-untyped-def]
    discriminator = Discriminator(DiscriminatorConfig(), 4, WorkerContext(0))
    before = {name: value.clone() for name, value in discriminator.network.state_dict().items()}
    discriminator.loss(batches(oscillators, 0.1, 0))
    discriminator.features(batches(oscillators, 0.1, 0))
    for name, value in discriminator.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_critic_with_episodes_of_its_own_never_learns_from_others(trajectories) -> None:  # type: ignore[no-untyped-def]
    own = trajectories(6, seed=0, num_steps=20)
    own.z[:] = np.arange(6)[:, None, None] + np.arange(21)[None, :, None] / 100  # each value names episode and step
    discriminator = Discriminator(DiscriminatorConfig(), 4, WorkerContext(0), own)
    drawn = discriminator._own_episodes(own, 200, 15).numpy()
    assert drawn.shape == (200, 15, 4)
    assert np.allclose(np.diff(drawn, axis=1), 0.01, atol=1e-5)
    assert set(np.floor(drawn[:, 0, 0] + 1e-4)) == set(range(6))
    assert (drawn[:, 0, 0] % 1 > 0.005).all()  # never the start state
    others = [Discriminator(DiscriminatorConfig(), 4, WorkerContext(0), own) for _ in range(2)]
    syn = torch.zeros(4, 15, 4)
    for other, real in zip(others, (torch.zeros(4, 15, 4), torch.full((4, 15, 4), 7.0)), strict=True):
        other.update(real, syn)
    for a, b in zip(*(other.network.parameters() for other in others), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(DataError, match="none of the discriminator's 6 episodes has 21 steps"):
        discriminator.update(torch.zeros(4, 21, 4), torch.zeros(4, 21, 4))


def test_short_rollouts_use_the_lags_that_fit_and_divergence_is_named() -> None:
    discriminator = Discriminator(DiscriminatorConfig(), 2, WorkerContext(0))
    assert torch.isfinite(discriminator.loss(torch.zeros(3, 4, 2)))
    with pytest.raises(ValueError, match="shorter than the discriminator's shortest window"):
        discriminator.loss(torch.zeros(3, 3, 2))
    with pytest.raises(DivergenceError, match="update 0"):
        discriminator.update(torch.zeros(3, 10, 2), torch.full((3, 10, 2), np.nan))
