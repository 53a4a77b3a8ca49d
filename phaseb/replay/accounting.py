"""Exact books of what was sampled: by stream, source, trust and age."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


def sampling_stats(weight: NDArray[Any], trust: NDArray[Any], age: NDArray[Any]) -> NDArray[np.float64]:
    """The book of some transitions."""
    entry = np.zeros(BOOK_SIZE)
    entry[SAMPLED] = weight.size
    entry[WEIGHT] = weight.sum(dtype=np.float64)
    entry[AGE_SUM] = age.sum(dtype=np.float64)
    entry[TRUST] = np.bincount(_tenths(trust).ravel(), minlength=TRUST_BINS)
    entry[AGE] = np.bincount(_powers(age).ravel(), minlength=AGE_BINS)
    return entry


def _tenths(trust: NDArray[Any]) -> NDArray[np.int64]:
    return np.clip(trust * TRUST_BINS, 0, TRUST_BINS - 1).astype(np.int64)


def _powers(age: NDArray[Any]) -> NDArray[np.integer]:
    return np.minimum(np.frexp(age + 1.0)[1] - 1, AGE_BINS - 1)


def stats_by_batch(batch: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """(num_batches, R, 2, BOOK_SIZE): the books of each batch, out of the learner's arrays (num_batches, R, B)."""
    weight, age, synthetic, trust = batch["weight"], batch["age"], batch["is_synthetic"], batch["trust"]
    place = np.arange(weight.shape[0] * weight.shape[1]).reshape(*weight.shape[:2], 1) * 2 + synthetic
    num = 2 * weight.shape[0] * weight.shape[1]
    stats = np.empty((num, BOOK_SIZE))
    for column, values in ((SAMPLED, None), (WEIGHT, weight), (AGE_SUM, age)):
        stats[:, column] = np.bincount(place.ravel(), None if values is None else values.ravel(), num)
    for span, bins, size in ((TRUST, _tenths(trust), TRUST_BINS), (AGE, _powers(age), AGE_BINS)):
        stats[:, span] = np.bincount((place * size + bins).ravel(), minlength=num * size).reshape(num, size)
    return stats.reshape(*weight.shape[:2], 2, BOOK_SIZE)


@dataclass(frozen=True)
class _Call:
    """The batches that a source handed over last: a learner has perhaps not come to the end of them."""

    step: int
    num_batches: int
    stats: Books
    batch: Mapping[str, NDArray[Any]]
    by_batch: NDArray[np.float64] | None

    def before(self, step: int) -> Books:
        num = min(max(step - self.step, 0), self.num_batches)
        if num == self.num_batches:
            return self.stats
        by_batch = stats_by_batch(self.batch) if self.by_batch is None else self.by_batch
        total: Books = by_batch[:num].sum(0)
        return total


class SamplingStats:
    """Books over all batches that a source handed to its learner (not those fetched ahead and thrown away).

    Attributes:
        sum_over_workers: set where several workers take their parts of the same batches: adds an array up over all of
            them, and is called by each of them once a call. The books are then those of the whole batches.
    """

    def __init__(self, specs: Sequence[SampleSpec]) -> None:
        self.specs = tuple(specs)
        self.sum_over_workers: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None
        self._before: Books = np.zeros((len(self.specs), 2, BOOK_SIZE))  # of the calls before the last one
        self._last: _Call | None = None

    @property
    def stats(self) -> Books:
        """Of all that was handed over."""
        return self._before if self._last is None else self._before + self._last.stats

    def as_of(self, step: int) -> Books:
        """Of the batches before step `step` alone, which is one of the last call or the one after it: what a learner
        that stands at `step` has used."""
        return self._before.copy() if self._last is None else self._before + self._last.before(step)

    def add(self, step: int, num_batches: int, stats: Sequence[Books], batch: Mapping[str, NDArray[Any]]) -> None:
        """Enter what a call gave.

        Args:
            books: of all shards that took part.
            batch: the arrays that the learner got, for steps `step` … `step + num_batches − 1`.
        """
        self._before, total, by_batch = self.stats, np.sum(stats, axis=0), None
        if self.sum_over_workers is not None:
            by_batch = self.sum_over_workers(stats_by_batch(batch))
            total = by_batch.sum(0)
        columns = {name: batch[name] for name in ("weight", "trust", "age", "is_synthetic")}
        self._last = _Call(step, num_batches, total, columns, by_batch)

    def start_from(self, stats: Books) -> None:
        """Forget all and go on from other books, as after a resume."""
        self._before, self._last = np.array(stats, dtype=np.float64), None

    def to_json(self, stats: Books | None = None) -> dict[str, dict[str, Any]]:
        """By spec: counts, and `effective_contribution` = Σ weights of synthetic / Σ weights of all, as sampled.

        Args:
            books: of a moment (`as_of`); None: of all that was handed over.
        """
        stats = self.stats if stats is None else stats
        return {spec.name: _summary(of_spec) for spec, of_spec in zip(self.specs, stats, strict=True)}


def _summary(stats: NDArray[np.float64]) -> dict[str, Any]:
    real, synthetic = stats
    total = float(stats[:, WEIGHT].sum())
    return {
        "sampled_real": int(real[SAMPLED]),
        "sampled_synthetic": int(synthetic[SAMPLED]),
        "weight_real": float(real[WEIGHT]),
        "weight_synthetic": float(synthetic[WEIGHT]),
        "effective_contribution": float(synthetic[WEIGHT]) / total if total else 0.0,
        "mean_age": float(stats[:, AGE_SUM].sum() / max(1.0, stats[:, SAMPLED].sum())),
        "trust_real": real[TRUST].astype(int).tolist(),
        "trust_synthetic": synthetic[TRUST].astype(int).tolist(),
        "age_real": np.trim_zeros(real[AGE], "b").astype(int).tolist(),
        "age_synthetic": np.trim_zeros(synthetic[AGE], "b").astype(int).tolist(),
    }
