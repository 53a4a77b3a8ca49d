"""The dynamics job as a search sees it: the same learner, judged by full-horizon rollouts on dev episodes."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from phaseb.config.root import Config
from phaseb.dynamics.gru_ensemble.learner import EnsembleLearner
from phaseb.dynamics.gru_ensemble.scheduled_learner import ScheduledLearner
from phaseb.dynamics.statistics import latent_statistics, open_loop_rmse
from phaseb.episodes.shards import read_trajectories
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.pipeline.graph import run_graph
from phaseb.pipeline.result import Callback
from phaseb.pipeline.stage import needed_for
from phaseb.runtime.seeding import torch_generator
from phaseb.runtime.storage import Store
from phaseb.stages.dynamics import learner_with_discriminator
from phaseb.stages.registry import build_graph
from phaseb.stages.splits import discriminator_episodes
from phaseb.trust.two_sample import judge

Searched = EnsembleLearner | ScheduledLearner
RATIOS = ("std_ratio", "std_ratio_pooled", "range_ratio", "variance_growth")
NO_MATCH = 27.6
"""What a distance counts where the ratio is 0 or not finite: |log 1e-12|, the floor of lag_match."""


class DynamicsObjective:
    """Searches the world model: weights of its losses, teacher forcing, horizon, size, critic."""

    sections = ("dynamics.gru", "trust.discriminator")
    steps = "dynamics.gru.num_steps"
    changes = "dynamics.gru.changes"

    def metrics(self, config: Config) -> Mapping[str, str]:
        distances = {f"{name}_distance": f"|log {name}|; 0 where rollouts match real episodes" for name in RATIOS}
        return {
            "latent_distance": "mean of the four distances and lag_match: one number for how far rollouts are off",
            **distances,
            "lag_match": "mean |log| of the ratio of the variances of z_{t+k} - z_t",
            "bounds_pass": "share of rollouts within the real episodes' bounds",
            "rmse_end": "open-loop error at the last step",
            "drift_end": "Wasserstein distance of the marginals at the last step",
            "judge_auc": "tree judges on dev episodes (coarse: few episodes)",
        }

    def prepare(self, config: Config, callbacks: Sequence[Callback]) -> Trajectories:
        run_graph(needed_for(build_graph(config), ["encode"]), config, callbacks)
        latents = Store.at(config.run.dir).folder("latents")
        # One split after the other: trials then read each where it lies, in memory that all of a node share.
        data = read_trajectories(latents, ("train", "dev", "test")).by_split("train", "dev", "test")
        if not len(data.split("dev").at_least(config.synthesis.horizon)):
            raise DataError(f"no dev episode has synthesis.horizon = {config.synthesis.horizon} steps to measure on")
        return data

    def make_learner(self, config: Config, data: Trajectories, context: WorkerContext) -> Searched:
        own = discriminator_episodes(config, data.split("train"))
        known = data.split("train", "dev")
        return learner_with_discriminator(config.dynamics.gru, config.trust.discriminator, own, known, context)

    def measure(
        self, learner: Searched, config: Config, data: Trajectories, seed: int, split: str = "dev"
    ) -> dict[str, float]:
        real = data.split(split).at_least(config.synthesis.horizon)
        bundle, horizon = learner.bundle(), config.synthesis.horizon
        start, actions = torch.from_numpy(real.z[:, 0]), torch.from_numpy(real.actions[:, :horizon])
        rolled = bundle.rollout(start, actions, horizon, torch_generator(seed, "search"))
        mean = bundle.mean_rollout(start, actions)
        truth, made = real.z[:, : horizon + 1], rolled.z.cpu().numpy()
        numbers = latent_statistics(truth[:, 1:], made[:, 1:])
        distances = {f"{name}_distance": distance(numbers[name]) for name in RATIOS}
        lags = numbers["lag_match"] if math.isfinite(numbers["lag_match"]) else NO_MATCH
        drifts = [value for name, value in numbers.items() if name.startswith("drift_")]
        return {
            "latent_distance": float(np.mean([*distances.values(), lags])),
            **distances,
            "lag_match": lags,
            "bounds_pass": numbers["bounds_pass"],
            "rmse_end": float(open_loop_rmse(truth[:, 1:], mean.cpu().numpy()[:, 1:])[-1]),
            "drift_end": drifts[-1],
            "judge_auc": self._judge_auc(truth, made, real.actions[:, :horizon], config, seed),
        }

    def _judge_auc(self, truth: np.ndarray, made: np.ndarray, actions: np.ndarray, config: Config, seed: int) -> float:
        coarse = {"families": ("episode_trees",), "sigmas": (0.0,), "num_permutations": 19, "episode_rounds": 30}
        folds = min(config.judge.num_folds, len(truth) // 2)
        if folds < 2:
            return float("nan")
        settings = config.judge.model_copy(update={**coarse, "num_folds": folds})
        return judge(truth, made, actions, settings, seed).worst().auc


def distance(ratio: float) -> float:
    """|log ratio|: 0 where equal, the same for twice as for half, bounded for a ratio of 0 or none."""
    return min(abs(math.log(ratio)), NO_MATCH) if math.isfinite(ratio) and ratio > 0 else NO_MATCH
