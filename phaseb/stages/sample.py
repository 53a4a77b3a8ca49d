"""The episodes that a stage is fitted to or looks at, out of a run's latents."""

from phaseb.config.root import Config
from phaseb.episodes.streaming import sample_trajectories
from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.storage import Store


def fit_sample(config: Config, store: Store, *splits: str, min_steps: int = 0) -> Trajectories:
    """At most `memory.fit_episodes` of each split, evenly drawn: the same for whoever asks in a run.

    Args:
        min_steps: shorter ones are not drawn.
    """
    latents = store.folder("latents")
    return sample_trajectories(latents, splits, config.memory.fit_episodes, config.run.seed, min_steps)
