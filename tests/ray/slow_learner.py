"""A small SAC learner whose steps take a while: long enough to be struck between two checkpoints. Workers import it."""

import time

from phaseb.config.policy import OfflineConfig, PolicyConfig
from phaseb.stages.policy import make_learner

STEPS, BATCH = 100, 32
POLICY = PolicyConfig(
    num_steps=STEPS,
    batch_size=BATCH,
    width=32,
    runs_per_batch=2,
    offline=OfflineConfig(algorithm="sac", bc_fraction=0),
)


class SlowLearner:
    """Makes it, from data and context."""

    def __init__(self, sleep_s: float) -> None:
        self.sleep_s = sleep_s

    def __call__(self, data, context):
        learner = make_learner(POLICY, data, context)
        step = learner.step

        def slowly(k):
            time.sleep(self.sleep_s)
            return step(k)

        learner.step = slowly
        return learner
