"""What do phaseb's learners cost beside plain PyTorch loops of the same models on the same data, one thread each?

    OMP_NUM_THREADS=1 python benchmarks/training.py [--quick] [--repeats 5] [--out FILE]

World model: phaseb's learner against the same objective with every step of the rollout recorded by autograd, which is
what one writes without phaseb; both share data, weights and batches. SAC: phaseb's update against CleanRL's
`sac_continuous_action.py` in plain modules, same networks and batch; then four arms of three seeds together against one
after the other. Two workers: gradients averaged by gloo over two processes, against one process with the whole batch.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from paired import ratio, show, timed, told

from phaseb.config.dynamics import GRUConfig
from phaseb.config.policy import PolicyConfig
from phaseb.dynamics.gru_ensemble import learner as world_model_learner
from phaseb.dynamics.gru_ensemble.learner import EnsembleLearner, make_learner
from phaseb.dynamics.gru_ensemble.unroll import open_loop, open_loop_autograd
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import RunSpec
from phaseb.policy.learner import SACLearner
from phaseb.policy.networks import NUM_LAYERS
from phaseb.policy.sac import MAX_GRAD_NORM, TEMPERATURE_LR

T, D, A = 60, 16, 2
NO_PENALTIES = {
    "algorithm": "sac",
    "bc_fraction": 0.0,
    "critic_warmup_fraction": 0.0,
    "bc_weight": 0.0,
    "normalise_value": False,
}


def made_up(episodes: int) -> Trajectories:
    """Random walks: what is learned from them does not matter here."""
    rng = np.random.default_rng(0)
    z = np.cumsum(0.2 * rng.normal(size=(episodes, T + 1, D)), 1).astype(np.float32)
    return Trajectories(
        z=z / z.std(),
        actions=rng.uniform(-1, 1, (episodes, T, A)).astype(np.float32),
        rewards=rng.normal(size=(episodes, T)).astype(np.float32),
        terminals=np.zeros((episodes, T), np.float32),
        lengths=np.full(episodes, T),
        ids=tuple(map(str, range(episodes))),
        splits=("train",) * episodes,
    )


def world_model(context: WorkerContext | None = None, **changes: Any) -> EnsembleLearner:
    return make_learner(GRUConfig.model_validate(changes), made_up(50), context or WorkerContext(0))


def stepping(learner: EnsembleLearner, run: Callable[..., Any], step: int, times: int) -> Callable[[], None]:
    """`times` steps with the free run done by `run`."""

    def go() -> None:
        with patch.object(world_model_learner, "open_loop", run):
            for _ in range(times):
                learner.step(step)

    return go


class Batches:
    """A source that always holds the same batch: the update is measured, not the replay."""

    def __init__(self, runs: int, rows: int) -> None:
        rng = np.random.default_rng(0)
        shapes = {"z": (D,), "next_z": (D,), "action": (A,), "reward": ()}
        self.arrays = {name: rng.uniform(-1, 1, (1, runs, rows, *shape)) for name, shape in shapes.items()}
        for name, value in (("discount", 0.97), ("is_synthetic", 0.0), ("weight", 1.0)):
            self.arrays[name] = np.full((1, runs, rows), value)

    def sample(self, step: int, num_batches: int) -> dict[str, np.ndarray]:
        return {name: np.repeat(x, num_batches, 0).astype(np.float32) for name, x in self.arrays.items()}


def policy(runs: int, context: WorkerContext | None = None, **changes: Any) -> SACLearner:
    config = PolicyConfig.model_validate({"offline": NO_PENALTIES, **changes})
    specs = [RunSpec(f"arm{i // 3}", i % 3) for i in range(runs)]
    return SACLearner(config, Batches(runs, config.batch_size), specs, context or WorkerContext(0))


def updating(learner: SACLearner, times: int) -> Callable[[], None]:
    def go() -> None:
        for step in range(1, times + 1):
            learner.step(step)

    return go


class CleanSAC:
    """CleanRL's SAC in its own words, with as many critics, layers and norms as ours."""

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        hidden = [config.width] * NUM_LAYERS
        self.actor = self._net([D, *hidden, 2 * A], False)
        self.qfs, self.targets = (
            nn.ModuleList([self._net([D + A, *hidden, 1], True) for _ in range(config.num_critics)]) for _ in range(2)
        )
        self.targets.load_state_dict(self.qfs.state_dict())
        self.log_alpha = torch.zeros(1, requires_grad=True)
        self.q_optimizer = torch.optim.Adam(list(self.qfs.parameters()), lr=config.critic_lr)
        self.actor_optimizer = torch.optim.Adam(list(self.actor.parameters()), lr=config.actor_lr)
        self.a_optimizer = torch.optim.Adam([self.log_alpha], lr=TEMPERATURE_LR)

    def _net(self, sizes: list[int], norm: bool) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes[:-1]):
            normed = [nn.LayerNorm(outputs, elementwise_affine=False)] if norm else []
            layers += [nn.Linear(inputs, outputs), *normed, nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))

    def get_action(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.actor(x).chunk(2, dim=-1)
        log_std = -5 + 0.5 * 7 * (torch.tanh(log_std) + 1)
        normal = torch.distributions.Normal(mean, log_std.exp())
        x_t = normal.rsample()
        y_t = torch.tanh(x_t)
        log_prob = normal.log_prob(x_t) - torch.log(1 - y_t.pow(2) + 1e-6)
        return y_t, log_prob.sum(1, keepdim=True)

    def update(self, z: Tensor, action: Tensor, reward: Tensor, next_z: Tensor, discount: Tensor) -> None:
        with torch.no_grad():
            next_action, next_log_pi = self.get_action(next_z)
            both = torch.cat([next_z, next_action], 1)
            least = torch.stack([q(both) for q in self.targets]).amin(0) - self.log_alpha.exp() * next_log_pi
            next_q = reward + discount * least.view(-1)
        both = torch.cat([z, action], 1)
        q_loss = torch.stack([nnf.mse_loss(q(both).view(-1), next_q) for q in self.qfs]).sum()
        self.q_optimizer.zero_grad()
        q_loss.backward()
        nn.utils.clip_grad_norm_(self.qfs.parameters(), MAX_GRAD_NORM)
        self.q_optimizer.step()
        pi, log_pi = self.get_action(z)
        both = torch.cat([z, pi], 1)
        actor_loss = (self.log_alpha.exp().detach() * log_pi - torch.stack([q(both) for q in self.qfs]).amin(0)).mean()
        self.actor_optimizer.zero_grad()
        actor_loss.backward()
        nn.utils.clip_grad_norm_(self.actor.parameters(), MAX_GRAD_NORM)
        self.actor_optimizer.step()
        alpha_loss = (-self.log_alpha.exp() * (log_pi.detach() - A)).mean()
        self.a_optimizer.zero_grad()
        alpha_loss.backward()
        self.a_optimizer.step()
        for p, target in zip(self.qfs.parameters(), self.targets.parameters(), strict=True):
            target.data.copy_(self.config.tau * p.data + (1 - self.config.tau) * target.data)

    def times(self, count: int) -> Callable[[], None]:
        batch = {k: torch.from_numpy(v[0, 0]) for k, v in Batches(1, self.config.batch_size).sample(0, 1).items()}

        def go() -> None:
            for _ in range(count):
                self.update(*(batch[name] for name in ("z", "action", "reward", "next_z", "discount")))

        return go


def worker(rank: int, world: int, batch: int, steps: int, address: str, results: Any) -> None:
    """One of `world` processes that train the same world model; puts its seconds of the clock."""
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    learner = world_model(WorkerContext(0, rank, world), batch_size=batch)
    learner.step(0)
    if world > 1:
        torch.distributed.barrier()
    started = time.perf_counter()
    for step in range(steps):
        learner.step(step)
    results.put(time.perf_counter() - started)


def workers(world: int, batch: int, steps: int) -> float:
    """Seconds that `world` processes take for `steps` of a global batch: the slowest one's."""
    import socket

    spawn = torch.multiprocessing.get_context("spawn")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    results = spawn.Queue()
    processes = [spawn.Process(target=worker, args=(r, world, batch, steps, address, results)) for r in range(world)]
    for process in processes:
        process.start()
    seconds = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return max(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few steps, no second process")
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    times, repeats = (2, 2) if options.quick else (5, options.repeats)
    rows, result = [], {"benchmark": "training", "repeats": repeats}
    for name, step in (("at horizon 10", 0), ("half-way", 975), ("at horizon 60", 1499)):
        learner = world_model()
        seconds = timed(
            {
                "plain": stepping(learner, open_loop_autograd, step, times),
                "phaseb": stepping(learner, open_loop, step, times),
            },
            repeats,
        )
        result[f"world_model {name}"] = found = ratio(seconds, "plain", "phaseb")
        rows.append((f"world model steps/s, {name}, / plain loop", told(found), "≥ 0.95"))
    one, clean = policy(1), CleanSAC(policy(1).config)
    seconds = timed({"plain": clean.times(10 * times), "phaseb": updating(one, 10 * times)}, repeats)
    result["sac"] = ratio(seconds, "plain", "phaseb")
    rows.append(("SAC updates/s / CleanRL-style loop", told(result["sac"]), "≥ 1.0"))
    together, alone = policy(12), [policy(1) for _ in range(12)]
    seconds = timed(
        {
            "alone": lambda: [updating(a, times)() for a in alone],
            "together": updating(together, times),
        },
        repeats,
    )
    result["together"] = ratio(seconds, "alone", "together")
    rows.append(("4 arms × 3 seeds of SAC together / one after the other", told(result["together"]), "≥ 1.3"))
    if not options.quick:
        pairs = [(workers(1, 512, 4), workers(2, 512, 4)) for _ in range(repeats)]
        found = [one_s / two_s for one_s, two_s in pairs]
        result["two_workers"] = {"median": statistics.median(found), "least": min(found), "most": max(found)}
        rows.append(
            (
                "two workers / one, global batch of 512 windows and 128 rollouts, by the clock",
                told(result["two_workers"]),
                "≥ 1.6",
            )
        )
    show(f"Training, one thread a process, processor time, {repeats} repeats", rows, result, options.out)


if __name__ == "__main__":
    main()
