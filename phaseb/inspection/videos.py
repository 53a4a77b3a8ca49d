"""Cameras that are kept as videos: what their packets say of every frame, without decoding most of them.

A frozen camera makes packets that are far smaller than usual. Only such stretches are decoded, to see whether the
pictures are equal indeed; two pictures are, up to what compression changes.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from phaseb.episodes.formats.images import reason
from phaseb.episodes.formats.lerobot_rows import TOLERANCE, VideoSpan, is_slow, rows_held
from phaseb.errors import DataError
from phaseb.inspection.columns import MIN_RUN
from phaseb.inspection.data_issue import DataIssue, alike
from phaseb.inspection.frames import FrameTrack, still

SMALL, BLANK_SHARE = 0.4, 0.15
"""Shares of the camera's usual packet: below the first a frame may equal the one before, below the second an episode
may show nothing. Both are looked at before anything is said."""
SAME_SIZE = 0.005
"""Share by which two whole pictures of a frozen camera differ in size, where all packets are whole pictures."""
LEVELS, PIXELS = 10, 1e-4
"""Two pictures are equal where no more than this share of the pixels differs by more than so many grey levels."""
NUM_STILLS = 6
"""Episodes of which a picture is decoded for the page."""


class VideoSource(Protocol):
    """A source whose cameras are videos."""

    def videos(self) -> Mapping[str, str]: ...
    def video(self, camera: str, index: int) -> VideoSpan: ...


@dataclass(frozen=True)
class Packets:
    """The packets of a video in the order of their times.

    Attributes:
        times: (P,) s.
        sizes: (P,) bytes.
        keys: (P,) whether a packet is a whole picture.
        rate: pictures a second, as the file has it.
        rows: (R,) the packet that each row of an episode shows; empty of a whole file.
    """

    times: NDArray[np.float64]
    sizes: NDArray[np.int64]
    keys: NDArray[np.bool_]
    rate: float
    rows: NDArray[np.int64]

    def of(self, span: VideoSpan) -> tuple["Packets", NDArray[np.float64]]:
        """The packets of an episode, and the times at which its rows have none; as `decode_video` finds them."""
        rows_per_frame, wanted = span.fps / (self.rate or span.fps), np.arange(span.num_frames)
        first, last = np.searchsorted(self.times, span.start_s + np.array([-1, span.num_frames]) / span.fps)
        exact = (self.times[first:last] - span.start_s) * span.fps
        place = np.ceil(exact - TOLERANCE) if is_slow(rows_per_frame) else np.rint(exact)
        shown = place >= 0
        if not is_slow(rows_per_frame):  # between two rows lies a frame of a camera that is faster
            shown &= np.abs(exact - place) <= TOLERANCE
        place, packet = place[shown], first + np.flatnonzero(shown)
        newest = np.searchsorted(place, wanted, side="right") - 1
        age = wanted - np.concatenate([place, [-np.inf]])[newest]  # before the first there is none
        found = age < rows_held(rows_per_frame)
        chosen, rows = np.unique(packet[newest[found]], return_inverse=True)
        part = Packets(self.times[chosen], self.sizes[chosen], self.keys[chosen], self.rate, rows)
        return part, span.start_s + wanted[~found] / span.fps

    def by_row(self, changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(R - 1,) whether each row's picture differs from the one before, of packets (P - 1,) that do."""
        before, after = self.rows[:-1], self.rows[1:]
        return (after > before) & np.concatenate([[False], changed])[after]


def scan_videos(
    source: VideoSource, ids: Sequence[str], read: Sequence[str]
) -> tuple[list[FrameTrack], list[DataIssue]]:
    """Look at every camera over every episode.

    Args:
        source: with videos.
        ids: of its episodes, in their order.
        read: the cameras that a run reads.

    Returns:
        a track for each camera and episode that can be read, and for those that cannot errors, or warnings where a run
        does not read the camera; alike ones as one.
    """
    tracks, errors, opened = list[FrameTrack](), list[DataIssue](), dict[str, Packets]()
    for camera in source.videos():
        spans, parts = list[tuple[str, VideoSpan]](), list[Packets]()
        unread = list[tuple[str, str]]()
        for i, name in enumerate(ids):
            try:
                span = source.video(camera, i)
                path = span.store.path(span.name)
                if path not in opened:
                    opened = {path: _packets(span)}
                part, missing = opened[path].of(span)
                if len(missing):
                    raise DataError(
                        f"camera {camera} has no frame at {missing[0]:.3f} s of {path}, {len(missing)} of "
                        f"{span.num_frames} rows have none: record it again, or leave it out"
                    )
            except DataError as error:
                unread.append((name, str(error)))
                continue
            spans.append((name, span))
            parts.append(part)
        errors += alike("video", "error" if camera in read else "warning", unread)
        tracks += _tracks(camera, spans, parts)
    return tracks, errors


def _tracks(camera: str, spans: Sequence[tuple[str, VideoSpan]], parts: Sequence[Packets]) -> Iterator[FrameTrack]:
    if not parts:
        return
    sizes, keys = np.concatenate([p.sizes for p in parts]), np.concatenate([p.keys for p in parts])
    inner = ~keys if (~keys).any() else keys
    usual, whole = float(np.median(sizes[inner])), float(sizes.mean())
    shown = set(np.linspace(0, len(spans) - 1, min(NUM_STILLS, len(spans))).astype(int).tolist())
    for i, ((name, span), part) in enumerate(zip(spans, parts, strict=True)):
        track = FrameTrack(camera, name, part.by_row(_changed(span, part, usual)), 255.0)
        if i in shown or float(part.sizes.mean()) < BLANK_SHARE * whole:
            picture = next(_decode(span, span.start_s + (span.num_frames // 2) / span.fps))
            track = replace(track, still=still(picture), contrast=float(picture.mean(axis=2).std()))
        yield track


def _changed(span: VideoSpan, part: Packets, usual: float) -> NDArray[np.bool_]:
    """(T,) whether each frame differs from the one before; stretches of small packets are decoded."""
    small = part.sizes < SMALL * usual
    near = np.concatenate([small[1:], [False]]) | np.concatenate([[False], small[:-1]])
    unchanged = (small | (part.keys & near))[1:]
    if part.keys.all():
        unchanged = np.abs(np.diff(part.sizes)) <= SAME_SIZE * part.sizes[:-1]
    changed = ~unchanged
    for first, last in _stretches(unchanged):
        if last - first + 1 >= MIN_RUN:
            pictures = _decode(span, float(part.times[first]), last - first + 2)
            before = next(pictures)
            for t, after in enumerate(pictures, start=first):
                changed[t] = (np.abs(after.astype(np.int16) - before) > LEVELS).any(axis=2).mean() > PIXELS
                before = after
    return changed


def _stretches(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last of each stretch of true flags."""
    edges = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) - 1).tolist(), strict=True))


def _packets(span: VideoSpan) -> Packets:
    with _open(span) as (container, stream):
        rows = [
            (float(p.pts * stream.time_base), p.size, p.is_keyframe)
            for p in container.demux(stream)
            if p.pts is not None and p.size
        ]
        rate = float(stream.average_rate or 0)
    if not rows:
        raise DataError(f"{span.store.path(span.name)} holds no pictures: record it again")
    rows.sort()
    times, sizes, keys = zip(*rows, strict=True)
    arrays = np.array(times), np.array(sizes, dtype=np.int64), np.array(keys, dtype=bool)
    return Packets(*arrays, rate, np.zeros(0, np.int64))


def _decode(span: VideoSpan, first_s: float, count: int = 1) -> Iterator[NDArray[np.uint8]]:
    """Pictures (H, W, 3) from the one at `first_s` on."""
    with _open(span) as (container, stream):
        container.seek(int(Fraction(first_s) / stream.time_base), stream=stream, backward=True)
        for picture in container.decode(stream):
            if picture.time >= first_s - TOLERANCE / span.fps:
                yield picture.to_ndarray(format="rgb24")
                count -= 1
            if count == 0:
                return
    raise DataError(f"{span.store.path(span.name)} has no picture at {first_s:.3f} s: record it again")


@contextlib.contextmanager
def _open(span: VideoSpan) -> Iterator[tuple[Any, Any]]:
    """A video and its first stream.

    Raises:
        DataError: for whatever is wrong with the file.
    """
    import av

    path = span.store.path(span.name)
    try:
        with span.store.filesystem.open_input_file(path) as file, av.open(file, "r") as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except FileNotFoundError as error:
        raise DataError(f"no such file: {path}; copy the videos") from error
    except (OSError, IndexError, av.FFmpegError, ValueError) as error:
        raise DataError(f"{path} cannot be decoded ({reason(error)}): copy or record it again") from error
