"""The trained gate as the rest of the system uses it: trajectories in, trust and weights out.

N episodes, T steps, K folds.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.runtime.checkpoint import load_checkpoint, save_checkpoint
from phaseb.runtime.storage import Store
from phaseb.trust.calibration import Calibrator
from phaseb.trust.dataset import check_finite, crop
from phaseb.trust.gate import MIN_STEPS, gate_weights, truncation_step, uncertainty_discount
from phaseb.trust.gate_features import episode_inputs, num_transition_inputs, transition_inputs
from phaseb.trust.networks import TrustNetworks, TrustSpec
from phaseb.trust.one_step_residuals import RidgeDynamics

UNCERTAINTY_QUANTILE = 0.95
"""Uncertainty up to this quantile of the reference costs no weight."""

AT_ONCE = 256
LEVELS = ("episode", "temporal", "fused", "transition")


@dataclass(frozen=True)
class Thresholds:
    """Quantiles of held-out real trust: of whole episodes, of segments, and of the lowest step of an episode."""

    passing: float
    segment: float
    cut: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Levels:
    """Calibrated trust of N episodes by the episode network, the temporal one, both, and of transitions (N, T)."""

    episode: NDArray[np.float64]
    temporal: NDArray[np.float64]
    fused: NDArray[np.float64]
    transition: NDArray[np.float64]


@dataclass(frozen=True)
class TrustModel:
    """Networks, local predictor, calibrators and thresholds, frozen.

    Attributes:
        networks: K episode and K temporal networks; their log-odds are averaged.
        predictor: the local predictor; network k is shown the errors of regression k.
        calibrators: by level, fitted at a prior of one half.
        thresholds: of the gate.
        analysis: numbers on unseen training episodes, as written into `analysis.json`.
        num_steps: the longest episode that it was trained on.
    """

    networks: TrustNetworks
    predictor: RidgeDynamics
    calibrators: Mapping[str, Calibrator]
    thresholds: Thresholds
    analysis: dict[str, Any]
    num_steps: int

    def score(self, data: Trajectories, uncertainty_scale: float | None = None) -> Trajectories:
        """The same trajectories with `trust`, `weights` and `episode_trust` filled in.

        `trust` is of transitions; `episode_trust` of whole episodes, as `pass_rate` asks for it; `weights` are the
        gate's: an episode that goes bad is cut there and weighed by the trust of what lies before.

        Args:
            data: synthetic (or real) episodes.
            uncertainty_scale: the generator's own (`DynamicsModel.uncertainty_scale`): uncertainty up to it costs no
                weight; 0 discounts nothing. The gate's quantile of the given episodes where None.

        Raises:
            DataError: where the sizes are not those trained on, or values are not finite.
        """
        levels = self.levels(data)
        cuts = truncation_step(levels.transition, data.lengths, self.thresholds.cut)
        before = self._trust_before(data, cuts, levels.fused)
        discount = uncertainty_discount(data.uncertainty, data.mask, self._scale(data, uncertainty_scale))
        weights = gate_weights(levels.transition, before, data.lengths, cuts, discount, self.thresholds.segment)
        return replace(
            data,
            trust=(levels.transition * data.mask).astype(np.float32),
            weights=weights,
            episode_trust=levels.fused.astype(np.float32),
        )

    def levels(self, data: Trajectories) -> Levels:
        """Calibrated trust at every level; transitions beyond the end of an episode get 0."""
        check_finite(data, "episode")
        self._check_sizes(data)
        parts = [self._odds(data.select(rows)) for rows in _chunks(len(data))]
        episode, temporal, steps = (np.concatenate(part) for part in zip(*parts, strict=True))
        odds = episode_scores(episode, temporal, data.lengths, self.num_steps)
        trust = {name: self.calibrators[name](values) for name, values in odds.items()}
        return Levels(**trust, transition=self.calibrators["transition"](steps[..., None]) * data.mask)

    def cuts(self, data: Trajectories) -> NDArray[np.int64]:
        """(N,) the first transition that the gate cuts; the length where it cuts none."""
        return truncation_step(self.levels(data).transition, data.lengths, self.thresholds.cut)

    def save(self, store: Store) -> str:
        """Write the bundle into a folder as a checkpoint and `analysis.json`; returns the digest."""
        tensors = {f"networks.{name}": value for name, value in self.networks.state_dict().items()}
        tensors |= {f"predictor.{name}": value for name, value in self.predictor.__dict__.items()}
        for name, calibrator in self.calibrators.items():
            # float64 as it is used: torch makes float32 of a Python number, and the loaded bias lost half its digits.
            arrays = {key: np.asarray(value, dtype=np.float64) for key, value in calibrator.__dict__.items()}
            tensors |= {f"calibrators.{name}.{key}": torch.from_numpy(array) for key, array in arrays.items()}
        meta = {
            "spec": self.networks.spec.as_dict(),
            "thresholds": self.thresholds.as_dict(),
            "analysis": self.analysis,
            "num_steps": self.num_steps,
        }
        store.write_json(self.analysis, "analysis.json")
        return save_checkpoint(store, tensors, meta)

    @classmethod
    def load(cls, store: Store) -> "TrustModel":
        """Read a bundle written by `save`."""
        tensors, meta = load_checkpoint(store)
        networks = TrustNetworks(TrustSpec(**meta["spec"]), torch.Generator())
        networks.load_state_dict(_under(tensors, "networks."))
        calibrators = {}
        for name in LEVELS:
            part = {key: value.numpy() for key, value in _under(tensors, f"calibrators.{name}.").items()}
            calibrators[name] = Calibrator(part["weights"], float(part["bias"]))
        predictor = RidgeDynamics(**_under(tensors, "predictor."))
        thresholds = Thresholds(**meta["thresholds"])
        return cls(networks, predictor, calibrators, thresholds, meta["analysis"], meta["num_steps"])

    @torch.no_grad()
    def _odds(self, data: Trajectories) -> list[NDArray[np.float64]]:
        """Mean log-odds over the K networks: episode (N,), temporal (N,), steps (N, T)."""
        device, folds = self.networks.get_buffer("episode_mean").device, self.predictor.num_folds
        known = self.predictor.features(data)
        by_fold = [transition_inputs(data, self.predictor, k, known) for k in range(folds)]
        inputs = torch.from_numpy(np.stack(by_fold))
        transitions = self.networks.standardise("transition", inputs.to(device))
        episodes = self.networks.standardise("episode", torch.from_numpy(episode_inputs(data)).to(device))
        mask = torch.from_numpy(data.mask).to(device)
        scores = self.networks(episodes.expand(folds, -1, -1), transitions, mask.expand(folds, -1, -1))
        return [score.mean(0).double().cpu().numpy() for score in scores]

    def _trust_before(
        self, data: Trajectories, cuts: NDArray[np.int64], fused: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Trust of every episode up to its cut; what is too short to be kept is not looked at."""
        before = fused.copy()
        rows = np.flatnonzero((cuts < data.lengths) & (cuts >= MIN_STEPS))
        if len(rows):
            part = crop(data.select(rows), np.zeros(len(rows), dtype=np.int64), cuts[rows])
            before[rows] = self.levels(part).fused
        return before

    def _scale(self, data: Trajectories, given: float | None) -> float:
        if given is not None or data.uncertainty is None or not data.mask.any():
            return 1.0 if given is None else given
        return float(np.quantile(data.uncertainty[data.mask], UNCERTAINTY_QUANTILE))

    def _check_sizes(self, data: Trajectories) -> None:
        if len(data) == 0:
            raise DataError("no episodes to score")
        spec, dims = self.networks.spec, data.z.shape[2]
        wanted = (spec.num_episode_inputs - 1) // 6
        actions = spec.num_transition_inputs - num_transition_inputs(wanted, 0)
        if dims != wanted or data.actions.shape[2] != actions:
            raise DataError(
                f"trust was trained on {wanted} latent and {actions} action dimensions, "
                f"these episodes have {dims} and {data.actions.shape[2]}; train it on the same encoder's latents"
            )


def episode_scores(
    episode: NDArray[np.float64], temporal: NDArray[np.float64], lengths: NDArray[np.integer], num_steps: int
) -> dict[str, NDArray[np.float64]]:
    """What the calibrators of whole episodes are given: log-odds (N, 1 or 2), and the same times the relative length.

    Log-odds of a long episode rest on more evidence: their temperature is fitted as a line in the length.
    """
    columns = {"episode": [episode], "temporal": [temporal], "fused": [episode, temporal]}
    share = np.minimum(lengths / num_steps, 1.0)
    return {name: np.stack([*odds, *(share * x for x in odds)], axis=1) for name, odds in columns.items()}


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _chunks(count: int) -> list[NDArray[np.int64]]:
    return np.array_split(np.arange(count), max(1, -(-count // AT_ONCE)))
