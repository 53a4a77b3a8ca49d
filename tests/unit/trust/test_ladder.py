import numpy as np
import pytest

from phaseb.config.trust import JudgeConfig
from phaseb.errors import DataError
from phaseb.trust.ladder import Pairs, floor_pairs, ladder, open_loop_pairs, summarise
from phaseb.trust.two_sample import JudgeResult, JudgeScore

QUICK = JudgeConfig(families=("episode_trees",), sigmas=(0.0,), episode_rounds=20, num_permutations=99)


def verdict(auc: float) -> JudgeResult:
    score = JudgeScore("gru", 0.0, auc, auc - 0.05, auc + 0.05, 0.01)
    return JudgeResult(200, (score,), {0.0: 0.57}, {0.0: 0.001 if auc > 0.57 else 0.2})


def test_the_first_rung_that_jumps_is_named() -> None:
    aucs = {"60": 0.95, "real": 0.52, "one_step": 0.53, "5": 0.71}
    found = summarise({name: verdict(auc) for name, auc in aucs.items()}, JudgeConfig())
    assert list(found.results) == ["real", "one_step", "5", "60"]
    assert found.leak == "5"
    assert found.sentence == (
        "The leak starts at 5 open-loop steps: the gru judge reaches 0.71 there (0.66 to 0.76), "
        "after at most 0.53 up to one-step prediction."
    )


def test_a_slow_rise_below_chance_is_no_leak_but_a_slow_rise_beyond_it_is() -> None:
    assert summarise({"real": verdict(0.50), "5": verdict(0.56)}, JudgeConfig()).leak is None
    slow = {"real": verdict(0.52), "5": verdict(0.56), "15": verdict(0.60), "30": verdict(0.66)}
    assert summarise(slow, JudgeConfig()).leak == "30"
    floor = summarise({"real": verdict(0.70), "5": verdict(0.72)}, JudgeConfig())
    assert floor.leak is None
    assert floor.sentence.startswith("No rung jumps: at the last one, 5 open-loop steps, the worst judge reaches 0.72")


def test_a_stage_that_rollouts_never_pass_neither_leaks_nor_hides_a_leak() -> None:
    aucs = {"real": 0.52, "encode_decode": 0.97, "one_step": 0.68, "60": 0.80}
    found = summarise({name: verdict(auc) for name, auc in aucs.items()}, JudgeConfig())
    assert found.leak == "one_step"
    assert found.results["encode_decode"].worst(0.0).auc == 0.97  # shown all the same


def test_a_ladder_over_stages_finds_the_broken_one(oscillators) -> None:  # type: ignore[no-untyped-def]
    z, actions = oscillators(100, seed=1), np.zeros((100, 60, 1), np.float32)
    other = oscillators(100, seed=2)
    broken = other + np.linspace(0, 1, 61, dtype=np.float32)[None, :, None]
    rungs = {"real": floor_pairs(z, actions, 0), "one_step": Pairs(z, other, actions), "60": Pairs(z, broken, actions)}
    found = ladder(rungs, QUICK, 0)
    assert found.leak == "60"
    assert set(found.as_dict()["rungs"]) == {"real", "one_step", "60"}
    with pytest.raises(DataError, match="no rung to judge"):
        ladder({"elsewhere": rungs["60"]}, QUICK, 0)


def test_segments_are_real_disjoint_and_spread_over_episodes(oscillators) -> None:  # type: ignore[no-untyped-def]
    z = oscillators(6, seed=1, num_dimensions=2)
    z[..., 0], z[..., 1] = np.arange(6)[:, None], np.arange(61)[None]  # each value names its episode and step
    actions = np.repeat(np.arange(60, dtype=np.float32)[None, :, None], 6, axis=0)
    lengths = np.array([60, 60, 60, 60, 14, 33])
    asked = []

    def roll(start: np.ndarray, taken: np.ndarray) -> np.ndarray:
        asked.append((start, taken))
        return np.repeat(start[:, None], 16, axis=1)

    pairs = open_loop_pairs(z, actions, lengths, 15, roll, JudgeConfig(num_pairs=200), 0)
    assert len(pairs.real) == 4 * 4 + 0 + 2  # as many disjoint segments of 15 steps as fit
    assert pairs.groups is not None
    assert (pairs.real[..., 0] == pairs.groups[:, None]).all()
    assert (np.diff(pairs.real[..., 1], axis=1) == 1).all()
    assert (pairs.actions[..., 0] == pairs.real[:, :-1, 1]).all()
    for episode in range(6):
        starts = np.sort(pairs.real[pairs.groups == episode, 0, 1])
        assert (np.diff(starts) >= 15).all()
        assert (starts + 15 <= lengths[episode]).all()
    assert (asked[0][0] == pairs.real[:, 0]).all()
    few = open_loop_pairs(z, actions, lengths, 15, roll, JudgeConfig(num_pairs=10), 0)
    spread = np.bincount(few.groups, minlength=6)  # a first segment of each of the five, then a second one
    assert spread[4] == 0
    assert spread.tolist().count(2) == 5
    with pytest.raises(DataError, match="no held-out episode has 61 steps"):
        open_loop_pairs(z, actions, lengths, 61, roll, JudgeConfig(), 0)
