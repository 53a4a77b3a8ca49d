from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from phaseb.config.policy import AugmentationConfig
from phaseb.dynamics.validation import SKILL_TOLERANCE, ForecastSkill, shortfall, trusted_horizon
from phaseb.episodes.trajectories import Trajectories
from phaseb.policy.augmentation import accepted_steps
from phaseb.runtime.seeding import numpy_generator

CONFIG = AugmentationConfig(horizon=6)
TURN = np.array([[0.9, 0.3, 0.0], [-0.3, 0.9, 0.0], [0.0, 0.0, 1.0]], np.float32)
PUSH = np.array([[0.0, 0.4, 0.0]], np.float32)


@pytest.fixture(scope="module")
def recorded():
    """40 episodes of a driven oscillator beside a constant; reward is the position after the step."""
    g, f = numpy_generator(0, "skill test"), np.float32
    z = np.zeros((40, 21, 3), f)
    z[:, 0] = g.standard_normal((40, 3))
    actions = g.uniform(-1, 1, (40, 20, 1)).astype(f)
    for t in range(20):
        z[:, t + 1] = z[:, t] @ TURN.T + actions[:, t] @ PUSH
    lengths = np.where(np.arange(40) % 4 == 0, 5, 20)
    return Trajectories(
        z=z,
        actions=actions,
        rewards=z[:, 1:, 0].copy(),
        terminals=np.zeros((40, 20), f),
        lengths=lengths,
        ids=tuple(map(str, range(40))),
        splits=("dev",) * 40,
    )


def model(turn=TURN, sign=1.0, scale=1.0, frozen=None, bias=0.0):
    def imagine(z0, actions, horizon, generator):
        z, doubt = [z0], []
        for t in range(horizon):
            after = z[-1] @ torch.from_numpy(turn).T + actions(z[-1], t) @ torch.from_numpy(PUSH)
            after = after * scale + bias * (t + 1)
            if frozen is not None:
                after[:, frozen] = z0[:, frozen]
            z.append(after)
            doubt.append(torch.full((len(z0),), float(t)))
        z = torch.stack(z, 1)
        return SimpleNamespace(
            z=z, actions=None, rewards=sign * z[:, 1:, 0], terminals=None, uncertainty=torch.stack(doubt, 1)
        )

    return imagine


def steps(imagine, recorded):
    return trusted_horizon(CONFIG, ForecastSkill(imagine, recorded, CONFIG.horizon, 0).skills(SKILL_TOLERANCE))


def test_a_true_model_is_followed_all_the_way(recorded):
    skills = ForecastSkill(model(), recorded, 6, 0).skills(0.1)
    for values in skills.values():
        np.testing.assert_allclose(values, 1.0, atol=1e-5)
    assert steps(model(), recorded) == 6


def noisy(spread):
    """The true model, whose draws are beside the mean."""

    def imagine(z0, actions, horizon, generator):
        made = model()(z0, actions, horizon, generator)
        made.z[:, 1:, :2] += spread * torch.randn(made.z[:, 1:, :2].shape, generator=generator)
        return made

    return imagine


def test_noise_that_a_model_draws_is_no_error_of_its_forecast(recorded):
    one, other = (ForecastSkill(noisy(spread), recorded, 6, 0).skills(0.1) for spread in (0.0, 0.3))
    np.testing.assert_allclose(one["mean"], other["mean"], atol=0.05)
    assert (other["drawn"] < one["drawn"] - 0.05).any()
    assert steps(noisy(0.3), recorded) == 6


def test_a_model_of_noise_alone_is_not_followed(recorded):
    assert steps(noisy(5.0), recorded) == 0


@pytest.mark.parametrize(
    ("sabotage", "most"),
    [
        ({"sign": -1.0}, 0),
        ({"scale": 2.0}, 0),
        ({"frozen": 0}, 1),
        ({"frozen": 1}, 0),
        ({"turn": np.eye(3, dtype=np.float32)}, 1),
        ({"turn": TURN.T.copy()}, 0),
    ],
    ids=["flipped rewards", "scaled latents", "frozen 0", "frozen 1", "nothing moves", "turns the other way"],
)
def test_a_broken_model_is_not_followed(recorded, sabotage, most):
    """Not at all, or for the one step after which what it has wrong is no larger than what sensors have."""
    assert steps(model(**sabotage), recorded) <= most


def test_a_bias_that_grows_is_followed_until_it_tells(recorded):
    assert 0 < steps(model(bias=0.08), recorded) < 6
    assert steps(model(bias=1.0), recorded) == 0


def test_skill_is_the_textbook_s(recorded):
    """Against a direct computation for a biased model after two steps, over the windows that reach so far."""
    skills = ForecastSkill(model(bias=0.3), recorded, 3, 0).skills(0.1)
    error, naive, off, reward = [], [], [], []
    for episode in range(40):
        for t in range(int(recorded.lengths[episode]) - 1):
            z0, z2 = recorded.z[episode, t], recorded.z[episode, t + 2]
            one = z0 @ TURN.T + recorded.actions[episode, t] @ PUSH + 0.3
            two = one @ TURN.T + recorded.actions[episode, t + 1] @ PUSH + 0.6
            error.append((two - z2) ** 2)
            naive.append((z2 - z0) ** 2)
            off.append((two[0] - recorded.rewards[episode, t + 1]) ** 2)
            reward.append(recorded.rewards[episode, t + 1])
    dims = 1 - np.maximum(np.mean(error, 0) - 0.01, 0) / np.maximum(np.mean(naive, 0), 0.01)
    assert skills["mean"][1] == pytest.approx(dims.mean(), rel=1e-4)
    assert skills["worst"][1] == pytest.approx(dims.min(), rel=1e-4)
    assert skills["reward"][1] == pytest.approx(1 - np.mean(off) / np.var(reward), rel=0.02)


def test_only_what_would_be_used_counts(recorded):
    """A model that is wrong where it is unsure, and cut there, is as good as one that is right."""
    inner = model()

    def unsure(z0, actions, horizon, generator):
        rolled = inner(z0, actions, horizon, generator)
        wrong = z0[:, 0] > 0
        rolled.rewards[wrong] *= -1
        rolled.uncertainty[:] = wrong[:, None].float()
        return rolled

    forecasts = ForecastSkill(unsure, recorded, 4, 0)
    assert forecasts.skills(0.1)["reward"].max() < 0.5
    np.testing.assert_allclose(forecasts.skills(0.1, np.full(4, 0.5))["reward"], 1.0, atol=1e-5)


def test_sensor_noise_is_forgiven_and_a_constant_costs_nothing(recorded):
    g = np.random.default_rng(0)
    noisy = replace(recorded, z=recorded.z + 0.05 * g.standard_normal(recorded.z.shape).astype(np.float32))
    assert steps(model(), noisy) == 6


def test_limits_are_quantiles_over_the_windows_that_exist(recorded):
    np.testing.assert_allclose(ForecastSkill(model(), recorded, 6, 0).disagreement_limits(0.9), np.arange(6.0))
    short = recorded.select(recorded.lengths == 5)
    assert ForecastSkill(model(), short, 6, 0).disagreement_limits(0.9)[5] == -np.inf, "nothing is known of step 6"
    assert trusted_horizon(CONFIG, ForecastSkill(model(), short, 6, 0).skills(0.1)) == 5


@pytest.mark.parametrize("unknown", [0.02, 0.5, 1.0])
def test_what_nothing_is_known_of_is_beyond_any_limit(recorded, unknown):
    """However often recorded actions lead there: a quantile of infinities would let all of it pass, or be no number."""

    def imagine(z0, actions, horizon, generator):
        rolled = model()(z0, actions, horizon, generator)
        rolled.uncertainty[: round(unknown * len(z0))] = torch.inf
        return rolled

    forecasts = ForecastSkill(imagine, recorded, 6, 0)
    limits = forecasts.disagreement_limits(0.99)
    np.testing.assert_array_equal(limits, np.arange(6.0) if unknown < 1 else np.full(6, -np.inf))
    beyond = np.full((1, 6), np.inf)
    assert accepted_steps(beyond, np.zeros((1, 6)), limits) == 0
    if unknown < 1:
        assert trusted_horizon(CONFIG, forecasts.skills(0.1, limits)) == 6, "and what is known is followed"


def test_a_model_that_tells_the_first_reward_badly_is_not_followed_at_all():
    """As the report's recipe: its reward skill is low at once and then fades slowly."""

    def told(first):
        return {
            "mean": np.full(4, 0.9),
            "worst": np.full(4, 0.5),
            "drawn": np.zeros(4),
            "reward": np.array([0.4, 0.2, 0.15, 0.05]),
            "reward_surely": np.array([first, 0.1, 0.1, 0.0]),
        }

    config = CONFIG.model_copy(update={"min_reward_skill": 0.1})
    assert trusted_horizon(config, told(0.25)) == 0
    assert shortfall(config, told(0.25)) == (
        "its forecast of rewards, in 19 of 20 resamples of the episodes, has a skill of 0.25, 0.3 is needed"
    )
    assert shortfall(config, told(0.35)) == ""
    assert shortfall(config, told(0.35) | {"worst": np.full(4, 0.01)}).startswith(
        "its forecast of the worst latent has"
    )
    assert trusted_horizon(config, told(float("nan"))) == 0
    assert trusted_horizon(config, told(0.35)) == 3
    assert trusted_horizon(config.model_copy(update={"min_reward_skill": -1e9}), told(-2.0)) == 4
    assert trusted_horizon(config.model_copy(update={"min_reward_skill": None}), told(-np.inf)) == 4


def test_few_episodes_are_not_sure_of_a_skill(recorded):
    """The same episodes five times over have the same skill, and a bound much nearer below it."""
    inner = model()

    def wavering(z0, actions, horizon, generator):
        rolled = inner(z0, actions, horizon, generator)
        rolled.rewards *= 1 + torch.sin(50 * z0[:, :1])
        return rolled

    few = ForecastSkill(wavering, recorded.select(np.arange(8)), 1, 0).skills(0.1)
    many = ForecastSkill(wavering, recorded.select(np.tile(np.arange(8), 5)), 1, 0).skills(0.1)
    assert many["reward"] == pytest.approx(few["reward"], rel=1e-5)
    assert 0 < many["reward"] - many["reward_surely"] < 0.6 * (few["reward"] - few["reward_surely"])


def test_the_unit_of_rewards_is_no_skill(recorded):
    skills = []
    for unit in (1.0, 1e-8):
        paid = replace(recorded, rewards=(unit * recorded.rewards).astype(np.float32))
        forecasts = ForecastSkill(model(sign=unit, bias=0.05), paid, 6, 0)
        skills.append(forecasts.skills(0.1))
    for name in ("reward", "reward_surely"):
        np.testing.assert_allclose(skills[0][name], skills[1][name], rtol=1e-4)
    assert 0.5 < skills[0]["reward"][0] < 1
