"""Which trained parts no longer fit what is recorded now: tests of new episodes against held-out ones of the past.

N episodes, T steps, D latent dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from phaseb.config.flywheel import DriftConfig
from phaseb.dynamics.protocol import DynamicsModel, load_generator
from phaseb.episodes.actions import read_action_scale
from phaseb.episodes.episode import Episode
from phaseb.episodes.resolution import spread_of
from phaseb.episodes.shards import read_episodes
from phaseb.episodes.trajectories import Trajectories
from phaseb.latents.model import EncoderModel
from phaseb.runtime.storage import Store
from phaseb.trust.gate import PASS_QUANTILE
from phaseb.trust.model import TrustModel

MIN_EPISODES = 4
"""New and held-out episodes without which nothing is tested."""
SEGMENT_STEPS = 10
"""Steps that a world model forecasts in its test."""

PARTS = ("encoder", "dynamics", "trust")
NUM_TESTS = 4  # surprise and decoding of the encoder, forecasts, trust: what the error is divided by
LEVEL = (1 - 0.95) / NUM_TESTS
"""Error of each test; all tests of a generation together have a confidence of 95 % (Bonferroni)."""
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class DriftTest:
    """One comparison: medians of new and held-out episodes (shares, for trust), and what follows."""

    part: str
    name: str
    held_out: float
    new: float
    p: float
    num_new: int
    drifted: bool


def find_drift(
    config: DriftConfig, homes: Mapping[str, Store], new: Callable[[str], Sequence[Episode]]
) -> list[DriftTest]:
    """Test every part against the episodes that came after it was trained.

    Args:
        homes: run directory in which each of PARTS was trained.
        new: gives the episodes that a part has not seen, by its name.
    """
    tests: list[DriftTest] = []
    for part in PARTS:
        fresh = list(new(part))
        held_out = read_episodes(homes[part].folder("episodes"), ("dev",))
        if min(len(fresh), len(held_out)) < MIN_EPISODES:
            continue
        sides = _Sides.encoded(homes[part], held_out, fresh)
        tests += _TESTS[part](config, homes[part], sides)
    return tests


def retrained(tests: Sequence[DriftTest], scale_changed: bool) -> list[str]:
    """The parts to train again: those that drifted, and those whose inputs change with them."""
    drifted = {test.part for test in tests if test.drifted}
    if "encoder" in drifted:
        return list(PARTS)
    if scale_changed:  # of actions: the encoder never sees them
        drifted |= {"dynamics", "trust"}
    return [part for part in PARTS if part in drifted]


def told(tests: Sequence[DriftTest]) -> list[dict[str, Any]]:
    """The tests as JSON."""
    return [asdict(test) for test in tests]


@dataclass(frozen=True)
class _Sides:
    """Held-out and new episodes, and both in latents of the part's own time."""

    episodes: tuple[Sequence[Episode], Sequence[Episode]]
    latents: tuple[Trajectories, Trajectories]
    bundle: EncoderModel

    @classmethod
    def encoded(cls, home: Store, held_out: Sequence[Episode], new: Sequence[Episode]) -> "_Sides":
        bundle, scale = EncoderModel.load(home.folder("encoder")), read_action_scale(home)
        return cls((held_out, new), (bundle.encode(held_out, scale), bundle.encode(new, scale)), bundle)


def _encoder(config: DriftConfig, home: Store, sides: _Sides) -> list[DriftTest]:
    """Latents further out than standardised ones ought to be, and states that are no longer read back."""
    tests = [_worse(config, "encoder", "surprise", *(_surprise(side) for side in sides.latents))]
    if sides.bundle.decoder is not None and all(e.state is not None for side in sides.episodes for e in side):
        spread = spread_of(np.concatenate([e.state for e in sides.episodes[0] if e.state is not None]))
        errors = [_decoding(sides.bundle, side, spread) for side in sides.episodes]
        tests.append(_worse(config, "encoder", "decoding", *errors))
    return tests


def _dynamics(config: DriftConfig, home: Store, sides: _Sides) -> list[DriftTest]:
    """Forecasts of every generator; the tolerated error is shared by them."""
    names = [name for name in home.folders("dynamics") if home.exists("dynamics", name, "meta.json")]
    tests = []
    for name in names:
        model = load_generator(home.folder("dynamics", name))

        def forecast(z: Floats, actions: Floats, model: DynamicsModel = model) -> Floats:
            rolled = model.mean_rollout(torch.from_numpy(np.ascontiguousarray(z)), torch.from_numpy(actions.copy()))
            return np.asarray(rolled.cpu().numpy())

        errors = [forecast_errors(side, SEGMENT_STEPS, forecast) for side in sides.latents]
        tests.append(_worse(config, "dynamics", f"{name}/forecast", *errors, num_tests=len(names)))
    return tests


def forecast_errors(
    data: Trajectories, segment: int, forecast: Callable[[Floats, Floats], Floats]
) -> NDArray[np.float64]:
    """(N,) root mean squared error of forecasts over consecutive segments of each episode; NaN where it has none."""
    total, count = np.zeros((2, len(data)))
    for first in range(0, data.actions.shape[1] - segment + 1, segment):
        rows = np.flatnonzero(data.lengths >= first + segment)
        if len(rows) == 0:
            break
        rolled = forecast(data.z[rows, first], data.actions[rows, first : first + segment])
        error = rolled[:, 1:] - data.z[rows, first + 1 : first + segment + 1]
        total[rows] += np.square(error).mean((1, 2))
        count[rows] += 1
    return np.sqrt(total / np.where(count > 0, count, np.nan))


def _trust(config: DriftConfig, home: Store, sides: _Sides) -> list[DriftTest]:
    """Real episodes that the gate would not let pass."""
    gate = TrustModel.load(home.folder("trust"))
    low = [gate.levels(side).fused < gate.thresholds.passing for side in sides.latents]
    usual, share = PASS_QUANTILE, float(low[1].mean())
    p = float(stats.binomtest(int(low[1].sum()), len(low[1]), usual, alternative="greater").pvalue)
    drifted = p < LEVEL and share > usual + config.tolerance
    return [DriftTest("trust", "turned_away", float(low[0].mean()), share, p, len(low[1]), drifted)]


def _worse(
    config: DriftConfig, part: str, name: str, held_out: Floats, new: Floats, *, num_tests: int = 1
) -> DriftTest:
    """One-sided Mann-Whitney test that new values are larger, and by the tolerance at least in the median; one of
    `num_tests` that share a part's error."""
    old, fresh = held_out[np.isfinite(held_out)], new[np.isfinite(new)]
    if min(len(old), len(fresh)) < MIN_EPISODES:
        return DriftTest(part, name, float("nan"), float("nan"), 1.0, len(fresh), False)
    p = float(stats.mannwhitneyu(fresh, old, alternative="greater").pvalue)
    before, after = float(np.median(old)), float(np.median(fresh))
    drifted = p < LEVEL / num_tests and after > before * (1 + config.tolerance)
    return DriftTest(part, name, before, after, p, len(fresh), drifted)


def _surprise(data: Trajectories) -> NDArray[np.float64]:
    """(N,) mean squared latent of each episode: 1 on training data."""
    inside = np.arange(data.z.shape[1])[None] <= data.lengths[:, None]
    squares = np.square(data.z.astype(np.float64)).mean(2) * inside
    return np.asarray(squares.sum(1) / inside.sum(1))


def _decoding(bundle: EncoderModel, episodes: Sequence[Episode], spread: Floats) -> NDArray[np.float64]:
    """(N,) root mean squared error of decoded states, in the sensors' own spreads."""
    errors = []
    for episode in episodes:
        assert episode.state is not None
        error = (bundle.decode(bundle.encode_episode(episode)) - episode.state) / spread
        errors.append(np.sqrt(np.square(error).mean()))
    return np.array(errors, np.float64)


_TESTS: dict[str, Callable[[DriftConfig, Store, _Sides], list[DriftTest]]] = {
    "encoder": _encoder,
    "dynamics": _dynamics,
    "trust": _trust,
}
