"""Settings of the policies: the learner, its rollouts, the replay buffer and the arms that are compared."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from phaseb.config.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class OfflineConfig(Section):
    """What keeps a learner that cannot try its actions from believing in them. The options add up."""

    algorithm: Literal["iql", "sac"] = Field(
        "iql",
        description="implicit Q-learning, which asks for no value of an action that nobody took, or soft actor-critic",
    )
    behaviour_weight: float = Field(
        3.0, ge=0, description="weight of |policy mean - recorded action|^2 on real rows (TD3+BC-like); 0 is off"
    )
    clone_share: float = Field(
        0.4, ge=0, lt=1, description="share of the steps, the first, that only clone: cheap; values start near data"
    )
    value_share: float = Field(
        0.2, ge=0, lt=1, description="share of the steps, the next, in which values are learned while the policy waits"
    )
    normalise_value: bool = Field(
        True, description="divide the actor's value term by the batch's mean absolute deviation of Q from its mean"
    )
    pessimism: Literal["min", "spread", "pair"] = Field(
        "min",
        description="an ensemble's value: its minimum (SAC-N), mean - spread_weight x std, or a random pair's minimum",
    )
    spread_weight: float = Field(1.0, ge=0, description="standard deviations taken off the mean, for pessimism=spread")
    cut_spread_weight: float = Field(
        1.0, ge=0, description="further standard deviations taken off the value of a state where a rollout was cut"
    )
    diversity_weight: float = Field(0.0, ge=0, description="EDAC's weight on the critics' aligned action gradients")
    cql_weight: float = Field(0.0, ge=0, description="weight of the conservative penalty on unseen actions; 0 is off")
    cql_actions: int = Field(4, ge=1, description="actions drawn a row for the conservative penalty, of either kind")
    iql_expectile: float = Field(0.7, gt=0.5, lt=1, description="expectile of implicit Q-learning's value")
    iql_temperature: float = Field(3.0, gt=0, description="inverse temperature of its advantage weights")
    iql_synthetic_weight: float = Field(
        1.0, ge=0, description="weight of synthetic rows in what draws the policy to good actions; values use them all"
    )


class AugmentationConfig(Section):
    """Short rollouts that branch from real states under the current policy, made again as it improves."""

    enabled: bool = Field(True, description="whether rollouts follow the policy; else only stored ones are used")
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
        0.5, lt=1, description="rollouts end before the step at which forecast skill, mean over latents, is less"
    )
    min_worst_skill: float = Field(0.1, lt=1, description="the same for the latent dimension that is forecast worst")
    min_reward_skill: float = Field(0.1, lt=1, description="the same for rewards, against forecasting their mean")
    penalty: float = Field(1.0, ge=0, description="reward less this times the disagreement (MOPO)")
    reward_pessimism: float = Field(
        1.0, ge=0, description="reward less this times its own doubt, where the model tells it; 0: as expected"
    )
    keep_generations: int = Field(6, ge=1, description="how many generations stay in the replay")


class FollowingConfig(Section):
    """How a policy learns that has rollouts of its own: they answer what offline data leaves open, so that a learner
    may ask what no operator did. Without rollouts that may be followed, it learns as all others do."""

    algorithm: Literal["iql", "sac"] = Field("sac", description="see offline.algorithm")
    switches: bool = Field(
        True,
        description="an action that was recorded at two levels only, such as a gripper's, is a choice of the two, and "
        "a learner weighs both: for algorithm=sac",
    )
    num_critics: int = Field(3, ge=2, description="critics of the ensemble")
    behaviour_weight: float = Field(3.0, ge=0, description="see offline.behaviour_weight")
    diversity_weight: float = Field(0.0, ge=0, description="see offline.diversity_weight")
    cql_weight: float = Field(0.0, ge=0, description="see offline.cql_weight")
    clone_share: float = Field(0.2, ge=0, lt=1, description="see offline.clone_share")
    value_share: float = Field(0.1, ge=0, lt=1, description="see offline.value_share")


class PolicyConfig(Section):
    """The learner of a policy. Every (arm, seed) is a run; runs are trained together, each as if alone."""

    num_steps: int = Field(5000, ge=1, description="learner steps")
    batch_size: int = Field(128, ge=2, description="rows of a step, over all workers")
    discount: float = Field(0.97, gt=0, lt=1, description="discount a step")
    num_critics: int = Field(3, ge=2, description="critics of the ensemble")
    width: int = Field(128, ge=8, description="units of a hidden layer")
    critic_lr: float = Field(1e-3, gt=0, description="learning rate of the critics")
    actor_lr: float = Field(3e-4, gt=0, description="learning rate of the actor")
    target_rate: float = Field(0.02, gt=0, le=1, description="share of the critics moved into their targets a step")
    actor_average_rate: float = Field(
        0.005, gt=0, le=1, description="share of the policy moved a step into the average that acts; 1 averages nothing"
    )
    target_entropy: float | None = Field(None, description="entropy that the temperature aims at; null: -(action size)")
    entropy_of: Literal["gaussian", "action"] = Field(
        "gaussian",
        description="what entropy counts: the Gaussian before squashing, or the action (SAC's own: it pulls a policy "
        "away from actions at the bounds, such as a gripper's)",
    )
    gradient_limit: float = Field(10.0, gt=0, description="largest norm of a run's gradient, a network")
    reward_std: float = Field(
        0.23, gt=0, description="standard deviation that rewards are scaled to; values are learned less their mean"
    )
    switches: bool = Field(
        False,
        description="an action that was recorded at two levels only, such as a gripper's, is a choice of the two, and "
        "a learner weighs both: for offline.algorithm=sac",
    )
    prefetch: int = Field(20, ge=1, description="batches that are asked of the replay at once")
    runs_together: int = Field(3, ge=1, description="runs whose networks are one batched product: speed, not results")
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
    """Where transitions wait for the learners, and how they are drawn."""

    capacity: int = Field(
        1_000_000,
        ge=2,
        description="Transitions of each source that all shards hold (an episode's end takes the room of one).",
    )
    num_shards: int = Field(1, ge=1, le=1024, description="Ray actors that the buffer is spread over.")
    shard_cpus: float = Field(0.0, ge=0, description="CPUs that each shard reserves (0: it shares what there is).")
    prefetch_depth: int = Field(2, ge=0, le=64, description="Calls that a learner keeps in flight ahead of its need.")


Arm = Literal["real_only", "fixed_weight", "bounds_filter", "trust_weighted"]


class ArmsConfig(Section):
    """What is compared. Every arm trains with the same settings, seeds and budget; only its batches differ."""

    names: tuple[Arm, ...] = Field(
        ("real_only", "fixed_weight", "bounds_filter", "trust_weighted"),
        min_length=1,
        description="real_only; fixed_weight: ungated rollouts at a fixed share; bounds_filter: those whose mean and "
        "std lie in real bounds; trust_weighted: those that the gate trusts, as far as it trusts them",
    )
    num_seeds: int = Field(3, ge=1, description="seeds an arm; they share the run's data, encoder, model and gate")
    fixed_share: float = Field(
        0.1, ge=0, le=1, description="synthetic share of a batch of fixed_weight and of bounds_filter"
    )
    trusted_share: float = Field(
        0.5, ge=0, le=1, description="largest synthetic share of a batch of trust_weighted: what full trust would give"
    )
    weighting: Literal["sampling", "loss"] = Field(
        "sampling", description="where trust_weighted's weights act: in what is drawn, or in the loss; never in both"
    )
