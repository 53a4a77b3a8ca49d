"""Bricks on planted groups, their economics against sums by hand, and what is done with what is not known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.bricks.economics import economic_table
from phaseb.bricks.features import episode_features
from phaseb.bricks.manifest import fit_bricks
from phaseb.config.data import ValuationConfig
from phaseb.config.encoder import BricksConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError

CONFIG, VALUATION = BricksConfig(), ValuationConfig()


def trajectories(kinds, seed=0, steps=30, dims=4, splits=None):
    """Episodes whose latents move as their kind does: 0 slowly, 1 widely, 2 very widely; kind 0 earns most."""
    rng = np.random.default_rng(seed)
    kinds = np.asarray(kinds)
    n = len(kinds)
    z = rng.standard_normal((n, steps + 1, dims)) * np.array([0.3, 1.5, 4.0])[kinds][:, None, None]
    good = np.array([8.0, 5.0, 2.0])[kinds] + rng.integers(0, 2, n)
    errors = np.array([1.0, 4.0, 6.0])[kinds]
    hours = np.full(n, 0.1)
    energy = np.array([1.0, 3.0, 2.0])[kinds] + 0.1 * rng.random(n)
    return Trajectories(
        z=z.astype(np.float32),
        actions=np.zeros((n, steps, 1), np.float32),
        rewards=np.ones((n, steps), np.float32),
        terminals=np.zeros((n, steps), np.float32),
        lengths=np.full(n, steps),
        ids=tuple(f"e{i}" for i in range(n)),
        splits=tuple(splits or ["train"] * n),
        metrics={"good_units": good, "errors": errors, "duration_h": hours, "energy_wh": energy, "mpl": good / hours},
    )


KINDS = [0, 1, 2] * 8


def test_planted_groups_are_found_and_ordered_by_value():
    bricks = fit_bricks(CONFIG, VALUATION, trajectories(KINDS))
    assert bricks.labels.tolist() == KINDS
    values = [b.economics["value_per_hour"].value for b in bricks.bricks]
    assert values == sorted(values, reverse=True)
    assert bricks.bricks[0].members == tuple(f"e{i}" for i in range(0, 24, 3))


def test_economics_are_ratios_of_sums():
    data = trajectories(KINDS)
    prices = ValuationConfig(price_per_unit=2.0, cost_per_error=3.0, price_per_kwh=50.0)
    brick = fit_bricks(CONFIG, prices, data).bricks[0]
    rows = [int(i[1:]) for i in brick.members]
    good, errors, hours, energy = (
        data.metrics[n][rows].sum() for n in ("good_units", "errors", "duration_h", "energy_wh")
    )
    got = {name: e.value for name, e in brick.economics.items()}
    assert got["mpl"] == pytest.approx(good / hours)
    assert got["error_rate"] == pytest.approx(errors / (good + errors))
    assert got["energy_wh"] == pytest.approx(energy / len(rows))
    assert got["energy_wh_per_unit"] == pytest.approx(energy / good)
    assert got["value_per_hour"] == pytest.approx((2 * good - 3 * errors - 50 * energy / 1000) / hours)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, hits, rounds = np.random.default_rng(3), 0, 200
    for i in range(rounds):
        good = rng.poisson(5.0, 30).astype(float)
        table = economic_table({"good_units": good, "duration_h": np.full(30, 0.5)}, 30, VALUATION)
        estimate = table.profile(np.arange(30), 300, np.random.default_rng(i))["mpl"]
        hits += estimate.low <= 10.0 <= estimate.high
    assert 0.87 <= hits / rounds <= 0.99


def test_no_attempts_is_nan_and_one_episode_has_no_interval():
    table = economic_table({"good_units": np.zeros(3), "errors": np.zeros(3), "duration_h": np.ones(3)}, 3, VALUATION)
    profile = table.profile(np.arange(3), 50, np.random.default_rng(0))
    assert profile["mpl"].value == 0
    assert np.isnan(profile["error_rate"].value)
    assert np.isnan(profile["energy_wh_per_unit"].value)
    single = table.profile(np.arange(1), 50, np.random.default_rng(0))["mpl"]
    assert single.value == 0
    assert np.isnan([single.low, single.high]).all()


def test_imported_rates_are_averaged_where_counts_are_unknown():
    data = trajectories(KINDS)
    mpl = data.metrics["mpl"]
    rates = replace(data, metrics={"mpl": mpl, "error_rate": np.full(24, 0.2), "energy_wh": np.full(24, np.nan)})
    bricks = fit_bricks(CONFIG, VALUATION, rates)
    rows = [int(i[1:]) for i in bricks.bricks[0].members]
    profile = bricks.bricks[0].economics
    assert profile["mpl"].value == pytest.approx(mpl[rows].mean())
    assert profile["value_per_hour"].value == pytest.approx(mpl[rows].mean() * (1 - 0.25))
    assert np.isnan(profile["energy_wh"].value)
    assert not bricks.energy_counted


def test_without_any_metrics_bricks_are_still_made():
    manifest = fit_bricks(CONFIG, VALUATION, replace(trajectories(KINDS), metrics={})).manifest()
    assert manifest["num_bricks"] == 3
    assert all(v["value"] is None for b in manifest["bricks"] for v in b["economics"].values())
    json.dumps(manifest, allow_nan=False)


def test_manifest_tells_every_episode_and_is_strict_json():
    data = trajectories(KINDS)
    data.metrics["mpl"][3] = np.nan
    manifest = json.loads(json.dumps(fit_bricks(CONFIG, VALUATION, data).manifest(), allow_nan=False))
    assert [e["id"] for e in manifest["episodes"]] == list(data.ids)
    assert manifest["episodes"][3]["metrics"]["mpl"] is None
    assert manifest["episodes"][0]["return"] == 30.0
    members = [m for b in manifest["bricks"] for m in b["members"]]
    assert sorted(members) == sorted(data.ids)
    home = {m: b["id"] for b in manifest["bricks"] for m in b["members"]}
    assert all(home[e["id"]] == e["brick"] for e in manifest["episodes"])
    assert all(len(e["map"]) == 2 for e in manifest["episodes"])


def test_same_seed_same_manifest():
    a, b, c = (fit_bricks(CONFIG, VALUATION, trajectories(KINDS), seed).manifest() for seed in (5, 5, 6))
    assert a == b
    assert a["bricks"][0]["economics"] != c["bricks"][0]["economics"]  # another bootstrap


def test_held_out_episodes_are_sorted_in_but_change_nothing():
    splits = ["train"] * 18 + ["test"] * 6
    data = trajectories(KINDS, splits=splits)
    whole, alone = (fit_bricks(CONFIG, VALUATION, d) for d in (data, data.split("train")))
    assert whole.labels[:18].tolist() == alone.labels.tolist()
    assert whole.labels.tolist() == KINDS
    for a, b in zip(whole.bricks, alone.bricks, strict=True):
        assert a.economics == b.economics
    assert whole.assign(data).tolist() == KINDS


def test_the_number_of_bricks_is_the_configs_at_most_that_of_different_episodes():
    assert len(fit_bricks(CONFIG.model_copy(update={"num_bricks": 5}), VALUATION, trajectories(KINDS)).bricks) == 5
    assert len(fit_bricks(CONFIG.model_copy(update={"num_bricks": 5}), VALUATION, trajectories([0, 1])).bricks) == 2


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_episodes(count):
    manifest = fit_bricks(CONFIG, VALUATION, trajectories([0] * count)).manifest()
    assert sum(b["num_episodes"] for b in manifest["bricks"]) == count
    json.dumps(manifest, allow_nan=False)


def test_identical_episodes_and_dead_dimensions_make_one_brick():
    data = trajectories([0] * 6)
    bricks = fit_bricks(CONFIG, VALUATION, replace(data, z=np.zeros_like(data.z)))
    assert len(bricks.bricks) == 1
    assert np.isfinite(bricks.map).all()


def test_no_episodes_is_refused():
    with pytest.raises(DataError, match="no episodes"):
        fit_bricks(CONFIG, VALUATION, trajectories(KINDS).select([]))


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 8), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_features_do_not_see_padding(lengths, seed):
    rng = np.random.default_rng(seed)
    data = trajectories([0] * len(lengths), seed, steps=8)
    z = rng.standard_normal(data.z.shape).astype(np.float32)
    for i, length in enumerate(lengths):
        z[i, length + 1 :] = z[i, length]
    data = replace(data, z=z, lengths=np.array(lengths))
    got = episode_features(data)
    for i, length in enumerate(lengths):
        own = z[i, : length + 1].astype(np.float64)
        expected = [own.std(0), np.abs(np.diff(own, axis=0)).mean(0)]
        np.testing.assert_allclose(got[i], np.concatenate(expected), atol=1e-9)


def test_each_of_several_tasks_has_its_economics_and_bricks_count_them():
    data = trajectories(KINDS, splits=["train"] * 20 + ["dev"] * 4)
    tasks = ("pick", "place") * 12
    manifest = fit_bricks(CONFIG, VALUATION, replace(data, lineage={"tag/task": tasks})).manifest()
    assert [(row["task"], row["num_episodes"]) for row in manifest["tasks"]] == [("pick", 12), ("place", 12)]
    good, hours = data.metrics["good_units"][:20], data.metrics["duration_h"][:20]
    for i, row in enumerate(manifest["tasks"]):  # dev episodes value nothing
        assert row["economics"]["mpl"]["value"] == pytest.approx(good[i::2].sum() / hours[i::2].sum())
    for brick in manifest["bricks"]:
        own = [tasks[int(name[1:])] for name in brick["members"]]
        assert brick["tasks"] == {task: own.count(task) for task in sorted(set(own))}
    one = fit_bricks(CONFIG, VALUATION, replace(data, lineage={"tag/task": ("pick",) * 24})).manifest()
    assert one["tasks"] == []
    assert {tuple(brick["tasks"]) for brick in one["bricks"]} == {()}
