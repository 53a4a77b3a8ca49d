"""What a policy earns in an environment: one row an episode, rates as ratios of sums, intervals over seeds.

N episodes, D latent dimensions, A action dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from phaseb.config.data import ValuationConfig
from phaseb.episodes.environment import Observation, VectorEnvironment
from phaseb.errors import ConfigError, DataError
from phaseb.policy.checked_environment import GuardedEnvironment
from phaseb.policy.trained_policy import ClosedLoopAct
from phaseb.runtime.metrics import mean_interval

EVALUATED = ("mpl", "error_rate", "energy_wh_per_unit", "return", "net_value_per_hour")
"""What an evaluation tells of a policy."""
LIMITS: Mapping[str, tuple[float, ...]] = {"mpl": (0.0,), "error_rate": (0.0, 1.0), "energy_wh_per_unit": (0.0,)}
"""Between what some of it lies, whatever the policy: least, and most."""

TASK = "task"
"""What a row calls the number of its episode's task, where there are several."""

Row = dict[str, float]


class OnlineEncoder(Protocol):
    """Turns observations into latents as they come."""

    def reset(self, observation: Observation) -> NDArray[np.float32]:
        """Latents (N, D) of the first observation of N new episodes."""
        ...

    def step(self, observation: Observation) -> NDArray[np.float32]:
        """Latents (N, D) of the next observation."""
        ...


def evaluate(
    act: ClosedLoopAct,
    encoder: OnlineEncoder,
    environment: VectorEnvironment,
    seeds: Sequence[int],
    denormalise: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda actions: actions,
    watch: Callable[[int, NDArray[np.bool_]], None] | None = None,
    step_limit_s: float = 300.0,
) -> list[Row]:
    """Run a policy for one episode a seed.

    Args:
        act: the policy in closed loop; step 0 tells it that episodes begin.
        encoder: for `environment.num_envs` episodes.
        seeds: of the episodes; any number, run `num_envs` at a time.
        denormalise: scaled actions to the environment's units.
        watch: called after every step with (step, running (N,)), for drawing.
        step_limit_s: seconds that the environment may take for a step.

    Returns:
        One row a seed, in order: seed, steps, terminated and the environment's economics (NaN where unknown), and
        where there are several tasks the number of the episode's.

    Raises:
        ConfigError: where the policy's actions do not fit the environment.
        DataError: where the environment raises, does not answer, gives NaN or Inf, or has episodes that do not end;
            names it and the step.
    """
    rows: list[Row] = []
    size = environment.num_envs
    for first in range(0, len(seeds), size):
        part = list(seeds[first : first + size])
        padded = part + [part[-1]] * (size - len(part))
        rows += _run(act, encoder, environment, padded, denormalise, watch, step_limit_s)[: len(part)]
    return rows


def _run(
    act: ClosedLoopAct,
    encoder: OnlineEncoder,
    environment: VectorEnvironment,
    seeds: list[int],
    denormalise: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    watch: Callable[[int, NDArray[np.bool_]], None] | None,
    step_limit_s: float,
) -> list[Row]:
    size = len(seeds)
    guarded = GuardedEnvironment(environment, step_limit_s)
    observation = guarded.reset(seeds)
    z = encoder.reset(observation)
    running = np.ones(size, bool)
    ended, steps, returns = np.zeros(size, bool), np.zeros(size, np.int64), np.zeros(size)
    for step in range(environment.max_steps):
        actions = act(z, step)
        _check_actions(environment, step, actions)
        observation, rewards, terminated, truncated, _ = guarded.step(step, denormalise(actions))
        returns += np.where(running, rewards, 0.0)
        steps += running
        ended |= terminated & running
        running &= ~(terminated | truncated)
        if watch is not None:
            watch(step, running)
        if not running.any():
            break
        z = encoder.step(observation)
    if running.any():
        guarded.not_ended(running, environment.max_steps)
    rows = _rows(seeds, steps, ended, returns, environment.economics())
    tasks = getattr(environment, "task_numbers", None)
    return rows if tasks is None else [row | {TASK: float(tasks[i])} for i, row in enumerate(rows)]


def _rows(
    seeds: Sequence[int],
    steps: NDArray[np.int64],
    ended: NDArray[np.bool_],
    returns: NDArray[np.float64],
    economics: Mapping[str, NDArray[np.float64]],
) -> list[Row]:
    rows = []
    for i, seed in enumerate(seeds):
        measured = {name: float(values[i]) for name, values in economics.items()}
        flags = {"seed": float(seed), "steps": float(steps[i]), "terminated": float(ended[i])}
        rows.append({**flags, **measured, "return": float(returns[i])})
    return rows


def _check_actions(environment: VectorEnvironment, step: int, actions: NDArray[np.float32]) -> None:
    wanted, name = (environment.num_envs, len(environment.action_low)), environment.name
    if actions.shape != wanted:
        raise ConfigError(f"the policy acts {actions.shape[1:]}, but {name} wants ({wanted[1]},): other spaces")
    if not np.isfinite(actions).all():
        raise DataError(f"the policy acts NaN or Inf in environment {name} at step {step}: train it again")


def aggregate(rows: Sequence[Mapping[str, Any]], valuation: ValuationConfig) -> dict[str, float]:
    """What a policy earned over its episodes; rates are ratios of sums.

    Units: mpl in good units an hour, error_rate in bad attempts of all attempts, energy in Wh a good unit, net value
    in $ an hour of simulated time. NaN where the environment does not measure it or nothing was attempted.
    """

    def total(name: str) -> float:
        return float(np.sum([row.get(name, np.nan) for row in rows]))

    hours, good, bad = total("duration_h"), total("good_units"), total("errors")
    energy = total("energy_wh")
    paid = valuation.price_per_kwh * energy / 1000
    net = good * valuation.price_per_unit - bad * valuation.cost_per_error - paid
    return {
        "mpl": _ratio(good, hours),
        "error_rate": _ratio(bad, good + bad),
        "energy_wh_per_unit": _ratio(energy, good),
        "return": total("return") / max(1, len(rows)),
        "net_value_per_hour": _ratio(net, hours),
        "num_episodes": float(len(rows)),
    }


def summarise(per_seed: Sequence[Mapping[str, float]], confidence: float = 0.95) -> dict[str, dict[str, float]]:
    """Mean and interval over seeds of every evaluated metric: {metric: {mean, low, high}}."""
    table = {}
    for name in EVALUATED:
        mean, low, high = mean_interval([row[name] for row in per_seed], confidence, *LIMITS.get(name, ()))
        table[name] = {"mean": mean, "low": low, "high": high}
    return table


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom > 0 else float("nan")
