"""A whole run: what it prints, what it leaves behind, and that a second one has nothing to do."""

import json
import math
import re

import numpy as np
import pytest
import torch
import yaml
from program import STAGES, agree, leftovers, lineage, phaseb, strict_json, write_config

from phaseb.episodes.shards import read_trajectories
from phaseb.runtime.checkpoint import load_checkpoint
from phaseb.runtime.storage import Store

NUMBERS = (
    "std_ratio",
    "std_ratio_pooled",
    "variance_growth",
    "judge_auc",
    "pass_rate",
    "pass_rate_held_out",
    "pass_rate_perturbed",
    "bounds_pass",
    "effective_contribution",
    "action_mse",
)
MEASURES = ("mpl", "error_rate", "energy_wh_per_unit", "return")
ARMS = (
    "behaviour_cloning",
    "real_only",
    "fixed_weight",
    "bounds_filter",
    "trust_weighted",
    "real_only_sac",
    "placebo_fixed_weight",
    "placebo_trust_weighted",
)


@pytest.fixture(scope="module")
def results(finished):
    return strict_json(finished.process.stdout)


def test_stdout_is_one_strict_json_document_and_nothing_else(finished, results):
    assert finished.process.stdout.count("\n") == 1
    assert results == json.loads((finished.folder / "results.json").read_text())


def test_the_result_names_what_a_reader_looks_for(results):
    for name in NUMBERS:
        assert results["numbers"][name] is not None, name
    for arm in ARMS:
        for measure in MEASURES:
            assert set(results["arms"][arm][measure]) >= {"mean", "low", "high"}, (arm, measure)
    assert results["shipped"] in ARMS
    assert results["verdict"].endswith(".")


def test_intervals_hold_their_means(results):
    for arm in ARMS:
        value = results["arms"][arm]["return"]
        assert value["low"] <= value["mean"] <= value["high"]
        assert math.isfinite(value["mean"])


def test_gates_passes_are_shares(results):
    for name in ("pass_rate", "pass_rate_held_out", "pass_rate_perturbed", "report_model_fail_rate"):
        assert 0 <= results["numbers"][name] <= 1, name


def test_every_generator_is_saved_and_judged_the_way_it_is_used(finished, results):
    for name in ("gru", "gp"):
        saved = json.loads((finished.folder / "dynamics" / name / "meta.json").read_text())
        assert results["generators"][name]["digest"] == saved["digest"]
        assert saved["meta"]["uncertainty_scale"] == results["generators"][name]["uncertainty_scale"] > 0
    assert 0 <= results["generators"]["gru"]["judge_auc"] <= 1
    assert "judge_auc" not in results["generators"]["gp"], "no rollout of a whole episode is made of it"
    assert 0 <= results["generators"]["gp"]["branched"]["judge_auc"] <= 1
    assert set(results["judges"]["gp"]["branched"]["results"]) == {"cloned", "recorded"}


def test_contributions_are_shares_of_one(results):
    numbers = results["numbers"]
    assert numbers["real_contribution"] + numbers["effective_contribution"] == pytest.approx(1)
    assert results["arms"]["real_only"]["effective_contribution"]["mean"] == 0


def test_the_books_tell_every_transition_that_was_drawn(finished, results):
    policy = yaml.safe_load((finished.folder / "config.yaml").read_text())["policy"]
    books = json.loads((finished.folder / "policy" / "replay.json").read_text())
    assert {name.split("/")[0] for name in books["streams"]} == set(ARMS)
    for name, book in books["streams"].items():
        assert book["sampled_real"] + book["sampled_synthetic"] == policy["num_steps"] * policy["batch_size"], name
        assert sum(book["trust_synthetic"]) == book["sampled_synthetic"]
    assert 0 <= books["wait_fraction"] < 1
    assert books["sampled_per_s"] > 0
    assert sum(shard["num_transitions"] for shard in books["shards"]) >= books["inserted"] > 0


def test_progress_goes_to_stderr_without_warnings_or_traces(finished):
    assert_progress_alone(finished.process.stderr)


def assert_progress_alone(told: str) -> None:
    for stage in STAGES:
        assert re.search(rf"^{stage} +\d+ s", told, re.MULTILINE), told
    assert not re.search(r"warning|traceback|\x1b", told, re.IGNORECASE), told


def test_every_stage_is_done_and_nothing_half_written_is_left(finished):
    stages = lineage(finished.folder)["stages"]
    assert {name: stages[name]["state"] for name in STAGES} == dict.fromkeys(STAGES, "done")
    for name in STAGES:
        for output in stages[name]["outputs"]:
            assert (finished.folder / output).exists(), output
    assert leftovers(finished.folder) == []


def test_the_page_needs_no_network(finished, results):
    page = (finished.folder / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//|url\(\s*["']?(https?:)?//|@import""", page)
    assert len(page) < 3_000_000
    assert results["verdict"].split("(")[0].strip() in page


def test_a_second_run_has_nothing_to_do_and_shows_tables(finished):
    before = lineage(finished.folder)["stages"]
    again = phaseb("run", "--config", finished.config, cwd=finished.config.parent)
    assert again.returncode == 0, again.stderr
    assert lineage(finished.folder)["stages"] == before
    for stage in STAGES:
        assert re.search(rf"^{stage} +up to date", again.stderr, re.MULTILINE)
    for word in (*NUMBERS, *ARMS, "founding report", "report: runs/tiny/report/index.html"):
        assert word in again.stdout


@pytest.mark.nightly
@pytest.mark.parametrize("resources", [{"num_tasks": 2}, {"num_tasks": 2, "num_workers": 1}])
def test_stages_and_policies_beside_each_other_make_what_one_after_another_makes(finished, tmp_path, resources):
    config = write_config(tmp_path, run={"dir": str(tmp_path / "spread")}, resources=resources)
    told = phaseb("run", "--config", config, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert_progress_alone(told.stderr)
    folders = [finished.folder, tmp_path / "spread"]
    alone, spread = (strict_json((folder / "results.json").read_text()) for folder in folders)
    for part in ("shipped", "numbers", "arms"):
        agree(spread[part], alone[part], part)
    one, other = (read_trajectories(Store.at(folder / "latents")) for folder in folders)
    np.testing.assert_allclose(other.z, one.z, rtol=1e-4, atol=1e-5)
    for arm in ARMS:
        one, other = (load_checkpoint(Store.at(folder / "policy" / arm / "1"))[0] for folder in folders)
        assert one
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_the_report_of_a_run_is_written_again(copied, command):
    page = copied / "report" / "index.html"
    page.unlink()
    told = command("report", copied, "--json")
    assert told.code == 0, told.err
    assert strict_json(told.out)["page"] == str(page)
    assert page.stat().st_size > 10_000
