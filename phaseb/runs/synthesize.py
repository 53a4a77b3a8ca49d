"""Roll the world model out from real starts: a plan of (start, actions) in shards, rolled out by actors."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.checkpoint import checkpoint_digest
from phaseb.config.root import Config
from phaseb.config.synthesis import SynthesisConfig
from phaseb.episodes.shards import read_trajectories, write_trajectories
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.runs.result import Callback, RunResult
from phaseb.runs.shards import over_shards
from phaseb.runs.stage import Stage, StageContext
from phaseb.seeding import numpy_generator, torch_generator
from phaseb.storage import Store
from phaseb.world_model.own import WorldModels, load_world_model


class RollOut:
    """Rolls one shard of a plan out; made once in each actor."""

    def __init__(self, store: Store, seed: int) -> None:
        self._bundle, self._digest, self._seed = load_world_model(store), checkpoint_digest(store), seed

    def __call__(self, plan: Trajectories) -> Trajectories:
        """The plan with its latents, rewards and ends imagined; every rollout keeps its lineage."""
        return roll_out(self._bundle, plan, self._digest, torch_generator(self._seed, "synthesize", plan.ids[0]))


def work(context: StageContext) -> dict[str, Any]:
    config, store = context.config, context.store
    train = read_trajectories(store.folder("latents"), ("train",))
    plan = make_plan(train, config.synthesis, config.run.seed)
    write_trajectories(store.folder("rollouts", "plan"), plan, config.synthesis.batch_size)
    over_shards(context, "rollouts/plan", "rollouts/made", RollOut, (store.folder("world_model"), config.run.seed))
    made = read_trajectories(store.folder("rollouts", "made"))
    return {"episodes": len(made), "transitions": int(made.lengths.sum())}


def make_plan(real: Trajectories, config: SynthesisConfig, seed: int) -> Trajectories:
    """Starts and actions of `num_episodes` rollouts: every real episode in turn, recorded or perturbed actions.

    Raises:
        DataError: where no real episode is as long as the horizon.
    """
    full = real.at_least(config.horizon)
    if len(full) == 0:
        raise DataError(
            f"no training episode has {config.horizon} steps (the longest has {int(real.lengths.max())}); "
            "lower synthesis.horizon and world_model.horizon.steps, or import longer episodes"
        )
    rng = numpy_generator(seed, "synthesis", "plan")
    starts = np.concatenate([rng.permutation(len(full)) for _ in range(-(-config.num_episodes // len(full)))])
    plan = full.select(starts[: config.num_episodes])
    perturbed = rng.random(len(plan)) >= config.action_sources.recorded / (
        config.action_sources.recorded + config.action_sources.perturbed or 1.0
    )
    noise = perturbed[:, None, None] * _correlated_noise(rng, plan.actions.shape, config)
    return replace(
        plan, actions=np.clip(plan.actions + noise, -1, 1).astype(np.float32),
        ids=tuple(f"synthetic-{i:06d}" for i in range(len(plan))), splits=("",) * len(plan), metrics={},
        lineage={"start_episode": plan.ids, "model": ("",) * len(plan),
                 "action_source": tuple("perturbed" if p else "recorded" for p in perturbed)},
        start_step=np.zeros(len(plan), np.int64),
    )  # fmt: skip


def roll_out(bundle: WorldModels, plan: Trajectories, digest: str, generator: torch.Generator) -> Trajectories:
    """The rollouts of a plan's starts and actions under one world model."""
    horizon = plan.actions.shape[1]
    # Altered actions are no answers to what happens: a rollout may read ahead of recorded ones alone.
    recorded = torch.tensor([source == "recorded" for source in plan.lineage["action_source"]])
    start, actions = torch.from_numpy(plan.z[:, 0]), torch.from_numpy(plan.actions)
    made = bundle.rollout(start, actions, horizon, generator, foresight=recorded)
    return replace(
        plan, z=made.z.cpu().numpy(), rewards=made.rewards.cpu().numpy(), terminals=made.terminals.cpu().numpy(),
        lengths=made.lengths, uncertainty=made.uncertainty.cpu().numpy(),
        lineage=plan.lineage | {"model": (digest,) * len(plan)},
    )  # fmt: skip


def _correlated_noise(rng: np.random.Generator, shape: tuple[int, ...], config: SynthesisConfig) -> NDArray[np.float64]:
    """AR(1) noise of the configured σ along axis 1: hands tremble smoothly, they do not jump."""
    fresh, rho = rng.normal(size=shape), config.perturbation_correlation
    noise = np.empty(shape)
    noise[:, 0] = fresh[:, 0]
    for t in range(1, shape[1]):
        noise[:, t] = rho * noise[:, t - 1] + np.sqrt(1 - rho**2) * fresh[:, t]
    return config.perturbation * noise


STAGE = Stage("synthesize", ("synthesis",), ("encode", "world-model"), ("rollouts/plan", "rollouts/made"), work)


def run(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    return STAGE.run_alone(config, callbacks)
