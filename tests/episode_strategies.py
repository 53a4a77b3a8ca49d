"""Random episodes and trajectories for the property tests."""

import numpy as np
from hypothesis import strategies as st

from phaseb.episodes.episode import Episode
from phaseb.episodes.trajectories import Trajectories


def make_episode(
    name: str, steps: int, seed: int = 0, state: int = 3, actions: int = 2, frames: bool = False, **fields: object
) -> Episode:
    rng = np.random.default_rng([seed, steps])
    return Episode(
        id=name,
        rewards=rng.standard_normal(steps).astype(np.float32),
        state=rng.standard_normal((steps + 1, state)).astype(np.float32) if state else None,
        actions=rng.uniform(-1, 1, (steps, actions)).astype(np.float32) if actions else None,
        frames=rng.integers(0, 256, (steps + 1, 5, 4, 3)).astype(np.uint8) if frames or not state else None,
        **fields,  # type: ignore[arg-type]
    )


@st.composite
def episode_lists(draw: st.DrawFn, max_size: int = 6) -> list[Episode]:
    """Episodes of any lengths, some without state, frames or actions, with odd texts and metrics."""
    size = draw(st.integers(1, max_size))
    texts = st.text(max_size=5)
    episodes = []
    for i in range(size):
        kind = draw(st.sampled_from(["state", "frames", "both"]))
        episodes.append(
            make_episode(
                f"{draw(texts)}-{i}",
                draw(st.integers(1, 9)),
                seed=draw(st.integers(0, 99)),
                state=0 if kind == "frames" else 3,
                frames=kind != "state",
                actions=draw(st.sampled_from([0, 2])),
                terminated=draw(st.booleans()),
                source=draw(st.sampled_from(["real", "synthetic"])),
                split=draw(st.sampled_from(["", "train", "dev", "test"])),
                metrics=draw(st.dictionaries(st.sampled_from(["mpl", "errors", "x"]), st.floats())),
                tags=draw(st.dictionaries(texts, texts, max_size=2)),
            )
        )
    return episodes


@st.composite
def trajectory_sets(draw: st.DrawFn) -> Trajectories:
    """Padded trajectories whose longest row fills all columns, with any of the optional arrays."""
    rows = draw(st.integers(1, 7))
    lengths = np.array(draw(st.lists(st.integers(1, 8), min_size=rows, max_size=rows)), np.int64)
    steps, rng = int(lengths.max()), np.random.default_rng(draw(st.integers(0, 999)))
    mask = np.arange(steps)[None] < lengths[:, None]

    def floats(*shape: int) -> np.ndarray:
        values = rng.standard_normal(shape).astype(np.float32)
        values[~mask] = 0
        return values

    def maybe(array: np.ndarray) -> np.ndarray | None:
        return array if draw(st.booleans()) else None

    z = rng.standard_normal((rows, steps + 1, 4)).astype(np.float32)
    last = np.minimum(np.arange(steps + 1)[None], lengths[:, None])
    return Trajectories(
        z=z[np.arange(rows)[:, None], last],
        actions=floats(rows, steps, 2),
        rewards=floats(rows, steps),
        terminals=floats(rows, steps),
        lengths=lengths,
        ids=tuple(f"t{i}" for i in range(rows)),
        splits=tuple(draw(st.sampled_from(["", "train", "dev", "test"])) for _ in range(rows)),
        metrics={"mpl": rng.standard_normal(rows), "error_rate": np.full(rows, np.nan)},
        lineage={"model": tuple("abcdefg"[:rows])},
        start_step=maybe(np.arange(rows)),
        uncertainty=maybe(floats(rows, steps)),
        trust=maybe(floats(rows, steps)),
        weights=maybe(floats(rows, steps)),
        episode_trust=maybe(rng.random(rows).astype(np.float32)),
    )


def same(left: object, right: object) -> bool:
    """Equality to the bit, NaN included."""
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, float) and isinstance(right, float):
        return np.float64(left).tobytes() == np.float64(right).tobytes()
    return type(left) is type(right) and left == right


def make_trajectories(lengths: list[int], splits: tuple[str, ...] = (), trust: bool = False) -> Trajectories:
    """Trajectories t0, t1, … of given lengths, with random content in 4 latent and 2 action dimensions."""
    rows, steps, rng = len(lengths), max(lengths), np.random.default_rng([len(lengths), *lengths])
    mask = np.arange(steps)[None] < np.array(lengths)[:, None]
    last = np.minimum(np.arange(steps + 1)[None], np.array(lengths)[:, None])
    z = rng.standard_normal((rows, steps + 1, 4)).astype(np.float32)[np.arange(rows)[:, None], last]
    rewards = (rng.standard_normal((rows, steps)) * mask).astype(np.float32)
    actions = (rng.uniform(-1, 1, (rows, steps, 2)) * mask[..., None]).astype(np.float32)
    return Trajectories(
        z,
        actions,
        rewards,
        0 * rewards,
        np.array(lengths, np.int64),
        tuple(f"t{i}" for i in range(rows)),
        splits or ("train",) * rows,
        trust=rng.random((rows, steps)).astype(np.float32) if trust else None,
    )
