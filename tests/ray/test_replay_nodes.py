"""A node that dies: its shards come back on another one, with what they acknowledged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
import numpy as np, ray
from ray.cluster_utils import Cluster
from phaseb.config.replay import ReplayConfig
from phaseb.replay.client import ReplayClient
from phaseb.replay.schema import TransitionSchema
from phaseb.replay.spec import SampleSpec
from test_replay import SCHEMA, fill

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
config = ReplayConfig(capacity=6000, num_shards=2, shard_cpus=0.5, retry_interval_s=0.2, call_timeout_s=120)
client = ReplayClient.start(SCHEMA, config, sys.argv[1])
fill(client)
before = client.status()
assert len({status["node"] for status in before}) == 2, "shards are not spread"
source = client.source([SampleSpec("a", 0)], 32, 0.99)
source.sample(0, 4)
cluster.remove_node(second, allow_graceful=False)
# Its processes outlive the node's manager by a while: the learner samples until the shard is back elsewhere.
deadline, step = time.monotonic() + 240, 4
while True:
    assert np.isfinite(source.sample(step, 4)["z"]).all()
    step += 4
    assert time.monotonic() < deadline, "the shard did not come back on another node"
    try:
        after = client.status()
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        continue
    if len({status["node"] for status in after}) == 1:
        break
assert [s["num_transitions"] for s in after] == [s["num_transitions"] for s in before]
assert [s["lost"] for s in after] == [0, 0]
print("survived")
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.nightly
def test_a_killed_node_is_survived(tmp_path):
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=400
    )
    assert "survived" in done.stdout, done.stderr[-3000:]
