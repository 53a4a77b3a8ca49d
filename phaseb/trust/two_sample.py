"""The judges: can fresh classifiers tell synthetic episodes from real ones? (A classifier two-sample test,
Lopez-Paz and Oquab 2017, cross-fitted over matched pairs.)

n pairs, T steps, D latent dimensions, A action dimensions.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.trust import Family, JudgeConfig
from phaseb.errors import DataError
from phaseb.runtime.seeding import numpy_generator
from phaseb.trust.judges import JudgeInputs, cross_fit
from phaseb.trust.paired_auc import folded, paired_auc, paired_interval, permuted_aucs

CONFIDENCE = 0.95
"""Confidence of the intervals."""

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class JudgeScore:
    """What one family of judges found at one noise level.

    Attributes:
        family: the classifiers.
        sigma: standard deviation of the noise added to both sides.
        auc: max(AUC, 1 − AUC) of the cross-fitted scores.
        low: lower end of the interval of the AUC (on the side of 0.5 where the AUC itself lies).
        high: its upper end.
        p_value: share of label permutations that reach this AUC.
    """

    family: Family
    sigma: float
    auc: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class JudgeResult:
    """What all judges found on one set of matched pairs.

    Attributes:
        num_pairs: pairs judged.
        scores: one a family and noise level.
        null_95: by noise level, the AUC that the worst of the families exceeds by chance in 5 % of permutations.
        p_values: by noise level, share of permutations whose worst family reaches the worst AUC found.
    """

    num_pairs: int
    scores: tuple[JudgeScore, ...]
    null_95: dict[float, float]
    p_values: dict[float, float]

    def worst(self, sigma: float = 0.0) -> JudgeScore:
        """The family that tells the sides apart best at a noise level: the one that counts."""
        at_sigma = [score for score in self.scores if score.sigma == sigma]
        if not at_sigma:
            raise ValueError(f"not judged at sigma {sigma}; judged at {sorted(self.null_95)}")
        return max(at_sigma, key=lambda score: score.auc)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: `num_pairs`, and a list by noise level of the worst judge, the null and every score."""
        levels = [
            {
                "sigma": sigma,
                "judge_auc": self.worst(sigma).auc,
                "worst": self.worst(sigma).family,
                "p_value": self.p_values[sigma],
                "null_95": self.null_95[sigma],
                "scores": [asdict(score) for score in self.scores if score.sigma == sigma],
            }
            for sigma in self.null_95
        ]
        return {"num_pairs": self.num_pairs, "levels": levels}


def judge(
    real_z: Floats,
    syn_z: Floats,
    actions: Floats,
    config: JudgeConfig,
    seed: int,
    syn_actions: Floats | None = None,
    groups: NDArray[np.integer] | None = None,
) -> JudgeResult:
    """Ask every family of judges, at every noise level, to tell the two sides apart.

    Args:
        real_z: (n, T+1, D), real episodes or segments, start state first.
        syn_z: (n, T+1, D), from the same start states under the same actions, pair by pair.
        actions: (n, T, A), of both sides, or of the real one where `syn_actions` is given.
        config: families, noise levels, sizes.
        seed: of the folds, the noise and the classifiers.
        syn_actions: (n, T, A) where the synthetic side acted otherwise (real against other real episodes).
        groups: (n,) number of the real episode that a pair comes from, where several share one; a group is never
            split between folds.

    Raises:
        DataError: where the shapes differ, values are not finite, or there are fewer than two pairs a fold.
    """
    arrays = {
        "real z": real_z,
        "synthetic z": syn_z,
        "real actions": actions,
        "synthetic actions": actions if syn_actions is None else syn_actions,
    }
    groups = np.arange(len(real_z)) if groups is None else groups
    _check(arrays, len(np.unique(groups)), config.num_folds)
    evidence = _evidence(arrays, groups, config, seed)
    scores: list[JudgeScore] = []
    null_95: dict[float, float] = {}
    p_values: dict[float, float] = {}
    for sigma in config.sigmas:
        found, null = _judge_level(_with_noise(evidence, sigma, seed), sigma, config, seed)
        scores += found
        worst = max(score.auc for score in found)
        null_95[sigma] = float(np.quantile(null, 0.95))
        p_values[sigma] = _p_value(worst, null)
    return JudgeResult(len(evidence.folds), tuple(scores), null_95, p_values)


def _judge_level(
    evidence: JudgeInputs, sigma: float, config: JudgeConfig, seed: int
) -> tuple[list[JudgeScore], NDArray[np.float64]]:
    """Scores of all families at one noise level, and the permutation distribution of the worst of them."""
    folds = evidence.folds
    sides = [cross_fit(family, evidence, config, seed) for family in config.families]
    null = folded(permuted_aucs(sides, folds, config.num_permutations, numpy_generator(seed, "permutations")))
    found = []
    for family, (real, synthetic), chance in zip(config.families, sides, null, strict=True):
        auc = paired_auc(real, synthetic, folds)
        low, high = paired_interval(real, synthetic, folds, CONFIDENCE)
        if auc < 0.5:
            auc, low, high = 1 - auc, 1 - high, 1 - low
        found.append(JudgeScore(family, sigma, auc, low, high, _p_value(auc, chance)))
    return found, null.max(0)


def _p_value(auc: float, null: NDArray[np.float64]) -> float:
    return float((1 + (null >= auc - 1e-12).sum()) / (1 + len(null)))


def _evidence(arrays: dict[str, Floats], groups: NDArray[np.integer], config: JudgeConfig, seed: int) -> JudgeInputs:
    rng = numpy_generator(seed, "pairs")
    chosen = _spread(groups, rng)[: config.num_pairs]
    real, synthetic, real_actions, synthetic_actions = (
        np.ascontiguousarray(array[chosen], dtype=np.float32) for array in arrays.values()
    )
    # Groups are dealt to folds in random order, so that every fold gets its share of every kind of episode.
    _, group = np.unique(groups[chosen], return_inverse=True)
    folds = rng.permutation(group.max() + 1)[group] % config.num_folds
    return JudgeInputs(real, synthetic, real_actions, synthetic_actions, folds)


def _spread(groups: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int64]:
    """All pairs in random order, one of every group first, then a second one of every group, and so on."""
    order = rng.permutation(len(groups))
    turn = np.zeros(len(groups), dtype=np.int64)
    seen: dict[int, int] = {}
    for row in order:
        turn[row] = seen[groups[row]] = seen.get(groups[row], -1) + 1
    return np.asarray(order[np.argsort(turn[order], kind="stable")])


def _check(arrays: dict[str, Floats], num_groups: int, num_folds: int) -> None:
    real, synthetic, real_actions, synthetic_actions = arrays.values()
    if real.ndim != 3 or real.shape != synthetic.shape:
        raise DataError(f"judges compare pairs (n, T+1, D) of one shape, got {real.shape} and {synthetic.shape}")
    wanted = (real.shape[0], real.shape[1] - 1)
    if real_actions.ndim != 3 or real_actions.shape[:2] != wanted or synthetic_actions.shape != real_actions.shape:
        raise DataError(f"judges need actions {wanted} + (A,), got {real_actions.shape}, {synthetic_actions.shape}")
    if num_groups < 2 * num_folds or real.shape[1] < 2:
        raise DataError(
            f"{num_groups} episodes of {real.shape[1] - 1} steps are too few to judge in {num_folds} folds; "
            f"give at least {2 * num_folds} episodes of one step, or lower judge.num_folds"
        )
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise DataError(f"judges were given NaN or Inf in {name}, first at {where}")


def _with_noise(evidence: JudgeInputs, sigma: float, seed: int) -> JudgeInputs:
    if sigma == 0:
        return evidence
    rng = numpy_generator(seed, "noise", str(sigma))
    noisy = [
        (z + sigma * rng.standard_normal(z.shape, dtype=np.float32)).astype(np.float32)
        for z in (evidence.real, evidence.synthetic)
    ]
    return JudgeInputs(noisy[0], noisy[1], evidence.real_actions, evidence.synthetic_actions, evidence.folds)
