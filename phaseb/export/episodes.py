"""Give a run's episodes to other trainers: real and synthetic in one data set, with trust, weight and lineage."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from phaseb.episodes.actions import ActionScale, read_action_scale
from phaseb.episodes.control import control_of_tags
from phaseb.episodes.episode import TASK_TAG, Episode
from phaseb.episodes.formats.export import Exported
from phaseb.episodes.shards import iter_episodes
from phaseb.episodes.streaming import batches
from phaseb.episodes.tasks import Tasks, read_tasks, tasks_of_tags, with_task, without_columns, without_task
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import ConfigError, DataError, PhasebError
from phaseb.latents.model import EncoderModel
from phaseb.pipeline.run_directory import RunDirectory
from phaseb.runtime.storage import Store

FORMATS = ("npz", "minari", "lerobot", "rerun")
KINDS = ("all", "trusted", "synthetic", "real")
NEEDED = ("encode", "trust")
NAMES_TASKS = ("npz", "lerobot")
DEFAULT_FPS = 10  # of data that do not say how long a step is


def export_run(run: str, target: str, form: str, only: str = "all") -> dict[str, Any]:
    """Write the real training episodes and the synthetic ones of a run as a data set.

    Synthetic episodes carry decoded states. The dev and test episodes stay out: whoever trains on the export can still
    be compared on them. Camera frames leave only with `only="real"`, since no synthetic episode has any.

    Args:
        run: a run directory whose `trust` stage is done.
        target: the folder to write; for NPZ the folder of `episodes.npz`.
        form: one of FORMATS; rerun writes one recording an episode, to look at.
        only: `trusted` leaves out synthetic steps without weight; `synthetic` and `real` the others.

    Returns:
        `path`, and how many episodes and synthetic episodes lie there.

    Raises:
        ConfigError: for an unknown format or kind, or a target that holds something already.
        DataError: where the run is not far enough.
    """
    if form not in FORMATS or only not in KINDS:
        raise ConfigError(f"--format is one of {', '.join(FORMATS)}, policy; --only one of {', '.join(KINDS)}")
    directory, store = RunDirectory.existing(run), Store.at(target)
    missing = [stage for stage in NEEDED if directory.stage(stage).get("state") != "done"]
    if missing:
        raise DataError(f"{run} has no synthetic data to export: run `phaseb {missing[0]}` first")
    if store.names() or store.folders():
        raise ConfigError(f"{target} is not empty; name another folder")
    scale = read_action_scale(directory.store)
    if scale is None:
        raise DataError(f"{run} has no actions, which other trainers need")
    counts = {"episodes": 0, "synthetic": 0}

    def counted() -> Iterator[Exported]:
        for one in exported_episodes(directory.store, scale, only, own_tasks=form in NAMES_TASKS):
            counts["episodes"] += 1
            counts["synthetic"] += one.episode.source == "synthetic"
            yield one

    try:
        _WRITERS[form](store, counted(), scale)
    except PhasebError:
        for name in (*store.names(), *store.folders()):
            store.delete(name)
        raise
    return {"path": store.root, **counts}


def exported_episodes(store: Store, scale: ActionScale, only: str, own_tasks: bool = False) -> Iterator[Exported]:
    """The episodes of a run one after the other, real ones first.

    Args:
        store: of the run.
        scale: of its actions.
        only: as for `export_run`.
        own_tasks: whether the format has a place for the task, so that the state need not say it.
    """
    for one in _exported(store, scale, only):
        yield replace(one, episode=without_task(one.episode)) if own_tasks else one


def _exported(store: Store, scale: ActionScale, only: str) -> Iterator[Exported]:
    bundle, tasks = EncoderModel.load(store.folder("encoder")), read_tasks(store)
    named = dict[str, str]()
    for part in batches(store.folder("latents"), ("train",)):
        told = part.lineage.get(f"tag/{TASK_TAG}")
        named |= {} if told is None else dict(zip(part.ids, told, strict=True))
    if only in ("all", "trusted", "real"):
        yield from _real(store, frames=only == "real")
    if only != "real":
        for generator in store.folders("synthetic"):
            for made in batches(store.folder("synthetic", generator)):
                for i in range(len(made)):
                    if (steps := _steps(made, i, only)) > 0:
                        one = _synthetic(made, i, steps, bundle, scale)
                        task = named.get(one.lineage.get("start_episode", ""), "")
                        yield _of_task(one, task, tasks) if task else one


def _of_task(one: Exported, task: str, tasks: Tasks) -> Exported:
    """A synthetic episode with the task of its start, which its decoded state says about."""
    episode = one.episode
    if episode.state is None or one.z is None:
        return one
    size, tags = episode.state.shape[1] - len(tasks), {**episode.tags, TASK_TAG: task}
    if not size:  # seen by camera alone: latents stand in for the state
        return replace(one, episode=replace(episode, state=one.z.copy(), tags=tags))
    return replace(one, episode=with_task(replace(episode, state=episode.state[:, :size], tags=tags), tasks))


def _real(store: Store, frames: bool) -> Iterator[Exported]:
    # Latents are made shard by shard, so they come in the episodes' order.
    latents = (z for part in batches(store.folder("latents"), ("train",)) for z in part.z)
    for episode, padded in zip(iter_episodes(store.folder("episodes"), ("train",), frames), latents, strict=True):
        z = padded[: len(episode) + 1]
        by_camera = episode.state is None or episode.state.shape[1] == len(tasks_of_tags(episode.tags))
        if by_camera and not frames:  # seen by camera alone: latents stand in for the state
            episode = replace(episode, state=z.copy(), tags=without_columns(episode.tags))
        yield Exported(replace(episode, frames=episode.frames if frames else None), z)


def _steps(made: Trajectories, i: int, only: str) -> int:
    """How many steps of a synthetic episode leave: all, or those up to the last one that has weight."""
    if only != "trusted" or made.weights is None:
        return int(made.lengths[i])
    used = np.flatnonzero(made.weights[i, : made.lengths[i]] > 0)
    return int(used[-1]) + 1 if len(used) else 0


def _synthetic(made: Trajectories, i: int, steps: int, bundle: EncoderModel, scale: ActionScale) -> Exported:
    z = made.z[i, : steps + 1]
    episode = Episode(
        id=made.ids[i],
        state=z.copy() if bundle.decoder is None else bundle.decode(z).astype(np.float32),
        actions=scale.denormalise(made.actions[i, :steps]),
        rewards=made.rewards[i, :steps].copy(),
        terminated=bool(made.terminals[i, steps - 1] > 0.5),
        source="synthetic",
    )
    lineage = {name: values[i] for name, values in made.lineage.items()}
    if made.start_step is not None:
        lineage["start_step"] = str(int(made.start_step[i]))
    return Exported(
        episode,
        z,
        None if made.trust is None else made.trust[i, :steps],
        None if made.weights is None else made.weights[i, :steps],
        lineage,
    )


def _write_npz(store: Store, episodes: Iterator[Exported], scale: ActionScale) -> None:
    from phaseb.episodes.formats.npz_export import write_exported_npz

    write_exported_npz(store, "episodes.npz", episodes)


def _write_minari(store: Store, episodes: Iterator[Exported], scale: ActionScale) -> None:
    from phaseb.episodes.formats.minari_export import write_minari

    # Minari finds a data set by the folder that it lies in.
    write_minari(store, store.root.rstrip("/").rpartition("/")[2], episodes, scale.low, scale.high)


def _write_lerobot(store: Store, episodes: Iterator[Exported], scale: ActionScale) -> None:
    from phaseb.episodes.formats.lerobot_export import write_lerobot

    first = next(episodes, None)
    if first is None:
        raise DataError("no episodes to export")
    hours = first.episode.metrics.get("duration_h", np.nan)
    control = control_of_tags(first.episode.tags)
    seconds = 1 / control.hz if control else hours * 3600 / len(first.episode)
    fps = max(1, round(1 / seconds)) if np.isfinite(seconds) and seconds > 0 else DEFAULT_FPS

    def again() -> Iterator[Exported]:
        yield first
        yield from episodes

    write_lerobot(store, again(), fps)


def _write_rerun(store: Store, episodes: Iterator[Exported], scale: ActionScale) -> None:
    from phaseb.episodes.formats.rerun_export import write_rerun

    write_rerun(store, episodes)


_WRITERS: dict[str, Callable[[Store, Iterator[Exported], ActionScale], None]] = {
    "npz": _write_npz,
    "minari": _write_minari,
    "lerobot": _write_lerobot,
    "rerun": _write_rerun,
}
