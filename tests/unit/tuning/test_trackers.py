"""Trackers write what the real programs read: each is read back by its own library from its own local files."""

import csv
import struct
import sys
from typing import Any

import pyarrow.fs as fs
import pytest

from phaseb.config.tuning import StudyConfig
from phaseb.errors import ConfigError
from phaseb.runtime.storage import Store
from phaseb.tuning.trackers.tracker import KINDS, Trackers
from phaseb.tuning.trial_store import TrialRecord
from phaseb.tuning.validation import load_study

LR = "dynamics.gru.learning_rate"


def track(kind: str, store: Store) -> None:
    """Two trials, one of which fails, and one that was in progress when the study ended."""
    study = StudyConfig.model_validate(
        {
            "metrics": {"name": "loss"},
            "space": {LR: {"loguniform": [1e-4, 1]}},
            "trackers": [kind],
        }
    )
    with Trackers(study, "valley", store) as trackers:
        good = TrialRecord("aa", {LR: 0.01, "dynamics.gru.shape": [1, 2]}, 7, number=0)
        for steps, loss in ((10, 2.0), (20, 1.0)):
            good.rows.append({"steps": float(steps), "loss": loss, "seconds": steps / 10})
            trackers.on_report(good)
        good.state = "done"
        trackers.on_end(good)
        bad = TrialRecord("bb", {LR: 0.9}, 7, number=1, state="failed", reason="diverged at step 3")
        trackers.on_end(bad)
        trackers.on_report(TrialRecord("cc", {LR: 0.5}, 7, number=2, rows=[{"steps": 10.0, "loss": 5.0}]))


def test_tensorboard_reads_curves_points_and_reasons(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    track("tensorboard", Store.at(tmp_path))
    runs = {folder.name: EventAccumulator(str(folder)) for folder in (tmp_path / "tensorboard").iterdir()}
    assert sorted(runs) == ["search-00001-aa", "search-00002-bb", "search-00003-cc"]
    for run in runs.values():
        run.Reload()
    curve = runs["search-00001-aa"].Scalars("loss")
    assert [(e.step, e.value) for e in curve] == [(10, 2.0), (20, 1.0)]
    assert "diverged at step 3" in str(runs["search-00002-bb"].Tensors("reason/text_summary"))
    metadata = runs["search-00001-aa"].summary_metadata["_hparams_/session_start_info"]
    data = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
    assert data.session_start_info.hparams[LR].number_value == 0.01
    assert data.session_start_info.hparams["dynamics.gru.shape"].string_value == "[1, 2]"


def test_a_table_grows_and_takes_new_columns(tmp_path):
    for _ in range(2):  # the second time as after a resume
        track("csv", Store.at(tmp_path))
    with (tmp_path / "csv/search.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["state"], r["loss"], r[LR], r["reason"]) for r in rows] == 2 * [
        ("done", "1.0", "0.01", ""),
        ("failed", "", "0.9", "diverged at step 3"),
    ]


def test_mlflow_reads_runs_from_its_file_store(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    track("mlflow", Store.at(tmp_path))
    client = MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("valley")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    good, bad, cut = (runs[f"search-0000{i}-{k}"] for i, k in ((1, "aa"), (2, "bb"), (3, "cc")))
    assert [run.info.status for run in (good, bad, cut)] == ["FINISHED", "FAILED", "KILLED"]
    assert good.data.params == {LR: "0.01", "dynamics.gru.shape": "[1, 2]", "seed": "7"}
    assert bad.data.tags["reason"] == "diverged at step 3"
    assert [(m.step, m.value) for m in client.get_metric_history(good.info.run_id, "loss")] == [(10, 2.0), (20, 1.0)]


def offline_records(data: bytes) -> list[Any]:
    """The messages of an offline run: a header of 7 bytes, then a log of LevelDB's format (blocks of 32 KiB)."""
    from wandb.proto import wandb_internal_pb2

    assert data[:4] == b":W&B"
    records, at, whole = [], 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])  # after a checksum of 4 bytes
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last piece of one
            records.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return records


def test_wandb_reads_runs_that_were_written_offline(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    track("wandb", Store.at(tmp_path))
    files = list((tmp_path / "wandb").glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 3
    told = {}
    for file in files:
        records = offline_records(file.read_bytes())
        run = next(r.run for r in records if r.HasField("run"))
        history = [
            {"/".join(i.nested_key) or i.key: i.value_json for i in r.history.item}
            for r in records
            if r.HasField("history")
        ]
        told[run.display_name] = (run, history, [r.exit.exit_code for r in records if r.HasField("exit")])
    run, history, code = told["search-00001-aa"]
    assert run.run_group == "valley"
    assert {c.key or "/".join(c.nested_key): c.value_json for c in run.config.update}[LR] == "0.01"
    assert [(h["_step"], h["loss"]) for h in history] == [("10", "2"), ("20", "1")]
    assert code == [0]
    assert told["search-00002-bb"][2] == [1]


def test_files_of_a_study_that_lies_elsewhere_are_copied_there(tmp_path):
    there = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    store = Store(there, "study")
    assert not store.is_local
    track("csv", store)
    assert (tmp_path / "study/csv/search.csv").read_text().count("\n") == 3


def test_a_tracker_that_is_not_installed_is_told_before_the_first_trial(tmp_path, monkeypatch):
    path = tmp_path / "study.yaml"
    path.write_text(
        f"trackers: [mlflow, wandb]\nmetrics: {{name: rmse_end}}\nspace: {{{LR}: {{loguniform: [0.001, 0.1]}}}}\n"
    )
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"mlflow is not installed here: pip install 'phaseb\[mlflow\]'") as caught:
        load_study(path)
    assert "wandb is not installed" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_tracker_of_the_schema_is_there(kind):
    assert StudyConfig.model_fields["trackers"].annotation.__args__[0].__args__.count(kind) == 1
