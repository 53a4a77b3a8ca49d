"""Latent actions on a system whose actions are known: they are found, bottlenecked, and replaced by a prior."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from phaseb.config.encoder import LatentActionsConfig
from phaseb.latents.latent_actions import fit_latent_actions
from phaseb.runtime.seeding import torch_generator

DIRECTIONS = torch.tensor([[0.5, 0.2, 0.0, 0.1], [0.0, -0.3, 0.5, 0.1]])


def episode(index: int, steps: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """z' = 0.9 z + B a + noise, with a pushing towards zero plus exploration."""
    g = torch_generator(7, index)
    z, actions = [torch.randn(4, generator=g)], []
    for _ in range(steps):
        a = torch.tanh(torch.stack([-z[-1][0], z[-1][2]]) + 0.7 * torch.randn(2, generator=g))
        actions.append(a)
        z.append(0.9 * z[-1] + a @ DIRECTIONS + 0.02 * torch.randn(4, generator=g))
    return torch.stack(z), torch.stack(actions)


@pytest.fixture(scope="module")
def data():
    pairs = [episode(i) for i in range(24)]
    return [z for z, _ in pairs], [a for _, a in pairs]


CONFIG = LatentActionsConfig(num_dims=2, num_steps=600)


@pytest.fixture(scope="module")
def codes_only(data):
    return fit_latent_actions(CONFIG, data[0][:18], [None] * 18, seed=0)


def held_out(data):
    z, a = torch.stack(data[0][18:]), torch.stack(data[1][18:])
    return z[:, :-1].reshape(-1, 4), z[:, 1:].reshape(-1, 4), a.reshape(-1, 2)


def r_squared(truth, guess):
    return float(1 - (truth - guess).square().sum() / (truth - truth.mean(0)).square().sum())


def test_codes_explain_the_step_and_the_real_action(data, codes_only):
    now, after, action = held_out(data)
    code = torch.tanh(codes_only.infer(now, after)[0])
    assert r_squared(after - now, codes_only.predict(now, code) - now) > 0.9
    x = torch.cat([code, now, torch.ones(len(now), 1)], dim=1)
    fit = torch.linalg.lstsq(x, action).solution
    assert r_squared(action, x @ fit) > 0.8


def test_without_the_code_the_step_is_not_explained(data, codes_only):
    now, after, _ = held_out(data)
    shuffled = torch.tanh(codes_only.infer(now, after)[0])[torch.randperm(len(now), generator=torch_generator(0, "p"))]
    assert r_squared(after - now, codes_only.predict(now, shuffled) - now) < 0.7


def test_a_tighter_bottleneck_lets_less_through(data, monkeypatch):
    now, after, _ = held_out(data)
    leaks = []
    for weight in (0.001, 5.0):
        monkeypatch.setattr("phaseb.latents.latent_actions.FREE_BOTTLENECK", weight)
        config = CONFIG.model_copy(update={"num_steps": 300})
        model = fit_latent_actions(config, data[0][:18], [None] * 18, seed=0)
        code = torch.tanh(model.infer(now, after)[0])
        leaks.append(r_squared(after - now, model.predict(now, code) - now))
    assert leaks[0] > leaks[1] + 0.2


def test_the_prior_matches_what_was_done_without_seeing_the_future(data, codes_only):
    now, after, _ = held_out(data)
    mean, log_std = codes_only.prior_of(now)
    drawn = torch.tanh(mean + log_std.exp() * torch.randn(mean.shape, generator=torch_generator(0, "draw")))
    recovered = torch.tanh(codes_only.infer(now, after)[0])
    assert drawn.shape == (len(now), 2)
    torch.testing.assert_close(drawn.mean(0), recovered.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(drawn.std(0), recovered.std(0), atol=0.15, rtol=0.25)
    # a recovered code explains its own step; a code from the prior cannot know it
    told = (codes_only.predict(now, recovered) - after).square().mean()
    guessed = (codes_only.predict(now, drawn) - after).square().mean()
    assert guessed > 2 * told


def test_decodes_to_real_actions_where_some_are_known(data):
    known = [a if i < 9 else None for i, a in enumerate(data[1][:18])]
    model = fit_latent_actions(CONFIG, data[0][:18], known, seed=0)
    guess = np.concatenate([model.recover(z.numpy(), 0, str(i)) for i, z in enumerate(data[0][18:])])
    assert r_squared(torch.cat(data[1][18:]), torch.from_numpy(guess)) > 0.7
    assert model.follow(torch_generator(0))(data[0][0], 0).shape == (51, 2)


def test_recovered_actions_depend_on_seed_and_episode_only(data, codes_only):
    z = data[0][0].numpy()
    np.testing.assert_array_equal(codes_only.recover(z, 0, "a"), codes_only.recover(z, 0, "a"))
    assert not np.array_equal(codes_only.recover(z, 0, "a"), codes_only.recover(z, 0, "b"))


def test_episodes_without_actions_get_some(small_config, episodes):
    from phaseb.latents.fit import fit_encoder_model
    from phaseb.latents.learner import make_learner
    from phaseb.latents.padding import episode_arrays
    from phaseb.nn.data_parallel import WorkerContext

    mixed = [replace(e, actions=None) if i % 2 else e for i, e in enumerate(episodes[:6])]
    learner = make_learner(small_config, episode_arrays(mixed, None, "state"), WorkerContext(0))
    out = fit_encoder_model(small_config, learner.encoder, mixed).encode(mixed)
    assert out.actions.shape == (6, 40, 1)
    assert (np.abs(out.actions[1]) > 0).mean() > 0.9
    np.testing.assert_array_equal(out.actions[0], mixed[0].actions)
    mute = [replace(e, actions=None) for e in mixed]
    learner = make_learner(small_config, episode_arrays(mute, None, "state"), WorkerContext(0))
    assert fit_encoder_model(small_config, learner.encoder, mute).encode(mute).actions.shape == (6, 40, 3)


def test_latents_that_never_move(data):
    still = [torch.zeros(10, 3), torch.zeros(4, 3)]
    model = fit_latent_actions(CONFIG.model_copy(update={"num_steps": 5}), still, [None, None], seed=0)
    assert np.isfinite(model.recover(still[0].numpy(), 0, "x")).all()
