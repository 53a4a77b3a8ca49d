"""Choose the generator that policies branch in, by evidence on dev episodes: `dynamics/chosen.json`.

Every named generator enters. Each forecasts recorded windows, as long as policies branch, under actions that it does
not know in advance. One that fails, has no skill, never says that it is uncertain, or that fresh judges tell apart from
the recorded windows is left out. Of the others the one with the best forecast score serves; there may be none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.config.root import Config
from phaseb.dynamics.branches import branch_numbers, draw
from phaseb.dynamics.evidence import ForecastScore, difference, failure, forecast_score, recorded_branches
from phaseb.dynamics.protocol import DynamicsModel, load_generator
from phaseb.dynamics.validation import shortfall, validate
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.pipeline.stage import StageContext
from phaseb.runtime import logs
from phaseb.runtime.seeding import torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.arm_generator import FILE
from phaseb.stages.judge import NOISE_SIGMA
from phaseb.stages.sample import fit_sample
from phaseb.trust.ladder import judge_rung, open_loop_pairs
from phaseb.trust.model import UNCERTAINTY_QUANTILE
from phaseb.trust.windows import MIN_UNITS

MOST_AUC = 0.95
"""Of the worst fresh judge, with noise on both sides: a generator that is told apart more surely gets no weight."""


@dataclass(frozen=True)
class GeneratorEvidence:
    """What is known of one generator.

    Attributes:
        out: why it does not serve; empty where it may.
        numbers: that are reported.
        score: of its forecasts; None where there are none.
        scale: its uncertainty on recorded windows, by which the gate divides.
    """

    out: str
    numbers: dict[str, Any]
    score: ForecastScore | None = None
    scale: float = 0.0


def execute(context: StageContext) -> dict[str, Any]:
    """Measure every generator that enters, and write which one serves."""
    config, store = context.config, context.store
    torch.set_num_threads(1)
    dev = fit_sample(config, store, "dev")
    dev = dev if len(dev) else fit_sample(config, store, "train")
    found = {name: evidence(config, store, name, dev) for name in config.candidates}
    record = choose(found, config.policy.augmentation.horizon, config.run.seed)
    store.write_json(record, *FILE)
    for name, one in found.items():
        if one.out:
            logs.event(f"generator {name} is left out: {one.out}")
    return {"generator": record["generator"] or "none", "reason": record["reason"]}


def choose(found: Mapping[str, GeneratorEvidence], horizon: int, seed: int) -> dict[str, Any]:
    """The content of `dynamics/chosen.json`: the generator that serves, or None, and the evidence."""
    scores = {name: one.score for name, one in found.items() if not one.out and one.score is not None}
    best = max(scores, key=lambda name: scores[name].value, default=None)
    others = sorted((name for name in scores if name != best), key=lambda name: -scores[name].value)
    margin = None
    if best is not None and others:
        margin = dict(zip(("mean", "low", "high"), difference(scores[best], scores[others[0]], seed), strict=True))
    return {
        "generator": best,
        "horizon": horizon,
        "reason": _reason(found, best, others[:1], margin),
        "margin": margin,
        "uncertainty_scale": found[best].scale if best is not None else 0.0,
        "evidence": {name: {"out": one.out, **one.numbers} for name, one in found.items()},
    }


def evidence(config: Config, store: Store, name: str, dev: Trajectories) -> GeneratorEvidence:
    """Measure one generator on held-out episodes."""
    try:
        model = load_generator(store.folder("dynamics", name))
        if (model.latent_size, model.action_size) != (dev.z.shape[-1], dev.actions.shape[-1]):
            return GeneratorEvidence("it was fitted to latents or actions of other sizes", {})
        return measure(config, model, dev)
    except DataError as error:
        return GeneratorEvidence(str(error), {})


def measure(config: Config, model: DynamicsModel, dev: Trajectories) -> GeneratorEvidence:
    """Forecast score, skill, calibration and judges of a generator on held-out episodes."""
    plan, seed = config.policy.augmentation, config.run.seed
    recorded, episodes = recorded_branches(dev, plan.horizon, seed)
    drawn = draw(model.rollout, recorded, seed)
    if failed := failure(drawn):
        return GeneratorEvidence(failed, {})
    rewards_count = plan.min_reward_skill is not None
    score = forecast_score(recorded, episodes, drawn, rewards_count)
    validation = validate(model.rollout, dev, plan, plan.horizon, seed)
    scale = validation.forecasts.uncertainty_quantile(UNCERTAINTY_QUANTILE)
    branches = branch_numbers(recorded, drawn)
    coverage = {name: branches[name][-1] for name in ("coverage_50", "coverage_90")}
    auc = window_auc(config, model, dev)
    numbers = {
        "score": score.value,
        "state_skill": score.state,
        "reward_skill": score.reward if rewards_count else None,
        **coverage,
        "trusted_steps": validation.horizon,
        "judge_auc_noise": auc,
    }
    return GeneratorEvidence(_out(numbers, scale, shortfall(plan, validation.skills)), numbers, score, scale)


def window_auc(config: Config, model: DynamicsModel, dev: Trajectories) -> float | None:
    """AUC of the worst judge between recorded windows and rollouts from their starts; None of too few windows."""
    plan, seed = config.policy.augmentation, config.run.seed
    horizon = min(plan.horizon, int(dev.lengths.max()))

    def roll(start: NDArray[np.floating], actions: NDArray[np.floating]) -> NDArray[np.float32]:
        blind = torch.zeros(len(start), dtype=torch.bool)
        draws = torch_generator(seed, "choice", "judge")
        made = model.rollout(torch.from_numpy(start), torch.from_numpy(actions), horizon, draws, blind)
        return made.z.cpu().numpy()

    pairs = open_loop_pairs(dev.z, dev.actions, dev.lengths, horizon, roll, config.judge, seed)
    groups = len(np.unique(pairs.groups)) if pairs.groups is not None else len(pairs.real)
    if groups < MIN_UNITS:
        return None
    folds = min(config.judge.num_folds, groups // 2)
    asked = config.judge.model_copy(update={"sigmas": (NOISE_SIGMA,), "num_folds": folds})
    return judge_rung("choice", pairs, asked, seed).worst(NOISE_SIGMA).auc


def _out(numbers: Mapping[str, Any], scale: float, short: str) -> str:
    """Why a generator with these numbers does not serve; empty where it may.

    Args:
        short: the skill that is too low at the first step.
    """
    if short:
        return f"it does not pass the check of forecast skill: at the first step {short}"
    if scale == 0:
        return "it never says that it is uncertain"
    auc = numbers["judge_auc_noise"]
    if auc is not None and auc >= MOST_AUC:
        return f"fresh judges tell its rollouts from recorded ones at AUC {auc:.2f}"
    return ""


def _skills(numbers: Mapping[str, Any]) -> str:
    rewards = numbers["reward_skill"]
    return f"latents {numbers['state_skill']:.2f}" + ("" if rewards is None else f", rewards {rewards:.2f}")


def _reason(
    found: Mapping[str, GeneratorEvidence], best: str | None, second: list[str], margin: Mapping[str, float] | None
) -> str:
    """Why this generator, in a sentence."""
    out = "; ".join(f"{name} is left out: {one.out}" for name, one in found.items() if one.out)
    if best is None:
        return f"no generator serves, so policies learn from recorded data alone ({out})"
    numbers = found[best].numbers
    said = f"generator {best} serves: its forecast score is {numbers['score']:.2f} ({_skills(numbers)})"
    if second and margin is not None:
        said += (
            f", {margin['mean']:.2f} above that of {second[0]} (95 % interval {margin['low']:.2f} to "
            f"{margin['high']:.2f})"
        )
    return f"{said}; {out}" if out else said
