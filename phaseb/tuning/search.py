"""Who proposes points: Optuna's samplers, or a list. Their memory is the study's records, never a pickle."""

import warnings
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher

from phaseb.config.tuning import Metric, Parameter, StudyConfig
from phaseb.runtime.seeding import derive_seed
from phaseb.runtime.storage import Store
from phaseb.tuning.space import Point, draw
from phaseb.tuning.trial import SEED
from phaseb.tuning.trial_store import TrialRecord, trial_key

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
DATABASE = "study.db"
STUDY_NAME = "phaseb"
GENERATION = optuna.samplers.NSGAIISampler._get_generation_key()
"""Where NSGA-II keeps the generation of a trial in Optuna's file."""
FAILED = "failed"
"""User attribute in Optuna's file that holds why a trial failed."""
MAX_DRAWS = 100
"""Draws that may fall on points tried before; then the space counts as searched whole."""


class ListSearch(Searcher):
    """Proposes given settings in turn."""

    def __init__(self, settings: Iterable[Mapping[str, Any]]) -> None:
        super().__init__()
        self._left = deque(dict(one) for one in settings)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        return self._left.popleft() if self._left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        return None

    def save(self, checkpoint_path: str) -> None:
        return None

    def restore(self, checkpoint_path: str) -> None:
        return None


class OptunaPoints(Searcher):
    """Proposes points by an Optuna sampler over a space with conditions, in any number of metrics.

    Ray Tune's own OptunaSearch cannot take finished points of a conditional space, nor a trial that failed without a
    value; this is the same ask-and-tell, with both. A failed trial is told as pruned, which TPE ranks below all that
    came to a value: told as failed it would be forgotten, and its place tried again and again. No point is tried twice.

    What is drawn follows from the study's seed and the number of the trial, so a search that was killed draws what it
    would have drawn.

    Args:
        past: trials that ended before: what the sampler goes on from.
        again: points of trials that were in progress then: they come first.
        first: points to try before the sampler is asked.
        database: SQLite file that Optuna's dashboard opens; written from the start again, in memory without one.
    """

    def __init__(
        self,
        study: StudyConfig,
        seed: int,
        past: Sequence[TrialRecord],
        again: Sequence[Point],
        first: Sequence[Point],
        database: str | None,
    ) -> None:
        super().__init__()
        self._config, self._space, self._metrics, self._seed = study, study.space, study.metrics, seed
        self._study = optuna.create_study(
            storage=f"sqlite:///{database}" if database else None,
            pruner=optuna.pruners.NopPruner(),
            study_name=STUDY_NAME,
            directions=_directions(study.metrics),
        )
        self._told: dict[str, optuna.trial.FrozenTrial | None] = {}  # by trial_key; None while in progress
        self._open = {trial_key(point, seed) for point in again}
        self._num_good = 0
        for record in past:
            told = _as_optuna(record, study.space, study.metrics, self._num_good // _population(study))
            self._told[record.key] = told
            self._num_good += told.state == TrialState.COMPLETE
            self._study.add_trial(told)
        for point in (*again, *first):
            self._study.enqueue_trial(point)
        self._asked: dict[str, tuple[str, optuna.Trial]] = {}
        self._seen: dict[str, set[int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher for a resume of its own, which is never used

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        for attempt in range(MAX_DRAWS):
            self._study.sampler = self._sampler(len(self._told.keys() | self._open), attempt)
            trial = self._study.ask()
            point = draw(self._space, trial)
            key = trial_key(point, self._seed)
            if key not in self._told:
                self._told[key], self._asked[trial_id] = None, (key, trial)
                return {**point, SEED: self._seed}
            self._repeat(trial, self._told[key])
        return Searcher.FINISHED

    def _sampler(self, number: int, attempt: int) -> optuna.samplers.BaseSampler:
        search = self._config.search
        seed = derive_seed(search.seed, number, attempt) % 2**31
        if search.algorithm == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=_population(self._config), seed=seed)
        # Until something came to a value there is no telling good from bad: TPE would settle among failures.
        if search.algorithm == "random" or not self._num_good:
            return optuna.samplers.RandomSampler(seed=seed)
        # constant_liar: trials in progress count as poor, so that concurrent ones do not crowd the same place.
        return optuna.samplers.TPESampler(
            n_startup_trials=search.num_startup, multivariate=True, group=True, constant_liar=True, seed=seed
        )

    def _repeat(self, trial: optuna.Trial, known: optuna.trial.FrozenTrial | None) -> None:
        """Answer a draw of a point tried before with what is known of it."""
        if known is None or known.state != TrialState.COMPLETE:
            self._study.tell(trial, state=TrialState.FAIL if known is None else TrialState.PRUNED)
        else:
            self._study.tell(trial, known.values)

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        if len(self._metrics) > 1 or (value := result.get(self._metrics[0].name)) is None:
            return
        steps, seen = int(result["steps"]), self._seen.setdefault(trial_id, set())
        if steps not in seen:  # a trial that was started again reports some steps once more
            seen.add(steps)
            self._asked[trial_id][1].report(float(value), steps)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        key, trial = self._asked.pop(trial_id, ("", None))
        self._seen.pop(trial_id, None)
        if trial is None:
            return
        values = [result.get(metric.name) for metric in self._metrics] if result and not error else []
        if values and all(v is not None and v == v for v in values):
            self._told[key] = self._study.tell(trial, [float(v) for v in values if v is not None])
            self._num_good += 1
        else:
            trial.set_user_attr(FAILED, str((result or {}).get("failed", "lost its process")))
            self._told[key] = self._study.tell(trial, state=TrialState.PRUNED)

    def save(self, checkpoint_path: str) -> None:
        return None  # the records are the memory

    def restore(self, checkpoint_path: str) -> None:
        return None


def new_database(store: Store) -> str | None:
    """Where Optuna's SQLite file goes, made anew from the records: the study's folder, if that is on a local disk."""
    store.delete(DATABASE)
    return store.path(DATABASE) if store.is_local else None


def write_database(study: StudyConfig, trials: Sequence[TrialRecord], store: Store) -> None:
    """Optuna's file of a search in which Optuna had no part, so that its dashboard opens it like any other."""
    if (database := new_database(store)) is None:
        return
    told = optuna.create_study(
        storage=f"sqlite:///{database}", study_name=STUDY_NAME, directions=_directions(study.metrics)
    )
    told.add_trials([_as_optuna(record, study.space, study.metrics) for record in trials if record.ended])


def _directions(metrics: Sequence[Metric]) -> list[str]:
    return ["minimize" if m.mode == "min" else "maximize" for m in metrics]


def importances(study: StudyConfig, past: Sequence[TrialRecord]) -> dict[str, float]:
    """How much each setting matters for the first metric (fANOVA over finished trials); empty where too few tell."""
    ended = [r for r in past if r.state == "done" and r.point.keys() <= study.space.keys()]
    if len(ended) < 8:
        return {}
    told = optuna.create_study(directions=["minimize"])
    one = study.metrics[:1]
    told.add_trials([_as_optuna(record, study.space, one) for record in ended])
    always = [name for name, p in study.space.items() if not p.when]
    found = optuna.importance.get_param_importances(told, params=always)
    return {name: float(value) for name, value in found.items()}


def _population(study: StudyConfig) -> int:
    return max(2, study.search.num_startup)


def _as_optuna(
    record: TrialRecord, space: Mapping[str, Parameter], metrics: Sequence[Metric], generation: int = 0
) -> optuna.trial.FrozenTrial:
    """A record as Optuna keeps trials. NSGA-II knows no trial without a generation."""
    values = [record.last.get(metric.name) for metric in metrics]
    good = record.state in ("done", "stopped") and all(v is not None and v == v for v in values)
    point = {name: value for name, value in record.point.items() if name in space}
    return create_trial(
        state=TrialState.COMPLETE if good else TrialState.PRUNED,
        values=[float(v) for v in values if v is not None] if good else None,
        params={name: _as_drawn(space[name], value) for name, value in point.items()},
        distributions={name: _distribution(space[name]) for name in point},
        intermediate_values=_by_step(record, metrics[0].name) if len(metrics) == 1 else None,
        user_attrs=None if good else {FAILED: record.reason},
        system_attrs={GENERATION: generation},
    )


def _by_step(record: TrialRecord, metric: str) -> dict[int, float]:
    return {int(row["steps"]): float(row[metric]) for row in record.rows if row.get(metric) is not None}


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choice is not None:
        plain = all(v is None or isinstance(v, (bool, int, float, str)) for v in parameter.choice)
        return CategoricalDistribution(parameter.choice if plain else list(range(len(parameter.choice))))
    low, high = parameter.bounds
    if parameter.kind == "integer":
        return IntDistribution(int(low), int(high), log=parameter.log, step=int(parameter.step or 1))
    step = float(parameter.step) if parameter.step is not None else None
    return FloatDistribution(float(low), float(high), log=parameter.kind == "loguniform", step=step)


def _as_drawn(parameter: Parameter, value: Any) -> Any:
    """A point's value as Optuna drew it: values that are not plain are drawn by number."""
    if parameter.choice is None or value is None or isinstance(value, (bool, int, float, str)):
        return value
    return parameter.choice.index(value)
