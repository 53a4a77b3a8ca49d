import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from phaseb.config.policy import AugmentationConfig, LearnersConfig, OfflineConfig, PolicyConfig
from phaseb.errors import ConfigError, DivergenceError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import RunSpec
from phaseb.policy.learner import SACLearner
from phaseb.policy.learner_group import group_runs
from phaseb.runtime.checkpoint import flatten, load_checkpoint, save_checkpoint, unflatten
from phaseb.runtime.storage import Store

SPECS = [RunSpec("real_only", 3), RunSpec("trust_weighted", 3), RunSpec("real_only", 5)]


def config(**kwargs):
    small = PolicyConfig(
        offline=OfflineConfig(algorithm="sac", bc_fraction=0.2, critic_warmup_fraction=0),
        width=16,
        num_critics=3,
        batch_size=32,
        num_steps=12,
        runs_per_batch=2,
    )
    return small.model_copy(update=kwargs)


def learner(random_source, settings=None, hook=None, context=None, **kwargs):
    source = random_source([s.seed for s in SPECS], **kwargs)
    return SACLearner(settings or config(), source, SPECS, context or WorkerContext(0), hook)


class Hook:
    """Counts its calls; its state is what the batches after it depend on."""

    runs = (0, 1, 2)

    def __init__(self):
        self.calls, self.first_actions = [], []

    def generate(self, step, actors, due):
        assert due
        self.calls.append(step)
        self.first_actions.append(actors[0].act(np.ones((1, 5), np.float32)))
        return {"accepted": 7.0}

    def state_dict(self):
        return {"calls": torch.tensor(self.calls)}

    def load_state_dict(self, state):
        self.calls = state["calls"].tolist() if "calls" in state else []


def assert_same_policies(one, other):
    for a, b in zip(one.actors(), other.actors(), strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def assert_goes_on(whole, first, second, folder):
    """`second` ends from the checkpoint that `first` left as `whole` ends without a break."""
    for step in range(12):
        whole.step(step)
    for step in range(5):
        first.step(step)
    store = Store.at(folder)
    save_checkpoint(store, *flatten(first.state_dict()))
    second.load_state_dict(unflatten(*load_checkpoint(store)))
    for step in range(5, 12):
        second.step(step)
    assert_same_policies(whole, second)


@pytest.mark.parametrize("algorithm", ["sac", "iql"])
def test_resumed_is_uninterrupted(random_source, tmp_path, algorithm):
    settings = config(offline=OfflineConfig(algorithm=algorithm, bc_fraction=0.2, critic_warmup_fraction=0))
    whole, first, second = (learner(random_source, settings) for _ in range(3))
    assert_goes_on(whole, first, second, tmp_path)


def test_prefetching_changes_nothing(random_source, monkeypatch):
    results = []
    for prefetch in (1, 7):
        monkeypatch.setattr("phaseb.policy.learner.PREFETCH", prefetch)
        one = learner(random_source, config())
        for step in range(12):
            one.step(step)
        results.append(one.actors()[2].act(np.ones((1, 5), np.float32)))
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)  # batches lie elsewhere in memory, so products may round


def test_rollouts_follow_the_policy_at_fixed_steps(random_source):
    hook = Hook()
    plan, early = AugmentationConfig(refresh_steps=4), OfflineConfig(bc_fraction=2 / 12)
    one = learner(random_source, config(augmentation=plan, actor_lr=0.01, actor_ema=1.0, offline=early), hook)
    for step in range(12):
        one.step(step)
    assert hook.calls == [2, 6, 10]
    late = Hook()
    cloning = OfflineConfig(bc_fraction=0.5)
    settings = config(augmentation=plan, actor_lr=0.01, actor_ema=1.0, offline=cloning)
    one = learner(random_source, settings, late)
    for step in range(12):
        one.step(step)
    assert late.calls == [6, 10], "not while the policy only clones"


def test_new_rollouts_are_made_of_the_policy_as_it_is(random_source):
    hook = Hook()
    plan, early = AugmentationConfig(refresh_steps=4), OfflineConfig(bc_fraction=2 / 12)
    one = learner(random_source, config(augmentation=plan, actor_lr=0.01, actor_ema=1.0, offline=early), hook)
    metrics = [one.step(step) for step in range(12)]
    assert metrics[2]["policy/augmentation/accepted"] == 7.0
    assert not np.array_equal(hook.first_actions[0], hook.first_actions[2])
    crossing = [(s, n) for s, n in one.source.asked[1:] for call in hook.calls if s < call < s + n]
    assert not crossing, "batches were asked for before the rollouts that they should come from"
    assert one.state_dict()["hook"]["calls"].tolist() == [2, 6, 10]


def test_each_run_branches_by_its_own_learner_s_schedule_whoever_trains_beside_it(random_source):
    """Soft actor-critic clones for 4 of 20 steps, EDAC as policy.offline says for 10."""
    specs = [RunSpec("real_only", 3), RunSpec("a", 3, learner="sac"), RunSpec("b", 3, learner="edac")]
    seen = []

    class Both(Hook):
        runs = (1, 2)

        def generate(self, step, actors, due):
            seen.append((step, due))
            return {}

    settings = config(
        num_steps=20,
        augmentation=AugmentationConfig(refresh_steps=6),
        offline=OfflineConfig(algorithm="sac", bc_fraction=0.5, critic_warmup_fraction=0.2),
    )
    one = SACLearner(settings, random_source([3, 3, 3]), specs, WorkerContext(0), Both())
    for step in range(20):
        one.step(step)
    assert seen == [(4, (1,)), (10, (1, 2)), (16, (1, 2))]


def test_a_clone_only_clones(random_source):
    """Its critics stay as they were drawn, and its policy is that of a learner that clones for all steps."""
    specs = [RunSpec("behaviour_cloning", 3, learner="bc")]
    clone = SACLearner(config(), random_source([3]), specs, WorkerContext(0))
    before = {name: value.clone() for name, value in clone.updates[0].critics.state_dict().items()}
    for step in range(12):
        clone.step(step)
    assert all(torch.equal(before[k], v) for k, v in clone.updates[0].critics.state_dict().items())
    moved = clone.actors()[0].act(np.ones((1, 5), np.float32))
    fresh = SACLearner(config(), random_source([3]), specs, WorkerContext(0))
    assert not np.allclose(moved, fresh.actors()[0].act(np.ones((1, 5), np.float32)), atol=1e-4)


def test_each_member_of_a_clone_learns_as_it_would_alone(random_source, monkeypatch):
    """The gradient of a member is its own: what the others got wrong is not shared out among them."""
    specs = [RunSpec("behaviour_cloning", 3, learner="bc")]
    many = SACLearner(config(), random_source([3]), specs, WorkerContext(0))
    monkeypatch.setattr("phaseb.policy.sac.NUM_CLONES", 1)
    single = SACLearner(config(), random_source([3]), specs, WorkerContext(0))
    with torch.no_grad():
        for ours, alone in zip(many.updates[0].actor.parameters(), single.updates[0].actor.parameters(), strict=True):
            alone.copy_(ours[4:5])
    for step in range(12):
        many.step(step)
        single.step(step)
    for ours, alone in zip(many.updates[0].actor.parameters(), single.updates[0].actor.parameters(), strict=True):
        torch.testing.assert_close(ours[4:5], alone, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(ours[:1], ours[4:5], atol=1e-3), "members start apart, and stay so"


def test_zero_accepted_is_real_only_to_the_bit(random_source):
    """An arm whose batches hold no synthetic row ends in the very policy of `real_only`, grouped with it or not."""
    for together in (1, 2, 3):
        one = learner(random_source, config(runs_per_batch=together))
        for step in range(12):
            one.step(step)
        real, trusted, other = (actor.state_dict() for actor in one.actors())
        assert all(torch.equal(real[k], trusted[k]) for k in real)
        assert not all(torch.equal(real[k], other[k]) for k in real)


def test_a_learner_differs_from_the_policy_s_settings_in_what_it_names_alone():
    learners = {"mine": {"algorithm": "sac", "cql_weight": 1.0}, "sac": {"bc_fraction": 0.1}}
    offline = {"algorithm": "sac", "bc_fraction": 0.3, "bc_weight": 2.0}
    own = PolicyConfig(num_critics=7, offline=offline, learners=learners)
    mine, sac = own.of_learner("mine"), own.of_learner("sac")
    assert (mine.num_critics, mine.offline.bc_fraction, mine.offline.cql_weight) == (7, 0.3, 1.0)
    assert (sac.num_critics, sac.offline.bc_fraction, sac.offline.bc_weight) == (3, 0.1, 3.0)
    assert own.of_learner("iql").offline.algorithm == "iql"
    assert own.of_learner("") is own
    with pytest.raises(ValidationError, match=r"learners.iql.algorithm=iql asks no unseen action"):
        PolicyConfig(learners={"iql": {"diversity_weight": 1.0}})


def test_of_two_seeds_in_groups_of_three_paired_runs_are_one_to_the_bit_at_the_size_of_a_run(random_source):
    """At the third place of a group of three a batched product of this width rounds otherwise than at the first."""
    specs = [RunSpec(arm, seed) for arm in ("real_only", "trust_weighted") for seed in (0, 1)]
    settings = PolicyConfig(
        num_steps=100, runs_per_batch=3, offline=OfflineConfig(bc_fraction=0.2, critic_warmup_fraction=0.1)
    )
    source = random_source([s.seed for s in specs], rows=128, z_size=8)
    one = SACLearner(settings, source, specs, WorkerContext(0))
    for step in range(100):
        one.step(step)
    policies = [actor.state_dict() for actor in one.actors()]
    for seed in (0, 1):
        real, trusted = policies[seed], policies[seed + 2]
        assert all(torch.equal(real[k], trusted[k]) for k in real), seed


def test_runs_that_follow_rollouts_learn_in_their_own_way_beside_the_others_and_each_as_alone(random_source, tmp_path):
    follower = RunSpec("trust_weighted", 3, learner="sac")
    settings = config(
        offline=OfflineConfig(algorithm="iql", bc_fraction=0.2, critic_warmup_fraction=0),
        learners=LearnersConfig.model_validate(
            {"sac": {"num_critics": 2, "bc_fraction": 0.1, "critic_warmup_fraction": 0.0}}
        ),
    )

    def trained(*specs):
        one = SACLearner(settings, random_source([s.seed for s in specs]), specs, WorkerContext(0))
        for step in range(12):
            one.step(step)
        return one

    whole = trained(SPECS[0], follower, SPECS[2])
    assert [update.config.offline.algorithm for update in whole.updates] == ["iql", "sac"]
    for spec, actor in zip((SPECS[0], follower, SPECS[2]), whole.actors(), strict=True):
        alone = trained(spec).actors()[0].act(np.ones((4, 5), np.float32))
        np.testing.assert_allclose(actor.act(np.ones((4, 5), np.float32)), alone, rtol=1e-4, atol=1e-5)
    store = Store.at(tmp_path)
    save_checkpoint(store, *flatten(whole.state_dict()))
    again = SACLearner(settings, random_source([3, 3, 5]), (SPECS[0], follower, SPECS[2]), WorkerContext(0))
    again.load_state_dict(unflatten(*load_checkpoint(store)))
    for a, b in zip(whole.actors(), again.actors(), strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_metrics_name_the_run_and_come_at_their_steps(random_source, monkeypatch):
    monkeypatch.setattr("phaseb.policy.learner.LOG_EVERY", 4)
    one = learner(random_source)
    rows = [one.step(step) for step in range(6)]
    assert [bool(r) for r in rows] == [True, False, False, False, True, False]
    assert {"policy/critic_loss/real_only/3", "policy/entropy/trust_weighted/3"} <= set(rows[4])
    assert "policy/behaviour/real_only/5" in rows[0], "the first steps clone"


def test_divergence_is_named(random_source, monkeypatch):
    monkeypatch.setattr("phaseb.policy.learner.LOG_EVERY", 4)
    source = random_source([s.seed for s in SPECS])
    sound = source._rows

    def broken(seed, step):
        rows = sound(seed, step)
        if seed == 5 and step == 3:
            rows["reward"] = rows["reward"] * np.float32(np.nan)
        return rows

    source._rows = broken
    one = SACLearner(config(), source, SPECS, WorkerContext(0))
    for step in range(4):
        one.step(step)
    with pytest.raises(DivergenceError, match=r"critic_loss/real_only/5 is nan at step 4"):
        one.step(4)


def test_a_batch_that_does_not_divide_is_refused(random_source):
    with pytest.raises(ConfigError, match="batch_size=32 does not divide by 3 workers"):
        learner(random_source, context=WorkerContext(0, 0, 3))


def test_two_workers_make_the_update_of_one(random_source, monkeypatch):
    """Each worker's half of the batch gives gradients whose mean is the whole batch's (weights differ a row)."""
    gathered = []

    def gather(self, parameters):
        gathered.append([p.grad.clone() for p in parameters])

    monkeypatch.setattr(WorkerContext, "average_gradients", gather)
    monkeypatch.setattr(WorkerContext, "all_reduce_mean", lambda self, value: torch.full_like(value, 0.6))
    offline = OfflineConfig(algorithm="sac", normalise_value=False, bc_fraction=0, critic_warmup_fraction=0.5)
    settings = config(runs_per_batch=3, offline=offline)
    for rank, size in ((0, 1), (0, 2), (1, 2)):
        part = slice(rank * 32 // size, (rank + 1) * 32 // size)
        context = WorkerContext(0, rank, size)
        learner(random_source, settings, context=context, synthetic_share=0.5, weight=0.2, part=part).step(1)
    each = len(gathered) // 3  # groups of runs
    whole, left, right = (list(itertools.chain(*gathered[i * each :][:each])) for i in range(3))
    for a, b, c in zip(whole, left, right, strict=True):
        torch.testing.assert_close(a, (b + c) / 2, rtol=1e-4, atol=1e-6)


def test_it_finds_the_best_policy_of_a_linear_quadratic_task(linear_quadratic):
    task = linear_quadratic(2)
    settings = PolicyConfig(
        num_steps=1500,
        width=48,
        num_critics=2,
        batch_size=128,
        discount=0.95,
        critic_lr=1e-3,
        actor_lr=1e-3,
        tau=0.02,
        actor_ema=0.02,
        offline=OfflineConfig(
            algorithm="sac", bc_weight=0.0, normalise_value=False, bc_fraction=0, critic_warmup_fraction=0
        ),
    )
    specs = [RunSpec("a", 0), RunSpec("b", 1, {"bc_weight": 30.0})]
    one = SACLearner(settings, task, specs, WorkerContext(0))
    for step in range(1500):
        one.step(step)
    gain = task.best_gain()
    best = task.cost(lambda x: np.clip(-x @ gain.T, -1, 1))
    recorded = task.cost(lambda x: np.clip(x @ [[-0.3], [-0.3]], -1, 1))
    learned, cloned = (task.cost(actor.act) for actor in one.actors())
    assert best >= learned > best - 0.1 * (best - recorded), (best, learned, recorded)
    assert abs(cloned - recorded) < 0.25 * (best - recorded), "a strong behaviour term clones"


def test_actions_of_a_run_do_not_depend_on_its_group(random_source):
    groups = []
    for together in (1, 3):
        one = learner(random_source, config(runs_per_batch=together))
        for step in range(6):
            one.step(step)
        groups.append([a.act(np.ones((1, 5), np.float32)) for a in one.actors()])
    for a, b in itertools.chain(zip(*groups, strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_acts_is_the_average_over_the_last_steps(random_source):
    """With a rate of a half: half of the last policy and half of the average before."""
    one = learner(random_source, config(actor_lr=0.01, actor_ema=0.5))
    for step in range(6):
        before = one.actors()[0].state_dict()
        one.step(step)
    now = {f"policy.{name}": value for name, value in one.updates[0].actor.state_dict().items()}
    for name, value in one.actors()[0].state_dict().items():
        torch.testing.assert_close(value, 0.5 * before[name] + 0.5 * now[name][:1])


MANY = [
    RunSpec(arm, seed, learner="sac" if arm == "trust_weighted" else "")
    for arm in ("real_only", "fixed_weight", "bounds_filter", "trust_weighted")
    for seed in range(3)
]


def test_learners_of_a_group_each_end_as_one_of_all(random_source):
    """Groups may train in any number of processes."""
    settings = config(
        runs_per_batch=2, offline=OfflineConfig(algorithm="iql", bc_fraction=0.2, critic_warmup_fraction=0)
    )
    whole = SACLearner(settings, random_source([spec.seed for spec in MANY]), MANY, WorkerContext(0))
    groups = group_runs(MANY, settings.runs_per_batch)
    assert [[MANY[run].name for run in group] for group in groups[:2]] == [
        ["real_only/0", "real_only/1"],
        ["real_only/2"],
    ]
    parts = []
    for group in groups:
        specs = [MANY[run] for run in group]
        parts.append(SACLearner(settings, random_source([spec.seed for spec in specs]), specs, WorkerContext(0)))
    for step in range(12):
        expected = whole.step(step)
        found = {name: value for part in parts for name, value in part.step(step).items()}
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)
    of_parts = {spec.name: actor for part in parts for spec, actor in zip(part.specs, part.actors(), strict=True)}
    for spec, actor in zip(MANY, whole.actors(), strict=True):
        other = of_parts[spec.name].state_dict()
        for name, value in actor.state_dict().items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6, msg=f"{spec.name} {name}")
