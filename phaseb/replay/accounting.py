"""Exact books of what was sampled: by stream, source, trust and age."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.replay.spec import SampleSpec

TRUST_BINS = 10
AGE_BINS = 40  # powers of two


# A book is a row of numbers: transitions, sum of weights, sum of ages, transitions by trust in tenths (the last bin
# holds 1 as well), transitions by age (bin k holds ages in [2^k - 1, 2^(k+1) - 1) rows).
SAMPLED, WEIGHT, AGE_SUM = 0, 1, 2
TRUST = slice(3, 3 + TRUST_BINS)
AGE = slice(TRUST.stop, TRUST.stop + AGE_BINS)
BOOK_SIZE = AGE.stop
Books = NDArray[np.float64]  # (R, 2, BOOK_SIZE): of each spec, real and synthetic


def book(weight: NDArray[Any], trust: NDArray[Any], age: NDArray[Any]) -> NDArray[np.float64]:
    """The book of some transitions."""
    entry = np.zeros(BOOK_SIZE)
    entry[SAMPLED] = weight.size
    entry[WEIGHT] = weight.sum(dtype=np.float64)
    entry[AGE_SUM] = age.sum(dtype=np.float64)
    tenths = np.clip(trust * TRUST_BINS, 0, TRUST_BINS - 1).astype(np.int64)
    entry[TRUST] = np.bincount(tenths.ravel(), minlength=TRUST_BINS)
    powers = np.minimum(np.frexp(age + 1.0)[1] - 1, AGE_BINS - 1)
    entry[AGE] = np.bincount(powers.ravel(), minlength=AGE_BINS)
    return entry


class Accounting:
    """Books over all batches that a source handed to its learner (not those fetched ahead and thrown away)."""

    def __init__(self, specs: Sequence[SampleSpec]) -> None:
        self.specs = tuple(specs)
        self.books: Books = np.zeros((len(self.specs), 2, BOOK_SIZE))
        self.batches = 0

    def add(self, books: Sequence[Books], num_batches: int) -> None:
        """Enter what a call gave: the books of all shards that took part."""
        for shard in books:
            self.books += shard
        self.batches += num_batches

    def to_json(self) -> dict[str, dict[str, Any]]:
        """By spec: counts, and `effective_contribution` = Σ weights of synthetic / Σ weights of all, as sampled."""
        return {spec.name: _told(books) for spec, books in zip(self.specs, self.books, strict=True)}


def _told(books: NDArray[np.float64]) -> dict[str, Any]:
    real, synthetic = books
    total = float(books[:, WEIGHT].sum())
    return {
        "sampled_real": int(real[SAMPLED]),
        "sampled_synthetic": int(synthetic[SAMPLED]),
        "weight_real": float(real[WEIGHT]),
        "weight_synthetic": float(synthetic[WEIGHT]),
        "effective_contribution": float(synthetic[WEIGHT]) / total if total else 0.0,
        "mean_age": float(books[:, AGE_SUM].sum() / max(1.0, books[:, SAMPLED].sum())),
        "trust_real": real[TRUST].astype(int).tolist(),
        "trust_synthetic": synthetic[TRUST].astype(int).tolist(),
        "age_real": np.trim_zeros(real[AGE], "b").astype(int).tolist(),
        "age_synthetic": np.trim_zeros(synthetic[AGE], "b").astype(int).tolist(),
    }
