from collections import Counter
from dataclasses import replace

import pytest
from episode_strategies import make_episode
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.config.data import EpisodesConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.splits import MIN_STEPS, choose_splits
from phaseb.errors import DataError


def some(number: int) -> list[Episode]:
    return [make_episode(f"e{i}", 3) for i in range(number)]


def imported(dev: float = 0.2, test: float = 0.2) -> EpisodesConfig:
    return EpisodesConfig(source="npz", path="x.npz", dev_fraction=dev, test_fraction=test)


def assign_splits(episodes: list[Episode], config: EpisodesConfig, seed: int) -> list[Episode]:
    """The episodes, each with the split that is chosen for it."""
    chosen = choose_splits([(e.id, e.split) for e in episodes], config, seed)
    return [replace(episode, split=role) for episode, role in zip(episodes, chosen, strict=True)]


def roles(episodes: list[Episode]) -> dict[str, str]:
    return {e.id: e.split for e in episodes}


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 60), st.integers(0, 5), st.floats(0.01, 0.25), st.floats(0.01, 0.25), st.randoms())
def test_imported_splits_are_disjoint_whole_and_blind_to_order(
    number: int, seed: int, dev: float, test: float, random: object
) -> None:
    episodes = some(number)
    split = assign_splits(episodes, imported(dev, test), seed)
    assert [e.id for e in split] == [e.id for e in episodes]
    count = Counter(e.split for e in split)
    assert count["dev"] == max(1, round(number * dev))
    assert count["test"] == max(1, round(number * test))
    assert sum(count.values()) == number
    random.shuffle(episodes)  # type: ignore[attr-defined]
    assert roles(assign_splits(episodes, imported(dev, test), seed)) == roles(split)


def test_another_seed_splits_otherwise() -> None:
    assert roles(assign_splits(some(40), imported(), 0)) != roles(assign_splits(some(40), imported(), 1))


def test_more_training_episodes_leave_dev_and_test_as_they_are() -> None:
    few = assign_splits(some(10), EpisodesConfig(num_train=4, num_dev=2, num_test=4), 0)
    many = assign_splits(some(20), EpisodesConfig(num_train=14, num_dev=2, num_test=4), 0)
    assert Counter(roles(few).values()) == {"train": 4, "dev": 2, "test": 4}
    assert roles(many) == roles(few) | {f"e{i}": "train" for i in range(10, 20)}


def test_given_splits_are_kept_but_only_whole() -> None:
    given_ = [replace(e, split=s) for e, s in zip(some(4), ["test", "train", "train", "dev"], strict=True)]
    assert roles(assign_splits(given_, imported(), 7)) == {"e0": "test", "e1": "train", "e2": "train", "e3": "dev"}
    with pytest.raises(DataError, match="4 of 6 episodes carry a split"):
        assign_splits([*given_, *[make_episode(n, 3) for n in ("x", "y")]], imported(), 7)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_too_few_episodes_are_said(number: int) -> None:
    with pytest.raises(DataError, match=rf"too few episodes: {number} split .*; give more episodes"):
        assign_splits(some(number), imported(), 0)
    with pytest.raises(DataError, match=rf"300 episodes are needed .*, {number} were collected"):
        assign_splits(some(number), EpisodesConfig(), 0)


def test_repeated_ids_are_refused() -> None:
    with pytest.raises(DataError, match="'e1' repeats"):
        assign_splits([*some(3), make_episode("e1", 5)], imported(), 0)


FEW = [
    # lengths, test and dev episodes
    ((1000,) * 20, 1, 1),  # 18 train
    ((300,) * 20, 4, 2),
    ((60,) * 20, 5, 3),  # too short: the fractions, as ever
    ((1000,) * 40, 10, 6),  # enough episodes: the fractions, as ever
    ((998, 1) * 9, 2, 1),
]


@pytest.mark.parametrize(("lengths", "num_test", "num_dev"), FEW)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_few_long_episodes_no_more_are_held_out_than_are_needed(
    lengths: tuple[int, ...], num_test: int, num_dev: int, seed: int
) -> None:
    config = imported(0.15, 0.25)
    chosen = choose_splits([(f"e{i}", "") for i in range(len(lengths))], config, seed, lengths)
    assert Counter(chosen) == {"test": num_test, "dev": num_dev, "train": len(lengths) - num_test - num_dev}
    held = [length for length, split in zip(lengths, chosen, strict=True) if split != "train"]
    assert min(held) >= MIN_STEPS
    assert choose_splits([(f"e{i}", "") for i in range(len(lengths))], config, seed, lengths) == chosen


def test_without_lengths_the_fractions_decide() -> None:
    config = imported(0.15, 0.25)
    assert Counter(choose_splits([(f"e{i}", "") for i in range(20)], config, 0)) == {"test": 5, "dev": 3, "train": 12}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "b", "a"], "'a' repeats: give each"),
        (["a", "b\nc"], r"id 'b\\nc' has characters that do not print"),
        (["a", "b\u3000c"], "too few episodes"),
    ],
)
def test_ids_that_cannot_be_told_apart_or_shown_are_refused(names, said):
    with pytest.raises(DataError, match=said):
        choose_splits([(name, "") for name in names], imported(), 0)
