"""A job file and a cluster's address make a running job: on a Ray cluster that is there, on Kubernetes, on Slurm."""

from phaseb.submit.client import logs, status, stop
from phaseb.submit.send import submit

__all__ = ["logs", "status", "stop", "submit"]
