import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from phaseb.trust.paired_auc import folded, paired_auc, paired_interval, permuted_aucs

ONE_FOLD = np.zeros(40, dtype=np.int64)


def test_auc_within_one_fold_is_the_textbooks() -> None:
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(0.5, 1, 40).round(1), rng.normal(0, 1, 40).round(1)  # rounding makes ties
    expected = roc_auc_score(np.repeat([1, 0], 40), np.concatenate([real, synthetic]))
    assert paired_auc(real, synthetic, ONE_FOLD) == pytest.approx(expected)


def test_scores_of_different_folds_are_never_compared() -> None:
    folds = np.repeat([0, 1], 20)
    rng = np.random.default_rng(1)
    real, synthetic = rng.normal(size=40), rng.normal(size=40)
    shifted = 100.0 * folds
    assert paired_auc(real + shifted, synthetic + shifted, folds) == pytest.approx(paired_auc(real, synthetic, folds))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_swapping_the_sides_mirrors_the_auc_and_a_monotone_map_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    folds = np.arange(30) % 3
    real, synthetic = rng.normal(size=30), rng.normal(size=30)
    auc = paired_auc(real, synthetic, folds)
    assert paired_auc(synthetic, real, folds) == pytest.approx(1 - auc)
    assert paired_auc(np.exp(real), np.exp(synthetic), folds) == pytest.approx(auc)
    low, high = paired_interval(real, synthetic, folds, 0.95)
    assert low <= auc <= high


def test_the_interval_covers_the_true_auc() -> None:
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(300):
        shared = rng.normal(size=100)  # correlation within pairs, which an unpaired interval would ignore
        real = shared + rng.normal(size=100) + 0.5
        synthetic = shared + rng.normal(size=100)
        low, high = paired_interval(real, synthetic, np.zeros(100, dtype=np.int64), 0.95)
        covered.append(low <= 0.5987 <= high)  # Φ(0.5 / (√2·√2))
    assert 0.91 <= np.mean(covered) <= 0.985


def test_permutations_keep_the_null_where_nothing_differs() -> None:
    rng = np.random.default_rng(3)
    scores = [(rng.normal(size=200), rng.normal(size=200)) for _ in range(2)]
    folds = np.arange(200) % 5
    null = permuted_aucs(scores, folds, 2000, rng)
    assert null.mean() == pytest.approx(0.5, abs=0.005)
    assert null.std() == pytest.approx(0.029, abs=0.003)  # √((2n+1)/12n²) of Mann and Whitney, n = 200
    assert folded(np.array([0.3, 0.6])).tolist() == [0.7, 0.6]


def test_an_identity_permutation_gives_the_auc_itself() -> None:
    class NoSwap(np.random.Generator):
        def random(self, size: object = None) -> np.ndarray:  # type: ignore[override]
            return np.ones(size)  # type: ignore[arg-type]

    rng = np.random.default_rng(4)
    real, synthetic, folds = rng.normal(1, 1, 50), rng.normal(size=50), np.arange(50) % 5
    null = permuted_aucs([(real, synthetic)], folds, 1, NoSwap(np.random.PCG64(0)))
    assert null[0, 0] == pytest.approx(paired_auc(real, synthetic, folds))
