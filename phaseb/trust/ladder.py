"""The judge ladder: the same judges asked stage by stage, so that the first rung that jumps names what leaks.

n pairs, L steps, D latent dimensions, A action dimensions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.trust import JudgeConfig
from phaseb.errors import DataError
from phaseb.runtime.seeding import derive_seed, numpy_generator
from phaseb.trust.two_sample import JudgeResult, judge

JUMP_AUC = 0.05
"""Rise of the worst judge's AUC that names a leaking rung."""
JUMP_P_VALUE = 0.01
"""A rung leaks only where chance is less likely than this."""

Floats = NDArray[np.floating]
Rollout = Callable[[Floats, Floats], Floats]
FLOORS = ("simulator", "real")
ASIDE = ("encode_decode",)  # shown, but no stage that a rollout passes: it never meets the state decoder
STAGES = {
    "simulator": "the simulator's own repetition",
    "real": "the split of real episodes",
    "encode_decode": "encoding and decoding",
    "one_step": "one-step prediction",
}


@dataclass(frozen=True)
class Pairs:
    """One rung: matched pairs of real and synthetic segments of equal length.

    Attributes:
        real: (n, L+1, D), start state first.
        synthetic: (n, L+1, D), from the same start states.
        actions: (n, L, A).
        synthetic_actions: (n, L, A) where the synthetic side acted otherwise.
        groups: (n,) the real episode of each pair, where several pairs share one.
    """

    real: Floats
    synthetic: Floats
    actions: Floats
    synthetic_actions: Floats | None = None
    groups: NDArray[np.integer] | None = None


@dataclass(frozen=True)
class Ladder:
    """Results by rung, the rung that leaks (None where none jumps), and a sentence that says so."""

    results: dict[str, JudgeResult]
    leak: str | None
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        rungs = {name: result.as_dict() for name, result in self.results.items()}
        return {"rungs": rungs, "leak": self.leak, "sentence": self.sentence}


def ladder(rungs: Mapping[str, Pairs], config: JudgeConfig, seed: int) -> Ladder:
    """Judge every rung of `config.rungs` that is given, in that order.

    Raises:
        DataError: where none of the rungs asked for is given, or a rung is refused by the judges.
    """
    names = [name for name in config.rungs if name in rungs]
    if not names:
        raise DataError(f"no rung to judge: judge.rungs asks for {list(config.rungs)}, there are {sorted(rungs)}")
    return summarise({name: judge_rung(name, rungs[name], config, seed) for name in names}, config)


def judge_rung(name: str, pairs: Pairs, config: JudgeConfig, seed: int) -> JudgeResult:
    """The judges' result at one rung; depends on nothing but the rung, so rungs can be judged in parallel."""
    arguments = (pairs.real, pairs.synthetic, pairs.actions, config, derive_seed(seed, "judge", name))
    return judge(*arguments, syn_actions=pairs.synthetic_actions, groups=pairs.groups)


def summarise(results: Mapping[str, JudgeResult], config: JudgeConfig) -> Ladder:
    """Name the first rung that jumps: its worst judge exceeds every rung before it by JUMP_AUC, and chance.

    A floor compares real with real: it cannot leak, it only raises what counts as a jump above it. Rungs that stand
    aside do neither.
    """
    ordered = {name: results[name] for name in config.rungs if name in results}
    sigma, highest, before = config.sigmas[0], 0.5, ""
    for name, result in ordered.items():
        if name in ASIDE:
            continue
        worst = result.worst(sigma)
        beyond_chance = name not in FLOORS and result.p_values[sigma] <= JUMP_P_VALUE
        if beyond_chance and worst.auc >= highest + JUMP_AUC:
            return Ladder(ordered, name, _leak_sentence(name, result, sigma, before, highest))
        if worst.auc >= highest:
            highest, before = worst.auc, name
    last, result = list(ordered.items())[-1]
    score = result.worst(sigma)
    sentence = (
        f"No rung jumps: at the last one, {_stage(last)}, the worst judge reaches {score.auc:.2f} "
        f"({score.low:.2f} to {score.high:.2f}; chance stays below {result.null_95[sigma]:.2f})."
    )
    return Ladder(ordered, None, sentence)


def open_loop_pairs(
    z: Floats,
    actions: Floats,
    lengths: NDArray[np.integer],
    steps: int,
    roll: Rollout,
    config: JudgeConfig,
    seed: int,
    groups: NDArray[np.integer] | None = None,
) -> Pairs:
    """A rung of open-loop segments: real ones of `steps` steps, and rollouts from their first states.

    Args:
        z: (N, T+1, D) held-out real episodes.
        actions: (N, T, A).
        lengths: (N,) their numbers of steps; shorter episodes than `steps` are left out.
        steps: length L of the segments.
        roll: (n, D) start states and (n, L, A) actions → (n, L+1, D), one fresh rollout each.
        config: `num_pairs` segments are drawn, as evenly from the episodes as can be, never two that overlap.
        seed: of the starts.
        groups: (N,) what each belongs to, where several are windows of one episode.

    Raises:
        DataError: where no episode is long enough.
    """
    rng = numpy_generator(seed, "segments", steps)
    room = np.asarray(lengths) // steps
    if not room.any():
        raise DataError(f"no held-out episode has {steps} steps; leave the rung {steps} out of judge.rungs")
    rows, starts = _deal_segments(np.asarray(lengths), steps, config.num_pairs, rng)
    span = starts[:, None] + np.arange(steps + 1)
    real, taken = z[rows[:, None], span], actions[rows[:, None], span[:, :-1]]
    return Pairs(real, np.asarray(roll(real[:, 0], taken)), taken, groups=rows if groups is None else groups[rows])


def floor_pairs(z: Floats, actions: Floats, seed: int, groups: NDArray[np.integer] | None = None) -> Pairs:
    """The rung `real`: one half of the real episodes (N, T+1, D) against the other; an odd one is left out.

    Where `groups` (N,) says which windows are of one episode, episodes are paired, and their windows one by one.
    """
    names, group = np.unique(np.arange(len(z)) if groups is None else groups, return_inverse=True)
    order = numpy_generator(seed, "floor").permutation(len(names))[: len(names) // 2 * 2]
    one: list[int] = []
    other: list[int] = []
    pair: list[int] = []
    for number, (left, right) in enumerate(zip(order[::2], order[1::2], strict=True)):
        mine, theirs = np.flatnonzero(group == left), np.flatnonzero(group == right)
        both = min(len(mine), len(theirs))
        one += mine[:both].tolist()
        other += theirs[:both].tolist()
        pair += [number] * both
    return Pairs(z[one], z[other], actions[one], actions[other], np.array(pair, dtype=np.int64))


def _deal_segments(
    lengths: NDArray[np.integer], steps: int, num_pairs: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Episode and first step of each segment: one an episode, then a second one, and so on while there is room."""
    rows, starts = [], []
    for episode, length in enumerate(lengths):
        count = int(length) // steps
        # Random gaps before each of `count` segments in a row, drawn as order statistics of the free steps.
        gaps = np.sort(rng.integers(0, length - count * steps + 1, count)) if count else np.zeros(0, dtype=np.int64)
        order = rng.permutation(count)
        starts.append((gaps + steps * np.arange(count))[order])
        rows.append(np.full(count, episode))
    turn = np.concatenate([np.arange(len(s)) for s in starts])
    all_rows, all_starts = np.concatenate(rows), np.concatenate(starts)
    chosen = np.lexsort((rng.random(len(turn)), turn))[:num_pairs]
    return all_rows[chosen].astype(np.int64), all_starts[chosen].astype(np.int64)


def _stage(name: str) -> str:
    return STAGES.get(name, f"{name} open-loop steps" if name.isdigit() else name)


def _leak_sentence(name: str, result: JudgeResult, sigma: float, before: str, highest: float) -> str:
    score = result.worst(sigma)
    compared = f"after at most {highest:.2f} up to {_stage(before)}" if before else "at the first rung"
    return (
        f"The leak starts at {_stage(name)}: the {score.family} judge reaches {score.auc:.2f} there "
        f"({score.low:.2f} to {score.high:.2f}), {compared}."
    )
