"""Settings of the policies: the learner, its rollouts, the replay buffer and the arms that are compared."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from phaseb.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class OfflineConfig(Section):
    """Offline regularisation. The options can be combined."""

    algorithm: Literal["iql", "sac"] = Field(
        "iql",
        description="iql: implicit Q-learning; sac: soft actor-critic",
    )
    behaviour_weight: float = Field(
        3.0, ge=0, description="weight of |policy mean - recorded action|^2 on real rows (TD3+BC-like); 0 is off"
    )
    clone_share: float = Field(
        0.4, ge=0, lt=1, description="share of the steps, at the start, of behaviour cloning alone"
    )
    value_share: float = Field(
        0.2, ge=0, lt=1, description="share of the steps, after cloning, in which values alone are learned"
    )
    normalise_value: bool = Field(
        True, description="divide the actor's value term by the batch's mean absolute deviation of Q from its mean"
    )
    pessimism: Literal["min", "spread", "pair"] = Field(
        "min",
        description="an ensemble's value: its minimum (SAC-N), mean - spread_weight x std, or a random pair's minimum",
    )
    spread_weight: float = Field(1.0, ge=0, description="standard deviations subtracted from the mean, for "
                                            "pessimism=spread")
    cut_spread_weight: float = Field(
        1.0, ge=0, description="further standard deviations subtracted from the value of a state at which a "
                   "rollout was cut"
    )
    diversity_weight: float = Field(0.0, ge=0, description="EDAC's weight on the critics' aligned action gradients")
    cql_weight: float = Field(0.0, ge=0, description="weight of the conservative penalty on unseen actions; 0 is off")
    cql_actions: int = Field(4, ge=1, description="actions drawn a row for the conservative penalty, of either kind")
    iql_expectile: float = Field(0.7, gt=0.5, lt=1, description="expectile of implicit Q-learning's value")
    iql_temperature: float = Field(3.0, gt=0, description="inverse temperature of its advantage weights")
    iql_synthetic_weight: float = Field(
        1.0, ge=0, description="weight of synthetic rows in the policy's loss; values use all rows"
    )


class AugmentationConfig(Section):
    """Short rollouts that branch from real states under the current policy, made again as it improves."""

    enabled: bool = Field(True, description="make rollouts under the policy; else use stored ones only")
    generator: str = Field("gp", description="generator that policies branch in: gp, gru or a name of dynamics.plugins")
    refresh_steps: int = Field(250, ge=1, description="learner steps between two generations of rollouts")
    first_step: int = Field(
        0, ge=0, description="learner step of the first generation, or the end of cloning if that is later"
    )
    starts: int = Field(500, ge=1, description="real states that each generation branches from, a run")
    horizon: int = Field(8, ge=1, description="most steps of a rollout")
    cut_quantile: float = Field(
        0.99, gt=0, le=1, description="quantile of the model's disagreement on real data above which a rollout is cut"
    )
    min_skill: float = Field(
        0.5, lt=1, description="forecast skill, mean over latents, below which rollouts end"
    )
    min_worst_skill: float = Field(0.1, lt=1, description="the same for the worst latent dimension")
    min_reward_skill: float = Field(0.1, lt=1, description="the same for rewards, against forecasting their mean")
    penalty: float = Field(1.0, ge=0, description="factor of the uncertainty that is subtracted from rewards (MOPO)")
    reward_pessimism: float = Field(
        1.0, ge=0, description="factor of the reward's standard deviation that is subtracted from rewards"
    )
    keep_generations: int = Field(6, ge=1, description="generations of rollouts in the replay")


class FollowingConfig(Section):
    """How a policy learns that has rollouts of its own: they answer what offline data leaves open, so that a learner
    may ask what no operator did. Without rollouts that may be followed, it learns as all others do."""

    algorithm: Literal["iql", "sac"] = Field("sac", description="see offline.algorithm")
    switches: bool = Field(
        True,
        description="treat an action with two recorded levels (a gripper) as a binary choice (algorithm=sac)",
    )
    num_critics: int = Field(3, ge=2, description="critics of the ensemble")
    behaviour_weight: float = Field(3.0, ge=0, description="see offline.behaviour_weight")
    diversity_weight: float = Field(0.0, ge=0, description="see offline.diversity_weight")
    cql_weight: float = Field(0.0, ge=0, description="see offline.cql_weight")
    clone_share: float = Field(0.2, ge=0, lt=1, description="see offline.clone_share")
    value_share: float = Field(0.1, ge=0, lt=1, description="see offline.value_share")


class PolicyConfig(Section):
    """Training of policies. All (arm, seed) pairs train in parallel, with the results of separate training."""

    num_steps: int = Field(5000, ge=1, description="learner steps")
    batch_size: int = Field(128, ge=2, description="rows of a step, over all workers")
    discount: float = Field(0.97, gt=0, lt=1, description="discount a step")
    num_critics: int = Field(3, ge=2, description="critics of the ensemble")
    width: int = Field(128, ge=8, description="units of a hidden layer")
    critic_lr: float = Field(1e-3, gt=0, description="learning rate of the critics")
    actor_lr: float = Field(3e-4, gt=0, description="learning rate of the actor")
    target_rate: float = Field(0.02, gt=0, le=1, description="Polyak rate of the target critics")
    actor_average_rate: float = Field(
        0.005, gt=0, le=1, description="rate of the policy's moving average, which acts; 1: no average"
    )
    target_entropy: float | None = Field(None, description="entropy that the temperature aims at; null: -(action size)")
    entropy_of: Literal["gaussian", "action"] = Field(
        "gaussian",
        description="entropy of the Gaussian before squashing, or of the action (as in SAC; keeps actions off "
        "their bounds)",
    )
    gradient_limit: float = Field(10.0, gt=0, description="largest gradient norm of a run's network")
    reward_std: float = Field(
        0.23, gt=0, description="standard deviation to which rewards are scaled; their mean is subtracted for values"
    )
    switches: bool = Field(
        False,
        description="treat an action with two recorded levels (a gripper) as a binary choice (SAC)",
    )
    prefetch: int = Field(20, ge=1, description="batches in one request to the replay")
    runs_together: int = Field(3, ge=1, description="runs whose networks are trained as one batch; changes the "
                                        "speed only")
    offline: OfflineConfig = Field(default_factory=OfflineConfig)
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig)
    following: FollowingConfig = Field(default_factory=FollowingConfig)

    @property
    def clone_until(self) -> int:
        """The first step that does more than clone."""
        return round(self.offline.clone_share * self.num_steps)

    def where_followed(self) -> "PolicyConfig":
        """The same learner for the runs that have rollouts of their own."""
        own = self.following
        names = ("algorithm", "behaviour_weight", "diversity_weight", "cql_weight", "clone_share", "value_share")
        offline = self.offline.model_copy(update={name: getattr(own, name) for name in names})
        return self.model_copy(
            update={"offline": offline, "switches": own.switches, "num_critics": own.num_critics}
        )

    @model_validator(mode="after")
    def _implicit_q_has_no_conservative_penalty(self) -> "PolicyConfig":
        for name, own in (("offline", self.offline), ("following", self.following)):
            if own.algorithm == "iql" and (own.cql_weight or own.diversity_weight):
                raise ValueError(f"{name}.algorithm=iql asks no unseen action: cql_weight, diversity_weight need sac")
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
    prefetch_depth: int = Field(2, ge=0, le=64, description="Calls that a learner keeps in flight ahead of its need.")


Arm = Literal["real_only", "fixed_weight", "bounds_filter", "trust_weighted"]


class ArmsConfig(Section):
    """The arms that a run compares. They share settings, seeds and budget. Only their batches differ."""

    names: tuple[Arm, ...] = Field(
        ("real_only", "fixed_weight", "bounds_filter", "trust_weighted"),
        min_length=1,
        description="real_only; fixed_weight: ungated rollouts; bounds_filter: rollouts within real bounds; "
        "trust_weighted: weighed by the gate",
    )
    num_seeds: int = Field(3, ge=1, description="seeds an arm; they share the run's data, encoder, model and gate")
    fixed_share: float = Field(
        0.1, ge=0, le=1, description="synthetic share of a batch of fixed_weight and of bounds_filter"
    )
    trusted_share: float = Field(
        0.5, ge=0, le=1, description="largest synthetic share of a batch of trust_weighted, at full trust"
    )
    weighting: Literal["sampling", "loss"] = Field(
        "sampling", description="use of trust_weighted's weights: for sampling, or in the loss"
    )
