"""Roll the stored generators out from real starts: a plan of (start, actions) in shards, rolled out by actors."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.dynamics import SynthesisConfig
from phaseb.dynamics.evidence import divergence
from phaseb.dynamics.protocol import DynamicsModel, load_generator
from phaseb.dynamics.rollout import Policy
from phaseb.episodes.shards import clear_shards, shard_name, write_shard
from phaseb.episodes.streaming import lengths_of
from phaseb.episodes.trajectories import Trajectories
from phaseb.episodes.windows import windows
from phaseb.errors import DataError
from phaseb.pipeline.stage import StageContext
from phaseb.runtime import logs
from phaseb.runtime.checkpoint import checkpoint_digest
from phaseb.runtime.seeding import numpy_generator, torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.latent_actions import latent_actions
from phaseb.stages.map_shards import map_stage_shards
from phaseb.stages.sample import fit_sample

RECORDED_SHARE = 0.5
"""Share of rollouts under the recorded actions of the start's episode."""
PERTURBATION = 0.2
"""σ of the noise on perturbed actions, in units of [-1, 1]."""
PERTURBATION_CORRELATION = 0.7
"""Correlation of the noise on perturbed actions from one step to the next."""
BATCH_SIZE = 64
"""Rollouts in one task."""

NUM_PROBES = 16
"""Rollouts that show whether a generator diverges."""

ROLLOUTS_AT_ONCE = 4096  # of a plan, held while it is drawn


class RollOut:
    """Rolls one shard of a plan out; made once in each actor, on the GPU where it was given one."""

    def __init__(self, store: Store, name: str, seed: int, on_gpu: bool) -> None:
        device, model = "cuda" if on_gpu and torch.cuda.is_available() else "cpu", store.folder("dynamics", name)
        self._bundle, self._digest, self._seed = load_generator(model, device), checkpoint_digest(model), seed
        self._codes = latent_actions(store, device)

    def __call__(self, plan: Trajectories) -> Trajectories:
        """The plan with its latents, rewards and ends imagined; every rollout keeps its lineage."""
        codes = self._codes and self._codes.follow(torch_generator(self._seed, "codes", plan.ids[0]))
        return roll_out(self._bundle, plan, self._digest, torch_generator(self._seed, "synthesize", plan.ids[0]), codes)


def execute(context: StageContext) -> dict[str, Any]:
    """Roll out every stored generator. One whose rollouts diverge makes none, and has `failed`, the reason."""
    config, store = context.config, context.store
    train = fit_sample(config, store, "train", min_steps=config.synthesis.horizon)
    write_plan(store.folder("rollouts", "plan"), train, config.synthesis, config.run.seed)
    resources = config.resources
    numbers: dict[str, Any] = {}
    for name in config.stored_generators:
        model = load_generator(store.folder("dynamics", name))
        if failed := rollout_failure(model, train, config.synthesis.horizon, config.run.seed):
            logs.event(f"generator {name} is left out: {failed}", logging.WARNING)
            numbers[name] = {"failed": failed}
            continue
        map_stage_shards(
            context,
            "rollouts/plan",
            f"rollouts/made/{name}",
            RollOut,
            (store, name, config.run.seed, resources.gpus_per_actor > 0),
            gpus_per_actor=resources.gpus_per_actor,
        )
        lengths = lengths_of(store.folder("rollouts", "made", name))
        numbers[name] = {"episodes": len(lengths), "transitions": int(lengths.sum())}
    return numbers


def rollout_failure(model: DynamicsModel, real: Trajectories, horizon: int, seed: int) -> str:
    """Why rollouts of a generator cannot be used; empty where they can.

    A few are made: `horizon` steps under recorded actions, none read ahead.
    """
    few, steps = real.z[:NUM_PROBES, 0], min(horizon, real.actions.shape[1])
    actions, blind = torch.from_numpy(real.actions[:NUM_PROBES, :steps]), torch.zeros(len(few), dtype=torch.bool)
    try:
        made = model.rollout(torch.from_numpy(few), actions, steps, torch_generator(seed, "probes"), blind)
    except DataError as error:
        return str(error)
    return divergence(made.z.cpu().numpy(), made.rewards.cpu().numpy())


def made_generators(store: Store, folder: str, names: Sequence[str]) -> list[str]:
    """Those of some generators whose stored rollouts are in a folder: `rollouts/made`, or weighed in `synthetic`."""
    made = store.folders(*folder.split("/"))
    return [name for name in names if name in made]


def write_plan(target: Store, real: Trajectories, config: SynthesisConfig, seed: int) -> None:
    """A plan of any length in shards of `batch_size`, drawn block by block: `make_plan` draws the only one of a short
    plan, and each of a long one's."""
    size, total = BATCH_SIZE, -(-config.num_episodes // BATCH_SIZE)
    block = max(1, ROLLOUTS_AT_ONCE // size) * size
    clear_shards(target, keep=[shard_name(i, total) for i in range(total)])
    for first in range(0, config.num_episodes, block):
        count = min(block, config.num_episodes - first)
        part = make_plan(real, config.model_copy(update={"num_episodes": count}), seed, first)
        for row in range(0, count, size):
            name = shard_name((first + row) // size, total)
            write_shard(target, name, part.select(range(row, min(row + size, count))))


def make_plan(
    real: Trajectories, config: SynthesisConfig, seed: int, first: int = 0, recorded: float = RECORDED_SHARE
) -> Trajectories:
    """Starts and actions of `num_episodes` rollouts: every window of the real episodes in turn, recorded or perturbed
    actions.

    Args:
        real: the episodes that rollouts start from.
        config: how many, how long.
        seed: of the draws.
        first: number of the first rollout, where this is a later block of a long plan.
        recorded: share of rollouts under recorded actions; the others' are perturbed.

    Raises:
        DataError: where no real episode is as long as the horizon.
    """
    full = windows(real, config.horizon, seed)
    if len(full) == 0:
        raise DataError(
            f"no training episode has {config.horizon} steps (the longest has {int(real.lengths.max(initial=0))}); "
            "lower synthesis.horizon and dynamics.gru.horizon.steps, or import longer episodes"
        )
    rng = numpy_generator(seed, "synthesis", "plan", *([first] if first else []))
    starts = np.concatenate([rng.permutation(len(full)) for _ in range(-(-config.num_episodes // len(full)))])
    plan = full.select(starts[: config.num_episodes])
    perturbed = rng.random(len(plan)) >= recorded
    noise = perturbed[:, None, None] * _correlated_noise(rng, plan.actions.shape)
    return replace(
        plan,
        actions=np.clip(plan.actions + noise, -1, 1).astype(np.float32),
        ids=tuple(f"synthetic-{first + i:06d}" for i in range(len(plan))),
        splits=("",) * len(plan),
        metrics={},
        lineage={
            "start_episode": plan.lineage["start_episode"],
            "model": ("",) * len(plan),
            "action_source": tuple("perturbed" if p else "recorded" for p in perturbed),
        },
    )


def roll_out(
    bundle: DynamicsModel, plan: Trajectories, digest: str, generator: torch.Generator, codes: Policy | None = None
) -> Trajectories:
    """The rollouts of a plan's starts and actions of one generator; under `codes` where actions are latent."""
    horizon = plan.actions.shape[1]
    # Altered actions are no answers to what happens: a rollout may read ahead of recorded ones alone.
    recorded = torch.tensor([source == "recorded" for source in plan.lineage["action_source"]])
    start, actions = torch.from_numpy(plan.z[:, 0]), torch.from_numpy(plan.actions)
    made = bundle.rollout(start, actions if codes is None else codes, horizon, generator, recorded)
    if codes is not None:
        followed = {"action_source": ("followed",) * len(plan)}
        plan = replace(plan, actions=made.actions.cpu().numpy(), lineage=plan.lineage | followed)
    return replace(
        plan,
        z=made.z.cpu().numpy(),
        rewards=made.rewards.cpu().numpy(),
        terminals=made.terminals.cpu().numpy(),
        lengths=made.lengths,
        uncertainty=made.uncertainty.cpu().numpy(),
        lineage=plan.lineage | {"model": (digest,) * len(plan)},
    )


def _correlated_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """AR(1) noise of σ `PERTURBATION` along axis 1: hands tremble smoothly, they do not jump."""
    fresh, rho = rng.normal(size=shape), PERTURBATION_CORRELATION
    noise = np.empty(shape)
    noise[:, 0] = fresh[:, 0]
    for t in range(1, shape[1]):
        noise[:, t] = rho * noise[:, t - 1] + np.sqrt(1 - rho**2) * fresh[:, t]
    return PERTURBATION * noise
