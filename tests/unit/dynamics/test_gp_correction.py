"""GPCorrection: the processes' arithmetic, when a step is taken from them, and that bundles keep them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from phaseb.config.dynamics import GPCorrectionConfig, GRUConfig
from phaseb.dynamics.gp.gaussian_process import FitPlan, GaussianProcess
from phaseb.dynamics.gru_ensemble import gp_correction
from phaseb.dynamics.gru_ensemble.gp_correction import EventGPFitter, GPCorrection, Transitions
from phaseb.dynamics.gru_ensemble.learner import make_learner
from phaseb.dynamics.protocol import load_generator
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.storage import Store

N, T = 24, 20
SETTINGS = {
    "num_members": 2,
    "num_steps": 60,
    "hidden_size": 8,
    "head_size": 16,
    "batch_size": 16,
    "one_step_window": 5,
    "horizon": {"steps": 8, "start": 4},
    "action_lookahead": 2,
    "gp_correction": {"max_transitions": 200, "num_hyperparameter_points": 80, "steps": 30},
}


def switching(seed=0):
    """A point pushed along a line; where it passes 1 a flag goes up and it jumps back by two and a half, and down where
    it passes −1: every step is a function of the one before, but networks this small blur the jumps."""
    rng = np.random.default_rng(seed)
    z = np.zeros((N, T + 1, 2), np.float32)
    actions = np.clip(rng.normal(size=(N, T, 1)) * 0.3 + rng.choice([-0.6, 0.6], (N, 1, 1)), -1, 1).astype(np.float32)
    z[:, 0, 0] = rng.uniform(-0.9, 0.9, N)
    for t in range(T):
        moved, up = z[:, t, 0] + 0.4 * actions[:, t, 0] + 0.05 * np.sin(3 * z[:, t, 0]), z[:, t, 1] > 0.5
        rises, falls = (moved > 1) & ~up, (moved < -1) & up
        z[:, t + 1, 0] = moved - 2.5 * rises + 2.5 * falls
        z[:, t + 1, 1] = (up | rises) & ~falls
    return Trajectories(
        z=z,
        actions=actions,
        rewards=z[:, 1:, 0].copy(),
        terminals=np.zeros((N, T), np.float32),
        lengths=np.full(N, T),
        ids=tuple(f"e{i}" for i in range(N)),
        splits=("train",) * N,
    )


def learned(**changes):
    config = GRUConfig.model_validate(SETTINGS | changes)
    learner = make_learner(config, switching(), WorkerContext(0))
    for step in range(config.num_steps):
        learner.step(step)
    return learner


@pytest.fixture(scope="module")
def bundle():
    return learned().bundle()


def process(rows=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    y = np.stack([np.sin(x[:, 0]) + 0.1 * x[:, 1], x[:, 2] ** 2], 1) + 0.05 * rng.normal(size=(rows, 2))
    return x, y, GaussianProcess(x, y, FitPlan(rows=rows, kept=rows, steps=20), seed)


def test_the_mean_alone_is_the_mean():
    _, _, fitted = process()
    x = np.random.default_rng(1).normal(size=(50, 3))
    np.testing.assert_allclose(fitted.mean()(torch.from_numpy(x).float()).numpy(), fitted.predict(x)[0], atol=2e-4)


def test_left_out_is_what_leaving_out_gives():
    x, y, fitted = process()
    off = fitted.loo_residuals()
    rows = (torch.from_numpy(x) - fitted.shift) * fitted.scale
    residual = (torch.from_numpy(y) - fitted._mean(rows)) / fitted.size
    covariance = fitted._covariance(rows).double()
    for i in (0, 7, 39):
        kept = [j for j in range(len(x)) if j != i]
        for d in range(2):
            weights = torch.linalg.solve(covariance[d][kept][:, kept], covariance[d][kept][:, i])
            alone = residual[i, d] - weights @ residual[kept, d]
            assert off[i, d] == pytest.approx(float(alone * fitted.size[d]), rel=1e-3, abs=1e-4)


def test_steps_land_nearer_to_the_truth(bundle):
    assert isinstance(bundle.gp_correction, GPCorrection)
    fresh, networks = switching(seed=1), replace(bundle, gp_correction=None)
    z, actions = torch.from_numpy(fresh.z), torch.from_numpy(fresh.actions)
    landed, blurred = (np.abs(b.teacher_forced(z, actions, 0).numpy() - fresh.z[:, 1:]) for b in (bundle, networks))
    assert np.median(landed[..., 0]) < 0.5 * np.median(blurred[..., 0])
    assert set(np.unique(bundle.teacher_forced(z, actions, 0).numpy()[..., 1].round(3))) <= {0.0, 1.0}


def test_where_they_disagree_on_what_happens_the_networks_are_believed(bundle):
    y = bundle.model.to_model_space(torch.from_numpy(switching().z[:, 3]))[None]
    actions = torch.from_numpy(switching().actions[:, 3])[None]
    far = y + 50.0
    assert torch.equal(bundle.gp_correction.apply(y, actions, far), far)
    near = y.clone()
    assert not torch.equal(bundle.gp_correction.apply(y, actions, near), near)


def test_work_on_every_row_lands_the_same_rows(bundle, monkeypatch):
    """As on a GPU, where nothing may wait to be told which rows are of a kind."""
    data = switching(seed=4)
    y, after = (bundle.model.to_model_space(torch.from_numpy(z))[None] for z in (data.z[:, 5], data.z[:, 6]))
    actions = torch.from_numpy(data.actions[:, 5])[None]
    some = bundle.gp_correction.apply(y, actions, after)
    monkeypatch.setattr(GPCorrection, "_apply_some", GPCorrection._apply_any)
    every = bundle.gp_correction.apply(y, actions, after)
    assert not torch.equal(some, after)
    torch.testing.assert_close(every, some, atol=1e-6, rtol=1e-5)


def test_where_nothing_ever_jumps_there_is_one_kind():
    data = switching()
    smooth = replace(data, z=np.cumsum(np.concatenate([data.z[:, :1, :1], 0.1 * data.actions], 1), 1))
    config = GRUConfig.model_validate(SETTINGS)
    learner = make_learner(config, smooth, WorkerContext(0))
    learner.step(0)
    assert [event.kind for event in learner.bundle().gp_correction.kinds] == [((), ())]


def test_rollouts_are_those_of_the_saved_bundle_and_the_networks_where_switched_off(bundle, tmp_path):
    data = switching(seed=2)
    z, actions = torch.from_numpy(data.z[:, 0]), torch.from_numpy(data.actions)
    bundle.save(Store.at(tmp_path))
    again = load_generator(Store.at(tmp_path))
    one, other = (b.rollout(z, actions, T, torch.Generator().manual_seed(3)) for b in (bundle, again))
    for name in ("z", "rewards", "terminals", "uncertainty"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert (one.uncertainty > 0).all()
    plain = learned(gp_correction={"enabled": False}).bundle()
    assert plain.gp_correction is None
    bare = replace(bundle, gp_correction=None).rollout(z, actions, T, torch.Generator().manual_seed(3))
    assert torch.equal(plain.rollout(z, actions, T, torch.Generator().manual_seed(3)).z, bare.z)
    assert not torch.equal(bare.z, one.z)


def test_a_rollout_is_its_own_members_alone_or_among_all(bundle):
    data = switching(seed=2)
    z, actions = torch.from_numpy(data.z[:, 0]), torch.from_numpy(data.actions)
    whole, alone = (
        bundle.rollout(z, actions, T, torch.Generator().manual_seed(3), split=split) for split in (False, True)
    )
    torch.testing.assert_close(whole.z, alone.z, atol=1e-4, rtol=1e-4)


def test_a_policy_sees_where_its_own_steps_land(bundle):
    z = torch.from_numpy(switching(seed=2).z[:, 0])
    seen = []

    def policy(state, step):
        seen.append(state.clone())
        return torch.full((len(state), 1), 0.3)

    made = bundle.rollout(z, policy, 5, torch.Generator().manual_seed(3))
    for t in range(1, 5):
        assert torch.equal(seen[t], made.z[:, t])


def test_too_few_of_a_kind_or_processes_no_sharper_give_none(monkeypatch):
    with monkeypatch.context() as few:
        few.setattr(gp_correction, "MIN_TRANSITIONS", 10_000)
        assert learned().bundle().gp_correction is None
    learner = learned()
    bundle = learner.bundle()
    truth = learner._fitter.transitions.after.expand(2, -1, -1)
    assert not learner._fitter.correction(truth).kinds  # networks that are never off
    assert bundle.gp_correction.kinds


def test_the_config_limits_what_they_are_known_by():
    learner = learned(gp_correction=SETTINGS["gp_correction"] | {"max_transitions": 50})
    correction = learner.bundle().gp_correction
    assert all(event.mean.known.shape[-1] <= 50 for event in correction.kinds)


@pytest.mark.parametrize("few", [40, 60, 700])
def test_what_is_of_a_kind_that_no_event_tells_is_left_out(few, monkeypatch):
    """Also where as many transitions are known as are looked at first."""
    monkeypatch.setattr(gp_correction, "FEW", few)
    rng = np.random.default_rng(0)
    y, actions = rng.uniform(-1, 1, (60, 2)), rng.uniform(-1, 1, (60, 1))
    y[:, 1] = 0.0  # its flag is down all along
    after = y + np.array([1.0, 0.0]) * 0.4 * actions
    odd = np.arange(60) % 15 == 7
    after[odd, 0] -= 2.5
    model = learned().model
    known = Transitions(*(torch.from_numpy(x).float() for x in (y, actions, after)))
    low = Transitions(model.to_model_space(known.y), known.actions, model.to_model_space(known.after))
    config = GPCorrectionConfig(num_hyperparameter_points=40, steps=30)
    ((_, _, index),) = EventGPFitter(config, model, low, 0).found
    assert set(index.tolist()) == set(np.flatnonzero(~odd).tolist())


def test_processes_found_before_training_are_those_found_after_it():
    config, trained = GRUConfig.model_validate(SETTINGS), learned()
    trained.take_event_gp_fitter(make_learner(config, switching(), WorkerContext(0)).event_gp_fitter())
    given, own = trained.bundle().gp_correction, learned().bundle().gp_correction
    assert given.kinds
    for name, tensor in own.tensors().items():
        assert torch.equal(tensor, given.tensors()[name]), name
