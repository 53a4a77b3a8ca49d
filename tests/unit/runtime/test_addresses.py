"""Which Ray a run goes to: its own, or a cluster; and what is no address of one."""

import pytest

from phaseb.config.run import ResourcesConfig
from phaseb.errors import ClusterError
from phaseb.runtime.ray_session import JOB_MARK, joins_cluster, ray_session


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(JOB_MARK, raising=False)


@pytest.mark.parametrize(
    ("variable", "setting", "joins"),
    [
        (None, None, False),
        ("local", None, False),
        ("", None, False),
        ("auto", None, True),
        ("10.0.0.1:6379", None, True),
        ("10.0.0.1:6379", "local", False),
        ("local", "10.0.0.1:6379", True),
    ],
)
def test_the_variable_means_what_the_setting_means(monkeypatch, variable, setting, joins):
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert joins_cluster(ResourcesConfig(address=setting)) is joins


def test_a_submitted_job_may_have_a_ray_of_its_own(monkeypatch):
    monkeypatch.setenv(JOB_MARK, "{}")
    assert joins_cluster(ResourcesConfig())
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert not joins_cluster(ResourcesConfig())


@pytest.mark.parametrize(
    "address", ["http://10.0.0.1:8265", "ray://10.0.0.1:10001", "10.0.0.1", "host:port", "a:99999"]
)
@pytest.mark.parametrize("by", ["RAY_ADDRESS", "resources.address"])
def test_what_is_no_address_of_a_cluster_is_one_whole_sentence(monkeypatch, address, by):
    if by == "RAY_ADDRESS":
        monkeypatch.setenv("RAY_ADDRESS", address)
    resources = ResourcesConfig(address=address if by != "RAY_ADDRESS" else None)
    with pytest.raises(ClusterError) as refused, ray_session(resources):
        pass
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{by}={address} is ")
    assert "give the head's host:port (often 6379), auto, or local to start a Ray here" in line
