"""Addresses of clusters: which are any, and whether somebody listens there."""

import socket
import time

from phaseb.errors import ClusterError

LOCAL = "local"
"""The address that starts a Ray here."""

CONNECT_TIMEOUT_S = 10.0
LOOK_S = 0.5


def check_form(address: str, setting: str) -> None:
    """Refuse an address that is none of a cluster's head.

    Args:
        address: as it was given.
        setting: the setting or variable that gave it.

    Raises:
        ClusterError: saying what the address is, and what is wanted.
    """
    if address == "auto":
        return
    wanted = f"give the head's host:port (often 6379), auto, or {LOCAL} to start a Ray here"
    scheme, found, _ = address.partition("://")
    if found and scheme in ("http", "https"):
        raise ClusterError(
            f"{setting}={address} is the address of a job server, not of a cluster's head; {wanted}; `phaseb submit "
            f"JOB.yaml --address {address}` sends a job there"
        )
    if found:
        raise ClusterError(f"{setting}={address} is a {scheme}:// address, which a run cannot join; {wanted}")
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
        raise ClusterError(f"{setting}={address} is no address of a cluster; {wanted}")


def check_listening(address: str, wait_s: float) -> None:
    """Ray ends the whole process where nobody listens at an address, so look before; a head may be starting again."""
    if address == "auto":
        return  # Ray finds the cluster of this machine
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + wait_s
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise ClusterError(f"no Ray cluster answers at {address} ({error}); check resources.address") from error
        else:
            return
        time.sleep(LOOK_S)
