"""Who may see which episode: train, dev or sealed test, decided by episode before anything is fitted."""

from collections import Counter
from collections.abc import Sequence

from phaseb.config.episodes import COLLECTED, EpisodesConfig
from phaseb.episodes.episode import Split
from phaseb.errors import DataError
from phaseb.runtime.seeding import derive_seed

MIN_TRAIN = 2  # spreads between episodes need two


def choose_splits(entries: Sequence[tuple[str, Split]], config: EpisodesConfig, seed: int) -> list[Split]:
    """The split of each of some episodes, given as (id, the split it has already or "").

    Collected episodes are alike by construction: the first `num_test` are the sealed test, the next `num_dev` are
    dev, so that both stay the same when `num_train` grows. Imported ones are ranked by a hash of (seed, id), which
    the order of the file cannot bias, and cut by fractions. Episodes that all carry a split already keep it.

    Raises:
        DataError: for ids that repeat, splits given in part, or too few episodes.
    """
    repeated = [name for name, count in Counter(name for name, _ in entries).items() if count > 1]
    if repeated:
        raise DataError(f"episode ids must be unique, {repeated[0]!r} repeats")
    given = sum(split != "" for _, split in entries)
    if given == len(entries) > 0:
        roles = [split for _, split in entries]
    elif given:
        raise DataError(f"{given} of {len(entries)} episodes carry a split; either all or none must")
    elif config.source in COLLECTED:
        roles = _by_count(len(entries), config)
    else:
        roles = _by_fraction([name for name, _ in entries], config, seed)
    _check(roles)
    return roles


def require_steps(lengths: Sequence[int], horizon: int) -> None:
    """Refuse training episodes, told by their numbers of steps, too few of which are as long as the horizon that is
    to be learned from them.

    Raises:
        DataError: naming the longest, where fewer than two training episodes have `horizon` steps.
    """
    enough = sum(n >= horizon for n in lengths)
    if enough < MIN_TRAIN:
        raise DataError(
            f"{enough} of {len(lengths)} training episodes have {horizon} steps, the longest has "
            f"{max(lengths, default=0)}; import longer episodes, or lower synthesis.horizon "
            "and dynamics.gru.horizon.steps"
        )


def _by_count(total: int, config: EpisodesConfig) -> list[Split]:
    wanted = config.num_test + config.num_dev + config.num_train
    if total < wanted:
        raise DataError(f"{wanted} episodes are needed (num_train + num_dev + num_test), {total} were collected")
    train: list[Split] = ["train"] * (total - config.num_test - config.num_dev)
    test: list[Split] = ["test"] * config.num_test
    dev: list[Split] = ["dev"] * config.num_dev
    return test + dev + train


def _by_fraction(ids: Sequence[str], config: EpisodesConfig, seed: int) -> list[Split]:
    total = len(ids)
    num_test, num_dev = (max(1, round(total * f)) for f in (config.test_fraction, config.dev_fraction))
    ranked = sorted(range(total), key=lambda i: derive_seed(seed, "split", ids[i]))
    roles: list[Split] = ["train"] * total
    for position, index in enumerate(ranked):
        if position < num_test + num_dev:
            roles[index] = "test" if position < num_test else "dev"
    return roles


def _check(roles: Sequence[Split]) -> None:
    found = {role: roles.count(role) for role in ("train", "dev", "test")}
    if found["train"] < MIN_TRAIN or not found["dev"] or not found["test"]:
        raise DataError(
            f"too few episodes: {len(roles)} split into {found['train']} train, {found['dev']} dev and "
            f"{found['test']} test; at least {MIN_TRAIN}, 1 and 1 are needed; give more episodes or lower the fractions"
        )
