"""What the page says of the replay buffer."""

import numpy as np

from phaseb.replay.accounting import SamplingStats
from phaseb.replay.spec import SampleSpec
from phaseb.report.replay import drawn_figure
from phaseb.runtime.storage import Store


def test_the_page_tells_rates_waiting_and_losses(tmp_path):
    store = Store.at(tmp_path)
    assert drawn_figure(store) is None
    streams = SamplingStats([SampleSpec("real_only/0", 0), SampleSpec("trust_weighted/0", 0)])
    books = np.zeros_like(streams.stats)
    books[0, 0, 0], books[1, :, 0] = 100, (75, 25)
    books[1, 1, 3 + 9] = 25  # trust in the last tenth
    told = {"streams": streams.to_json(books), "wait_fraction": 0.0123, "queue_depth": 2.0, "sampled_per_s": 5000.4}
    shards = [{"num_transitions": 30, "lost": 3, "evicted": 0}, {"num_transitions": 20, "lost": 0, "evicted": 7}]
    store.write_json(told | {"inserted": 60, "insert_s": 0.5, "shards": shards}, "policy", "replay.json")
    figure = drawn_figure(store)
    assert "trust_weighted 100 transitions, 25% synthetic" in figure.caption
    assert "2 shards took 60 transitions in at 120 a second and gave 5,000 a second, 2 calls ahead" in figure.caption
    assert "the learner waited for data 1.2% of its time. 3 were lost to crashes, 7 pushed out" in figure.caption
    store.write_json(told, "policy", "replay.json")
    assert drawn_figure(store).caption.endswith("The learner waited for data 1.2% of its time.")
