"""A reward is evidence in whatever unit it is paid."""

from dataclasses import replace

import numpy as np
import pytest

from phaseb.trust.corruptions import applicable_kinds, corrupt
from phaseb.trust.one_step_residuals import fit_ridge_dynamics


@pytest.mark.parametrize("unit", [1e-8, 1e6])
def test_the_unit_of_rewards_does_not_change_the_evidence(trajectories, unit) -> None:  # type: ignore[no-untyped-def]
    real, folds = trajectories(12, seed=0), np.arange(12) % 3
    paid = replace(real, rewards=(unit * real.rewards).astype(np.float32))
    assert "reward" in applicable_kinds(paid)
    a, b = (fit_ridge_dynamics(r, folds, 16, seed=0).errors(r, 0) for r in (real, paid))
    assert np.abs(a[..., -1]).mean() > 0.1
    np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02)
    severity = np.ones(12)
    a, b = (corrupt(r, ["reward"] * 12, severity, seed=0).trajectories.rewards for r in (real, paid))
    np.testing.assert_allclose(unit * a, b, rtol=1e-4, atol=1e-4 * unit)
