"""What each stage needs of the episodes and of the machine, asked before anything is trained.

A requirement is one line: what is needed, what was found, which setting it hangs on, and what to do.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from phaseb.config.data import COLLECTED
from phaseb.config.evaluation import LEAST_PAIRS
from phaseb.config.root import Config
from phaseb.config.section import is_plugin
from phaseb.episodes.inventory import listed
from phaseb.episodes.splits import MIN_TRAIN, most_held_out
from phaseb.errors import ClusterError, ConfigError
from phaseb.pipeline.dataset_stats import DataFacts
from phaseb.pipeline.machine import BASE_BYTES, GB, Machine, disk_need, memory_needs
from phaseb.pipeline.requirement import Preflight, Requirement
from phaseb.pipeline.sizes import fit_sizes, judge_plan, num_gate_episodes, total_steps
from phaseb.pipeline.task_requirements import task_notes, task_requirements
from phaseb.runtime.formatting import size
from phaseb.runtime.plugins import load_plugin
from phaseb.runtime.ray_session import joins_cluster
from phaseb.runtime.storage import Store
from phaseb.trust.windows import MIN_UNITS


def preflight(config: Config, facts: DataFacts | None, machine: Machine | None = None) -> Preflight:
    """Fit the sizes of a config to its episodes, and check what all stages need.

    Args:
        config: as it was given.
        facts: of the episodes; None: only what hangs on the config alone is checked.
        machine: what is free; by default this machine's, or the largest node's of the cluster that the run joins.
    """
    if machine is None:
        joins = joins_cluster(config.resources)
        machine = Machine.of_cluster(config.run.dir) if joins else Machine.here(config.run.dir)
    fixed = [*_of_config(config), *_place(config), *_own_code(config), *_reused_parts(config)]
    if facts is None:
        return Preflight(config, (), tuple(_host_notes(config, machine)), tuple(fixed))
    fit, choices = fit_sizes(config, facts)
    found = [r for stage in REQUIREMENTS.values() for r in stage(fit, facts)]
    found += [*task_requirements(fit, facts), *_of_machine(fit, facts, machine)]
    notes = [*_data_notes(fit, facts), *task_notes(facts), *_host_notes(config, machine)]
    return Preflight(fit, choices, tuple(notes), (*fixed, *found))


def _of_config(config: Config) -> Iterator[Requirement]:
    """What no episode can change: batches that divide by the workers, seeds that do not overlap."""
    workers = max(1, config.resources.num_workers)
    quarters = 4 * workers  # workers share a quarter as many rollouts too
    batches = (
        ("encode", "latents.num_groups", config.latents.num_groups, workers),
        ("dynamics", "dynamics.gru.batch_size", config.dynamics.gru.batch_size, quarters),
        ("trust", "trust.batch_size", config.trust.batch_size, workers),
        ("policy", "policy.batch_size", config.policy.batch_size, workers),
    )
    for stage, setting, given, divisor in batches if workers > 1 else ():
        yield Requirement(
            stage,
            setting,
            f"a multiple of {divisor} for {workers} workers",
            str(given),
            f"set {setting} to a multiple of {divisor}, or lower resources.num_workers",
            given % divisor == 0,
            ConfigError,
        )


def _place(config: Config) -> Iterator[Requirement]:
    """A run directory where none can be made."""
    store = Store.at(config.run.dir)
    files = [path for path in (Path(store.root), *Path(store.root).parents) if store.is_local and path.is_file()]
    for file in files:
        remedy = "set run.dir to another folder"
        yield Requirement("collect", "run.dir", "a folder to write to", f"the file {file}", remedy, False, ConfigError)


def _own_code(config: Config) -> Iterator[Requirement]:
    """Classes and functions of the user's own that stages will import."""
    named = {
        "collect": [("episodes.policy", config.episodes.policy)],
        "dynamics": [
            (f"dynamics.plugins.{name}.model", plugin.model)
            for name, plugin in config.dynamics.plugins.items()
            if name in config.generators
        ],
        "judge": [("judge.families", family) for family in config.judge.families],
        "evaluate": [("environment.id", config.environment.id)],
    }
    for stage, settings in named.items():
        for setting, name in settings:
            if not is_plugin(name):
                continue
            try:
                load_plugin(name, setting)
            except ConfigError as error:
                yield Requirement(stage, setting, f"your own {name}", "none", str(error), False, ConfigError)


def _reused_parts(config: Config) -> Iterator[Requirement]:
    """Trained parts of other runs that stages will take over."""
    stages = {"encoder": "encode", "dynamics": "dynamics", "trust": "trust"}
    for part, stage in stages.items():
        path = getattr(config.reuse, part)
        parts = [(part, name) for name in config.generators] if part == "dynamics" else [(part,)]
        for folders in parts if path else []:
            if not Store.at(path).exists(*folders, "meta.json"):
                remedy = f"set reuse.{part} to a run directory in which `phaseb {stage}` is done"
                needed = f"{'/'.join(folders)}/meta.json in {path}"
                yield Requirement(stage, f"reuse.{part}", needed, "none", remedy, False)


def _collect(config: Config, facts: DataFacts) -> Iterator[Requirement]:
    for split, least in (("train", MIN_TRAIN), ("dev", 1), ("test", 1)):
        there = facts.count(split, 1)
        yield Requirement(
            "collect",
            f"episodes.num_{split}",
            f"{least} {split} episodes of a step or more",
            str(there),
            "give more episodes",
            there >= least,
        )


def _encode(config: Config, facts: DataFacts) -> Iterator[Requirement]:
    wanted = config.latents.observation
    has = {"state": facts.state_size > 0, "frames": facts.frame_shape is not None}
    met = facts.assumed and not any(has.values())  # not known before anything is collected
    met |= any(has.values()) if wanted == "auto" else all(has[part] for part in has if wanted in (part, "both"))
    found = " and ".join(name for name, there in has.items() if there) or (
        "not known before collecting" if facts.assumed else "neither in all episodes"
    )
    yield Requirement(
        "encode",
        "latents.observation",
        "state or frames" if wanted == "auto" else wanted,
        found,
        "set latents.observation=auto, or import episodes that all have it",
        met,
    )
    if facts.state_size and (wanted == "state" or facts.frame_shape is None):
        still = len(facts.still_columns)
        shown = f"columns {listed([str(column) for column in facts.still_columns])} constant" if still else "all move"
        yield Requirement(
            "encode",
            "episodes.columns.observation",
            "a state of which some column changes in the training episodes",
            shown,
            "choose columns that change",
            still < facts.state_size,
        )


def _dynamics(config: Config, facts: DataFacts) -> Iterator[Requirement]:
    trained = config.dynamics.gru.horizon.steps if "gru" in config.generators else 1
    horizon = max(config.synthesis.horizon, trained)
    long = facts.count("train", horizon)
    remedy = (
        f"the longest has {facts.longest('train')}: import longer episodes, or lower synthesis.horizon and "
        "dynamics.gru.horizon.steps"
    )
    yield Requirement(
        "dynamics",
        "synthesis.horizon",
        f"{MIN_TRAIN} training episodes of {horizon} steps",
        f"{long} of {facts.count('train')}",
        remedy,
        long >= MIN_TRAIN,
    )


def _trust(config: Config, facts: DataFacts) -> Iterator[Requirement]:
    own, folds = num_gate_episodes(config, facts), config.trust.num_folds
    needed = f"{folds} training episodes of {config.synthesis.horizon} steps for the gate"
    remedy = "lower trust.num_folds or synthesis.horizon, or give more episodes"
    met = own >= folds or bool(config.reuse.trust)
    yield Requirement("trust", "trust.num_folds", needed, str(own), remedy, met)


def _judge(config: Config, facts: DataFacts) -> Iterator[Requirement]:
    plan = judge_plan(config, facts)
    remedy = (
        "lower synthesis.horizon, raise episodes.test_fraction or episodes.num_test, or give more or longer episodes"
    )
    yield Requirement(
        "judge",
        "synthesis.horizon",
        f"{MIN_UNITS} windows of {plan.steps} steps in the sealed test",
        str(plan.num_units),
        remedy,
        plan.num_units >= MIN_UNITS,
    )


def _policy(config: Config, facts: DataFacts) -> Iterator[Requirement]:
    there, needed = total_steps(facts, "train"), config.policy.batch_size
    yield Requirement(
        "policy",
        "policy.batch_size",
        f"{needed} training steps",
        str(there),
        "lower policy.batch_size, or give more episodes",
        there >= needed,
    )
    longest, room = facts.longest("train") + 1, config.replay.capacity // config.replay.num_shards
    yield Requirement(
        "policy",
        "replay.capacity",
        f"room for {longest} rows, the longest episode, in each shard",
        str(room),
        "raise replay.capacity, or lower replay.num_shards",
        room >= longest,
    )


def _evaluate(config: Config, facts: DataFacts) -> Iterator[Requirement]:
    if config.environment.id == "none":
        return
    yield Requirement(
        "evaluate",
        "environment.id",
        "actions in some episodes, to act in the environment",
        f"{facts.action_size or 'no'} action dimensions",
        "set environment.id=none, or import episodes with actions",
        facts.action_size > 0 or facts.assumed,
    )
    wanted = config.latents.observation
    parts = {
        "state_size": ("shows a state of {} numbers", wanted != "frames"),
        "frame_shape": ("shows frames of shape {}", wanted != "state"),
        "action_size": ("takes {} actions", True),
    }
    for part, shown in (facts.environment or {}).items():
        has, (what, matters) = getattr(facts, part), parts[part]
        yield Requirement(
            "evaluate",
            "environment.id",
            f"an environment that {what.format(has)}",
            str(shown or "none"),
            "set environment.id to the one that the episodes come from, or to none",
            not (matters and has) or has == shown,
            ConfigError,
        )
    first, told = config.promotion.first_seed, config.evaluation.first_seed
    last = first + (config.promotion.max_episodes or max(LEAST_PAIRS, facts.count("train"))) - 1
    end = told + config.evaluation.num_episodes - 1
    yield Requirement(
        "evaluate",
        "promotion.first_seed",
        f"seeds that are not among {told} to {end}",
        f"{first} to {last}",
        "move promotion.first_seed or evaluation.first_seed",
        first > end or told > last,
        ConfigError,
    )


REQUIREMENTS: Mapping[str, Callable[[Config, DataFacts], Iterator[Requirement]]] = {
    "collect": _collect,
    "encode": _encode,
    "dynamics": _dynamics,
    "trust": _trust,
    "judge": _judge,
    "policy": _policy,
    "evaluate": _evaluate,
}
"""What each stage needs of the episodes, with sizes fitted to them. Bricks and rollouts need nothing more."""


def _of_machine(config: Config, facts: DataFacts, machine: Machine) -> Iterator[Requirement]:
    if machine.memory is not None:
        for need in memory_needs(config, facts):
            wanted = need.bytes + BASE_BYTES
            yield Requirement(
                need.stage,
                need.setting,
                f"{size(wanted)} of memory at {need.given}",
                f"{size(machine.memory)} {machine.place}",
                f"lower {need.setting}, or free memory",
                wanted <= machine.memory,
                ClusterError,
            )
    if machine.disk is not None:
        wanted = disk_need(config, facts)
        yield Requirement(
            "synthesize",
            "synthesis.num_episodes",
            f"{size(wanted)} of disk for the whole run",
            f"{size(machine.disk)} free at {config.run.dir}",
            "free space, set run.dir to another disk, or lower synthesis.num_episodes",
            wanted <= machine.disk,
            ClusterError,
        )
    store_bytes = config.resources.object_store_gb * GB
    if machine.shared is not None and machine.scratch is not None and machine.shared < store_bytes:
        yield Requirement(
            "collect",
            "resources.object_store_gb",
            f"{size(store_bytes)} for Ray's objects",
            f"{size(machine.shared)} free in /dev/shm and {size(machine.scratch)} in TMPDIR",
            "lower resources.object_store_gb, or set TMPDIR to a larger disk",
            machine.scratch >= store_bytes,
            ClusterError,
        )


def _data_notes(config: Config, facts: DataFacts) -> Iterator[str]:
    if not facts.values_can_be_learned:
        judges = "held-out actions"
        if config.environment.id != "none":
            judges += f" and episodes in {config.environment.id}"
        yield (
            f"every training reward is {facts.reward_low:g} and no return differs, so values cannot be learned: only "
            f"policies that clone are trained, and {judges} judge them"
        )
    yield from _held_out_note(config, facts)
    plan = judge_plan(config, facts)
    if plan.blocks and plan.num_units >= MIN_UNITS:
        yield (
            f"the sealed test has {plan.num_episodes} episodes, so judges compare {plan.num_units} blocks of "
            f"{plan.steps} steps, {plan.gap} steps apart; blocks of one episode are not independent, so intervals are "
            "too narrow"
        )
    if facts.assumed:
        yield "lengths are assumed to be environment.max_steps: nothing was collected yet"


def _held_out_note(config: Config, facts: DataFacts) -> Iterator[str]:
    """Few long episodes: fewer of them are held out than the fractions say."""
    held, total = (facts.count("test"), facts.count("dev")), sum(facts.count(split) for split in facts.lengths)
    by_count = config.episodes.source in (*COLLECTED, "parquet") or facts.tasks
    if by_count or held == most_held_out(total, config.episodes):
        return
    steps = [int(facts.lengths[split].sum()) for split in ("test", "dev")]
    yield (
        f"of {total} episodes {facts.count('train')} train; the sealed test has {held[0]} and dev {held[1]}, fewer "
        f"than episodes.test_fraction and dev_fraction: with {steps[0]} and {steps[1]} steps they are long enough"
    )


def _host_notes(config: Config, machine: Machine) -> Iterator[str]:
    wanted = config.resources.object_store_gb * GB
    if machine.shared is not None and machine.shared < wanted:
        yield (
            f"/dev/shm has {size(machine.shared)} free and resources.object_store_gb={wanted / GB:g} asks for "
            "more: Ray keeps objects on disk, slowly; lower it, or start the container with --shm-size=2g"
        )
