"""One generation: an ordinary run whose data and reused parts the flywheel chose."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from phaseb.config.root import Config
from phaseb.episodes.actions import read_action_scale
from phaseb.episodes.control import read_control
from phaseb.episodes.episode import Episode
from phaseb.episodes.shards import read_episodes
from phaseb.episodes.tasks import read_tasks
from phaseb.flywheel.collection import MARK, has_batch
from phaseb.flywheel.comparison import APART, decide_generation
from phaseb.flywheel.drift import PARTS, find_drift, retrained, told
from phaseb.flywheel.history import History
from phaseb.pipeline.dataset_stats import DatasetStats
from phaseb.pipeline.graph import run_graph
from phaseb.pipeline.result import Callback
from phaseb.runtime.storage import Store
from phaseb.stages import report
from phaseb.stages.collect import choose_action_scale, environment_spec
from phaseb.stages.registry import build_graph

PLAN = "plan.json"
TRUST = ("pass_rate", "roc_auc", "judge_auc", "effective_contribution")


def generation_config(config: Config, history: History, number: int, plan: Mapping[str, Any]) -> Config:
    """The config of a generation's run: the flywheel's, with its data and with the parts that are taken over."""
    change: dict[str, Any] = {"run": {"dir": history.run_of(number).root, "on_change": "refuse"}}
    if plan["data"]:
        change["episodes"] = {"source": "parquet", "path": history.run_of(number).path("data.json"), "parts": ()}
    homes = {part: home for part, home in plan["homes"].items() if home != number}
    change["reuse"] = {part: history.run_of(home).root for part, home in homes.items()}
    if config.flywheel.worth != "none":
        change["worth"] = {"method": config.flywheel.worth}
    change["promotion"] = {"first_seed": config.promotion.first_seed + APART * number}
    tree = config.model_dump(mode="json")
    return Config.model_validate(tree | {name: tree[name] | part for name, part in change.items()})


def make_plan(config: Config, history: History, number: int) -> dict[str, Any]:
    """What a generation is made of, decided once and kept: its data, and where each trained part comes from."""
    store = history.run_of(number)
    if store.exists(PLAN):
        kept: dict[str, Any] = store.read_json(PLAN)
        return kept
    data, batches = _data(history, number)
    last = history.done[-1]["plan"] if history.done else None
    if last is None:
        plan: dict[str, Any] = {"homes": dict.fromkeys(PARTS, number), "retrained": list(PARTS), "tests": []}
    else:
        homes = {part: history.run_of(home) for part, home in last["homes"].items()}

        def unseen(part: str) -> Sequence[Episode]:
            """Training and dev episodes of the batches that came after the part was trained."""
            later = [n for n in batches if n > last["homes"][part]]
            return [e for n in later for e in read_episodes(history.batch_of(n), ("train", "dev"))]

        tests = find_drift(config.flywheel.drift, homes, unseen)
        again = retrained(tests, _scale_changed(config, homes["dynamics"], batches, history))
        plan = {
            "homes": {p: number if p in again else home for p, home in last["homes"].items()},
            "retrained": again,
            "tests": told(tests),
        }
    plan |= {"data": data, "batches": batches}
    if data:
        store.write_json(data, "data.json")
    store.write_json(plan, PLAN)
    return plan


def run_generation(config: Config, history: History, number: int, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """Train, gate and measure a generation, decide whether it is promoted, and say what came of it.

    It may be called again after a kill: what is done is not done again.
    """
    plan = make_plan(config, history, number)
    own = generation_config(config, history, number, plan)
    numbered = [_Numbered(number, callback) for callback in callbacks]
    run_graph(build_graph(own, attribution=config.flywheel.worth != "none"), own, numbered)
    report.run(own, numbered)
    store = history.run_of(number)
    results = store.read_json("results.json")
    contender = {"generation": number, "arm": results["shipped"]}
    decision = decide_generation(config, own, history, contender)
    promoted = bool(decision["promoted"])
    stages = results["stages"]
    inner = results["promotion"]["budget"]["spent_episodes"]
    return {
        "number": number,
        "state": "done",
        "promoted": promoted,
        "arm": results["shipped"],
        "plan": plan,
        "retrained": plan["retrained"],
        "decision": decision,
        "inner_reason": results["promotion"]["reason"],
        "worth": results["worth"],
        "arms": results["arms"],
        "metrics": results["arms"][results["shipped"]],
        "trust": {name: results["numbers"].get(name) for name in TRUST},
        "episodes": _episodes(stages, history, number, decision["budget"]["spent_episodes"] + inner),
        "seconds": sum(s["seconds"] or 0.0 for s in stages.values()),
    }


def _data(history: History, number: int) -> tuple[list[str], list[int]]:
    """Folders of shards that a generation learns from, and the batches among them; no folder where it collects.

    A batch whose generation failed by its data is left out of all later ones.
    """
    spoilt = {g["number"] for g in history.generations if g["state"] == "failed" and g["kind"] == "DataError"}
    batches = [n for n in range(number + 1) if has_batch(history, n) and n not in spoilt]
    folders = [history.batch_of(n).root for n in batches]
    if number == 0 or 0 in batches:
        return folders, batches
    return [history.run_of(0).path("episodes"), *folders], batches  # the first generation collected for itself


def _scale_changed(config: Config, home: Store, batches: Sequence[int], history: History) -> bool:
    """Whether actions go beyond the range that a world model knows, where that range is the data's."""
    known, spec = read_action_scale(home), environment_spec(config, read_control(home), read_tasks(home))
    bounds = spec and spec.bounds
    if known is None or (bounds is not None and np.array_equal([known.low, known.high], bounds)):
        return False  # bounds that were not too wide for fewer episodes never are for more
    every = (e for n in batches for e in read_episodes(history.batch_of(n), ("train",), frames=False))
    scale, _ = choose_action_scale(config.environment.id, bounds, DatasetStats.of(every, bounds))
    return scale is not None and scale.to_json() != known.to_json()


def _episodes(stages: Mapping[str, Any], history: History, number: int, spent: int) -> dict[str, int]:
    told = stages["collect"]["metrics"]
    new = history.batch_of(number).read_json(MARK)["episodes"] if has_batch(history, number) else told["episodes"]
    return {"train": told["num_train"], "real": told["episodes"], "new": new, "spent": spent}


class _Numbered:
    """A callback that puts the generation before the name of a stage."""

    def __init__(self, number: int, inner: Callback) -> None:
        self._prefix, self._inner = f"{number} ", inner

    def on_stage_start(self, stage: str) -> None:
        self._inner.on_stage_start(self._prefix + stage)

    def on_progress(self, stage: str, metrics: Mapping[str, float]) -> None:
        self._inner.on_progress(self._prefix + stage, metrics)

    def on_stage_end(self, stage: str, metrics: Mapping[str, Any], seconds: float, skipped: bool) -> None:
        self._inner.on_stage_end(self._prefix + stage, metrics, seconds, skipped)
