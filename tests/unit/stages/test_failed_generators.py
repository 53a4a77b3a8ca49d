"""A generator that cannot be rolled out is named and left out; the stages after it go on without it."""

import pytest
import torch
from episode_strategies import make_trajectories

from phaseb.config.root import Config
from phaseb.dynamics.custom import Step
from phaseb.dynamics.protocol import load_generator
from phaseb.episodes.shards import write_trajectories
from phaseb.pipeline.stage import StageContext
from phaseb.runtime.storage import Store
from phaseb.stages import dynamics, synthesize
from phaseb.stages.arm_generator import branched_generators, generator_of
from phaseb.stages.replay_streams import runs_of, streams_of


class Times:
    """Latents that are multiplied by `factor` in every step."""

    def __init__(self, settings, latent_size, action_size):
        self.factor = float(settings["factor"])

    def fit(self, train, seed):
        pass

    def step(self, z, action, memory, generator):
        nothing = torch.zeros(len(z))
        return Step(z * self.factor, nothing, terminal=nothing, uncertainty=nothing + 1)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def config(tmp_path, rollouts):
    return Config.model_validate(
        {
            "run": {"dir": str(tmp_path)},
            "synthesis": {"horizon": 10, "num_episodes": 4},
            "dynamics": {
                "plugins": {
                    name: {"model": f"{__name__}:Times", "settings": {"factor": factor}}
                    for name, factor in (("sound", 1.0), ("nan", "nan"), ("large", 1e3))
                }
            },
            "arms": {
                "names": ["real_only", "trust_weighted", "fixed_weight", "third"],
                "num_seeds": 1,
                "trust_weighted": {"generator": "sound", "rollouts": rollouts},
                "fixed_weight": {"generator": "nan", "rollouts": rollouts},
                "third": {"generator": "large", "rollouts": rollouts},
            },
        }
    )


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamics, "_codes", lambda *_: None)  # the actions are the recorded ones
    found = Store.at(tmp_path)
    episodes = make_trajectories([12] * 6, splits=("train",) * 4 + ("dev",) * 2)
    write_trajectories(found.folder("latents"), episodes, 6)
    return found


def fit(own, store, name):
    return dynamics.execute(StageContext(own, store, "key", f"dynamics/{name}"))


def test_one_that_fails_in_its_first_rollouts_serves_no_arm(tmp_path, store):
    own = config(tmp_path, "branched")
    metrics = {name: fit(own, store, name) for name in ("sound", "nan")}
    assert "failed" not in metrics["sound"]
    assert "NaN or Inf" in metrics["nan"]["failed"]
    arms = own.arms
    assert generator_of(arms.arm("trust_weighted"), store) == "sound"
    assert generator_of(arms.arm("fixed_weight"), store) is None
    assert branched_generators(own, store) == ("sound", "large")
    assert load_generator(store.folder("dynamics", "nan")).uncertainty_scale == 0


def test_stored_rollouts_are_made_by_the_others(tmp_path, store, monkeypatch):
    own, asked = config(tmp_path, "stored"), []
    for name in own.stored_generators:
        fit(own, store, name)

    def make(context, source, target, *rest, **more):
        asked.append(target)
        plan = make_trajectories([10] * 4)
        write_trajectories(store.folder(*target.split("/")), plan, 4)

    monkeypatch.setattr(synthesize, "map_stage_shards", make)
    numbers = synthesize.execute(StageContext(own, store, "key", "synthesize"))
    assert asked == ["rollouts/made/sound"]
    assert numbers["sound"] == {"episodes": 4, "transitions": 40}
    assert "NaN or Inf" in numbers["nan"]["failed"]
    assert "diverge" in numbers["large"]["failed"]
    assert synthesize.made_generators(store, "rollouts/made", own.stored_generators) == ["sound"]


def test_an_arm_of_one_without_rollouts_draws_real_rows_alone(tmp_path):
    own = config(tmp_path, "stored")
    share = own.arms.arm("trust_weighted").config.share
    for means, wanted in (({"stored:sound:trust": 0.5}, 0.5 * share), ({}, 0.0)):
        streams = {stream.name: stream for stream in streams_of(own, runs_of(own), means)}
        assert streams["trust_weighted/0"].synthetic_share == pytest.approx(wanted)
        assert streams["placebo_trust_weighted/0"].synthetic_share == pytest.approx(wanted), "as much as its arm"
