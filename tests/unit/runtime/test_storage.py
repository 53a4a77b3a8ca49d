"""Storage that does not answer for a while is waited for; what does not pass is said at once; passwords are refused."""

import logging

import pyarrow.fs as pafs
import pytest

from phaseb.errors import ConfigError, DataError
from phaseb.runtime import retry
from phaseb.runtime.retry import is_transient, retry_transient
from phaseb.runtime.storage import Store, redact

AWAY = "When reading information for key 'a': AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7"


def test_what_passes_is_tried_again_and_told(caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(logging.getLogger("phaseb"), "propagate", True)
    left = [OSError(AWAY), ConnectionResetError("reset"), OSError("AWS Error SLOW_DOWN")]

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    assert retry_transient(work, "a/b") == "done"
    assert len(caplog.records) == 3
    assert left == []


def test_what_lasts_is_given_up_after_a_while(monkeypatch) -> None:
    monkeypatch.setattr(retry, "RETRY_S", 0.05)
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    calls: list[int] = []

    def away() -> None:
        calls.append(1)
        raise OSError(AWAY)

    with pytest.raises(OSError, match="NETWORK"):
        retry_transient(away, "a/b")
    assert 2 <= len(calls) <= 5


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "gone"),
        PermissionError(13, "no"),
        OSError(28, "No space left on device"),
        OSError("AWS Error ACCESS_DENIED during PutObject operation"),
        OSError("AWS Error NO_SUCH_BUCKET"),
    ],
)
def test_what_does_not_pass_is_not_waited_for(error: OSError) -> None:
    assert not is_transient(error)
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise error

    with pytest.raises(OSError):
        retry_transient(work, "x")
    assert calls == [1]


def test_a_password_in_a_uri_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        Store.at("s3://key:hidden@bucket/runs")
    assert "s3://bucket/runs" in str(refused.value)
    assert "hidden" not in str(refused.value)
    assert redact("hdfs://user@host:9000/a@b") == "hdfs://host:9000/a@b"
    with pytest.raises(ConfigError, match="nosuch:// is no storage that can be opened"):
        Store.at("nosuch://user@host/x")


def test_no_path_leaves_its_folder(tmp_path) -> None:
    store = Store.at(tmp_path)
    for parts in (("..", "x"), ("/etc/passwd",), ("a", "../../x")):
        with pytest.raises(DataError, match="leaves its folder"):
            store.write_text("x", *parts)
    assert isinstance(store.filesystem, pafs.LocalFileSystem)
    assert list(tmp_path.parent.glob("x")) == []
