"""Sizes that follow the episodes: settings that do not fit them are changed, each in one line that says so.

What is chosen follows from the config and from what was collected alone, so it is the same whenever a stage asks.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from phaseb.config.arms import CLONE
from phaseb.config.root import Config
from phaseb.config.trust import DISCRIMINATOR_SHARE
from phaseb.pipeline.dataset_stats import DataFacts
from phaseb.runtime.storage import Store
from phaseb.trust.windows import MIN_UNITS, WindowPlan, plan_windows

FACTS = ("episodes", "census.json")
MIN_LONG = 2
"""Training episodes as long as the horizon without which nothing is learned."""
MIN_HORIZON = 2


@dataclass(frozen=True)
class Choice:
    """A setting that was changed to fit the episodes."""

    setting: str
    given: Any
    chosen: Any
    why: str

    def __str__(self) -> str:
        if isinstance(self.given, tuple):
            gone = ", ".join(str(item) for item in self.given if item not in self.chosen)
            new = ", ".join(str(item) for item in self.chosen if item not in self.given)
            return f"{self.setting} is without {gone}{' and with ' * bool(new)}{new}: {self.why}"
        return f"{self.setting} is {'null' if self.chosen is None else self.chosen}, not {self.given}: {self.why}"


def read_facts(store: Store) -> DataFacts | None:
    """What was seen of a run's episodes; None where none were collected yet."""
    return DataFacts.from_json(store.read_json(*FACTS)) if store.exists(*FACTS) else None


def fitted(config: Config, store: Store) -> Config:
    """The config with sizes that fit the episodes of a run directory; as it is where there are none yet."""
    facts = read_facts(store)
    return config if facts is None else fit_sizes(config, facts)[0]


def judge_plan(config: Config, facts: DataFacts) -> WindowPlan:
    """The windows that the judges will have."""
    return plan_windows(facts.lengths["test"], config.synthesis.horizon, config.judge.num_folds, config.judge.num_pairs)


def num_gate_episodes(config: Config, facts: DataFacts) -> int:
    """Training episodes as long as the horizon that the gate has for itself, at least: a critic takes its share."""
    there, long = facts.count("train"), facts.count("train", config.synthesis.horizon)
    stages = (stage.weights for _, stage in config.dynamics.gru.stages())
    if any(weights.trust > 0 or weights.feat > 0 for weights in stages):
        long -= min(max(round(DISCRIMINATOR_SHARE * there), 1), max(there - 1, 0))
    return min(max(long, 0), config.memory.gate_episodes)


def fit_sizes(config: Config, facts: DataFacts) -> tuple[Config, tuple[Choice, ...]]:
    """The config with sizes that fit some episodes, and what was changed."""
    fitting = _Fitting(config, facts)
    for rule in (_horizon, _segments, _folds, _batch, _clusters, _rewards):
        rule(fitting, facts)
    return fitting.config, tuple(fitting.choices)


class _Fitting:
    def __init__(self, config: Config, facts: DataFacts) -> None:
        self.config, self.choices = config, list[Choice]()

    def choose(self, setting: str, value: Any, why: str) -> None:
        """Set a setting, and remember why, where it has another value."""
        names = setting.split(".")
        given: Any = self.config
        for name in names:
            given = getattr(given, name)
        if given != value:
            self.config = _with_setting(self.config, names, value)
            self.choices.append(Choice(setting, given, value, why))


def _with_setting(section: Any, names: list[str], value: Any) -> Any:
    assert isinstance(section, BaseModel)
    inner = value if len(names) == 1 else _with_setting(getattr(section, names[0]), names[1:], value)
    return section.model_copy(update={names[0]: inner})


def _horizon(fitting: _Fitting, facts: DataFacts) -> None:
    """The longest horizon, up to the one asked for, that half of the training episodes have and judges can use."""
    config = fitting.config
    asked, longest = config.synthesis.horizon, facts.longest("train")
    half = max(MIN_LONG, math.ceil(facts.count("train") / 2))
    trained = [h for h in range(min(asked, longest), MIN_HORIZON - 1, -1) if facts.count("train", h) >= half]
    if not trained:
        return
    # For the judges' sake a horizon is halved at most: a model of a few steps would be worth nothing.
    judged = (h for h in trained if h >= trained[0] / 2 and _is_usable(config, facts, h, half))
    chosen = asked if _is_usable(config, facts, asked, MIN_LONG) else next(judged, trained[0])
    why = (
        f"{facts.count('train', asked)} of {facts.count('train')} training and {facts.count('test', asked)} of "
        f"{facts.count('test')} test episodes have {asked} steps"
    )
    fitting.choose("synthesis.horizon", chosen, why)
    most = longest if chosen == asked else chosen
    if config.dynamics.gru.horizon.steps > most:
        why = f"the longest training episode has {longest} steps" if chosen == asked else "rollouts are that long"
        fitting.choose("dynamics.gru.horizon.steps", most, why)
        fitting.choose("dynamics.gru.horizon.start", min(config.dynamics.gru.horizon.start, most), why)


def _is_usable(config: Config, facts: DataFacts, horizon: int, training: int) -> bool:
    if facts.count("train", horizon) < training:
        return False
    return plan_windows(facts.lengths["test"], horizon, config.judge.num_folds).num_units >= MIN_UNITS


def _segments(fitting: _Fitting, facts: DataFacts) -> None:
    config, longest = fitting.config, facts.longest("train", "dev")
    why = f"the longest episode has {longest} steps"
    fitting.choose("latents.segment_steps", max(2, min(config.latents.segment_steps, longest + 1)), why)


def _folds(fitting: _Fitting, facts: DataFacts) -> None:
    config = fitting.config
    own = num_gate_episodes(config, facts)
    why = f"the gate has {own} training episodes of {config.synthesis.horizon} steps"
    fitting.choose("trust.num_folds", max(2, min(config.trust.num_folds, own)), why)
    plan = judge_plan(config, facts)
    kind = "blocks" if plan.blocks else "episodes"
    why = f"the sealed test has {plan.num_units} {kind} of {plan.steps} steps"
    if plan.num_units >= MIN_UNITS:
        fitting.choose("judge.num_folds", plan.num_folds, why)
        if not plan.floor and "real" in config.judge.rungs:
            rungs = tuple(rung for rung in config.judge.rungs if rung != "real")
            fitting.choose("judge.rungs", rungs, f"{why}, too few to compare one half with the other")


def _batch(fitting: _Fitting, facts: DataFacts) -> None:
    config, there = fitting.config, int(facts.lengths["train"].sum())
    if config.policy.batch_size <= there or there < 2:
        return
    size, workers = 2 ** int(math.log2(there)), max(1, config.resources.num_workers)
    size -= size % workers
    if size >= 2:
        fitting.choose("policy.batch_size", size, f"the training episodes have {there} steps")


def _clusters(fitting: _Fitting, facts: DataFacts) -> None:
    config, there = fitting.config, facts.count("train")
    why = f"there are {there} training episodes"
    if config.bricks.num_bricks:
        fitting.choose("bricks.num_bricks", min(config.bricks.num_bricks, max(there, 1)), why)


def _rewards(fitting: _Fitting, facts: DataFacts) -> None:
    """Where values cannot be learned, only arms that clone are trained, and no generator has to foretell rewards."""
    if facts.values_can_be_learned:
        return
    policy, arms = fitting.config.policy, fitting.config.arms
    kept = tuple(name for name in arms.names if not policy.of_learner(arms.arm(name).config.learner).learns_values)
    if not arms.model_copy(update={"names": kept}).real_arms:
        kept = (*kept, CLONE)
    why = f"every training reward is {facts.reward_low:g}, so there are no values that a policy could follow"
    fitting.choose("arms.names", kept, why)
    fitting.choose("policy.augmentation.min_reward_skill", None, why)


def total_steps(facts: DataFacts, *splits: str) -> int:
    """Steps of all episodes of some splits."""
    return int(sum(np.sum(facts.lengths[split]) for split in splits))
