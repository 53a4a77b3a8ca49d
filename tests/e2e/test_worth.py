"""What data is worth: every brick left out once, the cheap estimate beside it, and what to collect next."""

import json
from html import unescape

import numpy as np
import pytest
import torch
from program import strict_json
from scipy import stats

from phaseb.runtime.checkpoint import load_checkpoint
from phaseb.runtime.storage import Store

pytestmark = pytest.mark.nightly


@pytest.fixture
def told(ray_up, copied, command):
    done = command("worth", "--config", copied / "config.yaml", f"run.dir={copied}", "worth.curve=[0.5, 1]", "--json")
    assert done.code == 0, done.err
    return strict_json(done.out), json.loads((copied / "worth" / "worth.json").read_text()), copied


def test_each_brick_is_left_out_once(told, command):
    said, found, root = told
    manifest = json.loads((root / "bricks" / "manifest.json").read_text())
    members = {b["id"]: len(b["members"]) for b in manifest["bricks"]}
    assert {row["brick"]: row["episodes"] for row in found["bricks"]} == members
    total = sum(members.values())
    for row in found["bricks"]:
        assert row["left"] == total - row["episodes"]
        lost = row["loss"]["by_seed"]
        assert len(lost) == len(list((root / "policy" / found["arm"]).iterdir())) > 1
        error = np.std(lost, ddof=1) / np.sqrt(len(lost))
        half = stats.t.ppf(0.975, len(lost) - 1) * error
        expected = [np.mean(lost), np.mean(lost) - half, np.mean(lost) + half]
        assert [row["loss"][name] for name in ("difference", "low", "high")] == pytest.approx(expected)
        assert sum(row["operators"].values()) == row["episodes"]
        actor = root / "worth" / row["brick"] / found["arm"] / "0" / "meta.json"
        whole = root / "policy" / found["arm"] / "0" / "meta.json"
        assert json.loads(actor.read_text())["digest"] != json.loads(whole.read_text())["digest"]
    assert sum(row["estimate"] for row in found["bricks"]) == pytest.approx(1)
    each = {row["brick"]: row["loss"]["difference"] / row["episodes"] for row in found["bricks"]}
    assert found["next"]["brick"] == said["collect_next"] == max(each, key=lambda name: each[name])
    starts = found["next"]["starts"]
    assert starts["doubt"] >= starts["doubt_of_all"] > 0
    assert np.isfinite(starts["shift"]).all()
    page = command("report", root, "--json")
    assert strict_json(page.out)["worth"] == found
    assert "What the data is worth" in (root / "report" / "index.html").read_text()
    curve = found["episodes_worth"]
    control = curve["control_arm"]
    seeds = len(list((root / "policy" / control).iterdir()))
    assert said["episodes_worth"] == curve["told"]
    sizes = [point["episodes"] for point in curve["control"]]
    assert sizes == [total // 2, total]
    assert curve["candidate"]["episodes"] == sizes[0]
    assert 1 <= curve["low"] <= curve["value"] <= curve["high"] <= 2
    assert len(list((root / "worth" / "curve" / str(sizes[0]) / curve["candidate_arm"]).iterdir())) == seeds
    again, whole = (
        load_checkpoint(Store.at(root / home / control / "0"))[0] for home in (f"worth/curve/{total}", "policy")
    )  # the control on all episodes is the run's own policy
    torch.testing.assert_close(again, whole, rtol=1e-4, atol=1e-5)
    assert f"Synthetic data is worth {curve['told']} times" in unescape((root / "report" / "index.html").read_text())
