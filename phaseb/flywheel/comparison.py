"""Whether a generation's policy replaces the shipped one: by fresh episodes, or by off-policy evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from phaseb.config.root import Config
from phaseb.episodes.shards import read_episodes, read_trajectories
from phaseb.episodes.trajectories import Trajectories
from phaseb.flywheel.history import History
from phaseb.latents.model import EncoderModel
from phaseb.policy.evaluation import Row
from phaseb.policy.fqe import fitted_q_evaluation
from phaseb.policy.trained_policy import TrainedPolicy, load_policy
from phaseb.promotion.contest import Contest
from phaseb.promotion.decision import decide, decide_by_estimate
from phaseb.runtime.ray_tasks import get_result
from phaseb.runtime.storage import Store
from phaseb.stages.evaluate import play
from phaseb.stages.promotion import estimates_by_arm, recorded_scale

DECISION = "decision.json"
RECORDED = ("train", "dev")  # twice the data tells policies apart better than data that none was trained on
CONTEST = Contest(candidates=("the new one",), controls=("the shipped policy",))
APART = 1_000_000  # episode seeds between two generations' decisions: each spends fresh ones


def decide_generation(config: Config, own: Config, history: History, contender: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the generation's policy replaces the shipped one, by fresh episodes or by off-policy evaluation."""
    store = history.run_of(contender["generation"])
    if store.exists(DECISION):
        kept: dict[str, Any] = store.read_json(DECISION)
        return kept
    shipped = history.shipped
    if shipped is None:
        decision: dict[str, Any] = {
            "promoted": True,
            "reason": "the first policy is shipped: there is none to compare it with",
            "method": "none",
            "evidence": None,
            "budget": {"max_episodes": 0, "spent_episodes": 0},
        }
    elif config.environment.id == "none":
        decision = _by_estimate(own, history, shipped, contender)
    else:
        decision = _in_physics(own, history, shipped, contender)
    store.write_json(decision, DECISION)
    return decision


def _in_physics(
    own: Config, history: History, shipped: Mapping[str, Any], contender: Mapping[str, Any]
) -> dict[str, Any]:
    plan = own.promotion.model_copy(update={"first_seed": own.promotion.first_seed + APART // 2})
    who = dict(zip(CONTEST.arms, (contender, shipped), strict=True))
    task = ray.remote(num_cpus=own.resources.cpus_per_task)(play)

    def measure(name: str, seed: int, episodes: Sequence[int]) -> list[Row]:
        arm, store = who[name]["arm"], history.run_of(who[name]["generation"])
        rows: list[Row] = get_result(task.remote(own, store, arm, seed, list(episodes)))
        return rows

    store = history.run_of(contender["generation"])
    num_train = len(read_trajectories(store.folder("latents"), ("train",)))
    scale = recorded_scale(own, store)
    return decide(plan, CONTEST, own.valuation, measure, range(own.arms.num_seeds), num_train, scale)


def _by_estimate(
    own: Config, history: History, shipped: Mapping[str, Any], contender: Mapping[str, Any]
) -> dict[str, Any]:
    """Fitted Q evaluation of both on training and dev episodes, each acting on the latents of its own encoder."""
    both = (contender, shipped)
    stores = [history.run_of(who["generation"]) for who in both]
    recorded = read_trajectories(stores[0].folder("latents"), RECORDED)
    latents = [_latents(recorded, stores[0], store) for store in stores]
    sizes = [z.shape[-1] for z in latents]
    beside = replace(recorded, z=np.concatenate(latents, axis=-1))
    actors, seeds = [], range(own.arms.num_seeds)
    for store, who, part in zip(stores, both, (slice(0, sizes[0]), slice(sizes[0], sum(sizes))), strict=True):
        actors += [_PartActor(load_policy(store.folder("policy", who["arm"], str(s))), part) for s in seeds]
    result = fitted_q_evaluation(own.evaluation.fqe, actors, beside, own.run.seed)
    estimates = estimates_by_arm(result.values, result.support, [(name, s) for name in CONTEST.arms for s in seeds])
    num_train = sum(split == "train" for split in recorded.splits)
    return decide_by_estimate(own.promotion, CONTEST, *estimates, num_train, recorded_scale(own, stores[0]))


def _latents(kept: Trajectories, data: Store, encoder: Store) -> NDArray[np.float32]:
    """z_V of episodes of one run by the encoder of another, padded as the run's own latents are."""
    episodes = {e.id: e for e in read_episodes(data.folder("episodes"), RECORDED)}
    bundle = EncoderModel.load(encoder.folder("encoder"))
    z = np.empty((*kept.z.shape[:2], bundle.num_dims), np.float32)
    for i, name in enumerate(kept.ids):
        known = bundle.encode_episode(episodes[name])
        z[i, : len(known)] = known
        z[i, len(known) :] = known[-1]
    return z


class _PartActor:
    """A policy that looks at its own part of latents side by side."""

    def __init__(self, actor: TrainedPolicy, part: slice) -> None:
        self._actor, self._part = actor, part

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        acted: torch.Tensor = self._actor(z[:, self._part])
        return acted
