"""Cluster the training episodes in latent space and say what each cluster is worth."""

from collections.abc import Sequence
from typing import Any

from phaseb.bricks.manifest import fit_bricks
from phaseb.config.root import Config
from phaseb.episodes.shards import read_trajectories
from phaseb.runs.result import Callback, RunResult
from phaseb.runs.stage import Stage, StageContext


def work(context: StageContext) -> dict[str, Any]:
    config, store = context.config, context.store
    train = read_trajectories(store.folder("latents"), ("train",))
    bricks = fit_bricks(config.bricks, config.valuation, train, config.run.seed)
    manifest = bricks.manifest()
    store.write_json(manifest, "bricks", "manifest.json")
    return {"num_bricks": len(manifest["bricks"])}


STAGE = Stage("bricks", ("bricks", "valuation"), ("encode",), ("bricks",), work)


def run(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    return STAGE.run_alone(config, callbacks)
