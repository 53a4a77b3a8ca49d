"""Which training episodes the discriminator, the gate and the judges see: each its own."""

from phaseb.config.dynamics import GRUConfig
from phaseb.config.root import Config
from phaseb.config.trust import DISCRIMINATOR_SHARE
from phaseb.episodes.trajectories import Trajectories
from phaseb.trust.splits import split_episodes


def has_discriminator(config: GRUConfig) -> bool:
    """Whether the ensemble's objective asks for a discriminator, now or later."""
    return any(stage.weights.trust > 0 or stage.weights.feat > 0 for _, stage in config.stages())


def discriminator_episodes(config: Config, train: Trajectories) -> Trajectories | None:
    """The discriminator's real side; None where there is none."""
    return _split(config, train)[0]


def gate_episodes(config: Config, train: Trajectories) -> Trajectories:
    """The gate's real side: all training episodes where there is no discriminator, else those that it never saw."""
    return _split(config, train)[1]


def _split(config: Config, train: Trajectories) -> tuple[Trajectories | None, Trajectories]:
    if "gru" not in config.generators or not has_discriminator(config.dynamics.gru):
        return None, train
    own, gate = split_episodes(train.ids, DISCRIMINATOR_SHARE, config.run.seed)
    sides = [[i for i, name in enumerate(train.ids) if name in side] for side in (own, gate)]
    return train.select(sides[0]), train.select(sides[1])
