"""A look at this machine: what would go wrong in a run, and what to do about each thing."""

import functools
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

import pyarrow.fs as pafs

from phaseb import __version__
from phaseb.config.run import ResourcesConfig
from phaseb.errors import PhasebError
from phaseb.runtime.ray_session import QUIET, apply_environment, machine_cpus, ray_session
from phaseb.runtime.retry import retry_deadline
from phaseb.runtime.storage import Store, redact

PACKAGES = ("ray", "torch", "numpy", "pyarrow", "gymnasium", "mujoco", "scikit-learn", "pydantic", "optuna")
MIN_SHM_GB, MIN_DISK_GB, MIN_MEMORY_GB = 0.6, 5.0, 6.0
MAX_SKEW_S = 5.0
COLLECTIVE_S, STORAGE_S = 60.0, 3.0


@dataclass(frozen=True)
class CheckResult:
    """One thing looked at. `fix` says what to do where `state` is not `ok`."""

    name: str
    state: Literal["ok", "warning", "bad"]
    seen: str
    fix: str = ""


def run_checks(where: str | None = None, as_json: bool = False) -> int:
    """Print what was found; 0 unless something is bad (then 4).

    Args:
        where: a path or URI that runs are to be written to; by default `runs` here.
    """
    apply_environment(QUIET)
    try_out = functools.partial(storage, where)
    findings = [finding for look in CHECKS for finding in (try_out if look is storage else look)()]
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings]) + "\n")
    else:
        for finding in findings:
            fix = f"\n         -> {finding.fix}" if finding.fix else ""
            sys.stdout.write(f"{finding.state:<8} {finding.name:<16} {finding.seen}{fix}\n")
    return 4 if any(finding.state == "bad" for finding in findings) else 0


def versions() -> list[CheckResult]:
    """Python and the packages that decide what runs."""
    found = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in found.items() if version is None]
    installed = [f"{name} {version}" for name, version in found.items() if version]
    seen = ", ".join([f"phaseb {__version__}", f"Python {sys.version.split()[0]}", *installed])
    if missing:
        return [CheckResult("versions", "bad", seen, f"not installed: {', '.join(missing)}; install phaseb again")]
    ray = found["ray"] or ""
    if not ray.startswith("2.60."):
        return [CheckResult("versions", "bad", seen, "phaseb is made for Ray 2.60: pip install 'ray[default]==2.60.*'")]
    return [CheckResult("versions", "ok", seen)]


def processors() -> list[CheckResult]:
    cpus, threads = machine_cpus(), os.environ.get("OMP_NUM_THREADS")
    findings = [CheckResult("CPUs", "ok", f"{cpus} usable of {os.cpu_count()}")]
    if threads and threads.isdigit() and int(threads) > cpus:
        fix = f"export OMP_NUM_THREADS={cpus} or less: more threads than cores slow torch down many times over"
        findings.append(CheckResult("threads", "warning", f"OMP_NUM_THREADS={threads}", fix))
    return findings


def memory() -> list[CheckResult]:
    """Main memory and the shared memory that Ray's objects lie in."""
    total_gb = _memory_bytes() / 1e9
    state: Literal["ok", "warning"] = "ok" if total_gb >= MIN_MEMORY_GB else "warning"
    fix = "" if state == "ok" else "lower resources.object_store_gb, resources.num_workers=0, fewer episodes"
    findings = [CheckResult("memory", state, f"{total_gb:.1f} GB", fix)]
    if os.path.isdir("/dev/shm"):
        free_gb = shutil.disk_usage("/dev/shm").free / 1e9
        if free_gb < MIN_SHM_GB:
            fix = (
                "start the container with --shm-size=2g (Kubernetes: an emptyDir with medium Memory at /dev/shm); "
                "Ray falls back to the disk until then, slowly"
            )
            findings.append(CheckResult("shared memory", "warning", f"{free_gb:.2f} GB free in /dev/shm", fix))
        else:
            findings.append(CheckResult("shared memory", "ok", f"{free_gb:.1f} GB free in /dev/shm"))
    return findings


def storage(where: str | None = None) -> list[CheckResult]:
    """Whether the folder or store for runs can be written, read back, renamed, listed and deleted, whether its clock
    is ours (a store's is that of its server), and whether a disk has room."""
    where = where or (os.path.abspath("runs") if os.path.isdir("runs") else os.getcwd())
    shown = redact(where)
    try:
        home = Store.at(where)
        with retry_deadline(STORAGE_S):
            absent = _absent_folders(home)
            try:
                seconds, skew_s = _try_out(home.folder(f".doctor-{uuid.uuid4().hex[:8]}"))
            finally:
                _remove_empty(home, absent)
    except (PhasebError, OSError) as error:
        fix = (
            "choose a folder that you may write with run.dir=…; for a store: does the bucket exist, are endpoint, "
            "region and credentials (AWS_ACCESS_KEY_ID …, or the machine's role) those of its owner?"
        )
        return [CheckResult("storage", "bad", f"{shown}: {' '.join(str(error).split())[:300]}", fix)]
    findings = [CheckResult("storage", "ok", f"{shown}: written, read back, renamed and deleted in {seconds:.2f} s")]
    if abs(skew_s) > MAX_SKEW_S:
        fix = "let both take their time by NTP"
        findings.append(CheckResult("storage clock", "warning", f"{skew_s:+.0f} s against {shown}", fix))
    if home.is_local and (free_gb := shutil.disk_usage(_existing(home.root)).free / 1e9) < MIN_DISK_GB:
        fix = "free space, or move run.dir"
        findings.append(CheckResult("disk", "warning", f"{free_gb:.1f} GB free at {shown}", fix))
    return findings


def _try_out(folder: Store) -> tuple[float, float]:
    """Write a folder, read it, rename in it, delete it: seconds it took, and how far its clock is ahead of ours, s.

    Raises:
        PhasebError: where anything but what was written comes back.
    """
    text, began_s = "a run starts here", time.time()
    try:
        folder.write_text(text, "probe")
        written = folder.filesystem.get_file_info(folder.path("probe")).mtime
        folder.move("probe", "moved")
        if folder.names() != ["moved"] or folder.read_text("moved") != text:
            raise PhasebError("it gives back something else than was written; choose other storage")
    finally:
        folder.delete()
    middle_s = (began_s + time.time()) / 2
    return time.time() - began_s, written.timestamp() - middle_s if written else 0.0


def _absent_folders(home: Store) -> list[str]:
    """The folders down to `home` that are not there, the deepest first; never a bucket."""
    absent, path = [], home.root
    while "/" in path and home.filesystem.get_file_info(path).type == pafs.FileType.NotFound:
        absent.append(path)
        path = path.rsplit("/", 1)[0]
    return absent


def _remove_empty(home: Store, folders: Sequence[str]) -> None:
    """Remove folders that hold nothing, as a try leaves them."""
    for path in folders:
        selector = pafs.FileSelector(path, allow_not_found=True)
        if home.filesystem.get_file_info(selector):
            return
        if home.filesystem.get_file_info(path).type == pafs.FileType.Directory:
            home.filesystem.delete_dir(path)


def _existing(path: str) -> str:
    """The nearest folder above a path that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def gpus() -> list[CheckResult]:
    """GPUs as torch sees them, a small product on each, and NCCL."""
    import torch

    if not torch.cuda.is_available():
        return [CheckResult("GPU", "ok", "none: everything runs on CPUs")]
    findings = []
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        try:
            x = torch.ones(256, 256, device=f"cuda:{index}")
            good = float((x @ x)[0, 0]) == 256.0
        except RuntimeError as error:
            findings.append(
                CheckResult("GPU", "bad", f"{name}: {str(error).splitlines()[0]}", "check driver and memory")
            )
            continue
        state: Literal["ok", "bad"] = "ok" if good else "bad"
        findings.append(
            CheckResult("GPU", state, f"{name}, computes", "" if good else "it computes wrongly: take it out")
        )
    if not (torch.distributed.is_available() and torch.distributed.is_nccl_available()):
        fix = "several GPU workers need it: install the CUDA build of torch"
        return [*findings, CheckResult("NCCL", "warning", "no NCCL", fix)]
    version = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    return [*findings, collective("nccl", torch.cuda.device_count(), f"NCCL {version}")]


def collective(backend: str, num_workers: int, name: str) -> CheckResult:
    """Whether that many processes, one a device, add a tensor up together, as training workers do with gradients."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "phaseb.doctor.allreduce_check", backend, str(num_workers), folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COLLECTIVE_S, check=False)
        except subprocess.TimeoutExpired:
            said = f"hangs for {COLLECTIVE_S:g} s"
        else:
            if done.returncode == 0:
                return CheckResult("NCCL", "ok", f"{name}, {num_workers} worker(s) add up")
            said = (done.stderr.strip().splitlines() or ["failed"])[-1]
    fix = "run it again with NCCL_DEBUG=INFO; try NCCL_P2P_DISABLE=1, NCCL_IB_DISABLE=1, and --shm-size=2g or more"
    return CheckResult("NCCL", "bad", f"{name}: {said[:200]}", fix)


def clock() -> list[CheckResult]:
    """This machine's clock against the one of the cluster's job server, where one is named."""
    address = os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        return [CheckResult("clock", "ok", "not compared: RAY_API_SERVER_ADDRESS names no cluster")]
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=5) as reply:
            there = reply.headers.get("Date")
    except OSError as error:
        there = getattr(getattr(error, "headers", None), "get", lambda _: None)("Date")
        if there is None:
            return [
                CheckResult("clock", "warning", f"{address} does not answer", "start the head, or the tunnel to it")
            ]
    skew_s = abs(time.time() - parsedate_to_datetime(there).timestamp()) if there else 0.0
    if skew_s > MAX_SKEW_S:
        return [CheckResult("clock", "warning", f"{skew_s:.0f} s from {address}", "let both take their time by NTP")]
    return [CheckResult("clock", "ok", f"within {MAX_SKEW_S:g} s of {address}")]


def network() -> list[CheckResult]:
    """Whether this machine reaches itself by name and by loopback, which Ray needs."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=3).close()
        socket.gethostbyname(socket.gethostname())
    except OSError as error:
        fix = "let loopback through the firewall, and put this host's name in /etc/hosts"
        return [CheckResult("network", "warning", str(error), fix)]
    return [CheckResult("network", "ok", "loopback and host name answer")]


def ray_starts() -> list[CheckResult]:
    """Ray itself: a start, a task, a stop, in a temporary folder."""
    import ray

    started = time.monotonic()
    try:
        with ray_session(ResourcesConfig(num_cpus=1, object_store_gb=0.1), {"CPU": 1.0}):
            answer = ray.get(ray.remote(_answer).remote(), timeout=60)
    except (PhasebError, ray.exceptions.RayError) as error:
        fix = "look at memory, shared memory and network above; resources.num_workers=0 still needs Ray for data"
        return [CheckResult("Ray", "bad", str(error).splitlines()[0], fix)]
    seen = f"starts, works and stops in {time.monotonic() - started:.1f} s"
    return [CheckResult("Ray", "ok" if answer == 42 else "bad", seen)]


def check_exposure() -> list[CheckResult]:
    """Settings that would open a cluster to strangers."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        fix = "unset RAY_AUTH_MODE: whoever reaches an open Ray runs code on it (CVE-2023-48022)"
        return [CheckResult("token", "warning", f"RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']}", fix)]
    path = os.environ.get("RAY_AUTH_TOKEN_PATH", os.path.expanduser("~/.ray/auth_token"))
    if os.path.exists(path) and os.stat(path).st_mode & 0o077:
        return [CheckResult("token", "warning", f"others can read {path}", f"chmod 600 {path}")]
    return [CheckResult("token", "ok", "Ray is started with token authentication")]


def _memory_bytes() -> int:
    """What this machine has, or a container may use of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = file.read().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def _answer() -> int:
    return 42


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


CHECKS: tuple[Callable[[], list[CheckResult]], ...] = (
    versions,
    processors,
    memory,
    storage,
    gpus,
    network,
    clock,
    check_exposure,
    ray_starts,
)
