"""Arms: every generator with every kind of rollouts, controls and placebos, from the configuration to the batches."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from episode_strategies import make_trajectories

from phaseb.config.load import load_config
from phaseb.config.root import Config
from phaseb.errors import ConfigError
from phaseb.policy.actor import Actor
from phaseb.policy.networks import ActorStack, make_mlp
from phaseb.replay.local import LocalReplay
from phaseb.runtime.storage import Store
from phaseb.stages.augmentation import ReplayWriter
from phaseb.stages.evaluate import settings_of
from phaseb.stages.promotion import contest_of
from phaseb.stages.replay_streams import PLACEBO_COLUMN, fill_replay, runs_of, schema_of, streams_of

ALL = [*itertools.product(("gru", "gp"), ("stored", "branched"), ("trust", "uniform")), ("gru", "stored", "bounds")]


def config(*names, controls=True, seeds=1, **arms):
    names = list(names or ("real_only", *arms))
    section = {"names": names, "controls": controls, "num_seeds": seeds, **arms}
    return Config.model_validate({"arms": section, "resources": {"num_workers": 0}})


def stored(count=6, steps=5, weight=0.5, name="s"):
    real = make_trajectories([steps] * count)
    names = tuple(f"{name}{i}" for i in range(count))
    return replace(
        real, ids=names, z=real.z + 100, weights=np.full_like(real.rewards, weight), lineage={"model": ("m",) * count}
    )


def batches(config, made, trusted=5, steps=4):
    """Batches of every run, by arm, with the replay they came from."""
    real = make_trajectories([5] * 8)
    replay, means = fill_replay(real, made, config, None, dict.fromkeys(made, trusted))
    assert isinstance(replay, LocalReplay)
    runs = runs_of(config)
    found = replay.source(streams_of(config, runs, means), 20, 0.9).sample(0, steps)
    return {run.arm: {name: values[:, i] for name, values in found.items()} for i, run in enumerate(runs)}


def test_by_default_each_arm_brings_its_control_and_its_placebo():
    found = {arm.name: arm for arm in Config().arms.trained}
    assert list(found) == [
        "behaviour_cloning",
        "real_only",
        "fixed_weight",
        "bounds_filter",
        "trust_weighted",
        "real_only_sac",
        "placebo_fixed_weight",
        "placebo_trust_weighted",
    ]
    assert found["trust_weighted"].control == "real_only_sac"
    assert found["bounds_filter"].placebo == "placebo_fixed_weight", "the same learner, share and kind"
    assert found["real_only_sac"].config.learner == found["trust_weighted"].config.learner
    assert not found["placebo_trust_weighted"].is_synthetic
    assert Config().arms.real_arms == ("real_only", "real_only_sac", "behaviour_cloning")
    bare = config("real_only", "trust_weighted", controls=False).arms.trained
    assert [arm.name for arm in bare] == ["real_only", "trust_weighted"]


@pytest.mark.parametrize("learner", ["bc", "act", "flow"])
def test_an_arm_that_clones_brings_noise_on_the_states_too(learner):
    own = config("real_only", "trust_weighted", trust_weighted={"learner": learner})
    wanted = [f"real_only_{learner}", "placebo_trust_weighted", f"state_noise_{learner}"]
    assert [arm.name for arm in own.arms.trained[2:]] == wanted
    noisy, trusted = own.arms.arm(f"state_noise_{learner}"), own.arms.arm("trust_weighted")
    assert (noisy.state_noise, noisy.config.uses_rollouts, trusted.state_noise) == (0.1, False, 0.0)
    assert noisy.name in own.arms.real_arms, "a candidate has to beat it"
    by_arm = {run.arm: run for run in runs_of(own)}
    assert [by_arm[name].clones for name in ("real_only", "trust_weighted", noisy.name)] == [False, True, True]
    assert by_arm[noisy.name].state_noise == 0.1


def test_a_control_is_shared_by_arms_of_one_learner():
    same = config("real_only", "trust_weighted", real_only={"learner": "sac"})
    assert [arm.name for arm in same.arms.trained] == ["real_only", "trust_weighted", "placebo_trust_weighted"]


def test_a_run_trains_each_arm_by_its_own_learner_with_paired_seeds():
    runs = runs_of(config("real_only", "trust_weighted", seeds=2))
    assert [(run.arm, run.seed, run.learner) for run in runs][:4] == [
        ("real_only", 0, "iql"),
        ("real_only", 1, "iql"),
        ("trust_weighted", 0, "sac"),
        ("trust_weighted", 1, "sac"),
    ]
    streams = {s.name: s for s in streams_of(config("real_only", "trust_weighted"), runs)}
    assert len({streams[name].seed for name in ("real_only/0", "trust_weighted/0", "placebo_trust_weighted/0")}) == 1


@pytest.mark.parametrize(("generator", "rollouts", "weight"), ALL)
def test_every_generator_serves_every_kind_of_rollouts(generator, rollouts, weight):
    arm = {"generator": generator, "rollouts": rollouts, "weight": weight, "share": 0.5, "learner": "sac"}
    own = config(mine=arm)
    assert (own.stored_generators, own.branched_generators) == (
        ((generator,), ()) if rollouts == "stored" else (("gru",), (generator,))
    )
    assert own.generator_of("mine") == generator
    assert own.generator_of("placebo_mine") is None
    assert settings_of(own.arms.arm("mine"))["generator"] == generator
    real = make_trajectories([5] * 8)
    known = {name: stored() for name in own.drawn_generators}
    replay, means = fill_replay(real, known, own, None, dict.fromkeys(known, 5))
    runs = runs_of(own)
    sink = ReplayWriter(replay, runs)
    for place, run in enumerate(runs):  # as the hook of the learner does
        if own.arms.arm(run.arm).config.rollouts == "branched":
            sink.add(place, stored(name=run.arm, weight=0.5))
    found = replay.source(streams_of(own, runs, means), 20, 0.9).sample(0, 4)
    share = dict(zip((run.arm for run in runs), found["is_synthetic"].mean((0, 2)), strict=True))
    assert share["real_only"] == share["real_only_sac"] == 0
    if weight == "bounds":  # the shifted rollouts are outside of all bounds
        assert share["mine"] == 0
    else:
        assert share["mine"] == share["placebo_mine"] > 0


def test_stored_rollouts_are_drawn_by_the_weights_of_the_trust_stage_and_their_share_follows_them():
    half = config(mine={"generator": "gru", "rollouts": "stored", "share": 0.8})
    made = stored(weight=0.5)
    made.weights[3:] = 0.0
    mine = batches(half, {"gru": made})["mine"]
    assert mine["is_synthetic"].mean(1).tolist() == [0.2] * 4, "0.8 of a batch, times the mean weight 0.25"
    trusted = {row.tobytes() for row in made.z[:3, :-1].reshape(-1, made.z.shape[-1])}
    assert all(z.tobytes() in trusted for z in mine["z"][mine["is_synthetic"]])


def test_stored_rollouts_are_trusted_as_far_as_their_generator_foresees():
    own = config(mine={"generator": "gp", "rollouts": "stored", "share": 0.5})
    made = stored()
    assert batches(own, {"gp": made}, trusted=0)["mine"]["is_synthetic"].sum() == 0
    first = {row.tobytes() for row in made.z[:, :2].reshape(-1, made.z.shape[-1])}
    mine = batches(own, {"gp": made}, trusted=2)["mine"]
    assert mine["is_synthetic"].any()
    assert all(z.tobytes() in first for z in mine["z"][mine["is_synthetic"]])


def test_two_generators_stored_side_by_side_each_go_to_their_own_arm():
    own = config(
        a={"generator": "gru", "rollouts": "stored", "weight": "uniform"},
        b={"generator": "gp", "rollouts": "stored", "weight": "uniform"},
    )
    gp = stored(name="gp")
    gp = replace(gp, z=gp.z + 100)
    found = batches(own, {"gru": stored(), "gp": gp})
    assert (found["a"]["z"][found["a"]["is_synthetic"]] < 150).all()
    assert (found["b"]["z"][found["b"]["is_synthetic"]] > 150).all()


def test_a_placebo_s_rows_are_recorded_ones_and_as_many_as_its_arm_s():
    own = config(mine={"generator": "gru", "rollouts": "stored", "share": 0.8})
    assert PLACEBO_COLUMN in schema_of(make_trajectories([5] * 8), own).weights
    found = batches(own, {"gru": stored(weight=0.5)})
    mine, placebo = found["mine"], found["placebo_mine"]
    np.testing.assert_array_equal(mine["is_synthetic"], placebo["is_synthetic"])
    np.testing.assert_array_equal(mine["z"][~mine["is_synthetic"]], placebo["z"][~placebo["is_synthetic"]])
    recorded = {row.tobytes() for row in make_trajectories([5] * 8).z.reshape(-1, mine["z"].shape[-1])}
    assert all(z.tobytes() in recorded for z in placebo["z"][placebo["is_synthetic"]])


def test_an_arm_whose_rollouts_are_all_refused_draws_its_control_s_very_batches():
    own = config(mine={"generator": "gru", "rollouts": "stored", "learner": "sac"})
    found = batches(own, {"gru": stored(weight=0.0)})
    for name in ("z", "action", "reward", "next_z", "is_synthetic", "weight"):
        np.testing.assert_array_equal(found["mine"][name], found["real_only_sac"][name])


def save(store, config, **seeds):
    """Policies drawn from a seed, by arm; equal seeds are equal policies."""
    for arm, seed in seeds.items():
        stack = ActorStack(make_mlp([3, 8, 4], [seed], "actor", 1, False))
        Actor.of_run(stack, 0).save(store.folder("policy", arm, "0"), {"arm": arm, "seed": 0})


def test_an_arm_that_is_its_control_took_nothing_and_there_is_nothing_to_test(tmp_path):
    own, store = config("real_only", "behaviour_cloning", "trust_weighted"), Store.at(tmp_path)
    save(store, own, trust_weighted=1, real_only_sac=1, real_only=2, behaviour_cloning=3)
    contest, refused = contest_of(own, store)
    assert contest.candidates == ()
    assert contest.controls == ("real_only", "real_only_sac", "behaviour_cloning")
    assert refused == (
        "trust_weighted took nothing of the synthetic data, and is the same policy as real_only_sac to the last bit"
    )
    save(store, own, trust_weighted=4)
    contest, refused = contest_of(own, store)
    assert (contest.candidates, refused) == (("trust_weighted",), "")
    assert contest.placebos == {"trust_weighted": "placebo_trust_weighted"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["arms.num_seed=3"], "unknown key arms.num_seed; did you mean 'arms.num_seeds'?"),
        (["arms.fixed_share=0.3"], "unknown key arms.fixed_share"),
        (["arms.names=[trust_weigted]"], "no arm is called 'trust_weigted'; did you mean 'trust_weighted'?"),
        (["arms.names=[real_only, real_only]"], "an arm is named twice"),
        (["arms.trust_weigted.share=0.3"], "trust_weigted is not in arms.names; did you mean arms.trust_weighted?"),
        (["arms.trust_weighted.learner=sacc"], "no learner is called 'sacc'; there are iql, sac, edac, bc"),
        (
            ["arms.names=[real_only, state_noise_sac]"],
            "state noise is a control of learners that clone",
        ),
        (["arms.names=[state_noise_x]", "arms.state_noise_x.share=0.1"], "are those of controls"),
        (["arms.trust_weighted.generator=null"], "rollouts=branched needs a generator, such as gru or gp"),
        (["arms.trust_weighted.generator=gpp"], "no generator is called 'gpp'"),
        (["arms.trust_weighted.weight=bounds"], "weight=bounds filters whole episodes: it needs rollouts=stored"),
        (["arms.real_only.generator=gp"], "generator=gp makes nothing: set rollouts=stored or rollouts=branched"),
        (["arms.names=[trust_weighted]", "arms.controls=false"], "no arm learns from real episodes alone"),
        (["promotion.max_episodes=4"], "the decision compares 5 arms and needs an episode of each"),
        (["promotion.candidates=[real_only]"], "promotion.candidates: real_only uses no rollouts of a generator"),
        (["policy.learners.sac.cql_wight=1"], "did you mean 'policy.learners.sac.cql_weight'?"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_before_anything_is_trained(words, message):
    with pytest.raises(ConfigError) as caught:
        load_config(None, words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
