"""Fit every generator that the run names on the training episodes, into `dynamics/<name>/`.

The sealed test chooses nothing here. Each generator is saved with its digest and its own scale of uncertainty.
"""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
import torch

from phaseb.config.dynamics import GRUConfig
from phaseb.config.root import Config
from phaseb.config.trust import DiscriminatorConfig
from phaseb.dynamics.custom import CustomDynamics, fit_custom
from phaseb.dynamics.gp.model import GPDynamics
from phaseb.dynamics.gru_ensemble.gp_correction import EventGPFitter
from phaseb.dynamics.gru_ensemble.learner import EnsembleLearner, make_learner, uses_gp_correction
from phaseb.dynamics.gru_ensemble.model import EnsembleDynamics
from phaseb.dynamics.gru_ensemble.scheduled_learner import ScheduledLearner
from phaseb.dynamics.protocol import DynamicsModel
from phaseb.dynamics.rollout import Policy
from phaseb.dynamics.statistics import latent_statistics, open_loop_rmse
from phaseb.dynamics.validation import branched_uncertainty_scale, stored_uncertainty_scale
from phaseb.episodes.trajectories import Trajectories
from phaseb.episodes.windows import windows
from phaseb.errors import DataError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.pipeline.stage import StageContext
from phaseb.runtime import logs
from phaseb.runtime.checkpoint import copy_checkpoint
from phaseb.runtime.metrics import write_metrics
from phaseb.runtime.ray_tasks import get_result
from phaseb.runtime.seeding import torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.arm_generator import FAILED, branched_generators
from phaseb.stages.latent_actions import latent_action_policy
from phaseb.stages.reuse import take_generator
from phaseb.stages.sample import fit_sample
from phaseb.stages.splits import discriminator_episodes, has_discriminator
from phaseb.training.fit import fit
from phaseb.trust.discriminator import Discriminator
from phaseb.trust.model import UNCERTAINTY_QUANTILE


def execute(context: StageContext) -> dict[str, Any]:
    """Fit the generator that the stage is named after (`dynamics/NAME`), or take it over from another run.

    One that cannot be rolled out has `failed`, the reason, in place of its numbers: later stages leave it out.
    """
    config, store, name = context.config, context.store, context.name.removeprefix("dynamics/")
    data = fit_sample(config, store, "train", "dev")
    train, dev, start = data.split("train"), data.split("dev"), time.monotonic()
    model: DynamicsModel
    if config.reuse.dynamics:
        model = take_generator(config, store, name)
    else:
        model = _fit_ensemble(context, data) if name == "gru" else _fit_one(config, train, name)
    numbers, codes = {"seconds_training": time.monotonic() - start}, _codes(config, store)
    failed = ""
    try:
        if not config.reuse.dynamics:
            model.uncertainty_scale = uncertainty_scale(model, train, dev, config, codes)
        numbers |= open_loop_quality(model, dev, config.synthesis.horizon, config.run.seed)
    except DataError as error:
        failed = str(error)
    if not config.reuse.dynamics:
        model.save(store.folder("dynamics", name))
    if failed:
        logs.event(f"generator {name} is left out: {failed}", logging.WARNING)
        store.write_json({"reason": failed}, "dynamics", name, FAILED)
        return {**numbers, "failed": failed}
    return numbers | _scale_metrics(model)


def _fit_one(config: Config, train: Trajectories, name: str) -> GPDynamics | CustomDynamics:
    if name == "gp":
        return GPDynamics.fit(config.dynamics.gp, train, config.run.seed)
    return fit_custom(name, config.dynamics.plugins[name], train, config.run.seed)


def refit_branched(config: Config, store: Store, train: Trajectories, home: Store) -> Store:
    """Fit the generators that policies branch in to some of the training episodes, into `home/dynamics/<name>/`.

    The ensemble is not trained again: the run's own is copied. Returns the folder of the generators.
    """
    target, dev = home.folder("dynamics"), fit_sample(config, store, "dev")
    for name in branched_generators(config, store):
        if name == "gru":
            copy_checkpoint(store.folder("dynamics", name), target.folder(name))
            continue
        model = _fit_one(config, train, name)
        model.uncertainty_scale = uncertainty_scale(model, train, dev, config, _codes(config, store))
        model.save(target.folder(name))
    return target


def _fit_ensemble(context: StageContext, data: Trajectories) -> EnsembleDynamics:
    """The ensemble, trained."""
    config, home = context.config, context.store.folder("dynamics", "gru")
    factory = _factory(config, data)
    event_gps = None
    if uses_gp_correction(config.dynamics.gru):  # needs no network: fitted beside the training
        task = ray.remote(num_cpus=config.resources.cpus_per_task)(event_gp_fitter)
        event_gps = task.remote(config, context.store)
    result = fit(
        factory,
        data,
        seed=config.run.seed,
        key=context.key,
        store=home.folder("progress"),
        training=config.training,
        resources=config.resources,
        name="dynamics",
        on_progress=context.progress,
    )
    learner = factory(data, WorkerContext(config.run.seed))
    learner.load_state_dict(result.state)
    write_metrics(home, "metrics.parquet", result.rows)
    if event_gps is not None:
        learner.take_event_gp_fitter(get_result(event_gps))
    return learner.bundle()


def event_gp_fitter(config: Config, store: Store) -> EventGPFitter:
    """The part of the ensemble that follows from the latents alone."""
    torch.set_num_threads(1)
    data = fit_sample(config, store, "train", "dev")
    return _factory(config, data)(data, WorkerContext(config.run.seed)).event_gp_fitter()


def _factory(config: Config, data: Trajectories) -> Callable[..., EnsembleLearner | ScheduledLearner]:
    own = discriminator_episodes(config, data.split("train"))
    return functools.partial(learner_with_discriminator, config.dynamics.gru, config.trust.discriminator, own)


def learner_with_discriminator(
    config: GRUConfig,
    discriminator: DiscriminatorConfig,
    real: Trajectories | None,
    data: Trajectories,
    context: WorkerContext,
) -> EnsembleLearner | ScheduledLearner:
    """The ensemble's learner, with a discriminator and its own real episodes where the objective has one."""
    if config.changes:
        return ScheduledLearner(config, lambda stage: _learner_of_stage(stage, discriminator, real, data, context))
    return _learner_of_stage(config, discriminator, real, data, context)


def _learner_of_stage(
    config: GRUConfig,
    discriminator: DiscriminatorConfig,
    real: Trajectories | None,
    data: Trajectories,
    context: WorkerContext,
) -> EnsembleLearner:
    made = Discriminator(discriminator, data.z.shape[-1], context, real) if has_discriminator(config) else None
    return make_learner(config, data, context, made)


def uncertainty_scale(
    model: DynamicsModel, train: Trajectories, dev: Trajectories, config: Config, codes: Policy | None = None
) -> float:
    """The uncertainty of an ordinary rollout of a generator, at the horizon that the run uses it at.

    It is measured on dev episodes, or on training episodes where no dev episode is there or long enough; under `codes`
    where actions are latent.
    """
    quantile, seed = UNCERTAINTY_QUANTILE, config.run.seed
    if model.name in config.stored_generators:
        horizon = config.synthesis.horizon
        long = next((x for x in (windows(dev, horizon, seed), windows(train, horizon, seed)) if len(x)), None)
        if long is not None:
            starts, actions = torch.from_numpy(long.z[:, 0]), codes or torch.from_numpy(long.actions)
            return stored_uncertainty_scale(model.rollout, starts, actions, horizon, quantile, seed)
    measured_on = dev if len(dev) else train
    return branched_uncertainty_scale(model.rollout, measured_on, config.policy.augmentation.horizon, quantile, seed)


def _codes(config: Config, store: Store) -> Policy | None:
    return latent_action_policy(store, torch_generator(config.run.seed, "reference", "codes"))


def _scale_metrics(model: DynamicsModel) -> dict[str, float]:
    if model.uncertainty_scale == 0:
        logs.event(
            f"generator {model.name} never says that it is uncertain: the gate discounts nothing by its uncertainty",
            logging.WARNING,
        )
    return {"uncertainty_scale": model.uncertainty_scale, "uncertainty_discount": float(model.uncertainty_scale > 0)}


def open_loop_quality(model: DynamicsModel, held_out: Trajectories, horizon: int, seed: int) -> dict[str, float]:
    """Statistics of rollouts from held-out z_0 under held-out actions against what really happened."""
    real = windows(held_out, horizon, seed)
    if len(real) == 0:
        return {}
    start, actions = torch.from_numpy(real.z[:, 0]), torch.from_numpy(real.actions)
    made = model.rollout(start, actions, horizon, torch_generator(seed, "open_loop")).z.cpu().numpy()
    mean = model.mean_rollout(start, actions).cpu().numpy()
    return {
        **latent_statistics(real.z[:, 1:], made[:, 1:]),
        f"rmse_{horizon}": float(np.asarray(open_loop_rmse(real.z[:, 1:], mean[:, 1:]))[-1]),
    }
