"""The probe against known answers, and what an encoder of real size makes readable."""

import numpy as np
import pytest

from phaseb.latents.probe import linear_probe


def test_probe_reads_what_is_linear_and_nothing_else():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4000, 5))
    flag = np.where(z[:, 2] > 0.3, 1.0, -1.0)
    targets = {
        "line": z @ [1.0, 2.0, 0.0, 0.0, -1.0] + 4,
        "noisy": z[:, 0] + rng.standard_normal(4000),
        "flag": flag,
        "square": z[:, 0] ** 2,
        "coin": rng.choice([-1.0, 1.0], 4000),
        "same": np.ones(4000),
    }
    half = {k: v[:2000] for k, v in targets.items()}, {k: v[2000:] for k, v in targets.items()}
    scores = linear_probe(z[:2000], half[0], z[2000:], half[1])
    assert scores["line"] > 0.9999
    assert scores["noisy"] == pytest.approx(0.5, abs=0.05)
    assert scores["flag"] > 0.98
    assert abs(scores["square"]) < 0.05
    assert scores["coin"] == pytest.approx(0.5, abs=0.05)
    assert np.isnan(scores["same"])
