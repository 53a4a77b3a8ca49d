import numpy as np
import pytest

from phaseb.trust.corruptions import KINDS, MOMENTARY, WHOLE, applicable_kinds, corrupt, graded
from phaseb.trust.dataset import crop


def changed(made, real) -> np.ndarray:  # type: ignore[no-untyped-def]
    """(N, T) how much each transition's outcome, action or reward differs from what was recorded."""
    t = made.trajectories
    z, actions = np.abs(t.z[:, 1:] - real.z[:, 1:]).sum(2), np.abs(t.actions - real.actions).sum(2)
    return np.asarray(z + actions + np.abs(t.rewards - real.rewards))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_begins_where_it_says(trajectories, kind) -> None:  # type: ignore[no-untyped-def]
    real = trajectories(20, seed=0)
    onset = np.arange(20) % 15 + 5
    made = corrupt(real, [kind] * 20, np.ones(20), seed=1, onset=onset)
    difference = changed(made, real)
    first = np.where(difference.max(1) > 1e-6, (difference > 1e-6).argmax(1), 99)
    if kind in WHOLE:
        assert (made.onset == 0).all()
        assert (first <= 1).all()
        assert (made.labels == 0).all()
    else:
        assert (made.onset == onset).all()
        assert (first == onset).mean() >= 0.9  # by chance a mixed action or a frozen step may not differ at once
        assert (first >= onset).all()
        for labels, k in zip(made.labels, onset, strict=True):
            assert (labels[:k] == 1).all()
            assert labels[k] == 0
            assert np.isnan(labels[k + 1 :]).all() if kind in MOMENTARY else (labels[k:] == 0).all()
    assert np.isfinite(made.trajectories.z).all()
    assert (real.z == trajectories(20, seed=0).z).all()  # the recorded episodes are left alone


@pytest.mark.parametrize("kind", KINDS)
def test_severity_is_a_grade(trajectories, kind) -> None:  # type: ignore[no-untyped-def]
    real, onset = trajectories(40, seed=0), np.full(40, 10)
    by_grade = [
        changed(corrupt(real, [kind] * 40, np.full(40, severity), seed=1, onset=onset), real).mean()
        for severity in (0.02, 0.5, 1.0)
    ]
    assert by_grade[0] < by_grade[1] < by_grade[2]


def test_padding_stays_padding(trajectories) -> None:  # type: ignore[no-untyped-def]
    real = trajectories(20, seed=0)
    short = crop(real, np.full(20, 3), np.arange(20) % 10 + 2)
    made = graded(short, 40, seed=0).trajectories
    for z, actions, rewards, length in zip(made.z, made.actions, made.rewards, made.lengths, strict=True):
        assert (z[length:] == z[length]).all()
        assert (actions[length:] == 0).all()
        assert (rewards[length:] == 0).all()


def test_graded_copies_repeat_for_a_seed_and_cover_kinds_and_grades(trajectories) -> None:  # type: ignore[no-untyped-def]
    real = trajectories(15, seed=0)
    made, again, other = (graded(real, 100, seed=s) for s in (3, 3, 4))
    assert (made.trajectories.z == again.trajectories.z).all()
    assert (made.trajectories.z != other.trajectories.z).any()
    assert {made.kinds.count(kind) for kind in KINDS} == {10}
    assert np.sort(made.severity) == pytest.approx(np.arange(100) / 100 + 0.005, abs=0.006)
    assert len(set(made.trajectories.ids)) == 100
    assert set(made.trajectories.lineage["start_episode"]) == set(real.ids)


def test_what_cannot_be_told_is_not_taught(trajectories) -> None:  # type: ignore[no-untyped-def]
    real = trajectories(5, seed=0)
    assert applicable_kinds(real) == KINDS
    real.rewards[:] = 0
    assert "reward" not in applicable_kinds(real)
    real.actions[:] = 0
    assert not {"reward", "action"} & set(applicable_kinds(real))
    assert "splice" not in applicable_kinds(real.select([0]))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_episodes_can_be_corrupted(trajectories, steps) -> None:  # type: ignore[no-untyped-def]
    made = graded(trajectories(6, seed=0, num_steps=steps, num_dimensions=1), 20, seed=0)
    assert np.isfinite(made.trajectories.z).all()
    assert (made.onset < steps).all()
