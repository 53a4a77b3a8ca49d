"""What does a GPU give, and what do CUDA graphs, bfloat16, compiled steps and pinned memory give there?

    OMP_NUM_THREADS=1 python benchmarks/accelerator.py [--quick] [--repeats 5] [--compiled] [--out FILE]

Learners at their default sizes, the world model also four times as wide and in batches eight times as large; rollouts
of an ensemble of three over 60 steps. Rates by the clock, the device waited for; every way once a repeat, medians. The
CPU has one thread, as a worker of phaseb has.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from paired import show, timed
from rollout import A, D, T, flops, make_bundle
from training import policy, world_model

from phaseb.config.encoder import LatentsConfig
from phaseb.config.run import TrainingConfig
from phaseb.dynamics.gru_ensemble import model as bundles
from phaseb.dynamics.gru_ensemble.rollout import RolloutEngine
from phaseb.episodes.episode import Episode
from phaseb.latents.learner import make_learner as make_encoder
from phaseb.latents.padding import episode_arrays
from phaseb.nn.data_parallel import WorkerContext
from phaseb.training.compile import compile_steps, precision

WAYS = {
    "float32": {"precision": "float32", "compile": "never", "graphs": "never"},
    "float32, graphs": {"precision": "float32", "compile": "never", "graphs": "auto"},
    "bfloat16, graphs": {"precision": "bfloat16", "compile": "never", "graphs": "auto"},
}
COMPILED = {
    "compiled": {"precision": "float32", "compile": "always", "graphs": "never"},
    "bfloat16, compiled": {"precision": "bfloat16", "compile": "always", "graphs": "never"},
}
CPU = torch.device("cpu")


def waited(device: torch.device, way: Callable[[], Any]) -> Callable[[], Any]:
    def go() -> None:
        way()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return go


def steps(
    make: Callable[[WorkerContext], Any], device: torch.device, way: str, at: int, times: int
) -> Callable[[], None]:
    """`times` steps of a learner on a device; what compiling and capturing take is spent and told before."""
    torch.compiler.reset()
    config = TrainingConfig.model_validate((WAYS | COMPILED)[way])
    learner = make(WorkerContext(0, device=device, graphs=config.graphs == "auto"))
    compile_steps(learner, config, device)

    def go() -> None:
        with precision(config):
            for _ in range(times):
                learner.step(at)

    started = time.perf_counter()
    waited(device, go)()
    print(f"  {way} on {device}: the first {times} steps took {time.perf_counter() - started:.1f} s", flush=True)
    return waited(device, go)


def encoder(context: WorkerContext) -> Any:
    """The default encoder on 50 made-up episodes of a state of 8 numbers."""
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            id=f"e{i}",
            rewards=rng.normal(size=T).astype(np.float32),
            state=rng.normal(size=(T + 1, 8)).cumsum(0).astype(np.float32),
            actions=rng.uniform(-1, 1, (T, A)).astype(np.float32),
        )
        for i in range(50)
    ]
    return make_encoder(LatentsConfig(), episode_arrays(episodes, None, "state"), context)


def learners(device: torch.device, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Steps a second of each learner, each way."""
    wide = {"hidden_size": 512, "head_size": 512, "batch_size": 512}
    ways_there = [*WAYS, *(COMPILED if options.compiled else ())] if device.type == "cuda" else ["float32"]
    makes = {
        "encoder": (encoder, 20, True),
        "world model": (lambda context: world_model(context), 1499, True),
        "world model, wide": (lambda context: world_model(context, **wide), 1499, False),
        "SAC, 1 run": (lambda context: policy(1, context=context), 1, True),
        "SAC, 12 runs": (lambda context: policy(12, context=context), 1, True),
    }
    rates: dict[str, dict[str, float]] = {}
    for name, (make, at, on_cpu) in makes.items():
        print(name, flush=True)
        ways = {}
        if on_cpu:
            ways["CPU"] = steps(make, CPU, "float32", at, 2)
        ways |= {way: steps(make, device, way, at, 5) for way in ways_there}
        seconds = timed(ways, options.repeats, time.perf_counter)
        rates[name] = {way: (2 if way == "CPU" else 5) / statistics.median(s) for way, s in seconds.items()}
        print(f"  steps/s: { ({k: round(v, 1) for k, v in rates[name].items()}) }", flush=True)
    return rates


def without_graphs(model: Any, gp_correction: Any = None) -> RolloutEngine:
    return RolloutEngine(model, gp_correction, graphs=False)


def rollouts(device: torch.device, rows: int, repeats: int, cpu: bool) -> dict[str, float]:
    """Steps a second of `rows` rollouts under recorded actions, an ensemble of three with its disagreement."""
    rng = np.random.default_rng(0)
    z, actions = (torch.from_numpy(rng.normal(size=(rows, *shape)).astype(np.float32)) for shape in ((D,), (T, A)))
    here, there = make_bundle(3), make_bundle(3).to(device)
    z_there, actions_there = z.to(device), actions.to(device)

    def on(bundle: Any, imagination: Any, z: torch.Tensor, actions: torch.Tensor) -> Callable[[], Any]:
        def go() -> None:
            with patch.object(bundles, "RolloutEngine", imagination):
                bundle.rollout(z, actions, T, torch.Generator().manual_seed(0))

        return waited(device, go)

    ways = {
        "eager": on(there, without_graphs, z_there, actions_there),
        "graphs": on(there, RolloutEngine, z_there, actions_there),
    }
    if cpu:
        ways["CPU"] = on(here, RolloutEngine, z, actions)
    seconds = timed(ways, repeats, time.perf_counter)
    found = {way: rows * T / statistics.median(s) for way, s in seconds.items()}
    return found | {"TFLOP/s": 3e-12 * flops(here) * found["graphs"]}


def product_rate(device: torch.device, dtype: torch.dtype, rows: int, width: int) -> float:
    """TFLOP/s of the device's batched product (3, rows, width) by (3, width, width)."""
    x, w = (torch.randn(3, size, width, device=device, dtype=dtype) for size in (rows, width))
    seconds = timed({"product": waited(device, lambda: [torch.bmm(x, w) for _ in range(100)])}, 5, time.perf_counter)
    return 100 * 6e-12 * rows * width * width / statistics.median(seconds["product"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few rows, one repeat: looks whether it works")
    parser.add_argument("--compiled", action="store_true", help="compiled steps too: half a minute each to compile")
    parser.add_argument("--parts", nargs="+", default=["rollouts", "learners"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    options.repeats = 1 if options.quick else options.repeats
    result: dict[str, Any] = {"benchmark": "accelerator", "repeats": options.repeats, "device": str(device)}
    rows = []
    if device.type == "cuda":
        result["device"] = torch.cuda.get_device_name(device)
        result["product TFLOP/s"] = {
            f"{dtype}, {n} rows": product_rate(device, dtype, n, 128)
            for dtype in (torch.float32, torch.bfloat16)
            for n in (1024, 65536)
        }
        print(result["product TFLOP/s"], flush=True)
    if "rollouts" in options.parts:
        for n in (128,) if options.quick else (1024, 8192, 65536):
            found = result[f"rollouts, {n} rows"] = rollouts(device, n, options.repeats, cpu=n <= 8192)
            rows += [(f"rollout steps/s, {n} rows, {way}", f"{rate:,.3g}", "") for way, rate in found.items()]
            print(n, found, flush=True)
    if "learners" in options.parts:
        rates = result["learners steps/s"] = learners(device, options)
        for name, ways in rates.items():
            rows += [(f"{name}, steps/s, {way}", f"{rate:.1f}", "") for way, rate in ways.items()]
    show(f"One {result['device']}, {options.repeats} repeats", rows, result, options.out)


if __name__ == "__main__":
    main()
