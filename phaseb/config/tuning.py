"""A study file (`tune/*.yaml`): what is searched, over which settings, how, and with how much."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from phaseb.config.paths import PathText
from phaseb.config.section import Section

Number = int | float


class Metric(Section):
    """A number that trials report, and which way is better."""

    name: str = Field(description="a metric of the job searched")
    mode: Literal["min", "max"] = Field("min", description="which way is better")


class Parameter(Section):
    """The values that one setting may take: exactly one of the four kinds, optionally under a condition."""

    uniform: tuple[Number, Number] | None = Field(None, description="[low, high]: any number between")
    loguniform: tuple[Number, Number] | None = Field(None, description="[low, high]: any number between, by ratio")
    integer: tuple[int, int] | None = Field(None, description="[low, high]: whole numbers, both ends included")
    choice: list[Any] | None = Field(None, min_length=1, description="one of these values")
    log: bool = Field(False, description="of integer: by ratio")
    step: Number | None = Field(None, gt=0, description="of uniform or integer: on this grid, from low on")
    num: Annotated[int, Field(ge=2)] = Field(3, description="of a grid search: points on a range")
    when: dict[str, list[Any]] = Field({}, description="other searched setting: its values under which this one exists")

    @model_validator(mode="after")
    def _one_kind_in_order(self) -> Self:
        kinds = [k for k in ("uniform", "loguniform", "integer", "choice") if getattr(self, k) is not None]
        if len(kinds) != 1:
            raise ValueError(f"give exactly one of uniform, loguniform, integer, choice, not {kinds or 'none'}")
        if self.choice is None:
            low, high = self.bounds
            if not low < high:
                raise ValueError(f"{self.kind}: [{low}, {high}] is empty or the wrong way round")
            if (self.kind == "loguniform" or self.log) and low <= 0:
                raise ValueError(f"{self.kind}: [{low}, {high}] goes by ratio, so it must start above 0")
        if self.log and (self.integer is None or self.step is not None):
            raise ValueError("log goes with integer, without step (use loguniform for numbers that are not whole)")
        if self.step is not None and self.kind not in ("uniform", "integer"):
            raise ValueError("step goes with uniform or integer")
        return self

    @property
    def kind(self) -> str:
        return next(k for k in ("uniform", "loguniform", "integer", "choice") if getattr(self, k) is not None)

    @property
    def bounds(self) -> tuple[Number, Number]:
        low, high = getattr(self, self.kind)
        return low, high

    def extremes(self) -> list[Any]:
        """The values at the edge of what may be drawn: if the schema takes these, it takes all."""
        return list(self.choice) if self.choice is not None else list(self.bounds)


def _as_metrics(value: Any) -> Any:
    return [value] if isinstance(value, (dict, str)) else value


class SearchConfig(Section):
    """How points are proposed."""

    algorithm: Literal["random", "grid", "tpe", "nsga2"] = Field(
        "tpe", description="random; grid; Optuna's tree of Parzen estimators; NSGA-II for several metrics"
    )
    seed: int = Field(0, ge=0, description="of the proposals")
    num_startup: int = Field(10, ge=1, description="random points before tpe uses what it learned; nsga2's population")
    try_defaults: bool = Field(True, description="the base config's own values are the first point")


class SchedulerConfig(Section):
    """Early stopping of trials."""

    kind: Literal["none", "asha", "hyperband", "pbt"] = Field(
        "asha",
        description="none lets every trial end by itself; pbt: a population of budget.trials whose settings change "
        "at every report (search.algorithm: random)",
    )
    grace: float = Field(0.1, gt=0, le=1, description="share of the steps every trial gets before it may be ended")
    reduction: float = Field(3.0, gt=1, description="of the trials at a rung, one in so many goes on")
    exploit: float = Field(0.25, gt=0, le=0.5, description="of pbt: share of the population replaced at a report")
    resample: float = Field(0.25, ge=0, le=1, description="of pbt: chance that a setting is drawn anew, not moved")


class TrialResources(Section):
    """Resources of one trial."""

    cpus: float = Field(1.0, gt=0, description="CPUs of a trial's own process; may be a fraction")
    gpus: float = Field(0.0, ge=0, description="GPUs of a trial's own process; may be a fraction")
    workers: int = Field(0, ge=0, description="above 0, a trial is a Ray Train run of its own with so many workers")


class BudgetConfig(Section):
    """Limits of the search. The first that is reached stops it."""

    trials: int = Field(20, ge=1, description="points tried")
    time_s: float | None = Field(None, gt=0, description="seconds; trials in progress are ended")
    cpu_hours: float | None = Field(None, gt=0, description="CPU hours reserved by trials, all together")
    patience: int | None = Field(None, ge=1, description="give up after so many finished trials without a better one")


class ConfirmConfig(Section):
    """Confirmation: the best points are trained again on fresh seeds."""

    top: int = Field(2, ge=0, description="how many points, beside the base config's own; 0 confirms nothing")
    seeds: int = Field(2, ge=1, description="fresh seeds for each")


class StudyConfig(Section):
    """One search."""

    name: str = Field("", pattern=r"^([a-z][-a-z0-9_]*)?$", description="empty: the name of the file")
    job: str = Field("dynamics", description="the job searched, or module:Class of an objective of your own")
    config: PathText | None = Field(
        None, description="base config, relative to the study file; null: the schema's defaults"
    )
    overrides: dict[str, Any] = Field({}, description="dotted path: value, laid over the base config for trials alone")
    metrics: Annotated[list[Metric], BeforeValidator(_as_metrics)] = Field(
        min_length=1, description="what is judged; more than one gives a Pareto front"
    )
    space: dict[str, Parameter] = Field(min_length=1, description="dotted path: the values it may take")
    search: SearchConfig = Field(SearchConfig(), description="how points are proposed")
    scheduler: SchedulerConfig = Field(SchedulerConfig(), description="which trials are ended early")
    concurrency: int = Field(2, ge=1, le=10_000, description="trials at the same time")
    resources: TrialResources = Field(TrialResources(), description="what one trial reserves")
    budget: BudgetConfig = Field(BudgetConfig(), description="when to stop")
    reports: int = Field(6, ge=1, description="looks at the real metric over the course of a trial")
    repeats: int = Field(1, ge=1, description="seeds a point; the metric is their mean")
    confirm: ConfirmConfig = Field(ConfirmConfig(), description="the best again, on fresh seeds")
    keep_checkpoints: int = Field(1, ge=0, description="trials whose checkpoints are kept, the best ones")
    max_retries: int = Field(1, ge=0, description="starts of a trial again after its process or node was lost")
    trackers: list[Literal["tensorboard", "csv", "mlflow", "wandb"]] = Field(
        ["tensorboard"], description="where trials log to beside their records; mlflow and wandb are extras to install"
    )

    @field_validator("metrics")
    @classmethod
    def _named_once(cls, metrics: list[Metric]) -> list[Metric]:
        names = [metric.name for metric in metrics]
        if len(set(names)) < len(names):
            raise ValueError(f"a metric is named twice: {names}")
        return metrics

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        several = len(self.metrics) > 1
        if several and self.scheduler.kind != "none":
            raise ValueError("several metrics have no single order to end trials by: set scheduler.kind to none")
        if self.search.algorithm == "nsga2" and not several:
            raise ValueError("nsga2 is for several metrics; tpe for one")
        if self.scheduler.kind == "pbt":
            if self.search.algorithm != "random":
                raise ValueError("pbt draws its population at random: set search.algorithm to random")
            if self.budget.trials < 4 or self.reports < 2 or self.repeats > 1:
                raise ValueError("pbt wants budget.trials of 4 or more, reports of 2 or more, and repeats of 1")
        return self


def study_name(study: StudyConfig, path: str | Path) -> str:
    return study.name or Path(path).stem.lower()
