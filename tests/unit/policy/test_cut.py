"""What a policy may exploit at the end of a truncated rollout: values of states that no row continues from."""

import numpy as np

from phaseb.config.policy import OfflineConfig, PolicyConfig
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import RunSpec
from phaseb.policy.learner import SACLearner
from phaseb.runtime.seeding import numpy_generator

EDGE = 1.0


class Corridor:
    """Steps of 0.3 along a corridor that every rollout is cut at the end of: to the right lies what nobody saw.

    Every step to the right pays a little, so the last rows promise that it goes on like this beyond the edge.
    """

    def __init__(self, rows=128):
        self.rows = rows

    def sample(self, step, num_batches):
        g = numpy_generator(0, "corridor", step)
        shape = (num_batches, 1, self.rows)
        z, action = g.uniform(-1, EDGE, shape), g.uniform(-1, 1, shape)
        after = np.maximum(z + 0.3 * action, -1)
        f = np.float32
        return {
            "z": z[..., None].astype(f),
            "action": action[..., None].astype(f),
            "reward": (0.1 * action).astype(f),
            "next_z": after[..., None].astype(f),
            "discount": np.full(shape, 0.9, f),
            "is_synthetic": np.ones(shape, bool),
            "weight": np.ones(shape, f),
            "cut": (after > EDGE).astype(f),
        }


def at_the_edge(truncation_pessimism):
    """The trained policy's step half a step before the edge, and in the middle of the corridor."""
    offline = OfflineConfig(
        algorithm="sac",
        bc_weight=0,
        bc_fraction=0,
        critic_warmup_fraction=0,
        truncation_pessimism=truncation_pessimism,
        pessimism="spread",
        spread_weight=0.0,
    )
    config = PolicyConfig(
        num_steps=600,
        width=32,
        num_critics=5,
        batch_size=128,
        actor_lr=3e-3,
        offline=offline,
        runs_per_batch=1,
    )
    learner = SACLearner(config, Corridor(), [RunSpec("trust_weighted", 0)], WorkerContext(0))
    for step in range(config.num_steps):
        learner.step(step)
    return learner.actors()[0].act(np.array([[EDGE - 0.05], [-0.5]], np.float32))[:, 0]


def test_a_policy_goes_over_the_edge_for_values_that_nothing_backs_and_pessimism_there_stops_it():
    hopeful, middle = at_the_edge(0.0)
    assert hopeful > 0.5, "without pessimism the policy leaves what is known: the test has something to show"
    wary, still_going = at_the_edge(30.0)
    assert wary < 0.2, "it stays where rollouts are"
    assert middle > 0.5
    assert still_going > 0.3, "and is not afraid elsewhere"
