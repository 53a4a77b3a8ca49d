"""What the rows of one seed of the ablation table share: episodes, encoder, the gate, and how rollouts are acted."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import gymnasium_episodes
import numpy as np
import ur3_episodes

from phaseb.config.data import EnvironmentConfig
from phaseb.config.encoder import LatentsConfig
from phaseb.config.root import Config
from phaseb.dynamics.rollout import Policy
from phaseb.episodes.actions import ActionScale
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.npz import read_npz, write_npz
from phaseb.episodes.trajectories import Trajectories
from phaseb.latents.fit import fit_encoder_model
from phaseb.latents.learner import make_learner as make_encoder
from phaseb.latents.model import EncoderModel
from phaseb.latents.padding import episode_arrays
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.seeding import torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.negatives import negative_rollouts
from phaseb.trust.learner import make_learner as make_gate
from phaseb.trust.model import TrustModel
from phaseb.workcell.collect import collect_episodes

MAX_BYTES = 2**32


@dataclass(frozen=True)
class Inputs:
    """Latents of a seed; `gate` is None where none was asked for, `recorded` false where actions are latent."""

    latents: Trajectories
    encoder: EncoderModel
    recorded: bool
    gate: TrustModel | None

    def prior(self, seed: int) -> Policy:
        """Codes of training episodes that were near, never those of the judged ones: those have seen what came next."""
        actions = self.encoder.latent_actions
        assert actions is not None
        return actions.follow(torch_generator(seed, "benchmark", "prior"))


def prepare(options: argparse.Namespace, seed: int) -> Inputs:
    """Episodes encoded as a run encodes them: the encoder learns from the training split alone."""
    episodes = episodes_of(options, seed)
    train = [e for e in episodes if e.split == "train"]
    recorded = train[0].actions is not None
    unit = np.ones(2, dtype=np.float32)
    scale = None if not recorded else ActionScale(-unit, unit) if options.source == "cell" else ActionScale.fit(train)
    config = LatentsConfig() if not options.quick else LatentsConfig(num_steps=100, decoder_steps=0)
    learner = make_encoder(config, episode_arrays(train, scale, config.observation), WorkerContext(seed))
    for step in range(learner.num_steps):
        learner.step(step)
    bundle = fit_encoder_model(config, learner.encoder, train, scale, seed)
    latents = bundle.encode(episodes, scale, seed)
    gate = fit_gate(latents.split("train"), options, seed) if options.gate and recorded else None
    return Inputs(latents, bundle, recorded, gate)


def fit_gate(train: Trajectories, options: argparse.Namespace, seed: int) -> TrustModel:
    """The gate as a run trains it: against corrupted episodes and rollouts of the report's model."""
    small = ({"num_steps": 60, "num_corruptions": 100}, {"num_steps": 40}) if options.quick else ({}, {})
    config = Config.model_validate(
        {
            "run": {"seed": seed},
            "trust": small[0],
            "generators": small[1],
            "synthesis": {"horizon": options.horizon},
            "dynamics": {"gru": {"horizon": {"steps": options.horizon}}},
        }
    )
    whole = train.at_least(options.horizon)
    learner = make_gate(config.trust, whole, negative_rollouts(config, whole), WorkerContext(seed))
    for step in range(learner.num_steps):
        learner.step(step)
    return learner.bundle()


def episodes_of(options: argparse.Namespace, seed: int) -> list[Episode]:
    """Training and test episodes of a seed, marked by split."""
    count = options.train + options.test
    kind, _, path = options.source.partition(":")
    found = SOURCES[kind](options, seed, count, path)
    if len(found) < options.train + 20:
        raise SystemExit(f"{options.source} has {len(found)} episodes of {options.horizon} steps: too few to judge on")
    return [replace(e, split="train" if i < options.train else "test") for i, e in enumerate(found[:count])]


def _cell(options: argparse.Namespace, seed: int, count: int, path: str) -> list[Episode]:
    return collect_episodes(EnvironmentConfig(observation=options.observation), seed, range(count))


def _npz(options: argparse.Namespace, seed: int, count: int, path: str) -> list[Episode]:
    return _shuffled([e for e in read_npz(path, MAX_BYTES) if len(e) >= options.horizon], seed)


def _gymnasium(options: argparse.Namespace, seed: int, count: int, path: str) -> list[Episode]:
    """Collected here, and read back from the NPZ file that a user would bring."""
    task = options.source
    folder, name = Store.at(str(options.scratch)), f"{task}-{seed}-{count}.npz"
    if not (options.scratch / name).exists():
        write_npz(folder, name, gymnasium_episodes.collect(task, seed, count, options.horizon))
    return read_npz(str(options.scratch / name), MAX_BYTES)


def _ur3(options: argparse.Namespace, seed: int, count: int, path: str) -> list[Episode]:
    return _shuffled(ur3_episodes.read_cycles(path, options.horizon), seed)


def _shuffled(episodes: list[Episode], seed: int) -> list[Episode]:
    return [episodes[i] for i in np.random.default_rng(seed).permutation(len(episodes))]


SOURCES: dict[str, Callable[[argparse.Namespace, int, int, str], list[Episode]]] = {
    "cell": _cell,
    "npz": _npz,
    "ur3": _ur3,
    **dict.fromkeys(gymnasium_episodes.TASKS, _gymnasium),
}
