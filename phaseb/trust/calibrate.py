"""From trained networks to a bundle: calibrators, thresholds and the analysis, all on scores of unseen episodes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.trust import TrustConfig
from phaseb.trust.calibration import balanced_weights, expected_calibration_error, fit_calibrator
from phaseb.trust.dataset import CORRUPTED, REAL, ROLLOUT, GateDataset
from phaseb.trust.gate import PASS_QUANTILE
from phaseb.trust.metrics import roc_auc, trust_gap, val_accuracy
from phaseb.trust.model import Thresholds, TrustModel, episode_scores
from phaseb.trust.networks import TrustNetworks
from phaseb.trust.one_step_residuals import RidgeDynamics

Floats = NDArray[np.float64]
Scores = tuple[Floats, Floats, Floats]


def fit_trust_model(
    config: TrustConfig, networks: TrustNetworks, predictor: RidgeDynamics, material: GateDataset, scores: Scores
) -> TrustModel:
    """Calibrate every level at even odds of real and corrupted, and set the gate's thresholds.

    Calibrated on graded corruptions, not on rollouts: their severities are spread evenly, so that a trust of 0.7
    means the same in every run, whatever other generators were at hand.

    Args:
        config: the trust section.
        networks: trained.
        predictor: the local predictor that made the inputs.
        material: the pool.
        scores: log-odds of every entry by the network that never saw it: episode (P,), temporal (P,), steps (P, T).
    """
    episode, temporal, steps = scores
    chosen = material.group != ROLLOUT
    real, known = (material.group[chosen] == REAL).astype(np.float64), np.isfinite(material.labels) & chosen[:, None]
    odds_by_level = episode_scores(episode, temporal, material.mask.sum(1), material.mask.shape[1])
    balance = _balance(material)[chosen]
    levels = {name: (odds[chosen], real, balance) for name, odds in odds_by_level.items()}
    labels = material.labels[known]
    levels["transition"] = (steps[known][:, None], labels, balanced_weights(labels))
    calibrators, errors = {}, {}
    for name, (odds, labels, weights) in levels.items():
        calibrators[name] = fit_calibrator(odds, labels, weights)
        errors[name] = expected_calibration_error(calibrators[name](odds), labels, weights)
    fused = calibrators["fused"](odds_by_level["fused"])
    thresholds = _thresholds(config, material, fused, calibrators["transition"](steps[..., None]))
    analysis = {"ece": errors, "thresholds": thresholds.as_dict(), **_analysis(material, fused)}
    steps_seen = material.mask.shape[1]
    return TrustModel(networks, predictor, calibrators, thresholds, analysis, steps_seen)


def _balance(material: GateDataset) -> Floats:
    """(P,) weights under which real and corrupted count alike, among whole episodes and among segments."""
    weights = np.zeros(len(material.group))
    for group in (REAL, CORRUPTED):
        for whole in (True, False):
            here = (material.group == group) & (material.whole == whole)
            weights[here] = 1 / max(int(here.sum()), 1)
    return weights


def _thresholds(config: TrustConfig, material: GateDataset, fused: Floats, transition: Floats) -> Thresholds:
    real = material.group == REAL
    lowest = np.where(material.mask, transition, 1.0).min(1)
    return Thresholds(
        passing=float(np.quantile(fused[real & material.whole], PASS_QUANTILE)),
        segment=float(np.quantile(fused[real], PASS_QUANTILE)),
        cut=float(np.quantile(lowest[real & material.whole], config.gate.cut_quantile)),
    )


def _analysis(material: GateDataset, fused: Floats) -> dict[str, Any]:
    """The report's numbers on unseen episodes: whole real ones against rollouts, or against corruptions without any."""
    real = fused[material.whole & (material.group == REAL)]
    group = ROLLOUT if (material.group == ROLLOUT).any() else CORRUPTED
    against = fused[material.group == group]
    kinds = np.array(material.kinds)
    by_kind = {kind: roc_auc(real, fused[kinds == kind]) for kind in sorted(set(material.kinds) - {""})}
    return {
        "roc_auc": roc_auc(real, against),
        "val_accuracy": val_accuracy(real, against),
        "trust_gap": trust_gap(real, against),
        "real_trust": float(real.mean()),
        "synthetic_trust": float(against.mean()),
        "roc_auc_by_corruption": by_kind,
        "num_real": len(real),
        "num_negatives": len(against),
    }
