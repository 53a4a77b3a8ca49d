"""How far sampling and inserting may run ahead of each other."""

from dataclasses import dataclass

from phaseb.config.policy import ReplayConfig
from phaseb.errors import DataError


class LimitedError(DataError):
    """Sampling or inserting must wait for the other side."""


@dataclass
class Limiter:
    """A sample-to-insert ratio, kept by one shard.

    With I transitions inserted and S sampled so far, ρ = `samples_per_insert` and τ = `limiter_tolerance` / shards:

        sampling n waits while  S + n > ρ · I + τ
        inserting m waits while  ρ · (I + m) > S + τ, once I has reached the shard's part of `min_size`

    so that −τ ≤ ρ · I − S ≤ τ at all times after the start. ρ = 0 lets both run free. What n and m alone exceed τ
    could never pass; they wait only while the balance is on the wrong side of 0.
    """

    ratio: float
    tolerance: float
    min_size: float
    inserted: int = 0
    sampled: int = 0

    @classmethod
    def of(cls, config: ReplayConfig) -> "Limiter":
        shards = config.num_shards
        return cls(config.samples_per_insert, config.limiter_tolerance / shards, config.min_size / shards)

    def before_sample(self, count: int) -> None:
        """Raises LimitedError where `count` transitions may not be sampled yet; else counts them."""
        credit = self.ratio * self.inserted - self.sampled
        if self.ratio and credit - min(count, self.tolerance) < -self.tolerance:
            raise LimitedError(f"sampling waits: {self.sampled} sampled, {self.inserted} inserted at {self.ratio:g}")
        self.sampled += count

    def before_insert(self, count: int) -> None:
        """Raises LimitedError where `count` transitions may not be inserted yet."""
        if not self.ratio or self.inserted < self.min_size:
            return
        credit = self.ratio * self.inserted - self.sampled
        if credit + min(self.ratio * count, self.tolerance) > self.tolerance:
            raise LimitedError(f"inserts wait: {self.sampled} sampled, {self.inserted} inserted at {self.ratio:g}")

    def after_insert(self, count: int) -> None:
        """Count transitions that were taken in."""
        self.inserted += count

    def start_level(self, inserted: int) -> None:
        """Begin with transitions that were there before, as after a restart, which has forgotten what was sampled: with
        the balance at 0, neither side waits for what lies behind."""
        self.inserted, self.sampled = inserted, round(self.ratio * inserted)
