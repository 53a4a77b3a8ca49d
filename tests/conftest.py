"""What every test run does: in CI, a test that is skipped for want of something installable fails.

`CI=true` in the environment says that this is CI. The run ends with the list of skipped tests (`-rs`).
"""

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

NOT_INSTALLABLE = (
    "needs a GPU",
    "needs a machine without a GPU",
    "needs root",
    "needs a user other than root",
    "needs to mount",
    "needs a git checkout",
    "needs data that is not public",
)
"""How reasons for a skip begin that hold on some machines whatever is installed there."""


def pytest_report_header() -> str:
    return "CI: a skip for want of something installable fails" if _in_ci() else "not in CI: skips are allowed"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _no_lazy_skip((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _no_lazy_skip((yield))


def _no_lazy_skip(report: Report) -> Report:
    """Make a failure of a skip that an installation would have avoided."""
    if not report.skipped or hasattr(report, "wasxfail") or not _in_ci():
        return report
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(NOT_INSTALLABLE):
        report.outcome = "failed"
        report.longrepr = f"skipped, but what it needs can be installed: {reason}"
    return report


def _in_ci() -> bool:
    return os.environ.get("CI") == "true"
