"""What do phaseb's SAC and IQL cost beside the same learners in jitted JAX, one core each?

    python benchmarks/jax_learners.py --peers PEERS/bin/python [--repeats 5] [--out FILE]

Both sides make the full update of the last phase (values, policy, targets, averages, metrics) on 16-d latents and two
actions, with the defaults of `policy.*` and of the learner. phaseb gathers its batches from arrays by NumPy. JAX runs
an epoch as one `lax.scan` with the data on its device, and runs by `vmap` (see `jax_peers.py`). Both start from equal
weights. Before anything is timed, both make the same updates on the same batches and noise, and weights are compared.

Measurements alternate on one core. A ratio is phaseb's updates a second over JAX's within a repeat, by processor time
and by the clock.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from paired import ratio, show, told
from torch import nn

from phaseb.config.policy import PolicyConfig
from phaseb.nn.data_parallel import WorkerContext
from phaseb.policy.batches import RunSpec, to_batches
from phaseb.policy.learner import SACLearner
from phaseb.policy.sac import TEMPERATURE_LR, SoftActorCritic

D, A, ROWS = 16, 2, 50_000
LEARNERS = ("sac", "iql")
UPDATES = {1: 300, 3: 120, 12: 30}
"""Updates of a measurement, by runs together."""
CHECKED = 20
"""Updates after which the weights of both sides are compared."""
CHECKED_RUNS = 3
BARS = {1: 0.9, 3: 1.0, 12: 1.0}
Arrays = dict[str, NDArray[np.float32]]


class Rows:
    """Made-up transitions, a quarter of them synthetic, from which every run draws rows for itself."""

    def __init__(self, runs: int, batch_size: int) -> None:
        rng = np.random.default_rng(0)
        shapes = {"z": (D,), "next_z": (D,), "action": (A,), "reward": ()}
        self.columns = {k: rng.uniform(-1, 1, (ROWS, *shape)).astype(np.float32) for k, shape in shapes.items()}
        self.columns["discount"] = np.full(ROWS, 0.97, np.float32)
        self.columns["is_synthetic"] = (rng.random(ROWS) < 0.25).astype(np.float32)
        self.columns["cut"] = (rng.random(ROWS) < 0.1).astype(np.float32)
        self.columns["weight"] = rng.uniform(0.5, 1.5, ROWS).astype(np.float32)
        self.runs, self.batch_size = runs, batch_size

    def sample(self, step: int, num_batches: int) -> Arrays:
        index = np.random.default_rng(step).integers(0, ROWS, (num_batches, self.runs, self.batch_size))
        return {name: column[index] for name, column in self.columns.items()}

    def of_jax(self) -> Arrays:
        """The columns as the update reads them: the share of real rows, and cuts of synthetic ones alone."""
        columns = dict(self.columns)
        synthetic = columns.pop("is_synthetic")
        return columns | {"real": 1 - synthetic, "cut": synthetic * columns["cut"]}


def make_learner(name: str, runs: int) -> SACLearner:
    """As a run makes it: arms of three seeds."""
    config = PolicyConfig()
    specs = [RunSpec(f"arm{i // 3}", i % 3, learner=name) for i in range(runs)]
    return SACLearner(config, Rows(runs, config.batch_size), specs, WorkerContext(0))


def weights(learner: SACLearner) -> Arrays:
    """Every network's weights and biases by layer, runs first, then critics where there are several."""
    made: dict[str, list[NDArray[np.float32]]] = {}
    for update in learner.updates:
        assert isinstance(update, SoftActorCritic)
        runs = len(update.specs)
        for name in ("actor", "average", "critics", "targets", "value"):
            network: nn.Module | None = getattr(update, name, None)
            if network is None:
                continue
            stack = getattr(network, "stack", network)
            for i, pair in enumerate(zip(stack.weights, stack.biases, strict=True)):
                for k, tensor in enumerate(pair):
                    each = (-1,) if name in ("critics", "targets") else ()
                    shaped = tensor.detach().reshape(runs, *each, *tensor.shape[1:]).numpy().copy()
                    made.setdefault(f"{name}.{i}.{k}", []).append(shaped)
        made.setdefault("log_temperature", []).append(update.log_temperature.detach().numpy().copy())
    return {name: np.concatenate(parts) for name, parts in made.items()}


class Peer:
    """The learners in JAX, in a process of their own on one thread."""

    def __init__(self, python: str, folder: Path) -> None:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("jax_peers.py")), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        )
        assert self.process.stdout.readline().strip() == "ready", "JAX did not start"

    def __call__(self, *words: object) -> tuple[float, float]:
        """Seconds of the processor and of the clock."""
        print(*words, file=self.process.stdin, flush=True)
        processor, clock = map(float, self.process.stdout.readline().split())
        return processor, clock

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def write_material(folder: Path) -> None:
    """What JAX starts from: data, settings, weights, and the batches and noise of the check."""
    config = PolicyConfig()
    np.savez(folder / "data.npz", **Rows(1, config.batch_size).of_jax())
    configs = {}
    for name in LEARNERS:
        own = config.of_learner(name)
        shared = ("batch_size", "critic_lr", "actor_lr", "tau", "actor_ema")
        offline = ("bc_weight", "truncation_pessimism", "iql_expectile", "iql_beta")
        configs[name] = {key: getattr(own, key) for key in shared} | {key: getattr(own.offline, key) for key in offline}
        configs[name]["temperature_lr"] = TEMPERATURE_LR
        for runs in UPDATES:
            np.savez(folder / f"{name}{runs}.npz", **weights(make_learner(name, runs)))
    (folder / "configs.json").write_text(json.dumps(configs))


def check(peer: Peer, folder: Path, name: str) -> float:
    """How far apart the weights of both sides are after the same updates, relative to how far they moved: the network
    that is worst, by Euclidean norms."""
    learner = make_learner(name, CHECKED_RUNS)
    first, start = acting(learner), weights(learner)
    batches = to_batches(learner.source.sample(first, CHECKED), learner.context)
    noises = [learner.updates[0].noise_stream().at(first + i, learner.context) for i in range(CHECKED)]
    columns = ("z", "action", "reward", "next_z", "discount", "real", "weight", "cut")
    given = {key: torch.stack([getattr(batch, key) for batch in batches]).numpy() for key in columns}
    given["noise"] = torch.stack([torch.stack([n.target, n.policy], 1) for n in noises]).numpy()
    np.savez(folder / f"{name}{CHECKED_RUNS}_check.npz", **given)
    for i, (batch, noise) in enumerate(zip(batches, noises, strict=True)):
        learner.updates[0].update(batch, noise, first + i)
    peer("check", name, CHECKED_RUNS)
    ours, theirs = weights(learner), dict(np.load(folder / f"{name}{CHECKED_RUNS}_after.npz"))
    networks = {key.split(".")[0] for key in theirs}

    def distance(network: str, a: Arrays, b: Arrays) -> float:
        return float(np.sqrt(sum(np.square(a[k] - b[k]).sum() for k in theirs if k.split(".")[0] == network)))

    return max(distance(n, ours, theirs) / distance(n, ours, start) for n in networks)


def acting(learner: SACLearner) -> int:
    """The first step of the last phase."""
    return int(max(update.warmup_steps for update in learner.updates))  # type: ignore[attr-defined]


def measure(peer: Peer, name: str, runs: int, repeats: int) -> Mapping[str, Any]:
    """Ratios by processor time and by the clock, and the median milliseconds of an update of each side."""
    learner, length = make_learner(name, runs), UPDATES[runs]
    first = step = acting(learner)
    seconds: dict[str, list[tuple[float, float]]] = {"phaseb": [], "jax": []}
    for repeat in range(repeats + 1):
        begin = time.process_time(), time.perf_counter()
        for _ in range(length):
            learner.step(step)
            step = step + 1 if step + 1 < learner.num_steps else first
        ours = time.process_time() - begin[0], time.perf_counter() - begin[1]
        theirs = peer("epoch", name, runs, length)
        if repeat:
            seconds["phaseb"].append(ours)
            seconds["jax"].append(theirs)
    clocks = [{side: [pair[k] for pair in pairs] for side, pairs in seconds.items()} for k in (0, 1)]
    found: dict[str, Any] = {
        key: ratio(clock, "jax", "phaseb") for key, clock in zip(("processor", "clock"), clocks, strict=True)
    }
    for side, used in clocks[0].items():
        found[f"{side}_ms"] = 1e3 * float(np.median(used)) / length
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="a Python that has jax")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runs", type=int, nargs="+", default=list(UPDATES), choices=list(UPDATES))
    parser.add_argument("--learners", nargs="+", default=list(LEARNERS), choices=LEARNERS)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="that both sides run on")
    parser.add_argument("--out")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    torch.set_num_threads(1)
    rows, result = [], {"benchmark": "jax_learners", "repeats": options.repeats, "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_material(folder)
        peer = Peer(options.peers, folder)
        for learner in options.learners:
            result[f"{learner} check"] = off = check(peer, folder, learner)
            rows.append(
                (f"{learner}: weights apart after the same {CHECKED} updates / their way", f"{off:.1e}", "≤ 0.01")
            )
            for runs in options.runs:
                result[f"{learner} {runs}"] = found = measure(peer, learner, runs, options.repeats)
                times = f"{found['phaseb_ms']:.2f} and {found['jax_ms']:.2f} ms"
                rows.append((f"{learner}, runs: {runs}; {times}", told(found["processor"]), f"≥ {BARS[runs]}"))
                rows.append(("the same by the clock", told(found["clock"]), "–"))
        peer.close()
    title = f"Updates a second, phaseb / JAX, one core, processor time, {options.repeats} repeats"
    show(title, rows, result, options.out)


if __name__ == "__main__":
    main()
