"""Exact books of what was sampled: by stream, source, trust and age."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.replay.spec import SampleSpec

TRUST_BINS = 10
AGE_BINS = 40  # powers of two


@dataclass
class Stream:
    """One spec's counts; index 0 is real, 1 synthetic.

    Attributes:
        sampled: transitions.
        weight: sum of their weights for the loss.
        trust: (2, 10) transitions by trust, in tenths; the last bin holds 1 as well.
        age: (2, 40) transitions by age: bin k holds ages in [2^k − 1, 2^(k+1) − 1) rows.
        age_sum: rows.
    """

    sampled: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    weight: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    trust: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, TRUST_BINS), np.int64))
    age: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, AGE_BINS), np.int64))
    age_sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def count(self, source: int, weight: NDArray[Any], trust: NDArray[Any], age: NDArray[Any]) -> None:
        tenths = np.minimum(trust * TRUST_BINS, TRUST_BINS - 1).astype(np.int64).ravel()
        powers = np.frexp(age + 1.0)[1].ravel() - 1
        self.sampled[source] += weight.size
        self.weight[source] += weight.sum(dtype=np.float64)
        self.trust[source] += np.bincount(tenths, minlength=TRUST_BINS)
        self.age[source] += np.bincount(powers, minlength=AGE_BINS)[:AGE_BINS]
        self.age_sum[source] += age.sum(dtype=np.float64)


class Accounting:
    """Books over all batches that a source handed to its learner (not those fetched ahead and thrown away)."""

    def __init__(self, specs: Sequence[SampleSpec]) -> None:
        self.specs = tuple(specs)
        self.streams = [Stream() for _ in specs]
        self.batches = 0

    def count(self, batch: Mapping[str, NDArray[Any]], synthetic: NDArray[np.bool_]) -> None:
        """Enter batches of shape (K, R, B, …); `synthetic` is (R, B), real places first."""
        self.batches += len(batch["weight"])
        for r, stream in enumerate(self.streams):
            split = int(np.count_nonzero(~synthetic[r]))
            for source, part in ((0, np.s_[:, r, :split]), (1, np.s_[:, r, split:])):
                if batch["weight"][part].size:
                    stream.count(source, batch["weight"][part], batch["trust"][part], batch["age"][part])

    def to_json(self) -> dict[str, dict[str, Any]]:
        """By spec: counts, and `effective_contribution` = Σ weights of synthetic / Σ weights of all, as sampled."""
        return {spec.name: _told(stream) for spec, stream in zip(self.specs, self.streams, strict=True)}


def _told(stream: Stream) -> dict[str, Any]:
    total = float(stream.weight.sum())
    sampled = stream.sampled
    return {
        "sampled_real": int(sampled[0]),
        "sampled_synthetic": int(sampled[1]),
        "weight_real": float(stream.weight[0]),
        "weight_synthetic": float(stream.weight[1]),
        "effective_contribution": float(stream.weight[1]) / total if total else 0.0,
        "mean_age": float(stream.age_sum.sum() / max(1, int(sampled.sum()))),
        "trust_real": stream.trust[0].tolist(),
        "trust_synthetic": stream.trust[1].tolist(),
        "age_real": np.trim_zeros(stream.age[0], "b").tolist(),
        "age_synthetic": np.trim_zeros(stream.age[1], "b").tolist(),
    }
