from collections import Counter

import numpy as np
import pytest
from scipy import stats

from phaseb.config.data import ValuationConfig
from phaseb.config.evaluation import PromotionConfig
from phaseb.promotion.contest import Comparison, Contest
from phaseb.promotion.decision import decide, decide_by_error, decide_by_estimate
from phaseb.promotion.explain import sentence
from phaseb.promotion.paired import Evidence, PairedTest, rate, scale_of, unit_of, verdict
from phaseb.promotion.sequential_permutation_test import SignFlips, alpha_spent
from phaseb.runtime.seeding import numpy_generator

VALUATION = ValuationConfig(price_per_kwh=0)
PAIR = Contest(("trust_weighted",), ("real_only",))
FULL = Contest(
    ("trust_weighted",),
    ("real_only", "real_only_sac", "behaviour_cloning"),
    {"trust_weighted": "placebo_trust_weighted"},
)


def rows(seeds, mean, spread=0.5, luck=1.0, stream=0):
    """Episodes whose net value is the start's luck (shared by the arms) plus the policy's own mean and noise."""
    out = []
    for seed in seeds:
        shared = luck * numpy_generator(seed, "luck").standard_normal()
        own = spread * numpy_generator(seed, "own", stream).standard_normal()
        made = mean + shared + own
        out.append({"seed": seed, "good_units": made, "errors": 0.0, "duration_h": 1.0, "energy_wh": 0.0})
    return out


def measure(gain, spread=0.5, luck=1.0, trial=0):
    calls = []

    def run(arm, policy_seed, seeds):
        calls.append((arm, policy_seed, tuple(seeds)))
        better = gain if arm == "trust_weighted" else 0.0
        shifted = [1000 * trial + s for s in seeds]
        played = rows(shifted, 3.0 + better, spread, luck, stream=int(arm == "real_only"))
        return [{**row, "seed": s} for row, s in zip(played, seeds, strict=True)]

    run.calls = calls
    return run


def test_influence_is_the_derivative_of_the_ratio():
    g = np.random.default_rng(0)
    data = [
        {
            "seed": i,
            "good_units": g.uniform(1, 5),
            "errors": g.uniform(0, 1),
            "duration_h": g.uniform(0.5, 2),
            "energy_wh": g.uniform(0, 9),
        }
        for i in range(30)
    ]
    value, influence = rate(data, ValuationConfig(price_per_kwh=100), unit_of(data))

    def weighted(weights):
        net = [r["good_units"] - r["errors"] - 0.1 * r["energy_wh"] for r in data]
        return np.dot(weights, net) / np.dot(weights, [r["duration_h"] for r in data])

    assert value == pytest.approx(weighted(np.ones(30)))
    for i in range(0, 30, 7):
        step = np.ones(30)
        step[i] += 1e-6
        assert influence[i] / 30 == pytest.approx((weighted(step) - weighted(np.ones(30))) / 1e-6, rel=1e-4)


def test_spending_ends_at_alpha_and_saves_it_for_the_end():
    assert alpha_spent(1.0, 0.05) == pytest.approx(0.05)
    assert alpha_spent(0.0, 0.05) == 0
    assert alpha_spent(1 / 3, 0.05) < 0.001


def test_one_look_at_normal_differences_asks_for_student_s_limit():
    differences = np.random.default_rng(1).standard_normal(60)
    assert SignFlips(60, 0.05).critical(differences) == pytest.approx(stats.t.ppf(0.95, 59), rel=0.05)


def test_few_pairs_and_pairs_of_one_size_are_never_enough():
    """Four pairs that all agree happen by chance once in 16: no statistic of theirs can show anything at 5 %."""
    assert SignFlips(4, 0.05).critical(np.ones(4)) == np.inf
    assert SignFlips(8, 0.05).critical(np.ones(8)) < np.inf
    assert SignFlips(8, 0.05).critical(np.zeros(8)) == np.inf


@pytest.mark.parametrize("looks", [(2, 5, 7), (3, 5, 8), (8, 17, 25)])
def test_alike_policies_are_told_apart_no_more_often_than_alpha_with_few_pairs_too(looks):
    """Of two pairs that agree, which chance gives every other time, the farthest course is the observed one itself."""
    g, crossed, trials = np.random.default_rng(5), 0, 800
    for _ in range(trials):
        differences, test = 100 * g.standard_t(3, looks[-1]), SignFlips(looks[-1], 0.05)
        for n in looks:
            seen = differences[:n]
            if np.sqrt(n) * seen.mean() / seen.std(ddof=1) > test.critical(seen):
                crossed += 1
                break
    assert crossed / trials < 0.05 + 3 * np.sqrt(0.05 * 0.95 / trials)


def test_looks_share_the_error():
    """Looking early makes the last limit higher than looking once, but by less than adding the errors up would."""
    differences = np.random.default_rng(2).standard_normal(60)
    test = SignFlips(60, 0.05)
    first, _, last = (test.critical(differences[:n]) for n in (20, 40, 60))
    assert first > last > SignFlips(60, 0.05).critical(differences)
    assert last < stats.t.ppf(1 - (alpha_spent(1, 0.05) - alpha_spent(2 / 3, 0.05)), 59)


def compare(candidate, baseline, required_margin=0.0):
    return PairedTest(VALUATION, required_margin, len(candidate), 0.05).look(candidate, baseline)


def test_pairing_takes_out_the_luck_of_the_start():
    seeds = range(40)
    evidence = compare(rows(seeds, 3.5, 0.3, luck=5.0), rows(seeds, 3.0, 0.3, luck=5.0, stream=1))
    assert 0 < evidence.low < evidence.difference < evidence.high
    assert (evidence.excess, evidence.excess_low) == (evidence.difference, evidence.low)
    assert verdict(evidence) == "promote"
    with pytest.raises(ValueError, match="same episode seeds"):
        compare(rows([1, 2], 3), rows([1, 3], 3))


def test_what_is_asked_is_tested_with_the_baseline_s_own_spread():
    """A candidate that always makes exactly 1.2 x the baseline is 10 % ahead for sure, 20 % ahead not at all."""
    base = rows(range(30), 3.0, luck=2.0)
    ahead = [{**r, "good_units": 1.2 * r["good_units"]} for r in base]
    assert verdict(compare(ahead, base, 0.1)) == "promote"
    assert compare(ahead, base, 0.1).excess == pytest.approx(0.1 * compare(ahead, base).baseline)
    assert verdict(compare(ahead, base, 0.2 + 1e-6)) != "promote"
    losing = [{**r, "good_units": r["good_units"] - 20} for r in base]
    assert verdict(compare(base, losing, 0.1)) == "promote", "a loss is measured by its size"


def test_what_is_next_to_nothing_is_no_gain():
    """Both do nothing, and the candidate surely saves a little: no gain against what recorded episodes earn."""
    idle = [
        {"seed": i, "return": 0.0, "good_units": 0.0, "errors": 0.0, "duration_h": 1.0, "energy_wh": 2.0 + i % 3}
        for i in range(30)
    ]
    thrifty = [{**r, "energy_wh": 0.9 * r["energy_wh"]} for r in idle]
    recorded = [{**r, "good_units": 3.0 * (-1) ** i} for i, r in enumerate(idle)]
    prices = ValuationConfig()
    scale = scale_of(recorded, prices)
    assert scale["$/h"] == pytest.approx(3.0, rel=0.01), "their size, however they cancel"

    def look(scale):
        return PairedTest(prices, 0.02, len(idle), 0.05, scale).look(thrifty, idle)

    assert verdict(look({})) == "promote"
    assert verdict(look(scale)) != "promote"
    assert look(scale).low > 0
    assert look(scale).excess == pytest.approx(look(scale).difference - 0.02 * scale["$/h"])


def test_returns_stand_in_where_economics_are_unknown():
    a = [{"seed": i, "return": 2.0 + i % 2, "good_units": np.nan} for i in range(10)]
    b = [
        {"seed": i, "return": 1.0, **dict.fromkeys(("good_units", "errors", "energy_wh"), 1.0), "duration_h": 1.0}
        for i in range(10)
    ]
    evidence = compare(a, b)
    assert (evidence.difference, evidence.unit) == (pytest.approx(1.5), "return")


def test_a_clear_gain_is_promoted_before_the_budget_is_spent():
    run = measure(2.0)
    decision = decide(PromotionConfig(max_episodes=120), PAIR, VALUATION, run, [0, 1, 2], 50)
    assert decision["promoted"]
    assert decision["shipped"] == "trust_weighted"
    assert decision["budget"]["spent_episodes"] < 120
    assert decision["reason"].startswith("trust_weighted is shipped: it earned ")
    assert decision["budget"]["real_episodes"] == 50 + decision["budget"]["spent_episodes"]
    played = [(arm, seed) for arm, policy, seeds in run.calls for seed in seeds]
    assert len(played) == len(set(played)), "no episode is paid for twice"
    assert {policy for _, policy, _ in run.calls} == {0, 1, 2}


def test_no_gain_ships_the_baseline_within_the_budget():
    decision = decide(PromotionConfig(), PAIR, VALUATION, measure(0.0), [0], 50)
    assert decision["shipped"] == "real_only"
    assert decision["budget"] == {"max_episodes": 50, "spent_episodes": 50, "real_episodes": 100}
    assert "which may be chance" in decision["reason"]
    harm = decide(PromotionConfig(max_episodes=300), PAIR, VALUATION, measure(-2.0), [0], 50)
    assert harm["shipped"] == "real_only"
    assert harm["budget"]["spent_episodes"] < 300, "clear harm ends the test early"
    assert "$/h less in" in harm["reason"]


def test_not_worse_promotes_an_equal():
    config = PromotionConfig(rule="not_worse", margin=0.3, max_episodes=200)
    assert decide(config, PAIR, VALUATION, measure(0.0), [0], 50)["promoted"]
    assert not decide(config, PAIR, VALUATION, measure(-2.0), [0], 50)["promoted"]


def test_false_promotions_keep_to_their_rate():
    """400 decisions about equal policies: at most 5 % plus three standard errors may be promoted."""
    config = PromotionConfig(max_episodes=60)
    wrong = sum(decide(config, PAIR, VALUATION, measure(0.0, trial=t), [0], 50)["promoted"] for t in range(400))
    assert wrong / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_policies_that_act_alike_end_the_test_at_once():
    def same(arm, policy_seed, seeds):
        return rows(seeds, 3.0)

    decision = decide(PromotionConfig(), PAIR, VALUATION, same, [0, 1], 60)
    assert decision["reason"] == "real_only is shipped: trust_weighted did just the same in 10 paired episodes"
    assert decision["budget"]["spent_episodes"] == 20
    assert decide(PromotionConfig(rule="not_worse", max_episodes=120), PAIR, VALUATION, same, [0], 60)["promoted"]


def evidence(difference, low, high, excess=None, unit="$/h", alike=False):
    """Bounds of the excess lie about it as those of the difference do."""
    excess = difference if excess is None else excess
    around = (excess, excess + low - difference, excess + high - difference)
    return Evidence(difference, low, high, *around, 100.0, unit, 25, 3, alike)


@pytest.mark.parametrize(
    ("change", "found", "words"),
    [
        (
            {},
            evidence(184, 61, 300),
            "trust_weighted is shipped: it earned 184 $/h more than real_only in 25 paired "
            "episodes, at 95% at least 61",
        ),
        (
            {},
            evidence(12, -40, 64),
            "real_only is shipped: trust_weighted earned 12 $/h more in 25 paired episodes, "
            "which may be chance (-40 to +64)",
        ),
        ({}, evidence(-80, -120, -40), "real_only is shipped: trust_weighted earned 80 $/h less in 25 paired episodes"),
        (
            {"min_gain": 0.1},
            evidence(12, 5, 19, 2),
            "real_only is shipped: trust_weighted earned 12 $/h more in 25 "
            "paired episodes, which may be less than the 10% that are asked for",
        ),
        (
            {"rule": "not_worse"},
            evidence(-1, -3, 1, 4),
            "trust_weighted is shipped: it earned 1 $/h less than "
            "real_only in 25 paired episodes, at 95% within the 5% that it may lose",
        ),
        (
            {"rule": "not_worse"},
            evidence(-9, -19, 1, -4),
            "real_only is shipped: trust_weighted earned 9 $/h less in "
            "25 paired episodes, which may be beyond the 5% that it may lose",
        ),
        (
            {"rule": "not_worse"},
            evidence(-19, -22, -16, -14),
            "real_only is shipped: trust_weighted earned 19 $/h less "
            "in 25 paired episodes, beyond the 5% that it may lose",
        ),
        (
            {},
            evidence(0.5, -0.1, 1.1, unit="return"),
            "real_only is shipped: trust_weighted returned 0.5 more an "
            "episode in 25 paired episodes, which may be chance (-0.1 to +1.1)",
        ),
        (
            {},
            evidence(1, -np.inf, np.inf),
            "real_only is shipped: trust_weighted earned 1 $/h more in 25 paired episodes, which may be chance",
        ),
    ],
)
def test_the_reason_is_one_plain_sentence(change, found, words):
    one = Comparison("trust_weighted", "real_only", False)
    one.record(found)
    shipped = "trust_weighted" if one.outcome == "promote" else "real_only"
    assert sentence(PromotionConfig(**change), PAIR, one, shipped) == words


def estimated(differences, departure=1.0, contest=PAIR, method="fqe", bias=0.0, **controls):
    """A decision on candidates that differ from real_only by so much in each estimator; two policy seeds."""
    real = np.full((2, len(differences)), 3.0)
    values = {"real_only": real, "trust_weighted": real + differences, **{n: real + d for n, d in controls.items()}}
    support = {arm: np.full(2, departure if arm == "trust_weighted" else 1.0) for arm in values}
    return decide_by_estimate(PromotionConfig(), contest, values, support, method=method, bias=bias)


def test_estimates_promote_only_what_all_of_them_see():
    sure = np.array([1.0 + 0.05 * i for i in range(10)])
    assert estimated(sure)["promoted"]
    refused = estimated(np.array([0.6 * i - 2.0 for i in range(10)]))
    assert refused["shipped"] == "real_only"
    assert refused["evidence"]["difference"] > 0
    assert refused["method"] == "fqe"
    assert refused["reason"].startswith("real_only is shipped: trust_weighted would return 0.7 more an episode by off-")
    assert estimated(sure, 1.2)["promoted"]
    far = estimated(sure, 1.9)
    assert not far["promoted"]
    assert far["reason"] == (
        "real_only is shipped: trust_weighted acts 1.9 times as far from what was recorded, too "
        "far for off-policy evaluation to tell"
    )


def test_returns_in_generators_hold_their_common_error_against_a_gain():
    sure = np.array([1.0 + 0.05 * i for i in range(10)])
    found = estimated(sure, 1.9, method="model", bias=0.3)
    assert (found["promoted"], found["method"]) == (True, "model")
    assert "more an episode than real_only by returns in generators, at 95% at least" in found["reason"]
    plain, biased = (estimated(sure, method="model", bias=b)["evidence"] for b in (0.0, 0.3))
    assert plain["low"] - biased["low"] == pytest.approx(0.3)
    assert biased["high"] - plain["high"] == pytest.approx(0.3)
    assert not estimated(sure, method="model", bias=1.0)["promoted"]
    assert not estimated(sure, 2.1, method="model")["promoted"]
    contest = Contest(("trust_weighted",), ("real_only", "clone"))
    assert estimated(0.0 * sure, contest=contest, method="model", bias=0.3, clone=sure)["shipped"] == "clone"
    assert estimated(0.0 * sure, contest=contest, method="model", bias=2.0, clone=sure)["shipped"] == "real_only"


def test_estimates_ask_for_every_control_and_ship_the_best_of_them():
    sure, contest = np.array([1.0 + 0.05 * i for i in range(10)]), Contest(("trust_weighted",), ("real_only", "clone"))
    assert estimated(sure, contest=contest, clone=0.1 * sure)["promoted"]
    held = estimated(sure, contest=contest, clone=1.1 * sure)
    assert (held["promoted"], held["shipped"]) == (False, "clone")
    unsure = np.array([3.0 * (-1) ** i for i in range(10)])
    assert estimated(0.0 * sure, contest=contest, clone=unsure)["shipped"] == "real_only", "not on a guess"


def test_nothing_to_test_ships_the_default_without_an_episode():
    run = measure(0.0)
    alone = Contest((), ("real_only",))
    decision = decide(PromotionConfig(), alone, VALUATION, run, [0], 50, refused="it took nothing")
    assert decision["shipped"] == "real_only"
    assert decision["reason"] == "real_only is shipped: it took nothing"
    assert run.calls == []
    assert decision["budget"]["spent_episodes"] == 0


def arms(means, trial=0, spread=0.5):
    """What policies of these mean earnings earn; arms of one mean differ by noise alone."""

    def run(arm, policy_seed, seeds):
        played = rows([1000 * trial + s for s in seeds], means[arm], spread, stream=sorted(means).index(arm))
        return [{**row, "seed": s} for row, s in zip(played, seeds, strict=True)]

    return run


REAL = {"real_only": 2.0, "real_only_sac": 3.0, "behaviour_cloning": 1.0}


def decided(means, **change):
    return decide(PromotionConfig(**{"max_episodes": 150, **change}), FULL, VALUATION, arms(REAL | means), [0, 1], 50)


def test_synthetic_data_helped_only_where_every_control_and_the_placebo_are_beaten():
    helped = decided({"trust_weighted": 5.0, "placebo_trust_weighted": 3.0})
    assert (helped["promoted"], helped["helped"], helped["shipped"]) == (True, True, "trust_weighted")
    assert "than real_only_sac, the closest of 3 arms without synthetic data, in " in helped["reason"]
    assert helped["placebo_reason"].startswith("it earned ")
    assert "than placebo_trust_weighted, its placebo, at 95% at least " in helped["placebo_reason"]
    assert helped["control"] == "real_only_sac"
    luck = decided({"trust_weighted": 5.0, "placebo_trust_weighted": 5.0})
    assert (luck["promoted"], luck["helped"]) == (True, False), "the gain is not the data's"
    assert "the gain may be the learner's" in luck["placebo_reason"]


def test_a_candidate_that_beats_only_the_weak_controls_is_not_shipped():
    """It gains on real_only what its learner gains without synthetic data too."""
    held = decided({"trust_weighted": 3.0, "placebo_trust_weighted": 2.0})
    assert (held["promoted"], held["shipped"]) == (False, "real_only_sac")
    by_control = {(c["against"], c["placebo"]): c["outcome"] for c in held["comparisons"]}
    assert by_control["real_only", False] == by_control["behaviour_cloning", False] == "promote"
    assert by_control["real_only_sac", False] != "promote"


def test_the_floor_ships_where_it_is_the_best():
    held = decide(
        PromotionConfig(max_episodes=150),
        FULL,
        VALUATION,
        arms(
            {
                "behaviour_cloning": 4.0,
                "real_only": 2.0,
                "real_only_sac": 1.0,
                "trust_weighted": 0.0,
                "placebo_trust_weighted": 0.0,
            }
        ),
        [0],
        50,
    )
    assert (held["promoted"], held["shipped"]) == (False, "behaviour_cloning")
    alone = Contest((), ("real_only", "behaviour_cloning"))
    cloned = decide(PromotionConfig(), alone, VALUATION, arms({"behaviour_cloning": 4.0, "real_only": 2.0}), [0], 50)
    assert cloned["shipped"] == "behaviour_cloning"


def test_the_controls_are_told_apart_with_the_whole_budget():
    """The candidate is lost early; the controls play on. Few training episodes do not make that few."""
    means = REAL | {"trust_weighted": -9.0, "placebo_trust_weighted": -9.0}
    run = CountedMeasure(arms(means))
    decision = decide(PromotionConfig(), FULL, VALUATION, run, [0], 11)
    assert decision["shipped"] == "real_only_sac"
    assert {arm: run.played[arm] for arm in REAL} == dict.fromkeys(REAL, 25)
    assert run.played["trust_weighted"] < 25


class CountedMeasure:
    """Counts the episodes of each arm."""

    def __init__(self, measure):
        self.measure, self.played = measure, Counter()

    def __call__(self, arm, policy_seed, seeds):
        self.played[arm] += len(seeds)
        return self.measure(arm, policy_seed, seeds)


def test_no_more_episodes_than_the_budget_and_none_on_what_is_lost():
    worst = decided({"trust_weighted": -9.0, "placebo_trust_weighted": 0.0}, max_episodes=400)
    assert worst["budget"]["spent_episodes"] < 400
    even = decided({"trust_weighted": 3.0, "placebo_trust_weighted": 3.0}, max_episodes=60)
    assert even["budget"]["spent_episodes"] <= even["budget"]["max_episodes"] <= 60


def test_false_promotions_keep_to_their_rate_with_several_controls_and_a_placebo():
    """400 decisions about a candidate as good as its best control; 400 about one whose data do nothing."""
    equal = {
        "real_only": 0.0,
        "real_only_sac": 3.0,
        "behaviour_cloning": -1.0,
        "trust_weighted": 3.0,
        "placebo_trust_weighted": 3.0,
    }
    placebo = equal | {"trust_weighted": 6.0, "placebo_trust_weighted": 6.0}
    config, most = PromotionConfig(max_episodes=60), 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)

    def share(means, name):
        return np.mean([decide(config, FULL, VALUATION, arms(means, t), [0], 50)[name] for t in range(400)])

    assert share(equal, "promoted") <= most
    assert share(placebo, "helped") <= most
    assert share(placebo, "promoted") > 0.5, "the test can promote"


def test_candidates_share_the_error():
    two = Contest(("trust_weighted", "mine"), ("real_only",))
    means = {"real_only": 3.0, "trust_weighted": 3.0, "mine": 3.0}
    config = PromotionConfig(max_episodes=90)
    wrong = sum(decide(config, two, VALUATION, arms(means, t), [0], 50)["promoted"] for t in range(300))
    assert wrong / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    better = decide(config, two, VALUATION, arms(means | {"mine": 6.0}), [0], 50)
    assert better["shipped"] == "mine"


def test_without_values_the_closer_copy_is_shipped_where_paired_episodes_show_it():
    rng = np.random.default_rng(0)
    control = 0.5 + 0.1 * rng.random((3, 20))
    for gain, shipped in ((0.05, "trust_weighted"), (0.0, "real_only"), (-0.05, "real_only")):
        errors = {"real_only": control, "trust_weighted": control - gain + 0.01 * rng.standard_normal((3, 20))}
        decision = decide_by_error(PromotionConfig(), PAIR, errors, 40)
        assert (decision["shipped"], decision["method"]) == (shipped, "held_out")
        assert decision["evidence"]["unit"] == "σ"
        assert decision["evidence"]["num_pairs"] == 20
        assert decision["seeds"] == [0, 1, 2]
        assert decision["budget"] == {"max_episodes": 0, "spent_episodes": 0, "real_episodes": 40}
        assert "recorded actions by" in decision["reason"]
        assert "in 20 held-out episodes" in decision["reason"]


def test_equal_copies_are_promoted_no_more_often_than_alpha():
    rng = np.random.default_rng(1)
    plan, wrong = PromotionConfig(min_gain=0.0), 0
    for _ in range(400):
        errors = {name: 0.5 + 0.1 * rng.standard_normal((2, 12)) for name in ("real_only", "trust_weighted")}
        wrong += decide_by_error(plan, PAIR, errors)["promoted"]
    assert wrong <= 400 * 0.05 + 3 * np.sqrt(400 * 0.05 * 0.95)
