import numpy as np
import pytest

from phaseb.config.promotion import PromotionConfig
from phaseb.config.valuation import ValuationConfig
from phaseb.promotion.decision import Estimate, decide, decide_by_estimate, decide_without_candidate
from phaseb.promotion.paired import look, paired_influence, spent, verdict
from phaseb.seeding import numpy_generator

VALUATION = ValuationConfig(price_per_kwh=0)


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
    data = [{"seed": i, "good_units": g.uniform(1, 5), "errors": g.uniform(0, 1), "duration_h": g.uniform(0.5, 2),
             "energy_wh": g.uniform(0, 9)} for i in range(30)]  # fmt: skip
    other = [{**r, "good_units": 0.0, "errors": 0.0, "energy_wh": 0.0} for r in data]
    valuation = ValuationConfig(price_per_kwh=100)
    difference, baseline, influence = paired_influence(data, other, valuation)

    def rate(weights):
        net = [r["good_units"] - r["errors"] - 0.1 * r["energy_wh"] for r in data]
        return np.dot(weights, net) / np.dot(weights, [r["duration_h"] for r in data])

    assert baseline == 0
    assert difference == pytest.approx(rate(np.ones(30)))
    for i in range(0, 30, 7):
        step = np.ones(30)
        step[i] += 1e-6
        assert influence[i] / 30 == pytest.approx((rate(step) - rate(np.ones(30))) / 1e-6, rel=1e-4)


def test_spending_ends_at_alpha_and_saves_it_for_the_end():
    assert spent(1.0, 0.05) == pytest.approx(0.05)
    assert spent(0.0, 0.05) == 0
    assert spent(1 / 3, 0.05) < 0.001


def test_pairing_takes_out_the_luck_of_the_start():
    seeds = range(40)
    evidence = look(rows(seeds, 3.5, 0.3, luck=5.0), rows(seeds, 3.0, 0.3, luck=5.0, stream=1), VALUATION, 1, 1, 0.05)
    assert evidence.low > 0
    assert verdict(evidence, "better", 0.0) == "promote"
    with pytest.raises(ValueError, match="same episode seeds"):
        look(rows([1, 2], 3), rows([1, 3], 3), VALUATION, 1, 1, 0.05)


def test_returns_stand_in_where_economics_are_unknown():
    a = [{"seed": i, "return": 2.0 + i % 2, "good_units": np.nan} for i in range(10)]
    b = [{"seed": i, "return": 1.0, "good_units": np.nan} for i in range(10)]
    assert paired_influence(a, b, VALUATION)[0] == pytest.approx(1.5)


def test_a_clear_gain_is_promoted_before_the_budget_is_spent():
    run = measure(2.0)
    decision = decide(PromotionConfig(max_episodes=120), VALUATION, run, [0, 1, 2], 50)
    assert decision["promoted"]
    assert decision["shipped"] == "trust_weighted"
    assert decision["budget"]["spent_episodes"] < 120
    assert "trust_weighted is promoted: it is better than real_only" in decision["reason"]
    played = [(arm, seed) for arm, policy, seeds in run.calls for seed in seeds]
    assert len(played) == len(set(played)), "no episode is paid for twice"
    assert {policy for _, policy, _ in run.calls} == {0, 1, 2}


def test_no_gain_ships_the_baseline_within_the_budget():
    decision = decide(PromotionConfig(), VALUATION, measure(0.0), [0], 50)
    assert decision["shipped"] == "real_only"
    assert decision["budget"] == {"max_episodes": 50, "spent_episodes": 50}
    harm = decide(PromotionConfig(max_episodes=300), VALUATION, measure(-2.0), [0], 50)
    assert harm["shipped"] == "real_only"
    assert harm["budget"]["spent_episodes"] < 300, "clear harm ends the test early"
    assert "worse" in harm["reason"]


def test_not_worse_promotes_an_equal():
    config = PromotionConfig(rule="not_worse", margin=0.3, max_episodes=200)
    assert decide(config, VALUATION, measure(0.0), [0], 50)["promoted"]
    assert not decide(config, VALUATION, measure(-2.0), [0], 50)["promoted"]


def test_false_promotions_keep_to_their_rate():
    """400 decisions about equal policies: at most 5 % plus three standard errors may be promoted."""
    config = PromotionConfig(max_episodes=60)
    wrong = sum(decide(config, VALUATION, measure(0.0, trial=t), [0], 50)["promoted"] for t in range(400))
    assert wrong / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_estimates_promote_only_what_all_of_them_see():
    config = PromotionConfig()
    sure = [Estimate(s, 3.0, tuple(1.0 + 0.05 * i for i in range(10))) for s in (0, 1)]
    split = [Estimate(s, 3.0, tuple(0.6 * i - 2.0 for i in range(10))) for s in (0, 1)]
    assert decide_by_estimate(config, sure)["promoted"]
    refused = decide_by_estimate(config, split)
    assert refused["shipped"] == "real_only"
    assert refused["evidence"]["difference"] > 0
    assert refused["method"] == "fqe"
    assert "estimated difference" in refused["reason"]


def test_nothing_to_test_ships_the_baseline():
    decision = decide_without_candidate(PromotionConfig(), "trust_weighted was not trained")
    assert decision["shipped"] == "real_only"
    assert decision["reason"] == "real_only is shipped: trust_weighted was not trained"
