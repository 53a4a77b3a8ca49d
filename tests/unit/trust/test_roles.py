from phaseb.trust.splits import deal_episodes


def test_dealing_is_disjoint_complete_and_stable() -> None:
    ids = [f"real-{i:06d}" for i in range(50)]
    dealt = deal_episodes(ids, 0.3, seed=1)
    assert len(dealt["critic"]) == 15
    assert set(dealt["critic"]) | set(dealt["gate"]) == set(ids)
    assert not set(dealt["critic"]) & set(dealt["gate"])
    assert dealt == deal_episodes(ids[::-1], 0.3, seed=1) != deal_episodes(ids, 0.3, seed=2)
    assert [len(part) for part in deal_episodes(["a", "b"], 0.0, 0).values()] == [1, 1]
