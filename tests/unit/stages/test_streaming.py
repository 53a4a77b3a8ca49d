"""Stages over more episodes than they hold at once: what passes in parts comes out as if it had come whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from episode_strategies import make_episode, make_trajectories, same

from phaseb.bricks.manifest import fit_bricks
from phaseb.config.data import EnvironmentConfig, ValuationConfig
from phaseb.config.dynamics import SynthesisConfig
from phaseb.config.encoder import BricksConfig
from phaseb.config.policy import ReplayConfig
from phaseb.config.root import Config
from phaseb.episodes.shards import read_episodes, read_trajectories, shard_names, write_trajectories
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.pipeline.dataset_stats import DatasetStats
from phaseb.replay.local import LocalReplay
from phaseb.replay.spec import SampleSpec
from phaseb.runtime.storage import Store
from phaseb.stages import synthesize
from phaseb.stages.bricks import brick_of_episodes, sort_episodes
from phaseb.stages.collect import record_shard
from phaseb.stages.gate import gate_side
from phaseb.stages.policy import every_episode
from phaseb.stages.replay_streams import insert_all, schema_of
from phaseb.stages.splits import discriminator_episodes
from phaseb.stages.synthesize import make_plan, write_plan
from phaseb.workcell.collect import collect_episodes

STORED = Config.model_validate({"arms": {"names": ["mine"], "mine": {"generator": "gru", "rollouts": "stored"}}})


def made_of(real: Trajectories) -> Trajectories:
    weights = np.abs(real.rewards)
    names = tuple(f"s{i}" for i in range(len(real)))
    return replace(real, ids=names, splits=("",) * len(real), weights=weights, lineage={"model": ("m",) * len(real)})


@pytest.mark.parametrize("num_shards", [1, 3])
def test_a_replay_filled_in_parts_draws_what_one_filled_at_once_draws(num_shards: int) -> None:
    real = make_trajectories([5] * 9)
    made, config = made_of(real), ReplayConfig(capacity=4000, num_shards=num_shards)
    cuts = [range(4), range(4, 5), range(5, 9)]
    drawn = []
    for parts in ([range(9)], cuts):
        replay, stored = LocalReplay(schema_of(real, STORED), config), [made.select(p) for p in (*parts, range(0))]
        insert_all(replay, STORED, real, [real.select(p) for p in parts], {"gru": stored}, {"gru": 5})
        specs = [SampleSpec("a", 0, 0.0), SampleSpec("b", 1, 0.5, "stored:gru:trust", "sampling")]
        drawn.append(replay.source(specs, 16, 0.9).sample(0, 8))
    for name, values in drawn[0].items():
        assert values.tobytes() == drawn[1][name].tobytes(), name


def test_more_than_the_replay_holds_is_thinned_evenly_not_pushed_out(tmp_path: Path) -> None:
    real = make_trajectories([4] * 60)
    store = Store.at(tmp_path)
    write_trajectories(store.folder("latents"), real, 5)
    write_trajectories(store.folder("synthetic", "gru"), made_of(real), 5)
    arms = {"names": ["real_only", "fixed_weight"], "controls": False}
    roomy, tight = (Config.model_validate({"replay": {"capacity": size}, "arms": arms}) for size in (400, 100))
    recorded, made = every_episode(roomy, store)
    assert (sum(map(len, recorded)), sum(map(len, made["gru"]))) == (60, 60)
    (part,) = every_episode(tight, store)[0]
    assert 10 <= len(part) <= 30  # about 20 of 60 have room
    assert np.ptp([int(name[1:]) for name in part.ids]) > 40


def test_a_short_plan_is_one_block_and_a_long_one_uses_every_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, config = make_trajectories([6] * 5), SynthesisConfig(num_episodes=23, horizon=6)
    monkeypatch.setattr(synthesize, "BATCH_SIZE", 4)
    store = Store.at(tmp_path)
    write_plan(store.folder("short"), real, config, seed=3)
    short, whole = read_trajectories(store.folder("short")), make_plan(real, config, 3)
    assert short.ids == whole.ids
    assert short.actions.tobytes() == whole.actions.tobytes()
    assert short.lineage == whole.lineage
    monkeypatch.setattr(synthesize, "ROLLOUTS_AT_ONCE", 10)
    write_plan(store.folder("long"), real, config, seed=3)
    assert shard_names(store.folder("long")) == shard_names(store.folder("short"))
    long = read_trajectories(store.folder("long"))
    assert long.ids == whole.ids
    counts = [long.lineage["start_episode"].count(name) for name in real.ids]
    assert min(counts) >= 3
    blocks = [long.actions[first : first + 8] for first in (0, 8, 16)]
    assert not np.array_equal(blocks[0][:7], blocks[1][:7])
    assert not np.array_equal(blocks[1][:7], blocks[2][:7])


def test_every_training_episode_gets_the_brick_of_its_own_fit(tmp_path: Path) -> None:
    data = make_trajectories([6] * 30, splits=("train",) * 24 + ("dev",) * 6)
    store = Store.at(tmp_path)
    write_trajectories(store.folder("latents"), data, 7)
    train = data.split("train")
    bricks = fit_bricks(BricksConfig(num_bricks=3), ValuationConfig(), train, 0)
    sort_episodes(store.folder("latents"), store.folder("bricks", "episodes"), bricks)
    told = {e["id"]: e["brick"] for e in bricks.manifest()["episodes"]}
    assert brick_of_episodes(store) == told
    part = fit_bricks(BricksConfig(num_bricks=3), ValuationConfig(), train.select(range(12)), 0)
    sort_episodes(store.folder("latents"), store.folder("bricks", "episodes"), part)
    found = brick_of_episodes(store)
    assert set(found) == set(train.ids)
    assert set(found.values()) <= {b.id for b in part.bricks}


def test_the_gate_never_sees_the_critics_episodes_whatever_their_lengths() -> None:
    config = Config.model_validate(
        {
            "dynamics": {"gru": {"weights": {"trust": 0.1}}},
            "synthesis": {"horizon": 6},
            "memory": {"gate_episodes": 5},
        }
    )
    train = make_trajectories([6, 3] * 12)
    critic, gate = discriminator_episodes(config, train), gate_side(config, train)
    assert critic is not None
    assert not set(critic.ids) & set(gate.ids)
    assert len(gate) == 5
    assert gate.lengths.min() == 6


def test_a_census_counts_what_passed() -> None:
    seen = DatasetStats.of(
        make_episode(f"e{i}", 4 + i, seed=i, split=split, metrics={"good_units": 3.0, "errors": 1.0, "duration_h": 0.5})
        for i, split in enumerate(("train", "dev", "train", "test"))
    )
    told = seen.economics()
    assert told == {
        "episodes": 4,
        "steps": 22,
        "num_train": 2,
        "num_dev": 1,
        "num_test": 1,
        "mpl": 6.0,
        "error_rate": 0.25,
    }
    train = [make_episode("e0", 4, seed=0), make_episode("e2", 6, seed=2)]
    every = np.concatenate([e.actions for e in train if e.actions is not None])
    assert seen.action_range().low.tolist() == every.min(0).tolist()
    assert seen.action_range().high.tolist() == every.max(0).tolist()
    with pytest.raises(DataError, match="no episode carries actions"):
        DatasetStats.of([make_episode("a", 3, actions=0, split="train")]).action_range()


def test_shards_recorded_apart_are_those_recorded_together(tmp_path: Path) -> None:
    config = Config.model_validate({"environment": {"observation": "state", "max_steps": 6}})
    store = Store.at(tmp_path)
    for name, part in (("part-00000-of-00002.parquet", range(2)), ("part-00001-of-00002.parquet", range(2, 5))):
        record_shard(config, store, name, part, ["train"] * len(part), "stamp")
    together = collect_episodes(EnvironmentConfig(observation="state", max_steps=6), config.run.seed, range(5))
    for one, other in zip(read_episodes(store), together, strict=True):
        assert (one.id, one.tags, one.split) == (other.id, other.tags, "train")
        assert same(one.metrics, other.metrics)
        assert one.state is not None
        assert other.state is not None
        assert one.state.tobytes() == other.state.tobytes()
