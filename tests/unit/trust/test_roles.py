from phaseb.trust.splits import split_episodes


def test_the_split_is_disjoint_complete_and_stable() -> None:
    ids = [f"real-{i:06d}" for i in range(50)]
    discriminator, gate = split_episodes(ids, 0.3, seed=1)
    assert len(discriminator) == 15
    assert discriminator | gate == set(ids)
    assert not discriminator & gate
    assert (discriminator, gate) == split_episodes(ids[::-1], 0.3, seed=1) != split_episodes(ids, 0.3, seed=2)
    assert [len(part) for part in split_episodes(["a", "b"], 0.0, 0)] == [1, 1]
