"""Where the time of `make demo` goes: processor seconds of what its stages do, on a finished run, one thread.

    OMP_NUM_THREADS=1 python benchmarks/demo.py runs/demo

Starts of processes, and waiting for them, are beside it: `run.json` tells the stages' seconds by the clock.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from phaseb.config.load import load_config
from phaseb.config.root import Config
from phaseb.dynamics.gru_ensemble.teacher_forcing import GROWTH
from phaseb.episodes.shards import read_trajectories
from phaseb.episodes.streaming import sample_episodes
from phaseb.latents.learner import make_learner as make_encoder
from phaseb.latents.padding import episode_arrays
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.storage import Store
from phaseb.stages import collect, dynamics, gate, judge, policy

STEPS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="directory of a finished run")
    folder = parser.parse_args().run
    torch.set_num_threads(1)
    config = load_config(f"{folder}/config.yaml", [f"run.dir={folder}", "resources.num_workers=0"])
    store, here = Store.at(folder), WorkerContext(0)
    of_encoder(config, store, here)
    of_world_model(config, store, here)
    of_trust(config, store, here)
    told("judges", lambda: judge.judged(config, store))
    of_policies(config, store, here)


def told(name: str, work: Callable[[], Any], times: float = 1, tries: int = 1) -> Any:
    """Do it, and print what the whole of it costs where this is one part of so many; the least of some tries."""
    costs = []
    for _ in range(tries):
        began = time.process_time()
        made = work()
        costs.append(time.process_time() - began)
    print(f"{name:46s} {min(costs) * times:7.1f} s", flush=True)
    return made


def steps(name: str, learner: Any, first: int, until: int) -> None:
    """What the steps from `first` until `until` cost, from a few of them."""
    learner.step(first)
    told(name, lambda: [learner.step(first + 1 + i) for i in range(STEPS)], (until - first) / STEPS, tries=3)


def of_encoder(config: Config, store: Store, here: WorkerContext) -> None:
    episodes = sample_episodes(store.folder("episodes"), ("train", "dev"), config.memory.encoder_episodes, 0)
    arrays = episode_arrays(episodes, collect.read_action_scale(store), config.latents.observation)
    steps("encoder, training", make_encoder(config.latents, arrays, here), 0, config.latents.num_steps)


def of_world_model(config: Config, store: Store, here: WorkerContext) -> None:
    told("world model, landings *", lambda: dynamics.event_gp_fitter(config, store))
    data = read_trajectories(store.folder("latents"), ("train", "dev"))
    learner = dynamics.learner_with_discriminator(config.dynamics.gru, config.trust.discriminator, None, data, here)
    total = config.dynamics.gru.num_steps
    grows, grown = (round(share * total) for share in GROWTH)
    steps("world model, training at the first horizon", learner, 0, grows)
    steps("world model, while it grows", learner, (grows + grown) // 2, (grows + grown) // 2 + grown - grows)
    steps("world model, at the last horizon", learner, grown, total)


def of_trust(config: Config, store: Store, here: WorkerContext) -> None:
    negatives = told("other generators' rollouts *", lambda: gate.negatives(config, store))
    own = gate.gate_side(config, read_trajectories(store.folder("latents"), ("train",)))
    learner = gate.make_learner(config.trust, own, negatives, here)
    steps("gate, training", learner, 0, config.trust.num_steps)


def of_policies(config: Config, store: Store, here: WorkerContext) -> None:
    """Each kind of runs alone, three seeds of one arm."""
    told("short-range model *", lambda: policy.short_range_model(config, store))
    real, dev = (read_trajectories(store.folder("latents"), (split,)) for split in ("train", "dev"))
    total = config.policy.num_steps
    for arm in ("real_only", "trust_weighted"):
        alone = config.model_copy(update={"arms": config.arms.only(arm)})
        kind = config.policy.of_learner(config.arms.arm(arm).config.learner)
        runs = policy.runs_of(alone)
        replay, means = policy.fill_replay(real, {}, alone, None, {})
        streams, home = policy.streams_of(alone, runs, means), store.folder("dynamics")
        data = policy.PolicyData(replay, runs, streams, real, dev, store, home, arms=alone.arms.trained)
        learner = policy.make_learner(alone.policy, data, here)
        value = kind.bc_steps + round(kind.offline.critic_warmup_fraction * total)
        hook, learner.hook = learner.hook, None
        steps(f"{arm}, cloning", learner, 0, kind.bc_steps)
        steps(f"{arm}, values", learner, kind.bc_steps, value)
        steps(f"{arm}, values and policy", learner, value, total)
        if hook is not None:
            times = (total - kind.bc_steps) / config.policy.augmentation.refresh_steps
            told(f"{arm}, rollouts", lambda hook=hook, at=learner: hook.generate(total, at.actors(), hook.runs), times)


if __name__ == "__main__":
    main()
