"""phaseb from Python: the same jobs as on the command line, and what they trained, in NumPy arrays.

N episodes, T steps, D latent dimensions, A action dimensions.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from phaseb.config.data import EpisodesConfig
from phaseb.config.load import load_config, nearest
from phaseb.config.registry import JOBS, READERS, load_job
from phaseb.config.root import Config
from phaseb.dynamics.protocol import DynamicsModel, load_generator
from phaseb.dynamics.rollout import Policy, Rollout, tensor_policy
from phaseb.episodes.episode import Episode
from phaseb.episodes.inventory import log_inventory
from phaseb.episodes.shards import read_trajectories
from phaseb.episodes.sources import EpisodeSource, inventory_of, open_source, recognise
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import ConfigError, DataError
from phaseb.pipeline.result import Callback, RunResult
from phaseb.runtime.checkpoint import checkpoint_digest
from phaseb.runtime.run_lock import run_lock
from phaseb.runtime.seeding import torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.arm_generator import served_generator
from phaseb.trust.model import TrustModel

Floats = NDArray[np.float32]
ActionFn = Callable[[Floats, int], Floats]
"""A policy: called with (latents (N, D), step), returns actions (N, A)."""


def run(
    config: str | Path | None = None, *settings: str, job: str = "run", callbacks: Sequence[Callback] = ()
) -> RunResult:
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
    with contextlib.nullcontext() if job in READERS else run_lock(resolved.run.dir):
        result: RunResult = load_job(job)(resolved, callbacks)
    return result


def load_episodes(path: str | Path, source: str = "", columns: Mapping[str, Any] | None = None) -> Iterator[Episode]:
    """The recordings at a path, one in memory at a time.

    After the last one, a warning of the logger `phaseb` counts what was recorded and is part of no episode.

    Args:
        path: an NPZ, HDF5 or Parquet file; a Minari or LeRobot folder; a run directory; or the URI of any of these.
        source: the format, where it should not be told from what lies there; or `module:Class` of your own.
        columns: which columns mean what, by the names of `episodes.columns`: `{"images": "observation.images.top"}`.

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
    """A generator that a run fitted: latent dynamics that roll out episodes.

    Examples:
        >>> import phaseb
        >>> model = phaseb.WorldModel.load("runs/demo", generator="gru")
        >>> real = phaseb.load_latents("runs/demo", "dev")
        >>> made = model.rollout(real.z[:, 0], real.actions, seed=1, recorded=True)
        >>> made.z.shape == real.z.shape, made.uncertainty.shape == real.rewards.shape
        (True, True)
        >>> branch = phaseb.WorldModel.load("runs/demo", generator="gp").rollout(real.z[:, 0], real.actions[:, :8])
        >>> branch.z.shape[1]
        9
    """

    def __init__(self, generator: DynamicsModel, digest: str = "") -> None:
        self.generator, self.digest = generator, digest

    @classmethod
    def load(cls, run: str | Path, generator: str | None = None, device: str = "cpu") -> "WorldModel":
        """A generator of a run directory.

        Args:
            run: the run directory.
            generator: its name: gru, gp or a plug-in's. None: the one that the shipped arm learned from, or the first
                of the run where nothing is shipped yet or the shipped arm uses none.
            device: of its tensors.

        Raises:
            DataError: where the `dynamics` stage is not done, or the checkpoint was altered.
            ConfigError: where the run has no generator of that name.
        """
        store = Store.at(str(run))
        fitted = [name for name in store.folders("dynamics") if store.exists("dynamics", name, "meta.json")]
        if not fitted:
            raise DataError(f"{store.root} has no generator yet: run `phaseb dynamics` first")
        name = generator or _used_generator(store, fitted)
        if name not in fitted:
            raise ConfigError(f"{store.root} has no generator {name!r}; it has {', '.join(fitted)}")
        home = store.folder("dynamics", name)
        return cls(load_generator(home, device), checkpoint_digest(home))

    @property
    def name(self) -> str:
        """By which the configuration calls the generator."""
        return self.generator.name

    @property
    def uncertainty_scale(self) -> float:
        """The uncertainty of an ordinary rollout: what `TrustGate.score` divides by."""
        return self.generator.uncertainty_scale

    @property
    def latent_size(self) -> int:
        """D."""
        return self.generator.latent_size

    @property
    def action_size(self) -> int:
        """A."""
        return self.generator.action_size

    def rollout(
        self,
        starts: Floats,
        actions: Floats | ActionFn,
        seed: int = 0,
        recorded: bool = False,
        horizon: int | None = None,
    ) -> Trajectories:
        """Roll out N episodes of T steps.

        Args:
            starts: (N, D) latents to start from.
            actions: (N, T, A) in [-1, 1], or a policy: called with (latents (N, D), step), returns actions (N, A).
            seed: of all draws; the same seed gives the same episodes.
            recorded: whether the actions were recorded from these very starts. They then answer to what happened, and
                a generator may read ahead of them; actions that you chose answer to nothing ahead.
            horizon: T; needed with a policy, that of the actions where None.

        Returns:
            latents, rewards, ends, and the generator's `uncertainty` (N, T); ungated until `TrustGate.score`.

        Raises:
            ValueError: for arrays of other shapes, or a policy without a horizon.
        """
        starts = np.asarray(starts, np.float32)
        if starts.ndim != 2 or starts.shape[1] != self.latent_size:
            raise ValueError(f"starts {starts.shape}; wanted (N, {self.latent_size})")
        driven: Tensor | Policy
        if callable(actions):
            if horizon is None:
                raise ValueError("a policy needs horizon=, the number of steps")
            steps, driven = horizon, tensor_policy(actions, (len(starts), self.action_size))
        else:
            given = np.asarray(actions, np.float32)
            if given.ndim != 3 or (given.shape[0], given.shape[2]) != (len(starts), self.action_size):
                raise ValueError(
                    f"starts {starts.shape} and actions {given.shape}; wanted (N, {self.latent_size}) and "
                    f"(N, T, {self.action_size})"
                )
            steps, driven = horizon or given.shape[1], torch.from_numpy(given)
        known, draws = torch.full((len(starts),), recorded), torch_generator(seed, "library", "rollout")
        made = self.generator.rollout(torch.from_numpy(starts), driven, steps, draws, known)
        return self._trajectories(made)

    def _trajectories(self, made: Rollout) -> Trajectories:
        num = len(made.z)
        return Trajectories(
            z=made.z.cpu().numpy(),
            actions=made.actions.cpu().numpy(),
            rewards=made.rewards.cpu().numpy(),
            terminals=made.terminals.cpu().numpy(),
            lengths=made.lengths,
            splits=("",) * num,
            ids=tuple(f"rollout-{i:06d}" for i in range(num)),
            lineage={"model": (self.digest,) * num},
            uncertainty=made.uncertainty.cpu().numpy(),
        )


def _used_generator(store: Store, fitted: Sequence[str]) -> str:
    """The generator that the shipped arm learned from; the first that the run names where there is none.

    Raises:
        DataError: where the run's config is of another version.
    """
    try:
        config = Config.model_validate(yaml.safe_load(store.read_text("config.yaml")))
    except ValidationError as error:
        raise DataError(
            f"{store.root} was made by another version of phaseb; name the generator, one of {', '.join(fitted)}"
        ) from error
    shipped = store.read_json("promotion.json")["shipped"] if store.exists("promotion.json") else ""
    used = served_generator(config, shipped, store)
    if used is not None and used in fitted:
        return used
    return next((name for name in config.generators if name in fitted), fitted[0])


class TrustGate:
    """The gate that a run trained: how far each episode and step can be trusted, and what weight it gets.

    It scores rollouts of any world model over the same latents, not only of the run's own.

    Examples:
        >>> import phaseb
        >>> gate = phaseb.TrustGate.load("runs/demo")
        >>> real = phaseb.load_latents("runs/demo", "dev")
        >>> made = phaseb.WorldModel.load("runs/demo", "gru").rollout(real.z[:, 0], real.actions, recorded=True)
        >>> scored = gate.score(made)
        >>> scored.trust.shape == scored.weights.shape == made.rewards.shape
        True
        >>> bool((0 <= scored.trust).all() and (scored.trust <= 1).all() and (scored.weights >= 0).all())
        True
    """

    def __init__(self, bundle: TrustModel) -> None:
        self.bundle = bundle

    @classmethod
    def load(cls, run: str | Path) -> "TrustGate":
        """The gate of a run directory.

        Raises:
            DataError: where the `trust` stage is not done, or the checkpoint was altered.
        """
        return cls(TrustModel.load(Store.at(str(run)).folder("trust")))

    @property
    def passing(self) -> float:
        """The trust of a whole episode that 95 % of held-out real ones reach."""
        return self.bundle.thresholds.passing

    def score(self, made: Trajectories, uncertainty_scale: float | None = None) -> Trajectories:
        """The same episodes with `trust` (N, T), `weights` (N, T; 0 drops a step) and `episode_trust` (N,).

        Args:
            made: rollouts, or real episodes.
            uncertainty_scale: the generator's (`WorldModel.uncertainty_scale`); None: a quantile of the given episodes'
                own.

        Raises:
            DataError: for other sizes than the gate was trained on, or values that are not finite.
        """
        return self.bundle.score(made, uncertainty_scale)
