"""Policies in closed loop in a generator, and what is said of a generator that fails."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from episode_strategies import make_trajectories

from phaseb.cli.tables import results_console, show_in_model
from phaseb.config.root import Config
from phaseb.dynamics.rollout import Rollout
from phaseb.errors import DataError
from phaseb.policy.closed_loop import to_trajectories
from phaseb.report.generators import generators_section
from phaseb.runtime.storage import Store
from phaseb.stages import closed_loop, closed_loop_plays
from phaseb.stages.arm_generator import FILE
from phaseb.stages.branch_test import cut
from phaseb.stages.closed_loop import _of_generator, headline
from phaseb.stages.closed_loop_plays import PHYSICS, judge_arm, play_in_generator, rungs_of
from phaseb.stages.policy_pool import PolicyMaker, PoolPolicy, pool_of
from phaseb.stages.registry import build_graph

CONFIG = Config.model_validate(
    {
        "arms": {"names": ["real_only", "trust_weighted"], "num_seeds": 3},
        "synthesis": {"horizon": 12},
        "judge": {
            "rungs": ["real", "5"],
            "sigmas": [0.0, 0.2],
            "num_permutations": 50,
            "episode_rounds": 10,
        },
    }
)
STARTS = np.zeros((6, 2), np.float32)


def generator(step):
    """A model whose latents are moved by `step`; it is uncertain of nothing."""

    def rollout(z0, actions, horizon, generator, lookahead=None):
        z, taken = [z0], []
        for t in range(horizon):
            taken.append(actions(z[-1], t))
            z.append(step(z[-1], taken[-1]))
        flat = torch.zeros(len(z0), horizon)
        return Rollout(torch.stack(z, 1), torch.stack(taken, 1), flat + 1, flat, flat)

    return SimpleNamespace(name="own", rollout=rollout)


def make(policy, where):
    return lambda z, step: np.ones((len(z), 1), np.float32)


def played(model):
    return play_in_generator(model, STARTS, make, PoolPolicy("clone"), 12, 0)


def test_a_policy_acts_on_what_the_generator_answers():
    made = played(generator(lambda z, a: z + a))
    np.testing.assert_allclose(made.z[:, :, 0], np.broadcast_to(np.arange(13), (6, 13)))
    assert (made.rewards.sum(1) == 12).all()


def test_a_generator_that_diverges_is_named():
    assert "diverge" in played(generator(lambda z, a: 10 * (z + a)))
    assert "diverge" in played(generator(lambda z, a: z / 0))

    def refuse(z, a):
        raise DataError("own: z of step 0 has NaN or Inf")

    assert played(generator(refuse)) == "own: z of step 0 has NaN or Inf"


def test_the_others_go_on_where_one_fails():
    part = {"judges": {"own": {}}, "policies": {"own": {}}, "failed": {"own": "it diverges"}}
    found = _of_generator(CONFIG, None, "own", [part], {})
    assert headline(found) == {"failed": "it diverges"}
    page = generators_section({"physics": True, "horizon": 12, "floors": {}, "generators": {"own": found}})
    assert "own is left out: it diverges" in page


def test_the_pool_has_policies_of_every_quality_and_bounded_numbers():
    pool = pool_of(CONFIG)
    assert len(pool) >= 16
    assert len({policy.name for policy in pool}) == len(pool)
    assert {policy.seed for policy in pool} == {0, 1}, "closed_loop.num_seeds"
    assert rungs_of(CONFIG) == (5, 8, 12)


def test_noise_mixes_a_policy_with_chance():
    maker = PolicyMaker(Store.at("/nowhere"), make_trajectories([5] * 4), 5, 0)
    maker._plain = lambda policy, draws: make(policy, "")
    z = np.zeros((500, 2), np.float32)
    acted = maker(PoolPolicy("trained", "real_only", 0, 0.6), "here")(z, 0)
    assert abs(acted.mean() - 0.4) < 0.05
    assert acted.min() < 0 < acted.max() <= 1


def test_judges_tell_a_wrong_generator_and_not_a_true_one():
    g = np.random.default_rng(0)

    def episodes(scale):
        z = np.cumsum(scale * g.standard_normal((60, 13, 2)), 1).astype(np.float32)
        flat = np.zeros((60, 12), np.float32)
        return to_trajectories(z, flat[..., None], flat, flat, np.full(60, 12))

    real = [episodes(1.0)]
    alike, unlike = (judge_arm(CONFIG, "own", real, [episodes(scale)], False) for scale in (1.0, 3.0))
    assert set(alike) == {"5", "8", "12"}
    assert alike["12"]["0"]["auc"] < 0.75 < 0.9 < unlike["12"]["0"]["auc"]
    assert unlike["12"]["0.2"]["auc"] > 0.9


def test_branches_begin_where_the_policy_changed():
    real = make_trajectories([10, 4, 10])
    found = cut(real, np.array([3, 5, 0]), 3)
    assert len(found) == 2, "one episode ended before its branch"
    np.testing.assert_array_equal(found.z[0], real.z[0, 3:7])
    np.testing.assert_array_equal(found.actions[1], real.actions[2, :3])


def test_seeds_of_physics_are_apart_from_those_of_evaluation_and_promotion():
    assert closed_loop_plays.FIRST_SEED > CONFIG.promotion.first_seed > CONFIG.evaluation.first_seed
    assert PHYSICS not in CONFIG.dynamics.names


def test_without_physics_returns_have_an_error_bar_by_held_out_episodes():
    held_out = np.array([1.0, 3.0, 1.0, 3.0])
    rows = [{"policy": "clone", "generator": {"return": 2.5, "return_se": 0.0}}]
    found = closed_loop.return_error(held_out, {"policies": rows})
    assert found == {"return_error": pytest.approx(0.5 + 1.96 * 0.5)}
    assert closed_loop.return_error(held_out, {"failed": "it diverges"}) == {}


def test_the_command_shows_returns_in_each_generator_and_names_what_failed(capsys):
    row = {
        "policy": "clone",
        "generator": {"return": 2.5, "return_se": 0.1},
        "physics": {"return": 2.0, "return_se": 0},
    }
    own = {"policies": [row], "return_error": 0.7}
    found = {"physics": True, "horizon": 12, "generators": {"own": own, "bad": {"failed": "it diverges"}}}
    show_in_model(found, results_console())
    told = capsys.readouterr().out
    assert "bad is left out: it diverges" in told
    assert "2.5 ± 0.196" in told
    assert "2 ± 0" in told
    assert "off by 0.7" in told


def test_policies_that_need_no_generator_are_played_while_the_others_learn():
    stages = {stage.name: stage for stage in build_graph(CONFIG)}
    early, late = stages["closed_loop/baselines"], stages["closed_loop"]
    assert {"baselines", "dynamics/gru", "dynamics/gp"} <= set(early.inputs)
    assert not {"policy", "trust", "choice"} & set(early.inputs)
    assert early.command == late.command == "evaluate"
    assert {"closed_loop/baselines", "policy"} <= set(late.inputs)
    own = {policy.arm for policy in pool_of(CONFIG) if not closed_loop._is_baseline(CONFIG, policy)}
    assert own == {"trust_weighted"}


def test_parts_of_the_pool_join_in_its_order(tmp_path):
    """What was played early and what was played late make one ranking, and only users of the generator exploit it."""
    store = Store.at(tmp_path)
    store.write_json({"generator": "gru", "uncertainty_scale": 1.0}, *FILE)
    parts = [{"judges": {"gru": {}}, "policies": {"gru": {}}, "failed": {}} for _ in range(2)]
    for i, policy in enumerate(pool_of(CONFIG)):
        part = parts[0 if closed_loop._is_baseline(CONFIG, policy) else 1]
        row = {where: {"return": i + gap} for where, gap in (("generator", 0.5), ("physics", 0.0))}
        part["policies"]["gru"][policy.name] = row
        part["judges"]["gru"].setdefault(policy.arm or policy.kind, policy.name)
    found = _of_generator(CONFIG, store, "gru", parts[::-1], {})
    assert [row["policy"] for row in found["policies"]] == [policy.name for policy in pool_of(CONFIG)]
    assert list(found["judges"]) == list(dict.fromkeys(p.arm or p.kind for p in pool_of(CONFIG)))
    assert found["ranking"]["num_policies"] == len(pool_of(CONFIG))
    assert found["exploitability"] == {"trust_weighted": 0.5}
