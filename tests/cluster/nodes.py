"""A Ray cluster of several nodes on this machine, each a raylet of its own, and ways to strike them."""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

OBJECTS_BYTES = 80_000_000


class Machines:
    """A head that takes no work, and nodes that come and go."""

    def __init__(self, **head: Any) -> None:
        # Ray writes the head's address into its default folder, which a new machine lacks, wherever its own one is.
        os.makedirs(os.path.join(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray"), exist_ok=True)
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "object_store_memory": OBJECTS_BYTES,
                **head,
            },
        )
        self.nodes: list[Any] = []

    def scale(self, num: int, cpus: float = 1) -> list[Any]:
        """Have that many nodes alive."""
        while len(self.nodes) < num:
            self.nodes.append(self.cluster.add_node(num_cpus=cpus, object_store_memory=OBJECTS_BYTES))
        while len(self.nodes) > num:
            self.cluster.remove_node(self.nodes.pop())
        self.cluster.wait_for_nodes()
        return self.nodes

    def kill(self, node: Any) -> None:
        """All of a node's processes at once, as when the machine loses power."""
        self.nodes.remove(node)
        strike(processes_of(node), signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)

    def drain(self, node: Any, notice_s: float) -> None:
        """What a spot machine's cluster manager does when it learns that the machine will be taken away."""
        from ray.core.generated import autoscaler_pb2

        gcs = ray._raylet.GcsClient(address=self.cluster.address)
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        accepted, why = gcs.drain_node(node.node_id, reason, "test", int((time.time() + notice_s) * 1000))
        assert accepted, why


def processes_of(node: Any) -> list[psutil.Process]:
    """A node's raylet and all that it started."""
    raylet = psutil.Process(node.all_processes[ray._private.ray_constants.PROCESS_TYPE_RAYLET][0].process.pid)
    return [raylet, *raylet.children(recursive=True)]


def workers(node: Any, title: str) -> list[psutil.Process]:
    """The worker processes of a node whose title (`ray::…`) holds a text."""
    found = []
    for process in processes_of(node):
        with contextlib.suppress(psutil.NoSuchProcess):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found


def strike(processes: list[psutil.Process], number: int) -> None:
    """Send a signal to processes, those that are gone left out."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 240.0) -> Any:
    """Poll until something is true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def environment(**settings: str) -> Iterator[None]:
    """Environment variables for a while, for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
