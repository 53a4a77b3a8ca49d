"""On the real cell: bricks of skilled operators are worth more than bricks of hasty ones."""

import numpy as np

from phaseb.bricks.manifest import fit_bricks
from phaseb.config.data import EnvironmentConfig, ValuationConfig
from phaseb.config.encoder import BricksConfig, LatentsConfig
from phaseb.latents.fit import fit_encoder_model
from phaseb.latents.learner import make_learner
from phaseb.latents.padding import episode_arrays
from phaseb.nn.data_parallel import WorkerContext
from phaseb.workcell.collect import collect_episodes


def test_bricks_of_skilled_operators_are_worth_more():
    episodes = collect_episodes(EnvironmentConfig(observation="state"), 0, range(120))
    config = LatentsConfig(num_steps=100, decoder_steps=0)
    learner = make_learner(config, episode_arrays(episodes), WorkerContext(0))
    for step in range(learner.num_steps):
        learner.step(step)
    latents = fit_encoder_model(config, learner.encoder, episodes).encode(episodes)
    bricks = fit_bricks(BricksConfig(), ValuationConfig(), latents)
    kind = np.array(latents.lineage["tag/operator"])
    balance = [
        (kind[bricks.labels == i] == "skilled").mean() - (kind[bricks.labels == i] == "hasty").mean()
        for i in range(len(bricks.bricks))
    ]
    best, worst = int(np.argmax(balance)), int(np.argmin(balance))
    assert balance[best] > balance[worst] + 0.2
    better, worse = (bricks.bricks[i].economics for i in (best, worst))
    assert better["value_per_hour"].value > worse["value_per_hour"].value
    assert better["error_rate"].value < worse["error_rate"].value
