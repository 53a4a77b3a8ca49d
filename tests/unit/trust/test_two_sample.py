import json

import numpy as np
import pytest
import torch

from phaseb.config.trust import JudgeConfig
from phaseb.errors import DataError
from phaseb.trust.two_sample import judge

ACTIONS = np.zeros((200, 60, 2), np.float32)
GRU_STEPS = "phaseb.trust.judges.GRU_STEPS"
QUICK = JudgeConfig(episode_rounds=20, num_permutations=99, sigmas=(0.0,))


@pytest.fixture
def few_steps(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(GRU_STEPS, 10)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("fault", ["texture", "jump"])
def test_a_fault_of_a_third_of_sigma_in_one_dimension_is_found(oscillators, fault) -> None:  # type: ignore[no-untyped-def]
    real, synthetic = oscillators(200, seed=1), oscillators(200, seed=2)
    rng = np.random.default_rng(5)
    if fault == "texture":
        synthetic[:, 1:, 3] += 0.3 * rng.normal(size=(200, 60))
    else:
        for episode, step in enumerate(rng.integers(10, 50, 200)):
            synthetic[episode, step:, 3] += 0.3
    result = judge(real, synthetic, ACTIONS, JudgeConfig(sigmas=(0.0,)), seed=0)
    for score in result.scores:
        assert score.auc >= 0.9, score
        assert score.p_value <= 0.001
    assert result.p_values[0.0] <= 0.001
    assert result.worst().auc == max(score.auc for score in result.scores)


@pytest.mark.usefixtures("few_steps")
def test_nothing_is_found_between_equals(oscillators) -> None:  # type: ignore[no-untyped-def]
    result = judge(oscillators(200, seed=1), oscillators(200, seed=2), ACTIONS, QUICK, seed=0)
    assert result.worst().auc < 0.6
    assert result.p_values[0.0] > 0.01
    assert 0.54 < result.null_95[0.0] < 0.61


@pytest.mark.usefixtures("few_steps")
def test_each_family_is_unbiased_under_the_null(oscillators) -> None:  # type: ignore[no-untyped-def]
    p_values = []
    for seed in range(12):
        real, synthetic = (oscillators(50, seed=2 * seed + side, num_dimensions=3) for side in range(2))
        result = judge(real[:, :21], synthetic[:, :21], ACTIONS[:50, :20], QUICK, seed)
        p_values.append([score.p_value for score in result.scores])
    # Under the null each column is uniform on (0, 1]: the mean of twelve has standard deviation 0.083.
    assert (np.abs(np.mean(p_values, axis=0) - 0.5) < 0.25).all()


@pytest.mark.usefixtures("few_steps")
def test_noise_on_both_sides_hides_texture_but_not_a_large_fault(oscillators) -> None:  # type: ignore[no-untyped-def]
    real, synthetic = oscillators(100, seed=1, noise=0.0), oscillators(100, seed=2, noise=0.05)
    config = QUICK.model_copy(update={"sigmas": (0.0, 0.5), "families": ("episode_trees",)})
    result = judge(real, synthetic, ACTIONS[:100], config, 0)
    assert result.worst(0.0).auc > 0.85
    assert result.worst(0.5).auc < 0.62
    with pytest.raises(ValueError, match="not judged at sigma"):
        result.worst(0.2)


@pytest.mark.usefixtures("few_steps")
def test_exact_repeats_are_a_tell(oscillators) -> None:  # type: ignore[no-untyped-def]
    real = oscillators(100, seed=1)
    synthetic = oscillators(100, seed=2)
    real[:, 1::2, 0] = real[:, 0:-1:2, 0]
    synthetic[:, 1::2, 0] = synthetic[:, 0:-1:2, 0] + 1e-4
    config = QUICK.model_copy(update={"families": ("episode_trees",)})
    assert judge(real, synthetic, ACTIONS[:100], config, 0).worst().auc > 0.95


def test_the_recurrent_judge_sees_what_the_action_did(oscillators, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Real steps follow the action; the other side takes the same steps under actions that did not cause them."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (100, 20, 1)).astype(np.float32)
    shuffled = rng.permuted(actions, axis=1)
    real, synthetic = (
        np.concatenate([np.zeros((100, 1, 1)), 0.1 * np.cumsum(a, axis=1)], axis=1).astype(np.float32)
        for a in (actions, shuffled)
    )
    monkeypatch.setattr(GRU_STEPS, 150)
    config = JudgeConfig(sigmas=(0.0,), families=("gru",))
    assert judge(real, synthetic, actions, config, 0).worst().auc > 0.9


@pytest.mark.usefixtures("few_steps")
def test_a_judgement_repeats_and_is_plain_json(oscillators) -> None:  # type: ignore[no-untyped-def]
    arguments = (oscillators(20, seed=1)[:, :9], oscillators(20, seed=2)[:, :9], ACTIONS[:20, :8], QUICK)
    first, again = judge(*arguments, 3), judge(*arguments, 3)
    assert first == again
    assert first != judge(*arguments, 4)
    told = json.loads(json.dumps(first.as_dict()))
    assert told["num_pairs"] == 20
    assert told["levels"][0]["judge_auc"] == first.worst().auc


@pytest.mark.usefixtures("few_steps")
def test_groups_are_never_split_between_folds(oscillators) -> None:  # type: ignore[no-untyped-def]
    """Twenty copies of each episode would be recognised by heart if they lay in different folds."""
    real, synthetic = np.repeat(oscillators(10, seed=1), 20, axis=0), np.repeat(oscillators(10, seed=2), 20, axis=0)
    config = QUICK.model_copy(update={"families": ("episode_trees",)})
    together = judge(real, synthetic, ACTIONS, config, 0, groups=np.repeat(np.arange(10), 20)).worst().auc
    apart = judge(real, synthetic, ACTIONS, config, 0).worst().auc
    assert apart > 0.99
    assert together < 0.95


@pytest.mark.usefixtures("few_steps")
def test_few_pairs_are_taken_from_as_many_episodes_as_there_are(oscillators) -> None:  # type: ignore[no-untyped-def]
    z, groups = oscillators(100, seed=1, num_steps=4), np.arange(100) // 5
    config = QUICK.model_copy(update={"num_pairs": 20, "num_folds": 10})
    result = judge(z, z[::-1], ACTIONS[:100, :4], config, 0, groups=groups)  # two groups a fold, or it would fail
    assert result.num_pairs == 20
    assert all(np.isfinite([score.low, score.high]).all() for score in result.scores)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("steps,dimensions,actions", [(1, 1, 0), (2, 1, 1), (5, 3, 2)])
def test_short_and_narrow_segments_are_judged(oscillators, steps, dimensions, actions) -> None:  # type: ignore[no-untyped-def]
    z = oscillators(20, seed=1, num_steps=steps, num_dimensions=dimensions)
    result = judge(z, z.copy(), np.zeros((20, steps, actions), np.float32), QUICK, 0)
    assert result.worst().auc == pytest.approx(0.5)


@pytest.mark.usefixtures("few_steps")
def test_bad_input_is_refused(oscillators) -> None:  # type: ignore[no-untyped-def]
    z, actions = oscillators(20, seed=1), ACTIONS[:20]
    broken = z.copy()
    broken[3, 4, 5] = np.nan
    with pytest.raises(DataError, match=r"synthetic z, first at \(3, 4, 5\)"):
        judge(z, broken, actions, QUICK, 0)
    with pytest.raises(DataError, match="of one shape"):
        judge(z, z[:, :-1], actions, QUICK, 0)
    with pytest.raises(DataError, match="actions"):
        judge(z, z, actions[:, :-1], QUICK, 0)
    with pytest.raises(DataError, match="too few"):
        judge(z[:9], z[:9], actions[:9], QUICK, 0)
    with pytest.raises(DataError, match="too few"):
        judge(z, z, actions, QUICK, 0, groups=np.arange(20) // 4)
