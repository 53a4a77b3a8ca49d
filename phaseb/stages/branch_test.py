"""Branch tests: the same unrecorded actions from the same state, in physics and in every generator.

A cloned operator acts in physics up to a random step; from there on other actions are taken. The state at that step is
the branch's start. No state of the environment is ever set, so that any environment can be branched.

Legend: N branches, H steps, D latent dimensions, A action dimensions.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.root import Config
from phaseb.dynamics.branches import Branches, branch_numbers, draw, event_numbers
from phaseb.dynamics.events import EventDetector
from phaseb.dynamics.protocol import DynamicsModel, load_generator
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.policy.closed_loop import play
from phaseb.policy.trained_policy import ClosedLoopAct
from phaseb.runtime.seeding import numpy_generator
from phaseb.runtime.storage import Store
from phaseb.stages.physics import Physics
from phaseb.stages.policy_pool import PolicyMaker, PoolPolicy
from phaseb.stages.sample import fit_sample

Kind = Literal["policy", "perturbed", "random"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Whose actions are taken from the branch on: the arms' policies', the clone's with noise, random ones."""
FIRST_SEED = 3_500_000
"""Seed of the first episode that is branched from."""
PERTURBATION = 0.4
"""Standard deviation of the noise on the clone's actions, in units of [-1, 1]."""
MOST_STEPS = 15
"""Steps of a branch, beyond the horizon at which policies branch; fewer in short episodes."""

Floats = NDArray[np.float32]


def branch_test(config: Config, store: Store, kind: Kind, generators: Sequence[str]) -> dict[str, Any]:
    """Numbers of each generator on the branches of one kind, see `branch_numbers` and `event_numbers`.

    A generator that cannot be rolled out has `failed`, the reason, instead.
    """
    torch.set_num_threads(1)
    train = fit_sample(config, store, "train")
    branches, events = branch(config, store, kind, train), EventDetector.fit(train)
    true = events(branches.z, branches.ends)
    found: dict[str, Any] = {}
    for name in generators:
        model = load_generator(store.folder("dynamics", name))
        try:
            found[name] = measure(model, branches, true, events, config.run.seed)
        except DataError as error:
            found[name] = {"failed": str(error)}
    return found


def measure(
    model: DynamicsModel, branches: Branches, true: NDArray[np.bool_], events: EventDetector, seed: int
) -> dict[str, Any]:
    """A generator's numbers on branches with their true events (N, H)."""
    drawn = draw(model.rollout, branches, seed)
    numbers: dict[str, Any] = dict(branch_numbers(branches, drawn))
    return numbers | event_numbers(true, events(drawn.z, drawn.ends), branches.valid) | {"branches": len(branches)}


def branch(config: Config, store: Store, kind: Kind, train: Trajectories) -> Branches:
    """Episodes in physics that leave the clone's course at a random step, from there on."""
    count = config.closed_loop.num_branches
    make = PolicyMaker(store.folder("policy"), train, config.judge.clone_steps, config.run.seed)
    whole = min(config.synthesis.horizon, config.environment.max_steps)
    horizon = min(max(MOST_STEPS, config.policy.augmentation.horizon), max(1, whole // 2))
    rng = numpy_generator(config.run.seed, "branches", kind)
    at = rng.integers(0, whole - horizon + 1, count)
    seeds = [FIRST_SEED + KINDS.index(kind) * count + i for i in range(count)]
    act = _switched(make(PoolPolicy("clone"), f"branch {kind}"), _after(config, make, kind, rng, count), at)
    with Physics(config, store, count) as physics:
        played = play(
            act,
            physics.encoder,
            physics.environment,
            seeds,
            whole,
            physics.denormalise,
            config.evaluation.step_limit_s,
        )
    return cut(played, at, horizon)


def cut(played: Trajectories, at: NDArray[np.integer], horizon: int) -> Branches:
    """The steps of episodes (N, T) from step `at` (N,) on; episodes that ended before are left out."""
    alive = np.flatnonzero(at < played.lengths)
    rows, steps = alive[:, None], at[alive][:, None] + np.arange(horizon + 1)
    inner = steps[:, :-1]
    return Branches(
        played.z[rows, steps],
        played.actions[rows, inner],
        played.rewards[rows, inner],
        played.terminals[rows, inner],
        inner < played.lengths[alive][:, None],
    )


def _switched(before: ClosedLoopAct, after: ClosedLoopAct, at: NDArray[np.integer]) -> ClosedLoopAct:
    def act(z: Floats, step: int) -> Floats:
        return np.where((step < at)[:, None], before(z, step), after(z, step)).astype(np.float32)

    return act


def _after(config: Config, make: PolicyMaker, kind: Kind, rng: np.random.Generator, count: int) -> ClosedLoopAct:
    """Whose actions are taken from the branch on."""
    if kind == "random":
        return make(PoolPolicy("random"), "branch")
    if kind == "perturbed":
        clone = make(PoolPolicy("clone"), "branch perturbed")

        def perturbed(z: Floats, step: int) -> Floats:
            chosen = clone(z, step)
            return np.clip(chosen + PERTURBATION * rng.standard_normal(chosen.shape), -1, 1).astype(np.float32)

        return perturbed
    acts = [make(PoolPolicy("trained", arm.name, 0), "branch") for arm in config.arms.trained]
    whose = np.arange(count) % len(acts)

    def policies(z: Floats, step: int) -> Floats:
        return np.stack([act(z, step) for act in acts])[whose, np.arange(count)]

    return policies
