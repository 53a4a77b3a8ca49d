"""Rollouts of other generators than the one in use: what the gate learns bad rollouts from.

A gate that learned from the very model it gates would only tell that model's signature.
"""

from dataclasses import replace
from typing import Any

from phaseb.config.dynamics import GRUConfig
from phaseb.config.root import Config
from phaseb.dynamics.gru_ensemble.learner import make_learner
from phaseb.episodes.shards import write_trajectories
from phaseb.episodes.trajectories import Trajectories, concatenate
from phaseb.episodes.windows import windows
from phaseb.nn.data_parallel import WorkerContext
from phaseb.pipeline.stage import StageContext
from phaseb.runtime.seeding import derive_seed, torch_generator
from phaseb.stages.reuse import take_negatives
from phaseb.stages.sample import fit_sample
from phaseb.stages.synthesize import make_plan, roll_out

FOLDER = "negatives"
SNAPSHOTS = (0.05, 0.2, 0.5, 1.0)
"""Shares of its training at which rollouts are made."""


def execute(context: StageContext) -> dict[str, Any]:
    """Make the gate's negatives, or take over those of the run whose gate is taken over."""
    config, store = context.config, context.store
    if config.reuse.trust:
        made = take_negatives(config, store)
    else:
        made = negative_rollouts(
            config, windows(fit_sample(config, store, "train"), config.synthesis.horizon, config.run.seed)
        )
    write_trajectories(store.folder(FOLDER), made)
    return {"episodes": len(made)}


def founding_report_config(config: GRUConfig, num_steps: int) -> GRUConfig:
    """The founding report's recipe in a config's own sizes: one member, MSE on ten teacher-forced steps, no remedy."""
    return GRUConfig.model_validate(
        config.model_dump()
        | {
            "num_members": 1,
            "num_steps": num_steps,
            "loss": "mse",
            "clamp_quantile": 0.0,
            "gp_correction": {"enabled": False},
            "noise": "none",
            "find_events": False,
            "layer_norm": False,
            "ema_decay": 0.0,
            "input_noise": 0.0,
            "decorrelate": False,
            "action_lookahead": 0,
            "bound_latents": False,
            "num_modes": 1,
            "num_blocks": 0,
            "one_step_window": min(10, config.horizon.steps),
            "weights": {"trust": 0.0, "feat": 0.0, "var": 0.0},
            "recon": {"one_step": 1.0, "rollout": 0.0},
        }
    )


def negative_rollouts(config: Config, train: Trajectories) -> Trajectories:
    """Rollouts of the report's model at several moments of its training; `lineage["model"]` says which."""
    plan, seed = config.negatives, derive_seed(config.run.seed, "generators")
    recipe = founding_report_config(config.dynamics.gru, plan.num_steps)
    learner = make_learner(recipe, train, WorkerContext(seed), None)
    moments = sorted({max(1, round(share * plan.num_steps)) for share in SNAPSHOTS})
    each = max(2, plan.num_episodes // len(moments))
    parts = []
    for step in range(plan.num_steps):
        learner.step(step)
        if step + 1 in moments:
            starts = make_plan(train, config.synthesis.model_copy(update={"num_episodes": each}), seed + step)
            name = f"report-{step + 1}"
            made = roll_out(learner.bundle(), starts, name, torch_generator(seed, "rollouts", step))
            parts.append(replace(made, ids=tuple(f"{name}-{i:04d}" for i in range(len(made)))))
    return concatenate(parts)
