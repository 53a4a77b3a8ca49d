"""Ray's job server, spoken to with a token: what a job does, what it prints, and its end."""

import asyncio
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from phaseb.errors import ClusterError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
INTERRUPTED = 130
CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
STARTING = "No available agent to submit job"  # what a head says whose dashboard is up before its agent
STARTING_WAIT_S = 60.0
RECONNECT_S = 2.0
MAX_RECONNECTS = 30


def status(job_id: str, address: str | None = None) -> int:
    """Print the state of a submitted job; 0 while it runs or when it succeeded, its exit code where it failed."""
    client = Client(address)
    info = client.info(job_id)
    _say(_told(job_id, info), sys.stdout)
    return exit_code(info)


def logs(job_id: str, address: str | None = None) -> int:
    """Print the log of a job that has ended, or follow the one of a job that runs; returns like `status`."""
    return Client(address).follow(job_id)


def stop(job_id: str, address: str | None = None) -> int:
    """Ask a running job to end (it checkpoints on the way out), and say so."""
    client = Client(address)
    info = client.info(job_id)
    stopped = client.ask("stop_job", job_id)
    _say(f"{job_id}: {'asked to stop' if stopped else f'is {info.status.value.lower()} already'}", sys.stdout)
    return 0


class Client:
    """Ray's job client with our errors: everything that goes wrong on the way is one clear ClusterError."""

    def __init__(self, address: str | None = None) -> None:
        import ray
        from ray.job_submission import JobSubmissionClient

        self.address = _checked(address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS)
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        token = read_token()
        self.has_token = token is not None
        headers = {"Authorization": f"Bearer {token}"} if token else None
        verify = os.environ.get("REQUESTS_CA_BUNDLE", True)
        with self._errors():
            self._client = JobSubmissionClient(self.address, headers=headers, verify=verify)
            version = self._client.get_version()
            server = self._client._do_request("GET", "/api/version").json()["ray_version"]
        if server.split(".")[:2] != ray.__version__.split(".")[:2]:
            raise ClusterError(
                f"the cluster at {self.address} runs Ray {server}, this phaseb needs {ray.__version__} (both ends must "
                f"have one version; job API {version}); use an image with Ray {ray.__version__}"
            )

    def submit(self, **request: Any) -> str:
        """Send a job; returns its id. A head that is only just starting is waited for."""
        deadline = time.monotonic() + STARTING_WAIT_S
        while True:
            try:
                return str(self.ask("submit_job", **request))
            except ClusterError as error:
                if STARTING not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(RECONNECT_S)

    def info(self, job_id: str) -> Any:
        return self.ask("get_job_info", job_id)

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of Ray's client."""
        with self._errors():
            return getattr(self._client, method)(*arguments, **options)

    def follow(self, job_id: str) -> int:
        """Print a job's log as it grows, to its end; returns its exit code.

        An interrupt ends the following, not the job.
        """
        try:
            return self._follow(job_id)
        except KeyboardInterrupt:
            _say(f"\n{job_id} goes on: `phaseb logs {job_id}` follows it again, `phaseb stop {job_id}` ends it")
            return INTERRUPTED

    def _follow(self, job_id: str) -> int:
        printed = 0
        for _ in range(MAX_RECONNECTS):
            with self._errors():
                printed = asyncio.run(self._tail(job_id, printed))
            info = self.info(job_id)
            if info.status.is_terminal():
                _say(_told(job_id, info))
                return exit_code(info)
            time.sleep(RECONNECT_S)  # the connection broke, the job did not
        raise ClusterError(f"lost {job_id} at {self.address} too often; `phaseb logs {job_id}` tries again")

    async def _tail(self, job_id: str, printed: int) -> int:
        """Print what comes after the first `printed` characters; returns how many there are now."""
        seen = 0
        try:
            async for text in self._client.tail_job_logs(job_id):
                fresh = text[max(0, printed - seen) :] if seen < printed else text
                seen += len(text)
                sys.stdout.write(fresh)
                sys.stdout.flush()
        except RuntimeError as error:
            if "closed unexpectedly" not in str(error):
                raise
        return max(seen, printed)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import aiohttp
        from ray.exceptions import AuthenticationError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except (AuthenticationError, aiohttp.WSServerHandshakeError) as error:
            had = "refuses this token" if self.has_token else "asks for a token"
            raise ClusterError(
                f"the cluster at {self.address} {had}; set RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the cluster's own"
            ) from error
        except (ConnectionError, aiohttp.ClientConnectionError, OSError) as error:
            raise ClusterError(
                f"no job server answers at {self.address}; is the head running, with its dashboard, and reachable from "
                "here (cluster/local/README.md, or `ssh -L 8265:127.0.0.1:8265 HEAD`)?"
            ) from error
        except RuntimeError as error:
            raise ClusterError(f"the job server at {self.address}: {' '.join(str(error).split())[:400]}") from error


def read_token() -> str | None:
    """The cluster's token: from RAY_AUTH_TOKEN, the file at RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token, as Ray does."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(given) if given else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError as error:
        if given:
            raise ClusterError(f"RAY_AUTH_TOKEN_PATH: no such file: {given}") from error
        return None
    except OSError as error:
        raise ClusterError(f"cannot read the cluster's token at {path}: {error.strerror}") from error


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine alone."""
    return urlsplit(address).hostname in LOOPBACK


def exit_code(info: Any) -> int:
    """0 unless the job failed or was stopped; then its own exit code where that is one of ours, else 1."""
    if info.status.value in ("PENDING", "RUNNING", "SUCCEEDED"):
        return 0
    code = info.driver_exit_code
    return code if code in (1, 2, 3, 4) else 1


def _told(job_id: str, info: Any) -> str:
    """One line on a job's state (Ray's own message may hold the end of the log once more)."""
    why = (info.message or "").strip().splitlines()
    return f"{job_id}: {info.status.value.lower()}" + (f" ({why[0].split(', last available logs')[0]})" if why else "")


def _checked(address: str) -> str:
    whole = address if "://" in address else f"http://{address}"
    parts = urlsplit(whole)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(
            f"--address {address}: the address of a job server looks like {DEFAULT_ADDRESS}, no ray:// and no GCS port"
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        _say(f"warning: the token goes to {parts.hostname} unencrypted; use https or an SSH tunnel to its loopback")
    return whole.rstrip("/")


def _say(text: str, stream: Any = None) -> None:
    stream = stream or sys.stderr
    stream.write(text + "\n")
    stream.flush()
