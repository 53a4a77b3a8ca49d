import numpy as np
import pytest
import torch
from episode_strategies import make_episode

from phaseb.episodes.formats.export import Exported
from phaseb.episodes.formats.lerobot_export import write_lerobot
from phaseb.errors import DataError
from phaseb.integrations.lerobot import TrustWeighter, chunk_losses
from phaseb.runtime.storage import Store


def test_a_batch_gets_the_weights_that_were_exported(tmp_path):
    weight = np.array([1.0, 0.5, 0.0, np.nan], np.float32)
    real, scored = make_episode("real", 3, seed=0), make_episode("made", 4, seed=1)
    write_lerobot(Store.at(tmp_path), [Exported(real), Exported(scored, weight=weight)], 10)
    weighter = TrustWeighter(str(tmp_path))
    weights, stats = weighter.compute_batch_weights({"index": torch.tensor([6, 0, 4, 5])})
    assert weights.tolist() == [0.0, 1.0, 0.5, 0.0]
    assert stats == {"mean_weight": 0.375, "zero_share": 0.5}
    assert weighter.get_stats()["mean_weight"] == pytest.approx(4.5 / 7)


def test_what_holds_no_weights_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no data"):
        TrustWeighter(str(tmp_path))


def test_nothing_counts_in_a_chunk_behind_a_frame_without_weight(tmp_path):
    weight = np.array([1.0, 0.5, 0.8, 0.0, 0.5], np.float32)
    write_lerobot(Store.at(tmp_path), [Exported(make_episode("made", 5, seed=1), weight=weight)], 10)
    weighter = TrustWeighter(str(tmp_path), offsets=range(4))
    shares = weighter.chunk_shares(torch.tensor([0, 2, 3, 4]))
    assert shares.tolist() == [[1, 0.5, 0.5, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]
    beyond = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]]).bool()
    batch = {"index": torch.tensor([0, 2, 3, 4]), "action_is_pad": beyond}
    weighter.compute_batch_weights(batch)
    assert batch["action_is_pad"].int().tolist() == [[0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]


def test_the_weighted_mean_of_chunk_losses_is_that_of_all_actions():
    generator = torch.Generator().manual_seed(0)
    error, shares, weights = (torch.rand(*size, generator=generator) for size in ((6, 4), (6, 4), (6,)))
    weights[2] = 0
    losses = chunk_losses(error, shares, weights)
    each = weights[:, None] * shares
    assert float((weights * losses).sum() / weights.sum()) == pytest.approx(float((each * error).sum() / each.sum()))
    inside = (shares > 0.5).float()
    plain = chunk_losses(error, inside, torch.ones(6)).mean()
    assert float(plain) == pytest.approx(float((inside * error).sum() / inside.sum()))
    assert chunk_losses(error, shares, torch.zeros(6)).isfinite().all()
