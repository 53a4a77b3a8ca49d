"""Who may see which episode: train, dev or sealed test, decided by episode before anything is fitted."""

import itertools
from collections import Counter
from collections.abc import Sequence

from phaseb.config.data import COLLECTED, EpisodesConfig
from phaseb.episodes.episode import Split
from phaseb.episodes.inventory import prints
from phaseb.errors import DataError
from phaseb.runtime.seeding import derive_seed

MIN_TRAIN = 2  # spreads between episodes need two
MIN_OF_TASK = MIN_TRAIN + 2  # one for dev, one for the test
FEW_EPISODES = 8
"""Test episodes below which judges use blocks of episodes, so that steps count and not episodes."""
ENOUGH_STEPS = {"test": 1000, "dev": 500}
"""Steps of these splits that are enough where there are few episodes."""
MIN_STEPS = 10
"""Shorter episodes are held out last where there are few: nothing can be judged on them."""


def choose_splits(
    entries: Sequence[tuple[str, Split]],
    config: EpisodesConfig,
    seed: int,
    lengths: Sequence[int] | None = None,
    tasks: Sequence[str] | None = None,
) -> list[Split]:
    """The split of each of some episodes, given as (id, the split it has already or "").

    Collected episodes are alike by construction: the first `num_test` are the sealed test, the next `num_dev` are
    dev, so that both stay the same when `num_train` grows. Imported ones are ranked by a hash of (seed, id), which
    the order of the file cannot bias, and cut by fractions. Of few episodes (fewer than FEW_EPISODES in the test) no
    more are held out than make ENOUGH_STEPS. Episodes that all carry a split already keep it.

    Of several tasks, each is cut like that by itself, so that each has training, dev and test episodes. All episodes of
    a task of fewer than MIN_OF_TASK train, if another has as many.

    Args:
        entries: (id, split) of each episode.
        config: of the episodes.
        seed: of the ranks.
        lengths: steps of each episode; None where they are not known, and fractions alone decide.
        tasks: the task of each episode; None where they have no condition.

    Raises:
        DataError: for ids that repeat or do not print, splits given in part, or too few episodes.
    """
    repeated = [name for name, count in Counter(name for name, _ in entries).items() if count > 1]
    if repeated:
        raise DataError(f"episode ids must be unique, {repeated[0]!r} repeats: give each episode an id of its own")
    odd = next((name for name, _ in entries if not prints(name)), None)
    if odd is not None:
        raise DataError(f"the episode id {odd!r} has characters that do not print: give the episode another id")
    given = sum(split != "" for _, split in entries)
    if given == len(entries) > 0:
        roles = [split for _, split in entries]
    elif given:
        raise DataError(f"{given} of {len(entries)} episodes carry a split; either all or none must")
    elif config.source in COLLECTED:
        roles = _by_count(len(entries), config)
    else:
        roles = _by_task([name for name, _ in entries], config, seed, lengths, tasks or [""] * len(entries))
    _check(roles)
    return roles


def _by_count(total: int, config: EpisodesConfig) -> list[Split]:
    wanted = config.num_test + config.num_dev + config.num_train
    if total < wanted:
        raise DataError(f"{wanted} episodes are needed (num_train + num_dev + num_test), {total} were collected")
    train: list[Split] = ["train"] * (total - config.num_test - config.num_dev)
    test: list[Split] = ["test"] * config.num_test
    dev: list[Split] = ["dev"] * config.num_dev
    return test + dev + train


def _by_task(
    ids: Sequence[str], config: EpisodesConfig, seed: int, lengths: Sequence[int] | None, tasks: Sequence[str]
) -> list[Split]:
    """Each task's episodes by fractions; of K tasks, each needs a K-th of what is enough of them all.

    Where no task has MIN_OF_TASK episodes, all are cut as if they were of one.
    """
    found = {task: [i for i, name in enumerate(tasks) if name == task] for task in sorted(set(tasks))}
    if max(map(len, found.values()), default=0) < MIN_OF_TASK:
        found = {"": list(range(len(ids)))}
    roles: list[Split] = ["train"] * len(ids)
    for own in found.values():
        if len(found) > 1 and len(own) < MIN_OF_TASK:
            continue
        steps = None if lengths is None else [lengths[i] for i in own]
        chosen = _by_fraction([ids[i] for i in own], config, seed, steps, len(found))
        for i, role in zip(own, chosen, strict=True):
            roles[i] = role
    return roles


def _by_fraction(
    ids: Sequence[str], config: EpisodesConfig, seed: int, lengths: Sequence[int] | None, num_tasks: int
) -> list[Split]:
    num_test, num_dev = most_held_out(len(ids), config)
    hashes = [derive_seed(seed, "split", name) for name in ids]
    ranked = sorted(range(len(ids)), key=hashes.__getitem__)
    if lengths is not None and num_tasks * num_test < FEW_EPISODES:
        ranked = sorted(ranked, key=lambda i: lengths[i] < MIN_STEPS)
        steps = [lengths[i] for i in ranked]
        num_test = _enough(steps, num_test, ENOUGH_STEPS["test"] / num_tasks)
        num_dev = _enough(steps[num_test:], num_dev, ENOUGH_STEPS["dev"] / num_tasks)
    roles: list[Split] = ["train"] * len(ids)
    for position, index in enumerate(ranked[: num_test + num_dev]):
        roles[index] = "test" if position < num_test else "dev"
    return roles


def most_held_out(total: int, config: EpisodesConfig) -> tuple[int, int]:
    """The largest numbers of test and dev episodes among so many imported ones."""
    return max(1, round(total * config.test_fraction)), max(1, round(total * config.dev_fraction))


def _enough(steps: Sequence[int], most: int, wanted: float) -> int:
    """The smallest number of episodes, in order, that have the steps wanted together; at most `most`."""
    there = itertools.accumulate(steps[:most])
    return next((number for number, total in enumerate(there, start=1) if total >= wanted), most)


def _check(roles: Sequence[Split]) -> None:
    found = {role: roles.count(role) for role in ("train", "dev", "test")}
    if found["train"] < MIN_TRAIN or not found["dev"] or not found["test"]:
        raise DataError(
            f"too few episodes: {len(roles)} split into {found['train']} train, {found['dev']} dev and "
            f"{found['test']} test; at least {MIN_TRAIN}, 1 and 1 are needed; give more episodes or lower the fractions"
        )
