"""Train the encoder on the training episodes, freeze it, and turn every episode into latents."""

import functools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phaseb.config.encoder import LatentsConfig
from phaseb.config.root import Config
from phaseb.episodes.actions import ActionScale, read_action_scale
from phaseb.episodes.episode import Episode
from phaseb.episodes.streaming import sample_episodes
from phaseb.episodes.trajectories import Trajectories
from phaseb.latents.fit import fit_encoder_model
from phaseb.latents.learner import EncoderLearner, make_learner
from phaseb.latents.model import EncoderModel
from phaseb.latents.observations import examine_observations
from phaseb.latents.padding import Arrays, episode_arrays
from phaseb.latents.probe import linear_probe
from phaseb.nn.data_parallel import WorkerContext
from phaseb.pipeline.stage import StageContext
from phaseb.runtime import logs
from phaseb.runtime.metrics import write_metrics
from phaseb.runtime.storage import Store
from phaseb.stages.camera_probe import camera_probe
from phaseb.stages.map_shards import map_stage_shards
from phaseb.stages.reuse import take_encoder
from phaseb.training.fit import fit


class EncodeShard:
    """Encodes the episodes of one shard; made once in each actor."""

    def __init__(self, store: Store, action_scale: ActionScale | None, seed: int) -> None:
        self._bundle, self._scale, self._seed = EncoderModel.load(store), action_scale, seed

    def __call__(self, episodes: Sequence[Episode]) -> Trajectories:
        return self._bundle.encode(episodes, self._scale, self._seed)


def execute(context: StageContext) -> dict[str, Any]:
    config, store = context.config, context.store
    scale = read_action_scale(store)
    # Frames are the largest thing there is: what the encoder learns from is held, the rest passes shard by shard.
    episodes = sample_episodes(
        store.folder("episodes"), ("train", "dev"), config.memory.encoder_episodes, config.run.seed
    )
    for notice in examine_observations([e for e in episodes if e.split == "train"], config.latents.observation):
        logs.event(notice, logging.WARNING)
    if config.reuse.encoder:
        seconds, bundle = 0.0, take_encoder(config, store)
    else:
        seconds, bundle = _train(context, episodes, scale)
    map_stage_shards(context, "episodes", "latents", EncodeShard, (store.folder("encoder"), scale, config.run.seed))
    quality = _quality(bundle, episodes, scale, config) | camera_probe(bundle, episodes, scale)
    return {"seconds_training": seconds, **quality}


def _train(context: StageContext, episodes: Sequence[Episode], scale: ActionScale | None) -> tuple[float, EncoderModel]:
    config, store = context.config, context.store.folder("encoder")
    arrays = episode_arrays(episodes, scale, config.latents.observation)
    learner = make_learner(config.latents, arrays, WorkerContext(config.run.seed))
    seconds = _fit(context, arrays, learner) if learner.num_steps else 0.0
    train = [episode for episode in episodes if episode.split == "train"]
    bundle = fit_encoder_model(config.latents, learner.encoder, train, scale, config.run.seed)
    bundle.save(store)
    if learner.num_steps and bundle.spec.frame_shape is None:
        notice = "frames add nothing to the state that helps to predict later steps: policies see the state alone"
        logs.event(notice, logging.WARNING)
    return seconds, bundle


def _fit(context: StageContext, arrays: Arrays, learner: EncoderLearner) -> float:
    """Train the learner on the run's workers; returns the seconds."""
    config, store = context.config, context.store.folder("encoder")
    result = fit(
        functools.partial(_make_learner, config.latents),
        arrays,
        seed=config.run.seed,
        key=context.key,
        store=store.folder("progress"),
        training=config.training,
        resources=config.resources,
        name="encode",
        on_progress=context.progress,
    )
    learner.load_state_dict(result.state)
    write_metrics(store, "metrics.parquet", result.rows)
    return result.seconds


def _make_learner(config: LatentsConfig, data: Arrays, context: WorkerContext) -> EncoderLearner:
    return make_learner(config, data, context)


def _quality(
    bundle: EncoderModel, episodes: Sequence[Episode], scale: ActionScale | None, config: Config
) -> dict[str, float]:
    """How much of the state a linear probe reads from z_V on held-out (dev) episodes."""
    if any(episode.state is None for episode in episodes):
        return {}
    rows = {
        split: _rows([e for e in episodes if e.split == split], bundle, scale, config) for split in ("train", "dev")
    }
    scores = list(linear_probe(*rows["train"], *rows["dev"]).values())
    if not scores:  # a state that never changes beside frames that do
        return {}
    return {"probe_r2": float(np.nanmean(scores)), "probe_r2_worst": float(np.nanmin(scores))}


def _rows(
    episodes: Sequence[Episode], bundle: EncoderModel, scale: ActionScale | None, config: Config
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    latents = bundle.encode(episodes, scale, config.run.seed)
    inside = np.arange(latents.z.shape[1])[None] <= latents.lengths[:, None]
    state = np.concatenate([e.state for e in episodes if e.state is not None])
    seen = np.flatnonzero(bundle.encoder.state_scale.cpu().numpy())
    return latents.z[inside], {f"state_{i}": state[:, i] for i in seen}
