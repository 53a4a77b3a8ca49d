"""Which training episodes the critic, the gate and the judges see: each its own."""

from phaseb.config.dynamics import WorldModelConfig
from phaseb.config.root import Config
from phaseb.episodes.trajectories import Trajectories
from phaseb.trust.splits import CRITIC_SHARE, deal_episodes


def has_critic(config: WorldModelConfig) -> bool:
    """Whether the world model's objective asks for a critic, now or later."""
    return any(stage.weights.trust > 0 or stage.weights.feat > 0 for _, stage in config.stages())


def critic_episodes(config: Config, train: Trajectories) -> Trajectories | None:
    """The critic's real side; None where there is no critic."""
    return _dealt(config, train)[0]


def gate_episodes(config: Config, train: Trajectories) -> Trajectories:
    """The gate's real side: all training episodes where there is no critic, else those that the critic never saw."""
    return _dealt(config, train)[1]


def _dealt(config: Config, train: Trajectories) -> tuple[Trajectories | None, Trajectories]:
    if not has_critic(config.world_model):
        return None, train
    dealt = deal_episodes(train.ids, CRITIC_SHARE, config.run.seed)
    critic = set(dealt["critic"])
    own = [i for i, name in enumerate(train.ids) if name in critic]
    rest = [i for i, name in enumerate(train.ids) if name not in critic]
    return train.select(own), train.select(rest)
