from dataclasses import replace

import numpy as np
import pytest
import torch

from phaseb.config.trust import TrustConfig
from phaseb.errors import DataError, DivergenceError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.checkpoint import flatten, unflatten
from phaseb.runtime.storage import Store
from phaseb.trust.corruptions import corrupt
from phaseb.trust.dataset import CORRUPTED, REAL, ROLLOUT
from phaseb.trust.gate import pass_rate
from phaseb.trust.learner import TrustLearner, make_learner
from phaseb.trust.model import LEVELS, TrustModel

SMALL = TrustConfig(num_folds=3, num_steps=150, batch_size=24, num_corruptions=150, learning_rate=1e-2)


def train(learner: TrustLearner, start: int = 0, stop: int | None = None) -> TrustLearner:
    for step in range(start, learner.num_steps if stop is None else stop):
        learner.step(step)
    return learner


@pytest.fixture(scope="module")
def bundle(trajectories) -> TrustModel:  # type: ignore[no-untyped-def]
    real, wrong = trajectories(30, seed=0), trajectories(30, seed=0, name="other", gain=1.05)
    return train(make_learner(SMALL, real, wrong, WorkerContext(0))).bundle()


def test_it_tells_real_from_a_generator_it_never_saw(bundle, trajectories) -> None:  # type: ignore[no-untyped-def]
    real, stranger = bundle.score(trajectories(200, seed=9)), bundle.score(trajectories(200, seed=8, gain=0.9))
    threshold = bundle.thresholds.passing
    assert pass_rate(real.episode_trust, threshold) > 0.85
    assert pass_rate(stranger.episode_trust, threshold) < 0.1
    assert real.weights.mean() > 0.75
    assert stranger.weights.mean() < 0.1
    assert real.trust.shape == real.weights.shape == (200, 30)
    analysis = bundle.analysis
    assert analysis["roc_auc"] > 0.9
    assert analysis["trust_gap"] == pytest.approx(analysis["real_trust"] - analysis["synthetic_trust"])
    assert set(analysis["ece"]) == {"episode", "temporal", "fused", "transition"}


@pytest.mark.parametrize("kind", ["jump", "noise", "frozen", "reward"])
def test_a_planted_fault_is_cut_where_it_begins(bundle, trajectories, kind) -> None:  # type: ignore[no-untyped-def]
    real = trajectories(100, seed=9)
    onset = np.arange(100) % 15 + 8
    faulty = corrupt(real, [kind] * 100, np.ones(100), seed=2, onset=onset).trajectories
    assert (np.abs(bundle.cuts(faulty) - onset) <= 2).mean() >= 0.75
    scored = bundle.score(faulty)
    after = np.arange(30)[None] >= onset[:, None] + 3
    assert scored.weights[after].mean() < 0.1
    assert scored.weights[:, :6].mean() > 0.4  # what came before is kept


def test_saving_and_loading_changes_nothing(bundle, trajectories, tmp_path) -> None:  # type: ignore[no-untyped-def]
    store, data = Store.at(tmp_path), trajectories(10, seed=9)
    bundle.save(store)
    again = TrustModel.load(store)
    for level in LEVELS:  # in float64: float32 weights hide a calibrator that lost digits
        assert np.array_equal(getattr(again.levels(data), level), getattr(bundle.levels(data), level)), level
    assert np.array_equal(again.score(data).weights, bundle.score(data).weights)
    assert again.analysis == store.read_json("analysis.json") == bundle.analysis


def test_trust_does_not_depend_on_company_or_padding(bundle, trajectories) -> None:  # type: ignore[no-untyped-def]
    data = trajectories(7, seed=9)
    alone, together = bundle.levels(data.select([3])), bundle.levels(data)
    assert alone.fused[0] == pytest.approx(together.fused[3], abs=1e-5)
    wide = replace(
        data,
        z=np.pad(data.z, ((0, 0), (0, 5), (0, 0)), mode="edge"),
        actions=np.pad(data.actions, ((0, 0), (0, 5), (0, 0))),
        rewards=np.pad(data.rewards, ((0, 0), (0, 5))),
        terminals=np.pad(data.terminals, ((0, 0), (0, 5))),
    )
    padded = bundle.levels(wide)
    assert padded.transition[:, :30] == pytest.approx(together.transition, abs=1e-4)
    assert padded.fused == pytest.approx(together.fused, abs=1e-4)
    assert (padded.transition[:, 30:] == 0).all()
    assert (bundle.score(wide).weights[:, 30:] == 0).all()


def test_uncertainty_takes_weight_away(bundle, trajectories) -> None:  # type: ignore[no-untyped-def]
    data = trajectories(20, seed=9)
    unsure = replace(data, uncertainty=np.full((20, 30), 3.0, np.float32))
    certain = bundle.score(data).weights
    assert bundle.score(unsure, uncertainty_scale=1.0).weights.sum() < 0.2 * certain.sum()
    assert np.array_equal(bundle.score(unsure, uncertainty_scale=3.0).weights, certain)


def test_what_cannot_be_scored_is_refused(bundle, trajectories) -> None:  # type: ignore[no-untyped-def]
    data = trajectories(3, seed=9)
    data.z[1, 4, 0] = np.nan
    with pytest.raises(DataError, match="real-000001: z has NaN or Inf"):
        bundle.score(data)
    with pytest.raises(DataError, match="4 latent and 1 action dimensions, these episodes have 3 and 1"):
        bundle.score(trajectories(3, seed=9, num_dimensions=3))
    with pytest.raises(DataError, match="no episodes to score"):
        bundle.score(trajectories(3, seed=9).select([]))


def test_no_network_sees_an_episode_of_its_own_fold_in_any_shape(trajectories) -> None:  # type: ignore[no-untyped-def]
    real = trajectories(9, seed=0)
    rollouts = replace(trajectories(18, seed=0, name="model"), lineage={"start_episode": real.ids * 2})
    learner = make_learner(SMALL, real, rollouts, WorkerContext(0))
    m = learner.material
    fold_of = dict(zip(real.ids, m.folds[:9].tolist(), strict=True))
    first_rollout = int(np.flatnonzero(m.group == ROLLOUT)[0])
    assert m.folds[first_rollout : first_rollout + 18].tolist() == [fold_of[name] for name in real.ids * 2]
    for step in range(5):
        for fold, rows in enumerate(learner._draw(step)):
            assert (m.folds[rows] != fold).all()
            groups = np.bincount(m.group[rows], minlength=3)
            assert groups.tolist() == [12, 6, 6]
    assert {REAL, CORRUPTED, ROLLOUT} == set(m.group.tolist())


def test_two_workers_make_the_same_update_as_one(trajectories, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    real = trajectories(9, seed=0)
    data = (SMALL, real, trajectories(9, seed=0, name="model", gain=1.1))
    alone = make_learner(*data, WorkerContext(0))
    alone.step(0)
    workers = [make_learner(*data, WorkerContext(0, rank, 2)) for rank in range(2)]
    gradients: list[list[torch.Tensor]] = []
    for worker in workers:
        rows = torch.from_numpy(worker._draw(0))
        torch.stack(list(worker._losses(rows, 0).values())).sum().backward()
        gradients.append([p.grad.clone() for p in worker.networks.parameters()])
    mean = [(a + b) / 2 for a, b in zip(*gradients, strict=True)]
    single = make_learner(*data, WorkerContext(0))
    torch.stack(list(single._losses(torch.from_numpy(single._draw(0)), 0).values())).sum().backward()
    for p, expected in zip(single.networks.parameters(), mean, strict=True):
        assert torch.allclose(p.grad, expected, atol=1e-5)


def test_a_resumed_learner_goes_on_as_if_never_stopped(trajectories) -> None:  # type: ignore[no-untyped-def]
    data = (SMALL, trajectories(9, seed=0), trajectories(9, seed=1, gain=1.1), WorkerContext(2))
    whole, first = train(make_learner(*data), stop=6), train(make_learner(*data), stop=3)
    resumed = make_learner(*data)
    resumed.load_state_dict(unflatten(*flatten(first.state_dict())))
    train(resumed, 3, 6)
    for a, b in zip(whole.networks.state_dict().values(), resumed.networks.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    metrics = whole.validate(6)
    assert set(metrics) == {"trust/validation/episode_roc_auc", "trust/validation/temporal_roc_auc"}


@pytest.mark.parametrize("steps,dimensions", [(1, 1), (3, 2)])
def test_short_narrow_rewardless_episodes_without_rollouts_still_train(trajectories, steps, dimensions) -> None:  # type: ignore[no-untyped-def]
    real = trajectories(6, seed=0, num_steps=steps, num_dimensions=dimensions)
    real.rewards[:] = 0
    learner = make_learner(SMALL, real, real.select([]), WorkerContext(0))
    scored = train(learner, stop=5).bundle().score(real)
    assert np.isfinite(scored.weights).all()
    assert np.isfinite(scored.episode_trust).all()


def test_what_cannot_be_learned_from_is_refused(trajectories) -> None:  # type: ignore[no-untyped-def]
    real, none = trajectories(6, seed=0), trajectories(1, seed=0).select([])
    with pytest.raises(DataError, match=r"2 real episodes are fewer than trust\.num_folds=3"):
        make_learner(SMALL, real.select([0, 1]), none, WorkerContext(0))
    with pytest.raises(DataError, match="rollouts have 3 latent dimensions, real episodes 4"):
        make_learner(SMALL, real, trajectories(3, seed=0, num_dimensions=3), WorkerContext(0))
    broken = trajectories(6, seed=0)
    broken.rewards[2, 1] = np.inf
    with pytest.raises(DataError, match="real-000002: rewards has NaN or Inf"):
        make_learner(SMALL, broken, none, WorkerContext(0))
    learner = make_learner(SMALL, real, none, WorkerContext(0))
    with torch.no_grad():
        learner.networks.episode.readout.bias.fill_(np.nan)
    with pytest.raises(DivergenceError, match="step 4"):
        learner.step(4)
