"""Settings of the policies: the learner, its rollouts, the replay buffer and the arms that are compared."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from phaseb.config.section import Section, with_defaults

Share = Annotated[float, Field(ge=0, le=1)]
Algorithm = Literal["iql", "sac", "bc", "act", "flow"]
CHUNKED = ("act", "flow")
"""Algorithms that clone chunks of actions."""
CLONING = ("bc", *CHUNKED)
"""Algorithms that learn recorded actions alone, and no values."""


class OfflineConfig(Section):
    """Offline regularisation. The options can be combined."""

    algorithm: Algorithm = Field("iql", description="algorithm of a plug-in learner that names none")
    bc_weight: float = Field(
        3.0, ge=0, description="weight of |policy mean - recorded action|^2 on real rows (TD3+BC-like); 0 is off"
    )
    bc_fraction: float = Field(
        0.4, ge=0, lt=1, description="share of the steps, at the start, of behaviour cloning alone"
    )
    critic_warmup_fraction: float = Field(
        0.2, ge=0, lt=1, description="share of the steps, after cloning, in which values alone are learned"
    )
    normalise_value: bool = Field(
        True, description="divide the actor's value term by the batch's mean absolute deviation of Q from its mean"
    )
    pessimism: Literal["min", "spread", "pair"] = Field(
        "min",
        description="an ensemble's value: its minimum (SAC-N), mean - spread_weight x std, or a random pair's minimum",
    )
    spread_weight: float = Field(
        1.0, ge=0, description="standard deviations subtracted from the mean, for pessimism=spread"
    )
    truncation_pessimism: float = Field(
        1.0,
        ge=0,
        description="further standard deviations subtracted from the value of a state at which a rollout was cut",
    )
    diversity_weight: float = Field(0.0, ge=0, description="EDAC's weight on the critics' aligned action gradients")
    cql_weight: float = Field(0.0, ge=0, description="weight of the conservative penalty on unseen actions; 0 is off")
    iql_expectile: float = Field(0.7, gt=0.5, lt=1, description="expectile of implicit Q-learning's value")
    iql_beta: float = Field(3.0, gt=0, description="inverse temperature of its advantage weights")


class AugmentationConfig(Section):
    """Short rollouts that branch from real states under the current policy, made again as it improves."""

    refresh_steps: int = Field(250, ge=1, description="learner steps between two generations of rollouts")
    starts: int = Field(500, ge=1, description="real states that each generation branches from, a run")
    horizon: int = Field(8, ge=1, description="most steps of a rollout")
    cut_quantile: float = Field(
        0.99, gt=0, le=1, description="quantile of the model's disagreement on real data above which a rollout is cut"
    )
    min_skill: float = Field(
        0.5,
        lt=1,
        description="forecast skill, mean over latents, below which rollouts end; a fifth of it for the worst latent",
    )
    min_reward_skill: float | None = Field(
        0.1,
        lt=1,
        description="the same for rewards, against forecasting their mean; null: rewards do not count (data have none)",
    )
    penalty: float = Field(1.0, ge=0, description="factor of the uncertainty that is subtracted from rewards (MOPO)")
    reward_pessimism: float = Field(
        1.0, ge=0, description="factor of the reward's standard deviation that is subtracted from rewards"
    )


class LearnerConfig(Section):
    """A learner's differences from policy.* and policy.offline.*; null: no difference."""

    algorithm: Algorithm | None = Field(
        None,
        description="iql: implicit Q-learning; sac: soft actor-critic; bc: behaviour cloning by the mean of five "
        "networks; act: of chunks of actions by a transformer; flow: of chunks by flow matching",
    )
    binary_actions: bool | None = Field(None, description="see policy.binary_actions")
    num_critics: int | None = Field(None, ge=2, description="see policy.num_critics")
    bc_weight: float | None = Field(None, ge=0, description="see offline.bc_weight")
    diversity_weight: float | None = Field(None, ge=0, description="see offline.diversity_weight")
    cql_weight: float | None = Field(None, ge=0, description="see offline.cql_weight")
    bc_fraction: float | None = Field(None, ge=0, lt=1, description="see offline.bc_fraction")
    critic_warmup_fraction: float | None = Field(None, ge=0, lt=1, description="see offline.critic_warmup_fraction")


DEFAULT_LEARNERS: dict[str, dict[str, Any]] = {
    "iql": {"algorithm": "iql", "diversity_weight": 0.0, "cql_weight": 0.0},
    "sac": {
        "algorithm": "sac",
        "binary_actions": True,
        "num_critics": 3,
        "bc_weight": 3.0,
        "diversity_weight": 0.0,
        "cql_weight": 0.0,
        "bc_fraction": 0.2,
        "critic_warmup_fraction": 0.1,
    },
    "edac": {"algorithm": "sac", "binary_actions": True, "num_critics": 5, "bc_weight": 10.0, "diversity_weight": 1.0},
    "bc": {"algorithm": "bc"},
    "act": {"algorithm": "act"},
    "flow": {"algorithm": "flow"},
}


def _default(name: str, about: str) -> Any:
    return Field(LearnerConfig(**DEFAULT_LEARNERS[name]), description=about)


class LearnersConfig(Section):
    """The learners that arms name. Any other key is a plug-in learner of that name."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, LearnerConfig]

    iql: LearnerConfig = _default("iql", "implicit Q-learning (Kostrikov et al. 2022)")
    sac: LearnerConfig = _default("sac", "soft actor-critic beside a behaviour term")
    edac: LearnerConfig = _default("edac", "soft actor-critic whose critics are kept apart (An et al. 2021)")
    bc: LearnerConfig = _default("bc", "behaviour cloning: the floor")
    act: LearnerConfig = _default("act", "cloning of action chunks, ensembled over time (Zhao et al. 2023)")
    flow: LearnerConfig = _default("flow", "cloning of action chunks by flow matching (Lipman et al. 2023)")

    @model_validator(mode="before")
    @classmethod
    def _lay_over_defaults(cls, given: Any) -> Any:
        return with_defaults(DEFAULT_LEARNERS, given)

    @property
    def defined(self) -> Mapping[str, LearnerConfig]:
        return {name: getattr(self, name) for name in DEFAULT_LEARNERS} | dict(self.__pydantic_extra__ or {})


class PolicyConfig(Section):
    """Training of policies. All (arm, seed) pairs train in parallel, with the results of separate training."""

    num_steps: int = Field(5000, ge=1, description="learner steps")
    batch_size: int = Field(128, ge=2, description="rows of a step, over all workers")
    discount: float = Field(0.97, gt=0, lt=1, description="discount a step")
    num_critics: int = Field(3, ge=2, description="critics of the ensemble")
    width: int = Field(128, ge=8, description="units of a hidden layer")
    critic_lr: float = Field(1e-3, gt=0, description="learning rate of the critics")
    actor_lr: float = Field(3e-4, gt=0, description="learning rate of the actor")
    tau: float = Field(0.02, gt=0, le=1, description="Polyak rate of the target critics")
    actor_ema: float = Field(
        0.005, gt=0, le=1, description="rate of the policy's moving average, which acts; 1: no average"
    )
    binary_actions: bool = Field(
        False,
        description="treat an action with two recorded levels (a gripper) as a binary choice (SAC)",
    )
    chunk_steps: int = Field(8, ge=1, description="actions that the learners act and flow plan at once")
    runs_per_batch: int = Field(
        3, ge=1, description="runs whose networks are trained as one batch; changes the speed only"
    )
    offline: OfflineConfig = Field(default_factory=OfflineConfig)
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig)
    learners: LearnersConfig = Field(default_factory=LearnersConfig)

    @property
    def learns_values(self) -> bool:
        """Whether the learner follows values, which need rewards that differ."""
        return self.offline.algorithm not in CLONING

    @property
    def bc_steps(self) -> int:
        """The first step that does more than clone."""
        return round(self.offline.bc_fraction * self.num_steps) if self.learns_values else self.num_steps

    def chunk_steps_of(self, learners: Iterable[str]) -> int:
        """Actions that come with a row for these learners: 1 where none of them plans chunks."""
        chunked = any(self.of_learner(name).offline.algorithm in CHUNKED for name in learners)
        return self.chunk_steps if chunked else 1

    def of_learner(self, name: str) -> "PolicyConfig":
        """The settings of the learner of that name; of an empty one, `policy.*` as it stands.

        Raises:
            KeyError: for an unknown name.
        """
        if not name:
            return self
        own = self.learners.defined[name].model_dump(exclude_none=True)
        shared = {key: own.pop(key) for key in list(own) if key in type(self).model_fields}
        return self.model_copy(update={**shared, "offline": self.offline.model_copy(update=own)})

    @model_validator(mode="after")
    def _iql_asks_no_unseen_action(self) -> "PolicyConfig":
        for name in ("", *self.learners.defined):
            offline, path = self.of_learner(name).offline, f"learners.{name}" if name else "offline"
            if offline.algorithm == "iql" and (offline.cql_weight or offline.diversity_weight):
                raise ValueError(f"{path}.algorithm=iql asks no unseen action: cql_weight, diversity_weight need sac")
        return self


class ReplayConfig(Section):
    """The buffer of transitions from which learners draw their batches."""

    capacity: int = Field(
        1_000_000,
        ge=2,
        description="Transitions of each source over all shards. An episode's end takes the place of one.",
    )
    num_shards: int = Field(1, ge=1, le=1024, description="Ray actors that the buffer is spread over.")
    shard_cpus: float = Field(0.0, ge=0, description="CPUs that each shard reserves; 0: none.")
