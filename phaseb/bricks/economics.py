"""What a set of episodes earns: ratios of sums, with bootstrap intervals over the episodes.

Every number is sum(numerator) / sum(denominator) over episodes, so that one resample is one matrix product. An
episode that lacks a number has no part in it; a number that no episode has is NaN, never 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phaseb.config.data import ValuationConfig

Column = NDArray[np.float64]
Metrics = dict[str, Column]

ECONOMICS = ("mpl", "error_rate", "energy_wh", "energy_wh_per_unit", "value_per_hour")
"""good units an hour; errors of all attempts; Wh an episode; Wh a good unit; $ an hour"""

WH_PER_KWH = 1000.0


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval (NaN where it rests on fewer than two episodes)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EconomicTable:
    """Numerators and denominators (N,) of every name in ECONOMICS, zero in both where an episode lacks the number.

    Attributes:
        energy_counted: whether `value_per_hour` has the energy in it (it cannot where no duration is known).
    """

    numerators: Metrics
    denominators: Metrics
    energy_counted: bool

    def profile(
        self, rows: NDArray[np.integer], num_bootstrap: int, generator: np.random.Generator
    ) -> dict[str, Estimate]:
        """The economics of the episodes at `rows`."""
        draws = generator.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), num_bootstrap).astype(np.float64)
        return {name: self._estimate(name, rows, draws) for name in ECONOMICS}

    def _estimate(self, name: str, rows: NDArray[np.integer], draws: NDArray[np.float64]) -> Estimate:
        top, bottom = self.numerators[name][rows], self.denominators[name][rows]
        value = float(_ratio(top.sum(), bottom.sum()))
        resampled = _ratio(draws @ top, draws @ bottom)
        resampled = resampled[np.isfinite(resampled)]
        if (bottom > 0).sum() < 2 or len(resampled) == 0:
            return Estimate(value, float("nan"), float("nan"))
        low, high = np.quantile(resampled, [0.025, 0.975])
        return Estimate(value, float(low), float(high))


def economic_table(metrics: Metrics, num_episodes: int, valuation: ValuationConfig) -> EconomicTable:
    """Sums where counts and durations are known, else (imported data) means of the rates that are.

    Args:
        metrics: columns (N,) by the names of `phaseb.episodes.episode.METRICS`, NaN or absent where unknown.
    """

    def column(name: str) -> Column:
        return np.asarray(metrics.get(name, np.full(num_episodes, np.nan)), dtype=np.float64)

    good, errors, hours, energy = (column(n) for n in ("good_units", "errors", "duration_h", "energy_wh"))
    hours = np.where(hours > 0, hours, np.nan)
    one = np.ones(num_episodes)
    pairs = {
        "mpl": _first((good, hours), (column("mpl"), one)),
        "error_rate": _first((errors, good + errors), (column("error_rate"), one)),
        "energy_wh": (energy, one),
        "energy_wh_per_unit": _first((energy, good), (column("energy_wh_per_unit"), one)),
    }
    cost = np.nan_to_num(energy) / WH_PER_KWH * valuation.price_per_kwh
    earned = good * valuation.price_per_unit - errors * valuation.cost_per_error
    by_counts = (earned - cost, hours)
    pairs["value_per_hour"] = _first(by_counts, (_value_of_rates(column("mpl"), column("error_rate"), valuation), one))
    known = np.isfinite(by_counts[0] + by_counts[1])
    counted = bool(known.any() and np.isfinite(energy[known]).all())
    masked = {name: _mask(top, bottom) for name, (top, bottom) in pairs.items()}
    return EconomicTable({n: p[0] for n, p in masked.items()}, {n: p[1] for n, p in masked.items()}, counted)


def _value_of_rates(mpl: Column, error_rate: Column, valuation: ValuationConfig) -> Column:
    """$ an hour without the energy, from good units an hour and the share of errors; NaN where all were errors."""
    share = np.where(error_rate < 1, error_rate, np.nan)
    return mpl * valuation.price_per_unit - mpl * share / (1 - share) * valuation.cost_per_error


def _first(exact: tuple[Column, Column], fallback: tuple[Column, Column]) -> tuple[Column, Column]:
    """The sums where any episode has them, else the fallback: the two have different units and must not be mixed."""
    return exact if np.isfinite(exact[0] + exact[1]).any() else fallback


def _mask(top: Column, bottom: Column) -> tuple[Column, Column]:
    known = np.isfinite(top) & np.isfinite(bottom)
    return np.where(known, top, 0.0), np.where(known, bottom, 0.0)


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(bottom > 0, np.divide(top, bottom), np.nan))
