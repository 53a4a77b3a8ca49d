"""The arms: the ways to train a policy that a run compares, and how many seeds of each."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from phaseb.config.policy import CLONING
from phaseb.config.section import Section, with_defaults

REAL_ONLY, PLACEBO, STATE_NOISE = "real_only", "placebo", "state_noise"
CLONE = "behaviour_cloning"
STATE_NOISE_STD = 0.1
"""Standard deviation of the noise that the arms state_noise_LEARNER add to latents, whose own is 1."""
CHOSEN = "chosen"
"""In place of a generator's name: the one that the evidence on dev episodes chooses."""


class ArmConfig(Section):
    """One way to train a policy: a learner, and the rollouts that it draws beside the real episodes."""

    learner: str = Field("iql", min_length=1, description="learner: a name under policy.learners")
    rollouts: Literal["none", "stored", "branched"] = Field(
        "none",
        description="stored: made once, for whole episodes; branched: short, under the current policy, refreshed",
    )
    generator: str | None = Field(
        None,
        description="generator of the rollouts: gru, gp, a plug-in, or chosen "
        "(by evidence on dev episodes; for rollouts=branched)",
    )
    weight: Literal["trust", "uniform", "bounds"] = Field(
        "trust",
        description="trust: the gate's weights; uniform: equal weights; bounds: a filter of stored rollouts by "
        "mean and std",
    )
    share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="largest share of a batch that is drawn from the rollouts; "
        "with weight=trust and stored rollouts it is scaled by their mean weight",
    )
    weighting: Literal["sampling", "loss"] = Field(
        "sampling", description="use of the weights: for sampling, or in the loss"
    )

    @property
    def uses_rollouts(self) -> bool:
        return self.rollouts != "none"

    @property
    def draws_by_trust(self) -> bool:
        """Whether the weights of stored rollouts scale its share. A placebo draws as much as its arm does."""
        return self.rollouts == "stored" and self.weight == "trust"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.uses_rollouts and self.generator is None:
            raise ValueError(f"rollouts={self.rollouts} needs a generator, such as gru or gp")
        if self.rollouts == "stored" and self.generator == CHOSEN:
            raise ValueError("generator=chosen is of rollouts=branched; name the generator of stored rollouts")
        if not self.uses_rollouts and self.generator is not None:
            raise ValueError(f"generator={self.generator} makes nothing: set rollouts=stored or rollouts=branched")
        if self.rollouts == "branched" and self.weight == "bounds":
            raise ValueError("weight=bounds filters whole episodes: it needs rollouts=stored")
        return self


DEFAULT_ARMS: dict[str, dict[str, Any]] = {
    CLONE: {"learner": "bc"},
    REAL_ONLY: {"learner": "iql"},
    "fixed_weight": {"generator": "gru", "rollouts": "stored", "weight": "uniform", "share": 0.1},
    "bounds_filter": {"generator": "gru", "rollouts": "stored", "weight": "bounds", "share": 0.1},
    "trust_weighted": {"generator": CHOSEN, "rollouts": "branched", "weight": "trust", "share": 0.5, "learner": "sac"},
}


@dataclass(frozen=True)
class Arm:
    """An arm of a run.

    Attributes:
        name: unique within the run.
        config: how it trains.
        placebo_of: of a placebo, the arm whose rollouts its rows stand in for; else empty.
        control: of an arm that uses rollouts, the arm that learns in the same way from real episodes only.
        placebo: of an arm that uses rollouts, the arm that draws recorded rows in their place.
        state_noise: standard deviation of noise on the latents that it learns from: trivial augmentation.
    """

    name: str
    config: ArmConfig
    placebo_of: str = ""
    control: str = ""
    placebo: str = ""
    state_noise: float = 0.0

    @property
    def is_synthetic(self) -> bool:
        """Whether it learns from what a generator made."""
        return self.config.uses_rollouts and not self.placebo_of

    @property
    def needs_rollouts(self) -> bool:
        """Whether it is trained after a generator's rollouts are made: it draws them, or they scale its share."""
        return self.is_synthetic or self.config.draws_by_trust


def _default(name: str) -> Any:
    return Field(ArmConfig(**DEFAULT_ARMS[name]), description=f"the arm {name}")


class ArmsConfig(Section):
    """The arms that a run compares. Arms of one seed share initial weights, noise and real rows.

    Any further key is an arm of that name. Each arm that uses rollouts brings its controls along.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, ArmConfig]

    names: tuple[str, ...] = Field(
        tuple(DEFAULT_ARMS),
        min_length=1,
        description="arms that are trained: behaviour_cloning, real_only, fixed_weight, bounds_filter, trust_weighted, "
        "or arms of your own under arms.NAME",
    )
    controls: bool = Field(
        True,
        description="for each arm that uses rollouts, also train its control (same learner, real rows only) and its "
        "placebo (recorded rows drawn again in place of rollouts); for bc, act and flow also noise on the states",
    )
    num_seeds: int = Field(3, ge=1, description="seeds an arm; they share the run's data, encoder, model and gate")
    behaviour_cloning: ArmConfig = _default(CLONE)
    real_only: ArmConfig = _default(REAL_ONLY)
    fixed_weight: ArmConfig = _default("fixed_weight")
    bounds_filter: ArmConfig = _default("bounds_filter")
    trust_weighted: ArmConfig = _default("trust_weighted")

    @model_validator(mode="before")
    @classmethod
    def _lay_over_defaults(cls, given: Any) -> Any:
        return with_defaults(DEFAULT_ARMS, given)

    @field_validator("names")
    @classmethod
    def _unique(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("an arm is named twice")
        return names

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.names:
            try:
                self.arm(name)
            except KeyError:
                near = difflib.get_close_matches(name, self.defined, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else f"; define it as arms.{name}"
                hint = f"; write several as [{name}]" if "," in name else hint
                raise ValueError(f"names: no arm is called {name!r}{hint}") from None
        for name in self.__pydantic_extra__ or {}:
            if name not in self.names:
                near = difflib.get_close_matches(name, type(self).model_fields, n=1, cutoff=0.6)
                hint = f"; did you mean arms.{near[0]}?" if near else ""
                raise ValueError(f"{name} is not in arms.names{hint}")
            if name.startswith(tuple(f"{kind}_" for kind in (REAL_ONLY, PLACEBO, STATE_NOISE))):
                raise ValueError(
                    f"{name}: names that begin with {REAL_ONLY}_, {PLACEBO}_ or {STATE_NOISE}_ are those of controls"
                )
        return self

    @property
    def defined(self) -> Mapping[str, ArmConfig]:
        """Every arm that is defined, trained or not, without the controls."""
        return {name: getattr(self, name) for name in DEFAULT_ARMS} | dict(self.__pydantic_extra__ or {})

    def arm(self, name: str) -> Arm:
        """The arm of a name: defined, or a control that follows from one.

        Raises:
            KeyError: for an unknown name.
        """
        if name in self.defined:
            config = self.defined[name]
            if not config.uses_rollouts:
                return Arm(name, config)
            return Arm(name, config, control=self._control(config), placebo=f"{PLACEBO}_{self._first_alike(name)}")
        source, _, of = name.partition("_")
        if source == PLACEBO and of in self.defined and self.defined[of].uses_rollouts:
            return Arm(name, self.defined[of], placebo_of=of)
        if name.startswith(f"{REAL_ONLY}_"):
            return Arm(name, ArmConfig(learner=name.removeprefix(f"{REAL_ONLY}_")))
        if name.startswith(f"{STATE_NOISE}_"):
            learner = name.removeprefix(f"{STATE_NOISE}_")
            return Arm(name, ArmConfig(learner=learner), state_noise=STATE_NOISE_STD)
        raise KeyError(name)

    @property
    def trained(self) -> tuple[Arm, ...]:
        """The arms of the run in order: those of `names`, then the controls and the placebos that they bring, then
        trivial augmentation for those that clone."""
        arms = [self.arm(name) for name in self.names]
        if self.controls:
            users = [arm for arm in arms if arm.is_synthetic]
            noisy = [f"{STATE_NOISE}_{arm.config.learner}" for arm in users if arm.config.learner in CLONING]
            wanted = dict.fromkeys([arm.control for arm in users] + [arm.placebo for arm in users] + noisy)
            arms += [self.arm(name) for name in wanted if name not in self.names]
        return tuple(arms)

    @property
    def baselines(self) -> tuple[str, ...]:
        """Trained arms that need no generator."""
        return tuple(arm.name for arm in self.trained if not arm.needs_rollouts)

    @property
    def real_arms(self) -> tuple[str, ...]:
        """Trained arms that learn from real episodes alone, a clone of the operators last: the controls."""
        names = [arm.name for arm in self.trained if not arm.config.uses_rollouts]
        return tuple(sorted(names, key=lambda name: (name == CLONE, name != REAL_ONLY)))

    def only(self, *names: str) -> "ArmsConfig":
        """The same arms, of which just these are trained, without controls.

        Raises:
            KeyError: for an unknown name.
        """
        for name in names:
            self.arm(name)
        return self.model_copy(update={"names": names, "controls": False})

    def _control(self, config: ArmConfig) -> str:
        return REAL_ONLY if config.learner == self.real_only.learner else f"{REAL_ONLY}_{config.learner}"

    def _first_alike(self, name: str) -> str:
        """The first arm of `names` whose placebo would be the same."""
        wanted = _placebo_key(self.defined[name])
        known = (other for other in self.names if other in self.defined)
        return next((other for other in known if _placebo_key(self.defined[other]) == wanted), name)


def _placebo_key(config: ArmConfig) -> tuple[Any, ...]:
    """What a placebo takes over from its arm."""
    return config.rollouts, config.learner, config.share, (config.generator if config.draws_by_trust else None)
