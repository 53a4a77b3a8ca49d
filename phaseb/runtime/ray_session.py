"""Ray, started quietly and safely, or joined: the one place that knows how this program meets a cluster.

A Ray started here listens on loopback, asks for a token that lives in this process's environment alone, reports no
usage, and is stopped again. Inside a submitted job, or with an address, the cluster that is there is joined instead.
"""

import contextlib
import glob
import logging
import math
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phaseb.config.run import ResourcesConfig
from phaseb.errors import ClusterError
from phaseb.runtime import logs, signals
from phaseb.runtime.addresses import LOCAL, check_form, check_listening
from phaseb.runtime.head_watchdog import watch_head
from phaseb.runtime.plugins import check_shadowing

if TYPE_CHECKING:
    import ray.train

# Read by Ray in the driver or handed on to its workers. setdefault: whoever set one by hand meant it.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # paces ray.train.report; the default, 2 s, is longer than our epochs
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",  # workers may have to wait for the tasks of another stage
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",  # a worker that does not answer that long is replaced
    "RAY_raylet_start_wait_time_s": "120",  # a machine that does other things too needs more than 30 s to start Ray
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",  # of a notice of 30 s, five seconds are too many
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",  # it keeps asking a dashboard that is not there
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean the same in a worker as in the driver
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_TQDM": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a task that reserves no GPU sees none
}
QUIET_LOCAL = {
    # A machine of one's own is not reclaimed, so nobody need watch for that (one process less for each training run).
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Ray's own daemons warn on the user's terminal of what Ray Data always does; their logs go with the session anyway.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
JOB_MARK = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's job server sets it for the process of a submitted job
POLL_S = 0.5
MAX_TEMPORARY_CHARS = 16
STARTS = 2


@contextmanager
def ray_session(resources: ResourcesConfig, wanted: Mapping[str, float] | None = None) -> Iterator[bool]:
    """Have Ray up, with the resources that a run asks for; stop it afterwards if it was started here (yields whether).

    Ray prints what befalls its workers on stdout, which belongs to results: within, stdout is stderr.

    Args:
        resources: what the run may use.
        wanted: resources that must be there, `{"CPU": 3, "GPU": 1}`; by default what the training workers reserve.

    Raises:
        ClusterError: where the cluster cannot be reached, refuses the token, or lacks the resources after `wait_s`.
        ConfigError: where a module in the current folder has the name of an installed package.
    """
    with contextlib.redirect_stdout(sys.stderr), _ray_up(resources, wanted) as ours:
        yield ours


@contextmanager
def _ray_up(resources: ResourcesConfig, wanted: Mapping[str, float] | None) -> Iterator[bool]:
    import ray

    wanted = training_request(resources) if wanted is None else wanted
    if ray.is_initialized():
        _wait(wanted, resources)
        yield False
        return
    apply_environment(QUIET)
    with contextlib.suppress(FileNotFoundError):  # the current folder was deleted meanwhile
        check_shadowing(Path.cwd())
    with contextlib.ExitStack() as up:
        if joins_cluster(resources):
            up.callback(ray.shutdown)
            _join(resources)
        else:
            _check_machine(resources, wanted)
            folder = _session_folder()
            up.callback(shutil.rmtree, folder, ignore_errors=True)
            up.callback(ray.shutdown)
            _start(resources, folder)
        up.enter_context(watch_head(ray.get_runtime_context().gcs_address))
        _hush()
        logs.configure()
        with signals.handle_sigterm():  # after Ray has set its own handler of SIGTERM
            _wait(wanted, resources)
            yield not joins_cluster(resources)


def _wait(wanted: Mapping[str, float], resources: ResourcesConfig) -> None:
    """For what is wanted, and for what one rollout actor needs of GPUs, which it takes at another time."""
    wait_for_resources(wanted, resources.wait_s)
    if resources.gpus_per_actor:
        wait_for_resources({"GPU": resources.gpus_per_actor}, resources.wait_s)


def apply_environment(settings: Mapping[str, str]) -> None:
    """Set environment variables that are not set yet."""
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def joins_cluster(resources: ResourcesConfig) -> bool:
    """Whether a run with these resources goes to a cluster that is already there.

    `resources.address` decides, then `RAY_ADDRESS`, then whether this is a submitted job. `local` starts a Ray here,
    whichever of the two says it.
    """
    address = resources.address or os.environ.get("RAY_ADDRESS") or ("auto" if JOB_MARK in os.environ else LOCAL)
    return address != LOCAL


def training_request(resources: ResourcesConfig) -> dict[str, float]:
    """What the training workers reserve together (the fewest of them, where training is elastic)."""
    workers = resources.min_workers or resources.num_workers
    request = {"CPU": workers * resources.cpus_per_worker, "GPU": workers * resources.gpus_per_worker}
    if resources.accelerator_type:
        request[f"accelerator_type:{resources.accelerator_type}"] = 0.001 * workers
    return {name: amount for name, amount in request.items() if amount}


def scaling_config(resources: ResourcesConfig) -> "ray.train.ScalingConfig":
    """Ray Train's view of the same resources."""
    import ray.train

    per_worker: dict[str, float] = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        per_worker["GPU"] = resources.gpus_per_worker
    elastic = resources.min_workers is not None and resources.min_workers < resources.num_workers
    return ray.train.ScalingConfig(
        num_workers=(resources.min_workers, resources.num_workers) if elastic else resources.num_workers,
        use_gpu=resources.gpus_per_worker > 0,
        resources_per_worker=per_worker,
        placement_strategy=resources.placement_strategy,
        accelerator_type=resources.accelerator_type,
    )


def wait_for_resources(wanted: Mapping[str, float], wait_s: float) -> None:
    """Return when the cluster has the wanted resources free.

    A short grace covers the moment in which a worker that just finished still holds its CPU. While it waits longer,
    an autoscaling cluster is told what is missing.

    Raises:
        ClusterError: where they are still missing after `wait_s` seconds.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    deadline = time.monotonic() + max(wait_s, 3.0)
    asked = False
    try:
        while missing := _missing(wanted, ray.available_resources()):
            never = _missing(wanted, ray.cluster_resources())
            if time.monotonic() > deadline or (never and not wait_s):
                raise ClusterError(_shortage(missing, ray.cluster_resources(), wait_s))
            if never and not asked:
                request_resources(bundles=_bundles(wanted))
                asked = True
            time.sleep(POLL_S)
    finally:
        if asked:
            request_resources(bundles=[])  # a request stands until the next one: nodes would never be given back


def _bundles(wanted: Mapping[str, float]) -> list[dict[str, float]]:
    """Resources in pieces that fit on any node: one for each GPU with its share of the rest, else one for each CPU."""
    pieces = math.ceil(wanted.get("GPU", 0) or wanted.get("CPU", 0))
    return [{name: amount / pieces for name, amount in wanted.items()} for _ in range(pieces)]


def machine_cpus() -> int:
    """CPUs that this process may use: the machine's, less what affinity or a container's quota takes."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))


def available_resources() -> dict[str, float]:
    """What the cluster has free now, by Ray's names."""
    import ray

    return dict(ray.available_resources())


def new_token() -> str:
    """A fresh secret for Ray's token authentication."""
    return secrets.token_hex(32)


def _session_folder() -> str:
    """A new folder only we may read, short enough for Ray's sockets (a socket's path has at most 107 bytes).

    Folders that killed processes of ours left behind are removed on the way.
    """
    parent = tempfile.gettempdir() if len(tempfile.gettempdir()) <= MAX_TEMPORARY_CHARS else "/tmp"
    for left in glob.glob(f"{parent}/phaseb-*-*/"):
        owner = left.rstrip("/").split("-")[-2]
        if owner.isdigit() and os.stat(left).st_uid == os.getuid() and not _is_alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"phaseb-{os.getpid()}-", dir=parent)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start(resources: ResourcesConfig, folder: str) -> None:
    import ray

    apply_environment({**QUIET_LOCAL, "OMP_NUM_THREADS": "1"})
    if os.environ.get("RAY_ADDRESS") == LOCAL:
        del os.environ["RAY_ADDRESS"]  # whoever asks Ray for its address later means the one that is started here
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        # Given by environment, so that Ray writes no token file of its own (which would be readable by everyone).
        # It stays for the life of this process: Ray remembers the first token it saw. RAY_AUTH_MODE is left to
        # ray.init: an earlier import of ray has read it already, and a local Ray turns token mode on by itself.
        os.environ.setdefault("RAY_AUTH_TOKEN", new_token())
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    for left in reversed(range(STARTS)):
        try:
            with _silence():
                ray.init(
                    address=LOCAL,
                    num_cpus=resources.num_cpus or machine_cpus(),
                    num_gpus=resources.num_gpus,
                    include_dashboard=resources.dashboard,
                    dashboard_host="127.0.0.1",
                    object_store_memory=int(resources.object_store_gb * 1e9),
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _temp_dir=f"{folder}/r",  # Ray opens its folder to everyone: the one above it stays closed
                )
        except Exception as error:  # a machine too busy to start Ray within its 30 s gets a plain Exception of it
            ray.shutdown()
            if not left:
                raise ClusterError(f"Ray does not start here: {_first_line(error)}; run `phaseb doctor`") from error
            logs.event("Ray does not start in time; trying again", logging.WARNING)
        else:
            return


@contextmanager
def _silence() -> Iterator[None]:
    """Keep this process's and its children's stderr quiet: Ray's core announces there how it was told to be quiet."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _join(resources: ResourcesConfig) -> None:
    import ray

    address = resources.address or os.environ.get("RAY_ADDRESS") or "auto"
    check_form(address, "resources.address" if resources.address else "RAY_ADDRESS")
    check_listening(address, resources.wait_s)
    try:
        # A cluster's answer to a wrong token is an exception of Ray's own; RaySystemError and RuntimeError cover both.
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        hint = "is it running, and are RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN set here?"
        raise ClusterError(f"cannot join the Ray cluster at {address}: {_first_line(error)}; {hint}") from error


def _hush() -> None:
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _check_machine(resources: ResourcesConfig, wanted: Mapping[str, float]) -> None:
    """Say what is too much for this machine before spending seconds on starting Ray."""
    cpus = resources.num_cpus or machine_cpus()
    if wanted.get("CPU", 0) > cpus:
        raise ClusterError(
            f"{wanted['CPU']:g} CPUs are asked for, this machine has {cpus}; lower resources.num_workers or "
            f"resources.cpus_per_worker, give resources.address of a cluster, or set resources.num_cpus to share cores"
        )


def _missing(wanted: Mapping[str, float], there: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    gaps = {name: (amount, float(there.get(name, 0.0))) for name, amount in wanted.items()}
    return {name: (amount, have) for name, (amount, have) in gaps.items() if have < amount - 1e-6}


def _shortage(missing: Mapping[str, tuple[float, float]], total: Mapping[str, Any], wait_s: float) -> str:
    parts = [
        f"{amount:g} {name} asked for, {have:g} free of {float(total.get(name, 0.0)):g}"
        for name, (amount, have) in missing.items()
    ]
    waited = f" after {wait_s:g} s" if wait_s else ""
    return f"the cluster lacks resources{waited}: {'; '.join(parts)}; lower resources.* or raise resources.wait_s"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
