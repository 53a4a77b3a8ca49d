"""Discriminator and gate never share an episode; without a critic the gate has them all."""

import functools

from episode_strategies import make_trajectories

from phaseb.config.root import Config
from phaseb.nn.data_parallel import WorkerContext
from phaseb.stages.dynamics import learner_with_discriminator
from phaseb.stages.splits import discriminator_episodes, gate_episodes


def with_critic(trust: float) -> Config:
    model = {
        "weights": {"trust": trust},
        "num_steps": 2,
        "num_members": 1,
        "hidden_size": 8,
        "head_size": 8,
        "discriminator_from": 0.0,
        "horizon": {"steps": 12, "start": 12},
        "one_step_window": 5,
    }
    return Config.model_validate({"dynamics": {"gru": model}})


def test_critic_and_gate_never_share_an_episode():
    train = make_trajectories([12] * 12)
    critic, gate = discriminator_episodes(with_critic(0.1), train), gate_episodes(with_critic(0.1), train)
    assert critic is not None
    assert not set(critic.ids) & set(gate.ids)
    assert set(critic.ids) | set(gate.ids) == set(train.ids)


def test_without_a_critic_the_gate_has_them_all():
    train = make_trajectories([12] * 12)
    assert discriminator_episodes(with_critic(0.0), train) is None
    assert gate_episodes(with_critic(0.0), train).ids == train.ids


def test_the_world_model_trains_with_a_critic_of_its_own():
    config, train = with_critic(0.1), make_trajectories([12] * 12)
    own = discriminator_episodes(config, train)
    make = functools.partial(learner_with_discriminator, config.dynamics.gru, config.trust.discriminator, own)
    learner = make(train, WorkerContext(0))
    assert learner.step(0)["dynamics/gru/loss/trust"] > 0
