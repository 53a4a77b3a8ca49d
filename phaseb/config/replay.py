"""Settings of the replay buffer."""

from typing import Literal

from pydantic import Field

from phaseb.config.section import Section


class ReplayConfig(Section):
    """Where transitions wait for the learners, and how they are drawn."""

    capacity: int = Field(
        1_000_000,
        ge=2,
        description="Transitions of each source that all shards hold (an episode's end takes the room of one).",
    )
    capacity_bytes: int | None = Field(
        None, ge=1024, description="Bytes that all shards may hold, half for each source, where `capacity` needs more."
    )
    num_shards: int = Field(1, ge=1, le=1024, description="Ray actors that the buffer is spread over.")
    shard_cpus: float = Field(0.0, ge=0, description="CPUs that each shard reserves (0: it shares what there is).")
    prefetch_depth: int = Field(2, ge=0, le=64, description="Calls that a learner keeps in flight ahead of its need.")
    min_size: int = Field(1, ge=1, description="Transitions a shard set must hold before anything is sampled.")
    n_step: int = Field(1, ge=1, le=64, description="Rewards summed before the value function takes over.")
    priority_exponent: float = Field(0.6, ge=0, le=2, description="α: draws are in proportion to priority^α.")
    importance_exponent: float = Field(0.4, ge=0, le=1, description="β: how much of a priority's bias the loss undoes.")
    samples_per_insert: float = Field(
        0.0, ge=0, description="Transitions sampled for each one inserted before sampling waits; 0 means no limit."
    )
    limiter_tolerance: float = Field(
        100_000.0, gt=0, description="Samples by which either side may run ahead of `samples_per_insert`."
    )
    journal: bool = Field(True, description="Write inserts down before acknowledging them: a crash loses none.")
    snapshot_interval_s: float = Field(
        60.0, gt=0, description="Seconds between snapshots of a shard; without the journal, what a crash may lose."
    )
    num_snapshots: int = Field(2, ge=1, le=100, description="Snapshots of each shard that are kept.")
    refresh_interval_s: float = Field(5.0, gt=0, description="Seconds between a learner's looks at the shards' fill.")
    call_timeout_s: float = Field(120.0, gt=0, description="Seconds after which a silent shard counts as down.")
    retry_interval_s: float = Field(1.0, gt=0, description="Seconds between looks at a shard that was down.")
    pin_memory: Literal["auto", "always", "never"] = Field(
        "auto", description="Hand batches over in pinned memory: with a GPU, always, or never."
    )
