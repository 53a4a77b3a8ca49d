"""`python node.py head|worker PORT FOLDER CPUS`: one Ray node as a process of its own, until it is killed.

`ray start` would do, but refuses a second head on a machine where another node still knows the first one's address,
which here, with all nodes on one machine, is the very thing to try.
"""

import signal
import sys

import ray
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray.util import get_node_ip_address


def main(kind: str, port: str, folder: str, cpus: str) -> None:
    params = RayParams(
        num_cpus=float(cpus),
        object_store_memory=80_000_000,
        include_dashboard=False,
        min_worker_port=0,
        max_worker_port=0,
        include_log_monitor=False,
        temp_dir=folder,
    )
    if kind == "head":
        params.update(gcs_server_port=int(port))
    else:
        params.update(gcs_address=f"{get_node_ip_address()}:{port}", node_manager_port=0)
        params.dashboard_agent_listen_port = None
    node = Node(params, head=kind == "head", shutdown_at_exit=False, spawn_reaper=True)
    print(f"up {node.gcs_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    assert ray.__version__
    main(*sys.argv[1:])
