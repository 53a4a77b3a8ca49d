"""What a training of arms leaves beside the policies: metrics over steps, and what was drawn from the replay."""

from collections.abc import Mapping, Sequence
from typing import Any

from phaseb.config.root import Config
from phaseb.replay.accounting import SamplingStats
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.metrics import read_metrics, write_metrics
from phaseb.runtime.storage import Store
from phaseb.stages.replay_streams import runs_of
from phaseb.training.fit import FitResult, merge_rows

METRICS, REPLAY = "metrics.parquet", "replay.json"

Rows = Sequence[Mapping[str, float]]
Books = Mapping[str, Any]


def write_results(
    config: Config, home: Store, rows: Sequence[Rows], books: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write metrics and books of several trainings of a config's runs as those of one.

    Returns:
        metrics of its end.
    """
    joint = merge_rows(rows)
    write_metrics(home, METRICS, joint)
    home.write_json(_join_books(books), REPLAY)
    runs, last = len(runs_of(config)), joint[-1]
    told = {name: value for name, value in last.items() if name.startswith("policy/")}
    return {"runs": runs, "updates_per_s": config.policy.num_steps * runs / max(last["seconds"], 1e-9), **told}


def join_results(config: Config, homes: Sequence[Store], home: Store) -> dict[str, Any]:
    """The same of results that were written to several folders; `home` may be one of them."""
    rows = [[_known(row) for row in read_metrics(one, METRICS)] for one in homes]
    return write_results(config, home, rows, [one.read_json(REPLAY) for one in homes])


def books_of(streams: Sequence[SampleSpec], result: FitResult) -> dict[str, Any]:
    """What was drawn for every run, how fast, and how the first worker was fed."""
    told = SamplingStats(streams).to_json(result.state["books"].numpy())
    drawn = sum(book["sampled_real"] + book["sampled_synthetic"] for book in told.values())
    fed = {name: result.last[f"policy/replay/{name}"] for name in ("wait_fraction", "queue_depth")}
    return {"streams": told, "sampled_per_s": drawn / max(result.seconds, 1e-9), **fed}


def _join_books(parts: Sequence[Books]) -> dict[str, Any]:
    """What was drawn for every run and how the learners were fed. Buffers of several groups are alike: one is shown."""
    streams = {name: books for part in parts for name, books in part["streams"].items()}
    worst = {name: max(part[name] for part in parts) for name in ("insert_s", "wait_fraction", "queue_depth")}
    return {**parts[-1], **worst, "streams": streams, "sampled_per_s": sum(part["sampled_per_s"] for part in parts)}


def _known(row: Mapping[str, Any]) -> dict[str, float]:
    """A row of a file without the columns that have no value in it."""
    return {name: value for name, value in row.items() if value is not None}
