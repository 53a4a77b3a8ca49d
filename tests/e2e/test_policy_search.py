"""A search over the policy's settings, as typed: it makes what policies read, trains trials, and names the best."""

import pytest
import yaml
from program import lineage, phaseb, write_config

pytestmark = pytest.mark.nightly

STUDY = {
    "job": "policy",
    "config": "tiny.yaml",
    "overrides": {"arms.names": ["real_only", "trust_weighted"], "arms.controls": False, "arms.num_seeds": 1},
    "metrics": {"name": "return", "mode": "max"},
    "space": {"policy.critic_lr": {"loguniform": [0.0003, 0.003]}},
    "budget": {"trials": 2},
    "reports": 2,
    "concurrency": 1,
    "confirm": {"top": 0},
}


def test_it_runs_from_episodes_to_the_best_point(tmp_path):
    write_config(tmp_path, run={"dir": str(tmp_path / "run")})
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    done = phaseb("tune", "search.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "NaN or Inf" not in done.stdout + done.stderr
    assert list(lineage(tmp_path / "run")["stages"])[:2] == ["collect", "encode"]
    assert not {"policy", "evaluate", "closed_loop"} & lineage(tmp_path / "run")["stages"].keys()
    best = yaml.safe_load((tmp_path / "run" / "studies" / "search" / "best.yaml").read_text(encoding="utf-8"))
    assert 0.0003 <= best["policy"]["critic_lr"] <= 0.003
