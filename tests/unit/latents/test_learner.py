"""The encoder's training: reproducible, independent of the number of workers, resumable, honest about bad input."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from phaseb.errors import DataError, DivergenceError
from phaseb.latents.learner import make_learner
from phaseb.latents.padding import episode_arrays
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.checkpoint import flatten, unflatten


def weights(learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learner.modules.parameters()])


def train(config, data, seed=0, steps=None):
    learner = make_learner(config, data, WorkerContext(seed))
    for step in range(steps or learner.num_steps):
        learner.step(step)
    return learner


@pytest.mark.parametrize("observation", ["frames", "both"])
def test_same_seed_same_weights_other_seed_others(small_config, episodes, observation):
    data = episode_arrays(episodes[:6], None, observation)
    a, b, c = (weights(train(small_config, data, seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


def test_training_lowers_the_loss(small_config, episodes, monkeypatch):
    monkeypatch.setattr("phaseb.latents.learner.HORIZONS", (1, 4))
    config = small_config.model_copy(update={"num_steps": 150, "hidden": 32})
    learner = make_learner(config, episode_arrays(episodes[:20], None, "frames"), WorkerContext(0))
    rows = [learner.step(step) for step in range(150)]
    assert rows[-1]["latents/loss/contrast"] < 0.6 * rows[0]["latents/loss/contrast"]
    assert rows[-1]["latents/accuracy"] > 0.4


@dataclass(frozen=True)
class Recording(WorkerContext):
    """A worker that keeps its gradients and then uses the given ones."""

    kept: list[torch.Tensor] = field(default_factory=list)
    given: list[torch.Tensor] = field(default_factory=list)

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        grads = [p.grad for p in parameters if p.grad is not None]
        self.kept.extend(g.clone() for g in grads)
        for grad, new in zip(grads, self.given or grads, strict=True):
            grad.copy_(new)

    def all_reduce_mean(self, value):
        return value


def test_two_workers_have_the_mean_gradient_of_one(small_config, episodes):
    data = episode_arrays(episodes[:6], None, "both")
    one, left, right = (Recording(0), Recording(0, 0, 2), Recording(0, 1, 2))
    for context in (one, left, right):
        make_learner(small_config, data, context).step(0)
    for whole, a, b in zip(one.kept, left.kept, right.kept, strict=True):
        torch.testing.assert_close((a + b) / 2, whole, atol=2e-4, rtol=2e-3)
    assert any(not torch.allclose(a, b) for a, b in zip(left.kept, right.kept, strict=True))


def test_goes_on_from_a_checkpoint_as_if_nothing_had_happened(small_config, episodes):
    data = episode_arrays(episodes[:6], None, "both")
    whole = train(small_config, data)
    half = train(small_config, data, steps=2)
    state = unflatten(*flatten(half.state_dict()))
    resumed = make_learner(small_config, data, WorkerContext(0))
    resumed.load_state_dict(state)
    for step in range(2, resumed.num_steps):
        resumed.step(step)
    torch.testing.assert_close(weights(resumed), weights(whole))


def test_dev_episodes_are_looked_at_but_never_trained_on(small_config, episodes):
    chosen = [replace(e, split="dev" if i >= 4 else "train") for i, e in enumerate(episodes[:6])]
    twisted = [replace(e, state=e.state * -7 + 3, frames=255 - e.frames) if e.split == "dev" else e for e in chosen]
    a, b = (train(small_config, episode_arrays(x, None, "both")) for x in (chosen, twisted))
    assert torch.equal(weights(a), weights(b))
    assert torch.equal(a.encoder.state_mean, b.encoder.state_mean)
    assert a.validate(0)["latents/validation/contrast"] != b.validate(0)["latents/validation/contrast"]
    assert train(small_config, episode_arrays(episodes[:6], None, "frames"), steps=1).validate(0) == {}


@pytest.mark.parametrize("count", [1, 2])
def test_few_and_short_episodes(small_config, episodes, count):
    short = [
        replace(e, state=e.state[:4], frames=e.frames[:4], actions=e.actions[:3], rewards=e.rewards[:3])
        for e in episodes[:count]
    ]
    learner = train(small_config, episode_arrays(short, None, "both"))
    assert torch.isfinite(weights(learner)).all()


def test_a_sensor_that_never_moves_does_not_explode(small_config, episodes):
    still = [replace(e, state=np.concatenate([e.state, np.full_like(e.state[:, :1], 1e4)], 1)) for e in episodes[:6]]
    learner = train(small_config, episode_arrays(still, None, "state"))
    moved = torch.from_numpy(still[0].state[:1].copy())
    moved[0, -1] += 1.0
    assert learner.encoder.normalise(moved)[0, -1].abs() < 2


def test_padding_is_never_seen(small_config, episodes):
    """What stands behind an episode's end cannot change the training."""
    ragged = [
        replace(e, state=e.state[: n + 1], frames=e.frames[: n + 1], actions=e.actions[:n], rewards=e.rewards[:n])
        for e, n in zip(episodes[:5], (5, 9, 14, 22, 40), strict=True)
    ]
    data = episode_arrays(ragged, None, "both")
    spoilt = {name: array.copy() for name, array in data.items()}
    for i, length in enumerate(data["lengths"]):
        spoilt["state"][i, length + 1 :] = 1e3
        spoilt["frames"][i, length + 1 :] = 255
        spoilt["actions"][i, length:] = 1e3
    a, b = train(small_config, data), train(small_config, spoilt)
    assert torch.equal(weights(a), weights(b))
    assert torch.equal(a.encoder.state_mean, b.encoder.state_mean)


def test_divergence_names_the_step(small_config, episodes):
    learner = make_learner(small_config, episode_arrays(episodes[:4], None, "frames"), WorkerContext(0))
    with torch.no_grad():
        learner.encoder.linear.bias.fill_(torch.nan)
    with pytest.raises(DivergenceError, match="step 3"):
        learner.step(3)


def test_states_alone_are_standardised_and_nothing_is_learned(small_config, episodes):
    learner = train(small_config, episode_arrays(episodes[:6], None, "state"))
    assert learner.num_steps == 0
    assert not list(learner.encoder.parameters())
    state = torch.from_numpy(np.concatenate([e.state for e in episodes[:6]]))
    normal = learner.encoder.normalise(state)
    torch.testing.assert_close(normal.mean(0), torch.zeros(state.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std(0, correction=0), torch.ones(state.shape[1]), atol=1e-4, rtol=0)


def test_what_episodes_lack_is_said(episodes):
    blind = replace(episodes[0], frames=None)
    with pytest.raises(DataError, match="no frames"):
        episode_arrays([episodes[1], blind], None, "both")
    assert "frames" not in episode_arrays([episodes[1], blind], None, "auto")
    with pytest.raises(DataError, match="no episodes"):
        episode_arrays([], None)
    odd = replace(episodes[0], state=episodes[0].state[:, :3])
    with pytest.raises(DataError, match=odd.id):
        episode_arrays([episodes[1], odd], None, "state")
