import json

import pytest
import torch
from torch import nn

from phaseb.config.trust import CriticConfig
from phaseb.errors import DataError
from phaseb.nn.data_parallel import LearnerContext
from phaseb.trust.discriminator import Critic
from phaseb.trust.networks import TrustNetworks, TrustSpec
from phaseb.trust.splits import EpisodeLedger, assert_apart, deal_episodes


def test_an_episode_serves_one_role() -> None:
    ledger = EpisodeLedger()
    ledger.claim("critic", ["a", "b"])
    ledger.claim("critic", ["b", "c"])
    with pytest.raises(DataError, match="c already serves the critic"):
        ledger.claim("gate", ["d", "c"])
    assert ledger.ids("gate") == ()  # a refused claim leaves nothing behind
    ledger.claim("gate", ["d"])
    for role in ("critic", "gate"):
        with pytest.raises(DataError, match="need episodes of their own"):
            ledger.claim("judge", ledger.ids(role))  # type: ignore[arg-type]


def test_the_ledger_survives_a_round_trip_and_refuses_a_forged_one() -> None:
    ledger = EpisodeLedger()
    ledger.claim("judge", ["x", "y"])
    ledger.claim("gate", ["z"])
    again = EpisodeLedger.from_dict(json.loads(json.dumps(ledger.as_dict())))
    assert again.as_dict() == ledger.as_dict()
    with pytest.raises(DataError):
        EpisodeLedger.from_dict({"gate": ["x"], "judge": ["x"]})


def test_dealing_is_disjoint_complete_and_stable() -> None:
    ids = [f"real-{i:06d}" for i in range(50)]
    dealt = deal_episodes(ids, 0.3, seed=1)
    assert len(dealt["critic"]) == 15
    assert set(dealt["critic"]) | set(dealt["gate"]) == set(ids)
    assert not set(dealt["critic"]) & set(dealt["gate"])
    assert dealt == deal_episodes(ids[::-1], 0.3, seed=1) != deal_episodes(ids, 0.3, seed=2)
    assert [len(part) for part in deal_episodes(["a", "b"], 0.0, 0).values()] == [1, 1]
    EpisodeLedger().claim("critic", dealt["critic"])


def test_a_shared_or_copied_weight_is_noticed() -> None:
    critic, judge = (Critic(CriticConfig(units=8), 3, LearnerContext(seed)).network for seed in (0, 1))
    gate = TrustNetworks(TrustSpec(2, 5, 7, 8, 8, 1), torch.Generator().manual_seed(0))
    assert_apart({"critic": critic, "gate": gate, "judge": judge})
    copied = Critic(CriticConfig(units=8), 3, LearnerContext(0)).network  # the same seed: the same values
    with pytest.raises(ValueError, match="are one weight"):
        assert_apart({"critic": critic, "judge": copied})
    shared = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"critic\.0\.weight and gate\.0\.weight"):
        assert_apart({"critic": shared, "gate": nn.Sequential(shared[0])})
