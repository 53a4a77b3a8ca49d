import numpy as np
import pytest
import torch
from episode_strategies import make_episode

from phaseb.episodes.formats.export import Exported
from phaseb.episodes.formats.lerobot_export import write_lerobot
from phaseb.errors import DataError
from phaseb.integrations.lerobot import TrustWeighter
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
