"""phaseb from Python: the same jobs as on the command line, and what they trained, in NumPy arrays.

N episodes, T steps, D latent dimensions, A action dimensions.
"""

import contextlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.data import IMPORTED, EpisodesConfig
from phaseb.config.load import load_config, nearest
from phaseb.config.registry import JOBS, READERS
from phaseb.dynamics.custom import WorldModels, load_world_model
from phaseb.episodes.episode import Episode
from phaseb.episodes.inventory import log_inventory
from phaseb.episodes.shards import read_trajectories
from phaseb.episodes.sources import EpisodeSource, inventory_of, open_source
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import ConfigError
from phaseb.pipeline.result import Callback, RunResult
from phaseb.runtime.checkpoint import checkpoint_digest
from phaseb.runtime.run_lock import run_lock
from phaseb.runtime.seeding import torch_generator
from phaseb.runtime.storage import Store
from phaseb.trust.model import TrustBundle

Floats = NDArray[np.float32]


def run(config: str | Path | None = None, *settings: str, job: str = "run", callbacks: Sequence[Callback] = ()
        ) -> RunResult:  # fmt: skip
    """Run the pipeline, or one job of it, as the command line does.

    Stages that are up to date are skipped, and a run that was killed goes on where it stopped. Ray is started where
    none is up, and stopped again.

    Args:
        config: a YAML file of differences from the defaults; None: the defaults.
        settings: `key.path=value` words that win over the file.
        job: `run` for all of it, or the name of one stage (`phaseb --help` lists them).
        callbacks: told of stages and of progress.

    Returns:
        the job's numbers, and where its outputs lie below `run.dir`.

    Raises:
        ConfigError: for an unknown job, for all faults of the config at once, or where another process works in
            `run.dir`.
        DataError: where the data are bad, or an earlier stage is missing.
        ClusterError: where the cluster cannot do what was asked.

    Examples:
        >>> import phaseb
        >>> result = phaseb.run("demo.yaml", "report.title=Line 3")
        >>> result.metrics["shipped"] in result.metrics["arms"]
        True
        >>> result.outputs["page"]
        'report/index.html'
    """
    if job not in JOBS:
        raise ConfigError(f"no job {job!r}{nearest(job, list(JOBS))}")
    resolved = load_config(config, settings)
    module = importlib.import_module(JOBS[job][0])
    with contextlib.nullcontext() if job in READERS else run_lock(resolved.run.dir):
        result: RunResult = module.run(resolved, callbacks=callbacks)
    return result


def load_episodes(path: str | Path, source: str = "", columns: Mapping[str, Any] | None = None) -> Iterator[Episode]:
    """The recordings at a path, one in memory at a time.

    After the last one, a warning of the logger `phaseb` counts what was recorded and is part of no episode.

    Args:
        path: an NPZ, HDF5 or Parquet file; a Minari or LeRobot folder; a run directory; or the URI of any of these.
        source: the format, where it should not be told from what lies there; or `module:Class` of your own.
        columns: which columns mean what, by the names of `episodes.columns`: `{"image": "observation.images.top"}`.

    Raises:
        ConfigError: where the format cannot be told, or a column setting does not exist.
        DataError: for whatever is wrong with the data, naming file and episode.

    Examples:
        >>> import phaseb
        >>> for episode in phaseb.load_episodes("swings.npz"):
        ...     print(episode.id, len(episode), episode.state.shape, episode.actions.shape)
        swings-000000 20 (21, 3) (20, 1)
        swings-000001 20 (21, 3) (20, 1)
    """
    text = str(path)
    found, place = (source, text) if source else recognise(text)
    try:
        config = EpisodesConfig.model_validate({"source": found, "path": place, "columns": dict(columns or {})})
    except ValueError as error:
        raise ConfigError(f"load_episodes: {' '.join(str(error).split())[:300]}") from error
    opened = open_source(config)
    return _counted(opened, opened.read(range(len(opened.entries()))))


def _counted(source: EpisodeSource, read: Iterator[Episode]) -> Iterator[Episode]:
    """All episodes of a source; behind the last one, the log says what of the recordings none of them holds."""
    episodes = steps = 0
    for episode in read:
        episodes, steps = episodes + 1, steps + len(episode)
        yield episode
    log_inventory(inventory_of(source), episodes, steps)


def recognise(path: str) -> tuple[str, str]:
    """The format of what lies at a path, and the path to read it from.

    Raises:
        ConfigError: where it is none that is read.
    """
    store = Store.at(path)
    endings = {".npz": "npz", ".hdf5": "hdf5", ".h5": "hdf5", ".parquet": "parquet"}
    for ending, source in endings.items():
        if path.partition("?")[0].endswith(ending) and not store.exists("data"):
            return source, path
    marks = {"lerobot": ("meta", "info.json"), "minari": ("data", "metadata.json")}
    for source, parts in marks.items():
        if store.exists(*parts):
            return source, path
    for place in () if store.is_file() else (store, store.folder("episodes")):
        if any(name.startswith("part-") for name in place.names(suffix=".parquet")):
            return "parquet", path if place is store else f"{path.rstrip('/')}/episodes"
    raise ConfigError(f"{path} is of no format that can be recognised; give source= one of {', '.join(IMPORTED)}")


def load_latents(run: str | Path, *splits: str) -> Trajectories:
    """The real episodes of a run in latent space: z (N, T+1, D), actions (N, T, A) in [-1, 1], rewards (N, T).

    Args:
        run: a run directory whose `encode` stage is done.
        splits: of "train", "dev", "test"; all of them where none is named. The sealed test is for the last look.

    Raises:
        DataError: where there are none.

    Examples:
        >>> import phaseb
        >>> dev = phaseb.load_latents("runs/demo", "dev")
        >>> dev.z.shape[1] == dev.actions.shape[1] + 1
        True
    """
    return read_trajectories(Store.at(str(run)).folder("latents"), splits)


class WorldModel:
    """The world model that a run trained: an ensemble of latent dynamics that imagines whole episodes.

    Examples:
        >>> import phaseb
        >>> model = phaseb.WorldModel.load("runs/demo")
        >>> real = phaseb.load_latents("runs/demo", "dev")
        >>> made = model.rollout(real.z[:, 0], real.actions, seed=1, recorded=True)
        >>> made.z.shape == real.z.shape, made.uncertainty.shape == real.rewards.shape
        (True, True)
    """

    def __init__(self, bundle: WorldModels, digest: str = "") -> None:
        self.bundle, self.digest = bundle, digest

    @classmethod
    def load(cls, run: str | Path, device: str = "cpu") -> "WorldModel":
        """The model of a run directory.

        Raises:
            DataError: where the `world-model` stage is not done, or the checkpoint was altered.
        """
        store = Store.at(str(run)).folder("world_model")
        return cls(load_world_model(store, device), checkpoint_digest(store))

    @property
    def latent_size(self) -> int:
        """D."""
        return self.bundle.latent_size

    @property
    def action_size(self) -> int:
        """A."""
        return self.bundle.action_size

    def rollout(self, starts: Floats, actions: Floats, seed: int = 0, recorded: bool = False) -> Trajectories:
        """Imagine N episodes of T steps; each stays with one member of the ensemble.

        Args:
            starts: (N, D) latents to start from.
            actions: (N, T, A) in [-1, 1].
            seed: of the members chosen and of noise; the same seed gives the same episodes.
            recorded: whether the actions were recorded from these very starts. They then answer to what happened, and
                the model may read ahead of them; actions that you chose answer to nothing ahead.

        Returns:
            latents, rewards, ends, and the ensemble's `uncertainty` (N, T); ungated until `TrustGate.score`.

        Raises:
            ValueError: for arrays of other shapes.
        """
        starts, actions = np.asarray(starts, np.float32), np.asarray(actions, np.float32)
        wanted = ((len(starts), self.latent_size), (len(starts), self.action_size))
        if starts.shape != wanted[0] or actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != wanted[1]:
            raise ValueError(f"starts {starts.shape} and actions {actions.shape}; wanted (N, {self.latent_size}) and "
                             f"(N, T, {self.action_size})")  # fmt: skip
        num, steps = actions.shape[:2]
        generator = torch_generator(seed, "library", "rollout")
        known = torch.full((num,), recorded)
        made = self.bundle.rollout(
            torch.from_numpy(starts), torch.from_numpy(actions), steps, generator, foresight=known
        )
        return Trajectories(
            z=made.z.cpu().numpy(), actions=actions, rewards=made.rewards.cpu().numpy(),
            terminals=made.terminals.cpu().numpy(), lengths=made.lengths, splits=("",) * num,
            ids=tuple(f"rollout-{i:06d}" for i in range(num)), lineage={"model": (self.digest,) * num},
            uncertainty=made.uncertainty.cpu().numpy(),
        )  # fmt: skip


class TrustGate:
    """The gate that a run trained: how far each episode and step can be trusted, and what weight it gets.

    It scores rollouts of any world model over the same latents, not only of the run's own.

    Examples:
        >>> import phaseb
        >>> gate = phaseb.TrustGate.load("runs/demo")
        >>> real = phaseb.load_latents("runs/demo", "dev")
        >>> made = phaseb.WorldModel.load("runs/demo").rollout(real.z[:, 0], real.actions, recorded=True)
        >>> scored = gate.score(made)
        >>> scored.trust.shape == scored.weights.shape == made.rewards.shape
        True
        >>> bool((0 <= scored.trust).all() and (scored.trust <= 1).all() and (scored.weights >= 0).all())
        True
    """

    def __init__(self, bundle: TrustBundle) -> None:
        self.bundle = bundle

    @classmethod
    def load(cls, run: str | Path) -> "TrustGate":
        """The gate of a run directory.

        Raises:
            DataError: where the `trust` stage is not done, or the checkpoint was altered.
        """
        return cls(TrustBundle.load(Store.at(str(run)).folder("trust")))

    @property
    def passing(self) -> float:
        """The trust of a whole episode that 95 % of held-out real ones reach."""
        return self.bundle.thresholds.passing

    def score(self, made: Trajectories, uncertainty_reference: float | None = None) -> Trajectories:
        """The same episodes with `trust` (N, T), `weights` (N, T; 0 drops a step) and `episode_trust` (N,).

        Args:
            made: rollouts, or real episodes.
            uncertainty_reference: the world model's uncertainty that costs no weight yet; None: a quantile of the
                given episodes' own.

        Raises:
            DataError: for other sizes than the gate was trained on, or values that are not finite.
        """
        return self.bundle.score(made, uncertainty_reference)
