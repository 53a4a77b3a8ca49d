"""Where a run's policies act: the built-in cell draws no frames for policies that see none."""

import numpy as np
import pytest

from phaseb.config.load import load_config
from phaseb.latents.fit import fit_encoder_model
from phaseb.latents.learner import make_learner
from phaseb.latents.padding import episode_arrays
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.storage import Store
from phaseb.stages.physics import Physics
from phaseb.workcell.collect import collect_episodes


@pytest.mark.parametrize(("seen", "drawn"), [("state", {"state"}), ("frames", {"state", "frames"})])
def test_frames_are_drawn_where_policies_see_them(tmp_path, seen, drawn):
    words = [
        "environment.observation=both",
        "environment.max_steps=5",
        "latents.num_steps=1",
        "latents.decoder_steps=1",
    ]
    config, store = load_config(None, words), Store.at(tmp_path)
    episodes = collect_episodes(config.environment, 0, range(4))
    learner = make_learner(config.latents, episode_arrays(episodes, None, seen), WorkerContext(0))
    fit_encoder_model(config.latents, learner.encoder, episodes).save(store.folder("encoder"))
    with Physics(config, store, 2) as physics:
        observation = physics.environment.reset([1, 2])
        assert set(observation) == drawn
        assert np.isfinite(physics.encoder.reset(observation)).all()
