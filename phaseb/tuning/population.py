"""Population-based training (Jaderberg et al. 2017): schedules found while a population of models trains, once.

All members train up to the same step, then the worst are stopped and each is followed by a copy of one of the best,
under settings a little different from its own. What a member has been trained under is in its point, as changes on the
way, so the winner's schedule is a config like any other, to be trained again from the start.

Ray Tune's own scheduler keeps its population in a pickle and its weights in checkpoints that it may drop too soon; here
the records are the memory: a search killed at any moment goes on from them. A stretch of a member between two turns is
one trial to Tune, so members of a population larger than the cluster take turns.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ray.tune.search import Searcher

from phaseb.config.root import Config
from phaseb.config.tuning import StudyConfig
from phaseb.runtime.seeding import derive_seed
from phaseb.tuning.space import Point, defaults, draw
from phaseb.tuning.trial import FROM, SEED, UNTIL
from phaseb.tuning.trial_store import TrialRecord, TrialStore, trial_key


class Population(Searcher):
    """Proposes stretches of training from one turn to the next. Its memory is the records of the search.

    Args:
        changes: dotted path of the setting that holds changes on the way.
        num_steps: of a whole training.
        end: called with a member that is stopped, after its record was changed.
    """

    def __init__(
        self,
        study: StudyConfig,
        config: Config,
        changes: str,
        num_steps: int,
        records: TrialStore,
        end: Callable[[TrialRecord], None],
    ) -> None:
        super().__init__()
        self._study, self._config, self._records, self._end = study, config, records, end
        self._path, self._num_steps, self._seed = changes, num_steps, config.run.seed
        self._turns = [round(num_steps * i / study.reports) for i in range(study.reports + 1)]
        self._training: dict[str, str] = {}  # Tune's name of a trial: key of the member
        self._finish_turn()
        for place in range(sum(not r.parent for r in records.phase("search")), study.budget.trials):
            self._add(self._first_point(place), "")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher for a resume of its own, which is never used

    @property
    def num_stretches(self) -> int:
        """Stretches left at most."""
        return self._study.reports * self._study.budget.trials - sum(self._behind(m) for m in self._members())

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        turn = self._turn()
        if turn == self._study.reports:
            return None if self._training else Searcher.FINISHED
        if turn and not self._made(turn):
            if self._training:
                return None  # all came to the turn, not all were told of as ended
            self._make(turn)
        members = self._members()
        waiting = [m for m in members if self._behind(m) == turn and m.key not in self._training.values()]
        if not waiting:
            return None  # for the others to come as far
        member = waiting[0]
        self._training[trial_id] = member.key
        origin = [member.key, turn] if member.rows else list(_parent_of(member))
        until = [turn + 1, self._turns[turn + 1]]
        return {**member.point, SEED: self._seed, FROM: origin if turn else [], UNTIL: until}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        self._training.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        return None  # the records are the memory

    def restore(self, checkpoint_path: str) -> None:
        return None

    def _members(self) -> list[TrialRecord]:
        return [r for r in self._records.phase("search") if r.state in ("running", "done")]

    def _behind(self, member: TrialRecord) -> int:
        """Turns that a member has behind it; one that took over weights begins where they were."""
        return max(_parent_of(member)[1], sum(member.steps >= steps for steps in self._turns[1:]))

    def _turn(self) -> int:
        """Turns that all members have behind them."""
        return min((self._behind(m) for m in self._members()), default=self._study.reports)

    def _made(self, turn: int) -> bool:
        return any(_parent_of(r)[1] == turn for r in self._records.phase("search"))

    def _make(self, turn: int) -> None:
        """Stop the worst, and let copies of the best follow them and those that failed."""
        members = self._members()
        metric = self._study.metrics[0]
        sign = 1 if metric.mode == "min" else -1
        best_trials = sorted(members, key=lambda m: sign * m.last.get(metric.name, sign * math.inf))
        few = min(len(best_trials) // 2, max(1, round(self._study.scheduler.exploit * len(best_trials))))
        best, worst = best_trials[: max(1, few)], best_trials[len(best_trials) - few :]
        gaps = self._study.budget.trials - len(members)
        for place, replaced in enumerate([*worst, *[None] * gaps]):
            parent = best[place % len(best)]
            self._add(self._next_point(parent, turn, place), f"{parent.key}@{turn}", replaced)
        self._finish_turn()

    def _finish_turn(self) -> None:
        """Stop whoever was replaced; a turn that a kill cut short is finished so, too."""
        replaced = {r.replaces for r in self._records.phase("search")}
        for record in self._records.phase("search"):
            if record.key in replaced and record.state == "running":
                record.state = "stopped"
                self._records.put(record)
                self._end(record)

    def _add(self, point: Point, parent: str, replaced: TrialRecord | None = None) -> None:
        key, replaces = trial_key(point, self._seed), replaced.key if replaced else ""
        self._records.put(TrialRecord(key, point, self._seed, "search", parent=parent, replaces=replaces))

    def _first_point(self, place: int) -> Point:
        own = defaults(self._study.space, self._config) if self._study.search.try_defaults else None
        if place == 0 and own is not None:
            return own
        return self._unseen(lambda rng: draw(self._study.space, Perturbed({}, rng, 1.0)), "first", place)

    def _next_point(self, parent: TrialRecord, turn: int, place: int) -> Point:
        """The parent's point, with settings near those that it has now from this turn on."""
        prefix = self._path.rpartition(".")[0] + "."
        now = {name: value for name, value in parent.point.items() if name != self._path}
        before = list(parent.point.get(self._path, []))
        for change in before:
            now |= {prefix + name: value for name, value in change["set"].items()}

        def moved(rng: np.random.Generator) -> Point:
            new = draw(self._study.space, Perturbed(now, rng, self._study.scheduler.resample))
            settings = {n.removeprefix(prefix): v for n, v in new.items() if n not in now or now[n] != v}
            first = {name: value for name, value in parent.point.items() if name != self._path}
            return {**first, self._path: [*before, {"at": self._turns[turn] / self._num_steps, "set": settings}]}

        return self._unseen(moved, "turn", turn, place)

    def _unseen(self, make: Callable[[np.random.Generator], Point], *names: str | int) -> Point:
        """A point that no member has had, where the space holds one."""
        point: Point = {}
        for attempt in range(100):
            point = make(np.random.default_rng(derive_seed(self._study.search.seed, *names, attempt)))
            if self._records.get(trial_key(point, self._seed)) is None:
                break
        return point


def _parent_of(member: TrialRecord) -> tuple[str, int]:
    """Key of the member whose weights this one began with, and the turn at which; "" and 0 for a first member."""
    key, _, turn = member.parent.partition("@")
    return key, int(turn or 0)


class Perturbed:
    """Draws values near those of before (as `Draws`): the factors and chances of Jaderberg et al.

    Args:
        before: values by setting; what is not among them is drawn anew.
        resample: chance that a value is drawn anew anyway.
    """

    def __init__(self, before: Mapping[str, Any], rng: np.random.Generator, resample: float) -> None:
        self._before, self._rng, self._resample = before, rng, resample

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        return self._number(name, low, high, step, log)

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return round(self._number(name, low, high, step, log))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        old = self._before.get(name)
        if self._anew(name) or old not in choices:
            return choices[int(self._rng.integers(len(choices)))]
        place = list(choices).index(old) + int(self._rng.integers(-1, 2))  # neighbours in the list
        return choices[min(max(place, 0), len(choices) - 1)]

    def _number(self, name: str, low: float, high: float, step: float | None, log: bool) -> float:
        if self._anew(name):
            value = float(np.exp(self._rng.uniform(np.log(low), np.log(high))) if log else self._rng.uniform(low, high))
        elif log:
            value = self._before[name] * float(self._rng.choice([0.8, 1.25]))
        else:
            value = self._before[name] + (high - low) * float(self._rng.choice([-0.2, 0.2]))
        value = min(max(value, low), high)
        return low + round((value - low) / step) * step if step else value

    def _anew(self, name: str) -> bool:
        return name not in self._before or bool(self._rng.random() < self._resample)
