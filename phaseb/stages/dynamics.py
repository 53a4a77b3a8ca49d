"""Train the latent dynamics on the training episodes, choosing nothing by the sealed test."""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
import torch

from phaseb.config.dynamics import BUILT_IN, WorldModelConfig
from phaseb.config.root import Config
from phaseb.config.trust import CriticConfig
from phaseb.dynamics.custom import OwnWorldModel, WorldModels, fit_own
from phaseb.dynamics.gru_ensemble.gp_correction import Processes
from phaseb.dynamics.gru_ensemble.learner import WorldModelLearner, has_landings, make_learner
from phaseb.dynamics.gru_ensemble.model import WorldModelBundle
from phaseb.dynamics.gru_ensemble.scheduled_learner import ChangingLearner
from phaseb.dynamics.statistics import latent_statistics, open_loop_rmse
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import LearnerContext
from phaseb.pipeline.stage import StageContext
from phaseb.runtime.metrics import write_metrics
from phaseb.runtime.ray_tasks import get_result
from phaseb.runtime.seeding import torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.reuse import take_world_model
from phaseb.stages.sample import fit_sample
from phaseb.stages.splits import critic_episodes, has_critic
from phaseb.training.fit import fit
from phaseb.trust.discriminator import Critic


def execute(context: StageContext) -> dict[str, Any]:
    config, store = context.config, context.store
    data = fit_sample(config, store, "train", "dev")
    start = time.monotonic()
    bundle: WorldModels
    if config.reuse.world_model:
        bundle = take_world_model(config, store)
    else:
        bundle = _trained(context, data) if config.world_model.model == BUILT_IN else _own(context, data)
        bundle.save(store.folder("world_model"))
    seconds = time.monotonic() - start
    quality = open_loop_quality(bundle, data.split("dev"), config.synthesis.horizon, config.run.seed)
    return {"seconds_training": seconds, **quality}


def _trained(context: StageContext, data: Trajectories) -> WorldModelBundle:
    """The built-in ensemble, trained on Ray Train's workers."""
    config, store = context.config, context.store
    factory = _factory(config, data)
    processes = None
    if has_landings(config.world_model):  # needs no network: fitted beside the training
        processes = ray.remote(num_cpus=config.resources.cpus_per_task)(landing_processes).remote(config, store)
    result = fit(
        factory, data, seed=config.run.seed, key=context.key, store=store.folder("world_model", "progress"),
        training=config.training, resources=config.resources, name="world-model", on_progress=context.progress,
    )  # fmt: skip
    learner = factory(data, LearnerContext(config.run.seed))
    learner.load_state_dict(result.state)
    write_metrics(store.folder("world_model"), "metrics.parquet", result.rows)
    if processes is not None:
        learner.take_processes(get_result(processes))
    return learner.bundle()


def landing_processes(config: Config, store: Store) -> Processes:
    """The part of the world model that follows from the latents alone."""
    torch.set_num_threads(1)
    data = fit_sample(config, store, "train", "dev")
    return _factory(config, data)(data, LearnerContext(config.run.seed)).landing_processes()


def _factory(config: Config, data: Trajectories) -> Callable[..., WorldModelLearner | ChangingLearner]:
    own = critic_episodes(config, data.split("train"))
    return functools.partial(learner_with_critic, config.world_model, config.trust.critic, own)


def _own(context: StageContext, data: Trajectories) -> OwnWorldModel:
    """A model of one's own, fitted in a task of its own: it may take its time, and need not know of Ray."""
    config = context.config
    task = ray.remote(num_cpus=config.resources.cpus_per_task)(fit_own)
    made: OwnWorldModel = get_result(task.remote(config.world_model, data.split("train"), config.run.seed))
    return made


def learner_with_critic(
    config: WorldModelConfig, critic: CriticConfig, critic_real: Trajectories | None, data: Trajectories,
    context: LearnerContext,
) -> WorldModelLearner | ChangingLearner:  # fmt: skip
    """The world model's learner, with a critic of its own (and its own real episodes) where the objective has one."""
    if config.changes:
        return ChangingLearner(config, lambda stage: _learner_of_stage(stage, critic, critic_real, data, context))
    return _learner_of_stage(config, critic, critic_real, data, context)


def _learner_of_stage(config: WorldModelConfig, critic: CriticConfig, critic_real: Trajectories | None,
                      data: Trajectories, context: LearnerContext) -> WorldModelLearner:  # fmt: skip
    made = Critic(critic, data.z.shape[-1], context, critic_real) if has_critic(config) else None
    return make_learner(config, data, context, made)


def open_loop_quality(bundle: WorldModels, held_out: Trajectories, horizon: int, seed: int) -> dict[str, float]:
    """Statistics of rollouts from held-out z_0 under held-out actions against what really happened."""
    real = held_out.at_least(horizon)
    if len(real) == 0:
        return {}
    start, actions = torch.from_numpy(real.z[:, 0]), torch.from_numpy(real.actions)
    imagined = bundle.rollout(start, actions, horizon, torch_generator(seed, "open_loop")).z.cpu().numpy()
    mean = bundle.mean_rollout(start, actions).cpu().numpy()
    return {
        **latent_statistics(real.z[:, 1:], imagined[:, 1:]),
        f"rmse_{horizon}": float(np.asarray(open_loop_rmse(real.z[:, 1:], mean[:, 1:]))[-1]),
    }
