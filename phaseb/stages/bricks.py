"""Cluster the training episodes in latent space and say what each cluster is worth."""

from typing import Any

import pyarrow as pa

from phaseb.bricks.manifest import Bricks, fit_bricks
from phaseb.episodes.parquet_file import read_table, write_table
from phaseb.episodes.shards import clear_shards, read_shard, shard_names
from phaseb.episodes.trajectories import Trajectories
from phaseb.pipeline.stage import StageContext
from phaseb.runtime.storage import Store
from phaseb.stages.sample import fit_sample

EPISODES = ("bricks", "episodes")


def execute(context: StageContext) -> dict[str, Any]:
    config, store = context.config, context.store
    seed, latents = config.run.seed, store.folder("latents")
    train = fit_sample(config, store, "train")
    bricks = fit_bricks(config.bricks, config.valuation, train, seed)
    manifest = bricks.manifest()
    store.write_json(manifest, "bricks", "manifest.json")
    sort_episodes(latents, store.folder(*EPISODES), bricks)
    return {"num_bricks": len(manifest["bricks"])}


def sort_episodes(latents: Store, target: Store, bricks: Bricks) -> None:
    """Write which brick every training episode falls into, a small table (id, brick) for each shard of latents."""
    known = dict(zip(bricks.trajectories.ids, bricks.labels.tolist(), strict=True))
    clear_shards(target)
    for name in shard_names(latents):
        shard = read_shard(latents, name)
        assert isinstance(shard, Trajectories)
        train = shard.split("train")
        near = bricks.assign(train).tolist() if len(train) else []
        labels = [known.get(episode, label) for episode, label in zip(train.ids, near, strict=True)]
        named = pa.array([bricks.bricks[label].id for label in labels], pa.string())
        write_table(target, name, pa.table({"id": pa.array(train.ids, pa.string()), "brick": named}))


def brick_of_episodes(store: Store) -> dict[str, str]:
    """The brick of every training episode of a run, by the episodes' ids."""
    found: dict[str, str] = {}
    folder = store.folder(*EPISODES)
    for name in shard_names(folder):
        table = read_table(folder, name)
        found |= dict(zip(table["id"].to_pylist(), table["brick"].to_pylist(), strict=True))
    return found
