"""Episodes as Rerun recordings: one file each, real or synthetic, with trust and weight along the steps.

| entity | what it holds, over the timeline `step` |
| --- | --- |
| `state`, `latents` | scalars of T + 1 observations |
| `actions`, `reward` | scalars of T steps |
| `trust`, `weight` | the same, where they are known |
| `cut` | a text at the step from which nothing of the rollout has weight |
| `frames` | the camera's pictures, of real episodes; of several cameras `frames/NAME` |
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.cameras import short_camera, split_cameras
from phaseb.episodes.formats.export import Exported
from phaseb.errors import ConfigError
from phaseb.runtime.storage import Store

APPLICATION = "phaseb"
TIMELINE = "step"


def write_rerun(store: Store, episodes: Iterator[Exported]) -> None:
    """Write `real/ID.rrd` and `synthetic/ID.rrd`.

    Raises:
        ConfigError: where `rerun-sdk` is not installed.
    """
    try:
        import rerun  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'--format rerun needs the package rerun-sdk ({error.name}): pip install "phaseb[rerun]"'
        ) from error
    for one in episodes:
        store.write_bytes(recording_of(one), one.episode.source, f"{one.episode.id.replace('/', '-')}.rrd")


def recording_of(one: Exported) -> bytes:
    """An episode as the bytes of an .rrd file."""
    import rerun

    episode, steps = one.episode, len(one.episode)
    stream = rerun.RecordingStream(APPLICATION, recording_id=f"{episode.source}/{episode.id}")
    sink = stream.binary_stream()
    stream.send_recording_name(f"{episode.source} {episode.id}")
    known = one.step_columns()
    series: dict[str, NDArray[Any] | None] = {
        "state": episode.state,
        "latents": one.z,
        "actions": episode.actions,
        "reward": episode.rewards[:, None],
        "trust": known["trust"][:, None],
        "weight": known["weight"][:, None],
    }
    for name, values in series.items():
        if values is not None and np.isfinite(values).all():
            columns = rerun.Scalars.columns(scalars=np.asarray(values, np.float64))
            stream.send_columns(name, [rerun.TimeColumn(TIMELINE, sequence=np.arange(len(values)))], columns)
    if (cut := cut_step(one)) < steps:
        stream.set_time(TIMELINE, sequence=cut)
        stream.log("cut", rerun.TextLog(f"cut: no weight from step {cut} of {steps} on", level="WARN"))
    cameras = split_cameras(episode)
    for name, frames in cameras.items():
        path = "frames" if len(cameras) == 1 else f"frames/{short_camera(name)}"
        for step, picture in enumerate(frames):
            stream.set_time(TIMELINE, sequence=step)
            stream.log(path, rerun.Image(picture if picture.shape[-1] > 1 else picture[..., 0]))
    lineage = {**one.lineage, **episode.tags}
    if lineage:
        stream.send_property("lineage", rerun.AnyValues(**{name.replace("/", "_"): v for name, v in lineage.items()}))
    stream.flush()
    written: bytes = sink.read()
    return written


def cut_step(one: Exported) -> int:
    """The step from which nothing of an episode has weight; T where its last step has some, or no weight is known."""
    if one.weight is None:
        return len(one.episode)
    used = np.flatnonzero(one.weight > 0)
    return int(used[-1]) + 1 if len(used) else 0
