import numpy as np
import torch

from phaseb.trust.features import JUDGE_FEATURES, judge_features, report_features, windows


def test_the_reports_features_are_numpys() -> None:
    z = np.random.default_rng(0).normal(size=(5, 9, 3)).astype(np.float32)
    v, step = z[:, 1:], np.abs(np.diff(z, axis=1))
    expected = [v.mean(1), v.std(1), v.min(1), v.max(1), v.var(1), step.mean(1)]
    assert np.allclose(report_features(torch.from_numpy(z)), np.concatenate(expected, axis=1), atol=1e-3)
    told = judge_features(z)
    assert told.shape == (5, 3 * len(JUDGE_FEATURES))
    assert np.allclose(told, np.concatenate([*expected, step.max(1), np.zeros((5, 3))], axis=1), atol=1e-6)


def test_padding_counts_in_no_feature() -> None:
    z = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 9, 3)).astype(np.float32))
    padded = torch.cat([z, torch.full((2, 4, 3), 99.0)], dim=1)
    mask = torch.arange(12)[None].expand(2, -1) < 8
    assert torch.allclose(report_features(padded, mask), report_features(z))


def test_the_gradient_is_finite_where_a_rollout_stands_still() -> None:
    z = torch.zeros(2, 5, 3, requires_grad=True)
    report_features(z).square().sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_repeats_are_exact_ones_only() -> None:
    z = np.zeros((1, 5, 2))
    z[0, :, 1] = [0, 1, 1, 1 + 1e-9, 2]
    assert judge_features(z)[0, -2:].tolist() == [1.0, 0.25]


def test_windows_hold_levels_and_differences_and_reach_the_end() -> None:
    z = np.arange(22, dtype=float).reshape(1, 11, 2) ** 2
    cut = windows(z, length=4, stride=3)
    assert cut.shape == (1, 4, (4 + 3) * 2)  # starts 0, 3, 6 and the last one, 7
    assert np.array_equal(cut[0, -1, :8], z[0, 7:].ravel())
    assert np.array_equal(cut[0, 1, 8:], np.diff(z[0, 3:7], axis=0).ravel())
    assert windows(z[:, :3], length=8, stride=4).shape == (1, 1, (3 + 2) * 2)
