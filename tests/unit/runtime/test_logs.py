"""Structured logs: one JSON object a line, with run, stage and node, and without secrets."""

import json
import logging
import math

import pytest

from phaseb.runtime import logs


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_bound", {})
    monkeypatch.setattr(logs.LOGGER, "handlers", [])
    monkeypatch.setattr(logs.LOGGER, "propagate", True)


def test_a_line_says_when_what_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(worker=True)
    logs.configure(worker=True)  # a second time changes nothing
    logs.bind(run="runs/a", stage="encode", rank=0)
    logs.event("checkpoint", step=7, seconds=0.25, loss=math.nan)
    logs.bind(stage=None)
    logs.event("over")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert {"time", "level", "node", "pid"} <= set(first)
    assert (first["event"], first["run"], first["stage"], first["rank"]) == ("checkpoint", "runs/a", "encode", 0)
    assert (first["step"], first["loss"]) == (7, None)
    assert "stage" not in second


def test_what_is_secret_by_name_is_hidden(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("PHASEB_LOG", "json")
    logs.configure()
    logs.event("joined", auth_token="abc123", AWS_SECRET_ACCESS_KEY="abc123", address="10.0.0.1:6379")
    text = capsys.readouterr().err
    assert "abc123" not in text
    assert json.loads(text)["auth_token"] == logs.HIDDEN


def test_a_person_sees_warnings_only_and_plainly(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.delenv("PHASEB_LOG", raising=False)
    logs.configure()
    logs.event("checkpoint", step=7)
    logs.event("checkpoint not written", logging.WARNING, step=8, reason="the disk is full")
    assert capsys.readouterr().err == "phaseb: warning: checkpoint not written (step 8, reason the disk is full)\n"
