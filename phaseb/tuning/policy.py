"""The policy job as a search sees it: the same learner of every arm, judged by what its policies earn in physics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from phaseb.collection.environments import make_environment
from phaseb.config.root import Config
from phaseb.episodes.actions import ActionScale, read_action_scale
from phaseb.episodes.control import read_control
from phaseb.episodes.shards import read_trajectories
from phaseb.episodes.tasks import read_tasks
from phaseb.episodes.trajectories import Trajectories
from phaseb.latents.model import EncoderModel
from phaseb.nn.data_parallel import WorkerContext
from phaseb.pipeline.graph import run_graph
from phaseb.pipeline.result import Callback
from phaseb.pipeline.stage import Stage, needed_for
from phaseb.policy.behavior_metrics import action_mse
from phaseb.policy.evaluation import EVALUATED, aggregate, evaluate
from phaseb.policy.fqe import fitted_q_evaluation
from phaseb.policy.trained_policy import TrainedPolicy
from phaseb.runtime.storage import Store
from phaseb.stages.policy import BASELINES, ArmsLearner, PolicyData, make_learner, trusted_horizons
from phaseb.stages.registry import build_graph
from phaseb.stages.replay_streams import fill_replay, runs_of, streams_of
from phaseb.stages.synthesize import made_generators

FIRST_SEED = 3_000_000
"""Physics episodes of a search: none that collecting, promoting or reporting uses."""
NUM_EPISODES = 40


def stages_before_policies(config: Config) -> tuple[Stage, ...]:
    """The stages that the training of policies reads, but those that train policies."""
    graph = build_graph(config)
    read = next(stage.inputs for stage in graph if stage.name == "policy")
    return needed_for(graph, [name for name in read if name != BASELINES])


@dataclass(frozen=True)
class PolicyInputs:
    """What the stages before the policy left: shared by all trials of a node, read only."""

    real: Trajectories
    held_out: Trajectories
    synthetic: Mapping[str, Trajectories]
    trusted: Mapping[str, int]
    store: Store
    scale: ActionScale | None


class PolicyObjective:
    """Searches the policy learner, the arms' shares and the replay. Set `arms` under overrides to train fewer runs."""

    sections = ("policy", "arms", "replay")
    steps = "policy.num_steps"
    changes = ""

    def metrics(self, config: Config) -> Mapping[str, str]:
        of = "the candidate arm's policies, mean over their seeds"
        if config.environment.id == "none":
            return {"return": f"fitted Q evaluation of {of}", "action_mse": "distance to the operators (no goal)"}
        return {
            **{name: f"{name} in physics of {of}" for name in EVALUATED},
            "gain": "return of the candidate arm less that of its control",
            "action_mse": "distance to the operators on dev episodes (no goal)",
        }

    def prepare(self, config: Config, callbacks: Sequence[Callback]) -> PolicyInputs:
        run_graph(stages_before_policies(config), config, callbacks)
        store = Store.at(config.run.dir)
        latents = read_trajectories(store.folder("latents"), ("train", "dev"))
        made = made_generators(store, "synthetic", config.drawn_generators)
        synthetic = {name: read_trajectories(store.folder("synthetic", name)) for name in made}
        trusted = trusted_horizons(config, store, latents.split("dev"))
        return PolicyInputs(
            latents.split("train"), latents.split("dev"), synthetic, trusted, store, read_action_scale(store)
        )

    def make_learner(self, config: Config, data: PolicyInputs, context: WorkerContext) -> ArmsLearner:
        here = config.model_copy(update={"resources": config.resources.model_copy(update={"num_workers": 0})})
        run = config.run.model_copy(update={"seed": context.seed})
        here = here.model_copy(update={"run": run})
        replay, means = fill_replay(data.real, data.synthetic, here, None, data.trusted)
        runs = runs_of(here)
        inputs = PolicyData(
            replay,
            runs,
            streams_of(here, runs, means),
            data.real,
            data.held_out,
            data.store,
            data.store.folder("dynamics"),
            arms=here.arms.trained,
        )
        return make_learner(config.policy, inputs, context)

    def measure(
        self, learner: ArmsLearner, config: Config, data: PolicyInputs, seed: int, split: str = "dev"
    ) -> dict[str, float]:
        by_arm: dict[str, list[TrainedPolicy]] = {}
        for spec, actor in zip(learner.specs, learner.actors(), strict=True):
            by_arm.setdefault(spec.arm, []).append(actor)
        names = list(by_arm)
        candidate = next((name for name in config.promotion.candidates if name in by_arm), names[-1])
        earned = [self._earn(actor, config, data, seed, split) for actor in by_arm[candidate]]
        found = {name: float(np.mean([row[name] for row in earned])) for name in earned[0]}
        found["action_mse"] = float(np.mean([action_mse(actor.act, data.held_out) for actor in by_arm[candidate]]))
        control = config.arms.arm(candidate).control
        if control in by_arm and config.environment.id != "none":
            base = [self._earn(actor, config, data, seed, split)["return"] for actor in by_arm[control]]
            found["gain"] = found["return"] - float(np.mean(base))
        return found

    def _earn(
        self, actor: TrainedPolicy, config: Config, data: PolicyInputs, seed: int, split: str
    ) -> dict[str, float]:
        """What one policy earns; the sealed test's episodes are those that the report evaluates on."""
        first = FIRST_SEED if split == "dev" else config.evaluation.first_seed
        num = NUM_EPISODES if split == "dev" else config.evaluation.num_episodes
        size = min(config.evaluation.num_envs, num)
        model = EncoderModel.load(data.store.folder("encoder"))
        control, tasks, frames = read_control(data.store), read_tasks(data.store), model.spec.frame_shape is not None
        environment = make_environment(config.environment, size, control, tasks, frames)
        if environment is None:
            estimate: Any = fitted_q_evaluation(config.evaluation.fqe, [actor], data.held_out, seed)
            return {"return": float(estimate.interval(0)[0])}
        scale = data.scale or ActionScale.of_environment(
            environment.action_low, environment.action_high, environment.name
        )
        try:
            seeds = range(first, first + num)
            rows = evaluate(actor.closed_loop(), model.online(size), environment, seeds, scale.denormalise)
        finally:
            environment.close()
        told = aggregate(rows, config.valuation)
        return {name: told[name] for name in EVALUATED}
